"""Counting test rounds: how often an honest option alarms, how soon a bad one does, and after.

The first two are not sampled: the chance of every count at every look is summed exactly.
"""

import math
from bisect import bisect_left
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.link.estimation import WINDOW_ROUNDS, Counts, OptionEstimate, Verdict, lowered
from qstack.link.params import FALSE_ALARM, LOOKS
from qstack.physical.service import GenerationOption, MeasuredForecast, RoundForecast
from qstack.quantum.binomial import low_tail
from tests.link.bench import GOOD, forecast

ION = GenerationOption(  # two ions over 10 km, as the packaged pair is predicted
    bright_state=None, probability=0.01, cycle_ns=1000, measure_cycle_ns=500,
    bell_probabilities=[0.9741, 0.01, 0.0079, 0.008],
    test_round=RoundForecast(0.98077, 0.97764, 0.99589, 6_588_968),
)  # fmt: skip


def share_of(option: GenerationOption, fidelity: float) -> float:
    """Of rounds that agree when pairs are of this fidelity."""
    shows = option.test_round
    assert shows is not None
    return shows.agreement + 2 / 3 * (fidelity - option.bell_probabilities[0]) * shows.gain


def alarms_by(option: GenerationOption, share: float) -> list[float]:
    """The probability of an alarm at each look or before, if this share of rounds agrees."""
    shows = option.test_round
    assert shows is not None
    alive = np.array([1.0])  # by agreeing rounds, without an alarm so far
    alarmed, found, done = 0.0, [], 0
    for look in LOOKS:
        for _ in range(look - done):
            alive = np.append(alive * (1 - share), 0.0) + np.append(0.0, alive * share)
        done = look
        tails = np.array([low_tail(k, look, shows.least) for k in range(look + 1)])
        is_alarm = tails < FALSE_ALARM / len(LOOKS)
        alarmed += float(alive[is_alarm].sum())
        alive = np.where(is_alarm, 0.0, alive)
        found.append(alarmed)
    return found


def fed(estimate: OptionEstimate, share: float, rounds: int, seed: int) -> list[Verdict]:
    """What rounds lead to of which this share agrees, bases as they come."""
    source = np.random.default_rng(seed)
    bases = source.integers(0, 3, rounds).tolist()
    found = [
        estimate.add(basis, 0, agrees=agrees)
        for basis, agrees in zip(bases, (source.random(rounds) < share).tolist(), strict=True)
    ]
    return [verdict for verdict in found if verdict is not None]


@pytest.mark.parametrize("option", [GOOD, ION])
def test_an_honest_option_alarms_in_a_window_with_at_most_the_stated_probability(
    option: GenerationOption,
) -> None:
    shows = option.test_round
    assert shows is not None
    assert alarms_by(option, shows.least)[-1] <= FALSE_ALARM, "however late it is read"


@pytest.mark.parametrize("rounds", [[400, 0, 368], [7, 0, 761], [256, 256, 256], [0, 0, 5000]])
def test_an_honest_option_alarms_as_rarely_by_pairs_measured_in_unlike_bases(
    rounds: list[int],
) -> None:
    measured = MeasuredForecast([0.99, 0.9, 0.75], 0.9)
    estimate = OptionEstimate(replace(ION, measured_round=measured), "measure")
    honest = np.array([1.0])  # by agreeing rounds: each basis has its own probability
    for number, share in zip(rounds, measured.agreements, strict=True):
        honest = np.convolve(honest, binomial(number, share))
    estimate.window = Counts(rounds, [0, 0, 0])
    fewest = bisect_left(range(sum(rounds)), True, key=lambda k: not is_alarm(estimate, k))
    assert fewest > 0, "so few would be an alarm"
    assert honest[:fewest].sum() <= FALSE_ALARM / len(LOOKS)


def binomial(number: int, share: float) -> Any:
    """The probability of each count; exact but for rounding."""
    counts = np.arange(number + 1)
    logs = [math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1)
            for k in counts]  # fmt: skip
    return np.exp(np.array(logs) + counts * math.log(share) + counts[::-1] * math.log1p(-share))


def is_alarm(estimate: OptionEstimate, agreeing: int) -> bool:
    estimate.window.agreeing[2] = agreeing
    promised = estimate.promised.bell_probabilities[0]
    return estimate._tail(promised) < FALSE_ALARM / len(LOOKS)


def test_many_rounds_at_once_are_judged_like_one_after_the_other() -> None:
    option = replace(ION, measured_round=MeasuredForecast([0.98] * 3, 1.0))
    at_once, singly = (OptionEstimate(option, "measure") for _ in range(2))
    assert at_once.add_all(Counts([0, 0, 47], [0, 0, 30]), 5) is None
    verdicts = [singly.add(2, 5, agrees=place < 30) for place in range(47)]
    assert verdicts == [None] * 47
    assert at_once.add_all(Counts([0, 0, 900], [0, 0, 500]), 5) is Verdict.LOWERED
    assert at_once.offered == pytest.approx(0.9741 + 1.5 * (530 / 947 - 0.98))
    assert (at_once.window.total, at_once.before.total) == (0, 947)


@pytest.mark.parametrize(
    ("option", "fidelity", "rounds"),
    [  # by when nearly all alarm (99 %): a table of the power
        (ION, 0.50, 96), (ION, 0.70, 192), (ION, 0.80, 384), (ION, 0.85, 768), (ION, 0.875, 768),
        (GOOD, 0.50, 192), (GOOD, 0.70, 384), (GOOD, 0.75, 768),
    ],
)  # fmt: skip
def test_an_option_worse_than_promised_alarms_within_the_predicted_rounds(
    option: GenerationOption, fidelity: float, rounds: int
) -> None:
    power = dict(zip(LOOKS, alarms_by(option, share_of(option, fidelity)), strict=True))
    assert power[rounds] >= 0.99


def test_a_hundred_honest_windows_never_alarm() -> None:
    # By the test above, 5e-5 for all windows together; the seed is fixed.
    estimate = OptionEstimate(ION)
    shows = ION.test_round
    assert shows is not None
    assert fed(estimate, shows.agreement, 100 * WINDOW_ROUNDS, seed=3) == []
    found = estimate.estimate
    assert found is not None
    assert found.rounds == WINDOW_ROUNDS, "this window, just begun, and the one before"
    assert found.low < 0.9741 < found.high


def test_the_interval_holds_the_fidelity_there_is() -> None:
    # 100 intervals of at least 95 %: fewer than 82 within has a probability below 1e-6.
    held = 0
    for seed in range(100):
        estimate = OptionEstimate(GOOD)
        fed(estimate, share_of(GOOD, 0.83), 90, seed)
        found = estimate.estimate
        assert found is not None
        held += found.low <= 0.83 <= found.high
    assert held >= 82


def test_an_alarm_offers_what_was_found_and_a_good_window_takes_it_back() -> None:
    estimate = OptionEstimate(GOOD)
    verdicts = fed(estimate, share_of(GOOD, 0.6), 384, seed=1)
    assert verdicts == [Verdict.LOWERED]
    assert estimate.offered == pytest.approx(0.6, abs=0.15)
    assert fed(estimate, share_of(GOOD, 0.9), 2 * WINDOW_ROUNDS, seed=2)[-1] is Verdict.RECOVERED
    assert estimate.offered is None


def test_an_alarm_lasts_while_the_link_is_bad_and_follows_it() -> None:
    estimate = OptionEstimate(GOOD)
    fed(estimate, share_of(GOOD, 0.75), 768, seed=1)
    assert estimate.offered is not None
    verdicts = fed(estimate, share_of(GOOD, 0.75), 20 * WINDOW_ROUNDS, seed=2)
    assert Verdict.RECOVERED not in verdicts
    assert estimate.offered == pytest.approx(0.75, abs=0.08)
    worse = fed(estimate, share_of(GOOD, 0.4), 2 * WINDOW_ROUNDS, seed=3)
    assert Verdict.LOWERED in worse
    assert estimate.offered == pytest.approx(0.4, abs=0.1)


def test_two_standard_errors_keep_an_alarm_but_raise_none() -> None:
    # What lies between raising and ending: F = 0.855, where a window's error is about 0.019.
    share = share_of(GOOD, 0.855)
    assert fed(OptionEstimate(GOOD), share, WINDOW_ROUNDS, seed=4) == []
    under_alarm = OptionEstimate(GOOD, offered=0.8)
    assert fed(under_alarm, share, WINDOW_ROUNDS, seed=4) == [Verdict.ADJUSTED]


def test_rounds_without_any_agreement_offer_nothing_below_zero() -> None:
    estimate = OptionEstimate(GOOD)
    assert fed(estimate, 0.0, 48, seed=1) == [Verdict.LOWERED]
    assert estimate.offered == 0.0


def test_a_window_is_judged_by_the_least_that_was_promised_while_it_lasted() -> None:
    better = replace(GOOD, bell_probabilities=[0.95, 0.02, 0.02, 0.01], test_round=forecast(0.95))
    estimate = OptionEstimate(GOOD)
    estimate.promise(better)
    assert estimate.promised is better, "no round was counted yet"
    estimate.add(0, 0, agrees=True)
    estimate.promise(GOOD)
    estimate.promise(better)
    assert estimate.promised is GOOD
    assert fed(estimate, share_of(GOOD, 0.9), WINDOW_ROUNDS - 1, seed=6) == []
    assert estimate.promised is better, "from the next window on"


def test_nothing_is_said_without_a_round() -> None:
    estimate = OptionEstimate(GOOD)
    assert estimate.estimate is None
    estimate.add(0, 0, agrees=True)
    estimate.offered = 0.5
    estimate.begin_anew()
    assert (estimate.estimate, estimate.offered) == (None, None)


def test_counts_of_two_windows_add_up_in_each_basis() -> None:
    both = Counts([1, 2, 3], [0, 2, 1]).plus(Counts([1, 0, 2], [1, 0, 0]))
    assert (both.rounds, both.agreeing, both.total) == ([2, 2, 5], [1, 2, 1], 9)


@pytest.mark.parametrize(
    ("weights", "offered", "expected"),
    [
        ([0.9, 0.05, 0.03, 0.02], 0.8, [0.8, 0.1, 0.06, 0.04]),
        ([1.0, 0.0, 0.0, 0.0], 0.7, [0.7, 0.1, 0.1, 0.1]),
        ([0.9, 0.1, 0.0, 0.0], 0.95, [0.9, 0.1, 0.0, 0.0]),
    ],
)
def test_a_lowered_option_gives_to_the_other_bell_states_by_their_weights(
    weights: list[float], offered: float, expected: list[float]
) -> None:
    option = replace(GOOD, bell_probabilities=weights)
    assert lowered(option, offered) == pytest.approx(expected)
