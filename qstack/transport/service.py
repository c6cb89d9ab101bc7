"""What the transport layer offers to applications: EPR, qubit and message sockets between ports.

Every call of a session carries a number of its own; each call ends in exactly one closing answer
with that number (`Opened`, `Accepted`, `Finished`, `QubitArrived`, `MessageArrived`,
`EchoResult`, `RouteInfo` or `Failed`). `PairDelivered` and `PairsMeasured` may come several times
before the `Finished` of an EprCreate or EprAccept.

`within_ns` is a span of network time from the handling of the call; nil waits for ever, and does
not keep the clock moving by itself.

Sockets: an EPR socket is a rendezvous of equal ports at both ends. A stream (qubit or message) is
opened by one end and accepted by a listener at the other. A qubit stream carries qubits from its
opener; a message stream carries messages both ways. Port 0 is echo: the far end's transport
itself holds the pairs and reads them as asked, so that anybody can measure a path.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta

from qstack.ids import PairId
from qstack.link.service import Number, Priority
from qstack.physical.service import Rotation
from qstack.wire.frame import Layer
from qstack.wire.message import (
    Basis,
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

LAYER: Final = "transport"
MESSAGE_BYTES_MAX: Final = 65_536 - 512  # a message and its envelope are one control frame
ECHO_PORT: Final = 0

Port = Annotated[int, Meta(ge=0, le=65_535)]
Span = Annotated[int, Meta(ge=1, le=2**62)]
StreamKind = Literal["qubit", "message"]


class _Transport(Message, frozen=True, kw_only=True):
    LAYER = Layer.TRANSPORT


# --- calls of a session --------------------------------------------------------------------------


class EprOpen(_Transport, frozen=True, kw_only=True):
    """Open an EPR socket on `port`; `remote` nil accepts anyone. Answered by Opened."""

    TYPE = 0x0101
    call: Count
    port: Port
    remote: Name | None


class EprCreate(_Transport, frozen=True, kw_only=True):
    """Make `number` pairs over a socket with a remote. Basis nil: keep; else measure in it.

    With three probabilities each pair is read in a basis drawn at this end, as PairsMeasured says.
    Answers: PairDelivered or PairsMeasured until `number` came, then Finished; or Failed.

    With `is_prepare` (remote state preparation) this end alone reads, in its basis and after its
    `rotation`, and is answered with PairPrepared; the far end accepts pairs to keep, and is told
    nothing of how their other halves were read.
    """

    TYPE = 0x0102
    call: Count
    socket: Count
    number: Number
    basis: BasisChoice | None
    min_fidelity: Probability
    priority: Priority
    within_ns: Span | None
    is_prepare: bool = False
    rotation: Rotation | None = None


class EprAccept(_Transport, frozen=True, kw_only=True):
    """Take `number` pairs that the far end creates; basis as in EprCreate (both must agree)."""

    TYPE = 0x0103
    call: Count
    socket: Count
    number: Number
    basis: BasisChoice | None
    within_ns: Span | None


class EchoMeasure(_Transport, frozen=True, kw_only=True):
    """On a socket to port 0: have the far end read its half of `pair`; answered by EchoResult."""

    TYPE = 0x0104
    call: Count
    socket: Count
    pair: PairId
    basis: Basis


class StreamOpen(_Transport, frozen=True, kw_only=True):
    """Open a stream to a listener; waits for one until the limit. Answered by Opened."""

    TYPE = 0x0105
    call: Count
    kind: StreamKind
    remote: Name
    port: Port
    min_fidelity: Probability
    within_ns: Span | None


class Listen(_Transport, frozen=True, kw_only=True):
    """Listen for streams on `port`; answered by Opened."""

    TYPE = 0x0106
    call: Count
    port: Port
    remote: Name | None


class Accept(_Transport, frozen=True, kw_only=True):
    """Take the next stream of a listener; answered by Accepted."""

    TYPE = 0x0107
    call: Count
    socket: Count
    within_ns: Span | None


class SendQubit(_Transport, frozen=True, kw_only=True):
    """Teleport `qubit`, which the session has transferred to the transport layer before.

    Finished when the far end has it. Failed with LOST: it was consumed and did not arrive. Failed
    otherwise: the session owns it again.
    """

    TYPE = 0x0108
    call: Count
    socket: Count
    qubit: Id
    within_ns: Span | None


class ReceiveQubit(_Transport, frozen=True, kw_only=True):
    """Take the next qubit of a stream, in order; answered by QubitArrived."""

    TYPE = 0x0109
    call: Count
    socket: Count
    within_ns: Span | None


class SendMessage(_Transport, frozen=True, kw_only=True):
    """Send opaque bytes, in order; Finished when the far end has room for them."""

    TYPE = 0x010A
    call: Count
    socket: Count
    data: Annotated[bytes, Meta(max_length=MESSAGE_BYTES_MAX)]
    within_ns: Span | None


class ReceiveMessage(_Transport, frozen=True, kw_only=True):
    """Take the next message of a stream; answered by MessageArrived."""

    TYPE = 0x010B
    call: Count
    socket: Count
    within_ns: Span | None


class CloseSocket(_Transport, frozen=True, kw_only=True):
    """Close a socket; its open calls end with CLOSED, the far end is told. No answer."""

    TYPE = 0x010C
    socket: Count


class CancelCall(_Transport, frozen=True, kw_only=True):
    """Withdraw a call; it ends with CANCELLED unless it has ended before."""

    TYPE = 0x010D
    call: Count


class RouteAsk(_Transport, frozen=True, kw_only=True):
    """Ask what could be had to `remote`; answered by RouteInfo. See network's RouteQuery."""

    TYPE = 0x010E
    call: Count
    remote: Name
    kind: Literal["keep", "measure"] = "keep"
    min_fidelity: Probability = 0.0
    from_remote: bool = False


# --- answers and indications ---------------------------------------------------------------------


class Opened(_Transport, frozen=True, kw_only=True):
    """The socket, listener or stream stands; `socket` names it in this session."""

    TYPE = 0x0120
    call: Count
    socket: Count


class PairDelivered(_Transport, frozen=True, kw_only=True):
    """A pair, corrected to phi+; its qubit belongs to the session. (x, z) is the raw Bell state."""

    TYPE = 0x0121
    call: Count
    remote: Name
    pair: PairId
    qubit: Id
    x_bit: Bit
    z_bit: Bit
    goodness: Probability
    time_of_goodness_ns: Nanoseconds


class PairsMeasured(_Transport, frozen=True, kw_only=True):
    """Measured pairs, the tail's outcomes flipped to those of phi+; packed bits, (x, z) raw.

    `bases` are those of this end where it drew them, two bits a pair (`qstack.wire.packed`); empty
    where the basis is fixed. Nobody says those of the far end.
    """

    TYPE = 0x0122
    call: Count
    remote: Name
    pairs: Count
    outcomes: bytes
    x_bits: bytes
    z_bits: bytes
    bases: bytes
    goodness: Probability


class PairPrepared(_Transport, frozen=True, kw_only=True):
    """A pair whose half here was read, in `basis`: the far end keeps a qubit in the state so fixed.

    That of phi+, for the far end corrects; (x, z) is the raw Bell state. `goodness` is the pair's,
    before the reading.
    """

    TYPE = 0x012B
    call: Count
    remote: Name
    pair: PairId
    outcome: Bit
    basis: Basis
    x_bit: Bit
    z_bit: Bit
    goodness: Probability
    time_of_goodness_ns: Nanoseconds


class Accepted(_Transport, frozen=True, kw_only=True):
    """A stream from `remote`."""

    TYPE = 0x0123
    call: Count
    socket: Count
    remote: Name
    kind: StreamKind


class Finished(_Transport, frozen=True, kw_only=True):
    """The call has done all it was asked."""

    TYPE = 0x0124
    call: Count


class Failed(_Transport, frozen=True, kw_only=True):
    """The call ended otherwise; `error` is a registry name, `best` the fidelity to be had."""

    TYPE = 0x0125
    call: Count
    error: Label
    detail: Text
    best: Probability | None


class QubitArrived(_Transport, frozen=True, kw_only=True):
    """The next qubit of a stream; it belongs to the session. `sequence` counts from 0."""

    TYPE = 0x0126
    call: Count
    qubit: Id
    sequence: Count


class MessageArrived(_Transport, frozen=True, kw_only=True):
    """The next message of a stream."""

    TYPE = 0x0127
    call: Count
    data: bytes


class EchoResult(_Transport, frozen=True, kw_only=True):
    """The far end's outcome for EchoMeasure, flipped to that of phi+ like any tail outcome."""

    TYPE = 0x0128
    call: Count
    outcome: Bit


class RouteInfo(_Transport, frozen=True, kw_only=True):
    """Answer to RouteAsk; an empty path means there is none. See network's RouteAnswer."""

    TYPE = 0x0129
    call: Count
    path: Annotated[list[Name], Meta(max_length=64)]
    fidelity: Probability
    rate_hz: Annotated[float, Meta(ge=0.0, le=1e12)]
    error_x: Probability = 0.5
    error_z: Probability = 0.5


class PairVoid(_Transport, frozen=True, kw_only=True):
    """Indication: the far half of a delivered pair is gone; `qubit` is still the session's."""

    TYPE = 0x012A
    qubit: Id
    pair: PairId


MESSAGES = (
    EprOpen, EprCreate, EprAccept, EchoMeasure, StreamOpen, Listen, Accept, SendQubit,
    ReceiveQubit, SendMessage, ReceiveMessage, CloseSocket, CancelCall, RouteAsk, Opened,
    PairDelivered, PairsMeasured, PairPrepared, Accepted, Finished, Failed, QubitArrived,
    MessageArrived, EchoResult, RouteInfo, PairVoid,
)  # fmt: skip
