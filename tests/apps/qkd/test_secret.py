"""The pre-shared secret: used once, whatever crashes; kept to its owner."""

import multiprocessing
import os
import stat

import pytest

from qstack.apps.qkd import secret_file
from qstack.apps.qkd.secret import (
    ATTEMPT_BYTES,
    FLOOR_ATTEMPTS,
    GENERATION_ATTEMPTS,
    Header,
    Pads,
    Secret,
    SecretError,
    Slot,
    attempts_in,
    pads_at,
    pool_bytes,
)
from qstack.apps.qkd.secret_file import SecretFile
from qstack.channel.preshared import LENGTH, create_preshared
from tests.apps.qkd.world import secrets_of

NAMES = {"network": "test", "here": "delft", "peer": "leiden"}
SWAPPED = {"network": "test", "here": "leiden", "peer": "delft"}


@pytest.fixture
def paths(tmp_path):
    return create_preshared(tmp_path, "test", "delft", "leiden", length=pool_bytes(300))


# --- the pool -----------------------------------------------------------------------------------


def test_both_ends_take_the_same_pads_and_keys_for_an_attempt():
    ends = secrets_of()
    alice, bob = (ends[role].take(3) for role in ("alice", "bob"))
    for sender in ("delft", "leiden"):
        assert alice.hash_key(sender) == bob.hash_key(sender)
    assert alice.hash_key("delft") != alice.hash_key("leiden")
    taken = [(alice.take(slot), bob.take(slot)) for slot in Slot]
    assert all(here == there for here, there in taken)
    assert len({here for here, _ in taken}) == len(Slot)


def test_no_pad_is_given_twice():
    ends = secrets_of(attempts=2 * GENERATION_ATTEMPTS)
    alice = ends["alice"]
    seen = set()
    for attempt in range(2 * GENERATION_ATTEMPTS - FLOOR_ATTEMPTS):
        pads = alice.take(attempt)
        for slot in Slot:
            pad = pads.take(slot)
            assert pad not in seen
            seen.add(pad)
            with pytest.raises(SecretError):
                pads.take(slot)
        with pytest.raises(SecretError, match="used before"):
            alice.take(attempt)


def test_hash_keys_are_renewed_with_each_generation():
    alice = secrets_of(attempts=2 * GENERATION_ATTEMPTS)["alice"]
    keys = [alice.take(attempt).hash_key("delft") for attempt in (0, 255, GENERATION_ATTEMPTS, 300)]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_skipped_attempts_are_lost():
    alice = secrets_of()["alice"]
    alice.take(5)
    assert alice.next_attempt == 6
    with pytest.raises(SecretError):
        alice.take(4)
    assert alice.log == [(0, 5)]


def test_the_last_attempts_are_kept_back_and_the_error_says_what_to_do():
    alice = secrets_of(attempts=20)["alice"]
    assert alice.attempts_left == 20 - FLOOR_ATTEMPTS
    alice.take(20 - FLOOR_ATTEMPTS - 1)
    assert alice.attempts_left == 0
    for attempt in (20 - FLOOR_ATTEMPTS, 20, 2**40):
        with pytest.raises(SecretError, match="make a new one"):
            alice.take(attempt)


def test_nothing_is_handed_out_if_it_cannot_be_written_down():
    def broken(_first, _last):
        raise OSError(28, "No space left on device")

    header = Header(**NAMES, attempts=20)
    alice = Secret(header, os.urandom(pool_bytes(20)), used=0, journal=broken)
    with pytest.raises(SecretError, match="No space left"):
        alice.take(0)
    assert alice.next_attempt == 0


@pytest.mark.parametrize(("size", "used"), [(10, 0), (pool_bytes(20), 21), (pool_bytes(20), -1)])
def test_a_damaged_pool_is_refused(size, used):
    with pytest.raises(SecretError, match="damaged"):
        Secret(Header(**NAMES, attempts=20), bytes(size), used=used, journal=lambda *_: None)


def test_burnt_pads_are_gone_and_nothing_shows_them():
    secret = secrets_of()["alice"]
    pads = secret.take(0)
    for thing in (pads, secret):
        assert "0x" in repr(thing)  # no more than what it is and where
    pads.burn()
    with pytest.raises(SecretError):
        pads.take(Slot.BOB_CONFIRMS)
    assert isinstance(pads, Pads)


# --- the file -----------------------------------------------------------------------------------


def test_the_two_files_are_private_and_fit(paths):
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with SecretFile(paths[0], **NAMES) as alice, SecretFile(paths[1], **SWAPPED) as bob:
        assert alice.secret.session_key == bob.secret.session_key
        pads = alice.secret.take(0), bob.secret.take(0)
        assert pads[0].take(Slot.BOB_TRANSCRIPT) == pads[1].take(Slot.BOB_TRANSCRIPT)


def test_what_was_taken_stays_taken_after_a_restart_and_is_erased(paths):
    before = paths[0].read_bytes()
    with SecretFile(paths[0], **NAMES) as file:
        file.secret.take(2)
    after = paths[0].read_bytes()
    header = before.index(b"\n") + 1
    for attempt in (0, 1, 2):
        start = header + pads_at(attempt)
        assert after[start : start + ATTEMPT_BYTES] == bytes(ATTEMPT_BYTES)
    assert after[header + pads_at(3) : len(before)] == before[header + pads_at(3) :]
    with SecretFile(paths[0], **NAMES) as file:
        assert file.secret.next_attempt == 3
        with pytest.raises(SecretError):
            file.secret.take(2)


def test_the_journal_is_on_the_disk_before_a_pad_is_used(paths, monkeypatch):
    class Crash(BaseException):
        pass

    def crash(_descriptor):
        raise Crash

    # Killed while the journal is flushed: the pads were not handed out, and are lost.
    monkeypatch.setattr(secret_file.os, "fsync", crash)
    with SecretFile(paths[0], **NAMES) as file, pytest.raises(Crash):
        file.secret.take(0)
    monkeypatch.undo()
    with SecretFile(paths[0], **NAMES) as file:
        assert file.secret.next_attempt == 1


def test_a_record_cut_short_is_taken_away(paths):
    with SecretFile(paths[0], **NAMES) as file:
        file.secret.take(4)
    with paths[0].open("ab") as raw:
        raw.write(b"\0\0\0")
    with SecretFile(paths[0], **NAMES) as file:
        assert file.secret.next_attempt == 5
        file.secret.take(5)
    with SecretFile(paths[0], **NAMES) as file:
        assert file.secret.next_attempt == 6


def test_a_journal_set_back_is_noticed(paths):
    fresh = paths[0].stat().st_size
    with SecretFile(paths[0], **NAMES) as file:
        file.secret.take(0)
    os.truncate(paths[0], fresh)
    with SecretFile(paths[0], **NAMES) as file, pytest.raises(SecretError, match="set back"):
        file.secret.take(0)


def test_a_file_open_to_others_is_refused(paths):
    paths[0].chmod(0o640)
    with pytest.raises(SecretError, match="open to others"):
        SecretFile(paths[0], **NAMES)


def test_a_file_of_somebody_else_is_refused(paths):
    for names in (SWAPPED, {**NAMES, "network": "other"}, {**NAMES, "peer": "utrecht"}):
        with pytest.raises(SecretError, match="is the secret of delft with leiden"):
            SecretFile(paths[0], **names)


def test_a_missing_cut_or_foreign_file_is_refused(paths, tmp_path):
    with pytest.raises(SecretError, match="cannot open"):
        SecretFile(tmp_path / "missing", **NAMES)
    os.truncate(paths[0], 5000)
    with pytest.raises(SecretError, match="cut short"):
        SecretFile(paths[0], **NAMES)
    paths[1].write_bytes(b"something else")
    with pytest.raises(SecretError, match="not a pre-shared secret"):
        SecretFile(paths[1], **SWAPPED)


def test_a_link_is_not_followed(paths, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(paths[0])
    with pytest.raises(SecretError, match="cannot open"):
        SecretFile(link, **NAMES)


def test_a_secret_too_short_for_a_single_generation_is_refused(tmp_path):
    (path, _) = create_preshared(tmp_path, "test", "delft", "leiden", length=1000)
    with pytest.raises(SecretError, match="not a pre-shared secret"):
        SecretFile(path, **NAMES)


def test_a_secret_as_it_is_made_serves_a_thousand_runs(tmp_path):
    (path, _) = create_preshared(tmp_path, "test", "delft", "leiden")
    with SecretFile(path, **NAMES) as file:
        assert file.secret.attempts_left == 1016
    assert pool_bytes(attempts_in(LENGTH)) == LENGTH


def _open_in_another_process(path, answers):
    try:
        SecretFile(path, **NAMES).close()
        answers.put("open")
    except SecretError as error:
        answers.put(str(error))


def test_one_process_uses_it_at_a_time(paths):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with SecretFile(paths[0], **NAMES), pytest.raises(SecretError, match="another process"):
        SecretFile(paths[0], **NAMES)
    with SecretFile(paths[0], **NAMES):
        process = context.Process(target=_open_in_another_process, args=(paths[0], answers))
        process.start()
        said = answers.get(timeout=30)
        process.join()
    answers.close()
    answers.join_thread()
    assert "another process" in said


def test_a_closed_file_gives_nothing(paths):
    file = SecretFile(paths[0], **NAMES)
    file.close()
    file.close()
    with pytest.raises(SecretError, match="closed"):
        file.secret.take(0)


def test_no_error_shows_a_byte_of_it(paths, tmp_path):
    content = paths[0].read_bytes()
    texts = []
    for change in (lambda p: p.chmod(0o644), lambda p: os.truncate(p, 4000)):
        path = tmp_path / "copy"
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
        change(path)
        with pytest.raises(SecretError) as caught:
            SecretFile(path, **NAMES)
        texts.append(str(caught.value) + repr(caught.value))
    pool = content[content.index(b"\n") + 1 :]
    assert all(pool[:4].hex() not in text and repr(pool[:4]) not in text for text in texts)
