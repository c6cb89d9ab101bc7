"""Calibrations of this node's links: asked for by the link layer, done by the device.

The link layer agrees with the far end on when, and sees to it that nobody attempts meanwhile. Every
CalibrateLink ends in exactly one LinkCalibrated. Where the station of a link has a name it takes
part, and says what came of it: it is good if the device and the station say so, and the number is
the station's.
"""

from msgspec import Struct

from qstack.machine import Effect, Tell
from qstack.physical.attempts import LINK_LAYER, Attempts
from qstack.physical.device import Calibrate, Calibrated
from qstack.physical.device_order import DeviceOrder
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.service import CalibrateLink, LinkCalibrated, LinkCare
from qstack.physical.station_gens import StationGens
from qstack.physical.station_messages import StationCalibrated


class _Part(Struct, eq=False):
    """A calibration that was asked for. `is_done`: well, by the device; `number`: the station's."""

    peer: str
    link: LinkHardware
    is_done: bool = False
    number: int | None = None


class Calibrations:
    """All of one node."""

    def __init__(
        self, node: str, world: World, order: DeviceOrder, attempts: Attempts, gens: StationGens
    ) -> None:
        self._order = order
        self._attempts = attempts  # whose heralds are better after one
        self._gens = gens
        self._links = {link.other_end(node): link for link in world.links_of(node)}
        self._asked: dict[int, _Part] = {}  # by operation

    def care(self, *, is_due: bool) -> list[Effect]:
        """What the link layer is told of links that drift."""
        return [
            Tell(
                LINK_LAYER,
                LinkCare(
                    peer=peer,
                    period_ns=link.drift.calibration_period_ns,
                    duration_ns=link.drift.calibration_ns,
                    is_due=is_due,
                ),
            )
            for peer, link in self._links.items()
            if link.drift is not None
        ]

    def start(self, asked: CalibrateLink, now: int, *, is_ready: bool) -> list[Effect]:
        """The link layer asks."""
        link = self._links.get(asked.peer)
        if link is None or not is_ready or self._gens.is_away(link.id):
            return [_told(asked.peer, is_good=False, calibration=0)]
        effects = self._fail([link.id])  # an older one that never came to its end
        number = self._order.next_sequence()
        self._asked[number] = _Part(asked.peer, link)
        calibrate = Calibrate(at_ns=now, sequence=number, link=link.id)
        effects += self._order.submit(calibrate, now)
        return effects + self._gens.calibrating(link, asked.until_ns)

    def done(self, result: Calibrated, now: int) -> list[Effect]:
        """The device is through with one."""
        part = self._asked.get(result.operation)
        if part is None:
            return []
        if not result.is_good or part.link.station is None:
            return self._end(result.operation, now, result.calibration, is_good=result.is_good)
        part.is_done = True
        return self._settle(result.operation, now)

    def station_said(self, said: StationCalibrated, now: int) -> list[Effect]:
        """The station of a link is through with its part."""
        operation = next((n for n, p in self._asked.items() if p.link.id == said.link), None)
        if operation is None:
            return []
        if not said.is_good:
            return self._end(operation, now, 0, is_good=False)
        self._asked[operation].number = said.calibration
        return self._settle(operation, now)

    def links_lost(self, links: list[str]) -> list[Effect]:
        """The station of these links has gone, and its part with it."""
        return self._fail(links)

    def refused(self, operation: int) -> list[Effect] | None:
        """The device refused an operation; None if it was none of ours."""
        part = self._asked.pop(operation, None)
        return None if part is None else [_told(part.peer, is_good=False, calibration=0)]

    def device_lost(self) -> list[Effect]:
        """What was begun comes to nothing."""
        return self._fail([link.id for link in self._links.values()])

    def _settle(self, operation: int, now: int) -> list[Effect]:
        """It is over when the device and the station are."""
        part = self._asked[operation]
        if part.number is None or not part.is_done:
            return []
        return self._end(operation, now, part.number, is_good=True)

    def _end(self, operation: int, now: int, number: int, *, is_good: bool) -> list[Effect]:
        part = self._asked.pop(operation)
        if is_good:
            self._attempts.calibrated(part.link.id, now)
        return [_told(part.peer, is_good=is_good, calibration=number)]

    def _fail(self, links: list[str]) -> list[Effect]:
        ended = [number for number, part in self._asked.items() if part.link.id in links]
        return [
            _told(self._asked.pop(number).peer, is_good=False, calibration=0) for number in ended
        ]

    def asker_gone(self) -> None:
        """The link layer has gone: nobody is told."""
        self._asked.clear()


def _told(peer: str, *, is_good: bool, calibration: int) -> Tell:
    return Tell(LINK_LAYER, LinkCalibrated(peer=peer, is_good=is_good, calibration=calibration))
