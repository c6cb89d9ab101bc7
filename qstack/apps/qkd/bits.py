"""Arrays of bits (uint8, 0 or 1), and packed: the first bit is the highest of the first byte."""

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]


def pack(bits: Bits) -> bytes:
    """The bits packed, filled up with zeros."""
    return np.packbits(bits).tobytes()


def unpack(packed: bytes, count: int) -> Bits:
    """`count` bits. Raises `ValueError` unless the length is right and the filling is zero."""
    if len(packed) != (count + 7) // 8:
        raise ValueError(f"{count} bits are {(count + 7) // 8} bytes, not {len(packed)}")
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    if bits[count:].any():
        raise ValueError("the last byte is not filled up with zeros")
    return bits[:count]


def ones(bits: Bits) -> int:
    """How many are 1."""
    return int(np.count_nonzero(bits))
