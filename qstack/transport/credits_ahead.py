"""Credits that acceptors gave before anything was offered to them, kept for this node's next flows.

Rules
1. A credit is kept for the kind and port it is for; the oldest is taken first.
2. It is void when its acceptor takes it back (CreditGone) and when the channel is lost: the
   acceptor gives another one when the channel is back.
3. Of one peer a bounded number is kept. The acceptor need not know: a flow that finds no credit is
   offered, and credited with the same request.
"""

from collections import OrderedDict

from qstack.transport.messages import CreditAhead
from qstack.transport.params import PENDING_PER_PEER_MAX


class CreditsAhead:
    """All of them, by peer."""

    def __init__(self) -> None:
        self._peers: dict[str, OrderedDict[bytes, CreditAhead]] = {}

    def put(self, peer: str, credit: CreditAhead) -> None:
        """Keep a credit, if there is room."""
        known = self._peers.setdefault(peer, OrderedDict())
        if len(known) < PENDING_PER_PEER_MAX:
            known[credit.request] = credit

    def take(self, peer: str, port: int, kind: str) -> CreditAhead | None:
        """The oldest credit for such a flow, which is the caller's from now on."""
        known = self._peers.get(peer, OrderedDict())
        for credit in known.values():
            if credit.port == port and credit.kind == kind:
                self.drop(peer, credit.request)
                return credit
        return None

    def drop(self, peer: str, request: bytes) -> None:
        """It was used otherwise, or taken back."""
        known = self._peers.get(peer)
        if known is not None and known.pop(request, None) is not None and not known:
            del self._peers[peer]

    def forget(self, peer: str) -> None:
        """The channel to the peer is lost."""
        self._peers.pop(peer, None)
