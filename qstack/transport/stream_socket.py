"""What the ends of qubit and message streams have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from msgspec import Struct

from qstack.errors import ErrorCode
from qstack.transport import messages
from qstack.transport.calls import Calls
from qstack.transport.context import Context, Reason, reason
from qstack.transport.params import RETRY_NS, RETRY_NS_MAX
from qstack.transport.sockets import Socket
from qstack.transport.stream_states import STREAM, StreamInput, StreamState
from qstack.wire.message import Message


class Name(Struct, frozen=True):
    """Which stream: the far end, the id its opener gave it, and who that is."""

    peer: str
    id: bytes
    is_opener: bool
    port: int
    min_fidelity: float = 0.0


class StreamSocket(Socket, ABC):
    """One end of a stream.

    `closed` is called once, when this end has nothing left to say.
    """

    def __init__(
        self,
        context: Context,
        calls: Calls,
        session: str,
        name: Name,
        closed: Callable[["StreamSocket"], None],
    ) -> None:
        super().__init__(session)
        self.name = name
        self.state = STREAM.start
        self.ended: Reason | None = None  # why the peer's end is no more
        self.is_said = False  # to the peer as it lives now
        self.fates: dict[int, bool] = {}  # of a qubit stream, for its receiver: sequence, is_lost
        self._context = context
        self._calls = calls
        self._closed = closed
        self._retry_ns = RETRY_NS
        self._is_retrying = False
        self._has_progressed = False
        self._prepare()

    def _prepare(self) -> None:
        """Set the empty state of this kind of end."""

    def step(self, received: StreamInput) -> None:
        """Take a transition; the end of the stream is told to `closed`."""
        self.state = STREAM.step(self.state, received)
        if self.state is StreamState.CLOSED:
            self._stop_retrying()
            self._closed(self)

    def say(self, message: Message) -> None:
        """Send to the far end; what is lost with a channel is said again by `resume`."""
        if not self.is_said:
            self.is_said = self._context.channels.is_up(self.name.peer)
        self._context.send(self.name.peer, message)

    def say_close(self, why: Reason) -> None:
        """Tell the far end that this end is no more."""
        self.say(messages.Close(id=self.name.id, error=why.error, detail=why.detail))

    def open(self) -> None:
        """Both ends stand: begin."""
        self.step(StreamInput.OPENED)

    @abstractmethod
    def close(self, why: Reason) -> None:
        """The session lets go of it; its calls end with `why`."""

    @abstractmethod
    def end(self, why: Reason) -> None:
        """The peer's end is no more."""

    def on_close(self, why: Reason) -> None:
        """Close came."""
        self.end(why)

    @abstractmethod
    def resume(self) -> None:
        """The channel is back: say again what was not acknowledged, and that we are there."""

    def resend(self) -> None:
        """Say again what is not acknowledged."""

    def owes(self) -> bool:
        """Whether something is still owed to the peer."""
        return False

    def on_peer_down(self) -> None:
        """The channel is down; calls that may not wait have been withdrawn."""

    def on_device_lost(self) -> None:
        """The qubits are gone."""

    def on_credit(self, message: messages.Credit) -> None:
        """The far end's credit; to one that has nothing to send it is but a sign of life."""

    def violation(self, about: int, detail: str) -> None:
        """The peer broke a rule of the stream: tell it and end the stream."""
        error = messages.Error(name=ErrorCode.OUT_OF_STATE.name, detail=detail, about=about)
        self.say(error)
        why = reason(ErrorCode.OUT_OF_STATE, detail)
        self.say_close(why)
        self.end(why)

    # --- repetition ---

    def _keep_retrying(self) -> None:
        """Arm the repetition if something is unacknowledged and it is not armed."""
        if not self._is_retrying:
            self._is_retrying = True
            self._arm()

    def _progress(self, *, is_settled: bool) -> None:
        """The peer has answered: repeat no sooner than RETRY_NS, or not at all."""
        self._retry_ns = RETRY_NS
        self._has_progressed = True
        if is_settled:
            self._stop_retrying()

    def _stop_retrying(self) -> None:
        if self._is_retrying:
            self._is_retrying = False
            self._context.cancel_timer(self._key)

    @property
    def _key(self) -> str:
        side = "opener" if self.name.is_opener else "acceptor"
        return f"retry/{side}/{self.name.peer}/{self.name.id.hex()}"

    def _arm(self) -> None:
        self._context.set_timer(self._key, self._context.now + self._retry_ns, self._on_retry)

    def _on_retry(self) -> None:
        if not self._context.channels.is_up(self.name.peer):
            self._is_retrying = False  # `resume` begins anew
            return
        if not self._has_progressed:
            self._retry_ns = min(2 * self._retry_ns, RETRY_NS_MAX)
            self.resend()
        self._has_progressed = False
        self._arm()
