"""Receivers of photon pairs as they are: unlike detectors, dead time, afterpulses, jitter.

`pair_source.py` has two like detectors at each side, ready in every slot. Here detector 1 of a side
may have only a `share` of the efficiency of detector 0 (or the other way round), a detector sees
nothing for some slots after a click, and a click may be followed by one without light.

Rules
1. What would click with both detectors of a side as good as its better one does not depend on the
   bases: those are the candidates. Which of them real detectors see does depend on both bases.
2. A detector's dead time is not prolonged by light in it. Of a live detector the slots are
   independent, so its clicks are a renewal process, and `Detector` is exact.
3. Of the last click of a detector an afterpulse may follow, once it is live again, at an
   exponential time; a click that comes before it takes its place.
4. Two detectors are dead independently but for what clicks in both at once (`coincidences`). The
   rate of coincidences is right to 1 % where each detector is dead for up to 20 % of the time, and
   to 5 % up to 50 % (against emulated slots).
"""

import math

import numpy as np
from msgspec import Struct, structs

from qstack.physical.models.pair_source import (
    PairSource,
    mode_overlap,
    pair_numbers,
    unseen,
)
from qstack.physical.models.ranges import require_not_negative, require_positive, require_unit
from qstack.quantum.pauli import Basis, FloatArray

LOST, FIRST, SECOND, DOUBLE = 0, 1, 2, 3
"""What is seen of a candidate, as bits: detector 0, detector 1."""

# From the probabilities that sets of detectors are silent (all of the candidate's, none, {0}, {1},
# both) to those of: no candidate, LOST, FIRST, SECOND, DOUBLE.
_SEEN = np.array(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [-1.0, 0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 1.0, -1.0],
        [0.0, 0.0, 1.0, 0.0, -1.0],
        [0.0, 1.0, -1.0, -1.0, 1.0],
    ]
)

Shares = tuple[float, float]
"""Of detectors 0 and 1 of a side: their efficiency as a share of the better one's."""
ALIKE: Shares = (1.0, 1.0)


def gate_acceptance(jitter_s: float, gate_s: float) -> float:
    """The share of clicks that a Gaussian jitter leaves in a gate centred on the photon.

    Raises ValueError for a negative jitter or a gate not above 0.
    """
    require_not_negative(jitter_s=jitter_s)
    require_positive(gate_s=gate_s)
    return 1.0 if jitter_s == 0.0 else math.erf(gate_s / (2.0 * math.sqrt(2.0) * jitter_s))


def stray_share(jitter_s: float, gate_s: float, slot_s: float) -> float:
    """At most this share of clicks comes in the gate of another slot (or beyond it).

    Raises ValueError as `gate_acceptance`.
    """
    require_not_negative(jitter_s=jitter_s)
    require_positive(gate_s=gate_s, slot_s=slot_s)
    if jitter_s == 0.0:
        return 0.0
    return math.erfc((slot_s - gate_s / 2.0) / (math.sqrt(2.0) * jitter_s))


class Detector(Struct, frozen=True, kw_only=True):
    """One detector in slots: it would click with `probability` in each in which it is live.

    After a click it is dead for `dead_slots`; then an afterpulse follows with the probability
    `afterpulse`, in the first live slot or, with the factor `stay` for each, in later ones.
    Raises ValueError for a value out of range.
    """

    probability: float
    dead_slots: int = 0
    afterpulse: float = 0.0
    stay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require_unit(probability=self.probability, afterpulse=self.afterpulse, stay=self.stay)
        require_not_negative(dead_slots=self.dead_slots)

    @property
    def click_probability(self) -> float:
        """Clicks a slot, of both kinds: one in the mean interval between two.

        D + sum_k P(nothing in k live slots) = D + (1-a)/p + a/(1 - (1-p) s); for a = 0 this is the
        R / (1 + R tau) of detectors, in slots.
        """
        live = self.probability
        if live == 0.0:
            return 0.0
        waiting = (1.0 - self.afterpulse) / live
        waiting += self.afterpulse / (1.0 - (1.0 - live) * self.stay)
        return 1.0 / (self.dead_slots + waiting)

    @property
    def live_share(self) -> float:
        """The share of slots in which it is not dead."""
        return 1.0 - self.dead_slots * self.click_probability

    @property
    def afterpulses(self) -> float:
        """Clicks a slot that are afterpulses, and not light or dark counts."""
        return max(0.0, self.click_probability - self.live_share * self.probability)


def click_patterns(
    source: PairSource,
    basis_a: Basis | FloatArray,
    basis_b: Basis | FloatArray,
    shares: tuple[Shares, Shares] = (ALIKE, ALIKE),
) -> FloatArray:
    """(5, 5) probabilities of a slot: no candidate, LOST, FIRST, SECOND, DOUBLE; rows A.

    The source's `efficiencies` are those of the better detector of each side. A misalignment turns
    the light before it is detected; with like detectors that is an inverted outcome.
    """
    numbers = pair_numbers(source.mean_pairs)
    overlap = mode_overlap(source, basis_a, basis_b)
    sets = [
        _silent_sets(eta, share) for eta, share in zip(source.efficiencies, shares, strict=True)
    ]
    dark = [math.sqrt(1.0 - background) for background in source.backgrounds]
    quiet = np.zeros((5, 5))
    for turned, weight in (
        (overlap, 1.0 - source.misalignment),
        (overlap[::-1], source.misalignment),
    ):
        for row, (a, silent_a) in enumerate(sets[0]):
            for column, (b, silent_b) in enumerate(sets[1]):
                trace = 2.0 - a.sum() - b.sum() + float(a @ turned @ b)
                determinant = float(np.prod(1.0 - a) * np.prod(1.0 - b))
                light = unseen(numbers, trace, determinant)
                quiet[row, column] += weight * light * dark[0] ** silent_a * dark[1] ** silent_b
    table: FloatArray = _SEEN @ quiet @ _SEEN.T
    return np.clip(table, 0.0, None)


def _silent_sets(eta: float, shares: Shares) -> list[tuple[FloatArray, int]]:
    """Efficiencies of the detectors that are to be silent, and how many of them; as `_SEEN`."""
    real = np.array(shares) * eta
    first, second = np.array([real[0], 0.0]), np.array([0.0, real[1]])
    return [(np.array([eta, eta]), 2), (np.zeros(2), 0), (first, 1), (second, 1), (real, 2)]


def side_detectors(patterns: FloatArray, side: int, kind: Detector) -> tuple[Detector, Detector]:
    """Both detectors of a side: of this kind, and their own probability to click when live."""
    seen = patterns.sum(axis=1 - side)
    first, second = float(seen[2] + seen[4]), float(seen[3] + seen[4])
    return (
        structs.replace(kind, probability=min(1.0, first)),
        structs.replace(kind, probability=min(1.0, second)),
    )


def coincidences(patterns: FloatArray, kind: Detector) -> FloatArray:
    """(2, 2) probabilities of both outcomes of a slot in which both sides have a click.

    `patterns` are those of `click_patterns` in the bases of both sides. Clicks of both at once
    leave both dead for the same D slots, a share D c L of the time (c = p_ij - p_i p_j, L the share
    in which both are live); outside of it they are taken as independent: L = l_i l_j / (1 - D c L).
    That is exact for detectors that always click together and for such that never mind each other.
    Afterpulses meet the other side's clicks by accident.
    """
    sides = [side_detectors(patterns, side, kind) for side in (0, 1)]
    first, second = (_registered([detector.live_share for detector in side]) for side in sides)
    outcomes: FloatArray = first @ patterns[1:, 1:] @ second.T
    together = _together(patterns)
    for i, a in enumerate(sides[0]):
        for j, b in enumerate(sides[1]):
            excess = kind.dead_slots * (together[i, j] - a.probability * b.probability)
            product = a.live_share * b.live_share
            outcomes[i, j] *= 2.0 / (1.0 + math.sqrt(max(0.0, 1.0 - 4.0 * excess * product)))
            outcomes[i, j] += a.click_probability * b.afterpulses
            outcomes[i, j] += a.afterpulses * (b.click_probability - b.afterpulses)
    return outcomes


def _registered(live: list[float]) -> FloatArray:
    """(2, 4): the outcome of a candidate of each pattern, with detectors live so often."""
    first, second = live
    both = first * second / 2.0
    return np.array(
        [
            [0.0, first, 0.0, first * (1.0 - second) + both],
            [0.0, 0.0, second, second * (1.0 - first) + both],
        ]
    )


def _together(patterns: FloatArray) -> FloatArray:
    """(2, 2): that detector i of one side and j of the other would click in one slot."""
    has = np.array([[0.0, 0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0]])
    both: FloatArray = has @ patterns @ has.T
    return both
