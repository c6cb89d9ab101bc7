"""The base of drivers of a named station's hardware: its detectors, where photons of nodes meet.

Such a driver is in the station's process, as a node's is in the node's, and is a `Device` too. It
is told which link to watch, for attempts of which kind and in which cycles, and says where its
detectors clicked. It is never told of outcomes or bases.

Rules
1. Every watch ends in exactly one of Clicked, a last ClickedInCycles, WatchEnded; it is closed by
   whoever says so.
2. A watch that is stopped says what it has seen in cycles before its last, and then WatchEnded.
"""

from heapq import heappop, heappush
from typing import Final, NamedTuple

from qstack.errors import ErrorCode, LocalError
from qstack.machine import FABRIC, Effect
from qstack.physical.device import Calibrate, Calibrated, Operation, OperationRefused
from qstack.physical.drivers.setup import Setup
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.station_device import StopWatch, WatchEnded, WatchLink
from qstack.wire.message import Message


class _Due(NamedTuple):
    at_ns: int
    number: int  # makes every place different before the rest is compared
    watch: int | None  # to be woken for, if there is no message
    message: Message | None


class StationDriver:
    """Detectors in the station's process. They are there as long as network time is."""

    peer: Final = FABRIC

    def __init__(self, setup: Setup) -> None:
        """`setup.node` is the name of the station."""
        self.setup = setup
        self.links = {link.id: link for link in setup.world.links_through(setup.node)}
        self.watches: dict[int, WatchLink] = {}
        self.calibration = 0
        self._agenda: list[_Due] = []
        self._numbers = 0

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

    def say(self, at_ns: int, message: Message) -> None:
        """Answer at `at_ns`."""
        self._push(at_ns, None, message)

    def wake(self, at_ns: int, asked: WatchLink) -> None:
        """Have `woken` called at `at_ns`, if the watch is open then."""
        self._push(at_ns, asked.sequence, None)

    def ended(self, asked: WatchLink, at_ns: int) -> None:
        """A watch ends at `at_ns` with nothing (more) seen."""
        self.watches.pop(asked.sequence, None)
        self.say(at_ns + RESULT_MIN_NS, WatchEnded(operation=asked.sequence))

    # --- the device interface ---------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """The detectors are there (again), and watch nothing."""
        del now
        self.watches.clear()
        self._agenda.clear()

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        """Take an operation; its answer goes into the agenda."""
        del now
        try:
            self._take(operation)
        except LocalError as error:
            refused = OperationRefused(
                operation=operation.sequence, error=error.code.name, detail=error.detail
            )
            self.say(operation.at_ns + RESULT_MIN_NS, refused)
        return []

    def received(self, message: Message, now: int) -> list[Message]:
        """The fabric has nothing to say to a device that does not ask it."""
        del message, now
        return []

    def next_event_ns(self) -> int | None:
        """When the agenda has something next."""
        agenda = self._agenda
        while agenda and agenda[0].message is None and agenda[0].watch not in self.watches:
            heappop(agenda)
        return agenda[0].at_ns if agenda else None

    def answers(self, now: int) -> list[Message]:
        """What is due."""
        due: list[Message] = []
        while self._agenda and self._agenda[0].at_ns <= now:
            entry = heappop(self._agenda)
            if entry.message is not None:
                due.append(entry.message)
            elif entry.watch in self.watches:
                self.woken(self.watches[entry.watch], entry.at_ns)
        return due

    # --- inside -----------------------------------------------------------------------------------

    def _push(self, at_ns: int, watch: int | None, message: Message | None) -> None:
        self._numbers += 1
        heappush(self._agenda, _Due(at_ns, self._numbers, watch, message))

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

    def _calibrate(self, asked: Calibrate) -> None:
        link = self.links.get(asked.link)
        if link is None or link.drift is None:
            raise LocalError(ErrorCode.UNSUPPORTED, f"{asked.link} needs no calibration")
        is_good = self.calibrate(asked.link)
        self.calibration += is_good
        answer = Calibrated(operation=asked.sequence, is_good=is_good, calibration=self.calibration)
        self.say(asked.at_ns + link.drift.calibration_ns, answer)
