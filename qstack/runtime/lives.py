"""Which peers are up for which layer of a node, and in which life each layer is, here and there.

As long as no layer dies alone, a layer's life is its node's, and a peer is up for all or none.

Rules
1. A layer that has died alone has a boot id of its own, of which each peer is told (`LayerBegun`),
   and the device too (`Clear`). Until a peer has answered, what comes from it for that layer is
   void, and the layer does not know of it.
2. A peer that has met no former life of a layer takes the present one for the first, rightly. (Not
   so with the link layer: its boot id is in the names of pairs, at both ends.)
3. What a peer has said of its layers holds as long as its node lives, across losses of the channel.
   What a peer was told but has not answered when the channel broke is said again in the next one.
   Nor is a peer told of lives of the physical layer: what that says to it holds for any of them.
4. What the device answers after Clear and before Cleared is void. Its answers need not be due in
   the order in which they are sent, so that is judged when they arrive.
"""

from dataclasses import dataclass, field
from typing import Final

from qstack.ids import layer_boot_id
from qstack.machine import FABRIC, Event, PeerDown, PeerUp
from qstack.physical.device import Clear, Cleared
from qstack.runtime.life_messages import LayerBegun, LayerGone, LayerKnown
from qstack.wire.message import Message

LAYERS: Final = ("physical", "link", "network", "transport", "session")
"""The machines of a node, from below."""
CLEAR_NUMBERS: Final = 2**52
"""Where the numbers of Clear begin: far above those of a physical layer's own operations."""

Handed = list[tuple[str, Event]]
"""Events, and the layers they are for."""


@dataclass(eq=False)
class _Life:
    """A layer of this node that has died alone: its present life, or the next while it is away."""

    boot_id: bytes
    number: int
    is_away: bool = True
    heard_by: dict[str, None] = field(default_factory=dict)  # peers that know of this life
    clear_number: int = -1
    is_cleared: bool = False  # the device's answer to that has arrived


class Lives:
    """The bookkeeping of one node. `take` gives what is to be said to whom.

    `layers` are its machines (a station has one), `stations` its peers that are stations: they
    concern the physical layer alone.
    """

    def __init__(
        self,
        boot_id: bytes,
        layers: tuple[str, ...] = LAYERS,
        stations: frozenset[str] = frozenset(),
    ) -> None:
        self._boot_id = boot_id
        self._layers = layers
        self._stations = stations
        self._peers: dict[str, bytes] = {}  # channels that are up
        self._last_boots: dict[str, bytes] = {}
        self._own: dict[str, _Life] = {}
        self._theirs: dict[str, dict[str, bytes | None]] = {}  # by peer and layer; None: away
        self._said: list[tuple[str, Message]] = []
        self._clears = 0
        self.is_plain = True  # no layer of this node has ever died alone

    def is_up(self, peer: str) -> bool:
        """Whether there is a channel to `peer`."""
        return peer in self._peers

    def is_away_there(self, peer: str, layer: str) -> bool:
        """Whether `peer` is there, but not this layer of it."""
        return peer in self._peers and self._theirs.get(peer, {}).get(layer, b"") is None

    def is_void(self, peer: str, layer: str) -> bool:
        """Whether what comes from `peer` for `layer` is not meant for its present life."""
        life = self._own.get(layer)
        return life is not None and self._do_speak(layer, peer) and peer not in life.heard_by

    def boot_id_of(self, layer: str) -> bytes:
        """The boot id of the present life of a layer, or the next while it is away."""
        life = self._own.get(layer)
        return self._boot_id if life is None else life.boot_id

    def take(self) -> list[tuple[str, Message]]:
        """What is to be said to peers and to the device."""
        said, self._said = self._said, []
        return said

    # --- channels --------------------------------------------------------------------------------

    def peer_up(self, peer: str, boot_id: bytes, now: int) -> Handed:
        """A channel to `peer` is usable; nothing follows if that was known."""
        if self._peers.get(peer) == boot_id:
            return []
        if self._last_boots.get(peer) != boot_id:
            self._last_boots[peer] = boot_id
            self._first_meeting(peer)
        self._peers[peer] = boot_id
        handed: Handed = []
        for layer in self._concerned(peer):
            if self.is_void(peer, layer):
                self._say_life(peer, layer, now)
            else:
                handed += self._up(peer, layer)
        return handed

    def _first_meeting(self, peer: str) -> None:
        """With a life of a peer: it takes our layers for what they were when our node began."""
        self._theirs.pop(peer, None)
        for layer, life in self._own.items():
            if life.is_away or layer == "link":  # whose boot id is in the names of its pairs
                life.heard_by.pop(peer, None)
            else:
                life.heard_by[peer] = None

    def peer_down(self, peer: str, *, is_refusal: bool) -> Handed:
        """The channel has gone, or cannot be had; nothing follows if that was known."""
        was_up = self._peers.pop(peer, None) is not None
        if peer == FABRIC and (life := self._own.get("physical")) is not None:
            life.heard_by.pop(FABRIC, None)  # a device that comes back is cleared again
        if not (was_up or is_refusal):
            return []
        return [(layer, PeerDown(peer)) for layer in self._concerned(peer)]

    # --- our layers ------------------------------------------------------------------------------

    def layer_gone(self, layer: str, now: int) -> None:
        """A layer of this node has died."""
        before = self._own.get(layer)
        number = 1 if before is None else before.number + 1
        self._own[layer] = _Life(layer_boot_id(self._boot_id, layer, number), number)
        self.is_plain = False
        self._tell_peers(layer, now)

    def layer_up(self, layer: str, now: int) -> Handed:
        """It begins anew; it learns of each peer when that has answered."""
        life = self._own[layer]
        life.is_away = False
        if layer == "physical":  # the device was told before, and nodes take it as it comes
            for station in [peer for peer in self._peers if peer in self._stations]:
                self._say_life(station, layer, now)
            known = [peer for peer in self._peers if not self.is_void(peer, layer)]
            return [up for peer in known for up in self._up(peer, layer)]
        self._tell_peers(layer, now)
        return []

    def admits(self, answer: Message) -> bool:
        """Whether what the device says is for the present life of the physical layer."""
        life = self._own.get("physical")
        if life is None or life.is_cleared or life.clear_number < 0:
            return True
        life.is_cleared = isinstance(answer, Cleared) and answer.operation == life.clear_number
        return life.is_cleared

    # --- what a peer, or the device, says of lives -----------------------------------------------

    def heard(self, peer: str, message: Message) -> Handed:
        """A message to this node itself."""
        match message:
            case LayerGone(layer=layer):
                self._theirs.setdefault(peer, {})[layer] = None
                return [(layer, PeerDown(peer))] if peer in self._peers else []
            case LayerBegun(layer=layer, boot_id=boot_id):
                self._theirs.setdefault(peer, {})[layer] = boot_id
                self._said.append((peer, LayerKnown(layer=layer, boot_id=boot_id)))
                if peer not in self._peers:
                    return []
                up = [] if self.is_void(peer, layer) else self._up(peer, layer)
                return [(layer, PeerDown(peer)), *up]
            case LayerKnown(layer=layer, boot_id=boot_id):
                return self._known(peer, layer, boot_id)
            case Cleared():
                return self._known(peer, "physical", self.boot_id_of("physical"))
            case _:
                return []

    def _known(self, peer: str, layer: str, boot_id: bytes) -> Handed:
        """A peer has answered; a former life of the layer is none of ours."""
        life = self._own.get(layer)
        if life is None or life.boot_id != boot_id or peer not in self._peers:
            return []
        life.heard_by[peer] = None
        return [] if life.is_away else self._up(peer, layer)

    # --- parts -----------------------------------------------------------------------------------

    def _up(self, peer: str, layer: str) -> Handed:
        boot_id = self._theirs.get(peer, {}).get(layer, self._peers[peer])
        return [] if boot_id is None else [(layer, PeerUp(peer, boot_id))]

    def _tell_peers(self, layer: str, now: int) -> None:
        for peer in self._peers:
            if self._do_speak(layer, peer):
                self._say_life(peer, layer, now)

    def _say_life(self, peer: str, layer: str, now: int) -> None:
        life = self._own[layer]
        match layer:
            case "physical" if peer == FABRIC:
                self._clears += 1
                life.clear_number, life.is_cleared = CLEAR_NUMBERS + self._clears, False
                clear = Clear(at_ns=now, sequence=life.clear_number, boot_id=life.boot_id)
                self._said.append((peer, clear))
            case "physical" | "link" | "network" | "transport":
                begun = LayerBegun(layer=layer, boot_id=life.boot_id)
                self._said.append((peer, LayerGone(layer=layer) if life.is_away else begun))
            case _:
                raise AssertionError(f"a {layer} layer does not die alone")

    def _do_speak(self, layer: str, peer: str) -> bool:
        """Whether `layer` and `peer` have anything to say to each other."""
        is_physical = peer == FABRIC or peer in self._stations
        return (layer == "physical") == is_physical and layer != "session"

    def _concerned(self, peer: str) -> tuple[str, ...]:
        """The layers that are told of a peer."""
        return ("physical",) if peer in self._stations else self._layers
