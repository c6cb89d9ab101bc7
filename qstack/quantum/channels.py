"""Noise as Pauli transfer matrices.

Conventions: dephasing(p) is rho -> (1-p) rho + p Z rho Z; depolarising(p) is
rho -> (1-p) rho + p I/2 (on two qubits p I/4), so that a fresh ket keeps fidelity 1 - p/2; T2 is
the total coherence time and T2 <= 2 T1. Amplitude damping relaxes to |0>. Times are seconds.
"""

import math

import numpy as np

from qstack.quantum.pauli import FloatArray

# T2 = 2 T1 written in decimal must not be refused for its last bit.
_RELATIVE_SLACK = 1e-12


def dephasing(p: float) -> FloatArray:
    """rho -> (1-p) rho + p Z rho Z. Raises ValueError outside 0..1."""
    _require(p, "a dephasing probability", 1.0)
    return coherence_scaling(1.0 - 2.0 * p)


def repeated_dephasing(p: float, n: int) -> FloatArray:
    """`n` times dephasing(p) in one step. Raises ValueError for p outside 0..1 or n < 0."""
    _require(p, "a dephasing probability", 1.0)
    if n < 0:
        raise ValueError(f"a number of repetitions is not negative: {n}")
    return coherence_scaling((1.0 - 2.0 * p) ** n)


def depolarising(p: float) -> FloatArray:
    """rho -> (1-p) rho + p I/2. Raises ValueError outside 0..4/3, the range of channels."""
    _require(p, "a depolarising probability", 4.0 / 3.0)
    return np.diag([1.0, 1.0 - p, 1.0 - p, 1.0 - p])


def two_qubit_depolarising(p: float) -> FloatArray:
    """rho -> (1-p) rho + p I/4, a diagonal (16, 16). Raises ValueError outside 0..16/15."""
    _require(p, "a two-qubit depolarising probability", 16.0 / 15.0)
    diagonal = np.full(16, 1.0 - p)
    diagonal[0] = 1.0
    return np.diag(diagonal)


def decoherence(elapsed_s: float, t1_s: float, t2_s: float) -> FloatArray:
    """Amplitude damping 1 - exp(-t/T1), then the dephasing that makes coherence exp(-t/T2).

    T1 and T2 may be infinite. Raises ValueError for a negative or infinite elapsed time, a time
    constant that is not positive, or T2 > 2 T1, which no channel has.
    """
    _require(elapsed_s, "an elapsed time")
    if not (t1_s > 0.0 and t2_s > 0.0):
        raise ValueError(f"T1 and T2 are positive, not {t1_s} and {t2_s}")
    if t2_s > 2.0 * t1_s * (1.0 + _RELATIVE_SLACK):
        raise ValueError(f"T2 is at most 2 T1: {t2_s} > 2 * {t1_s}")
    damping = -math.expm1(-elapsed_s / t1_s)
    transfer = coherence_scaling(math.exp(-elapsed_s / t2_s))
    transfer[3, 0] = damping
    transfer[3, 3] = 1.0 - damping
    return transfer


def gaussian_dephasing(age_before_s: float, age_after_s: float, t2_s: float) -> FloatArray:
    """The step of the law exp(-(t/T2)^2) between two ages since initialisation.

    The factor is g(after) / g(before), so any number of touches gives the same decay. Raises
    ValueError unless 0 <= before <= after and T2 > 0 (infinite allowed).
    """
    _require(age_before_s, "an age")
    _require(age_after_s, "an age")
    if age_after_s < age_before_s:
        raise ValueError(f"a qubit does not grow younger: {age_before_s} to {age_after_s}")
    if not t2_s > 0.0:
        raise ValueError(f"T2 is positive, not {t2_s}")
    # The difference of squares as a product: exact for a short step late in life.
    exponent = (age_after_s - age_before_s) / t2_s * ((age_after_s + age_before_s) / t2_s)
    return coherence_scaling(math.exp(-exponent))


def coherence_scaling(factor: float) -> FloatArray:
    """Multiplies the X and Y components by `factor`. Raises ValueError outside -1..1."""
    if not -1.0 <= factor <= 1.0:
        raise ValueError(f"a coherence factor is in -1..1, not {factor}")
    transfer = np.eye(4)
    transfer[1, 1] = transfer[2, 2] = factor
    return transfer


def attempt_dephasing_probability(attempts_to_1_over_e: float) -> float:
    """The dephasing per attempt of an idle qubit: (1 - 2p)^N = 1/e. Raises ValueError if N <= 0."""
    if not attempts_to_1_over_e > 0.0:
        raise ValueError(f"a number of attempts is positive, not {attempts_to_1_over_e}")
    return -math.expm1(-1.0 / attempts_to_1_over_e) / 2.0


def _require(value: float, name: str, most: float = math.inf) -> None:
    """Raises ValueError unless `value` is finite and in 0..most."""
    if not (0.0 <= value <= most and math.isfinite(value)):
        raise ValueError(f"{name} is finite and in 0..{most:g}, not {value}")
