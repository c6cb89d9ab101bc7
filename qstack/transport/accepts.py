"""EPR flows at their acceptor: offers of peers meet the EprAccept calls of sessions.

Rules
1. An offer waits, bounded per peer, until a session with an EPR socket on that port for that peer
   accepts pairs of the same kind. Offers and accepts are served in the order they came in.
2. An accept is bound to one grant at a time; when the grant is complete and more pairs are wanted,
   the next offer is taken. An accept bound to a flow that fails, fails with that error.
3. An accept for one remote that finds no offer is credited ahead, for the remote's next flow. Who
   uses that credit is decided by the remote, until an offer of it comes, which is credited.
4. What is on offer, or credited ahead, is forgotten with the channel: it is said again. Grants
   live on.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal

from msgspec import Struct, field

from qstack.errors import ErrorCode
from qstack.transport import messages, service
from qstack.transport.calls import Call, Calls
from qstack.transport.context import BoundedDict, Context, Reason, reason
from qstack.transport.delivered import DeliveredPairs
from qstack.transport.early_pairs import EarlyPairs
from qstack.transport.grants import Grant, GrantOwner, GrantTerms
from qstack.transport.params import CLOSED_IDS_MAX, PAIRS_PER_CALL_MAX, PENDING_PER_PEER_MAX
from qstack.transport.sockets import PortSocket, Sockets
from qstack.wire.message import BasisChoice


class Accept(Struct, eq=False):
    """One EprAccept; `grant` is what it is bound to, `ahead` what it has credited ahead."""

    call: Call
    socket: PortSocket
    basis: BasisChoice | None
    missing: int
    grant: Grant | None = None
    ahead: "Ahead | None" = None

    @property
    def kind(self) -> Literal["keep", "measure"]:
        """Which flows it takes."""
        return "keep" if self.basis is None else "measure"


class Ahead(Struct, eq=False):
    """A credit given before a flow was offered."""

    remote: str
    request: bytes
    early: EarlyPairs


class Offer(Struct, eq=False):
    """A flow as its acceptor sees it; `uncredited` pairs are on offer.

    Of a flow that was not offered (yet), only what it took of credits given ahead is known.
    """

    peer: str
    id: bytes
    port: int
    kind: str
    deadline_ns: int | None
    uncredited: int
    is_offered: bool = True
    is_dormant: bool = False  # the channel went; the opener will offer the rest again
    grants: dict[bytes, tuple[Grant, Accept]] = field(default_factory=dict)


class Accepts:
    """The flows peers open to this node, but those to the echo port."""

    def __init__(
        self, context: Context, calls: Calls, sockets: Sockets, pairs: DeliveredPairs
    ) -> None:
        self._context = context
        self._calls = calls
        self._sockets = sockets
        self._accepts: dict[tuple[str, int], Accept] = {}
        self._ahead: dict[tuple[str, bytes], Accept] = {}  # of credits given ahead
        self._offers: dict[tuple[str, bytes], Offer] = {}
        self._closed: BoundedDict[tuple[str, bytes], None] = BoundedDict(CLOSED_IDS_MAX)
        self._owner = GrantOwner(
            context, calls, pairs, delivered=self._on_delivered, failed=self._on_grant_failed
        )

    def __len__(self) -> int:
        return len(self._accepts) + len(self._offers)

    def pending_of(self, peer: str) -> int:
        """How many of the peer's flows have pairs on offer."""
        return sum(1 for offer in self._offers.values() if offer.peer == peer and offer.uncredited)

    # --- from a session ---

    def accept(self, session: str, socket: PortSocket, message: service.EprAccept) -> None:
        """EprAccept: take pairs from an offer, now or when one comes."""
        if socket.port == service.ECHO_PORT:
            detail = "the echo port is accepted by the transport layer itself"
            self._calls.refuse(session, message.call, ErrorCode.BAD_REQUEST, detail)
            return
        if message.number > PAIRS_PER_CALL_MAX:
            detail = f"at most {PAIRS_PER_CALL_MAX} pairs in one call, not {message.number}"
            self._calls.refuse(session, message.call, ErrorCode.BAD_REQUEST, detail)
            return
        call = self._calls.open(
            session, message.call, within_ns=message.within_ns, withdraw=self._withdraw
        )
        if call is None:
            return
        accept = Accept(call=call, socket=socket, basis=message.basis, missing=message.number)
        self._accepts[session, call.number] = accept
        self._serve_accept(accept)

    def close_socket(self, socket: PortSocket, why: Reason) -> None:
        """The socket's accepts end, with the flows they are bound to."""
        self._end_all([each for each in self._accepts.values() if each.socket is socket], why)

    def on_device_lost(self) -> None:
        """All accepts end."""
        self._end_all(list(self._accepts.values()), reason(ErrorCode.DEVICE_LOST))

    # --- from a peer ---

    def on_open(self, peer: str, message: messages.OpenFlow) -> None:
        """A flow is offered, perhaps not for the first time."""
        key = (peer, message.flow)
        offer = self._offers.get(key)
        if offer is not None:
            offer.is_dormant = False
            if not offer.is_offered:
                offer.is_offered, offer.uncredited = True, message.number
                offer.deadline_ns = message.deadline_ns
            for grant, accept in offer.grants.values():
                self._credit(offer, grant, accept.basis)
            self._serve_offer(offer)
            return
        if key in self._closed:
            self._close(peer, message.flow, reason(ErrorCode.CLOSED))
            return
        if self.pending_of(peer) >= PENDING_PER_PEER_MAX:
            detail = f"{PENDING_PER_PEER_MAX} flows wait to be accepted"
            self._close(peer, message.flow, reason(ErrorCode.NO_RESOURCES, detail))
            return
        offer = Offer(
            peer=peer,
            id=message.flow,
            port=message.port,
            kind=message.kind,
            deadline_ns=message.deadline_ns,
            uncredited=message.number,
        )
        self._offers[key] = offer
        self._serve_offer(offer)

    def on_take(self, peer: str, message: messages.TakeCredit) -> None:
        """A flow uses what was credited ahead, perhaps not for the first time."""
        accept = self._ahead.get((peer, message.request))
        if accept is None:
            if not self._context.is_known_request(message.request):
                self._context.send(peer, messages.CreditGone(request=message.request))
            return
        if message.number > accept.missing:
            detail = f"{accept.missing} pairs were credited, {message.number} taken"
            error = messages.Error(
                name=ErrorCode.OUT_OF_STATE.name, detail=detail, about=message.TYPE
            )
            self._context.send(peer, error)
            return
        key = (peer, message.flow)
        if key in self._closed:
            self._close(peer, message.flow, reason(ErrorCode.CLOSED))
            self._take_back(accept)
            self._serve_accept(accept)
            return
        offer = self._offers.get(key)
        if offer is None:
            offer = self._offers[key] = Offer(
                peer=peer,
                id=message.flow,
                port=accept.socket.port,
                kind=accept.kind,
                deadline_ns=None,
                uncredited=0,
                is_offered=False,
            )
        self._grant(accept, offer, message.number)

    def on_close(self, peer: str, flow: bytes, why: Reason) -> bool:
        """The opener has ended the flow. Whether it was one."""
        offer = self._offers.get((peer, flow))
        if offer is None:
            return False
        self._end_offer(offer, why, tell_peer=False)
        return True

    def on_peer_down(self, peer: str) -> None:
        """What is on offer will be offered again."""
        for offer in self._of(peer):
            offer.is_dormant = True
            self._forget_if_spent(offer)

    def resume(self, peer: str) -> None:
        """The channel is back: say again what has been credited."""
        for offer in self._of(peer):
            for grant, accept in offer.grants.values():
                self._credit(offer, grant, accept.basis)
        for accept in list(self._accepts.values()):
            if accept.socket.remote == peer and accept.grant is None:
                self._credit_ahead(accept)  # the same credit, if the remote may have taken it

    def on_peer_restarted(self, peer: str) -> None:
        """The opener knows nothing of its flows any more, nor of what was credited."""
        for accept in [accept for key, accept in self._ahead.items() if key[0] == peer]:
            self._take_back(accept)
        for offer in self._of(peer):
            self._end_offer(offer, reason(ErrorCode.PEER_DOWN, "it restarted"), tell_peer=False)

    # --- meeting ---

    def _of(self, peer: str) -> Iterator[Offer]:
        return iter([offer for offer in self._offers.values() if offer.peer == peer])

    def _serve_accept(self, accept: Accept) -> None:
        for offer in list(self._offers.values()):
            if self._fits(accept, offer):
                self._bind(accept, offer)
                return
        self._credit_ahead(accept)

    def _credit_ahead(self, accept: Accept) -> None:
        """Let its remote's next flow go without an offer. Without a channel nothing is said."""
        remote = accept.socket.remote
        if remote is None or not self._context.channels.is_up(remote):
            return
        if accept.ahead is None:
            request = self._context.fresh_id()
            failed = partial(self._on_ahead_failed, accept)
            early = EarlyPairs(self._context, request, accept.missing, failed)
            accept.ahead = Ahead(remote, request, early)
            self._ahead[remote, request] = accept
        credit = messages.CreditAhead(
            port=accept.socket.port,
            kind=accept.kind,
            request=accept.ahead.request,
            number=accept.missing,
            basis=accept.basis,
        )
        self._context.send(remote, credit)

    def _take_back(self, accept: Accept) -> None:
        """What it credited ahead is not to be had any more."""
        ahead, accept.ahead = accept.ahead, None
        if ahead is None:
            return
        del self._ahead[ahead.remote, ahead.request]
        ahead.early.give_up()
        if self._context.channels.is_up(ahead.remote):  # if not, it forgets with the channel
            self._context.send(ahead.remote, messages.CreditGone(request=ahead.request))

    def _on_ahead_failed(self, accept: Accept) -> None:
        """A flow took the credit and has ended, before its word came: give another one."""
        ahead, accept.ahead = accept.ahead, None
        assert ahead is not None, "early pairs go with their credit"
        del self._ahead[ahead.remote, ahead.request]
        self._serve_accept(accept)

    def _serve_offer(self, offer: Offer) -> None:
        for socket in self._sockets.at_port("epr", offer.port, offer.peer):
            for accept in list(self._accepts.values()):
                if accept.socket is socket and self._fits(accept, offer):
                    self._bind(accept, offer)

    def _fits(self, accept: Accept, offer: Offer) -> bool:
        if accept.grant is not None or accept.kind != offer.kind:
            return False
        if not offer.uncredited or offer.is_dormant:
            return False
        if offer.deadline_ns is not None and offer.deadline_ns <= self._context.now:
            return False  # the opener's Close is on its way
        return accept.socket.port == offer.port and accept.socket.remote in {None, offer.peer}

    def _bind(self, accept: Accept, offer: Offer) -> None:
        number = min(accept.missing, offer.uncredited)
        offer.uncredited -= number
        grant = self._grant(accept, offer, number)
        self._credit(offer, grant, accept.basis)

    def _grant(self, accept: Accept, offer: Offer, number: int) -> Grant:
        """Bind the accept to `number` pairs of a flow, by the request it credited ahead if any."""
        ahead, accept.ahead = accept.ahead, None
        accept.call.peer = offer.peer
        terms = GrantTerms(
            request=self._context.fresh_id() if ahead is None else ahead.request,
            flow=offer.id,
            remote=offer.peer,
            side="tail",
            number=number,
            basis=accept.basis,
        )

        def bound() -> Grant:
            grant = accept.grant = Grant(self._owner, accept.call, terms)
            offer.grants[grant.request] = (grant, accept)
            return grant

        if ahead is None:
            return bound()
        del self._ahead[ahead.remote, ahead.request]
        return ahead.early.hand_over(bound)

    def _credit(self, offer: Offer, grant: Grant, basis: BasisChoice | None) -> None:
        credit = messages.CreditFlow(
            flow=offer.id, request=grant.request, number=grant.number, basis=basis
        )
        self._context.send(offer.peer, credit)

    # --- progress and end ---

    def _on_delivered(self, grant: Grant, pairs: int) -> None:
        offer = self._offers[grant.remote, grant.flow]
        _, accept = offer.grants[grant.request]
        accept.missing -= pairs
        if not grant.is_complete:
            return
        del offer.grants[grant.request]
        self._forget_if_spent(offer)
        accept.grant, accept.call.peer = None, None
        if accept.missing:
            self._serve_accept(accept)
        else:
            self._drop_accept(accept)
            self._calls.finish(accept.call)

    def _on_grant_failed(self, grant: Grant, why: Reason) -> None:
        self._end_offer(self._offers[grant.remote, grant.flow], why, tell_peer=True)

    def _withdraw(self, call: Call, why: Reason) -> None:
        self._end_accept(self._accepts[call.session, call.number], why)

    def _end_all(self, accepts: list[Accept], why: Reason) -> None:
        for accept in accepts:
            # One flow may serve several accepts: they end together.
            if (accept.call.session, accept.call.number) in self._accepts:
                self._end_accept(accept, why)

    def _end_accept(self, accept: Accept, why: Reason) -> None:
        if accept.grant is not None:
            offer = self._offers[accept.grant.remote, accept.grant.flow]
            self._end_offer(offer, why, tell_peer=True)
        else:
            self._take_back(accept)
            self._drop_accept(accept)
            self._calls.fail(accept.call, why)

    def _end_offer(self, offer: Offer, why: Reason, *, tell_peer: bool) -> None:
        """The flow has ended: the accepts bound to it fail, its requests are cancelled."""
        del self._offers[offer.peer, offer.id]
        self._closed.put((offer.peer, offer.id), None)
        if tell_peer:
            self._close(offer.peer, offer.id, why)
        for grant, accept in offer.grants.values():
            grant.end(cancel=True)
            self._drop_accept(accept)
            self._calls.fail(accept.call, why)

    def _drop_accept(self, accept: Accept) -> None:
        del self._accepts[accept.call.session, accept.call.number]

    def _forget_if_spent(self, offer: Offer) -> None:
        if not offer.grants and (offer.is_dormant or not offer.uncredited):
            del self._offers[offer.peer, offer.id]

    def _close(self, peer: str, flow: bytes, why: Reason) -> None:
        self._context.send(peer, messages.Close(id=flow, error=why.error, detail=why.detail))
