"""A named station's part in the calibrations of its links. Sans-IO.

    alice                       station                        bob
      | -- Calibrating(until) --> | <-- Calibrating(until) ---- |   neither attempts any more
      |                           |  its device calibrates too  |   as do those of both ends
      | <-- StationCalibrated --- | --- StationCalibrated ----> |   the new number

Rules
1. The ends agree on when (MAINTENANCE, in the link layer); a station begins its part when both have
   said that they are at theirs, and only if it can be over by when the first of them goes on.
2. Every Calibrating that cannot be is answered at once, as no calibration. One that stays alone is
   not answered: the end's own device tells it that it was alone.
3. Without detectors there is no calibration, and an end that goes takes its part with it.
"""

from msgspec import Struct

from qstack.machine import Effect, Send
from qstack.physical.device import Calibrate, Calibrated
from qstack.physical.hardware import World
from qstack.physical.station_messages import Calibrating, StationCalibrated


class _Line(Struct, eq=False):
    """One link that drifts: until when its ends are at it, by end; `operation`: and we too."""

    link: str
    ends: tuple[str, str]
    duration_ns: int
    until_ns: dict[str, int]
    operation: int | None = None
    calibration: int = 0


class StationCalibrations:
    """Those of all links through station `name`."""

    def __init__(self, name: str, world: World) -> None:
        self._lines = {
            link.id: _Line(link.id, link.ends, link.drift.calibration_ns, {})
            for link in world.links_through(name)
            if link.drift is not None
        }

    def summary(self) -> dict[str, object]:
        """For status, where links drift: the number of the last calibration of each."""
        known = {line.link: line.calibration for line in self._lines.values()}
        return {"calibrations": known} if known else {}

    def is_at_work(self, link: str) -> bool:
        """Whether this station calibrates a link now."""
        line = self._lines.get(link)
        return line is not None and line.operation is not None

    def begins(
        self, node: str, said: Calibrating, now: int, operation: int, *, is_ready: bool
    ) -> tuple[Calibrate | None, list[Effect]]:
        """An end begins its part: what to ask of our device, and what ends are told.

        `operation` is a number for what is asked.
        """
        line = self._lines.get(said.link)
        if line is None or node not in line.ends:
            none = StationCalibrated(link=said.link, is_good=False, calibration=0)
            return None, [Send(node, none)]
        if not is_ready or now + line.duration_ns > said.until_ns or line.operation is not None:
            return None, [self._told(line, node, is_good=False)]
        line.until_ns[node] = said.until_ns
        if any(line.until_ns.get(end, now) <= now for end in line.ends):
            return None, []
        if now + line.duration_ns > min(line.until_ns.values()):
            return None, self._end(line, is_good=False)
        line.operation = operation
        return Calibrate(at_ns=now, sequence=operation, link=line.link), []

    def done(self, calibrated: Calibrated) -> tuple[str | None, list[Effect]]:
        """Our device is through with it: which link, None for none, and what both ends are told."""
        for line in self._lines.values():
            if line.operation == calibrated.operation:
                line.operation = None
                if calibrated.is_good:
                    line.calibration = calibrated.calibration
                return line.link, self._end(line, is_good=calibrated.is_good)
        return None, []

    def leave(self, node: str) -> None:
        """An end has gone."""
        for line in self._lines.values():
            line.until_ns.pop(node, None)

    def blind(self) -> list[Effect]:
        """The detectors have gone."""
        effects: list[Effect] = []
        for line in self._lines.values():
            line.operation = None
            effects += self._end(line, is_good=False)
        return effects

    def _end(self, line: _Line, *, is_good: bool) -> list[Effect]:
        ends, line.until_ns = list(line.until_ns), {}
        return [self._told(line, end, is_good=is_good) for end in ends]

    def _told(self, line: _Line, node: str, *, is_good: bool) -> Effect:
        calibration = line.calibration
        return Send(
            node, StationCalibrated(link=line.link, is_good=is_good, calibration=calibration)
        )
