"""What can go wrong for an application, as exception classes.

Every error of the registry (`qstack.errors`) becomes one of these; `code` keeps its registry name.

    QstackError
      Refused       it was not done, and nothing was consumed; `best` is the fidelity to be had
        BadRequest  a value made no sense (also a ValueError); most are found before sending
      Expired       the deadline passed, in network time
      Lost          the qubit, or the far half of its pair, is gone
      NotOwner      the qubit belongs to somebody else
      Closed        the socket or stream is closed, here or at the far end
      NodeGone      the own node, its device, a layer of it, or what is needed elsewhere has gone
        NoNode      no node of that name runs here
"""

from typing import Final

from qstack.errors import ErrorCode


class QstackError(Exception):
    """Base of all errors of the application interface.

    `code` is the registry name, `reason` a sentence, `best` a fidelity that could be had, if known.
    """

    default_code = "UNSUPPORTED"

    def __init__(self, reason: str, best: float | None = None, *, code: str | None = None) -> None:
        super().__init__(reason if best is None else f"{reason} (best to be had: {best:.4f})")
        self.reason = reason
        self.best = best
        self.code = code if code is not None else self.default_code


class Refused(QstackError):
    """It was not done; nothing was consumed."""

    default_code = "REJECTED"


class BadRequest(Refused, ValueError):
    """A value makes no sense."""

    default_code = "BAD_REQUEST"


class Expired(QstackError):
    """The deadline passed, in network time."""

    default_code = "TIMEOUT"


class Lost(QstackError):
    """The qubit, or the far half of its pair, is gone."""

    default_code = "LOST"


class NotOwner(QstackError):
    """The qubit belongs to somebody else."""

    default_code = "NOT_OWNER"


class Closed(QstackError):
    """The socket or stream is closed."""

    default_code = "CLOSED"


class NodeGone(QstackError):
    """The own node, its device, or a node or station that is needed has gone."""

    default_code = "PEER_DOWN"


class NoNode(NodeGone):
    """No node of that name runs here."""

    default_code = "UNKNOWN_NODE"


CLASSES: Final[dict[ErrorCode, type[QstackError]]] = {
    ErrorCode.MALFORMED: Refused,
    ErrorCode.VERSION: Refused,
    ErrorCode.TOO_LARGE: BadRequest,
    ErrorCode.UNKNOWN_TYPE: Refused,
    ErrorCode.NOT_CANONICAL: Refused,
    ErrorCode.INVALID: BadRequest,
    ErrorCode.CRITICAL: Refused,
    ErrorCode.OUT_OF_STATE: Refused,
    ErrorCode.ROLE: Refused,
    ErrorCode.IDENTITY: Refused,
    ErrorCode.KEY_EXCHANGE: Refused,
    ErrorCode.NETWORK_MISMATCH: Refused,
    ErrorCode.RATE: Refused,
    ErrorCode.UNSUPPORTED: Refused,
    ErrorCode.FIDELITY: Refused,
    ErrorCode.NO_TIME: Refused,
    ErrorCode.NO_RESOURCES: Refused,
    ErrorCode.TIMEOUT: Expired,
    ErrorCode.REJECTED: Refused,
    ErrorCode.EXPIRED: Lost,
    ErrorCode.CANCELLED: Refused,
    ErrorCode.NO_PATH: Refused,
    ErrorCode.UNKNOWN_NODE: Refused,
    ErrorCode.BAD_REQUEST: BadRequest,
    ErrorCode.PEER_DOWN: NodeGone,
    ErrorCode.DEVICE_LOST: NodeGone,
    ErrorCode.PORT_IN_USE: Refused,
    ErrorCode.LAYER_LOST: NodeGone,
    ErrorCode.NOT_OWNER: NotOwner,
    ErrorCode.GONE: Lost,
    ErrorCode.LOST: Lost,
    ErrorCode.CLOSED: Closed,
    ErrorCode.QUEUE_MISMATCH: Refused,
    ErrorCode.NO_CLASSICAL_OTHER: Refused,
    ErrorCode.OUT_OF_WINDOW: Refused,
    ErrorCode.GENERAL: Refused,
    ErrorCode.LOCAL: Refused,
    ErrorCode.STATION_LOST: NodeGone,
}
"""The class of every error of the registry."""


def error_of(name: str, detail: str, best: float | None = None) -> QstackError:
    """The exception for an error of the registry; a name unknown here (a newer node) is Refused."""
    code = ErrorCode.__members__.get(name)
    if code is None:
        return Refused(f"{name}: {detail}" if detail else name, best, code=name)
    reason = f"{code.sentence}: {detail}" if detail else code.sentence
    return CLASSES[code](reason, best, code=name)
