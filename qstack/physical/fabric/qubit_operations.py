"""Operations on the qubits of a node, done to the register: by themselves, or in a program."""

from qstack.errors import ErrorCode
from qstack.physical.device import (
    BellOutcome,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    DoMove,
    Initialise,
    Initialised,
    Operation,
    Outcome,
    PulsedBellOutcome,
    PulsedOutcome,
    Result,
)
from qstack.physical.fabric.chance import Chance
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.fabric.register import RefusedError, Register
from qstack.physical.fabric.station import Station
from qstack.quantum.gates import GATES

QubitOperation = Initialise | DoGate | DoMeasure | DoBellMeasure | DoMove


class QubitOperations:
    """What they do, and what is read of it."""

    def __init__(self, register: Register, station: Station, chance: Chance) -> None:
        self._register = register
        self._station = station
        self._chance = chance

    def perform(
        self, node: str, operation: Operation, at_ns: int, draw: tuple[object, ...]
    ) -> Result | None:
        """Do one; `draw` names what decides an outcome. Raises `RefusedError`."""
        match operation:
            case DoGate():
                self._gate(node, operation, at_ns)
            case DoMeasure():
                return self._measure(node, operation, at_ns, self._chance.uniform(*draw))
            case DoBellMeasure():
                return self._bell_measure(node, operation, at_ns, self._chance.uniform(*draw))
            case Initialise():
                key = QubitKey(node, operation.qubit)
                if self._station.holds(key):
                    raise RefusedError(ErrorCode.BAD_REQUEST, "the qubit is being attempted with")
                self._register.initialise(key, at_ns)
                return Initialised(operation=operation.sequence)
            case DoMove():
                self._register.move(QubitKey(node, operation.qubit), operation.to, at_ns)
            case _:
                raise RefusedError(ErrorCode.UNSUPPORTED, type(operation).__name__)
        return None

    def _gate(self, node: str, operation: DoGate, at_ns: int) -> None:
        qubits = operation.qubits
        if len(qubits) != GATES[operation.name] or len({*qubits}) != len(qubits):
            raise RefusedError(ErrorCode.BAD_REQUEST, f"wrong qubits for the gate {operation.name}")
        if operation.angle != 0.0 and operation.name not in ("rx", "ry", "rz"):
            raise RefusedError(ErrorCode.BAD_REQUEST, f"the gate {operation.name} has no angle")
        keys = [QubitKey(node, qubit) for qubit in qubits]
        self._register.gate(keys, operation.name, operation.angle, at_ns)

    def _measure(self, node: str, operation: DoMeasure, at_ns: int, uniform: float) -> Outcome:
        number, key = operation.sequence, QubitKey(node, operation.qubit)
        if node not in self._register.decoupled:
            outcome = self._register.measure(key, operation.basis, at_ns, uniform)
            return Outcome(operation=number, outcome=outcome)
        pulses = self._register.pulses(key, at_ns)
        outcome = self._register.measure(key, operation.basis, at_ns, uniform)
        return PulsedOutcome(operation=number, outcome=outcome, pulses=pulses)

    def _bell_measure(
        self, node: str, operation: DoBellMeasure, at_ns: int, uniform: float
    ) -> BellOutcome:
        number = operation.sequence
        if operation.first == operation.second:
            raise RefusedError(ErrorCode.BAD_REQUEST, "a Bell measurement takes two qubits")
        keys = QubitKey(node, operation.first), QubitKey(node, operation.second)
        if node not in self._register.decoupled:
            x, z = self._register.bell_measure(*keys, at_ns, uniform)
            return BellOutcome(operation=number, x_bit=x, z_bit=z)
        pulses = self._register.pulses(keys[0], at_ns), self._register.pulses(keys[1], at_ns)
        x, z = self._register.bell_measure(*keys, at_ns, uniform)
        return PulsedBellOutcome(operation=number, x_bit=x, z_bit=z, pulses=pulses)
