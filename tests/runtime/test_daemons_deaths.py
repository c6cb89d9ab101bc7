"""Processes of a network die, or stand still: what the others say, and that service comes back."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from qstack.transport import service as transport
from tests.runtime.programs import PORT, WITHIN_NS, Measurer, deliver
from tests.runtime.running import RunningNetwork, everybody_answers, network, packaged
from tests.runtime.session_client import SessionClient, SessionEndedError, attached

CLOSING_S = 2.0
NEVER = 10_000  # pairs: more than any test waits for


@pytest.fixture(scope="module")
def metro() -> Iterator[RunningNetwork]:
    limits = ("--fabric-option=--done-limit-s=1", "--fabric-option=--return-limit-s=5")
    with network(packaged("metro"), "metro", *limits) as running:
        yield running


def new_process(name: str, before: dict[str, int]) -> Any:
    """Whether `name` runs in another process, and everybody is together again."""

    def holds(report: dict[str, Any]) -> bool:
        if not everybody_answers(report):
            return False
        found = report["fabric"] if name == "fabric" else report["nodes"][name]
        return bool(found["process"]["pid"] != before[name])

    return holds


class Busy:
    """alice and bob making pairs without end; the wall time of what ended their calls."""

    def __init__(self) -> None:
        self.programs = {
            "alice": Measurer("bob", NEVER, creates=True),
            "bob": Measurer("alice", NEVER, creates=False),
        }
        self.closed: dict[str, tuple[float, transport.Failed]] = {}
        self._news = trio.Event()

    async def run(self, running: RunningNetwork, node: str) -> None:
        program = self.programs[node]
        try:
            async with attached(running.session(node)) as session:
                session.call(*program.first)
                while not program.is_finished:
                    message = await session.next()
                    if isinstance(message, transport.Failed) and message.call == 2:
                        self.closed[node] = (time.monotonic(), message)
                    session.call(*program(message, session.now_ns))
                    self._news.set()
        except (SessionEndedError, trio.BrokenResourceError):
            return

    async def flows(self) -> None:
        """Wait until both have measured some more pairs."""
        before = {node: len(program.outcomes) for node, program in self.programs.items()}
        with trio.fail_after(8):
            while any(len(p.outcomes) < before[n] + 2 for n, p in self.programs.items()):
                await self._news.wait()
                self._news = trio.Event()


async def test_open_calls_end_at_once_when_the_fabric_is_killed(metro: RunningNetwork) -> None:
    before = await metro.pids()
    busy = Busy()
    with trio.fail_after(12):
        async with trio.open_nursery() as nursery:
            for node in busy.programs:
                nursery.start_soon(busy.run, metro, node)
            await busy.flows()
            report = await metro.report()
            killed = time.monotonic()
            os.kill(before["fabric"], signal.SIGKILL)
    for at_s, failed in busy.closed.values():
        assert failed.error == "DEVICE_LOST"
        assert at_s - killed < CLOSING_S
    assert sorted(busy.closed) == ["alice", "bob"]
    after = await metro.fact("the fabric is back", new_process("fabric", before))
    assert after["fabric"]["clock"]["now_ns"] >= report["fabric"]["clock"]["now_ns"]
    assert set(after["fabric"]["qubits"].values()) == {0}
    await deliver(metro)


@pytest.mark.parametrize(
    "name", ["r1", *(pytest.param(name, marks=pytest.mark.soak) for name in ("alice", "bob"))]
)
async def test_service_comes_back_after_a_node_is_killed_with_requests_open(
    metro: RunningNetwork, name: str
) -> None:
    before = await metro.pids()
    busy = Busy()
    async with trio.open_nursery() as nursery:
        for node in busy.programs:
            nursery.start_soon(busy.run, metro, node)
        await busy.flows()
        report = await metro.report()
        os.kill(before[name], signal.SIGKILL)
        after = await metro.fact("it is back", new_process(name, before))
        if name == "r1":
            await busy.flows()  # the same requests go on over the new life of the repeater
        nursery.cancel_scope.cancel()
    assert after["fabric"]["clock"]["now_ns"] >= report["fabric"]["clock"]["now_ns"]
    await deliver(metro)


async def test_a_node_that_stands_still_is_fenced_and_rejoins_when_it_wakes(
    metro: RunningNetwork,
) -> None:
    pids = await metro.pids()
    busy = Busy()
    async with trio.open_nursery() as nursery:
        for node in busy.programs:
            nursery.start_soon(busy.run, metro, node)
        await busy.flows()
        os.kill(pids["r2"], signal.SIGSTOP)
        try:
            await metro.fact("it is fenced", lambda r: "r2" not in r["fabric"]["nodes"])
        finally:
            os.kill(pids["r2"], signal.SIGCONT)
        await metro.fact("it has rejoined", everybody_answers)
        nursery.cancel_scope.cancel()
    await deliver(metro)
    assert await metro.pids() == pids


async def test_a_request_made_while_there_is_no_fabric_is_refused(metro: RunningNetwork) -> None:
    pids = await metro.pids()
    async with attached(metro.session("alice")) as session:
        socket = await opened(session)
        os.kill(pids["fabric"], signal.SIGSTOP)
        os.kill(pids["fabric"], signal.SIGKILL)
        session.call(create(3, socket))
        assert (await session.until(transport.Failed, 3)).error == "DEVICE_LOST"
    await metro.fact("the fabric is back", new_process("fabric", pids))


async def opened(session: SessionClient) -> int:
    session.call(transport.EprOpen(call=1, port=PORT, remote="bob"))
    return (await session.until(transport.Opened, 1)).socket


def create(call: int, socket: int) -> transport.EprCreate:
    return transport.EprCreate(
        call=call,
        socket=socket,
        number=1,
        basis=None,
        min_fidelity=0.5,
        priority=1,
        within_ns=WITHIN_NS,
    )
