"""Privacy amplification by the modified Toeplitz matrix (T | I) over GF(2).

    out = T x[:k] + x[k:],   k = n - m,   T[i][j] = seed[i - j + k - 1]

n bits in, m bits out, n - 1 bits of seed. The family is 2-universal (Hayashi, Tsurumaru, IEEE
Trans. Inf. Theory 62, 2213 (2016)), which is what the leftover hash lemma of the bound needs.

The product is a convolution of integers by FFT, in blocks: T is cut into square blocks of `chunk`
columns, each Toeplitz, and equal along diagonals, so that every piece of seed and of input is
transformed once.

Rules
1. float64 only. An entry whose distance from an integer is not below `ROUNDING_MAX` (NaN counts as
   far) ends the computation: no key is better than a wrong one.
2. A seed is used for one key. Who calls sees to it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from qstack.apps.qkd.bits import Bits

ROUNDING_MAX: Final = 0.25
CHUNK_MAX: Final = 2**16  # the transform of twice that still lies in the cache
_Floats = npt.NDArray[np.float64]
_Complex = npt.NDArray[np.complex128]


class RoundingError(ArithmeticError):
    """The transform lost more than a quarter of a bit: the result would be a guess."""


def amplify(key: Bits, seed: Bits, length: int, *, chunk_max: int = CHUNK_MAX) -> Bits:
    """(length,) bits of the (n,) bits of `key` with the (n - 1,) bits of `seed`.

    Raises `ValueError` for other shapes, values or lengths, `RoundingError` by rule 1.
    """
    n = key.size
    if key.ndim != 1 or not 1 <= length <= n:
        raise ValueError(f"{length} bits cannot be made of {n}")
    if seed.shape != (n - 1,):
        raise ValueError(f"the seed for {n} bits has {n - 1} bits, not {seed.size}")
    for bits in (key, seed):
        if bits.dtype != np.uint8 or (bits.size and bits.max() > 1):
            raise ValueError("bits are uint8, 0 or 1")
    k = n - length
    if k == 0:
        return key.copy()
    chunk = min(chunk_max, 1 << (k - 1).bit_length())
    return _toeplitz(key[:k], seed, length, chunk) ^ key[k:]


def parities(sums: _Floats) -> Bits:
    """The lowest bit of what should be integers. Raises `RoundingError` by rule 1."""
    whole = np.rint(sums)
    if not (np.abs(sums - whole) < ROUNDING_MAX).all():
        raise RoundingError("a rounding error of a quarter bit or more in privacy amplification")
    return (whole.astype(np.int64) & 1).astype(np.uint8)


def _toeplitz(x: Bits, seed: Bits, length: int, chunk: int) -> Bits:
    """T x for x of k bits; `chunk` is the side of the square blocks."""
    k = x.size
    columns, rows = -(-k // chunk), -(-length // chunk)
    # Block (r, c) sees the seed from index (r - c) chunk + k - chunk on, 2 chunk - 1 bits of it;
    # what lies outside meets only the padding of x, or rows that are cut off.
    first = k - columns * chunk
    padded = np.zeros((columns + rows) * chunk, dtype=np.float64)
    padded[-first : -first + seed.size] = seed
    pieces = [
        np.fft.rfft(padded[start * chunk : (start + 2) * chunk])
        for start in range(columns + rows - 1)
    ]
    padded_x = np.zeros(columns * chunk, dtype=np.float64)
    padded_x[:k] = x
    inputs: list[_Complex] = [
        np.fft.rfft(padded_x[c * chunk : (c + 1) * chunk], 2 * chunk) for c in range(columns)
    ]
    out = np.empty(rows * chunk, dtype=np.uint8)
    for r in range(rows):
        total = np.zeros(chunk + 1, dtype=np.complex128)
        for c in range(columns):
            total += pieces[r - c + columns - 1] * inputs[c]
        sums = np.fft.irfft(total, 2 * chunk)
        out[r * chunk : (r + 1) * chunk] = parities(sums[chunk - 1 : 2 * chunk - 1])
    return out[:length]
