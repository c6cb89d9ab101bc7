"""Absorptive memories and photon-pair sources: the idlers meet in a Bell measurement.

Each node has a source of photon pairs (down-conversion, two mode pairs: `pair_source.py`, phi+).
The signal is stored in the node's memory, the idler goes to a station in the middle: a beam
splitter, and in each of the two modes (polarisations or time bins) two detectors. It heralds when
exactly one detector clicks in each mode: the same one psi+, different ones psi- (Simon and others
2007; Sinclair and others 2014).

All photon numbers are counted, also two pairs of one source and none of the other: as likely as
one of each, and heralded alike. So there are two answers: the state whatever is in the memories,
and the state when both are known to hold something, which is near 1 - O(lam).

Rules
1. A memory holds one qubit: of several photons it keeps one at random, of none I/2. For a
   symmetric state that is the trace over the others, and what is lost before does not change it.
2. The idlers' overlap is V = |<a|b>|^2 for all photons; each source has one mode pair per mode.
3. Signals and idlers factor by mode: an operator on (n_A, n_B) of each mode is all there is. A
   silent detector is a Gaussian operator :exp(-n^+ M n): = Gamma(1 - M), whose elements are sums
   over exchanged photons. The numbers are cut off where the rest is below 1e-12 of the result.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct

from qstack.physical.models.heralding import Heralded
from qstack.physical.models.pair_source import MEAN_PAIRS_MAX
from qstack.physical.models.ranges import require_unit
from qstack.quantum.pauli import FloatArray

TRUNCATION: Final = 1e-12


class AbsorptiveLink(Struct, frozen=True, kw_only=True):
    """Two sources, two memories, one station; pairs of numbers in the order of the ends.

    `mean_pairs` is lam of each source (mean 2 lam), `idler_efficiencies` everything from source
    to click, `write_efficiencies` from source to stored. `dark_probability` is per detector and
    window. Raises ValueError for a value out of range.
    """

    mean_pairs: tuple[float, float]
    idler_efficiencies: tuple[float, float]
    write_efficiencies: tuple[float, float] = (1.0, 1.0)
    dark_probability: float = 0.0
    visibility: float = 1.0
    number_resolving: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require_unit(dark_probability=self.dark_probability, visibility=self.visibility)
        for end in (0, 1):
            require_unit(
                idler_efficiencies=self.idler_efficiencies[end],
                write_efficiencies=self.write_efficiencies[end],
            )
            if not 0.0 < self.mean_pairs[end] <= MEAN_PAIRS_MAX:
                raise ValueError(f"lam is above 0 and at most 1, not {self.mean_pairs[end]}")


class Absorbed(NamedTuple):
    """What a herald of the station leaves in the memories."""

    heralded: Heralded
    """Whatever they hold: an empty memory counts as I/2."""
    both_stored: float
    """The probability, given the herald, that both hold a photon."""
    stored: Heralded | None
    """The same if success needs both: its probability is that of herald and storage; None: never.
    """


class _Mode(NamedTuple):
    """One mode's operator on the signals for a click of the first detector alone (unnormalised)."""

    diagonal: FloatArray
    """[a, b]: the probability of a and b signal photons in this mode, and this click."""
    exchange: FloatArray
    """[a, b]: <a+1, b| rho |a, b+1> sqrt((a+1)(b+1)), the sign of the other detector reversed."""


def absorptive(link: AbsorptiveLink) -> Absorbed:
    """Success and states of one attempt in one mode of the memory.

    Raises ValueError if no click is possible.
    """
    mode = _mode(link)
    click = float(mode.diagonal.sum())
    if not click > 0.0:
        raise ValueError("no herald is possible: no photon and no dark count reaches a detector")
    # Two detectors in each of two modes, all alike: four patterns of probability click^2.
    probability = 4.0 * click * click
    size = len(mode.diagonal)
    photons = np.add.outer(np.arange(size), np.arange(size))
    full_a, full_b = (1.0 - (1.0 - eta) ** photons for eta in link.write_efficiencies)
    both = _over_modes(mode.diagonal, full_a, full_b) / click**2
    share_a, share_b = (full / np.maximum(photons, 1) for full in (full_a, full_b))
    difference = np.subtract.outer(np.arange(size), np.arange(size))
    zz = _over_modes(mode.diagonal, share_a * difference, share_b * difference) / click**2
    one_more = photons + 1  # an exchange moves a photon of each node from one mode to the other
    shares = ((1.0 - (1.0 - eta) ** one_more) / one_more for eta in link.write_efficiencies)
    xx = 2.0 * _over_modes(mode.exchange, *shares) / click**2
    heralded = Heralded(probability, _pair(xx, zz), _pair(-xx, zz))
    if not both > 0.0:
        return Absorbed(heralded, 0.0, None)
    known = Heralded(probability * both, _pair(xx / both, zz / both), _pair(-xx / both, zz / both))
    return Absorbed(heralded, both, known)


def click_probability(link: AbsorptiveLink) -> float:
    """That one detector clicks in one bin of a mode, alone or not.

    Thermal light of two sources, n_a and n_b photons in the mean, of overlap V: the detector is
    silent with 1 / ((1 + n_a)(1 + n_b) - V n_a n_b).
    """
    first, second = (
        eta * lam / 2.0 for eta, lam in zip(link.idler_efficiencies, link.mean_pairs, strict=True)
    )
    light = (1.0 + first) * (1.0 + second) - link.visibility * first * second
    return 1.0 - (1.0 - link.dark_probability) / light


def _over_modes(operator: FloatArray, at_a: FloatArray, at_b: FloatArray) -> float:
    """sum operator[a, b] operator[a', b'] at_a[a, a'] at_b[b, b'] over both modes' numbers."""
    return float(np.sum((at_a.T @ operator) * (operator @ at_b.T)))


def _pair(xx: float, zz: float) -> FloatArray:
    """Marginals are I/2, for the two modes are alike."""
    return np.diag([1.0, xx, xx, zz])


def _mode(link: AbsorptiveLink) -> _Mode:
    """Click of the first detector alone: D E D, D the amplitudes of the two sources."""
    ratio_a, ratio_b = (lam / (1.0 + lam) for lam in link.mean_pairs)
    largest = max(ratio_a, ratio_b)
    size = math.ceil(math.log(TRUNCATION) / math.log(largest)) + 4
    numbers = np.arange(size)
    amplitude = np.sqrt((1.0 - ratio_a) * (1.0 - ratio_b))
    root_a, root_b = (np.sqrt(ratio) ** numbers for ratio in (ratio_a, ratio_b))
    amplitudes = amplitude * np.outer(root_a, root_b)
    diagonal, exchange = _click(link, size)
    # <a+1, b| and |a, b+1> differ by one photon of each: a root of each ratio more.
    step = math.sqrt(ratio_a * ratio_b)
    return _Mode(amplitudes**2 * diagonal, amplitudes**2 * step * exchange)


def _click(link: AbsorptiveLink, size: int) -> tuple[FloatArray, FloatArray]:
    """The operator 'the first detector alone clicks': its elements as in `_Mode`."""
    eta_a, eta_b = link.idler_efficiencies
    dark, quiet = link.dark_probability, 1.0 - link.dark_probability
    coupling = math.sqrt(link.visibility * eta_a * eta_b) / 2.0
    numbers = np.arange(size)
    lost_a, lost_b = (1.0 - eta_a) ** numbers, (1.0 - eta_b) ** numbers
    vacuum = np.outer(lost_a, lost_b)
    if link.number_resolving:
        # One photon counted: the derivative of Gamma(lost + z counted) at z = 0.
        one_a = eta_a / 2.0 * numbers * (1.0 - eta_a) ** np.maximum(numbers - 1, 0)
        one_b = eta_b / 2.0 * numbers * (1.0 - eta_b) ** np.maximum(numbers - 1, 0)
        light = np.outer(one_a, lost_b) + np.outer(lost_a, one_b)
        exchange = coupling * np.outer((numbers + 1) * lost_a, (numbers + 1) * lost_b)
        return quiet**2 * light + quiet * dark * vacuum, quiet**2 * exchange
    passed, exchanged = _silent(eta_a, eta_b, coupling, size)
    return quiet * (passed - vacuum) + quiet * dark * vacuum, quiet * exchanged


def _silent(
    eta_a: float, eta_b: float, coupling: float, size: int
) -> tuple[FloatArray, FloatArray]:
    """Gamma(W), W = ((1 - eta_a/2, g), (g, 1 - eta_b/2)): the second detector stays silent.

    <a, b|Gamma|a, b> = sum_i C(a,i) C(b,i) W_aa^(a-i) W_bb^(b-i) g^(2i); the exchange has one
    more g and a factor (a+1)(b+1)/(i+1).
    """
    exchanged = np.arange(size)
    choose = np.array([[math.comb(n, i) for i in range(size)] for n in range(size)], dtype=float)
    left = np.maximum(np.subtract.outer(exchanged, exchanged), 0)
    at_a = choose * (1.0 - eta_a / 2.0) ** left
    at_b = choose * (1.0 - eta_b / 2.0) ** left
    powers = coupling ** (2.0 * exchanged)
    diagonal = (at_a * powers) @ at_b.T
    more = (at_a * (powers * coupling / (exchanged + 1.0))) @ at_b.T
    return diagonal, more * np.outer(exchanged + 1.0, exchanged + 1.0)
