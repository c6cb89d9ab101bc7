"""Estimating the fidelity of pairs from measurements of both halves in X, Y and Z.

With the pairs corrected to phi+, F = (1 + <XX> - <YY> + <ZZ>) / 4. Each correlator is estimated
from its own pairs; the interval is that of the sum, from the binomial variances (normal
approximation, display only). Readout errors lower the estimate; `corrected` inverts the two
confusion matrices exactly, and widens the interval by as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qstack.quantum.bell import expected_agreement_sign
from qstack.quantum.pauli import Basis, FloatArray

Z_95: Final = 1.959964  # of the normal distribution: 95 % within
BASES: Final[tuple[Basis, ...]] = ("X", "Y", "Z")
SIGNS: Final = {basis: expected_agreement_sign(basis, 0, 0) for basis in BASES}
"""The sign of each correlator for phi+."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A fidelity, its standard error, and its 95 % interval within [0, 1]."""

    fidelity: float
    standard_error: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True)
class Readout:
    """How a node reads: the probability that 0 is reported as 0, and 1 as 1."""

    f0: float
    f1: float

    @property
    def slope(self) -> float:
        """What is left of an expectation that is read."""
        return self.f0 + self.f1 - 1

    @property
    def confusion(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """(2, 2): row the true outcome, column the reported one."""
        return np.array([[self.f0, 1 - self.f0], [1 - self.f1, self.f1]])


def agrees(basis: Basis, here: int, there: int) -> bool:
    """Whether two outcomes are those phi+ would give."""
    return (here == there) == (SIGNS[basis] > 0)


def estimate(outcomes: Sequence[tuple[Basis, int, int]]) -> Estimate:
    """From (basis, outcome here, outcome there) of each pair. Raises `ValueError` without any
    pair in one of the three bases.
    """
    return _estimate(outcomes, None)


def estimate_corrected(
    outcomes: Sequence[tuple[Basis, int, int]], here: Readout, there: Readout
) -> Estimate:
    """The same with the readout errors of both nodes taken out. Raises `ValueError` also for a
    readout that tells nothing (f0 + f1 = 1).
    """
    if min(abs(r.slope) for r in (here, there)) < 1e-9:
        raise ValueError("a readout with f0 + f1 = 1 tells nothing and cannot be corrected")
    return _estimate(outcomes, (here, there))


def _estimate(
    outcomes: Sequence[tuple[Basis, int, int]], readouts: tuple[Readout, Readout] | None
) -> Estimate:
    total, variance = 1.0, 0.0
    for basis in BASES:
        counts = np.zeros((2, 2))
        for name, here, there in outcomes:
            if name == basis:
                counts[here, there] += 1
        number = counts.sum()
        if not number:
            raise ValueError(f"no pair was measured in {basis}")
        weights = np.array([[1.0, -1.0], [-1.0, 1.0]])  # of each outcome in the correlator
        if readouts is not None:
            inverse_here, inverse_there = (np.linalg.inv(r.confusion) for r in readouts)
            weights = inverse_here @ weights @ inverse_there.T
        shares = counts / number
        correlator = float((weights * shares).sum())
        spread = float((weights**2 * shares).sum()) - correlator**2
        floor = float((weights**2).max()) / (number + 1) ** 2  # unanimity is not certainty
        total += SIGNS[basis] * correlator
        variance += max(spread, floor) / number
    fidelity, error = total / 4, float(np.sqrt(variance)) / 4
    return Estimate(
        fidelity=fidelity,
        standard_error=error,
        low=max(0.0, fidelity - Z_95 * error),
        high=min(1.0, fidelity + Z_95 * error),
        pairs=len(outcomes),
    )


Correlators = tuple[float, float, float]
"""Of X, Y and Z, each with its sign in the Bell state: the fidelity is (1 + their sum) / 4."""


def fidelity_of(correlators: Correlators) -> float:
    """The fidelity they come to."""
    return (1 + sum(correlators)) / 4


def sampling_error(correlators: Correlators, pairs: Sequence[int]) -> float:
    """The standard error of an estimate from so many `pairs` in X, Y and Z, if these are true."""
    variances = ((1 - c * c) / n for c, n in zip(correlators, pairs, strict=True))
    return float(np.sqrt(sum(variances))) / 4


def expected_correlators(
    pair: FloatArray, here: Readout, there: Readout, *, announced: tuple[int, int] = (0, 0)
) -> Correlators:
    """What the uncorrected correlators would be with endless pairs in this state.

    `pair`: (4, 4) Pauli expectations (I, X, Y, Z), `here` for axis 0, `announced` the bits of its
    Bell state, whose signs are taken out. With reported outcome +1 or -1 a readout turns an
    expectation e into (f0 + f1 - 1) e + (f0 - f1).
    """
    slopes = [here.slope, there.slope]
    shifts = [r.f0 - r.f1 for r in (here, there)]
    values = []
    for axis, basis in enumerate(BASES, start=1):
        correlator = (
            slopes[0] * slopes[1] * pair[axis, axis]
            + slopes[0] * shifts[1] * pair[axis, 0]
            + shifts[0] * slopes[1] * pair[0, axis]
            + shifts[0] * shifts[1]
        )
        values.append(expected_agreement_sign(basis, *announced) * float(correlator))
    return values[0], values[1], values[2]


def bases_for(pairs: int) -> str:
    """The basis of each of `pairs` pairs: as even as can be, X first (200 gives 67, 67, 66)."""
    return "".join(basis * (pairs // 3 + (index < pairs % 3)) for index, basis in enumerate(BASES))
