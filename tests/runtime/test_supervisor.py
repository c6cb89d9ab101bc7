"""`qstack up` as the parent of processes: whatever way it ends, nothing is left."""

import signal

import pytest

from tests.runtime.programs import deliver
from tests.runtime.running import network, packaged, processes_of, run_folder, start, wait_for


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
async def test_nothing_is_left_after_up_is_stopped(number: signal.Signals) -> None:
    with network(packaged("pair"), "pair") as running:
        await deliver(running, 1)
        children = processes_of(running.runs)
        assert len(children) == 4  # a server, of which the fabric and the nodes are forks
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
