"""Outcomes as packed bits: the first pair is in the highest bit of the first byte.

A tail's outcome on the Bell state (x, z) becomes that on phi+ by a flip: X^x flips what Z and Y
read, Z^z flips what X and Y read. (On phi+ itself X and Z agree at both ends, Y disagrees; that is
phi+ and is not flipped.)
"""

import numpy as np


def flipped_bit(basis: str, outcome: int, x_bit: int, z_bit: int) -> int:
    """A tail's outcome as it would be on phi+."""
    flip = {"Z": x_bit, "X": z_bit, "Y": x_bit ^ z_bit}[basis]
    return outcome ^ flip


def flipped(basis: str, outcomes: bytes, x_bits: bytes, z_bits: bytes) -> bytes:
    """A tail's packed outcomes as they would be on phi+. All three have the same length."""
    flip = np.zeros(len(outcomes), dtype=np.uint8)
    if basis in {"Z", "Y"}:
        flip ^= np.frombuffer(x_bits, dtype=np.uint8)
    if basis in {"X", "Y"}:
        flip ^= np.frombuffer(z_bits, dtype=np.uint8)
    return (np.frombuffer(outcomes, dtype=np.uint8) ^ flip).tobytes()


def packed(bits: list[int]) -> bytes:
    """Bits as packed bytes, the rest of the last byte zero."""
    return np.packbits(np.array(bits, dtype=np.uint8)).tobytes()


def first(bits: bytes, pairs: int) -> bytes:
    """The first `pairs` packed bits, what follows them in the last byte zeroed."""
    whole, rest = divmod(pairs, 8)
    if not rest:
        return bits[:whole]
    return bits[:whole] + bytes([bits[whole] & (0xFF00 >> rest) & 0xFF])


def are_packed(pairs: int, *fields: bytes) -> bool:
    """Whether each field has the length of `pairs` packed bits."""
    return all(len(bits) == (pairs + 7) // 8 for bits in fields)
