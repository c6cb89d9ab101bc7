"""The base of drivers in the node's process: books of qubits and batches, and an agenda.

A driver written on it says what its hardware does (the methods under "what the hardware does");
the base refuses wrong use before it gets there, numbers and times the answers, and hands them over
when they are due. Nothing obliges a driver to use it: what counts is `Device`.

Rules
1. Hardware methods are called in the order of operations; each may raise `LocalError`, which
   becomes `OperationRefused` and changes nothing.
2. A batch is closed by exactly one of `herald`, a last `say`, `ended`; afterwards it is forgotten.
"""

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from qstack.errors import ErrorCode, LocalError
from qstack.machine import FABRIC, Effect
from qstack.physical.device import (
    AlignClock,
    BatchEnded,
    BellOutcome,
    Calibrate,
    Calibrated,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    DoMove,
    Generate,
    GiveBases,
    Initialise,
    Initialised,
    Operation,
    OperationRefused,
    Outcome,
    Place,
    Release,
    Reply,
    SendPulse,
    StopGenerate,
)
from qstack.physical.drivers.setup import Setup
from qstack.physical.durations import result_ns
from qstack.physical.generation import is_kept, mismatch
from qstack.physical.params import READOUT_NS, RESULT_MIN_NS
from qstack.physical.service import GateName
from qstack.physical.station_device import HeraldedRead, KeepHeralded, Kept, ReadHeralded
from qstack.quantum.gates import GATES
from qstack.wire.message import Basis, Message
from qstack.wire.packed import Bits, Codes, Slots, pack_bits, unpack_bases, unpack_slots

if TYPE_CHECKING:
    from qstack.physical.hardware import LinkHardware

DETAIL_MAX: Final = 500  # characters of `Text`


class _Due(NamedTuple):
    at_ns: int
    number: int  # makes every place different before the rest is compared
    batch: int | None  # to be woken for, if there is no message
    message: Message | None


class Driver:
    """A device in the node's process. It is there as long as network time is."""

    peer: Final = FABRIC
    has_two_ends = False
    """Whether two of it in one process answer for the two ends of one link."""
    prepares = False
    """Whether it takes part in batches of kind `prepare`; else the base refuses them."""
    rotates = False
    """Whether it turns qubits by `Generate.rotation` before it reads them; else it is refused."""

    emits = False
    """Whether a station that has a name may herald its attempts (`emit`, `keep`, `read`)."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.profile = setup.world.nodes[setup.node].profile
        self.links: dict[str, LinkHardware] = {
            link.id: link for link in setup.world.links_of(setup.node)
        }
        self.batches: dict[int, Generate] = {}
        self.qubits: dict[bytes, None] = {}
        self.in_flight: dict[int, Generate] = {}
        """Batches that were stopped, and may be heralded yet by the named station of their link."""
        self.calibration = 0
        """How often the device has been calibrated; a driver counts it up."""
        self._calibrations: dict[int, int] = {}
        self._agenda: list[_Due] = []
        self._numbers = 0

    # --- what the hardware does: for a driver to write --------------------------------------------

    def began(self, now: int) -> None:
        """The device is there (again); there are no qubits and no batches."""

    def start(self, batch: Generate) -> None:
        """Begin to attempt."""
        raise LocalError(ErrorCode.UNSUPPORTED, f"no attempts ({batch.kind})")

    def woken(self, batch: Generate, at_ns: int) -> None:
        """The time has come that was given to `wake`, and the batch is still open."""

    def stop(self, batch: Generate, reason: str, at_ns: int) -> None:
        """End a batch, which is closed already: say its last word."""
        self.ended(batch, reason, at_ns, attempts=0)

    def emit(self, batch: Generate) -> None:
        """Begin to attempt where the station has a name: it says what comes of it, not you."""
        raise LocalError(ErrorCode.UNSUPPORTED, f"no named station heralds {batch.link}")

    def stop_emitting(self, batch: Generate, at_ns: int) -> None:
        """Attempt no more; what was emitted before `at_ns` may still be heralded."""

    def keep(self, batch: Generate, cycle: int) -> None:
        """The attempt in `cycle` was heralded, and the batch is over: its qubit is there."""
        detail = f"nothing of batch {batch.batch} and cycle {cycle} was kept"
        raise LocalError(ErrorCode.UNSUPPORTED, detail)

    def read(self, batch: Generate, cycles: Slots, bases: Codes) -> Bits:
        """What was read in these heralded cycles; `bases` of each, if the node has drawn them."""
        del cycles, bases
        raise LocalError(ErrorCode.UNSUPPORTED, f"nothing was read for batch {batch.batch}")

    def bases_given(self, given: GiveBases) -> None:
        """The bases that were asked for by `BasesWanted`."""
        raise LocalError(ErrorCode.BAD_REQUEST, f"no bases were asked for batch {given.batch}")

    def initialise(self, qubit: bytes) -> None:
        """Bring a qubit, new or old, to state 0."""
        del qubit
        raise LocalError(ErrorCode.UNSUPPORTED, "this device makes no fresh qubits")

    def gate(self, name: GateName, angle: float, qubits: list[bytes]) -> None:
        """Apply a gate."""
        del angle, qubits
        raise LocalError(ErrorCode.UNSUPPORTED, f"this device has no gate {name}")

    def measure(self, qubit: bytes, basis: Basis) -> int:
        """Measure a qubit; the base forgets it afterwards."""
        del qubit
        raise LocalError(ErrorCode.UNSUPPORTED, f"this device does not measure in {basis}")

    def bell_measure(self, first: bytes, second: bytes) -> tuple[int, int]:
        """Bell-measure two qubits: the bits (x, z)."""
        del first, second
        raise LocalError(ErrorCode.UNSUPPORTED, "this device has no Bell measurement")

    def move(self, qubit: bytes, to: Place) -> None:
        """Bring a qubit to a communication qubit or to storage.

        Asked for before and after two-qubit gates of profiles whose `topology` is `star`. Left as
        it is by a device whose gates see to that themselves.
        """

    def release(self, qubit: bytes) -> None:
        """Let go of a qubit."""

    def calibrate(self, link: str) -> bool:
        """Calibrate a link, together with its far end; whether that is good.

        It ends with the duration the network file gives.
        """
        raise LocalError(ErrorCode.UNSUPPORTED, f"this device does not calibrate {link}")

    def send_pulse(self, link: str, pulse: int, at_ns: int) -> None:
        """Send a pulse, and `say` PulseStamped when it is stamped; as when one has come."""
        del pulse, at_ns
        raise LocalError(ErrorCode.UNSUPPORTED, f"this device has no clock for {link}")

    def align_clock(self, asked: AlignClock) -> None:
        """Time what is done on a link anew."""
        raise LocalError(ErrorCode.UNSUPPORTED, f"this device has no clock for {asked.link}")

    # --- what a driver says -----------------------------------------------------------------------

    def say(self, at_ns: int, message: Message) -> None:
        """Answer at `at_ns`."""
        self._push(at_ns, None, message)

    def wake(self, at_ns: int, batch: Generate) -> None:
        """Have `woken` called at `at_ns`, if the batch is open then."""
        self._push(at_ns, batch.batch, None)

    def herald(
        self,
        batch: Generate,
        *,
        sequence: int,
        cycle: int,
        bits: tuple[int, int],
        emitted_at_ns: int,
        due_ns: int,
        calibration: int | None = None,
    ) -> None:
        """A batch that keeps its qubit has succeeded, and is closed; the qubit is there.

        `calibration` is that of the device when the batch began, unless something else is said.
        """
        if calibration is None:
            calibration = self.calibration_of(batch)
        del self.batches[batch.batch]
        assert batch.qubit is not None, "what is kept has a name"
        self.qubits[batch.qubit] = None
        reply = Reply(
            batch=batch.batch,
            herald_sequence=sequence,
            cycle=cycle,
            x_bit=bits[0],
            z_bit=bits[1],
            emitted_at_ns=emitted_at_ns,
            calibration=calibration,
        )
        self.say(due_ns, reply)

    def calibration_of(self, batch: Generate) -> int:
        """That of the device when the batch began."""
        return self._calibrations.get(batch.batch, self.calibration)

    def ended(self, batch: Generate, reason: str, at_ns: int, *, attempts: int) -> None:
        """A batch that was stopped at `at_ns` came to nothing (more)."""
        message = BatchEnded(batch=batch.batch, reason=reason, attempts=attempts)
        self.say(at_ns + self.back_ns(batch.link), message)

    def back_ns(self, link: str) -> int:
        """From an emission until its herald, or its last detections, are at this node."""
        hardware, node = self.links[link], self.setup.node
        if not hardware.is_heralded:
            return hardware.arm_ns(node) + READOUT_NS
        return max(map(hardware.arm_ns, hardware.ends)) + hardware.arm_ns(node)

    # --- the device interface ---------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """The device is there (again), with nothing in it."""
        self.batches.clear()
        self.in_flight.clear()
        self.qubits.clear()
        self._calibrations.clear()
        self._agenda.clear()
        self.began(now)

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        """Take an operation; its answer, if it has one, goes into the agenda."""
        del now
        try:
            self._take(operation)
        except LocalError as error:
            refused = OperationRefused(
                operation=operation.sequence,
                error=error.code.name,
                detail=error.detail[:DETAIL_MAX],
            )
            self.say(operation.at_ns + RESULT_MIN_NS, refused)
        return []

    def received(self, message: Message, now: int) -> list[Message]:
        """The fabric has nothing to say to a device that does not ask it."""
        del message, now
        return []

    def next_event_ns(self) -> int | None:
        """When the agenda has something next."""
        agenda = self._agenda
        while agenda and agenda[0].message is None and agenda[0].batch not in self.batches:
            heappop(agenda)
        return agenda[0].at_ns if agenda else None

    def answers(self, now: int) -> list[Message]:
        """What is due."""
        due: list[Message] = []
        while self._agenda and self._agenda[0].at_ns <= now:
            entry = heappop(self._agenda)
            if entry.message is not None:
                due.append(entry.message)
            elif entry.batch in self.batches:
                self.woken(self.batches[entry.batch], entry.at_ns)
        return due

    # --- inside -----------------------------------------------------------------------------------

    def _push(self, at_ns: int, batch: int | None, message: Message | None) -> None:
        self._numbers += 1
        heappush(self._agenda, _Due(at_ns, self._numbers, batch, message))

    def _take(self, operation: Operation) -> None:
        """Raises `LocalError`."""
        due_ns = operation.at_ns + result_ns(self.profile, operation)
        number = operation.sequence
        match operation:
            case Generate():
                self._start(operation)
            case StopGenerate():
                self._stop(operation)
            case KeepHeralded():
                self._keep(operation)
            case ReadHeralded():
                self._read(operation)
            case GiveBases():
                self.bases_given(operation)
            case Initialise():
                self._require_unclaimed(operation.qubit)
                self.initialise(operation.qubit)
                self.qubits[operation.qubit] = None
                self.say(due_ns, Initialised(operation=number))
            case DoGate():
                self._gate(operation)
            case DoMeasure():
                self._require(operation.qubit)
                outcome = self.measure(operation.qubit, operation.basis)
                del self.qubits[operation.qubit]
                self.say(due_ns, Outcome(operation=number, outcome=outcome))
            case DoBellMeasure():
                if operation.first == operation.second:
                    raise LocalError(ErrorCode.BAD_REQUEST, "a Bell measurement takes two qubits")
                pair = operation.first, operation.second
                for qubit in pair:
                    self._require(qubit)
                x, z = self.bell_measure(*pair)
                for qubit in pair:
                    del self.qubits[qubit]
                self.say(due_ns, BellOutcome(operation=number, x_bit=x, z_bit=z))
            case DoMove():
                self._require(operation.qubit)
                self.move(operation.qubit, operation.to)
            case Release():
                if operation.qubit in self.qubits:
                    self.release(operation.qubit)
                    del self.qubits[operation.qubit]
            case Calibrate():
                self._calibrate(operation)
            case SendPulse():
                self.send_pulse(operation.link, operation.pulse, operation.at_ns)
            case AlignClock():
                self.align_clock(operation)
            case _:
                raise LocalError(ErrorCode.UNSUPPORTED, type(operation).__name__)

    def _calibrate(self, asked: Calibrate) -> None:
        link = self.links.get(asked.link)
        if link is None or any(batch.link == asked.link for batch in self.batches.values()):
            raise LocalError(ErrorCode.BAD_REQUEST, f"{asked.link} is not here, or is at work")
        if link.drift is None:
            raise LocalError(ErrorCode.UNSUPPORTED, f"{asked.link} needs no calibration")
        is_good = self.calibrate(asked.link)
        self.calibration += is_good
        answer = Calibrated(operation=asked.sequence, is_good=is_good, calibration=self.calibration)
        self.say(asked.at_ns + link.drift.calibration_ns, answer)

    def _start(self, asked: Generate) -> None:
        link = self.links.get(asked.link)
        if link is None:
            raise LocalError(
                ErrorCode.BAD_REQUEST, f"{self.setup.node} is not on a link {asked.link}"
            )
        problem = mismatch(
            asked.kind,
            basis=asked.basis,
            pairs=asked.pairs,
            bright_state=asked.bright_state,
            scheme=link.scheme,
            rotation=asked.rotation,
        )
        if is_kept(asked.kind, asked.basis) != (asked.qubit is not None):
            problem = problem or "a qubit that is kept has a name, one that is read has none"
        if asked.batch in self.batches:
            problem = f"batch {asked.batch} is open"
        if not link.is_heralded and any(b.link == asked.link for b in self.batches.values()):
            problem = "the receiver is in use"
        if problem:
            raise LocalError(ErrorCode.BAD_REQUEST, problem)
        if asked.qubit is not None:
            self._require_unclaimed(asked.qubit)
            if asked.qubit in self.qubits:
                raise LocalError(ErrorCode.BAD_REQUEST, "the qubit is in use")
        if asked.kind == "prepare" and not self.prepares:
            raise LocalError(ErrorCode.UNSUPPORTED, "this device prepares no remote states")
        if asked.rotation is not None and not self.rotates:
            raise LocalError(ErrorCode.UNSUPPORTED, "this device reads in X, Y and Z alone")
        self.batches[asked.batch] = asked
        self._calibrations[asked.batch] = self.calibration
        try:
            if link.station is None:
                self.start(asked)
            else:
                self.emit(asked)
        except LocalError:
            del self.batches[asked.batch]
            raise

    def _stop(self, operation: StopGenerate) -> None:
        batch = self.batches.pop(operation.batch, None)
        if operation.reason == "given-up":
            self.in_flight.pop(operation.batch, None)
        if batch is None:
            return
        if self.links[batch.link].station is None:
            self.stop(batch, operation.reason, operation.at_ns)
            return
        if operation.reason != "given-up":
            self.in_flight[batch.batch] = batch
        self.stop_emitting(batch, operation.at_ns)

    def _keep(self, operation: KeepHeralded) -> None:
        """A named station has heralded an attempt."""
        open_now = self.batches | self.in_flight
        batch = next((b for b in open_now.values() if b.qubit == operation.qubit), None)
        if batch is None:
            raise LocalError(ErrorCode.GONE, f"no attempt with {operation.qubit.hex()}")
        self.keep(batch, operation.cycle)
        self.batches.pop(batch.batch, None)
        self.in_flight.pop(batch.batch, None)
        self.qubits[operation.qubit] = None
        due_ns = operation.at_ns + max(self.profile.move_ns, RESULT_MIN_NS)
        self.say(due_ns, Kept(operation=operation.sequence))

    def _read(self, operation: ReadHeralded) -> None:
        """A named station has heralded attempts that are measured."""
        batch = (self.batches | self.in_flight).get(operation.batch)
        if batch is None or batch.basis is None:
            raise LocalError(ErrorCode.BAD_REQUEST, f"batch {operation.batch} is not read")
        try:
            cycles = unpack_slots(operation.cycles, operation.first_cycle)
            codes = unpack_bases(operation.bases, operation.pairs if batch.basis == "given" else 0)
        except ValueError as error:
            raise LocalError(ErrorCode.BAD_REQUEST, str(error)) from error
        if len(cycles) != operation.pairs:
            raise LocalError(ErrorCode.BAD_REQUEST, f"{len(cycles)} cycles, not {operation.pairs}")
        outcomes = pack_bits(self.read(batch, cycles, codes))
        due_ns = operation.at_ns + max(READOUT_NS, self.profile.readout_ns)
        self.say(due_ns, HeraldedRead(operation=operation.sequence, outcomes=outcomes))

    def _gate(self, operation: DoGate) -> None:
        qubits = operation.qubits
        if len(qubits) != GATES[operation.name] or len({*qubits}) != len(qubits):
            raise LocalError(ErrorCode.BAD_REQUEST, f"wrong qubits for the gate {operation.name}")
        if operation.angle != 0.0 and operation.name not in ("rx", "ry", "rz"):
            raise LocalError(ErrorCode.BAD_REQUEST, f"the gate {operation.name} has no angle")
        for qubit in qubits:
            self._require(qubit)
        self.gate(operation.name, operation.angle, qubits)

    def _require(self, qubit: bytes) -> None:
        if qubit not in self.qubits:
            raise LocalError(ErrorCode.GONE, f"no qubit {qubit.hex()}")

    def _require_unclaimed(self, qubit: bytes) -> None:
        open_now = [*self.batches.values(), *self.in_flight.values()]
        if any(batch.qubit == qubit for batch in open_now):
            raise LocalError(ErrorCode.BAD_REQUEST, "the qubit is being attempted with")
