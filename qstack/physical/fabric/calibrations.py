"""Two-ended calibrations of links: each end does its part with the station, at about the same time.

A calibration is good if the two parts overlap for half of their time at least. Then both ends are
told the same new number, and the link begins to drift anew when the first part ends.
"""

from typing import NamedTuple

from qstack.errors import ErrorCode
from qstack.physical.device import Calibrate, Calibrated
from qstack.physical.fabric.register import RefusedError
from qstack.physical.hardware import World


class Calibration(NamedTuple):
    """One end's part, which ends at `event_ns`. `number` counts parts."""

    node: str
    link: str
    operation: int
    begun_ns: int
    event_ns: int
    number: int


class Calibrations:
    """The calibrations of all links."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._counts: dict[str, int] = {}
        self._last_ns: dict[str, int] = {}
        self._latest: dict[tuple[str, str], Calibration] = {}  # by node and link
        self._joint: dict[str, tuple[int, int]] = {}  # the parts of the last good one
        self._parts = 0

    def count(self, link: str) -> int:
        """How often a link has been calibrated."""
        return self._counts.get(link, 0)

    def last_ns(self, link: str) -> int:
        """Since when a link drifts."""
        return self._last_ns.get(link, 0)

    def begin(self, node: str, asked: Calibrate, at_ns: int) -> Calibration:
        """An end begins its part. Raises `RefusedError`."""
        link = self._world.links.get(asked.link)
        if link is None or node not in link.ends:
            raise RefusedError(ErrorCode.BAD_REQUEST, f"{node} is not on a link {asked.link}")
        if link.drift is None:
            raise RefusedError(ErrorCode.UNSUPPORTED, f"{asked.link} needs no calibration")
        ends_ns = at_ns + link.drift.calibration_ns
        part = Calibration(node, link.id, asked.sequence, at_ns, ends_ns, self._parts)
        self._parts += 1
        self._latest[node, link.id] = part
        return part

    def end(self, part: Calibration) -> tuple[Calibrated, bool] | None:
        """A part is over: what its end is told, and whether the link is calibrated by it.

        Nothing, if the end has forgotten of it.
        """
        if self._latest.get((part.node, part.link)) != part:
            return None
        link = self._world.links[part.link]
        far = self._latest.get((link.other_end(part.node), part.link))
        apart_ns = None if far is None else abs(far.begun_ns - part.begun_ns)
        is_good = apart_ns is not None and 2 * apart_ns <= part.event_ns - part.begun_ns
        is_new = False
        if is_good and far is not None:
            first, last = sorted((part.number, far.number))
            is_new = self._joint.get(part.link) != (first, last)
            if is_new:
                self._joint[part.link] = first, last
                self._counts[part.link] = self.count(part.link) + 1
                self._last_ns[part.link] = part.event_ns
        answer = Calibrated(
            operation=part.operation, is_good=is_good, calibration=self.count(part.link)
        )
        return answer, is_new

    def forget(self, node: str) -> None:
        """What an end that goes down had begun comes to nothing."""
        for link in self._world.links_of(node):
            self._latest.pop((node, link.id), None)
