"""Remote state preparation: a pair one half of which is read at its emission.

What is left of the other half is what the *reported* outcome makes of it: whoever hears the report
knows no more than that, so a readout error leaves a mixture.
"""

from typing import NamedTuple

from qstack.physical.device import Generate
from qstack.physical.fabric.batches import Batch
from qstack.physical.fabric.link_model import LinkModel
from qstack.quantum import state
from qstack.quantum.pauli import FloatArray
from qstack.wire.packed import BASES


class Read(NamedTuple):
    """The reported outcome, and the state (4,) of the other half."""

    outcome: int
    other: FloatArray


def reader_of(operation: Generate, node: str, model: LinkModel) -> str:
    """The end that reads where the other one keeps; empty where both do the same."""
    if operation.kind != "prepare":
        return ""
    return node if operation.qubit is None else model.link.other_end(node)


def code_of(batch: Batch) -> int:
    """The basis of a batch that reads, as a code."""
    return next(code for code, basis in enumerate(BASES) if basis == batch.operation.basis)


def read_half(pair: FloatArray, end: int, effects: FloatArray, uniform: float) -> Read:
    """Read axis `end` of a pair (4, 4) with the POVM (2, 4); `uniform` decides."""
    weights = effects @ (pair[:, 0] if end == 0 else pair[0])
    outcome = int(uniform * float(weights.sum()) >= float(weights[0]))
    other, _ = state.normalised(state.contract(pair, end, effects[outcome]))
    return Read(outcome, other)
