"""The sending end of a qubit stream: teleportation with credits and exact loss.

Each sequence number the receiver allows carries the name of one network request. A qubit waits
for a sequence, then for the pair of its request, is Bell-measured with our half, and its
Correction is repeated until the receiver has told its fate.

Rules
1. Before the Bell measurement any failure gives the data qubit back, and the sequence is Skipped.
2. After it nothing gives it back. A call withdrawn then is answered with what the receiver says
   to Lost: it arrived after all (Finished), or LOST.
3. A receiver that closed is asked again for what it did not say. Only if it cannot be asked (its
   node restarted, or the channel is down and the call may not wait) is LOST said without its word.
4. An end that its session closes lingers until every consumed qubit has a fate.
"""

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from qstack.errors import ErrorCode
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport import messages, service
from qstack.transport.calls import Call
from qstack.transport.context import PhysicalAnswer, Reason, reason
from qstack.transport.params import CREDITS_OPEN_MAX, STREAM_PRIORITY, UNBOUNDED_NS
from qstack.transport.qubit_states import SENDING, SendingInput, SendingState
from qstack.transport.stream_socket import StreamSocket
from qstack.transport.stream_states import StreamInput, StreamState

if TYPE_CHECKING:
    from qstack.ids import PairId

_IN_HAND = (SendingState.QUEUED, SendingState.REQUESTED)
_MEASURED = (SendingState.CORRECTING, SendingState.CONDEMNED)


class Teleport:
    """One qubit on its way; the user of its network request."""

    def __init__(self, sender: "QubitSender", call: Call, qubit: bytes) -> None:
        self._sender = sender
        self.call: Call | None = call
        self.qubit = qubit
        self.state = SENDING.start
        self.sequence = -1
        self.request = b""
        self.half = b""
        self.pair: PairId | None = None
        self.bits = (0, 0)
        self.withdrawn = reason(ErrorCode.EXPIRED, "the pair became void")

    def step(self, received: SendingInput) -> None:
        """Take a transition."""
        self.state = SENDING.step(self.state, received)

    def on_pair(self, message: network.EndPair) -> None:
        """The pair is here: measure."""
        self._sender.on_pair(self, message)

    def on_measured(self, message: network.EndMeasured) -> None:
        """Never asked for."""

    def on_expired(self, message: network.EndPairExpired) -> None:
        """The pair it went, or goes, through is void."""
        if message.pair == self.pair and SENDING.allows(self.state, SendingInput.EXPIRED):
            self._sender.on_expired(self)

    def on_done(self) -> None:
        """Nothing to do, unless the pair is missing."""
        if self.state is SendingState.REQUESTED:
            self.on_failed(reason(ErrorCode.EXPIRED, "the network made no pair"))

    def on_failed(self, why: Reason) -> None:
        """There will be no pair."""
        if self.state is SendingState.REQUESTED:
            self._sender.on_no_pair(self, why)


class QubitSender(StreamSocket):
    """The end of a qubit stream that opened it."""

    _queued: OrderedDict[int, Teleport]
    _sequences: OrderedDict[bytes, int]
    _flying: dict[int, Teleport]
    _skipped: dict[int, None]
    _allowed: int

    def _prepare(self) -> None:
        self._queued = OrderedDict()
        self._sequences = OrderedDict()
        self._flying = {}
        self._skipped = {}
        self._allowed = 0

    def send(self, message: service.SendQubit) -> None:
        """SendQubit: teleport the qubit, which is ours now."""
        call = self._calls.open(
            self.session,
            message.call,
            within_ns=message.within_ns,
            withdraw=self._withdraw,
            peer=self.name.peer if self.ended is None else None,
        )
        if call is None:
            self._context.transfer(message.qubit, self.session)
            return
        teleport = Teleport(self, call, message.qubit)
        self._context.hold(message.qubit)
        self._queued[call.number] = teleport
        if self.ended is not None:
            self.give_back(teleport, self.ended)
        else:
            self._start()

    # --- from the receiver ---

    def on_credit(self, message: messages.Credit) -> None:
        """More qubits may come."""
        if self.ended is not None:
            return
        first = message.allowed - len(message.requests)
        if first > self._allowed or message.allowed - self._allowed > CREDITS_OPEN_MAX:
            self.violation(message.TYPE, f"{self._allowed} were allowed before, now from {first}")
            return
        for sequence, request in enumerate(message.requests, start=first):
            if sequence < self._allowed:
                continue
            if request in self._sequences or self._context.is_known_request(request):
                self.violation(message.TYPE, "a request is named twice")
                return
            self._allowed = sequence + 1
            self._sequences[request] = sequence
        if len(self._sequences) > CREDITS_OPEN_MAX:
            self.violation(message.TYPE, f"more than {CREDITS_OPEN_MAX} qubits allowed ahead")
            return
        self._start()

    def on_acknowledged(self, message: messages.Acknowledged) -> None:
        """The receiver knows a qubit's fate."""
        teleport = self._flying.get(message.sequence)
        if self._skipped.pop(message.sequence, -1) is None:
            self._settle()
        elif teleport is not None and teleport.state in _MEASURED:
            is_lost = message.is_lost
            told = SendingInput.ACKNOWLEDGED_LOST if is_lost else SendingInput.ACKNOWLEDGED
            self._conclude(teleport, told, "the receiver does not have it")

    # --- a qubit's way ---

    def _start(self) -> None:
        while self._sequences and self._queued and self.state is StreamState.OPEN:
            request, sequence = self._sequences.popitem(last=False)
            if self._context.is_known_request(request):
                self.violation(messages.Credit.TYPE, "a request named before has been used")
                return
            number, teleport = self._queued.popitem(last=False)
            teleport.step(SendingInput.CREDIT)
            teleport.sequence, teleport.request = sequence, request
            self._flying[sequence] = teleport
            self._context.use_request(request, teleport)
            assert teleport.call is not None
            assert teleport.call.number == number
            create = network.NetworkCreate(
                request=request,
                remote=self.name.peer,
                purpose=self.name.port,
                kind="keep",
                number=1,
                min_fidelity=self.name.min_fidelity,
                deadline_ns=teleport.call.deadline_ns or self._context.now + UNBOUNDED_NS,
                priority=STREAM_PRIORITY,
                basis=None,
                remote_basis=None,
            )
            self._context.tell(network.LAYER, create)

    def on_pair(self, teleport: Teleport, message: network.EndPair) -> None:
        """Bell-measure the qubit with our half."""
        if teleport.state is not SendingState.REQUESTED or message.kind != "keep":
            self._context.free(message.qubit)
            return
        teleport.step(SendingInput.PAIR)
        teleport.pair, teleport.half = message.pair, message.qubit
        teleport.bits = (message.x_bit, message.z_bit)
        self._context.hold(message.qubit)
        answered = partial(self._on_answer, teleport)
        self._context.bell_measure(teleport.qubit, teleport.half, answered)

    def _on_answer(self, teleport: Teleport, answer: PhysicalAnswer | None) -> None:
        if isinstance(answer, physical.CallFailed):
            code, detail = answer.error, answer.detail
            is_withdrawn = teleport.state is SendingState.ABANDONED
            teleport.step(SendingInput.REFUSED)
            why = teleport.withdrawn if is_withdrawn else Reason(code, detail)
            self._context.free(teleport.half)
            self._return(teleport, why)
            return
        self._context.qubits.discard(teleport.qubit)
        self._context.qubits.discard(teleport.half)
        if isinstance(answer, physical.BellMeasured):
            x_bit, z_bit = teleport.bits
            teleport.bits = (x_bit ^ answer.x_bit, z_bit ^ answer.z_bit)
            teleport.step(SendingInput.OUTCOME)
        else:
            teleport.step(SendingInput.DEVICE_GONE)
            self._lose(teleport, "the device went while it was measured")
        if self.ended is not None:
            self._conclude(teleport, SendingInput.PEER_GONE, self.ended.detail)
            return
        self._say_fate(teleport)
        self._keep_retrying()
        self._if_unreachable(teleport)

    def on_expired(self, teleport: Teleport) -> None:
        """The pair turned out void after the measurement began: the receiver decides."""
        teleport.step(SendingInput.EXPIRED)
        if teleport.state is SendingState.CONDEMNED:
            self._say_fate(teleport)

    def _say_fate(self, teleport: Teleport) -> None:
        stream, sequence = self.name.id, teleport.sequence
        if teleport.state is SendingState.CORRECTING:
            assert teleport.pair is not None
            x_bit, z_bit = teleport.bits
            correction = messages.Correction(
                stream=stream, sequence=sequence, pair=teleport.pair, x_bit=x_bit, z_bit=z_bit
            )
            self.say(correction)
        elif teleport.state is SendingState.CONDEMNED:
            self.say(messages.Lost(stream=stream, sequence=sequence))

    # --- ends ---

    def _withdraw(self, call: Call, why: Reason) -> None:
        teleport = self._queued.get(call.number) or next(
            teleport for teleport in self._flying.values() if teleport.call is call
        )
        if teleport.state in _IN_HAND:
            self.give_back(teleport, why)
            return
        if teleport.state is SendingState.MEASURING:
            teleport.withdrawn = why
        was_condemned = teleport.state is SendingState.CONDEMNED
        teleport.step(SendingInput.WITHDRAWN)
        if teleport.state is SendingState.CONDEMNED:
            if not was_condemned and self._context.channels.is_up(self.name.peer):
                self._say_fate(teleport)
            self._if_unreachable(teleport)

    def _if_unreachable(self, teleport: Teleport) -> None:
        """Answer a call that may not wait for a peer that cannot be asked."""
        if self._context.channels.is_up(self.name.peer) or teleport.call is None:
            return
        if teleport.state is SendingState.CONDEMNED:
            self._lose(teleport, "the receiver went before it said whether it has the qubit")

    def on_peer_down(self) -> None:
        """Calls whose deadline has passed already wait no longer for the receiver's word."""
        for teleport in self._flying.values():
            self._if_unreachable(teleport)

    def on_no_pair(self, teleport: Teleport, why: Reason) -> None:
        """The request has ended without a pair."""
        self._context.end_request(teleport.request, cancel=False)
        self.give_back(teleport, why)

    def give_back(self, teleport: Teleport, why: Reason) -> None:
        """End a qubit that has not been consumed."""
        teleport.step(SendingInput.WITHDRAWN)
        self._return(teleport, why)

    def _return(self, teleport: Teleport, why: Reason) -> None:
        call = teleport.call
        assert call is not None
        self._queued.pop(call.number, None)
        self._calls.give(call, teleport.qubit)
        if teleport.sequence >= 0:
            del self._flying[teleport.sequence]
            self._context.end_request(teleport.request, cancel=True)
            if self.ended is None:
                self._skipped[teleport.sequence] = None
                self.say(messages.Skipped(stream=self.name.id, sequence=teleport.sequence))
                self._keep_retrying()
        self._calls.fail(call, why)
        self._settle()

    def _conclude(self, teleport: Teleport, told: SendingInput, detail: str) -> None:
        """The fate of a consumed qubit is known."""
        teleport.step(told)
        del self._flying[teleport.sequence]
        self._context.end_request(teleport.request, cancel=False)
        if teleport.state is SendingState.DELIVERED:
            if teleport.call is not None:
                self._calls.finish(teleport.call)
        else:
            self._lose(teleport, detail)
        self._settle()

    def _lose(self, teleport: Teleport, detail: str) -> None:
        call, teleport.call = teleport.call, None
        if call is not None:
            self._calls.fail(call, reason(ErrorCode.LOST, detail))

    def _settle(self) -> None:
        is_settled = not self.owes()
        self._progress(is_settled=is_settled)
        if is_settled and self.state is StreamState.LINGERING:
            if self.ended is None:
                self.say_close(reason(ErrorCode.CLOSED))
            self.step(StreamInput.SETTLED)

    def owes(self) -> bool:
        """Whether a sequence the receiver allowed has no fate it knows of."""
        return bool(self._flying or self._skipped)

    def close(self, why: Reason) -> None:
        """Give back what can be given back; linger for the rest."""
        self._give_all_back(why)
        if self.owes():
            self.step(StreamInput.CLOSE_OWING)
            return
        if self.ended is None:
            self.say_close(reason(ErrorCode.CLOSED))
        self.step(StreamInput.CLOSE)

    def on_close(self, why: Reason) -> None:
        """The receiver has closed. It still knows the fates of qubits: ask, once."""
        is_first = self.ended is None
        self.ended = self.ended or why
        self._give_all_back(why)
        self._skipped.clear()
        if is_first and any(each.state in _MEASURED for each in self._flying.values()):
            if self.state is StreamState.OPEN:
                self.step(StreamInput.ENDED)
            self.resend()
            self._keep_retrying()
        else:
            self.end(why)

    def end(self, why: Reason) -> None:
        """No more credits and no more answers will come."""
        if self.ended is None:
            self.ended = why
        self._give_all_back(why)
        self._skipped.clear()
        self._sequences.clear()
        for teleport in list(self._flying.values()):
            if teleport.state in _MEASURED:
                self._conclude(teleport, SendingInput.PEER_GONE, "the receiver ended: " + why.error)
        if self.state is not StreamState.CLOSED:
            self._stop_retrying()
            self.step(StreamInput.ENDED)

    def resume(self) -> None:
        """Say all fates again, and a Credit of nothing, which asks whether the receiver stands."""
        self.resend()
        if self.owes():
            self._progress(is_settled=False)
            self._keep_retrying()
        self.say(messages.Credit(stream=self.name.id, received=0, allowed=0, requests=[]))

    def resend(self) -> None:
        """Say the fates again that are not acknowledged."""
        for teleport in self._flying.values():
            self._say_fate(teleport)
        for sequence in self._skipped:
            self.say(messages.Skipped(stream=self.name.id, sequence=sequence))

    def on_device_lost(self) -> None:
        """Data qubits are gone. Those measured before are corrected at the far end as ever."""
        self._give_all_back(reason(ErrorCode.DEVICE_LOST))

    def _give_all_back(self, why: Reason) -> None:
        for teleport in [*self._queued.values(), *self._flying.values()]:
            if teleport.state in _IN_HAND:
                self.give_back(teleport, why)
