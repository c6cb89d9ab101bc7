"""Means of independent runs with intervals of 95 %, and ratios of runs with the same arrivals.

A run is one value; what is stated is the mean of the runs and Student's interval for it. Two
scenarios with the same seed see the same requests at the same times: their ratio is taken run by
run, in logarithms, so that what is common to both drops out.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom; beyond, the normal's 1.96.
_STUDENT: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Figure(NamedTuple):
    """A mean and its interval; of one run alone there is none, and both ends are infinite."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2.0


def mean_of(values: Sequence[float]) -> Figure:
    """The mean of runs, without those that have no value (nan); nan of none."""
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return Figure(math.nan, math.nan, math.nan)
    mean = float(known.mean())
    if len(known) == 1:
        return Figure(mean, -math.inf, math.inf)
    freedom = len(known) - 1
    student = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96
    half = student * float(known.std(ddof=1)) / math.sqrt(len(known))
    return Figure(mean, mean - half, mean + half)


def ratio_of(numerators: Sequence[float], denominators: Sequence[float]) -> Figure:
    """The geometric mean of the runs' ratios; runs without a positive value are left out."""
    logarithms = [
        math.log(over / under)
        for over, under in zip(numerators, denominators, strict=True)
        if over > 0.0 and under > 0.0
    ]
    return Figure(*(_exp(each) for each in mean_of(logarithms)))


def _exp(logarithm: float) -> float:
    return math.inf if logarithm > 700.0 else math.exp(logarithm)
