"""Which requests the link works for at this moment: batches of attempts, started and stopped.

Rules
1. A batch is begun whenever there is a slot, and a request that wants it. It ends when the physical
   layer says so, and is known by number until then: its request may have ended long before.
2. Two ends that chose differently (a message or a herald was on its way) would attempt past each
   other for ever. So while two requests are open, both ends look again at the same network times
   and stop what the shared queue does not choose.
3. A batch belongs to the life of the peer it was begun in. What comes of it later is freed and
   nobody told: herald sequences of the peer's next life count anew.
4. A pair that comes for its request is one batch less and one pair less to come. So while every
   request has all the batches it wants (`sated`) nothing can begin, and nobody is looked for.
"""

from msgspec import Struct

from qstack.link.outbox import Outbox
from qstack.link.params import CHOICE_NS, FAIR_PAIRS
from qstack.link.peer import Peer
from qstack.link.queue import Request, sated_until_ns, turns
from qstack.physical import service as physical
from qstack.physical.service import GenerationOption

START_TIMER = "start/"
CHOICE_TIMER = "choice/"


class Batch(Struct, frozen=True, eq=False):
    """A batch the physical layer has still to answer: for whom, how, in which life of the peer."""

    number: int
    kind: physical.AttemptKind
    peer: Peer
    peer_boot_id: bytes
    request_id: bytes
    option: GenerationOption

    @property
    def request(self) -> Request | None:
        """Its request, if that is still being served."""
        request = self.peer.requests.get(self.request_id)
        return request if request is not None and self.number in request.batches else None

    @property
    def is_current(self) -> bool:
        """Whether the link works, and the peer is still in the life the batch was begun in."""
        return self.peer.peer_boot_id == self.peer_boot_id and self.peer.is_up


class Batches:
    """All batches of a node that are open at the physical layer."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._open: dict[int, Batch] = {}
        self._next = 0

    def find(self, number: int) -> Batch | None:
        """The open batch of that number."""
        return self._open.get(number)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def are_open(self, peer: Peer) -> bool:
        """Whether the physical layer has still to answer batches on the link to `peer`."""
        return any(batch.peer is peer for batch in self._open.values())

    def end(self, number: int) -> tuple[Batch | None, Request | None]:
        """The physical layer has given its last answer; the request, if it is still served."""
        batch = self._open.pop(number, None)
        if batch is None:
            return None, None
        request = batch.peer.requests.get(batch.request_id)
        if request is None or number not in request.batches:
            return batch, None
        del request.batches[number]
        return batch, request

    def forget_all(self) -> None:
        """The physical layer has gone, and will answer none of them."""
        for batch in self._open.values():
            if (request := batch.request) is not None:
                del request.batches[batch.number]
                batch.peer.sated_until_ns = 0
        self._open.clear()

    def start(self, peer: Peer, now: int) -> None:
        """Begin as many batches as there are slots and requests that want them."""
        requests = peer.requests
        if requests and peer.may_attempt:
            running = {request.id: len(request.batches) for request in requests.values()}
            free = peer.room - sum(running.values())
            for request in turns(requests, running, free, now):
                self._begin(peer, request)
        peer.sated_until_ns = sated_until_ns(requests, now)
        if len(peer.requests) > 1 and not peer.is_choice_due:
            self._watch_choice(peer, now)

    def start_later(self, peer: Peer, now: int) -> None:
        """Begin what may not begin yet when its time has come."""
        later = [r.start_ns for r in peer.requests.values() if r.start_ns > now]
        if later:
            self._out.set_timer(START_TIMER + peer.name, min(later))

    def stop_all(self, request: Request) -> None:
        """Its request has ended."""
        for number in request.batches:
            self._out.tell_below(physical.AttemptsStop(batch=number))

    def choose_again(self, peer: Peer, now: int) -> None:
        """Stop what both ends, looking at the queue alone, would not have begun (rule 2)."""
        peer.is_choice_due = False
        if peer.is_up:
            chosen = dict.fromkeys(peer.requests, 0)  # who would have how many
            turns(peer.requests, chosen, peer.room, now)
            for request in peer.requests.values():
                for number in list(request.batches)[chosen[request.id] :]:
                    self._out.tell_below(physical.AttemptsStop(batch=number))
        self.start(peer, now)

    def _begin(self, peer: Peer, request: Request) -> None:
        assert peer.capability is not None
        assert peer.peer_boot_id is not None
        number, self._next = self._next, self._next + 1
        kind, option, pairs = request.kind, request.option, 1
        batch = Batch(number, kind, peer, peer.peer_boot_id, request.id, option)
        self._open[number] = batch
        if kind == "measure":
            pairs = request.wanted or 1
            if request.cost_ns is not None:
                pairs = min(pairs, FAIR_PAIRS)  # it has the link until it ends
        request.batches[number] = None
        self._out.tell_below(
            physical.AttemptsStart(
                batch=number,
                link=peer.capability.link,
                token=request.id,
                kind=kind,
                bright_state=option.bright_state,
                pairs=pairs,
                basis=request.basis,
                rotation=request.rotation,
                fidelity_floor=request.floor,
            )
        )

    def _watch_choice(self, peer: Peer, now: int) -> None:
        peer.is_choice_due = True
        at_ns = (now // CHOICE_NS + 1) * CHOICE_NS
        # It limits a wait: while nobody attempts it must not make the clock run.
        self._out.set_timer(CHOICE_TIMER + peer.name, at_ns, deadline=True)
