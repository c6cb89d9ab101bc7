"""Named stations and nodes whose devices are drivers: what a station says reaches them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from qstack.errors import ErrorCode, LocalError
from qstack.ids import boot_id
from qstack.physical.device import (
    Calibrate,
    Generate,
    OperationRefused,
    Release,
    StopGenerate,
)
from qstack.physical.drivers.driver import Driver
from qstack.physical.drivers.setup import DriverError, Setup
from qstack.physical.drivers.template import TemplateDevice
from qstack.physical.drivers.template_station import TemplateStation
from qstack.physical.station_device import (
    Clicked,
    ClickedInCycles,
    HeraldedRead,
    KeepHeralded,
    Kept,
    ReadHeralded,
    StopWatch,
    WatchEnded,
    WatchLink,
)
from qstack.runtime.compose import compose
from qstack.runtime.drivers import make_device
from qstack.runtime.network_file import Network, parse_network
from qstack.transport import service as transport
from qstack.wire.packed import bits_size, pack_slots, unpack_slots
from tests.runtime.test_network_stations import problems
from tests.runtime.test_stations import StationNetwork, both, delivered, failures, with_station
from tests.runtime.test_stations_measured import LONG_NS, bits

NODES = ("memory = 4", 'memory = 4\ndriver = "template"')
STATION = ('name = "mid"', 'name = "mid"\ndriver = "template-station"')


def network(*changes: tuple[str, str]) -> Network:
    return parse_network(with_station("pair", NODES, STATION, *changes), where="test")


def setup(name: str) -> Setup:
    return Setup(node=name, world=network().world, rng=np.random.default_rng(5))


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["4", "1"])
def test_drivers_emit_and_a_station_of_hardware_heralds(memory: str) -> None:
    """Every qubit is taken over by its device when REPLY has come, with or without storage."""
    net = StationNetwork(with_station("pair", NODES, STATION, ("memory = 4", f"memory = {memory}")))
    apps = both(net, 20, within_ns=LONG_NS)
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [20, 20]
    assert delivered(apps)[0] == delivered(apps)[1]
    read = both(net, 20, 8, basis="X", within_ns=LONG_NS)
    net.settle()
    assert [len(bits(app)) for app in read] == [20, 20]
    assert bits(read[0], "z_bits") == bits(read[1], "z_bits")
    assert net.station().summary()["successes"] == 40
    assert net.station().summary()["open_batches"] == 0
    for node in ("alice", "bob"):
        device: Any = net.nodes[node].machines["physical"]
        assert (device._device.batches, device._device.in_flight) == ({}, {})


def test_a_station_of_hardware_that_dies_comes_back_and_numbers_go_on() -> None:
    net = StationNetwork(with_station("pair", NODES, STATION))
    apps = both(net, 60, within_ns=LONG_NS)
    net.kill("mid", net.now_ns + 100_000_000)
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [60, 60]
    assert failures(apps) == []


def test_a_device_that_does_not_have_what_was_heralded_ends_the_batch_and_the_link_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = [True, True]

    def keep(self: TemplateDevice, batch: Generate, cycle: int) -> None:
        if missing:
            missing.pop()
            raise LocalError(ErrorCode.GONE, f"no qubit of {cycle}")
        KEEP(self, batch, cycle)

    monkeypatch.setattr(TemplateDevice, "keep", keep)
    net = StationNetwork(with_station("pair", NODES, STATION))
    apps = both(net, 10, within_ns=10**9)
    net.settle()
    again = both(net, 10, 8, within_ns=LONG_NS)
    net.settle()
    assert [len(pairs) for pairs in delivered(again)] == [10, 10]
    assert not missing
    assert len(apps[0].all(transport.PairDelivered)) in (0, 10)


KEEP = TemplateDevice.keep


# --- what the loader refuses ---------------------------------------------------------------------


def test_emulated_and_real_parts_of_a_link_are_told_apart() -> None:
    (problem,) = problems(STATION)
    assert problem == (
        "link[0].station: emulated nodes do not meet in the hardware of driver 'template-station'; "
        'expected drivers for them, or none for [[station]] "mid"'
    )
    found = problems(("memory = 4", "memory = 4"), ('name = "mid"', 'name = "mid"\ndriver = "x"'))
    assert found[0].startswith("station[0].driver: no driver is called 'x'")


def make(driver: str, name: str) -> Callable[[], object]:
    return lambda: make_device(
        driver, node=name, world=network().world, rng=np.random.default_rng(0), options={},
        folder=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("driver", "name", "sentence"),
    [
        ("template", "mid", "driver 'template' is for nodes; expected one for a station"),
        ("template-station", "bob", "driver 'template-station' is for stations; expected one for"),
        ("replay", "alice", "driver 'replay' does not take what a station says of alice-bob; "
         "expected one whose class says emits = True (docs/drivers.md), or a link whose station"),
    ],
)  # fmt: skip
def test_drivers_that_cannot_do_it_are_refused_with_what_to_do(
    driver: str, name: str, sentence: str
) -> None:
    with pytest.raises(DriverError) as error:
        make(driver, name)()
    (problem,) = error.value.problems
    assert problem.startswith(sentence)


def test_a_node_with_such_a_driver_is_not_composed() -> None:
    text = with_station("pair", NODES, STATION).replace('driver = "template"', 'driver = "replay"')
    with pytest.raises(DriverError):
        compose(parse_network(text, where=""), "alice", boot_id(0, "alice", 0), 1, None)


# --- the drivers ---------------------------------------------------------------------------------


def watch(station: TemplateStation, number: int = 1, **more: Any) -> None:
    fields: dict[str, Any] = {
        "link": "alice-bob", "batches": (1, 2), "first_cycle": 7, "until_cycle": None,
        "kind": "keep", "bright_state": None, "pairs": 1,
    }  # fmt: skip
    station.submit(WatchLink(at_ns=0, sequence=number, **(fields | more)), 0)


def all_of(device: Any, until_ns: int) -> list[Any]:
    told = []
    while (next_ns := device.next_event_ns()) is not None and next_ns <= until_ns:
        told += device.answers(next_ns)
    return told


def test_detectors_click_once_for_a_watch_that_keeps_and_in_parts_for_one_that_measures() -> None:
    station = TemplateStation(setup("mid"))
    watch(station)
    (clicked,) = all_of(station, 10**12)
    assert isinstance(clicked, Clicked)
    assert clicked.cycle >= 7
    watch(station, 2, kind="measure", pairs=9000)
    parts = all_of(station, 10**17)
    assert all(isinstance(part, ClickedInCycles) for part in parts)
    assert sum(part.pairs for part in parts) == 9000
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    cycles = [unpack_slots(part.cycles, part.first_cycle) for part in parts]
    assert all(int(a[-1]) < int(b[0]) for a, b in pairwise(cycles))
    assert not station.watches


def test_a_watch_that_is_stopped_says_what_was_seen_and_then_its_end() -> None:
    station = TemplateStation(setup("mid"))
    watch(station, kind="measure", pairs=50)
    last = int(station._seen[1][20])
    station.submit(StopWatch(at_ns=10**9, sequence=2, watch=1, until_cycle=last), 10**9)
    part, ended = all_of(station, 10**17)
    assert (part.pairs, part.is_last, ended) == (20, False, WatchEnded(operation=1))
    watch(station, 3, first_cycle=10**6)
    station.submit(StopWatch(at_ns=10, sequence=4, watch=3, until_cycle=10**6), 10)
    assert all_of(station, 10**17) == [WatchEnded(operation=3)]


@pytest.mark.parametrize(
    "operation",
    [
        WatchLink(at_ns=0, sequence=9, link="nowhere", batches=(1, 2), first_cycle=0,
                  until_cycle=None, kind="keep", bright_state=None, pairs=1),
        Calibrate(at_ns=0, sequence=9, link="alice-bob"),
        Release(at_ns=0, sequence=9, qubit=bytes(16)),
    ],
)  # fmt: skip
def test_what_detectors_cannot_do_is_refused(operation: Any) -> None:
    station = TemplateStation(setup("mid"))
    station.submit(operation, 0)
    (refused,) = all_of(station, 10**9)
    assert isinstance(refused, OperationRefused)


def emitting(kind: str = "keep") -> tuple[TemplateDevice, Generate]:
    device = TemplateDevice(setup("alice"))
    batch = Generate(
        at_ns=0, sequence=1, batch=3, link="alice-bob", token=bytes(16), kind=kind,
        first_cycle=0, bright_state=None, pairs=1 if kind == "keep" else 4,
        basis=None if kind == "keep" else "Z", qubit=b"q" * 16 if kind == "keep" else None,
    )  # fmt: skip
    device.submit(batch, 0)
    return device, batch


@pytest.mark.parametrize("reason", [None, "stopped", "given-up"])
def test_a_heralded_qubit_is_there_unless_it_was_given_up(reason: Any) -> None:
    device, _ = emitting()
    assert all_of(device, 10**15) == []  # it says nothing of itself
    if reason is not None:
        device.submit(StopGenerate(at_ns=5, sequence=2, batch=3, reason=reason), 5)
    device.submit(KeepHeralded(at_ns=10, sequence=3, qubit=b"q" * 16, cycle=0), 10)
    (told,) = all_of(device, 10**9)
    assert type(told) is (OperationRefused if reason == "given-up" else Kept)
    assert (b"q" * 16 in device.qubits) == (reason != "given-up")
    assert not device.batches
    assert not device.in_flight


def test_what_was_read_in_heralded_cycles_is_told_and_nothing_else() -> None:
    device, _ = emitting("measure")
    fields: dict[str, Any] = {
        "batch": 3, "pairs": 3, "first_cycle": 5, "cycles": pack_slots(np.array([5, 6, 8]), 5),
        "bases": b"",
    }  # fmt: skip
    device.submit(ReadHeralded(at_ns=10, sequence=2, **fields), 10)
    (told,) = all_of(device, 10**9)
    assert isinstance(told, HeraldedRead)
    assert len(told.outcomes) == bits_size(3)
    for wrong in ({"batch": 4}, {"cycles": b"odd"}, {"pairs": 2}, {"bases": b"x"}):
        device.submit(ReadHeralded(at_ns=10, sequence=3, **(fields | wrong)), 10)
        assert isinstance(all_of(device, 10**9)[0], OperationRefused)


def test_a_driver_that_does_not_emit_refuses_attempts_on_such_a_link() -> None:
    _, batch = emitting()
    device = Driver(setup("alice"))
    device.submit(batch, 0)
    (refused,) = all_of(device, 10**9)
    assert refused.error == "UNSUPPORTED"
