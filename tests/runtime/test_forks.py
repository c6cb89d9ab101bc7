"""Processes as forks of a server: like programs of their own, whatever becomes of the server."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from qstack.runtime import forks
from qstack.runtime.descriptors import send_with
from qstack.runtime.forks import STATUS_UNKNOWN, ForkedProcess, ForkServer, start_child
from tests.runtime.running import wait_for, words_of

CHILD = """
import json, os, random, runpy, secrets, signal, sys
from pathlib import Path

def draw():
    import numpy
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    return [os.urandom(8).hex(), secrets.token_hex(8), random.random(), random.Random().random(),
            numpy.random.random(), numpy.random.default_rng().random(),
            X25519PrivateKey.generate().private_bytes_raw().hex()]  # of OpenSSL's generator

def facts():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {"signals": [line for line in lines if line.startswith("Sig")], "folder": os.getcwd(),
            "threads": len(os.listdir("/proc/self/task")), "environment": dict(os.environ),
            "descriptors": len(os.listdir("/proc/self/fd")), "arguments": sys.argv[1:],
            "heavy": [name for name in ("rich", "matplotlib", "pytest") if name in sys.modules],
            "is_leader": os.getsid(0) == os.getpid(), "input": sys.stdin.read()}

def child(*_, **__):
    match sys.argv[1]:
        case "draw": print(json.dumps(draw()), file=sys.stderr)
        case "facts": print(json.dumps(facts()), file=sys.stderr)
        case "raise": raise ValueError("it fell")
        case "number": sys.exit(7)
        case "text": sys.exit("it says why")
        case "signal": signal.raise_signal(signal.SIGKILL)
        case "stay": os.write(2, b"here"); sys.stdin.read()
"""
AS_SERVER = """
from qstack.cli import fork_server
def import_and_draw(imports=fork_server.import_all):
    imports()
    draw()  # generators that are in use, as they are not in the real one
fork_server.import_all = import_and_draw
runpy.run_module = child
fork_server.main()
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a server's owner is told; children are those of CHILD, as forks and as programs."""
    monkeypatch.setenv("PYTHONWARNINGS", "error::ResourceWarning")  # said at the end, if at all
    monkeypatch.setattr(forks, "SERVER", ("-c", CHILD + AS_SERVER))
    monkeypatch.setattr(forks, "_program", program)
    return []


def program(arguments: list[str]) -> list[str]:
    return [sys.executable, "-c", CHILD + "child()", *arguments]


@asynccontextmanager
async def serving(said: list[str]) -> AsyncIterator[ForkServer]:
    server = ForkServer("here", said.append)
    try:
        yield server
    finally:
        await server.aclose()


async def words_and_end(process: trio.Process | ForkedProcess) -> tuple[str, int]:
    """What it says on standard error, and its status; its input ends at once."""
    assert process.stdin is not None
    assert process.stderr is not None
    await process.stdin.aclose()
    async with process.stderr as stream:
        words = b"".join([data async for data in stream])
    return words.decode(), await process.wait()


async def first_word(process: trio.Process | ForkedProcess) -> bytes:
    """As soon as it says one."""
    assert process.stderr is not None
    return await process.stderr.receive_some()


def running(server: ForkServer) -> forks.Server:
    assert server._server is not None
    return server._server


# --- what a fork is ------------------------------------------------------------------------------


async def test_forks_draw_different_chance_from_every_generator(said: list[str]) -> None:
    async with serving(said) as server:
        drawn = [
            json.loads((await words_and_end(await server.start(["draw"])))[0]) for _ in range(3)
        ]
    assert len(drawn[0]) == 7
    assert all(len({each[n] for each in drawn}) == 3 for n in range(7)), drawn
    assert not said


async def test_a_fork_is_as_a_program_started_anew(said: list[str]) -> None:
    async with serving(said) as server:
        await words_and_end(await server.start(["number"]))  # nothing of it is left to the next
        words, status = await words_and_end(await server.start(["facts", "--more", "a b"]))
    fork: dict[str, Any] = json.loads(words)
    done = await trio.run_process(
        program(["facts", "--more", "a b"]), capture_stderr=True, start_new_session=True
    )
    fresh = json.loads(done.stderr)
    assert status == 0
    assert fork.pop("descriptors") == fresh.pop("descriptors") + 1, "its connection to the server"
    assert fork == fresh
    assert fork["threads"] == 1


@pytest.mark.parametrize("how", ["number", "text", "raise", "signal"])
async def test_a_fork_ends_as_a_program_does(said: list[str], how: str) -> None:
    async with serving(said) as server:
        words, status = await words_and_end(await server.start([how]))
    done = await trio.run_process(program([how]), capture_stderr=True, check=False)
    assert status == done.returncode
    lines, fresh = words.splitlines(), done.stderr.decode().splitlines()
    assert lines[-1:] == fresh[-1:]
    assert how == "raise" or lines == fresh, "only a traceback has more lines"
    assert not said


async def test_a_fork_is_ended_by_signals_and_shown_by_its_own_name(said: list[str]) -> None:
    async with serving(said) as server:
        processes = [await server.start(["stay"]) for _ in range(2)]
        for process in processes:
            assert await first_word(process) == b"here"
            assert words_of(process.pid)[-3:] == ["-m", "qstack", "stay"]
        assert words_of(running(server).pid)[-1] == "here"
        assert processes[0].returncode is None
        processes[0].terminate()
        processes[1].kill()
        assert (await words_and_end(processes[0]))[1] == -signal.SIGTERM
        assert (await words_and_end(processes[1]))[1] == -signal.SIGKILL
        processes[0].kill()  # nobody is left to be hit


# --- what becomes of the server ------------------------------------------------------------------


async def test_forks_survive_their_server_and_the_next_is_another_servers(said: list[str]) -> None:
    async with serving(said) as server:
        first = await server.start(["stay"])
        assert await first_word(first) == b"here"
        former = running(server).pid
        os.kill(former, signal.SIGKILL)
        second = await server.start(["number"])
        assert (await words_and_end(second))[1] == 7
        assert running(server).pid != former
        assert first.returncode is None
        assert await words_and_end(first) == ("", STATUS_UNKNOWN)
    assert len(said) == 1
    assert "the fork server has gone" in said[0]


@pytest.mark.parametrize("script", ["raise SystemExit(1)", "import signal; signal.pause()"])
async def test_without_a_server_it_is_a_program(
    said: list[str], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(forks, "SERVER", ("-c", script))
    monkeypatch.setattr(forks, "START_LIMIT_S", 0.1)
    monkeypatch.setattr(forks, "END_LIMIT_S", 0.1)
    async with serving(said) as server:
        process = await server.start(["text"])
        assert isinstance(process, trio.Process)
        assert await words_and_end(process) == ("it says why\n", 1)
    assert len(said) == 1


async def test_a_system_without_descriptors_of_processes_has_programs(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pidfd_open", missing)
    forks.can_fork.cache_clear()
    try:
        async with serving(said) as server:
            process = await server.start(["text"])
            assert isinstance(process, trio.Process)
            assert server._server is None
            assert await words_and_end(process) == ("it says why\n", 1)
    finally:
        forks.can_fork.cache_clear()
    assert not said


def missing(pid: int) -> int:
    raise OSError(errno.ENOSYS, "there is no such call")


def test_a_fork_server_by_hand_says_who_starts_it() -> None:
    done = subprocess.run(
        [sys.executable, *forks.SERVER], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is started by `qstack up`" in done.stderr


def test_who_is_started_without_standard_files_has_them_before_it_opens_others() -> None:
    script = "from qstack.cli.fork_server import open_standard_files as o; o(); o(); import os"
    say = "os.mkdir(' '.join(sorted(os.listdir('/proc/self/fd'))))"
    with tempfile.TemporaryDirectory() as folder:
        words = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c"]
        subprocess.run([*words, f"{script}; {say}"], cwd=folder, check=True)
        assert os.listdir(folder) == ["0 1 2 3"]


async def test_who_does_not_wait_for_its_process_has_none_at_last(said: list[str]) -> None:
    async with serving(said) as server:
        with trio.move_on_after(0.05) as hurry:  # the server still imports
            await server.start(["stay"])
        assert hurry.cancelled_caught
    assert not said, "the server ends by itself only if it has no children"


async def test_what_is_no_request_is_dropped(said: list[str]) -> None:
    async with serving(said) as server:
        connection = server._running().connection
        ours, theirs = socket.socketpair()
        with ours, theirs:
            connection.send(b"\xc1")
            connection.send(msgspec.msgpack.encode(["number"]))
            send_with(connection, msgspec.msgpack.encode([1]), [theirs.fileno()] * 4)
            send_with(connection, msgspec.msgpack.encode(["number"]), [theirs.fileno()] * 3)
        assert (await words_and_end(await server.start(["number"])))[1] == 7
        wait_for("nothing of them is open", lambda: has_nothing_open(server))
    assert not said


async def test_no_descriptor_is_left_open_by_many_starts(said: list[str]) -> None:
    async with serving(said) as server:
        await words_and_end(await server.start(["number"]))
        before = os.listdir("/proc/self/fd")
        for _ in range(20):
            process = await server.start(["number"])
            assert (await words_and_end(process))[1] == 7
            del process
        assert os.listdir("/proc/self/fd") == before
        wait_for("nothing of them is open", lambda: has_nothing_open(server))
    assert not said


def has_nothing_open(server: ForkServer) -> bool:
    """But the three standard files and its requests."""
    return len(os.listdir(f"/proc/{running(server).pid}/fd")) == 4


# --- processes of a process ----------------------------------------------------------------------


async def test_a_fork_has_processes_of_its_own_from_the_same_server_or_else_anew(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(said) as server:
        await words_and_end(await server.start(["number"]))
        forks.ask_there(running(server).connection.dup())
        monkeypatch.setattr(forks._Own, "asked", forks._Own.asked)  # as it was, afterwards
        child = start_child(["number"])
        assert isinstance(child, forks.Fork)
        assert await trio.to_thread.run_sync(child.wait, 10.0) == 7
        assert child.wait() == 7
        os.kill(running(server).pid, signal.SIGKILL)
        wait_for("it is gone", lambda: not words_of(running(server).pid))
        for _ in range(2):
            program = start_child(["number"])
            assert isinstance(program, subprocess.Popen)
            assert program.wait(10) == 7


async def test_who_waits_for_a_fork_says_how_long(said: list[str]) -> None:
    async with serving(said) as server:
        process = await server.start(["stay"])
        assert isinstance(process, ForkedProcess)
        with pytest.raises(subprocess.TimeoutExpired):
            process._fork.wait(0.01)
        assert (await words_and_end(process))[1] == 0
