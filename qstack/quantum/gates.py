"""Gates as Pauli transfer matrices.

rx, ry, rz are exp(-i angle P / 2): the Bloch vector turns by `angle` (radians) about the axis. The
first qubit of cnot is the control. The matrices of gates without an angle are made once and are
read-only.
"""

import cmath
import math
from functools import cache

import numpy as np

from qstack.quantum.pauli import PAULIS, ComplexArray, FloatArray, unitary_transfer

GATES = {
    "h": 1,
    "x": 1,
    "y": 1,
    "z": 1,
    "s": 1,
    "t": 1,
    "rx": 1,
    "ry": 1,
    "rz": 1,
    "cnot": 2,
    "cz": 2,
    "swap": 2,
}
"""Every gate by name, with its number of qubits."""

# The two Bloch components a rotation mixes: u' = c u - s v, v' = s u + c v.
_ROTATIONS = {"rx": (2, 3), "ry": (3, 1), "rz": (1, 2)}


def gate_transfer(name: str, angle: float = 0.0) -> FloatArray:
    """The (4, 4) or (16, 16) of a gate.

    Raises ValueError for an unknown name, a non-finite angle, or an angle where the gate has none.
    """
    if name in _ROTATIONS:
        return _rotation(*_ROTATIONS[name], angle)
    if name not in GATES:
        raise ValueError(f"no gate is called {name!r}")
    if angle != 0.0:
        raise ValueError(f"the gate {name} has no angle")
    return _fixed(name)


@cache
def pauli_frame(x: int, z: int) -> FloatArray:
    """The transfer matrix of X^x Z^z, read-only. Raises ValueError if x or z is not a bit."""
    if x not in (0, 1) or z not in (0, 1):
        raise ValueError(f"a Pauli frame is two bits, not ({x}, {z})")
    frame = np.diag([1.0, (-1.0) ** z, (-1.0) ** (x + z), (-1.0) ** x])
    frame.setflags(write=False)
    return frame


def _rotation(u: int, v: int, angle: float) -> FloatArray:
    if not math.isfinite(angle):
        raise ValueError(f"an angle is finite, not {angle}")
    cosine, sine = math.cos(angle), math.sin(angle)
    transfer = np.eye(4)
    transfer[u, u] = transfer[v, v] = cosine
    transfer[u, v] = -sine
    transfer[v, u] = sine
    return transfer


@cache
def _fixed(name: str) -> FloatArray:
    # Rounding leaves the exact 0, 1 and -1 of Clifford gates within 1e-16: make them exact.
    transfer = unitary_transfer(_unitary(name))
    nearest = np.round(transfer)
    transfer = np.where(np.abs(transfer - nearest) < 1e-12, nearest, transfer) + 0.0
    transfer.setflags(write=False)
    return transfer


def _unitary(name: str) -> ComplexArray:
    unitary: ComplexArray
    match name:
        case "h":
            unitary = (PAULIS[1] + PAULIS[3]) / math.sqrt(2.0)
        case "x" | "y" | "z":
            unitary = PAULIS["xyz".index(name) + 1]
        case "s" | "t":
            phase = 1j if name == "s" else cmath.exp(1j * math.pi / 4)
            unitary = np.diag([1.0, phase])
        case "cz":
            unitary = np.diag([1.0 + 0j, 1.0, 1.0, -1.0])
        case _:
            # The rows of the identity in the order the gate permutes them.
            order = {"cnot": [0, 1, 3, 2], "swap": [0, 2, 1, 3]}[name]
            unitary = np.eye(4, dtype=np.complex128)[order]
    return unitary
