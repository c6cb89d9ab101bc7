"""Noise as Pauli transfer matrices. That of waiting is in `decay`.

Conventions: dephasing(p) is rho -> (1-p) rho + p Z rho Z; depolarising(p) is
rho -> (1-p) rho + p I/2 (on two qubits p I/4), so that a fresh ket keeps fidelity 1 - p/2.
"""

import math

import numpy as np

from qstack.quantum.decay import dephased, depolarised, require
from qstack.quantum.pauli import FloatArray


def dephasing(p: float) -> FloatArray:
    """rho -> (1-p) rho + p Z rho Z. Raises ValueError outside 0..1."""
    return dephased(p).transfer


def depolarising(p: float) -> FloatArray:
    """rho -> (1-p) rho + p I/2. Raises ValueError outside 0..4/3, the range of channels."""
    return depolarised(p).transfer


def two_qubit_depolarising(p: float) -> FloatArray:
    """rho -> (1-p) rho + p I/4, a diagonal (16, 16). Raises ValueError outside 0..16/15."""
    require(p, "a two-qubit depolarising probability", 16.0 / 15.0)
    diagonal = np.full(16, 1.0 - p)
    diagonal[0] = 1.0
    return np.diag(diagonal)


def attempt_dephasing_probability(attempts_to_1_over_e: float) -> float:
    """The dephasing per attempt of an idle qubit: (1 - 2p)^N = 1/e. Raises ValueError if N <= 0."""
    if not attempts_to_1_over_e > 0.0:
        raise ValueError(f"a number of attempts is positive, not {attempts_to_1_over_e}")
    return -math.expm1(-1.0 / attempts_to_1_over_e) / 2.0
