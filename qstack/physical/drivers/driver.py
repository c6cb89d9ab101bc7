"""The base of drivers in the node's process: books of qubits and batches, and an agenda.

A driver written on it says what its hardware does (the methods under "what the hardware does");
the base refuses wrong use before it gets there, numbers and times the answers, and hands them over
when they are due. Nothing obliges a driver to use it: what counts is `Device`.

Rules
1. Hardware methods are called in the order of operations; each may raise `LocalError`, which
   becomes `OperationRefused` and changes nothing.
2. A batch is closed by exactly one of `herald`, a last `say`, `ended`; afterwards it is forgotten.
"""

from qstack.errors import ErrorCode, LocalError
from qstack.physical.device import (
    AlignClock,
    BatchEnded,
    BellOutcome,
    Calibrate,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    DoMove,
    Generate,
    GiveBases,
    Initialise,
    Initialised,
    Operation,
    Outcome,
    Place,
    PulsedBellOutcome,
    PulsedOutcome,
    Release,
    Reply,
    Result,
    SendPulse,
    StopGenerate,
)
from qstack.physical.drivers.in_process import InProcess
from qstack.physical.drivers.programs import book_of
from qstack.physical.drivers.setup import Setup
from qstack.physical.durations import result_ns
from qstack.physical.generation import is_kept, mismatch
from qstack.physical.params import READOUT_NS, RESULT_MIN_NS
from qstack.physical.program_device import ArmProgram, DisarmProgram
from qstack.physical.service import GateName
from qstack.physical.station_device import HeraldedRead, KeepHeralded, Kept, ReadHeralded
from qstack.quantum.gates import GATES
from qstack.wire.message import Basis
from qstack.wire.packed import Bits, Codes, Slots, pack_bits, unpack_bases, unpack_slots


class Driver(InProcess):
    """A device in the node's process. It is there as long as network time is."""

    has_two_ends = False
    """Whether two of it in one process answer for the two ends of one link."""
    prepares = False
    """Whether it takes part in batches of kind `prepare`; else the base refuses them."""
    runs_programs = False
    """Whether it takes device programs; then the base keeps and runs them, by the methods below."""
    rotates = False
    """Whether it turns qubits by `Generate.rotation` before it reads them; else it is refused."""

    emits = False
    """Whether a station that has a name may herald its attempts (`emit`, `keep`, `read`)."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, setup.world.links_of(setup.node))
        self.profile = setup.world.nodes[setup.node].profile
        self.batches: dict[int, Generate] = {}
        self.qubits: dict[bytes, None] = {}
        self.in_flight: dict[int, Generate] = {}
        """Batches that were stopped, and may be heralded yet by the named station of their link."""
        self._calibrations: dict[int, int] = {}
        self._programs = book_of(self, self._on_qubits, self._call_at)

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

    def pulses(self, qubit: bytes, at_ns: int) -> int | None:
        """How many decoupling pulses have turned a qubit since it began; asked before it is read.

        None, as in the base: nothing is left to account for, the device undoes them itself. One
        that does not undoes them at least before a gate that is no Pauli operator.
        """
        del qubit, at_ns
        return None

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

    def wake(self, at_ns: int, batch: Generate) -> None:
        """Have `woken` called at `at_ns`, if the batch is open then."""
        number = batch.batch
        self._call_at(
            at_ns,
            lambda due_ns: self.woken(self.batches[number], due_ns),
            lambda: number not in self.batches,
        )

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
        if self.runs_programs and batch.kind == "keep":
            link, token, qubit = batch.link, batch.token, batch.qubit
            self._call_at(due_ns, lambda at: self._programs.heralded(link, token, qubit, at))
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
        super().begin(now)
        self.batches.clear()
        self.in_flight.clear()
        self.qubits.clear()
        self._calibrations.clear()
        self._programs.clear()
        self.began(now)

    # --- inside -----------------------------------------------------------------------------------

    def _take(self, operation: Operation) -> None:
        """Raises `LocalError`."""
        due_ns = operation.at_ns + result_ns(self.profile, operation)
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
            case Initialise() | DoGate() | DoMeasure() | DoBellMeasure() | DoMove():
                self._programs.require_free(operation)
                result = self._on_qubits(operation)
                if result is not None:
                    self.say(due_ns, result)
            case ArmProgram() | DisarmProgram():
                self._program(operation)
            case Release():
                if operation.qubit in self.qubits and not self._programs.keeps(operation.qubit):
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

    def _on_qubits(self, operation: Operation) -> Result | None:
        """Do one, by itself or in a program; what is answered. Raises `LocalError`."""
        match operation:
            case Initialise():
                self._require_unclaimed(operation.qubit)
                self.initialise(operation.qubit)
                self.qubits[operation.qubit] = None
                return Initialised(operation=operation.sequence)
            case DoGate():
                self._gate(operation)
            case DoMeasure():
                return self._measure(operation)
            case DoBellMeasure():
                return self._bell_measure(operation)
            case DoMove():
                self._require(operation.qubit)
                self.move(operation.qubit, operation.to)
            case _:
                raise LocalError(ErrorCode.UNSUPPORTED, type(operation).__name__)
        return None

    def _program(self, operation: ArmProgram | DisarmProgram) -> None:
        if not self.runs_programs:
            raise LocalError(ErrorCode.UNSUPPORTED, "this device runs no programs")
        at_ns = operation.at_ns
        if isinstance(operation, DisarmProgram):
            self._programs.disarm(operation.program, at_ns)
        else:
            self._programs.arm(operation, at_ns)

    def _measure(self, asked: DoMeasure) -> Outcome:
        number, qubit = asked.sequence, asked.qubit
        self._require(qubit)
        pulses = self.pulses(qubit, asked.at_ns)
        outcome = self.measure(qubit, asked.basis)
        del self.qubits[qubit]
        if pulses is None:
            return Outcome(operation=number, outcome=outcome)
        return PulsedOutcome(operation=number, outcome=outcome, pulses=pulses)

    def _bell_measure(self, asked: DoBellMeasure) -> BellOutcome:
        if asked.first == asked.second:
            raise LocalError(ErrorCode.BAD_REQUEST, "a Bell measurement takes two qubits")
        pair = asked.first, asked.second
        for qubit in pair:
            self._require(qubit)
        first, second = (self.pulses(qubit, asked.at_ns) for qubit in pair)
        x, z = self.bell_measure(*pair)
        for qubit in pair:
            del self.qubits[qubit]
        number = asked.sequence
        if first is None and second is None:
            return BellOutcome(operation=number, x_bit=x, z_bit=z)
        pulses = (first or 0, second or 0)
        return PulsedBellOutcome(operation=number, x_bit=x, z_bit=z, pulses=pulses)

    def _calibrate(self, asked: Calibrate) -> None:
        is_at_work = any(batch.link == asked.link for batch in self.batches.values())
        if is_at_work or asked.link not in self.links:
            raise LocalError(ErrorCode.BAD_REQUEST, f"{asked.link} is not here, or is at work")
        super()._calibrate(asked)

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
