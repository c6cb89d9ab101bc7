"""The sending end of a qubit stream: teleportation with credits and exact loss.

A qubit waits for a pair of the stream's network requests, which are made for as many qubits as wait
and the receiver allows. With its pair it takes the stream's next sequence, is Bell-measured with
our half, and its Correction is repeated until the receiver has told its fate.

Rules
1. Before the Bell measurement any failure gives the data qubit back, and its sequence is Skipped;
   so is that of a pair nobody waits for any more.
2. After it nothing gives it back. A call withdrawn then is answered with what the receiver says
   to Lost: it arrived after all (Finished), or LOST.
3. A receiver that closed is asked again for what it did not say. Only if it cannot be asked (its
   node restarted, or the channel is down and the call may not wait) is LOST said without its word.
4. An end that its session closes lingers until every consumed qubit has a fate.
"""

from collections import OrderedDict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from qstack.errors import ErrorCode
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport import messages, service
from qstack.transport.calls import Call
from qstack.transport.context import PhysicalAnswer, Reason, reason
from qstack.transport.params import CREDITS_OPEN_MAX, UNBOUNDED_NS
from qstack.transport.qubit_requests import SenderRequests
from qstack.transport.qubit_states import SENDING, SendingInput, SendingState
from qstack.transport.stream_socket import StreamSocket
from qstack.transport.stream_states import StreamInput, StreamState

if TYPE_CHECKING:
    from qstack.ids import PairId

_MEASURED = (SendingState.CORRECTING, SendingState.CONDEMNED)


class Pair:
    """What a sequence of the stream stands for: a pair, and the number of its request."""

    def __init__(self, request: int, pair: "PairId") -> None:
        self.request = request
        self.pair = pair


class Teleport:
    """One qubit on its way."""

    def __init__(self, call: Call, qubit: bytes) -> None:
        self.call: Call | None = call
        self.qubit = qubit
        self.state = SENDING.start
        self.sequence = -1
        self.pair: Pair | None = None
        self.half = b""
        self.bits = (0, 0)
        self.withdrawn = reason(ErrorCode.EXPIRED, "the pair became void")

    def step(self, received: SendingInput) -> None:
        """Take a transition."""
        self.state = SENDING.cells[self.state, received]


class QubitSender(StreamSocket):
    """The end of a qubit stream that opened it."""

    _queued: OrderedDict[int, Teleport]
    _requests: SenderRequests
    _flying: dict[int, Teleport]
    _skipped: dict[int, Pair]
    _next: int
    _allowed: int

    def _prepare(self) -> None:
        self._queued = OrderedDict()
        self._requests = SenderRequests(
            self._context, self.name, self, self._say_over, self._on_id_taken
        )
        self._flying = {}
        self._skipped = {}
        self._next = 0  # the sequence of the next pair
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
        teleport = Teleport(call, message.qubit)
        self._context.hold(message.qubit)
        self._queued[call.number] = teleport
        if self.ended is not None:
            self.give_back(teleport, self.ended)
        else:
            self._ask()

    # --- from the receiver ---

    def on_credit(self, message: messages.Credit) -> None:
        """More qubits may come."""
        if self.ended is not None:
            return
        if message.allowed > self._next + CREDITS_OPEN_MAX:
            self.violation(message.TYPE, f"more than {CREDITS_OPEN_MAX} qubits allowed ahead")
            return
        self._allowed = max(self._allowed, message.allowed)
        self._ask()

    def on_acknowledged(self, message: messages.Acknowledged) -> None:
        """The receiver knows what became of a sequence."""
        teleport = self._flying.get(message.sequence)
        skipped = self._skipped.pop(message.sequence, None)
        if skipped is not None:
            self._requests.settled(skipped.request)
            self._settle()
        elif teleport is not None and teleport.state in _MEASURED:
            is_lost = message.is_lost
            told = SendingInput.ACKNOWLEDGED_LOST if is_lost else SendingInput.ACKNOWLEDGED
            self._conclude(teleport, told, "the receiver does not have it")

    # --- a qubit's way ---

    def _ask(self) -> None:
        """Have pairs made for those who wait, as far as the receiver allows."""
        if self.state is StreamState.OPEN and self.ended is None:
            wanted = min(len(self._queued), self._allowed - self._next)
            self._requests.ask(wanted, self._deadline_ns)

    def _deadline_ns(self, start: int, stop: int) -> int:
        """The latest deadline of those who wait at these places."""
        unbounded_ns = self._context.now + UNBOUNDED_NS
        waiting = islice(self._queued.values(), start, stop)
        return max(
            each.call.deadline_ns or unbounded_ns for each in waiting if each.call is not None
        )

    def on_pair(self, request: int, message: network.EndPair) -> None:
        """A pair: Bell-measure the qubit that waits longest with our half."""
        sequence, pair = self._next, Pair(request, message.pair)
        self._next += 1
        if not self._queued:
            self._context.free(message.qubit)
            self._skip(sequence, pair)
            return
        _, teleport = self._queued.popitem(last=False)
        self._flying[sequence] = teleport
        teleport.step(SendingInput.PAIR)
        teleport.sequence, teleport.pair, teleport.half = sequence, pair, message.qubit
        teleport.bits = (message.x_bit, message.z_bit)
        self._context.hold(message.qubit)
        answered = partial(self._on_answer, teleport)
        self._context.bell_measure(teleport.qubit, teleport.half, answered)

    def on_lack(self, pairs: int, deadline_ns: int, why: Reason) -> None:
        """So many pairs will not come: whoever cannot be served otherwise gets its qubit back."""
        lacking = min(pairs, len(self._queued) - self._requests.to_come)
        for teleport in list(islice(self._queued.values(), max(0, lacking))):
            assert teleport.call is not None
            is_later = (teleport.call.deadline_ns or deadline_ns + 1) > deadline_ns
            if why.error != ErrorCode.TIMEOUT.name or not is_later:
                self.give_back(teleport, why)
        self._ask()

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

    def on_pair_expired(self, pair: "PairId") -> None:
        """The pair turned out void after the measurement began: the receiver decides."""
        for teleport in self._flying.values():
            if teleport.pair is not None and teleport.pair.pair == pair:
                teleport.step(SendingInput.EXPIRED)
                if teleport.state is SendingState.CONDEMNED:
                    self._say_fate(teleport)
                return

    def _say_fate(self, teleport: Teleport) -> None:
        if teleport.state is SendingState.CORRECTING:
            assert teleport.pair is not None
            x_bit, z_bit = teleport.bits
            correction = messages.Correction(
                stream=self.name.id,
                sequence=teleport.sequence,
                request=teleport.pair.request,
                pair=teleport.pair.pair,
                x_bit=x_bit,
                z_bit=z_bit,
            )
            self.say(correction)
        elif teleport.state is SendingState.CONDEMNED:
            assert teleport.pair is not None
            self.say(self._about(messages.Lost, teleport.sequence, teleport.pair))

    def _skip(self, sequence: int, pair: Pair) -> None:
        """No qubit was consumed for the pair."""
        self._skipped[sequence] = pair
        self.say(self._about(messages.Skipped, sequence, pair))
        self._keep_retrying()

    def _about(
        self, kind: type[messages.Lost | messages.Skipped], sequence: int, pair: Pair
    ) -> messages.Lost | messages.Skipped:
        return kind(stream=self.name.id, sequence=sequence, request=pair.request, pair=pair.pair)

    def _say_over(self) -> None:
        if self.ended is None and self._requests.below:
            self.say(messages.RequestsOver(stream=self.name.id, below=self._requests.below))

    def _on_id_taken(self) -> None:
        self.violation(messages.Credit.TYPE, "a request of this stream's id is known already")

    # --- ends ---

    def _withdraw(self, call: Call, why: Reason) -> None:
        teleport = self._queued.get(call.number) or next(
            teleport for teleport in self._flying.values() if teleport.call is call
        )
        if teleport.state is SendingState.QUEUED:
            self.give_back(teleport, why)
            if not self._queued:
                self._requests.cancel()
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

    def give_back(self, teleport: Teleport, why: Reason) -> None:
        """End a qubit that has not been consumed."""
        teleport.step(SendingInput.WITHDRAWN)
        self._return(teleport, why)

    def _return(self, teleport: Teleport, why: Reason) -> None:
        call = teleport.call
        assert call is not None
        self._queued.pop(call.number, None)
        self._calls.give(call, teleport.qubit)
        if teleport.pair is not None:
            del self._flying[teleport.sequence]
            if self.ended is None:
                self._skip(teleport.sequence, teleport.pair)
        self._calls.fail(call, why)
        self._settle()

    def _conclude(self, teleport: Teleport, told: SendingInput, detail: str) -> None:
        """The fate of a consumed qubit is known."""
        teleport.step(told)
        del self._flying[teleport.sequence]
        assert teleport.pair is not None
        self._requests.settled(teleport.pair.request)
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
        for teleport in list(self._flying.values()):
            if teleport.state in _MEASURED:
                self._conclude(teleport, SendingInput.PEER_GONE, "the receiver ended: " + why.error)
        self._requests.end()
        if self.state is not StreamState.CLOSED:
            self._stop_retrying()
            self.step(StreamInput.ENDED)

    def resume(self) -> None:
        """Say all fates again, and a Credit of nothing, which asks whether the receiver stands."""
        self.resend()
        if self.owes():
            self._progress(is_settled=False)
            self._keep_retrying()
        self._say_over()
        self.say(messages.Credit(stream=self.name.id, received=0, allowed=0))

    def resend(self) -> None:
        """Say the fates again that are not acknowledged."""
        for teleport in self._flying.values():
            self._say_fate(teleport)
        for sequence, pair in self._skipped.items():
            self.say(self._about(messages.Skipped, sequence, pair))

    def on_device_lost(self) -> None:
        """Data qubits are gone. Those measured before are corrected at the far end as ever."""
        self._give_all_back(reason(ErrorCode.DEVICE_LOST))

    def _give_all_back(self, why: Reason) -> None:
        for teleport in list(self._queued.values()):
            self.give_back(teleport, why)
        self._requests.cancel()
