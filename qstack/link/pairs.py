"""Pairs: what the physical layer says of batches, told upward; and pairs that are void.

Rules
1. A herald for a request that has ended here is not announced: the qubit is freed, and the far
   end, which may have announced its half, is told by Expire. Both know that there is no pair. So
   too the outcome of a pair that prepared a remote state.
2. Outcomes of measured pairs, once told, are not taken back. Where a request ends otherwise than by
   its number, one end may have been told of more pairs; those of the other are the first of them.
"""

from qstack.errors import ErrorCode
from qstack.link import messages, service
from qstack.link.batches import Batch, Batches
from qstack.link.held import Held
from qstack.link.measured_rounds import MeasuredRounds
from qstack.link.outbox import Outbox
from qstack.link.peer import Peer
from qstack.link.queue import Request
from qstack.link.requests import Requests
from qstack.link.room import Rooms
from qstack.link.rounds import Rounds
from qstack.physical import service as physical


class Pairs:
    """The pairs of all links of a node."""

    def __init__(
        self,
        batches: Batches,
        requests: Requests,
        rounds: Rounds,
        measured_rounds: MeasuredRounds,
        rooms: Rooms,
        out: Outbox,
    ) -> None:
        self._batches = batches
        self._requests = requests
        self._rounds = rounds
        self._measured_rounds = measured_rounds
        self._rooms = rooms
        self._out = out

    def on_heralded(self, herald: physical.Heralded, now: int) -> None:
        """A pair to keep is there."""
        batch, request = self._batches.end(herald.batch)
        if batch is None or not batch.is_current:
            self._out.tell_below(physical.Free(qubit=herald.qubit))
            return
        if request is None:
            self._out.tell_below(physical.Free(qubit=herald.qubit))
            self._discard(batch.peer, herald.herald_sequence)
        elif batch.kind == "prepare" or not self._rounds.take(batch, herald):
            self._announce(batch, request, herald)
            if now < batch.peer.sated_until_ns:  # one batch less, and one pair less to come
                return
        self._batches.start(batch.peer, now)

    def on_measured(self, measured: physical.MeasuredPairs, now: int) -> None:
        """Measured pairs are there."""
        if measured.is_last:
            batch, request = self._batches.end(measured.batch)
        else:
            batch = self._batches.find(measured.batch)
            request = batch.request if batch is not None else None
        if batch is None:
            return
        if request is None and batch.kind == "prepare" and measured.pairs and batch.is_current:
            self._discard(batch.peer, measured.first_herald_sequence)
        if request is not None and measured.pairs:
            self._tell_measured(batch.peer, request, measured)
            self._requests.finish_if_served(batch.peer, request)
        self._batches.start(batch.peer, now)

    def on_attempts_ended(self, ended: physical.AttemptsEnded, now: int) -> None:
        """A batch has ended without (further) success."""
        batch, request = self._batches.end(ended.batch)
        if batch is None:
            return
        batch.peer.sated_until_ns = 0
        if ended.reason == "device":
            return  # DeviceLost follows
        if ended.reason == "refused":
            if request is not None:
                self._requests.refused_below(batch.peer, request, now)
            return
        if ended.reason == "no-memory":
            self._rooms.memory_short(batch.peer, now)
        self._batches.start(batch.peer, now)

    def on_expire(self, peer: Peer, message: messages.Expire) -> None:
        """The far end has not announced pairs that we may have."""
        if message.low >= message.high:
            why = f"the range [{message.low}, {message.high}) is empty"
            self._out.refuse(peer.name, message, ErrorCode.INVALID, why)
            return
        if self._requests.held.expire(peer, message.low, message.high):
            self._batches.start(peer, self._out.now)
        self._rounds.expire(peer, message.low, message.high)
        void = [n for n in peer.announced if message.low <= n < message.high]
        for sequence in void:
            gone = peer.announced.pop(sequence)
            self._out.tell_above(service.LinkExpired(pair=gone.pair, purpose=gone.purpose))
        is_known = message.high == message.low + 1 and message.low in peer.void
        if message.low < peer.forgotten_until and not is_known:
            # One of them may be announced here: only with all pairs void do both ends agree.
            self._out.conversation(peer.name).begin_anew(self._out.now)

    def _announce(self, batch: Batch, request: Request, herald: physical.Heralded) -> None:
        peer, sequence = batch.peer, herald.herald_sequence
        peer.serve(request, sequence, 1)
        pair = service.LinkPair(
            request=request.id,
            purpose=request.purpose,
            peer=peer.name,
            pair=peer.pair_id(sequence),
            qubit=herald.qubit,
            x_bit=herald.x_bit,
            z_bit=herald.z_bit,
            emitted_at_ns=herald.emitted_at_ns,
            goodness=peer.goodness(batch.option, herald.goodness),
            calibration=herald.calibration,
            is_outdated=herald.calibration < peer.calibration,
        )
        if request.consecutive:
            self._requests.tell_pair(peer, sequence, pair)
        else:
            held = Held(sequence, pair, herald.good_until_ns)
            self._requests.indicate(peer, request, held, herald.emitted_at_ns)
        self._requests.finish_if_served(peer, request)

    def _discard(self, peer: Peer, herald_sequence: int) -> None:
        low = herald_sequence
        self._rounds.expire(peer, low, low + 1)
        self._out.send(peer.name, messages.Expire(low=low, high=low + 1))
        self._out.record("late_pair", peer=peer.name)

    def _tell_measured(
        self, peer: Peer, request: Request, measured: physical.MeasuredPairs
    ) -> None:
        end = measured.first_herald_sequence + measured.pairs
        if request.is_tested:
            measured = self._measured_rounds.take(peer, request, measured)
            if not measured.pairs:
                return
        peer.serve(request, end - measured.pairs, measured.pairs)
        told = service.LinkMeasured(
            request=request.id,
            purpose=request.purpose,
            peer=peer.name,
            first_pair=peer.pair_id(measured.first_herald_sequence),
            pairs=measured.pairs,
            outcomes=measured.outcomes,
            x_bits=measured.x_bits,
            z_bits=measured.z_bits,
            bases=measured.bases,
            goodness=request.option.bell_probabilities[0],
            calibration=measured.calibration,
            is_outdated=measured.calibration < peer.calibration,
        )
        held = Held(measured.first_herald_sequence, told, measured.good_until_ns)
        self._requests.indicate(peer, request, held, measured.emitted_at_ns)
