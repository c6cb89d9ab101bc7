"""Both ends of a message stream: opaque messages, in order, exactly once, under a window.

Rules
1. A receiver allows MESSAGE_WINDOW messages beyond those its session has taken.
2. A SendMessage is finished when its message is sent within the window. The message is kept until
   the receiver has it, and sent again when the same peer comes back.
3. Credits are said every CREDIT_STEP messages taken or received: a quarter of the window, so the
   sender of a stream that is read does not stop.
4. An end that its session closes sends Close behind its messages and lingers until the far end
   has answered that it has them all.
"""

from collections import OrderedDict, deque

from qstack.errors import ErrorCode
from qstack.transport import messages, service
from qstack.transport.calls import Call
from qstack.transport.context import Reason, reason
from qstack.transport.params import (
    CREDIT_STEP,
    MESSAGE_WINDOW,
    MESSAGES_UNACKNOWLEDGED_MAX,
)
from qstack.transport.stream_socket import StreamSocket
from qstack.transport.stream_states import StreamInput, StreamState


class MessageStream(StreamSocket):
    """One end of a message stream; both ends are alike."""

    def _prepare(self) -> None:
        self._sends: OrderedDict[int, tuple[Call, bytes]] = OrderedDict()
        self._unacknowledged: deque[messages.Data] = deque()
        self._sent = 0
        self._may_send = 0
        self._receives: OrderedDict[int, Call] = OrderedDict()
        self._arrived: deque[bytes] = deque()
        self._received = 0
        self._taken = 0
        self._said_received = 0
        self._said_allowed = 0
        self._is_close_answered = False  # on the channel as it is now

    def open(self) -> None:
        """Both ends stand: allow the first window."""
        super().open()
        self._say_credit()

    def send(self, message: service.SendMessage) -> None:
        """SendMessage: send now, or when the window allows."""
        call = self._calls.open(
            self.session,
            message.call,
            within_ns=message.within_ns,
            withdraw=self._withdraw,
            peer=self.name.peer if self.ended is None else None,
        )
        if call is None:
            return
        if self.ended is not None:
            self._calls.fail(call, self.ended)
            return
        self._sends[call.number] = (call, message.data)
        self._send_allowed()

    def receive(self, message: service.ReceiveMessage) -> None:
        """ReceiveMessage: the next message in order."""
        call = self._calls.open(
            self.session,
            message.call,
            within_ns=message.within_ns,
            withdraw=self._withdraw,
            peer=self.name.peer if self.ended is None else None,
        )
        if call is not None:
            self._receives[call.number] = call
            self._pump()

    # --- from the peer ---

    def on_credit(self, message: messages.Credit) -> None:
        """The peer has messages, and room."""
        if message.received > self._sent:
            self.violation(message.TYPE, f"{self._sent} messages were sent")
            return
        first = self._sent - len(self._unacknowledged)
        for _ in range(first, message.received):
            self._unacknowledged.popleft()
        self._may_send = max(self._may_send, message.allowed)
        self._send_allowed()
        if self.state is StreamState.LINGERING and not self._unacknowledged:
            self.step(StreamInput.SETTLED)

    def on_data(self, message: messages.Data) -> None:
        """A message, perhaps not for the first time."""
        if self.state is StreamState.LINGERING:
            return  # the session takes nothing any more, and the peer has been told
        if message.sequence < self._received or self.ended is not None:
            return
        if message.sequence > self._received or message.sequence >= self._said_allowed:
            detail = f"expected message {self._received}, {self._said_allowed} are allowed"
            self.violation(message.TYPE, detail)
            return
        self._received += 1
        self._arrived.append(message.data)
        self._pump()

    # --- moving ---

    def _send_allowed(self) -> None:
        while (
            self._sends
            and self._sent < self._may_send
            and len(self._unacknowledged) < MESSAGES_UNACKNOWLEDGED_MAX
        ):
            _, (call, data) = self._sends.popitem(last=False)
            message = messages.Data(stream=self.name.id, sequence=self._sent, data=data)
            self._sent += 1
            self._unacknowledged.append(message)
            self.say(message)
            self._calls.finish(call)

    def _pump(self) -> None:
        while self._arrived and self._receives:
            _, call = self._receives.popitem(last=False)
            data = self._arrived.popleft()
            self._taken += 1
            self._calls.answer(call, service.MessageArrived(call=call.number, data=data))
        if self.ended is not None:
            self._fail_all(self.ended)
        elif (
            self._received - self._said_received >= CREDIT_STEP
            or self._taken + MESSAGE_WINDOW - self._said_allowed >= CREDIT_STEP
        ):
            self._say_credit()

    def _say_credit(self) -> None:
        self._said_received = self._received
        self._said_allowed = self._taken + MESSAGE_WINDOW
        credit = messages.Credit(
            stream=self.name.id,
            received=self._said_received,
            allowed=self._said_allowed,
        )
        self.say(credit)

    # --- ends ---

    def _withdraw(self, call: Call, why: Reason) -> None:
        self._sends.pop(call.number, None)
        self._receives.pop(call.number, None)
        self._calls.fail(call, why)

    def _fail_all(self, why: Reason) -> None:
        while self._receives:
            self._calls.fail(self._receives.popitem(last=False)[1], why)
        while self._sends:
            self._calls.fail(self._sends.popitem(last=False)[1][0], why)

    def owes(self) -> bool:
        """Whether messages have been sent that the peer has not said it has."""
        return bool(self._unacknowledged)

    def close(self, why: Reason) -> None:
        """The session is done; what it has sent still arrives."""
        self._arrived.clear()
        self._fail_all(why)
        if self.state is not StreamState.DRAINING:
            self.say_close(reason(ErrorCode.CLOSED))
        is_owing = self.owes() and self.state is StreamState.OPEN
        self.step(StreamInput.CLOSE_OWING if is_owing else StreamInput.CLOSE)

    def end(self, why: Reason) -> None:
        """The peer sends and takes nothing any more; what has arrived can be taken."""
        if self.ended is None:
            self.ended = why
        self._unacknowledged.clear()
        for call in self._receives.values():
            call.peer = None
        self.step(StreamInput.ENDED)
        self._pump()

    def on_close(self, why: Reason) -> None:
        """Close came, behind all messages: say that they are here, a lingering peer waits.

        Once a channel: a peer that has closed answers Credit with Close, and has all it waits for.
        """
        self.end(why)
        if self.state is StreamState.DRAINING and not self._is_close_answered:
            self._is_close_answered = True
            self._say_credit()

    def on_peer_down(self) -> None:
        """A lingering peer says its Close again on the next channel."""
        self._is_close_answered = False

    def resume(self) -> None:
        """Send again what the peer has not said it has; say again what we have."""
        if self.ended is not None:
            return
        for message in self._unacknowledged:
            self.say(message)
        if self.state is StreamState.LINGERING:
            self.say_close(reason(ErrorCode.CLOSED))
        else:
            self._say_credit()
