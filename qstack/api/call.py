"""One open call of an application, and what waits to be said.

An answer is kept in the call until the task that wants it takes it. A call whose task was cancelled
is withdrawn: what still arrives for it goes to `late`, which gives it back.
"""

from collections.abc import Callable
from typing import Final

import trio
import trio.lowlevel
from msgspec import Struct

from qstack.api.idleness import Place
from qstack.physical import service as physical
from qstack.runtime import session_messages as session
from qstack.transport import service as transport
from qstack.wire.message import Message

Answer = (
    transport.Opened
    | transport.PairDelivered
    | transport.PairsMeasured
    | transport.PairPrepared
    | transport.Accepted
    | transport.Finished
    | transport.Failed
    | transport.QubitArrived
    | transport.MessageArrived
    | transport.EchoResult
    | transport.RouteInfo
    | physical.Allocated
    | physical.CallDone
    | physical.Measured
    | physical.BellMeasured
    | physical.CallFailed
    | session.Woken
    | session.Status
)
PARTIAL: Final = (transport.PairDelivered, transport.PairsMeasured, transport.PairPrepared)
"""Answers after which more follow."""

RELEASE: Final = 0  # what gives back or withdraws goes first: a call of the same moment may need it
CALL: Final = 1


class Subject(Struct, frozen=True, order=True):
    """What a call is about, ordered alike in every run: `number` and `name` come from the node."""

    port: int  # of the socket, -1 if there is none
    kind: str
    number: int = 0
    name: bytes = b""


class Call:
    """One call. `make` builds its messages, the call itself last, once its number is known.

    `withdraw` builds the message that withdraws it; without one, it runs to its end.
    """

    __slots__ = (
        *("answers", "is_withdrawn", "late", "make", "number", "on_answer", "subject", "task"),
        "withdraw",
    )

    def __init__(
        self,
        subject: Subject,
        make: Callable[[int], tuple[Message, ...]],
        withdraw: Callable[[int], Message] | None,
        late: Callable[[Answer], None],
    ) -> None:
        self.subject = subject
        self.make = make
        self.withdraw = withdraw
        self.late = late
        self.number = -1  # until it is said
        self.answers: list[Answer] = []
        self.on_answer: Callable[[Answer], None] | None = None  # instead of a task that waits
        self.task: trio.lowlevel.Task | None = None
        self.is_withdrawn = False

    @property
    def is_unsaid(self) -> bool:
        """Whether the node has never heard of it."""
        return self.number < 0

    def put(self, answer: Answer) -> None:
        """Take an answer of the node."""
        if self.is_withdrawn:
            self.late(answer)
        elif self.on_answer is not None:
            self.on_answer(answer)
        else:
            self.answers.append(answer)
            self.wake()

    def wake(self) -> None:
        """Let the task that waits look again."""
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def parked(self) -> None:
        """Wait to be woken."""
        self.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Saying:
    """Something to be said when the application waits: a call, or messages without an answer."""

    __slots__ = ("call", "key", "messages")

    def __init__(
        self,
        key: tuple[int, Subject, Place, int],
        call: Call | None,
        messages: tuple[Message, ...],
    ) -> None:
        self.key = key
        self.call = call
        self.messages = messages
