"""Which way to go: the path of best predicted fidelity, from what the nodes advertise.

Rules
1. A link counts only if both its ends advertise it, with the options of the end whose best is
   worse.
2. Pairs that are kept need links of kind `keep`; only a `measure` request over one single link
   may use a link that can do no more. Nodes in between need memory for a qubit on each side.
3. The cost of a path is -log of its Werner-like weight: the product of (4F - 1)/3 of its links'
   best options and of the factors of its swaps. Of equals the higher bottleneck rate wins, then
   the names.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise

from qstack.network.messages import HOPS_MAX, AdvertisedLink, LinkState
from qstack.network.params import RELAY_MEMORY_MIN
from qstack.network.prediction import (
    Chain,
    LinkFigures,
    NodeFigures,
    OptionFigures,
    link_weight,
    swap_weight,
)

_WEIGHT_MIN = 1e-9  # a useless link is a last resort, not an error
_COST_DIGITS = 12  # equal paths are not told apart by rounding errors

States = Mapping[str, LinkState]


@dataclass(frozen=True)
class Edge:
    """A link both of whose ends advertise it."""

    figures: LinkFigures
    kinds: tuple[str, ...]


def edge(states: States, here: str, peer: str) -> Edge | None:
    """The link between two nodes, or None if not both advertise it."""
    first, second = _advert(states, here, peer), _advert(states, peer, here)
    if first is None or second is None:
        return None
    sides = [_options(advert) for advert in (first, second)]
    worse = min(sides, key=lambda options: _best_first(options)[0])
    kinds = tuple(kind for kind in first.kinds if kind in second.kinds)
    delay_ns = max(first.delay_ns, second.delay_ns)
    return Edge(LinkFigures(worse, delay_ns, keeps="keep" in kinds), kinds)


def best_path(states: States, source: str, target: str, kind: str) -> tuple[str, ...] | None:
    """The best path, `source` first, or None. The same for everyone with equal link states."""
    if source == target or source not in states or target not in states:
        return None
    heap: list[tuple[float, float, tuple[str, ...]]] = [(0.0, -math.inf, (source,))]
    settled: dict[str, bool] = {}
    while heap:
        cost, bottleneck, path = heappop(heap)
        here = path[-1]
        if here == target:
            return path
        if here in settled or len(path) > HOPS_MAX:
            continue
        settled[here] = True
        if here != source and states[here].memory < RELAY_MEMORY_MIN:
            continue
        for peer, link in _edges(states, here):
            is_alone = here == source and peer == target
            if peer in settled or not ("keep" in link.kinds or (is_alone and kind in link.kinds)):
                continue
            weight = max(_WEIGHT_MIN, link_weight(link.figures))
            if here != source:
                weight *= max(_WEIGHT_MIN, swap_weight(node_figures(states[here])))
            step = round(cost - math.log(weight), _COST_DIGITS)
            heappush(heap, (step, max(bottleneck, -link.figures.best.rate_hz), (*path, peer)))
    return None


def chain_of(states: States, path: tuple[str, ...]) -> Chain | None:
    """The figures along a path, or None if one of its links is not advertised any more."""
    edges = [edge(states, here, peer) for here, peer in pairwise(path)]
    links = tuple(link.figures for link in edges if link is not None)
    if len(links) < len(edges):
        return None
    return Chain(links, tuple(node_figures(states[name]) for name in path))


def can_keep(states: States, path: tuple[str, ...]) -> bool:
    """Whether every link of the path yields pairs to be kept."""
    edges = [edge(states, here, peer) for here, peer in pairwise(path)]
    return all(link is not None and "keep" in link.kinds for link in edges)


def node_figures(state: LinkState) -> NodeFigures:
    """What prediction needs of a node."""
    return NodeFigures(
        state.swap_ns,
        state.swap_depolarising,
        state.gate_depolarising,
        state.swap_flip,
        state.t1_s,
        state.t2_s,
    )


def _options(advert: AdvertisedLink) -> tuple[OptionFigures, ...]:
    options = []
    for option in advert.options:
        a, b, c, d = option.bell_probabilities
        options.append(OptionFigures((a, b, c, d), option.rate_hz))
    return tuple(options)


def _best_first(options: tuple[OptionFigures, ...]) -> list[tuple[float, float]]:
    figures = [(option.bell_probabilities[0], option.rate_hz) for option in options]
    return sorted(figures, reverse=True)


def _advert(states: States, here: str, peer: str) -> AdvertisedLink | None:
    state = states.get(here)
    links = state.links if state is not None else []
    return next((link for link in links if link.peer == peer), None)


def _edges(states: States, here: str) -> Iterator[tuple[str, Edge]]:
    for advert in states[here].links:
        link = edge(states, here, advert.peer)
        if link is not None:
            yield advert.peer, link
