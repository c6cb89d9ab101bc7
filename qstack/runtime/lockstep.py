"""Lockstep: how far network time may move, and who must move with it. Sans-IO.

Conservative synchronisation after CLOCK.md. Participants are the nodes and the fabric. A round:
everybody with something to do before the window's end W handles it and reports; then the fabric
applies the operations before W, so that no node can still send an earlier one. W is the earliest
time at which anything done in the round can have an effect elsewhere, so nobody is ever told
something that lies before what he has already done.

The coordinator knows what is in flight from the reports: what each participant sent, to whom, and
when the earliest of it is due.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from qstack.machine import FABRIC


@dataclass
class Participant:
    """A node or the fabric, as it reported itself last."""

    name: str
    next_ns: int | None = None
    is_demanding: bool = False
    is_waiting: bool = False
    is_up: bool = False
    arriving_ns: int | None = None  # the earliest message on its way to it
    expected: dict[str, int] = field(default_factory=dict)  # by source, of this channel's life

    @property
    def acts_at_ns(self) -> int | None:
        """When it has something to do next, with what is on its way."""
        if self.arriving_ns is None:
            return self.next_ns
        if self.next_ns is None:
            return self.arriving_ns
        return min(self.next_ns, self.arriving_ns)


class Sent(NamedTuple):
    """What one participant sent to another in a round."""

    messages: int
    earliest_ns: int


class Round(NamedTuple):
    """One step of the clock: `names` (nodes only, sorted) advance to `until_ns`."""

    until_ns: int
    names: list[str]


class Coordinator:
    """The clock of one network. `lookahead_ns`: the smallest delay of any effect elsewhere."""

    def __init__(self, nodes: list[str], lookahead_ns: int) -> None:
        assert lookahead_ns >= 1
        self.lookahead_ns = lookahead_ns
        self.now_ns = 0  # everything before it is done, everywhere
        self.epoch = 0  # of the membership
        self.rounds = 0
        self.participants = {name: Participant(name) for name in [*sorted(nodes), FABRIC]}
        self.participants[FABRIC].is_up = True

    def next_round(self, limit_ns: int | None) -> Round | None:
        """The next step, never past `limit_ns`; None if there is nothing to do before it.

        With None and a limit, the clock stands at the limit.
        """
        times = [
            p.acts_at_ns for p in self.participants.values() if p.is_up and p.acts_at_ns is not None
        ]
        start = max(min(times, default=0), self.now_ns)
        if not times or (limit_ns is not None and start >= limit_ns):
            if limit_ns is not None:
                self.now_ns = max(self.now_ns, limit_ns)
            return None
        until = start + self.lookahead_ns
        if limit_ns is not None:
            until = min(until, limit_ns)
        names = [
            p.name
            for p in self.participants.values()
            if p.is_up and p.name != FABRIC and p.acts_at_ns is not None and p.acts_at_ns < until
        ]
        self.rounds += 1
        return Round(until, names)

    @property
    def has_demand(self) -> bool:
        """Whether anything but idle housekeeping and deadlines is ahead anywhere."""
        return any(
            p.is_up and (p.is_demanding or p.arriving_ns is not None)
            for p in self.participants.values()
        )

    @property
    def is_waiting(self) -> bool:
        """Whether somebody anywhere waits for something with a deadline."""
        return any(p.is_up and p.is_waiting for p in self.participants.values())

    @property
    def next_ns(self) -> int | None:
        """When anybody has something to do next."""
        times = [p.acts_at_ns for p in self.participants.values() if p.is_up]
        return min((time for time in times if time is not None), default=None)

    def expected_by(self, name: str) -> dict[str, int]:
        """How many messages of each source `name` must have before it goes on."""
        return dict(self.participants[name].expected)

    def advancing(self, name: str) -> None:
        """`name` is being told to advance: what was on its way to it is now its own to report."""
        self.participants[name].arriving_ns = None

    def done(
        self,
        name: str,
        next_ns: int | None,
        sent: dict[str, Sent],
        *,
        is_demanding: bool,
        is_waiting: bool = False,
    ) -> None:
        """`name` has done all before the window's end."""
        participant = self.participants[name]
        participant.next_ns = next_ns
        participant.is_demanding = is_demanding
        participant.is_waiting = is_waiting
        for target, what in sent.items():
            self._in_flight(name, target, what)

    def _in_flight(self, source: str, target: str, what: Sent) -> None:
        receiver = self.participants[target]
        if not receiver.is_up:
            return  # it has gone; what was sent to it is void
        receiver.expected[source] = receiver.expected.get(source, 0) + what.messages
        if receiver.arriving_ns is None or what.earliest_ns < receiver.arriving_ns:
            receiver.arriving_ns = what.earliest_ns

    def finish(self, round_: Round) -> None:
        """Everybody, the fabric too, has done the round."""
        self.now_ns = round_.until_ns

    def joined(self, name: str, next_ns: int | None) -> None:
        """A participant is there, from now on."""
        participant = self.participants[name]
        assert not participant.is_up
        participant.is_up = True
        participant.next_ns = next_ns
        participant.is_demanding = next_ns is not None
        self.epoch += 1

    def left(self, name: str) -> None:
        """A participant has gone; all that was on its way from or to it is void."""
        participant = self.participants[name]
        if not participant.is_up:
            return
        self.participants[name] = Participant(name)
        for other in self.participants.values():
            other.expected.pop(name, None)
        self.epoch += 1

    def cut(self, one: str, other: str) -> None:
        """The channel between two participants broke: what was on its way by it is void."""
        self.participants[one].expected.pop(other, None)
        self.participants[other].expected.pop(one, None)

    def woke(self, name: str, next_ns: int | None, *, is_demanding: bool) -> None:
        """Something came to a participant from outside the round (an application's call)."""
        participant = self.participants[name]
        participant.next_ns = next_ns
        participant.is_demanding = is_demanding
