"""What a node says to another when one of its layers dies alone and begins anew.

The same layer of the peer sees a peer that went and came back with another boot id; the other
layers see nothing. What that layer had sent before it knew is void: it is not handed to the new
life, which learns of the peer with LayerKnown.

    alice, whose link layer died     bob
      | -- LayerGone(link) --------> |  his link layer: PeerDown(alice)
      | -- LayerBegun(link, b) ----> |  his link layer: PeerDown(alice), PeerUp(alice, b)
      | <------ LayerKnown(link, b)  |
      |  her link layer: PeerUp(bob)
"""

from typing import Literal

from qstack.wire.frame import Layer
from qstack.wire.message import BootId, Message

PeerLayer = Literal["physical", "link", "network", "transport"]
"""The layers that speak with the same layer of another node, or (physical) with a station's."""


class _Node(Message, frozen=True, kw_only=True):
    LAYER = Layer.NODE


class LayerGone(_Node, frozen=True, kw_only=True):
    """This layer of the sender has gone, its node has not."""

    TYPE = 0x0030
    layer: PeerLayer


class LayerBegun(_Node, frozen=True, kw_only=True):
    """This layer of the sender has begun a life; what the receiver's has sent before is void."""

    TYPE = 0x0031
    layer: PeerLayer
    boot_id: BootId


class LayerKnown(_Node, frozen=True, kw_only=True):
    """What comes from this layer of the sender after this is for that life of the receiver's."""

    TYPE = 0x0032
    layer: PeerLayer
    boot_id: BootId


MESSAGES = (LayerGone, LayerBegun, LayerKnown)
