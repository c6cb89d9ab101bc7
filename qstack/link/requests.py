"""Requests of both ends of a link: how they come into the shared queue, and how they leave it.

Rules
1. A request accepted here ends here once, with LinkDone or LinkFailed.
2. A request that ends by its deadline or by the loss of the link ends at both ends without a
   message. One that is withdrawn ends at the far end by Remove.
3. An answer about a request that has ended here is late, not wrong: it is ignored.
4. The end that asks attempts from `start_ns` on, whether or not it has the answer by then: a herald
   needs both ends, so attempts the far end does not join are lost, and nothing else is.
"""

from qstack.errors import ErrorCode
from qstack.link import messages, service
from qstack.link.batches import Batches
from qstack.link.forecast import hopeless
from qstack.link.halves import can_be_compared
from qstack.link.held import AGE_TIMER, Held, HeldPairs
from qstack.link.outbox import ABOVE, Outbox, name_of
from qstack.link.params import NUMBER_MAX, REQUESTS_MAX, START_AHEAD_MAX_NS, START_ALLOWANCE_NS
from qstack.link.peer import Peer
from qstack.link.queue import Place, Request
from qstack.link.reading import reading_problem
from qstack.link.request_states import Input, State
from qstack.physical import service as physical
from qstack.physical.service import GenerationOption

DEADLINE_TIMER = "deadline/"
DETAIL_MAX = 500  # characters of a message's text
Refusal = tuple[ErrorCode, str, float | None]


class Requests:
    """The requests of all links of a node."""

    def __init__(self, peers: dict[str, Peer], batches: Batches, out: Outbox) -> None:
        self._peers = peers
        self._batches = batches
        self._out = out
        self.held = HeldPairs(out)

    # --- from above ------------------------------------------------------------------------------

    def create(self, create: service.LinkCreate, now: int) -> None:
        """The network layer asks for pairs."""
        peer = self._peers.get(create.peer)
        if peer is None:
            return self._out.tell_failed(
                create.request, create.purpose, ErrorCode.UNKNOWN_NODE, "not a neighbour"
            )
        refusal = self._refusal(peer, create, now)
        if refusal is not None:
            return self._out.tell_failed(create.request, create.purpose, *refusal)
        assert peer.capability is not None
        start_ns = now + 2 * peer.capability.delay_ns + START_ALLOWANCE_NS
        given = peer.take_place() if peer.is_master else None
        request = self._open(peer, create, start_ns, given)
        add = messages.Add(
            request=create.request,
            queue_number=given.queue_number if given is not None else None,
            virtual_ns=given.virtual_ns if given is not None else None,
            purpose=create.purpose,
            kind=create.kind,
            number=create.number,
            min_fidelity=create.min_fidelity,
            deadline_ns=create.deadline_ns,
            priority=create.priority,
            basis=create.peer_basis,
            peer_basis=create.basis if create.kind == "measure" else None,
            start_ns=start_ns,
            device=peer.peer_device,
            atomic=create.atomic,
            consecutive=create.consecutive,
            bright_state=request.option.bright_state,
            rotation=create.peer_rotation,
            is_tested=request.is_tested,
        )
        self._out.send(peer.name, add)
        return self._batches.start_later(peer, now)

    def cancel(self, request_id: bytes, now: int) -> None:
        """The network layer withdraws a request, its own or the far end's."""
        found = self._find(request_id)
        if found is not None:  # else it has ended, which was said
            self._withdraw(*found, ErrorCode.CANCELLED, "withdrawn", now)

    def unlisten(self, peer: Peer, purpose: bytes, now: int) -> None:
        """Accept no more requests for `purpose`, and withdraw those open."""
        peer.purposes.pop(purpose, None)
        for request in list(peer.requests.values()):
            if request.purpose == purpose:
                self.cancel(request.id, now)

    def forget_above(self, peer: Peer, now: int) -> None:
        """The network layer has gone: nobody listens, and nobody wants what was asked for."""
        peer.purposes.clear()
        peer.forget_pairs()
        for request in list(peer.requests.values()):
            self._withdraw(
                peer, request, ErrorCode.LAYER_LOST, f"the network layer of {peer.node}", now
            )

    # --- from the far end ------------------------------------------------------------------------

    def on_add(self, peer: Peer, add: messages.Add, now: int) -> None:
        """The far end asks."""
        given: Place | None = None
        if add.queue_number is not None and add.virtual_ns is not None:
            given = Place(add.queue_number, add.virtual_ns)
        if {add.queue_number is None, add.virtual_ns is None} != {peer.is_master}:
            why = "the place is the master's to give"
            return self._out.refuse(peer.name, add, ErrorCode.OUT_OF_STATE, why)
        if self._find(add.request) is not None:
            why = "a request of this id is open"
            return self._out.refuse(peer.name, add, ErrorCode.OUT_OF_STATE, why)
        if add.start_ns > now + START_AHEAD_MAX_NS:  # the clock would run there for it
            why = f"attempts begin a round trip from now, not at {add.start_ns} ns"
            return self._out.refuse(peer.name, add, ErrorCode.INVALID, why)
        refusal = self._refusal(peer, add, now)
        if refusal is None and add.purpose not in peer.purposes:
            refusal = ErrorCode.REJECTED, "nobody listens for this purpose", None
        if add.device != peer.devices:
            refusal = ErrorCode.DEVICE_LOST, "the device went, and came back", None
        if refusal is not None:
            error, detail, best = refusal
            rejected = messages.AddRejected(
                request=add.request, error=error.name, detail=detail, best=best
            )
            return self._out.send(peer.name, rejected)
        given = given if given is not None else peer.take_place()
        request = self._open(peer, add, add.start_ns, given)
        accepted = messages.AddAccepted(
            request=add.request, queue_number=given.queue_number, virtual_ns=given.virtual_ns
        )
        self._out.send(peer.name, accepted)
        request.step(Input.ACCEPTED)
        self._batches.start_later(peer, now)
        return self._batches.start(peer, now)

    def on_accepted(self, peer: Peer, message: messages.AddAccepted, now: int) -> None:
        """The far end has given our request its place."""
        request = peer.requests.get(message.request)
        if request is None:
            return
        given = Place(message.queue_number, message.virtual_ns)
        if request.state is not State.ADDING or request.given not in (None, given):
            why = "the request has another place already"
            self._out.refuse(peer.name, message, ErrorCode.OUT_OF_STATE, why)
            return
        request.given = given
        request.step(Input.ACCEPTED)
        self._batches.start(peer, now)

    def on_rejected(self, peer: Peer, message: messages.AddRejected, now: int) -> None:
        """The far end does not take our request."""
        request = peer.requests.get(message.request)
        if request is None:
            return
        if request.state is not State.ADDING or request.served:
            why = "the request was accepted before"
            self._out.refuse(peer.name, message, ErrorCode.OUT_OF_STATE, why)
            return
        detail = f"{peer.name}: {message.detail}"[:DETAIL_MAX]
        self.fail(peer, request, Input.REFUSED, message.error, detail, message.best)
        self._batches.start(peer, now)

    def on_remove(self, peer: Peer, message: messages.Remove, now: int) -> None:
        """The far end has withdrawn a request, its own or ours."""
        request = peer.requests.get(message.request)
        if request is None:
            return
        self.fail(peer, request, Input.WITHDRAWN, message.error, message.detail)
        self._batches.start(peer, now)

    # --- the end ---------------------------------------------------------------------------------

    def on_deadline(self, request_id: bytes, now: int) -> None:
        """The time of a request is over."""
        found = self._find(request_id)
        if found is None or found[1].deadline_ns > now:
            return
        peer, request = found
        detail = f"{request.served} pairs came before the deadline"
        if request.too_old:
            detail += f", {request.too_old} more grew too old while they waited"
        self.fail(peer, request, Input.DEADLINE, ErrorCode.TIMEOUT, detail)
        self._batches.start(peer, now)

    def on_aged(self, request_id: bytes, now: int) -> None:
        """Pairs that wait may have grown too old."""
        found = self._find(request_id)
        if found is not None:
            self.held.time_passed(*found, now)
            self._batches.start(found[0], now)

    def refused_below(self, peer: Peer, request: Request, now: int) -> None:
        """The device does not run the link as the request needs it."""
        self._withdraw(peer, request, ErrorCode.UNSUPPORTED, "the device refuses the attempts", now)

    def end_all(self, peer: Peer, error: ErrorCode, detail: str) -> None:
        """The link has gone."""
        for request in list(peer.requests.values()):
            self.fail(peer, request, Input.LINK_LOST, error, detail)

    def offers_changed(self, peer: Peer, now: int) -> None:
        """The options of a link promise something else (test rounds, clocks, a pass), at both ends.

        A request whose option does not keep its fidelity any more goes on with another one that
        does, or ends. Neither is said: the far end does the same when it hears of the offers.
        """
        for request in list(peer.requests.values()):
            option = peer.option_of(request.option.bright_state)
            if option is not None and option.bell_probabilities[0] >= request.min_fidelity:
                request.option = option
            elif (other := peer.option_for(request.min_fidelity)) is not None:
                request.option = other
                self._batches.stop_all(request)
            else:
                best = peer.best_fidelity
                detail = f"{request.min_fidelity:.4f} > {best:.4f}, which is less than before"
                self.fail(peer, request, Input.WITHDRAWN, ErrorCode.FIDELITY, detail, best)
        self._batches.start(peer, now)

    def indicate(self, peer: Peer, request: Request, pairs: Held, emitted_at_ns: int) -> None:
        """Tell of pairs, or hold them back."""
        if request.consecutive:
            self._tell(peer, request, pairs)
        else:
            self.held.hold(peer, request, pairs, emitted_at_ns)

    def tell_pair(self, peer: Peer, sequence: int, pair: service.LinkPair) -> None:
        """Tell of a pair to keep; its qubit goes with it."""
        peer.remember(sequence, pair.pair, pair.purpose)
        self._out.tell_below(physical.Transfer(call=None, qubit=pair.qubit, to=ABOVE))
        self._out.tell_above(pair)

    def finish_if_served(self, peer: Peer, request: Request) -> None:
        """End a request whose last pair has come."""
        if request.is_served:
            for pairs in request.held:
                self._tell(peer, request, pairs)
            request.step(Input.SERVED)
            self._close(peer, request)
            done = service.LinkDone(request=request.id, purpose=request.purpose)
            self._out.tell_above(done)

    def fail(
        self,
        peer: Peer,
        request: Request,
        received: Input,
        error: ErrorCode | str,
        detail: str,
        best: float | None = None,
    ) -> None:
        """End a request without its pairs."""
        request.step(received)
        self._close(peer, request)
        self.held.give_back(peer, request)
        self._out.tell_failed(request.id, request.purpose, name_of(error), detail, best)

    def _withdraw(
        self, peer: Peer, request: Request, error: ErrorCode, detail: str, now: int
    ) -> None:
        """End a request at both ends."""
        remove = messages.Remove(request=request.id, error=error.name, detail=detail)
        self._out.send(peer.name, remove)
        self.fail(peer, request, Input.WITHDRAWN, error, detail)
        self._batches.start(peer, now)

    def _tell(self, peer: Peer, request: Request, pairs: Held) -> None:
        sequence, indication, _ = pairs
        if isinstance(indication, service.LinkPair):
            self.tell_pair(peer, sequence, indication)
            return
        if request.kind == "prepare":  # the far end keeps a qubit of it
            peer.remember(sequence, indication.first_pair, indication.purpose)
        self._out.tell_above(indication)

    # --- parts -----------------------------------------------------------------------------------

    def _refusal(
        self, peer: Peer, asked: service.LinkCreate | messages.Add, now: int
    ) -> Refusal | None:
        """Why a request cannot be taken here, or None: the same checks at both ends."""
        if not peer.is_up:
            return ErrorCode.PEER_DOWN, f"the link to {peer.name} is down", None
        if self._find(asked.request) is not None:
            return ErrorCode.BAD_REQUEST, "a request of this id is open", None
        assert peer.capability is not None, "a link that is up has a capability"
        if asked.kind not in peer.capability.kinds:
            return ErrorCode.UNSUPPORTED, f"this link does not {asked.kind}", None
        if asked.number is not None and asked.number > NUMBER_MAX:
            return ErrorCode.BAD_REQUEST, f"{asked.number} pairs, at most {NUMBER_MAX}", None
        if (
            isinstance(asked, messages.Add)
            and asked.is_tested
            and not (asked.kind == "measure" and peer.test_share)
        ):
            return ErrorCode.BAD_REQUEST, "there are no test rounds of these pairs", None
        problem = reading_problem(asked)
        if problem:
            return ErrorCode.BAD_REQUEST, problem, None
        if asked.number is None and (asked.atomic or not asked.consecutive):
            return ErrorCode.BAD_REQUEST, "atomic, or all at the end, needs a number", None
        is_held = asked.kind != "measure" and not asked.consecutive
        if is_held and asked.number is not None and asked.number > peer.slots:
            detail = f"{asked.number} pairs at once, {peer.slots} fit"
            return ErrorCode.NO_RESOURCES, detail, None
        if asked.deadline_ns <= now:
            return ErrorCode.NO_TIME, "the deadline has passed", None
        option = _option(peer, asked)
        if option is None:
            best = peer.best_fidelity
            return ErrorCode.FIDELITY, f"{asked.min_fidelity:.4f} > {best:.4f}", best
        opens_ns = max(now, peer.capability.opens_ns)
        if asked.deadline_ns <= opens_ns:
            return ErrorCode.NO_TIME, f"there is no satellite before {opens_ns} ns", None
        too_long = hopeless(peer, option, asked.kind, asked.number, asked.deadline_ns - opens_ns)
        if too_long is not None:
            return ErrorCode.NO_TIME, too_long, None
        if len(peer.requests) >= REQUESTS_MAX:
            return ErrorCode.NO_RESOURCES, f"{REQUESTS_MAX} requests are open", None
        return None

    def _open(
        self,
        peer: Peer,
        asked: service.LinkCreate | messages.Add,
        start_ns: int,
        given: Place | None,
    ) -> Request:
        option = _option(peer, asked)
        assert option is not None, "checked before"
        request = Request(
            id=asked.request,
            purpose=asked.purpose,
            kind=asked.kind,
            number=asked.number,
            min_fidelity=asked.min_fidelity,
            deadline_ns=asked.deadline_ns,
            priority=asked.priority,
            basis=asked.basis,
            rotation=asked.rotation,
            is_tested=_is_tested(peer, asked, option),
            option=option,
            atomic=asked.atomic,
            consecutive=asked.consecutive,
            start_ns=start_ns,
            given=given,
            cost_ns=peer.cost_ns(asked.kind, option, asked.priority),
            floor=None if asked.consecutive else asked.min_fidelity,
        )
        peer.requests[request.id] = request
        peer.sated_until_ns = 0
        key = DEADLINE_TIMER + request.id.hex()
        self._out.set_timer(key, request.deadline_ns, deadline=True)
        return request

    def _close(self, peer: Peer, request: Request) -> None:
        """Forget the request; its batches are stopped, and answered later by number."""
        del peer.requests[request.id]
        self._batches.stop_all(request)
        self._out.cancel_timer(DEADLINE_TIMER + request.id.hex())
        if request.floor is not None:
            self._out.cancel_timer(AGE_TIMER + request.id.hex())

    def _find(self, request_id: bytes) -> tuple[Peer, Request] | None:
        """An open request; an id is open on one link at most."""
        for peer in self._peers.values():
            request = peer.requests.get(request_id)
            if request is not None:
                return peer, request
        return None


def _is_tested(
    peer: Peer, asked: service.LinkCreate | messages.Add, option: GenerationOption
) -> bool:
    """Whether pairs of a request are sacrificed to test rounds of measured pairs."""
    if isinstance(asked, messages.Add):
        return asked.is_tested
    if not peer.test_share or option.measured_round is None:
        return False
    if asked.kind != "measure" or asked.basis is None or asked.peer_basis is None:
        return False
    return can_be_compared(asked.basis, asked.peer_basis, (asked.rotation, asked.peer_rotation))


def _option(peer: Peer, asked: service.LinkCreate | messages.Add) -> GenerationOption | None:
    """How to run the link for a request: our choice, or that of the end that asked, if it keeps."""
    if isinstance(asked, service.LinkCreate):
        return peer.option_for(asked.min_fidelity)
    option = peer.option_of(asked.bright_state)
    keeps = option is not None and option.bell_probabilities[0] >= asked.min_fidelity
    return option if keeps else None
