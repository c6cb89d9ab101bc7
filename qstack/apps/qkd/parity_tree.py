"""How Cascade cuts a permuted key into nested intervals, and names them.

Pass p permutes the n bits; level l of its tree cuts them into 2^l intervals whose lengths differ by
at most one, [(i n) >> l, ((i + 1) n) >> l). Node (l, i) has number 2^l + i in its tree, its
children 2 (2^l + i) and one more; the trees of all passes are numbered one after the other, so
that a node has one number in the whole forest. At the last level an interval holds one bit or none.

The permutation is the order of a public hash of the positions: equal at both ends whatever their
versions of numpy are, and for any n.
"""

import math
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from qstack.apps.qkd.bits import Bits

SURE: Final = 3.5
"""Standard deviations below one half from which on a share of odd blocks means something."""

Nodes = npt.NDArray[np.int64]
"""Numbers of nodes in the forest."""
_Words = npt.NDArray[np.uint64]

BITS_MAX: Final = 2**20
PASSES_MAX: Final = 16
SHORTEST_BLOCK: Final = 4
LONGEST_BLOCK: Final = 2048
"""In the first pass, before it is known how many errors there are."""


class Schedule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Passes made before the first verification, and more of them where it fails.

    From the fourth on a pass discloses one bit more than its searches, a verification 128.
    """

    passes: Annotated[int, Meta(ge=3, le=PASSES_MAX)] = 11
    extra_passes: Annotated[int, Meta(ge=0, le=PASSES_MAX)] = 5

    @property
    def passes_max(self) -> int:
        """All that can be asked for."""
        return self.passes + self.extra_passes


def depth(n: int) -> int:
    """The last level of a tree over n bits."""
    return (n - 1).bit_length()


def level_of(n: int, size: float) -> int:
    """The first level whose intervals have `size` bits at most; there are two of them at least."""
    return depth(max(2, math.ceil(n / size)))


def later_levels(first: int, passes: int) -> list[int]:
    """The level of the blocks of each pass, the first being given: k1, 8 k1, 256 k1, then n/2.

    Sizes for searches with reuse, after Martinez-Mateo and others, Quantum Inf. Comput. 15, 453
    (2015).
    """
    return [first, max(1, first - 3), max(1, first - 8), *[1] * passes][:passes]


def wanted_size(odd: int, blocks: int, size: float) -> float:
    """1/Q for the error rate Q by which so many of the blocks would be odd.

    0 if as many could be odd by chance whatever the errors are: blocks too long tell nothing.
    """
    if _most(odd / blocks, blocks) >= 0.5:
        return 0.0
    share = (odd + 0.5) / (blocks + 1)
    rate: float = (1 - (1 - 2 * share) ** (1 / size)) / 2
    return 1 / rate


def _most(share: float, count: int) -> float:
    """The upper end of Wilson's interval for a share seen in `count`."""
    weight = SURE**2 / count
    spread = SURE * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return (share + weight / 2 + spread) / (1 + weight)


def permutation(n: int, seed: bytes, number: int) -> Nodes:
    """(n,) the bit at each place of pass `number`, from 16 public bytes (splitmix64 as hash)."""
    words = np.frombuffer(seed, dtype=">u8").astype(np.uint64)
    start = _mix(words[:1] + np.uint64(number)) ^ words[1:2]
    keys = _mix(start + np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return np.argsort(keys, kind="stable").astype(np.int64)


def _mix(words: _Words) -> _Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@lru_cache(maxsize=4)
def leaves(n: int) -> Nodes:
    """(n,) the last-level node of each place. Read only."""
    levels = depth(n)
    starts = (np.arange(1 << levels, dtype=np.int64) * n) >> levels
    # Of several nodes that start at a place all but the last are empty.
    found = (1 << levels) + np.searchsorted(starts, np.arange(n), side="right") - 1
    found.flags.writeable = False
    return found


def tree(bits: Bits, order: Nodes) -> Bits:
    """The parity of every node of one pass, by its number in the tree (element 0 is unused)."""
    n = bits.size
    size = 1 << depth(n)
    parity = np.zeros(2 * size, dtype=np.uint8)
    parity[leaves(n)] = bits[order]
    while size > 1:
        half = size // 2
        np.bitwise_xor(parity[size : 2 * size : 2], parity[size + 1 : 2 * size : 2],
                       out=parity[half:size])  # fmt: skip
        size = half
    return parity


def spans(n: int, nodes: Nodes) -> tuple[Nodes, Nodes]:
    """First place and length of each node, numbered within its tree."""
    levels = np.frexp(nodes.astype(np.float64))[1].astype(np.int64) - 1
    index = nodes - (np.int64(1) << levels)
    start = (index * n) >> levels
    return start, (((index + 1) * n) >> levels) - start
