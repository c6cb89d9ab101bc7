"""Measurements that err: a reported bit or Bell label is the outcome of a POVM.

A POVM element is kept as its Pauli coefficients: the probability of the outcome is the sum of
coefficient times expectation. `f0` is the probability that a true 0 is reported as 0, `f1` that a
true 1 is reported as 1. The measured qubits are destroyed.
"""

from typing import Any

import numpy as np

from qstack.quantum.channels import depolarising, two_qubit_depolarising
from qstack.quantum.gates import gate_transfer
from qstack.quantum.pauli import BASIS_INDEX, Basis, FloatArray
from qstack.quantum.state import IMPOSSIBLE, contract, contract_two, normalised


def confusion(f0: float, f1: float) -> FloatArray:
    """The readout matrix (2, 2): row = true bit, column = reported. ValueError outside 0..1."""
    if not (0.0 <= f0 <= 1.0 and 0.0 <= f1 <= 1.0):
        raise ValueError(f"readout fidelities are in 0..1, not {f0} and {f1}")
    return np.array([[f0, 1.0 - f0], [1.0 - f1, f1]])


def readout_effect(basis: Basis, reported: int, f0: float = 1.0, f1: float = 1.0) -> FloatArray:
    """The POVM element (4,) of a reported bit. Raises ValueError on a bad basis, bit or f."""
    if basis not in BASIS_INDEX or reported not in (0, 1):
        raise ValueError(f"no such measurement: basis {basis!r}, outcome {reported}")
    true_zero, true_one = confusion(f0, f1)[:, reported]
    effect = np.zeros(4)
    effect[0] = (true_zero + true_one) / 2.0
    effect[BASIS_INDEX[basis]] = (true_zero - true_one) / 2.0
    return effect


def noisy_project(
    tensor: FloatArray, axis: int, basis: Basis, reported: int, f0: float, f1: float
) -> tuple[FloatArray, float]:
    """The others after the qubit was read as `reported`, and the probability of that report.

    Raises ValueError if the report cannot happen.
    """
    return normalised(contract(tensor, axis, readout_effect(basis, reported, f0, f1)))


def bell_measurement(
    gate_depolarising_2q: float = 0.0,
    gate_depolarising_1q: float = 0.0,
    f0: float = 1.0,
    f1: float = 1.0,
) -> FloatArray:
    """The POVM (2, 2, 4, 4) of a Bell measurement: [x, z] is the Pauli tensor of that outcome.

    The circuit: CNOT (first to second), two-qubit depolarising, H on the first, depolarising on
    the first, both read; the first gives z, the second x. Ideal:
    S_xz = diag(1, (-1)^z, -(-1)^(x+z), (-1)^x) / 4.
    """
    # Effects travel backwards through the circuit: by the transposed transfer matrices.
    on_first = depolarising(gate_depolarising_1q) @ gate_transfer("h")
    on_both = two_qubit_depolarising(gate_depolarising_2q) @ gate_transfer("cnot")
    povm = np.empty((2, 2, 4, 4))
    for x in (0, 1):
        for z in (0, 1):
            first = on_first.T @ readout_effect("Z", z, f0, f1)
            second = readout_effect("Z", x, f0, f1)
            povm[x, z] = (on_both.T @ np.outer(first, second).reshape(16)).reshape(4, 4)
    return povm


def swap_pairs(a: FloatArray, s: FloatArray, b: FloatArray) -> tuple[FloatArray, float]:
    """The far-far pair after the Bell measurement outcome `s` on the near halves: A @ S @ B.

    `a` has axes (far, near), `b` (near, far), both normalised; the probability of the outcome is
    the [0, 0] element. Batches (N, 4, 4) work and give N probabilities; `swap_batches` is the same,
    typed so. Raises ValueError if an outcome cannot happen.
    """
    if a.ndim == s.ndim == b.ndim == 2:
        return normalised(a @ s @ b)
    pairs, probabilities = swap_batches(a, s, b)
    batch: Any = probabilities
    return pairs, batch


def swap_batches(a: FloatArray, s: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """As `swap_pairs`: (N, 4, 4) pairs and (N,) probabilities."""
    product = a @ s @ b
    probabilities = product[..., :1, :1]
    if not np.all(probabilities > IMPOSSIBLE):
        raise ValueError("the outcome cannot happen for these pairs")
    return product / probabilities, probabilities[..., 0, 0]


def apply_bell_measurement(
    tensor: FloatArray, axis_a: int, axis_b: int, s_xz: FloatArray
) -> tuple[FloatArray, float]:
    """The other n - 2 qubits after the outcome `s_xz` (4, 4), and its probability.

    Raises ValueError if the outcome cannot happen or the axes are not two different qubits.
    """
    return normalised(contract_two(tensor, axis_a, axis_b, s_xz))
