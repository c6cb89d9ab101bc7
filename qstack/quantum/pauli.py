"""The representation: a state of n qubits is a real tensor with n axes of length 4.

Entry [i, j, ...] is the expectation of the Pauli product P_i x P_j x ..., in the order I, X, Y, Z;
[0, ..., 0] is the norm, 1 for a normalised state. A channel on one qubit is a real (4, 4), a
channel on two is a real (16, 16) with index 4 i + j. Nothing here changes its arguments.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
ComplexArray: TypeAlias = NDArray[np.complex128]
Basis: TypeAlias = Literal["X", "Y", "Z"]

BASIS_INDEX = {"X": 1, "Y": 2, "Z": 3}
TOLERANCE = 1e-9

PAULIS: ComplexArray = np.array(
    [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]],
    dtype=np.complex128,
)
PAULI_PAIRS: ComplexArray = np.array([np.kron(a, b) for a in PAULIS for b in PAULIS])
PAULIS.setflags(write=False)
PAULI_PAIRS.setflags(write=False)

# Rows and columns of one qubit as one index (row, column): expectation and its inverse.
_EXPECTATION: ComplexArray = PAULIS.transpose(0, 2, 1).reshape(4, 4)
_EXPANSION: ComplexArray = PAULIS.reshape(4, 4).T / 2


def from_density(rho: ComplexArray | FloatArray) -> FloatArray:
    """The tensor of a density matrix (2^n, 2^n), first qubit most significant.

    Raises ValueError unless `rho` is Hermitian and its side is a power of two.
    """
    matrix: ComplexArray = np.asarray(rho, dtype=np.complex128)
    side = matrix.shape[0] if matrix.ndim else 0
    qubits = side.bit_length() - 1
    if matrix.shape != (side, side) or qubits < 0 or side != 1 << qubits:
        raise ValueError(f"a density matrix of qubits is square, 2^n by 2^n, not {matrix.shape}")
    if not np.allclose(matrix, matrix.conj().T, rtol=0, atol=TOLERANCE):
        raise ValueError("a density matrix is Hermitian")
    # Axes (r1 .. rn, c1 .. cn) become (r1 c1), (r2 c2), ...
    order = [axis for k in range(qubits) for axis in (k, qubits + k)]
    tensor = matrix.reshape((2,) * (2 * qubits)).transpose(order).reshape((4,) * qubits)
    for axis in range(qubits):
        tensor = np.moveaxis(np.tensordot(_EXPECTATION, tensor, axes=(1, axis)), 0, axis)
    return tensor.real.copy()


def to_density(tensor: FloatArray) -> ComplexArray:
    """The density matrix (2^n, 2^n) of a tensor. Raises ValueError on an axis not of length 4."""
    qubits = tensor.ndim
    if tensor.shape != (4,) * qubits:
        raise ValueError(f"every axis of a state has length 4, not {tensor.shape}")
    rho: ComplexArray = tensor.astype(np.complex128)
    for axis in range(qubits):
        rho = np.moveaxis(np.tensordot(_EXPANSION, rho, axes=(1, axis)), 0, axis)
    order = [*range(0, 2 * qubits, 2), *range(1, 2 * qubits, 2)]
    return rho.reshape((2,) * (2 * qubits)).transpose(order).reshape(1 << qubits, 1 << qubits)


def transfer_matrix(kraus: Sequence[ComplexArray | FloatArray]) -> FloatArray:
    """The Pauli transfer matrix of Kraus operators on one qubit (4, 4) or on two (16, 16).

    T_ij = tr(P_i sum_k K_k P_j K_k^+) / d. The operators need not be complete: a filter has a first
    row other than (1, 0, ...). Raises ValueError on shapes that are not all (2, 2) or all (4, 4).
    """
    shapes = {np.shape(operator) for operator in kraus}
    if shapes not in ({(2, 2)}, {(4, 4)}):
        raise ValueError(f"Kraus operators are all 2 by 2 or all 4 by 4, not {sorted(shapes)}")
    operators: ComplexArray = np.array(kraus, dtype=np.complex128)
    dimension = operators.shape[1]
    paulis = PAULIS if dimension == 2 else PAULI_PAIRS
    transfer: FloatArray = np.zeros((len(paulis), len(paulis)))
    for operator in operators:
        images = operator @ paulis @ operator.conj().T
        transfer += np.tensordot(paulis, images, axes=((1, 2), (2, 1))).real / dimension
    return transfer


def unitary_transfer(u: ComplexArray | FloatArray) -> FloatArray:
    """The transfer matrix of a unitary on one or two qubits. Raises ValueError if not unitary."""
    transfer = transfer_matrix([u])
    if not np.allclose(np.conj(u).T @ u, np.eye(len(u)), rtol=0, atol=TOLERANCE):
        raise ValueError("the matrix is not unitary")
    return transfer
