"""A seeded mutator of bytes: what a broken disk, a hurried programmer or an enemy would send.

Rules
1. The same seed and corpus give the same inputs, in any process.
2. What comes out may be valid, even unchanged: the targets judge by what they answer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from random import Random

EDGES = (0, 1, 0x7F, 0x80, 0xFF)
TYPE_BYTES = (
    0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6,
    0xC7, 0xC9, 0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD3, 0xD4, 0xD6, 0xD8, 0xD9, 0xDA,
    0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xFF,
)  # fmt: skip
"""The first bytes of MessagePack objects of every kind."""
NUMBERS = tuple(bytes.fromhex(text) for text in (
    "cf7fffffffffffffff", "cfffffffffffffffff", "cf8000000000000000", "d38000000000000000",
    "cf0020000000000000", "cf0020000000000001", "ceffffffff", "cb7ff0000000000000",
    "cb7ff8000000000000", "cb0000000000000001", "cb7fefffffffffffff", "cb8000000000000000",
    "ca00000000", "c70000", "d6ff00000000", "c0", "80", "90", "a0", "c400", "c3",
))  # fmt: skip
"""Whole objects at the edges: 2^63 and its neighbours, infinity, NaN, timestamps, empty ones."""
LENGTHS = tuple(
    number.to_bytes(4, "big")
    for number in (0, 1, 11, 12, 65_535, 65_536, 65_537, 2**22, 2**22 + 1, 2**31, 2**32 - 1)
)
NEST = 40
LONGEST = 200_000


def mutated(rng: Random, corpus: Sequence[bytes], times_max: int = 4) -> bytes:
    """One of the corpus after one to `times_max` changes; rarely more."""
    data = bytearray(rng.choice(corpus))
    times = rng.randint(1, times_max) if rng.random() < 0.95 else rng.randint(8, 64)
    for _ in range(times):
        rng.choice(CHANGES)(rng, data, corpus)
        del data[LONGEST:]
    return bytes(data)


def _place(rng: Random, data: bytearray) -> int:
    return rng.randrange(len(data) + 1)


def _range(rng: Random, data: bytearray, longest: int = 64) -> slice:
    first = _place(rng, data)
    return slice(first, first + rng.randint(1, longest))


def _flip(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((*EDGES, rng.randrange(256)))


def _count(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """One more or less: counts and lengths that are only just wrong."""
    if data:
        place = rng.randrange(len(data))
        data[place] = (data[place] + rng.choice((-1, 1))) % 256


def _insert(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = _place(rng, data)
    data[place:place] = rng.randbytes(rng.randint(1, 16))


def _repeat(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = _place(rng, data)
    data[place:place] = bytes([rng.choice(EDGES)]) * rng.choice((16, 256, 5000))


def _delete(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_range(rng, data)]


def _duplicate(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = _place(rng, data)
    data[place:place] = data[_range(rng, data)]


def _swap(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    first, second = sorted((_place(rng, data), _place(rng, data)))
    size = min(rng.randint(1, 32), second - first, len(data) - second)
    data[first : first + size], data[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )


def _splice(rng: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    """The beginning of one and the end of another."""
    other = rng.choice(corpus)
    data[_place(rng, data) :] = other[rng.randrange(len(other) + 1) :]


def _append(rng: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    data += rng.choice(corpus)


def _truncate(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _length(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """An extreme length where a frame has its own, or anywhere."""
    place = 8 if rng.random() < 0.5 else _place(rng, data)
    data[place : place + 4] = rng.choice(LENGTHS)


def _longer(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A small number as one with a length of its own: the same value, not canonical."""
    small = [place for place, byte in enumerate(data) if byte < 0x80]
    if small:
        data.insert(rng.choice(small), 0xCC)


def _type_byte(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(TYPE_BYTES)


def _number(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """An object put over a byte: over small ones it leaves the rest of a message whole."""
    place = _place(rng, data)
    data[place : place + 1] = rng.choice(NUMBERS)


def _nest(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = _place(rng, data)
    data[place:place] = rng.choice((b"\x91", b"\x81\xa1x", b"\xdc\x00\x01")) * rng.choice(
        (1, 17, NEST, 3000)
    )


def _text_number(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """For texts: numbers that are too large, too small, or none."""
    place = _place(rng, data)
    data[place:place] = rng.choice(
        (b"9" * 30, b"-", b"e308", b"e-400", b"inf", b"nan", b"0x", b"[[", b"\\u0000", b"\n", b'"')
    )


CHANGES: tuple[Callable[[Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip, _flip, _set, _set, _count, _count, _insert, _repeat, _delete, _duplicate, _swap, _splice,
    _append, _truncate, _length, _longer, _type_byte, _type_byte, _number, _number, _nest,
    _text_number,
)  # fmt: skip


def with_right_length(data: bytes) -> bytes:
    """A frame whose header is mended, so that what is changed is the body alone."""
    if len(data) < 12:
        return data
    return data[:8] + (len(data) - 12).to_bytes(4, "big") + data[12:]


def pieces(rng: Random, data: bytes) -> list[bytes]:
    """The same bytes in one to four reads."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(4)))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@contextmanager
def named(seed: int, number: int, data: bytes) -> Iterator[None]:
    """Whatever escapes says by which input it came: the run that has it can be had again."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"fuzz: seed {seed}, input {number}: {data[:2000]!r}")
        raise
