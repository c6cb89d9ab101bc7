"""Single-photon detectors and frequency converters: what turns photons into clicks, and noise too.

Clicks without light are a Poisson process of a stated rate, so in a window they happen with
probability 1 - exp(-rate x window). Figures per detector. Typical values (recalled): nanowires
efficiency 0.8 to 0.95, 1 to 100 Hz dark, 15 to 60 ps jitter, 10 to 50 ns dead; InGaAs avalanche
diodes 0.1 to 0.25, 100 Hz to 10 kHz, microseconds dead.
"""

import math
from typing import NamedTuple

from msgspec import Struct

from qstack.physical.models.ranges import require_not_negative, require_positive, require_unit


class Budget(NamedTuple):
    """One path from a photon's making to its click, in one detection window.

    `efficiency` is the eta of the heralding schemes, `noise_probability` their dark probability.
    """

    efficiency: float
    noise_probability: float


class Detector(Struct, frozen=True, kw_only=True):
    """A detector and the window in which its clicks count.

    `jitter_s` is the standard deviation of a click's time; `dead_time_s` after a click the
    detector sees nothing. Raises ValueError for a value out of range.
    """

    efficiency: float
    dark_rate_hz: float = 0.0
    window_s: float
    jitter_s: float = 0.0
    dead_time_s: float = 0.0
    number_resolving: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require_unit(efficiency=self.efficiency)
        require_positive(window_s=self.window_s)
        require_not_negative(
            dark_rate_hz=self.dark_rate_hz, jitter_s=self.jitter_s, dead_time_s=self.dead_time_s
        )

    @property
    def dark_probability(self) -> float:
        """Of a click without light in a window."""
        return noise_probability(self.dark_rate_hz, self.window_s)

    @property
    def window_acceptance(self) -> float:
        """The share of clicks whose jitter leaves them in the window, centred on the photon."""
        if self.jitter_s == 0.0:
            return 1.0
        return math.erf(self.window_s / (2.0 * math.sqrt(2.0) * self.jitter_s))

    def live_share(self, click_rate_hz: float) -> float:
        """The share of time the detector can click, with `click_rate_hz` on offer."""
        return 1.0 / (1.0 + click_rate_hz * self.dead_time_s)

    def budget(
        self,
        transmission: float,
        *,
        noise_photons_hz: float = 0.0,
        click_rate_hz: float = 0.0,
    ) -> Budget:
        """What the detector makes of a path with this transmission.

        `noise_photons_hz` arrive at the detector (converter, Raman) and click with its
        efficiency; `click_rate_hz` is all it clicks at, for its dead time. Raises ValueError for a
        value out of range.
        """
        require_unit(transmission=transmission)
        require_not_negative(noise_photons_hz=noise_photons_hz, click_rate_hz=click_rate_hz)
        live = self.live_share(click_rate_hz)
        rate_hz = self.dark_rate_hz + self.efficiency * noise_photons_hz
        return Budget(
            transmission * self.efficiency * self.window_acceptance * live,
            live * noise_probability(rate_hz, self.window_s),
        )


class FrequencyConverter(Struct, frozen=True, kw_only=True):
    """A converter: the share of photons it passes on, and the photons it adds at its output.

    Raises ValueError for a value out of range.
    """

    efficiency: float
    noise_photons_hz: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require_unit(efficiency=self.efficiency)
        require_not_negative(noise_photons_hz=self.noise_photons_hz)

    @property
    def noise_to_signal_hz(self) -> float:
        """mu_1 per second: the signal rate at its input that gives as much as its own noise.

        Raises ValueError if it converts nothing.
        """
        require_positive(efficiency=self.efficiency)
        return self.noise_photons_hz / self.efficiency


def path_budget(
    emission: float,
    converter: FrequencyConverter,
    channel_transmission: float,
    detector: Detector,
    *,
    channel_noise_hz: float = 0.0,
) -> Budget:
    """Emission (with coupling), converter, channel, detector in this order.

    The converter's noise goes through the channel; `channel_noise_hz` is what the channel adds at
    its far end. Raises ValueError for a value out of range.
    """
    require_unit(emission=emission, channel_transmission=channel_transmission)
    noise_hz = converter.noise_photons_hz * channel_transmission + channel_noise_hz
    return detector.budget(
        emission * converter.efficiency * channel_transmission, noise_photons_hz=noise_hz
    )


def noise_probability(rate_hz: float, window_s: float) -> float:
    """Of at least one click in a window: 1 - exp(-rate x window). Raises ValueError if negative."""
    require_not_negative(rate_hz=rate_hz, window_s=window_s)
    return -math.expm1(-rate_hz * window_s)


def detected_rate_hz(rate_hz: float, dead_time_s: float) -> float:
    """What a detector with a dead time that clicks do not prolong counts: R / (1 + R tau).

    Raises ValueError for anything negative.
    """
    require_not_negative(rate_hz=rate_hz, dead_time_s=dead_time_s)
    return rate_hz / (1.0 + rate_hz * dead_time_s)


def offered_rate_hz(counted_hz: float, dead_time_s: float) -> float:
    """The inverse of `detected_rate_hz`: R / (1 - R tau). Raises ValueError if R tau is 1 or more.

    A detector cannot count more than one click per dead time.
    """
    require_not_negative(counted_hz=counted_hz, dead_time_s=dead_time_s)
    if not counted_hz * dead_time_s < 1.0:
        raise ValueError(f"{counted_hz:g} clicks a second leave no time beside {dead_time_s:g} s")
    return counted_hz / (1.0 - counted_hz * dead_time_s)
