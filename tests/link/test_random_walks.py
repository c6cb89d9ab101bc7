"""Two link layers under random work and faults, in random order: what must hold at the end.

Rules checked in every walk
1. Both ends agree about every pair: announced and valid at both, or valid at neither.
2. Every request accepted at an end ends there once; one that was asked for ends once, in any case.
3. Every batch begun is answered, and forgotten.
4. Every qubit is freed or handed up exactly once (the bench's ledger).
"""

from random import Random

import pytest

from qstack.link import messages, service
from qstack.machine import Told
from qstack.physical import service as physical
from qstack.wire.message import Message
from tests.link.bench import ALICE, BOB, PURPOSE, SECOND, Bench, End, create, identity
from tests.link.lossy import valid_pairs

BOTH = (ALICE, BOB)
OTHER = {ALICE: BOB, BOB: ALICE}


class Walk:
    """One walk. `former` are ends whose nodes have died."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        slots = self.rng.randint(1, 3), self.rng.randint(1, 3)
        self.bench = Bench(slots).begin()
        self.made = 0
        self.asked: list[tuple[End, bytes]] = []

    def step(self) -> None:
        roll = self.rng.random()
        name = self.rng.choice(BOTH)
        bench, end = self.bench, self.bench.ends[name]
        if roll < 0.10:
            self.create(name)
        elif roll < 0.16:
            if self.made:
                which = identity(self.rng.randrange(self.made))
                bench.say(name, service.LinkCancel(request=which))
        elif roll < 0.45:
            bench.deliver(name, 1)
        elif roll < 0.65:
            if matches := bench.matches():
                bench.herald(self.rng.choice(matches), self.rng.randint(1, 30))
        elif roll < 0.80:
            if end.inbox:
                bench.event(name, Told("physical", end.inbox.popleft()))
        elif roll < 0.86:
            bench.answer_stops(name)
        elif roll < 0.94:
            bench.advance(self.rng.choice([10_000, 200_000, 30_000_000]))
        else:
            self.fault(name, end)

    def create(self, name: str) -> None:
        is_keep = self.rng.random() < 0.7
        asked = create(
            self.made,
            OTHER[name],
            purpose=PURPOSE if self.rng.random() < 0.9 else b"q" * 16,
            kind="keep" if is_keep else "measure",
            number=self.rng.choice([1, 2, 5, None if is_keep else 60]),
            basis=None if is_keep else "X",
            peer_basis=None if is_keep else "Y",
            priority=self.rng.randint(0, 2),
            deadline_ns=self.bench.now + self.rng.choice([100_000, SECOND // 10, SECOND]),
        )
        self.made += 1
        self.asked.append((self.bench.ends[name], asked.request))
        self.bench.say(name, asked)

    def fault(self, name: str, end: End) -> None:
        bench = self.bench
        match self.rng.randrange(9):
            case 0 | 1 if end.batches:
                number = self.rng.choice(list(end.batches))
                bench.end_batch(name, number, "handed-over")
            case 2 | 3:
                end.is_full = not end.is_full
                if not end.is_full:
                    bench.event(name, Told("physical", physical.MemoryFree()))
            case 4:
                if bench.is_connected:
                    bench.drop()
                else:
                    bench.connect()
            case 5:
                if end.has_device:
                    bench.device_lost(name)
                else:
                    bench.device_ready(name)
            case 6 if self.rng.random() < 0.3:
                bench.restart(name)
            case 7 if end.batches:
                bench.end_batch(name, next(iter(end.batches)), "refused")
            case 8:
                bench.say(name, service.LinkUnlisten(peer=OTHER[name], purpose=PURPOSE))
                bench.say(name, service.LinkListen(peer=OTHER[name], purpose=PURPOSE))
            case _:
                pass

    def finish(self) -> None:
        """Everything on its way arrives, every deadline passes."""
        bench = self.bench
        for _ in range(10):
            bench.deliver()
            for name in BOTH:
                bench.answer_stops(name)
                bench.told(name)
            bench.advance(SECOND)

    def check(self) -> None:
        for end in self.bench.ends.values():
            assert end.machine.open_batches == 0
            assert not end.batches
            assert not any(peer.requests for peer in end.machine.peers.values())
            assert not end.timers
            assert "link" not in end.qubits.values()
        for end, request in self.asked:
            if end in self.bench.ends.values():
                assert len(_ends_of(end, request)) == 1
        for name, end in self.bench.ends.items():
            for request in {_request_of(message) for message in end.above} - {None}:
                assert request is not None
                assert len(_ends_of(end, request)) == 1, (name, request)
        assert valid_pairs(self.bench, ALICE) == valid_pairs(self.bench, BOB)


def _request_of(message: Message) -> bytes | None:
    if isinstance(message, service.LinkPair | service.LinkMeasured):
        return message.request
    return None


def _ends_of(end: End, request: bytes) -> list[Message]:
    return [
        message
        for message in end.above
        if isinstance(message, service.LinkDone | service.LinkFailed) and message.request == request
    ]


def walk(seed: int, steps: int = 150) -> Walk:
    one = Walk(seed)
    for _ in range(steps):
        one.step()
    one.finish()
    one.check()
    return one


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_walks_leave_nothing_behind(first: int) -> None:
    for seed in range(first, first + 50):
        walk(seed)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 11_000, 500))
def test_many_random_walks_leave_nothing_behind(first: int) -> None:
    for seed in range(first, first + 500):
        walk(seed, 300)


def test_the_walks_go_everywhere() -> None:
    """Otherwise a walk that does nothing would pass."""
    seen: dict[str, int] = {}
    for seed in range(150):
        one = walk(seed)
        for end in one.bench.ends.values():
            for message in end.above:
                name = getattr(message, "error", type(message).__name__)
                seen[name] = seen.get(name, 0) + 1
        for _, sent in one.bench.sent:
            seen[type(sent).__name__] = seen.get(type(sent).__name__, 0) + 1
    expected = [
        *("LinkPair", "LinkMeasured", "LinkExpired", "LinkDone", "LinkUp", "LinkDown"),
        *("CANCELLED", "TIMEOUT", "REJECTED", "PEER_DOWN", "DEVICE_LOST", "UNSUPPORTED"),
        *("Expire", "Remove", "AddRejected", "Ready"),
    ]
    assert [name for name in expected if seen.get(name, 0) < 5] == []
    assert messages.Error.__name__ not in seen
