"""Clocks, drift and calibrations through daemons: the trace of the virtual runner, and status."""

from pathlib import Path

import pytest

from tests.runtime.programs import daemon_chains, virtual_chains
from tests.runtime.running import network
from tests.runtime.test_clocks import CLOCK, TIMING, entries
from tests.runtime.test_drift import DRIFT
from tests.runtime.test_network_file import link, node

STATION = '[[station]]\nname = "mid"\naddress = "127.0.0.1:0"\n'
PAIRS = 150  # it takes more than a period


@pytest.mark.parametrize("station", [pytest.param("", marks=pytest.mark.soak), STATION])
async def test_daemons_compare_clocks_and_calibrate_as_the_virtual_runner_does(
    tmp_path: Path, station: str
) -> None:
    """With a station that has a name, and with one that has none."""
    text = '[network]\nname = "clocks"\n[fabric]\naddress = "127.0.0.1:0"\n'
    for name, drift_ppb in (("alice", 5), ("bob", -7)):
        text += node(name, "ion-projected")
        text += entries("node.clock", CLOCK | {"drift_ppb": drift_ppb})
    place = '"mid"' if station else '"midpoint"'
    text += link("alice", "bob", scheme='"double-click"', length_m=10_000, station=place)
    text += entries("link.timing", TIMING | {"asymmetry_ps": 900})
    text += entries("link.drift", DRIFT | {"calibration_period_ns": 1_000_000_000})
    text += station
    source = tmp_path / "clocks.toml"
    source.write_text(text)
    with network(source, "clocks", "--seed", "1", "--apps", "2") as running:
        chains, programs = await daemon_chains(running, PAIRS)
        layers = (await running.report())["nodes"]["bob"]["layers"]
    assert chains == virtual_chains(source, 1, PAIRS)
    assert [len(program.outcomes) for program in programs.values()] == [PAIRS, PAIRS]
    clock = layers["physical"]["clocks"]["alice"]
    assert clock["comparisons"] >= 3
    assert 0 < clock["deviation_ps"] < 1000
    assert layers["link"]["calibrations"]["alice"]["calibration"] >= 1
