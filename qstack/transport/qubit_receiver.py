"""The receiving end of a qubit stream: credits, halves, corrections, delivery in order.

Rules
1. An open ReceiveQubit is a credit: a sequence, and a fresh network request for its pair. A credit
   is not taken back; a qubit that comes when no call waits is held for the next one.
2. Correction and our half come in either order. A Correction names the pair: it is applied to no
   other half.
3. The fate of a sequence is decided here, once, and said again as often as it is asked for. It is
   acknowledged when the qubit is in this layer's hands, corrected.
4. Skipped sequences are not seen by the session: `QubitArrived.sequence` counts the others.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from qstack.errors import ErrorCode
from qstack.network import service as network
from qstack.transport import messages, service
from qstack.transport.calls import Call
from qstack.transport.context import BoundedDict, Reason, reason
from qstack.transport.params import FATES_MAX
from qstack.transport.qubit_states import RECEIVING, ReceivingInput, ReceivingState
from qstack.transport.stream_socket import StreamSocket
from qstack.transport.stream_states import StreamInput, StreamState

if TYPE_CHECKING:
    from qstack.ids import PairId

_FATES = (ReceivingState.ARRIVED, ReceivingState.LOST, ReceivingState.SKIPPED)
_LOST = reason(ErrorCode.LOST, "the qubit was consumed and did not arrive")


class Arrival:
    """One sequence; the user of its network request at the tail."""

    def __init__(self, receiver: "QubitReceiver", sequence: int, request: bytes) -> None:
        self._receiver = receiver
        self.sequence = sequence
        self.request = request
        self.state = RECEIVING.start
        self.qubit: bytes | None = None
        self.pair: PairId | None = None
        self.pair_bits = (0, 0)
        self.correction: messages.Correction | None = None
        self.why_lost = _LOST

    def step(self, received: ReceivingInput) -> None:
        """Take a transition."""
        self.state = RECEIVING.step(self.state, received)

    def on_pair(self, message: network.EndPair) -> None:
        """Our half."""
        self._receiver.on_pair(self, message)

    def on_measured(self, message: network.EndMeasured) -> None:
        """Never asked for."""

    def on_expired(self, message: network.EndPairExpired) -> None:
        """Our half is void."""
        if message.pair == self.pair:
            self._receiver.on_void(self)

    def on_done(self) -> None:
        """Nothing to do, unless the pair is missing."""
        if self.qubit is None:
            self._receiver.on_void(self)

    def on_failed(self, _why: Reason) -> None:
        """No half will come; the sender says what that means for its qubit."""
        self._receiver.on_void(self)


class QubitReceiver(StreamSocket):
    """The end of a qubit stream that accepted it."""

    _waiting: OrderedDict[int, Call]
    _arrivals: dict[int, Arrival]
    _next: int
    _allowed: int
    _live: int
    _taken: int

    def _prepare(self) -> None:
        self._waiting = OrderedDict()
        self._arrivals = {}  # every sequence from _next to _allowed
        self._next = 0  # the sequence the session gets next
        self._allowed = 0
        self._live = 0  # sequences not skipped and not taken
        self._taken = 0
        self.fates = BoundedDict(FATES_MAX)

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
        """The qubit has been measured into the pair."""
        arrival = self._arrival(message.sequence, message.TYPE)
        if arrival is None:
            return
        if arrival.state is ReceivingState.HOLDING and arrival.pair != message.pair:
            self._decide(arrival, ReceivingInput.CORRECTION_OTHER)
            return
        arrival.correction = message
        if arrival.state is ReceivingState.HOLDING:
            self._arrive(arrival, ReceivingInput.CORRECTION)
        else:
            self._decide(arrival, ReceivingInput.CORRECTION)

    def on_lost(self, message: messages.Lost) -> None:
        """The qubit has been consumed in vain."""
        arrival = self._arrival(message.sequence, message.TYPE)
        if arrival is not None:
            self._decide(arrival, ReceivingInput.LOST)

    def on_skipped(self, message: messages.Skipped) -> None:
        """No qubit has been consumed."""
        arrival = self._arrival(message.sequence, message.TYPE)
        if arrival is None:
            return
        if not RECEIVING.allows(arrival.state, ReceivingInput.SKIPPED):
            self.violation(message.TYPE, "skipped after its correction")
            return
        self._live -= 1
        self._decide(arrival, ReceivingInput.SKIPPED)

    def _arrival(self, sequence: int, about: int) -> Arrival | None:
        """The undecided sequence; one with a fate is acknowledged again."""
        is_lost = self.fates.get(sequence)
        if is_lost is not None:
            self._acknowledge(sequence, is_lost=is_lost)
            return None
        arrival = self._arrivals.get(sequence)
        if arrival is None and self.ended is None:
            self.violation(about, f"sequence {sequence}, but {self._allowed} are allowed")
        return arrival if self.ended is None else None

    # --- a sequence's way ---

    def on_pair(self, arrival: Arrival, message: network.EndPair) -> None:
        """Our half came."""
        if (
            arrival.qubit is not None
            or not RECEIVING.allows(arrival.state, ReceivingInput.PAIR)
            or message.kind != "keep"
        ):
            self._context.free(message.qubit)
            return
        arrival.qubit, arrival.pair = message.qubit, message.pair
        arrival.pair_bits = (message.x_bit, message.z_bit)
        self._context.hold(message.qubit)
        correction = arrival.correction
        if correction is None:
            arrival.step(ReceivingInput.PAIR)
        elif correction.pair == message.pair:
            self._arrive(arrival, ReceivingInput.PAIR)
        else:
            self._decide(arrival, ReceivingInput.PAIR_VOID)

    def on_void(self, arrival: Arrival) -> None:
        """Our half is gone, or will not come."""
        if arrival.state in _FATES:
            return
        self._drop_half(arrival)
        self._decide(arrival, ReceivingInput.PAIR_VOID)

    def _arrive(self, arrival: Arrival, received: ReceivingInput) -> None:
        assert arrival.qubit is not None
        assert arrival.correction is not None
        self._context.correct(arrival.qubit, arrival.correction.x_bit, arrival.correction.z_bit)
        self._decide(arrival, received)

    def _decide(self, arrival: Arrival, received: ReceivingInput) -> None:
        """Take a transition and, if it decides the fate, tell it."""
        arrival.step(received)
        if arrival.state not in _FATES:
            return
        is_lost = arrival.state is not ReceivingState.ARRIVED
        if is_lost:
            self._drop_half(arrival)
        self._context.end_request(arrival.request, cancel=False)
        self.fates[arrival.sequence] = is_lost
        self._acknowledge(arrival.sequence, is_lost=is_lost)
        self._pump()

    def _drop_half(self, arrival: Arrival) -> None:
        if arrival.qubit is not None:
            self._context.free(arrival.qubit)
            arrival.qubit = None

    def _acknowledge(self, sequence: int, *, is_lost: bool) -> None:
        acknowledged = messages.Acknowledged(
            stream=self.name.id, sequence=sequence, is_lost=is_lost
        )
        self.say(acknowledged)

    # --- to the session ---

    def _pump(self) -> None:
        """Hand over what is decided, in order; then allow what is still waited for."""
        while self._next in self._arrivals:
            arrival = self._arrivals[self._next]
            is_skipped = arrival.state is ReceivingState.SKIPPED
            if arrival.state not in _FATES or not (self._waiting or is_skipped):
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
        if more <= 0:
            return
        requests = [self._context.fresh_id() for _ in range(more)]
        for request in requests:
            arrival = Arrival(self, self._allowed, request)
            self._arrivals[self._allowed] = arrival
            self._context.use_request(request, arrival)
            self._allowed += 1
        self._live += more
        self._say_credit(requests)

    def _say_credit(self, requests: list[bytes]) -> None:
        credit = messages.Credit(
            stream=self.name.id, received=self._next, allowed=self._allowed, requests=requests
        )
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
        for arrival in list(self._arrivals.values()):
            if is_everything or arrival.state not in _FATES:
                self._drop_half(arrival)
            if arrival.state not in _FATES:
                self._context.end_request(arrival.request, cancel=False)
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
        """Name again the requests of all sequences without a fate."""
        first = next(
            (key for key, each in self._arrivals.items() if each.state not in _FATES),
            self._allowed,
        )
        if self.ended is None:
            self._say_credit([self._arrivals[n].request for n in range(first, self._allowed)])

    def on_device_lost(self) -> None:
        """Halves and untaken qubits are gone; calls end, credits stand."""
        for arrival in list(self._arrivals.values()):
            if arrival.qubit is not None and arrival.state is ReceivingState.HOLDING:
                self.on_void(arrival)
            elif arrival.state is ReceivingState.ARRIVED:
                arrival.step(ReceivingInput.PAIR_VOID)
                arrival.qubit = None
        while self._waiting:
            self._calls.fail(self._waiting.popitem(last=False)[1], reason(ErrorCode.DEVICE_LOST))
