"""Bits, bases and slots of many pairs as bytes, and everything that is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import ValidationError, msgpack

from qstack.wire.message import BasisChoice, BasisProbabilities
from qstack.wire.packed import (
    BASES,
    draw_bases,
    fixed_code,
    pack_bases,
    pack_bits,
    pack_slots,
    unpack_bases,
    unpack_bits,
    unpack_slots,
)


@given(st.lists(st.integers(0, 2), max_size=40))
def test_bases_come_back_as_they_went(codes: list[int]) -> None:
    packed = pack_bases(np.array(codes, dtype=np.uint8))
    assert len(packed) == -(-len(codes) // 4)
    assert unpack_bases(packed, len(codes)).tolist() == codes


@given(st.lists(st.integers(0, 1), max_size=40))
def test_bits_come_back_as_they_went(bits: list[int]) -> None:
    assert unpack_bits(pack_bits(np.array(bits, dtype=np.uint8)), len(bits)).tolist() == bits


@given(st.sets(st.integers(0, 2**32 - 1)), st.integers(0, 2**53))
def test_slots_come_back_as_they_went(offsets: set[int], first: int) -> None:
    slots = np.array(sorted(offsets), dtype=np.int64) + first
    assert unpack_slots(pack_slots(slots, first), first).tolist() == slots.tolist()


def test_the_first_pair_is_in_the_highest_bits() -> None:
    assert pack_bits(np.array([1, 0, 0], dtype=np.uint8)) == b"\x80"
    assert pack_bases(np.array([2, 1], dtype=np.uint8)) == b"\x90"
    assert pack_slots(np.array([7, 300], dtype=np.int64), 6) == b"\0\0\0\x01\0\0\x01\x26"


def test_other_lengths_codes_and_orders_are_refused() -> None:
    for data, count in ((b"", 1), (b"\0\0", 8), (b"\0", 9)):
        with pytest.raises(ValueError, match="bytes"):
            unpack_bits(data, count)
    with pytest.raises(ValueError, match="bytes"):
        unpack_bases(b"\0", 5)
    with pytest.raises(ValueError, match="0, 1 or 2"):
        unpack_bases(b"\xc0", 1)
    with pytest.raises(ValueError, match="whole number"):
        unpack_slots(b"\0\0\0", 0)
    for data in (b"\0\0\0\1\0\0\0\1", b"\0\0\0\2\0\0\0\1"):
        with pytest.raises(ValueError, match="ascend"):
            unpack_slots(data, 0)


@pytest.mark.parametrize("slot", [4, 2**32 + 5])
def test_slots_before_the_first_or_too_far_behind_it_are_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="before 5, or too far"):
        pack_slots(np.array([slot]), 5)


def test_bases_are_drawn_with_their_probabilities() -> None:
    """Each count within 5.2 standard deviations: false alarm below 1e-6 for the three."""
    choice = BasisProbabilities(0.1, 0.2, 0.7)
    codes = draw_bases(np.random.default_rng(1), choice, 100_000)
    for code, probability in enumerate((0.1, 0.2, 0.7)):
        deviation = np.sqrt(100_000 * probability * (1 - probability))
        assert abs(int((codes == code).sum()) - 100_000 * probability) < 5.2 * deviation


@pytest.mark.parametrize("only", [0, 1, 2])
def test_a_basis_without_probability_is_never_drawn(only: int) -> None:
    choice = BasisProbabilities(*(float(place == only) for place in range(3)))
    assert set(draw_bases(np.random.default_rng(2), choice, 1000).tolist()) == {only}


def test_a_choice_is_a_letter_or_three_probabilities_that_sum_to_1() -> None:
    for good in (
        "X",
        "Y",
        "Z",
        BasisProbabilities(0.5, 0.0, 0.5),
        BasisProbabilities(0.1, 0.2, 0.7),
    ):
        assert msgpack.decode(msgpack.encode(good), type=BasisChoice) == good
    assert [fixed_code(basis) for basis in BASES] == [0, 1, 2]
    assert fixed_code(BasisProbabilities(0.5, 0.0, 0.5)) is None
    for bad in ("W", [0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0], [1.5, -0.5, 0.0], 1, None):
        with pytest.raises(ValidationError):
            msgpack.decode(msgpack.encode(bad), type=BasisChoice)
    with pytest.raises(ValueError, match=r"sum to 0\.9; expected 1"):
        BasisProbabilities(0.2, 0.2, 0.5)
