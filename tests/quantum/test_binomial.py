"""Exact binomial statements: against sums done by hand, and as bounds of one another."""

from math import comb

import numpy as np
import pytest

from qstack.quantum.binomial import exact_interval, low_tail, upper_bound


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.93, 1.0])
@pytest.mark.parametrize("trials", [0, 1, 7, 40])
def test_a_tail_is_the_sum_of_its_terms(trials: int, share: float) -> None:
    for successes in range(trials + 1):
        terms = (comb(trials, k) * share**k * (1 - share) ** (trials - k)
                 for k in range(successes + 1))  # fmt: skip
        assert low_tail(successes, trials, share) == pytest.approx(sum(terms), abs=1e-12)


def test_a_tail_too_small_for_powers_is_still_a_number() -> None:
    assert low_tail(0, 700, 0.6) == pytest.approx(0.4**700, rel=1e-9)


def test_a_bound_is_where_the_tail_is_what_was_asked_for() -> None:
    for successes, trials, tail in ((0, 1, 0.05), (45, 48, 2e-7), (300, 768, 0.025)):
        bound = upper_bound(successes, trials, tail)
        assert low_tail(successes, trials, bound) == pytest.approx(tail, rel=1e-9)
    assert upper_bound(5, 5, 0.01) == pytest.approx(1.0)


def test_the_interval_of_a_known_table() -> None:
    # Clopper and Pearson for 10 of 20 at 95 %: 0.272 to 0.728.
    assert exact_interval(10, 20, 0.95) == pytest.approx((0.2720, 0.7280), abs=1e-4)
    assert exact_interval(0, 0, 0.95) == pytest.approx((0.0, 1.0))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    # 2000 intervals of at least 95 % each: fewer than 1840 within has a probability below 1e-6.
    counts = np.random.default_rng(5).binomial(100, 0.88, size=2000).tolist()
    intervals = {count: exact_interval(count, 100, 0.95) for count in dict.fromkeys(counts)}
    held = sum(intervals[count][0] <= 0.88 <= intervals[count][1] for count in counts)
    assert held >= 1840


@pytest.mark.parametrize(("successes", "trials", "share"), [(3, 2, 0.5), (-1, 2, 0.5), (1, 2, 1.5)])
def test_what_is_no_count_or_no_probability_is_refused(
    successes: int, trials: int, share: float
) -> None:
    for function in (low_tail, upper_bound):
        with pytest.raises(ValueError, match=r"trials|probability"):
            function(successes, trials, share)
