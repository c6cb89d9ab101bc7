"""Memory flow control: an end whose memory is full says so, and the far end stops attempting alone.

After REQ(E) and ACK(E) of the EGP (Dahlberg et al., SIGCOMM'19), without their messages for each
pair: memory that is full for a moment is what pairs do to it, and nobody is told.

Rules
1. Physical decides what fits (`no-memory`). What has not fitted for MEMORY_SHORT_NS the far end is
   told, in Ready: how many batches we have at work, which is as many as it makes sense to have.
2. Both ends then work for as many requests as that, chosen from the queue as ever.
3. As soon as there is memory again we attempt, and say so.
So at most two messages in MEMORY_SHORT_NS are said of it, and none while pairs come and go.
"""

from collections.abc import Callable

from qstack.link.batches import Batches
from qstack.link.outbox import Outbox
from qstack.link.params import MEMORY_SHORT_NS
from qstack.link.peer import Peer

ROOM_TIMER = "room/"


class Rooms:
    """The memory of one node as its links see it. `say_ready` tells a far end."""

    def __init__(self, batches: Batches, out: Outbox, say_ready: Callable[[Peer], None]) -> None:
        self._batches = batches
        self._out = out
        self._say_ready = say_ready

    def memory_short(self, peer: Peer, now: int) -> None:
        """A batch has found no place."""
        peer.waits_for_memory = True
        if peer.short_since_ns is None:
            peer.short_since_ns = now
        if not peer.is_room_due:
            self._look_again(peer, now + MEMORY_SHORT_NS)

    def memory_free(self, peer: Peer, now: int) -> None:
        """What was refused may be had now, unless another link has it first."""
        if not peer.waits_for_memory and peer.own_room is None:
            return
        peer.waits_for_memory = False
        peer.short_since_ns = peer.own_room = None
        self._batches.start(peer, now)
        if peer.told_room is not None:
            self._look_again(peer, now)  # when physical has answered
        elif peer.is_room_due and peer.short_since_ns is None:
            peer.is_room_due = False
            self._out.cancel_timer(ROOM_TIMER + peer.name)

    def timer_fired(self, peer: Peer, now: int) -> None:
        """Tell the far end what has lasted."""
        peer.is_room_due = False
        if not peer.requests:  # the next one finds out by itself
            peer.waits_for_memory, peer.short_since_ns = False, None
        since_ns = peer.short_since_ns
        if since_ns is not None and since_ns + MEMORY_SHORT_NS <= now:
            peer.own_room = peer.batches_open
            self._look_again(peer, now + MEMORY_SHORT_NS)
        elif since_ns is not None:
            self._look_again(peer, since_ns + MEMORY_SHORT_NS)
        if peer.own_room != peer.told_room:
            peer.told_room = peer.own_room
            self._say_ready(peer)  # while there is nobody to hear it, it is said at the beginning
            self._batches.choose_again(peer, now)

    def device_gone(self, peer: Peer) -> None:
        """And its memory with it."""
        peer.waits_for_memory = False
        peer.short_since_ns = peer.own_room = peer.told_room = None

    def _look_again(self, peer: Peer, at_ns: int) -> None:
        peer.is_room_due = True
        self._out.set_timer(ROOM_TIMER + peer.name, at_ns, background=True)
