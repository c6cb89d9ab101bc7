"""Calibrations of this node's links: asked for by the link layer, done by the device.

The link layer agrees with the far end on when, and sees to it that nobody attempts meanwhile. Every
CalibrateLink ends in exactly one LinkCalibrated.
"""

from qstack.machine import Effect, Tell
from qstack.physical.attempts import LINK_LAYER, Attempts
from qstack.physical.device import Calibrate, Calibrated
from qstack.physical.device_order import DeviceOrder
from qstack.physical.hardware import World
from qstack.physical.service import CalibrateLink, LinkCalibrated, LinkCare


class Calibrations:
    """All of one node."""

    def __init__(self, node: str, world: World, order: DeviceOrder, attempts: Attempts) -> None:
        self._order = order
        self._attempts = attempts  # whose heralds are better after one
        self._links = {link.other_end(node): link for link in world.links_of(node)}
        self._asked: dict[int, str] = {}  # peers, by operation

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
        if link is None or not is_ready:
            return [_told(asked.peer, is_good=False, calibration=0)]
        number = self._order.next_sequence()
        self._asked[number] = asked.peer
        calibrate = Calibrate(at_ns=now, sequence=number, link=link.id)
        return self._order.submit(calibrate, now)

    def done(self, result: Calibrated, now: int) -> list[Effect]:
        """The device is through with one."""
        peer = self._asked.pop(result.operation, None)
        if peer is None:
            return []
        if result.is_good:
            self._attempts.calibrated(self._links[peer].id, now)
        return [_told(peer, is_good=result.is_good, calibration=result.calibration)]

    def refused(self, operation: int) -> list[Effect] | None:
        """The device refused an operation; None if it was none of ours."""
        peer = self._asked.pop(operation, None)
        return None if peer is None else [_told(peer, is_good=False, calibration=0)]

    def device_lost(self) -> list[Effect]:
        """What was begun comes to nothing."""
        peers, self._asked = self._asked.values(), {}
        return [_told(peer, is_good=False, calibration=0) for peer in peers]

    def asker_gone(self) -> None:
        """The link layer has gone: nobody is told."""
        self._asked.clear()


def _told(peer: str, *, is_good: bool, calibration: int) -> Tell:
    return Tell(LINK_LAYER, LinkCalibrated(peer=peer, is_good=is_good, calibration=calibration))
