"""How far one clock is ahead of another, and how fast that grows, from comparisons now and then.

A Kalman filter of two numbers, the offset (ps) and the rate (ppb), for a clock of constant rate
with white and random-walk noise of frequency (the two-state clock model of Galleani and Tavella,
IEEE Control Systems 30, 2010). A comparison that cannot be by chance is a step of a clock: the
offset begins anew from it, the rate stays.
"""

import math
from typing import Final

PS_PER_PPB_S: Final = 1000.0  # what a rate of 10^-9 makes in a second


class OffsetFilter:
    """The estimate. It is nothing before the first comparison.

    `rate_deviation_ppb` is what is known of the rate beforehand, `reading_variance_ps2` that of a
    comparison, `wander_ps` the deviation that white noise of frequency makes of the offset in a
    second, `rate_wander_ppb` that of the rate.
    """

    def __init__(
        self,
        *,
        rate_deviation_ppb: float,
        reading_variance_ps2: float,
        wander_ps: float,
        rate_wander_ppb: float,
        step_sigmas: float,
    ) -> None:
        self._beforehand = {
            "rate_deviation_ppb": rate_deviation_ppb,
            "reading_variance_ps2": reading_variance_ps2,
            "wander_ps": wander_ps,
            "rate_wander_ppb": rate_wander_ppb,
            "step_sigmas": step_sigmas,
        }
        self.comparisons = 0
        self.steps = 0
        self.rate_ppb = 0.0
        self._offset_ps = 0.0
        self._at_ns = 0
        self._reading = reading_variance_ps2
        self._noise = wander_ps**2, rate_wander_ppb**2
        self._step_sigmas = step_sigmas
        # Variances of the offset and the rate, and between them.
        self._offsets, self._rates, self._both = 0.0, rate_deviation_ppb**2, 0.0

    def anew(self) -> "OffsetFilter":
        """One that knows nothing yet, of the same clocks."""
        return OffsetFilter(**self._beforehand)

    def offset_ps(self, at_ns: int) -> float:
        """The offset at `at_ns`."""
        return self._offset_ps + self.rate_ppb * PS_PER_PPB_S * self._since_s(at_ns)

    def deviation_ps(self, at_ns: int) -> float:
        """The uncertainty of that, one standard deviation; infinite before the first comparison."""
        if not self.comparisons:
            return math.inf
        return math.sqrt(self._predicted(self._since_s(at_ns))[0])

    def compare(self, at_ns: int, offset_ps: float) -> bool:
        """Take a comparison at `at_ns`, later than any before; False: a clock has stepped."""
        since_s = self._since_s(at_ns)
        is_first = not self.comparisons
        error_ps = offset_ps - self.offset_ps(at_ns)
        offsets, both, rates = self._predicted(since_s)
        self._at_ns = at_ns
        self.comparisons += 1
        variance = offsets + self._reading
        has_stepped = not is_first and abs(error_ps) > self._step_sigmas * math.sqrt(variance)
        if is_first or has_stepped:
            self.steps += has_stepped
            self._offset_ps = offset_ps
            self._offsets, self._both = self._reading, 0.0
            self._rates = rates
            return not has_stepped
        self._offset_ps = offset_ps - error_ps * (1.0 - offsets / variance)
        self.rate_ppb += error_ps * both / variance
        self._offsets = offsets * self._reading / variance
        self._both = both * self._reading / variance
        self._rates = rates - both * both / variance
        return True

    def _since_s(self, at_ns: int) -> float:
        return (at_ns - self._at_ns) * 1e-9 if self.comparisons else 0.0

    def _predicted(self, since_s: float) -> tuple[float, float, float]:
        """Variance of the offset, covariance, variance of the rate, so long after the last one."""
        grown_s = PS_PER_PPB_S * since_s
        white, walk = self._noise
        offsets = self._offsets + 2.0 * grown_s * self._both + grown_s**2 * self._rates
        both = self._both + grown_s * self._rates + PS_PER_PPB_S * walk * since_s**2 / 2.0
        offsets += white * since_s + PS_PER_PPB_S**2 * walk * since_s**3 / 3.0
        return offsets, both, self._rates + walk * since_s
