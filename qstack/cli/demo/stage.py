"""The demo's stage: the running network, its applications as processes, and what they say."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from qstack.cli.demo.applications import Plan
from qstack.runtime.launch import Prepared
from qstack.runtime.run_folder import RunFolderError

Line = dict[str, Any]


class DemoError(RunFolderError):
    """The demo cannot go on; the text says why."""


class Application:
    """One application process. `lines` are what it says; its words on errors are kept."""

    def __init__(self, plan: Plan, process: trio.Process) -> None:
        self.plan = plan
        self.process = process
        self.errors = b""
        self._has_played = False
        self._inbox_send, self._inbox = trio.open_memory_channel[Line](100_000)

    async def read(self) -> None:
        """Collect what it says until it ends. Raises `DemoError` if it ends before its last act.

        The other one may wait for it without end: so this ends the demo, whoever is listened to.
        """
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_errors, self.process.stderr)
            rest = b""
            async for data in self.process.stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
        if not self._has_played:
            raise self._ended_early()

    def _take(self, line: Line) -> None:
        self._has_played = self._has_played or line["event"] == "end"
        self._inbox_send.send_nowait(line)

    def _ended_early(self) -> DemoError:
        words = self.errors.decode(errors="replace").strip().splitlines()
        last = words[-1] if words else "no word"
        return DemoError(f"the application at {self.plan.node} ended early: {last}")

    async def _read_errors(self, stream: trio.abc.ReceiveStream) -> None:
        async for data in stream:
            self.errors = (self.errors + data)[-4000:]

    async def until(self, event: str, heard: Callable[[Line], None]) -> Line:
        """Hand over its lines until one of kind `event`."""
        while True:
            line = await self._inbox.receive()
            if line["event"] == event:
                return line
            heard(line)

    async def go_on(self) -> None:
        """Let it begin its next act."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"\n")


@asynccontextmanager
async def application(prepared: Prepared, plan: Plan) -> AsyncIterator[Application]:
    """Start an application; it is ended on the way out."""
    command = [sys.executable, "-m", "qstack.cli.demo.applications"]
    environment = {**os.environ, "QSTACK_NODE": str(prepared.session_socket(plan.node))}
    process = await trio.lowlevel.open_process(
        [*command, msgspec.json.encode(plan).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    running = Application(plan, process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.read)
            yield running
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()
