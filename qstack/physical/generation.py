"""What a request for attempts must look like, for node and fabric alike, and what comes of it."""

from qstack.physical.device import Generate
from qstack.physical.hardware import Scheme
from qstack.physical.profile import Profile
from qstack.physical.service import AttemptsStart, Kind
from qstack.wire.message import BasisProbabilities


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


def generate(
    asked: AttemptsStart, now: int, *, sequence: int, batch: int, cycle_ns: int, qubit: bytes | None
) -> Generate:
    """The operation that begins a batch, in the first cycle that is not over.

    Bases that are drawn are drawn by the node, when the device asks for them.
    """
    return Generate(
        at_ns=now,
        sequence=sequence,
        batch=batch,
        link=asked.link,
        token=asked.token,
        kind=asked.kind,
        first_cycle=-(-now // cycle_ns),
        bright_state=asked.bright_state,
        pairs=asked.pairs,
        basis="given" if isinstance(asked.basis, BasisProbabilities) else asked.basis,
        qubit=qubit,
    )


def compiles_moves(profile: Profile, memory: int) -> bool:
    """Whether qubits rest in storage and meet only by way of a communication qubit."""
    return profile.topology == "star" and has_storage(memory, profile.comm_qubits)


def has_storage(memory: int, comm_qubits: int) -> bool:
    """Whether a heralded qubit is moved: memory beyond the communication qubits is storage."""
    return memory > comm_qubits
