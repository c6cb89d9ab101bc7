"""Every kind of death at fifty network times each (`deaths.py`): 500 cases; five in each run.

All, with figures: `./run test -m soak tests/runtime/test_every_death.py`.
"""

import sys
import time
import traceback

import pytest

from qstack import QstackError
from tests.runtime import deaths
from tests.runtime.running import network, packaged, processes_of, wait_for

ALL = deaths.cases()
OFTEN = (("fabric",), ("r1",), ("bob",), ("alice's application",), ("alice", "bob"))
RECOVERING = (("r1",),)  # kinds of which the slice has one after another death
CHUNK = 10  # of the soak, in one test
TOGETHER = 7  # deaths in one network: who dies often is restarted late
PLAYED = deaths.Deaths()  # of the soak
STARTED_S = time.monotonic()


async def play(chosen: list[deaths.Case], played: deaths.Deaths) -> None:
    """Cases in one network after another; nothing is left of it. A failure takes a new network."""
    todo: list[deaths.Case] = []
    rest = list(chosen)
    while todo or rest:
        todo, rest = todo or rest[:TOGETHER], rest if todo else rest[TOGETHER:]
        with network(packaged("metro"), "metro", "--seed", str(todo[0].number)) as running:
            runs = running.runs
            while todo:
                case = todo.pop(0)
                try:
                    await deaths.play(running, case, played)
                except (AssertionError, ExceptionGroup, QstackError, OSError) as error:
                    # The others are played all the same.
                    words = "".join(traceback.format_exception(error))
                    played.failed.append(f"{case}\n{words}\n{running.log()}")
                    break
            if "Traceback" in running.log():
                played.failed.append(running.log())
            assert running.stop() == 0
            wait_for("no process is left", lambda runs=runs: not processes_of(runs))
            assert not list(runs.glob("metro/*"))
            assert not list(runs.glob(".*.key*.part"))


def in_each_run() -> list[deaths.Case]:
    """A case of each of these kinds, one of them after another death."""
    chosen = []
    for kind in OFTEN:
        cases = [case for case in ALL if case.victims == kind]
        after_another = [case for case in cases if case.before is not None]
        alone = [case for case in cases if case.before is None]
        chosen.append(after_another[0] if kind in RECOVERING else alone[0])
    return sorted(chosen)


SLICE = in_each_run()


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Said while it runs."""
    with capsys.disabled():
        sys.stdout.write(f"\n{text}; {time.monotonic() - STARTED_S:.0f} s\n")
        sys.stdout.flush()


def test_there_are_five_hundred_cases_and_the_slice_has_its_kinds() -> None:
    assert len(ALL) == 500
    assert len(SLICE) == len(OFTEN)
    assert [*OFTEN] == [kind for kind in deaths.KINDS if kind in OFTEN]
    assert {case.before for case in SLICE} == {None, "r2"}
    assert deaths.cases() == ALL


async def test_five_deaths_leave_nothing_and_hang_nobody() -> None:
    played = deaths.Deaths()
    await play(SLICE, played)
    assert not played.failed, played.failed[0]


@pytest.mark.soak
@pytest.mark.parametrize("first", range(0, 500, CHUNK))
async def test_every_death_leaves_nothing_and_hangs_nobody(
    first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(PLAYED.failed)
    await play(ALL[first : first + CHUNK], PLAYED)
    say(capsys, f"{PLAYED.played} deaths")
    for failed in PLAYED.failed[before:]:
        say(capsys, failed)
    assert len(PLAYED.failed) == before


@pytest.mark.soak
def test_there_were_deaths_in_every_kind_of_call(capsys: pytest.CaptureFixture[str]) -> None:
    """After all the others: what was open at a death, in one case or another."""
    if PLAYED.played + len(PLAYED.failed) < len(ALL):
        pytest.skip("not all were played")
    say(capsys, str(PLAYED))
    assert PLAYED.played == len(ALL)
    assert {*PLAYED.open} >= {
        "Accept", "EprAccept", "EprCreate", "EchoMeasure", "ReceiveMessage", "ReceiveQubit",
        "SendMessage", "SendQubit", "Sleep", "StreamOpen", "key EprCreate", "key EprAccept",
        "key ReceiveMessage",
    }  # fmt: skip
