"""Pairs of a request that is not consecutive: they wait here for the last one.

Rules
1. A pair waits as long as it is expected to have the request's fidelity when it is handed over.
   Whether it is too old both ends find from the same numbers: until when it is good, when a later
   pair was emitted, and how long light takes from end to end. So what one end takes for the last
   pair the other does too, whenever it hears of it.
2. One that is too old is let go also while nothing comes, AGE_GRACE_NS later, when no herald from
   before is on its way any more; and the far end is told by Expire, which may know it already.
3. A pair that is let go does not count: the request goes on until it has its number.
"""

from typing import NamedTuple

from qstack.link import messages, service
from qstack.link.outbox import Outbox
from qstack.link.params import AGE_GRACE_NS
from qstack.link.peer import Peer
from qstack.link.queue import Request
from qstack.physical import service as physical

AGE_TIMER = "age/"


class Held(NamedTuple):
    """A pair that waits. `good_until_ns`: None for ever."""

    sequence: int
    indication: service.LinkPair | service.LinkMeasured
    good_until_ns: int | None


class HeldPairs:
    """What the requests of all links of a node hold."""

    def __init__(self, out: Outbox) -> None:
        self._out = out

    def hold(self, peer: Peer, request: Request, pair: Held, emitted_at_ns: int) -> None:
        """One more waits; those that are too old when it is handed over are let go."""
        assert peer.capability is not None
        request.held.append(pair)
        self._drop_older(peer, request, emitted_at_ns + peer.capability.delay_ns)
        self._watch(request)

    def time_passed(self, peer: Peer, request: Request, now: int) -> None:
        """The timer has fired: let go of what has been too old for long enough."""
        self._drop_older(peer, request, now - AGE_GRACE_NS + 1)
        self._watch(request)

    def expire(self, peer: Peer, low: int, high: int) -> bool:
        """The far end has let go of these; whether any of them still waited here."""
        found = False
        for request in peer.requests.values():
            for pair in [pair for pair in request.held if low <= pair.sequence < high]:
                self._drop(peer, request, pair)
                found = True
        return found

    def give_back(self, peer: Peer, request: Request) -> None:
        """The request has failed: all are freed, and the far end, which may have told of them,
        learns it."""
        for pair in request.held:
            self._free(pair)
            if request.kind != "measure":
                self._say_expired(peer, pair)
        request.held.clear()

    # --- parts -----------------------------------------------------------------------------------

    def _drop_older(self, peer: Peer, request: Request, at_ns: int) -> None:
        """Let go of what is good until before `at_ns`."""
        for pair in [p for p in request.held if p.good_until_ns is not None]:
            assert pair.good_until_ns is not None
            if pair.good_until_ns < at_ns:
                self._drop(peer, request, pair)
                self._say_expired(peer, pair)
                self._out.record("too_old", peer=peer.name)

    def _drop(self, peer: Peer, request: Request, pair: Held) -> None:
        request.held.remove(pair)
        request.take_back(1)
        peer.sated_until_ns = 0
        peer.note_void(pair.sequence)
        self._free(pair)

    def _free(self, pair: Held) -> None:
        if isinstance(pair.indication, service.LinkPair):
            self._out.tell_below(physical.Free(qubit=pair.indication.qubit))

    def _say_expired(self, peer: Peer, pair: Held) -> None:
        self._out.send(peer.name, messages.Expire(low=pair.sequence, high=pair.sequence + 1))

    def _watch(self, request: Request) -> None:
        """Come back when the next one has been too old for long enough."""
        ends = [pair.good_until_ns for pair in request.held if pair.good_until_ns is not None]
        if ends:
            self._out.set_timer(
                AGE_TIMER + request.id.hex(), min(ends) + AGE_GRACE_NS, deadline=True
            )
