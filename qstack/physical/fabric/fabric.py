"""The fabric: a participant of network time like a node, and sans-IO.

It is given operations of nodes (`apply`), is run up to a time (`run`), and answers with messages
to nodes and when each is due. What it draws depends on the seed and on names alone.

Order
1. Operations and the fabric's own events (emissions) are processed in the order of time.
2. At equal times what device programs do comes first, for they do not wait for a daemon; then
   operations, by node name, then by sequence; then emissions and ends of calibrations, by link,
   then by number of the match. So a stop at the time of an emission prevents it.
3. An operation for the past (wall mode only) is done at the time of the last thing done.
4. A node that is not up is not heard: what comes from it is of a former life.
"""

import heapq
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from qstack.errors import ErrorCode
from qstack.physical.device import (
    AlignClock,
    Calibrate,
    Clear,
    Cleared,
    Generate,
    GiveBases,
    Operation,
    OperationRefused,
    Release,
    Result,
    SendPulse,
    StopGenerate,
)
from qstack.physical.durations import result_ns
from qstack.physical.fabric.batches import AttemptCounter
from qstack.physical.fabric.calibrations import Calibration, Calibrations
from qstack.physical.fabric.chance import Chance
from qstack.physical.fabric.circumstances import Circumstances
from qstack.physical.fabric.clocks import Clocks
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.fabric.programs import Arrival, Due, Programs
from qstack.physical.fabric.qubit_operations import QubitOperation, QubitOperations
from qstack.physical.fabric.readings import Readings
from qstack.physical.fabric.register import RefusedError, Register
from qstack.physical.fabric.source_station import SourceMatch, SourceStation
from qstack.physical.fabric.station import Match, Station
from qstack.physical.fabric.switchboard import Switchboard
from qstack.physical.fabric.watches import Watch, Watches
from qstack.physical.fabric.witness import Witness
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.program_device import ArmProgram, DisarmProgram
from qstack.physical.station_device import KeepHeralded, ReadHeralded, StopWatch, WatchLink
from qstack.quantum.bell import fidelity
from qstack.quantum.pauli import FloatArray
from qstack.wire.message import Message


class Delivery(NamedTuple):
    """A message to `node`, due there at `due_ns`; `sequence` counts the fabric's messages."""

    node: str
    due_ns: int
    sequence: int
    message: Message


class Snapshot(Struct, frozen=True):
    """How much there is, for leak checks."""

    qubits: dict[str, int]
    batches: dict[str, int]
    programs: dict[str, int]
    operations_waiting: int


Emission = Match | SourceMatch | Watch | Calibration | Arrival | Due
"""What has an event to come that no operation brings about."""

_PROGRAM, _OPERATION, _EMISSION = -1, 0, 1

_Entry = tuple[int, int, str, int, int, Operation | Emission]
"""A place in the heap: when, rank, node or link, number, push, and what is to be done.

No two are pushed with one number of the push: what is to be done is never compared.
"""


class Fabric:
    """The quantum world of one emulated network."""

    def __init__(self, world: World, seed: int, *, witnessed_pairs_max: int = 0) -> None:
        """`seed` is the run's, or of the system's entropy: then the run is not repeatable.

        The true states of the first `witnessed_pairs_max` measured pairs are kept for reports.
        """
        self.witness = Witness(witnessed_pairs_max)
        self._world = world
        self._chance = Chance(seed)
        self._counter = AttemptCounter()
        self._register = Register(world, self._counter.made_before, self.witness)
        self._readings = Readings(self._deliver)
        switches = Switchboard(world.links)
        self._clocks = Clocks(world, self._chance)
        self._calibrations = Calibrations(world)
        self._circumstances = Circumstances(world, self._clocks, self._calibrations, switches)
        self._sources = SourceStation(
            world,
            self._chance,
            self._readings,
            self._circumstances,
            deliver=self._deliver,
            schedule=self._schedule,
        )
        self._station = Station(
            world,
            self._register,
            self._counter,
            self._chance,
            self._readings,
            self._circumstances,
            deliver=self._deliver,
            schedule=self._schedule,
        )
        self._operations = QubitOperations(self._register, self._station, self._chance)
        self._programs = Programs(
            world,
            self._register,
            self._operations,
            lambda node: self._up[node],
            deliver=self._deliver,
            schedule=self._schedule_program,
        )
        if self._programs.nodes:
            self._station.heralded = self._programs.heralded
        self._watches = Watches(
            world,
            self._station,
            self._register,
            self._counter,
            self._chance,
            self._circumstances,
            deliver=self._deliver,
            schedule=self._schedule,
        )
        self._stations = frozenset(world.stations)
        self._generating = {link: self._generator(link) for link in world.links}
        self._heap: list[_Entry] = []
        self._pushes = 0
        self._latest_ns = 0
        self._boot_ids: dict[str, bytes] = {}
        self._up: dict[str, bytes] = {}
        self._outbox: list[Delivery] = []
        self._sequence = 0

    @property
    def lookahead_ns(self) -> int:
        """No message is due sooner than this after what caused it."""
        backs = [
            model.herald_back_ns(end)
            for model in self._station.models.values()
            for end in model.ends
        ]
        return min([RESULT_MIN_NS, *backs])

    def begin(self, now_ns: int) -> None:
        """Nothing happens before `now_ns`. Herald sequences count from it, and not from 0.

        A fabric that takes over from one that died holds no states, but the boot ids of nodes are
        those of before: a sequence that began at 0 again would name pairs that have been.
        """
        self._latest_ns = max(self._latest_ns, now_ns)
        self._station.heralds_begin_at(now_ns)

    # --- nodes come and go ---

    def node_up(self, node: str, boot_id: bytes) -> None:
        """`node` is there; with a new boot id the herald sequences of its links begin at 0.

        It may be a station that is a participant of its own.
        """
        if node not in self._world.nodes and node not in self._stations:
            raise ValueError(f"no node {node} in this world")
        if self._boot_ids.get(node) != boot_id:
            self._station.restart_heralds(node)
        self._boot_ids[node] = self._up[node] = boot_id

    def node_down(self, node: str, at_ns: int) -> None:
        """`node` has gone at `at_ns` (run up to there first): its qubits and batches end."""
        if self._up.pop(node, None) is None:
            return
        self._latest_ns = max(self._latest_ns, at_ns)
        self._clear(node)

    def _generator(self, link: str) -> Callable[[str, Generate, int], None]:
        """Who takes the Generates of a link."""
        for station in self._sources, self._watches:
            if station.serves(link):
                return station.generate
        return self._station.generate

    def _clear(self, node: str) -> None:
        """End all there is of a node, without telling it."""
        self._heap[:] = [entry for entry in self._heap if entry[1] == _EMISSION or entry[2] != node]
        heapq.heapify(self._heap)
        self._watches.station_gone(node)
        self._sources.station_gone(node, self._latest_ns)
        self._watches.node_gone(node, self._latest_ns)
        self._station.node_gone(node, self._latest_ns)
        self._sources.node_gone(node, self._latest_ns)
        self._readings.node_gone(node)
        self._programs.node_gone(node)
        self._clocks.forget(node)
        self._calibrations.forget(node)
        for key in self._register.qubits_of(node):
            self._register.release(key)

    # --- work ---

    def apply(self, node: str, operation: Operation) -> None:
        """Take an operation of `node`; it is done when `run` comes to its time."""
        if node in self._up:
            at_ns = max(operation.at_ns, self._latest_ns)
            self._pushes += 1
            entry = at_ns, _OPERATION, node, operation.sequence, self._pushes, operation
            heapq.heappush(self._heap, entry)

    def next_event_ns(self) -> int | None:
        """When the fabric next has something to do; None: never, as things are."""
        heap = self._heap
        while heap:
            at_ns, _, _, _, _, work = heap[0]
            if isinstance(work, Operation) or work.event_ns == at_ns:
                return at_ns
            heapq.heappop(heap)
        return None

    def run(self, until_ns: int) -> list[Delivery]:
        """Do everything before `until_ns`, and hand over what has become due to be sent."""
        heap = self._heap
        while heap and heap[0][0] < until_ns:
            at_ns, _, name, _, _, work = heapq.heappop(heap)
            if isinstance(work, Operation):
                self._latest_ns = at_ns
                self._operate(name, work, at_ns)
            elif work.event_ns == at_ns:  # else it is void: of a match that has ended
                self._latest_ns = at_ns
                self._happen(work, at_ns)
        outbox, self._outbox = self._outbox, []
        return outbox

    def _happen(self, work: Emission, at_ns: int) -> None:
        """The time of an event has come that no operation brings about."""
        if isinstance(work, Match):
            self._station.emission(work)
        elif isinstance(work, SourceMatch):
            self._sources.emission(work)
        elif isinstance(work, Watch):
            self._watches.clicks(work)
        elif isinstance(work, Calibration):
            self._end_calibration(work)
        else:
            self._programs.due(work, at_ns)

    def _operate(self, node: str, operation: Operation, at_ns: int) -> None:
        try:
            result = self._perform(node, operation, at_ns)
        except RefusedError as refusal:
            due_ns = at_ns + RESULT_MIN_NS
            result = OperationRefused(
                operation=operation.sequence, error=refusal.code.name, detail=refusal.detail
            )
        else:
            if result is None:
                return
            due_ns = at_ns + result_ns(self._world.nodes[node].profile, operation)
        self._deliver(node, due_ns, result)

    def _perform(self, node: str, operation: Operation, at_ns: int) -> Result | None:
        """One operation and its result, if it has one. Raises `RefusedError`."""
        sequence = operation.sequence
        if node in self._stations:
            self._watch(node, operation, at_ns)
            return None
        match operation:
            case Generate():
                generate = self._generating.get(operation.link, self._station.generate)
                generate(node, operation, at_ns)
            case Release():
                if not self._programs.nodes or not self._programs.keeps(node, operation):
                    self._register.release(QubitKey(node, operation.qubit))
            case _ if isinstance(operation, QubitOperation):
                if self._programs.nodes:
                    self._programs.require_free(node, operation)
                draw = "operation", node, self._up[node], sequence
                return self._operations.perform(node, operation, at_ns, draw)
            case StopGenerate():
                number, reason = operation.batch, operation.reason
                if not self._watches.stop(node, number, reason, at_ns) and not (
                    self._sources.stop(node, number, reason, at_ns)
                ):
                    self._station.stop(node, number, reason, at_ns)
            case KeepHeralded():
                self._watches.keep(node, operation, at_ns)
            case ReadHeralded():
                self._watches.read(node, operation, at_ns)
            case GiveBases():
                self._readings.give(node, operation, at_ns)
            case SendPulse() | AlignClock():
                self._time(node, operation, at_ns)
            case Calibrate():
                self._calibrate(node, operation, at_ns)
            case ArmProgram() | DisarmProgram():
                self._programs.ask(node, operation, at_ns)
            case Clear():
                self._clear(node)
                self._up[node] = operation.boot_id  # its operations are counted anew
                return Cleared(operation=sequence)
            case _:
                raise RefusedError(ErrorCode.UNSUPPORTED, type(operation).__name__)
        return None

    def _watch(self, station: str, operation: Operation, at_ns: int) -> None:
        """An operation of a station. Raises `RefusedError`."""
        match operation:
            case WatchLink() if self._sources.serves(operation.link):
                self._sources.run_for(station, operation, at_ns)
            case WatchLink():
                self._watches.watch(station, operation, at_ns)
            case StopWatch():
                if not self._sources.stop_run(station, operation, at_ns):
                    self._watches.stop_watch(station, operation, at_ns)
            case Calibrate():
                self._calibrate(station, operation, at_ns)
            case _:
                raise RefusedError(ErrorCode.UNSUPPORTED, type(operation).__name__)

    def _time(self, node: str, operation: SendPulse | AlignClock, at_ns: int) -> None:
        """What a node does with its hardware clock. Stamps are read when light has crossed."""
        link = self._world.links.get(operation.link)
        if link is None or node not in link.ends:
            raise RefusedError(ErrorCode.BAD_REQUEST, f"{node} is not on a link {operation.link}")
        if isinstance(operation, AlignClock):
            self._clocks.align(node, operation)
            self._conditions_changed(link, at_ns)
            return
        sent, came = self._clocks.pulse(node, operation, at_ns)
        due_ns = at_ns + max(link.delay_ns, RESULT_MIN_NS)
        self._deliver(node, due_ns, sent)
        far = link.other_end(node)
        if far in self._up:
            self._deliver(far, due_ns, came)

    def _conditions_changed(self, link: LinkHardware, at_ns: int) -> None:
        if link.station is None:
            self._station.conditions_changed(link, at_ns)
        else:
            self._watches.conditions_changed(link, at_ns)

    def _calibrate(self, node: str, operation: Calibrate, at_ns: int) -> None:
        is_watched = node in self._stations and self._watches.is_watched(operation.link)
        station = self._sources if self._sources.serves(operation.link) else self._station
        if is_watched or station.is_busy(node, operation.link):
            raise RefusedError(ErrorCode.BAD_REQUEST, "there are attempts on the link")
        begun = self._calibrations.begin(node, operation, at_ns)
        self._push(begun.event_ns, _EMISSION, operation.link, begun.number, begun)

    def _end_calibration(self, calibration: Calibration) -> None:
        """Both ends hear of it when theirs is over; the link is as it was when that began."""
        link = self._world.links[calibration.link]
        ended = self._calibrations.end(calibration)
        if ended is None:
            return
        answer, is_new = ended
        if is_new:
            self._conditions_changed(link, calibration.event_ns)
        due_ns = calibration.event_ns + max(link.delay_ns, RESULT_MIN_NS)
        self._deliver(calibration.node, due_ns, answer)

    # --- the truth: for checkers and reports, never for nodes ---

    def truth(
        self, first: QubitKey, second: QubitKey, at_ns: int, *, with_pulses: bool = False
    ) -> FloatArray:
        """The (4, 4) state of two qubits at `at_ns`. Raises ValueError if it cannot be told.

        Of decoupled qubits it is what they stand for; `with_pulses`: what they are.
        """
        try:
            return self._register.reduced_pair(first, second, at_ns, with_pulses=with_pulses)
        except RefusedError as refusal:
            raise ValueError(refusal.detail) from refusal

    def pair_fidelity(
        self, first: QubitKey, second: QubitKey, at_ns: int, *, x: int = 0, z: int = 0
    ) -> float:
        """The fidelity of two qubits to the Bell state (x, z) at `at_ns`. Raises ValueError."""
        return fidelity(self.truth(first, second, at_ns), x, z)

    def snapshot(self) -> Snapshot:
        """How many qubits, batches and programs there are at each node."""
        nodes = self._world.nodes
        return Snapshot(
            qubits={node: self._register.count(node) for node in nodes},
            batches={node: self._open_batches(node) for node in nodes},
            programs={node: self._programs.count(node) for node in sorted(self._programs.nodes)},
            operations_waiting=sum(entry[1] == _OPERATION for entry in self._heap),
        )

    # --- inside ---

    def _open_batches(self, node: str) -> int:
        """Batches at work, and those whose last part waits for the bases of its node."""
        attempts = len(self._counter.open_batches(node)) + self._sources.open_batches(node)
        return attempts + self._readings.count(node) + self._watches.unread(node)

    def _deliver(self, node: str, due_ns: int, message: Message) -> None:
        self._outbox.append(Delivery(node, due_ns, self._sequence, message))
        self._sequence += 1

    def _schedule(self, match: Match | SourceMatch | Watch) -> None:
        assert match.event_ns is not None
        self._push(match.event_ns, _EMISSION, match.model.name, match.number, match)

    def _schedule_program(self, node: str, work: Arrival | Due) -> None:
        assert work.event_ns is not None
        self._push(work.event_ns, _PROGRAM, node, work.number, work)

    def _push(
        self,
        at_ns: int,
        rank: int,
        name: str,
        number: int,
        work: Operation | Emission,
    ) -> None:
        self._pushes += 1
        heapq.heappush(self._heap, (at_ns, rank, name, number, self._pushes, work))
