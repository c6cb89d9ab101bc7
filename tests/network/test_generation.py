"""How many pairs are asked of the link layer: over one link no more than are needed."""

from qstack.network import service
from qstack.network.params import KEEP_REQUESTS_MAX
from tests.network.world import SECOND, Options, World, chain


def asked(world: World) -> list[int | None]:
    """The numbers of all open link requests."""
    return [r.create.number for state in world.links.values() for r in state.requests.values()]


def slow(count: int) -> World:
    """A chain whose links have made no pair by the time a test looks."""
    return World(chain(count), options=Options(rate_hz=1e-3))


def test_one_link_is_asked_for_the_number_of_the_request() -> None:
    world = slow(2)
    world.create("n0", "n1", 5, deadline_ns=world.now + 10**6 * SECOND)
    world.run(world.now + SECOND)
    assert asked(world) == [5]


def test_several_links_are_asked_without_number() -> None:
    world = slow(3)
    world.create("n0", "n2", 5, deadline_ns=world.now + 10**6 * SECOND)
    world.run(world.now + SECOND)
    assert asked(world) == [None, None]


def test_requests_beyond_the_limit_share_a_link_request_when_one_is_done() -> None:
    world = World(chain(2))
    requests = [world.create("n0", "n1") for _ in range(3 * KEEP_REQUESTS_MAX)]
    most = 0
    for _ in range(2000):
        world.run(world.now + SECOND // 10_000)
        most = max(most, len(asked(world)))
    assert most == KEEP_REQUESTS_MAX
    assert all(world.of("n0", service.NetworkDone, request) for request in requests)
    world.check_ledger()


def test_a_withdrawn_request_takes_its_pairs_with_it() -> None:
    world = slow(2)
    far = world.now + 10**6 * SECOND
    large = world.create("n0", "n1", 1000, deadline_ns=far)
    world.create("n0", "n1", 2, deadline_ns=far)
    world.run(world.now + SECOND)
    world.cancel_request("n0", large)
    world.run(world.now + SECOND)
    assert asked(world) == [2]


def test_a_pair_that_becomes_void_is_asked_for_again() -> None:
    world = World(chain(2), seed=3, options=Options(void=0.5))
    request = world.create("n0", "n1", 20)
    world.run(world.now + 50 * SECOND)
    assert world.of("n0", service.NetworkDone, request)
    assert asked(world) == []
    world.check_ledger()
