"""Messages fit the stream, keep to their bounds and are never taken for others; sealing."""

import numpy as np
import pytest

from qstack.apps.qkd import messages
from qstack.apps.qkd.conversation import BYTES_MAX, Conversation, session_of
from qstack.apps.qkd.reasons import AbortError, Reason
from qstack.runtime import session_messages
from qstack.transport.service import MESSAGE_BYTES_MAX
from qstack.wire.frame import Frame, Layer, pack
from tests.apps.qkd.world import SMALL

KEY = bytes(32)
FULL = bytes(messages.PART_BYTES)


def ends() -> tuple[Conversation, Conversation]:
    return Conversation(KEY, here="a", peer="b"), Conversation(KEY, here="b", peer="a")


def reason_of(call, *arguments) -> Reason:
    with pytest.raises(AbortError) as caught:
        call(*arguments)
    return caught.value.reason


def test_the_longest_messages_fit_a_message_stream():
    longest = [
        messages.Bases(part=15, parts=16, bits=FULL),
        messages.NodesQuery(nodes=FULL),
        messages.Parities(count=messages.PARITIES_MAX, bits=FULL),
        messages.Hello(
            role="alice", network="n" * 200, sender="s" * 63, receiver="r" * 63, nonce=bytes(16),
            attempt=2**20, is_seeded=True, parameters=SMALL,
        ),
    ]  # fmt: skip
    for message in longest:
        assert len(ends()[0].seal(message)) <= BYTES_MAX <= MESSAGE_BYTES_MAX


def test_types_are_their_own_and_no_session_message_has_them():
    assert all(kind.LAYER == Layer.APPLICATION for kind in messages.MESSAGES)
    types = [kind.TYPE for kind in messages.MESSAGES]
    assert len(set(types)) == len(types)
    assert not set(types) & {kind.TYPE for kind in session_messages.MESSAGES}


def test_what_is_sealed_opens_at_the_other_end_in_order():
    alice, bob = ends()
    said = [messages.Corrected(), messages.Parities(count=3, bits=b"\xe0"), messages.Unverified()]
    for message in said:
        assert bob.open(alice.seal(message)) == message


def test_each_bit_of_a_sealed_message_counts():
    # A code of 128 bits: a false alarm of this test would be a forgery.
    data = ends()[0].seal(messages.Parities(count=3, bits=b"\xe0"))
    for place in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[place // 8] ^= 1 << place % 8
        assert reason_of(ends()[1].open, bytes(wrong)) is Reason.AUTHENTICATION


@pytest.mark.parametrize("size", [0, 1, 35, 36, 60_001, 10**6])
def test_odd_lengths_are_refused_before_anything_else(size):
    expected = Reason.MALFORMED if not 36 < size <= BYTES_MAX else Reason.AUTHENTICATION
    assert reason_of(ends()[1].open, bytes(size)) is expected


def test_reflected_repeated_skipped_and_foreign_messages_are_refused():
    alice, bob = ends()
    first, second = alice.seal(messages.Corrected()), alice.seal(messages.Corrected())
    assert reason_of(alice.open, first) is Reason.AUTHENTICATION
    bob.open(first)
    assert reason_of(bob.open, first) is Reason.OUT_OF_ORDER
    bob.open(second)
    alice.seal(messages.Corrected())
    assert reason_of(bob.open, alice.seal(messages.Corrected())) is Reason.OUT_OF_ORDER
    alice.begin(session_of(b"a" * 16, b"b" * 16, 1))
    assert reason_of(bob.open, alice.seal(messages.Corrected())) is Reason.WRONG_SESSION


def test_sessions_differ_by_nonces_and_attempt():
    names = {session_of(b"a" * 16, b"b" * 16, 0), session_of(b"a" * 16, b"b" * 16, 1),
             session_of(b"b" * 16, b"a" * 16, 0)}  # fmt: skip
    assert len(names) == 3


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Layer.APPLICATION, 0x0001, b"\x80"),  # a session's message
        Frame(Layer.TRANSPORT, messages.Corrected.TYPE, b"\x80"),
        Frame(Layer.APPLICATION, 0x8001, b"\x80"),  # optional elsewhere, not here
        Frame(Layer.APPLICATION, messages.Corrected.TYPE, b"\x81\xa1y\x01"),
        Frame(Layer.APPLICATION, messages.Corrected.TYPE, b"not msgpack"),
        Frame(Layer.APPLICATION, messages.Verified.TYPE, b"\x81\xa8z_errors\xff"),
        Frame(Layer.APPLICATION, messages.NodesQuery.TYPE, b"\x81\xa5nodes\xc4\x00"),
    ],
)
def test_what_is_no_message_of_ours_is_malformed(frame):
    assert reason_of(_open_bytes, pack(frame)) is Reason.MALFORMED


def test_two_frames_or_half_a_frame_are_no_message():
    frame = pack(Frame(Layer.APPLICATION, messages.Corrected.TYPE, b"\x80"))
    for data in (frame * 2, frame[:-1], frame + b"Q", b"XXXX" + frame):
        assert reason_of(_open_bytes, data) is Reason.MALFORMED


def _open_bytes(frame_bytes: bytes) -> object:
    """Opened by the peer of somebody who seals anything."""
    from qstack.apps.qkd.authentication import message_code

    text = bytes(16) + bytes(4) + frame_bytes
    return ends()[1].open(text + message_code(KEY, sender="a", receiver="b", data=text))


def test_both_ends_have_one_transcript_and_it_ends_where_it_is_closed():
    alice, bob = ends()
    rng = np.random.default_rng(1)
    for _ in range(20):
        here, there = (alice, bob) if rng.random() < 0.5 else (bob, alice)
        there.open(here.seal(messages.Verified(z_errors=int(rng.integers(100)))))
    whole = alice.close_transcript(is_alice=True)
    assert whole == bob.close_transcript(is_alice=False)
    bob.open(alice.seal(messages.Corrected()))
    assert alice.close_transcript(is_alice=True) == whole


def test_transcripts_differ_if_a_message_moves_from_one_way_to_the_other():
    transcripts = set()
    for speaker in (0, 1):
        alice, bob = ends()
        here, there = (alice, bob)[speaker], (bob, alice)[speaker]
        there.open(here.seal(messages.Corrected()))
        transcripts.add(alice.close_transcript(is_alice=True))
    assert len(transcripts) == 2
