"""Two link layers over a channel that loses, repeats and reorders, with a clock of its own.

Messages take DELAY_NS, heralds come every HERALD_NS to whoever attempts together, and each device
says what it has a while later. `Faults` decide what becomes of each message.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any, Self

from qstack.link import messages, service
from qstack.wire.message import Message
from tests.link.bench import ALICE, BOB, DELAY_NS, PURPOSE, SECOND, Bench, End, create, identity

BOTH = (ALICE, BOB)
OTHER = {ALICE: BOB, BOB: ALICE}
HERALD_NS = 120_000
TOLD_NS = {ALICE: 30_000, BOB: 70_000}

Faults = Callable[["LossyBench", str, messages.LinkMessage], list[int]]
"""When a message for an end arrives, from now: once, never, or more often."""


def healthy(_: "LossyBench", _to: str, _message: messages.LinkMessage) -> list[int]:
    """Nothing happens to it."""
    return [DELAY_NS]


class LossyBench(Bench):
    """The bench in motion. `log` says when each message was sent, and to whom."""

    def __init__(self, faults: Faults = healthy, **options: Any) -> None:
        super().__init__(**options)
        self.faults = faults
        self.log: list[tuple[int, str, messages.LinkMessage]] = []
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._is_station_due = False

    def start(self) -> Self:
        """Devices ready, channel up, both listening, the station at work."""
        for name in BOTH:
            self.device_ready(name)
            self.say(name, service.LinkListen(peer=OTHER[name], purpose=PURPOSE))
        self.connect()
        return self

    def at(self, after_ns: int, action: Callable[[], None]) -> None:
        """Do something later."""
        self._order += 1
        heappush(self._heap, (self.now + after_ns, self._order, action))

    def post(self, to: str, message: messages.LinkMessage) -> None:
        self.log.append((self.now, to, message))
        for after_ns in self.faults(self, to, message):
            self.at(after_ns, lambda: self.arrive(to, message))

    def run(self, span_ns: int) -> None:
        """Let time pass; everything happens when it is due."""
        until = self.now + span_ns
        while True:
            timers = [at for end in self.ends.values() for at in end.timers.values()]
            action_ns = self._heap[0][0] if self._heap else until + 1
            next_ns = min([*timers, action_ns])
            if next_ns > until:
                break
            if next_ns == action_ns:
                self.now = max(self.now, next_ns)
                heappop(self._heap)[2]()
            else:
                super().advance(next_ns - self.now)
        self.now = until

    def _below(self, end: End, message: Message) -> None:
        super()._below(end, message)
        if not self._is_station_due:
            self._is_station_due = True
            self.at(HERALD_NS - self.now % HERALD_NS, self._station)

    def _station(self) -> None:
        self._is_station_due = False
        for match in self.matches():
            self.herald(match, pairs=7)
        for name in BOTH:
            self.answer_stops(name)
            self.at(TOLD_NS[name], lambda name=name: self.told(name))
        if self.matches():
            self._is_station_due = True
            self.at(HERALD_NS, self._station)


class Chance:
    """Random faults: each message of the given classes is lost, repeated or delayed."""

    def __init__(self, seed: int, rate: float, kinds: tuple[type[Any], ...] | None = None) -> None:
        self.rng = Random(seed)
        self.rate = rate
        self.kinds = kinds
        self.faults = 0
        self.is_healed = False

    def __call__(self, _: LossyBench, _to: str, message: messages.LinkMessage) -> list[int]:
        is_one = self.kinds is None or isinstance(message, self.kinds)
        if self.is_healed or not is_one or self.rng.random() >= self.rate:
            return [DELAY_NS]
        self.faults += 1
        late = int(DELAY_NS * self.rng.choice([1.2, 2, 5, 40]))
        return self.rng.choice([[], [], [DELAY_NS, late], [late]])


def ask(bench: LossyBench, rng: Random, which: int) -> None:
    """A request of a random kind from a random end; some are withdrawn."""
    by, canceller = rng.choice(BOTH), rng.choice(BOTH)
    is_keep = rng.random() < 0.7
    number = rng.choice([1, 2, 9, None if is_keep else 60])
    longest_ns = SECOND // 50 if number is None else SECOND
    asked = create(
        which, OTHER[by],
        purpose=PURPOSE if rng.random() < 0.95 else b"q" * 16,
        kind="keep" if is_keep else "measure",
        number=number,
        basis=None if is_keep else "X", peer_basis=None if is_keep else "Y",
        priority=rng.randint(0, 2),
        deadline_ns=bench.now + rng.choice([SECOND // 500, SECOND // 50, longest_ns]),
    )  # fmt: skip
    bench.say(by, asked)
    if rng.random() < 0.4:
        after_ns = int(10 ** rng.uniform(4, 7))
        cancel = service.LinkCancel(request=identity(which))
        bench.at(after_ns, lambda: bench.say(canceller, cancel))


def ends_of(bench: Bench, name: str, request: bytes) -> list[str]:
    """How a request ended at an end."""
    done = [m for m in bench.all(name, service.LinkDone) if m.request == request]
    failed = [m for m in bench.all(name, service.LinkFailed) if m.request == request]
    return ["done"] * len(done) + [m.error for m in failed]


def measured_of(bench: Bench, name: str, request: bytes) -> list[bytes]:
    """First pair of each part that was measured for a request."""
    parts = [m for m in bench.all(name, service.LinkMeasured) if m.request == request]
    return [part.first_pair for part in parts]


def check(bench: Bench, asked: list[bytes]) -> None:
    """Ends agree on every pair, each with the truth; every request ends; nothing is left."""
    pairs = [valid_pairs(bench, name) for name in BOTH]
    assert pairs[0] == pairs[1]
    for pair, x_bit, z_bit in pairs[0]:
        assert (x_bit, z_bit) == (1, pair[-1] % 2), "as the station heralded it"
    for request in asked:
        here, there = (ends_of(bench, name, request) for name in BOTH)
        assert len(here) <= 1
        assert len(there) <= 1
        assert here or there, "whoever asked has an end"
        first, second = (measured_of(bench, name, request) for name in BOTH)
        shorter = min(len(first), len(second))
        assert first[:shorter] == second[:shorter]
        if here == there == ["done"]:
            assert first == second
    check_nothing_left(bench)


def check_nothing_left(bench: Bench) -> None:
    """No batch, request, timer or qubit; what was served has an end."""
    for name, end in bench.ends.items():
        assert end.machine.open_batches == 0
        assert not end.batches
        assert not any(peer.requests for peer in end.machine.peers.values())
        assert not end.timers
        assert "link" not in end.qubits.values()
        known = {m.request for m in bench.all(name, service.LinkPair)}
        assert all(len(ends_of(bench, name, request)) == 1 for request in sorted(known))


def valid_pairs(bench: Bench, name: str) -> list[tuple[bytes, int, int]]:
    """Pairs announced at an end that nothing has made void; fails if one is announced twice."""
    valid: dict[bytes, tuple[bytes, int, int]] = {}
    announced: set[bytes] = set()
    for message in bench.ends[name].above:
        match message:
            case service.LinkPair():
                assert message.pair not in announced
                announced.add(message.pair)
                valid[message.pair] = (message.pair, message.x_bit, message.z_bit)
            case service.LinkExpired():
                del valid[message.pair]
            case service.LinkDown():
                valid.clear()
            case _:
                pass
    return sorted(valid.values())
