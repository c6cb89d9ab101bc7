"""Channels to other nodes: asked for on first use, and asked for again while they are needed.

Rules
1. Without a channel nothing waits here but VoidPair: whoever has something to say says it when the
   channel comes (`resume` in the machine), because after a loss it must be said again anyhow.
2. A channel that cannot be had, or is lost, is asked for again only while somebody needs it, after
   a time that doubles, by a background timer.
3. The boot id tells whether the peer that comes back is the one that went.
"""

from collections import deque
from typing import TYPE_CHECKING

from msgspec import Struct, field

from qstack.machine import OpenChannel, Send
from qstack.transport.params import QUEUED_SENDS_MAX, REOPEN_NS, REOPEN_NS_MAX
from qstack.wire.message import Message

if TYPE_CHECKING:
    from qstack.transport.context import Context


class _Peer(Struct, eq=False):
    boot_id: bytes | None = None
    is_up: bool = False
    is_opening: bool = False
    reopen_ns: int = REOPEN_NS
    queue: deque[Message] = field(default_factory=deque)


class Channels:
    """Which peers can be spoken to."""

    def __init__(self, context: "Context") -> None:
        self._context = context
        self._peers: dict[str, _Peer] = {}

    def is_up(self, peer: str) -> bool:
        """Whether a message sent now travels."""
        known = self._peers.get(peer)
        return known is not None and known.is_up

    def need(self, peer: str) -> None:
        """Ask for a channel, unless it is up or asked for."""
        known = self._peers.get(peer)
        if known is None:
            known = self._peers[peer] = _Peer()
        if not known.is_up and not known.is_opening:
            known.is_opening = True
            self._context.cancel_timer(f"reopen/{peer}")
            self._context.effects.append(OpenChannel(peer))

    def send(self, peer: str, message: Message) -> None:
        """Send, or drop and ask for the channel."""
        known = self._peers.get(peer)
        if known is not None and known.is_up:
            self._context.effects.append(Send(peer, message))
        else:
            self.need(peer)

    def send_kept(self, peer: str, message: Message) -> None:
        """Send, or keep until the channel comes; the newest are dropped when too many wait."""
        if not self.is_up(peer):
            queue = self._peers.setdefault(peer, _Peer()).queue
            if len(queue) < QUEUED_SENDS_MAX:
                queue.append(message)
            else:
                self._context.record("transport.send_dropped", peer=peer)
        self.send(peer, message)

    def on_up(self, peer: str, boot_id: bytes) -> bool:
        """The channel came. Whether the peer has restarted since we last spoke."""
        known = self._peers.setdefault(peer, _Peer())
        has_restarted = known.boot_id not in (None, boot_id)
        known.boot_id = boot_id
        known.is_up, known.is_opening = True, False
        known.reopen_ns = REOPEN_NS
        self._context.cancel_timer(f"reopen/{peer}")
        if has_restarted:
            known.queue.clear()
        while known.queue:
            self._context.effects.append(Send(peer, known.queue.popleft()))
        return has_restarted

    def on_down(self, peer: str) -> None:
        """The channel went, or could not be had."""
        known = self._peers.setdefault(peer, _Peer())
        known.is_up = known.is_opening = False

    def after_down(self, peer: str, *, is_needed: bool) -> None:
        """Ask again later if it `is_needed`; forget a peer that never was there if not."""
        known = self._peers[peer]
        if is_needed and not known.is_opening:
            at_ns = self._context.now + known.reopen_ns
            known.reopen_ns = min(2 * known.reopen_ns, REOPEN_NS_MAX)
            self._context.set_timer(
                f"reopen/{peer}", at_ns, lambda: self.need(peer), background=True
            )
        elif known.boot_id is None and not is_needed:
            del self._peers[peer]
