"""Any process dies at any network time, while two applications ask for everything there is.

A case is a kind of death (one process, two at once, or an application) and a time, in the midst of
the work of `death_work.py`, or while the network recovers from the death of a repeater before. The
clock is held at the time of the case, the processes are killed, and the clock goes on. Checked:
every call of an application that lives ends within its deadline, with a result or an error; a new
pair comes when the processes are back; then no qubit, request, socket, session or process is left
anywhere that was not there before.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, NamedTuple

import trio

import qstack
from qstack.runtime.control_client import ControlError, FabricControl, open_control
from tests.runtime.death_work import ENDS, PAIRS, PAUSE_NS, Application
from tests.runtime.running import RunningNetwork, everybody_answers, processes_of

KINDS: tuple[tuple[str, ...], ...] = (
    ("fabric",), ("alice",), ("r1",), ("r2",), ("bob",), ("alice's application",),
    ("bob's application",), ("r1", "r2"), ("alice", "bob"), ("fabric", "r1"),
)  # fmt: skip
SPANS = ((10, 0, 60), (30, 60, 700))  # so many times, from and to ms: circuits are made; the work
RECOVERIES, RECOVERED_MS = 10, 1200  # and after another death, whose node is back after 1000 ms
TIMES = 50
FIRST_NS = 100_000_000  # into the work, of the death before
LATE_NS = 20_000_000  # from when a computer was late to ask for a time until the next one
AFTER_NS = 300_000_000  # of more work, after the death
RETURN_S = 30.0  # of wall time, for the restart and the work meanwhile
HANG_S = 60.0  # and for all of a case's calls


class Case(NamedTuple):
    """Who dies, how long (network time) into the work, or after the death of `before`."""

    number: int
    victims: tuple[str, ...]
    after_ns: int
    before: str | None


def cases(seed: int = 1) -> list[Case]:
    """All of them, no process twice in a row: kinds take turns."""
    rng = Random(seed)
    columns = [_times(rng, kind) for kind in KINDS]
    rows = [
        (kind, *column[k])
        for k in range(TIMES)
        for kind, column in zip(KINDS, columns, strict=True)
    ]
    return [Case(number, *row) for number, row in enumerate(rows)]


def _times(rng: Random, victims: tuple[str, ...]) -> list[tuple[int, str | None]]:
    """For one kind of death, in any order: each span is divided evenly, a time in each part."""
    before = next(name for name in ("r1", "r2", "bob") if name not in victims)
    times: list[tuple[int, str | None]] = []
    for count, first, last in (*SPANS, (RECOVERIES, 0, RECOVERED_MS)):
        who = before if last == RECOVERED_MS else None
        part_ns = (last - first) * 1_000_000 / count
        times += [
            (int(first * 1_000_000 + part_ns * (k + rng.random())), who) for k in range(count)
        ]
    rng.shuffle(times)
    return times


class Deaths:
    """What has been played: for the figures at the end."""

    def __init__(self) -> None:
        self.played = 0
        self.failed: list[str] = []
        self.open: dict[str, int] = {}  # calls that were open at a death
        self.ended: dict[str, int] = {}

    def add(self, applications: list[Application], open_then: list[str]) -> None:
        """One case more."""
        self.played += 1
        for what in open_then:
            self.open[what] = self.open.get(what, 0) + 1
        for application in applications:
            for what, count in application.watch.ended.items():
                self.ended[what] = self.ended.get(what, 0) + count

    def __str__(self) -> str:
        figures = [
            f"{title}: " + ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
            for title, counts in (("open at a death", self.open), ("ended", self.ended))
        ]
        return "\n".join([f"{self.played} deaths, {len(self.failed)} failed", *figures])


async def play(running: RunningNetwork, case: Case, deaths: Deaths) -> None:
    """One case in a network that is up and quiet; it is so again afterwards."""
    applications = [
        Application(name, str(running.session(name)), running.runs)
        for name in ENDS
        if f"{name}'s application" not in case.victims
    ]
    pids = await running.pids()
    before = len(processes_of(running.runs))
    open_then: list[str] = []
    with trio.move_on_after(HANG_S) as limit:
        async with trio.open_nursery() as nursery:
            for application in applications:
                nursery.start_soon(application.run)
            async with (
                _dying_applications(running, case) as dying,
                open_control(running.control) as control,
            ):
                at_ns = (await control.world())["clock"]["now_ns"]
                if case.before is not None:
                    at_ns += FIRST_NS
                    await _kill_at(running, control, at_ns, {case.before: pids[case.before]})
                victims = {name: {**pids, **dying}[name] for name in case.victims}
                at_ns = await _hold(control, at_ns + case.after_ns)
                open_then = [what for a in applications for what in a.watch.open.values()]
                await _kill_at(running, control, at_ns, victims)
            await _return(running, case, pids)
            await _pass(running, AFTER_NS)
            for application in applications:
                application.stop.set()
    words = f"{case}: {applications}"
    assert not limit.cancelled_caught, f"calls hang: {words}\n{running.log()}"
    assert not [late for a in applications for late in a.watch.late], words
    await _check_service(running, words)
    await running.fact(f"nothing is left: {words}", is_empty)
    assert len(processes_of(running.runs)) == before, words
    deaths.add(applications, open_then)


@asynccontextmanager
async def _dying_applications(running: RunningNetwork, case: Case) -> AsyncIterator[dict[str, int]]:
    """The application that will die, in a process of its own, at work; its name and process."""
    names = [name for name in ENDS if f"{name}'s application" in case.victims]
    if not names:
        yield {}
        return
    [name] = names
    path = str(running.session(name))
    command = [sys.executable, "-m", "tests.runtime.death_work", name, path, str(running.runs)]
    process = await trio.lowlevel.open_process(command)
    try:
        await running.fact(f"{name}'s application works", lambda r: bool(_sessions(r, name)))
        yield {f"{name}'s application": process.pid}
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


async def _kill_at(
    running: RunningNetwork, control: FabricControl, at_ns: int, victims: dict[str, int]
) -> None:
    """Let the clock stand, kill, and let it go on when they are missed."""
    await _hold(control, at_ns)
    for pid in victims.values():
        os.kill(pid, signal.SIGKILL)
    if "fabric" not in victims:
        await running.fact(f"{[*victims]} have gone", lambda r: _have_gone(r, [*victims]))
        await control.release()


async def _hold(control: FabricControl, at_ns: int) -> int:
    """Let the clock stand then, or later where a busy computer was late to ask; says when."""
    while True:
        try:
            await control.hold(at_ns)
        except ControlError:
            at_ns = (await control.world())["clock"]["now_ns"] + LATE_NS
        else:
            return at_ns


def _have_gone(report: dict[str, Any], victims: list[str]) -> bool:
    """Nodes are no more in the fabric's list; of an application's node, the session is over."""
    fabric = report["fabric"]
    return fabric is not None and not any(
        _sessions(report, name.partition("'")[0]) if "'" in name else name in fabric["nodes"]
        for name in victims
    )


async def _return(running: RunningNetwork, case: Case, pids: dict[str, int]) -> None:
    """All processes of the network that died are there again."""
    died = {*case.victims, case.before} & pids.keys()

    def back(report: dict[str, Any]) -> bool:
        return everybody_answers(report) and all(_pid(report, n) != pids[n] for n in died)

    await running.fact(f"they are back: {case}", back, RETURN_S)


def _pid(report: dict[str, Any], name: str) -> int:
    found = report["fabric"] if name == "fabric" else report["nodes"][name]
    return int(found["process"]["pid"])


def _sessions(report: dict[str, Any], name: str) -> list[str]:
    node = report["nodes"][name]
    return [session for session in node["sessions"] if session.startswith("app/")] if node else []


async def _pass(running: RunningNetwork, span_ns: int) -> None:
    """Let network time pass."""
    async with open_control(running.control) as control:
        await _hold(control, (await control.world())["clock"]["now_ns"] + span_ns)
        await control.release()


async def _check_service(running: RunningNetwork, words: str) -> None:
    """A new pair comes, for new sessions."""

    async def one(name: str) -> None:
        async with (
            qstack.open_node(name, path=str(running.session(name))) as node,
            node.epr_socket(remote=ENDS[name], port=PAIRS + 10) as epr,
        ):
            while True:
                try:
                    pair = await (epr.create_keep() if name == "alice" else epr.accept())
                except (qstack.Refused, qstack.Expired):  # link states travel
                    await node.sleep(PAUSE_NS)
                else:
                    await pair.qubit.measure("Z")
                    return

    with trio.move_on_after(HANG_S) as limit:
        async with trio.open_nursery() as nursery:
            for name in ENDS:
                nursery.start_soon(one, name)
    assert not limit.cancelled_caught, f"no pair: {words}\n{running.log()}"


def is_empty(report: dict[str, Any]) -> bool:
    """Nobody has or waits for anything, in the nodes and in the world."""
    if not everybody_answers(report):
        return False
    for node in report["nodes"].values():
        layers = node["layers"]
        counts = [*layers["transport"].values(), layers["physical"]["qubits"]]
        counts += [layers["link"]["open_requests"], layers["session"]["asleep"]]
        if any(counts) or [name for name in node["sessions"] if name.startswith("app/")]:
            return False
    world = report["fabric"]
    return not any(world["qubits"].values()) and not any(world["batches"].values())
