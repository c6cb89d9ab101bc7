"""A photon-pair source between two receivers: what a slot of it makes the detectors do.

The source (parametric down-conversion, polarisation or time-bin: two mode pairs) emits n pairs
in a slot with P(n) = (n+1) lam^n / (1+lam)^(n+2), in the state
|n> = (n+1)^(-1/2) sum_m |n-m, m>_A |n-m, m>_B: the n-photon state of phi+, so equal outcomes agree
in X and Z and differ in Y. Multi-pairs are true ones, not pairs side by side. A receiver has two
threshold detectors, behind an analyser set to one basis; when both click the outcome is a fair
coin's (random assignment). Pure functions, no chance.

Rules
1. `efficiency` is everything from the source to a click; `background` is the probability that a
   side clicks in a slot without light, half of it (in the sense of rates) in each detector.
2. `misalignment` is the probability that a coincidence has its relation inverted: each side
   inverts its outcome independently with the probability f for which 2 f (1-f) is that.
   `polarisation_rad` and `phase_rad` are deviations of angles by which light is turned on the way
   (`timing.pair_fading`). Their mean is taken for each pair by itself: of slots with more pairs
   that is right to the fourth order of the angles.
3. The closed forms are those of Ma, Fung and Lo, Phys. Rev. A 76, 012307 (2007). Their error
   leaves out that a dark count may spoil a click of light: the sum over photon numbers, which
   does not, differs by about `background` (6e-6 at 1e-5). The fabric plays the sum.
"""

import math
from typing import Final

import numpy as np
from msgspec import Struct

from qstack.physical.models.ranges import require_not_negative
from qstack.physical.models.timing import pair_fading
from qstack.quantum.pauli import BASIS_INDEX, Basis, FloatArray

TRUNCATION: Final = 1e-12
"""The probability of more pairs than the sum over photon numbers goes to."""
MEAN_PAIRS_MAX: Final = 1.0
"""The largest lam: at 1 the sum takes 45 terms, and half of the slots have two pairs or more."""
PHI_PLUS: Final = np.array([1.0, -1.0, 1.0])
"""<XX>, <YY> and <ZZ> of the pair."""
BellWeights = tuple[float, float, float, float]
"""Of phi+, phi-, psi+, psi-."""
_SILENT: Final = ((), (0,), (1,), (0, 1))
"""Sets of detectors of one side."""


class PairSource(Struct, frozen=True, kw_only=True):
    """A source and its two receivers, `efficiencies` and `backgrounds` in the order of the ends.

    `mean_pairs` is lam: half of the mean number of pairs of a slot. Raises ValueError for a value
    out of range.
    """

    mean_pairs: float
    efficiencies: tuple[float, float]
    backgrounds: tuple[float, float] = (0.0, 0.0)
    misalignment: float = 0.0
    polarisation_rad: float = 0.0
    phase_rad: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0.0 < self.mean_pairs <= MEAN_PAIRS_MAX:
            raise ValueError(f"lam is above 0 and at most {MEAN_PAIRS_MAX}, not {self.mean_pairs}")
        if not all(0.0 < efficiency <= 1.0 for efficiency in self.efficiencies):
            raise ValueError(f"efficiencies are above 0 and at most 1, not {self.efficiencies}")
        if not all(0.0 <= background < 1.0 for background in self.backgrounds):
            raise ValueError(f"backgrounds are at least 0 and below 1, not {self.backgrounds}")
        if not 0.0 <= self.misalignment <= 0.5:
            raise ValueError(f"misalignment is 0 to 0.5, not {self.misalignment}")
        require_not_negative(polarisation_rad=self.polarisation_rad, phase_rad=self.phase_rad)

    @property
    def correlations(self) -> FloatArray:
        """<XX>, <YY> and <ZZ> of a lone pair, but for its misalignment."""
        return PHI_PLUS * pair_fading(self.polarisation_rad, self.phase_rad)


# --- closed forms --------------------------------------------------------------------------------


def gain(source: PairSource) -> float:
    """Q: the probability that both sides click in a slot.

    Q = 1 - a - b + c with a = (1-Y0A)/(1+etaA lam)^2, b alike, and c for both silent, written
    without the differences that would lose small values.
    """
    silent = [_silent(source, side) for side in (0, 1)]
    excess = _excess(source)
    return -math.expm1(silent[0]) * -math.expm1(silent[1]) + math.exp(sum(silent)) * (
        2.0 * excess + excess * excess
    )


def error_rate(source: PairSource) -> float:
    """E: the error rate of coincidences with equal bases (QBER), in the published closed form.

    It is of light that is not turned on the way.
    """
    eta_a, eta_b = source.efficiencies
    lam = source.mean_pairs
    correlated = _excess(source) / ((1.0 + eta_a * lam) * (1.0 + eta_b * lam))
    return 0.5 - 2.0 * (0.5 - source.misalignment) * correlated / gain(source)


def _silent(source: PairSource, side: int) -> float:
    """The logarithm of the probability that a side does not click."""
    light = math.log1p(source.efficiencies[side] * source.mean_pairs)
    return math.log1p(-source.backgrounds[side]) - 2.0 * light


def _excess(source: PairSource) -> float:
    """r in P(both silent) = P(A silent) P(B silent) (1 + r)^2."""
    eta_a, eta_b = source.efficiencies
    lam = source.mean_pairs
    both = eta_a * eta_b * lam
    return both * (1.0 + lam) / (1.0 + (eta_a + eta_b) * lam - both)


# --- the sum over photon numbers -----------------------------------------------------------------


def pair_numbers(mean_pairs: float, truncation: float = TRUNCATION) -> FloatArray:
    """P(n) for n = 0, 1 ... up to the first n beyond which lies less than `truncation`.

    The tail is P(>n) = t^(n+1) (1 + (n+1)(1-t)) with t = lam/(1+lam).
    """
    ratio = mean_pairs / (1.0 + mean_pairs)
    last = 0
    while ratio ** (last + 1) * (1.0 + (last + 1) * (1.0 - ratio)) >= truncation:
        last += 1
    numbers = np.arange(last + 1)
    probabilities: FloatArray = (numbers + 1.0) * ratio**numbers * (1.0 - ratio) ** 2
    return probabilities


def outcome_table(
    source: PairSource,
    basis_a: Basis | FloatArray,
    basis_b: Basis | FloatArray,
    *,
    weights: FloatArray | None = None,
) -> FloatArray:
    """(3, 3) probabilities of a slot: rows A, columns B; 0: silent, 1: outcome 0, 2: outcome 1.

    A basis may be the direction (3,) that is read as outcome 0, on the Bloch sphere of one photon.
    `weights` are those of the pair numbers 0, 1 ...: the source's own if they are not given.
    The entries sum to the sum of the weights.
    """
    numbers = pair_numbers(source.mean_pairs) if weights is None else weights
    overlap = mode_overlap(source, basis_a, basis_b)
    quiet = np.array([[_quiet(source, numbers, overlap, a, b) for b in _SILENT] for a in _SILENT])
    seen = _seen(source.misalignment)
    table: FloatArray = seen @ quiet @ seen.T
    return np.clip(table, 0.0, None)


def _quiet(
    source: PairSource,
    numbers: FloatArray,
    overlap: FloatArray,
    silent_a: tuple[int, ...],
    silent_b: tuple[int, ...],
) -> float:
    """The probability that these detectors do not click, whatever the others do.

    A photon gets past a set of detectors as by M = 1 - eta P, P the projector on their modes. For
    |n> that is Tr Sym^n(M_A M_B^T) / (n+1): the complete homogeneous polynomial of the two
    eigenvalues, from their sum and product by h_n = sum h_(n-1) - product h_(n-2).
    """
    eta_a, eta_b = source.efficiencies
    common = float(sum(overlap[a, b] for a in silent_a for b in silent_b))
    trace = 2.0 - eta_a * len(silent_a) - eta_b * len(silent_b) + eta_a * eta_b * common
    determinant = (1.0 - eta_a) ** len(silent_a) * (1.0 - eta_b) ** len(silent_b)
    dark_a, dark_b = source.backgrounds
    dark = float((1.0 - dark_a) ** (len(silent_a) / 2) * (1.0 - dark_b) ** (len(silent_b) / 2))
    return unseen(numbers, trace, determinant) * dark


def unseen(numbers: FloatArray, trace: float, determinant: float) -> float:
    """sum_n P(n) h_n / (n+1): no photon is detected, of M_A M_B^T with this trace and determinant.

    h_n is the complete homogeneous polynomial of its two eigenvalues (`_quiet`).
    """
    total, before, now = 0.0, 0.0, 1.0
    for number, weight in enumerate(numbers):
        total += float(weight) * now / (number + 1)
        before, now = now, trace * now - determinant * before
    return total


def mode_overlap(
    source: PairSource, basis_a: Basis | FloatArray, basis_b: Basis | FloatArray
) -> FloatArray:
    """How much mode i of A (row) and mode j of B have in common in |n>: phi+ as in bell.py.

    (1 + c) / 2 for equal outcomes, with phi+'s correlation c = a_x b_x - a_y b_y + a_z b_z.
    """
    a, b = (_direction(basis) for basis in (basis_a, basis_b))
    correlation = float(a @ (source.correlations * b))
    alike, unlike = (1.0 + correlation) / 2.0, (1.0 - correlation) / 2.0
    return np.array([[alike, unlike], [unlike, alike]])


def _direction(basis: Basis | FloatArray) -> FloatArray:
    """What is read as outcome 0, on the Bloch sphere."""
    return np.eye(3)[BASIS_INDEX[basis] - 1] if isinstance(basis, str) else basis


def _seen(misalignment: float) -> FloatArray:
    """(3, 4): from the probabilities of silent sets to those of silent, outcome 0, outcome 1.

    Only detector 0 clicks: 1 is silent, less both silent. Both click: each outcome half of it.
    """
    both = np.array([1.0, -1.0, -1.0, 1.0]) / 2.0
    plain = np.array(
        [np.array([0.0, 0.0, 1.0, -1.0]) + both, np.array([0.0, 1.0, 0.0, -1.0]) + both]
    )
    inverted = (1.0 - math.sqrt(1.0 - 2.0 * misalignment)) / 2.0
    mixed = np.array([[1.0 - inverted, inverted], [inverted, 1.0 - inverted]]) @ plain
    return np.vstack([[0.0, 0.0, 0.0, 1.0], mixed])


# --- figures -------------------------------------------------------------------------------------


def visibility(source: PairSource, basis: Basis = "Z") -> float:
    """<s_A s_B> of coincidences in Z (outcomes as +1 and -1): 1 - 2 QBER, of the exact sum.

    It is the same in X and, inverted, in Y: the states |n> look alike in every basis, unless light
    is turned on the way.
    """
    clicked = outcome_table(source, basis, basis)[1:, 1:]
    return float((clicked[0, 0] + clicked[1, 1] - clicked[0, 1] - clicked[1, 0]) / clicked.sum())


def bell_weights(source: PairSource) -> BellWeights:
    """The qubit pair with the error rates of the coincidences: a Werner state of weight V.

    F = (1 + 3 V) / 4 is the fidelity to phi+ that somebody who saw only coincidences, each taken
    for one pair of qubits, would estimate; the three other Bell states share the rest. Where light
    is turned on the way it is the Bell-diagonal state with the correlations of each basis.
    """
    seen = visibility(source)
    if not source.polarisation_rad and not source.phase_rad:
        return weights_of(seen, -seen, seen)
    return weights_of(visibility(source, "X"), visibility(source, "Y"), seen)


def weights_of(xx: float, yy: float, zz: float) -> BellWeights:
    """Of the Bell-diagonal state with these correlations."""
    return (
        (1.0 + xx - yy + zz) / 4.0,
        (1.0 - xx + yy + zz) / 4.0,
        (1.0 + xx + yy - zz) / 4.0,
        (1.0 - xx - yy - zz) / 4.0,
    )
