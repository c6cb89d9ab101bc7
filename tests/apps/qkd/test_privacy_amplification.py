"""The modified Toeplitz product against its definition and against fixed digests."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstack.apps.qkd.bits import pack, unpack
from qstack.apps.qkd.privacy_amplification import RoundingError, amplify, parities

DIGESTS = (
    (1000, 400, "93be1d127227d5e649274e793baf6d5deba736840930ecefebad0097e0b9c6d7"),
    (4096, 1500, "23dd638b5b8da86cf0847a84f6a39fbdf9af33df96769e06d05f2018290e9b5b"),
    (100000, 37000, "b1c66b39af62c21cf892db26c9ba3d2a0cf16b78100d4c28972509a4da4b117a"),
    (2**20, 500000, "0a1311f76e0c627e5dff150f9c6eaa5d5af2d392c53f2e1f36fdf4b4b0a46fb3"),
)


def stream(label: bytes, count: int):
    blocks = (
        hashlib.sha256(label + i.to_bytes(4, "big")).digest() for i in range(-(-count // 256))
    )
    return np.unpackbits(np.frombuffer(b"".join(blocks), dtype=np.uint8))[:count]


def by_definition(key, seed, length):
    """The dense matrix over GF(2)."""
    k = key.size - length
    i, j = np.indices((length, k))
    matrix = seed[i - j + k - 1] if k else np.zeros((length, 0), dtype=np.uint8)
    return (matrix.astype(np.int64) @ key[:k] % 2).astype(np.uint8) ^ key[k:]


def test_the_shortest_vector():
    assert pack(amplify(stream(b"key", 64), stream(b"seed", 63), 24)).hex() == "c2e4ef"


@pytest.mark.parametrize(("n", "length", "digest"), DIGESTS)
def test_digests_are_those_of_the_vectors(n, length, digest):
    out = pack(amplify(stream(b"key", n), stream(b"seed", n - 1), length))
    assert hashlib.sha256(out).hexdigest() == digest


@given(st.data())
def test_it_is_the_matrix_product_for_all_shapes_and_chunks(data):
    n = data.draw(st.integers(1, 200))
    length = data.draw(st.integers(1, n))
    chunk = 2 ** data.draw(st.integers(0, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    key, seed = (rng.integers(0, 2, size, dtype=np.uint8) for size in (n, n - 1))
    expected = by_definition(key, seed, length)
    assert (amplify(key, seed, length, chunk_max=chunk) == expected).all()


def test_the_longest_sums_stay_exact():
    # All ones: every sum is as large as it can be, and known.
    n, length = 2**18, 2**10
    out = amplify(np.ones(n, dtype=np.uint8), np.ones(n - 1, dtype=np.uint8), length)
    assert (out == ((n - length) % 2) ^ 1).all()


@pytest.mark.parametrize("seed_bits", [0, 98, 100, 200])
def test_a_seed_of_another_length_is_refused(seed_bits):
    with pytest.raises(ValueError, match="seed"):
        amplify(stream(b"key", 100), stream(b"seed", seed_bits), 10)


@pytest.mark.parametrize("length", [-1, 0, 101])
def test_a_length_that_cannot_be_is_refused(length):
    with pytest.raises(ValueError, match="cannot be made"):
        amplify(stream(b"key", 100), stream(b"seed", 99), length)


def test_what_are_no_bits_is_refused():
    key, seed = stream(b"key", 100), stream(b"seed", 99)
    with pytest.raises(ValueError, match="uint8"):
        amplify(key * np.uint8(2), seed, 10)
    with pytest.raises(ValueError, match="uint8"):
        amplify(key.astype(np.float64), seed, 10)


@pytest.mark.parametrize("value", [0.25, 0.5, 7.3, np.nan, np.inf])
def test_a_sum_that_is_no_integer_ends_it(value):
    with pytest.raises(RoundingError), np.errstate(invalid="ignore"):
        parities(np.array([1.0, value, 2.0]))


def test_sums_near_integers_are_their_lowest_bits():
    assert parities(np.array([0.0, 1.2, 1.8, -0.1, 1e6 + 1])).tolist() == [0, 1, 0, 0, 1]


@given(st.binary(max_size=40), st.integers(0, 400))
def test_packed_bits_have_one_form(packed, count):
    try:
        bits = unpack(packed, count)
    except ValueError:
        assert len(packed) != -(-count // 8) or count % 8
    else:
        assert pack(bits) == packed
        assert bits.size == count
