"""What a chain of links will give: fidelity at hand-over, rate, and the cutoff that fits.

Pure functions of advertised figures, the same for admission and for goodness. A pair is its four
Bell weights in the order (x, z) = 00, 01, 10, 11, after the announced bits are taken out.

The model
1. How long each qubit waits is the sample of histories of `waiting`; the pair is the mean over it.
   Qubits age from their emission until they are swapped, at the ends until TRACK.
2. Aging is the Pauli-twirled decay of T1 and T2. It keeps the fidelity of dephasing exact and is
   pessimistic by at most (1 - exp(-t/T1))^2 / 4 for damping.
3. A swap replaces the pair by the maximally mixed one with probability `swap_depolarising`, leaves
   the z bit to chance with probability `gate_depolarising` (of its H gate), and reports each bit
   wrongly with probability `swap_flip`.
4. The tail takes the announced bits out by one gate, unless they are (0, 0): of uniform bits, which
   a swap leaves, one time in four. Over one link it is counted always: photonic links announce
   psi+ or psi-. A link that only measures is read at once: nothing ages, no gate corrects.
5. A link runs at the fastest of its options that keeps `link_min_fidelity`, as the link layer
   chooses, or at its best.
6. Links begin together, and again together after a discard. Real links begin when their own
   places are free and run ahead of one another, which costs fidelity over three links or more: on
   the packaged `metro` 0.003 for the first pair of a request and 0.005 for the mean of many.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from qstack.network.params import CUTOFF_DELAYS, CUTOFF_MAX_NS, CUTOFF_MIN_NS, RUNS_MAX, SPARE
from qstack.network.waiting import FloatArray, Timing, waits

Weights = tuple[float, float, float, float]
PERFECT: Weights = (1.0, 0.0, 0.0, 0.0)
MIXED: Weights = (0.25, 0.25, 0.25, 0.25)
BEST = 1.0  # as link_min_fidelity: every link at its best


@dataclass(frozen=True)
class OptionFigures:
    """A way to run a link, as advertised: the weights need not add up to 1."""

    bell_probabilities: Weights
    rate_hz: float

    @property
    def weights(self) -> Weights:
        """The weights of a state, the maximally mixed one if there is none."""
        total = sum(self.bell_probabilities)
        if total <= 0.0:
            return MIXED
        a, b, c, d = (weight / total for weight in self.bell_probabilities)
        return a, b, c, d


@dataclass(frozen=True)
class LinkFigures:
    """A link as advertised; at least one option. `keeps`: its pairs can be kept."""

    options: tuple[OptionFigures, ...]
    delay_ns: int
    keeps: bool = True

    @property
    def best(self) -> OptionFigures:
        """The option of the highest fidelity."""
        return max(self.options, key=lambda option: option.bell_probabilities[0])

    def run_at(self, min_fidelity: float) -> OptionFigures:
        """What the link layer chooses: the fastest that keeps `min_fidelity`, else the best."""
        good = [o for o in self.options if o.bell_probabilities[0] >= min_fidelity]
        return max(good, key=lambda o: (o.rate_hz, o.bell_probabilities[0]), default=self.best)


@dataclass(frozen=True)
class NodeFigures:
    """A node's memory, gates and swap as advertised."""

    swap_ns: int
    swap_depolarising: float
    gate_depolarising: float
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
    def is_read_at_once(self) -> bool:
        """Whether there is nothing but a link that only measures."""
        return len(self.links) == 1 and not self.links[0].keeps

    @property
    def track_ns(self) -> int:
        """How long news travels from one end to the other, swaps included."""
        return sum(link.delay_ns for link in self.links) + sum(
            node.swap_ns for node in self.nodes[1:-1]
        )

    @property
    def fidelities(self) -> list[float]:
        """The values of `link_min_fidelity` that make a difference, the highest first."""
        each = (o.bell_probabilities[0] for link in self.links for o in link.options)
        return sorted(dict.fromkeys(each), reverse=True)


@dataclass(frozen=True)
class Plan:
    """How to run a chain, and what it then gives."""

    cutoff_ns: int
    link_min_fidelity: float
    fidelity: float
    rate_hz: float


# --- states ---------------------------------------------------------------------------------------


def convolve(a: Weights, b: Weights) -> Weights:
    """The Bell weights after an ideal swap of two pairs: labels add by XOR."""
    weights = [0.0] * 4
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            weights[i ^ j] += first * second
    return weights[0], weights[1], weights[2], weights[3]


def mixed(pair: Weights, probability: float) -> Weights:
    """The pair after one or both of its qubits were replaced by noise with that probability."""
    a, b, c, d = ((1.0 - probability) * weight + probability / 4.0 for weight in pair)
    return a, b, c, d


def swapped(pair: Weights, node: NodeFigures) -> Weights:
    """What the swap at `node` makes of the pair that an ideal swap would give."""
    x_flip, g = node.swap_flip, node.gate_depolarising / 2.0
    z_flip = x_flip * (1.0 - g) + (1.0 - x_flip) * g
    errors = (
        (1.0 - x_flip) * (1.0 - z_flip),
        (1.0 - x_flip) * z_flip,
        x_flip * (1.0 - z_flip),
        x_flip * z_flip,
    )
    return convolve(mixed(pair, node.swap_depolarising), errors)


def aging(populations: float, coherence: float) -> Weights:
    """The twirled decay that leaves these parts of <ZZ>, and of <XX> and <YY>, to a pair.

    As weights of I, Z, X, Y. For one qubit they are exp(-t/T1) and exp(-t/T2) (Pauli twirling of
    amplitude damping; Ghosh, Fowler, Geller, PRA 86, 062318); for several the products.
    """
    flip = (1.0 - populations) / 4.0
    phase = max(0.0, (1.0 - coherence) / 2.0 - flip)
    return 1.0 - phase - 2.0 * flip, phase, flip, flip


def swap_weight(node: NodeFigures) -> float:
    """The factor by which a swap at `node` shrinks a Werner pair's (4F - 1)/3."""
    x_kept = 1.0 - 2.0 * node.swap_flip
    z_kept = x_kept * (1.0 - node.gate_depolarising)
    return (1.0 - node.swap_depolarising) * (x_kept + z_kept + x_kept * z_kept) / 3.0


def link_weight(link: LinkFigures) -> float:
    """(4F - 1)/3 of a link's best pair."""
    return (4.0 * link.best.weights[0] - 1.0) / 3.0


@lru_cache(maxsize=256)
def without_aging(chain: Chain, link_min_fidelity: float, *, is_corrected: bool = True) -> Weights:
    """The pair at hand-over if no memory decayed: links, swaps, the tail's correction."""
    pair = PERFECT
    for link in chain.links:
        pair = convolve(pair, link.run_at(link_min_fidelity).weights)
    for node in chain.nodes[1:-1]:
        pair = swapped(pair, node)
    if chain.is_read_at_once or not is_corrected:
        return pair
    needed = 1.0 if len(chain.links) == 1 else 0.75
    return mixed(pair, needed * chain.nodes[-1].gate_depolarising)


def aged(pair: Weights, chain: Chain, ages_s: FloatArray) -> Weights:
    """The mean pair when the qubits of link i become `ages_s[:, i]` (towards head, tail) old.

    T2 is taken as at most 2 T1, which every channel obeys.
    """
    t1_s = np.array([node.t1_s for node in chain.nodes])
    t2_s = np.minimum([node.t2_s for node in chain.nodes], 2.0 * t1_s)
    kept = []
    for times in (t1_s, t2_s):
        per_s = np.stack((1.0 / times[:-1], 1.0 / times[1:]), axis=1)
        kept.append(float(np.exp(-(ages_s * per_s).sum(axis=(1, 2))).mean()))
    return convolve(pair, aging(*kept))


def probability(value: float) -> float:
    """`value` without the rounding errors that would leave 0..1."""
    return min(1.0, max(0.0, value))


# --- plans ----------------------------------------------------------------------------------------


def predict(chain: Chain, cutoff_ns: int, link_min_fidelity: float = BEST) -> tuple[float, float]:
    """Expected fidelity at hand-over and expected rate (pairs per second) under a cutoff."""
    pair, rate_hz = predicted_pair(chain, cutoff_ns, link_min_fidelity)
    return probability(pair[0]), rate_hz


def predicted_pair(
    chain: Chain, cutoff_ns: int, link_min_fidelity: float, *, is_corrected: bool = True
) -> tuple[Weights, float]:
    """The expected pair at hand-over, and the rate; see `predict`.

    Not `is_corrected`: the announced bits are taken out of outcomes, by no gate.
    """
    fresh = without_aging(chain, link_min_fidelity, is_corrected=is_corrected)
    if chain.is_read_at_once:
        return fresh, chain.links[0].run_at(link_min_fidelity).rate_hz
    timing = Timing(
        tuple(link.run_at(link_min_fidelity).rate_hz for link in chain.links),
        tuple(link.delay_ns / 1e9 for link in chain.links),
        tuple(node.swap_ns / 1e9 for node in chain.nodes[1:-1]),
        cutoff_ns / 1e9,
    )
    waited = waits(timing)
    return aged(fresh, chain, waited.ages_s), waited.rate_hz


def worst(chain: Chain, cutoff_ns: int) -> float:
    """The fidelity, links at their best, when every pair waits as long as the cutoff allows.

    At a repeater that is the cutoff; at an end one cutoff per swap, then TRACK.
    """
    if chain.is_read_at_once:
        return without_aging(chain, BEST)[0]
    count = len(chain.links)
    ages_ns = np.full((1, count, 2), cutoff_ns, dtype=np.float64)
    longest_ns = (count - 1) * cutoff_ns + chain.track_ns
    ages_ns[0, 0, 0] = longest_ns + chain.links[0].delay_ns
    ages_ns[0, -1, 1] = longest_ns + chain.links[-1].delay_ns
    return aged(without_aging(chain, BEST), chain, ages_ns / 1e9)[0]


def cutoff_min_ns(chain: Chain) -> int:
    """The shortest default cutoff: a few delays, or nothing would ever be swapped."""
    slowest = max(link.delay_ns for link in chain.links)
    return max(CUTOFF_MIN_NS, CUTOFF_DELAYS * slowest + max(n.swap_ns for n in chain.nodes))


def default_cutoff_ns(chain: Chain, min_fidelity: float) -> int:
    """The longest cutoff that keeps the worst pair good enough.

    Good enough: when every pair waits as long as it may, the fidelity is still `min_fidelity`,
    and half of what lies above 1/2 without waiting. At least `cutoff_min_ns`.
    """
    shortest = cutoff_min_ns(chain)
    fresh = worst(chain, 0)
    floor = max(min_fidelity, min(fresh, (fresh + 0.5) / 2.0))
    if worst(chain, CUTOFF_MAX_NS) >= floor:
        return max(CUTOFF_MAX_NS, shortest)
    low, high = 0, CUTOFF_MAX_NS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if worst(chain, middle) >= floor else (low, middle)
    return max(low, shortest)


@lru_cache(maxsize=256)
def best_fidelity(chain: Chain, cutoff_ns: int | None) -> float:
    """The best that could be promised over `chain`, by default with the shortest cutoff."""
    cutoff = cutoff_min_ns(chain) if cutoff_ns is None else cutoff_ns
    return max(run.fidelity for run in _runs(chain, cutoff))


@lru_cache(maxsize=256)
def plan(chain: Chain, min_fidelity: float, cutoff_ns: int | None) -> Plan | None:
    """The fastest way to run `chain` that keeps `min_fidelity`, or None if there is none.

    It keeps SPARE of what the best is above 1/2 besides, so that asking for nothing does not
    yield noise.
    """
    cutoff = default_cutoff_ns(chain, min_fidelity) if cutoff_ns is None else cutoff_ns
    runs = _runs(chain, cutoff)
    best = max(run.fidelity for run in runs)
    if best < min_fidelity:
        return None
    aim = max(min_fidelity, min(best, 0.5 + SPARE * (best - 0.5)))
    good = [run for run in runs if run.fidelity >= aim]
    fastest = max(good, key=lambda run: (run.rate_hz, run.fidelity))
    if len(chain.links) > 1:
        return fastest
    return replace(fastest, link_min_fidelity=_least(chain, fastest, min_fidelity))


def _least(chain: Chain, run: Plan, min_fidelity: float) -> float:
    """The least of `link_min_fidelity` by which the one link of a chain runs as in `run`.

    It is no less than what keeps `min_fidelity`, and well above the option that comes next, so that
    a link which gets a little worse, as in a satellite's pass, is still what was asked for.
    """
    chosen = run.link_min_fidelity
    below = next((each for each in chain.fidelities if each < chosen), 0.0)
    spare = max(0.0, run.fidelity - min_fidelity)
    return max((chosen + below) / 2, chosen - spare)


def _runs(chain: Chain, cutoff_ns: int) -> list[Plan]:
    """The ways to run a chain, of more than RUNS_MAX a selection from best to fastest links."""
    fidelities = chain.fidelities
    last = len(fidelities) - 1
    if last >= RUNS_MAX:
        fidelities = [fidelities[step * last // (RUNS_MAX - 1)] for step in range(RUNS_MAX)]
    return [Plan(cutoff_ns, each, *predict(chain, cutoff_ns, each)) for each in fidelities]
