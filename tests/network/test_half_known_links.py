"""Links that come and go at one end before the other, and requests that wait for them."""

import pytest

from qstack.network.params import RESUME_NS, RETRY_NS
from tests.network.world import SECOND, World, chain

MILLISECOND = 1_000_000


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("what", ["up", "down"])
def test_a_remote_lives_whose_link_is_known_at_one_end_before_the_other(
    count: int, what: str
) -> None:
    """As on a busy machine: the second end hears of it when the head has looked in between."""
    world = World(chain(count))
    near, tail = f"n{count - 2}", f"n{count - 1}"
    request = world.create("n0", tail, 200)
    world.run(world.now + 8 * MILLISECOND)
    late = near if what == "up" else tail
    early = tail if what == "up" else near
    first = early if what == "down" else ""
    world.link_down(near, tail, tell=(first,) if first else ())
    world.run(world.now + RETRY_NS // 2)
    if what == "up":
        world.link_up(near, tail, tell=(early,))
    world.run(world.now + 2 * RETRY_NS)
    if what == "down":
        world.link_down(near, tail, tell=(late,))
        world.run(world.now + RETRY_NS)
        world.link_up(near, tail)
    else:
        world.link_up(near, tail, tell=(late,))
    world.run()
    assert world.ending("n0", request) == world.ending(tail, request) == "done"
    assert world.check("n0", tail, request, is_cut=True) == 200
    world.check_ledger()


@pytest.mark.parametrize("count", [2, 3])
def test_a_tail_waits_for_a_head_that_lives_for_as_long_as_the_link_takes(count: int) -> None:
    world = World(chain(count))
    near, tail = f"n{count - 2}", f"n{count - 1}"
    request = world.create("n0", tail, 200, deadline_ns=100 * SECOND)
    world.run(world.now + 8 * MILLISECOND)
    world.link_down(near, tail)
    world.run(world.now + 2 * RESUME_NS + SECOND)
    assert world.ending("n0", request) == world.ending(tail, request) == ""
    world.link_up(near, tail)
    world.run()
    assert world.check("n0", tail, request, is_cut=True) == 200
    world.check_ledger()


def test_a_tail_hears_in_time_that_its_head_has_ended_the_request_without_a_word() -> None:
    world = World(chain(2))
    request = world.create("n0", "n1", 200, deadline_ns=10**15)
    world.run(world.now + 8 * MILLISECOND)
    world.link_down("n0", "n1")
    world.run(world.now + 2 * RESUME_NS)
    world.cancel_request("n0", request)
    assert world.ending("n1", request) == "", "nobody could say so"
    world.link_up("n0", "n1")
    up_ns = world.now
    world.run(up_ns + 2 * RESUME_NS)
    assert world.ending("n1", request) == "PEER_DOWN"
    world.check_ledger()
