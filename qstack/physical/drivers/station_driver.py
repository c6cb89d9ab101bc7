"""The base of drivers of a named station's hardware: its detectors, where photons of nodes meet.

Such a driver is in the station's process, as a node's is in the node's, and is a `Device` too. It
is told which link to watch, for attempts of which kind and in which cycles, and says where its
detectors clicked. It is never told of outcomes or bases.

Rules
1. Every watch ends in exactly one of Clicked, a last ClickedInCycles, WatchEnded; it is closed by
   whoever says so.
2. A watch that is stopped says what it has seen in cycles before its last, and then WatchEnded.
"""

from qstack.errors import ErrorCode, LocalError
from qstack.physical.device import Calibrate, Operation
from qstack.physical.drivers.in_process import InProcess
from qstack.physical.drivers.setup import Setup
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.station_device import StopWatch, WatchEnded, WatchLink


class StationDriver(InProcess):
    """Detectors in the station's process. They are there as long as network time is."""

    def __init__(self, setup: Setup) -> None:
        """`setup.node` is the name of the station."""
        super().__init__(setup, setup.world.links_through(setup.node))
        self.watches: dict[int, WatchLink] = {}

    # --- what the hardware does: for a driver to write --------------------------------------------

    def watch(self, asked: WatchLink) -> None:
        """Begin to watch."""
        raise LocalError(ErrorCode.UNSUPPORTED, f"this station does not watch {asked.link}")

    def woken(self, asked: WatchLink, at_ns: int) -> None:
        """The time has come that was given to `wake`, and the watch is still open."""

    def stop(self, asked: WatchLink, until_cycle: int, at_ns: int) -> None:
        """Watch no more, from `until_cycle` on: say the last word by `ended`."""
        del until_cycle
        self.ended(asked, at_ns)

    def calibrate(self, link: str) -> bool:
        """Calibrate a link, together with its ends; whether that is good."""
        raise LocalError(ErrorCode.UNSUPPORTED, f"this station does not calibrate {link}")

    # --- what a driver says -----------------------------------------------------------------------

    def wake(self, at_ns: int, asked: WatchLink) -> None:
        """Have `woken` called at `at_ns`, if the watch is open then."""
        number = asked.sequence
        self._call_at(
            at_ns,
            lambda due_ns: self.woken(self.watches[number], due_ns),
            lambda: number not in self.watches,
        )

    def ended(self, asked: WatchLink, at_ns: int) -> None:
        """A watch ends at `at_ns` with nothing (more) seen."""
        self.watches.pop(asked.sequence, None)
        self.say(at_ns + RESULT_MIN_NS, WatchEnded(operation=asked.sequence))

    # --- the device interface ---------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """The detectors are there (again), and watch nothing."""
        super().begin(now)
        self.watches.clear()

    # --- inside -----------------------------------------------------------------------------------

    def _take(self, operation: Operation) -> None:
        """Raises `LocalError`."""
        match operation:
            case WatchLink():
                if operation.link not in self.links or operation.sequence in self.watches:
                    raise LocalError(ErrorCode.BAD_REQUEST, f"no watch of {operation.link}")
                self.watches[operation.sequence] = operation
                try:
                    self.watch(operation)
                except LocalError:
                    del self.watches[operation.sequence]
                    raise
            case StopWatch():
                if (asked := self.watches.get(operation.watch)) is not None:
                    self.stop(asked, operation.until_cycle, operation.at_ns)
            case Calibrate():
                self._calibrate(operation)
            case _:
                raise LocalError(ErrorCode.UNSUPPORTED, type(operation).__name__)
