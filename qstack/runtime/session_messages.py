"""What an application's session and its node say besides the layers' own services.

A session is one connection over the node's Unix socket. It speaks the transport layer's service
and the `qubits` part of the physical layer's; these messages open it and keep the clock.
"""

from typing import Annotated

from msgspec import Meta

from qstack.transport.service import Span
from qstack.wire.frame import Layer
from qstack.wire.message import Count, Label, Message, Nanoseconds, Text


class _Session(Message, frozen=True, kw_only=True):
    LAYER = Layer.APPLICATION


class Attach(_Session, frozen=True, kw_only=True):
    """First message of an application. An `observer` only asks for status and holds no clock."""

    TYPE = 0x0001
    application: Annotated[str, Meta(min_length=1, max_length=63)]
    versions: Annotated[list[Annotated[int, Meta(ge=1, le=255)]], Meta(min_length=1, max_length=16)]
    is_observer: bool


class Attached(_Session, frozen=True, kw_only=True):
    """The session stands."""

    TYPE = 0x0002
    node: Label
    session: Label
    version: Annotated[int, Meta(ge=1, le=255)]
    clock: Label
    is_seeded: bool


class Idle(_Session, frozen=True, kw_only=True):
    """The application waits; it has read `received` messages of its node.

    The node ignores it if it has sent more: the application has not seen them yet.
    """

    TYPE = 0x0003
    received: Count


class Sleep(_Session, frozen=True, kw_only=True):
    """Wake the caller after `span_ns` of network time; answered by Woken."""

    TYPE = 0x0004
    call: Count
    span_ns: Span


class Woken(_Session, frozen=True, kw_only=True):
    """Answer to Sleep."""

    TYPE = 0x0005
    call: Count


class CancelSleep(_Session, frozen=True, kw_only=True):
    """Withdraw a Sleep; no answer will come."""

    TYPE = 0x0006
    call: Count


class SessionError(_Session, frozen=True, kw_only=True):
    """The node ends the session, or refuses a message; `error` is a registry name."""

    TYPE = 0x0007
    error: Label
    detail: Text


class StatusAsk(_Session, frozen=True, kw_only=True):
    """Ask what the node is and does; answered by Status at once, whatever the clock does."""

    TYPE = 0x0008
    call: Count


class Status(_Session, frozen=True, kw_only=True):
    """Answer to StatusAsk: a JSON object as text, with stable keys (see `runtime/status.py`)."""

    TYPE = 0x0009
    call: Count
    now_ns: Nanoseconds
    report: bytes


class Busy(_Session, frozen=True, kw_only=True):
    """The application works, though it has said Idle: the clock stands until it says so again."""

    TYPE = 0x000A


MESSAGES = (
    Attach, Attached, Idle, Sleep, Woken, CancelSleep, SessionError, StatusAsk, Status, Busy,
)  # fmt: skip
