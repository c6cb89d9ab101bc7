"""The trace of a run depends on network, program and seed: not on processes, delays or speed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qstack.runtime.control_client import open_control
from qstack.wire.message import BasisProbabilities
from tests.runtime.programs import daemon_chains, virtual_chains
from tests.runtime.running import network, packaged

PAIRS = 12


SHORT = """
[network]
name = "short"
clock = "lockstep"
[fabric]
address = "127.0.0.1:0"
""" + "".join(
    f'[[node]]\nname = "{name}"\naddress = "127.0.0.1:0"\nprofile = "ion-projected"\nmemory = 4\n'
    for name in ("alice", "middle", "bob")
) + "".join(
    f'[[link]]\nends = ["{end}", "middle"]\nlength_m = 1_000\nscheme = "double-click"\n'
    'station = "midpoint"\n'
    for end in ("alice", "bob")
)  # fmt: skip
"""Ends that share no link, and light that needs less time than a message to be handled."""


# Of metro the next tests see the same, with a busy computer or a death.
@pytest.mark.parametrize("name", ["short", pytest.param("metro", marks=pytest.mark.soak)])
async def test_daemons_leave_the_trace_of_the_virtual_runner(name: str, tmp_path: Path) -> None:
    source = packaged(name)
    if name == "short":
        source = tmp_path / "short.toml"
        source.write_text(SHORT)
    with network(source, name, "--seed", "1", "--apps", "2") as running:
        chains, programs = await daemon_chains(running, PAIRS)
    assert chains == virtual_chains(source, 1, PAIRS)
    outcomes = [len(program.outcomes) for program in programs.values()]
    assert outcomes == [PAIRS, PAIRS]


@pytest.mark.soak
async def test_swaps_in_the_device_leave_the_trace_of_the_virtual_runner(tmp_path: Path) -> None:
    """Programs and what comes of them cross the wire; the fabric begins them at the same times."""
    source = tmp_path / "metro.toml"
    text = packaged("metro").read_text()
    source.write_text(text.replace('name = "r', 'programs = true\nname = "r'))
    with network(source, "metro", "--seed", "1", "--apps", "2") as running:
        chains, programs = await daemon_chains(running, PAIRS)
    assert chains == virtual_chains(source, 1, PAIRS)
    assert [len(program.outcomes) for program in programs.values()] == [PAIRS, PAIRS]


async def test_measured_pairs_of_a_photon_pair_link_leave_the_trace_of_the_virtual_runner() -> None:
    """Slots by the thousand between daemons, bases drawn at each end: two chunks, 4000 pairs."""
    basis = BasisProbabilities(0.25, 0.0, 0.75)
    with network(packaged("metro"), "metro", "--seed", "1", "--apps", "2") as running:
        chains, programs = await daemon_chains(running, 4000, basis=basis)
    assert chains == virtual_chains(packaged("metro"), 1, 4000, basis=basis)
    assert [len(program.outcomes) for program in programs.values()] == [4000, 4000]


@contextmanager
def busy_computer() -> Iterator[None]:
    """Two processes that take all the time they can get."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_wall_delays_and_a_busy_computer_leave_the_trace_as_it_is() -> None:
    options = ("--seed", "1", "--apps", "2", "--send-delay-ms", "3")
    with network(packaged("metro"), "metro", *options) as running, busy_computer():
        chains, _ = await daemon_chains(running, 3)
    assert chains == virtual_chains(packaged("metro"), 1, 3)


@pytest.mark.parametrize(
    ("repeater", "at_ns"),
    [("r1", 400_000_000), pytest.param("r2", 650_000_000, marks=pytest.mark.soak)],
)
async def test_a_repeater_killed_at_a_stated_network_time_leaves_the_trace_of_the_virtual_runner(
    repeater: str, at_ns: int
) -> None:
    with network(packaged("metro"), "metro", "--seed", "1", "--apps", "2") as running:
        pids = await running.pids()

        async def kill() -> None:
            async with open_control(running.control) as control:
                assert await control.hold(at_ns) == at_ns
                os.kill(pids[repeater], signal.SIGKILL)
                await running.fact("it is gone", lambda r: repeater not in r["fabric"]["nodes"])
                await control.release()

        chains, programs = await daemon_chains(running, PAIRS, kill)
        report = await running.report()
    assert report["nodes"][repeater]["process"]["pid"] != pids[repeater]
    assert report["fabric"]["clock"]["now_ns"] > at_ns
    assert [len(program.outcomes) for program in programs.values()] == [PAIRS, PAIRS]
    assert chains == virtual_chains(packaged("metro"), 1, PAIRS, (repeater, at_ns))
