"""The programs of one device: which wait, which run, and how far they are. For fabric and drivers.

It does nothing itself: `Hands` does the steps, as the operations they are. It reads no clock: it
wants to be asked again (`schedule`) at `Program.event_ns`.
"""

from collections.abc import Callable
from typing import Final, Literal, Protocol

from qstack.errors import ErrorCode, LocalError
from qstack.physical.device import (
    BellOutcome,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    DoMove,
    Initialise,
    Operation,
    Outcome,
    PulsedBellOutcome,
    PulsedOutcome,
    Result,
)
from qstack.physical.durations import step_ns
from qstack.physical.frames import bell_bits_of, outcome_of
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.profile import Profile
from qstack.physical.program import Step, begins_fresh, problem_of
from qstack.physical.program_device import ArmProgram, ProgramDone, ProgramEnded

PROGRAMS_MAX: Final = 64
"""Programs of a device that wait at once: as many as a large memory has pairs that wait."""

Why = Literal["expired", "disarmed", "gone"]


class Hands(Protocol):
    """What does the steps. All raise `LocalError`, having changed nothing."""

    def has(self, qubit: bytes) -> bool:
        """Whether there is such a qubit."""
        ...

    def require_link(self, link: str) -> None:
        """Refuse a link of which no herald will come."""
        ...

    def perform(self, operation: Operation, step: int) -> Result | None:
        """Do a step of the program of that sequence, and say what was read."""
        ...

    def release(self, qubit: bytes) -> None:
        """Let go of a qubit."""
        ...


class Program:
    """One program; `event_ns` is when something is to be done about it, None: never again."""

    def __init__(self, asked: ArmProgram) -> None:
        self.asked = asked
        self.qubits = [place.qubit for place in asked.places]
        self.event_ns: int | None = None
        self.began_at_ns = 0
        self.released: dict[bytes, None] = {}
        self.steps_done = 0
        self.bits: list[int] = []
        self.meant: list[int] = []  # the bits, but for what pulses have flipped
        self.pulses: list[int] = []

    @property
    def number(self) -> int:
        """Its name."""
        return self.asked.sequence


class ProgramBook:
    """All programs of a device."""

    def __init__(
        self,
        profile: Profile,
        hands: Hands,
        *,
        say: Callable[[int, Result], None],
        schedule: Callable[[Program], None],
    ) -> None:
        self._profile = profile
        self._hands = hands
        self._say = say
        self._schedule = schedule
        self._waiting: dict[int, Program] = {}
        self._running: dict[int, Program] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._waiting) + len(self._running)

    def clear(self) -> None:
        """Forget all, and say nothing."""
        for program in (*self._waiting.values(), *self._running.values()):
            program.event_ns = None
        self._waiting.clear()
        self._running.clear()

    # --- what the node asks ---

    def arm(self, asked: ArmProgram, at_ns: int) -> None:
        """Take a program; it begins at once if all of it is there. Raises `LocalError`."""
        problem = problem_of(asked.places, asked.steps)
        if problem:
            raise LocalError(ErrorCode.BAD_REQUEST, problem)
        if asked.until_ns <= at_ns:
            raise LocalError(ErrorCode.TIMEOUT)
        if len(self) >= PROGRAMS_MAX:
            raise LocalError(ErrorCode.NO_RESOURCES, f"{PROGRAMS_MAX} programs wait")
        for which, place in enumerate(asked.places):
            if place.link is not None:
                self._hands.require_link(place.link)
            elif place.qubit is None:
                raise LocalError(ErrorCode.BAD_REQUEST, f"place {which} has no name")
            elif any(place.qubit in other.qubits for other in self._all()):
                raise LocalError(ErrorCode.BAD_REQUEST, f"place {which} is in another program")
            elif not begins_fresh(which, asked.steps) and not self._hands.has(place.qubit):
                raise LocalError(ErrorCode.GONE, place.qubit.hex())
        program = Program(asked)
        if None not in program.qubits:
            self._begin(program, at_ns)
            return
        self._waiting[program.number] = program
        program.event_ns = asked.until_ns
        self._schedule(program)

    def disarm(self, number: int, at_ns: int) -> None:
        """Withdraw a program that has not begun."""
        program = self._waiting.get(number)
        if program is not None:
            self._end(program, "disarmed", at_ns)

    def require_free(self, operation: Operation) -> None:
        """Refuse an operation on qubits a running program has. Raises `LocalError`."""
        if self._running and any(self._runs_with(qubit) for qubit in _qubits_of(operation)):
            raise LocalError(ErrorCode.OUT_OF_STATE, "a program has the qubit")

    def keeps(self, qubit: bytes) -> bool:
        """Whether a qubit that is let go must wait for the end of a running program."""
        program = self._runs_with(qubit) if self._running else None
        if program is not None:
            program.released[qubit] = None
        return program is not None

    # --- what happens ---

    def heralded(self, link: str, token: bytes, qubit: bytes, at_ns: int) -> None:
        """A qubit that was kept is there: it is for who has waited longest for one of this kind."""
        for program in list(self._waiting.values()):
            places = program.asked.places
            wanted = [
                which
                for which, place in enumerate(places)
                if program.qubits[which] is None and (place.link, place.token) == (link, token)
            ]
            if not wanted or program.asked.until_ns <= at_ns:
                continue
            if not self._is_whole(program):
                self._end(program, "gone", at_ns)
                continue
            program.qubits[wanted[0]] = qubit
            if None not in program.qubits:
                del self._waiting[program.number]
                self._begin(program, at_ns)
            return

    def due(self, program: Program, at_ns: int) -> None:
        """Its time has come: the deadline of one that waits, the next step of one that runs."""
        if program.number in self._waiting:
            self._end(program, "expired", at_ns)
            return
        steps = program.asked.steps
        step = steps[program.steps_done]
        done_ns = at_ns
        if not step.when or sum(program.meant[bit] for bit in step.when) % 2:
            operation = self._operation(program, step, at_ns)
            try:
                self._note(program, step, self._hands.perform(operation, program.steps_done))
            except LocalError as error:
                self._finish(program, at_ns, at_ns, error)
                return
            done_ns += step_ns(self._profile, step)
        program.steps_done += 1
        if program.steps_done == len(steps):
            self._finish(program, at_ns, done_ns, None)
            return
        program.event_ns = done_ns
        self._schedule(program)

    # --- inside ---

    def _all(self) -> list[Program]:
        return [*self._waiting.values(), *self._running.values()]

    def _runs_with(self, qubit: bytes) -> Program | None:
        return next((each for each in self._running.values() if qubit in each.qubits), None)

    def _is_whole(self, program: Program) -> bool:
        """Whether what it has is there still."""
        return all(
            qubit is None or begins_fresh(which, program.asked.steps) or self._hands.has(qubit)
            for which, qubit in enumerate(program.qubits)
        )

    def _begin(self, program: Program, at_ns: int) -> None:
        self._running[program.number] = program
        program.began_at_ns = program.event_ns = at_ns
        self._schedule(program)

    def _end(self, program: Program, reason: Why, at_ns: int) -> None:
        del self._waiting[program.number]
        program.event_ns = None
        ended = ProgramEnded(operation=program.number, reason=reason)
        self._say(at_ns + RESULT_MIN_NS, ended)

    def _finish(self, program: Program, at_ns: int, done_ns: int, error: LocalError | None) -> None:
        del self._running[program.number]
        program.event_ns = None
        for qubit in program.released:
            if self._hands.has(qubit):
                self._hands.release(qubit)
        done = ProgramDone(
            operation=program.number,
            qubits=[qubit for qubit in program.qubits if qubit is not None],
            bits=program.bits,
            pulses=program.pulses,
            steps_done=program.steps_done,
            error=None if error is None else error.code.name,
            detail="" if error is None else error.detail[:500],
            began_at_ns=program.began_at_ns,
        )
        self._say(max(done_ns, at_ns + RESULT_MIN_NS), done)

    def _note(self, program: Program, step: Step, result: Result | None) -> None:
        pulses: tuple[int, ...]
        match result:
            case BellOutcome(x_bit=x, z_bit=z):
                program.bits += (x, z)
                program.meant += bell_bits_of(self._profile, result)
                pulses = result.pulses if isinstance(result, PulsedBellOutcome) else (0, 0)
            case Outcome(outcome=bit) if step.basis is not None:
                program.bits.append(bit)
                program.meant.append(outcome_of(self._profile, result, step.basis))
                pulses = (result.pulses if isinstance(result, PulsedOutcome) else 0,)
            case _:
                return
        if self._profile.decoupling_axis is not None:
            program.pulses += pulses

    def _operation(self, program: Program, step: Step, at_ns: int) -> Operation:
        """A step as the operation it is."""
        qubits = [program.qubits[place] or b"" for place in step.places]
        first, number = qubits[0], program.number
        match step.kind:
            case "initialise":
                return Initialise(at_ns=at_ns, sequence=number, qubit=first)
            case "move":
                assert step.to is not None, "problem_of sees to it"
                return DoMove(at_ns=at_ns, sequence=number, qubit=first, to=step.to)
            case "gate":
                assert step.gate is not None, "problem_of sees to it"
                name, angle = step.gate, step.angle
                return DoGate(at_ns=at_ns, sequence=number, name=name, qubits=qubits, angle=angle)
            case "measure":
                assert step.basis is not None, "problem_of sees to it"
                basis = step.basis
                return DoMeasure(at_ns=at_ns, sequence=number, qubit=first, basis=basis)
            case "bell-measure":
                return DoBellMeasure(at_ns=at_ns, sequence=number, first=first, second=qubits[1])


def _qubits_of(operation: Operation) -> list[bytes]:
    """Whose state an operation changes."""
    match operation:
        case DoGate():
            return operation.qubits
        case DoBellMeasure():
            return [operation.first, operation.second]
        case Initialise() | DoMeasure() | DoMove():
            return [operation.qubit]
        case _:
            return []
