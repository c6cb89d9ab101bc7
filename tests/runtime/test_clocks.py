"""NETWORK.toml: clocks of nodes and timing of links; networks whose clocks are off, at work."""

from typing import Any

import pytest

from qstack.physical.device import Device
from qstack.physical.drivers.faulty import ClockStep, Fault, FaultyDevice, Outage
from qstack.runtime import compose
from qstack.runtime.network_file import Network
from qstack.transport import service as transport
from tests.runtime.scripts import SECOND, App, WatchedNetwork
from tests.runtime.test_network_file import link, node, parsed, problems_of
from tests.runtime.test_virtual import both, finish

MS = 1_000_000
CLOCK: dict[str, object] = {
    "offset_ps": 2_000_000, "drift_ppb": 5, "accuracy_ppb": 20, "jitter_ps": 10,
}  # fmt: skip
TIMING: dict[str, object] = {
    "asymmetry_ps": 0, "wavepacket": '"exponential"', "width_ps": 10_000, "gate_ps": 60_000,
}  # fmt: skip


def entries(table: str, values: dict[str, object]) -> str:
    return "".join(
        f'[{table}.{key}]\nvalue = {value}\nsource = "s"\nmark = "assumed"\n'
        for key, value in values.items()
        if value is not None
    )


def clocked(name: str, **changes: object) -> str:
    return node(name, "ion-projected") + entries("node.clock", CLOCK | changes)


def timed(first: str = "a", second: str = "b", **changes: object) -> str:
    text = link(first, second, scheme='"double-click"', length_m=10_000)
    return text + entries("link.timing", TIMING | changes)


def network(**changes: object) -> Network:
    return parsed(clocked("a"), clocked("b", drift_ppb=-7, offset_ps=-1e9), timed(**changes))


def report(net: WatchedNetwork, name: str, peer: str) -> dict[str, Any]:
    layer: Any = net.nodes[name].machines["physical"]
    return dict(layer.summary()["clocks"][peer])


def delivered(app: App) -> int:
    return len(app.all(transport.PairDelivered))


# --- the file ------------------------------------------------------------------------------------


def test_what_changes_of_a_rate_and_what_was_measured_of_a_fibre_may_be_said() -> None:
    more = {"ageing_ppb_per_day": -2, "rate_wander_ppb_per_root_day": 0.5}
    text = timed("b", "a", asymmetry_ps=400, measured_asymmetry_ps=390)
    net = parsed(clocked("a", **more), clocked("b"), text)
    clock, timing = net.nodes["a"].clock, net.links["a-b"].timing
    assert clock is not None
    assert timing is not None
    assert (clock.ageing_ppb_per_day, clock.rate_wander_ppb_per_root_day) == (-2.0, 0.5)
    assert (timing.asymmetry_ps, timing.measured_asymmetry_ps) == (-400.0, -390.0)
    assert {"a.ageing_ppb_per_day", "a-b.measured_asymmetry_ps"} <= {*net.assumed}
    without = parsed(clocked("a"), clocked("b"), text)
    assert without.digest != net.digest
    wild = problems_of(clocked("a", rate_wander_ppb_per_root_day=-1), clocked("b"), text)
    assert wild[0].startswith("node[0].clock.rate_wander_ppb_per_root_day.value: -1 is not allowed")


def test_a_file_says_what_clocks_are_like_and_where_it_is_from() -> None:
    net = network(asymmetry_ps=400)
    clock = net.nodes["a"].clock
    timing = net.links["a-b"].timing
    assert clock is not None
    assert timing is not None
    assert (clock.drift_ppb, timing.asymmetry_ps) == (5.0, 400.0)
    assert {"a.jitter_ps", "a-b.width_ps"} <= set(net.assumed)
    assert net.world.nodes["b"].clock == net.nodes["b"].clock


def test_numbers_of_clocks_are_in_the_digest_and_their_sources_are_not() -> None:
    texts = [timed(), timed().replace('"s"', '"t"'), timed(asymmetry_ps=1)]
    digests = [parsed(clocked("a"), clocked("b"), text).digest for text in texts]
    assert digests[0] == digests[1] != digests[2]
    other = parsed(clocked("a", jitter_ps=11), clocked("b"), timed()).digest
    assert other != digests[0]


def test_asymmetry_is_that_of_the_ends_as_they_are_written() -> None:
    net = parsed(clocked("a"), clocked("b"), timed("b", "a", asymmetry_ps=400))
    timing = net.links["a-b"].timing
    assert timing is not None
    assert timing.asymmetry_ps == -400.0


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (
            (clocked("a"), node("b", "ion-projected"), timed().split("[link.timing")[0]),
            "link[0].timing: is missing; expected a table [link.timing]",
        ),
        (
            (clocked("a", drift_ppb=21), clocked("b"), timed()),
            "node[0].clock.drift_ppb.value: 21 is more than its accuracy of 20",
        ),
        (
            (clocked("a", jitter_ps=-1), clocked("b"), timed()),
            "node[0].clock.jitter_ps.value: -1 is not allowed; expected picoseconds",
        ),
        (
            (clocked("a", jitter_ps=None, jitter_ns=1), clocked("b"), timed()),
            "node[0].clock.jitter_ns: unknown key; this value is given in picoseconds",
        ),
        (
            (clocked("a"), clocked("b"), timed(wavepacket='"square"')),
            "link[0].timing.wavepacket.value: 'square' is not allowed; expected one of",
        ),
        (
            (clocked("a"), clocked("b"), timed(width_ps=0)),
            "link[0].timing.width_ps.value: 0 is not allowed",
        ),
    ],
)
def test_what_cannot_be_is_refused(parts: tuple[str, ...], problem: str) -> None:
    assert any(line.startswith(problem) for line in problems_of(*parts)), problems_of(*parts)


# --- networks ------------------------------------------------------------------------------------


def test_pairs_are_delivered_once_the_clocks_are_compared() -> None:
    net = WatchedNetwork(network(), 1)
    net.run_until(5 * MS)
    assert net.nodes["a"].machines["link"].summary()["links_up"] == []
    net.run_until(50 * MS)
    apps = both(net, ("a", "b"), 10, within_ns=100 * SECOND)
    finish(net)
    assert [delivered(app) for app in apps] == [10, 10]
    here, there = report(net, "a", "b"), report(net, "b", "a")
    assert here["offset_ps"] == -there["offset_ps"]
    assert there["offset_ps"] == pytest.approx(-1e9 - 2_000_000, rel=1e-3)
    assert there["rate_ppb"] == pytest.approx(-12.0, abs=0.2)


def test_a_run_with_clocks_is_a_function_of_its_seed() -> None:
    digests = []
    for seed in (1, 1, 2):
        net = WatchedNetwork(network(), seed)
        net.run_until(50 * MS)
        both(net, ("a", "b"), 5, within_ns=100 * SECOND)
        net.settle()
        digests.append(net.digest)
    assert digests[0] == digests[1] != digests[2]


def test_pairs_over_an_asymmetric_fibre_are_worse_and_nobody_knows() -> None:
    rates = []
    for asymmetry_ps in (0, -20_000):
        net = WatchedNetwork(network(asymmetry_ps=asymmetry_ps), 3)
        net.run_until(100 * MS)
        begun_ns = net.now_ns
        apps = both(net, ("a", "b"), 60, within_ns=100 * SECOND)
        net.settle()
        rates.append(delivered(apps[0]) / (net.now_ns - begun_ns))
        capability: Any = net.nodes["a"].machines["link"]
        (option,) = capability.peers["b"].capability.options
        assert option.bell_probabilities[0] > 0.96
    # A photon a lifetime early is in its gate with 1/e: 60 pairs, within 5 sigma of that.
    assert 0.15 < rates[1] / rates[0] < 0.8


def stepping(monkeypatch: pytest.MonkeyPatch, name: str, *plan: Fault) -> WatchedNetwork:
    make = compose.make_device

    def faulty(driver: str, *, node: str, **more: Any) -> Device:
        device = make(driver, node=node, **more)
        if node != name:
            return device
        return FaultyDevice(device, plan, slot_ns=10, timed_links=("a-b",))

    with monkeypatch.context() as patched:
        patched.setattr(compose, "make_device", faulty)
        return WatchedNetwork(network(), 1)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_step_of_a_clock_is_noticed_and_light_is_timed_anew(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_ns, slots = 2 * SECOND + 500 * MS, 3
    net = stepping(monkeypatch, name, ClockStep(at_ns=step_ns, slots=slots))
    clocks = net.fabric._clocks
    net.run_until(step_ns - MS)
    before_ps = report(net, "b", "a")["offset_ps"]
    assert abs(clocks.delay_ps("a-b", net.now_ns)) < 100.0
    net.run_until(step_ns + MS)
    early_ps = 30_000.0 if name == "b" else -30_000.0
    assert clocks.delay_ps("a-b", net.now_ns) == pytest.approx(-early_ps, abs=100.0)
    assert report(net, "b", "a")["steps"] == 0
    net.run_until(step_ns + SECOND)
    after = report(net, "b", "a")
    assert after["steps"] == 1
    assert after["offset_ps"] - before_ps == pytest.approx(early_ps - 12_000.0, abs=200.0)
    assert abs(clocks.delay_ps("a-b", net.now_ns)) < 200.0
    apps = both(net, ("a", "b"), 3, within_ns=100 * SECOND)
    finish(net)
    assert [delivered(app) for app in apps] == [3, 3]


def test_a_device_that_was_down_compares_its_clock_before_its_link_works_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outage = Outage(at_ns=2 * SECOND, until_ns=2 * SECOND + 200 * MS)
    net = stepping(monkeypatch, "b", outage)
    up: Any = net.nodes["b"].machines["link"]
    for until_ns, links in ((1900, ["a"]), (2100, []), (2205, []), (2250, ["a"])):
        net.run_until(until_ns * MS)
        assert up.summary()["links_up"] == links
    assert report(net, "b", "a")["comparisons"] == 2


def test_a_node_that_dies_and_comes_back_compares_its_clock_anew() -> None:
    net = WatchedNetwork(network(), 1)
    net.kill("b", 2 * SECOND)
    net.run_until(2 * SECOND + 100 * MS)
    net.run_until(3 * SECOND + 50 * MS)
    assert report(net, "b", "a")["comparisons"] == 2
    apps = both(net, ("a", "b"), 3, within_ns=100 * SECOND)
    finish(net)
    assert [delivered(app) for app in apps] == [3, 3]


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_physical_layer_that_dies_alone_compares_its_clock_anew(name: str) -> None:
    text = [clocked(each).replace("memory", 'layout = "split"\nmemory') for each in "ab"]
    net = WatchedNetwork(parsed(*text, timed()), 1)
    net.run_until(50 * MS)
    net.kill_layer(name, "physical", 2 * SECOND)
    net.run_until(5 * SECOND)
    apps = both(net, ("a", "b"), 3, within_ns=100 * SECOND)
    finish(net)
    assert [delivered(app) for app in apps] == [3, 3]
