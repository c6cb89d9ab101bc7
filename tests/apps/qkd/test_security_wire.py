"""Security tests 2 to 4 of a key distribution: what somebody on the wire can do.

2 man in the middle | 3 messages changed, lost, repeated, reordered, replayed | 4 tags, the last
message, the death of an end. Each must end closed: no key, pads burnt, a reason. The other seven
are in `test_security.py`. Tags have 128 bits: a false alarm would be a forgery.
"""

import msgspec
import numpy as np
import pytest

from qstack.apps.qkd import messages
from qstack.apps.qkd.alice import Alice
from qstack.apps.qkd.secret import FLOOR_ATTEMPTS
from tests.apps.qkd.attacks import KINDS, assert_no_key, once, tiny
from tests.apps.qkd.world import (
    OTHER,
    SMALL,
    World,
    message_in,
    resealed,
    secrets_of,
)


def test_every_kind_of_message_is_in_the_run_that_is_tampered_with():
    run = tiny().run()
    assert set(run.names()) == set(KINDS)
    assert {name for _, name in KINDS} | {"Abort"} == {k.__name__ for k in messages.MESSAGES}


# --- 2 man in the middle ------------------------------------------------------------------------


def test_another_pre_shared_secret_is_refused_at_the_first_message():
    ends = {"alice": secrets_of()["alice"], "bob": secrets_of(pool_seed=2)["bob"]}
    run = World(secrets=ends).run()
    assert_no_key(run)
    assert run.reasons() == {"alice": "AUTHENTICATION", "bob": "AUTHENTICATION"}
    assert {name for _, name in run.names()} <= {"Hello", "Abort"}


@pytest.mark.parametrize("field", ["here", "peer"])
def test_a_swapped_identity_is_refused_before_anything_is_measured(field):
    ends = secrets_of()
    setattr(ends["bob"], field, "utrecht")
    run = World(secrets=ends).run()
    assert_no_key(run, "AUTHENTICATION")
    assert {name for _, name in run.names()} <= {"Hello", "Abort"}


def test_another_network_or_the_same_role_at_both_ends_is_refused():
    ends = secrets_of()
    ends["bob"].network = "other"
    assert_no_key(World(secrets=ends).run(), "IDENTITY")
    run = World()
    run.ends["bob"] = Alice(
        parameters=SMALL, secret=run.secrets["bob"], generator=np.random.default_rng(5)
    )
    assert_no_key(run.run(), "IDENTITY")


@pytest.mark.parametrize("sender", ["alice", "bob"])
def test_a_downgraded_suite_is_refused_even_by_who_knows_the_session_key(sender):
    key = secrets_of()["alice"].session_key

    def weaken(data):
        hello = message_in(data)
        weak = msgspec.structs.replace(hello.parameters, suite="bbm92 1")
        changed = msgspec.structs.replace(hello, parameters=weak)
        return [(OTHER[sender], resealed(data, changed, sender, key))]

    run = tiny(tamper=once(sender, "Hello", weaken)).run()
    assert_no_key(run, "PARAMETERS")
    assert run.aborts[OTHER[sender]].detail == "suite"


def test_different_parameters_end_the_run_with_the_field_named():
    other = msgspec.structs.replace(SMALL, bias_tolerated=0.01)
    run = World(parameters={"alice": SMALL, "bob": other}).run()
    assert_no_key(run, "PARAMETERS")
    assert "bias_tolerated" in {abort.detail for abort in run.aborts.values()}
    assert all(secret.next_attempt == 0 for secret in run.secrets.values())


@pytest.mark.parametrize(("sender", "name"), KINDS)
def test_a_reflected_message_is_refused(sender, name):
    run = tiny(tamper=once(sender, name, lambda data: [(sender, data)])).run()
    assert_bob_has_none(run, sender, name)


# --- 3 changed, lost, repeated, reordered, replayed ---------------------------------------------


def assert_bob_has_none(run: World, sender: str, name: str) -> None:
    """No key, but alice's own where only her last message was lost; the pads are burnt."""
    is_last = (sender, name) == ("alice", "Confirm")
    assert set(run.keys) == ({"alice"} if is_last else set())
    assert "bob" in run.aborts
    if name != "Hello":
        assert {secret.next_attempt for secret in run.secrets.values()} == {1}


@pytest.mark.parametrize(("sender", "name"), KINDS)
def test_one_changed_bit_in_any_message_ends_the_run(sender, name):
    rng = np.random.default_rng(len(name))

    def flip(data):
        wrong = bytearray(data)
        wrong[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        return [(OTHER[sender], bytes(wrong))]

    run = tiny(tamper=once(sender, name, flip)).run()
    assert_bob_has_none(run, sender, name)
    assert run.aborts[OTHER[sender]].reason.name == "AUTHENTICATION" or sender == "bob"


@pytest.mark.parametrize(("sender", "name"), KINDS)
def test_one_lost_message_ends_the_run(sender, name):
    run = tiny(tamper=once(sender, name, lambda _data: [])).run()
    assert_bob_has_none(run, sender, name)


@pytest.mark.parametrize(("sender", "name"), KINDS)
def test_one_repeated_message_ends_the_run(sender, name):
    twice = once(sender, name, lambda data: [(OTHER[sender], data)] * 2)
    run = tiny(tamper=twice).run()
    if name == "Confirm":  # it was the last one its receiver waited for: both have the key
        assert run.keys["alice"].secret == run.keys["bob"].secret
    elif name == "Release":  # bob had confirmed already
        assert set(run.keys) == {"alice"}
        assert run.reasons() == {"bob": "OUT_OF_ORDER"}
    else:
        assert_no_key(run, "OUT_OF_ORDER")


@pytest.mark.parametrize(("sender", "name"), KINDS)
def test_a_message_that_comes_after_the_next_one_ends_the_run(sender, name):
    kept = []

    def tamper(role, kind, number, data):
        if (role, kind, number) == (sender, name, 0):
            kept.append(data)
            return []
        if role == sender and kept:
            return [(OTHER[role], data), (OTHER[role], kept.pop())]
        return [(OTHER[role], data)]

    assert_bob_has_none(tiny(tamper=tamper).run(), sender, name)


@pytest.mark.parametrize(("sender", "name"), KINDS)
def test_a_message_of_an_earlier_run_ends_the_run(sender, name):
    kept = []
    ends = secrets_of()

    def record(role, kind, number, data):
        if (role, kind, number) == (sender, name, 0):
            kept.append(data)
        return [(OTHER[role], data)]

    tiny(secrets=ends, tamper=record).run()
    replay = once(sender, name, lambda _data: [(OTHER[sender], kept[0])])
    run = tiny(secrets=ends, tamper=replay).run()
    is_last = (sender, name) == ("alice", "Confirm")
    assert set(run.keys) == ({"alice"} if is_last else set())
    # With equal seeds an old Hello differs in its attempt alone: the tags see that.
    reason = "TRANSCRIPT" if name == "Hello" else "WRONG_SESSION"
    assert reason in run.reasons().values()
    assert {secret.next_attempt for secret in ends.values()} == {2}


def changed_bits(packed: bytes) -> bytes:
    return bytes([packed[0] ^ 0x80]) + packed[1:]


FORGERIES = {
    "Hello": lambda m: {"nonce": changed_bits(m.nonce)},
    "PairsMeasured": lambda m: {"pairs": m.pairs - 1},
    "Bases": lambda m: {"bits": changed_bits(m.bits)},
    "XOutcomes": lambda m: {"bits": changed_bits(m.bits)},
    "Reconcile": lambda m: {"seed": changed_bits(m.seed)},
    "BlocksQuery": lambda m: {"level": m.level + 1},
    "NodesQuery": lambda m: {"nodes": m.nodes[:-1] + bytes([m.nodes[-1] ^ 1])},
    "Parities": lambda m: {"bits": changed_bits(m.bits)},
    "Verify": lambda m: {"hash": changed_bits(m.hash)},
    "Verified": lambda m: {"z_errors": m.z_errors + 1},
    "TranscriptTag": lambda m: {"tag": changed_bits(m.tag)},
    "Seed": lambda m: {"bits": changed_bits(m.bits)},
    "Release": lambda m: {"key_bits": m.key_bits - 1},
    "Confirm": lambda m: {"tag": changed_bits(m.tag)},
}


@pytest.mark.parametrize(("sender", "name"), [kind for kind in KINDS if kind[1] in FORGERIES])
def test_what_passes_the_message_code_is_stopped_by_the_tags(sender, name):
    """The computational code broken: the one-time tags alone keep the ends from a key."""
    key = secrets_of()["alice"].session_key

    def forge(data):
        message = message_in(data)
        changed = msgspec.structs.replace(message, **FORGERIES[name](message))
        return [(OTHER[sender], resealed(data, changed, sender, key))]

    run = tiny(tamper=once(sender, name, forge)).run()
    assert_bob_has_none(run, sender, name)
    assert "INTERNAL" not in run.reasons().values()


def test_a_retry_after_a_failed_run_takes_other_pads_and_gives_a_key():
    ends = secrets_of()
    for attempt in range(3):
        run = tiny(secrets=ends, tamper=once("bob", "Verified", lambda _data: [])).run()
        assert not run.keys
        assert {secret.next_attempt for secret in ends.values()} == {attempt + 1}
    run = tiny(secrets=ends).run()
    assert run.keys["alice"].metadata.attempt == 3
    assert ends["alice"].log == [(number, number) for number in range(4)]


def test_a_used_up_secret_ends_the_run_before_anything_is_measured():
    left = 64 - FLOOR_ATTEMPTS
    run = World(secrets=secrets_of(used=(left, 0))).run()
    assert_no_key(run, "SECRET")
    assert any("make a new one" in abort.detail for abort in run.aborts.values())
    assert not run.needs


# --- 4 tags and the last message ----------------------------------------------------------------


@pytest.mark.parametrize("sender", ["alice", "bob"])
def test_without_a_tag_of_the_transcript_nobody_has_a_key(sender):
    run = tiny(tamper=once(sender, "TranscriptTag", lambda _data: [])).run()
    assert_no_key(run)
    if sender == "bob":
        assert ("alice", "Seed") not in run.names()


@pytest.mark.parametrize("sender", ["alice", "bob"])
def test_the_tag_of_another_block_is_refused(sender):
    ends = secrets_of()
    earlier = tiny(secrets=ends).run()
    tag = next(m for s, m in earlier.sent if (s, type(m).__name__) == (sender, "TranscriptTag"))
    key = ends["alice"].session_key
    put = once(sender, "TranscriptTag", lambda d: [(OTHER[sender], resealed(d, tag, sender, key))])
    assert_no_key(tiny(secrets=ends, tamper=put).run(), "TRANSCRIPT")


def test_a_tag_sent_back_as_ones_own_is_refused():
    """Directions have their own hash keys and pads."""
    key = secrets_of()["alice"].session_key
    tags = []

    def tamper(role, kind, _number, data):
        if kind == "TranscriptTag" and role == "bob":
            tags.append(message_in(data))
        if kind == "TranscriptTag" and role == "alice":
            return [("bob", resealed(data, tags[0], "alice", key))]
        return [(OTHER[role], data)]

    assert_no_key(tiny(tamper=tamper).run(), "TRANSCRIPT")


def test_if_the_last_message_is_lost_alice_alone_has_a_key_and_bob_knows_he_has_none():
    run = tiny(tamper=once("alice", "Confirm", lambda _data: [])).run()
    assert set(run.keys) == {"alice"}
    assert run.reasons() == {"bob": "TIMEOUT"}
    lost = tiny(tamper=once("bob", "Confirm", lambda _data: [])).run()
    assert_no_key(lost, "TIMEOUT")


DEATHS = sorted({(role, p.phase) for role, p in tiny().run().progress})


@pytest.mark.parametrize(("role", "phase"), DEATHS)
def test_an_end_that_dies_in_any_phase_leaves_the_other_without_a_key(role, phase):
    run = tiny(kill_at=(role, phase)).run()
    # Bob dead after he confirmed: alice cannot know. Nobody shares her key with her.
    is_confirmed = (role, phase) in {("bob", "confirming"), ("bob", "done")}
    assert set(run.keys) == ({"alice"} if is_confirmed else set())
    if not is_confirmed:
        assert run.aborts[OTHER[role]].reason.name in {"TIMEOUT", "PEER_ABORTED"}
