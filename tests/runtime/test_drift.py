"""NETWORK.toml: links that drift; networks that calibrate theirs while requests wait."""

from itertools import pairwise
from typing import Any

import pytest

from qstack.link.service import LinkPair
from qstack.physical.device import Device
from qstack.physical.drivers.faulty import FaultyDevice, Unwell
from qstack.runtime import compose
from qstack.runtime.network_file import Network
from qstack.transport import service as transport
from tests.runtime.scripts import SECOND, App, WatchedNetwork
from tests.runtime.test_clocks import clocked, entries, timed
from tests.runtime.test_network_equipment import equipped
from tests.runtime.test_network_file import link, node, parsed, problems_of
from tests.runtime.test_network_pair_sources import pair_link
from tests.runtime.test_photon_pairs import read
from tests.runtime.test_retrieved_photon import retrieved
from tests.runtime.test_virtual import both, failures, finish

MS = 1_000_000
DRIFT: dict[str, object] = {
    "delay_ps_per_s": 0, "polarisation_rad_per_root_s": 0.05, "phase_rad_per_root_s": 0.1,
    "loss_per_s": 0.001, "calibration_period_ns": 2 * SECOND, "calibration_ns": 100 * MS,
    "lock_duty": 0.9, "lock_residual_rad": 0.1,
}  # fmt: skip


def drifting(
    first: str = "a", second: str = "b", scheme: str = "double-click", **changes: object
) -> str:
    text = link(first, second, scheme=f'"{scheme}"', length_m=10_000)
    return text + entries("link.drift", DRIFT | changes)


def network(**changes: object) -> Network:
    return parsed(node("a", "ion-projected"), node("b", "ion-projected"), drifting(**changes))


def calibrations(net: WatchedNetwork, name: str, peer: str) -> dict[str, Any]:
    layer: Any = net.nodes[name].machines["link"]
    return dict(layer.summary()["calibrations"][peer])


def delivered(app: App) -> int:
    return len(app.all(transport.PairDelivered))


def test_a_file_says_what_drifts_and_where_it_is_from() -> None:
    net = network()
    drift = net.links["a-b"].drift
    assert drift is not None
    assert drift.loss_per_s == 0.001
    assert "a-b.lock_duty" in net.assumed
    assert network(loss_per_s=0.002).digest != net.digest
    other = parsed(
        node("a", "ion-projected"), node("b", "ion-projected"), drifting().replace('"s"', '"t"')
    )
    assert other.digest == net.digest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (drifting(lock_duty=0), "link[0].drift.lock_duty.value: 0 is not allowed"),
        (drifting(calibration_ns=2 * SECOND), "link[0].drift.calibration_ns.value: 2000000000 is"),
        (drifting(calibration_period_ns=MS), "link[0].drift.calibration_period_ns.value: 1000000"),
        (drifting(delay_ps_per_s=1), "link[0].timing: is missing; expected a table [link.timing]"),
        (drifting(loss_per_s=None), "link[0].drift.loss_per_s: is missing"),
        (
            pair_link() + entries("link.drift", DRIFT),
            "link[0].drift.lock_duty.value: 0.9, and the slots of a pair source come one after",
        ),
        (
            equipped("absorptive_memory") + entries("link.drift", DRIFT | {"delay_ps_per_s": 1}),
            "link[0].timing: is missing; expected a table [link.timing], for its delay drifts",
        ),
    ],
)
def test_what_cannot_be_is_refused(text: str, problem: str) -> None:
    problems = problems_of(node("a", "ion-projected"), node("b", "ion-projected"), text)
    assert any(line.startswith(problem) for line in problems), problems


def test_a_request_goes_on_over_calibrations_and_its_pairs_carry_their_numbers() -> None:
    net = WatchedNetwork(network(), 1)
    apps = both(net, ("a", "b"), 500, within_ns=10**12)
    net.settle()
    assert [delivered(app) for app in apps] == [500, 500]
    assert failures(apps[0]) == []
    told = [pair for (name, _), pair in net.link_pairs.items() if name == "a"]
    numbers = [pair.calibration for pair in sorted(told, key=lambda each: each.emitted_at_ns)]
    assert numbers == sorted(numbers)
    assert numbers[-1] >= 2
    assert {name: calibrations(net, name, peer) for name, peer in ("ab", "ba")} == {
        name: {"calibration": numbers[-1], "is_closed": False} for name in "ab"
    }
    gaps = pauses([pair for pair in told if isinstance(pair, LinkPair)])
    assert all(gap > 100 * MS for gap in gaps[: numbers[-1]])  # the longest are calibrations
    finish(net)


def pauses(pairs: list[LinkPair]) -> list[int]:
    """The times without a pair, the longest first."""
    times = sorted(pair.emitted_at_ns for pair in pairs)
    return sorted((b - a for a, b in pairwise(times)), reverse=True)


MID = '[[station]]\nname = "mid"\naddress = "127.0.0.1:0"\n'
NAMED = {"station": '"mid"', "station_m": 9000}
SLOW_PAIRS = pair_link({"detector_efficiency": 0.04})
STEADY = DRIFT | {"lock_duty": 1, "calibration_period_ns": SECOND, "calibration_ns": 50 * MS}


@pytest.mark.parametrize(
    "text",
    [
        SLOW_PAIRS,
        pair_link({"detector_efficiency": 0.04}, **NAMED) + MID,
        equipped("midpoint_source"),
        equipped("absorptive_memory"),
        equipped("absorptive_memory", **NAMED) + MID,
        retrieved(),
    ],
    ids=["spdc", "spdc-mid", "midpoint-source", "absorptive", "absorptive-mid", "retrieved"],
)
def test_measured_pairs_of_every_scheme_go_on_over_calibrations(text: str) -> None:
    net = WatchedNetwork(
        parsed(
            node("a", "ion-projected"),
            node("b", "ion-projected"),
            text.replace(MID, "") + entries("link.drift", STEADY) + MID * (MID in text),
        ),
        1,
    )
    net.run_until(MS)
    layer: Any = net.nodes["a"].machines["link"]
    (option,) = layer.peers["b"].capability.options
    wanted = int(2.5e9 * option.probability / option.measure_cycle_ns)
    apps = both(net, ("a", "b"), wanted, basis="Z", within_ns=10 * SECOND)
    net.settle()
    assert failures(apps[0]) == []
    assert [len(read(app)[0]) for app in apps] == [wanted, wanted]
    assert 2 <= calibrations(net, "a", "b")["calibration"] <= 4
    assert calibrations(net, "a", "b") == calibrations(net, "b", "a")
    finish(net)


def test_admission_knows_of_the_time_calibrations_and_the_lock_take() -> None:
    rates = []
    for changes in ({}, {"calibration_ns": 1 * SECOND}, {"lock_duty": 0.45}):
        net = WatchedNetwork(network(**changes), 1)
        net.run_until(100 * MS)
        layer: Any = net.nodes["a"].machines["link"]
        (offer,) = layer.peers["b"].offers
        rates.append(offer.rate_hz)
    assert rates[1] / rates[0] == pytest.approx((2 / 3) / (2.0 / 2.1), rel=1e-3)
    assert rates[2] / rates[0] == pytest.approx(0.5, rel=1e-3)


def test_pairs_are_worse_the_longer_ago_the_calibration_was() -> None:
    """The same drift, calibrated every 2 s and every 100 s: the truth, and what nodes expect."""
    angles_rad, expected = [], []
    for period_ns in (2 * SECOND, 100 * SECOND):
        net = WatchedNetwork(network(calibration_period_ns=period_ns), 1)
        net.run_until(30 * SECOND)
        truth = net.fabric._circumstances.at("a-b", net.now_ns)
        assert truth is not None
        angles_rad.append(truth.polarisation_rad)
        layer: Any = net.nodes["a"].machines["link"]
        (option,) = layer.peers["b"].capability.options
        expected.append(option.bell_probabilities[0])
    assert angles_rad[0] < 0.05 * 2.2**0.5
    assert angles_rad[1] == pytest.approx(0.05 * 30.0**0.5, rel=1e-2)
    assert expected[1] < expected[0] - 0.08


def test_goodness_follows_the_time_since_the_last_calibration_a_node_knows_of() -> None:
    fast = network(calibration_period_ns=4 * SECOND, polarisation_rad_per_root_s=0.15)
    net = WatchedNetwork(fast, 1)
    both(net, ("a", "b"), 700, within_ns=10**12)
    net.settle()
    told = sorted(
        (pair.emitted_at_ns, pair.goodness, pair.calibration)
        for (name, _), pair in net.link_pairs.items()
        if name == "a"
    )
    first = {goodness for _, goodness, calibration in told if calibration == 0}
    second = [goodness for _, goodness, calibration in told if calibration == 1]
    assert len(first) <= 2  # the worst there may be, for psi+ and psi-
    assert len({*second}) > 10
    assert second[0] > second[-1] + 0.01
    assert min(second) > min(first) - 1e-9


def test_an_end_that_dies_while_its_link_is_calibrated_comes_back_to_a_link_that_works() -> None:
    net = WatchedNetwork(network(), 1)
    net.run_until(2 * SECOND + 100 * MS)
    assert calibrations(net, "a", "b")["is_closed"]
    net.kill("b", 2 * SECOND + 110 * MS)
    net.run_until(2 * SECOND + 120 * MS)
    assert not calibrations(net, "a", "b")["is_closed"]
    net.run_until(4 * SECOND)
    apps = both(net, ("a", "b"), 20, within_ns=100 * SECOND)
    finish(net)
    assert [delivered(app) for app in apps] == [20, 20]
    net.run_until(net.now_ns + 3 * SECOND)
    assert calibrations(net, "a", "b") == calibrations(net, "b", "a")
    assert calibrations(net, "a", "b")["calibration"] >= 1


@pytest.mark.parametrize("layer", ["physical", "link"])
def test_a_layer_that_dies_alone_while_its_link_is_calibrated_leaves_nothing_closed(
    layer: str,
) -> None:
    text = [
        node(each, "ion-projected").replace("memory", 'layout = "split"\nmemory') for each in "ab"
    ]
    net = WatchedNetwork(parsed(*text, drifting()), 1)
    net.kill_layer("b", layer, 2 * SECOND + 110 * MS)
    net.run_until(4 * SECOND)
    apps = both(net, ("a", "b"), 20, within_ns=100 * SECOND)
    finish(net)
    assert [delivered(app) for app in apps] == [20, 20]
    net.run_until(net.now_ns + 4 * SECOND)
    assert calibrations(net, "b", "a")["calibration"] >= 1
    assert not calibrations(net, "b", "a")["is_closed"]


def test_a_device_that_is_degraded_has_its_link_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    make = compose.make_device
    unwell = Unwell(at_ns=500 * MS, until_ns=800 * MS, detail="the counts have fallen")

    def faulty(driver: str, *, node: str, **more: Any) -> Device:
        device = make(driver, node=node, **more)
        return FaultyDevice(device, [unwell]) if node == "b" else device

    monkeypatch.setattr(compose, "make_device", faulty)
    net = WatchedNetwork(network(calibration_period_ns=1000 * SECOND), 1)
    net.run_until(SECOND)
    assert calibrations(net, "a", "b")["calibration"] == 1
    assert calibrations(net, "b", "a")["calibration"] == 1


def test_clocks_and_drift_go_together() -> None:
    text = timed() + entries("link.drift", DRIFT | {"delay_ps_per_s": 50})
    net = WatchedNetwork(parsed(clocked("a"), clocked("b", drift_ppb=-7), text), 1)
    net.run_until(SECOND)
    apps = both(net, ("a", "b"), 300, within_ns=10**12)
    finish(net)
    assert [delivered(app) for app in apps] == [300, 300]
    assert calibrations(net, "a", "b")["calibration"] >= 1
