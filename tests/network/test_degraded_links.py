"""Links that keep less than they promised: circuits leave them, requests go round or end."""

import pytest

from qstack.link import service as link
from qstack.machine import Told
from qstack.network import messages
from tests.network.test_circuits import MILLISECOND, RING, failure, routes
from tests.network.test_generation import asked, slow
from tests.network.world import GOOD, SECOND, World, chain

BAD = [0.7, 0.1, 0.1, 0.1]
LESS = [0.91, 0.03, 0.03, 0.03]


@pytest.mark.parametrize("seed", range(6))
def test_an_open_request_leaves_a_link_that_keeps_less(seed: int) -> None:
    world = World(RING, seed)
    request = world.create("a", "c", 30)
    world.run(world.now + 10 * MILLISECOND)
    assert routes(world) == [["a", "b", "c"]]
    world.link_up("b", "c", BAD)
    later = world.create("a", "c", 2)
    world.run()
    assert routes(world)[1:] == [["a", "f", "e", "d", "c"]]
    for each, number in ((request, 30), (later, 2)):
        assert [world.ending(name, each) for name in ("a", "c")] == ["done", "done"]
        assert world.check("a", "c", each, is_cut=True) == number
    world.check_ledger()


def test_a_link_a_little_worse_is_used_on_with_a_promise_it_keeps() -> None:
    world = World(RING)
    world.create("a", "c")
    world.run(world.now + SECOND)
    world.link_up("b", "c", LESS)
    later = world.create("a", "c")
    world.run()
    assert routes(world) == [["a", "b", "c"], ["a", "b", "c"]], "four links are worse still"
    promised = [
        message.fidelity
        for _, source, _, message in world.sent
        if isinstance(message, messages.Install) and source == "a"
    ]
    assert promised[1] < promised[0] - 0.03
    assert world.ending("a", later) == "done"


@pytest.mark.parametrize(
    ("number", "after_ns", "at_the_tail"),
    [(1, MILLISECOND // 10, ""), (400, 50 * MILLISECOND, "PEER_DOWN")],
)
def test_a_fidelity_that_cannot_be_had_any_more_ends_a_request_with_the_best(
    number: int, after_ns: int, at_the_tail: str
) -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", number, min_fidelity=0.9)
    world.run(world.now + after_ns)
    world.link_up("n1", "n2", LESS)
    world.run()
    assert world.ending("n0", request) == "FIDELITY"
    assert world.ending("n2", request) == at_the_tail, "it waits for a head that comes back"
    best = failure(world, "n0", request).best
    assert best is not None
    assert 0.85 < best < 0.9
    again = world.create("n0", "n2", min_fidelity=best)
    world.run()
    assert world.ending("n0", again) == "done"
    world.check_ledger()


def test_measured_pairs_of_a_link_that_keeps_less_end_with_the_best() -> None:
    world = World(chain(2))
    read = world.create(
        "n0", "n1", 10**4, kind="measure", basis="Z", remote_basis="Z", min_fidelity=0.95
    )
    world.run(world.now + 8 * MILLISECOND)
    world.link_up("n0", "n1", BAD)
    world.run()
    assert world.ending("n0", read) == "FIDELITY"
    assert world.ending("n1", read) == "PEER_DOWN"
    best = failure(world, "n0", read).best
    assert best is not None
    assert best <= 0.7


def test_a_link_that_offers_the_same_or_more_disturbs_nobody() -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", 20)
    world.run(world.now + 10 * MILLISECOND)
    for weights in (GOOD, [0.98, 0.01, 0.005, 0.005]):
        world.link_up("n0", "n1", weights)
    world.run()
    assert len(routes(world)) == 1
    assert world.ending("n0", request) == "done"


def test_a_number_the_link_has_no_time_for_is_taken_as_it_comes() -> None:
    world = slow(2)
    request = world.create("n0", "n1", 5, deadline_ns=world.now + 10**6 * SECOND)
    world.run(world.now + SECOND)
    (state,) = world.links.values()
    (open_,) = state.requests.values()
    world.end_link_request(state, open_, "NO_TIME")
    world.run(world.now + SECOND)
    assert asked(world) == [None], "asked once more, and not again and again"
    failed = link.LinkFailed(
        request=open_.create.request, purpose=open_.create.purpose, error="NO_TIME", detail="",
        best=None,
    )  # fmt: skip
    world.event("n0", Told("link", failed))
    assert asked(world) == [None]
    world.run()
    assert world.ending("n0", request) == "done"
    world.check_ledger()
