"""Networks as a user runs them: the command line, real processes, a run folder of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import trio

from qstack.runtime.observe import observe_network

READY_S = 60.0
FACT_S = 10.0
POLL_S = 0.02


def command(*arguments: str) -> list[str]:
    """`qstack ARGUMENTS`."""
    return [sys.executable, "-m", "qstack", *arguments]


def environment(runs: Path) -> dict[str, str]:
    """Ours, with another run folder."""
    return {**os.environ, "QSTACK_RUN": str(runs), "PYTHONWARNINGS": "error::ResourceWarning"}


def packaged(name: str) -> Path:
    """A network file that comes with qstack."""
    return Path(str(files("qstack") / "data" / f"{name}.toml"))


def variant(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """A copy of a packaged network with texts replaced."""
    text = packaged(name).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@contextmanager
def run_folder() -> Iterator[Path]:
    """A private folder with a short path: sockets go into it."""
    with tempfile.TemporaryDirectory(prefix="qs-") as folder:
        yield Path(folder)


class RunningNetwork:
    """`qstack up` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], runs: Path, name: str) -> None:
        self.process = process
        self.folder = runs / name
        self.runs = runs
        self.name = name

    def session(self, node: str) -> Path:
        """The session socket of a node."""
        return self.folder / f"node-{node}.sock"

    @property
    def control(self) -> Path:
        """The fabric's control socket."""
        return self.folder / "fabric.sock"

    async def report(self) -> dict[str, Any]:
        """What everybody says of itself."""
        return await observe_network(self.folder)

    async def fact(
        self, what: str, holds: Callable[[dict[str, Any]], bool], limit_s: float = FACT_S
    ) -> dict[str, Any]:
        """Wait until a report shows something; fails with the last report and the log."""
        report: dict[str, Any] = {}
        with trio.move_on_after(limit_s):
            while True:
                report = await self.report()
                if holds(report):
                    return report
                await trio.sleep(POLL_S)
        raise AssertionError(f"never true: {what}\n{json.dumps(report, indent=1)}\n{self.log()}")

    async def pids(self) -> dict[str, int]:
        """The process of each node and the fabric."""
        report = await self.fact("everybody answers", everybody_answers)
        pids = {name: node["process"]["pid"] for name, node in report["nodes"].items()}
        return {**pids, "fabric": report["fabric"]["process"]["pid"]}

    def log(self) -> str:
        """What the processes said."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else "(no log)"

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ctrl-C; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()


def everybody_answers(report: dict[str, Any]) -> bool:
    """Every node and the fabric have reported, and every node knows every other."""
    nodes = report["nodes"]
    fabric = report["fabric"]
    return (
        fabric is not None
        and fabric["clock"]["started"]
        and all(node is not None and node["has_fabric"] for node in nodes.values())
        and sorted(nodes) == fabric["nodes"]
        and all(n["layers"]["network"]["known_nodes"] == sorted(nodes) for n in nodes.values())
    )


def is_quiet(report: dict[str, Any]) -> bool:
    """Nothing is to be done anywhere."""
    return everybody_answers(report) and report["fabric"]["clock"]["is_quiet"]


def start(runs: Path, source: Path, name: str, *options: str) -> RunningNetwork:
    """`qstack up SOURCE OPTIONS` in a run folder, ready."""
    process = subprocess.Popen(
        command("up", str(source), "--quiet", *options),
        env=environment(runs),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = RunningNetwork(process, runs, name)
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        words = process.stderr.read()
        running.stop()
        raise AssertionError(f"it did not come up: {words}")
    assert json.loads(line) == {"network": name, "ready": True}
    return running


@contextmanager
def network(source: Path, name: str, *options: str) -> Iterator[RunningNetwork]:
    """`qstack up SOURCE OPTIONS`, ready, in a run folder of its own; stopped by Ctrl-C."""
    with run_folder() as runs:
        running = start(runs, source, name, *options)
        try:
            yield running
        finally:
            running.stop()


def processes_of(runs: Path) -> list[int]:
    """The processes whose command line names a run folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if re.search(re.escape(str(runs)), line):
                found.append(int(entry.name))
    return found


def words_of(pid: int) -> list[str]:
    """The command line of a process; none if it is gone. Forks have it as one text with blanks."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()
    except OSError:
        return []


def wait_for(what: str, holds: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for a fact, without an event loop."""
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"never true: {what}"
        time.sleep(POLL_S)
