"""What both ends of many pairs read, settled end by end as their bases become known.

The end whose bases come first reads by its own marginal, which does not depend on what the other
end will choose; the end that comes second reads by the distribution that leaves. Luck is drawn
before anybody's basis is known, so the order of asking takes no part in it.
"""

import numpy as np
from numpy.typing import NDArray

from qstack.quantum.pauli import FloatArray
from qstack.wire.packed import Bits, Codes


class JointPatterns:
    """Which detectors of both ends see something of N candidates, where detectors are not alike.

    `both` (3, 3, 4, 4) are the probabilities of the patterns (`models/receiver.py`) of both ends,
    by the codes of their bases; `alone` (2, 4) those of an end without the other one. Both are of
    candidates at one end or both, as `is_joint` (N,) says; `luck` (2, N) is uniform.
    """

    def __init__(
        self, both: FloatArray, alone: FloatArray, is_joint: NDArray[np.bool_], luck: FloatArray
    ) -> None:
        self._both = both
        self._alone = alone
        self._is_joint = is_joint
        self._luck = luck
        self._read: tuple[int, Codes, Bits] | None = None  # by the end that came first

    def read(self, end: int, codes: Codes) -> Bits:
        """The patterns of `end` (0 or 1) in these bases (N,); each end reads once."""
        both = self._both if end == 0 else self._both.transpose(1, 0, 3, 2)
        if self._read is None:
            chances = both[codes, 0].sum(axis=2)
        else:
            _, other_codes, others = self._read
            chances = both[codes, other_codes, :, others]
            totals = chances.sum(axis=1, keepdims=True)
            chances = chances / np.maximum(totals, np.finfo(np.float64).tiny)
        chances = np.where(self._is_joint[:, np.newaxis], chances, self._alone[end])
        edges = np.cumsum(chances, axis=1)[:, :-1]
        patterns: Bits = (self._luck[end][:, np.newaxis] >= edges).sum(axis=1).astype(np.uint8)
        if self._read is None:
            self._read = end, codes, patterns
        return patterns


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
