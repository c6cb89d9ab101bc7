"""`qstack up` as the parent of processes: whatever way it ends, nothing is left."""

import os
import signal

import pytest

from tests.runtime.programs import deliver
from tests.runtime.running import (
    RunningNetwork,
    everybody_answers,
    network,
    packaged,
    processes_of,
    run_folder,
    start,
    wait_for,
    words_of,
)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
async def test_nothing_is_left_after_up_is_stopped(number: signal.Signals) -> None:
    with network(packaged("pair"), "pair") as running:
        await deliver(running, 1)
        children = processes_of(running.runs)
        assert len(children) == 4  # a server, of which the fabric and the nodes are forks
        assert all(os.getsid(pid) == pid for pid in children), "Ctrl-C is for `up` alone"
        assert running.stop(number) == 0
        assert processes_of(running.runs) == []
        assert list(running.runs.iterdir()) == []


async def test_children_end_when_up_is_killed_and_the_network_can_be_started_again() -> None:
    with run_folder() as runs:
        killed = start(runs, packaged("pair"), "pair")
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
        wait_for("the children have ended", lambda: processes_of(runs) == [])
        again = start(runs, packaged("pair"), "pair")
        try:
            await deliver(again, 1)
        finally:
            assert again.stop() == 0
        assert list(runs.iterdir()) == []


def fork_server(running: RunningNetwork) -> int:
    """The process whose forks the others are."""
    (found,) = (
        pid for pid in processes_of(running.runs) if "qstack.cli.fork_server" in words_of(pid)
    )
    return found


async def test_a_network_outlives_its_fork_server_and_has_another_when_it_needs_one() -> None:
    async def restart(name: str) -> None:
        before = (await running.pids())[name]
        os.kill(before, signal.SIGKILL)
        await running.fact(
            f"{name} is back",
            lambda r: everybody_answers(r) and r["nodes"][name]["process"]["pid"] != before,
        )

    with network(packaged("pair"), "pair") as running:
        first = fork_server(running)
        await restart("bob")
        assert fork_server(running) == first
        os.kill(first, signal.SIGKILL)
        await deliver(running, 1)
        await restart("alice")
        assert fork_server(running) != first
        await deliver(running, 1)
        log = running.log()
        assert "bob: ended with signal 9; starting it again" in log
        assert "alice: ended with a status that nobody saw; starting it again" in log
        assert running.stop() == 0
        assert processes_of(running.runs) == []
