"""Midpoint source: pairs are sent outwards, and each node tells by itself when a photon is stored.

A frame has N trials. In each the source in the middle emits n photon pairs; a node keeps (latches)
the first photon whose storage it heralds locally, and sends its trial's number to the other. The
frame succeeds if both latched in the same trial (Jones, Kim, Rakher, Kwiat, Ladd 2016). With
pA, pB, pAB the probabilities of a latch per trial and u = pA + pB - pAB: pAB/u (1 - (1-u)^N).

State: the source emits |n>, the n-photon state of one Bell state (`pair_source.py`). A memory
holds one qubit: of several photons it keeps one at random, so from |n> both keep a Werner pair of
weight (n+2)/(3n): total spins n/2 in a singlet-like state have <J J> = (n/2)(n/2+1)/3 per axis.
A node that latched without a photon holds nothing known: I/2. The local heralds say psi+ or psi-
(XOR of the two phases they read), equally likely; both states are exact.
"""

from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from qstack.physical.models import pair_source
from qstack.physical.models.heralding import Heralded
from qstack.physical.models.ranges import require_at_least, require_unit
from qstack.quantum.bell import bell_state
from qstack.quantum.channels import depolarising
from qstack.quantum.pauli import FloatArray
from qstack.quantum.state import apply


class MidpointSource(Struct, frozen=True, kw_only=True):
    """A source in the middle, and the two memories; pairs of numbers in the order of the ends.

    `pair_numbers` are P(0), P(1) ... of pairs per trial: `single_pairs` or `spdc_pairs` below.
    `efficiencies` are everything from the source to a herald of storage, `false_latches` the
    probabilities per trial of a herald without a photon. `source_fidelity` is that of one pair,
    Werner; `write_fidelities` those of storing half of a Bell pair. Raises ValueError for a value
    out of range.
    """

    pair_numbers: tuple[float, ...]
    efficiencies: tuple[float, float]
    trials: int
    false_latches: tuple[float, float] = (0.0, 0.0)
    source_fidelity: float = 1.0
    write_fidelities: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if min(self.pair_numbers, default=-1.0) < 0.0 or abs(sum(self.pair_numbers) - 1.0) > 1e-9:
            raise ValueError("pair_numbers are probabilities of 0, 1 ... pairs that sum to 1")
        for end in (0, 1):
            require_unit(efficiencies=self.efficiencies[end], false_latches=self.false_latches[end])
            _require_fidelity("write_fidelities", self.write_fidelities[end])
        _require_fidelity("source_fidelity", self.source_fidelity)
        require_at_least(1, trials=self.trials)


class TrialProbabilities(NamedTuple):
    """Of one trial: a latch at the first end, at the second, at both, and both by photons."""

    first: float
    second: float
    both: float
    both_by_photons: float
    weight: float
    """The Werner weight both hold, times `both_by_photons`."""

    @property
    def any(self) -> float:
        """A latch at one end at least."""
        return self.first + self.second - self.both


def single_pairs(pair_probability: float) -> tuple[float, ...]:
    """A source of at most one pair a trial. Raises ValueError outside 0..1."""
    require_unit(pair_probability=pair_probability)
    return (1.0 - pair_probability, pair_probability)


def spdc_pairs(mean_pairs: float) -> tuple[float, ...]:
    """Down-conversion with lam = `mean_pairs` (mean 2 lam), cut off at 1e-12.

    Raises ValueError unless lam is above 0 and at most `pair_source.MEAN_PAIRS_MAX`.
    """
    if not 0.0 < mean_pairs <= pair_source.MEAN_PAIRS_MAX:
        raise ValueError(f"lam is above 0 and at most 1, not {mean_pairs}")
    return tuple(pair_source.pair_numbers(mean_pairs).tolist())


def trial(source: MidpointSource) -> TrialProbabilities:
    """The probabilities of one trial; a false latch beside a true one is not seen."""
    numbers = np.arange(len(source.pair_numbers))
    chances = np.array(source.pair_numbers)
    true_a, true_b = (1.0 - (1.0 - eta) ** numbers for eta in source.efficiencies)
    false_a, false_b = source.false_latches
    latch_a = true_a + (1.0 - true_a) * false_a
    latch_b = true_b + (1.0 - true_b) * false_b
    photons = chances * true_a * true_b
    return TrialProbabilities(
        first=float(chances @ latch_a),
        second=float(chances @ latch_b),
        both=float(chances @ (latch_a * latch_b)),
        both_by_photons=float(photons.sum()),
        weight=float(photons @ kept_weight(numbers)),
    )


def kept_weight(numbers: NDArray[np.int64]) -> FloatArray:
    """The Werner weight of one photon each of |n>: (n+2)/(3n); 1 for one pair, 1/3 in the limit."""
    kept: FloatArray = np.where(numbers > 0, (numbers + 2.0) / (3.0 * np.maximum(numbers, 1)), 0.0)
    return kept


def midpoint_source(source: MidpointSource) -> Heralded:
    """Success probability of a frame, and the states for both phases.

    Raises ValueError if both can never latch in one trial.
    """
    chances = trial(source)
    if not chances.both > 0.0:
        raise ValueError("no herald is possible: both memories never latch in the same trial")
    at_all = -np.expm1(source.trials * np.log1p(-chances.any)) if chances.any < 1.0 else 1.0
    weight = chances.weight / chances.both * (4.0 * source.source_fidelity - 1.0) / 3.0
    states = []
    for z in (0, 1):
        pair = weight * bell_state(1, z)
        pair[0, 0] = 1.0
        for axis, fidelity in enumerate(source.write_fidelities):
            pair = apply(pair, axis, depolarising(4.0 * (1.0 - fidelity) / 3.0))
        states.append(pair)
    return Heralded(float(chances.both / chances.any * at_all), states[0], states[1])


class Frames(NamedTuple):
    """Frames played trial by trial: which succeeded, and the Werner weight each of these holds."""

    succeeded: NDArray[np.bool_]
    weights: FloatArray


def play_frames(generator: np.random.Generator, source: MidpointSource, frames: int) -> Frames:
    """Draw photons, losses and false latches of `frames` frames, one trial after the other.

    It knows none of the closed forms above: it is there to check them. Raises ValueError for fewer
    than 1 frame.
    """
    require_at_least(1, frames=frames)
    bounds = np.cumsum(source.pair_numbers)
    waiting = np.arange(frames)
    succeeded = np.zeros(frames, dtype=np.bool_)
    weights = np.zeros(frames)
    for _ in range(source.trials):
        pairs = np.searchsorted(bounds[:-1], generator.random(len(waiting)), side="right")
        true, latched = [], []
        for eta, false in zip(source.efficiencies, source.false_latches, strict=True):
            stored = generator.binomial(pairs, eta) > 0
            true.append(stored)
            latched.append(stored | (generator.random(len(waiting)) < false))
        both = latched[0] & latched[1]
        succeeded[waiting[both]] = True
        by_photons = true[0] & true[1]
        weights[waiting[both]] = np.where(by_photons, kept_weight(pairs), 0.0)[both]
        waiting = waiting[~(latched[0] | latched[1])]
    return Frames(succeeded, weights[succeeded])


def _require_fidelity(name: str, value: float) -> None:
    if not 0.25 <= value <= 1.0:
        raise ValueError(f"{name} is in 0.25..1, not {value}")
