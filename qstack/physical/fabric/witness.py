"""The true states of measured pairs, for reports and checkers; nodes never see them.

A pair's two halves are read at different times. What a test of the pair sees is the joint state
in which each half stands when it is read, so the state at the first reading is kept, and what
happens to the other half until it is read happens to the copy too.
"""

from typing import NamedTuple

from qstack.physical.fabric.keys import QubitKey
from qstack.quantum import state
from qstack.quantum.pauli import FloatArray


class MeasuredPair(NamedTuple):
    """Two qubits of different nodes; `pair` is (4, 4), axes in the order of `nodes`."""

    nodes: tuple[str, str]
    qubits: tuple[bytes, bytes]
    pair: FloatArray


class Witness:
    """Keeps up to `pairs_max` pairs; with 0 it costs nothing."""

    def __init__(self, pairs_max: int) -> None:
        self.pairs: list[MeasuredPair] = []
        self._pairs_max = pairs_max
        self._half: dict[QubitKey, tuple[QubitKey, FloatArray]] = {}

    @property
    def is_watching(self) -> bool:
        """Whether there is room for more."""
        return len(self.pairs) + len(self._half) < self._pairs_max

    def first_read(self, read: QubitKey, other: QubitKey, pair: FloatArray) -> None:
        """`read`, axis 0 of `pair`, is being read; `other`, axis 1, stands as last touched."""
        if read.node != other.node:
            self._half[other] = (read, pair)

    def changed(self, key: QubitKey, transfer: FloatArray) -> None:
        """The channel `transfer` (4, 4) acted on a qubit."""
        if key in self._half:
            first, pair = self._half[key]
            self._half[key] = (first, state.apply(pair, 1, transfer))

    def read(self, key: QubitKey) -> None:
        """A qubit is being read; if it is the second half of a pair, that is now known."""
        if key in self._half:
            first, pair = self._half.pop(key)
            names = (first.node, key.node)
            self.pairs.append(MeasuredPair(names, (first.qubit, key.qubit), pair))

    def lost(self, key: QubitKey) -> None:
        """A qubit went another way: it will not be read as half of that pair."""
        self._half.pop(key, None)
