"""Photon-pair links: the two ends exchange the slots they detected, and keep those they share.

Rules
1. What our receiver detected is told to the far end at once, slots alone, before it is compared
   here: so the far end has all it needs for every pair we announce.
2. Pairs are announced in slot order, up to the number of the request. Where it ends otherwise,
   one end may have announced more; those of the other end are the first of them.
3. Slots for a request that has ended here are late, not wrong: they are ignored. Slots that break
   a rule end the request at both ends, for without them the ends would disagree on their pairs.
4. What waits to be compared is bounded at both ends: an end that is too far ahead, or silent, is
   given up.
"""

from qstack.errors import ErrorCode, PeerError
from qstack.link import messages, service
from qstack.link.batches import Batches
from qstack.link.coincidences import Coincidences, Matched, slot_messages
from qstack.link.held import Held
from qstack.link.measured_rounds import MeasuredRounds
from qstack.link.outbox import Outbox
from qstack.link.params import SLOTS_AHEAD_MAX
from qstack.link.peer import Peer
from qstack.link.queue import Request
from qstack.link.request_states import Input, State
from qstack.link.requests import Requests
from qstack.physical import service as physical
from qstack.wire.packed import pack_bases, pack_bits


class SlotPairs:
    """The pairs of all photon-pair links of a node."""

    def __init__(
        self,
        peers: dict[str, Peer],
        batches: Batches,
        requests: Requests,
        measured_rounds: MeasuredRounds,
        out: Outbox,
    ) -> None:
        self._peers = peers
        self._batches = batches
        self._requests = requests
        self._measured_rounds = measured_rounds
        self._out = out

    def on_detections(self, detections: physical.Detections, now: int) -> None:
        """Our receiver has detected something."""
        if detections.is_last:
            batch, request = self._batches.end(detections.batch)
        else:
            batch = self._batches.find(detections.batch)
            request = batch.request if batch is not None else None
        if batch is None:
            return
        peer = batch.peer
        if request is not None and detections.until_slot > detections.first_slot:
            for message in slot_messages(request.id, detections):
                self._out.send(peer.name, message)
            found = _coincidences(request)
            found.add_own(detections)
            self._announce(peer, request, found)
            if found.waiting > SLOTS_AHEAD_MAX and request.state is State.SERVING:
                self._give_up(
                    peer, request, ErrorCode.NO_RESOURCES, f"{peer.name} sends no slots", now
                )
        self._batches.start(peer, now)

    def on_slots(self, peer: Peer, message: messages.DetectedSlots, now: int) -> None:
        """The far end has detected something."""
        request = peer.requests.get(message.request)
        if request is None:
            self._on_unknown(peer, message)
            return
        if request.state is not State.SERVING or not peer.pairs_by_slots:
            why = "no slots are compared for this request"
            self._out.refuse(peer.name, message, ErrorCode.OUT_OF_STATE, why)
            return
        found = _coincidences(request)
        try:
            found.add_far(message)
        except PeerError as error:
            self._out.refuse(peer.name, message, error.code, error.detail)
            self._give_up(peer, request, error.code, f"slots of {peer.name}: {error.detail}", now)
            return
        self._announce(peer, request, found)
        self._batches.start(peer, now)

    # --- parts -----------------------------------------------------------------------------------

    def _on_unknown(self, peer: Peer, message: messages.DetectedSlots) -> None:
        if any(message.request in other.requests for other in self._peers.values()):
            why = "the request is one of another link"
            self._out.refuse(peer.name, message, ErrorCode.OUT_OF_STATE, why)
        else:
            self._out.record("late_slots", peer=peer.name)

    def _announce(self, peer: Peer, request: Request, found: Coincidences) -> None:
        assert request.number is not None, "a measure request has a number"
        matched = found.take()
        if request.is_tested:
            matched = self._measured_rounds.take_matched(peer, request, matched)
        for part in matched.only(slice(request.number - request.served)).parts():
            self._tell_measured(peer, request, part)
        self._requests.finish_if_served(peer, request)

    def _tell_measured(self, peer: Peer, request: Request, part: Matched) -> None:
        pairs = len(part.slots)
        # The slot of a pair names it, as the herald sequence does on a heralded link.
        peer.serve(request, int(part.slots[-1]) - pairs + 1, pairs)
        none = bytes((pairs + 7) // 8)  # phi+
        first, calibration = int(part.slots[0]), int(part.calibrations[0])
        told = service.LinkMeasured(
            request=request.id,
            purpose=request.purpose,
            peer=peer.name,
            first_pair=peer.pair_id(first),
            pairs=pairs,
            outcomes=pack_bits(part.outcomes),
            x_bits=none,
            z_bits=none,
            bases=pack_bases(part.bases),
            goodness=request.option.bell_probabilities[0],
            calibration=calibration,
            is_outdated=calibration < peer.calibration,
        )
        self._requests.indicate(peer, request, Held(first, told, None), 0)

    def _give_up(
        self, peer: Peer, request: Request, error: ErrorCode, detail: str, now: int
    ) -> None:
        """End a request whose ends can no longer agree, at both of them."""
        remove = messages.Remove(request=request.id, error=error.name, detail=detail)
        self._out.send(peer.name, remove)
        self._requests.fail(peer, request, Input.WITHDRAWN, error, detail)
        self._batches.start(peer, now)


def _coincidences(request: Request) -> Coincidences:
    """What the request has to compare; made with its first slots."""
    if request.coincidences is None:
        request.coincidences = Coincidences()
    return request.coincidences
