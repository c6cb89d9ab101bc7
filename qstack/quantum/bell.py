"""Bell states by their two bits, and what a pair says about them.

Labels are bits (x, z): phi+ = (0, 0), phi- = (0, 1), psi+ = (1, 0), psi- = (1, 1), so that a swap
is the XOR of labels. A pair is a (4, 4) Pauli tensor; a batch of pairs is (..., 4, 4).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from qstack.quantum.pauli import BASIS_INDEX, TOLERANCE, Basis, FloatArray

LABELS = ((0, 0), (0, 1), (1, 0), (1, 1))

# Row 2 x + z: the correlators <II>, <XX>, <YY>, <ZZ> of that Bell state.
CORRELATORS: FloatArray = np.array(
    [[1.0, (-1.0) ** z, -((-1.0) ** (x + z)), (-1.0) ** x] for x, z in LABELS]
)
CORRELATORS.setflags(write=False)


def bell_state(x: int, z: int) -> FloatArray:
    """The pure Bell state (x, z). Raises ValueError if a label is not a bit."""
    return np.diag(CORRELATORS[_index(x, z)])


def werner(fidelity: float, x: int = 0, z: int = 0) -> FloatArray:
    """The Werner state of `fidelity` to the Bell state (x, z). Raises ValueError outside 0..1."""
    if not 0.0 <= fidelity <= 1.0:
        raise ValueError(f"a fidelity is in 0..1, not {fidelity}")
    pair = bell_state(x, z) * ((4.0 * fidelity - 1.0) / 3.0)
    pair[0, 0] = 1.0
    return pair


def bell_diagonal(probabilities: Sequence[float] | FloatArray) -> FloatArray:
    """The mixture of phi+, phi-, psi+, psi- with these weights.

    Raises ValueError unless they are four probabilities that sum to 1.
    """
    weights = np.asarray(probabilities, dtype=np.float64)
    if weights.shape != (4,):
        raise ValueError(f"there are four Bell states, not {weights.shape}")
    if not (weights.min() >= -TOLERANCE and abs(weights.sum() - 1.0) <= TOLERANCE):
        raise ValueError(f"not a probability distribution: {weights.tolist()}")
    return np.diag(weights @ CORRELATORS)


def fidelity(pair: FloatArray, x: int = 0, z: int = 0) -> float:
    """The overlap of a normalised pair with the Bell state (x, z).

    For a batch (..., 4, 4) the answer is an array (...); `fidelities` is the same, typed so.
    """
    value: Any = _diagonal(pair) @ CORRELATORS[_index(x, z)] / 4.0
    return value if np.ndim(value) else float(value)


def fidelities(pairs: FloatArray, x: int = 0, z: int = 0) -> FloatArray:
    """The overlaps (...) of a batch (..., 4, 4) with the Bell state (x, z)."""
    values: FloatArray = _diagonal(pairs) @ CORRELATORS[_index(x, z)] / 4.0
    return values


def bell_probabilities(pair: FloatArray) -> FloatArray:
    """The overlaps with phi+, phi-, psi+, psi-: (4,), or (..., 4) for a batch."""
    weights: FloatArray = _diagonal(pair) @ CORRELATORS.T / 4.0
    return weights


def compose(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """The label of two labelled pairs after an ideal swap with outcome (0, 0): their XOR."""
    return a[0] ^ b[0], a[1] ^ b[1]


def expected_agreement_sign(basis: Basis, x: int, z: int) -> int:
    """+1 if both ends of the Bell state (x, z) read the same in `basis`, -1 if opposite.

    Raises ValueError on an unknown basis or a label that is not a bit.
    """
    if basis not in BASIS_INDEX:
        raise ValueError(f"a basis is X, Y or Z, not {basis!r}")
    return int(CORRELATORS[_index(x, z), BASIS_INDEX[basis]])


def fidelity_from_correlators(xx: float, yy: float, zz: float, x: int = 0, z: int = 0) -> float:
    """The fidelity to the Bell state (x, z) from <XX>, <YY>, <ZZ>: (1 + signed sum) / 4."""
    signs = CORRELATORS[_index(x, z)]
    return float((1.0 + signs[1] * xx + signs[2] * yy + signs[3] * zz) / 4.0)


def _index(x: int, z: int) -> int:
    """The place of the label in the order phi+, phi-, psi+, psi-."""
    if x not in (0, 1) or z not in (0, 1):
        raise ValueError(f"a Bell label is two bits, not ({x}, {z})")
    return 2 * x + z


def _diagonal(pair: FloatArray) -> FloatArray:
    if pair.shape[-2:] != (4, 4):
        raise ValueError(f"a pair is (..., 4, 4), not {pair.shape}")
    return np.diagonal(pair, axis1=-2, axis2=-1)
