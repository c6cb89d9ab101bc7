"""Outcomes as packed bits: the first pair is in the highest bit of the first byte.

A tail's outcome on the Bell state (x, z) becomes that on phi+ by a flip: X^x flips what Z and Y
read, Z^z flips what X and Y read. (On phi+ itself X and Z agree at both ends, Y disagrees; that is
phi+ and is not flipped.)
"""

import numpy as np
from msgspec import Struct

from qstack.wire.message import BasisChoice
from qstack.wire.packed import (
    BASES,
    Codes,
    bits_size,
    fixed_code,
    pack_bases,
    pack_bits,
    unpack_bases,
    unpack_bits,
)

_X, _Z = BASES.index("X"), BASES.index("Z")


class Read(Struct, frozen=True):
    """Pairs that were read, as packed fields; `bases` is empty where the basis is fixed."""

    pairs: int
    outcomes: bytes
    x_bits: bytes
    z_bits: bytes
    bases: bytes

    @property
    def codes(self) -> Codes:
        """The basis of each pair, where they were drawn."""
        return unpack_bases(self.bases, self.pairs)

    def first(self, pairs: int) -> "Read":
        """Only the first `pairs` of them."""
        return Read(
            pairs,
            first(self.outcomes, pairs),
            first(self.x_bits, pairs),
            first(self.z_bits, pairs),
            pack_bases(self.codes[:pairs]) if self.bases else b"",
        )


def flipped_bit(basis: str, outcome: int, x_bit: int, z_bit: int) -> int:
    """A tail's outcome as it would be on phi+; `basis` is what it was read in."""
    flip = {"Z": x_bit, "X": z_bit, "Y": x_bit ^ z_bit}[basis]
    return outcome ^ flip


def flipped(choice: BasisChoice, read: Read) -> bytes:
    """A tail's packed outcomes as they would be on phi+, each read in the basis of its pair."""
    fixed = fixed_code(choice)
    codes = np.full(read.pairs, fixed) if fixed is not None else read.codes
    bits, x_bits, z_bits = (
        unpack_bits(packed, read.pairs) for packed in (read.outcomes, read.x_bits, read.z_bits)
    )
    flip = np.where(codes != _X, x_bits, 0) ^ np.where(codes != _Z, z_bits, 0)
    return pack_bits(bits ^ flip.astype(np.uint8))


def packed(bits: list[int]) -> bytes:
    """Bits as packed bytes, the rest of the last byte zero."""
    return np.packbits(np.array(bits, dtype=np.uint8)).tobytes()


def first(bits: bytes, pairs: int) -> bytes:
    """The first `pairs` packed bits, what follows them in the last byte zeroed."""
    whole, rest = divmod(pairs, 8)
    if not rest:
        return bits[:whole]
    return bits[:whole] + bytes([bits[whole] & (0xFF00 >> rest) & 0xFF])


def are_bases(choice: BasisChoice, pairs: int, bases: bytes) -> bool:
    """Whether these are the packed bases of `pairs` pairs: none where the basis is fixed."""
    if fixed_code(choice) is not None:
        return not bases
    try:
        unpack_bases(bases, pairs)
    except ValueError:
        return False
    return True


def are_packed(pairs: int, *fields: bytes) -> bool:
    """Whether each field has the length of `pairs` packed bits."""
    return all(len(bits) == bits_size(pairs) for bits in fields)
