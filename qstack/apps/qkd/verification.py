"""Whether the corrected bits are equal: a Poly1305 hash with a public r chosen after correction.

Two different strings of L bytes have equal hashes with probability 8 ceil(L/16) / 2^106 at most,
whatever they are, because r was not known when they became what they are. The hash discloses 128
bits of the key each time; it is not truncated, as no bound is proven for a part of it.
"""

from typing import Final

from cryptography.hazmat.primitives.poly1305 import Poly1305

from qstack.apps.qkd.authentication import BLOCK_BYTES, TAG_BITS, collision_bound
from qstack.apps.qkd.bits import Bits, pack

LEAK_BITS: Final = TAG_BITS


def verification_hash(bits: Bits, choice: bytes) -> bytes:
    """16 bytes, with r = `choice` (16 bytes; Poly1305 fixes 22 of its bits) and s = 0."""
    return Poly1305.generate_tag(choice + bytes(BLOCK_BYTES), pack(bits))


def undetected_bound(bits: int, attempts: int) -> float:
    """The chance that in so many attempts a difference between keys of `bits` is not seen."""
    return attempts * collision_bound(-(-bits // 8))
