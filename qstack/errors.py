"""The error registry, and whose fault a thing is.

Errors have a stable name, a number, a sentence, a scope and, when sent, the field at fault. On
the wire an error is its name; nothing ever compares error texts.
"""

from enum import Enum
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the registry: `scope` is what ends when the error is said."""

    number: int
    scope: str
    sentence: str


class ErrorCode(Enum):
    """Every error one part of qstack may tell another."""

    # The channel and the frame.
    MALFORMED = Row(1, "channel", "the bytes are not a frame of this protocol")
    VERSION = Row(2, "channel", "no common protocol version")
    TOO_LARGE = Row(3, "channel", "the frame is longer than the agreed limit")
    UNKNOWN_TYPE = Row(4, "message", "this message type is not known here")
    NOT_CANONICAL = Row(5, "channel", "the message is not in its one canonical encoding")
    INVALID = Row(6, "message", "a field is missing, unknown or out of range")
    CRITICAL = Row(7, "message", "an extension marked critical is not known here")
    OUT_OF_STATE = Row(8, "message", "the message is not allowed in this state")
    ROLE = Row(9, "channel", "the peer's certificate does not allow this layer")
    IDENTITY = Row(10, "channel", "the peer is not who the network file lists")
    KEY_EXCHANGE = Row(11, "channel", "the key exchange is not post-quantum")
    NETWORK_MISMATCH = Row(12, "channel", "the two sides read different network files")
    RATE = Row(13, "channel", "the peer sends faster than the agreed limit")
    # Requests.
    UNSUPPORTED = Row(20, "request", "this cannot be done here")
    FIDELITY = Row(21, "request", "the fidelity asked for cannot be reached")
    NO_TIME = Row(22, "request", "it cannot be done before the deadline")
    NO_RESOURCES = Row(23, "request", "no free memory or queue place")
    TIMEOUT = Row(24, "request", "the deadline passed")
    REJECTED = Row(25, "request", "the far end does not accept this request")
    EXPIRED = Row(26, "pair", "pairs already announced are void")
    CANCELLED = Row(27, "request", "the asker withdrew it")
    NO_PATH = Row(28, "request", "no working path leads there")
    UNKNOWN_NODE = Row(29, "request", "no node of that name is in the network")
    BAD_REQUEST = Row(30, "request", "a value of the request is out of range")
    PEER_DOWN = Row(31, "request", "a node the request needs has gone")
    DEVICE_LOST = Row(32, "request", "the quantum device has gone, and its states with it")
    PORT_IN_USE = Row(33, "request", "another session holds this port")
    LAYER_LOST = Row(34, "request", "a layer of a node has gone, and its state with it")
    # Qubits.
    NOT_OWNER = Row(40, "call", "the qubit belongs to somebody else")
    GONE = Row(41, "call", "the qubit does not exist any more")
    LOST = Row(42, "qubit", "the qubit was consumed and cannot be delivered")
    CLOSED = Row(43, "call", "the socket is closed")
    # Heralding stations (the errors of the midpoint heralding protocol, SIGCOMM'19).
    QUEUE_MISMATCH = Row(50, "batch", "the two ends of a link did not attempt for the same")
    NO_CLASSICAL_OTHER = Row(51, "batch", "the station heard of this batch from one end only")
    OUT_OF_WINDOW = Row(52, "batch", "the station cannot see the cycles of this batch")
    GENERAL = Row(53, "batch", "the station cannot do this")
    LOCAL = Row(54, "batch", "the device of one end failed to generate")
    STATION_LOST = Row(55, "request", "the heralding station of the link has gone")

    @property
    def number(self) -> int:
        """The registry number."""
        return self.value.number

    @property
    def sentence(self) -> str:
        """What it means, for the person who reads it."""
        return self.value.sentence


class LocalError(Exception):
    """Our caller asked for what cannot be; nothing was sent, nothing changed."""

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        super().__init__(f"{code.sentence}{': ' + detail if detail else ''}")
        self.code = code
        self.detail = detail


class PeerError(Exception):
    """The peer broke a rule. It becomes an ERROR answer and ends what `code` says it ends."""

    def __init__(self, code: ErrorCode, detail: str = "", *, field: str = "") -> None:
        super().__init__(f"{code.name}: {code.sentence}{': ' + detail if detail else ''}")
        self.code = code
        self.detail = detail
        self.field = field
