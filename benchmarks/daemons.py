"""Measure the daemons: a fabric and two nodes as processes, an application process at each node.

    python benchmarks/daemons.py [--json] [--peer PYTHON --peer-script FILE]

The network is `daemons.toml` beside this file: wall clock at scale 1, 1 km of fibre, memories of
10 s. "Attempts certain": double-click heralds at most every second attempt (0.48 with the loss of
the fibre), and an attempt takes 5 us, so that no figure waits for hardware. Everything runs on
this host and is ended on the way out.

A pair counts when both applications have held and freed it: the smaller count of the two, in the
time both were at work, the first `SETTLE_S` of it left out. 64 pairs are outstanding, asked for by
4 calls of 16 (`keep_pairs_per_s`) or by 64 calls of one. A teleportation counts when the far end
has read the qubit. See docs/performance.md for what the figures mean.
"""

import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec
import trio
from daemons_application import START_LIMIT_NS, Done, Task

from qstack.physical.document import DocumentError
from qstack.runtime.launch import Prepared, prepare
from qstack.runtime.observe import NotReadyError, observe_fabric, observe_network, wait_until_ready
from qstack.runtime.run_folder import RunFolderError, private_folder
from qstack.runtime.supervisor import Supervisor

NETWORK: Final = Path(__file__).with_name("daemons.toml")
APPLICATION: Final = Path(__file__).with_name("daemons_application.py")
HEAD, TAIL = "alice", "bob"
OUTSTANDING: Final = 64
KEEP_BATCH: Final = 16
MEASURE_BATCH: Final = 10**6  # the most one call may ask for
SETTLE_S: Final = 0.5
PHASE_LIMIT_S: Final = 30.0  # beyond the span of a phase: then it counts as hanging
CHANNEL_LIMIT_S: Final = 30.0
PEER_LIMIT_S: Final = 90.0


class BenchmarkError(click.ClickException):
    """A phase did not work; the text says which and why."""


class Bench:
    """A network that is up."""

    def __init__(self, prepared: Prepared, supervisor: Supervisor, span_s: float) -> None:
        self.prepared = prepared
        self.supervisor = supervisor
        self.span_s = span_s
        self.deadline_ns = START_LIMIT_NS

    async def phase(self, name: str, outstanding: int, batch: int = 1) -> tuple[Done, Done]:
        """Run both applications of a phase; what they say at the end."""
        done: dict[str, Done] = {}
        with trio.move_on_after(self.span_s + PHASE_LIMIT_S):
            async with trio.open_nursery() as nursery:
                for node, remote in ((HEAD, TAIL), (TAIL, HEAD)):
                    task = Task(
                        phase=name,
                        node=node,
                        remote=remote,
                        is_head=node == HEAD,
                        outstanding=outstanding,
                        batch=batch,
                        span_s=self.span_s,
                        deadline_ns=self.deadline_ns,
                    )
                    nursery.start_soon(self._application, task, done)
            return done[HEAD], done[TAIL]
        raise BenchmarkError(f"{name}: not done after {self.span_s + PHASE_LIMIT_S:g} s")

    async def _application(self, task: Task, done: dict[str, Done]) -> None:
        environment = {**os.environ, "QSTACK_NODE": str(self.prepared.session_socket(task.node))}
        command = [sys.executable, str(APPLICATION), msgspec.json.encode(task).decode()]
        result = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=environment
        )
        if result.returncode != 0:
            words = result.stderr.decode(errors="replace").strip() or "no word"
            raise BenchmarkError(f"{task.phase} at {task.node} failed: {words[-1500:]}")
        done[task.node] = msgspec.json.decode(result.stdout, type=Done)

    def rss_mib(self) -> float:
        """The largest resident memory a node has had."""
        nodes = [child.pid for name, child in self.supervisor.children.items() if name != "fabric"]
        return max(_largest_rss_mib(pid) for pid in nodes if pid is not None)

    def cpu_s(self) -> float:
        """What the fabric and the nodes have worked so far, without the applications."""
        pids = [child.pid for child in self.supervisor.children.values()]
        return sum(_cpu_s(pid) for pid in pids if pid is not None)

    async def rounds(self) -> int:
        """Rounds of the lockstep clock so far."""
        report = await observe_fabric(self.prepared.control_socket)
        return int(report["clock"]["rounds"]) if report else 0


def _cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _largest_rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise BenchmarkError("this system does not tell the memory of processes in /proc")


def rate(name: str, head: Done, tail: Done) -> float:
    """Per second of the time both were at work: the smaller of the two counts."""
    if not head.times_s or not tail.times_s:
        raise BenchmarkError(f"{name}: nothing was delivered")
    start = max(head.times_s[0], tail.times_s[0]) + SETTLE_S
    end = min(head.times_s[-1], tail.times_s[-1])
    counts = [
        sum(n for at, n in zip(each.times_s, each.counts, strict=True) if start < at <= end)
        for each in (head, tail)
    ]
    if min(counts) == 0:
        raise BenchmarkError(f"{name}: nothing was delivered after {SETTLE_S:g} s")
    return min(counts) / (end - start)


@asynccontextmanager
async def running(clock: str, span_s: float, text: str | None = None) -> AsyncIterator[Bench]:
    """The network, or the one of this file, with that clock, up; it is ended on the way out."""
    runs = private_folder(Path(tempfile.mkdtemp(prefix="qs-")))
    try:
        source = runs / "bench.toml"
        text = NETWORK.read_text() if text is None else text
        source.write_text(text.replace('clock = "wall"', f'clock = "{clock}"'))
        prepared = prepare(source, runs)
        supervisor = Supervisor(prepared, _say, seed=1 if clock == "lockstep" else None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await wait_until_ready(prepared, supervisor)
            await _wait_for_channels(prepared)
            yield Bench(prepared, supervisor, span_s)
            died = [c.name for c in supervisor.children.values() if c.restarts]
            nursery.cancel_scope.cancel()
        if died:
            raise BenchmarkError(f"the figures are void: {', '.join(died)} died meanwhile")
    finally:
        shutil.rmtree(runs, ignore_errors=True)


async def _wait_for_channels(prepared: Prepared) -> None:
    """Ready is when the nodes have their channel to each other, too."""
    with trio.move_on_after(CHANNEL_LIMIT_S):
        while True:
            nodes = (await observe_network(prepared.folder))["nodes"]
            if all(node and len(node["channels"]) == 2 for node in nodes.values()):
                return
            await trio.sleep(0.02)
    raise BenchmarkError(f"the nodes have no channel after {CHANNEL_LIMIT_S:g} s")


def _say(name: str, line: str) -> None:
    """A process that dies spoils the figures: that is said. Its last words come with failures."""
    if line.startswith("ended with"):
        print(f"{name}: {line}", file=sys.stderr)


class Best(NamedTuple):
    """The best of several runs of a phase, and what the daemons worked for a pair meanwhile."""

    per_s: float
    cpu_ms: float
    done: tuple[Done, Done]


async def best(
    bench: Bench, runs: int, name: str, outstanding: int, batch: int = 1, *, at_tail: bool = False
) -> Best:
    """Run a phase several times. `at_tail`: only the far end's count matters."""
    found = []
    for _ in range(runs):
        before_s = bench.cpu_s()
        head, tail = await bench.phase(name, outstanding, batch)
        if tail.wrong:
            raise BenchmarkError(f"{name}: {tail.wrong} qubits arrived in a wrong state")
        cpu_ms = 1000.0 * (bench.cpu_s() - before_s) / max(1, sum(tail.counts))
        found.append(Best(rate(name, tail if at_tail else head, tail), cpu_ms, (head, tail)))
    return max(found, key=lambda run: run.per_s)


async def measure_wall(span_s: float, runs: int) -> dict[str, Any]:
    """All phases by the wall clock."""
    started = time.monotonic()
    async with running("wall", span_s) as bench:
        ready_s = time.monotonic() - started
        keep = await best(bench, runs, "keep", OUTSTANDING, KEEP_BATCH)
        single = await best(bench, runs, "keep", OUTSTANDING)
        measured = await best(bench, runs, "measure", 2, MEASURE_BATCH)
        teleports = await best(bench, runs, "teleport", OUTSTANDING, at_tail=True)
        latency = await best(bench, runs, "latency", 1)
        rss_mib = bench.rss_mib()
    spans = sorted(1000.0 * each for each in latency.done[0].latencies_s[1:])
    return {
        "keep_pairs_per_s": round(keep.per_s, 1),
        "keep_pairs_per_s_one_a_call": round(single.per_s, 1),
        "measure_pairs_per_s": round(measured.per_s, 1),
        "teleports_per_s": round(teleports.per_s, 1),
        "latency_ms": {
            "p50": round(statistics.median(spans), 2),
            "p99": round(spans[int(0.99 * (len(spans) - 1))], 2),
        },
        "node_rss_mib": rss_mib,
        "ready_s": round(ready_s, 2),
        "daemons_cpu_ms": {
            "keep": round(keep.cpu_ms, 3),
            "keep_one_a_call": round(single.cpu_ms, 3),
            "teleport": round(teleports.cpu_ms, 3),
        },
    }


async def measure_lockstep(span_s: float) -> dict[str, Any]:
    """Kept pairs in lockstep, and the clock's rounds meanwhile."""
    async with running("lockstep", span_s) as bench:
        before, started = await bench.rounds(), time.monotonic()
        done = await bench.phase("keep", OUTSTANDING)
        rounds, elapsed_s = await bench.rounds() - before, time.monotonic() - started
    return {
        "rounds_per_s": round(rounds / elapsed_s, 1),
        "pairs_per_s": round(rate("lockstep", *done), 1),
    }


def measure_peer(python: str, script: str) -> dict[str, Any]:
    """Run the peer's own script; its one line of JSON."""
    try:
        result = subprocess.run(
            [python, script], capture_output=True, text=True, timeout=PEER_LIMIT_S, check=True
        )
        line: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise BenchmarkError(f"the peer's script: {error}") from error
    return line


def ratios(own: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    """Our rates over the peer's, of the same run."""
    compared = (
        ("keep_one_a_call_over_epr", "keep_pairs_per_s_one_a_call", "epr"),
        ("keep_over_batch", "keep_pairs_per_s", "batch"),
        ("keep_over_native", "keep_pairs_per_s", "native"),
        ("teleport_over_teleport", "teleports_per_s", "teleport"),
    )
    return {
        name: round(own[ours] / peer[phase]["per_s"], 1)
        for name, ours, phase in compared
        if (peer.get(phase) or {}).get("per_s")
    }


def plain(error: BaseException) -> BaseException:
    """The one thing that went wrong, as a line for people if it is of a known kind."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt):
        return click.Abort()
    if isinstance(error, (NotReadyError, DocumentError, RunFolderError)):
        return BenchmarkError(str(error))
    return error


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--seconds", type=click.FloatRange(2, 60), default=4.0, show_default=True)
@click.option("--best-of", type=click.IntRange(1, 20), default=1, show_default=True)
@click.option("--peer", metavar="PYTHON", help="Interpreter of the peer's own environment.")
@click.option("--peer-script", metavar="FILE", help="The peer's benchmark: prints a line of JSON.")
def main(
    *, as_json: bool, seconds: float, best_of: int, peer: str | None, peer_script: str | None
) -> None:
    """Measure pairs, teleportations, latency, memory and start-up of real processes."""
    if (peer is None) != (peer_script is None):
        raise click.UsageError("--peer and --peer-script go together")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    result: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "python_is_shared_library": bool(sysconfig.get_config_var("Py_ENABLE_SHARED")),
    }
    try:
        result |= trio.run(measure_wall, seconds, best_of)
        result["lockstep"] = trio.run(measure_lockstep, seconds)
    except (BaseExceptionGroup, DocumentError, RunFolderError) as error:
        raise plain(error) from error
    if peer and peer_script:
        result["peer"] = measure_peer(peer, peer_script)
        result["ratios"] = ratios(result, result["peer"])
    if as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:34} {value}")


if __name__ == "__main__":
    main()
