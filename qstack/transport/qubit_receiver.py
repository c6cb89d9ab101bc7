"""The receiving end of a qubit stream: credits, halves, corrections, delivery in order.

Rules
1. An open ReceiveQubit is a credit: a sequence more. A credit is not taken back; a qubit that comes
   when no call waits is held for the next one. Few of many credits are not worth a message.
2. Correction and our half come in either order. A Correction names the pair: it is applied to no
   other half.
3. The fate of a sequence is decided here, once, and said again as often as it is asked for. It is
   acknowledged when the qubit is in this layer's hands, corrected.
4. Skipped sequences are not seen by the session: `QubitArrived.sequence` counts the others.
"""

from collections import OrderedDict

from qstack.errors import ErrorCode
from qstack.transport import messages, service
from qstack.transport.calls import Call
from qstack.transport.context import BoundedDict, Reason, reason
from qstack.transport.params import CREDIT_SHARE, FATES_MAX
from qstack.transport.qubit_halves import HalvesOfStream
from qstack.transport.qubit_states import RECEIVING, ReceivingInput, ReceivingState
from qstack.transport.stream_socket import StreamSocket
from qstack.transport.stream_states import StreamInput, StreamState

_FATES = (ReceivingState.ARRIVED, ReceivingState.LOST, ReceivingState.SKIPPED)
_LOST = reason(ErrorCode.LOST, "the qubit was consumed and did not arrive")


class Arrival:
    """One sequence."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.state = RECEIVING.start
        self.qubit: bytes | None = None
        self.correction: messages.Correction | None = None
        self.why_lost = _LOST

    def step(self, received: ReceivingInput) -> None:
        """Take a transition."""
        self.state = RECEIVING.cells[self.state, received]


class QubitReceiver(StreamSocket):
    """The end of a qubit stream that accepted it."""

    _waiting: OrderedDict[int, Call]
    _halves: HalvesOfStream
    _arrivals: dict[int, Arrival]
    _next: int
    _allowed: int
    _allowed_said: int
    _unused: int
    _live: int
    _taken: int

    def _prepare(self) -> None:
        self._waiting = OrderedDict()
        self._halves = HalvesOfStream(self._context, self.name, self._on_half, self._on_no_half)
        self._arrivals = {}  # every sequence from _next to _allowed
        self._next = 0  # the sequence the session gets next
        self._allowed = 0
        self._allowed_said = 0
        self._unused = 0  # sequences said to be allowed and not heard of
        self._live = 0  # sequences not skipped and not taken
        self._taken = 0
        self.fates = BoundedDict(FATES_MAX)

    def open(self) -> None:
        """Know the requests to come."""
        super().open()
        if not self._halves.expect():
            self.violation(messages.OpenStream.TYPE, "a request of this stream's id is known")

    def receive(self, message: service.ReceiveQubit) -> None:
        """ReceiveQubit: the next qubit in order."""
        call = self._calls.open(
            self.session,
            message.call,
            within_ns=message.within_ns,
            withdraw=self._withdraw,
            peer=None if self.ended is not None else self.name.peer,
        )
        if call is not None:
            self._waiting[call.number] = call
            self._pump()

    # --- from the sender ---

    def on_correction(self, message: messages.Correction) -> None:
        """A qubit has been measured into the pair."""
        arrival = self._arrival(message)
        if arrival is None or arrival.state is not ReceivingState.ALLOWED:
            return
        self._unused -= 1
        arrival.step(ReceivingInput.CORRECTION)
        arrival.correction = message
        self._halves.take(message.request, message.pair, arrival)

    def on_lost(self, message: messages.Lost) -> None:
        """A qubit has been consumed in vain."""
        arrival = self._arrival(message)
        if arrival is not None:
            self._unused -= arrival.state is ReceivingState.ALLOWED
            self._halves.drop(message.request, message.pair)
            self._decide(arrival, ReceivingInput.LOST)

    def on_skipped(self, message: messages.Skipped) -> None:
        """No qubit has been consumed."""
        arrival = self._arrival(message)
        if arrival is None:
            return
        if not RECEIVING.allows(arrival.state, ReceivingInput.SKIPPED):
            self.violation(message.TYPE, "skipped after its correction")
            return
        self._unused -= 1
        self._live -= 1
        self._halves.drop(message.request, message.pair)
        self._decide(arrival, ReceivingInput.SKIPPED)

    def on_over(self, message: messages.RequestsOver) -> None:
        """Nothing more is said of the pairs of some requests."""
        if self.ended is None and not self._halves.over(message.below):
            self.violation(message.TYPE, f"requests below {message.below} cannot be over")

    def _arrival(
        self, message: messages.Correction | messages.Lost | messages.Skipped
    ) -> Arrival | None:
        """The undecided sequence; one with a fate is acknowledged again."""
        is_lost = self.fates.get(message.sequence)
        if is_lost is not None:
            self._acknowledge(message.sequence, is_lost=is_lost)
            return None
        if self.ended is not None:
            return None
        arrival = self._arrivals.get(message.sequence)
        if arrival is None:
            detail = f"sequence {message.sequence}, but {self._allowed} are allowed"
            self.violation(message.TYPE, detail)
        elif not self._halves.knows(message.request):
            self.violation(message.TYPE, f"the stream has no request {message.request} yet")
            return None
        return arrival

    # --- a sequence's way ---

    def _on_half(self, arrival: Arrival, qubit: bytes) -> None:
        """Our half of the pair that its correction names."""
        assert arrival.correction is not None
        arrival.qubit = qubit
        self._context.correct(qubit, arrival.correction.x_bit, arrival.correction.z_bit)
        self._decide(arrival, ReceivingInput.HALF)

    def _on_no_half(self, arrival: Arrival) -> None:
        """Our half is gone, or will not come."""
        self._decide(arrival, ReceivingInput.NO_HALF)

    def _decide(self, arrival: Arrival, received: ReceivingInput) -> None:
        """The fate of a sequence: tell it."""
        arrival.step(received)
        is_lost = arrival.state is not ReceivingState.ARRIVED
        self.fates[arrival.sequence] = is_lost
        self._acknowledge(arrival.sequence, is_lost=is_lost)
        self._pump()

    def _acknowledge(self, sequence: int, *, is_lost: bool) -> None:
        acknowledged = messages.Acknowledged(
            stream=self.name.id, sequence=sequence, is_lost=is_lost
        )
        self.say(acknowledged)

    # --- to the session ---

    def _pump(self) -> None:
        """Hand over what is decided, in order; then allow what is still waited for."""
        while (arrival := self._arrivals.get(self._next)) is not None:
            if arrival.state not in _FATES:
                break
            is_skipped = arrival.state is ReceivingState.SKIPPED
            if not (self._waiting or is_skipped):
                break
            del self._arrivals[self._next]
            self._next += 1
            if not is_skipped:
                self._hand_over(arrival)
        if self.ended is not None and self._next not in self._arrivals:
            while self._waiting:
                self._calls.fail(self._waiting.popitem(last=False)[1], self.ended)
        elif self.state is StreamState.OPEN:
            self._allow(len(self._waiting) - self._live)

    def _hand_over(self, arrival: Arrival) -> None:
        _, call = self._waiting.popitem(last=False)
        self._live -= 1
        if arrival.qubit is None:
            self._calls.fail(call, arrival.why_lost)
        else:
            self._calls.give(call, arrival.qubit)
            arrived = service.QubitArrived(
                call=call.number, qubit=arrival.qubit, sequence=self._taken
            )
            self._calls.answer(call, arrived)
        self._taken += 1

    def _allow(self, more: int) -> None:
        if more > 0:
            for sequence in range(self._allowed, self._allowed + more):
                self._arrivals[sequence] = Arrival(sequence)
            self._allowed += more
            self._live += more
        self._halves.room = self._live
        untold = self._allowed - self._allowed_said
        if untold and untold * CREDIT_SHARE >= self._unused:
            self._unused += untold
            self._say_credit()

    def _say_credit(self) -> None:
        self._allowed_said = self._allowed
        credit = messages.Credit(stream=self.name.id, received=self._next, allowed=self._allowed)
        self.say(credit)

    # --- ends ---

    def _withdraw(self, call: Call, why: Reason) -> None:
        del self._waiting[call.number]
        self._calls.fail(call, why)

    def close(self, why: Reason) -> None:
        """Nothing is taken any more."""
        if self.state is StreamState.OPEN:
            self.say_close(reason(ErrorCode.CLOSED))
        self._void_all(why, is_everything=True)
        while self._waiting:
            self._calls.fail(self._waiting.popitem(last=False)[1], why)
        self.step(StreamInput.CLOSE)

    def end(self, why: Reason) -> None:
        """What has arrived can be taken; the rest will not come."""
        if self.ended is None:
            self.ended = why
        self._void_all(why, is_everything=False)
        for call in self._waiting.values():
            call.peer = None
        self.step(StreamInput.ENDED)
        self._pump()

    def _void_all(self, why: Reason, *, is_everything: bool) -> None:
        self._halves.end()
        for arrival in list(self._arrivals.values()):
            if is_everything and arrival.qubit is not None:
                self._context.free(arrival.qubit)
            if arrival.state not in _FATES:
                self.fates[arrival.sequence] = True
                arrival.step(ReceivingInput.LOST)
                arrival.why_lost = why
                del self._arrivals[arrival.sequence]
                self._live -= 1
        if is_everything:
            self._arrivals.clear()
        else:
            # What is left has a fate: close the gaps, so that it can be taken in order.
            left = [each for _, each in sorted(self._arrivals.items())]
            self._arrivals = {self._next + place: each for place, each in enumerate(left)}

    def resume(self) -> None:
        """Say again how much is allowed."""
        if self.ended is None:
            self._unused += self._allowed - self._allowed_said
            self._say_credit()

    def on_device_lost(self) -> None:
        """Halves and untaken qubits are gone; calls end, credits stand."""
        self._halves.on_device_lost()
        for arrival in list(self._arrivals.values()):
            if arrival.state is ReceivingState.ARRIVED:
                arrival.step(ReceivingInput.NO_HALF)
                arrival.qubit = None
        while self._waiting:
            self._calls.fail(self._waiting.popitem(last=False)[1], reason(ErrorCode.DEVICE_LOST))
