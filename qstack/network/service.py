"""What the network layer offers upward: pairs with any node, end to end.

The end that asks is the head of the circuit, the other one the tail. A `keep` pair is indicated
only after TRACK from the other end has confirmed it. Corrections are not made here: (x, z) says
which Bell state the pair was announced in.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta

from qstack.ids import PairId
from qstack.link.service import Number, Priority
from qstack.physical.service import Kind
from qstack.wire.frame import Layer
from qstack.wire.message import (
    BasisChoice,
    Bit,
    Count,
    Id,
    Label,
    Message,
    Name,
    Nanoseconds,
    Probability,
    Text,
)

LAYER: Final = "network"


class _Network(Message, frozen=True, kw_only=True):
    LAYER = Layer.NETWORK


class NetworkCreate(_Network, frozen=True, kw_only=True):
    """Ask for `number` pairs with `remote`, of expected fidelity at hand-over >= `min_fidelity`.

    For kind `measure` the head's qubits are read in `basis`, the tail's in `remote_basis`; three
    probabilities let each end draw its bases itself. The tail sees `request` and `purpose`
    (opaque to the network) with every pair.
    """

    TYPE = 0x0101
    request: Id
    remote: Name
    purpose: Count
    kind: Kind
    number: Number
    min_fidelity: Probability
    deadline_ns: Nanoseconds
    priority: Priority
    basis: BasisChoice | None
    remote_basis: BasisChoice | None


class NetworkCancel(_Network, frozen=True, kw_only=True):
    """Withdraw a request, from either end. Ends it with CANCELLED at both."""

    TYPE = 0x0102
    request: Id


class EndPair(_Network, frozen=True, kw_only=True):
    """Indication, at both ends: a confirmed pair in Bell state (x, z).

    The qubit belongs to the transport layer from now on. `goodness` is the estimated fidelity
    now (`time_of_goodness_ns`); `emitted_at_ns` the emission of the qubit at this end.
    """

    TYPE = 0x0103
    request: Id
    purpose: Count
    remote: Name
    side: Literal["head", "tail"]
    kind: Kind
    pair: PairId
    qubit: Id
    x_bit: Bit
    z_bit: Bit
    emitted_at_ns: Nanoseconds
    goodness: Probability
    time_of_goodness_ns: Nanoseconds
    basis: (
        BasisChoice | None
    )  # kind `measure` over several links: the transport reads the qubit in it


class EndMeasured(_Network, frozen=True, kw_only=True):
    """Indication, at both ends: measured pairs, in the same order at both; packed bits.

    `bases` are those of this end where it drew them, two bits a pair (`qstack.wire.packed`); empty
    where the basis is fixed.
    """

    TYPE = 0x0104
    request: Id
    purpose: Count
    remote: Name
    side: Literal["head", "tail"]
    pairs: Count
    outcomes: bytes
    x_bits: bytes
    z_bits: bytes
    bases: bytes
    goodness: Probability


class EndPairExpired(_Network, frozen=True, kw_only=True):
    """Indication: a pair indicated before is void; its qubit is the transport's to free."""

    TYPE = 0x0105
    request: Id
    pair: PairId


class NetworkDone(_Network, frozen=True, kw_only=True):
    """Confirm, at both ends: all pairs of the request have been indicated."""

    TYPE = 0x0106
    request: Id


class NetworkFailed(_Network, frozen=True, kw_only=True):
    """Confirm, at both ends: the request ended otherwise.

    `best` is the fidelity that could be had (error FIDELITY), nil where it makes no sense.
    `discarded` counts the segments thrown away by cutoff on the way.
    """

    TYPE = 0x0107
    request: Id
    error: Label
    detail: Text
    best: Probability | None


class RouteQuery(_Network, frozen=True, kw_only=True):
    """Ask what could be had to `remote` without asking for it; answered by RouteAnswer.

    Of kind `keep` the way of pairs to keep is told, or the one of measured pairs where there is no
    other. `from_remote`: as the remote would be told; so both ends can ask about the same request.
    """

    TYPE = 0x0108
    call: Count
    remote: Name
    kind: Kind = "keep"
    min_fidelity: Probability = 0.0
    from_remote: bool = False


class RouteAnswer(_Network, frozen=True, kw_only=True):
    """Answer to RouteQuery: the best path (who would ask first) and its prediction; empty if none.

    `fidelity` is the best that could be promised, `rate_hz` that of the fastest way to keep
    `min_fidelity`, 0 if there is none. `error_x`, `error_z`: how many pairs made so are expected to
    read otherwise than phi+ in that basis, with the readout of both ends; 1/2 if none are.
    """

    TYPE = 0x0109
    call: Count
    path: Annotated[list[Name], Meta(max_length=64)]
    fidelity: Probability
    rate_hz: Annotated[float, Meta(ge=0.0, le=1e12)]
    error_x: Probability = 0.5
    error_z: Probability = 0.5


MESSAGES = (
    NetworkCreate, NetworkCancel, EndPair, EndMeasured, EndPairExpired, NetworkDone,
    NetworkFailed, RouteQuery, RouteAnswer,
)  # fmt: skip
