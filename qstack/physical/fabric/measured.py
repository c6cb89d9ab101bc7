"""Measured pairs in bulk: which cycles herald, and with which pattern, as arrays.

A chunk covers the cycles from its first until it is full (CHUNK_PAIRS_MAX or the pairs wanted),
or until CHUNK_NS after its first; but it always has a pair. Attempts are independent, so the next
chunk may begin anew after the last cycle this one decided.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qstack.physical.params import CHUNK_NS, CHUNK_PAIRS_MAX
from qstack.quantum.pauli import FloatArray
from qstack.wire.packed import pack_bits

# More cycles than any run has (years); larger gaps would overflow their running sum.
_GAP_CYCLES_MAX = 2**46


class Chunk(NamedTuple):
    """Pairs in order of their cycles; `luck` (2, N) is for the outcomes of both ends."""

    cycles: NDArray[np.int64]
    patterns: NDArray[np.uint8]
    luck: FloatArray
    next_cycle: int

    def before(self, cycle: int) -> "Chunk":
        """Only the pairs of cycles below `cycle`."""
        count = int(np.searchsorted(self.cycles, cycle, side="left"))
        return Chunk(self.cycles[:count], self.patterns[:count], self.luck[:, :count], cycle)

    @property
    def x_bits(self) -> bytes:
        """Both patterns announce x = 1."""
        return pack_bits(np.ones_like(self.patterns))

    @property
    def z_bits(self) -> bytes:
        """The pattern: psi+ or psi-."""
        return pack_bits(self.patterns)


def draw_chunk(
    generator: np.random.Generator,
    *,
    first_cycle: int,
    cycle_ns: int,
    probability: float,
    pairs: int,
) -> Chunk:
    """The next chunk of at most `pairs`. `probability` must be above 0."""
    horizon_cycles = max(1, CHUNK_NS // cycle_ns)
    expected = horizon_cycles * probability
    # Rarely too few for the horizon: then the chunk is just shorter.
    enough = int(expected + 6.0 * math.sqrt(expected)) + 4
    wanted = min(pairs, CHUNK_PAIRS_MAX, enough)
    gaps = np.minimum(generator.geometric(probability, wanted), _GAP_CYCLES_MAX)
    cycles = first_cycle - 1 + np.cumsum(gaps)
    horizon = max(first_cycle + horizon_cycles, int(cycles[0]) + 1)
    count = int(np.searchsorted(cycles, horizon, side="left"))
    # What lies beyond the horizon is thrown away undecided; up to it every cycle is decided.
    next_cycle = horizon if count < wanted else int(cycles[-1]) + 1
    patterns = generator.integers(0, 2, count, dtype=np.uint8)  # psi+ and psi-, equally likely
    return Chunk(cycles[:count], patterns, generator.random((2, count)), next_cycle)
