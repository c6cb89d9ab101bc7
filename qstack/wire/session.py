"""What a channel says about itself: HELLO first, ERROR when a rule was broken, STAMP for time.

A channel is up only when the peer's HELLO has arrived: a TLS 1.3 client finishes its handshake
before the server has judged its certificate. A capability counts only if both sides said it.
"""

from typing import Annotated

from msgspec import Meta

from qstack.wire.frame import Layer
from qstack.wire.message import BootId, Count, Label, Message, Nanoseconds, Text


class Hello(Message, frozen=True, kw_only=True):
    """The first frame each way.

    `binding` is exported from the TLS session, so that a HELLO cannot be replayed in another.
    `network_digest` is the hash of the network file (compared by the fabric; see errors).
    `limits` and `capabilities` map names to numbers.
    """

    LAYER = Layer.SESSION
    TYPE = 1
    versions: Annotated[list[Annotated[int, Meta(ge=1, le=255)]], Meta(min_length=1, max_length=16)]
    capabilities: Annotated[dict[Label, Count], Meta(max_length=64)]
    limits: Annotated[dict[Label, Count], Meta(max_length=64)]
    network: Label
    node: Label
    role: Label
    layers: Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(max_length=16)]
    boot_id: BootId
    binding: Annotated[bytes, Meta(max_length=64)]
    network_digest: Annotated[bytes, Meta(max_length=64)]


class Error(Message, frozen=True, kw_only=True):
    """A rule was broken; `name` is from the error registry, `field` the place at fault."""

    LAYER = Layer.SESSION
    TYPE = 2
    name: Label
    detail: Text
    field: Label


class Stamp(Message, frozen=True, kw_only=True):
    """The network time at which the frames after it, up to the next stamp, were sent."""

    LAYER = Layer.SESSION
    TYPE = 3
    at_ns: Nanoseconds


MESSAGES = (Hello, Error, Stamp)
