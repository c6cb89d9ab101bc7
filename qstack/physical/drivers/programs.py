"""Device programs of a driver in the node's process: done by its own methods, at their times."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from qstack.errors import ErrorCode, LocalError
from qstack.physical.device import Operation, Result
from qstack.physical.drivers.in_process import Call, IsVoid
from qstack.physical.program_book import Program, ProgramBook

if TYPE_CHECKING:
    from qstack.physical.drivers.driver import Driver

Perform = Callable[[Operation], Result | None]
At = Callable[[int, Call, IsVoid], None]


class DriverHands:
    """What does the steps of a driver's programs."""

    def __init__(self, driver: "Driver", perform: Perform) -> None:
        self._driver = driver
        self._perform = perform

    def has(self, qubit: bytes) -> bool:
        """Whether the books have it."""
        return qubit in self._driver.qubits

    def require_link(self, link: str) -> None:
        """Heralds come of its own links. Raises `LocalError`."""
        hardware = self._driver.links.get(link)
        if hardware is None:
            raise LocalError(
                ErrorCode.BAD_REQUEST, f"{self._driver.setup.node} is not on a link {link}"
            )
        if not hardware.is_heralded or hardware.station is not None:
            raise LocalError(ErrorCode.UNSUPPORTED, f"no herald of {link} comes to the device")

    def perform(self, operation: Operation, step: int) -> Result | None:
        """As if it were asked for by itself. Raises `LocalError`."""
        del step
        return self._perform(operation)

    def release(self, qubit: bytes) -> None:
        """Let go of a qubit of the books."""
        self._driver.release(qubit)
        del self._driver.qubits[qubit]


def book_of(driver: "Driver", perform: Perform, at: At) -> ProgramBook:
    """The programs of a driver; `at` has something called at its time, if it is not void then."""

    def schedule(program: Program) -> None:
        event_ns = program.event_ns
        assert event_ns is not None, "it has just been set"
        at(
            event_ns,
            lambda at_ns: book.due(program, at_ns),
            lambda: program.event_ns != event_ns,  # it has gone on
        )

    hands = DriverHands(driver, perform)
    book = ProgramBook(driver.profile, hands, say=driver.say, schedule=schedule)
    return book
