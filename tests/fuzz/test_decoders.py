"""Mutated frames through the frame reader and every registry, in process.

Whatever the bytes: the outcome is a message that encodes to the same bytes, None (an optional type
not known here), a `PeerError` with a registry code, or "need more bytes". A failing input is
printed with its seed and number.
"""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstack.errors import ErrorCode, PeerError
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import HEADER, OPTIONAL_TYPE_MIN, Frame, FrameReader, pack
from tests.fuzz import tally
from tests.fuzz.mutator import mutated, named, pieces, with_right_length
from tests.fuzz.samples import REGISTRIES, message_classes, valid_frames

CORPUS = valid_frames(message_classes(), Random(1), 4)


def judged(registry: Registry, frame: Frame) -> str:
    """What a registry makes of a frame, with what must hold of it."""
    try:
        message = registry.decode(frame)
    except PeerError as error:
        return ErrorCode(error.code).name
    if message is None:
        assert frame.type >= OPTIONAL_TYPE_MIN
        return "none"
    assert encode(message) == frame
    return "message"


def read_in_pieces(rng: Random, data: bytes) -> tuple[list[Frame], str]:
    """The frames of a stream, however it is cut; and how it ended."""
    reader = FrameReader()
    frames: list[Frame] = []
    parts = pieces(rng, data)
    try:
        for part in [*parts, b""]:
            frames += reader.feed(part)
    except PeerError as error:
        end = error.code.name
        return frames, end
    return frames, "end" if reader.is_empty else "more"


def run(seed: int, inputs: int) -> dict[str, int]:
    """So many mutated streams through everything; how often what came out."""
    rng = Random(seed)
    outcomes: dict[str, int] = {}
    for number in range(inputs):
        data = mutated(rng, CORPUS)
        if rng.random() < 0.7:
            data = with_right_length(data)
        with named(seed, number, data):
            whole, end = read_in_pieces(Random(0), data)
            assert read_in_pieces(rng, data) == (whole, end)
            assert end in ("end", "more", "MALFORMED", "VERSION", "TOO_LARGE")
            ends = [end]
            for frame in whole[:8]:
                ends += [judged(registry, frame) for registry in REGISTRIES.values()]
            for outcome in ends:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_every_class_of_message_is_in_the_corpus_and_is_read_by_a_registry() -> None:
    places = {HEADER.unpack_from(frame)[2:4] for frame in CORPUS}
    classes = message_classes()
    assert len(classes) > 100
    assert {(int(kind.LAYER), kind.TYPE) for kind in classes} == places
    outcomes = [
        [judged(registry, FrameReader().feed(frame)[0]) for registry in REGISTRIES.values()]
        for frame in CORPUS
    ]
    known = [row for row in outcomes if "message" in row]
    assert len(known) > len(CORPUS) * 0.8  # services within a node travel nowhere
    assert all({*row} <= {"message", "UNKNOWN_TYPE", "INVALID", "none"} for row in outcomes)


def test_mutated_frames_are_messages_or_registry_errors() -> None:
    outcomes = run(seed=21, inputs=5000)
    expected = {"message", "UNKNOWN_TYPE", "INVALID", "NOT_CANONICAL", "MALFORMED", "TOO_LARGE"}
    assert expected | {"VERSION", "more", "end"} <= {*outcomes}, outcomes


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    layer=st.integers(0, 255),
    kind=st.integers(0, 0xFFFF),
    body=st.one_of(
        st.binary(max_size=80),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats()
            | st.text(max_size=8)
            | st.binary(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.text(max_size=8), inner, max_size=4)
            ),
            max_leaves=12,
        ).map(msgspec.msgpack.encode),
    ),
)
def test_any_layer_type_and_body_is_judged(layer: int, kind: int, body: bytes) -> None:
    [frame] = FrameReader().feed(pack(Frame(layer, kind, body)))
    for registry in REGISTRIES.values():
        judged(registry, frame)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1010))
def test_many_mutated_frames_are_messages_or_registry_errors(seed: int) -> None:
    run(seed, inputs=4000)
    tally.add("frames", 4000)
