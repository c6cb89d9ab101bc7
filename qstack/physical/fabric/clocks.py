"""The true hardware clocks of all nodes, what their devices were told of them, and what is left.

Pulses are stamped with what the clock of a node says, jitter included; light of attempts is timed
by the clocks as they are aligned. What stays between the two ends of a link is its `delay_ps`.
"""

from typing import NamedTuple

from qstack.physical.clock_hardware import PERFECT_CLOCK
from qstack.physical.device import AlignClock, ClockReading, PulseStamped, SendPulse
from qstack.physical.fabric.chance import Chance
from qstack.physical.fabric.wander import Wander
from qstack.physical.hardware import World


class _Alignment(NamedTuple):
    at_ns: int
    offset_ps: float
    rate_ppb: float

    def error_ps(self, at_ns: int) -> float:
        """What is taken off at `at_ns`."""
        return self.offset_ps + self.rate_ppb * (at_ns - self.at_ns) * 1e-6


class Clocks:
    """The clocks of one world."""

    def __init__(self, world: World, chance: Chance) -> None:
        self._world = world
        self._chance = chance
        self._wanders = {
            name: Wander(chance, name, node.clock.wander_ppb_per_root_s)
            for name, node in world.nodes.items()
            if node.clock is not None and node.clock.rate_wander_ppb_per_root_day
        }
        self._alignments: dict[tuple[str, str], _Alignment] = {}  # by node and link

    def pulse(self, node: str, asked: SendPulse, at_ns: int) -> tuple[PulseStamped, PulseStamped]:
        """A pulse leaves `node`: what is stamped there, and at the other end when it arrives."""
        link = self._world.links[asked.link]
        half_ps = 0.0 if link.timing is None else link.timing.asymmetry_ps / 2.0
        way_ps = half_ps if node == link.ends[0] else -half_ps
        sent = self._reading(node, asked, node, at_ns, 0.0)
        far = link.other_end(node)
        came = self._reading(node, asked, far, at_ns + link.delay_ns, way_ps)
        return (
            PulseStamped(link=link.id, pulse=asked.pulse, is_sent=True, reading=sent),
            PulseStamped(link=link.id, pulse=asked.pulse, is_sent=False, reading=came),
        )

    def align(self, node: str, asked: AlignClock) -> None:
        """A node times its light on a link anew."""
        self._alignments[node, asked.link] = _Alignment(
            asked.at_ns, asked.offset_ps, asked.rate_ppb
        )

    def forget(self, node: str) -> None:
        """A device that begins anew knows of no alignment."""
        for link in self._world.links_of(node):
            self._alignments.pop((node, link.id), None)

    def delay_ps(self, link: str, at_ns: int) -> float:
        """How much later than it should the second end's light comes, against the first's.

        A clock that is ahead makes its light early. Half the asymmetry of the fibre, of which no
        comparison of clocks can know, comes with an alignment by it and not here.
        """
        first, second = (self._ahead_ps(end, link, at_ns) for end in self._world.links[link].ends)
        return first - second

    def _ahead_ps(self, node: str, link: str, at_ns: int) -> float:
        alignment = self._alignments.get((node, link))
        known_ps = 0.0 if alignment is None else alignment.error_ps(at_ns)
        return self._error_ps(node, at_ns) - known_ps

    def _error_ps(self, node: str, at_ns: int) -> float:
        """How far the clock of `node` is ahead of network time."""
        clock, wander = self._world.nodes[node].clock or PERFECT_CLOCK, self._wanders.get(node)
        return clock.error_ps(at_ns) + (0.0 if wander is None else wander.error_ps(at_ns))

    def _reading(
        self, sender: str, asked: SendPulse, at: str, at_ns: int, late_ps: float
    ) -> ClockReading:
        clock = self._world.nodes[at].clock or PERFECT_CLOCK
        error_ps = late_ps + self._error_ps(at, at_ns)
        if clock.jitter_ps:
            name = ("stamp", sender, asked.link, asked.sequence, at)
            error_ps += clock.jitter_ps * self._chance.generator(*name).standard_normal()
        ns, ps = divmod(at_ns * 1000 + round(error_ps), 1000)
        return ClockReading(ns, ps)
