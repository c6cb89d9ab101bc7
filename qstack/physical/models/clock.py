"""Clocks: where one is after a while, how two are compared, and what their jitter costs photons.

The error of a clock is x(t) = x0 + y0 t + d t^2 / 2, in seconds, and noise: white noise of phase
(of each reading), white and flicker noise of frequency. Flicker noise has no variance of its own;
what counts is the error of the best prediction over an interval, sigma_y(t) t / sqrt(ln 2)
(Allan and Hellwig 1978; Riley, NIST SP 1065, section 8). White frequency noise: sigma_y(t) t with
sigma_y(t) = sigma_y(1 s) / sqrt(t).
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from msgspec import Struct

from qstack.physical.models.ranges import require_at_least, require_not_negative, require_positive
from qstack.quantum.pauli import FloatArray


class Clock(Struct, frozen=True, kw_only=True):
    """A clock that was compared at time 0.

    `white_phase_s` is the deviation of a reading, `white_frequency` the Allan deviation at 1 s of
    white frequency noise, `flicker_frequency` the flicker floor. Raises ValueError for a negative
    or infinite deviation.
    """

    offset_s: float = 0.0
    frequency: float = 0.0
    drift_per_s: float = 0.0
    white_phase_s: float = 0.0
    white_frequency: float = 0.0
    flicker_frequency: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require_not_negative(
            white_phase_s=self.white_phase_s,
            white_frequency=self.white_frequency,
            flicker_frequency=self.flicker_frequency,
        )

    def error_s(self, at_s: float) -> float:
        """x0 + y0 t + d t^2 / 2: the error without noise."""
        return self.offset_s + self.frequency * at_s + self.drift_per_s * at_s * at_s / 2.0

    def deviation_s(self, at_s: float) -> float:
        """The standard deviation of a reading around `error_s`. Raises ValueError before 0."""
        require_not_negative(at_s=at_s)
        white_s = self.white_frequency * math.sqrt(at_s)
        flicker_s = self.flicker_frequency * at_s / math.sqrt(math.log(2.0))
        return math.hypot(self.white_phase_s, white_s, flicker_s)

    def allan_deviation(self, interval_s: float) -> float:
        """sigma_y over an interval: sqrt(3) x phase / t, white, flicker, and the drift's d t/sqrt2.

        Raises ValueError unless the interval is above 0.
        """
        require_positive(interval_s=interval_s)
        return math.hypot(
            math.sqrt(3.0) * self.white_phase_s / interval_s,
            self.white_frequency / math.sqrt(interval_s),
            self.flicker_frequency,
            self.drift_per_s * interval_s / math.sqrt(2.0),
        )

    def readings_s(
        self, generator: np.random.Generator, readings: int, spacing_s: float
    ) -> FloatArray:
        """Readings at 0, spacing, 2 spacings ...: the errors and one draw of all the noise.

        Flicker noise is white noise through the filter of half an integration (Kasdin 1995): its
        floor is right between some spacings and some tenth of the whole. Raises ValueError for
        fewer than 2 readings or a spacing not above 0.
        """
        require_at_least(2, readings=readings)
        require_positive(spacing_s=spacing_s)
        at_s = np.arange(readings) * spacing_s
        steps = readings - 1
        frequency = self.white_frequency / math.sqrt(spacing_s) * generator.standard_normal(steps)
        lags = np.arange(1.0, steps)
        response = np.concatenate([[1.0], np.cumprod((lags - 0.5) / lags)])
        scale = self.flicker_frequency * math.sqrt(math.pi / (2.0 * math.log(2.0)))
        size = 2 * steps  # room for a convolution that does not wrap around
        spectrum = np.fft.rfft(response, size) * np.fft.rfft(
            scale * generator.standard_normal(steps), size
        )
        frequency += np.fft.irfft(spectrum, size)[:steps]
        wandered = np.concatenate([[0.0], np.cumsum(frequency) * spacing_s])
        phase = self.white_phase_s * generator.standard_normal(readings)
        known = self.offset_s + self.frequency * at_s + self.drift_per_s * at_s * at_s / 2.0
        noisy: FloatArray = known + wandered + phase
        return noisy


class TwoWay(NamedTuple):
    """B's clock is `offset_s` ahead of A's if both ways take `delay_s`."""

    offset_s: float
    delay_s: float


def two_way(sent_a_s: float, got_b_s: float, sent_b_s: float, got_a_s: float) -> TwoWay:
    """Offset ((t2-t1) - (t4-t3))/2 and delay ((t2-t1) + (t4-t3))/2, each time by its own clock."""
    there_s, back_s = got_b_s - sent_a_s, got_a_s - sent_b_s
    return TwoWay((there_s - back_s) / 2.0, (there_s + back_s) / 2.0)


def asymmetry_bias_s(there_s: float, back_s: float) -> float:
    """How far the two-way offset is wrong when the ways are not alike: half of the difference.

    Raises ValueError for a negative delay.
    """
    require_not_negative(there_s=there_s, back_s=back_s)
    return (there_s - back_s) / 2.0


def correlation_deviation_s(
    jitter_a_s: float, jitter_b_s: float, recorder_s: float, coincidences: float
) -> float:
    """Of the delay found from photon pairs: sqrt(jA^2 + jB^2 + 2 t^2) / sqrt(N).

    `recorder_s` is the jitter of the time recorder at each end. Raises ValueError for a negative
    jitter or fewer than 1 coincidence.
    """
    require_not_negative(jitter_a_s=jitter_a_s, jitter_b_s=jitter_b_s, recorder_s=recorder_s)
    require_at_least(1, coincidences=coincidences)
    return math.hypot(jitter_a_s, jitter_b_s, recorder_s, recorder_s) / math.sqrt(coincidences)


# --- what jitter and detuning do to interference -------------------------------------------------

Wavepacket = Literal["exponential", "gaussian"]


def delay_visibility(delay_s: float, width_s: float, shape: Wavepacket) -> float:
    """Of two like photons that arrive `delay_s` apart.

    exp(-|dt|/tau) with the lifetime tau of an exponential photon; exp(-dt^2 / 4 s^2) with the
    standard deviation s of the intensity of a Gaussian one. Raises ValueError for a width not above
    0 or another shape.
    """
    require_positive(width_s=width_s)
    if shape == "exponential":
        return math.exp(-abs(delay_s) / width_s)
    if shape == "gaussian":
        return math.exp(-((delay_s / width_s) ** 2) / 4.0)
    raise ValueError(f"a wavepacket is exponential or gaussian, not {shape!r}")


def detuning_visibility(detuning_rad_per_s: float, lifetime_s: float) -> float:
    """Of exponential photons of different frequency, all times accepted: 1 / (1 + (dw tau)^2).

    Raises ValueError unless the lifetime is above 0.
    """
    require_positive(lifetime_s=lifetime_s)
    return 1.0 / (1.0 + (detuning_rad_per_s * lifetime_s) ** 2)


def jitter_visibility(jitter_s: float, width_s: float, shape: Wavepacket) -> float:
    """The mean of `delay_visibility` over a delay that is Gaussian with deviation `jitter_s`.

    Of the difference of the two arrivals: sqrt(2) times the jitter of each. Exponential:
    exp(j^2/2 tau^2) erfc(j / sqrt2 tau); Gaussian: 1 / sqrt(1 + j^2 / 2 s^2). The jitter is of
    emission or clocks; that of detectors does not matter when every coincidence is accepted.
    Raises ValueError for a negative jitter, a width not above 0, or another shape.
    """
    require_not_negative(jitter_s=jitter_s)
    require_positive(width_s=width_s)
    ratio = jitter_s / width_s
    if shape == "gaussian":
        return 1.0 / math.sqrt(1.0 + ratio * ratio / 2.0)
    if shape != "exponential":
        raise ValueError(f"a wavepacket is exponential or gaussian, not {shape!r}")
    if ratio > 20.0:  # erfc underflows where the exponential overflows: two terms of the series
        return math.sqrt(2.0 / math.pi) / ratio * (1.0 - 1.0 / ratio**2)
    return math.exp(ratio * ratio / 2.0) * math.erfc(ratio / math.sqrt(2.0))
