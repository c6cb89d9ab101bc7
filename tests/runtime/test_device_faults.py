"""Faults of a device in whole networks: what the layers make of each of them."""

from typing import Any

import pytest

from qstack.machine import Told
from qstack.physical import service as physical
from qstack.physical.device import Device
from qstack.physical.drivers.faulty import (
    BurstLoss,
    ClockStep,
    Fault,
    FaultyDevice,
    LeakedQubit,
    LostHeralds,
    Outage,
    Recalibration,
    StuckDetector,
    Unwell,
)
from qstack.physical.emulated import EmulatedDevice
from qstack.runtime import compose
from qstack.runtime.session_messages import Sleep
from qstack.transport import service as transport
from tests.runtime.scripts import SECOND, App, WatchedNetwork
from tests.runtime.test_photon_pairs import read
from tests.runtime.test_virtual import both, failures

ENDS = ("alice", "bob")
MS = 1_000_000
NEVER_NS = 10**18


def network(name: str, monkeypatch: pytest.MonkeyPatch, *plan: Fault) -> WatchedNetwork:
    """A network in which alice's device has faults."""
    make = compose.make_device

    def faulty(driver: str, *, node: str, **more: Any) -> Device:
        device = make(driver, node=node, **more)
        return FaultyDevice(device, plan, slot_ns=10) if node == "alice" else device

    with monkeypatch.context() as patched:
        patched.setattr(compose, "make_device", faulty)
        net = WatchedNetwork(name, 1)
    net.run_until(10 * MS)
    return net


def finish(net: WatchedNetwork) -> None:
    """Every call is closed; nothing is left anywhere when the sessions end."""
    net.settle()
    net.check_calls()
    net.end_everything()
    net.check_empty()


def delivered(app: App) -> int:
    return len(app.all(transport.PairDelivered))


def test_a_stuck_detector_shows_in_the_errors_of_measured_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = StuckDetector(at_ns=0, until_ns=NEVER_NS, outcome=1)
    net = network("metro", monkeypatch, stuck)
    apps = both(net, ENDS, 2000, basis="Z")
    net.settle()
    here, there = (read(app)[0] for app in apps)
    assert here.all()  # every outcome of alice
    assert 0.4 < there.mean() < 0.6  # bob's are fair coins: within 8.9 sigma
    finish(net)


def test_slots_in_a_burst_of_loss_make_no_pairs_and_the_others_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lossless = network("metro", monkeypatch)
    apps = both(lossless, ENDS, 20_000, basis="Z")
    lossless.settle()
    done_ns = lossless.now_ns
    net = network("metro", monkeypatch, BurstLoss(at_ns=20 * MS, until_ns=60 * MS))
    apps = both(net, ENDS, 20_000, basis="Z")
    net.settle()
    assert 20 * MS < net.now_ns - done_ns < 60 * MS  # 40 ms later, to a chunk
    here, there = (read(app)[0] for app in apps)
    assert len(here) == len(there) == 20_000
    assert (here == there).mean() > 0.97
    finish(net)


def test_after_a_herald_was_lost_at_one_end_a_request_ends_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ends have counted differently: what was delivered is good, and nothing is left."""
    net = network("pair", monkeypatch, LostHeralds(at_ns=10 * MS, until_ns=300 * MS))
    apps = both(net, ENDS, 40, within_ns=2 * SECOND)
    net.settle()
    assert [failures(app) for app in apps] == [["TIMEOUT"], ["TIMEOUT"]]
    first, second = ([each.pair for each in app.all(transport.PairDelivered)] for app in apps)
    assert first == second
    again = both(net, ENDS, 3, port=8, within_ns=10**12)
    net.settle()
    assert [delivered(app) for app in again] == [3, 3]
    finish(net)


def test_a_step_of_the_clock_makes_coincidences_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    step_ns = 15 * MS
    net = network("metro", monkeypatch, ClockStep(at_ns=step_ns, slots=7))
    apps = both(net, ENDS, 20_000, basis="Z", within_ns=SECOND // 5)
    net.settle()
    assert [failures(app) for app in apps] == [["TIMEOUT"], ["TIMEOUT"]]
    here, there = (read(app)[0] for app in apps)
    pairs = min(len(here), len(there))
    source = net.network.links["alice-bob"].pair_source()
    assert pairs < 0.2 * 200_000_000 / 10 * source.efficiencies[0] * source.efficiencies[1] * 0.02
    finish(net)


@pytest.mark.parametrize("plan", [[], [LeakedQubit(at_ns=20 * MS)]])
def test_a_leaked_qubit_reads_1_whatever_is_done_to_it(
    plan: list[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script() -> Any:
        message = yield [physical.Allocate(call=1)]
        flip = {"name": "x", "qubits": [message.qubit], "angle": 0.0}
        yield [physical.ApplyGate(call=2, **flip), Sleep(call=3, span_ns=20 * MS)]
        yield []
        yield [
            physical.ApplyGate(call=4, **flip),
            physical.Measure(call=5, qubit=message.qubit, basis="Z"),
        ]
        while True:
            yield []

    net = network("pair", monkeypatch, *plan)
    app = App(net, "alice", script())
    net.settle()
    (measured,) = app.all(physical.Measured)
    assert measured.outcome == (1 if plan else 0)  # it was flipped twice
    finish(net)


def test_a_device_that_is_degraded_says_so_in_status_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unwell = Unwell(at_ns=20 * MS, until_ns=10 * SECOND, detail="low count rate")
    net = network("pair", monkeypatch, unwell)
    net.run_until(30 * MS)
    layer: Any = net.nodes["alice"].machines["physical"]
    assert layer.summary()["health"] == "degraded"
    assert layer.summary()["health_detail"] == "low count rate"
    apps = both(net, ENDS, 3, within_ns=10**12)
    net.settle()
    assert [delivered(app) for app in apps] == [3, 3]
    assert layer.summary()["health"] == "ready"
    finish(net)


def test_an_outage_ends_what_is_open_at_both_ends_and_later_work_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = network("metro", monkeypatch, Outage(at_ns=40 * MS, until_ns=400 * MS))
    apps = both(net, ENDS, 50, within_ns=10**12)
    net.run_until(500 * MS)
    assert failures(apps[0]) == ["DEVICE_LOST"]
    assert all(len(failures(app)) == 1 for app in apps)
    again = both(net, ENDS, 3, port=8, within_ns=10**12)
    net.settle()
    assert [delivered(app) for app in again] == [3, 3]
    finish(net)


def test_a_clock_does_not_step_back() -> None:
    with pytest.raises(ValueError, match="steps forward"):
        FaultyDevice(EmulatedDevice(), [ClockStep(at_ns=0, slots=-1)])


def test_heralds_carry_the_calibration_their_batch_began_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = network("pair", monkeypatch, Recalibration(at_ns=100 * MS), Recalibration(at_ns=200 * MS))
    seen: list[tuple[int, int]] = []
    link = net.nodes["alice"].machines["link"]
    handle = link.handle

    def see(event: Any, now: int) -> Any:
        if isinstance(event, Told) and isinstance(event.message, physical.Heralded):
            seen.append((event.message.emitted_at_ns, event.message.calibration))
        return handle(event, now)

    monkeypatch.setattr(link, "handle", see)
    both(net, ENDS, 60, within_ns=10**12)
    net.settle()
    counts = [calibration for _, calibration in seen]
    assert set(counts) == {0, 1, 2}
    assert all(calibration == 0 for at_ns, calibration in seen if at_ns < 100 * MS)
    assert counts[-1] == 2
    finish(net)
