"""Any process dies at any network time, while two applications ask for everything there is.

A case is a kind of death (one process, two at once, or an application) and a time. The ends keep
asking for pairs, teleports, messages and echoes, each call with a deadline. The clock is held at
the time of the case, the processes are killed, and the clock goes on. Checked: every call of an
application that lives ends within its deadline, with a result or an error; a new pair comes when
the processes are back; then no qubit, request, socket or session is left anywhere.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, NamedTuple

import trio

import qstack
from qstack.api.node import Node
from qstack.runtime.control_client import open_control
from tests.runtime.running import RunningNetwork, everybody_answers

KINDS: tuple[tuple[str, ...], ...] = (
    ("fabric",), ("alice",), ("r1",), ("r2",), ("bob",), ("alice's application",),
    ("bob's application",), ("r1", "r2"), ("alice", "bob"), ("fabric", "r1"),
)  # fmt: skip
TIMES = 50
LATEST_NS = 600_000_000  # into the work: several of everything are made by then
AFTER_NS = 300_000_000  # of more work, after the death
DEADLINE_NS = 250_000_000
LATE_NS = 10_000_000  # processing of an answer that came in time
HANG_S = 25.0  # of wall time, for all of a case's calls
PAUSE_NS = 20_000_000
PAIRS, QUBITS, NOTES, ECHOES = 21, 22, 23, 0
ENDS = {"alice": "bob", "bob": "alice"}


class Case(NamedTuple):
    """Who dies, and how long (network time) into the work."""

    number: int
    victims: tuple[str, ...]
    after_ns: int


def cases(seed: int = 1) -> list[Case]:
    """All of them, no process twice in a row: kinds take turns."""
    rng = Random(seed)
    times = [[int(LATEST_NS * (k + rng.random()) / TIMES) for k in range(TIMES)] for _ in KINDS]
    for column in times:
        rng.shuffle(column)
    rows = [
        (kind, column[k]) for k in range(TIMES) for kind, column in zip(KINDS, times, strict=True)
    ]
    return [Case(number, kind, after_ns) for number, (kind, after_ns) in enumerate(rows)]


class Application:
    """One end: work that goes on until it is told to stop; its calls and how they ended."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.other = ENDS[name]
        self.path = path
        self.is_stopping = False
        self.ended: dict[str, int] = {}
        self.open: dict[int, str] = {}
        self.late: list[str] = []
        self._calls = 0

    async def run(self) -> None:
        """Work; attach again if the node has gone."""
        while not self.is_stopping:
            try:
                async with qstack.open_node(self.name, path=self.path) as node:
                    await self._work(node)
            except* (qstack.QstackError, OSError):
                await trio.sleep(0.05)

    async def _work(self, node: Node) -> None:
        tasks = {
            "alice": (self._create, self._send_qubits, self._send_notes, self._echo),
            "bob": (self._accept, self._receive_qubits, self._receive_notes),
        }
        async with trio.open_nursery() as nursery:
            for task in tasks[self.name]:
                nursery.start_soon(self._again, node, task)

    async def _again(self, node: Node, task: Callable[[Node], Awaitable[None]]) -> None:
        """A task, from opening its socket on; an error of its socket is not the end."""
        while not self.is_stopping:
            try:
                await task(node)
            except qstack.NodeGone:
                raise
            except qstack.QstackError as error:
                self._count(error.code)
            await node.sleep(PAUSE_NS)

    async def call(self, node: Node, what: str, made: Awaitable[Any]) -> Any:
        """One call: it ends within its deadline, whatever it comes to."""
        self._calls += 1
        number, began_ns = self._calls, node.now()
        self.open[number] = what
        try:
            result = await made
            self._count(what)
            return result
        finally:
            del self.open[number]
            took_ns = node.now() - began_ns
            if took_ns > DEADLINE_NS + LATE_NS:
                self.late.append(f"{what} took {took_ns} ns")

    def _count(self, what: str) -> None:
        self.ended[what] = self.ended.get(what, 0) + 1

    async def _create(self, node: Node) -> None:
        async with node.epr_socket(remote=self.other, port=PAIRS) as epr:
            while not self.is_stopping:
                pair = await self.call(node, "pair", _one(epr.create_keep(deadline_ns=DEADLINE_NS)))
                await pair.qubit.measure("Z")

    async def _accept(self, node: Node) -> None:
        async with node.epr_socket(remote=self.other, port=PAIRS) as epr:
            while not self.is_stopping:
                pair = await self.call(node, "pair", _one(epr.accept(deadline_ns=DEADLINE_NS)))
                await pair.qubit.measure("Z")

    async def _send_qubits(self, node: Node) -> None:
        async with node.qubit_socket(remote=self.other, port=QUBITS) as out:
            while not self.is_stopping:
                qubit = await node.qubit()
                await self.call(node, "teleport", out.send(qubit, deadline_ns=DEADLINE_NS))

    async def _receive_qubits(self, node: Node) -> None:
        async with node.listen(port=QUBITS) as server:
            stream: Any = await self.call(node, "accept", server.accept(deadline_ns=DEADLINE_NS))
            async with stream:
                while not self.is_stopping:
                    arrived = stream.receive(deadline_ns=DEADLINE_NS)
                    qubit = await self.call(node, "qubit", arrived)
                    await qubit.measure("Z")

    async def _send_notes(self, node: Node) -> None:
        async with node.message_socket(
            remote=self.other, port=NOTES, deadline_ns=DEADLINE_NS
        ) as out:
            while not self.is_stopping:
                await self.call(node, "note", out.send(b"note", deadline_ns=DEADLINE_NS))
                await node.sleep(PAUSE_NS)

    async def _receive_notes(self, node: Node) -> None:
        async with node.listen(port=NOTES) as server:
            stream: Any = await self.call(node, "accept", server.accept(deadline_ns=DEADLINE_NS))
            async with stream:
                while not self.is_stopping:
                    await self.call(node, "receive", stream.receive(deadline_ns=DEADLINE_NS))

    async def _echo(self, node: Node) -> None:
        async with node.epr_socket(remote=self.other, port=ECHOES) as epr:
            while not self.is_stopping:
                pair = await self.call(node, "half", _one(epr.create_keep(deadline_ns=DEADLINE_NS)))
                await pair.qubit.measure("Z")
                await self.call(node, "echo", epr.echo(pair, "Z"))
                await node.sleep(PAUSE_NS)


async def _one(pairs: Any) -> Any:
    return await pairs


async def play(running: RunningNetwork, case: Case) -> dict[str, Application]:
    """One case in a network that is up and quiet; it is so again afterwards."""
    applications = {
        name: Application(name, str(running.session(name)))
        for name in ENDS
        if f"{name}'s application" not in case.victims
    }
    before = await running.pids()
    with trio.move_on_after(HANG_S) as limit:
        async with trio.open_nursery() as nursery:
            for application in applications.values():
                nursery.start_soon(application.run)
            for name in ENDS:
                if name not in applications:
                    await _die_in_work(running, name, case.after_ns)
            if not case.victims[0].endswith("application"):
                await _kill_at(running, case, before)
            await _pass(running, AFTER_NS)
            for application in applications.values():
                application.is_stopping = True
    words = f"{case}: {[(a.name, a.open, a.late, a.ended) for a in applications.values()]}"
    assert not limit.cancelled_caught, f"calls hang: {words}\n{running.log()}"
    assert not [late for a in applications.values() for late in a.late], words
    await _check_service(running, words)
    await running.fact(f"nothing is left: {words}", is_empty)
    return applications


async def _kill_at(running: RunningNetwork, case: Case, pids: dict[str, int]) -> None:
    """Let the clock stand, kill, and let it go on; then all of them are there again."""
    async with open_control(running.control) as control:
        start_ns = (await control.world())["clock"]["now_ns"]
        await control.hold(start_ns + case.after_ns)
        for name in case.victims:
            os.kill(pids[name], signal.SIGKILL)
        if "fabric" not in case.victims:
            await running.fact("they have gone", lambda r: _have_gone(r, case.victims))
            await control.release()

    def back(report: dict[str, Any]) -> bool:
        return everybody_answers(report) and all(
            _pid(report, name) != pids[name] for name in case.victims
        )

    await running.fact(f"they are back: {case}", back)


def _have_gone(report: dict[str, Any], names: tuple[str, ...]) -> bool:
    return report["fabric"] is not None and not {*names} & {*report["fabric"]["nodes"]}


def _pid(report: dict[str, Any], name: str) -> int:
    found = report["fabric"] if name == "fabric" else report["nodes"][name]
    return int(found["process"]["pid"])


async def _die_in_work(running: RunningNetwork, name: str, after_ns: int) -> None:
    """An application in a process of its own, killed at its network time."""
    command = [sys.executable, "-m", "tests.runtime.deaths", name, str(running.session(name))]
    process = await trio.lowlevel.open_process(command)
    try:
        await running.fact(f"{name}'s application works", lambda r: bool(_sessions(r, name)))
        async with open_control(running.control) as control:
            now_ns = (await control.world())["clock"]["now_ns"]
            await control.hold(now_ns + after_ns)
            process.kill()
            await process.wait()
            await running.fact("its session ends", lambda r: not _sessions(r, name))
            await control.release()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


def _sessions(report: dict[str, Any], name: str) -> list[str]:
    node = report["nodes"][name]
    return [session for session in node["sessions"] if session.startswith("app/")] if node else []


async def _pass(running: RunningNetwork, span_ns: int) -> None:
    """Let network time pass."""
    async with open_control(running.control) as control:
        await control.hold((await control.world())["clock"]["now_ns"] + span_ns)
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


if __name__ == "__main__":
    trio.run(Application(sys.argv[1], sys.argv[2]).run)
