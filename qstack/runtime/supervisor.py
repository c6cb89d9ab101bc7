"""Starting, watching, restarting and stopping the processes of a network on this host.

Each child holds a pipe from us as its standard input and ends when that closes: whatever way the
supervisor ends, nothing is left behind. What dies is started again with its restart count. The
children are forks of one process where that can be had (`forks.py`).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from qstack.runtime.forks import STATUS_UNKNOWN, ForkedProcess, ForkServer
from qstack.runtime.launch import Prepared

STOP_LIMIT_S: Final = 3.0
BACKOFF_S: Final = (0.0, 0.2, 1.0, 5.0)  # wait before a restart, by how often it died lately
SETTLED_S: Final = 10.0  # alive for so long, a process is no longer counted as failing


@dataclass(eq=False)
class Child:
    """One supervised process."""

    name: str
    arguments: list[str]
    restarts: int = 0
    failures: int = 0
    process: trio.Process | ForkedProcess | None = None
    tail: list[str] = field(default_factory=list)  # its last words

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self.process.pid if self.process is not None else None


class Supervisor:
    """The children of one network. `report(name, line)` hears what they say."""

    def __init__(
        self,
        prepared: Prepared,
        report: Callable[[str, str], None],
        *,
        seed: int | None = None,
        node_options: tuple[str, ...] = (),
        fabric_options: tuple[str, ...] = (),
        station_options: tuple[str, ...] = (),
    ) -> None:
        self.prepared = prepared
        self._report = report
        seeded = () if seed is None else ("--seed", str(seed))
        common = ["--run-folder", str(prepared.folder), "--lifeline", *seeded]
        self.children: dict[str, Child] = {}
        if prepared.network.fabric is not None:
            arguments = ["fabric", "run", str(prepared.network_file), *common, *fabric_options]
            self.children["fabric"] = Child("fabric", arguments)
        for name in prepared.network.stations:
            arguments = ["station", "run", str(prepared.network_file), "--name", name]
            self.children[name] = Child(name, [*arguments, *common, *station_options])
        for name in prepared.network.nodes:
            arguments = ["node", "run", str(prepared.network_file), "--name", name]
            self.children[name] = Child(name, [*arguments, *common, *node_options])
        self._is_stopping = False
        self._forks = ForkServer(str(prepared.folder), lambda line: report("fork server", line))

    async def run(self) -> None:
        """Keep everything running until cancelled, then stop it all."""
        try:
            async with trio.open_nursery() as nursery:
                for child in self.children.values():
                    nursery.start_soon(self._keep, child)
        finally:
            self._is_stopping = True
            with trio.CancelScope(shield=True):
                await self._stop_all()

    async def _keep(self, child: Child) -> None:
        while not self._is_stopping:
            started = trio.current_time()
            code = await self._run_once(child)
            if trio.current_time() - started > SETTLED_S:
                child.failures = 0
            wait = BACKOFF_S[min(child.failures, len(BACKOFF_S) - 1)]
            child.failures += 1
            child.restarts += 1
            self._report(child.name, f"ended with {_exit_text(code)}; starting it again")
            await trio.sleep(wait)

    async def _run_once(self, child: Child) -> int:
        process = await self._forks.start([*child.arguments, "--restarts", str(child.restarts)])
        child.process = process
        try:
            assert process.stderr is not None
            await self._listen(child, process.stderr)
            return await process.wait()
        finally:
            if process.returncode is not None:
                child.process = None
                await _close(process)

    async def _listen(self, child: Child, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        while data := await stream.receive_some():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace")
                child.tail = [*child.tail[-19:], text]
                self._report(child.name, text)

    async def _stop_all(self) -> None:
        running = [c.process for c in self.children.values() if c.process is not None]
        for process in running:
            with suppress(ProcessLookupError):
                process.terminate()
        with trio.move_on_after(STOP_LIMIT_S):
            for process in running:
                await process.wait()
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await _close(process)
        await self._forks.aclose()


async def _close(process: trio.Process | ForkedProcess) -> None:
    for stream in (process.stdin, process.stderr):
        if stream is not None:
            await stream.aclose()


def _exit_text(code: int) -> str:
    if code == STATUS_UNKNOWN:
        return "a status that nobody saw"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
