"""The qubits part: calls on qubits, by whoever owns them.

Rules
1. A call that carries a number is answered exactly once: at once if it is refused or needs no
   device, else by the device's result, by a timer, or by the loss of the device.
2. The asker's mistakes are judged in this order: the shape of the call, then for each qubit
   whether it is there (GONE) and whose it is (NOT_OWNER).
3. Calls of an owner that has gone are answered to nobody.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from qstack.errors import ErrorCode, LocalError
from qstack.machine import CancelTimer, Effect, Record, SetTimer, Tell
from qstack.physical.device import (
    BellOutcome,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    DoMove,
    Initialise,
    Operation,
    OperationRefused,
    Outcome,
    Place,
    Release,
    Result,
)
from qstack.physical.device_order import DeviceOrder
from qstack.physical.durations import answer_ns
from qstack.physical.frames import bell_bits_of, outcome_of
from qstack.physical.memory import Memory, Qubit
from qstack.physical.qubit_states import QUBIT, USABLE, Input, State
from qstack.physical.service import (
    LAYER,
    Allocate,
    Allocated,
    ApplyGate,
    BellMeasure,
    BellMeasured,
    CallDone,
    CallFailed,
    Free,
    Measure,
    Measured,
    Move,
    QubitsFreed,
    Reset,
    Transfer,
)
from qstack.quantum.gates import GATES

CALL_TIMER: Final = "call/"
FREE_TIMER: Final = "free/"
ROTATIONS: Final = ("rx", "ry", "rz")

Call = Allocate | ApplyGate | Measure | BellMeasure | Reset | Free | Transfer | Move
CALLS: Final = (Free, Transfer, ApplyGate, Measure, BellMeasure, Allocate, Reset)
"""The same but for Move, the likeliest first."""
_Perform = Callable[[str, Any, int], list[Effect]]


class _Open(Struct, eq=False):
    """An operation the device has been given; `call` None: nobody waits for its answer.

    `qubits` are those whose state its result changes.
    """

    owner: str
    call: int | None
    operation: Operation
    qubits: list[Qubit]
    has_timer: bool = False
    is_orphan: bool = False


class Qubits:
    """The open calls of a node."""

    def __init__(
        self,
        order: DeviceOrder,
        memory: Memory,
        *,
        withdraw: Callable[[bytes, int], list[Effect]],
        comm_qubits_at_work: Callable[[], int],
    ) -> None:
        """`withdraw` takes back the device program that has a qubit."""
        self._order = order
        self._memory = memory
        self._withdraw = withdraw
        self._at_work = comm_qubits_at_work
        self._open: dict[int, _Open] = {}
        self._releasing: dict[int, Qubit] = {}
        self._perform: dict[type[Call], _Perform] = {
            Allocate: self._allocate,
            ApplyGate: self._gate,
            Measure: self._measure,
            BellMeasure: self._bell_measure,
            Reset: self._reset,
            Free: self._free,
            Move: self._move,
        }

    # --- what owners ask ---

    def on_transfer(self, source: str, call: Transfer) -> list[Effect]:
        """A qubit of `source` gets another owner. It happens to a pair three times at each end."""
        qubit = self._memory.find(call.qubit)
        if qubit is None or qubit.owner != source or qubit.state is not USABLE:
            return _refusal(source, call, _misuse(source, call.qubit, qubit))
        if not call.to:
            error = LocalError(ErrorCode.BAD_REQUEST, "an owner has a name")
            return _refusal(source, call, error)
        qubit.owner = call.to
        return [] if call.call is None else [Tell(source, CallDone(call=call.call))]

    def on_call(self, source: str, call: Call, now: int, *, is_ready: bool) -> list[Effect]:
        """Take a call of `source`."""
        if not is_ready:
            return _refusal(source, call, LocalError(ErrorCode.DEVICE_LOST))
        if isinstance(call, Transfer):
            return self.on_transfer(source, call)
        try:
            return self._perform[type(call)](source, call, now)
        except LocalError as error:
            return _refusal(source, call, error)

    def _reset(self, source: str, call: Reset, now: int) -> list[Effect]:
        qubit = self._owned(source, call.qubit)
        operation = self._initialise(qubit, now)
        return self._submit(_Open(source, call.call, operation, []), now)

    def _allocate(self, source: str, call: Allocate, now: int) -> list[Effect]:
        qubit = self._memory.admit(source)
        if qubit is None:
            raise LocalError(ErrorCode.NO_RESOURCES, "the memory is full")
        operation = self._initialise(qubit, now)
        return self._submit(_Open(source, call.call, operation, [qubit]), now)

    def _gate(self, source: str, call: ApplyGate, now: int) -> list[Effect]:
        wanted = GATES[call.name]
        if len(call.qubits) != wanted or len({*call.qubits}) != wanted:
            raise LocalError(
                ErrorCode.BAD_REQUEST, f"{call.name} acts on {wanted} different qubits"
            )
        if call.angle != 0.0 and call.name not in ROTATIONS:
            raise LocalError(ErrorCode.BAD_REQUEST, f"{call.name} has no angle")
        for name in call.qubits:
            self._owned(source, name)
        order = self._order
        moved = call.qubits[0] if wanted == 2 and self._must_move(*call.qubits) else None
        before = None if moved is None else order.move(moved, "communication", now)
        at_ns, sequence = order.next_turn(now)
        operation = DoGate(
            at_ns=at_ns, sequence=sequence, name=call.name, qubits=call.qubits, angle=call.angle
        )
        effects = order.submit(operation, now)
        if moved is not None and before is not None:
            effects = [*before, *effects, *order.move(moved, "storage", now)]
        if call.call is None:
            return effects  # nobody waits until it is done
        done_ns = at_ns + answer_ns(order.profile, operation)
        if moved is not None:
            done_ns = max(done_ns, order.start_ns(now))
        entry = _Open(source, call.call, operation, [], has_timer=True)
        if done_ns <= now:
            return [*effects, *_done(entry)]
        self._open[operation.sequence] = entry
        return [*effects, SetTimer(f"{CALL_TIMER}{operation.sequence}", done_ns)]

    def _measure(self, source: str, call: Measure, now: int) -> list[Effect]:
        qubit = self._owned(source, call.qubit)
        self._memory.step(qubit, Input.MEASURE)
        at_ns, sequence = self._order.next_turn(now)
        operation = DoMeasure(at_ns=at_ns, sequence=sequence, qubit=qubit.id, basis=call.basis)
        return self._submit(_Open(source, call.call, operation, [qubit]), now)

    def _bell_measure(self, source: str, call: BellMeasure, now: int) -> list[Effect]:
        if call.first == call.second:
            raise LocalError(ErrorCode.BAD_REQUEST, "a Bell measurement takes two qubits")
        qubits = [self._owned(source, name) for name in (call.first, call.second)]
        must_move = self._must_move(call.first, call.second)
        for qubit in qubits:
            self._memory.step(qubit, Input.MEASURE)
        moved = self._order.move(call.first, "communication", now) if must_move else []
        at_ns, sequence = self._order.next_turn(now)
        operation = DoBellMeasure(
            at_ns=at_ns, sequence=sequence, first=call.first, second=call.second
        )
        return [*moved, *self._submit(_Open(source, call.call, operation, qubits), now)]

    def _must_move(self, first: bytes, second: bytes) -> bool:
        """Whether one of two qubits has to be brought to the middle, for none is there.

        Raises `LocalError` if others have it.
        """
        lent = self._memory.lent
        if not self._order.compiles_moves or first in lent or second in lent:
            return False
        if len(lent) >= self._order.profile.comm_qubits:
            raise LocalError(ErrorCode.NO_RESOURCES, "the communication qubits are taken")
        return True

    def _move(self, source: str, call: Move, now: int) -> list[Effect]:
        qubit = self._owned(source, call.qubit)
        if not self._order.has_storage:
            raise LocalError(ErrorCode.UNSUPPORTED, "there is no storage")
        lent = self._memory.lent
        if call.to == "communication" and qubit.id not in lent:
            if len(lent) + self._at_work() >= self._order.profile.comm_qubits:
                raise LocalError(ErrorCode.NO_RESOURCES, "the communication qubits are taken")
            lent[qubit.id] = None
        operation = self._order.move_of(qubit.id, call.to, now)
        entry = _Open(source, call.call, operation, [qubit], has_timer=True)
        effects = self._submit(entry, now)
        done_ns = operation.at_ns + answer_ns(self._order.profile, operation)
        return [*effects, SetTimer(f"{CALL_TIMER}{operation.sequence}", done_ns)]

    def _moved(self, entry: _Open, *, to: Place) -> None:
        """Where the qubit of a move is now: what is back in storage leaves a place to attempts."""
        if to == "storage":
            self._memory.lent.pop(entry.qubits[0].id, None)

    def _free(self, source: str, call: Free, now: int) -> list[Effect]:
        qubit = self._memory.find(call.qubit)
        if qubit is not None and qubit.owner == source:
            if qubit.state is USABLE:
                return self._release(qubit, now)
            if qubit.state is State.ARMED:
                return self._release_armed(qubit, now)
        raise _misuse(source, call.qubit, qubit)

    # --- owners go ---

    def owner_gone(self, owner: str, now: int) -> list[Effect]:
        """Free what `owner` has, and tell nobody of its open calls.

        What the device is still measuring belongs to this layer until it ends.
        """
        pending = [entry for entry in self._open.values() if entry.owner == owner]
        for entry in pending:
            entry.is_orphan = True
            entry.call = None
        effects: list[Effect] = []
        freed: list[bytes] = []
        for qubit in self._memory.owned_by(owner):
            if qubit.state in (State.ALIVE, State.ARMED):
                freed.append(qubit.id)
            if qubit.state is State.INITIALISING:
                for entry in pending:
                    entry.qubits = [other for other in entry.qubits if other is not qubit]
            if qubit.state is not State.ATTEMPTING:
                qubit.owner = LAYER
            if qubit.state is State.ARMED:
                effects += self._release_armed(qubit, now)
            elif QUBIT.allows(qubit.state, Input.FREE):
                effects += self._release(qubit, now)
        if freed:
            effects.append(Tell("transport", QubitsFreed(owner=owner, qubits=freed)))
        return effects

    def take_back(self, qubit: Qubit, now: int) -> list[Effect]:
        """Free a qubit whose asker has gone."""
        return self._release(qubit, now)

    # --- what the device says ---

    def on_result(self, result: Result) -> list[Effect]:
        """The device answered an operation."""
        entry = self._open.pop(result.operation, None)
        if entry is None:
            return [_refused(type(result).__name__, f"no open operation {result.operation}")]
        call, operation, profile = entry.call, entry.operation, self._order.profile
        answer: Measured | BellMeasured | Allocated | None = None
        if isinstance(result, Outcome) and isinstance(operation, DoMeasure):
            self._step_all(entry, Input.RESULT)
            if call is not None:
                answer = Measured(call=call, outcome=outcome_of(profile, result, operation.basis))
        elif isinstance(result, BellOutcome):
            self._step_all(entry, Input.RESULT)
            if call is not None:
                x_bit, z_bit = bell_bits_of(profile, result)
                answer = BellMeasured(call=call, x_bit=x_bit, z_bit=z_bit)
        else:
            self._step_all(entry, Input.READY)
            if not entry.qubits:
                return _done(entry)
            if call is not None:
                answer = Allocated(call=call, qubit=entry.qubits[0].id)
        return [] if answer is None else [Tell(entry.owner, answer)]

    def on_refused(self, refusal: OperationRefused, now: int) -> list[Effect] | None:
        """The device cannot do it, and nothing has changed; None if it was no open call."""
        entry = self._open.pop(refusal.operation, None)
        if entry is None:
            return None
        effects: list[Effect] = []
        if isinstance(entry.operation, DoMove):  # it is where it was
            self._moved(entry, to="storage")
        else:
            self._step_all(entry, Input.REFUSED)
        if entry.has_timer:
            effects.append(CancelTimer(f"{CALL_TIMER}{refusal.operation}"))
        if entry.is_orphan:
            for qubit in entry.qubits:
                if QUBIT.allows(qubit.state, Input.FREE):
                    effects += self._release(qubit, now)
        return effects + _failed(entry.owner, entry.call, refusal.error, refusal.detail)

    def call_timer(self, sequence: int) -> list[Effect]:
        """An operation without result has been done."""
        entry = self._open.pop(sequence, None)
        if entry is None:
            return []
        if isinstance(entry.operation, DoMove):
            self._moved(entry, to=entry.operation.to)
        return _done(entry)

    def free_timer(self, sequence: int) -> list[Effect]:
        """The device has come to a release: the place is free."""
        qubit = self._releasing.pop(sequence, None)
        if qubit is not None:
            self._memory.step(qubit, Input.FREED)
        return []

    def owners(self) -> list[str]:
        """Who has open calls."""
        return [entry.owner for entry in self._open.values() if not entry.is_orphan]

    def device_lost(self) -> list[Effect]:
        """Answer every open call."""
        effects: list[Effect] = []
        for sequence, entry in self._open.items():
            if entry.has_timer:
                effects.append(CancelTimer(f"{CALL_TIMER}{sequence}"))
            effects += _failed(entry.owner, entry.call, ErrorCode.DEVICE_LOST.name, "")
        effects += [CancelTimer(f"{FREE_TIMER}{sequence}") for sequence in self._releasing]
        self._open.clear()
        self._releasing.clear()
        return effects

    # --- inside ---

    def _owned(self, source: str, name: bytes) -> Qubit:
        """The living qubit `name` of `source`.

        Raises `LocalError` GONE or NOT_OWNER; OUT_OF_STATE for one of its own that is ARMED.
        """
        qubit = self._memory.find(name)
        if qubit is None or qubit.owner != source or qubit.state is not USABLE:
            raise _misuse(source, name, qubit)
        return qubit

    def _initialise(self, qubit: Qubit, now: int) -> Initialise:
        at_ns, sequence = self._order.next_turn(now)
        return Initialise(at_ns=at_ns, sequence=sequence, qubit=qubit.id)

    def _submit(self, entry: _Open, now: int) -> list[Effect]:
        """Give the device an operation whose result answers the call."""
        self._open[entry.operation.sequence] = entry
        return self._order.submit(entry.operation, now)

    def _release(self, qubit: Qubit, now: int) -> list[Effect]:
        """End a qubit after what the device has still to do; then its place is free."""
        self._memory.step(qubit, Input.FREE)
        at_ns, sequence = self._order.next_turn(now)
        release = Release(at_ns=at_ns, sequence=sequence, qubit=qubit.id)
        effects = self._order.submit(release, now)
        if at_ns <= now:
            self._memory.step(qubit, Input.FREED)
            return effects
        self._releasing[sequence] = qubit
        return [*effects, SetTimer(f"{FREE_TIMER}{sequence}", at_ns)]

    def _release_armed(self, qubit: Qubit, now: int) -> list[Effect]:
        """End a qubit of a program, which is withdrawn; its place is free when that is answered."""
        self._memory.step(qubit, Input.FREE)
        withdrawn = self._withdraw(qubit.id, now)
        at_ns, sequence = self._order.next_turn(now)
        release = Release(at_ns=at_ns, sequence=sequence, qubit=qubit.id)
        return [*withdrawn, *self._order.submit(release, now)]

    def _step_all(self, entry: _Open, received: Input) -> None:
        step = self._memory.step
        for qubit in entry.qubits:
            step(qubit, received)


def _misuse(source: str, name: bytes, qubit: Qubit | None) -> LocalError:
    """Why `source` may not use the qubit `name`, which is this one: see `Qubits._owned`."""
    is_armed = qubit is not None and qubit.state is State.ARMED
    if qubit is None or not (qubit.state is USABLE or is_armed):
        return LocalError(ErrorCode.GONE, name.hex())
    if qubit.owner != source:
        return LocalError(ErrorCode.NOT_OWNER, name.hex())
    return LocalError(ErrorCode.OUT_OF_STATE, f"{name.hex()} is in a device program")


def _refusal(source: str, call: Call, error: LocalError) -> list[Effect]:
    number = None if isinstance(call, Free) else call.call
    refused = _refused(type(call).__name__, f"{source}: {error}")
    return [refused, *_failed(source, number, error.code.name, error.detail)]


def _done(entry: _Open) -> list[Effect]:
    return [] if entry.call is None else [Tell(entry.owner, CallDone(call=entry.call))]


def _failed(owner: str, call: int | None, error: str, detail: str) -> list[Effect]:
    if call is None:
        return []
    return [Tell(owner, CallFailed(call=call, error=error, detail=detail))]


def _refused(what: str, why: str) -> Record:
    return Record("physical.refused", {"what": what, "why": why})
