"""What drivers in a node's or a station's own process have in common: an agenda, and calibrating.

Rules
1. What is due at the same time is done in the order it was put there.
2. A call whose reason is gone by the time it is due is void: it is not made, and nobody is asked
   to come for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, NamedTuple

from qstack.errors import ErrorCode, LocalError
from qstack.machine import FABRIC, Effect
from qstack.physical.device import Calibrate, Calibrated, Operation, OperationRefused
from qstack.physical.drivers.setup import Setup
from qstack.physical.hardware import LinkHardware
from qstack.physical.params import RESULT_MIN_NS
from qstack.wire.message import Message

DETAIL_MAX: Final = 500  # characters of `Text`

Call = Callable[[int], None]
"""What is done at its time, which it is told."""
IsVoid = Callable[[], bool]
"""Whether the reason for a call is gone."""


def _never() -> bool:
    return False


class _Due(NamedTuple):
    at_ns: int
    number: int  # makes every place different before the rest is compared
    what: Message | Call
    is_void: IsVoid


class InProcess(ABC):
    """A device in the process of whoever asks it. It is there as long as network time is."""

    peer: Final = FABRIC

    def __init__(self, setup: Setup, links: list[LinkHardware]) -> None:
        self.setup = setup
        self.links = {link.id: link for link in links}
        self.calibration = 0
        """How often the device has been calibrated; a driver counts it up."""
        self._agenda: list[_Due] = []
        self._numbers = 0

    # --- what is for the device to do -------------------------------------------------------------

    @abstractmethod
    def calibrate(self, link: str) -> bool:
        """Calibrate a link, together with whoever else is on it; whether that is good.

        It ends with the duration the network file gives.
        """

    @abstractmethod
    def _take(self, operation: Operation) -> None:
        """Take an operation. Raises `LocalError`, having changed nothing."""

    # --- the agenda -------------------------------------------------------------------------------

    def say(self, at_ns: int, message: Message) -> None:
        """Answer at `at_ns`."""
        self._push(at_ns, message, _never)

    def _call_at(self, at_ns: int, call: Call, is_void: IsVoid = _never) -> None:
        """Have something called at `at_ns`, if it is not void then."""
        self._push(at_ns, call, is_void)

    def _push(self, at_ns: int, what: Message | Call, is_void: IsVoid) -> None:
        self._numbers += 1
        heappush(self._agenda, _Due(at_ns, self._numbers, what, is_void))

    # --- the device interface ---------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """The device is there (again), and has nothing to say."""
        del now
        self._agenda.clear()

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        """Take an operation; its answer, if it has one, goes into the agenda."""
        del now
        try:
            self._take(operation)
        except LocalError as error:
            refused = OperationRefused(
                operation=operation.sequence,
                error=error.code.name,
                detail=error.detail[:DETAIL_MAX],
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
        while agenda and agenda[0].is_void():
            heappop(agenda)
        return agenda[0].at_ns if agenda else None

    def answers(self, now: int) -> list[Message]:
        """What is due."""
        due: list[Message] = []
        while self._agenda and self._agenda[0].at_ns <= now:
            entry = heappop(self._agenda)
            if isinstance(entry.what, Message):
                due.append(entry.what)
            elif not entry.is_void():
                entry.what(entry.at_ns)
        return due

    # --- calibrating ------------------------------------------------------------------------------

    def _calibrate(self, asked: Calibrate) -> None:
        link = self.links.get(asked.link)
        if link is None or link.drift is None:
            raise LocalError(ErrorCode.UNSUPPORTED, f"{asked.link} needs no calibration")
        is_good = self.calibrate(asked.link)
        self.calibration += is_good
        answer = Calibrated(operation=asked.sequence, is_good=is_good, calibration=self.calibration)
        self.say(asked.at_ns + link.drift.calibration_ns, answer)
