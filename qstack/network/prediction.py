"""What a chain of links will give: fidelity at hand-over, rate, and the cutoff that fits.

Pure functions of advertised figures, the same for admission and path choice. A pair is its four
Bell weights in the order (x, z) = 00, 01, 10, 11, after the announced bits are taken out.

The model
1. Links succeed independently with exponential times; T is the expected time until each has one.
   The pair of link i waits T - 1/rate_i, at most the cutoff (that of swap-asap is not longer).
2. Both its qubits age for that wait and for the link delay (age counts from emission). The qubits
   at the two ends of a longer chain age on for TRACK: all delays and swaps of the path.
3. Aging is the Pauli-twirled decay of T1 and T2. It keeps the fidelity of dephasing exact and is
   pessimistic by at most (1 - exp(-t/T1))^2 / 4 for damping.
4. A swap replaces the pair by the maximally mixed one with probability `swap_depolarising` and
   reports each bit wrongly with probability `swap_flip`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qstack.network.params import CUTOFF_DELAYS, CUTOFF_MAX_NS, CUTOFF_MIN_NS, SPARE

Weights = tuple[float, float, float, float]
PERFECT: Weights = (1.0, 0.0, 0.0, 0.0)
_STEPS = 32  # of the bisection: fidelities to 1e-9
_GRID = 4001


@dataclass(frozen=True)
class LinkFigures:
    """A link as advertised."""

    bell_probabilities: Weights
    rate_hz: float
    delay_ns: int


@dataclass(frozen=True)
class NodeFigures:
    """A node's memory and swap as advertised."""

    swap_ns: int
    swap_depolarising: float
    swap_flip: float
    t1_s: float
    t2_s: float


@dataclass(frozen=True)
class Chain:
    """A path: n links and the n + 1 nodes they join, head first."""

    links: tuple[LinkFigures, ...]
    nodes: tuple[NodeFigures, ...]

    def __post_init__(self) -> None:
        assert len(self.nodes) == len(self.links) + 1 >= 2, "a chain of n links joins n + 1 nodes"

    @property
    def track_ns(self) -> int:
        """How long news travels from one end to the other, swaps included."""
        return sum(link.delay_ns for link in self.links) + sum(
            node.swap_ns for node in self.nodes[1:-1]
        )


@dataclass(frozen=True)
class Plan:
    """How to run a chain, and what it then gives."""

    cutoff_ns: int
    link_min_fidelity: float
    fidelity: float
    rate_hz: float


def convolve(a: Weights, b: Weights) -> Weights:
    """The Bell weights after an ideal swap of two pairs: labels add by XOR."""
    weights = [0.0] * 4
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            weights[i ^ j] += first * second
    return weights[0], weights[1], weights[2], weights[3]


def aging(elapsed_s: float, t1_s: float, t2_s: float) -> Weights:
    """The twirled decay of one qubit in `elapsed_s` seconds, as weights of I, Z, X, Y.

    With a = exp(-t/T1), b = exp(-t/T2): X and Y have (1 - a)/4 each, Z (1 - b)/2 - (1 - a)/4
    (Pauli twirling of amplitude damping; Ghosh, Fowler, Geller, PRA 86, 062318). T2 is taken as
    at most 2 T1, which every channel obeys.
    """
    relaxed = -math.expm1(-elapsed_s / t1_s)
    dephased = -math.expm1(-elapsed_s / min(t2_s, 2.0 * t1_s))
    flip = relaxed / 4.0
    phase = max(0.0, dephased / 2.0 - flip)
    return 1.0 - phase - 2.0 * flip, phase, flip, flip


def swapped(pair: Weights, node: NodeFigures) -> Weights:
    """What the swap at `node` makes of the pair that an ideal swap would give."""
    d, f = node.swap_depolarising, node.swap_flip
    a, b, c, e = ((1.0 - d) * weight + d / 4.0 for weight in pair)
    return convolve((a, b, c, e), ((1 - f) ** 2, (1 - f) * f, f * (1 - f), f * f))


def swap_weight(node: NodeFigures) -> float:
    """The factor by which a swap at `node` shrinks a Werner pair's (4F - 1)/3."""
    kept = 1.0 - 2.0 * node.swap_flip
    return (1.0 - node.swap_depolarising) * (2.0 * kept + kept * kept) / 3.0


def link_weight(bell_probabilities: Weights) -> float:
    """(4F - 1)/3 of a link's pair."""
    return (4.0 * bell_probabilities[0] - 1.0) / 3.0


@lru_cache(maxsize=1024)  # a plan asks for the same chain some sixty times
def expected_time_s(rates_hz: tuple[float, ...]) -> float:
    """The expected time until every one of independent exponential processes has happened.

    The integral of 1 - prod(1 - exp(-rate t)); infinite if a rate is 0.
    """
    slowest = min(rates_hz)
    if slowest <= 0.0:
        return math.inf
    if len(rates_hz) == 1:
        return 1.0 / slowest
    relative = np.array(rates_hz) / slowest
    # t = u^2 puts the points where the fast links are: near 0.
    root = np.linspace(0.0, math.sqrt(40.0 + math.log(len(rates_hz))), _GRID)
    missing = 1.0 - np.prod(-np.expm1(-np.outer(relative, root * root)), axis=0)
    height = missing * 2.0 * root
    integral = float(np.sum(height[1:] + height[:-1]) * root[1] / 2.0)
    return max(integral, 1.0) / slowest


def end_to_end(chain: Chain, waits_s: tuple[float, ...]) -> Weights:
    """The pair at hand-over when the pair of link i waits `waits_s[i]` seconds for its swap."""
    track_s = chain.track_ns / 1e9 if len(chain.links) > 1 else 0.0
    pair = PERFECT
    last = len(chain.links) - 1
    for place, link in enumerate(chain.links):
        age_s = waits_s[place] + link.delay_ns / 1e9
        pair = convolve(pair, link.bell_probabilities)
        for side, is_end in ((place, place == 0), (place + 1, place == last)):
            node = chain.nodes[side]
            pair = convolve(pair, aging(age_s + track_s * is_end, node.t1_s, node.t2_s))
        if place > 0:
            pair = swapped(pair, chain.nodes[place])
    return pair


def predict(chain: Chain, cutoff_ns: int) -> tuple[float, float]:
    """Expected fidelity at hand-over and expected rate (pairs per second) under a cutoff.

    The rate is one pair per T, times the chance that the slowest link comes within the cutoff.
    """
    rates = tuple(link.rate_hz for link in chain.links)
    total_s = expected_time_s(rates)
    if math.isinf(total_s):
        return end_to_end(chain, (cutoff_ns / 1e9,) * len(rates))[0], 0.0
    if len(rates) == 1:
        return end_to_end(chain, (0.0,))[0], rates[0]
    cutoff_s = cutoff_ns / 1e9
    waits = tuple(min(max(0.0, total_s - 1.0 / rate), cutoff_s) for rate in rates)
    in_time = -math.expm1(-min(rates) * cutoff_s)
    return end_to_end(chain, waits)[0], in_time / total_s


def cutoff_min_ns(chain: Chain) -> int:
    """The shortest default cutoff: a few delays, or nothing would ever be swapped."""
    slowest = max(link.delay_ns for link in chain.links)
    return max(CUTOFF_MIN_NS, CUTOFF_DELAYS * slowest + max(n.swap_ns for n in chain.nodes))


def default_cutoff_ns(chain: Chain, min_fidelity: float) -> int:
    """The longest cutoff that keeps the worst pair good enough.

    Good enough: when every pair waits for the whole cutoff, the fidelity is still
    `min_fidelity`, and half of what lies above 1/2 without waiting. At least `cutoff_min_ns`.
    """
    shortest = cutoff_min_ns(chain)

    def worst(cutoff_ns: int) -> float:
        return end_to_end(chain, (cutoff_ns / 1e9,) * len(chain.links))[0]

    fresh = worst(0)
    floor = max(min_fidelity, min(fresh, (fresh + 0.5) / 2.0))
    if worst(CUTOFF_MAX_NS) >= floor:
        return max(CUTOFF_MAX_NS, shortest)
    low, high = 0, CUTOFF_MAX_NS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if worst(middle) >= floor else (low, middle)
    return max(low, shortest)


def best_fidelity(chain: Chain, cutoff_ns: int | None) -> float:
    """The best that could be promised over `chain`: links at their best, the shortest cutoff."""
    return predict(chain, cutoff_min_ns(chain) if cutoff_ns is None else cutoff_ns)[0]


def plan(chain: Chain, min_fidelity: float, cutoff_ns: int | None) -> Plan | None:
    """How to run `chain` so that it keeps `min_fidelity`, or None if it cannot.

    Advertised figures are those of each link's best fidelity, which is its slowest way. What
    lies above the promise is given back: links may run at any fidelity down to
    `link_min_fidelity`, the least at which the chain still keeps the promise (and SPARE of what
    its best is above 1/2, so that asking for nothing does not yield noise).
    """
    cutoff = default_cutoff_ns(chain, min_fidelity) if cutoff_ns is None else cutoff_ns
    best, rate_hz = predict(chain, cutoff)
    if best < min_fidelity:
        return None
    aim = max(min_fidelity, min(best, 0.5 + SPARE * (best - 0.5)))
    low, high = 0.0, max(link.bell_probabilities[0] for link in chain.links)
    fidelity = best
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        reached = predict(_relaxed(chain, middle), cutoff)[0]
        if reached >= aim:
            high, fidelity = middle, reached
        else:
            low = middle
    return Plan(cutoff, high, fidelity, rate_hz)


def _relaxed(chain: Chain, fidelity: float) -> Chain:
    """The chain with each better link run at `fidelity`, its errors in proportion."""
    return Chain(tuple(_relaxed_link(link, fidelity) for link in chain.links), chain.nodes)


def _relaxed_link(link: LinkFigures, fidelity: float) -> LinkFigures:
    kept, *errors = link.bell_probabilities
    if kept <= fidelity:
        return link
    total = sum(errors)
    if total <= 0.0:
        rest = (1.0 - fidelity) / 3.0
        return LinkFigures((fidelity, rest, rest, rest), link.rate_hz, link.delay_ns)
    a, b, c = (error * (1.0 - fidelity) / total for error in errors)
    return LinkFigures((fidelity, a, b, c), link.rate_hz, link.delay_ns)
