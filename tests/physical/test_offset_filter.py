"""The filter of clock comparisons: what it makes of clocks that are as it takes them to be."""

import math

import numpy as np
import pytest

from qstack.physical.offset_filter import OffsetFilter

SECOND = 1_000_000_000


def filter_of(reading_ps: float = 10.0, rate_ppb: float = 20.0, **more: float) -> OffsetFilter:
    fields = {"wander_ps": 0.0, "rate_wander_ppb": 0.0, "step_sigmas": 8.0} | more
    return OffsetFilter(rate_deviation_ppb=rate_ppb, reading_variance_ps2=reading_ps**2, **fields)


def test_before_the_first_comparison_nothing_is_known() -> None:
    assert filter_of().deviation_ps(0) == math.inf


def test_one_comparison_gives_the_offset_and_the_data_sheet_the_rate() -> None:
    known = filter_of(reading_ps=10.0, rate_ppb=20.0)
    assert known.compare(5 * SECOND, 1e12 + 7.0)
    assert known.offset_ps(5 * SECOND) == 1e12 + 7.0
    assert known.rate_ppb == 0.0
    assert known.deviation_ps(5 * SECOND) == 10.0
    assert known.deviation_ps(8 * SECOND) == pytest.approx(math.hypot(10.0, 3 * 20_000.0))


def test_two_exact_comparisons_give_the_rate_and_where_the_clock_will_be() -> None:
    known = filter_of(reading_ps=1e-3)
    for second in (0, 2):
        assert known.compare(second * SECOND, 500.0 + 4_000.0 * second)
    assert known.rate_ppb == pytest.approx(4.0, rel=1e-6)
    assert known.offset_ps(10 * SECOND) == pytest.approx(40_500.0, rel=1e-6)


def test_many_comparisons_are_worth_the_regression_of_all_of_them() -> None:
    """Without wander the filter is least squares, whose deviations have a closed form."""
    times_s = np.arange(40.0)
    rng = np.random.default_rng(5)
    readings = 100.0 + 3_000.0 * times_s + 10.0 * rng.standard_normal(40)
    known = filter_of(reading_ps=10.0, rate_ppb=1e4)
    for time_s, reading in zip(times_s, readings, strict=True):
        assert known.compare(int(time_s) * SECOND, float(reading))
    slope, _ = np.polyfit(times_s, readings, 1)
    assert known.rate_ppb * 1000.0 == pytest.approx(slope, rel=1e-5)
    spread = float(((times_s - times_s.mean()) ** 2).sum())
    expected = 10.0 * math.sqrt(1 / 40 + (49.0 - times_s.mean()) ** 2 / spread)
    assert known.deviation_ps(49 * SECOND) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("wander", [{"wander_ps": 3.0}, {"rate_wander_ppb": 1e-3}])
def test_wander_makes_the_uncertainty_grow_as_its_integral(wander: dict[str, float]) -> None:
    known = filter_of(reading_ps=1e-6, rate_ppb=0.0, **wander)
    known.compare(0, 0.0)
    expected = 3.0 * math.sqrt(9.0) if "wander_ps" in wander else math.sqrt(9.0**3 / 3.0)
    assert known.deviation_ps(9 * SECOND) == pytest.approx(expected, rel=1e-6)


def test_a_step_is_noticed_and_the_offset_begins_anew_from_it_with_the_rate_as_it_was() -> None:
    known = filter_of(reading_ps=10.0)
    for second in range(5):
        assert known.compare(second * SECOND, 2_000.0 * second)
    rate_ppb = known.rate_ppb
    assert not known.compare(5 * SECOND, 10_000.0 + 500.0)
    assert known.steps == 1
    assert known.rate_ppb == rate_ppb
    assert known.offset_ps(5 * SECOND) == 10_500.0
    assert known.compare(6 * SECOND, 12_500.0)
    assert known.steps == 1


def test_one_begun_anew_knows_nothing_of_before() -> None:
    known = filter_of()
    known.compare(0, 100.0)
    again = known.anew()
    assert again.deviation_ps(0) == math.inf
    assert again.comparisons == 0
