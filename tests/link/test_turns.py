"""Whom free slots are for: all at once as one after the other, each time by the rules anew."""

import random

from qstack.link.queue import Place, Request, sated_until_ns, turns
from qstack.physical.service import GenerationOption

NOW = 100
OPTION = GenerationOption(
    bright_state=None,
    probability=0.5,
    cycle_ns=1000,
    measure_cycle_ns=1000,
    bell_probabilities=[1.0, 0.0, 0.0, 0.0],
)


def request(rng: random.Random, number: int) -> Request:
    """A request in any state a queue may show it in."""
    made = Request(
        id=number.to_bytes(16, "big"),
        purpose=bytes(16),
        kind=rng.choice(["keep", "keep", "measure"]),
        number=rng.choice([None, 1, 3, 6]),
        min_fidelity=0.0,
        deadline_ns=10**9,
        priority=rng.randrange(2),
        basis=None,
        option=OPTION,
        atomic=rng.random() < 0.1,
        consecutive=True,
        start_ns=rng.choice([0, NOW, NOW + 1]),
        given=rng.choice([None, Place(number, rng.randrange(3) * 500)]),
        cost_ns=rng.choice([None, None, 700]),
    )
    made.served = rng.randrange(3)
    made.last_herald = rng.randrange(-1, 5)
    made.batches = dict.fromkeys(range(rng.randrange(3)))
    return made


def one_by_one(
    requests: dict[bytes, Request], running: dict[bytes, int], slots: int
) -> list[bytes]:
    """What the rules say, slot by slot."""
    chosen = []
    for _ in range(slots):
        asking = [r for r in requests.values() if r.start_ns <= NOW]
        atomic = [r for r in asking if r.atomic]
        if atomic:
            head = min(asking, key=lambda r: (not (r.atomic and r.served), *r.rank(0)))
            at_work = [r for r in asking if running[r.id]]
            if head.atomic:
                asking = [head] if all(r is head for r in at_work) else []
            else:
                is_waited_for = any(r.atomic for r in at_work)
                asking = [] if is_waited_for else [r for r in asking if not r.atomic]
        wanting = [r for r in asking if r.wants(running[r.id], NOW)]
        if not wanting:
            break
        first = min(wanting, key=lambda r: r.rank(running[r.id]))
        running[first.id] += 1
        chosen.append(first.id)
    return chosen


def test_slots_given_out_in_one_go_are_those_given_out_one_by_one() -> None:
    rng = random.Random(5)
    several = 0
    for _ in range(2000):
        requests = {r.id: r for r in (request(rng, each) for each in range(rng.randrange(6)))}
        now_at_work = {r.id: len(r.batches) for r in requests.values()}
        for running in (now_at_work, dict.fromkeys(requests, 0)):
            before = dict(running)
            chosen = [r.id for r in turns(requests, running, 7, NOW)]
            assert chosen == one_by_one(requests, dict(before), 7)
            assert running == {name: before[name] + chosen.count(name) for name in requests}
            several += len({*chosen}) > 1
    assert several > 500


def test_a_queue_is_sated_until_somebody_wants_a_batch_or_may_begin() -> None:
    rng = random.Random(6)
    for _ in range(2000):
        requests = {r.id: r for r in (request(rng, each) for each in range(rng.randrange(4)))}
        until_ns = sated_until_ns(requests, NOW)
        wanting = [r for r in requests.values() if r.wants(len(r.batches), NOW)]
        assert (until_ns <= NOW) == bool(wanting)
        if wanting:
            continue
        for each in requests.values():
            if each.kind == "keep" and each.batches:  # a batch ends, and its pair has come
                each.batches.popitem()
                each.served += 1
            assert not each.wants(len(each.batches), NOW)
            assert not each.wants(len(each.batches), NOW + 1) or until_ns == NOW + 1
