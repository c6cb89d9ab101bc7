"""Care of links that drift: both ends agree on a window, calibrate in it, and do not attempt.

    one end                                       the other
      | -- Maintain [start, end) ------------------> |
      | <------------------------- MaintainAnswer -- |
      |            (at start both stop)              |
      |  CalibrateLink, below        CalibrateLink   |   when nothing is attempted any more
      |            (at end both go on)               |

Rules
1. A window is named so far ahead that the answer can be back before it. Who hears of it too late
   refuses, and who hears no answer by its beginning lets it pass: then the other calibrates alone,
   which is no calibration. The next window is named RETRY_NS later.
2. In a window (MAINTENANCE) requests stay and their deadlines hold; the link is up. Batches are
   stopped at its beginning, and what they have still to say counts.
3. It ends when it was agreed to, also if the calibration has not come to its end.
4. The master names windows, every period, and when test rounds raise an alarm; either end does
   when its device says that it is not well.
"""

from dataclasses import dataclass

from qstack.errors import ErrorCode
from qstack.link import messages, service
from qstack.link.batches import Batches
from qstack.link.maintenance_states import MAINTENANCE, Input, State
from qstack.link.outbox import Outbox
from qstack.link.params import (
    MAINTENANCE_AHEAD_MAX_NS,
    MAINTENANCE_AHEAD_NS,
    MAINTENANCE_RETRY_NS,
    MAINTENANCE_SLACK_NS,
)
from qstack.link.peer import Peer
from qstack.physical import service as physical

MAINTENANCE_TIMER = "maintenance/"


@dataclass
class _Care:
    """The care of one link. `window` is the one proposed, agreed on or going on."""

    peer: Peer
    period_ns: int
    duration_ns: int
    state: State = MAINTENANCE.start
    window: tuple[int, int] = (0, 0)
    is_asked: bool = False  # of the device, in this window
    is_good: bool = False  # it was calibrated in this window

    def step(self, received: Input) -> None:
        """Something has happened to it."""
        self.state = MAINTENANCE.step(self.state, received)


class Maintenance:
    """The care of all links of a node; those that do not drift have none."""

    def __init__(self, peers: dict[str, Peer], batches: Batches, out: Outbox) -> None:
        self._peers = peers
        self._batches = batches
        self._out = out
        self.cares: dict[str, _Care] = {}
        """By the name of the peer; of links that drift alone."""

    def summary(self) -> dict[str, object]:
        """For status, where links drift: the last calibration of each, and whether it is closed."""
        links = {
            name: {"calibration": care.peer.calibration, "is_closed": care.peer.is_closed}
            for name, care in self.cares.items()
        }
        return {"calibrations": links} if links else {}

    # --- from below ------------------------------------------------------------------------------

    def on_care(self, told: physical.LinkCare, now: int) -> None:
        """The device has a link that drifts."""
        care = self.cares.get(told.peer)
        if care is None:
            care = _Care(self._peers[told.peer], told.period_ns, told.duration_ns)
            self.cares[told.peer] = care
            self.link_up(care.peer, now)
        if told.is_due:
            self.want(care.peer, now)

    def want(self, peer: Peer, now: int) -> None:
        """A link that drifts is to be calibrated soon, unless it is about to be."""
        care = self.cares.get(peer.name)
        if care is not None and peer.is_up and care.state is State.IDLE:
            self._propose(care, now)

    def on_calibrated(self, told: physical.LinkCalibrated) -> None:
        """The device is through with a calibration, in the window or after it."""
        peer = self._peers[told.peer]
        self._out.record("calibrated", peer=told.peer, good=told.is_good, number=told.calibration)
        if not told.is_good:
            return
        peer.calibration = told.calibration
        care = self.cares.get(told.peer)
        if care is not None:
            care.is_good = care.is_good or care.state is State.CLOSED
        self._out.tell_above(
            service.LinkCalibrated(link=peer.link, peer=peer.name, calibration=told.calibration)
        )

    # --- the link comes and goes -----------------------------------------------------------------

    def link_up(self, peer: Peer, now: int) -> None:
        """A link has come up: its next calibration is a period away."""
        care = self.cares.get(peer.name)
        if care is not None and care.state is State.IDLE and peer.is_up and peer.is_master:
            self._wait(care, now + care.period_ns)

    def link_down(self, peer: Peer) -> None:
        """It has gone, and with it what was agreed on."""
        care = self.cares.get(peer.name)
        if care is not None:
            care.step(Input.LOST)
            peer.is_closed, peer.calibration = False, 0
            self._out.cancel_timer(MAINTENANCE_TIMER + peer.name)

    # --- windows ---------------------------------------------------------------------------------

    def on_timer(self, name: str, now: int) -> None:
        """A calibration is due, or a window begins or ends."""
        care = self.cares[name]
        match care.state:
            case State.IDLE:
                self._propose(care, now)
            case State.PROPOSED:
                self._pass(care, now, "no answer")
            case State.AGREED:
                self._begin(care)
            case State.CLOSED:
                self._end(care, now)

    def on_maintain(self, peer: Peer, message: messages.Maintain, now: int) -> None:
        """The far end names a window."""
        care = self.cares.get(peer.name)
        if message.end_ns <= message.start_ns or message.start_ns > now + MAINTENANCE_AHEAD_MAX_NS:
            why = f"[{message.start_ns}, {message.end_ns}) is no window at {now}"
            self._out.refuse(peer.name, message, ErrorCode.INVALID, why)
            return
        is_in_time = message.start_ns > now
        is_free = care is not None and (
            care.state is State.IDLE or (care.state is State.PROPOSED and not peer.is_master)
        )
        is_fit = care is not None and message.end_ns - message.start_ns <= self._span_ns(care)
        is_taken = is_in_time and is_free and is_fit
        answer = messages.MaintainAnswer(start_ns=message.start_ns, is_taken=is_taken)
        self._out.send(peer.name, answer)
        if care is not None and is_taken:
            care.step(Input.ASKED)
            self._agree(care, (message.start_ns, message.end_ns))

    def on_answer(self, peer: Peer, message: messages.MaintainAnswer, now: int) -> None:
        """The far end takes our window, or not; an answer to one that has passed is late."""
        care = self.cares.get(peer.name)
        if care is None or care.state is not State.PROPOSED:
            return
        if message.start_ns != care.window[0]:
            return
        if message.is_taken:
            care.step(Input.AGREED)
            self._agree(care, care.window)
        else:
            self._pass(care, now, "refused")

    def settle(self, now: int) -> None:
        """At the end of a turn: calibrate where nothing is attempted any more, if there is time."""
        for care in self.cares.values():
            if care.state is not State.CLOSED or care.is_asked:
                continue
            is_time = now + care.duration_ns < care.window[1]
            if is_time and not self._batches.are_open(care.peer):
                care.is_asked = True
                until_ns = care.window[1]
                self._out.tell_below(physical.CalibrateLink(peer=care.peer.name, until_ns=until_ns))

    # --- parts -----------------------------------------------------------------------------------

    def _propose(self, care: _Care, now: int) -> None:
        care.step(Input.PROPOSE)
        start_ns = now + MAINTENANCE_AHEAD_NS + 4 * self._round_trip_ns(care)
        care.window = start_ns, start_ns + self._span_ns(care)
        self._out.send(
            care.peer.name, messages.Maintain(start_ns=care.window[0], end_ns=care.window[1])
        )
        self._out.set_timer(MAINTENANCE_TIMER + care.peer.name, start_ns)

    def _agree(self, care: _Care, window: tuple[int, int]) -> None:
        care.window = window
        care.is_asked = care.is_good = False
        self._out.set_timer(MAINTENANCE_TIMER + care.peer.name, window[0])

    def _pass(self, care: _Care, now: int, why: str) -> None:
        care.step(Input.FAILED)
        self._out.record("maintenance_missed", peer=care.peer.name, why=why)
        self._wait(care, now + MAINTENANCE_RETRY_NS)

    def _begin(self, care: _Care) -> None:
        care.step(Input.START)
        care.peer.is_closed = True
        for request in care.peer.requests.values():
            self._batches.stop_all(request)
        self._out.record("maintenance", peer=care.peer.name, until_ns=care.window[1])
        self._out.set_timer(MAINTENANCE_TIMER + care.peer.name, care.window[1])

    def _end(self, care: _Care, now: int) -> None:
        care.step(Input.END)
        care.peer.is_closed = False
        self._out.record("maintained", peer=care.peer.name, good=care.is_good)
        if care.peer.is_master:
            next_ns = care.period_ns if care.is_good else MAINTENANCE_RETRY_NS
            self._wait(care, now + next_ns)
        self._batches.start(care.peer, now)

    def _wait(self, care: _Care, at_ns: int) -> None:
        """Idle housekeeping: it does not make the clock run."""
        self._out.set_timer(MAINTENANCE_TIMER + care.peer.name, at_ns, background=True)

    def _round_trip_ns(self, care: _Care) -> int:
        return self._out.conversation(care.peer.name).round_trip_ns

    def _span_ns(self, care: _Care) -> int:
        """How long a window is: for the last heralds to come back, and the calibration."""
        return care.duration_ns + MAINTENANCE_SLACK_NS + 2 * self._round_trip_ns(care)
