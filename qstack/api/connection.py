"""The connection of an application with its node: one Unix socket, many open calls.

Rules
1. Nothing is written when it is called, but when all tasks wait (see `idleness`): the calls of such
   a burst in the order of (port, object, task, sequence), numbered in that order, then Idle with
   the number of messages received.
2. In the middle of a frame the application is not idle: what the node sent together is seen
   together.
3. A call whose task is cancelled is withdrawn. What arrives for it all the same is given back:
   qubits are freed, sockets closed.
4. When the connection ends every open call raises `NodeGone`, and so does every later one.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar, cast, get_args

import trio
import trio.lowlevel

from qstack.api.call import CALL, PARTIAL, RELEASE, Answer, Call, Saying, Subject
from qstack.api.errors import NodeGone, NoNode, QstackError, error_of
from qstack.api.idleness import idleness, place
from qstack.errors import ErrorCode, PeerError
from qstack.physical import service as physical
from qstack.runtime import session_messages as session
from qstack.transport import service as transport
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import BULK_BYTES_MAX, FrameReader, pack
from qstack.wire.message import Message
from qstack.wire.session import Stamp

A = TypeVar("A", bound=Message)

READ_BYTES: Final = 65_536
BATCH_BYTES_MAX: Final = 4 * 2**20  # read at once; then other tasks have their turn
ATTACH_LIMIT_S: Final = 10.0  # wall time: a node answers Attach at once
FAREWELL_LIMIT_S: Final = 1.0  # wall time for the last words of a session

_registry: Final = Registry(
    (
        *get_args(Answer), transport.PairVoid, physical.DeviceLost, physical.DeviceReady,
        session.Attached, session.SessionError, Stamp,
    )
)  # fmt: skip
"""What a node may say to an application."""


class Connection:
    """One session. `on_void` and `on_device_lost` hear what the node indicates."""

    def __init__(
        self,
        path: Path,
        *,
        on_void: Callable[[transport.PairVoid], None],
        on_device_lost: Callable[[], None],
    ) -> None:
        self.path = path
        self.now_ns = 0
        self.received = 0  # messages of the node
        self.attached: session.Attached | None = None
        self._on_void = on_void
        self._on_device_lost = on_device_lost
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(0)
        self._reader = FrameReader(BULK_BYTES_MAX)
        self._calls: dict[int, Call] = {}
        self._said = 0  # calls numbered so far
        self._sequence = 0
        self._burst: dict[Saying | Call, Saying] = {}
        self._unsent = b""
        self._idle_said = -1  # the count of the last Idle
        self._end: tuple[str, str] | None = None  # why there is no connection any more
        self._attaching = trio.Event()
        self._watcher = idleness()
        self._is_watched = False
        self._token = trio.lowlevel.current_trio_token()
        self._sending = trio.Event()
        self._sent = trio.Event()

    # --- beginning and end -----------------------------------------------------------------------

    async def open(self, application: str, *, is_observer: bool) -> None:
        """Connect and attach. Raises `NoNode`, or what the node refuses with."""
        place()
        self._connect()
        attach = session.Attach(application=application, versions=[1], is_observer=is_observer)
        self._send(pack(encode(attach)))
        trio.lowlevel.spawn_system_task(self._read)
        trio.lowlevel.spawn_system_task(self._send_rest)
        try:
            with trio.move_on_after(ATTACH_LIMIT_S):
                await self._attaching.wait()
        except trio.Cancelled:
            self._finish(ErrorCode.CLOSED.name, "cancelled while it was opened")
            raise
        if self._end is None and self.attached is None:
            self._finish(NoNode.default_code, f"{self.path}: no answer for {ATTACH_LIMIT_S:g} s")
            raise NoNode(f"{self.path}: no answer for {ATTACH_LIMIT_S:g} s")
        if self._end is not None:
            raise error_of(*self._end)
        self._watcher.add(self)
        self._is_watched = True

    def _connect(self) -> None:
        try:
            self._socket.connect(str(self.path))
        except OSError as error:
            self._socket.close()
            raise NoNode(
                f"no node answers at {self.path} ({error.strerror or error});"
                " it has stopped, or QSTACK_NODE names something else"
            ) from error

    async def aclose(self) -> None:
        """Say what is still to be said, and end the session; its node frees all it has."""
        if self._end is not None:
            return
        try:
            with trio.move_on_after(FAREWELL_LIMIT_S, shield=True):
                await self._all_sent()
                self._say_burst()
                await self._all_sent()
        finally:
            self._finish(ErrorCode.CLOSED.name, "the connection to the node was closed here")

    async def _all_sent(self) -> None:
        while self._unsent and self._end is None:
            self._sent = trio.Event()
            await self._sent.wait()

    def _finish(self, error: str, detail: str) -> None:
        """No more is read or written; everybody who waits is told."""
        if self._end is not None:
            return
        self._end = (error, detail)
        if self._is_watched:
            self._watcher.remove(self)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._attaching.set()
        self._sending.set()
        self._sent.set()
        for saying in self._burst.values():
            if saying.call is not None:
                saying.call.wake()
        self._burst.clear()
        for call in self._calls.values():
            call.wake()
        self._calls.clear()

    def _gone(self) -> QstackError:
        assert self._end is not None
        error, detail = self._end
        return NodeGone(detail or error, code=error)

    # --- calling ---------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Let a call be said. Raises `NodeGone`."""
        if self._end is not None:
            raise self._gone()
        self._burst[call] = Saying(self._key(CALL, call.subject), call, ())

    def say(self, subject: Subject, *messages: Message) -> None:
        """Say something that has no answer; nothing happens if the connection has ended."""
        if self._end is None:
            saying = Saying(self._key(RELEASE, subject), None, messages)
            self._burst[saying] = saying

    def _key(self, rank: int, subject: Subject) -> tuple[int, Subject, tuple[int, ...], int]:
        self._sequence += 1
        return (rank, subject, place(), self._sequence)

    async def take(self, call: Call) -> Answer:
        """The next answer of a started call. Raises `NodeGone` or what the call failed with."""
        try:
            if call.answers:  # other tasks have their turn when what has come is taken
                await trio.lowlevel.checkpoint_if_cancelled()
            while not call.answers:
                if self._end is not None:
                    raise self._gone()
                await call.parked()
        except (trio.Cancelled, KeyboardInterrupt):
            self.withdraw(call)
            raise
        answer = call.answers.pop(0)
        if isinstance(answer, transport.Failed):
            raise error_of(answer.error, answer.detail, answer.best)
        if isinstance(answer, physical.CallFailed):
            raise error_of(answer.error, answer.detail)
        return answer

    async def ask(self, call: Call, kind: type[A]) -> A:
        """Start a call and take its one answer, which is a `kind`."""
        self.start(call)
        answer = await self.take(call)
        if not isinstance(answer, kind):
            raise NodeGone(f"the node answered {type(answer).__name__}", code="OUT_OF_STATE")
        return answer

    def withdraw(self, call: Call) -> None:
        """Give a call up, and give back what came or comes for it."""
        if call.is_withdrawn:
            return
        call.is_withdrawn = True
        was_said = self._burst.pop(call, None) is None
        if was_said and call.number in self._calls and call.withdraw is not None:
            message = call.withdraw(call.number)
            self.say(call.subject, message)
            if isinstance(message, session.CancelSleep):
                del self._calls[call.number]  # no answer will come
        answers, call.answers = call.answers, []
        for answer in answers:
            call.late(answer)

    def answer_instead(self, call: Call, answer: Answer, withdrawn: Call) -> None:
        """Give the waiting `call` an answer to another that was withdrawn, and withdraw it.

        What the node still answers to `call` goes the way of `withdrawn`.
        """
        if self._burst.pop(call, None) is None and call.number in self._calls:
            call.number, withdrawn.number = withdrawn.number, call.number
            self._calls[withdrawn.number] = withdrawn
            self.say(call.subject, transport.CancelCall(call=withdrawn.number))
        call.put(answer)

    def give_back(self, answer: Answer, port: int = -1) -> None:
        """Give back what an answer brought that nobody takes."""
        match answer:
            case (
                transport.PairDelivered(qubit=qubit)
                | transport.QubitArrived(qubit=qubit)
                | physical.Allocated(qubit=qubit)
            ):
                self.say(Subject(port, "qubit", name=qubit), physical.Free(qubit=qubit))
            case transport.Opened(socket=number) | transport.Accepted(socket=number):
                self.say(Subject(port, "socket", number), transport.CloseSocket(socket=number))
            case _:
                pass

    # --- writing ---------------------------------------------------------------------------------

    def on_waiting(self) -> None:
        """All tasks of the application wait: say what they called, and Idle."""
        is_news = self._burst or self.received != self._idle_said
        if is_news and not self._unsent and self._reader.is_empty and self._end is None:
            self._say_burst()

    def on_hold(self) -> None:
        """The application is busy from now on, until it next says Idle."""
        if self._end is None:
            self._send(pack(encode(session.Busy())))
            self._idle_said = -1

    def _say_burst(self) -> None:
        frames: list[bytes] = []
        for saying in sorted(self._burst.values(), key=lambda saying: saying.key):
            messages = saying.messages
            call = saying.call
            if call is not None:
                call.number = self._said
                self._calls[call.number] = call
                self._said += 1
                messages = call.make(call.number)
            frames += [pack(encode(message)) for message in messages]
        self._burst.clear()
        frames.append(pack(encode(session.Idle(received=self.received))))
        self._idle_said = self.received
        self._send(b"".join(frames))

    def _send(self, data: bytes) -> None:
        """Write what the socket takes; the rest is left to `_send_rest`."""
        view = memoryview(self._unsent + data)
        try:
            while view:
                view = view[self._socket.send(view) :]
        except BlockingIOError:
            # This may run inside trio's instrument, where nothing can be scheduled.
            self._token.run_sync_soon(self._sending.set)
        except OSError:
            view = view[:0]  # the reading side learns it, and why
        self._unsent = bytes(view)

    async def _send_rest(self) -> None:
        with suppress(trio.ClosedResourceError):
            while self._end is None:
                await self._sending.wait()
                self._sending = trio.Event()
                while self._unsent and self._end is None:
                    await trio.lowlevel.wait_writable(self._socket)
                    self._send(b"")
                self._sent.set()

    # --- reading ---------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read until the connection ends."""
        try:
            while self._end is None:
                await trio.lowlevel.wait_readable(self._socket)
                data, is_end = self._receive()
                for frame in self._reader.cut(data):
                    message = _registry.decode(frame)
                    if message is not None:
                        self._on_message(message)
                if is_end:
                    self._finish("PEER_DOWN", "the node closed the connection")
        except trio.ClosedResourceError:
            pass
        except PeerError as error:
            self._finish(error.code.name, f"the node broke a rule: {error}")
        finally:
            self._finish(ErrorCode.CLOSED.name, "the program is ending")

    def _receive(self) -> tuple[bytes, bool]:
        """All that is there, and whether it is the end."""
        pieces: list[bytes] = []
        size = 0
        while size < BATCH_BYTES_MAX:
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                return b"".join(pieces), False
            except OSError:
                data = b""  # a reset is an end
            if not data:
                return b"".join(pieces), True
            pieces.append(data)
            size += len(data)
            if len(data) < READ_BYTES:
                break  # there was no more
        return b"".join(pieces), False

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Stamp):
            self.now_ns = message.at_ns
            return
        self.received += 1
        match message:
            case transport.PairVoid():
                self._on_void(message)
            case physical.DeviceLost():
                self._on_device_lost()
            case physical.DeviceReady():
                pass
            case session.Attached():
                self.attached = message
                self._attaching.set()
            case session.SessionError(error=error, detail=detail):
                self._finish(error, detail)
            case _:  # no more is in the registry
                self._on_answer(cast("Answer", message))

    def _on_answer(self, answer: Answer) -> None:
        call = self._calls.get(answer.call)
        if call is None:
            return  # a sleep that ended while it was withdrawn
        if not isinstance(answer, PARTIAL):
            del self._calls[answer.call]
        call.put(answer)
