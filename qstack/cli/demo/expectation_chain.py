"""The chain of links an expectation is about: its path, its durations, and what has no model.

Only plain numbers of the network file are used: lengths, durations, probabilities.
"""

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

import numpy as np

from qstack.cli.demo.expectation_states import link_state
from qstack.cli.demo.expectation_timing import NEVER_NS, ChainTiming, IntArray, LinkTiming
from qstack.physical.hardware import LinkHardware
from qstack.physical.profile import Profile
from qstack.runtime.network_file import Network

LIGHT_M_PER_S: Final = 299_792_458
QUEUE_ALLOWANCE_NS: Final = 40_000  # what the link layer's queue takes beside its round trip


class NoExpectationError(ValueError):
    """This network does what the expectation has no model of."""


@dataclass(frozen=True)
class Chain:
    """The nodes from head to tail and the links between them."""

    network: Network
    nodes: tuple[str, ...]
    links: tuple[LinkHardware, ...]
    cutoff_ns: int

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The profile of each node."""
        return tuple(self.network.nodes[name].profile for name in self.nodes)

    def end_profiles(self, link: LinkHardware) -> tuple[Profile, Profile]:
        """The profiles at a link, in the order of its ends."""
        first, second = (self.network.nodes[name].profile for name in link.ends)
        return first, second


def find_chain(network: Network, head: str, tail: str, *, cutoff_ns: int | None = None) -> Chain:
    """The path of least delay. Raises `NoExpectationError` for what has no model here."""
    nodes, links = shortest_path(network, head, tail)
    cutoff = network.cutoff_ns if cutoff_ns is None else cutoff_ns
    if cutoff is None and len(links) > 1:
        raise NoExpectationError("neither the network file nor the caller says the cutoff")
    for name in nodes:
        _require_simple(network, name, is_repeater=name not in (head, tail))
    return Chain(network, nodes, links, NEVER_NS // 4 if cutoff is None else cutoff)


def chain_timing(chain: Chain) -> ChainTiming:
    """The durations and probabilities of a chain, in whole nanoseconds."""
    event_ns = chain.network.machine_event_ns
    return ChainTiming(
        links=tuple(
            _link_timing(link, left, chain.end_profiles(link), event_ns)
            for link, left in zip(chain.links, chain.nodes, strict=False)
        ),
        swap_ns=tuple(bell_measurement_ns(profile) + event_ns for profile in chain.profiles[1:-1]),
        cutoff_ns=chain.cutoff_ns,
    )


def bell_measurement_ns(profile: Profile) -> int:
    """CNOT, Hadamard gate, readout of both qubits at once."""
    return profile.gate_2q_ns + profile.gate_1q_ns + profile.readout_ns


def _link_timing(
    link: LinkHardware, left: str, profiles: tuple[Profile, Profile], event_ns: int
) -> LinkTiming:
    """Emissions are timed so that photons meet: the herald leaves with the later of them."""
    if link.equipment is not None:
        raise NoExpectationError(f"{link.id}: the scheme {link.scheme}")
    if (link.channel, link.switch, link.traffic) != (None, None, None):
        raise NoExpectationError(f"{link.id}: a channel, switch or classical traffic of its own")
    arms_ns = [_light_ns(arm_m, link.group_index) for arm_m in link.arms_m]
    heralds_ns = [max(arms_ns) + arm_ns + event_ns for arm_ns in arms_ns]
    if left != link.ends[0]:
        heralds_ns.reverse()
    offset_ns = max(profile.t_init_ns + profile.t_emit_ns for profile in profiles)
    return LinkTiming(
        success_probability=link_state(link, *profiles).probability,
        cycle_ns=offset_ns + 2 * max(arms_ns),
        emission_offset_ns=offset_ns,
        left_herald_ns=heralds_ns[0],
        right_herald_ns=heralds_ns[1],
        message_ns=_light_ns(link.length_m, link.group_index) + event_ns,
    )


def _light_ns(length_m: float, group_index: float) -> int:
    return round(length_m * group_index / LIGHT_M_PER_S * 1e9)


def link_ready_ns(chain: Chain) -> IntArray:
    """(links,): from the request until each link is ready to attempt.

    FORWARD comes down hop by hop; the upper node of a link then agrees its queue with the other.
    """
    event_ns = chain.network.machine_event_ns
    ready, there_ns = [], 0
    for link in chain.links:
        fibre_ns = _light_ns(link.length_m, link.group_index)
        ready.append(there_ns + 2 * fibre_ns + QUEUE_ALLOWANCE_NS)
        there_ns += fibre_ns + event_ns
    return np.array(ready)


def shortest_path(
    network: Network, head: str, tail: str
) -> tuple[tuple[str, ...], tuple[LinkHardware, ...]]:
    """Nodes and links of the path of least delay, over links whose pairs can be kept."""
    for name in (head, tail):
        if name not in network.nodes:
            raise NoExpectationError(f"no node is called {name}")
    queue: list[tuple[int, tuple[str, ...], tuple[str, ...]]] = [(0, (head,), ())]
    seen: dict[str, None] = {}
    while queue:
        delay_ns, nodes, used = heappop(queue)
        here = nodes[-1]
        if here in seen:
            continue
        seen[here] = None
        if here == tail and used:
            return nodes, tuple(network.links[name] for name in used)
        for name, link in network.links.items():
            if here in link.ends and link.is_heralded:
                far = link.ends[1] if here == link.ends[0] else link.ends[0]
                fibre_ns = _light_ns(link.length_m, link.group_index)
                heappush(queue, (delay_ns + fibre_ns, (*nodes, far), (*used, name)))
    raise NoExpectationError(f"no chain of links leads from {head} to {tail}")


def _require_simple(network: Network, name: str, *, is_repeater: bool) -> None:
    """Refuse what assumption 2 leaves out."""
    node, profile = network.nodes[name], network.nodes[name].profile
    if profile.attempt_dephasing > 0.0:
        raise NoExpectationError(f"{name}: attempts disturb idle qubits")
    if profile.comm_t2_s is not None:
        raise NoExpectationError(f"{name}: communication qubits decay in their own way")
    if node.memory > profile.comm_qubits:
        raise NoExpectationError(f"{name}: heralded qubits are moved to storage")
    if not is_repeater:
        return
    links = len(network.world.heralded_links_of(name))
    if not profile.parallel_links or profile.comm_qubits < links:
        raise NoExpectationError(f"{name}: its links take turns")
    if min((node.memory - (node.memory > links)) // links, profile.comm_qubits // links) > 1:
        raise NoExpectationError(f"{name}: a link has more than one place")
