"""What both ends of many pairs read, settled end by end as their bases become known.

The end whose bases come first reads by its own marginal, which does not depend on what the other
end will choose; the end that comes second reads by the distribution that leaves. Luck is drawn
before anybody's basis is known, so the order of asking takes no part in it.
"""

import numpy as np
from numpy.typing import NDArray

from qstack.quantum.pauli import FloatArray
from qstack.wire.packed import Bits, Codes


class JointOutcomes:
    """The outcomes of N pairs, or of N detections of which some are one of a pair.

    `tables` (patterns, 3, 3, 2, 2) are the joint probabilities of both outcomes, for each pattern
    and the bases of both ends as codes; `patterns` (N,) is each pair's; `luck` (2, N) is uniform.
    `is_joint` (N,) says which are pairs; all, if it is not given.
    """

    def __init__(
        self,
        tables: FloatArray,
        patterns: NDArray[np.uint8],
        luck: FloatArray,
        is_joint: NDArray[np.bool_] | None = None,
    ) -> None:
        self._tables = tables
        self._patterns = patterns
        self._luck = luck
        self._is_joint = is_joint
        self._read: tuple[int, Codes, Bits] | None = None  # by the end that came first

    def read(self, end: int, codes: Codes) -> Bits:
        """What `end` (0 or 1) reads in these bases (N,); each end reads once."""
        tables = self._tables if end == 0 else self._tables.transpose(0, 2, 1, 4, 3)
        marginal = tables[self._patterns, codes, 0].sum(axis=2)[:, 1]
        if self._read is None:
            outcomes: Bits = (self._luck[end] < marginal).astype(np.uint8)
            self._read = end, codes, outcomes
            return outcomes
        _, other_codes, others = self._read
        both = tables[self._patterns, codes, other_codes, :, others]
        left = both[:, 1] / np.maximum(both.sum(axis=1), np.finfo(np.float64).tiny)
        chance = left if self._is_joint is None else np.where(self._is_joint, left, marginal)
        second: Bits = (self._luck[end] < chance).astype(np.uint8)
        return second
