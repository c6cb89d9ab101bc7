"""What a request for attempts must look like, for node and fabric alike, and what comes of it."""

from qstack.physical.device import DeviceBasis, Generate
from qstack.physical.hardware import Scheme
from qstack.physical.profile import Profile
from qstack.physical.service import AttemptKind, AttemptsStart, Rotation
from qstack.wire.message import Basis, BasisProbabilities


def mismatch(
    kind: AttemptKind,
    *,
    basis: object,
    pairs: int,
    bright_state: float | None,
    scheme: Scheme,
    rotation: Rotation | None = None,
) -> str:
    """What is wrong with these values together; empty if nothing is.

    `keep` makes one pair and reads nothing; `measure` reads both ends; `prepare` makes one pair and
    reads one end, in a basis that is chosen before; only single-click has a bright state; a pair
    source only measures.
    """
    if kind != "measure" and scheme == "spdc":
        return "a photon-pair link only measures"
    if kind == "keep":
        if basis is not None or pairs != 1:
            return "a keep batch makes one pair and has no basis"
    elif kind == "measure":
        if basis is None:
            return "a measure batch has a basis"
    elif pairs != 1 or basis == "given":
        return "a prepare batch makes one pair, read in a basis chosen before"
    if rotation is not None and basis is None:
        return "only what is read is rotated"
    if bright_state is not None and scheme != "single-click":
        return "only a single-click link has a bright state"
    return ""


def is_kept(kind: AttemptKind, basis: object) -> bool:
    """Whether the qubit of this end is kept; else it is read at once."""
    return kind == "keep" or (kind == "prepare" and basis is None)


def generate(
    asked: AttemptsStart,
    now: int,
    *,
    sequence: int,
    batch: int,
    cycle_ns: int,
    qubit: bytes | None,
    drawn: Basis | None = None,
) -> Generate:
    """The operation that begins a batch, in the first cycle that is not over.

    Bases that are drawn are drawn by the node: when the device asks for them, or here `drawn`.
    """
    basis: DeviceBasis | None = drawn
    if drawn is None:
        basis = "given" if isinstance(asked.basis, BasisProbabilities) else asked.basis
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
        basis=basis,
        qubit=qubit,
        rotation=asked.rotation,
    )


def compiles_moves(profile: Profile, memory: int) -> bool:
    """Whether qubits rest in storage and meet only by way of a communication qubit."""
    return profile.topology == "star" and has_storage(memory, profile.comm_qubits)


def has_storage(memory: int, comm_qubits: int) -> bool:
    """Whether a heralded qubit is moved: memory beyond the communication qubits is storage."""
    return memory > comm_qubits
