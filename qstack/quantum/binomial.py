"""Exact statements about a share from a count: no normal approximation, right for any number.

`successes` of `trials` independent trials. Tails are summed in logarithms, so that one of 1e-300
is still a number.
"""

from typing import Final

import numpy as np

_HALVINGS: Final = 40  # of an interval of length 1: to 1e-12


def low_tail(successes: int, trials: int, share: float) -> float:
    """The probability of so many successes or fewer, each of probability `share`.

    Raises ValueError for a share outside 0..1, or a number outside 0..trials.
    """
    _require(successes, trials, share)
    if successes == trials or share == 0.0:
        return 1.0
    if share == 1.0:
        return 0.0
    number = np.arange(successes + 1)
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, trials + 1)))))  # of factorials
    ways = logs[trials] - logs[number] - logs[trials - number]
    terms = np.exp(ways + number * np.log(share) + (trials - number) * np.log1p(-share))
    return min(1.0, float(terms.sum()))


def upper_bound(successes: int, trials: int, tail: float) -> float:
    """The share above which so few successes have a probability below `tail`.

    The one-sided bound of Clopper and Pearson (Biometrika 26, 404, 1934). Raises ValueError as
    `low_tail`, and for a `tail` outside 0..1.
    """
    _require(successes, trials, tail)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if low_tail(successes, trials, middle) > tail:
            low = middle
        else:
            high = middle
    return high


def exact_interval(successes: int, trials: int, level: float) -> tuple[float, float]:
    """The interval of Clopper and Pearson: it holds the true share with at least this probability.

    Raises ValueError as `upper_bound`.
    """
    tail = (1.0 - level) / 2.0
    high = upper_bound(successes, trials, tail)
    return 1.0 - upper_bound(trials - successes, trials, tail), high


def _require(successes: int, trials: int, probability: float) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"a probability is in 0..1, not {probability}")
