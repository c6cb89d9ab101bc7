"""How fast a network can be: bounds, waiting for several successes, and the DLCZ repeater.

Times come out in attempts unless a name says seconds.
"""

import math
from typing import Final, NamedTuple

from qstack.physical.models.cycles import multiplexed_probability
from qstack.physical.models.ranges import (
    require_at_least,
    require_not_negative,
    require_positive,
    require_unit,
)

DLCZ_CONTAMINATION: Final = (8, 18, 56, 204, 788)
"""x_n of F = 1 - x_n p (1 - eta), by nesting level (recalled: Sangouard and others, RMP 2011)."""

# --- bounds --------------------------------------------------------------------------------------


def repeaterless_bound(transmission: float, repeaters: int = 0) -> float:
    """Ebits or secret bits per use of a lossy channel: -log2(1 - eta^(1/(N+1))).

    N = 0: Pirandola, Laurenza, Ottaviani, Banchi 2017; N ideal repeaters, equally spaced:
    Pirandola 2019. Raises ValueError for a transmission outside 0..1 (at 1 there is no bound).
    """
    require_unit(transmission=transmission)
    require_not_negative(repeaters=repeaters)
    hop = float(transmission ** (1.0 / (repeaters + 1)))
    if hop == 1.0:
        raise ValueError("a channel without loss has no bound")
    return -math.log1p(-hop) / math.log(2.0)


# --- waiting -------------------------------------------------------------------------------------


class Waiting(NamedTuple):
    """The mean number of attempts to both pairs, and what decay leaves of the older one."""

    attempts: float
    mean_decay: float


def attempts_to_all(links: int, probability: float) -> float:
    """E[max] of n links attempted in parallel and kept: sum_k (-1)^(k+1) C(n,k)/(1-(1-p)^k).

    Raises ValueError for fewer than 1 link, or more than 30 (the sum cancels), or p not in (0, 1].
    """
    require_at_least(1, links=links)
    _require_chance(probability)
    if links > 30:
        raise ValueError(f"the alternating sum is good for up to 30 links, not {links}")
    return math.fsum(
        (-1.0) ** (k + 1) * math.comb(links, k) / multiplexed_probability(probability, k)
        for k in range(1, links + 1)
    )


def attempts_by_rule(links: int, probability: float) -> float:
    """The rule of thumb (3/2)^log2(n) / p. Raises ValueError as `attempts_to_all`."""
    require_at_least(1, links=links)
    _require_chance(probability)
    return float(1.5 ** math.log2(links) / probability)


def parallel_with_cutoff(probability: float, cutoff: int, decay_attempts: float) -> Waiting:
    """Two links in parallel; the older pair is discarded after `cutoff` further attempts.

    q = 1-p, p1 = 1-q^2, s = p^2/p1 + (2pq/p1)(1-q^m): E[T] = (1/p1 + (2pq/p1)(1-q^m)/p)/s. The
    decay is the mean of exp(-k/T) over the age k of the older pair. Raises ValueError for p not
    in (0, 1], a cutoff below 1 or a decay not above 0.
    """
    _require_chance(probability)
    require_at_least(1, cutoff=cutoff)
    require_positive(decay_attempts=decay_attempts)
    p, q = probability, 1.0 - probability
    any_first = multiplexed_probability(p, 2)
    at_once, one = p * p / any_first, 2.0 * p * q / any_first
    in_time = multiplexed_probability(p, cutoff)
    success = at_once + one * in_time
    attempts = (1.0 / any_first + one * in_time / p) / success
    step = math.exp(-1.0 / decay_attempts)
    aged = p * step * (1.0 - (q * step) ** cutoff) / (1.0 - q * step)
    return Waiting(attempts, (at_once + one * aged) / success)


def sequential_with_cutoff(probability: float, cutoff: int) -> float:
    """The second link is tried only after the first, at most `cutoff` times: (1+s)/(p s).

    s = 1 - (1-p)^m. Raises ValueError for p not in (0, 1] or a cutoff below 1.
    """
    _require_chance(probability)
    in_time = multiplexed_probability(probability, cutoff)
    return (1.0 + in_time) / (probability * in_time)


# --- DLCZ ----------------------------------------------------------------------------------------


class DlczChain(NamedTuple):
    """2^n links of ensembles and linear optics (Duan, Lukin, Cirac, Zoller 2001)."""

    length_m: float
    nesting: int
    memory_efficiency: float
    detector_efficiency: float
    attenuation_length_m: float = 22_000.0
    light_m_per_s: float = 2e8


def dlcz_pair_probability(nesting: int, fidelity: float, efficiency: float) -> float:
    """The emission p that leaves this fidelity: (1 - F) / (x_n (1 - eta)), eta = eta_m eta_d.

    Raises ValueError for a nesting without x_n, F not in (0, 1), or eta outside 0..1 (at 1 there
    is nothing to limit p).
    """
    _require_nesting(nesting)
    require_unit(fidelity=fidelity, efficiency=efficiency)
    if efficiency == 1.0 or fidelity == 1.0:
        raise ValueError("p is limited by (1 - F) / (1 - eta): both below 1")
    return (1.0 - fidelity) / (DLCZ_CONTAMINATION[nesting] * (1.0 - efficiency))


def dlcz_link_probability(chain: DlczChain, pair_probability: float) -> float:
    """Of one single-photon link per attempt: p eta_d eta_t, eta_t over half of the link."""
    require_unit(pair_probability=pair_probability)
    link_m = chain.length_m / 2**chain.nesting
    half = math.exp(-link_m / (2.0 * chain.attenuation_length_m))
    return pair_probability * chain.detector_efficiency * half


def dlcz_time_s(chain: DlczChain, pair_probability: float) -> float:
    """The mean time to one two-photon pair over the whole chain.

    3^(n+1) (L0/c) prod_{k=1..n} (2^k - (2^k-1) eta) / (eta_d eta_t p eta^(n+2)). Waiting for both
    of two is taken as 3/2 of one, which `attempts_to_all` corrects. Raises ValueError for a value
    out of range.
    """
    require_positive(
        length_m=chain.length_m,
        attenuation_length_m=chain.attenuation_length_m,
        light_m_per_s=chain.light_m_per_s,
        pair_probability=pair_probability,
        memory_efficiency=chain.memory_efficiency,
        detector_efficiency=chain.detector_efficiency,
    )
    require_unit(
        memory_efficiency=chain.memory_efficiency, detector_efficiency=chain.detector_efficiency
    )
    _require_nesting(chain.nesting)
    n = chain.nesting
    efficiency = chain.memory_efficiency * chain.detector_efficiency
    losses = math.prod(2**k - (2**k - 1) * efficiency for k in range(1, n + 1))
    cycle_s = chain.length_m / 2**n / chain.light_m_per_s
    link = dlcz_link_probability(chain, pair_probability)
    return float(3.0 ** (n + 1) * cycle_s * losses / (link * efficiency ** (n + 2)))


def dlcz_double_pairs(nesting: int) -> int:
    """y_n of the first-order double-pair contamination y_n p (1 - eta): 2^(n+2) + 4^(n+1).

    All coincidences with a double pair are counted as errors: an upper bound of x_n. Raises
    ValueError for a negative nesting.
    """
    require_not_negative(nesting=nesting)
    return (1 << (nesting + 2)) + (1 << (2 * nesting + 2))


def _require_chance(probability: float) -> None:
    require_unit(probability=probability)
    require_positive(probability=probability)


def _require_nesting(nesting: int) -> None:
    if not 0 <= nesting < len(DLCZ_CONTAMINATION):
        raise ValueError(f"x_n is known for n in 0..{len(DLCZ_CONTAMINATION) - 1}, not {nesting}")
