"""What two link layers say to each other comes exactly once and in order, or not at all.

Below all messages of a link lies one conversation. It begins with an exchange of `Open`; then each
message has a sequence number and says up to which number its sender has heard the other
(`messages.Place`). What is not acknowledged in time is said again; what comes twice is dropped,
what comes early waits. The comms_seq of the DQP (Dahlberg et al., SIGCOMM'19), for all messages.

Rules
1. A conversation has a number at each end, which goes up in an end's life. A message that does not
   name both numbers is of another conversation and is dropped. What an end said and heard counts
   for one pair of numbers: it begins anew when it learns that the other end has a new one.
2. On a healthy channel nothing is sent for the conversation's sake but one `Ack` for
   what nobody has answered within ANSWER_WITHIN_NS. One timer a peer does all of it.
3. Who hears no answer for ATTEMPTS_MAX attempts takes a new number: what was not acknowledged is
   void at both ends, and the link goes down and comes up again.
4. Round trips are measured on messages said once, so that an answer is never taken for that to
   another attempt (Karn and Partridge, SIGCOMM'87); the back-off stays until there is one. They
   are measured on messages that are answered at once, and only those are said again that soon.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from msgspec.structs import replace

from qstack.errors import ErrorCode
from qstack.link import messages
from qstack.link.conversation_states import CONVERSATION, Input, State
from qstack.link.params import (
    ANSWER_WITHIN_NS,
    ATTEMPTS_MAX,
    RESEND_MAX_NS,
    RESEND_MESSAGES_MAX,
    RESEND_TRIPS,
    ROUND_TRIP_UNKNOWN_NS,
    WINDOW,
)

CONVERSATION_TIMER = "conversation/"
ANSWERED_AT_ONCE = (messages.Add, messages.Maintain)


class Turn(Enum):
    """What has become of the conversation as a whole."""

    BEGAN = auto()  # from here on everything said is heard
    ENDED = auto()  # what was said before may not have been heard


class Out(Protocol):
    """Where a conversation's effects go."""

    def emit(self, peer: str, message: messages.LinkMessage) -> None:
        """Put a message into the channel."""

    def refuse(
        self, peer: str, message: messages.LinkMessage, error: ErrorCode, detail: str
    ) -> None:
        """Answer a message that broke a rule."""

    def set_timer(self, key: str, at_ns: int, *, background: bool = False) -> None:
        """Arm a timer."""

    def cancel_timer(self, key: str) -> None:
        """Disarm it."""

    def record(self, name: str, **fields: object) -> None:
        """Leave a trace record."""


@dataclass(slots=True)
class _Said:
    """A message said and not yet acknowledged."""

    message: messages.LinkMessage
    at_ns: int  # when it was said last
    times: int = 1


class Conversation:
    """The conversation with one peer."""

    def __init__(self, name: str, boot_id: bytes, out: Out) -> None:
        self.name = name
        self.round_trip_ns = ROUND_TRIP_UNKNOWN_NS
        self._boot_id = boot_id
        self._out = out
        self._state = CONVERSATION.start
        self._peer_boot_id = b""
        self._own = 0  # our number of this conversation
        self._far: int | None = None  # the highest number we know of the peer
        self.greeting = (0, 0)  # slots and device as in Ready: Open says it, ahead of a Ready
        self._armed_ns: int | None = None
        self._measured_ns = 0
        self._forget()

    def _forget(self) -> None:
        self._next = 0
        self._waiting: deque[messages.LinkMessage] = deque()  # for room in the window
        self._unheard: dict[int, _Said] = {}  # by sequence, ascending
        self._expected = 0
        self._early: dict[int, messages.LinkMessage] = {}
        self._heard: deque[messages.LinkMessage | Turn] = deque()
        self._said_heard = 0  # the acknowledgement we said last
        self._answer_due_ns: int | None = None
        self._is_known = False  # the peer knows our number
        self._opened_ns = 0  # when Open was said last
        self._attempts = 0  # without an answer
        self._back_off = 0

    @property
    def is_open(self) -> bool:
        """Whether what is said now is heard, unless the conversation ends."""
        return self._state is State.OPEN

    # --- the channel -----------------------------------------------------------------------------

    def channel_up(self, peer_boot_id: bytes, now: int) -> None:
        """There is a channel to this life of the peer."""
        self._step(Input.CHANNEL)
        self._own += 1
        if peer_boot_id != self._peer_boot_id:
            self._peer_boot_id, self._far = peer_boot_id, None
        self._forget()
        self._say_open(now)

    def channel_down(self) -> None:
        """The channel has gone."""
        if self._state is not State.SILENT:
            self._step(Input.CHANNEL_LOST)
            self._forget()

    # --- speaking --------------------------------------------------------------------------------

    def say(self, message: messages.LinkMessage, now: int) -> None:
        """Say `message` to the peer, or nothing where no conversation stands."""
        if self.is_open:
            self._waiting.append(message)
            self._fill_window(now)

    def settle(self, now: int) -> None:
        """At the end of a turn: say what is due, and arm the timer for what is due later."""
        if self._answer_due_ns is not None and self._answer_due_ns <= now:
            self._emit(messages.Ack(), self._next)
        due_ns = self._due_ns()
        if due_ns is None:
            if self._armed_ns is not None:
                self._armed_ns = None
                self._out.cancel_timer(CONVERSATION_TIMER + self.name)
        elif due_ns != self._armed_ns:  # to be woken for nothing costs much more
            self._armed_ns = due_ns
            is_idle = self._state is State.OPENING and self._attempts >= ATTEMPTS_MAX
            self._out.set_timer(CONVERSATION_TIMER + self.name, due_ns, background=is_idle)

    def timer_fired(self, now: int) -> None:
        """Say again what has not been acknowledged in time."""
        self._armed_ns = None
        is_open_due = not self._is_known and self._open_due_ns() <= now
        is_due = bool(self._unheard) and self._oldest_due_ns() <= now
        if self._state is State.SILENT or not (is_open_due or is_due):
            return
        self._attempts += 1
        self._back_off += 1
        if self.is_open and self._attempts >= ATTEMPTS_MAX:
            self.begin_anew(now)
            return
        if is_open_due:
            self._say_open(now)
        if is_due:
            self._say_again(now)

    def _say_again(self, now: int) -> None:
        for sequence, said in list(self._unheard.items())[:RESEND_MESSAGES_MAX]:
            said.at_ns, said.times = now, said.times + 1
            self._emit(said.message, sequence)

    def _fill_window(self, now: int) -> None:
        while self._waiting and len(self._unheard) < WINDOW:
            message = self._waiting.popleft()
            self._unheard[self._next] = _Said(message, now)
            self._next += 1
            self._emit(message, self._next - 1)

    def _emit(self, message: messages.LinkMessage, sequence: int) -> None:
        assert self._far is not None, "the peer's number is known"
        place = messages.Place(self._own, self._far, sequence, self._expected)
        self._said_heard = self._expected
        self._answer_due_ns = None
        self._out.emit(self.name, replace(message, at=place))

    def _say_open(self, now: int) -> None:
        self._opened_ns = now
        said = messages.Open(
            boot_id=self._boot_id,
            peer_boot_id=self._peer_boot_id,
            number=self._own,
            answers=self._far,
            slots=self.greeting[0],
            device=self.greeting[1],
        )
        self._out.emit(self.name, said)

    # --- hearing ---------------------------------------------------------------------------------

    def take(self) -> messages.LinkMessage | Turn | None:
        """The next that was heard, in order; None if there is nothing."""
        return self._heard.popleft() if self._heard else None

    def hear(self, message: messages.LinkMessage, now: int) -> None:
        """Something has come from the peer; `take` gives what follows."""
        if self._state is State.SILENT:
            return self._drop(message)
        if isinstance(message, messages.Open):
            return self._hear_open(message, now)
        if (message.at.own, message.at.far) != (self._far, self._own):
            return self._drop(message)
        if message.at.heard > self._next:
            why = f"{message.at.heard} messages heard of {self._next}"
            return self._out.refuse(self.name, message, ErrorCode.INVALID, why)
        if self._state is State.OPENING:
            self._open()
        self._is_known = True
        self._hear_acknowledgement(message.at.heard, now)
        if not isinstance(message, messages.Ack):
            self._hear_numbered(message, now)
        return None

    def _hear_open(self, message: messages.Open, now: int) -> None:
        lives = message.boot_id, message.peer_boot_id
        if lives != (self._peer_boot_id, self._boot_id):
            return self._drop(message)
        if self._far is not None and message.number < self._far:
            return self._drop(message)
        is_new = self._far != message.number
        self._far = message.number
        if is_new and self.is_open:
            self._end(Input.ANEW)
        if self._state is State.OPENING and (is_new or message.answers == self._own):
            self._open()
            if message.slots:
                self._heard.append(messages.Ready(slots=message.slots, device=message.device))
        if message.answers == self._own:
            self._is_known = True
            self._answer_due_ns = now  # it may not know that we know
        else:
            self._say_open(now)
        return None

    def _hear_acknowledgement(self, heard: int, now: int) -> None:
        newest: _Said | None = None
        while self._unheard and (sequence := next(iter(self._unheard))) < heard:
            newest = self._unheard.pop(sequence)
        if newest is None:
            return
        self._attempts = 0
        if newest.times == 1:
            self._back_off = 0
        if newest.times == 1 and isinstance(newest.message, ANSWERED_AT_ONCE):
            slower_ns = self._measured_ns - self._measured_ns // 8
            self._measured_ns = max(now - newest.at_ns, slower_ns)
        self._fill_window(now)

    def _hear_numbered(self, message: messages.LinkMessage, now: int) -> None:
        sequence = message.at.sequence
        if sequence < self._expected:
            self._answer_due_ns = now  # it did not hear our answer
            return
        if sequence >= self._expected + WINDOW:
            why = f"message {sequence} while {self._expected} is expected"
            self._out.refuse(self.name, message, ErrorCode.OUT_OF_STATE, why)
            return
        self._early.setdefault(sequence, message)
        while (following := self._early.pop(self._expected, None)) is not None:
            self._heard.append(following)
            self._expected += 1
        is_far_ahead = self._expected - self._said_heard >= WINDOW // 4
        if is_far_ahead:
            self._answer_due_ns = now
        elif self._answer_due_ns is None:
            self._answer_due_ns = now + ANSWER_WITHIN_NS

    # --- parts -----------------------------------------------------------------------------------

    def begin_anew(self, now: int) -> None:
        """End the conversation, for the ends do not agree in it any more."""
        if self.is_open:
            self._end(Input.NO_ANSWER)
            self._own += 1
            self._say_open(now)

    def _open(self) -> None:
        self._step(Input.HEARD)
        self._attempts = self._back_off = 0
        self._heard.append(Turn.BEGAN)

    def _end(self, why: Input) -> None:
        self._step(why)
        self._forget()
        self._heard.append(Turn.ENDED)
        self._out.record("anew", peer=self.name, why=why.name)

    def _due_ns(self) -> int | None:
        if self._state is State.SILENT:
            return None
        due = [] if self._answer_due_ns is None else [self._answer_due_ns]
        if self._unheard:
            due.append(self._oldest_due_ns())
        if not self._is_known:
            due.append(self._open_due_ns())
        return min(due, default=None)

    def _oldest_due_ns(self) -> int:
        oldest = self._unheard[next(iter(self._unheard))]
        is_answered = isinstance(oldest.message, ANSWERED_AT_ONCE)
        return oldest.at_ns + self._timeout_ns(0 if is_answered else ANSWER_WITHIN_NS)

    def _open_due_ns(self) -> int:
        return self._opened_ns + self._timeout_ns(0)  # it is answered at once

    def _timeout_ns(self, answer_ns: int) -> int:
        first_ns = RESEND_TRIPS * max(self.round_trip_ns, self._measured_ns) + answer_ns
        return min(first_ns << min(self._back_off, ATTEMPTS_MAX), RESEND_MAX_NS)

    def _drop(self, message: messages.LinkMessage) -> None:
        self._out.record("stale", peer=self.name, message=type(message).__name__)

    def _step(self, received: Input) -> None:
        self._state = CONVERSATION.step(self._state, received)
