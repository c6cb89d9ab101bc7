"""Closed forms: what a pair, a chain or a memory is worth.

Where a figure takes one fidelity, the pair is a Werner state of that fidelity. These forms are for
planning and for checking the engine, never in its place.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from qstack.quantum.pauli import FloatArray


class ErrorRates(NamedTuple):
    """The probability that the two ends disagree with phi+ in each basis."""

    x: float
    y: float
    z: float


def werner_parameter(fidelity: float) -> float:
    """The weight w of the Bell state in a Werner state: (4F - 1) / 3."""
    return (4.0 * fidelity - 1.0) / 3.0


def chsh(fidelity: float) -> float:
    """The largest CHSH value: 2 sqrt(2) w (Horodecki criterion); classical bound 2."""
    return 2.0 * math.sqrt(2.0) * werner_parameter(fidelity)


def qber(fidelity: float) -> float:
    """The error rate of key bits in any basis: 2 (1 - F) / 3."""
    return 2.0 * (1.0 - fidelity) / 3.0


def teleport_fidelity(fidelity: float) -> float:
    """The average fidelity of a teleported qubit: (2F + 1) / 3, for any Bell-diagonal pair."""
    return (2.0 * fidelity + 1.0) / 3.0


def rsp_fidelity(fidelity: float) -> float:
    """The fidelity of remote state preparation on the equator: (1 + w) / 2."""
    return (1.0 + werner_parameter(fidelity)) / 2.0


def concurrence(fidelity: float) -> float:
    """The concurrence of a Werner state: max(0, 2F - 1)."""
    return max(0.0, 2.0 * fidelity - 1.0)


def entropy_bits(probabilities: Iterable[float]) -> float:
    """The Shannon entropy in bits. Raises ValueError on a negative probability."""
    total = 0.0
    for probability in probabilities:
        if probability < 0.0:
            raise ValueError(f"a probability is not negative: {probability}")
        if probability > 0.0:
            total -= probability * math.log2(probability)
    return total


def bbm92_fraction(error_rate: float, *, correction_efficiency: float = 1.0) -> float:
    """Key bits per sifted bit, asymptotically: 1 - h(Q) - f h(Q). Negative means no key.

    Raises ValueError for an error rate outside 0..1 (Shor and Preskill 2000; f is the factor over
    the Shannon limit of error correction).
    """
    return 1.0 - (1.0 + correction_efficiency) * entropy_bits((error_rate, 1.0 - error_rate))


def hashing_bound(probabilities: Sequence[float] | FloatArray) -> float:
    """Distillable ebits per Bell-diagonal pair by hashing: 1 - H(p). Negative means none."""
    return 1.0 - entropy_bits(float(p) for p in probabilities)


def bell_diagonal_error_rates(probabilities: Sequence[float] | FloatArray) -> ErrorRates:
    """The error rates in X, Y, Z of a Bell-diagonal pair against phi+ (Y expected opposite)."""
    _, phi_minus, psi_plus, psi_minus = (float(p) for p in probabilities)
    return ErrorRates(x=phi_minus + psi_minus, y=phi_minus + psi_plus, z=psi_plus + psi_minus)


def swap_bell_probabilities(p: Sequence[float], q: Sequence[float]) -> FloatArray:
    """The Bell weights after an ideal swap with its label undone: out[i xor j] += p_i q_j."""
    out = np.zeros(4)
    for i, p_i in enumerate(p):
        for j, q_j in enumerate(q):
            out[i ^ j] += p_i * q_j
    return out


def swap_fidelity(fidelity_a: float, fidelity_b: float) -> float:
    """The fidelity of two Werner pairs swapped ideally: F1 F2 + (1-F1)(1-F2)/3."""
    return fidelity_a * fidelity_b + (1.0 - fidelity_a) * (1.0 - fidelity_b) / 3.0


def chain_fidelity(
    fidelity: float,
    links: int,
    *,
    gate_depolarising_2q: float = 0.0,
    readout_fidelity: float = 1.0,
) -> float:
    """The end-to-end fidelity of `links` equal Werner pairs and links - 1 noisy swaps.

    1/4 + 3/4 ((1 - p2)(4 eta^2 - 1)/3)^(L-1) w^L (Briegel, Duer, Cirac, Zoller 1998); eta is the
    probability that each readout bit is right. Raises ValueError for links < 1.
    """
    if links < 1:
        raise ValueError(f"a chain has at least one link, not {links}")
    per_swap = (1.0 - gate_depolarising_2q) * (4.0 * readout_fidelity**2 - 1.0) / 3.0
    return 0.25 + 0.75 * per_swap ** (links - 1) * werner_parameter(fidelity) ** links


def retrieval_efficiency(
    initial: float, elapsed_s: float, decay_s: float, law: Literal["exponential", "gaussian"]
) -> float:
    """The chance to read a stored photon: initial exp(-t/tau), or exp(-(t/tau)^2).

    Exponential is like an atomic frequency comb, gaussian like EIT in cold atoms. Raises ValueError
    on another law.
    """
    if law == "exponential":
        return initial * math.exp(-elapsed_s / decay_s)
    if law == "gaussian":
        return initial * math.exp(-((elapsed_s / decay_s) ** 2))
    raise ValueError(f"a retrieval law is exponential or gaussian, not {law!r}")


def comb_efficiency_forward(optical_depth: float, finesse: float) -> float:
    """The atomic frequency comb read forward: (d/f)^2 e^(-d/f) e^(-7/f^2) (Afzelius 2009)."""
    effective = optical_depth / finesse
    return effective**2 * math.exp(-effective) * math.exp(-7.0 / finesse**2)


def comb_efficiency_backward(optical_depth: float, finesse: float) -> float:
    """The atomic frequency comb read backward: (1 - e^(-d/f))^2 e^(-7/f^2) (Afzelius 2009)."""
    return math.expm1(-optical_depth / finesse) ** 2 * math.exp(-7.0 / finesse**2)


def verification_threshold(colours: int, inherent_error: float) -> float:
    """The bound on failed tests w/t of verified blind computing: (1/k)(2p - 1)/(2p - 2).

    `colours` is that of the graph, `inherent_error` that of the computation (Leichtle and others
    2021). Raises ValueError unless colours >= 1 and 0 <= p < 1/2.
    """
    if colours < 1 or not 0.0 <= inherent_error < 0.5:
        raise ValueError(f"no threshold for k = {colours}, p = {inherent_error}")
    return (2.0 * inherent_error - 1.0) / (2.0 * inherent_error - 2.0) / colours
