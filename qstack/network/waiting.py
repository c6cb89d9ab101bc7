"""How long the qubits of a chain wait: a fixed sample of histories, the same at every call.

The model
1. Links are heralded independently after exponential times; a pair is one link delay old then.
2. A repeater swaps as soon as it has both its pairs. A pair that is as old as the cutoff before
   all its swaps have begun is discarded. What is delivered is therefore the exponential times
   under the condition that no pair waits too long for its neighbours. That is exact for two links
   (a discard is a renewal), and for the first pair over any chain as the cutoff goes to zero or to
   infinity.
3. Each end says so (TRACK) when its pair is there; a repeater passes it on when its own swap is
   done. The other end keeps its qubit until then.
4. The rate is the probability of that condition over the expected time until it is decided.

The condition joins neighbours only, so the times are drawn one after the other: tables of the
later links' chance as a function of the time of the one before, then inverse distributions at the
points of a Korobov lattice (Niederreiter, Random Number Generation and Quasi-Monte Carlo Methods,
1992, section 5.3). Pure functions; nothing here is random.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

POINTS = 1021  # prime; the mean fidelity of a chain comes out to about 0.0005
_MULTIPLIER = 76  # the best found for maxima of up to 8 exponential times: 0.25 %
_GRID = 1200
_FINE = 1e-3  # the finest time resolved, of the shortest time that matters
_TAIL = 40.0  # times beyond that many of the slowest means have a probability of exp(-40)
_SLOWEST = 1e-9  # of the fastest rate: slower links are taken to be that fast
_PATIENCE = 1e-9  # of the fastest mean: shorter patience is taken to be that long


@dataclass(frozen=True)
class Timing:
    """When things can happen on a chain of n links with n - 1 repeaters, head first."""

    rates_hz: tuple[float, ...]
    delays_s: tuple[float, ...]
    swaps_s: tuple[float, ...]
    cutoff_s: float


@dataclass(frozen=True)
class Waits:
    """How old qubits come to be, and how often a pair is there."""

    ages_s: FloatArray  # (POINTS, n, 2): of link i's qubit towards the head, towards the tail
    rate_hz: float


@lru_cache(maxsize=64)
def waits(timing: Timing) -> Waits:
    """The sample for a chain. All points count the same."""
    count = len(timing.rates_hz)
    points = _lattice(count)
    fastest = max(timing.rates_hz) or 1.0
    rates = np.maximum(np.array(timing.rates_hz), fastest * _SLOWEST)
    delays = np.array(timing.delays_s)
    patience = np.maximum(timing.cutoff_s - delays, _PATIENCE / fastest)
    heralded, chance = _heralded(rates, patience, points)
    rate_hz = min(timing.rates_hz)
    if count > 1 and timing.cutoff_s <= max(timing.delays_s):
        rate_hz = 0.0
    elif rate_hz > 0.0:
        rate_hz = min(rate_hz, chance / _decided_s(rates, patience, points))
    return Waits(_ages(heralded, delays, np.array(timing.swaps_s)), rate_hz)


def _lattice(dimensions: int) -> FloatArray:
    """(POINTS, dimensions): in each coordinate the middles of equal parts of 0..1, in its order."""
    steps = [pow(_MULTIPLIER, power, POINTS) for power in range(dimensions)]
    return (np.outer(np.arange(POINTS), steps) % POINTS + 0.5) / POINTS


def _heralded(
    rates: FloatArray, patience: FloatArray, points: FloatArray
) -> tuple[FloatArray, float]:
    """(POINTS, n) times of heralds under the condition, and the probability of the condition."""
    shortest = min(1.0 / rates.max(), patience.min())
    longest = _TAIL / rates.min()
    grid = np.concatenate(([0.0], np.geomspace(_FINE * shortest, longest, _GRID)))
    tables, chance = [], 1.0
    later = np.ones_like(grid)
    for link in range(len(rates) - 1, -1, -1):
        # The mass of a cell is exact; what depends on later links is taken as linear in it.
        mass = np.diff(-np.expm1(-rates[link] * grid)) * (later[1:] + later[:-1]) / 2.0
        table = np.concatenate(([0.0], np.cumsum(mass)))
        scale = float(table[-1])
        table /= scale
        chance *= scale
        tables.append(table)
        if link > 0:
            after = np.interp(grid + patience[link - 1], grid, table)
            later = after - np.interp(grid - patience[link], grid, table)
    tables.reverse()
    times = np.empty_like(points)
    times[:, 0] = np.interp(points[:, 0], tables[0], grid)
    for link in range(1, len(rates)):
        earliest, latest = (
            times[:, link - 1] - patience[link],
            times[:, link - 1] + patience[link - 1],
        )
        low, high = (np.interp(at, grid, tables[link]) for at in (earliest, latest))
        drawn = np.interp(low + (high - low) * points[:, link], tables[link], grid)
        times[:, link] = np.clip(drawn, earliest, latest)
    return times, chance


def _decided_s(rates: FloatArray, patience: FloatArray, points: FloatArray) -> float:
    """The mean time until all links have a pair, or the first pair has waited too long."""
    times = -np.log1p(-points) / rates
    decided = times.max(axis=1)
    if len(rates) > 1:
        first, second = times[:, :-1], times[:, 1:]
        given_up = np.where(
            second > first,
            np.where(second - first > patience[:-1], first + patience[:-1], np.inf),
            np.where(first - second > patience[1:], second + patience[1:], np.inf),
        )
        decided = np.minimum(decided, given_up.min(axis=1))
    return float(decided.mean())


def _ages(heralded: FloatArray, delays: FloatArray, swaps: FloatArray) -> FloatArray:
    """(POINTS, n, 2) ages when the qubits are swapped, or handed over at the ends."""
    emitted = heralded - delays
    begins = np.maximum(heralded[:, :-1], heralded[:, 1:])
    ages = np.empty((*heralded.shape, 2))
    ages[:, 1:, 0] = begins - emitted[:, 1:]
    ages[:, :-1, 1] = begins - emitted[:, :-1]
    to_tail, to_head = heralded[:, 0] + delays[0], heralded[:, -1] + delays[-1]
    for place in range(len(swaps)):
        to_tail = np.maximum(to_tail, begins[:, place] + swaps[place]) + delays[place + 1]
        back = len(swaps) - 1 - place
        to_head = np.maximum(to_head, begins[:, back] + swaps[back]) + delays[back]
    ages[:, 0, 0] = to_head - emitted[:, 0]
    ages[:, -1, 1] = to_tail - emitted[:, -1]
    return ages
