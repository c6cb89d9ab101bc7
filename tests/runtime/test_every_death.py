"""Every kind of death at fifty network times each (`deaths.py`): 500 cases; twenty in each run.

All: `./run test -m soak tests/runtime/test_every_death.py`.
"""

import pytest

from tests.runtime import deaths
from tests.runtime.running import network, packaged, processes_of, wait_for

ALL = deaths.cases()
SLICE = [case for case in ALL if case.number < 2 * len(deaths.KINDS)]


async def play(chosen: list[deaths.Case], limit: int) -> None:
    """Cases in one network after another; nothing is left of any."""
    for first in range(0, len(chosen), limit):
        with network(packaged("metro"), "metro", "--seed", str(first)) as running:
            for case in chosen[first : first + limit]:
                await deaths.play(running, case)
            assert "Traceback" not in running.log()
            runs = running.runs
            assert running.stop() == 0
            wait_for("no process is left", lambda runs=runs: not processes_of(runs))
            assert not list(runs.glob("metro/*"))


def test_there_are_five_hundred_cases_and_the_slice_has_every_kind() -> None:
    assert len(ALL) == 500
    assert {case.victims for case in SLICE} == {*deaths.KINDS}
    assert deaths.cases() == ALL


async def test_twenty_deaths_leave_nothing_and_hang_nobody() -> None:
    await play(SLICE, limit=20)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(0, 500, 50))
async def test_every_death_leaves_nothing_and_hangs_nobody(first: int) -> None:
    await play(ALL[first : first + 50], limit=50)
