"""Echo, on port 0: the transport layer itself holds the tails and reads them as asked.

Rules
1. A flow to port 0 is credited at once, keep only, as far as ECHO_PAIRS_MAX pairs per peer allow;
   the rest as pairs are read.
2. Nothing is corrected here: outcomes are flipped, like those of any tail.
3. EchoRequest and VoidPair may come before our half. A half that is gone is answered with VoidPair.
4. A half is held as long as somebody can ask about it: until the opener says that nobody will
   (VoidPair of a pair, Close of a flow), for ECHO_HOLD_NS at most.
"""

from functools import partial

from msgspec import Struct, field

from qstack.errors import ErrorCode
from qstack.ids import PairId
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport import messages, outcomes
from qstack.transport.context import BoundedDict, Context, PhysicalAnswer, Reason, reason
from qstack.transport.params import (
    ECHO_HOLD_NS,
    ECHO_PAIRS_MAX,
    ECHO_REPLIES_MAX,
    PENDING_PER_PEER_MAX,
)
from qstack.wire.message import Basis


class _Held(Struct, eq=False):
    """A half of ours; `basis` is set while it is being read."""

    flow: "_EchoFlow"
    pair: PairId
    qubit: bytes
    x_bit: int
    z_bit: int
    basis: Basis | None = None


class _EchoFlow(Struct, eq=False):
    """A peer's flow to our port 0."""

    peer: str
    id: bytes
    uncredited: int
    is_dormant: bool = False  # the channel went; the opener will offer the rest again
    grants: dict[bytes, "_EchoGrant"] = field(default_factory=dict)
    held: dict[PairId, _Held] = field(default_factory=dict)
    early: dict[PairId, Basis] = field(default_factory=dict)  # bases asked for before the pair came
    kept: frozenset[PairId] = frozenset()  # pairs that outlive the Close to come


class _EchoGrant:
    """One network request of an echo flow, at its tail."""

    def __init__(self, echo: "Echo", flow: _EchoFlow, request: bytes, number: int) -> None:
        self._echo = echo
        self.flow = flow
        self.request = request
        self.number = number
        self.missing = number

    def on_pair(self, message: network.EndPair) -> None:
        """Our half of a pair."""
        self._echo.on_half(self, message)

    def on_measured(self, message: network.EndMeasured) -> None:
        """Never asked for."""

    def on_expired(self, message: network.EndPairExpired) -> None:
        """Our half is void."""
        self._echo.on_half_void(self.flow, message.pair)

    def on_done(self) -> None:
        """Pairs that did not come are not waited for."""
        self._echo.on_grant_ended(self)

    def on_failed(self, _why: Reason) -> None:
        """The opener hears of it from its own network layer."""
        self._echo.on_grant_ended(self)


class Echo:
    """The service on port 0."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._flows: dict[tuple[str, bytes], _EchoFlow] = {}
        self._open_pairs: dict[str, int] = {}
        self._replies: BoundedDict[tuple[str, PairId], int] = BoundedDict(ECHO_REPLIES_MAX)
        self._void: BoundedDict[tuple[str, PairId], None] = BoundedDict(ECHO_REPLIES_MAX)

    def __len__(self) -> int:
        return len(self._flows)

    def on_open(self, peer: str, message: messages.OpenFlow) -> None:
        """A flow to port 0, perhaps not for the first time."""
        known = self._flows.get((peer, message.flow))
        if known is not None:
            known.is_dormant = False
            for grant in known.grants.values():
                self._credit(grant)
            self._serve(peer)
            return
        mine = [flow for flow in self._flows.values() if flow.peer == peer]
        if message.kind != "keep":
            why = reason(ErrorCode.UNSUPPORTED, "the echo port keeps pairs")
        elif len(mine) >= PENDING_PER_PEER_MAX:
            why = reason(ErrorCode.NO_RESOURCES, f"{len(mine)} flows to the echo port are open")
        else:
            flow = _EchoFlow(peer=peer, id=message.flow, uncredited=message.number)
            self._flows[peer, message.flow] = flow
            self._serve(peer)
            return
        close = messages.Close(id=message.flow, error=why.error, detail=why.detail)
        self._context.send(peer, close)

    def on_request(self, peer: str, message: messages.EchoRequest) -> None:
        """Read a half, now or when it comes."""
        outcome = self._replies.get((peer, message.pair))
        if outcome is not None:
            self._reply(peer, message.flow, message.pair, outcome)
            return
        flow = self._flows.get((peer, message.flow))
        held = flow.held.get(message.pair) if flow is not None else None
        if held is not None:
            self._read(held, message.basis)
        elif flow is not None and len(flow.early) < sum(
            grant.missing for grant in flow.grants.values()
        ):
            flow.early[message.pair] = message.basis
        else:
            self._context.send(peer, messages.VoidPair(pair=message.pair))

    def on_half(self, grant: _EchoGrant, message: network.EndPair) -> None:
        """Our half of a pair: hold it, or read it if the question was first."""
        if not grant.missing or message.kind != "keep":
            self._context.free(message.qubit)
            return
        grant.missing -= 1
        flow = grant.flow
        if (flow.peer, message.pair) in self._void:
            del self._void[flow.peer, message.pair]
            self._context.free(message.qubit)
            self._add_open(flow.peer, -1)
        else:
            self._hold(flow, message)
        if not grant.missing:
            self.on_grant_ended(grant)

    def _hold(self, flow: _EchoFlow, message: network.EndPair) -> None:
        held = _Held(
            flow=flow,
            pair=message.pair,
            qubit=message.qubit,
            x_bit=message.x_bit,
            z_bit=message.z_bit,
        )
        flow.held[message.pair] = held
        self._context.hold(message.qubit)
        at_ns = self._context.now + ECHO_HOLD_NS
        expire = partial(self.on_half_void, flow, message.pair)
        self._context.set_timer(_key(held), at_ns, expire, background=True)
        basis = flow.early.pop(message.pair, None)
        if basis is not None:
            self._read(held, basis)

    def on_half_void(self, flow: _EchoFlow, pair: PairId) -> None:
        """Our half is void, or has been held for too long."""
        held = flow.held.get(pair)
        if held is not None:
            self._drop(held)
            self._context.channels.send_kept(flow.peer, messages.VoidPair(pair=pair))
            self._serve(flow.peer)

    def on_expired(self, pair: PairId) -> None:
        """A pair is void whose request has ended: if we hold its half, it is no more."""
        for flow in list(self._flows.values()):
            self.on_half_void(flow, pair)

    def on_grant_ended(self, grant: _EchoGrant) -> None:
        """No more pairs of this request."""
        flow = grant.flow
        self._context.end_request(grant.request, cancel=False)
        del flow.grants[grant.request]
        self._add_open(flow.peer, -grant.missing)
        if not flow.grants:
            for pair in flow.early:
                self._context.send(flow.peer, messages.VoidPair(pair=pair))
            flow.early.clear()
        self._forget_if_spent(flow)
        self._serve(flow.peer)

    def on_kept(self, peer: str, message: messages.KeptPairs) -> None:
        """Which pairs of a flow the opener has, when it ends."""
        flow = self._flows.get((peer, message.flow))
        if flow is not None:
            flow.kept = frozenset(message.pairs)

    def on_close(self, peer: str, flow_id: bytes) -> bool:
        """The opener has ended the flow; pairs it has can still be read. Whether it was one."""
        flow = self._flows.get((peer, flow_id))
        if flow is None:
            return False
        self._end_grants(flow)
        for held in list(flow.held.values()):
            if held.pair not in flow.kept:
                self._drop(held)
        self._serve(peer)
        return True

    def on_void_pair(self, peer: str, pair: PairId) -> None:
        """Nobody will ask about our half: free it, now or when it comes."""
        flows = [flow for flow in self._flows.values() if flow.peer == peer]
        for flow in flows:
            flow.early.pop(pair, None)
            held = flow.held.get(pair)
            if held is not None:
                self._drop(held)
                self._serve(peer)
                return
        if any(flow.grants for flow in flows):
            self._void.put((peer, pair), None)

    def resume(self, peer: str) -> None:
        """The channel is back: say again what has been credited."""
        for flow in list(self._flows.values()):
            if flow.peer == peer:
                for grant in flow.grants.values():
                    self._credit(grant)

    def on_peer_down(self, peer: str) -> None:
        """What is not credited yet will be offered again."""
        for flow in [flow for flow in self._flows.values() if flow.peer == peer]:
            flow.is_dormant = True
            self._forget_if_spent(flow)

    def on_peer_restarted(self, peer: str) -> None:
        """The opener knows nothing of its flows any more."""
        for flow in [flow for flow in self._flows.values() if flow.peer == peer]:
            self._end_grants(flow)
            for held in list(flow.held.values()):
                self._drop(held)

    def on_device_lost(self) -> None:
        """Our halves are gone."""
        for flow in list(self._flows.values()):
            for held in list(flow.held.values()):
                self._release(held)
                self._context.channels.send_kept(flow.peer, messages.VoidPair(pair=held.pair))

    def _serve(self, peer: str) -> None:
        """Credit what there is room for."""
        for flow in [flow for flow in self._flows.values() if flow.peer == peer]:
            room = ECHO_PAIRS_MAX - self._open_pairs.get(peer, 0)
            number = min(room, flow.uncredited)
            if number > 0 and not flow.is_dormant:
                flow.uncredited -= number
                self._add_open(peer, number)
                grant = _EchoGrant(self, flow, self._context.fresh_id(), number)
                flow.grants[grant.request] = grant
                self._context.use_request(grant.request, grant)
                self._credit(grant)

    def _credit(self, grant: _EchoGrant) -> None:
        credit = messages.CreditFlow(
            flow=grant.flow.id, request=grant.request, number=grant.number, basis=None
        )
        self._context.send(grant.flow.peer, credit)

    def _read(self, held: _Held, basis: Basis) -> None:
        if held.basis is None:
            held.basis = basis
            self._context.measure(held.qubit, basis, partial(self._on_read, held))

    def _on_read(self, held: _Held, answer: PhysicalAnswer | None) -> None:
        flow = held.flow
        if flow.held.get(held.pair) is not held:
            return
        assert held.basis is not None
        if isinstance(answer, physical.Measured):
            outcome = outcomes.flipped_bit(held.basis, answer.outcome, held.x_bit, held.z_bit)
            self._replies.put((flow.peer, held.pair), outcome)
            self._reply(flow.peer, flow.id, held.pair, outcome)
        else:
            self._context.channels.send_kept(flow.peer, messages.VoidPair(pair=held.pair))
        self._release(held)
        self._serve(flow.peer)

    def _reply(self, peer: str, flow: bytes, pair: PairId, outcome: int) -> None:
        self._context.send(peer, messages.EchoReply(flow=flow, pair=pair, outcome=outcome))

    def _drop(self, held: _Held) -> None:
        """Free a half, unless it is being read."""
        if held.basis is None:
            self._context.free(held.qubit)
        self._release(held)

    def _release(self, held: _Held) -> None:
        """The half is no longer ours."""
        self._context.cancel_timer(_key(held))
        del held.flow.held[held.pair]
        self._add_open(held.flow.peer, -1)
        self._forget_if_spent(held.flow)

    def _end_grants(self, flow: _EchoFlow) -> None:
        """No more pairs of this flow."""
        flow.uncredited = 0
        for grant in list(flow.grants.values()):
            self._context.end_request(grant.request, cancel=True)
            self._add_open(flow.peer, -grant.missing)
        flow.grants.clear()
        for pair in flow.early:
            self._context.send(flow.peer, messages.VoidPair(pair=pair))
        flow.early.clear()
        self._forget_if_spent(flow)

    def _forget_if_spent(self, flow: _EchoFlow) -> None:
        is_offered = flow.uncredited and not flow.is_dormant
        if not flow.grants and not flow.held and not is_offered:
            self._flows.pop((flow.peer, flow.id), None)

    def _add_open(self, peer: str, pairs: int) -> None:
        self._open_pairs[peer] = self._open_pairs.get(peer, 0) + pairs
        if not self._open_pairs[peer]:
            del self._open_pairs[peer]


def _key(held: _Held) -> str:
    return f"echo/{held.qubit.hex()}"
