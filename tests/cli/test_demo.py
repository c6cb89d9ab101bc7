"""The demo as a user runs it: processes, TLS, a killed repeater; short, but nothing left out."""

import json
import subprocess
import sys

import msgspec
import pytest

from qstack.cli.demo.play import choose_cast
from qstack.cli.demo.result import ChannelLine, Pairs, Qkd, Teleport, checks, key_checks
from qstack.runtime.network_file import load_packaged_network


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qstack", "demo", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="module")
def finished() -> subprocess.CompletedProcess[str]:
    return demo("--pairs", "24", "--teleports", "12", "--seed", "3")


def test_it_holds_and_keeps_its_contract(finished):
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result["processes"] == 7
    assert result["clock"] == "lockstep"
    assert result["seed"] == 3
    assert result["network_s"] > 0
    assert result["rounds"] > 0
    assert set(result["projected"]) == {
        "ion-projected.t2_s",
        "ion-projected.visibility",
        "ion-projected.gate_2q_depolarising",
    }
    assert "ion-projected.t_emit_ns" in result["assumed"]
    assert result["elapsed_s"] > 0
    assert result["failed"] == []


def test_every_channel_is_post_quantum(finished):
    channels = json.loads(finished.stdout)["channels"]
    assert {(c["group"], c["tls"]) for c in channels} == {("X25519MLKEM768", "TLSv1.3")}
    peers = {c["peer"] for c in channels}
    assert {"qstack://metro/r1/node", "qstack://metro/fabric/fabric"} <= peers
    assert len(channels) == 12  # four links seen from both ends, and four channels to the fabric


def test_pairs_and_teleports_are_reported(finished):
    result = json.loads(finished.stdout)
    pairs, teleport = result["pairs"], result["teleport"]
    assert pairs["delivered"] == 24
    assert pairs["fidelity_low"] <= pairs["fidelity"] <= pairs["fidelity_high"]
    assert 0.7 < pairs["fidelity_truth"] < 0.9
    assert 0 < pairs["predicted_se"] < 0.002
    assert teleport["count"] == 12
    assert teleport["classical_bound"] == pytest.approx(2 / 3)
    assert teleport["classical_bound"] < teleport["predicted"] < teleport["ideal"]


def test_a_key_is_made_and_used(finished):
    key = json.loads(finished.stdout)["qkd"]
    assert key["keys_equal"]
    assert key["message_read"]
    assert key["sifted_bits"] >= 20_000
    assert key["n"] + key["k"] <= key["sifted_bits"]
    assert 0 < key["key_bits"] < key["n"] - key["leak_bits"]
    assert key["efficiency"] >= 1
    assert 0.01 < key["qber_predicted"] < 0.02
    assert (key["eps_sec"], key["eps_cor"]) == (1e-10, 1e-15)
    assert (key["origin"], key["note"]) == ("emulated", "reproducible, not secret")
    assert "key" in finished.stderr


def test_the_repeater_comes_back(finished):
    recovery = json.loads(finished.stdout)["recovery"]
    assert recovery["killed"] == "r1"
    assert recovery["recovered_network_s"] > 0.9  # it is back after one second
    assert recovery["recovered_s"] > 0


def test_what_a_person_sees_names_what_happened(finished):
    text = finished.stderr
    for words in ("projected", "X25519MLKEM768", "SIGKILL of r1", "the asker was told", "held"):
        assert words in text


def test_an_unknown_network_file_is_an_error_with_its_name():
    done = demo("--network", "no-such-file.toml")
    assert done.returncode == 1
    assert "no-such-file.toml" in done.stderr
    assert "Traceback" not in done.stderr


def pairs_result(**changes: float) -> Pairs:
    values: dict[str, float] = {
        "delivered": 200, "discarded": 0, "fidelity": 0.80, "fidelity_low": 0.7,
        "fidelity_high": 0.9, "fidelity_se": 0.03, "sampling_se": 0.03,
        "fidelity_truth": 0.81, "truth_se": 0.002,
        "fidelity_predicted": 0.81, "predicted_se": 0.001, "network_s": 1, "wall_s": 1,
        "rate_hz": 1, "direct_hz": 1,
    }  # fmt: skip
    return Pairs(**{**values, **changes})


def teleport_result(**changes: float) -> Teleport:
    values: dict[str, float] = {
        "count": 300, "fidelity": 0.84, "fidelity_se": 0.02, "predicted": 0.84,
        "predicted_se": 0.001, "ideal": 0.88, "classical_bound": 2 / 3, "network_s": 1,
        "wall_s": 1,
    }  # fmt: skip
    return Teleport(**{**values, **changes})


GOOD = ChannelLine("qstack://n/a/node", "X25519MLKEM768", "TLSv1.3", "b")


def test_the_checks_pass_what_agrees():
    assert checks(pairs_result(), 200, teleport_result(), [GOOD]) == []


@pytest.mark.parametrize(
    ("pairs", "teleport", "channel", "words"),
    [
        ({"fidelity_truth": 0.83}, {}, GOOD, "predicted"),
        ({"fidelity": 0.6}, {}, GOOD, "not the true one"),
        ({"delivered": 199}, {}, GOOD, "199 of 200"),
        ({}, {"fidelity": 0.7}, GOOD, "teleportation"),
        ({}, {}, ChannelLine("p", "x25519", "TLSv1.3", "b"), "X25519MLKEM768"),
    ],
)
def test_each_check_can_fail(pairs, teleport, channel, words):
    failed = checks(pairs_result(**pairs), 200, teleport_result(**teleport), [channel])
    assert len(failed) == 1
    assert words in failed[0]


GOOD_KEY = Qkd(
    pairs=60_000, sifted_bits=34_800, n=28_665, k=4_979, qber_z=0.0168, qber_x=0.0187,
    qber_predicted=0.0173, leak_bits=3_855, efficiency=1.09, key_bits=10_522, bound="a bound",
    eps_sec=1e-10, eps_cor=1e-15, keys_equal=True, message_read=True, origin="emulated", note="",
    network_s=0.5, wall_s=1.0,
)  # fmt: skip


def test_the_checks_of_a_key_pass_what_agrees_and_a_network_that_makes_none():
    assert key_checks(GOOD_KEY) == []
    assert key_checks(None) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keys_equal": False}, "different keys"),
        ({"message_read": False}, "was not read"),
        ({"qber_z": 0.03}, "error rate in Z"),
        ({"qber_x": 0.03}, "error rate in X"),
    ],
)
def test_each_check_of_a_key_can_fail(change, words):
    (failed,) = key_checks(msgspec.structs.replace(GOOD_KEY, **change))
    assert words in failed


def test_the_cast_is_the_two_farthest_nodes_and_the_first_between():
    cast = choose_cast(load_packaged_network("metro"))
    assert (cast.head, cast.victim, cast.tail) == ("alice", "r1", "bob")
    assert choose_cast(load_packaged_network("pair")).victim is None
