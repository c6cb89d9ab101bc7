"""Under which conditions a link is at a network time: what changes slowly in the true world.

They are worked out on a fine grid, so that states have to be worked out seldom.
"""

import math
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from qstack.physical.conditions import IDEAL, Conditions
from qstack.physical.fabric.calibrations import Calibrations
from qstack.physical.fabric.clocks import Clocks
from qstack.physical.fabric.switchboard import Switchboard
from qstack.physical.hardware import World
from qstack.physical.link_options import PassChannel

if TYPE_CHECKING:
    from qstack.physical.drift_hardware import LinkDrift

GRID: Final = 1000  # steps of a photon's width, and of the time between calibrations


class Circumstances:
    """The conditions of all heralded links. At network time 0 all of them are calibrated.

    `switches` say which of the links that share a station may attempt.
    """

    def __init__(
        self, world: World, clocks: Clocks, calibrations: Calibrations, switches: Switchboard
    ) -> None:
        self.switches = switches
        self.calibration = calibrations.count
        """How often a link has been calibrated."""
        self._clocks = clocks
        self._calibrations = calibrations
        self._jitters_ps: dict[str, float] = {}
        self._grids_ps: dict[str, float] = {}
        self._drifts: dict[str, LinkDrift] = {}
        self._passes: dict[str, PassChannel] = {}  # of photon-pair links see `passes.py`
        for name, link in world.links.items():
            ends = world.clocks(name)
            if ends is not None and link.timing is not None:
                self._jitters_ps[name] = math.hypot(*(clock.jitter_ps for clock in ends))
                self._grids_ps[name] = link.timing.width_ps / GRID
            if link.drift is not None:
                self._drifts[name] = link.drift
            if isinstance(link.channel, PassChannel) and link.is_heralded:
                self._passes[name] = link.channel
        self._changing = self._jitters_ps.keys() | self._drifts.keys() | self._passes.keys()

    def at(self, link: str, at_ns: int) -> Conditions | None:
        """What holds at `at_ns`; None: always what the profiles say."""
        if link not in self._changing:
            return None
        conditions = self._timed(link, at_ns)
        passes = self._passes.get(link)
        if passes is not None:
            conditions = replace(conditions or IDEAL, arms=passes.at(at_ns))
        drift = self._drifts.get(link)
        if drift is None:
            return conditions
        grid_ns = max(1, drift.calibration_period_ns // GRID)
        steps = max(0, at_ns - self._calibrations.last_ns(link)) // grid_ns
        return drift.after(steps * grid_ns, IDEAL if conditions is None else conditions)

    def _timed(self, link: str, at_ns: int) -> Conditions | None:
        jitter_ps = self._jitters_ps.get(link)
        if jitter_ps is None:
            return None
        grid_ps = self._grids_ps[link]
        delay_ps = round(self._clocks.delay_ps(link, at_ns) / grid_ps) * grid_ps
        return Conditions(delay_ps=delay_ps, delay_deviation_ps=jitter_ps)
