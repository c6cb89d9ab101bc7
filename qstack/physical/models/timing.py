"""What errors that were not compensated cost photons that are to meet: visibility, and the gate.

The error of clocks is Gaussian: a mean that the clocks' comparison did not find (half the asymmetry
of the fibre, what has drifted since), and a deviation (jitter of both triggers). With a deviation
of 0 or a mean of 0 these are the forms of `clock.py`.

Rules
1. Visibility is the mean overlap of two like wavepackets; the gate takes a share of one photon.
   Both are taken as independent of each other: right while the gate is several widths long.
2. What the profiles say holds for perfect clocks: the gate's share is 1 there.
"""

import math

import numpy as np

from qstack.physical.models.clock import Wavepacket, delay_visibility, jitter_visibility
from qstack.physical.models.ranges import require_finite, require_not_negative, require_positive
from qstack.quantum.pauli import FloatArray

_ASYMPTOTIC = 5.0  # from here on four terms of the series are right to 1e-5 of the value


def residual_visibility(
    mean_s: float, deviation_s: float, width_s: float, shape: Wavepacket
) -> float:
    """The mean of `delay_visibility` over a delay of this mean and deviation.

    Exponential, lifetime t: the mean of exp(-|d|/t), both halves of the Gaussian integrated;
    Gaussian, deviation s of the intensity: exp(-m^2 / (4 s^2 + 2 j^2)) / sqrt(1 + j^2 / 2 s^2).
    Raises ValueError for a negative deviation, a width not above 0, another shape, or what is not
    finite.
    """
    require_finite(mean_s=mean_s)
    require_not_negative(deviation_s=deviation_s)
    if deviation_s == 0.0:
        return delay_visibility(mean_s, width_s, shape)
    spread = jitter_visibility(deviation_s, width_s, shape)  # and what it refuses
    if shape == "gaussian":
        return spread * math.exp(-(mean_s**2) / (4.0 * width_s**2 + 2.0 * deviation_s**2))
    ratio, place = deviation_s / width_s, mean_s / deviation_s
    return min(1.0, _half(ratio, place) + _half(ratio, -place))


def gate_share(
    mean_s: float, deviation_s: float, width_s: float, gate_s: float, shape: Wavepacket
) -> float:
    """What of a photon that comes late by this still falls into its gate, of what would on time.

    The gate opens with an exponential photon and stays open for `gate_s`; it has a Gaussian photon
    in its middle. Exponential: the distribution of the sum of an exponential and a Gaussian
    variable. Raises ValueError as `residual_visibility`, and for a gate not above 0.
    """
    require_finite(mean_s=mean_s)
    require_not_negative(deviation_s=deviation_s)
    require_positive(width_s=width_s, gate_s=gate_s)
    if shape == "gaussian":
        half_s = gate_s / 2.0
        whole_s = math.hypot(width_s, deviation_s)
        inside = _normal((half_s - mean_s) / whole_s) - _normal((-half_s - mean_s) / whole_s)
        on_time = 2.0 * _normal(half_s / width_s) - 1.0
    elif shape == "exponential":
        inside = _arrived(gate_s, mean_s, deviation_s, width_s)
        inside -= _arrived(0.0, mean_s, deviation_s, width_s)
        on_time = -math.expm1(-gate_s / width_s)
    else:
        raise ValueError(f"a wavepacket is exponential or gaussian, not {shape!r}")
    return min(1.0, max(0.0, inside / on_time))


def polarisation_overlap(angle_rad: float) -> float:
    """The mean overlap cos^2 of two linear polarisations at a Gaussian angle: (1 + e^(-2 a^2)) / 2.

    `angle_rad` is the deviation of the angle. Raises ValueError if it is negative or not finite.
    """
    require_not_negative(angle_rad=angle_rad)
    return (1.0 + math.exp(-2.0 * angle_rad * angle_rad)) / 2.0


def pair_fading(polarisation_rad: float, phase_rad: float) -> FloatArray:
    """(3,): what is left of <XX>, <YY> and <ZZ> of a pair whose light is turned on the way.

    A Gaussian angle between both ends' polarisations turns the Bloch vector by twice that about Y
    (Z: horizontal and vertical), one between the phases of both modes about Z: the mean rotations
    are diag(f, 1, f), f = e^(-2 a^2), and diag(e, e, 1), e = e^(-s^2 / 2). Raises ValueError if an
    angle is negative or not finite.
    """
    require_not_negative(polarisation_rad=polarisation_rad, phase_rad=phase_rad)
    turned = math.exp(-2.0 * polarisation_rad * polarisation_rad)
    dephased = math.exp(-phase_rad * phase_rad / 2.0)
    return np.array([turned * dephased, dephased, turned])


def _half(ratio: float, place: float) -> float:
    """The integral of exp(-d/t) over d > 0: exp(r^2/2 - r a) Phi(a - r), a = m/s, r = s/t."""
    argument = (ratio - place) / math.sqrt(2.0)
    if argument <= 0.0:
        return math.exp(ratio * (ratio / 2.0 - place)) * math.erfc(argument) / 2.0
    return math.exp(-place * place / 2.0) * _scaled_erfc(argument) / 2.0


def _arrived(by_s: float, mean_s: float, deviation_s: float, width_s: float) -> float:
    """The probability that an exponential photon, late by the Gaussian delay, has come by then."""
    if deviation_s == 0.0:
        return -math.expm1(-max(0.0, by_s - mean_s) / width_s)
    return _normal((by_s - mean_s) / deviation_s) - _half(
        deviation_s / width_s, (by_s - mean_s) / deviation_s
    )


def _normal(deviations: float) -> float:
    return math.erfc(-deviations / math.sqrt(2.0)) / 2.0


def _scaled_erfc(argument: float) -> float:
    """exp(u^2) erfc(u) for u > 0, also where the factors leave the range of numbers."""
    if argument < _ASYMPTOTIC:
        return math.exp(argument * argument) * math.erfc(argument)
    square = 2.0 * argument * argument
    series = 1.0 - 1.0 / square + 3.0 / square**2 - 15.0 / square**3 + 105.0 / square**4
    return series / (argument * math.sqrt(math.pi))
