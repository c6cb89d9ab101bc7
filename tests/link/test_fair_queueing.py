"""Weighted fair queueing: shares of a link as numbers, over every window and at both ends."""

from random import Random
from typing import Any

import pytest

from qstack.link.params import CHOICE_NS, FAIR_PAIRS
from qstack.runtime.network_file import NetworkFileError, packaged_network, parse_network
from qstack.runtime.virtual import VirtualNetwork
from tests.link.bench import ALICE, BOB, SECOND, Bench, create, identity
from tests.link.lossy import BOTH, OTHER, Chance, LossyBench, ask, check

WEIGHTS = (1, 2, 4, 1, 1, 1, 1, 8)
ALL_NS = 10_000 * SECOND


def serve(bench: Bench, pairs: int) -> list[int]:
    """For whom the next pairs were; both ends attempt for the same request each time."""
    came = []
    for _ in range(pairs):
        assert bench.tokens(ALICE) == bench.tokens(BOB)
        came.append(bench.tokens(ALICE)[0])
        bench.herald()
        for name in BOTH:
            bench.told(name)
    return came


def open_three(**changes: float) -> Bench:
    """Requests 1, 2 and 3 with weights 1, 2 and 4, without end."""
    bench = Bench(slots=(1, 1), weights=WEIGHTS).begin()
    for which, by in ((1, ALICE), (2, BOB), (3, ALICE)):
        asked = create(
            which, OTHER[by], number=None, priority=which - 1, deadline_ns=ALL_NS, **changes
        )
        bench.say(by, asked)
    bench.deliver()
    bench.advance(SECOND // 10)
    return bench


def test_shares_are_the_weights_in_every_window() -> None:
    came = serve(open_three(), 710)[10:]
    for first in range(0, 690, 7):
        window = came[first : first + 7]
        for which, share in ((1, 1), (2, 2), (3, 4)):
            assert abs(window.count(which) - share) <= 1, "a window of seven, one pair each way"
    assert [came.count(which) for which in (1, 2, 3)] == [100, 200, 400]


def test_shares_are_of_time_and_a_better_pair_takes_longer() -> None:
    bench = Bench(slots=(1, 1), weights=(1,) * 8).begin()
    bench.say(ALICE, create(1, number=None, deadline_ns=ALL_NS, min_fidelity=0.5))
    bench.say(ALICE, create(2, number=None, deadline_ns=ALL_NS, min_fidelity=0.85))
    bench.deliver()
    bench.advance(SECOND // 10)
    came = serve(bench, 110 * 5)
    assert abs(came.count(2) - 50) <= 1, "one takes ten times as long as the other"


def test_who_comes_late_gets_its_share_from_then_on_and_nothing_for_before() -> None:
    bench = Bench(slots=(1, 1), weights=(1,) * 8).begin()
    bench.serving(create(1, number=None, deadline_ns=ALL_NS))
    serve(bench, 500)
    bench.serving(create(2, ALICE, number=None, deadline_ns=ALL_NS), BOB)
    came = serve(bench, 100)
    assert abs(came.count(2) - 50) <= 1
    assert max(len(run) for run in "".join(map(str, came)).split("1")) <= 2


def test_without_weights_the_highest_priority_has_the_link() -> None:
    bench = Bench(slots=(1, 1)).begin()
    for which in (1, 2):
        bench.say(ALICE, create(which, number=None, priority=which, deadline_ns=ALL_NS))
    bench.deliver()
    bench.advance(SECOND // 10)
    assert serve(bench, 50) == [2] * 50


STRICT = (1, 2, 4, 1, 1, 1, "strict", "strict")


def test_a_strict_priority_goes_before_all_shares_and_leaves_them_as_they_are() -> None:
    bench = Bench(slots=(1, 1), weights=STRICT).begin()
    for which, priority, number in ((1, 1, None), (2, 2, None), (3, 6, 20), (4, 7, 10)):
        asked = create(which, number=number, priority=priority, deadline_ns=ALL_NS)
        bench.say(ALICE, asked)
    bench.deliver()
    bench.advance(SECOND // 10)
    assert serve(bench, 30) == [4] * 10 + [3] * 20, "the highest first, whoever asked first"
    came = serve(bench, 60)
    assert abs(came.count(2) - 40) <= 1, "no share of theirs was used up meanwhile"


def test_a_strict_request_takes_the_link_when_both_ends_look_again() -> None:
    bench = Bench(slots=(1, 1), weights=STRICT).begin()
    bench.serving(create(1, number=None, deadline_ns=ALL_NS))
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [1]
    bench.serving(create(2, ALICE, number=3, priority=7, deadline_ns=ALL_NS), BOB)
    bench.advance(CHOICE_NS)
    for name in BOTH:
        bench.answer_stops(name)
        bench.told(name)
    assert serve(bench, 4) == [2, 2, 2, 1]


def test_a_measure_request_gives_the_link_back_after_a_while() -> None:
    bench = Bench(slots=(1, 1), weights=(1,) * 8).begin()
    bench.serving(
        create(1, kind="measure", number=10_000, basis="X", peer_basis="X", deadline_ns=ALL_NS)
    )
    (batch,) = bench.ends[ALICE].batches.values()
    assert batch.pairs == FAIR_PAIRS


@pytest.mark.parametrize("weights", [WEIGHTS, (3, "strict", 1, 1, 1, 1, 1, 1)])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_random_requests_with_weights_under_faults(rate: float, weights: Any) -> None:
    for seed in range(25):
        rng = Random(seed)
        faults = Chance(seed, rate)
        bench = LossyBench(faults, slots=(2, 2), weights=weights).start()
        for which in range(10):
            bench.run(int(10 ** rng.uniform(4, 7)))
            ask(bench, rng, which)
        bench.run(2 * SECOND)
        faults.is_healed = True
        bench.run(12 * SECOND)
        check(bench, [identity(which) for which in range(10)])


# --- the network file ----------------------------------------------------------------------------


def with_weights(weights: str) -> str:
    return packaged_network("pair").replace("[network]", f"[network]\nlink_weights = {weights}")


def test_weights_come_from_the_network_file() -> None:
    network = parse_network(with_weights("[1, 2, 4, 1, 1, 1, 1, 8]"), where="test")
    assert network.link_weights == WEIGHTS
    peers = VirtualNetwork(network, 1).nodes["alice"].machines["link"].peers
    assert peers["bob"].weights == WEIGHTS


def test_a_weight_may_be_strict() -> None:
    network = parse_network(with_weights('[1, 10, "strict", 1, 1, 1, 1, 1]'), where="test")
    assert network.link_weights == (1, 10, "strict", 1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    "weights",
    ["[1, 2]", '["loose", 1, 1, 1, 1, 1, 1, 1]', "[0, 1, 1, 1, 1, 1, 1, 1]", '"fair"', "[1.5]"],
)
def test_weights_that_cannot_be_are_refused(weights: str) -> None:
    with pytest.raises(NetworkFileError, match="link_weights"):
        parse_network(with_weights(weights), where="test")
