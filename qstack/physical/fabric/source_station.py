"""The stations of photon-pair links: sources that emit while both ends have asked with one token.

An end has one receiver, hence one batch on a link at a time. Batches of equal token begin together;
from then on clicks come in chunks, and each end hears of its own only, when the light of the last
slot has reached it.

Endings
1. A batch goes on until it is stopped: its device knows no pairs. Slots emitted before the stop
   count, and come in a DetectionReply that is the last.
2. One stopped before it ever began ends with BatchEnded.
3. The far end goes on waiting, for this batch or another one of the same token.
4. An end that goes down is stopped and told nothing.
So every batch has exactly one last answer: BatchEnded, or a DetectionReply that is last.

Where the station has a name its source emits only while that runs it, for the two batches it names
(`SourceRuns`); it learns nothing of what is detected.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from qstack.errors import ErrorCode
from qstack.physical.device import BatchEnded, DetectionReply, Generate
from qstack.physical.fabric.chance import Chance
from qstack.physical.fabric.circumstances import Circumstances
from qstack.physical.fabric.clicks import BOTH, Clicks, SourceModel
from qstack.physical.fabric.outcomes import JointOutcomes, JointPatterns
from qstack.physical.fabric.passes import SourceModels
from qstack.physical.fabric.readings import Deliver, Readings
from qstack.physical.fabric.receiver import Receiver
from qstack.physical.fabric.register import RefusedError
from qstack.physical.fabric.source_runs import SourceRuns
from qstack.physical.generation import mismatch
from qstack.physical.hardware import World
from qstack.physical.params import NEVER_NS, READOUT_NS
from qstack.physical.station_device import StopWatch, WatchLink
from qstack.wire.packed import Codes, pack_bases, pack_bits, pack_slots


class SourceBatch:
    """A Generate of one node on a photon-pair link."""

    def __init__(self, node: str, operation: Generate, model: SourceModel) -> None:
        self.node = node
        self.operation = operation
        self.model = model
        self.match: SourceMatch | None = None
        self.next_slot = 0  # its detections are told up to here; 0: it has never begun
        self.calibration = 0  # of its link, when it was asked for
        self.receiver: Receiver | None = None  # None: not begun, or its detectors are ideal

    @property
    def number(self) -> int:
        """The name its node gave it."""
        return self.operation.batch


class SourceMatch:
    """Two batches at work together; `batches` in the order of the link's ends."""

    def __init__(
        self,
        model: SourceModel,
        number: int,
        batches: tuple[SourceBatch, SourceBatch],
        generator: Generator,
    ) -> None:
        self.model = model
        self.number = number
        self.batches = batches
        self.generator = generator
        self.event_ns: int | None = None  # None: it is over
        self.clicks: Clicks | None = None


class SourceStation:
    """All photon-pair links. `deliver` sends to a node, `schedule` asks to be called back."""

    def __init__(
        self,
        world: World,
        chance: Chance,
        readings: Readings,
        circumstances: Circumstances,
        *,
        deliver: Deliver,
        schedule: Callable[[SourceMatch], None],
    ) -> None:
        self._switches = circumstances.switches
        self._models = {
            name: SourceModels(link) for name, link in world.links.items() if not link.is_heralded
        }
        self._circumstances = circumstances
        self._chance = chance
        self._readings = readings
        self._deliver = deliver
        self._receivers: dict[tuple[str, str], SourceBatch] = {}  # by link and node
        self._open: dict[tuple[str, int], SourceBatch] = {}  # the same by node and number
        self._matches = dict.fromkeys(self._models, 0)
        self._schedule = schedule
        self._runs = SourceRuns(world, deliver)

    def serves(self, link: str) -> bool:
        """Whether a link is one of these."""
        return link in self._models

    def open_batches(self, node: str) -> int:
        """How many batches of a node are open."""
        return sum(batch.node == node for batch in self._receivers.values())

    def is_busy(self, node: str, link: str) -> bool:
        """Whether the receiver of `node` on this link is on, or it runs its source."""
        return (link, node) in self._receivers or self._runs.is_run_by(node, link)

    # --- what nodes ask ---

    def generate(self, node: str, operation: Generate, at_ns: int) -> None:
        """A receiver is on. Raises `RefusedError`."""
        model = self._models[operation.link].usual
        problem = mismatch(
            operation.kind,
            basis=operation.basis,
            pairs=operation.pairs,
            bright_state=operation.bright_state,
            scheme=model.link.scheme,
            rotation=operation.rotation,
        )
        if node not in model.ends:
            problem = f"{node} is not on a link {operation.link}"
        elif operation.qubit is not None:
            problem = problem or "a measure batch names no qubit"
        elif (operation.link, node) in self._receivers:
            problem = "the receiver is in use"
        if problem:
            raise RefusedError(ErrorCode.BAD_REQUEST, problem)
        batch = SourceBatch(node, operation, model)
        batch.calibration = self._circumstances.calibration(operation.link)
        self._receivers[operation.link, node] = self._open[node, operation.batch] = batch
        self._match(model, at_ns)

    def stop(self, node: str, number: int, reason: str, at_ns: int) -> bool:
        """A node ends a batch; whether it was open here."""
        batch = self._open.get((node, number))
        if batch is None:
            return False
        self._end(batch, at_ns, is_told=True)
        if not batch.next_slot:
            ended = BatchEnded(batch=number, reason=reason, attempts=0)
            self._deliver(node, at_ns + READOUT_NS, ended)
        return True

    def node_gone(self, node: str, at_ns: int) -> None:
        """End all batches of `node` without telling it."""
        for batch in list(self._receivers.values()):
            if batch.node == node:
                self._end(batch, at_ns, is_told=False)

    def emission(self, match: SourceMatch) -> None:
        """The last slot of a chunk has been emitted."""
        clicks, at_ns = match.clicks, match.event_ns
        assert clicks is not None
        assert at_ns is not None
        outcomes = self._outcomes(match, clicks)
        for batch in match.batches:
            self._reply(match, batch, clicks, outcomes, at_ns)
        link = match.model.link.id
        if self._switches.has(link) and self._switches.must_yield(link, at_ns):
            match.event_ns = match.clicks = None
            self._switches.leave(link, match, at_ns)
            self._attempt(match, clicks.until_slot, at_ns)
            return
        self._draw(match, clicks.until_slot)

    # --- what a station that has a name asks ---

    def run_for(self, station: str, asked: WatchLink, at_ns: int) -> None:
        """Its source emits for two batches, once both are on. Raises `RefusedError`."""
        self._runs.begin(station, asked)
        self._match(self._models[asked.link].usual, at_ns)

    def stop_run(self, station: str, asked: StopWatch, at_ns: int) -> bool:
        """Its source emits no more; whether it was one of these that did."""
        link = self._runs.end(station, asked.watch, at_ns)
        if link is not None:
            self._interrupt(link, at_ns)
        return link is not None

    def station_gone(self, station: str, at_ns: int) -> None:
        """Its sources emit no more; receivers wait."""
        for link in self._runs.forget(station):
            self._interrupt(link, at_ns)

    # --- inside ---

    def _interrupt(self, link: str, at_ns: int) -> None:
        """The source stops: both ends get what was emitted before, and wait."""
        first = self._receivers.get((link, self._models[link].usual.ends[0]))
        match = None if first is None else first.match
        if match is None:
            return
        clicks, match.clicks = match.clicks, None
        self._close(match, at_ns)
        if clicks is not None:
            clicks = clicks.before(-(-at_ns // match.model.slot_ns))
            outcomes = self._outcomes(match, clicks)
            for batch in match.batches:
                self._reply(match, batch, clicks, outcomes, at_ns)

    def _match(self, model: SourceModel, at_ns: int) -> None:
        """Bring the batches of both ends together, if they are for the same."""
        link = model.link.id
        first, second = (self._receivers.get((link, end)) for end in model.ends)
        if first is None or second is None or first.operation.token != second.operation.token:
            return
        if not self._runs.allow(link, (first.number, second.number)) or first.match is not None:
            return
        number = self._matches[link]
        self._matches[link] += 1
        generator = self._chance.generator("source", link, number)
        match = SourceMatch(model, number, (first, second), generator)
        slots = [-(-at_ns // model.slot_ns), self._runs.first_slot(link)]
        for batch in match.batches:
            batch.match = match
            slots += [batch.operation.first_cycle, batch.next_slot]
            detectors = model.link.detectors
            if detectors is not None and batch.receiver is None:
                name = ("receiver", link, number, batch.node)
                kind = detectors.kind(model.slot_ns)
                batch.receiver = Receiver(kind, self._chance.generator(*name))
        self._attempt(match, max(slots), at_ns)

    def _attempt(self, match: SourceMatch, first_slot: int, at_ns: int) -> None:
        """Slots count from `first_slot` on, or from when the switch is set to their link."""
        link, slot_ns = match.model.link.id, match.model.slot_ns
        if not self._switches.has(link):
            self._draw(match, first_slot)
            return

        def begin(start_ns: int) -> None:
            self._draw(match, max(first_slot, -(-start_ns // slot_ns)))

        self._switches.enter(link, match, at_ns, begin)

    def _draw(self, match: SourceMatch, first_slot: int) -> None:
        wanted = min(batch.operation.pairs for batch in match.batches)
        link = match.model.link.id
        models = self._models[link]
        step, first_slot, until_slot = models.next_step(first_slot)
        # Conditions are those at its beginning, for the whole chunk.
        conditions = self._circumstances.at(link, first_slot * match.model.slot_ns)
        match.model = models.model(step, conditions)
        span = match.model.span_slots(wanted)
        if until_slot is not None:
            span = min(span, until_slot - first_slot)
        match.clicks = match.model.draw(match.generator, first_slot, span)
        at_ns = match.clicks.until_slot * match.model.slot_ns
        match.event_ns = None
        if at_ns < NEVER_NS:
            match.event_ns = at_ns
            self._schedule(match)

    def _end(self, stopped: SourceBatch, at_ns: int, *, is_told: bool) -> None:
        """Take a batch out; both ends get what was emitted before `at_ns`."""
        model, match = stopped.model, stopped.match
        del self._receivers[model.link.id, stopped.node], self._open[stopped.node, stopped.number]
        if match is not None:
            self._close(match, at_ns)
        if match is not None and match.clicks is not None:
            clicks = match.clicks.before(-(-at_ns // model.slot_ns))
            outcomes = self._outcomes(match, clicks)
            match.clicks = None
            for batch in match.batches:
                if batch is not stopped:
                    self._reply(match, batch, clicks, outcomes, at_ns)
                elif is_told:
                    self._reply(match, batch, clicks, outcomes, at_ns, is_last=True)
        elif stopped.next_slot and is_told:
            # Its far end has left before, or it waits for the switch: nothing more was detected.
            due_ns = at_ns + model.link.arm_ns(stopped.node) + READOUT_NS
            self._readings.close(stopped.node, stopped.number, due_ns, _nothing(stopped))

    def _close(self, match: SourceMatch, at_ns: int) -> None:
        match.event_ns = None
        for batch in match.batches:
            batch.match = None
        if self._switches.has(match.model.link.id):
            self._switches.leave(match.model.link.id, match, at_ns)

    def _outcomes(self, match: SourceMatch, clicks: Clicks) -> JointOutcomes | JointPatterns:
        first, second = (batch.operation.rotation for batch in match.batches)
        if match.model.link.detectors is not None:
            both, alone = match.model.patterns((first, second))
            return JointPatterns(both, alone, clicks.kinds == BOTH, clicks.luck)
        patterns = np.zeros(len(clicks.slots), dtype=np.uint8)
        tables = match.model.tables((first, second))
        return JointOutcomes(tables, patterns, clicks.luck, clicks.kinds == BOTH)

    def _reply(
        self,
        match: SourceMatch,
        batch: SourceBatch,
        clicks: Clicks,
        outcomes: JointOutcomes | JointPatterns,
        at_ns: int,
        *,
        is_last: bool = False,
    ) -> None:
        """Tell an end what it has detected, once its light is there and its bases are known.

        A receiver that is not ideal needs the bases of what it may detect, and sees some of that.
        """
        end = match.batches.index(batch)
        mine = clicks.of(end)
        slots = clicks.slots[mine]
        batch.next_slot = max(1, clicks.until_slot)
        receiver = batch.receiver
        part = None
        if receiver is not None:
            part = receiver.expect(slots, clicks.first_slot, clicks.until_slot)
        wanted = slots if part is None else part.slots

        def finish(codes: Codes, packed: bytes) -> DetectionReply:
            spread = np.zeros(len(clicks.slots), dtype=np.uint8)
            spread[mine] = codes if part is None else codes[part.is_light]
            read, told = outcomes.read(end, spread)[mine], wanted
            if receiver is not None and part is not None:
                seen = receiver.register(part, read)
                told, read = wanted[seen.places], seen.outcomes
                packed = pack_bases(codes[seen.places]) if packed else b""
            return DetectionReply(
                batch=batch.number,
                first_slot=clicks.first_slot,
                until_slot=clicks.until_slot,
                detections=len(told),
                slots=pack_slots(told, clicks.first_slot),
                outcomes=pack_bits(read),
                bases=packed,
                is_last=is_last,
                calibration=batch.calibration,
            )

        due_ns = at_ns + match.model.link.arm_ns(batch.node) + READOUT_NS
        basis = batch.operation.basis
        assert basis is not None, "a measure batch has a basis"
        self._readings.answer(batch.node, batch.number, basis, len(wanted), due_ns, finish)


def _nothing(batch: SourceBatch) -> DetectionReply:
    """The last answer of a batch that has told everything."""
    return DetectionReply(
        batch=batch.number,
        first_slot=batch.next_slot,
        until_slot=batch.next_slot,
        detections=0,
        slots=b"",
        outcomes=b"",
        bases=b"",
        is_last=True,
        calibration=batch.calibration,
    )
