"""Distillation of two pairs into one, in closed form: success probability and what comes out.

Bell weights in the order phi+, phi-, psi+, psi-. Both ends apply the same circuit, measure one
pair in Z and keep the other if the outcomes agree. BBPSSW: Bennett and others 1996, Werner pairs;
DEJMPS: Deutsch and others 1996, any Bell-diagonal pairs; EPL: Campbell and Benjamin 2008, pairs
of single-click links.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qstack.quantum.bell import bell_diagonal
from qstack.quantum.pauli import FloatArray


class Distilled(NamedTuple):
    """`probability` that the pair is kept, and the fidelity it then has."""

    probability: float
    fidelity: float


class DistilledWeights(NamedTuple):
    """`probability` that the pair is kept, and the Bell weights (4,) it then has."""

    probability: float
    weights: FloatArray


def bbpssw(
    fidelity: float, *, gate_depolarising_2q: float = 0.0, readout_fidelity: float = 1.0
) -> Distilled:
    """Two Werner pairs: P = F^2 + 2FG + 5G^2, F' = (F^2 + G^2)/P, G = (1-F)/3.

    With noise (Duer, Briegel, Cirac, Zoller 1999): each CNOT is followed by two-qubit depolarising
    and each readout bit is right with probability `readout_fidelity`. Raises ValueError for a
    value out of range.
    """
    _require_unit("a fidelity", fidelity)
    _require_unit("a two-qubit depolarising probability", gate_depolarising_2q)
    _require_unit("a readout fidelity", readout_fidelity)
    other = (1.0 - fidelity) / 3.0
    right = readout_fidelity**2 + (1.0 - readout_fidelity) ** 2
    wrong = 2.0 * readout_fidelity * (1.0 - readout_fidelity)
    clean = (1.0 - gate_depolarising_2q) ** 2
    agree = fidelity**2 + 2.0 * fidelity * other + 5.0 * other**2
    differ = 4.0 * fidelity * other + 4.0 * other**2
    # What a gate has depolarised passes half of the time, and is phi+ in a quarter of that.
    probability = clean * (right * agree + wrong * differ) + (1.0 - clean) / 2.0
    good = right * (fidelity**2 + other**2) + wrong * other * (fidelity + other)
    good = clean * good + (1.0 - clean) / 8.0
    return Distilled(probability, good / probability)


def dejmps(
    first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray
) -> DistilledWeights:
    """Two Bell-diagonal pairs, each turned by Rx(pi/2) at one end and Rx(-pi/2) at the other.

    Alike: with A, B, C, D the weights of phi+, psi-, psi+, phi-: P = (A+B)^2 + (C+D)^2, and
    (A^2+B^2, 2AB, C^2+D^2, 2CD)/P in the order phi+, phi-, psi+, psi-. Raises ValueError unless
    both are four probabilities that sum to 1.
    """
    kept = []
    for weights in (first, second):
        bell_diagonal(weights)  # refuses what is no distribution
        kept.append([float(weights[place]) for place in (0, 3, 2, 1)])
    (a, b, c, d), (e, f, g, h) = kept
    out = np.array([a * e + b * f, a * f + b * e, c * g + d * h, c * h + d * g])
    probability = float(out.sum())
    if not probability > 0.0:
        raise ValueError("the outcomes of these two pairs never agree")
    return DistilledWeights(probability, out / probability)


def epl(fidelity: float, coherence: float = 1.0) -> Distilled:
    """Two copies of F |psi+><psi+| + (1-F) |11><11|, kept when both ends read 1.

    P = F^2/2, F' = (1 + lambda^2)/2 where `coherence` lambda is what dephasing left of psi+: the
    bright-bright term goes altogether. Raises ValueError for a value out of range, or F = 0.
    """
    _require_unit("a fidelity", fidelity)
    _require_unit("a coherence", coherence)
    if fidelity == 0.0:
        raise ValueError("without psi+ nothing passes")
    return Distilled(fidelity**2 / 2.0, (1.0 + coherence**2) / 2.0)


def pumping(fidelity: float, rounds: int) -> list[Distilled]:
    """Entanglement pumping: DEJMPS of the pair so far with a fresh Werner pair, round by round.

    Raises ValueError for a fidelity outside 0..1 or a negative number of rounds.
    """
    _require_unit("a fidelity", fidelity)
    if rounds < 0:
        raise ValueError(f"a number of rounds is not negative: {rounds}")
    fresh = np.array([fidelity, *[(1.0 - fidelity) / 3.0] * 3])
    weights, steps = fresh, []
    for _ in range(rounds):
        probability, weights = dejmps(weights, fresh)
        steps.append(Distilled(probability, float(weights[0])))
    return steps


def _require_unit(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is in 0..1, not {value}")
