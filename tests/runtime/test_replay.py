"""A run on emulated hardware is recorded, and replayed by both nodes: the same comes of it."""

from pathlib import Path
from typing import Any

import pytest

from qstack.physical import service as physical
from qstack.physical.device import Device
from qstack.physical.drivers.recorder import RecordingDevice
from qstack.runtime import compose
from qstack.runtime.network_file import packaged_network, parse_network
from qstack.transport import service as transport
from qstack.wire.message import BasisProbabilities
from tests.runtime.scripts import App, WatchedNetwork
from tests.runtime.test_photon_pairs import read
from tests.runtime.test_virtual import both

ENDS = ("alice", "bob")


def recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[WatchedNetwork, dict[str, Any]]:
    """A network whose devices are recorded, by node."""
    devices: dict[str, RecordingDevice] = {}
    make = compose.make_device

    def recording(driver: str, *, node: str, **more: Any) -> Device:
        devices[node] = RecordingDevice(make(driver, node=node, **more), node)
        return devices[node]

    with monkeypatch.context() as patched:
        patched.setattr(compose, "make_device", recording)
        net = WatchedNetwork(parse_network(packaged_network(name), where=name), 1)
    net.settle()
    return net, devices


def replaying(name: str, folder: Path) -> WatchedNetwork:
    """The same network, in which every node replays its files in `folder`."""
    text = packaged_network(name)
    for node in parse_network(text, where=name).nodes:
        files = {"heralds_file": f"{node}.jsonl", "tags_file": f"{node}.csv"}
        options = ", ".join(
            f'{key} = "{file}"' for key, file in files.items() if (folder / file).exists()
        )
        named = f'[[node]]\nname = "{node}"\n'
        text = text.replace(named, f'{named}driver = "replay"\ndriver_options = {{ {options} }}\n')
    net = WatchedNetwork(parse_network(text, where=name, folder=folder), 1)
    net.settle()
    return net


def write(devices: dict[str, RecordingDevice], folder: Path) -> None:
    for node, device in devices.items():
        (folder / f"{node}.jsonl").write_bytes(device.recording("emulated"))


def heard(apps: list[App], *kinds: type[Any]) -> list[list[tuple[int, Any]]]:
    """What the applications heard, and when."""
    return [
        [(heard.at_ns, heard.message) for heard in app.heard if isinstance(heard.message, kinds)]
        for app in apps
    ]


@pytest.mark.parametrize("basis", ["X", BasisProbabilities(0.5, 0.0, 0.5)])
def test_measured_pairs_are_replayed_as_they_were(
    basis: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net, devices = recorded("pair", monkeypatch)
    apps = both(net, ENDS, 25, basis=basis)
    net.settle()
    write(devices, tmp_path)
    again = replaying("pair", tmp_path)
    replayed = both(again, ENDS, 25, basis=basis)
    again.settle()
    kind = transport.PairsMeasured
    assert [sum(part.pairs for part in app.all(kind)) for app in replayed] == [25, 25]
    outcomes = [[part.outcomes for part in app.all(kind)] for app in replayed]
    assert outcomes == [[part.outcomes for part in app.all(kind)] for app in apps]
    if basis == "X":  # with bases to give there is one message less to wait for
        assert heard(replayed, kind) == heard(apps, kind)


@pytest.mark.parametrize("name", ["pair", "metro"])
def test_kept_pairs_swaps_and_corrections_are_replayed_as_they_were(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In metro over two repeaters, whose Bell measurements are in the recording."""
    net, devices = recorded(name, monkeypatch)
    apps = both(net, ENDS, 4, read=lambda n: "XYZ"[n % 3], within_ns=10**12)
    net.settle()
    write(devices, tmp_path)
    again = replaying(name, tmp_path)
    replayed = both(again, ENDS, 4, read=lambda n: "XYZ"[n % 3], within_ns=10**12)
    again.settle()
    assert [_kept(app) for app in replayed] == [_kept(app) for app in apps]
    assert [len(_kept(app)) for app in replayed] == [8, 8]
    if name == "metro":
        assert b'"swap"' in (tmp_path / "r1.jsonl").read_bytes()
    assert b'"gates":[["' in (tmp_path / "bob.jsonl").read_bytes()


def test_time_tags_of_a_photon_pair_link_are_replayed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    basis = BasisProbabilities(0.1, 0.0, 0.9)
    net, devices = recorded("metro", monkeypatch)
    apps = both(net, ENDS, 5_000, basis=basis)
    net.settle()
    write(devices, tmp_path)
    for node in ENDS:
        (tmp_path / f"{node}.csv").write_bytes(devices[node].time_tags("alice-bob", 10))
    again = replaying("metro", tmp_path)
    replayed = both(again, ENDS, 5_000, basis=basis)
    again.settle()
    assert [_read(app) for app in replayed] == [_read(app) for app in apps]
    assert len(_read(replayed[0])[0]) == 5_000


def _kept(app: App) -> list[Any]:
    """Pairs and outcomes. (Which place in memory a pair is in is not in the recording, and what
    is expected of it depends on how long messages took.)"""
    pairs = [(each.pair, each.x_bit, each.z_bit) for each in app.all(transport.PairDelivered)]
    return [*pairs, *app.all(physical.Measured)]


def _read(app: App) -> tuple[list[int], list[int]]:
    outcomes, bases = read(app)
    return outcomes.tolist(), bases.tolist()


def test_a_qubit_read_otherwise_than_in_the_recording_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net, devices = recorded("pair", monkeypatch)
    both(net, ENDS, 1, read=lambda _: "X", within_ns=10**12)
    net.settle()
    write(devices, tmp_path)
    again = replaying("pair", tmp_path)
    replayed = both(again, ENDS, 1, read=lambda _: "Z", within_ns=10**12)
    again.settle()
    for app in replayed:
        (failed,) = app.all(physical.CallFailed)
        assert failed.error == "UNSUPPORTED"
        assert failed.detail == "herald 0 of alice-bob was read in X, not in Z"
