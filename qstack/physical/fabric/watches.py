"""The detectors of stations that have a name: which photons meet in them, and when.

A node's Generate makes it emit; what comes of that is decided where the photons meet, and only for
what the station watches. A watch draws what comes next (`drawing.py`) over the cycles in which both
batches emit and the photons come while it is watching: the same draws as for a station without a
name. A pair's qubits are as old as their emission, and begin to be there when the detectors click;
what is measured is read at the emission, and waits for its node to ask (`records.py`).

Endings
1. A success ends both batches and the watch, which says Clicked, RESULT_MIN_NS after the photons'
   arrival. What is measured goes on, part by part (ClickedInCycles), until there are `pairs`.
2. A batch that is stopped at t emits before t only. A success emitted before t is in flight, and
   its watch still says so.
3. A watch that is stopped says what is in flight of cycles before its last. If that was not its end
   it ends with WatchEnded, once the photons of that cycle have come. The batches go on.
4. What is given up, or whose node has gone, ends at once; of a success in flight the far end alone
   gets a qubit, which is then nobody's partner.
So every watch has exactly one last answer, and a node hears nothing from here but of its station.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from qstack.errors import ErrorCode
from qstack.physical.device import Generate
from qstack.physical.fabric.batches import AttemptCounter, Batch, cycles_before
from qstack.physical.fabric.chance import Chance
from qstack.physical.fabric.circumstances import Circumstances
from qstack.physical.fabric.drawing import draw_next
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.fabric.link_model import PATTERN_BITS, LinkModel
from qstack.physical.fabric.measured import Chunk
from qstack.physical.fabric.outcomes import JointOutcomes
from qstack.physical.fabric.prepared import code_of, read_half
from qstack.physical.fabric.readings import Deliver
from qstack.physical.fabric.records import Record, Records
from qstack.physical.fabric.register import Move, RefusedError, Register
from qstack.physical.fabric.station import Station
from qstack.physical.generation import has_storage
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.params import HERALDS_MAX, NEVER_NS, RESULT_MIN_NS
from qstack.physical.station_device import (
    Clicked,
    ClickedInCycles,
    KeepHeralded,
    Kept,
    ReadHeralded,
    StopWatch,
    WatchEnded,
    WatchLink,
)
from qstack.wire.packed import Bits, Codes, Slots, pack_slots

if TYPE_CHECKING:
    from numpy.random import Generator

    from qstack.physical.conditions import Conditions

END_AHEAD_NS: Final = 10_000_000_000
"""The end of a watch is told no later than this after it was asked for."""


class Watch:
    """One watch of a station; `event_ns` is when something comes of it."""

    def __init__(self, station: str, asked: WatchLink, model: LinkModel, number: int) -> None:
        self.station = station
        self.asked = asked
        self.model = model
        self.number = number
        self.remaining = asked.pairs
        self.until_cycle = asked.until_cycle
        self.is_stopping = False
        self.batches: tuple[Batch, Batch] | None = None  # in the order of the link's ends
        self.generator: Generator | None = None
        self.begin_cycle = 0
        self.event_ns: int | None = None  # None: nothing will come of it, or it is over
        self.cycle = 0  # of the event
        self.chunk: Chunk | None = None
        self.is_undecided = False
        self.conditions: Conditions | None = None

    @property
    def sequence(self) -> int:
        """Its name at its station."""
        return self.asked.sequence


class Watches:
    """All links through named stations. `deliver` sends, `schedule` asks to be called back."""

    def __init__(
        self,
        world: World,
        station: Station,
        register: Register,
        counter: AttemptCounter,
        chance: Chance,
        circumstances: Circumstances,
        *,
        deliver: Deliver,
        schedule: Callable[[Watch], None],
    ) -> None:
        self._world = world
        self._station = station
        self._register = register
        self._counter = counter
        self._chance = chance
        self._circumstances = circumstances
        self._records = Records()
        self._deliver = deliver
        self._schedule = schedule
        self._emitting: dict[tuple[str, int], Batch] = {}  # by node and number
        self._watches: dict[tuple[str, int], Watch] = {}  # by station and sequence
        self._made = dict.fromkeys(world.links, 0)

    def serves(self, link: str) -> bool:
        """Whether a link goes through a station that is a participant of its own."""
        hardware = self._world.links.get(link)
        return hardware is not None and hardware.station is not None

    def unread(self, node: str) -> int:
        """Batches of a node of which something was read that it has not asked for."""
        return self._records.count(node)

    def is_watched(self, link: str) -> bool:
        """Whether a station watches a link."""
        return any(watch.asked.link == link for watch in self._watches.values())

    # --- what nodes ask --------------------------------------------------------------------------

    def generate(self, node: str, operation: Generate, at_ns: int) -> None:
        """A node begins to emit. Raises `RefusedError`."""
        batch = self._station.admit(node, operation, at_ns)
        self._emitting[node, batch.number] = batch
        for watch in list(self._watches.values()):
            if watch.batches is None and watch.asked.link == operation.link:
                self._begin(watch, at_ns)

    def stop(self, node: str, number: int, reason: str, at_ns: int) -> bool:
        """A node ends a batch; whether it is one of these that emits."""
        if reason == "given-up":
            self._give_up(node, number)
        batch = self._emitting.pop((node, number), None)
        if batch is None:
            return False
        self._counter.end(batch, at_ns)
        for watch in self._watches.values():
            if batch in (watch.batches or ()):
                cycle_ns = watch.model.cycle_ns(batch.operation.kind)
                made = cycles_before(at_ns, cycle_ns, watch.model.emission_offset_ns)
                self._cut(watch, made, at_ns)
        return True

    def keep(self, node: str, operation: KeepHeralded, at_ns: int) -> None:
        """A heralded qubit is moved to storage. Raises `RefusedError`."""
        profile = self._world.nodes[node].profile
        move = Move(at_ns + profile.move_ns, profile.move_depolarising)
        self._register.store(QubitKey(node, operation.qubit), move)
        due_ns = at_ns + max(profile.move_ns, RESULT_MIN_NS)
        self._deliver(node, due_ns, Kept(operation=operation.sequence))

    def read(self, node: str, operation: ReadHeralded, at_ns: int) -> None:
        """A node takes what it has read in heralded cycles. Raises `RefusedError`."""
        due_ns, result = self._records.read(node, operation, at_ns)
        self._deliver(node, due_ns, result)

    def node_gone(self, node: str, at_ns: int) -> None:
        """All that a node emits ends; its photons in flight are nobody's."""
        for name, number in list(self._emitting):
            if name == node:
                self.stop(node, number, "given-up", at_ns)
        self._give_up(node, None)

    # --- what stations ask -----------------------------------------------------------------------

    def watch(self, station: str, asked: WatchLink, at_ns: int) -> None:
        """A station watches. Raises `RefusedError`."""
        hardware = self._world.links.get(asked.link)
        if hardware is None or hardware.station != station:
            detail = f"no link {asked.link} goes through {station}"
            raise RefusedError(ErrorCode.BAD_REQUEST, detail)
        if (station, asked.sequence) in self._watches:
            raise RefusedError(ErrorCode.BAD_REQUEST, f"watch {asked.sequence} is open")
        number = self._made[asked.link]
        self._made[asked.link] += 1
        watch = Watch(station, asked, self._station.models[asked.link], number)
        self._watches[station, asked.sequence] = watch
        self._begin(watch, at_ns)

    def stop_watch(self, station: str, asked: StopWatch, at_ns: int) -> None:
        """The photons of a watch end; nothing happens if it has ended."""
        watch = self._watches.get((station, asked.watch))
        if watch is not None:
            watch.is_stopping = True
            self._cut(watch, asked.until_cycle, at_ns)
            self._end_if_over(watch, at_ns)

    def station_gone(self, station: str) -> None:
        """Nobody looks at its detectors any more; what nodes emit goes on."""
        for key in [key for key in self._watches if key[0] == station]:
            self._watches.pop(key).event_ns = None

    # --- what becomes of them --------------------------------------------------------------------

    def conditions_changed(self, link: LinkHardware, at_ns: int) -> None:
        """What comes of emissions from `at_ns` on is drawn anew; a begun chunk stays."""
        for watch in self._watches.values():
            if watch.asked.link != link.id or watch.batches is None or watch.chunk is not None:
                continue
            kind = watch.batches[0].operation.kind
            offset_ns = watch.model.emission_offset_ns
            made = cycles_before(at_ns, watch.model.cycle_ns(kind), offset_ns)
            is_in_flight = watch.event_ns is not None and watch.cycle < made
            if watch.is_undecided or not is_in_flight:
                self._draw(watch, max(watch.begin_cycle, made), at_ns)

    def clicks(self, watch: Watch) -> None:
        """The photons of a success, or of the last of a part, arrive; or it is drawn anew."""
        at_ns, watch.event_ns = watch.event_ns, None
        assert at_ns is not None
        if watch.is_undecided:
            self._draw(watch, watch.cycle, at_ns)
        elif watch.chunk is None:
            self._success(watch, at_ns)
            return
        else:
            chunk, watch.chunk = watch.chunk, None
            self._part(watch, chunk, at_ns)
        self._end_if_over(watch, at_ns)

    def _success(self, watch: Watch, at_ns: int) -> None:
        """One attempt has succeeded: a pair, or half of one and what was read of the other."""
        assert watch.batches is not None
        assert watch.generator is not None
        model, batches = watch.model, watch.batches
        emitted_ns = self._emission_ns(watch, watch.cycle)
        pattern = int(watch.generator.random() < 0.5)
        self._end(watch, emitted_ns)
        state = model.success(batches[0].operation.bright_state, watch.conditions).states[pattern]
        keys = [QubitKey(batch.node, batch.operation.qubit or b"") for batch in batches]
        if batches[0].operation.kind == "prepare":
            end = next(end for end in (0, 1) if batches[end].operation.qubit is None)
            effects = model.effects(end, batches[end].operation.rotation)
            luck = watch.generator.random()
            read = read_half(state, end, effects[code_of(batches[end])], luck)
            cycles = np.array([watch.cycle])
            self._record(watch, batches[end], cycles, lambda _: np.array([read.outcome], np.uint8))
            kept = [1 - end]
            move = self._later(batches[1 - end].node)
            self._register.add_prepared(read.other, keys[1 - end], move, emitted_ns)
        else:
            kept = [0, 1]
            moves = self._later(batches[0].node), self._later(batches[1].node)
            self._register.add_pair(state, (keys[0], keys[1]), moves, emitted_ns)
        for end in kept:
            if batches[end].is_given_up:
                self._register.release(keys[end])
        x, z = PATTERN_BITS[pattern]
        clicked = Clicked(
            operation=watch.sequence,
            cycle=watch.cycle,
            x_bit=x,
            z_bit=z,
            calibration=batches[0].calibration,
        )
        self._deliver(watch.station, at_ns + RESULT_MIN_NS, clicked)

    def _part(self, watch: Watch, chunk: Chunk, at_ns: int) -> None:
        """Measured pairs: each end has read its own, and the station hears in which cycles."""
        assert watch.batches is not None
        first, second = (batch.operation for batch in watch.batches)
        rotations = (first.rotation, second.rotation)
        tables = watch.model.joint_outcomes(first.bright_state, watch.conditions, rotations)
        outcomes = JointOutcomes(tables, chunk.patterns, chunk.luck)
        for end, batch in enumerate(watch.batches):
            self._record(watch, batch, chunk.cycles, partial(outcomes.read, end))
        pairs, first_cycle = len(chunk.cycles), int(chunk.cycles[0])
        watch.remaining -= pairs
        clicked = ClickedInCycles(
            operation=watch.sequence,
            pairs=pairs,
            first_cycle=first_cycle,
            cycles=pack_slots(chunk.cycles, first_cycle),
            x_bits=chunk.x_bits,
            z_bits=chunk.z_bits,
            is_last=not watch.remaining,
            calibration=watch.batches[0].calibration,
        )
        self._deliver(watch.station, at_ns + RESULT_MIN_NS, clicked)
        if watch.remaining:
            self._draw(watch, chunk.next_cycle, at_ns)
        else:
            self._end(watch, self._emission_ns(watch, int(chunk.cycles[-1])))

    def _record(
        self, watch: Watch, batch: Batch, cycles: Slots, read: Callable[[Codes], Bits]
    ) -> None:
        """What an end has read in heralded cycles waits for it, if it is still there."""
        basis = batch.operation.basis
        if batch.is_given_up or basis is None:
            return
        first_cycle = int(cycles[0])
        read_ns = self._world.nodes[batch.node].profile.readout_ns
        record = Record(
            first_cycle=first_cycle,
            pairs=len(cycles),
            cycles=pack_slots(cycles, first_cycle),
            ready_ns=self._emission_ns(watch, int(cycles[-1])) + read_ns,
            basis=basis,
            read=read,
        )
        self._records.add(batch.node, batch.number, record)

    def _end(self, watch: Watch, emitted_ns: int) -> None:
        """A watch is over, and so are its batches, with the emission at `emitted_ns`."""
        del self._watches[watch.station, watch.sequence]
        for batch in watch.batches or ():
            if self._emitting.pop((batch.node, batch.number), None) is not None:
                self._counter.end(batch, emitted_ns + 1)

    def _end_if_over(self, watch: Watch, at_ns: int) -> None:
        """Of a watch that was stopped nothing more comes."""
        is_open = (watch.station, watch.sequence) in self._watches
        if not is_open or not watch.is_stopping or watch.event_ns is not None:
            return
        assert watch.until_cycle is not None
        del self._watches[watch.station, watch.sequence]
        last_ns = self._arrival_ns(watch, watch.until_cycle - 1)
        due_ns = min(max(at_ns, last_ns), at_ns + END_AHEAD_NS) + RESULT_MIN_NS
        self._deliver(watch.station, due_ns, WatchEnded(operation=watch.sequence))

    # --- inside ----------------------------------------------------------------------------------

    def _give_up(self, node: str, number: int | None) -> None:
        """What is in flight of a batch of a node, or of all of them, is not wanted."""
        for watch in self._watches.values():
            for batch in watch.batches or ():
                if batch.node == node and number in (None, batch.number):
                    batch.is_given_up = True
        self._records.forget(node, number)

    def _later(self, node: str) -> Move | None:
        """A qubit of a node with storage stays where it is until the node hears of it."""
        hardware = self._world.nodes[node]
        profile = hardware.profile
        if not has_storage(hardware.memory, profile.comm_qubits):
            return None
        return Move(NEVER_NS, profile.move_depolarising)

    def _begin(self, watch: Watch, at_ns: int) -> None:
        """Draw what comes of a watch, once both ends emit."""
        model, asked = watch.model, watch.asked
        first, second = (
            self._emitting.get((end, number))
            for end, number in zip(model.ends, asked.batches, strict=True)
        )
        if first is None or second is None:
            return
        watch.batches = (first, second)
        if first.key[2:] != second.key[2:]:
            return  # the photons do not interfere
        watch.generator = self._chance.generator("match", asked.link, watch.number)
        lead_ns = model.emission_offset_ns + model.link.arrival_ns
        since = cycles_before(at_ns, model.cycle_ns(first.operation.kind), lead_ns)
        watch.begin_cycle = max(first.first_cycle, second.first_cycle, asked.first_cycle, since)
        self._draw(watch, watch.begin_cycle, at_ns)

    def _draw(self, watch: Watch, first_cycle: int, at_ns: int) -> None:
        """What comes next of a watch whose next common attempt is in `first_cycle`."""
        watch.event_ns = watch.chunk = None
        if watch.until_cycle is not None and first_cycle >= watch.until_cycle:
            return
        assert watch.batches is not None
        if watch.generator is None:
            return
        asked, model = watch.batches[0].operation, watch.model
        cycle_ns = model.cycle_ns(asked.kind)
        watch.conditions = self._circumstances.at(asked.link, first_cycle * cycle_ns)
        pairs = min(watch.remaining, HERALDS_MAX)
        drawn = draw_next(watch.generator, model, asked, watch.conditions, first_cycle, pairs)
        if drawn.cycle is None:
            return
        watch.cycle, watch.chunk, watch.is_undecided = drawn.cycle, drawn.chunk, drawn.is_undecided
        when_ns = self._emission_ns if drawn.is_undecided else self._arrival_ns
        self._expect(watch, when_ns(watch, drawn.cycle), at_ns)
        if watch.until_cycle is not None:
            self._cut(watch, watch.until_cycle, at_ns)

    def _cut(self, watch: Watch, until_cycle: int, at_ns: int) -> None:
        """Nothing comes of a watch from `until_cycle` on."""
        if watch.until_cycle is None or until_cycle < watch.until_cycle:
            watch.until_cycle = until_cycle
        if watch.event_ns is None or watch.cycle < until_cycle:
            return
        chunk, watch.event_ns, watch.chunk = watch.chunk, None, None
        if chunk is not None and int(chunk.cycles[0]) < until_cycle:
            watch.chunk = chunk.before(until_cycle)
            watch.cycle = int(watch.chunk.cycles[-1])
            self._expect(watch, self._arrival_ns(watch, watch.cycle), at_ns)

    def _expect(self, watch: Watch, event_ns: int, at_ns: int) -> None:
        if event_ns < NEVER_NS:
            watch.event_ns = max(event_ns, at_ns)
            self._schedule(watch)

    def _emission_ns(self, watch: Watch, cycle: int) -> int:
        kind = "keep" if watch.batches is None else watch.batches[0].operation.kind
        return cycle * watch.model.cycle_ns(kind) + watch.model.emission_offset_ns

    def _arrival_ns(self, watch: Watch, cycle: int) -> int:
        return self._emission_ns(watch, cycle) + watch.model.link.arrival_ns
