"""Networks over satellites: requests wait for a pass, go on in the next, or are refused in time."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qstack.physical.source_hardware import PairSourceHardware
from qstack.runtime.network_file import Network, load_network
from qstack.transport import service as transport
from tests.physical.test_link_options import passing
from tests.runtime.scripts import SECOND, App, WatchedNetwork
from tests.runtime.test_network_equipment import equipped
from tests.runtime.test_network_file import link, node, parsed
from tests.runtime.test_photon_pairs import read
from tests.runtime.test_virtual import both, failures, finish

EXAMPLE = Path(__file__).parents[2] / "examples" / "satellite.toml"
CHANNEL = passing(20.0, 60.0)
PERIOD_NS = 60 * SECOND
OPENS_NS = 20 * SECOND + CHANNEL.one_pass[0].begin_ns
UNTIL_NS = 20 * SECOND + CHANNEL.one_pass[-1].until_ns
ENDS = ("north", "south")


def over(network: Network, name: str) -> Network:
    """The network with a satellite for one of its links."""
    links = network.links | {name: replace(network.links[name], channel=CHANNEL)}
    return replace(network, links=links)


def layer(net: WatchedNetwork, name: str) -> Any:
    """The network layer of a node."""
    spied: Any = net.nodes[name].machines["network"]
    return getattr(spied, "machine", spied)


def is_adjacent(net: WatchedNetwork, name: str, peer: str) -> bool:
    return bool(layer(net, name)._database.is_adjacent(peer))


def counts(apps: list[App]) -> list[int]:
    return [len(read(app)[0]) for app in apps]


@pytest.fixture
def net() -> WatchedNetwork:
    net = WatchedNetwork(over(load_network(EXAMPLE), "north-south"), 3)
    net.run_until(SECOND)
    return net


def test_a_request_that_ends_before_the_next_pass_is_refused_at_once(net: WatchedNetwork) -> None:
    apps = both(net, ENDS, 10, basis="Z", within_ns=SECOND)
    net.run_until(SECOND + SECOND // 10)
    assert failures(apps[0]) == ["NO_TIME"]
    assert "opens at" in apps[0].all(transport.Failed)[0].detail
    finish(net)


@pytest.mark.parametrize(
    ("options", "error"), [({}, "NO_PATH"), ({"basis": "Z", "min_fidelity": 0.9999}, "FIDELITY")]
)
def test_what_the_next_pass_will_not_bring_is_not_waited_for(
    net: WatchedNetwork, options: dict[str, Any], error: str
) -> None:
    apps = both(net, ENDS, 10, within_ns=30 * SECOND, **options)
    net.run_until(SECOND + SECOND // 10)
    assert failures(apps[0]) == [error]
    finish(net)


def test_a_request_out_of_the_window_waits_for_it(net: WatchedNetwork) -> None:
    apps = both(net, ENDS, 10, basis="Z", within_ns=30 * SECOND)
    net.run_until(OPENS_NS - SECOND // 10)
    assert counts(apps) == [0, 0]
    assert not is_adjacent(net, *ENDS)
    net.run_until(OPENS_NS + SECOND)
    assert counts(apps) == [10, 10]
    assert is_adjacent(net, *ENDS)
    net.run_until(UNTIL_NS + SECOND)
    assert not is_adjacent(net, *ENDS)
    finish(net)


def test_a_request_without_a_deadline_keeps_the_clock_going_to_the_pass(
    net: WatchedNetwork,
) -> None:
    apps = both(net, ENDS, 10, basis="Z")
    net.settle()
    assert counts(apps) == [10, 10]
    assert OPENS_NS < net.now_ns < UNTIL_NS
    finish(net)


def test_a_request_the_satellite_leaves_goes_on_in_the_next_pass(net: WatchedNetwork) -> None:
    net.run_until(UNTIL_NS - SECOND // 5)
    apps = both(net, ENDS, 30_000, basis="Z", within_ns=60 * SECOND)
    net.run_until(UNTIL_NS + SECOND)
    first = counts(apps)
    assert 0 < min(first) <= max(first) < 30_000
    net.run_until(OPENS_NS + PERIOD_NS - SECOND)
    assert counts(apps) == first
    net.run_until(OPENS_NS + PERIOD_NS + 5 * SECOND)
    assert counts(apps) == [30_000, 30_000]
    assert failures(apps[0]) == []
    finish(net)


def test_a_request_that_wants_less_than_the_link_gives_lasts_while_the_satellite_sinks() -> None:
    """What was asked for is kept, though the rest of a pass is worse than the whole of it.

    A tenth of the slots: a whole pass of them is played.
    """
    plain = load_network(EXAMPLE)
    link_there = plain.links["north-south"]
    assert isinstance(link_there.source, PairSourceHardware)
    slower = replace(link_there.source, slot_rate_hz=link_there.source.slot_rate_hz // 10)
    slow = replace(plain, links={"north-south": replace(link_there, source=slower)})
    net = WatchedNetwork(over(slow, "north-south"), 3)
    net.run_until(OPENS_NS + SECOND // 10)
    apps = both(net, ENDS, 10**6, basis="Z", within_ns=UNTIL_NS - OPENS_NS)
    seen = [0]
    for step in range(1, 5):
        net.run_until(OPENS_NS + (UNTIL_NS - OPENS_NS) * step // 5)
        seen.append(min(counts(apps)))
    assert all(before < after for before, after in pairwise(seen))
    net.run_until(UNTIL_NS + SECOND)
    assert failures(apps[0]) == ["TIMEOUT"]
    finish(net)


def test_a_request_whose_deadline_comes_between_passes_ends_at_it(net: WatchedNetwork) -> None:
    net.run_until(UNTIL_NS - SECOND // 5)
    apps = both(net, ENDS, 30_000, basis="Z", within_ns=2 * SECOND)
    net.run_until(UNTIL_NS + 3 * SECOND)
    assert failures(apps[0]) == ["TIMEOUT"]
    assert counts(apps)[0] > 0
    finish(net)


@pytest.mark.soak
def test_pairs_over_memories_below_a_satellite_and_a_fibre_come_while_it_passes() -> None:
    nodes = [node(name, "ion-projected") for name in "abc"]
    frames = {"pair_parameter": 0.2, "trials": 2000}
    text = equipped("midpoint_source", frames, length_m=300_000)
    plain = parsed(*nodes, text, link("b", "c", length_m=1000))
    net = WatchedNetwork(over(plain, "a-b"), 3)
    net.run_until(SECOND)
    early = both(net, ("a", "c"), 1, within_ns=SECOND)
    net.run_until(2 * SECOND + SECOND // 10)
    assert failures(early[0]) == ["NO_PATH"]
    net.run_until(OPENS_NS + SECOND)
    apps = both(net, ("a", "c"), 2000, 8, within_ns=40 * SECOND)
    net.run_until(UNTIL_NS + SECOND)
    during = [len(app.all(transport.PairDelivered)) for app in apps]
    assert min(during) > 20
    assert not list(layer(net, "a")._circuits)
    net.run_until(UNTIL_NS + 8 * SECOND)  # the far end waits for another way, and gives up
    assert failures(apps[0]) == ["PEER_DOWN"]
    assert [len(app.all(transport.PairDelivered)) for app in apps] == during
    finish(net)
