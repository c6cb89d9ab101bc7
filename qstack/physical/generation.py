"""What a request for attempts must look like: one rule, for the node and for the fabric."""

from qstack.physical.hardware import Scheme
from qstack.physical.service import Kind


def mismatch(
    kind: Kind, *, basis: object, pairs: int, bright_state: float | None, scheme: Scheme
) -> str:
    """What is wrong with these values together; empty if nothing is.

    `keep` makes one pair and reads nothing; `measure` reads both ends; only single-click has a
    bright state; a pair source only measures.
    """
    if kind == "keep" and scheme == "spdc":
        return "a photon-pair link only measures"
    if kind == "keep" and (basis is not None or pairs != 1):
        return "a keep batch makes one pair and has no basis"
    if kind == "measure" and basis is None:
        return "a measure batch has a basis"
    if bright_state is not None and scheme != "single-click":
        return "only a single-click link has a bright state"
    return ""


def has_storage(memory: int, comm_qubits: int) -> bool:
    """Whether a heralded qubit is moved: memory beyond the communication qubits is storage."""
    return memory > comm_qubits
