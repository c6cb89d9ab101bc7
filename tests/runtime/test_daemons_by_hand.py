"""A network without `qstack up`: an operator's authority, and each process started by hand."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
from rich.console import Console

from qstack.cli.status_table import status_table
from tests.runtime.programs import deliver
from tests.runtime.running import (
    RunningNetwork,
    command,
    environment,
    is_quiet,
    packaged,
    run_folder,
)


def qstack(runs: Path, *arguments: str, said: str | None = None) -> str:
    """The output of a command that must do what it is asked."""
    done = subprocess.run(
        command(*arguments),
        env=environment(runs),
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_network(folder: Path) -> Path:
    """The packaged pair with ports that are free now."""
    with ExitStack() as open_ports:

        def free(match: re.Match[str]) -> str:
            probe = open_ports.enter_context(socket.create_server(("127.0.0.1", 0)))
            return f"127.0.0.1:{probe.getsockname()[1]}"

        text = re.sub(r"127\.0\.0\.1:0", free, packaged("pair").read_text())
    path = folder / "pair.toml"
    path.write_text(text)
    return path


def enrol(runs: Path, node: str, role: str) -> Path:
    """What operator and host do for one process; the folder of its credentials."""
    folder = runs / "hosts" / node
    who = ("--network", "pair", "--node", node, "--role", role)
    asked = qstack(runs, "ca", "request", str(folder), *who)
    issued = qstack(runs, "ca", "issue", str(runs / "ca"), "-", *who, said=asked)
    (folder / f"{node}.{role}.pem").write_text(issued)
    (folder / "root.pem").write_bytes((runs / "ca" / "root.pem").read_bytes())
    return folder


@contextmanager
def daemon(runs: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*arguments), env=environment(runs), stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
        assert process.returncode == 0, said
        assert "Traceback" not in said


@pytest.fixture(scope="module")
def by_hand() -> Iterator[RunningNetwork]:
    with run_folder() as runs, ExitStack() as processes:
        source = str(write_network(runs))
        (runs / "hosts").mkdir(mode=0o700)
        qstack(runs, "ca", "init", str(runs / "ca"), "--network", "pair")
        fabric = enrol(runs, "fabric", "fabric")
        options = ("--credentials", str(fabric))
        first = processes.enter_context(daemon(runs, "fabric", "run", source, *options))
        for name in ("alice", "bob"):
            options = ("--name", name, "--credentials", str(enrol(runs, name, "node")))
            processes.enter_context(daemon(runs, "node", "run", source, *options))
        running = RunningNetwork(first, runs, "pair")

        async def wait() -> None:
            await running.fact("it is up", lambda r: len(r["nodes"]) == 2 and is_quiet(r))

        trio.run(wait)
        yield running
    assert not list(Path(runs).glob("*"))


async def test_a_network_started_by_hand_makes_pairs(by_hand: RunningNetwork) -> None:
    await deliver(by_hand)


def test_status_has_keys_for_scripts(by_hand: RunningNetwork) -> None:
    (report,) = json.loads(qstack(by_hand.runs, "status", "--json"))["networks"]
    assert report["network"] == "pair"
    assert report["fabric"]["clock"]["kind"] == "lockstep"
    assert sorted(report["nodes"]) == ["alice", "bob"]
    alice = report["nodes"]["alice"]
    assert alice["clock"].keys() >= {"kind", "now_ns", "escapes", "is_reproducible"}
    assert [
        (channel["node"], channel["peer"], channel["group"], channel["tls"])
        for channel in alice["channels"]
    ] == [
        ("bob", "qstack://pair/bob/node", "X25519MLKEM768", "TLSv1.3"),
        ("fabric", "qstack://pair/fabric/fabric", "X25519MLKEM768", "TLSv1.3"),
    ]
    layers = alice["layers"]
    assert layers["physical"] == {
        "is_ready": True,
        "health": "ready",
        "health_detail": "",
        "qubits": 0,
        "qubits_by_owner": {},
    }
    assert layers["link"].keys() == {"links_up", "open_requests", "estimates"}
    assert (layers["link"]["links_up"], layers["link"]["open_requests"]) == (["bob"], 0)
    assert layers["network"]["known_nodes"] == ["alice", "bob"]
    assert layers["transport"].keys() == {"sockets", "flows", "streams"}
    assert layers["session"] == {"asleep": 0}
    assert "key" not in json.dumps(report).replace("key_", "").lower()


def test_the_table_names_nodes_links_and_the_protection_of_channels(
    by_hand: RunningNetwork,
) -> None:
    said = qstack(by_hand.runs, "status")
    for word in ("alice", "bob", "TLSv1.3", "X25519MLKEM768", "network time"):
        assert word in said


async def test_the_table_of_a_network_whose_fabric_and_node_have_gone_says_so(
    by_hand: RunningNetwork,
) -> None:
    report = await by_hand.report()
    report["fabric"] = None
    report["nodes"]["bob"] = None
    console = Console(width=120)
    with console.capture() as captured:
        console.print(status_table(report))
    assert "fabric: gone" in captured.get()
    assert "no answer" in captured.get()


def test_the_clock_is_held_and_released_by_command(by_hand: RunningNetwork) -> None:
    assert "network time stands at" in qstack(by_hand.runs, "fabric", "hold")
    assert "held at" in qstack(by_hand.runs, "status")
    assert "network time goes on" in qstack(by_hand.runs, "fabric", "release")
