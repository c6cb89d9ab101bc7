"""Who asks: a user in place of each network layer, and what it remembers of every request.

Arrivals are a Poisson process, drawn ahead from (seed, node, use) alone: the same requests come at
the same times whatever the scheduler, so that runs can be compared pair by pair. A kept pair is
measured as soon as it is told, as in the authors' simulation; its basis follows from its id, so
that both ends choose the same one. Measured pairs are of one basis a request.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Final, Literal, NamedTuple

from benchmarks.link_scenarios.patterns import (
    ENDS,
    PATTERNS,
    SCHEDULERS,
    Scenario,
    Use,
)
from qstack.ids import ID_BYTES
from qstack.link import service
from qstack.machine import Effect, Event, SetTimer, Tell, TimerFired, Told
from qstack.physical import service as physical
from qstack.wire.message import Message
from qstack.wire.packed import unpack_bits

Axis = Literal["X", "Y", "Z"]
AXES: Final[tuple[Axis, ...]] = ("X", "Y", "Z")
PURPOSE: Final = b"link-scenarios--"
NO_DEADLINE_NS: Final = 2**62


class Arrival(NamedTuple):
    """A request to come: when, for what, how many pairs, and the basis of measured ones."""

    at_ns: int
    use: Use
    pairs: int
    axis: Axis


@dataclass
class Asked:
    """A request of this end, and what became of it; `end` is "done" or the error."""

    id: bytes
    use: Use
    pairs: int
    created_ns: int
    came: int = 0
    ended_ns: int | None = None
    end: str | None = None


class Kept(NamedTuple):
    """One half of a kept pair, read; a reading of 0 and one of 1 disagree."""

    request: bytes
    axis: Axis
    bit: int


@dataclass
class Readings:
    """What one end has read: kept pairs by id, measured ones in order, by request."""

    kept: dict[bytes, Kept] = field(default_factory=dict)
    measured: dict[bytes, list[int]] = field(default_factory=dict)


def arrivals(scenario: Scenario, node: str, seed: int, duration_ns: int) -> list[Arrival]:
    """All requests of a node, in the order of their times."""
    pattern = PATTERNS[scenario.pattern]
    found = []
    for use in scenario.uses:
        rng = Random(f"{seed} {node} {use}")
        mean_ns = 1e9 / scenario.requests_hz(use)
        at_ns = 0.0
        while True:
            at_ns += rng.expovariate(1.0) * mean_ns
            pairs, axis = rng.randint(*pattern.pairs[use]), rng.choice(AXES)
            if at_ns >= duration_ns:
                break
            found.append(Arrival(int(at_ns), use, pairs, axis))
    return sorted(found)


class User:
    """A machine: asks the link layer for what is to come, reads the pairs, notes everything."""

    def __init__(self, scenario: Scenario, node: str, seed: int, duration_ns: int) -> None:
        self.asked: dict[bytes, Asked] = {}
        self.readings = Readings()
        self.void = 0
        self._node = node
        self._peer = ENDS[1 - ENDS.index(node)]
        self._scenario = scenario
        self._scheduler = SCHEDULERS[scenario.scheduler]
        self._coming = iter(arrivals(scenario, node, seed, duration_ns))
        self._next: Arrival | None = None
        self._is_up = False
        self._axes: dict[bytes, Axis] = {}
        self._calls: dict[int, tuple[bytes, Kept]] = {}
        self._called = 0

    def handle(self, event: Event, now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        match event:
            case Told("link", message):
                return self._on_link(message, now)
            case Told("physical", physical.Measured(call=call, outcome=outcome)):
                pair, kept = self._calls.pop(call)
                self.readings.kept[pair] = kept._replace(bit=outcome ^ kept.bit)
            case TimerFired("ask"):
                return self._ask(now)
            case _:
                pass
        return []

    def _on_link(self, message: Message, now: int) -> list[Effect]:
        match message:
            case service.LinkUp():
                effects: list[Effect] = [
                    Tell("link", service.LinkListen(peer=self._peer, purpose=PURPOSE))
                ]
                if not self._is_up:
                    self._is_up = True
                    effects += self._wait(now)
                return effects
            case service.LinkPair():
                self._count(message.request, 1)
                return [self._read(message)]
            case service.LinkMeasured():
                self._count(message.request, message.pairs)
                self.readings.measured.setdefault(message.request, []).extend(_bits(message))
            case service.LinkExpired(pair=pair):
                self.void += 1
                self.readings.kept.pop(pair, None)
            case service.LinkDone(request=request):
                self._end(request, now, "done")
            case service.LinkFailed(request=request, error=error):
                self._end(request, now, error)
            case _:
                pass
        return []

    def _wait(self, now: int) -> list[Effect]:
        self._next = next(self._coming, None)
        return [] if self._next is None else [SetTimer("ask", max(now, self._next.at_ns))]

    def _ask(self, now: int) -> list[Effect]:
        come = self._next
        assert come is not None, "the timer is set for it"
        text = f"{self._node} {len(self.asked)} {come.axis}"
        request = blake2b(text.encode(), digest_size=ID_BYTES).digest()
        self.asked[request] = Asked(request, come.use, come.pairs, now)
        basis = come.axis if come.use == "MD" else None
        create = service.LinkCreate(
            request=request,
            peer=self._peer,
            purpose=PURPOSE,
            kind="measure" if come.use == "MD" else "keep",
            number=come.pairs,
            min_fidelity=self._scenario.min_fidelity,
            deadline_ns=NO_DEADLINE_NS,
            priority=self._scheduler.priorities[come.use],
            basis=basis,
            peer_basis=basis,
            atomic=self._scheduler.atomic[come.use],
            consecutive=True,
        )
        self._axes[request] = come.axis
        return [Tell("link", create), *self._wait(now)]

    def axis_of(self, request: bytes) -> Axis:
        """The basis of a request of this end."""
        return self._axes[request]

    def _count(self, request: bytes, pairs: int) -> None:
        if request in self.asked:
            self.asked[request].came += pairs

    def _end(self, request: bytes, now: int, end: str) -> None:
        if request in self.asked:
            self.asked[request].ended_ns = now
            self.asked[request].end = end

    def _read(self, pair: service.LinkPair) -> Effect:
        axis = AXES[int.from_bytes(pair.pair, "big") % len(AXES)]
        # One end takes the announced state into account, so that equal readings are right ones.
        flip = flipped(axis, pair.x_bit, pair.z_bit) if self._node == ENDS[0] else 0
        self._called += 1
        self._calls[self._called] = pair.pair, Kept(pair.request, axis, flip)
        return Tell("physical", physical.Measure(call=self._called, qubit=pair.qubit, basis=axis))


def flipped(axis: Axis, x_bit: int, z_bit: int) -> int:
    """Whether the two readings of a perfect pair in Bell state (x, z) differ."""
    return {"X": z_bit, "Y": 1 ^ x_bit ^ z_bit, "Z": x_bit}[axis]


def _bits(message: service.LinkMeasured) -> Iterator[int]:
    """Outcome, x and z of each pair in one number."""
    columns = [
        unpack_bits(bits, message.pairs).tolist()
        for bits in (message.outcomes, message.x_bits, message.z_bits)
    ]
    return (4 * outcome + 2 * x + z for outcome, x, z in zip(*columns, strict=True))
