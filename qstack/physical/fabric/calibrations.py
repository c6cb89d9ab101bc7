"""Two-ended calibrations of links: each end does its part with the station, at about the same time.

A calibration is good if the two parts overlap for half of their time at least; so must the part of
a station that has a name. Then all are told the same new number, and the link begins to drift anew
when the first part ends.
"""

from typing import NamedTuple

from qstack.errors import ErrorCode
from qstack.physical.device import Calibrate, Calibrated
from qstack.physical.fabric.register import RefusedError
from qstack.physical.hardware import LinkHardware, World


class Calibration(NamedTuple):
    """The part of an end or a station, which ends at `event_ns`. `number` counts parts."""

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
        self._latest: dict[tuple[str, str], Calibration] = {}  # by participant and link
        self._joint: dict[str, list[int]] = {}  # the parts of the last good one
        self._parts = 0

    def count(self, link: str) -> int:
        """How often a link has been calibrated."""
        return self._counts.get(link, 0)

    def last_ns(self, link: str) -> int:
        """Since when a link drifts."""
        return self._last_ns.get(link, 0)

    def begin(self, node: str, asked: Calibrate, at_ns: int) -> Calibration:
        """An end, or a named station, begins its part. Raises `RefusedError`."""
        link = self._world.links.get(asked.link)
        if link is None or node not in _parties(link):
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
        parts = [self._latest.get((each, part.link)) for each in _parties(link)]
        there = [each for each in parts if each is not None]
        apart_ns = max(abs(each.begun_ns - part.begun_ns) for each in there)
        is_good = len(there) == len(parts) and 2 * apart_ns <= part.event_ns - part.begun_ns
        is_new = False
        if is_good:
            joint = sorted(each.number for each in there)
            is_new = self._joint.get(part.link) != joint
            if is_new:
                self._joint[part.link] = joint
                self._counts[part.link] = self.count(part.link) + 1
                self._last_ns[part.link] = part.event_ns
        answer = Calibrated(
            operation=part.operation, is_good=is_good, calibration=self.count(part.link)
        )
        return answer, is_new

    def forget(self, node: str) -> None:
        """What a participant that goes down had begun comes to nothing."""
        self._latest = {key: part for key, part in self._latest.items() if key[0] != node}


def _parties(link: LinkHardware) -> list[str]:
    """Who has a part in a calibration."""
    return [*link.ends, *([] if link.station is None else [link.station])]
