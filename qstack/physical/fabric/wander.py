"""What random changes of a clock's rate make of it: a random walk of frequency, drawn lazily.

The rate's error y is a Brownian motion and the clock's error x its integral; with dx/dt = y the two
are a Markov process, whose middle between two known times is Gaussian (Levy's construction, for the
integrated process). So an error at any time is found by halving, from a span longer than any run
down to KNOT_NS: exact at knots, with nothing stepped, and the same whatever was asked before.
Between knots it is the cubic that the four values at both say, which is the mean.
"""

import math
from typing import Final, NamedTuple

from qstack.physical.fabric.chance import Chance
from qstack.physical.offset_filter import PS_PER_PPB_S

KNOT_NS: Final = 2**20
"""About a millisecond: in it 10^-3 ppb in the root of a second make less than 10^-5 ps."""
SPAN_NS: Final = 2**57
"""Four years; later the clock goes on at the rate it had then."""


class _Knot(NamedTuple):
    error_ps: float
    rate_ppb: float


class Wander:
    """The random part of one clock's error; `name` is the clock's, `root_s` what y does in 1 s."""

    def __init__(self, chance: Chance, name: str, root_s_ppb: float) -> None:
        self._chance = chance
        self._name = name
        self._root_s_ppb = root_s_ppb
        span_s = SPAN_NS * 1e-9
        first, second = self._normals(0, 0)
        rate_ppb = root_s_ppb * math.sqrt(span_s) * first
        # Of x given y: the mean is y t / 2, the variance a quarter of t^3 / 3.
        error = rate_ppb * span_s / 2.0 + root_s_ppb * math.sqrt(span_s**3 / 12.0) * second
        self._ends = _Knot(0.0, 0.0), _Knot(PS_PER_PPB_S * error, rate_ppb)
        self._path: list[tuple[int, _Knot]] = []  # by level: the place last halved, its middle

    def error_ps(self, at_ns: int) -> float:
        """What it has come to at a network time."""
        if at_ns >= SPAN_NS:
            last = self._ends[1]
            return last.error_ps + PS_PER_PPB_S * last.rate_ppb * (at_ns - SPAN_NS) * 1e-9
        begin_ns, length_ns, level = 0, SPAN_NS, 0
        left, right = self._ends
        while length_ns > KNOT_NS:
            length_ns //= 2
            middle = self._middle(level, begin_ns // (2 * length_ns), left, right, length_ns * 1e-9)
            if at_ns < begin_ns + length_ns:
                right = middle
            else:
                left, begin_ns = middle, begin_ns + length_ns
            level += 1
        return _cubic(left, right, (at_ns - begin_ns) / length_ns, length_ns * 1e-9)

    def _middle(self, level: int, place: int, left: _Knot, right: _Knot, half_s: float) -> _Knot:
        """Halfway: the cubic's values, and variances h^3 / 24 and h / 8 (of y's in 1 s)."""
        if level < len(self._path) and self._path[level][0] == place:
            return self._path[level][1]
        first, second = self._normals(level + 1, place)
        mean = _cubic(left, right, 0.5, 2.0 * half_s)
        error = self._root_s_ppb * math.sqrt(half_s**3 / 24.0) * first
        slope = 0.75 * (right.error_ps - left.error_ps) / (PS_PER_PPB_S * half_s)
        rate = slope - (left.rate_ppb + right.rate_ppb) / 4.0
        middle = _Knot(
            mean + PS_PER_PPB_S * error, rate + self._root_s_ppb * math.sqrt(half_s / 8.0) * second
        )
        del self._path[level:]
        self._path.append((place, middle))
        return middle

    def _normals(self, level: int, place: int) -> tuple[float, float]:
        generator = self._chance.generator("wander", self._name, level, place)
        first, second = generator.standard_normal(2)
        return float(first), float(second)


def _cubic(left: _Knot, right: _Knot, share: float, span_s: float) -> float:
    """The error at `share` of a span, by the errors and rates at its ends (Hermite)."""
    rest = 1.0 - share
    by_errors = left.error_ps * rest * rest * (1.0 + 2.0 * share)
    by_errors += right.error_ps * share * share * (1.0 + 2.0 * rest)
    by_rates = share * rest * (left.rate_ppb * rest - right.rate_ppb * share)
    return by_errors + PS_PER_PPB_S * span_s * by_rates
