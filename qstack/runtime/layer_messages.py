"""What a node says to a layer that is a process of its own, and what the layer answers.

The node keeps queue, timers and channels; the layer is told one event at a time and answers with
what follows. The frame of the service or peer message an event or effect carries comes right after
it, as it is specified: whoever wants to replace a layer implements those messages, and this
envelope of the machine contract (`qstack/machine.py`).

    layer                          node
      | -- LayerHello ------------> |      which layer of which node, from which network file
      | <------------ LayerStart -- |      the boot id and the entropy of this life
      | <- Handle [message] ------- |      again and again:
      | -- [Effect [message]]* ---> |
      | -- Handled ---------------> |
"""

from typing import Annotated, Any, Literal

from msgspec import Meta

from qstack.link import messages as link_messages
from qstack.link import service as link
from qstack.network import messages as network_messages
from qstack.network import service as network
from qstack.physical import device, program, program_device, station_device, station_messages
from qstack.physical import messages as physical_messages
from qstack.physical import service as physical
from qstack.runtime.network_tables import LayerName
from qstack.runtime.session_messages import MESSAGES as SESSION_MESSAGES
from qstack.transport import messages as transport_messages
from qstack.transport import service as transport
from qstack.wire.codec import Registry
from qstack.wire.frame import Layer
from qstack.wire.message import BootId, Count, Label, Message, Name, Nanoseconds

EffectKind = Literal["tell", "send", "open-channel", "set-timer", "cancel-timer", "record"]


class _Node(Message, frozen=True, kw_only=True):
    LAYER = Layer.NODE


class LayerHello(_Node, frozen=True, kw_only=True):
    """The first words of a layer's process."""

    TYPE = 0x0001
    layer: LayerName
    node: Name
    versions: Annotated[list[Count], Meta(min_length=1, max_length=16)]
    network_digest: Annotated[bytes, Meta(min_length=32, max_length=32)]


class LayerStart(_Node, frozen=True, kw_only=True):
    """The node takes the layer. Its generator is made of `entropy`, and of nothing else.

    `boot_id` is this life's: the node's own, or another one if the layer begins again alone.
    """

    TYPE = 0x0002
    boot_id: BootId
    entropy: Annotated[bytes, Meta(max_length=64)]


class LayerRefused(_Node, frozen=True, kw_only=True):
    """The node does not take the layer; `error` is a registry name."""

    TYPE = 0x0003
    error: Label
    detail: Label


class Handle(_Node, frozen=True, kw_only=True):
    """One event, at network time `now_ns`. A message follows with kinds told and from-peer.

    `name` is who said it, the timer's key, the peer, the owner or the layer; `boot_id` comes with
    peer-up.
    """

    TYPE = 0x0010
    now_ns: Nanoseconds
    kind: Literal["told", "from-peer", "timer", "peer-up", "peer-down", "owner-gone", "layer-up"]
    name: Label
    boot_id: BootId | None


class Effect(_Node, frozen=True, kw_only=True):
    """One thing that follows. A message follows with kinds tell and send.

    `name` is to whom, the peer, the timer's key or the record's name. `at_ns`, `background` and
    `deadline` are a timer's, `fields` a record's.
    """

    TYPE = 0x0011
    kind: EffectKind
    name: Label
    at_ns: Nanoseconds
    background: bool
    deadline: bool
    fields: dict[str, Any]


class Handled(_Node, frozen=True, kw_only=True):
    """All that follows from the event has been said."""

    TYPE = 0x0012


class SummaryAsk(_Node, frozen=True, kw_only=True):
    """What is there to say for status?"""

    TYPE = 0x0020


class Summary(_Node, frozen=True, kw_only=True):
    """Facts for status."""

    TYPE = 0x0021
    facts: dict[str, Any]


ENVELOPE: tuple[type[Message], ...] = (
    LayerHello, LayerStart, LayerRefused, Handle, Effect, Handled, SummaryAsk, Summary,
)  # fmt: skip
REGISTRY = Registry(
    (
        *ENVELOPE, *device.MESSAGES, *physical_messages.MESSAGES, *physical.MESSAGES,
        *link_messages.MESSAGES, *link.MESSAGES, *network_messages.MESSAGES, *network.MESSAGES,
        *transport_messages.MESSAGES, *transport.MESSAGES, *SESSION_MESSAGES,
        *station_messages.MESSAGES, *station_device.MESSAGES,
        *program.MESSAGES, *program_device.MESSAGES,
    )
)  # fmt: skip
"""All a layer may be told or say: it is on this host, and its user's process."""
