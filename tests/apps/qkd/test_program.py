"""Key distribution over a network of real processes: a key at both ends, or a reason at both."""

import errno
import json
import multiprocessing
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from qstack.apps.qkd import key_file
from qstack.apps.qkd.events import Abort
from qstack.apps.qkd.parameters import planned
from qstack.apps.qkd.program import Outcome
from qstack.channel.preshared import create_preshared
from tests.apps.qkd import two_nodes
from tests.apps.qkd.two_nodes import OTHER, both, die_at, end, keys_in, metadata, reasons
from tests.runtime.running import RunningNetwork, command, environment

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.apps.qkd.two_nodes"])


@pytest.fixture(scope="module")
def network() -> Iterator[RunningNetwork]:
    with two_nodes.network() as running:
        yield running


def qkd_run(
    network: RunningNetwork, here: str, folder: Path, *options: str, limit: str = ""
) -> subprocess.Popen[str]:
    """`qstack qkd run` at a node; `limit` is a shell command before."""
    words = command("qkd", "run", "--with", OTHER[here], "--from", here, *options)
    return subprocess.Popen(
        ["sh", "-c", f'{limit or ":"}; exec "$@"', "sh", *words],
        env={**environment(network.runs), "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


# --- good runs ----------------------------------------------------------------------------------


def test_two_commands_make_the_same_key_in_private_files_and_say_why_it_is_so_long(
    network, tmp_path
):
    options = ("--bits", "300", "--error-rate", "0.04")
    processes = [
        qkd_run(network, "alice", tmp_path, *options, "--json"),
        qkd_run(network, "bob", tmp_path, *options, "--out", "b.key"),
    ]
    (alice, report, _), (bob, lines, progress) = map(ended, processes)
    assert (alice, bob) == (0, 0), lines + progress
    keys = keys_in(tmp_path)
    assert keys["alice-bob.key"] == keys["b.key"]
    assert all(stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600 for name in keys)
    told = json.loads(report)
    assert told["key_bits"] >= 300
    assert len(keys["b.key"]) == (told["key_bits"] + 7) // 8
    terms = told["length"]
    total = terms["secret"] - terms["leak"] - terms["tag"] - terms["hashing"]
    assert int(total) == told["key_bits"]
    phases = ["waiting for the peer", "measuring", "sifting", "correcting", "verifying",
              "amplifying", "done"]  # fmt: skip
    assert progress.splitlines()[1:] == phases
    assert told["predicted"] is None
    for words in ("up to 0.04: as given\n", "error rate in X 0.0", "error rate in Z 0.0",
                  "95 % in [", "f = 1.", "2 log2",
                  f"key bits {told['key_bits']}\n", "origin: emulated;", told["id"]):  # fmt: skip
        assert words in lines
    assert keys["b.key"][:4].hex() not in report + lines


def test_without_an_error_rate_the_network_layers_prediction_is_planned_for(network, tmp_path):
    processes = [
        qkd_run(network, "alice", tmp_path, "--bits", "200", "--json"),
        qkd_run(network, "bob", tmp_path, "--bits", "200", "--out", "b.key"),
    ]
    (alice, report, _), (bob, lines, progress) = map(ended, processes)
    assert (alice, bob) == (0, 0), lines + progress
    told = json.loads(report)
    assert told["planned_error_rate"] == 0.03
    assert told["predicted"]["path"] == ["alice", "bob"]
    assert told["predicted"]["error_x"] == told["predicted"]["error_z"]
    assert told["predicted"]["error_z"] == pytest.approx(0.0173, abs=2e-4)
    words = "predicted by the network layer: error rates 0.0173 in X and 0.0173 in Z over alice-bob"
    assert f"planned for error rates up to 0.03: {words}" in lines
    assert words in progress.splitlines()[0]


def test_fewer_bits_than_wanted_are_said(network, tmp_path):
    options = ("--bits", "9000", "--error-rate", "0")
    processes = [qkd_run(network, here, tmp_path, *options) for here in OTHER]
    for status, lines, err in map(ended, processes):
        assert status == 0, err
        assert "fewer than the 9000 wanted" in lines
    assert len(set(keys_in(tmp_path).values())) == 1


def test_a_secret_serves_run_after_run_and_each_is_debited(network, tmp_path):
    attempts = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcomes = both(network, folder)
        attempts.append(metadata(outcomes["alice"]).attempt)
        assert metadata(outcomes["bob"]).id == metadata(outcomes["alice"]).id
        assert len(set(keys_in(folder).values())) == 1
    assert attempts[1] == attempts[0] + 1


def test_a_key_of_nodes_with_a_seed_says_that_it_is_no_secret(tmp_path):
    with two_nodes.network("--seed", "9") as seeded:
        outcomes = both(seeded, tmp_path)
    assert {metadata(outcome).note for outcome in outcomes.values()} == {"reproducible, not secret"}


# --- what does not fit --------------------------------------------------------------------------


def test_a_wrong_secret_ends_both_with_the_reason_and_no_file(network, tmp_path):
    (wrong, _) = create_preshared(tmp_path, "metro", "alice", "bob")
    keys = tmp_path / "keys"
    keys.mkdir()
    outcomes = both(network, keys, alice={"secret": wrong})
    assert reasons(outcomes) == {"alice": "AUTHENTICATION", "bob": "AUTHENTICATION"}
    assert not keys_in(keys)


def test_the_secret_of_another_peer_is_refused(network, tmp_path):
    (other, _) = create_preshared(tmp_path, "metro", "alice", "carol")
    keys = tmp_path / "keys"
    keys.mkdir()
    process = qkd_run(network, "alice", keys, "--bits", "64", "--secret", str(other), "--json")
    status, report, _ = ended(process)
    assert status == 1
    assert json.loads(report)["reason"] == "SECRET"
    assert "is the secret of alice with carol" in json.loads(report)["detail"]
    assert not keys_in(keys)


def test_ends_that_want_different_lengths_have_no_key(network, tmp_path):
    outcomes = both(network, tmp_path, bob={"parameters": planned(30_000, 0.5)})
    assert set(reasons(outcomes).values()) <= {"PARAMETERS", "PEER_ABORTED"}
    assert len(reasons(outcomes)) == 2
    assert not keys_in(tmp_path)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--bits", "9999999"), 2, "ask for several keys"),
        (("--bits", "64", "--error-rate", "0.4"), 2, "at most 0.095"),
        (("--bits", "64", "--secret", "missing"), 1, "cannot open the pre-shared secret"),
        (("--bits", "64", "--out", "no/such/folder"), 1, "No such file or directory"),
        (("--bits", "64", "--wait", "0.1"), 1, "bob did not come within 0.1 s"),
    ],
)
def test_what_cannot_be_is_said_at_once(network, tmp_path, options, status, words):
    process = qkd_run(network, "alice", tmp_path, *options)
    code, _, err = ended(process)
    assert (code, words in err, "Traceback" in err) == (status, True, False), err
    assert not keys_in(tmp_path)


def test_a_node_the_network_does_not_have_is_said(network, tmp_path):
    words = command("qkd", "run", "--with", "carol", "--from", "alice", "--bits", "64")
    done = subprocess.run(words, env=environment(network.runs), capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "the pairs could not be measured: no route to carol" in done.stderr


def test_too_little_time_for_the_pairs_ends_both(network, tmp_path):
    outcomes = both(network, tmp_path, alice={"deadline_ns": 20_000_000})
    assert outcomes["alice"].text.startswith(
        "the deadline passed: after 0.02 s of network time 0 of"
    )
    assert reasons(outcomes) == {"alice": "TIMEOUT", "bob": "PEER_ABORTED"}
    assert not keys_in(tmp_path)


# --- the disk -----------------------------------------------------------------------------------


def test_a_disk_that_is_full_before_the_run_costs_nothing(network, tmp_path):
    process = qkd_run(network, "alice", tmp_path, "--bits", "64", limit="ulimit -f 4")
    status, _, err = ended(process)
    assert status == 1
    assert "the key could not be stored: cannot write" in err
    assert "File too large" in err
    assert not keys_in(tmp_path)


@pytest.mark.parametrize(("full", "reason"), [("alice", "PEER_GONE"), ("bob", None)])
def test_a_disk_that_fills_up_leaves_no_key_and_the_other_knows_its_key_by_name(
    network, tmp_path, monkeypatch, full, reason
):
    real = key_file._Part.fill

    def fill(part, content):
        if part._path.name == f"{full}.key":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(part, content)

    monkeypatch.setattr(key_file._Part, "fill", fill)
    outcomes = both(network, tmp_path)
    failed = outcomes[full]
    assert isinstance(failed, Abort)
    assert failed.reason.name == "STORAGE"
    assert "No space left on device" in failed.detail
    other = outcomes[OTHER[full]]
    if reason is None:  # alice was first: her key stays, and is nobody's
        assert metadata(other).id.hex() in failed.detail
        assert list(keys_in(tmp_path)) == ["alice.key"]
    else:
        assert isinstance(other, Abort)
        assert other.reason.name == reason
        assert "which is nobody's" in other.detail
        assert not keys_in(tmp_path)


# --- somebody leaves ----------------------------------------------------------------------------


@pytest.mark.parametrize("here", ["alice", "bob"])
def test_ctrl_c_tells_the_peer_and_leaves_nothing(network, tmp_path, here):
    stop = trio.Event()

    def on_progress(progress):
        if progress.phase == "measuring":
            stop.set()

    outcomes = both(network, tmp_path, **{here: {"stop": stop, "on_progress": on_progress}})
    assert reasons(outcomes) == {here: "INTERRUPTED", OTHER[here]: "PEER_ABORTED"}
    assert outcomes[OTHER[here]].detail == "INTERRUPTED"
    assert not keys_in(tmp_path)


def test_ctrl_c_while_the_peer_is_awaited_is_a_clean_end(network, tmp_path):
    process = qkd_run(network, "bob", tmp_path, "--bits", "64")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("bob with alice:")
    assert process.stderr.readline() == "waiting for the peer\n"
    process.send_signal(signal.SIGINT)
    status, _, err = ended(process)
    assert status == 1
    assert err == "qstack: no key: it was stopped\n"
    assert not list(tmp_path.iterdir())


ALICE = ["greeting", "measuring", "sifting", "testing", "reconciling", "verifying",
         "authenticating", "confirming", "done"]  # fmt: skip
BOB = ["greeting", "measuring", "sifting", "testing", "ready", "reconciling", "verifying",
       "authenticating", "amplifying", "releasing"]  # fmt: skip
DEATHS = [*(("alice", phase) for phase in ALICE), *(("bob", phase) for phase in BOB)]


def survive(network: RunningNetwork, folder: Path, victim: str, phase: str) -> Outcome:
    """What the other end comes to if this one is killed in a phase; it leaves no byte of a key."""
    folders = {here: folder / here for here in OTHER}
    for each in folders.values():
        each.mkdir()
    arguments = network.session(victim), victim, folders[victim], phase
    process = PROCESSES.Process(target=die_at, args=arguments)
    process.start()
    survivor = OTHER[victim]
    try:
        outcome = trio.run(end, network.session(survivor), survivor, folders[survivor])
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
    finally:
        process.kill()
        process.join()
        process.close()
    assert not list(folders[victim].iterdir())
    return outcome


@pytest.mark.parametrize(("victim", "phase"), DEATHS)
def test_a_peer_killed_in_any_phase_ends_the_run_with_the_reason(network, tmp_path, victim, phase):
    outcome = survive(network, tmp_path, victim, phase)
    assert isinstance(outcome, Abort)
    assert outcome.reason.name == "PEER_GONE"
    assert not keys_in(tmp_path / OTHER[victim])


def test_alice_keeps_a_key_that_is_nobodys_if_bob_is_killed_after_he_confirmed(network, tmp_path):
    outcome = survive(network, tmp_path, "bob", "confirming")
    assert metadata(outcome).role == "alice"
    assert list(keys_in(tmp_path / "alice")) == ["alice.key"]
