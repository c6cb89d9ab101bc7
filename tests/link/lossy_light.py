"""A photon-pair link over the lossy channel: its source lights both receivers while both are on.

Slots last SLOT_NS, numbered from time 0. While both ends attempt with one token, each hears of its
own detections once a chunk, and of the slots before a stop when one stops; as the fabric does it.
Outcome and basis of a detection are functions of its slot, so that a pair's two halves agree.
"""

from random import Random
from typing import Any

import numpy as np

from qstack.link import service
from qstack.physical import service as physical
from qstack.wire.message import BasisProbabilities, Message
from qstack.wire.packed import unpack_bases, unpack_bits
from tests.link.bench import ALICE, BOB, PURPOSE, SECOND, Bench, End, create, detections, identity
from tests.link.lossy import (
    BOTH,
    HERALD_NS,
    OTHER,
    TOLD_NS,
    Faults,
    LossyBench,
    check_nothing_left,
    ends_of,
    healthy,
)

SLOT_NS = 1_000
EVEN = BasisProbabilities(0.5, 0.0, 0.5)
SHARED, ALONE = 4, 6  # detections of a whole chunk: of both ends, and of each more


class LightBench(LossyBench):
    """Two link layers, their receivers and a source."""

    def __init__(self, faults: Faults = healthy, **options: Any) -> None:
        super().__init__(faults, slots=(1, 1), pairing="slots", **options)
        self._lit: tuple[int, int] | None = None  # batches at work together, alice's and bob's
        self._since = 0
        self._told_until: dict[tuple[str, int], int] = {}
        self.is_dark = False  # the source has failed: receivers are on, and nothing comes

    def device_lost(self, name: str) -> None:
        super().device_lost(name)
        self._lit = None
        self._told_until = {key: slot for key, slot in self._told_until.items() if key[0] != name}

    def _below(self, end: End, message: Message) -> None:
        if isinstance(message, physical.AttemptsStop) and message.batch in end.batches:
            self._chunk(stopped=end.name)
        super()._below(end, message)
        for number in list(end.stopped):
            del end.stopped[number]
            self._last(end, number)
        self._match()

    def _match(self) -> None:
        if self._lit is None and (matches := self.matches()):
            self._lit = matches[0]
            self._since = max(self.now // SLOT_NS, *self._told_until.values(), 0)

    def _station(self) -> None:
        self._is_station_due = False
        self._chunk()
        if self.matches() and not self.is_dark:
            self._is_station_due = True
            self.at(HERALD_NS, self._station)

    def _chunk(self, stopped: str | None = None) -> None:
        """What both detect in the slots that have passed since the last chunk."""
        if self._lit is None or (stopped and not self._is_lit(stopped)):
            return
        span = (self._since, self.now // SLOT_NS)
        light = Random(span[0])
        slots = range(*span)
        parts = min(1.0, len(slots) * SLOT_NS / HERALD_NS)
        shared = light.sample(slots, int(SHARED * parts))
        for name, number in zip(BOTH, self._lit, strict=True):
            alone = light.sample(slots, int(ALONE * parts))
            if span[1] > span[0]:
                self._tell(name, number, span, sorted({*shared, *alone}))
        self._since = span[1]
        if stopped:
            self._lit = None

    def _is_lit(self, name: str) -> bool:
        assert self._lit is not None
        return self._lit[BOTH.index(name)] in self.ends[name].batches

    def _tell(self, name: str, number: int, span: tuple[int, int], slots: list[int]) -> None:
        end = self.ends[name]
        is_drawn = end.batches[number].basis == EVEN
        bases = [2 * (slot // 2 % 2) for slot in slots] if is_drawn else None
        end.inbox.append(detections(number, span, slots, bases))
        self._told_until[name, number] = span[1]
        self.at(TOLD_NS[name], lambda: self.told(name))

    def _last(self, end: End, number: int) -> None:
        """The answer to a stop: a last part, or that it never began."""
        until = self._told_until.pop((end.name, number), None)
        if until is None:
            said: Message = physical.AttemptsEnded(batch=number, reason="stopped", attempts=0)
        else:
            said = detections(number, (until, until), [], is_last=True)
        end.inbox.append(said)
        self.at(TOLD_NS[end.name], lambda: self.told(end.name))


def measure(bench: Bench, by: str, which: int = 1, **changes: Any) -> None:
    """Ask for measured pairs, each read in a basis its end draws."""
    asked = {"number": 20, "basis": EVEN, "peer_basis": EVEN, **changes}
    bench.say(by, create(which, OTHER[by], kind="measure", **asked))


def ask(bench: LightBench, rng: Random, which: int) -> None:
    """A request of a random kind from a random end; some are withdrawn."""
    by, canceller = rng.choice(BOTH), rng.choice(BOTH)
    basis: Any = rng.choice(["Z", EVEN])
    measure(
        bench, by, which,
        purpose=PURPOSE if rng.random() < 0.95 else b"q" * 16,
        number=rng.choice([1, 2, 9, 60, 300]),
        basis=basis, peer_basis=basis,
        priority=rng.randint(0, 2),
        consecutive=rng.random() < 0.8,
        atomic=rng.random() < 0.2,
        deadline_ns=bench.now + rng.choice([SECOND // 500, SECOND // 50, SECOND]),
    )  # fmt: skip
    if rng.random() < 0.4:
        after_ns = int(10 ** rng.uniform(4, 7))
        cancel = service.LinkCancel(request=identity(which))
        bench.at(after_ns, lambda: bench.say(canceller, cancel))


def pairs_of(bench: Bench, name: str, request: bytes) -> list[tuple[int, int]]:
    """Outcome and basis (0 where it is fixed) of each pair an end was told of."""
    found: list[tuple[int, int]] = []
    for part in bench.all(name, service.LinkMeasured):
        if part.request == request:
            none = np.zeros(part.pairs, dtype=np.uint8)
            bases = unpack_bases(part.bases, part.pairs) if part.bases else none
            bits = unpack_bits(part.outcomes, part.pairs)
            found += zip(bits.tolist(), bases.tolist(), strict=True)
    return found


def check(bench: Bench, asked: dict[bytes, int]) -> None:
    """Ends found the same pairs, or know that they did not; every request ends; nothing is left.

    `asked` are requests and their numbers of pairs.
    """
    for request, number in asked.items():
        here, there = (ends_of(bench, name, request) for name in (ALICE, BOB))
        assert len(here) <= 1
        assert len(there) <= 1
        assert here or there, "whoever asked has an end"
        first, second = (pairs_of(bench, name, request) for name in (ALICE, BOB))
        shorter = min(len(first), len(second))
        assert first[:shorter] == second[:shorter], "what one has is the beginning of the other's"
        for end, pairs in ((here, first), (there, second)):
            assert (end == ["done"]) == (len(pairs) == number)
    check_nothing_left(bench)
