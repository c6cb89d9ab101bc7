"""Requests of which this node is the tail: they come with FORWARD and end with COMPLETE.

Rules
1. The tail counts what it confirms and says done by itself; COMPLETE without error only checks.
2. When its circuit is lost, a request waits for the head to come back with another one: for
   RESUME_NS from when there is a way to a head that lives (one whose request ended meanwhile could
   not say so). It ends at its deadline in any case, and with PEER_DOWN if the head restarts or has
   gone. One whose pairs the link layer reads ends at once, as at the head.
3. A request ended here is unknown from then on: pairs the head still gives to it are refused
   with EXPIRE. (Within one path delay of a cancel or deadline the ends may so have disagreed on a
   pair: the end that had indicated it gets EndPairExpired.)
"""

from dataclasses import dataclass

from qstack.errors import ErrorCode, PeerError
from qstack.ids import PairId
from qstack.link.service import LinkMeasured
from qstack.network import service
from qstack.network.circuit import Circuit, Circuits
from qstack.network.end import Confirmed
from qstack.network.generation import Generation, is_direct
from qstack.network.link_state import LinkStateDatabase
from qstack.network.messages import Complete, Forward
from qstack.network.outbox import TRANSPORT, Outbox
from qstack.network.params import NEVER_NS, REQUESTS_MAX, RESUME_NS
from qstack.network.request_states import REQUEST, RequestInput, RequestState
from qstack.network.routing import best_path
from qstack.network.upward import end_measured, end_pair


@dataclass
class TailRequest:
    """A request at its tail. `target` is what `indicated` must reach."""

    request: bytes
    head: str
    head_boot: bytes | None
    deadline_ns: int
    state: RequestState = REQUEST.start
    circuit: bytes | None = None
    is_direct: bool = False
    target: int = 0
    indicated: int = 0
    resume_by_ns: int = 0
    has_way: bool = True  # to the head, when that was looked at last


class Tails:
    """All requests of which this node is the tail."""

    def __init__(self, database: LinkStateDatabase, out: Outbox) -> None:
        self._database = database
        self._out = out
        self._requests: dict[bytes, TailRequest] = {}
        self._circuits: Circuits
        self._generation: Generation

    def join(self, circuits: Circuits, generation: Generation) -> None:
        """Know the other parts of the machine, which know us."""
        self._circuits, self._generation = circuits, generation

    # --- from the head ---------------------------------------------------------------------------

    def on_forward(self, circuit: Circuit, forward: Forward) -> None:
        """A request begins, or goes on over a new circuit. Raises PeerError if it is open."""
        request = self._requests.get(forward.request)
        if request is None:
            if len(self._requests) >= REQUESTS_MAX:
                self._complete(circuit, forward.request, ErrorCode.NO_RESOURCES, "too many here")
                return
            request = TailRequest(
                forward.request,
                circuit.head,
                self._database.boot_of(circuit.head),
                forward.deadline_ns,
            )
            self._requests[forward.request] = request
            if forward.deadline_ns < NEVER_NS:
                self._out.set_timer(self._deadline(request), forward.deadline_ns, deadline=True)
        elif request.state is RequestState.OPEN or request.head != circuit.head:
            raise PeerError(ErrorCode.OUT_OF_STATE, "a request of this id is open")
        else:
            self._out.cancel_timer(self._resume(request))
        request.circuit = circuit.id
        request.is_direct = is_direct(circuit, forward)
        request.target = request.indicated + forward.number
        self._step(request, RequestInput.FORWARDED)
        self._generation.begin(circuit, forward)

    def on_complete(self, circuit: Circuit, complete: Complete) -> None:
        """The head has ended a request."""
        request = self._requests.get(complete.request)
        if request is None or request.circuit != circuit.id:
            self._generation.end(circuit, complete.request)
            return
        forward = circuit.requests[complete.request]
        if not complete.error and is_direct(circuit, forward):
            return  # the link layer may still have outcomes on their way to us
        error = ErrorCode.__members__.get(complete.error, ErrorCode.EXPIRED)
        detail = complete.detail if complete.error else "the head has seen more pairs"
        self._fail(request, RequestInput.ENDED, error, detail)

    def on_closed(self, circuit: Circuit) -> None:
        """A circuit has ended; its requests wait for the head to come back."""
        for request in list(self._requests.values()):
            if request.circuit == circuit.id:
                request.circuit = None
                if request.is_direct:
                    detail = "the circuit was lost while its pairs were read"
                    self._fail(request, RequestInput.ENDED, ErrorCode.PEER_DOWN, detail)
                    continue
                self._step(request, RequestInput.CIRCUIT_LOST)
                request.has_way = self._has_way(request)
                self._await_head(request)

    # --- from tracking (EndUser) -----------------------------------------------------------------

    def claim(self, circuit: Circuit) -> bytes | None:
        """The tail gives its pairs to nobody: the head decides."""
        raise AssertionError(f"the tail of circuit {circuit.id.hex()} was asked to claim")

    def is_open(self, circuit: Circuit, request: bytes) -> bool:
        """Whether pairs of the circuit may be confirmed for the request."""
        held = self._requests.get(request)
        return held is not None and held.circuit == circuit.id and held.indicated < held.target

    def on_unclaimed(self, request: bytes) -> None:
        """The tail counts confirmed pairs only."""

    def on_confirmed(self, circuit: Circuit, request: bytes, confirmed: Confirmed) -> None:
        """A pair of it is there."""
        held = self._requests[request]
        held.indicated += 1
        end_pair(self._out, circuit, circuit.requests[request], "tail", confirmed)
        self._check_done(circuit, held)

    def on_void(self, request: bytes, pair: PairId) -> None:
        """An indicated pair is void."""
        self._out.tell(TRANSPORT, service.EndPairExpired(request=request, pair=pair))

    def on_measured(self, circuit: Circuit, request: bytes, measured: LinkMeasured) -> None:
        """Pairs of a direct `measure` request."""
        held = self._requests[request]
        held.indicated += measured.pairs
        end_measured(self._out, circuit, circuit.requests[request], "tail", measured)
        self._check_done(circuit, held)

    # --- from above, timers, topology ------------------------------------------------------------

    def on_cancel(self, request_id: bytes) -> None:
        """The layer above withdraws a request."""
        request = self._requests.get(request_id)
        if request is not None:
            self._end_from_here(
                request, RequestInput.CANCELLED, ErrorCode.CANCELLED, "withdrawn by the tail"
            )

    def on_above_gone(self, detail: str) -> None:
        """Nobody is left who wants these pairs."""
        for request in list(self._requests.values()):
            self._end_from_here(request, RequestInput.CANCELLED, ErrorCode.LAYER_LOST, detail)

    def on_deadline(self, key: str) -> None:
        """The deadline timer; the head has its own."""
        request = self._requests.get(bytes.fromhex(key))
        if request is not None and request.deadline_ns <= self._out.now:
            self._fail(request, RequestInput.DEADLINE, ErrorCode.TIMEOUT, "the deadline passed")

    def on_resume(self, key: str) -> None:
        """The head has not come back in time."""
        request = self._requests.get(bytes.fromhex(key))
        if (
            request is not None
            and request.state is RequestState.WAITING
            and request.resume_by_ns <= self._out.now
        ):
            lives = self._database.has_channel(request.head)
            if not request.has_way and (lives or not self._database.is_isolated(request.head)):
                self._await_head(request, background=True)
                return
            self._fail(
                request, RequestInput.ENDED, ErrorCode.PEER_DOWN, "the circuit was lost for good"
            )

    def on_topology(self) -> None:
        """The link states have changed: a head that restarted has forgotten its requests."""
        for request in list(self._requests.values()):
            boot = self._database.boot_of(request.head)
            if request.head_boot is None:
                request.head_boot = boot
            elif boot is not None and boot != request.head_boot:
                self._fail(
                    request, RequestInput.ENDED, ErrorCode.PEER_DOWN, f"{request.head} restarted"
                )
            elif request.state is RequestState.WAITING:
                had_way, request.has_way = request.has_way, self._has_way(request)
                if request.has_way and not had_way:
                    self._await_head(request)

    def on_device_lost(self) -> None:
        """The device has gone: every request ends."""
        for request in list(self._requests.values()):
            self._end_from_here(
                request, RequestInput.ENDED, ErrorCode.DEVICE_LOST, "the device has gone"
            )

    # --- parts -----------------------------------------------------------------------------------

    def _has_way(self, request: TailRequest) -> bool:
        """Whether the head could come back on a new circuit, as far as is known here."""
        states = self._database.states()
        return best_path(states, self._out.node, request.head, "keep") is not None

    def _await_head(self, request: TailRequest, *, background: bool = False) -> None:
        request.resume_by_ns = self._out.now + RESUME_NS
        self._out.set_timer(self._resume(request), request.resume_by_ns, background=background)

    def _end_from_here(
        self, request: TailRequest, received: RequestInput, error: ErrorCode, detail: str
    ) -> None:
        circuit = self._circuits.get(request.circuit) if request.circuit is not None else None
        if circuit is not None:
            self._complete(circuit, request.request, error, detail)
        self._fail(request, received, error, detail)

    def _complete(self, circuit: Circuit, request: bytes, error: ErrorCode, detail: str) -> None:
        assert circuit.upstream is not None, "a tail has a neighbour"
        self._out.send(
            circuit.upstream,
            Complete(
                circuit=circuit.id,
                epoch=circuit.epoch,
                request=request,
                error=error.name,
                detail=detail,
            ),
        )

    def _check_done(self, circuit: Circuit, request: TailRequest) -> None:
        if request.indicated >= request.target:
            self._step(request, RequestInput.SATISFIED)
            self._out.tell(TRANSPORT, service.NetworkDone(request=request.request))
            self._forget(request, circuit)

    def _fail(
        self, request: TailRequest, received: RequestInput, error: ErrorCode, detail: str
    ) -> None:
        self._step(request, received)
        self._out.tell(
            TRANSPORT,
            service.NetworkFailed(
                request=request.request, error=error.name, detail=detail, best=None
            ),
        )
        circuit = self._circuits.get(request.circuit) if request.circuit is not None else None
        self._forget(request, circuit)

    def _forget(self, request: TailRequest, circuit: Circuit | None) -> None:
        if circuit is not None:
            self._generation.end(circuit, request.request)
        del self._requests[request.request]
        self._out.cancel_timer(self._deadline(request))
        if request.resume_by_ns:
            self._out.cancel_timer(self._resume(request))

    def _deadline(self, request: TailRequest) -> str:
        return f"network/deadline/tail/{request.request.hex()}"

    def _resume(self, request: TailRequest) -> str:
        return f"network/resume/{request.request.hex()}"

    def _step(self, request: TailRequest, received: RequestInput) -> None:
        request.state = REQUEST.step(request.state, received)
