"""All randomness of the fabric, keyed by what it is for.

A draw depends on the seed and on the name of the thing drawn, never on how many draws came before,
so that one more operation at one node changes nothing elsewhere.
"""

import struct
from hashlib import blake2b
from typing import Final

import numpy as np

_TWO_WORDS: Final = struct.Struct(">QQ")


class Chance:
    """Draws of one run. `seed` may be any integer: a stated seed, or the system's entropy."""

    def __init__(self, seed: int) -> None:
        key = blake2b(str(seed).encode(), digest_size=32).digest()
        self._begun_8 = blake2b(key=key, digest_size=8)  # to copy: the key is taken in once
        self._begun_16 = blake2b(key=key, digest_size=16)

    def uniform(self, *name: object) -> float:
        """A number in [0, 1) for this name."""
        return (int.from_bytes(_digest(self._begun_8, name), "big") >> 11) * 2.0**-53

    def generator(self, *name: object) -> np.random.Generator:
        """A generator for this name."""
        key = int.from_bytes(_digest(self._begun_16, name), "big")
        return np.random.Generator(np.random.Philox(key=key))

    def reuse(self, generator: np.random.Generator, *name: object) -> None:
        """Make a generator of ours that of another name: quicker than a new one, and the same."""
        high, low = _TWO_WORDS.unpack(_digest(self._begun_16, name))
        generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": (0, 0, 0, 0), "key": (low, high)},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }


def _digest(begun: blake2b, name: tuple[object, ...]) -> bytes:
    digest = begun.copy()
    digest.update(repr(name).encode())
    return digest.digest()
