"""EPR flows at their opener: EprCreate becomes OpenFlow, each CreditFlow a network request.

Rules
1. Nothing is asked of the network before the far end has credited pairs, because only then does
   somebody there want them. A new flow takes what was credited ahead; the rest is offered. It takes
   nothing while an older flow of its kind and port is on offer, which would be overtaken.
2. The acceptor may credit in parts. Each part is one network request, named by the acceptor, issued
   here, in the basis each end has chosen for itself.
3. A flow fails as a whole, the far end is told with the same error, its requests are cancelled.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from qstack.errors import ErrorCode
from qstack.network import service as network
from qstack.transport import messages, service
from qstack.transport.calls import Call, Calls
from qstack.transport.context import Context, Reason, reason
from qstack.transport.credits_ahead import CreditsAhead
from qstack.transport.delivered import DeliveredPairs
from qstack.transport.flow_states import FLOW, FlowInput, FlowState
from qstack.transport.grants import Grant, GrantOwner, GrantTerms
from qstack.transport.params import ECHO_PAIRS_MAX, PAIRS_PER_CALL_MAX, UNBOUNDED_NS
from qstack.transport.sockets import PortSocket
from qstack.wire.message import BasisChoice


class Flow(Struct, eq=False):
    """One EprCreate. `uncredited` is on offer; `missing` has not been delivered."""

    id: bytes
    call: Call
    socket: PortSocket
    remote: str
    create: service.EprCreate
    uncredited: int
    missing: int
    state: FlowState = FLOW.start
    is_said: bool = False  # to the peer as it lives now
    grants: dict[bytes, Grant] = field(default_factory=dict)
    taken: dict[bytes, int] = field(default_factory=dict)  # pairs of grants credited ahead

    @property
    def kind(self) -> Literal["keep", "measure"]:
        """Whether its pairs are kept; those that prepare are, at the far end."""
        return "keep" if self.create.basis is None or self.create.is_prepare else "measure"


class Flows:
    """The flows opened by sessions of this node."""

    def __init__(self, context: Context, calls: Calls, pairs: DeliveredPairs) -> None:
        self._context = context
        self._calls = calls
        self._flows: dict[bytes, Flow] = {}
        self._pairs = pairs
        self._ahead = CreditsAhead()
        self._owner = GrantOwner(
            context, calls, pairs, delivered=self._on_delivered, failed=self._on_grant_failed
        )

    def __len__(self) -> int:
        return len(self._flows)

    def create(self, session: str, socket: PortSocket, message: service.EprCreate) -> None:
        """EprCreate: offer a flow to the socket's remote."""
        if socket.remote is None:
            detail = "this socket was opened without a remote: it can only accept"
            self._calls.refuse(session, message.call, ErrorCode.BAD_REQUEST, detail)
            return
        if message.number > PAIRS_PER_CALL_MAX:
            detail = f"at most {PAIRS_PER_CALL_MAX} pairs in one call, not {message.number}"
            self._calls.refuse(session, message.call, ErrorCode.BAD_REQUEST, detail)
            return
        problem = _preparation_problem(socket, message)
        if problem:
            self._calls.refuse(session, message.call, ErrorCode.BAD_REQUEST, problem)
            return
        call = self._calls.open(
            session,
            message.call,
            within_ns=message.within_ns,
            withdraw=self._withdraw,
            peer=socket.remote,
        )
        if call is None:
            return
        flow = Flow(
            id=self._context.fresh_id(),
            call=call,
            socket=socket,
            remote=socket.remote,
            create=message,
            uncredited=message.number,
            missing=message.number,
        )
        taken = self._credits_for(flow)
        self._flows[flow.id] = flow
        for credit in taken:
            self._say_taken(flow, credit.request, flow.taken[credit.request])
        if flow.uncredited:
            self._offer(flow)
        for credit in taken:
            self._ask(flow, credit.request, flow.taken[credit.request], credit.basis)

    def on_credit_ahead(self, peer: str, message: messages.CreditAhead) -> None:
        """The far end would take pairs of a flow to come."""
        if (message.basis is None) != (message.kind == "keep"):
            self._refuse(peer, message, ErrorCode.INVALID, "a basis goes with kind measure")
        elif not self._context.is_known_request(message.request):
            self._ahead.put(peer, message)

    def on_credit_gone(self, peer: str, message: messages.CreditGone) -> None:
        """A credit given ahead is void: what has taken it is offered."""
        request = message.request
        self._ahead.drop(peer, request)
        flow = next((flow for flow in self._of(peer) if request in flow.taken), None)
        if flow is None:
            return
        grant = flow.grants[request]
        if grant.delivered:
            self._fail(flow, reason(ErrorCode.CANCELLED, "the far end went"), tell_peer=True)
            return
        del flow.grants[request]
        flow.uncredited += flow.taken.pop(request)
        self._step(flow, FlowInput.UNCREDITED)
        grant.end(cancel=True)
        self._offer(flow)

    def on_peer_down(self, peer: str) -> None:
        """What the peer credited ahead is void with the channel."""
        self._ahead.forget(peer)

    def on_credit(self, peer: str, message: messages.CreditFlow) -> None:
        """The far end takes pairs: ask the network for them."""
        self._ahead.drop(peer, message.request)  # used for this flow, even if that has ended
        flow = self._flows.get(message.flow)
        if flow is None or flow.remote != peer:
            if not self._context.is_known_request(message.request):
                self._close(peer, message.flow, reason(ErrorCode.CLOSED))
            return
        if self._context.is_known_request(message.request):
            return
        is_measure = flow.kind == "measure"
        if message.number > flow.uncredited or (message.basis is not None) != is_measure:
            detail = f"{flow.uncredited} pairs are on offer, {message.number} credited"
            self._refuse(peer, message, ErrorCode.OUT_OF_STATE, detail)
            return
        flow.uncredited -= message.number
        self._step(flow, FlowInput.PARTED if flow.uncredited else FlowInput.CREDITED)
        self._ask(flow, message.request, message.number, message.basis)

    def on_close(self, peer: str, message_id: bytes, why: Reason) -> bool:
        """The far end has ended the flow. Whether it was one."""
        flow = self._flows.get(message_id)
        if flow is None or flow.remote != peer:
            return False
        self._fail(flow, why, tell_peer=False)
        return True

    def resume(self, peer: str) -> None:
        """The channel is back: offer again what is still uncredited, say again what was taken."""
        for flow in self._of(peer):
            for request, number in flow.taken.items():
                self._say_taken(flow, request, number)
        for flow in self._of(peer):  # after that, or an offer might be given what is taken
            if flow.uncredited:
                self._offer(flow)

    def on_peer_restarted(self, peer: str) -> None:
        """The far end knows nothing of the flows any more."""
        self._ahead.forget(peer)
        for flow in self._of(peer):
            if flow.is_said:
                self._fail(flow, reason(ErrorCode.PEER_DOWN, "it restarted"), tell_peer=False)

    def on_device_lost(self) -> None:
        """All flows fail."""
        for flow in list(self._flows.values()):
            self._fail(flow, reason(ErrorCode.DEVICE_LOST), tell_peer=True)

    def close_socket(self, socket: PortSocket, why: Reason) -> None:
        """The socket's calls end."""
        for flow in list(self._flows.values()):
            if flow.socket is socket:
                self._fail(flow, why, tell_peer=True)

    def _of(self, peer: str) -> Iterator[Flow]:
        return iter([flow for flow in self._flows.values() if flow.remote == peer])

    def _offer(self, flow: Flow) -> None:
        flow.is_said = flow.is_said or self._context.channels.is_up(flow.remote)
        offer = messages.OpenFlow(
            flow=flow.id,
            port=flow.socket.port,
            kind=flow.kind,
            number=flow.uncredited,
            deadline_ns=flow.call.deadline_ns,
        )
        self._context.send(flow.remote, offer)

    def _credits_for(self, flow: Flow) -> list[messages.CreditAhead]:
        """Credits a new flow takes; what they cover is not `uncredited` any more."""
        port, kind = flow.socket.port, flow.kind
        for other in self._of(flow.remote):
            if other.uncredited and (other.socket.port, other.kind) == (port, kind):
                return []
        taken: list[messages.CreditAhead] = []
        while flow.uncredited:
            credit = self._ahead.take(flow.remote, port, kind)
            if credit is None:
                break
            if self._context.is_known_request(credit.request):
                continue  # the peer has named it for something else meanwhile
            taken.append(credit)
            flow.taken[credit.request] = min(credit.number, flow.uncredited)
            flow.uncredited -= flow.taken[credit.request]
            self._step(flow, FlowInput.PARTED if flow.uncredited else FlowInput.CREDITED)
        return taken

    def _say_taken(self, flow: Flow, request: bytes, number: int) -> None:
        flow.is_said = flow.is_said or self._context.channels.is_up(flow.remote)
        taken = messages.TakeCredit(flow=flow.id, request=request, number=number)
        self._context.send(flow.remote, taken)

    def _ask(
        self, flow: Flow, request: bytes, number: int, remote_basis: BasisChoice | None
    ) -> None:
        terms = GrantTerms(
            request=request,
            flow=flow.id,
            remote=flow.remote,
            side="head",
            number=number,
            basis=flow.create.basis,
            is_echo=flow.socket.port == service.ECHO_PORT,
            is_prepare=flow.create.is_prepare,
            rotation=flow.create.rotation,
        )
        flow.grants[request] = Grant(self._owner, flow.call, terms)
        create = network.NetworkCreate(
            request=request,
            remote=flow.remote,
            purpose=flow.socket.port,
            kind=flow.kind,
            number=number,
            min_fidelity=flow.create.min_fidelity,
            deadline_ns=flow.call.deadline_ns or self._context.now + UNBOUNDED_NS,
            priority=flow.create.priority,
            basis=flow.create.basis if flow.kind == "measure" else None,
            remote_basis=remote_basis,
        )
        self._context.tell(network.LAYER, create)

    def _on_delivered(self, grant: Grant, pairs: int) -> None:
        flow = self._flows[grant.flow]
        flow.missing -= pairs
        if grant.is_complete:
            del flow.grants[grant.request]
            flow.taken.pop(grant.request, None)
        if not flow.missing:
            self._step(flow, FlowInput.COMPLETE)
            del self._flows[flow.id]
            self._calls.finish(flow.call)

    def _on_grant_failed(self, grant: Grant, why: Reason) -> None:
        self._fail(self._flows[grant.flow], why, tell_peer=True)

    def _withdraw(self, call: Call, why: Reason) -> None:
        flow = next(flow for flow in self._flows.values() if flow.call is call)
        self._fail(flow, why, tell_peer=True)

    def _fail(self, flow: Flow, why: Reason, *, tell_peer: bool) -> None:
        self._step(flow, FlowInput.FAILURE)
        del self._flows[flow.id]
        for grant in flow.grants.values():
            grant.end(cancel=True)
        if tell_peer and flow.is_said and flow.socket.port == service.ECHO_PORT:
            self._close_echo(flow, why)
        elif tell_peer:
            self._close(flow.remote, flow.id, why)
        self._calls.fail(flow.call, why)

    def _close_echo(self, flow: Flow, why: Reason) -> None:
        """Nobody but us can know which halves the far end holds in vain."""
        channels = self._context.channels
        kept = self._pairs.of_flow(flow.remote, flow.id)[-ECHO_PAIRS_MAX:]
        if kept:
            channels.send_kept(flow.remote, messages.KeptPairs(flow=flow.id, pairs=kept))
        close = messages.Close(id=flow.id, error=why.error, detail=why.detail)
        channels.send_kept(flow.remote, close)

    def _refuse(
        self,
        peer: str,
        message: messages.CreditFlow | messages.CreditAhead,
        code: ErrorCode,
        detail: str,
    ) -> None:
        error = messages.Error(name=code.name, detail=detail, about=message.TYPE)
        self._context.send(peer, error)

    def _close(self, peer: str, flow: bytes, why: Reason) -> None:
        self._context.send(peer, messages.Close(id=flow, error=why.error, detail=why.detail))

    def _step(self, flow: Flow, received: FlowInput) -> None:
        flow.state = FLOW.step(flow.state, received)


def _preparation_problem(socket: PortSocket, asked: service.EprCreate) -> str:
    """What is wrong with asking for prepared states so; empty if nothing is."""
    if not asked.is_prepare:
        return "" if asked.rotation is None else "a rotation goes with a preparation"
    if asked.basis is None:
        return "a state is prepared by a reading: it needs a basis"
    if socket.port == service.ECHO_PORT:
        return "the echo port reads its halves itself"
    return ""
