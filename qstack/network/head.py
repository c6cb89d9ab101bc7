"""Requests of which this node is the head: from the layer above to a circuit and to their end.

Rules
1. A request is refused at once for what will not change: no such node, no path, a fidelity out of
   reach (with the best to be had), no time. Once accepted it keeps to its deadline: without a
   circuit it looks for one every RETRY_NS.
2. Pairs in tracking and confirmed never exceed the number asked for.
3. If the remote restarts, or nobody has a link with it any more, the request ends with PEER_DOWN.
   A link comes up, and goes, at one end before the other: for as long as the news of the second are
   on their way a remote that lives looks as if nobody had a link with it. So what is no neighbour
   must have looked so for ISOLATED_NS, and a neighbour whose channel stands lives.
4. A request whose pairs the link layer reads ends with its circuit: outcomes correspond by their
   place, and nobody knows how many the far end had been told of.
5. A circuit is shared by requests with the same remote that its predicted fidelity satisfies, and
   taken down when it has been idle for CIRCUIT_IDLE_NS.
"""

from dataclasses import dataclass
from typing import Protocol

from qstack.errors import ErrorCode
from qstack.ids import FreshIds, PairId
from qstack.link.service import LinkMeasured
from qstack.network import service
from qstack.network.circuit import Circuit, Circuits
from qstack.network.circuit_states import CircuitInput, CircuitState
from qstack.network.end import Confirmed
from qstack.network.generation import Generation, is_direct
from qstack.network.link_state import LinkStateDatabase
from qstack.network.messages import Complete, Forward, Install, LinkState
from qstack.network.outbox import TRANSPORT, Outbox
from qstack.network.params import (
    CIRCUIT_IDLE_NS,
    ISOLATED_NS,
    LATENESS_MAX,
    NEVER_NS,
    NUMBER_MAX,
    PROMISE_SLACK,
    REQUESTS_MAX,
    RETRY_NS,
)
from qstack.network.prediction import Chain, Plan, best_fidelity, plan, predict, probability
from qstack.network.request_states import REQUEST, RequestInput, RequestState
from qstack.network.route_query import route_answer
from qstack.network.routing import best_path, can_keep, chain_of
from qstack.network.upward import end_measured, end_pair
from qstack.physical.service import Kind

FINAL_ERRORS = (ErrorCode.FIDELITY, ErrorCode.UNSUPPORTED, ErrorCode.BAD_REQUEST)
"""Ends of a circuit that another try will not change; FIDELITY, unless it can be had elsewhere."""


@dataclass
class HeadRequest:
    """A request at its head."""

    create: service.NetworkCreate
    remote_boot: bytes
    state: RequestState = REQUEST.start
    circuit: bytes | None = None
    tracking: int = 0
    indicated: int = 0
    tries: int = 0
    is_retrying: bool = False  # the timer to look for a circuit again is armed
    isolated_since_ns: int | None = None  # since then nobody had a link with the remote
    reason: str = ""

    @property
    def needs(self) -> int:
        """How many more pairs it may be given."""
        return self.create.number - self.indicated - self.tracking


@dataclass(frozen=True)
class Refusal:
    """Why a request is not accepted."""

    error: ErrorCode
    detail: str
    best: float | None = None


@dataclass(frozen=True)
class Way:
    """A path, this node first, and the figures along it."""

    path: tuple[str, ...]
    chain: Chain


class Releases(Protocol):
    """The trackers, as far as requests need them."""

    def release(self, circuit: Circuit, request: bytes) -> None:
        """A request has ended: free the pairs it was given and that are not confirmed."""


class Heads:
    """All requests of which this node is the head."""

    def __init__(
        self,
        database: LinkStateDatabase,
        ids: FreshIds,
        cutoff_ns: int | None,
        out: Outbox,
    ) -> None:
        self._database = database
        self._ids = ids
        self._cutoff_ns = cutoff_ns
        self._out = out
        self._requests: dict[bytes, HeadRequest] = {}
        self._epoch = 0
        self._ways_of: dict[str, LinkState] = {}  # the link states `_ways` are of
        self._ways: dict[tuple[str, Kind], Way | None] = {}
        self._circuits: Circuits
        self._generation: Generation
        self._releases: Releases

    def join(self, circuits: Circuits, generation: Generation, releases: Releases) -> None:
        """Know the other parts of the machine, which know us."""
        self._circuits, self._generation, self._releases = circuits, generation, releases
        generation.join(self.needs)

    # --- from above ------------------------------------------------------------------------------

    def on_create(self, create: service.NetworkCreate) -> None:
        """A new request; it is accepted silently or refused with NetworkFailed."""
        if create.request in self._requests:
            # The caller's fault: an answer under this id would end the first one.
            self._out.record("request_repeated", request=create.request)
            return
        refusal = self._refusal(create) or self._no_plan(create)
        if refusal is not None:
            self._tell_failed(create.request, refusal.error, refusal.detail, refusal.best)
            return
        boot = self._database.boot_of(create.remote)
        assert boot is not None, "a planned remote has a link state"
        request = HeadRequest(create, boot)
        self._requests[create.request] = request
        if create.deadline_ns < NEVER_NS:
            self._out.set_timer(
                f"network/deadline/head/{_key(create)}", create.deadline_ns, deadline=True
            )
        self._place(request)

    def on_cancel(self, request_id: bytes) -> bool:
        """The layer above withdraws a request; returns whether it is one of ours."""
        request = self._requests.get(request_id)
        if request is not None:
            self._fail(request, RequestInput.CANCELLED, ErrorCode.CANCELLED, "withdrawn")
        return request is not None

    def on_above_gone(self, detail: str) -> None:
        """Nobody is left who wants these pairs."""
        for request in list(self._requests.values()):
            self._fail(request, RequestInput.CANCELLED, ErrorCode.LAYER_LOST, detail)

    def on_route_query(self, query: service.RouteQuery) -> None:
        """What could be had to a node."""
        states = self._database.states()
        self._out.tell(TRANSPORT, route_answer(states, self._out.node, query, self._cutoff_ns))

    # --- from circuits ---------------------------------------------------------------------------

    def on_active(self, circuit: Circuit) -> None:
        """A circuit of ours stands: requests that wait for it begin."""
        for request in list(self._requests.values()):
            if request.circuit == circuit.id and request.state is RequestState.WAITING:
                self._forward(circuit, request)
        self._check_idle(circuit)

    def on_closed(self, circuit: Circuit, error: ErrorCode, detail: str) -> None:
        """A circuit of ours has ended; its requests look for another one."""
        self._out.cancel_timer(idle_timer(circuit))
        for request in list(self._requests.values()):
            if request.circuit != circuit.id:
                continue
            request.circuit = None
            request.reason = f"{error.name}: {detail}"[:400]
            best = self._best(request) if error is ErrorCode.FIDELITY else None
            if request.state is RequestState.OPEN and _is_direct(circuit, request):
                self._fail(request, RequestInput.ENDED, error, detail, best=best)
                continue
            if request.state is RequestState.OPEN:
                self._step(request, RequestInput.CIRCUIT_LOST)
            can_be_had = best is not None and best >= request.create.min_fidelity
            if error in FINAL_ERRORS and not can_be_had:
                self._fail(request, RequestInput.ENDED, error, detail, best=best)
            elif not self._has_lost_remote(request):
                self._try_later(request)

    def on_complete(self, circuit: Circuit, complete: Complete) -> None:
        """The tail has ended a request."""
        request = self._requests.get(complete.request)
        if request is None or request.circuit != circuit.id:
            return
        error = ErrorCode.__members__.get(complete.error, ErrorCode.CANCELLED)
        self._fail(request, RequestInput.ENDED, error, complete.detail, is_told=True)

    # --- from tracking (EndUser) -----------------------------------------------------------------

    def claim(self, circuit: Circuit) -> bytes | None:
        """The oldest open request that still needs a pair."""
        for request_id, forward in circuit.requests.items():
            request = self._requests.get(request_id)
            if request is None or request.needs <= 0:
                continue
            if forward.kind == "keep" or not is_direct(circuit, forward):
                request.tracking += 1
                return request_id
        return None

    def is_open(self, circuit: Circuit, request: bytes) -> bool:
        """Whether the circuit carries the request."""
        return request in circuit.requests

    def on_unclaimed(self, request: bytes) -> None:
        """A pair of it was discarded before it was confirmed."""
        held = self._requests.get(request)
        if held is not None:
            held.tracking -= 1
            assert held.tracking >= 0, "a slot is freed once"
            circuit = self._circuits.get(held.circuit) if held.circuit is not None else None
            if circuit is not None and held.state is RequestState.OPEN:
                self._generation.have_pairs_made(circuit)

    def needs(self, circuit: Circuit) -> int:
        """How many more pairs its open requests may be given, those the link reads apart."""
        total = 0
        for name, forward in circuit.requests.items():
            request = self._requests.get(name)
            is_open = request is not None and request.state is RequestState.OPEN
            if request is not None and is_open and not is_direct(circuit, forward):
                total += request.needs
        return total

    def on_confirmed(self, circuit: Circuit, request: bytes, confirmed: Confirmed) -> None:
        """A pair of it is there."""
        held = self._requests[request]
        held.tracking -= 1
        held.indicated += 1
        end_pair(self._out, circuit, circuit.requests[request], "head", confirmed)
        self._check_done(circuit, held)

    def on_void(self, request: bytes, pair: PairId) -> None:
        """An indicated pair is void."""
        self._out.tell(TRANSPORT, service.EndPairExpired(request=request, pair=pair))

    def on_measured(self, circuit: Circuit, request: bytes, measured: LinkMeasured) -> None:
        """Pairs of a direct `measure` request."""
        held = self._requests[request]
        held.indicated += measured.pairs
        end_measured(self._out, circuit, circuit.requests[request], "head", measured)
        if held.needs <= 0:
            self._generation.direct_done(measured.request)
        self._check_done(circuit, held)

    # --- timers and topology ---------------------------------------------------------------------

    def on_deadline(self, key: str) -> None:
        """The deadline timer of a request."""
        request = self._requests.get(bytes.fromhex(key))
        if request is not None and request.create.deadline_ns <= self._out.now:
            self._fail(request, RequestInput.DEADLINE, ErrorCode.TIMEOUT, request.reason)

    def on_retry(self, key: str) -> None:
        """The retry timer of a request."""
        request = self._requests.get(bytes.fromhex(key))
        if request is None:
            return
        request.is_retrying = False
        if request.circuit is not None:
            return
        if self._has_long_been_isolated(request):
            self._fail(
                request, RequestInput.ENDED, ErrorCode.PEER_DOWN, "nobody has a link with it"
            )
        else:
            self._place(request)

    def on_topology(self) -> None:
        """The link states have changed."""
        for circuit in self._circuits:
            if circuit.chain is not None:
                self._check_promise(circuit, circuit.chain)
        for request in list(self._requests.values()):
            if not self._has_lost_remote(request) and request.circuit is None:
                self._place(request)

    def on_idle(self, circuit: Circuit) -> None:
        """The idle timer of a circuit."""
        if not circuit.requests and circuit.state is CircuitState.ACTIVE:
            self._circuits.close(circuit, CircuitInput.IDLE, ErrorCode.CLOSED, "idle")

    def on_device_lost(self) -> None:
        """The device has gone: every request ends."""
        for request in list(self._requests.values()):
            self._fail(request, RequestInput.ENDED, ErrorCode.DEVICE_LOST, "the device has gone")

    # --- parts -----------------------------------------------------------------------------------

    def _refusal(self, create: service.NetworkCreate) -> Refusal | None:
        """What is wrong with the request itself."""
        bad = ErrorCode.BAD_REQUEST
        has_bases = create.basis is not None and create.remote_basis is not None
        has_no_basis = create.basis is None and create.remote_basis is None
        if create.remote == self._out.node:
            return Refusal(bad, "a node has no pairs with itself")
        if not 1 <= create.number <= NUMBER_MAX:
            return Refusal(bad, f"{create.number} pairs: at least 1, at most {NUMBER_MAX}")
        if not (has_bases if create.kind == "measure" else has_no_basis):
            return Refusal(bad, "two bases go with kind measure, none with kind keep")
        if create.deadline_ns <= self._out.now:
            return Refusal(ErrorCode.NO_TIME, "the deadline has passed")
        if self._database.capability is None:
            return Refusal(ErrorCode.DEVICE_LOST, "no quantum device here")
        if len(self._requests) >= REQUESTS_MAX:
            return Refusal(ErrorCode.NO_RESOURCES, f"{REQUESTS_MAX} requests are open")
        if create.remote not in self._database.states():
            return Refusal(ErrorCode.UNKNOWN_NODE, create.remote)
        return None

    def _no_plan(self, create: service.NetworkCreate) -> Refusal | None:
        """Why the network as it is now cannot serve the request."""
        way = self._way(create.remote, create.kind)
        if way is None:
            return self._no_wait(create)
        found = plan(way.chain, create.min_fidelity, self._cutoff_ns)
        if found is None:
            best = probability(best_fidelity(way.chain, self._cutoff_ns))
            return Refusal(
                ErrorCode.FIDELITY, f"asked for {create.min_fidelity:.4f}, best {best:.4f}", best
            )
        left_s = (create.deadline_ns - self._out.now) / 1e9
        if found.rate_hz * left_s * LATENESS_MAX < create.number:
            return Refusal(
                ErrorCode.NO_TIME,
                f"{create.number} pairs in {left_s:.3g} s: about {found.rate_hz:.3g} pairs/s",
            )
        return None

    def _no_wait(self, create: service.NetworkCreate) -> Refusal | None:
        """Why a request without a path is not to wait for a link to its remote to open."""
        closed = self._database.closed_link(create.remote)
        if closed is None or create.kind not in closed.kinds:
            return Refusal(ErrorCode.NO_PATH, f"no path to {create.remote}")
        if closed.best_fidelity < create.min_fidelity:
            best = closed.best_fidelity
            detail = f"asked for {create.min_fidelity:.4f}, best {best:.4f}"
            return Refusal(ErrorCode.FIDELITY, detail, best)
        if create.deadline_ns <= closed.opens_ns:
            detail = f"the link to {create.remote} opens at {closed.opens_ns} ns"
            return Refusal(ErrorCode.NO_TIME, detail)
        return None

    def _best(self, request: HeadRequest) -> float | None:
        """The fidelity that could be had now, on the way that is best now."""
        way = self._way(request.create.remote, request.create.kind)
        return None if way is None else probability(best_fidelity(way.chain, self._cutoff_ns))

    def _way(self, remote: str, kind: Kind) -> Way | None:
        """The best way to `remote`; found once for as long as no link state changes."""
        states = self._database.states()
        if states != self._ways_of:  # the same objects are equal at once
            self._ways_of = states
            self._ways.clear()
        if (remote, kind) not in self._ways:
            path = best_path(states, self._out.node, remote, kind)
            chain = chain_of(states, path) if path is not None else None
            self._ways[remote, kind] = (
                Way(path, chain) if path is not None and chain is not None else None
            )
        return self._ways[remote, kind]

    def _place(self, request: HeadRequest) -> None:
        """Put a request on a circuit, a new one if need be, or try again later."""
        create = request.create
        for circuit in self._circuits:
            if self._suits(circuit, create):
                request.circuit = circuit.id
                if circuit.state is CircuitState.ACTIVE:
                    self._forward(circuit, request)
                return
        way = self._way(create.remote, create.kind)
        found = plan(way.chain, create.min_fidelity, self._cutoff_ns) if way is not None else None
        if way is None or found is None or not self._database.is_adjacent(way.path[1]):
            request.reason = request.reason or "no path at the moment"
            self._try_later(request)
            return
        circuit = self._circuits.install(
            self._install(way.path, found),
            can_keep=can_keep(self._database.states(), way.path),
        )
        circuit.chain = way.chain
        request.circuit = circuit.id

    def _check_promise(self, circuit: Circuit, before: Chain) -> None:
        """End a circuit whose links have taken back what its fidelity was promised for."""
        install = circuit.install
        chain = chain_of(self._database.states(), tuple(install.route))
        if chain is None or chain == before:
            return  # a link that has gone ends it otherwise
        circuit.chain = chain
        kept, _ = predict(chain, install.cutoff_ns, install.link_min_fidelity)
        circuit.fidelity = min(kept, install.fidelity)
        promised = install.fidelity - PROMISE_SLACK
        if circuit.requests and all(is_direct(circuit, r) for r in circuit.requests.values()):
            # Outcomes carry the link's estimate of their time: what was asked for is promised.
            open_here = [self._requests.get(each) for each in circuit.requests]
            asked = [each.create.min_fidelity for each in open_here if each is not None]
            promised = min(promised, max(asked, default=promised))
        if kept < promised:
            detail = f"the links of the path keep {kept:.4f} now, not {promised:.4f}"
            self._circuits.close(circuit, CircuitInput.LOST, ErrorCode.FIDELITY, detail)

    def _install(self, path: tuple[str, ...], found: Plan) -> Install:
        self._epoch += 1
        return Install(
            circuit=self._ids.fresh(),
            epoch=self._epoch,
            route=list(path),
            cutoff_ns=found.cutoff_ns,
            link_min_fidelity=probability(found.link_min_fidelity),
            fidelity=probability(found.fidelity),
        )

    def _suits(self, circuit: Circuit, create: service.NetworkCreate) -> bool:
        needs_keep = create.kind == "keep" or not circuit.is_single_link
        if create.kind == "measure" and not circuit.is_single_link:
            # A link that only measures may have come, or been there beside a circuit that keeps.
            way = self._way(create.remote, create.kind)
            if way is not None and way.chain.is_read_at_once:
                return False
        return (
            circuit.upstream is None
            and circuit.tail == create.remote
            and circuit.fidelity >= create.min_fidelity
            and (not needs_keep or (circuit.can_keep and not circuit.is_worse))
        )

    def _forward(self, circuit: Circuit, request: HeadRequest) -> None:
        create = request.create
        self._step(request, RequestInput.FORWARDED)
        request.tries, request.isolated_since_ns = 0, None
        if not circuit.requests:
            self._out.cancel_timer(idle_timer(circuit))
        forward = Forward(
            circuit=circuit.id,
            epoch=circuit.epoch,
            request=create.request,
            purpose=create.purpose,
            kind=create.kind,
            number=request.needs,
            deadline_ns=create.deadline_ns,
            priority=create.priority,
            basis=create.basis,
            remote_basis=create.remote_basis,
        )
        assert circuit.downstream is not None, "a head has a neighbour"
        self._out.send(circuit.downstream, forward)
        self._generation.begin(circuit, forward)

    def _try_later(self, request: HeadRequest) -> None:
        # Without a deadline only news of the topology help: do not hold the clock for them.
        is_to_be_judged = request.isolated_since_ns is not None
        is_idle = (
            request.tries > 0 and request.create.deadline_ns >= NEVER_NS and not is_to_be_judged
        )
        retry_ns = self._out.now + RETRY_NS
        closed = self._database.closed_link(request.create.remote)
        if closed is not None:  # nothing else is to be expected before it opens
            is_idle, retry_ns = False, max(retry_ns, closed.opens_ns)
        request.tries += 1
        request.is_retrying = True
        self._out.set_timer(f"network/retry/{_key(request.create)}", retry_ns, background=is_idle)

    def _has_lost_remote(self, request: HeadRequest) -> bool:
        """Fail the request if its remote is not what it was."""
        remote = request.create.remote
        boot = self._database.boot_of(remote)
        if boot is not None and boot != request.remote_boot:
            detail = f"{remote} has restarted"
        elif boot is None or (
            self._database.has_lost(remote) and self._database.is_isolated(remote)
        ):
            detail = f"{remote} has gone"
        else:
            return False
        self._fail(request, RequestInput.ENDED, ErrorCode.PEER_DOWN, detail)
        return True

    def _has_long_been_isolated(self, request: HeadRequest) -> bool:
        """Whether nobody has a link with the remote, and that is no link half up or half down."""
        remote = request.create.remote
        if self._database.has_channel(remote) or not self._database.is_isolated(remote):
            request.isolated_since_ns = None
            return False
        if request.isolated_since_ns is None:
            request.isolated_since_ns = self._out.now
        return self._out.now >= request.isolated_since_ns + ISOLATED_NS

    def _check_done(self, circuit: Circuit, request: HeadRequest) -> None:
        if request.create.number > request.indicated:
            return
        self._step(request, RequestInput.SATISFIED)
        self._out.tell(TRANSPORT, service.NetworkDone(request=request.create.request))
        self._leave(request, circuit, "", "")

    def _fail(
        self,
        request: HeadRequest,
        received: RequestInput,
        error: ErrorCode,
        detail: str,
        *,
        best: float | None = None,
        is_told: bool = False,
    ) -> None:
        """End a request; `is_told`: the tail knows already."""
        was_open = request.state is RequestState.OPEN
        self._step(request, received)
        self._tell_failed(request.create.request, error, detail, best)
        circuit = self._circuits.get(request.circuit) if request.circuit is not None else None
        if circuit is not None and was_open:
            self._releases.release(circuit, request.create.request)
            self._leave(request, circuit, error.name, detail, is_told=is_told)
        else:
            self._forget(request)
            if circuit is not None:
                self._check_idle(circuit)

    def _leave(
        self,
        request: HeadRequest,
        circuit: Circuit,
        error: str,
        detail: str,
        *,
        is_told: bool = False,
    ) -> None:
        """Take an ended request off its circuit."""
        self._generation.end(circuit, request.create.request, is_served=not error)
        if not is_told and circuit.downstream is not None:
            self._out.send(
                circuit.downstream,
                Complete(
                    circuit=circuit.id,
                    epoch=circuit.epoch,
                    request=request.create.request,
                    error=error,
                    detail=detail[:500],
                ),
            )
        self._forget(request)
        self._check_idle(circuit)

    def _forget(self, request: HeadRequest) -> None:
        del self._requests[request.create.request]
        self._out.cancel_timer(f"network/deadline/head/{_key(request.create)}")
        if request.is_retrying:
            self._out.cancel_timer(f"network/retry/{_key(request.create)}")

    def _check_idle(self, circuit: Circuit) -> None:
        if not circuit.requests and circuit.state is CircuitState.ACTIVE:
            self._out.set_timer(
                idle_timer(circuit), self._out.now + CIRCUIT_IDLE_NS, background=True
            )

    def _tell_failed(
        self, request: bytes, error: ErrorCode, detail: str, best: float | None
    ) -> None:
        self._out.tell(
            TRANSPORT,
            service.NetworkFailed(
                request=request, error=error.name, detail=detail[:500], best=best
            ),
        )

    def _step(self, request: HeadRequest, received: RequestInput) -> None:
        request.state = REQUEST.step(request.state, received)


def _is_direct(circuit: Circuit, request: HeadRequest) -> bool:
    """Whether the link layer reads the pairs of this request."""
    return request.create.kind == "measure" and circuit.is_single_link


def idle_timer(circuit: Circuit) -> str:
    """The key of a circuit's idle timer."""
    return f"network/idle/{circuit.id.hex()}"


def _key(create: service.NetworkCreate) -> str:
    return create.request.hex()
