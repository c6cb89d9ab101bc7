"""The receivers of photon-pair links: batches of detections for the link layer.

They are equipment beside the memory: nothing here takes a qubit, and no link waits for another.

Rules
1. Every AttemptsStart ends in exactly one of a last Detections, AttemptsEnded.
2. An end has one receiver on a link: a second batch is refused until the first has ended.
3. What the device still says of a batch whose asker has gone is told to nobody.
4. Where the source is in a station that has a name, that is told by GEN and GenEnd when a receiver
   is on. What a batch has detected its device says, and its last word ends it; an error the station
   tells has the receiver switched off.
"""

from collections.abc import Iterator

from msgspec import Struct

from qstack.errors import ErrorCode
from qstack.machine import Effect, Record, Tell
from qstack.physical.attempts import LINK_LAYER, Reason
from qstack.physical.batch_states import BATCH, Input, State
from qstack.physical.device import BatchEnded, DetectionReply, StopGenerate
from qstack.physical.device_order import DeviceOrder
from qstack.physical.generation import generate, mismatch
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.service import AttemptsEnded, AttemptsStart, AttemptsStop, Detections
from qstack.physical.station_gens import StationGens
from qstack.physical.station_messages import Reply
from qstack.wire.message import BasisChoice


class _Batch(Struct, eq=False):
    """One batch; `number` is its name at the device."""

    asked: AttemptsStart
    number: int
    operation: int
    state: State = State.QUEUED
    is_orphan: bool = False
    reason: Reason = "stopped"  # why it ends, where its device says no more than that


class Receivers:
    """All receivers of a node. `numbers` are for batches of the device, never twice the same."""

    def __init__(
        self,
        node: str,
        world: World,
        order: DeviceOrder,
        numbers: Iterator[int],
        stations: StationGens,
    ) -> None:
        self._order = order
        self._stations = stations
        self._numbers = numbers
        self._links: dict[str, LinkHardware] = {
            link.id: link for link in world.links_of(node) if not link.is_heralded
        }
        self._batches: dict[int, _Batch] = {}
        self.refused_links: dict[str, None] = {}  # to be told when theirs is free

    def serves(self, link: str) -> bool:
        """Whether a link is one of these."""
        return link in self._links

    # --- what the link layer asks ---

    def start(self, asked: AttemptsStart, now: int, *, is_ready: bool) -> list[Effect]:
        """Switch a receiver on."""
        if not is_ready or self._stations.is_away(asked.link):
            return [_ended(asked.batch, "device")]
        link = self._links[asked.link]
        problem = mismatch(
            asked.kind,
            basis=asked.basis,
            pairs=asked.pairs,
            bright_state=asked.bright_state,
            scheme=link.scheme,
            rotation=asked.rotation,
        )
        if problem:
            return [_refused("AttemptsStart", problem), _ended(asked.batch, "refused")]
        if not self._is_free(asked.link):
            self.refused_links[asked.link] = None
            return [_ended(asked.batch, "no-memory")]
        assert link.source is not None, "it is not heralded"
        batch = _Batch(asked, next(self._numbers), self._order.next_sequence())
        self._batches[batch.number] = batch
        self._step(batch, Input.BEGIN)
        operation = generate(
            asked,
            now,
            sequence=batch.operation,
            batch=batch.number,
            cycle_ns=link.source.slot_ns,
            qubit=None,
        )
        return self._order.submit(operation, now) + self._stations.begun(operation)

    def stop(self, asked: AttemptsStop, now: int) -> list[Effect]:
        """Switch a receiver off; what has ended already has been answered already."""
        for batch in self._batches.values():
            if batch.asked.batch == asked.batch and not batch.is_orphan:
                return self._halt(batch, now)
        return []

    def asker_gone(self, now: int) -> list[Effect]:
        """The link layer has gone: end everything, tell nobody."""
        effects: list[Effect] = []
        for batch in self._batches.values():
            batch.is_orphan = True
            effects += self._halt(batch, now)
        return effects

    def device_lost(self, now: int) -> list[Effect]:
        """All batches end with the device."""
        effects: list[Effect] = [
            told
            for batch in self._batches.values()
            for told in self._stations.ended(batch.asked, batch.number, now, "LOCAL")
        ]
        effects += [
            _ended(batch.asked.batch, "device")
            for batch in self._batches.values()
            if not batch.is_orphan
        ]
        self._batches.clear()
        self.refused_links.clear()
        return effects

    def links_lost(self, links: list[str], now: int) -> list[Effect]:
        """The station of these links has gone: their batches end, their receivers are off."""
        effects: list[Effect] = []
        for batch in [b for b in self._batches.values() if b.asked.link in links]:
            if not batch.is_orphan:
                effects.append(_ended(batch.asked.batch, "device"))
            batch.is_orphan = True
            effects += self._halt(batch, now, is_told=False)
        return effects

    def station_said(self, said: Reply, now: int) -> list[Effect]:
        """The station of a link says what came of a batch; that it has ended is no news."""
        if said.outcome == "ended":
            return []
        effects: list[Effect] = [Record("physical.station_error", {"error": said.outcome})]
        for batch in self._batches.values():
            is_meant = batch.asked.link == said.link and said.batch in (None, batch.number)
            if is_meant and batch.asked.token == said.token and batch.state is State.RUNNING:
                batch.reason = "refused" if said.outcome == ErrorCode.GENERAL.name else "station"
                effects += self._halt(batch, now, is_told=said.batch is None)
        return effects

    # --- what the device says ---

    def basis_of(self, number: int) -> BasisChoice | None:
        """What a batch is read in; None if there is no such batch."""
        batch = self._batches.get(number)
        return batch.asked.basis if batch is not None else None

    def detected(self, reply: DetectionReply) -> list[Effect]:
        """Detections are there; with the last of them the batch ends."""
        batch = self._batches.get(reply.batch)
        if batch is None:
            return [_refused("DetectionReply", f"no batch {reply.batch}")]
        if reply.is_last:
            self._step(batch, Input.SUCCESS)
        if batch.is_orphan:
            return []
        indication = Detections(
            batch=batch.asked.batch,
            first_slot=reply.first_slot,
            until_slot=reply.until_slot,
            detections=reply.detections,
            slots=reply.slots,
            outcomes=reply.outcomes,
            bases=reply.bases,
            is_last=reply.is_last,
            calibration=reply.calibration,
        )
        return [Tell(LINK_LAYER, indication)]

    def ended(self, reply: BatchEnded) -> list[Effect] | None:
        """A batch was stopped before it had begun; None if it is not one of ours."""
        batch = self._batches.get(reply.batch)
        if batch is None:
            return None
        self._step(batch, Input.FINISHED)
        return [] if batch.is_orphan else [_ended(batch.asked.batch, batch.reason)]

    def refused(self, operation: int, now: int) -> list[Effect] | None:
        """The device refused an operation; None if it was not the start of a batch of ours."""
        for batch in self._batches.values():
            if batch.operation == operation:
                self._step(batch, Input.FINISHED)
                told = self._stations.ended(batch.asked, batch.number, now, "LOCAL")
                return told if batch.is_orphan else [*told, _ended(batch.asked.batch, "refused")]
        return None

    def take_news_of_room(self) -> bool:
        """Whether a link that was refused could be admitted now; asked once, told once."""
        if any(self._is_free(link) for link in self.refused_links):
            self.refused_links.clear()
            return True
        return False

    # --- parts ---

    def _is_free(self, link: str) -> bool:
        return all(batch.asked.link != link for batch in self._batches.values())

    def _halt(self, batch: _Batch, now: int, *, is_told: bool = True) -> list[Effect]:
        """Switch a receiver off, and tell the station, unless it knows."""
        before = batch.state
        self._step(batch, Input.HALT)
        if before is State.STOPPING:
            return []
        stop = StopGenerate(
            at_ns=now,
            sequence=self._order.next_sequence(),
            batch=batch.number,
            reason="stopped",
        )
        told = self._stations.ended(batch.asked, batch.number, now) if is_told else []
        return self._order.submit(stop, now) + told

    def _step(self, batch: _Batch, received: Input) -> None:
        batch.state = BATCH.step(batch.state, received)
        if batch.state is State.ENDED:
            del self._batches[batch.number]


def _ended(batch: int, reason: Reason) -> Tell:
    return Tell(LINK_LAYER, AttemptsEnded(batch=batch, reason=reason, attempts=0))


def _refused(what: str, why: str) -> Record:
    return Record("physical.refused", {"what": what, "why": why})
