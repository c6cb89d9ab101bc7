"""The programs part: device programs that were asked for, until their one answer (`program.py`).

Rules
1. What the device says of a program decides. Until it has answered, the qubits that were named are
   ARMED: nobody uses them, and freeing one withdraws the program.
2. Whose qubit a program took at its herald is known when the answer comes: it is the link layer's,
   or whoever's it has become. If the program read it, it is gone from then on (GONE).
"""

from typing import Final

from msgspec import Struct

from qstack.errors import ErrorCode, LocalError
from qstack.machine import Effect, Record, Tell
from qstack.physical.device import OperationRefused, Result
from qstack.physical.device_order import DeviceOrder
from qstack.physical.frames import unframed, unframed_bell
from qstack.physical.hardware import World
from qstack.physical.memory import Memory, Qubit
from qstack.physical.profile import Profile
from qstack.physical.program import (
    Arm,
    Disarm,
    Place,
    ProgramResult,
    begins_fresh,
    bits_of,
    problem_of,
    read_places,
)
from qstack.physical.program_device import (
    ArmProgram,
    DisarmProgram,
    ProgramDone,
    ProgramEnded,
)
from qstack.physical.qubit_states import QUBIT, Input, State
from qstack.physical.service import CallFailed

LAYERS: Final = ("link", "network")
"""Who may name heralds: those who know what is attempted for whom."""
_ERRORS: Final = {
    "expired": ErrorCode.TIMEOUT,
    "disarmed": ErrorCode.CANCELLED,
    "gone": ErrorCode.GONE,
}


class _Open(Struct, eq=False):
    """A program the device has; `call` None: nobody waits for its answer."""

    owner: str
    call: int | None
    operation: ArmProgram
    qubits: list[Qubit]  # those it has now; what heralds bring is not among them


class Programs:
    """The open programs of a node."""

    def __init__(self, node: str, world: World, order: DeviceOrder, memory: Memory) -> None:
        self._node = node
        self._world = world
        self._order = order
        self._memory = memory
        self.open: dict[int, _Open] = {}
        """Those that have not been answered, by operation."""

    # --- what owners ask ---

    def on_call(self, source: str, call: Arm | Disarm, now: int, *, is_ready: bool) -> list[Effect]:
        """Take a call of `source`."""
        if isinstance(call, Disarm):
            entries = [e for e in self.open.values() if e.owner == source]
            return self._disarm([e for e in entries if e.call == call.program], now)
        try:
            if is_ready:
                return self._arm(source, call, now)
            error = LocalError(ErrorCode.DEVICE_LOST)
        except LocalError as raised:
            error = raised
        failed = CallFailed(call=call.call, error=error.code.name, detail=error.detail)
        refused = Record("physical.refused", {"what": "Arm", "why": f"{source}: {error}"})
        return [refused, Tell(source, failed)]

    def freed(self, qubit: bytes, now: int) -> list[Effect]:
        """A qubit is being freed: its program is withdrawn, if it has not begun."""
        if not self.open:
            return []
        entries = self.open.values()
        return self._disarm([e for e in entries if any(q.id == qubit for q in e.qubits)], now)

    def _arm(self, source: str, call: Arm, now: int) -> list[Effect]:
        """Raises `LocalError`."""
        problem = problem_of(call.places, call.steps)
        if problem:
            raise LocalError(ErrorCode.BAD_REQUEST, problem)
        fresh = []
        for which, place in enumerate(call.places):
            if place.qubit is not None:
                self._require(source, place.qubit)
            elif place.link is not None:
                self._require_herald(source, place.link)
            elif begins_fresh(which, call.steps):
                fresh.append(which)
            else:
                raise LocalError(ErrorCode.BAD_REQUEST, f"place {which} is not initialised first")
        if call.deadline_ns <= now:
            raise LocalError(ErrorCode.TIMEOUT)
        qubits = [self._memory.find(place.qubit) for place in call.places if place.qubit]
        named = [qubit for qubit in qubits if qubit is not None]
        places = [*call.places]
        for qubit in named:
            self._memory.step(qubit, Input.ARM)
        for which in fresh:
            admitted = self._memory.admit(source)
            if admitted is None:
                self._give_back(named)
                raise LocalError(ErrorCode.NO_RESOURCES, "the memory is full")
            named.append(admitted)
            places[which] = Place(qubit=admitted.id)
        operation = ArmProgram(
            at_ns=self._order.start_ns(now),
            sequence=self._order.next_sequence(),
            places=places,
            steps=call.steps,
            until_ns=call.deadline_ns,
        )
        self.open[operation.sequence] = _Open(source, call.call, operation, named)
        return self._order.submit(operation, now)

    def _require(self, source: str, name: bytes) -> None:
        qubit = self._memory.find(name)
        if qubit is None or not QUBIT.allows(qubit.state, Input.ARM):
            is_armed = qubit is not None and qubit.state is State.ARMED
            raise LocalError(ErrorCode.OUT_OF_STATE if is_armed else ErrorCode.GONE, name.hex())
        if qubit.owner != source:
            raise LocalError(ErrorCode.NOT_OWNER, name.hex())

    def _require_herald(self, source: str, link: str) -> None:
        if source not in LAYERS:
            raise LocalError(ErrorCode.NOT_OWNER, f"heralds of {link} are not for {source} to name")
        hardware = self._world.links.get(link)
        if hardware is None or self._node not in hardware.ends:
            raise LocalError(ErrorCode.BAD_REQUEST, f"no link {link} here")

    # --- what the device says ---

    def on_result(self, result: Result) -> list[Effect]:
        """The answer to a program that has not been answered."""
        match result:
            case ProgramDone():
                entry = self.open.pop(result.operation)
                problem = _mismatch(entry.operation, result)
                if not problem:
                    return self._done(entry, result)
                refused = Record("physical.refused", {"what": "ProgramDone", "why": problem})
                return [refused, *self._failed(entry, ErrorCode.INVALID.name, problem)]
            case ProgramEnded(reason=reason):
                entry = self.open.pop(result.operation)
                return self._failed(entry, _ERRORS[reason].name, f"the program {reason}")
            case _:
                why = f"it is no answer to program {result.operation}"
                what = type(result).__name__
                return [Record("physical.refused", {"what": what, "why": why})]

    def _done(self, entry: _Open, done: ProgramDone) -> list[Effect]:
        steps = entry.operation.steps[: done.steps_done]
        for name in [done.qubits[place] for place in read_places(steps)]:
            qubit = self._memory.find(name)
            if qubit is not None and QUBIT.allows(qubit.state, Input.CONSUMED):
                self._memory.step(qubit, Input.CONSUMED)
        begun = [done.qubits[place] for step in steps for place in step.places]
        for qubit in entry.qubits:
            if qubit.state is State.INITIALISING and qubit.id in begun:
                self._memory.step(qubit, Input.READY)
        self._give_back(entry.qubits)
        if entry.call is None:
            return []
        answer = ProgramResult(
            call=entry.call,
            qubits=done.qubits,
            bits=_meant(self._order.profile, entry.operation, done),
            steps_done=done.steps_done,
            error=done.error,
            detail=done.detail,
            began_at_ns=done.began_at_ns,
        )
        return [Tell(entry.owner, answer)]

    def refused(self, refusal: OperationRefused) -> list[Effect] | None:
        """The device does not take it; None if it was no program."""
        entry = self.open.pop(refusal.operation, None)
        return None if entry is None else self._failed(entry, refusal.error, refusal.detail)

    # --- owners go ---

    def owner_gone(self, owner: str, now: int) -> list[Effect]:
        """Withdraw what `owner` has asked for; its qubits are freed by whoever frees qubits."""
        entries = [entry for entry in self.open.values() if entry.owner == owner]
        for entry in entries:
            entry.call = None
            entry.qubits = [q for q in entry.qubits if q.state is not State.INITIALISING]
        return self._disarm(entries, now)

    def owners(self) -> list[str]:
        """Who waits for an answer."""
        return [entry.owner for entry in self.open.values() if entry.call is not None]

    def device_lost(self) -> list[Effect]:
        """Answer every open call."""
        entries = [*self.open.values()]
        self.open.clear()
        lost = ErrorCode.DEVICE_LOST.name
        return [
            Tell(entry.owner, CallFailed(call=entry.call, error=lost, detail=""))
            for entry in entries
            if entry.call is not None
        ]

    # --- inside ---

    def _disarm(self, entries: list[_Open], now: int) -> list[Effect]:
        effects: list[Effect] = []
        for entry in entries:
            operation = DisarmProgram(
                at_ns=max(now, entry.operation.at_ns),
                sequence=self._order.next_sequence(),
                program=entry.operation.sequence,
            )
            effects += self._order.submit(operation, now)
        return effects

    def _failed(self, entry: _Open, error: str, detail: str) -> list[Effect]:
        self._give_back(entry.qubits)
        if entry.call is None:
            return []
        return [Tell(entry.owner, CallFailed(call=entry.call, error=error, detail=detail))]

    def _give_back(self, qubits: list[Qubit]) -> None:
        """Of those that are not gone: what was never initialised has never been."""
        for qubit in qubits:
            if qubit.state is State.INITIALISING:
                self._memory.step(qubit, Input.REFUSED)
            elif qubit.state is State.ARMED:
                self._memory.step(qubit, Input.RESUMED)
            elif qubit.state is State.RELEASING:
                self._memory.step(qubit, Input.FREED)


def _mismatch(asked: ArmProgram, done: ProgramDone) -> str:
    """What of a result cannot be of this program; empty if nothing."""
    steps = asked.steps[: done.steps_done]
    if done.steps_done > len(asked.steps) or (
        (done.error is None) != (done.steps_done == len(asked.steps))
    ):
        return f"{done.steps_done} of {len(asked.steps)} steps, and the error {done.error}"
    given = [place.qubit for place in asked.places]
    if len(done.qubits) != len(given) or any(
        mine not in (None, said) for mine, said in zip(given, done.qubits, strict=True)
    ):
        return "its qubits are others"
    read = read_places(steps)
    if len(done.bits) != sum(map(bits_of, steps)) or len(done.pulses) not in (0, len(read)):
        return f"{len(done.bits)} bits and {len(done.pulses)} pulses of {len(read)} qubits"
    return ""


def _meant(profile: Profile, asked: ArmProgram, done: ProgramDone) -> list[int]:
    """The bits that were read, as those of what the qubits stand for."""
    pulses, bits = [*done.pulses], [*done.bits]
    if not pulses:
        return bits
    meant: list[int] = []
    for step in asked.steps[: done.steps_done]:
        if step.basis is not None:
            meant.append(unframed(profile, bits.pop(0), step.basis, pulses.pop(0)))
        elif step.kind == "bell-measure":
            both = bits.pop(0), bits.pop(0)
            meant += unframed_bell(profile, both, (pulses.pop(0), pulses.pop(0)))
    return meant
