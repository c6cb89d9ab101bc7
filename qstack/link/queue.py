"""The queue both ends of a link share, and the choice of whom to serve next.

The choice is a pure function of the queue's contents, so that two ends with the same contents
choose alike without a message. Where they briefly differ (a message is on its way) the station
finds no match for a while; both look again at the same times (`batches.py`), so that nothing is
lost but time.
"""

import math
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, NamedTuple

from qstack.link.coincidences import Coincidences
from qstack.link.request_states import REQUEST, Input, State
from qstack.physical.service import AttemptKind, GenerationOption, Rotation
from qstack.wire.message import BasisChoice

if TYPE_CHECKING:
    from qstack.link.held import Held

NEVER_SERVED = -1


class Place(NamedTuple):
    """A request's place in the queue, which the master gives: its number, and when it began.

    `virtual_ns` is how far the requests had been served, in mean time divided by weight.
    """

    queue_number: int
    virtual_ns: int


@dataclass
class Request:
    """One open request on a link, at this end."""

    id: bytes
    purpose: bytes
    kind: AttemptKind
    number: int | None
    min_fidelity: float
    deadline_ns: int
    priority: int
    basis: BasisChoice | None
    option: GenerationOption
    atomic: bool
    consecutive: bool
    start_ns: int
    given: Place | None
    cost_ns: int | None  # of a pair, divided by the weight; None where its priority is strict
    rotation: Rotation | None = None
    is_tested: bool = False  # a share of its pairs, which are measured, is sacrificed
    state: State = REQUEST.start
    served: int = 0
    last_herald: int = NEVER_SERVED  # herald sequence of its latest pair
    batches: dict[int, None] = field(default_factory=dict)  # in the order they were started
    held: "list[Held]" = field(default_factory=list)  # they wait for the last one
    floor: float | None = None  # the fidelity that pairs which wait must keep
    too_old: int = 0  # pairs that did not
    coincidences: Coincidences | None = None  # photon-pair links: what is still to be compared

    def step(self, received: Input) -> None:
        """The one place where a request's state changes."""
        self.state = REQUEST.step(self.state, received)

    def serve(self, first_herald: int, pairs: int) -> None:
        """Count pairs that have come."""
        self.served += pairs
        self.last_herald = first_herald + pairs - 1

    def take_back(self, pairs: int) -> None:
        """Pairs that were counted have been let go: as many must come again."""
        self.served -= pairs
        self.too_old += pairs

    @property
    def place(self) -> float:
        """Its queue number; while the master has not said it, behind all that have one."""
        return math.inf if self.given is None else self.given.queue_number

    def virtual_finish(self, running: int) -> int:
        """When its next pair would be done if each request had a link of its weight for itself."""
        begun_ns = 0 if self.given is None else self.given.virtual_ns
        return begun_ns + (self.served + running + 1) * (self.cost_ns or 0)

    def rank(self, running: int) -> tuple[float, ...]:
        """Who has the least is next, if `running` batches are at work for it."""
        if self.cost_ns is None:
            return (0, -self.priority, running, self.last_herald, self.place)
        if self.given is None:
            return (1, math.inf, math.inf)
        return (1, self.virtual_finish(running), self.place)

    @property
    def is_served(self) -> bool:
        """Whether all its pairs have come."""
        return self.number is not None and self.served >= self.number

    @property
    def wanted(self) -> int | None:
        """Pairs still to be started; None means without limit."""
        if self.number is None:
            return None
        in_making = 0 if self.kind == "measure" else len(self.batches)
        return self.number - self.served - in_making

    def wants(self, running: int, now: int) -> bool:
        """Whether it would have another batch if `running` were at work for it."""
        if now < self.start_ns:
            return False
        if self.kind == "measure":
            return running == 0
        return self.number is None or self.number - self.served > running


def turns(
    requests: dict[bytes, Request], running: dict[bytes, int], slots: int, now: int
) -> list[Request]:
    """Whom the next free `slots` are for, in order, if `running` batches are at work for each.

    First those whose priority is strict, as all are without weights: the highest; within it who has
    fewest batches at work, then who was served longest ago (the herald sequence says it alike at
    both ends), then who came first. Then those with weights: whose next pair has the earliest
    virtual finish time (weighted fair queueing; Demers, Keshav and Shenker, SIGCOMM'89). An atomic
    request whose turn it is waits until nobody else has a batch, and from its first pair to its
    last is alone. So what is begun for one changes nothing of whether the others want a batch.
    """
    wanting = _wanting(requests, running, now)
    waiting = [(r.rank(running[r.id]), place, r) for place, r in enumerate(wanting)]
    heapify(waiting)
    chosen: list[Request] = []
    while waiting and len(chosen) < slots:
        _, place, request = waiting[0]
        chosen.append(request)
        at_work = running[request.id] = running[request.id] + 1
        if not request.wants(at_work, now):
            heappop(waiting)
        elif len(waiting) > 1:  # else there is nobody to choose among
            heapreplace(waiting, (request.rank(at_work), place, request))
    return chosen


def sated_until_ns(requests: dict[bytes, Request], now: int) -> float:
    """Until when nobody wants another batch, while each that ends is of a pair of its request.

    Not at all if somebody wants one now.
    """
    starts_ns = [
        r.start_ns for r in requests.values() if r.wants(len(r.batches), max(now, r.start_ns))
    ]
    return min(starts_ns, default=math.inf)


def _wanting(requests: dict[bytes, Request], running: dict[bytes, int], now: int) -> list[Request]:
    asking = [r for r in requests.values() if now >= r.start_ns]
    if any(r.atomic for r in asking):
        asking = _eligible(asking, running)
    return [request for request in asking if request.wants(running[request.id], now)]


def _eligible(asking: list[Request], running: dict[bytes, int]) -> list[Request]:
    """Who may have a batch where somebody is atomic: whose turn it is, by the queue alone."""
    head = min(asking, key=lambda r: (not (r.atomic and r.served), *r.rank(0)))
    at_work = [r for r in asking if running[r.id]]
    if head.atomic:
        return [head] if all(r is head for r in at_work) else []
    return [] if any(r.atomic for r in at_work) else [r for r in asking if not r.atomic]
