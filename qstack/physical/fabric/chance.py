"""All randomness of the fabric, keyed by what it is for.

A draw depends on the seed and on the name of the thing drawn, never on how many draws came before,
so that one more operation at one node changes nothing elsewhere.
"""

from hashlib import blake2b

import numpy as np


class Chance:
    """Draws of one run. `seed` may be any integer: a stated seed, or the system's entropy."""

    def __init__(self, seed: int) -> None:
        self._key = blake2b(str(seed).encode(), digest_size=32).digest()

    def uniform(self, *name: object) -> float:
        """A number in [0, 1) for this name."""
        return (int.from_bytes(self._digest(name, 8), "big") >> 11) * 2.0**-53

    def generator(self, *name: object) -> np.random.Generator:
        """A generator for this name."""
        key = int.from_bytes(self._digest(name, 16), "big")
        return np.random.Generator(np.random.Philox(key=key))

    def reuse(self, generator: np.random.Generator, *name: object) -> None:
        """Make a generator of ours that of another name: quicker than a new one, and the same."""
        words = np.frombuffer(self._digest(name, 16), dtype=">u8").astype(np.uint64)
        generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": np.zeros(4, np.uint64), "key": words[::-1]},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }

    def _digest(self, name: tuple[object, ...], size: int) -> bytes:
        return blake2b(repr(name).encode(), key=self._key, digest_size=size).digest()
