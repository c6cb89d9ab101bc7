"""When the sources of photon-pair links emit whose station is a participant of its own.

Such a station runs its source for the receivers of both ends by WatchLink, until StopWatch, which
WatchEnded answers. A link has one source, so one run at a time.
"""

from qstack.errors import ErrorCode
from qstack.physical.fabric.readings import Deliver
from qstack.physical.fabric.register import RefusedError
from qstack.physical.hardware import World
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.station_device import WatchEnded, WatchLink


class SourceRuns:
    """The runs of all links."""

    def __init__(self, world: World, deliver: Deliver) -> None:
        self._stations = {
            name: link.station
            for name, link in world.links.items()
            if not link.is_heralded and link.station is not None
        }
        self._deliver = deliver
        self._runs: dict[str, WatchLink] = {}

    def begin(self, station: str, asked: WatchLink) -> None:
        """A station runs its source. Raises `RefusedError`."""
        if self._stations.get(asked.link) != station:
            detail = f"no link {asked.link} goes through {station}"
            raise RefusedError(ErrorCode.BAD_REQUEST, detail)
        if asked.link in self._runs:
            raise RefusedError(ErrorCode.BAD_REQUEST, f"the source of {asked.link} runs")
        self._runs[asked.link] = asked

    def end(self, station: str, sequence: int, at_ns: int) -> str | None:
        """A station stops one: the link, None for none of it."""
        for link, run in self._runs.items():
            if self._stations[link] == station and run.sequence == sequence:
                del self._runs[link]
                self._deliver(station, at_ns + RESULT_MIN_NS, WatchEnded(operation=sequence))
                return link
        return None

    def forget(self, station: str) -> list[str]:
        """A station has gone: the links whose sources it ran."""
        links = [link for link in self._runs if self._stations[link] == station]
        for link in links:
            del self._runs[link]
        return links

    def allow(self, link: str, batches: tuple[int, int]) -> bool:
        """Whether the source of a link emits for these batches: always, where nobody runs it."""
        if link not in self._stations:
            return True
        run = self._runs.get(link)
        return run is not None and run.batches == batches

    def is_run_by(self, station: str, link: str) -> bool:
        """Whether a station runs the source of a link."""
        return link in self._runs and self._stations[link] == station

    def first_slot(self, link: str) -> int:
        """The first slot in which it emits."""
        run = self._runs.get(link)
        return 0 if run is None else run.first_cycle
