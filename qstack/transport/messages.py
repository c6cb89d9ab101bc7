"""What the transport layer says to the transport layer of another node.

Nothing standard exists; this is our own. Two nodes that exchange these need not be neighbours:
the channel is opened on first use. A flow (an EPR request) and a stream have 16-byte ids made by
their opener. After the loss of a channel to a peer with the same boot id, what was not
acknowledged is said again; everything here may therefore come twice, and is told apart by id and
sequence. After a new boot id the flows and streams with that peer have ended.
"""

from typing import Annotated, Literal

from msgspec import Meta

from qstack.ids import PairId
from qstack.link.service import Number
from qstack.transport.params import ECHO_PAIRS_MAX
from qstack.transport.service import MESSAGE_BYTES_MAX, Port, StreamKind
from qstack.wire.frame import Layer
from qstack.wire.message import (
    Basis,
    BasisChoice,
    Bit,
    Count,
    Id,
    Label,
    Message,
    Nanoseconds,
    Text,
)


class _Transport(Message, frozen=True, kw_only=True):
    LAYER = Layer.TRANSPORT


class OpenFlow(_Transport, frozen=True, kw_only=True):
    """An EPR request: `number` pairs for `port`; the basis itself is not told, only the kind."""

    TYPE = 0x0001
    flow: Id
    port: Port
    kind: Literal["keep", "measure"]
    number: Number
    deadline_ns: Nanoseconds | None


class CreditFlow(_Transport, frozen=True, kw_only=True):
    """The acceptor takes `number` pairs of the flow, as network request `request`.

    `basis` is what the acceptor reads in (kind measure). The flow's opener issues the request.
    """

    TYPE = 0x0002
    flow: Id
    request: Id
    number: Number
    basis: BasisChoice | None


class CreditAhead(_Transport, frozen=True, kw_only=True):
    """The acceptor would take up to `number` pairs of the receiver's next such flow for `port`.

    Said before a flow is offered; `request` and `basis` are as in CreditFlow. The receiver uses it
    with TakeCredit for a new flow, if none of its flows of that kind and port is on offer; or the
    sender uses it for an offer, with CreditFlow. It is void with the channel.
    """

    TYPE = 0x0010
    port: Port
    kind: Literal["keep", "measure"]
    request: Id
    number: Number
    basis: BasisChoice | None


class TakeCredit(_Transport, frozen=True, kw_only=True):
    """`number` pairs of `flow` go by the CreditAhead of `request`; they are not on offer besides.

    The flow need not have been offered. The sender issues the request.
    """

    TYPE = 0x0011
    flow: Id
    request: Id
    number: Number


class CreditGone(_Transport, frozen=True, kw_only=True):
    """The sender's CreditAhead of `request` is void; a flow that took it may be offered."""

    TYPE = 0x0012
    request: Id


class OpenStream(_Transport, frozen=True, kw_only=True):
    """A qubit or message stream wants to be accepted on `port`."""

    TYPE = 0x0003
    stream: Id
    kind: StreamKind
    port: Port
    deadline_ns: Nanoseconds | None


class StreamOpened(_Transport, frozen=True, kw_only=True):
    """The stream stands."""

    TYPE = 0x0004
    stream: Id


class Credit(_Transport, frozen=True, kw_only=True):
    """Receiver of a stream: everything below `received` has arrived; below `allowed` may come."""

    TYPE = 0x0005
    stream: Id
    received: Count
    allowed: Count


class _OfPair(_Transport, frozen=True, kw_only=True):
    """What became of the pair with `sequence`, the next number of its stream.

    It came by the stream's network request number `request` (`qubit_requests.request_id`). Retried
    until Acknowledged.
    """

    stream: Id
    sequence: Count
    request: Count
    pair: PairId


class Correction(_OfPair, frozen=True, kw_only=True):
    """A qubit was teleported with the pair; it needs X^x Z^z."""

    TYPE = 0x0006
    x_bit: Bit
    z_bit: Bit


class Acknowledged(_Transport, frozen=True, kw_only=True):
    """Answer to Correction, Lost or Skipped: the receiver knows what became of `sequence`.

    `is_lost`: the receiver no longer holds the pair, the qubit is LOST.
    """

    TYPE = 0x0007
    stream: Id
    sequence: Count
    is_lost: bool


class Lost(_OfPair, frozen=True, kw_only=True):
    """A qubit was consumed and will not arrive."""

    TYPE = 0x0008


class Skipped(_OfPair, frozen=True, kw_only=True):
    """The pair carries no qubit: none was consumed for it.

    The receiver, if it still wants a qubit, allows another sequence.
    """

    TYPE = 0x000F


class RequestsOver(_Transport, frozen=True, kw_only=True):
    """The sender has said of all pairs of the stream's requests below `below` what became of them.

    Halves of them that the receiver still holds are nobody's.
    """

    TYPE = 0x0013
    stream: Id
    below: Count


class Data(_Transport, frozen=True, kw_only=True):
    """Message `sequence` of a message stream."""

    TYPE = 0x0009
    stream: Id
    sequence: Count
    data: Annotated[bytes, Meta(max_length=MESSAGE_BYTES_MAX)]


class Close(_Transport, frozen=True, kw_only=True):
    """The flow or stream `id` has ended at the sender, with this error (`` if none).

    Halves of a flow to the echo port are free from then on, but those of KeptPairs.
    """

    TYPE = 0x000A
    id: Id
    error: Label
    detail: Text


class VoidPair(_Transport, frozen=True, kw_only=True):
    """The sender's half of a delivered pair is gone (its application died).

    Of a pair with the receiver's echo port it may have been read: nobody will ask for the other.
    """

    TYPE = 0x000B
    pair: PairId


class KeptPairs(_Transport, frozen=True, kw_only=True):
    """Said before the Close of `flow`, which goes to the echo port: the opener still has these.

    Halves of other pairs of the flow are nobody's: the opener never had theirs, or is done.
    """

    TYPE = 0x0014
    flow: Id
    pairs: Annotated[list[PairId], Meta(min_length=1, max_length=ECHO_PAIRS_MAX)]


class EchoRequest(_Transport, frozen=True, kw_only=True):
    """Read your half of `pair` in `basis`."""

    TYPE = 0x000C
    flow: Id
    pair: PairId
    basis: Basis


class EchoReply(_Transport, frozen=True, kw_only=True):
    """What the half of `pair` read."""

    TYPE = 0x000D
    flow: Id
    pair: PairId
    outcome: Bit


class Error(_Transport, frozen=True, kw_only=True):
    """Your message of type `about` broke a rule."""

    TYPE = 0x000E
    name: Label
    detail: Text
    about: Annotated[int, Meta(ge=0, le=0xFFFF)]


MESSAGES = (
    OpenFlow, CreditFlow, CreditAhead, TakeCredit, CreditGone, OpenStream, StreamOpened, Credit,
    Correction, Acknowledged, Lost, Skipped, RequestsOver, Data, Close, VoidPair, KeptPairs,
    EchoRequest, EchoReply, Error,
)  # fmt: skip
