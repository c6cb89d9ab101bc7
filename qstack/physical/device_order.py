"""The one order of a node's operations: the device is serial, and every operation is numbered."""

from qstack.machine import Effect
from qstack.physical.device import Device, DoMove, Operation, Place
from qstack.physical.durations import DURATIONS_NS, duration_ns
from qstack.physical.generation import compiles_moves, has_storage
from qstack.physical.profile import Profile


class DeviceOrder:
    """Says when the device comes to the next operation, and gives it operations."""

    def __init__(self, device: Device, profile: Profile, memory: int) -> None:
        self.profile = profile
        self.has_storage = has_storage(memory, profile.comm_qubits)
        self.compiles_moves = compiles_moves(profile, memory)
        """Whether stored qubits have to be brought to a communication qubit to meet."""
        self._device = device
        self._free_ns = 0
        self._sequence = 0
        self._durations_ns = {kind: find(profile) for kind, find in DURATIONS_NS.items()}

    def start_ns(self, now: int) -> int:
        """When the device is free for an operation on qubits."""
        return max(now, self._free_ns)

    def next_sequence(self) -> int:
        """A number for an operation."""
        self._sequence += 1
        return self._sequence

    def next_turn(self, now: int) -> tuple[int, int]:
        """When the device is free for an operation on qubits, and a number for it."""
        self._sequence += 1
        return max(now, self._free_ns), self._sequence

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        """Give the device an operation; it is busy from its time on, for its duration.

        Start and stop of attempts wait for nothing and keep nothing waiting.
        """
        busy_ns = self._durations_ns.get(type(operation))
        if busy_ns is None:
            busy_ns = duration_ns(self.profile, operation)
        if busy_ns:
            self._free_ns = operation.at_ns + busy_ns
        return self._device.submit(operation, now)

    def move(self, qubit: bytes, to: Place, now: int) -> list[Effect]:
        """Have a qubit moved, when the device comes to it."""
        return self.submit(self.move_of(qubit, to, now), now)

    def move_of(self, qubit: bytes, to: Place, now: int) -> DoMove:
        """The operation that does so."""
        at_ns, sequence = self.next_turn(now)
        return DoMove(at_ns=at_ns, sequence=sequence, qubit=qubit, to=to)

    def reset(self) -> None:
        """A new device has nothing to do."""
        self._free_ns = 0
