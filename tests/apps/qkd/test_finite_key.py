"""The bound against exact integers, and against nonsense."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstack.apps.qkd.finite_key import (
    binary_entropy,
    declare_grid,
    key_length,
    sampling_margin,
    tolerated_count,
)

RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.10)
LENGTHS = {
    10**4: (5466, 4899, 3888, 2980, 1364, 0, 0),
    3 * 10**4: (20318, 18503, 15273, 12374, 7225, 623, 0),
    10**5: (76848, 70437, 59064, 48897, 30931, 8004, 0),
    10**6: (856150, 786758, 665169, 557668, 369400, 131074, 0),
    10**7: (8883579, 8159988, 6907225, 5807947, 3892337, 1476658, 81243),
    10**8: (89935887, 82573503, 69906743, 58828299, 39560360, 15296446, 1289624),
}
CASES = (
    ((20000, 20000, 200, 1700, 128, 1e-10), 0.0494098835238, 11603),
    ((1000000, 100000, 3000, 205000, 128, 1e-10), 0.0163870767234, 523958),
    ((1000000, 1000000, 50000, 310000, 128, 1e-12), 0.00761805020912, 371876),
    ((1048576, 1048576, 31457, 210000, 128, 1e-9), 0.00649389556683, 601433),
    ((10000000, 1000000, 20000, 1500000, 64, 1e-10), 0.00518202534474, 6803649),
    ((5000, 5000, 100, 800, 128, 1e-10), 0.0988271778816, 1375),
    ((100000, 100000, 11000, 53000, 128, 1e-10), 0.0220963297461, 0),
)
EFFICIENCIES = ((1.00, 398040), (1.03, 389448), (1.05, 383720), (1.10, 369400), (1.16, 352216),
                (1.22, 335032), (1.40, 283481))  # fmt: skip


def length(n, rate, efficiency=1.10, eps_sec=1e-10):
    leak = math.ceil(round(efficiency * n * binary_entropy(rate), 6))
    return key_length(n=n, k=n, errors=round(rate * n), leak=leak, tag=128, eps_sec=eps_sec)


@pytest.mark.parametrize("n", LENGTHS)
def test_lengths_are_those_of_the_table(n):
    for rate, expected in zip(RATES, LENGTHS[n], strict=True):
        assert abs(length(n, rate) - expected) <= 1


@pytest.mark.parametrize(("arguments", "margin", "expected"), CASES)
def test_margins_and_lengths_are_those_of_the_cases(arguments, margin, expected):
    n, k, errors, leak, tag, eps_sec = arguments
    assert sampling_margin(n, k, eps_sec) == pytest.approx(margin, rel=1e-11)
    got = key_length(n=n, k=k, errors=errors, leak=leak, tag=tag, eps_sec=eps_sec)
    assert abs(got - expected) <= 1


@pytest.mark.parametrize(("efficiency", "expected"), EFFICIENCIES)
def test_less_disclosed_is_more_key(efficiency, expected):
    assert abs(length(10**6, 0.05, efficiency) - expected) <= 1


@pytest.mark.parametrize(
    ("rate", "eps_sec", "n"),
    [(0.01, 1e-10, 1190), (0.02, 1e-10, 1546), (0.03, 1e-10, 2041), (0.05, 1e-10, 3986),
     (0.08, 1e-10, 22246), (0.09, 1e-10, 73257), (0.05, 1e-6, 2741), (0.08, 1e-6, 14475)],
)  # fmt: skip
def test_the_smallest_block_with_a_key_is_where_it_should_be(rate, eps_sec, n):
    # The table of smallest blocks lets errors be a fraction; whole errors move it by a few bits.
    assert length(round(n * 1.02), rate, eps_sec=eps_sec) > 0
    assert length(round(n * 0.98), rate, eps_sec=eps_sec) == 0


GOOD = {"n": 10**5, "k": 10**5, "errors": 1000, "leak": 9000, "tag": 128, "eps_sec": 1e-10}


@pytest.mark.parametrize("field", GOOD)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 1e300, 2**2000])
def test_nonsense_gives_no_key(field, value):
    assert key_length(**GOOD) > 0
    assert key_length(**{**GOOD, field: value}) == 0


@pytest.mark.parametrize(
    "change",
    [{"n": 0}, {"k": 0}, {"n": 0, "k": 0}, {"errors": 50_000}, {"errors": 100_001},
     {"leak": 10**5}, {"eps_sec": 0}, {"eps_sec": 1}, {"eps_sec": 5e-324, "n": 400, "k": 400},
     {"n": 1, "k": 1, "errors": 0, "leak": 0}],
)  # fmt: skip
def test_the_edges_give_no_key(change):
    assert key_length(**{**GOOD, **change}) == 0


def test_no_error_at_all_gives_less_than_all_bits():
    assert 0 < key_length(**{**GOOD, "errors": 0, "leak": 0}) < 10**5


@given(
    n=st.floats(), k=st.floats(), errors=st.floats(), leak=st.floats(), tag=st.floats(),
    eps_sec=st.floats(),
)  # fmt: skip
def test_any_floats_give_a_length_within_the_bits(n, k, errors, leak, tag, eps_sec):
    got = key_length(n=n, k=k, errors=errors, leak=leak, tag=tag, eps_sec=eps_sec)
    assert got == 0 or 0 < got <= n


def test_entropy_is_one_from_one_half_on():
    assert binary_entropy(0) == 0
    assert [binary_entropy(p) for p in (0.5, 0.7, 1, 2, -0.1, math.nan)] == [1.0] * 6
    assert binary_entropy(0.11) == pytest.approx(0.499916, abs=1e-6)


def test_a_grid_shares_the_probability_among_its_rows_and_leaves_out_what_gives_nothing():
    grid = declare_grid(
        n=10**4, k=10**4, tolerated_errors=(0.05, 0.01, 0.2), efficiency=1.1, tag=128, eps_sec=1e-10
    )
    assert [row.tolerated_error for row in grid] == [0.01, 0.05]
    assert grid[0].key_bits > grid[1].key_bits
    row = grid[0]
    alone = key_length(n=10**4, k=10**4, errors=100, leak=row.leak_bits_max, tag=128, eps_sec=1e-10)
    half = key_length(
        n=10**4, k=10**4, errors=100, leak=row.leak_bits_max, tag=128, eps_sec=1e-10 / 2
    )
    assert row.key_bits == half < alone


def test_a_tolerated_rate_is_rounded_down_to_errors():
    assert tolerated_count(0.019999, 100) == 1
