"""Two-way comparison of hardware clocks over each link that has some: both ends of the exchange.

The second end of a link (by name) follows the first: it sends a pulse, the first sends one back and
says when its own clock had the one come and the other leave (`messages.py`). From the four stamps
comes the offset, which both ways being alike presumes: half the asymmetry of a fibre stays in it,
but for what somebody has measured of that. A filter makes offset, rate and their uncertainty of
it, and the device is told to time its light by that.

Rules
1. Stamps are the hardware's, so a message may come late: it is good for the exchange that is open.
   What is lost, or comes twice, or for another exchange, costs that exchange at most.
2. An exchange a second, as idle housekeeping; closer together at the beginning.
3. Both ends expect of the link what the follower said last (`ClockState`): rounded up to a power of
   two, and made less only after SYNC_CALM times: it seldom changes, and they choose alike.
"""

import math
from typing import Final

from msgspec import Struct

from qstack.machine import Effect, Record, Send, SetTimer
from qstack.physical.clock_hardware import ClockHardware
from qstack.physical.conditions import Conditions
from qstack.physical.device import AlignClock, ClockReading, PulseStamped, SendPulse
from qstack.physical.device_order import DeviceOrder
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.messages import ClockStamps, ClockState
from qstack.physical.models.clock import two_way
from qstack.physical.offset_filter import OffsetFilter
from qstack.physical.params import (
    OFFSET_MAX_PS,
    SYNC_CALM,
    SYNC_PERIOD_NS,
    SYNC_RATE_WANDER_PPB,
    SYNC_STARTS_NS,
    SYNC_STEP_SIGMAS,
    SYNC_WANDER_PS,
)
from qstack.wire.message import Message

SYNC_TIMER: Final = "sync/"
COMPARISONS_MIN: Final = 2  # then the rate is known


class _Exchange(Struct):
    """One exchange at the follower: what is known of it so far.

    Its pulse has the time it was begun for a number, which no other has, of whichever life.
    """

    begun_ns: int
    sent: ClockReading | None = None
    returned: ClockReading | None = None
    far: ClockStamps | None = None


class _Link(Struct, eq=False):
    """One link with clocks, seen from this end. `said` is the last the follower said."""

    hardware: LinkHardware
    peer: str
    is_follower: bool
    jitter_ps: float
    filter: OffsetFilter
    is_peer_up: bool = False
    exchange: _Exchange | None = None
    arrived: PulseStamped | None = None  # at the end that is followed
    said: ClockState | None = None
    better: int = 0  # how often in a row less could have been said

    @property
    def id(self) -> str:
        return self.hardware.id

    @property
    def known_bias_ps(self) -> float:
        """What an asymmetry that was measured makes of a comparison: half of it."""
        timing = self.hardware.timing
        return 0.0 if timing is None else (timing.measured_asymmetry_ps or 0.0) / 2.0

    def deviation_ps(self, until_ns: int) -> float | None:
        """How far light is to be expected to come apart until then, rounded up."""
        if self.filter.comparisons < COMPARISONS_MIN:
            return None
        exact = math.hypot(self.filter.deviation_ps(until_ns), self.jitter_ps)
        return min(OFFSET_MAX_PS, 2.0 ** math.ceil(math.log2(exact)))

    def calm_deviation_ps(self, until_ns: int) -> float | None:
        """The same, but no less than what was said before until it could have been for a while.

        At the beginning it becomes less with every comparison, and that is said at once.
        """
        now_ps = self.deviation_ps(until_ns)
        before_ps = None if self.said is None else self.said.deviation_ps
        is_better = now_ps is not None and before_ps is not None and now_ps < before_ps
        self.better = self.better + 1 if is_better else 0
        if is_better and self.better < SYNC_CALM < self.filter.comparisons:
            return before_ps
        self.better = 0
        return now_ps


class TimeSync:
    """The clocks of one node against those of its neighbours."""

    def __init__(self, node: str, world: World, order: DeviceOrder) -> None:
        self._order = order
        self._links: dict[str, _Link] = {}
        self._is_ready = False
        self.news: dict[str, None] = {}  # peers of whose links something else is to be expected
        for link in world.links_of(node):
            clocks = world.clocks(link.id)
            if clocks is None:
                continue
            peer = link.other_end(node)
            jitter_ps = math.hypot(*(clock.jitter_ps for clock in clocks))
            self._links[peer] = _Link(
                hardware=link,
                peer=peer,
                is_follower=node == link.ends[1],
                jitter_ps=jitter_ps,
                filter=_filter(clocks, jitter_ps),
            )

    # --- what the others of the layer ask ---

    def conditions(self, peer: str) -> Conditions | None:
        """What is to be expected of the link to `peer`; None while its clocks are not compared."""
        link = self._links.get(peer)
        if link is None or link.hardware.timing is None:
            return Conditions()
        if link.said is None or link.said.deviation_ps is None:
            return None
        return Conditions(delay_deviation_ps=link.said.deviation_ps)

    def take_news(self) -> list[str]:
        """The peers of whose links something else is to be expected now."""
        news = list(self.news)
        self.news.clear()
        return news

    def summary(self) -> dict[str, object]:
        """For status, by peer: this clock against that one, as far as is known."""
        return {peer: _report(link) for peer, link in self._links.items()}

    # --- devices and peers come and go ---

    def device_up(self, now: int) -> list[Effect]:
        """The device is there, with a clock nobody has compared."""
        self._is_ready = True
        effects: list[Effect] = []
        for link in self._links.values():
            effects += self._begin(link, now)
        return effects

    def device_down(self) -> None:
        """There is no clock. Who follows forgets what it knew: how light is timed is lost, too."""
        self._is_ready = False
        for link in self._links.values():
            link.exchange = link.arrived = None
            if link.is_follower:
                link.filter, link.said = link.filter.anew(), None

    def peer_up(self, peer: str, now: int) -> list[Effect]:
        """A neighbour is there: compare at once. (It may be another life, which knows nothing.)"""
        link = self._links.get(peer)
        if link is None:
            return []
        link.is_peer_up = True
        return self._begin(link, now)

    def peer_down(self, peer: str) -> None:
        """A neighbour has gone. What is known of its clock holds, ever less."""
        link = self._links.get(peer)
        if link is not None:
            link.is_peer_up = False
            link.exchange = link.arrived = None

    # --- the exchange ---

    def timer_fired(self, key: str, now: int) -> list[Effect]:
        """The next exchange is due; one that is open has failed."""
        link = self._links[key.removeprefix(SYNC_TIMER)]
        effects: list[Effect] = []
        if link.exchange is not None and link.is_peer_up and self._is_ready:
            effects.append(Record("physical.clock_exchange_lost", {"link": link.id}))
            effects += self._say_state(link, now)
        return effects + self._begin(link, now)

    def _begin(self, link: _Link, now: int) -> list[Effect]:
        if not (link.is_follower and link.is_peer_up and self._is_ready):
            return []
        link.exchange = _Exchange(now)
        timer = SetTimer(SYNC_TIMER + link.peer, now + SYNC_PERIOD_NS, background=True)
        return [*self._pulse(link, now, now), timer]

    def stamped(self, stamped: PulseStamped, now: int) -> list[Effect]:
        """The device has stamped a pulse."""
        link = next((each for each in self._links.values() if each.id == stamped.link), None)
        if link is None:
            return [_refused(stamped, f"no clocks are compared over {stamped.link}")]
        if link.is_follower:
            exchange = link.exchange
            if exchange is None or exchange.begun_ns != stamped.pulse:
                return []  # of an exchange that has failed
            if stamped.is_sent:
                exchange.sent = stamped.reading
            else:
                exchange.returned = stamped.reading
            return self._compare(link, exchange, now)
        if not stamped.is_sent:
            link.arrived = stamped
            return self._pulse(link, stamped.pulse, now)
        arrived, link.arrived = link.arrived, None
        if arrived is None or arrived.pulse != stamped.pulse or not link.is_peer_up:
            return []
        return [
            Send(
                link.peer,
                ClockStamps(
                    pulse=stamped.pulse, received=arrived.reading, returned=stamped.reading
                ),
            )
        ]

    def heard(self, peer: str, message: Message, now: int) -> list[Effect] | None:
        """The far end says something; None if that is nothing of ours."""
        link = self._links.get(peer)
        match message:
            case ClockStamps() if link is not None and link.is_follower:
                exchange = link.exchange
                if (
                    exchange is None
                    or exchange.begun_ns != message.pulse
                    or exchange.far is not None
                ):
                    return [Record("physical.clock_stamps_late", {"link": link.id})]
                exchange.far = message
                return self._compare(link, exchange, now)
            case ClockState() if link is not None and not link.is_follower:
                self._note_state(link, message)
                return []
            case _:
                return None

    def _compare(self, link: _Link, exchange: _Exchange, now: int) -> list[Effect]:
        """All four stamps make a comparison."""
        sent, returned, far = exchange.sent, exchange.returned, exchange.far
        if sent is None or returned is None or far is None:
            return []
        link.exchange = None
        stamps = sent, far.received, far.returned, returned
        ahead_ps = -two_way(*(stamp.whole_ps for stamp in stamps)).offset_s - link.known_bias_ps
        if abs(ahead_ps) > OFFSET_MAX_PS:
            return [_refused(far, f"{link.peer} is {ahead_ps:g} ps away")]
        effects: list[Effect] = []
        if not link.filter.compare(exchange.begun_ns + link.hardware.delay_ns, ahead_ps):
            fields = {"link": link.id, "offset_ps": ahead_ps}
            effects.append(Record("physical.clock_step", fields))
        align = AlignClock(
            at_ns=now,
            sequence=self._order.next_sequence(),
            link=link.id,
            offset_ps=link.filter.offset_ps(now),
            rate_ppb=link.filter.rate_ppb,
        )
        effects += self._order.submit(align, now)
        starts = SYNC_STARTS_NS[link.filter.comparisons - 1 :]
        if starts:
            effects.append(SetTimer(SYNC_TIMER + link.peer, now + starts[0]))
        return effects + self._say_state(link, now)

    def _say_state(self, link: _Link, now: int) -> list[Effect]:
        state = ClockState(
            offset_ps=link.filter.offset_ps(now),
            deviation_ps=link.calm_deviation_ps(now + SYNC_PERIOD_NS),
        )
        self._note_state(link, state)
        return [Send(link.peer, state)] if link.is_peer_up else []

    def _note_state(self, link: _Link, state: ClockState) -> None:
        before, link.said = link.said, state
        if (before.deviation_ps if before is not None else None) != state.deviation_ps:
            self.news[link.peer] = None

    def _pulse(self, link: _Link, pulse: int, now: int) -> list[Effect]:
        send = SendPulse(at_ns=now, sequence=self._order.next_sequence(), link=link.id, pulse=pulse)
        return self._order.submit(send, now)


def _filter(clocks: tuple[ClockHardware, ClockHardware], jitter_ps: float) -> OffsetFilter:
    """Of two stamps at each end, each with its clock's jitter, half the difference of differences.

    A stamp is told in whole picoseconds, which are a third of one off (1/12 ps^2, four of them).
    An even change of a rate is taken for a random one of that size in each second.
    """
    changes_ppb = (clock.change_ppb_per_s for clock in clocks)
    return OffsetFilter(
        rate_deviation_ppb=math.hypot(*(clock.accuracy_ppb for clock in clocks)),
        reading_variance_ps2=jitter_ps**2 / 2.0 + 1.0 / 12.0,
        wander_ps=SYNC_WANDER_PS,
        rate_wander_ppb=math.hypot(SYNC_RATE_WANDER_PPB, *changes_ppb),
        step_sigmas=SYNC_STEP_SIGMAS,
    )


def _report(link: _Link) -> dict[str, object]:
    state = link.said
    sign = 1.0 if link.is_follower else -1.0
    said: dict[str, object] = {
        "offset_ps": None if state is None else sign * state.offset_ps,
        "deviation_ps": None if state is None else state.deviation_ps,
    }
    if link.is_follower:
        said |= {
            "rate_ppb": link.filter.rate_ppb,
            "comparisons": link.filter.comparisons,
            "steps": link.filter.steps,
        }
    return said


def _refused(message: Message, why: str) -> Record:
    return Record("physical.refused", {"what": type(message).__name__, "why": why})
