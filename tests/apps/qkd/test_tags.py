"""Tags and hashes: known values, directions, bounds."""

import numpy as np
from cryptography.hazmat.primitives.poly1305 import Poly1305

from qstack.apps.qkd.authentication import (
    collision_bound,
    is_equal,
    message_code,
    one_time_tag,
)
from qstack.apps.qkd.verification import undetected_bound, verification_hash

KEY = bytes(range(32))


def test_the_one_time_tag_is_poly1305_of_rfc_8439():
    # RFC 8439, section 2.5.2.
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    tag = one_time_tag(key[:16], key[16:], b"Cryptographic Forum Research Group")
    assert tag.hex() == "a8061dc1305136c6c22b8baf0c0127a9"


def test_the_pad_hides_the_hash_and_nothing_else():
    def difference(pad):
        first, second = (
            int.from_bytes(one_time_tag(KEY[:16], pad, text), "little") for text in (b"a", b"b")
        )
        return (first - second) % 2**128

    assert difference(KEY[:16]) == difference(KEY[16:])


def test_a_message_code_is_bound_to_direction_key_and_bytes():
    code = message_code(KEY, sender="a", receiver="b", data=b"x")
    assert len(code) == 16
    assert not is_equal(code, message_code(KEY, sender="b", receiver="a", data=b"x"))
    assert not is_equal(code, message_code(KEY, sender="a", receiver="b", data=b"y"))
    assert not is_equal(code, message_code(KEY[::-1], sender="a", receiver="b", data=b"x"))
    assert is_equal(code, message_code(KEY, sender="a", receiver="b", data=b"x"))


def test_the_verification_hash_is_of_the_packed_bits_without_a_pad():
    bits = np.ones(20, dtype=np.uint8)
    expected = Poly1305.generate_tag(KEY[:16] + bytes(16), b"\xff\xff\xf0")
    assert verification_hash(bits, KEY[:16]) == expected


def test_each_single_difference_is_seen():
    # 300 differences, each unseen with probability below 2^-98.
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, 300, dtype=np.uint8)
    choice = rng.bytes(16)
    right = verification_hash(bits, choice)
    for place in range(300):
        wrong = bits.copy()
        wrong[place] ^= 1
        assert verification_hash(wrong, choice) != right


def test_bounds_are_bernsteins():
    assert collision_bound(2**20) == 2.0**-87
    assert collision_bound(17) == 2 * collision_bound(16) == 16 / 2.0**106
    assert undetected_bound(2**20, 1) == 2.0**-90
    assert undetected_bound(2**20, 8) == 2.0**-87
