"""The strict codec: each invalid vector breaks one rule and is refused for that rule."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from qstack.errors import ErrorCode, PeerError
from qstack.wire.codec import NESTING_MAX, Registry, encode
from qstack.wire.frame import Frame, Layer
from qstack.wire.message import Basis, Bit, Count, Id, Message, Name, Probability
from qstack.wire.session import MESSAGES, Error, Hello, Stamp


class Sample(Message):
    """One field of each kind."""

    LAYER = Layer.LINK
    TYPE = 7
    angle: float
    basis: Basis
    bits: list[Bit]
    chance: Probability
    id: Id
    node: Name
    number: Count


REGISTRY = Registry((*MESSAGES, Sample))
GOOD = Sample(
    angle=-1.5, basis="X", bits=[0, 1], chance=0.25, id=b"i" * 16, node="alice", number=300
)
FIELDS = {
    b"angle": b"\xcb" + struct.pack("!d", -1.5),
    b"basis": b"\xa1X",
    b"bits": b"\x92\x00\x01",
    b"chance": b"\xcb" + struct.pack("!d", 0.25),
    b"id": b"\xc4\x10" + b"i" * 16,
    b"node": b"\xa5alice",
    b"number": b"\xcd\x01\x2c",
}


def key(name: bytes) -> bytes:
    return bytes([0xA0 | len(name)]) + name


def body(**changes: bytes | None) -> bytes:
    """The good body with some values replaced (None: left out), still in order."""
    fields = FIELDS | {name.encode(): value for name, value in changes.items()}
    kept = {name: value for name, value in sorted(fields.items()) if value is not None}
    return bytes([0x80 | len(kept)]) + b"".join(key(name) + kept[name] for name in kept)


def decode(data: bytes) -> Message | None:
    return REGISTRY.decode(Frame(Layer.LINK, 7, data))


def refusal(data: bytes) -> PeerError:
    with pytest.raises(PeerError) as caught:
        decode(data)
    return caught.value


def double(number: float) -> bytes:
    return b"\xcb" + struct.pack("!d", number)


def test_the_good_body_is_what_we_say_ourselves():
    assert encode(GOOD) == Frame(Layer.LINK, 7, body())
    assert decode(body()) == GOOD


PAIRS = [key(name) + value for name, value in FIELDS.items()]
NAN, INFINITY = float("nan"), float("inf")
DEEP = b"\x81\xa1a"
IN, NC = ErrorCode.INVALID, ErrorCode.NOT_CANONICAL

INVALID = {
    # The encoding is not the canonical one.
    "keys not sorted": (b"\x87" + b"".join(reversed(PAIRS)), NC, ""),
    "duplicate key": (b"\x88" + PAIRS[0] + b"".join(PAIRS), NC, ""),
    "integer longer than needed": (body(number=b"\xce\x00\x00\x01\x2c"), NC, ""),
    "integer with sign bit form": (body(number=b"\xd1\x01\x2c"), NC, ""),
    "small integer in two bytes": (body(bits=b"\x92\x00\xcc\x01"), NC, ""),
    "float of 32 bits": (body(chance=b"\xca" + struct.pack("!f", 0.25)), NC, ""),
    "integer for a float": (body(angle=b"\x01"), NC, ""),
    "string longer than needed": (body(node=b"\xd9\x05alice"), NC, ""),
    "bytes longer than needed": (body(id=b"\xc5\x00\x10" + b"i" * 16), NC, ""),
    "list longer than needed": (body(bits=b"\xdc\x00\x02\x00\x01"), NC, ""),
    "map longer than needed": (b"\xde\x00\x07" + body()[1:], NC, ""),
    "key longer than needed": (body().replace(key(b"id"), b"\xd9\x02id"), NC, ""),
    "x present and empty": (body(x=b"\x80"), NC, "x"),
    "x not sorted": (body(x=b"\x82\xa1b\x01\xa1a\x01"), NC, ""),
    "x with duplicate key": (body(x=b"\x82\xa1a\x01\xa1a\x01"), NC, ""),
    "x with long integer": (body(x=b"\x81\xa1a\xcc\x01"), NC, ""),
    # Extension types.
    "extension type for a field": (body(node=b"\xd4\x05\x00"), IN, "node"),
    "extension type in x": (body(x=b"\x81\xa1a\xd4\x05\x00"), IN, ""),
    "timestamp in x": (body(x=b"\x81\xa1a\xd6\xff\x00\x00\x00\x01"), IN, "x.a"),
    # Numbers are finite.
    "NaN in a bounded float": (body(chance=double(NAN)), IN, "chance"),
    "NaN in a free float": (body(angle=double(NAN)), IN, "angle"),
    "infinity in a free float": (body(angle=double(INFINITY)), IN, "angle"),
    "minus infinity in a free float": (body(angle=double(-INFINITY)), IN, "angle"),
    "NaN in x": (body(x=b"\x81\xa1a\x92\x01" + double(NAN)), IN, "x.a[1]"),
    # Fields and their bounds.
    "missing field": (body(node=None), IN, ""),
    "unknown field": (body(zeta=b"\x01"), IN, ""),
    "wrong type": (body(number=b"\xa11"), IN, "number"),
    "boolean for an integer": (body(number=b"\xc3"), IN, "number"),
    "nil for a field": (body(number=b"\xc0"), IN, "number"),
    "nil for x": (body(x=b"\xc0"), IN, "x"),
    "list for x": (body(x=b"\x90"), IN, "x"),
    "string for bytes": (body(id=b"\xb0" + b"i" * 16), IN, "id"),
    "bytes too short": (body(id=b"\xc4\x0f" + b"i" * 15), IN, "id"),
    "integer below its bound": (body(number=b"\xff"), IN, "number"),
    "integer above its bound": (body(number=b"\xcf" + b"\xff" * 8), IN, "number"),
    "item out of range": (body(bits=b"\x92\x00\x02"), IN, "bits[1]"),
    "probability above one": (body(chance=double(1.0000001)), IN, "chance"),
    "not one of the words": (body(basis=b"\xa1W"), IN, "basis"),
    "name with a capital": (body(node=b"\xa5Alice"), IN, "node"),
    "name with a line feed behind": (body(node=b"\xa6alice\n"), IN, "node"),
    "name that is empty": (body(node=b"\xa0"), IN, "node"),
    # Bytes that are no MessagePack map.
    "no bytes": (b"", IN, ""),
    "bytes behind the end": (body() + b"\x00", IN, ""),
    "cut off": (body()[:-1], IN, ""),
    "a list": (b"\x90", IN, ""),
    "nil": (b"\xc0", IN, ""),
    "the byte that is never used": (body(x=b"\x81\xa1a\xc1"), IN, ""),
    "text that is not UTF-8": (body(x=b"\x81\xa1a\xa1\xff"), IN, ""),
    "a surrogate": (body(x=b"\x81\xa1a\xa3\xed\xa0\x80"), IN, ""),
    "a list of four billion": (body(x=b"\x81\xa1a\xdd\xff\xff\xff\xff"), IN, ""),
    "a map of four billion": (body(x=b"\x81\xa1a\xdf\xff\xff\xff\xff"), IN, ""),
    # Below x.
    "x with an integer key": (body(x=b"\x81\xa1a\x81\x01\x01"), IN, "x.a"),
    "x with mixed keys": (body(x=b"\x81\xa1a\x82\x01\x01\xa1b\x01"), IN, "x.a"),
    "x with a nil key": (body(x=b"\x81\xa1a\x81\xc0\x01"), IN, "x.a"),
    "x with a list for a key": (body(x=b"\x81\xa1a\x81\x91\x01\x01"), IN, "x.a"),
    "x one level too deep": (body(x=DEEP + b"\x91" * (NESTING_MAX - 1) + b"\x01"), IN, "x"),
    "x as deep as a stack": (body(x=DEEP + b"\x91" * 900 + b"\x01"), IN, "x"),
    "x deeper than a stack": (body(x=DEEP + b"\x91" * 60_000 + b"\x01"), IN, ""),
    "crit that is no list": (body(x=b"\x81\xa4crit\xa1a"), IN, "x.crit"),
    "crit with a number": (body(x=b"\x81\xa4crit\x91\x01"), IN, "x.crit"),
    "an unknown critical extension": (
        body(x=b"\x82\xa1a\x01\xa4crit\x91\xa1a"),
        ErrorCode.CRITICAL,
        "x.crit",
    ),
}


@pytest.mark.parametrize(("data", "code", "field"), INVALID.values(), ids=INVALID.keys())
def test_a_body_that_breaks_one_rule_is_refused_for_that_rule(data, code, field):
    error = refusal(data)
    assert (error.code, error.field) == (code, field)
    assert error.detail


def test_unknown_extensions_are_ignored_unless_critical():
    message = decode(body(x=b"\x82\xa1a\x01\xa1b\x92\x01\x02"))
    assert message.x == {"a": 1, "b": [1, 2]}
    assert decode(body(x=b"\x82\xa1a\x01\xa4crit\x90")).x == {"a": 1, "crit": []}


def test_extensions_may_be_nested_up_to_the_limit():
    data = body(x=DEEP + b"\x91" * (NESTING_MAX - 2) + b"\x01")
    assert decode(data).x is not UNSET


def test_bytes_that_only_look_like_a_nan_pass():
    lookalike = b"\xcb\x7f\xf8" + b"i" * 13
    assert decode(body(id=b"\xc4\x10" + lookalike)).id == lookalike


def test_an_unknown_type_is_an_error_below_0x8000_and_skipped_from_there_on():
    for kind in (0, 0x7FFF):
        with pytest.raises(PeerError) as caught:
            REGISTRY.decode(Frame(Layer.LINK, kind, b"\x80"))
        assert caught.value.code is ErrorCode.UNKNOWN_TYPE
    for kind in (0x8000, 0xFFFF):
        assert REGISTRY.decode(Frame(Layer.LINK, kind, b"not even MessagePack")) is None


def test_a_type_belongs_to_its_layer():
    with pytest.raises(PeerError) as caught:
        REGISTRY.decode(Frame(Layer.NETWORK, 7, body()))
    assert caught.value.code is ErrorCode.UNKNOWN_TYPE


def test_two_classes_cannot_share_a_type():
    with pytest.raises(AssertionError, match="takes a type in use"):
        Registry((Sample, Sample))


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
TREES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
EXTENSIONS = st.dictionaries(st.text(max_size=5).filter(lambda name: name != "crit"), TREES)
SAMPLES = st.builds(
    Sample,
    angle=st.floats(allow_nan=False, allow_infinity=False),
    basis=st.sampled_from(["X", "Y", "Z"]),
    bits=st.lists(st.integers(0, 1), max_size=20),
    chance=st.floats(0.0, 1.0),
    id=st.binary(min_size=16, max_size=16),
    node=st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True),
    number=st.integers(0, 2**53),
    x=st.just(UNSET) | EXTENSIONS.filter(bool),
)


@given(SAMPLES)
def test_any_message_survives_its_encoding(message):
    frame = encode(message)
    assert REGISTRY.decode(frame) == message
    assert encode(REGISTRY.decode(frame)) == frame


@given(st.binary(max_size=100))
def test_any_body_gives_a_message_or_a_peer_error(data):
    for layer, kind in ((Layer.LINK, 7), (Layer.SESSION, Hello.TYPE), (Layer.SESSION, Stamp.TYPE)):
        try:
            message = REGISTRY.decode(Frame(layer, kind, data))
        except PeerError:
            continue
        assert encode(message).body == data


@given(SAMPLES, st.data())
def test_a_changed_byte_gives_another_message_or_a_peer_error(message, data):
    original = encode(message).body
    place = data.draw(st.integers(0, len(original) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda value: value != original[place]))
    changed = original[:place] + bytes([octet]) + original[place + 1 :]
    try:
        other = decode(changed)
    except PeerError:
        return
    assert encode(other).body == changed


def test_the_second_decoder_reads_the_same():
    """What is written is plain MessagePack with string keys."""
    for message in (GOOD, Stamp(at_ns=2**63 - 1), Error(name="A", detail="b", field="")):
        plain = msgspec.msgpack.decode(encode(message).body)
        assert list(plain) == sorted(plain)
        assert plain == msgspec.to_builtins(message, builtin_types=(bytes,))
