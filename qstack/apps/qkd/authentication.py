"""Tags: that a message is the peer's, and that both ends saw the same conversation.

*Wegman-Carter tag* (information-theoretic): Poly1305 with r from the pre-shared secret and s used
once. Poly1305 adds s to the hash modulo 2^128, so a fresh s is a one-time pad of the hash, and r
may stay for a while (Wegman, Carter, J. Comput. Syst. Sci. 22, 265 (1981); Bernstein, FSE 2005).
It is computed over the transcript itself: over a digest of it, it would be as strong as the digest.

*Message code* (computational): HMAC-SHA256 under a key of the pre-shared secret, so that what is
not the peer's is thrown out at once. No key depends on it.
"""

import hmac
from typing import Final

from cryptography.hazmat.primitives.poly1305 import Poly1305

TAG_BYTES: Final = 16
TAG_BITS: Final = 8 * TAG_BYTES
HASH_KEY_BYTES: Final = 16
BLOCK_BYTES: Final = 16  # of Poly1305


def collision_bound(length_bytes: int) -> float:
    """The chance that one forged tag, or hash of two differing texts, fits: 8 ceil(L/16) / 2^106.

    Bernstein, FSE 2005, theorem 3.3, for one attempt.
    """
    return 8 * -(-length_bytes // BLOCK_BYTES) / 2.0**106


def one_time_tag(hash_key: bytes, pad: bytes, data: bytes) -> bytes:
    """The Wegman-Carter tag of `data`. `pad` must never be used again."""
    return Poly1305.generate_tag(hash_key + pad, data)


def message_code(key: bytes, *, sender: str, receiver: str, data: bytes) -> bytes:
    """16 bytes that only the holders of `key` can make, bound to the direction."""
    direction = f"{sender}>{receiver}\n".encode()
    return hmac.digest(key, b"qstack qkd message\n" + direction + data, "sha256")[:TAG_BYTES]


def is_equal(tag: bytes, expected: bytes) -> bool:
    """Comparison in a time that tells nothing."""
    return hmac.compare_digest(tag, expected)
