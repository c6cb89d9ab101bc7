"""Bases, drawn by chance at each node: compared, and what both measured alike taken apart.

Key bits are the first n pairs measured in Z at both ends, test bits the first k measured in X at
both. How many pairs are measured is fixed before, so that when to stop tells nobody anything
(Pfister and others, New J. Phys. 18, 053001 (2016)).

Rules
1. A share of ones further from the expected one than chance goes once in 1e10 times is an alarm:
   a generator that fails or a detector that is blind makes the bound void.
"""

import math
import secrets
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from qstack.apps.qkd.bits import Bits, ones
from qstack.apps.qkd.reasons import AbortError, Reason

Z, X = 0, 1
"""How bases are written in arrays."""
FALSE_ALARM: Final = 1e-10
Places = npt.NDArray[np.int64]


class Generator(Protocol):
    """Where chance comes from: a numpy `Generator`, or `SystemGenerator`."""

    def bytes(self, length: int, /) -> bytes:
        """So many bytes."""
        ...


class SystemGenerator:
    """The operating system's entropy: what a key that shall be secret is made with."""

    def bytes(self, length: int, /) -> bytes:
        """So many bytes."""
        return secrets.token_bytes(length)


class Sifted(Struct, frozen=True):
    """Where both ends measured in Z, and where both in X."""

    z: Places
    x: Places


def random_bits(generator: Generator, count: int) -> Bits:
    """Unbiased bits."""
    return np.unpackbits(np.frombuffer(generator.bytes((count + 7) // 8), dtype=np.uint8))[:count]


def sift(here: Bits, there: Bits) -> Sifted:
    """The places of equal bases."""
    is_equal = here == there
    return Sifted(np.flatnonzero(is_equal & (here == Z)), np.flatnonzero(is_equal & (here == X)))


def check_enough(sifted: Sifted, *, n: int, k: int) -> None:
    """Raises `AbortError` if fewer than n key bits or k test bits were measured."""
    for name, found, needed in (("key", sifted.z.size, n), ("test", sifted.x.size, k)):
        if found < needed:
            raise AbortError(Reason.TOO_FEW_PAIRS, f"{found} {name} bits of {needed} needed")


def check_balance(what: str, bits: Bits, expected: float, tolerated: float = 0.0) -> None:
    """Raises `AbortError` by rule 1. The margin is Hoeffding's, for both sides."""
    if not bits.size:
        return
    margin = tolerated + math.sqrt(math.log(2 / FALSE_ALARM) / (2 * bits.size))
    share = ones(bits) / bits.size
    if abs(share - expected) > margin:
        detail = f"{what}: a share of {share:.4f} where {expected:.4f} is expected"
        raise AbortError(Reason.BIAS, detail)
