"""What one does every day with a network that is up: ping, the examples, status."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.running import RunningNetwork, command, environment, packaged, run_folder, start

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def network() -> Iterator[RunningNetwork]:
    with run_folder() as runs:
        running = start(runs, packaged("metro"), "metro", "--seed", "5")
        try:
            yield running
        finally:
            assert running.stop() == 0


def qstack(network: RunningNetwork, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(network.runs),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_ping_shows_each_pair_then_rate_and_fidelity(network):
    done = qstack(network, "ping", "bob", "--from", "alice", "-c", "6", "--spam-corrected")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    pattern = (
        r"pair \d+: network [\d.]+ ms, wall [\d.]+ ms, bell x=[01] z=[01],"
        r" [XYZ]: [01]/[01] (agree|DISAGREE)"
    )
    assert [bool(re.fullmatch(pattern, line)) for line in lines[1:7]] == [True] * 6
    assert "pairs/s of network time" in lines[7]
    assert re.fullmatch(r"fidelity [\d.]+, 95 % in \[[\d.]+, [\d.]+\] \(raw\)", lines[8])
    assert "readout errors taken out" in lines[9]
    assert sum("confusion matrix" in line for line in lines) == 2


def test_ping_reaches_a_neighbour_and_says_what_few_pairs_cannot_tell(network):
    done = qstack(network, "ping", "r1", "--from", "alice", "-c", "2")
    assert done.returncode == 0
    assert "needs a pair in each of X, Y and Z" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody", "--from", "alice"), "UNKNOWN_NODE"),
        (("bob", "--from", "alice", "--min-fidelity", "0.99"), "best to be had: 0."),
        (("alice", "--from", "alice"), "the remote is this node"),
        (("bob", "--from", "carol"), "no node 'carol'"),
        (("bob", "--from", "alice", "--deadline", "0"), "deadline"),
    ],
)
def test_ping_says_why_it_cannot(network, arguments, words):
    done = qstack(network, "ping", *arguments, "-c", "1")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_ping_refuses_senseless_counts(network):
    done = qstack(network, "ping", "bob", "-c", "0")
    assert done.returncode == 2
    assert "1<=x" in done.stderr


@pytest.mark.parametrize(
    ("alice", "bob"),
    [
        ("first_pair_alice.py", "first_pair_bob.py"),
        ("first_pair_alice_sync.py", "first_pair_bob_sync.py"),
        ("prepare_alice.py", "prepare_bob.py"),
    ],
)
def test_the_examples_meet_however_late_one_of_them_comes(network, alice, bob):
    programs = []
    for name in (bob, alice):
        programs.append(
            subprocess.Popen(
                [sys.executable, str(EXAMPLES / name)],
                env=environment(network.runs),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        time.sleep(0.5)  # started by hand, the second one comes later, too
    for program in programs:
        out, errors = program.communicate(timeout=30)
        assert program.returncode == 0, errors
        assert "measured" in out


def test_status_shows_channels_layers_and_clock(network):
    done = qstack(network, "status", "--json")
    assert done.returncode == 0
    (report,) = json.loads(done.stdout)["networks"]
    assert report["fabric"]["clock"]["kind"] == "lockstep"
    groups = {c["group"] for node in report["nodes"].values() for c in node["channels"]}
    assert groups == {"X25519MLKEM768"}
    text = qstack(network, "status").stdout
    for words in ("alice", "network time", "qstack://metro/r1/node", "TLSv1.3"):
        assert words in text


def test_the_readme_shows_the_application_that_the_examples_run():
    """The calls of the README's program are those of the examples, in the same order."""
    code = (ROOT / "README.md").read_text().split("```python")[1].split("```")[0]
    compile(code, "README.md", "exec")
    calls = ["open_node", "epr_socket", "create_keep", "measure", "qubit_socket", "ry", "send"]
    example = (EXAMPLES / "first_pair_alice.py").read_text()
    for text in (code, example):
        places = [text.index(f".{call}(") for call in calls[:6]]
        assert places == sorted(places)
