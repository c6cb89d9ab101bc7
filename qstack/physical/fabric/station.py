"""The heralding stations that have no name: who attempts with whom, and what comes of it.

Generates of both ends match oldest first when link, token, kind and bright state are equal. A
match draws its success once (attempts are independent, so their number is geometric) and has one
event to come: the emission of the successful attempt, or of a chunk's last measured pair.

Endings
1. Success: both batches end, both ends get a Reply when the herald is back (and the qubit moved).
2. Stop at t: emissions before t count. A success emitted before t is already in flight and its
   Reply already on its way; the stop then changes nothing. Else the batch ends with BatchEnded.
3. A matched `measure` batch that is stopped ends with a MeasuredReply instead, of the pairs
   emitted before t (perhaps none), which is its last.
4. The far end of a stopped match goes back to the front of its queue with what it still wants,
   and may match another batch at once. Its attempts went on all the time.
5. An end that goes down is stopped and told nothing.
Where conditions change slowly (`circumstances.py`) what comes of attempts is drawn anew every
SEGMENT_NS (`drawing.py`), and when an end times its light anew: attempts have no memory.
A device that checks itself first (`ready_check_ns`) attempts from the first cycle after it has
passed; the time that takes is drawn once for each batch.
So every batch has exactly one last answer: Reply, BatchEnded, or a MeasuredReply that is last.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec.structs import replace
from numpy.random import Generator

from qstack.errors import ErrorCode
from qstack.physical.device import BatchEnded, Generate, MeasuredReply, Reply
from qstack.physical.fabric.batches import AttemptCounter, Batch, MatchKey, cycles_before
from qstack.physical.fabric.chance import Chance
from qstack.physical.fabric.circumstances import Circumstances
from qstack.physical.fabric.drawing import draw_next
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.fabric.link_model import PATTERN_BITS, LinkModel
from qstack.physical.fabric.measured import Chunk
from qstack.physical.fabric.outcomes import JointOutcomes
from qstack.physical.fabric.prepared import code_of, read_half, reader_of
from qstack.physical.fabric.readings import Deliver, Readings
from qstack.physical.fabric.register import Move, RefusedError, Register
from qstack.physical.generation import has_storage, is_kept
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.params import NEVER_NS, READOUT_NS
from qstack.wire.packed import Codes, pack_bits

if TYPE_CHECKING:
    from qstack.physical.conditions import Conditions
    from qstack.physical.profile import Profile

_EMPTY: Final = Chunk(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8), np.zeros((2, 0)), 0)

Schedule = Callable[["Match"], None]
Heralded = Callable[[Batch, int], None]


class Match:
    """Two batches at work together; `batches` in the order of the link's ends."""

    def __init__(
        self, model: LinkModel, number: int, batches: tuple[Batch, Batch], generator: Generator
    ) -> None:
        self.model = model
        self.number = number
        self.batches = batches
        self.generator = generator
        self.event_ns: int | None = None  # None: nothing will come of it, or it is over
        self.success_cycle = 0
        self.chunk: Chunk | None = None
        self.conditions: Conditions | None = None
        self.next_cycle: int | None = None  # not None: nothing comes before it, look again then


class Station:
    """All heralded links. `deliver` sends to a node, `schedule` asks to be called back."""

    def __init__(
        self,
        world: World,
        register: Register,
        counter: AttemptCounter,
        chance: Chance,
        readings: Readings,
        circumstances: Circumstances,
        *,
        deliver: Deliver,
        schedule: Schedule,
    ) -> None:
        self._world = world
        self._switches = circumstances.switches
        self._readings = readings
        self._circumstances = circumstances
        self._register = register
        self._counter = counter
        self._chance = chance
        self.models = {
            name: LinkModel(world, link) for name, link in world.links.items() if link.is_heralded
        }
        self._waiting: dict[MatchKey, deque[Batch]] = {}  # all of one end, else they would match
        self._storing: dict[str, Profile] = {}  # of nodes with storage
        self._ready_checks: dict[str, tuple[int, float]] = {}  # by node: ns, chance to pass
        for name, node in world.nodes.items():
            profile = node.profile
            if has_storage(node.memory, profile.comm_qubits):
                self._storing[name] = profile
            if profile.ready_check_ns is not None and profile.ready_check_pass is not None:
                self._ready_checks[name] = profile.ready_check_ns, profile.ready_check_pass
        self._matches = dict.fromkeys(world.links, 0)
        self._spare: list[Generator] = []  # of matches that are over
        self._first_herald = 0
        self._heralds = dict.fromkeys(world.links, self._first_herald)
        self._deliver = deliver
        self._schedule = schedule
        self.heralded: Heralded | None = None
        """Is told of what is kept, and when its node hears of it; where nodes run programs."""

    # --- what nodes ask ---

    def generate(self, node: str, operation: Generate, at_ns: int) -> None:
        """A node begins to attempt. Raises `RefusedError`."""
        self._queue(self.admit(node, operation, at_ns), at_ns)

    def admit(self, node: str, operation: Generate, at_ns: int) -> Batch:
        """The batch of a Generate, and its first cycle. Raises `RefusedError`."""
        model = self.models.get(operation.link)
        if model is None or node not in model.ends:
            raise RefusedError(ErrorCode.BAD_REQUEST, f"{node} is not on a link {operation.link}")
        self._check(node, operation, model)
        cycle_ns = model.cycle_ns(operation.kind)
        ready_ns = at_ns
        if node in self._ready_checks:
            ready_ns += self._ready_check_ns(node, operation.batch)
        first_cycle = max(operation.first_cycle, -(-ready_ns // cycle_ns))
        reader = reader_of(operation, node, model)
        batch = Batch(node, operation, first_cycle, cycle_ns, model.emission_offset_ns, reader)
        batch.calibration = self._circumstances.calibration(model.name)
        self._counter.add(batch)
        return batch

    def stop(self, node: str, number: int, reason: str, at_ns: int) -> None:
        """A node ends a batch; nothing happens if it has ended."""
        batch = self._counter.open_batches(node).get(number)
        if batch is None:
            return
        model, is_keep = self.models[batch.operation.link], batch.operation.kind != "measure"
        back_ns = at_ns + (model.herald_back_ns(node) if is_keep else _told_ns(model, batch))
        was_measuring = batch.match is not None and not is_keep
        if was_measuring:
            self._deliver_cut(batch, at_ns, is_told=True)
        attempts = self._end(batch, at_ns)
        if not was_measuring:
            ended = BatchEnded(batch=number, reason=reason, attempts=attempts)
            self._readings.close(node, number, back_ns, ended)

    def node_gone(self, node: str, at_ns: int) -> None:
        """End all batches of `node` without telling it."""
        for batch in list(self._counter.open_batches(node).values()):
            if batch.match is not None and batch.operation.kind == "measure":
                self._deliver_cut(batch, at_ns, is_told=False)
            self._end(batch, at_ns)

    def restart_heralds(self, node: str) -> None:
        """Herald sequences of the links of `node` begin anew: it has a new boot id."""
        for link in self._world.links_of(node):
            self._heralds[link.id] = self._first_herald

    def heralds_begin_at(self, first: int) -> None:
        """All herald sequences count from `first`, larger than any that was used before."""
        self._first_herald = first
        self._heralds = dict.fromkeys(self._heralds, first)

    def is_busy(self, node: str, link: str) -> bool:
        """Whether `node` attempts on this link."""
        batches = self._counter.open_batches(node).values()
        return any(batch.operation.link == link for batch in batches)

    def holds(self, key: QubitKey) -> bool:
        """Whether an open batch will make this qubit."""
        return self._counter.makes(key)

    # --- what becomes of attempts ---

    def emission(self, match: Match) -> None:
        """The event of a match is due: the pair, or the chunk of measured pairs, is there."""
        at_ns = match.event_ns
        assert at_ns is not None
        if match.next_cycle is not None:
            self._draw(match, match.next_cycle)
        elif match.chunk is None:
            self._success(match, at_ns)
        else:
            self._measured(match, match.chunk, at_ns)

    def _success(self, match: Match, at_ns: int) -> None:
        model, batches = match.model, match.batches
        pattern = int(match.generator.random() < 0.5)
        for batch in batches:
            self._counter.end(batch, at_ns + 1)
        self._close(match, at_ns)
        self._spare.append(match.generator)
        if batches[0].operation.kind == "prepare":
            self._prepared(match, pattern, at_ns)
            return
        first, second = batches
        state = model.success(first.operation.bright_state, match.conditions).states[pattern]
        moves = self._move(model, first.node, at_ns), self._move(model, second.node, at_ns)
        assert first.qubit is not None
        assert second.qubit is not None
        self._register.add_pair(state, (first.qubit, second.qubit), moves, at_ns)
        self._reply_kept(match, first, pattern, moves[0], at_ns)
        self._reply_kept(match, second, pattern, moves[1], at_ns)
        self._heralds[model.name] += 1

    def _reply_kept(
        self, match: Match, batch: Batch, pattern: int, move: Move | None, at_ns: int
    ) -> None:
        """Tell an end of a pair whose half it keeps, once it is where it stays."""
        x, z = PATTERN_BITS[pattern]
        reply = Reply(
            batch=batch.number,
            herald_sequence=self._heralds[match.model.name],
            cycle=match.success_cycle,
            x_bit=x,
            z_bit=z,
            emitted_at_ns=at_ns,
            calibration=batch.calibration,
        )
        due_ns = at_ns + match.model.herald_back_ns(batch.node) if move is None else move.at_ns
        if self.heralded is not None:
            self.heralded(batch, due_ns)
        self._deliver(batch.node, due_ns, reply)

    def _prepared(self, match: Match, pattern: int, at_ns: int) -> None:
        """One end has read its half right after the emission: the other's state is prepared."""
        model, batches = match.model, match.batches
        end = next(end for end in (0, 1) if batches[end].operation.qubit is None)
        reader, keeper = batches[end], batches[1 - end]
        bright_state = reader.operation.bright_state
        state = model.success(bright_state, match.conditions).states[pattern]
        effects = model.effects(end, reader.operation.rotation)
        read = read_half(state, end, effects[code_of(reader)], match.generator.random())
        move = self._move(model, keeper.node, at_ns)
        assert keeper.qubit is not None
        self._register.add_prepared(read.other, keeper.qubit, move, at_ns)
        reply = MeasuredReply(
            batch=reader.number,
            first_herald_sequence=self._heralds[model.name],
            pairs=1,
            outcomes=pack_bits(np.array([read.outcome])),
            x_bits=pack_bits(np.array([PATTERN_BITS[pattern][0]])),
            z_bits=pack_bits(np.array([PATTERN_BITS[pattern][1]])),
            bases=b"",
            emitted_at_ns=at_ns,
            is_last=True,
            calibration=reader.calibration,
        )
        self._deliver(reader.node, at_ns + model.measured_back_ns(reader.node), reply)
        self._reply_kept(match, keeper, pattern, move, at_ns)
        self._heralds[model.name] += 1

    def _measured(self, match: Match, chunk: Chunk, at_ns: int) -> None:
        pairs = len(chunk.cycles)
        is_last = min(batch.remaining for batch in match.batches) == pairs
        outcomes = self._outcomes(match, chunk)
        for batch in match.batches:
            self._reply_measured(match, batch, chunk, outcomes, at_ns, is_last=is_last)
        self._heralds[match.model.name] += pairs
        if is_last:
            for batch in match.batches:
                self._counter.end(batch, at_ns + 1)
            self._close(match, at_ns)
            return
        for batch in match.batches:
            batch.remaining -= pairs
        link = match.model.name
        if self._switches.has(link) and self._switches.must_yield(link, at_ns):
            match.event_ns = match.chunk = None
            self._switches.leave(link, match, at_ns)
            self._attempt(match, chunk.next_cycle, at_ns)
            return
        self._draw(match, chunk.next_cycle)

    def _deliver_cut(self, stopped: Batch, at_ns: int, *, is_told: bool) -> None:
        """A measuring match is cut at `at_ns`: both ends get the pairs emitted before."""
        match = stopped.match
        assert match is not None
        chunk = match.chunk
        if chunk is None:  # nothing will ever come of this link, or it waits for the switch
            chunk = _EMPTY
        cycle_ns = match.model.cycle_ns("measure")
        offset_ns = match.model.emission_offset_ns
        chunk = chunk.before(cycles_before(at_ns, cycle_ns, offset_ns))
        pairs = len(chunk.cycles)
        outcomes = self._outcomes(match, chunk)
        for batch in match.batches:
            is_stopped = batch is stopped
            if is_stopped and not is_told:
                continue
            if pairs or is_stopped:
                self._reply_measured(match, batch, chunk, outcomes, at_ns, is_last=is_stopped)
            batch.remaining -= pairs
        self._heralds[match.model.name] += pairs

    def _outcomes(self, match: Match, chunk: Chunk) -> JointOutcomes:
        asked, other = (batch.operation for batch in match.batches)
        rotations = (asked.rotation, other.rotation)
        tables = match.model.joint_outcomes(asked.bright_state, match.conditions, rotations)
        return JointOutcomes(tables, chunk.patterns, chunk.luck)

    def _reply_measured(
        self,
        match: Match,
        batch: Batch,
        chunk: Chunk,
        outcomes: JointOutcomes,
        at_ns: int,
        *,
        is_last: bool,
    ) -> None:
        """Tell an end of measured pairs, once the herald is back and its bases are known."""
        model = match.model
        pairs = len(chunk.cycles)
        emitted_at_ns = 0
        if pairs:
            last_ns = int(chunk.cycles[-1]) * model.cycle_ns("measure")
            emitted_at_ns = last_ns + model.emission_offset_ns
        reply = MeasuredReply(
            batch=batch.number,
            first_herald_sequence=self._heralds[model.name],
            pairs=pairs,
            outcomes=b"",
            x_bits=chunk.x_bits,
            z_bits=chunk.z_bits,
            bases=b"",
            emitted_at_ns=emitted_at_ns,
            is_last=is_last,
            calibration=batch.calibration,
        )
        finish = partial(_read, reply, outcomes, match.batches.index(batch))
        due_ns = at_ns + (model.measured_back_ns(batch.node) if pairs else _told_ns(model, batch))
        basis = batch.operation.basis
        assert basis is not None, "a measure batch has a basis"
        self._readings.answer(batch.node, batch.number, basis, pairs, due_ns, finish)

    # --- matching ---

    def _queue(self, batch: Batch, at_ns: int, *, is_first: bool = False) -> None:
        """Bring a batch together with the oldest that waits at the far end, or let it wait."""
        waiting = self._waiting.get(batch.key)
        if waiting is None:
            self._waiting[batch.key] = deque((batch,))
        elif waiting[0].node != batch.node:
            far = waiting.popleft()
            if not waiting:
                del self._waiting[batch.key]
            self._begin(batch, far, at_ns)
        elif is_first:
            waiting.appendleft(batch)
        else:
            waiting.append(batch)

    def _begin(self, one: Batch, other: Batch, at_ns: int) -> None:
        """Two batches attempt together from now on."""
        link = one.key[0]
        model = self.models[link]
        batches = (one, other) if one.node == model.ends[0] else (other, one)
        number = self._matches[link]
        self._matches[link] += 1
        if self._spare:
            generator = self._spare.pop()
            self._chance.reuse(generator, "match", link, number)
        else:
            generator = self._chance.generator("match", link, number)
        match = Match(model, number, batches, generator)
        one.match = other.match = match
        cycle_ns = model.cycle_ns(one.operation.kind)
        first_cycle = max(one.first_cycle, other.first_cycle, -(-at_ns // cycle_ns))
        self._attempt(match, first_cycle, at_ns)

    def _attempt(self, match: Match, first_cycle: int, at_ns: int) -> None:
        """Attempts count from `first_cycle` on, or from when the switch is set to their link."""
        model = match.model
        if not self._switches.has(model.name):
            self._draw(match, first_cycle)
            return
        cycle_ns = model.cycle_ns(match.batches[0].operation.kind)

        def begin(start_ns: int) -> None:
            self._draw(match, max(first_cycle, -(-start_ns // cycle_ns)))

        self._switches.enter(model.name, match, at_ns, begin)

    def _draw(self, match: Match, first_cycle: int) -> None:
        """What comes next of a match whose next common attempt is in `first_cycle`."""
        model, (batch_a, batch_b) = match.model, match.batches
        asked = batch_a.operation
        cycle_ns = model.cycle_ns(asked.kind)
        conditions = self._circumstances.at(model.name, first_cycle * cycle_ns)
        pairs = min(batch_a.remaining, batch_b.remaining)
        drawn = draw_next(match.generator, model, asked, conditions, first_cycle, pairs)
        cycle = drawn.cycle
        match.conditions, match.chunk = conditions, drawn.chunk
        match.event_ns = None
        match.next_cycle = cycle if drawn.is_undecided else None
        if cycle is None:
            return
        match.success_cycle = cycle
        at_ns = cycle * cycle_ns + model.emission_offset_ns
        if at_ns < NEVER_NS:
            match.event_ns = at_ns
            self._schedule(match)

    def conditions_changed(self, link: LinkHardware, at_ns: int) -> None:
        """What comes of attempts on `link` from `at_ns` on is drawn anew; a begun chunk stays."""
        model = self.models.get(link.id)
        if model is None:
            return
        for batch in self._counter.open_batches(link.ends[0]).values():
            match = batch.match
            if match is not None and match.model is model and match.chunk is None:
                from_ns = self._switches.from_ns(link.id, match, at_ns)
                if from_ns is None:  # it waits, and is drawn when it is its turn
                    continue
                cycle_ns = model.cycle_ns(batch.operation.kind)
                next_cycle = cycles_before(from_ns, cycle_ns, model.emission_offset_ns)
                first_cycle = max(*(each.first_cycle for each in match.batches), next_cycle)
                self._draw(match, first_cycle)

    def _end(self, batch: Batch, at_ns: int) -> int:
        """Take a batch out, its far end back to the queue; the attempts it made."""
        attempts = self._counter.end(batch, at_ns)
        match = batch.match
        if match is None:
            waiting = self._waiting[batch.key]
            waiting.remove(batch)
            if not waiting:
                del self._waiting[batch.key]
            return attempts
        self._close(match, at_ns)
        far = next(other for other in match.batches if other is not batch)
        self._queue(far, at_ns, is_first=True)
        return attempts

    def _close(self, match: Match, at_ns: int) -> None:
        match.event_ns = match.chunk = match.next_cycle = None
        for batch in match.batches:
            batch.match = None
        if self._switches.has(match.model.name):
            self._switches.leave(match.model.name, match, at_ns)

    # --- checks ---

    def _ready_check_ns(self, node: str, batch: int) -> int:
        """How long the device checks itself before it attempts: tries until one passes."""
        check_ns, passing = self._ready_checks[node]
        return check_ns * int(self._chance.generator("ready", node, batch).geometric(passing))

    def _move(self, model: LinkModel, node: str, emitted_ns: int) -> Move | None:
        """The move to storage that follows a herald, where there is storage."""
        profile = self._storing.get(node)
        if profile is None:
            return None
        at_ns = emitted_ns + model.herald_back_ns(node) + profile.move_ns
        return Move(at_ns, profile.move_depolarising)

    def _check(self, node: str, operation: Generate, model: LinkModel) -> None:
        problem = model.mismatch(
            operation.kind,
            operation.basis,
            operation.pairs,
            operation.bright_state,
            operation.rotation,
        )
        if is_kept(operation.kind, operation.basis) != (operation.qubit is not None):
            problem = "a qubit that is kept has a name, one that is read has none"
        if operation.batch in self._counter.open_batches(node):
            problem = f"batch {operation.batch} is open"
        if operation.qubit is not None:
            key = QubitKey(node, operation.qubit)
            if key in self._register or self._counter.makes(key):
                problem = "the qubit is in use"
        if problem:
            raise RefusedError(ErrorCode.BAD_REQUEST, problem)


def _told_ns(model: LinkModel, batch: Batch) -> int:
    """From the end of a measure batch until its node is told, if there are no pairs to read.

    Not before pairs that are on their way: of a match that was cut, or in bases just given.
    """
    reading_ns = READOUT_NS if batch.operation.basis == "given" else 0
    return max(model.measured_back_ns(batch.node), reading_ns)


def _read(
    reply: MeasuredReply, outcomes: JointOutcomes, end: int, codes: Codes, packed: bytes
) -> MeasuredReply:
    """The reply of an end that reads in these bases."""
    return replace(reply, outcomes=pack_bits(outcomes.read(end, codes)), bases=packed)
