"""Who is in the network: neighbours, and the flooded link states of all nodes.

Rules
1. A neighbour is adjacent while a channel to it is up (PeerUp) and the link layer says so (LinkUp).
2. A node originates its state at once when its links or its device change, and again every
   REFRESH_NS. Newer states are flooded to every neighbour with a channel but the one they came
   from; a neighbour that comes up is sent the whole database.
3. Newer is, within one boot of the origin, the higher sequence. Between boots it is the state
   that was born later (its age is less), or any that the origin itself sends: a restarted node
   speaks after its former life did, however often it restarts. Ages are spans, so no clocks are
   compared; equal births are decided by boot id.
4. A node that hears a state of itself that it did not make answers with a newer one.
5. A state grows older while held and while it travels. Over MAX_AGE_NS it is neither used nor
   accepted nor passed on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from qstack.link.service import LinkDown, LinkUp
from qstack.network.messages import AdvertisedLink, AdvertisedOption, LinkState
from qstack.network.outbox import Outbox
from qstack.network.params import MAX_AGE_NS, NODES_MAX, REFRESH_NS
from qstack.physical.service import NodeCapability

TIMER = "network/link-state"
_NO_DECAY_S = 1e9
_SHORTEST_S = 1e-12
_LINKS_MAX = 256  # of one message
_OPTIONS_MAX = 384  # of one message, of 64 KiB at most


@dataclass(frozen=True)
class Held:
    """A state and when it was made, reckoned from its age in our own time."""

    state: LinkState
    born_at_ns: int


class LinkStateDatabase:
    """The link states this node knows, its own among them."""

    def __init__(self, node: str, boot_id: bytes, out: Outbox) -> None:
        self.node = node
        self.boot_id = boot_id
        self.capability: NodeCapability | None = None
        self.links: dict[str, LinkUp] = {}
        self._channels: dict[str, bytes] = {}
        self._neighbours: dict[str, int] = {}  # all we ever had a link with: delay in ns
        self._held: dict[str, Held] = {}
        self._last_capability: NodeCapability | None = None
        self._sequence = 0
        self._out = out

    # --- what others ask -------------------------------------------------------------------------

    def is_adjacent(self, peer: str) -> bool:
        """Whether circuits may use the link to `peer`: it is there, and open."""
        link = self.links.get(peer)
        return peer in self._channels and link is not None and link.opens_ns <= self._out.now

    def closed_link(self, peer: str) -> LinkUp | None:
        """The link to `peer`, if it is there and closed for a while."""
        link = self.links.get(peer) if peer in self._channels else None
        return None if link is None or link.opens_ns <= self._out.now else link

    def has_channel(self, peer: str) -> bool:
        """Whether a message to `peer` can be sent."""
        return peer in self._channels

    def has_lost(self, peer: str) -> bool:
        """Whether `peer` was a neighbour and its channel has gone."""
        return peer in self._neighbours and peer not in self._channels

    def states(self) -> dict[str, LinkState]:
        """The states young enough to be used, by origin."""
        return {
            origin: held.state
            for origin, held in self._held.items()
            if origin == self.node or self._age(held) <= MAX_AGE_NS
        }

    def is_isolated(self, node: str) -> bool:
        """Whether `node` claims links and none of the nodes it names claims one with it."""
        states = self.states()
        state = states.get(node)
        if state is None:
            return True
        peers = [states.get(link.peer) for link in state.links]
        return bool(peers) and not any(
            peer is not None and any(link.peer == node for link in peer.links) for peer in peers
        )

    def boot_of(self, node: str) -> bytes | None:
        """The boot id `node` was last heard with, or None if it is not known."""
        held = self._held.get(node)
        return held.state.boot_id if held is not None else None

    # --- what happens ----------------------------------------------------------------------------

    def on_capability(self, capability: NodeCapability | None) -> None:
        """The device is ready, or has gone (None)."""
        self.capability = capability
        self._last_capability = capability or self._last_capability
        self._originate()

    def on_peer_up(self, peer: str, boot_id: bytes) -> None:
        """A channel to `peer` is there; it may be no neighbour."""
        self._channels[peer] = boot_id
        if peer in self._neighbours:
            self._send_all(peer)
            self._originate_if_changed()

    def is_restart(self, peer: str, boot_id: bytes) -> bool:
        """Whether a channel to an earlier life of `peer` is still thought up."""
        return self._channels.get(peer, boot_id) != boot_id

    def on_peer_down(self, peer: str) -> None:
        """The channel to `peer` has gone."""
        if self._channels.pop(peer, None) is not None:
            self._originate_if_changed()

    def on_link_up(self, link: LinkUp) -> None:
        """The link layer has a link; said again when its figures change."""
        is_new = link.peer not in self._neighbours
        self.links[link.peer] = link
        self._neighbours[link.peer] = link.delay_ns
        if is_new and link.peer in self._channels:
            self._send_all(link.peer)
        self._originate_if_changed()

    def on_link_down(self, link: LinkDown) -> None:
        """The link layer has lost a link; the channel beside it may live on."""
        if self.links.pop(link.peer, None) is not None:
            self._originate_if_changed()

    def on_timer(self) -> None:
        """Refresh our own state and forget what is too old."""
        for origin, held in list(self._held.items()):
            if origin != self.node and self._age(held) > MAX_AGE_NS:
                del self._held[origin]
                self._out.record("node_forgotten", node=origin)
        self._originate()

    def on_link_state(self, peer: str, state: LinkState) -> bool:
        """A flooded state; returns whether it was news."""
        if state.origin == self.node:
            self._on_own_state(state)
            return False
        if state.age_ns > MAX_AGE_NS:
            return False
        received = Held(state, self._out.now - state.age_ns)
        held = self._held.get(state.origin)
        if held is not None and not self._is_newer(received, held, peer):
            return False
        if held is None and len(self._held) >= NODES_MAX:
            self._out.record("database_full", origin=state.origin)
            return False
        self._held[state.origin] = received
        self._flood(received, [name for name in self._flooded() if name != peer])
        return True

    # --- parts -----------------------------------------------------------------------------------

    def _is_newer(self, received: Held, held: Held, peer: str) -> bool:
        if received.state.boot_id == held.state.boot_id:
            return received.state.sequence > held.state.sequence
        if peer == received.state.origin or self._age(held) > MAX_AGE_NS:
            return True
        return (received.born_at_ns, received.state.boot_id) > (
            held.born_at_ns,
            held.state.boot_id,
        )

    def _on_own_state(self, state: LinkState) -> None:
        if state.boot_id == self.boot_id:
            if state.sequence <= self._sequence:
                return
            self._sequence = state.sequence
        self._originate()

    def _age(self, held: Held) -> int:
        return self._out.now - held.born_at_ns

    def _flooded(self) -> list[str]:
        return [peer for peer in self._neighbours if peer in self._channels]

    def _originate_if_changed(self) -> None:
        own = self._held.get(self.node)
        if own is None or own.state.links != self._advertised():
            self._originate()

    def _originate(self) -> None:
        capability = self._last_capability
        self._sequence += 1
        state = LinkState(
            origin=self.node,
            boot_id=self.boot_id,
            sequence=self._sequence,
            age_ns=0,
            links=self._advertised(),
            memory=self.capability.memory if self.capability is not None else 0,
            swap_ns=capability.swap_ns if capability is not None else 0,
            swap_depolarising=capability.swap_depolarising if capability is not None else 0.0,
            gate_depolarising=capability.gate_depolarising if capability is not None else 0.0,
            swap_flip=capability.swap_flip if capability is not None else 0.0,
            t1_s=_finite(capability.t1_s if capability is not None else _NO_DECAY_S),
            t2_s=_finite(capability.t2_s if capability is not None else _NO_DECAY_S),
            signature=b"",
        )
        self._held[self.node] = Held(state, self._out.now)
        self._flood(self._held[self.node], self._flooded())
        self._out.set_timer(TIMER, self._out.now + REFRESH_NS, background=True)

    def _advertised(self) -> list[AdvertisedLink]:
        if self.capability is None:
            return []
        memory = self.capability.memory
        adjacent = [link for peer, link in sorted(self.links.items()) if self.is_adjacent(peer)]
        each = max(1, _OPTIONS_MAX // max(1, len(adjacent)))
        return [
            AdvertisedLink(
                peer=link.peer,
                options=[
                    AdvertisedOption(
                        bell_probabilities=option.bell_probabilities, rate_hz=option.rate_hz
                    )
                    for option in link.options[:each]  # the best are those a promise rests on
                ],
                delay_ns=link.delay_ns,
                kinds=[
                    kind
                    for kind in link.kinds
                    if kind == "measure" or (kind == "keep" and memory > 0 and link.slots > 0)
                ],
            )
            for link in adjacent[:_LINKS_MAX]
        ]

    def _send_all(self, peer: str) -> None:
        for held in self._held.values():
            self._flood(held, [peer])

    def _flood(self, held: Held, peers: Iterable[str]) -> None:
        for peer in peers:
            age_ns = self._age(held) + self._neighbours[peer]
            if age_ns <= MAX_AGE_NS or held.state.origin == self.node:
                self._out.send(peer, replace(held.state, age_ns=age_ns))


def _finite(seconds: float) -> float:
    """A time constant as the wire carries it: 1e9 s stands for no decay."""
    return min(max(seconds, _SHORTEST_S), _NO_DECAY_S)
