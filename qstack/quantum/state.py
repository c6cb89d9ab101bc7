"""What can happen to a state: functions from tensors to tensors.

A tensor has one axis of length 4 per qubit. Nothing is changed in place. The shapes are split by
reshape around the touched axis, which needs no copy; this is the fast path of the emulation, and
`dot` is quicker than `@` on matrices this small. ValueError for an axis that is not there.
"""

from functools import cache
from typing import Final

import numpy as np

from qstack.quantum.pauli import BASIS_INDEX, Basis, FloatArray

# Below this an outcome is rounding noise: its post-measurement state would be meaningless.
IMPOSSIBLE = 1e-14
_ALL: Final = slice(None)


def fresh(outcome: int = 0) -> FloatArray:
    """The one-qubit state |0> or |1>. Raises ValueError if `outcome` is not a bit."""
    return np.array([1.0, 0.0, 0.0, float(sign_of(outcome))])


def maximally_mixed() -> FloatArray:
    """The one-qubit state I/2."""
    return np.array([1.0, 0.0, 0.0, 0.0])


def merge(a: FloatArray, b: FloatArray) -> FloatArray:
    """Two independent states as one: the qubits of `a`, then those of `b`."""
    joint: FloatArray = np.multiply.outer(a, b)
    return joint


def apply(tensor: FloatArray, axis: int, transfer: FloatArray) -> FloatArray:
    """A channel (4, 4) on the qubit of `axis`."""
    moved: FloatArray
    if axis == 0 and tensor.ndim <= 2:  # as nearly always: no reshaping
        moved = transfer.dot(tensor)
        return moved
    if axis == 1 and tensor.ndim == 2:
        moved = tensor.dot(transfer.T)
        return moved
    if axis == 0:
        moved = transfer.dot(tensor.reshape(4, -1))
    elif axis == tensor.ndim - 1:
        moved = tensor.reshape(-1, 4).dot(transfer.T)
    else:
        moved = np.matmul(transfer, split(tensor, axis))
    return moved.reshape(tensor.shape)


def apply_two(tensor: FloatArray, axis_a: int, axis_b: int, transfer16: FloatArray) -> FloatArray:
    """A channel (16, 16) on two qubits, `axis_a` the more significant one."""
    order, inverse = _orders(tensor.ndim, axis_a, axis_b)
    moved = transfer16 @ tensor.transpose(order).reshape(16, -1)
    return moved.reshape(tensor.shape).transpose(inverse)


def contract(tensor: FloatArray, axis: int, effect: FloatArray) -> FloatArray:
    """The unnormalised state of the others after the one-qubit effect (4,)."""
    rest: FloatArray = effect @ split(tensor, axis)
    return rest.reshape((4,) * (tensor.ndim - 1))


def contract_two(tensor: FloatArray, axis_a: int, axis_b: int, effect: FloatArray) -> FloatArray:
    """The unnormalised state of the others after the two-qubit effect (4, 4)."""
    order, _ = _orders(tensor.ndim, axis_a, axis_b)
    rest = effect.reshape(16) @ tensor.transpose(order).reshape(16, -1)
    return rest.reshape((4,) * (tensor.ndim - 2))


def swapped(
    first: tuple[FloatArray, int], effect: FloatArray, second: tuple[FloatArray, int]
) -> FloatArray:
    """The unnormalised state of the others of two states, (tensor, axis) each, after an effect.

    A @ S @ B of the two touched axes; the others of the first state come before those of the
    second.
    """
    (a, axis_a), (b, axis_b) = first, second
    _check(a, axis_a)
    _check(b, axis_b)
    left = a if axis_a == a.ndim - 1 else np.moveaxis(a, axis_a, -1)
    right = b if axis_b == 0 else np.moveaxis(b, axis_b, 0)
    rest: FloatArray = left.reshape(-1, 4).dot(effect).dot(right.reshape(4, -1))
    return rest.reshape((4,) * (a.ndim + b.ndim - 2))


def probability_of(tensor: FloatArray, axis: int, basis: Basis, outcome: int) -> float:
    """The probability of reading `outcome` (0 is the +1 eigenstate) of a normalised state."""
    _check(tensor, axis)
    place = [0] * tensor.ndim
    place[axis] = _component(basis)
    return min(1.0, max(0.0, (1.0 + sign_of(outcome) * float(tensor[tuple(place)])) / 2.0))


def project(tensor: FloatArray, axis: int, basis: Basis, outcome: int) -> tuple[FloatArray, float]:
    """The others after an ideal destructive measurement, and the probability of `outcome`.

    Raises ValueError if the outcome cannot happen.
    """
    parts = split(tensor, axis)
    rest = (parts[:, 0] + sign_of(outcome) * parts[:, _component(basis)]) / 2.0
    return normalised(rest.reshape((4,) * (tensor.ndim - 1)))


def discard(tensor: FloatArray, axis: int) -> FloatArray:
    """The others when the qubit of `axis` is forgotten: the partial trace."""
    _check(tensor, axis)
    return tensor[(_ALL,) * axis + (0,)].copy()


def normalised(tensor: FloatArray) -> tuple[FloatArray, float]:
    """A post-measurement tensor divided by its norm, and the norm: the outcome's probability.

    Raises ValueError if the probability is zero to rounding.
    """
    probability = float(tensor.item(0))
    if not probability > IMPOSSIBLE:
        raise ValueError(f"the outcome cannot happen (probability {probability:.3g})")
    return tensor / probability, probability


def split(tensor: FloatArray, axis: int) -> FloatArray:
    """The tensor as (qubits before, 4, qubits after): a view where the layout allows."""
    _check(tensor, axis)
    return tensor.reshape(4**axis, 4, -1)


def sign_of(outcome: int) -> int:
    """The eigenvalue of an outcome: +1 for 0, -1 for 1. Raises ValueError for any other."""
    if outcome not in (0, 1):
        raise ValueError(f"an outcome is a bit, not {outcome}")
    return 1 - 2 * int(outcome)


def _component(basis: Basis) -> int:
    try:
        return BASIS_INDEX[basis]
    except KeyError:
        raise ValueError(f"a basis is X, Y or Z, not {basis!r}") from None


def _check(tensor: FloatArray, axis: int) -> None:
    if not 0 <= axis < tensor.ndim:
        raise ValueError(f"no qubit {axis} in a state of {tensor.ndim}")


@cache
def _orders(qubits: int, axis_a: int, axis_b: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes with the two in front, and the way back."""
    if axis_a == axis_b or not (0 <= axis_a < qubits and 0 <= axis_b < qubits):
        raise ValueError(f"not two different qubits of {qubits}: {axis_a} and {axis_b}")
    rest = (axis for axis in range(qubits) if axis not in (axis_a, axis_b))
    order = (axis_a, axis_b, *rest)
    return order, tuple(sorted(range(qubits), key=order.__getitem__))
