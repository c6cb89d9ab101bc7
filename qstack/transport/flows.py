"""EPR flows at their opener: EprCreate becomes OpenFlow, each CreditFlow a network request.

Rules
1. The creator offers; nothing is asked of the network before the far end has credited pairs,
   because only then does somebody there want them.
2. The acceptor may credit in parts. Each part is one network request, named by the acceptor, issued
   here, in the basis each end has chosen for itself.
3. A flow fails as a whole, the far end is told with the same error, its requests are cancelled.
"""

from collections.abc import Iterator

from msgspec import Struct, field

from qstack.errors import ErrorCode
from qstack.network import service as network
from qstack.transport import messages, service
from qstack.transport.calls import Call, Calls
from qstack.transport.context import Context, Reason, reason
from qstack.transport.delivered import DeliveredPairs
from qstack.transport.flow_states import FLOW, FlowInput, FlowState
from qstack.transport.grants import Grant, GrantOwner, GrantTerms
from qstack.transport.params import PAIRS_PER_CALL_MAX, UNBOUNDED_NS
from qstack.transport.sockets import PortSocket


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


class Flows:
    """The flows opened by sessions of this node."""

    def __init__(self, context: Context, calls: Calls, pairs: DeliveredPairs) -> None:
        self._context = context
        self._calls = calls
        self._flows: dict[bytes, Flow] = {}
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
        self._flows[flow.id] = flow
        self._offer(flow)

    def on_credit(self, peer: str, message: messages.CreditFlow) -> None:
        """The far end takes pairs: ask the network for them."""
        flow = self._flows.get(message.flow)
        if flow is None or flow.remote != peer:
            if not self._context.is_known_request(message.request):
                self._close(peer, message.flow, reason(ErrorCode.CLOSED))
            return
        if self._context.is_known_request(message.request):
            return
        is_measure = flow.create.basis is not None
        if message.number > flow.uncredited or (message.basis is not None) != is_measure:
            detail = f"{flow.uncredited} pairs are on offer, {message.number} credited"
            self._context.send(
                peer,
                messages.Error(name=ErrorCode.OUT_OF_STATE.name, detail=detail, about=message.TYPE),
            )
            return
        flow.uncredited -= message.number
        self._step(flow, FlowInput.PARTED if flow.uncredited else FlowInput.CREDITED)
        self._ask(flow, message)

    def on_close(self, peer: str, message_id: bytes, why: Reason) -> bool:
        """The far end has ended the flow. Whether it was one."""
        flow = self._flows.get(message_id)
        if flow is None or flow.remote != peer:
            return False
        self._fail(flow, why, tell_peer=False)
        return True

    def resume(self, peer: str) -> None:
        """The channel is back: offer again what is still uncredited."""
        for flow in self._of(peer):
            if flow.uncredited:
                self._offer(flow)

    def on_peer_restarted(self, peer: str) -> None:
        """The far end knows nothing of the flows any more."""
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
            kind="keep" if flow.create.basis is None else "measure",
            number=flow.uncredited,
            deadline_ns=flow.call.deadline_ns,
        )
        self._context.send(flow.remote, offer)

    def _ask(self, flow: Flow, credit: messages.CreditFlow) -> None:
        terms = GrantTerms(
            request=credit.request,
            flow=flow.id,
            remote=flow.remote,
            side="head",
            number=credit.number,
            basis=flow.create.basis,
            is_echo=flow.socket.port == service.ECHO_PORT,
        )
        flow.grants[credit.request] = Grant(self._owner, flow.call, terms)
        create = network.NetworkCreate(
            request=credit.request,
            remote=flow.remote,
            purpose=flow.socket.port,
            kind="keep" if flow.create.basis is None else "measure",
            number=credit.number,
            min_fidelity=flow.create.min_fidelity,
            deadline_ns=flow.call.deadline_ns or self._context.now + UNBOUNDED_NS,
            priority=flow.create.priority,
            basis=flow.create.basis,
            remote_basis=credit.basis,
        )
        self._context.tell(network.LAYER, create)

    def _on_delivered(self, grant: Grant, pairs: int) -> None:
        flow = self._flows[grant.flow]
        flow.missing -= pairs
        if grant.is_complete:
            del flow.grants[grant.request]
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
        if tell_peer:
            self._close(flow.remote, flow.id, why)
        self._calls.fail(flow.call, why)

    def _close(self, peer: str, flow: bytes, why: Reason) -> None:
        self._context.send(peer, messages.Close(id=flow, error=why.error, detail=why.detail))

    def _step(self, flow: Flow, received: FlowInput) -> None:
        flow.state = FLOW.step(flow.state, received)
