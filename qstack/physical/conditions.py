"""What a link is like at a moment, beside what its profiles and its fibre say of it.

Everything is 0 or 1 where nothing is wrong. The fabric works the states of attempts out under the
conditions there are; a node predicts under those it knows of.
"""

from typing import Final

from msgspec import Struct


class Conditions(Struct, frozen=True, kw_only=True):
    """Conditions of one link; the order is that of its ends.

    `delay_ps` is how much later than that of the first end the photon of the second one comes,
    `delay_deviation_ps` the deviation of that from attempt to attempt.
    `polarisation_rad` is the deviation of the angle between the polarisations of both ends' light,
    `phase_rad` that of the optical phase beside what the profiles have of it, `transmission` what
    is left of the light of each end. `arms` are what the channels of both arms pass, where that
    changes (None: what the link says).
    """

    delay_ps: float = 0.0
    delay_deviation_ps: float = 0.0
    polarisation_rad: float = 0.0
    phase_rad: float = 0.0
    transmission: float = 1.0
    arms: tuple[float, float] | None = None


IDEAL: Final = Conditions()
