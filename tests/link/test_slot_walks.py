"""Photon-pair links under chance: whatever is delayed, withdrawn or lost, the ends agree.

For every request, what one end was told of is the beginning of what the other end was; all of it,
if both say that it is done. Every request ends at most once at an end, and no batch is left.
"""

from random import Random

import pytest

from qstack.link import service
from qstack.link.params import CHOICE_NS
from qstack.wire.packed import unpack_bits
from tests.link.bench import ALICE, BOB, SECOND, Bench, create, detections, identity

ENDS = (ALICE, BOB)


class Walk:
    """A bench with a source: slots go by a hundred at a time, for batches that match."""

    def __init__(self, seed: int) -> None:
        self.on = Bench((1, 1), pairing="slots").begin()
        self.chance = Random(seed)
        self.slot = 0
        self.requests = 0

    def light(self) -> None:
        """What both receivers detect, if they are on for the same request."""
        span = (self.slot, self.slot + 100)
        for numbers in self.on.matches():
            shared = self.chance.sample(range(*span), 6)
            for name, number in zip(ENDS, numbers, strict=True):
                alone = self.chance.sample(range(*span), 10)
                slots = sorted({*alone, *shared})
                self.on.ends[name].inbox.append(detections(number, span, slots))
        self.slot += 100

    def ask(self) -> None:
        self.requests += 1
        by, peer = self.chance.sample(ENDS, 2)
        asked = create(
            self.requests, peer, kind="measure", number=self.chance.randrange(1, 60), basis="Z",
            peer_basis="Z", priority=self.chance.randrange(3),
            deadline_ns=self.on.now + self.chance.choice((SECOND, 100 * SECOND)),
        )  # fmt: skip
        self.on.say(by, asked)

    def answer_stops(self, name: str) -> None:
        end = self.on.ends[name]
        for number in [*end.stopped]:
            del end.stopped[number]
            end.inbox.append(detections(number, (self.slot, self.slot), [], is_last=True))

    def step(self) -> None:
        name = self.chance.choice(ENDS)
        match self.chance.randrange(40):
            case 0 | 1 | 2:
                self.ask()
            case 3:
                which = self.chance.randrange(self.requests + 1)
                self.on.say(name, service.LinkCancel(request=identity(which)))
            case 4:
                self.on.advance(self.chance.choice((CHOICE_NS, SECOND // 3)))
            case 5:
                self.answer_stops(name)
            case 6 if self.chance.random() < 0.2:
                self.lose(name)
            case kind if kind < 15:
                self.light()
            case kind if kind < 27:
                self.on.told(name)
            case _:
                self.on.deliver(name, self.chance.randrange(1, 5))

    def lose(self, name: str) -> None:
        """A device or the channel, and it is there again."""
        if self.chance.random() < 0.5:
            self.on.device_lost(name)
            self.on.deliver()
            self.on.device_ready(name)
        else:
            self.on.drop()
            self.on.connect()
            self.on.deliver()

    def settle(self) -> None:
        """Everything gets there; what is open is served or runs out of time."""
        for _ in range(300):
            self.light()
            for name in ENDS:
                self.answer_stops(name)
                self.on.told(name)
            self.on.deliver()
            self.on.advance(SECOND // 2)
        self.on.advance(200 * SECOND)
        for name in ENDS:
            self.answer_stops(name)
            self.on.told(name)
        self.on.deliver()

    def told(self, name: str, request: bytes) -> list[int]:
        """Outcomes of a request at an end; each is the parity of its slot."""
        parts = [m for m in self.on.all(name, service.LinkMeasured) if m.request == request]
        return [bit for m in parts for bit in unpack_bits(m.outcomes, m.pairs).tolist()]

    def ends(self, name: str, request: bytes) -> list[str]:
        done = [m for m in self.on.all(name, service.LinkDone) if m.request == request]
        failed = [m for m in self.on.all(name, service.LinkFailed) if m.request == request]
        return ["done"] * len(done) + [m.error for m in failed]


@pytest.mark.parametrize("seed", range(20))
def test_the_ends_never_disagree_on_their_pairs(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(500):
        walk.step()
    walk.settle()
    finished = 0
    for number in range(1, walk.requests + 1):
        request = identity(number)
        here, there = (walk.told(name, request) for name in ENDS)
        shorter = min(len(here), len(there))
        assert here[:shorter] == there[:shorter]
        ends = [walk.ends(name, request) for name in ENDS]
        assert all(len(each) <= 1 for each in ends)
        if ends == [["done"], ["done"]]:
            finished += 1
            assert here == there
        assert "INVALID" not in [*ends[0], *ends[1]]
        assert "OUT_OF_STATE" not in [*ends[0], *ends[1]]
    assert finished > 0
    for name in ENDS:
        assert walk.on.ends[name].machine.open_batches == 0
        assert not any(peer.requests for peer in walk.on.ends[name].machine.peers.values())
