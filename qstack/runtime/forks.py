"""Asking for processes of ours: forks of a process that has imported everything (the fork server).

A program of ours takes most of a second of work to import what it needs; a fork of one that has
takes none of that, and shares its memory. The server is `qstack.cli.fork_server`, one for
each network that is up; what it does is in `fork_service.py`. A process that knows from the start
that it needs one has imported the same, and makes it of itself before it does anything else.

Rules
1. The server is started when it is first needed, and again when it has gone. Its children live on:
   their end is still seen, but nobody is told how they ended (`STATUS_UNKNOWN`).
2. Where there can be no fork server, or it does not come up, a process is a program of its own, as
   when it is started by hand. `ForkServer.start` and `start_child` decide that, nobody else.
3. A child has a session of its own, and environment, current folder and standard output of whoever
   started the server.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

import msgspec
import trio

from qstack.runtime.descriptors import receive_with, send_with

START_LIMIT_S: Final = 30.0  # of a server that imports everything, on a computer that is busy
STATUS_LIMIT_S: Final = 5.0  # from the end of a process until the server says how it ended
END_LIMIT_S: Final = 3.0
STATUS_UNKNOWN: Final = 256  # no process ends with it
SERVER: Final = ("-m", "qstack.cli.fork_server")


class NoForkError(Exception):
    """The fork server gives no process; the text says why."""


class Fork:
    """A process that is a fork of the server's, used as `subprocess.Popen` is; by any thread."""

    def __init__(self, arguments: list[str], pid: int, pidfd: int, answer: int) -> None:
        self.arguments = arguments
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._answer = answer
        self._lock = threading.Lock()
        for descriptor in (pidfd, answer):
            weakref.finalize(self, os.close, descriptor)  # when nobody can be waiting any more

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, when it has. Raises `subprocess.TimeoutExpired` (`timeout` in seconds)."""
        if not _is_readable(self._pidfd, timeout):
            raise subprocess.TimeoutExpired(self.arguments, timeout or 0.0)
        return self._status(STATUS_LIMIT_S)

    async def ended(self) -> int:
        """How it ended, when it has. One task may wait at a time."""
        await trio.lowlevel.wait_readable(self._pidfd)
        with trio.move_on_after(STATUS_LIMIT_S):
            await trio.lowlevel.wait_readable(self._answer)
        return self._status(0.0)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _status(self, limit_s: float) -> int:
        with self._lock:
            if self.returncode is None:
                said = b""
                if _is_readable(self._answer, limit_s):
                    said = os.read(self._answer, 20)
                self.returncode = int(said) if said else STATUS_UNKNOWN
            return self.returncode


class ForkedProcess:
    """A fork with pipes to its standard input and from its standard error, as `trio.Process`."""

    def __init__(
        self, fork: Fork, stdin: trio.lowlevel.FdStream, stderr: trio.lowlevel.FdStream
    ) -> None:
        self.stdin = stdin
        self.stderr = stderr
        self.pid = fork.pid
        self.terminate = fork.terminate
        self.kill = fork.kill
        self.wait = fork.ended
        self._fork = fork

    @property
    def returncode(self) -> int | None:
        """How it ended; None while nobody has waited for that."""
        return self._fork.returncode


@dataclass(eq=False)
class Server:
    """A fork server that runs: a child of this process, which `reap` waits for."""

    pid: int
    connection: socket.socket
    reap: Callable[[], object]
    has_answered: bool = False

    async def end(self) -> bool:
        """Let it end, and make it if it does not; whether that was needed. Its children live on."""
        self.connection.close()
        pidfd = os.pidfd_open(self.pid)
        try:
            with trio.move_on_after(END_LIMIT_S) as limit:
                await trio.lowlevel.wait_readable(pidfd)
            if limit.cancelled_caught:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self.reap()
        finally:
            os.close(pidfd)
        return limit.cancelled_caught


class ForkServer:
    """The fork server of one network. `report(line)` hears what goes wrong with it."""

    def __init__(self, of: str, report: Callable[[str], None]) -> None:
        """`of` is shown in the list of processes."""
        self._of = of
        self._report = report
        self._server: Server | None = None

    async def start(self, arguments: list[str]) -> "trio.Process | ForkedProcess":
        """A process `qstack ARGUMENTS` with pipes for standard input and error (rule 2)."""
        while can_fork():
            server = self._running()
            try:
                process = await _forked_process(server.connection, arguments)
            except NoForkError as error:
                await self._lose(server, str(error))
                if not server.has_answered:
                    break  # one that has served is replaced
            else:
                server.has_answered = True
                return process
        return await trio.lowlevel.open_process(
            _program(arguments),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    async def aclose(self) -> None:
        """Let it end, when its children have."""
        server, self._server = self._server, None
        if server is not None and await server.end():
            self._report("the fork server did not end by itself")

    def _running(self) -> Server:
        if self._server is None:
            self._server, _Own.made = _Own.made or _started(), None
            title = " ".join([sys.executable, *SERVER, self._of])
            with suppress(OSError):  # it has gone: who asks for a process will see
                self._server.connection.send(msgspec.msgpack.encode(title))
        return self._server

    async def _lose(self, server: Server, why: str) -> None:
        """The first who finds it gone says so."""
        if self._server is server:
            self._server = None
            self._report(why)
            with trio.CancelScope(shield=True):
                await server.end()


class _Own:
    """What this process has been given: `asked`, if it is a fork; `made`, if it has made one."""

    asked: socket.socket | None = None
    made: Server | None = None


@cache
def can_fork() -> bool:
    """Whether the system has descriptors of processes (Linux 5.3), without which nobody asks."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def ask_there(server: socket.socket) -> None:
    """This process is a fork: its own processes are asked for there."""
    _Own.asked = server


def use(server: Server) -> None:
    """This process has made a fork server: the next `ForkServer` needs no other."""
    _Own.made = server


def start_child(arguments: list[str]) -> "subprocess.Popen[bytes] | Fork":
    """A process `qstack ARGUMENTS` with our standard error and no input (rule 2)."""
    asked = _Own.asked
    if asked is not None:
        with open(os.devnull, "rb") as nothing, suppress(NoForkError):
            answer = _ask(asked, arguments, nothing.fileno(), 2)
            _is_readable(answer.fileno(), START_LIMIT_S)
            return _answered(answer, arguments)
        _Own.asked = None
        asked.close()
    return subprocess.Popen(  # noqa: S603 - our own program, and no shell
        _program(arguments), stdin=subprocess.DEVNULL
    )


def _program(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "qstack", *arguments]


def _started() -> Server:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own program, and no shell
            [sys.executable, *SERVER], stdin=theirs.fileno(), start_new_session=True
        )
    return Server(process.pid, ours, process.wait)


async def _forked_process(server: socket.socket, arguments: list[str]) -> ForkedProcess:
    """Raises `NoForkError`. If it is cancelled, the process ends with its standard input."""
    its_input, our_input = os.pipe()
    our_error, its_error = os.pipe()
    stdin, stderr = trio.lowlevel.FdStream(our_input), trio.lowlevel.FdStream(our_error)
    try:
        try:
            answer = _ask(server, arguments, its_input, its_error)
        finally:
            os.close(its_input)
            os.close(its_error)
        with answer:
            with trio.move_on_after(START_LIMIT_S):
                await trio.lowlevel.wait_readable(answer)
            return ForkedProcess(_answered(answer, arguments), stdin, stderr)
    except BaseException:
        stdin.close()
        stderr.close()
        raise


def _ask(
    server: socket.socket, arguments: list[str], standard_input: int, standard_error: int
) -> socket.socket:
    """Where the answer will come. Raises `NoForkError`."""
    answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptors = [standard_input, standard_error, theirs.fileno(), server.fileno()]
    try:
        with theirs:
            send_with(server, msgspec.msgpack.encode(arguments), descriptors)
    except OSError as error:
        answer.close()
        raise NoForkError(f"the fork server has gone ({error.strerror})") from error
    return answer


def _answered(answer: socket.socket, arguments: list[str]) -> Fork:
    """The process that was asked for. Raises `NoForkError`."""
    with answer:
        try:
            pid, descriptors = receive_with(answer, 20, 1)
        except OSError as error:
            raise NoForkError(f"the fork server does not answer ({error.strerror})") from error
        if not descriptors:
            raise NoForkError("the fork server has gone")
        return Fork(arguments, int(pid), descriptors[0], answer.detach())


def _is_readable(descriptor: int, limit_s: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if limit_s is None else limit_s * 1000))
