"""Requests that are not interleaved with others, and requests whose pairs come all at once."""

from random import Random
from typing import Any

import pytest

from qstack.link import service
from qstack.link.params import CHOICE_NS
from tests.link.bench import ALICE, BOB, DELAY_NS, SECOND, Bench, create, identity
from tests.link.lossy import BOTH, OTHER, Chance, LossyBench, check, ends_of, valid_pairs


def serve(bench: Bench) -> None:
    bench.herald()
    for name in BOTH:
        bench.told(name)


def order(bench: Bench, name: str) -> list[int]:
    """For whom the pairs of an end came, in order."""
    return [int.from_bytes(pair.request, "big") for pair in bench.all(name, service.LinkPair)]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_pair_of_another_request_comes_between_those_of_an_atomic_one(slots: int) -> None:
    bench = LossyBench(slots=(slots, slots)).start()
    bench.run(SECOND)
    bench.say(ALICE, create(1, number=6))
    bench.say(BOB, create(2, ALICE, number=6, atomic=True))
    bench.say(ALICE, create(3, number=6))
    bench.say(BOB, create(4, ALICE, number=4, atomic=True, priority=2))
    bench.run(SECOND)
    check(bench, [identity(which) for which in (1, 2, 3, 4)])
    for name in BOTH:
        came = order(bench, name)
        assert len(came) == 22
        for which in (2, 4):
            places = [place for place, request in enumerate(came) if request == which]
            assert places == list(range(places[0], places[0] + len(places)))


def test_plain_requests_do_share_the_link() -> None:
    """Otherwise the test above would say nothing."""
    bench = LossyBench(slots=(1, 1)).start()
    bench.run(SECOND)
    for which in (1, 2):
        bench.say(ALICE, create(which, number=4))
    bench.run(SECOND)
    assert order(bench, ALICE) == [1, 2] * 4


def test_an_urgent_request_waits_for_an_atomic_one_that_has_begun() -> None:
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1, number=3, atomic=True))
    serve(bench)
    bench.serving(create(2, number=1, priority=7))
    for _ in range(3):
        serve(bench)
    assert order(bench, BOB) == [1, 1, 1, 2]


def test_an_atomic_request_whose_turn_it_is_gets_the_slots_of_those_at_work() -> None:
    """Their batches may last for ever, so they are stopped where both ends look again."""
    bench = Bench(slots=(2, 2)).begin()
    bench.serving(create(1, number=None))
    bench.serving(create(2, number=2, atomic=True, priority=2))
    assert bench.tokens(ALICE) == [1, 1]
    bench.advance(CHOICE_NS)
    for name in BOTH:
        bench.answer_stops(name)
        bench.told(name)
        assert bench.tokens(name) == [2, 2]


def test_pairs_that_are_not_consecutive_come_together_with_the_end() -> None:
    bench = Bench(slots=(3, 3)).begin()
    bench.serving(create(1, number=3, consecutive=False))
    for _ in range(2):
        serve(bench)
        assert valid_pairs(bench, ALICE) == valid_pairs(bench, BOB) == []
    serve(bench)
    for name in BOTH:
        said = [type(m).__name__ for m in bench.ends[name].above[-4:]]
        assert said == ["LinkPair"] * 3 + ["LinkDone"]
        assert {*bench.ends[name].qubits.values()} == {"network"}
    assert valid_pairs(bench, ALICE) == valid_pairs(bench, BOB)


def test_measured_pairs_that_are_not_consecutive_come_together_with_the_end() -> None:
    bench = Bench().begin()
    bench.serving(
        create(1, number=90, kind="measure", basis="X", peer_basis="X", consecutive=False)
    )
    bench.herald(pairs=60)
    bench.told(BOB)
    assert not bench.all(BOB, service.LinkMeasured)
    bench.herald(pairs=30)
    bench.told(BOB)
    assert [part.pairs for part in bench.all(BOB, service.LinkMeasured)] == [60, 30]


@pytest.mark.parametrize("canceller", BOTH)
def test_pairs_held_back_are_freed_when_the_request_ends_without_the_last(canceller: str) -> None:
    bench = Bench(slots=(3, 3)).begin()
    bench.serving(create(1, number=3, consecutive=False))
    serve(bench)
    bench.say(canceller, service.LinkCancel(request=identity(1)))
    bench.deliver()
    for name in BOTH:
        assert {*bench.ends[name].qubits.values()} == {"freed"}
        assert not bench.all(name, service.LinkPair)


def test_who_has_all_pairs_learns_that_the_other_end_gave_them_back() -> None:
    bench = Bench(slots=(2, 2)).begin()
    bench.serving(create(1, number=2, consecutive=False, deadline_ns=SECOND))
    bench.herald()
    bench.herald()
    bench.told(ALICE)
    bench.event(BOB, bench.told_next(BOB))
    bench.advance(SECOND)
    bench.told(BOB)
    bench.deliver()
    assert ends_of(bench, ALICE, identity(1)) == ["done"]
    assert ends_of(bench, BOB, identity(1)) == ["TIMEOUT"]
    assert len(bench.all(ALICE, service.LinkExpired)) == 2
    assert {*bench.ends[BOB].qubits.values()} == {"freed"}


def test_pairs_held_back_go_with_the_device() -> None:
    bench = Bench(slots=(3, 3)).begin()
    bench.serving(create(1, number=3, consecutive=False))
    serve(bench)
    bench.device_lost(ALICE)
    bench.deliver()
    for name in BOTH:
        assert {*bench.ends[name].qubits.values()} == {"freed"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"number": None, "atomic": True}, "BAD_REQUEST"),
    ({"number": None, "consecutive": False}, "BAD_REQUEST"),
    ({"number": 4, "consecutive": False}, "NO_RESOURCES"),
]


@pytest.mark.parametrize(("changes", "error"), REFUSED)
def test_what_could_never_be_served_is_refused(changes: dict[str, Any], error: str) -> None:
    bench = Bench(slots=(3, 5)).begin()
    bench.say(ALICE, create(1, **changes))
    assert bench.errors(ALICE) == [error]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_random_faults_with_atomic_requests_and_pairs_held_back(rate: float) -> None:
    for seed in range(25):
        rng = Random(seed)
        faults = Chance(seed, rate)
        bench = LossyBench(faults, slots=(3, 3)).start()
        for which in range(10):
            bench.run(int(10 ** rng.uniform(4, 6.5)))
            by = rng.choice(BOTH)
            asked = create(
                which, OTHER[by], number=rng.randint(1, 3), atomic=rng.random() < 0.4,
                consecutive=rng.random() < 0.6, priority=rng.randrange(3),
                deadline_ns=bench.now + rng.choice([DELAY_NS * 12, SECOND]),
            )  # fmt: skip
            bench.say(by, asked)
        bench.run(2 * SECOND)
        faults.is_healed = True
        bench.run(12 * SECOND)
        check(bench, [identity(which) for which in range(10)])
