"""Under which conditions a link is at a network time: what changes slowly in the true world.

They are worked out on a fine grid, so that states have to be worked out seldom.
"""

import math
from typing import Final

from qstack.physical.conditions import Conditions
from qstack.physical.fabric.clocks import Clocks
from qstack.physical.hardware import World

GRID: Final = 1000  # steps of a photon's width


class Circumstances:
    """The conditions of all heralded links."""

    def __init__(self, world: World, clocks: Clocks) -> None:
        self._clocks = clocks
        self._jitters_ps: dict[str, float] = {}
        self._grids_ps: dict[str, float] = {}
        for name, link in world.links.items():
            ends = world.clocks(name)
            if ends is not None and link.timing is not None:
                self._jitters_ps[name] = math.hypot(*(clock.jitter_ps for clock in ends))
                self._grids_ps[name] = link.timing.width_ps / GRID

    def at(self, link: str, at_ns: int) -> Conditions | None:
        """What holds at `at_ns`; None: always what the profiles say."""
        jitter_ps = self._jitters_ps.get(link)
        if jitter_ps is None:
            return None
        grid_ps = self._grids_ps[link]
        delay_ps = round(self._clocks.delay_ps(link, at_ns) / grid_ps) * grid_ps
        return Conditions(delay_ps=delay_ps, delay_deviation_ps=jitter_ps)
