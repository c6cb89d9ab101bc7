"""Bulk values as bytes: bits, bases and slot numbers of many pairs, as messages carry them.

Bits are packed eight to a byte, bases four to a byte (X = 0, Y = 1, Z = 2), the first pair in the
highest bits of the first byte, the rest of the last byte zero. Slots are their distances from a
first slot, as unsigned integers of four bytes, big-endian.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from qstack.wire.message import Basis, BasisChoice, BasisProbabilities

Bits = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8]
"""Bases: places in BASES."""
Slots = npt.NDArray[np.int64]

BASES: Final[tuple[Basis, ...]] = ("X", "Y", "Z")
SLOT_BYTES: Final = 4
SLOT_SPAN_MAX: Final = 2**32
"""Slots lie closer than this behind the first one."""


def pack_bits(bits: Bits) -> bytes:
    """One bit for each entry: whether it is not 0."""
    return np.packbits(bits).tobytes()


def unpack_bits(data: bytes, count: int) -> Bits:
    """The first `count` bits, as 0 and 1. Raises ValueError if `data` is not as long as that."""
    if len(data) != bits_size(count):
        raise ValueError(f"{count} bits take {bits_size(count)} bytes, not {len(data)}")
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count)


def bits_size(count: int) -> int:
    """How many bytes `count` bits take."""
    return (count + 7) // 8


def pack_bases(codes: Codes) -> bytes:
    """Two bits for each entry."""
    return np.packbits(np.stack((codes >> 1, codes & 1), axis=1)).tobytes()


def unpack_bases(data: bytes, count: int) -> Codes:
    """The first `count` bases. Raises ValueError for another length, or a code without a basis."""
    if len(data) != bases_size(count):
        raise ValueError(f"{count} bases take {bases_size(count)} bytes, not {len(data)}")
    pairs = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=2 * count).reshape(-1, 2)
    codes: Codes = pairs[:, 0] * np.uint8(2) + pairs[:, 1]
    if count and int(codes.max()) >= len(BASES):
        raise ValueError("a basis is 0, 1 or 2")
    return codes


def bases_size(count: int) -> int:
    """How many bytes `count` bases take."""
    return (count + 3) // 4


def draw_bases(generator: np.random.Generator, choice: BasisProbabilities, count: int) -> Codes:
    """`count` bases, each drawn with the probabilities of `choice`."""
    edges = np.cumsum((choice.in_x, choice.in_y))
    # Rounding may leave the edges an ulp below 1 where Z has no probability.
    last = 2 if choice.in_z > 0.0 else 1 if choice.in_y > 0.0 else 0
    codes = np.searchsorted(edges, generator.random(count), side="right")
    return np.minimum(codes, last).astype(np.uint8)


def fixed_code(choice: BasisChoice) -> int | None:
    """The one basis of all pairs, as its code; None if they are drawn."""
    return None if isinstance(choice, BasisProbabilities) else BASES.index(choice)


def pack_slots(slots: Slots, first: int) -> bytes:
    """The distances of `slots` from `first`. Raises ValueError if one does not fit."""
    distances = slots - first
    if len(slots) and not 0 <= int(distances.min()) <= int(distances.max()) < SLOT_SPAN_MAX:
        raise ValueError(f"a slot is before {first}, or too far behind it")
    return distances.astype(">u4").tobytes()


def unpack_slots(data: bytes, first: int) -> Slots:
    """The slots, ascending. Raises ValueError for odd lengths, and for slots that do not ascend."""
    if len(data) % SLOT_BYTES:
        raise ValueError(
            f"a slot takes {SLOT_BYTES} bytes, {len(data)} are no whole number of them"
        )
    slots: Slots = np.frombuffer(data, dtype=">u4").astype(np.int64) + first
    if len(slots) > 1 and int(np.diff(slots).min()) <= 0:
        raise ValueError("slots ascend")
    return slots
