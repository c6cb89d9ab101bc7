"""One end's batch of attempts, and the count of attempts made at each node.

A cycle's attempt is made at its emission. An attempt counts whether or not the far end takes part
in it: the node drives its qubit all the same, and that is what disturbs idle qubits.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from qstack.physical.fabric.keys import QubitKey

if TYPE_CHECKING:
    from qstack.physical.device import Generate
    from qstack.physical.fabric.station import Match

MatchKey = tuple[str, bytes, str, float | None]


class Batch:
    """A Generate of one node, waiting or matched."""

    def __init__(
        self,
        node: str,
        operation: Generate,
        first_cycle: int,
        cycle_ns: int,
        offset_ns: int,
        reader: str = "",
    ) -> None:
        """`reader` is the end that reads, where the other one keeps (`prepare`)."""
        self.node = node
        self.number = operation.batch  # the name its node gave it
        self.operation = operation
        self.key: MatchKey = (  # what must be equal at both ends of the link
            operation.link,
            operation.token,
            operation.kind + reader,
            operation.bright_state,
        )
        self.first_cycle = first_cycle
        self.remaining = operation.pairs
        self.calibration = 0  # of the link when the batch began
        self.match: Match | None = None
        self.is_given_up = False  # its node wants nothing of what is in flight
        qubit = operation.qubit
        self.qubit = None if qubit is None else QubitKey(node, qubit)  # that it will make
        self._cycle_ns = cycle_ns
        self._offset_ns = offset_ns

    def attempts_before(self, at_ns: int) -> int:
        """Attempts with emission before `at_ns`."""
        return max(0, cycles_before(at_ns, self._cycle_ns, self._offset_ns) - self.first_cycle)


def cycles_before(at_ns: int, cycle_ns: int, offset_ns: int) -> int:
    """How many cycles of the grid have cycle x cycle_ns + offset_ns < at_ns."""
    return -((offset_ns - at_ns) // cycle_ns)


class AttemptCounter:
    """Open batches and attempts made, by node."""

    def __init__(self) -> None:
        self._finished: defaultdict[str, int] = defaultdict(int)
        self._open: defaultdict[str, dict[int, Batch]] = defaultdict(dict)
        self._qubits: set[QubitKey] = set()  # that open batches will make

    def add(self, batch: Batch) -> None:
        """A batch begins."""
        self._open[batch.node][batch.number] = batch
        if batch.qubit is not None:
            self._qubits.add(batch.qubit)

    def end(self, batch: Batch, at_ns: int) -> int:
        """A batch ends: its attempts with emission before `at_ns`."""
        del self._open[batch.node][batch.number]
        if batch.qubit is not None:
            self._qubits.remove(batch.qubit)
        attempts = batch.attempts_before(at_ns)
        self._finished[batch.node] += attempts
        return attempts

    def makes(self, key: QubitKey) -> bool:
        """Whether an open batch will make this qubit."""
        return key in self._qubits

    def open_batches(self, node: str) -> dict[int, Batch]:
        """The batches of `node`, by number."""
        return self._open[node]

    def made_before(self, node: str, at_ns: int) -> int:
        """All attempts made at `node` with emission before `at_ns`."""
        running = sum(batch.attempts_before(at_ns) for batch in self.open_batches(node).values())
        return self._finished[node] + running
