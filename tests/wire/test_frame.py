"""Frames, however the stream is cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstack.errors import ErrorCode, PeerError
from qstack.wire.frame import CONTROL_BYTES_MAX, HEADER, Frame, FrameReader, Layer, pack

FRAMES = [Frame(0, 1, b""), Frame(2, 0x8001, b"QSTK" * 5), Frame(5, 3, b"x"), Frame(255, 0, b"\0")]
STREAM = b"".join(pack(frame) for frame in FRAMES)


def test_the_header_is_the_specified_twelve_bytes():
    assert pack(Frame(Layer.LINK, 0x8001, b"ab")) == b"QSTK\x01\x02\x80\x01\0\0\0\x02ab"
    assert HEADER.size == 12


def test_frames_survive_every_split():
    for cut in range(len(STREAM) + 1):
        reader = FrameReader()
        assert reader.feed(STREAM[:cut]) + reader.feed(STREAM[cut:]) == FRAMES
        assert reader.is_empty


def test_frames_survive_arriving_one_byte_at_a_time():
    reader = FrameReader()
    frames = [frame for octet in STREAM for frame in reader.feed(bytes([octet]))]
    assert frames == FRAMES
    assert reader.is_empty


def test_a_begun_frame_is_not_empty():
    for cut in range(1, len(pack(FRAMES[1]))):
        reader = FrameReader()
        assert reader.feed(pack(FRAMES[1])[:cut]) == []
        assert not reader.is_empty


def test_a_body_of_exactly_the_limit_passes():
    frame = Frame(2, 1, b"x" * CONTROL_BYTES_MAX)
    assert FrameReader().feed(pack(frame)) == [frame]


FAULTS = [
    (HEADER.pack(b"QSTK", 1, 2, 1, CONTROL_BYTES_MAX + 1), ErrorCode.TOO_LARGE),
    (HEADER.pack(b"QSTK", 1, 2, 1, 2**32 - 1), ErrorCode.TOO_LARGE),
    (HEADER.pack(b"QSTX", 1, 2, 1, 0), ErrorCode.MALFORMED),
    (HEADER.pack(b"qstk", 1, 2, 1, 0), ErrorCode.MALFORMED),
    (HEADER.pack(b"QSTK", 0, 2, 1, 0), ErrorCode.VERSION),
    (HEADER.pack(b"QSTK", 2, 2, 1, 0), ErrorCode.VERSION),
    (HEADER.pack(b"GET ", 47, 32, 18516, 0), ErrorCode.MALFORMED),
]


@pytest.mark.parametrize(("header", "code"), FAULTS)
def test_a_faulty_header_is_refused_before_its_body(header, code):
    reader = FrameReader()
    assert reader.feed(header[:-1]) == []
    with pytest.raises(PeerError) as caught:
        reader.feed(header[-1:])
    assert caught.value.code is code


@pytest.mark.parametrize(("header", "code"), FAULTS)
def test_frames_before_a_faulty_header_are_kept_at_every_split(header, code):
    data = STREAM + header
    for cut in range(len(data) + 1):
        assert outcome(data[:cut], data[cut:], b"") == (FRAMES, code)


def outcome(*parts):
    """The frames of the parts, and the error that ended them."""
    reader, frames = FrameReader(), []
    try:
        for part in parts:
            frames += reader.feed(part)
    except PeerError as error:
        return frames, error.code
    return frames, None


def test_a_limit_raised_between_frames_holds_for_the_next():
    large = Frame(2, 1, b"x" * (CONTROL_BYTES_MAX + 1))
    reader = FrameReader()
    assert reader.feed(pack(FRAMES[0]) + pack(large)) == [FRAMES[0]]
    reader.bytes_max *= 2
    assert reader.feed(b"") == [large]


@given(
    frames=st.lists(
        st.builds(Frame, st.integers(0, 255), st.integers(0, 0xFFFF), st.binary(max_size=300)),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 2500), max_size=12),
)
def test_any_frames_survive_any_cuts(frames, cuts):
    stream = b"".join(pack(frame) for frame in frames)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = FrameReader()
    received = [
        frame
        for begin, end in itertools.pairwise(places)
        for frame in reader.feed(stream[begin:end])
    ]
    assert received == frames


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_peer_error(data):
    _frames, code = outcome(data, b"")
    assert code in {None, ErrorCode.MALFORMED, ErrorCode.VERSION, ErrorCode.TOO_LARGE}


def test_what_follows_good_frames_and_can_be_none_is_refused_in_its_turn() -> None:
    """`feed` would say so with the next bytes, which may never come."""
    good = pack(Frame(1, 2, b"body"))
    frames = FrameReader().cut(good + good + b"GET / HTTP/1.1")
    assert [next(frames), next(frames)] == [Frame(1, 2, b"body")] * 2
    with pytest.raises(PeerError, match="MALFORMED"):
        next(frames)
