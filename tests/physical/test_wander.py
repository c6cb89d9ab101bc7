"""Clocks whose rates change, drawn exactly and lazily; comparing them; asymmetry measured."""

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical.clock_hardware import ClockHardware
from qstack.physical.fabric.chance import Chance
from qstack.physical.fabric.wander import KNOT_NS, SPAN_NS, Wander
from qstack.physical.hardware import World
from tests.physical.test_time_sync import MS, SECOND, TimedBench, clock, timed_world
from tests.physical.worlds import chi_square_limit

DAY_NS = 86_400 * SECOND


def ageing(ageing: float = 0.0, wander: float = 0.0, **changes: Any) -> ClockHardware:
    return replace(clock(**changes), ageing_ppb_per_day=ageing, rate_wander_ppb_per_root_day=wander)


# --- the random walk ------------------------------------------------------------------------------


def test_what_was_asked_before_does_not_matter() -> None:
    times = [5, 3 * SECOND + 7, DAY_NS, 40 * SECOND, KNOT_NS, 3 * SECOND + 8, 2 * SPAN_NS]
    alone = [Wander(Chance(4), "a", 1e-3).error_ps(at_ns) for at_ns in times]
    together = Wander(Chance(4), "a", 1e-3)
    assert [together.error_ps(at_ns) for at_ns in times] == alone
    assert [together.error_ps(at_ns) for at_ns in reversed(times)] == alone[::-1]
    assert alone != [Wander(Chance(4), "b", 1e-3).error_ps(at_ns) for at_ns in times]
    assert Wander(Chance(4), "a", 1e-3).error_ps(0) == 0.0


def test_it_is_the_integral_of_a_brownian_motion() -> None:
    """Over 80 clocks: x at s and t has the covariance q s^2 (3t - s) / 6, of any two times.

    Whitened with the exact covariance the values are standard normal: chi-square within 1e-6 (both
    sides). A walk of phase (variance growing with t) would be off by orders of magnitude.
    """
    times_s = np.array([0.5, 1.0, 1.5, 20.0, 20.5, 1000.0, 86_400.0])
    early, late = np.minimum.outer(times_s, times_s), np.maximum.outer(times_s, times_s)
    root_s_ppb = 2e-3
    covariance = (1000.0 * root_s_ppb) ** 2 * early**2 * (3.0 * late - early) / 6.0
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    squares, products = np.zeros(len(times_s)), []
    for seed in range(80):
        wander = Wander(Chance(seed), "a", root_s_ppb)
        errors = np.array([wander.error_ps(round(s * 1e9)) for s in times_s])
        white = whitening @ errors
        squares += white**2
        products.append(white[:-1] * white[1:])
    assert squares.max() < chi_square_limit(80)
    assert squares.min() > 80 - 5.5 * math.sqrt(160)
    assert np.abs(np.sum(products, axis=0)).max() < 6.5 * math.sqrt(80)


def test_between_knots_it_goes_on_smoothly() -> None:
    wander = Wander(Chance(1), "a", 1e-2)
    for knot in (KNOT_NS * 1000, KNOT_NS * 1024):
        before, at, after = (wander.error_ps(knot + d) for d in (-1000, 0, 1000))
        assert before != at != after
        assert abs(after - 2 * at + before) < 1e-6


# --- ageing and comparisons -----------------------------------------------------------------------


def test_ageing_grows_with_the_square_of_the_time() -> None:
    old = ageing(2.0, drift_ppb=3.0, offset_ps=7.0)
    expected_s = 7e-12 + 3e-9 * 86_400.0 + 2e-9 * 86_400.0 / 2.0
    assert old.error_ps(DAY_NS) * 1e-12 == pytest.approx(expected_s)
    assert old.error_ps(0) == 7.0
    assert old.change_ppb_per_s == pytest.approx(2.0 / 86_400.0)


@pytest.mark.soak
def test_comparisons_follow_a_clock_that_ages_and_one_that_wanders() -> None:
    """Later 100 s at a time: the estimate is within 6 of its deviations, as jitter leaves it.

    An estimate of the rate from the beginning alone would be 100 ns off by then.
    """
    fast = ageing(500.0, 30.0, offset_ps=0.0, drift_ppb=0.0, jitter_ps=10.0)
    bench = TimedBench(timed_world(fast, clock(5e6, -4.0, 10.0)))
    bench.run(100 * SECOND)
    rates = [bench.clocks("b")["rate_ppb"]]
    for until_s in range(200, 1001, 100):
        bench.run(until_s * SECOND - MS)
        follower = bench.nodes["b"]._time_sync._links["a"].filter
        assert abs(bench.delay_ps()) < 6.0 * follower.deviation_ps(bench.now)
        rates.append(bench.clocks("b")["rate_ppb"])
    assert bench.clocks("b")["steps"] == 0
    drifted_ppb = 500.0 * 900.0 / 86_400.0
    assert rates[0] - rates[-1] > drifted_ppb / 2
    assert drifted_ppb * 1e3 * 900 / 2 > 100 * 100 * follower.deviation_ps(bench.now)


def test_who_knows_of_no_wander_is_surer_than_right() -> None:
    """The filter allows for what data sheets say: its deviation is larger, and errors fit it.

    Squared errors by their variances, over 20 seeds: within the chi-square's 1e-6 limits; the same
    errors by the variance for steady clocks exceed it.
    """
    squares, wrong = 0.0, 0.0
    wild, calm = ageing(0.0, 3000.0, jitter_ps=5.0), clock(0.0, 0.0, 5.0)
    surely = TimedBench(timed_world(calm, calm))
    surely.run(20 * SECOND - MS)
    sure_ps = surely.nodes["b"]._time_sync._links["a"].filter.deviation_ps(surely.now)
    for seed in range(20):
        bench = TimedBench(timed_world(wild, calm), seed=seed)
        bench.run(20 * SECOND - MS)
        follower = bench.nodes["b"]._time_sync._links["a"].filter
        squares += (bench.delay_ps() / follower.deviation_ps(bench.now)) ** 2
        wrong += (bench.delay_ps() / sure_ps) ** 2
    assert 2.2 < squares < chi_square_limit(20)
    assert wrong > 100 * chi_square_limit(20)


@pytest.mark.parametrize(("measured_ps", "left_ps"), [(600.0, 0.0), (400.0, 100.0), (0.0, 300.0)])
def test_an_asymmetry_that_was_measured_is_taken_off(measured_ps: float, left_ps: float) -> None:
    """Half of what is not known of it is left, whoever looks."""
    world = timed_world(clock(4_000.0), clock(-1e9), 600.0)
    (link,) = world.links.values()
    assert link.timing is not None
    timing = replace(link.timing, measured_asymmetry_ps=measured_ps)
    known = World(nodes=world.nodes, links={link.id: replace(link, timing=timing)})
    bench = TimedBench(known)
    bench.run(5 * SECOND)
    assert bench.delay_ps() == pytest.approx(left_ps, abs=1e-3)
    assert bench.clocks("b")["offset_ps"] == pytest.approx(-1e9 - 4_000.0 + left_ps, abs=1e-3)
    turned = timing.turned()
    assert (turned.asymmetry_ps, turned.measured_asymmetry_ps) == (-600.0, -measured_ps)
    assert link.timing.turned().measured_asymmetry_ps is None
