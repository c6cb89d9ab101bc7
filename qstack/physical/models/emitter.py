"""Emitters of single photons and the statistics of down-conversion: how many, and how alike.

g2 is g2(0) = <n(n-1)> / <n>^2. `brightness` is the probability of at least one photon. Two
imperfections of the photons are kept apart: the overlap M of two single photons (what `visibility`
is in the heralding schemes), and more than one photon at a time.
"""

import math
from typing import NamedTuple

from qstack.physical.models.ranges import require_not_negative, require_positive, require_unit


class PhotonNumbers(NamedTuple):
    """Probabilities of no, one and two photons."""

    none: float
    one: float
    two: float


def emitter_photon_numbers(brightness: float, g2: float) -> PhotonNumbers:
    """At most two photons, with this brightness B and g2 = 2 P2 / (B + P2)^2.

    P2 = (1 - g B - sqrt(1 - 2 g B)) / g. Raises ValueError for a brightness outside 0..1, a
    negative g2, or one that two photons at that brightness cannot have (2 P2 beyond 2 B).
    """
    require_unit(brightness=brightness)
    require_not_negative(g2=g2)
    product = g2 * brightness
    if product > 0.5 or 4.0 * g2 * brightness > 2.0:
        raise ValueError(f"g2 = {g2} at brightness {brightness} takes more than two photons")
    root = math.sqrt(1.0 - 2.0 * product)
    # (1 - x - sqrt(1 - 2x)) / g = x^2 / (1 - x + sqrt(1 - 2x)) / g, without the cancellation.
    two = brightness * product / (1.0 - product + root)
    return PhotonNumbers(1.0 - brightness, brightness - two, two)


def measured_visibility(overlap: float, g2: float) -> float:
    """What a Hong-Ou-Mandel measurement shows: M - g2 (1 + M), to first order in g2.

    M is the overlap of the single photons, the others are unlike them (Ollivier and others, PRL
    126, 063602 (2021)). Raises ValueError for a value out of range.
    """
    require_unit(overlap=overlap)
    require_not_negative(g2=g2)
    return overlap - g2 * (1.0 + overlap)


def single_photon_overlap(visibility: float, g2: float) -> float:
    """The inverse: M = (V + g2) / (1 - g2). Raises ValueError if that is not in 0..1."""
    require_unit(visibility=visibility)
    require_not_negative(g2=g2)
    overlap = (visibility + g2) / (1.0 - g2) if g2 < 1.0 else math.inf
    if not overlap <= 1.0:
        raise ValueError(f"no photons have a visibility of {visibility} with g2 = {g2}")
    return overlap


def dephased_overlap(lifetime_s: float, coherence_s: float) -> float:
    """M = T2 / (2 T1) of photons from an emitter with pure dephasing.

    Raises ValueError unless 0 < T2 <= 2 T1.
    """
    require_positive(lifetime_s=lifetime_s, coherence_s=coherence_s)
    if coherence_s > 2.0 * lifetime_s * (1.0 + 1e-12):
        raise ValueError(f"T2 is at most 2 T1: {coherence_s} > 2 * {lifetime_s}")
    return coherence_s / (2.0 * lifetime_s)


def cavity_enhanced_share(purcell: float, branching: float) -> float:
    """The share of decays into the line a cavity enhances: F b / (F b + 1 - b).

    Raises ValueError for a negative Purcell factor or a branching outside 0..1.
    """
    require_not_negative(purcell=purcell)
    require_unit(branching=branching)
    enhanced = purcell * branching
    other = 1.0 - branching
    if not enhanced + other > 0.0:
        raise ValueError("nothing is emitted: no enhancement, and no other line")
    return enhanced / (enhanced + other)


# --- one mode pair of down-conversion ------------------------------------------------------------


def thermal_pair_probability(mean_pairs: float, pairs: int) -> float:
    """P(n) = mu^n / (1+mu)^(n+1) of one mode pair. Raises ValueError for anything negative."""
    require_not_negative(mean_pairs=mean_pairs, pairs=pairs)
    return float((mean_pairs / (1.0 + mean_pairs)) ** pairs / (1.0 + mean_pairs))


def heralded_g2(mean_pairs: float, herald_efficiency: float = 0.0) -> float:
    """g2 of one photon of a pair when the other clicked in a threshold detector.

    Exact for any efficiency eta (0: its limit, (4 mu + 6 mu^2)/(1+2 mu)^2; 1: about 2 mu). With
    1 - (1-eta)^n as the chance to click, the factorial moments are those of two thermal states:
    <n> = mu - (1-eta) mu/(1+eta mu)^2, <n(n-1)> = 2 mu^2 - 2 (1-eta)^2 mu^2/(1+eta mu)^3, both
    over P = eta mu/(1+eta mu). Raises ValueError for no pairs or an efficiency outside 0..1.
    """
    require_positive(mean_pairs=mean_pairs)
    require_unit(herald_efficiency=herald_efficiency)
    mu, eta = mean_pairs, herald_efficiency
    scale = 1.0 + eta * mu
    # Both differences divided by eta: exact, and finite at eta = 0.
    first = mu * (1.0 + 2.0 * mu + eta * mu * mu) / scale**2
    second = 2.0 * mu**2 * (2.0 + 3.0 * mu + eta * (3.0 * mu**2 - 1.0) + eta**2 * mu**3) / scale**3
    click = mu / scale
    return second * click / first**2
