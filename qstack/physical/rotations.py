"""What turning a qubit before it is read does to what the reading tells.

A qubit is turned by R and then read with the effect e (`qstack.quantum.measurement`): that is the
effect R^T e of the qubit as it was. The turn itself is without noise, as the change of basis is.
"""

from functools import lru_cache

import numpy as np

from qstack.physical.service import Rotation
from qstack.quantum.gates import gate_transfer
from qstack.quantum.measurement import readout_effect
from qstack.quantum.pauli import BASIS_INDEX, FloatArray
from qstack.wire.packed import BASES


@lru_cache(maxsize=256)
def transfer(rotation: Rotation | None) -> FloatArray:
    """The transfer matrix (4, 4), read-only; the identity for none."""
    turned = np.eye(4)
    if rotation is not None:
        turned = (
            gate_transfer("rx", rotation.x2_rad)
            @ gate_transfer("ry", rotation.y_rad)
            @ gate_transfer("rx", rotation.x1_rad)
        )
    turned.setflags(write=False)
    return turned


def effects(rotation: Rotation | None, f0: float = 1.0, f1: float = 1.0) -> FloatArray:
    """(3, 2, 4): the POVM elements of both outcomes in X, Y and Z, after the turn."""
    plain = np.array([[readout_effect(basis, bit, f0, f1) for bit in (0, 1)] for basis in BASES])
    turned: FloatArray = plain @ transfer(rotation)
    return turned


def axes(rotation: Rotation | None) -> FloatArray:
    """(3, 3): the directions of the Bloch sphere that are read as outcome 0 in X, Y and Z."""
    turned = transfer(rotation)
    return np.array([turned[BASIS_INDEX[basis], 1:] for basis in BASES])
