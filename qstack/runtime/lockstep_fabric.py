"""The lockstep clock in the fabric's process: rounds, joining and leaving, holds.

The arithmetic is `lockstep.Coordinator`'s; here are its messages, its waiting, and its patience.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from qstack.errors import ErrorCode, PeerError
from qstack.machine import FABRIC
from qstack.runtime.clock_messages import (
    Advance,
    Change,
    ChannelBroken,
    ChannelLost,
    Done,
    Dropped,
    Join,
    Start,
    Wake,
)
from qstack.runtime.compose import lookahead_ns
from qstack.runtime.lockstep import Coordinator, Round, Sent
from qstack.wire.message import NETWORK_TIME_MAX_NS, Message

if TYPE_CHECKING:
    from qstack.runtime.fabric_daemon import FabricDaemon, NodeChannel

DELAY_NS_MAX: Final = 3600 * 10**9  # of any message: the longest fibre takes a second
HOLD_AHEAD_NS: Final = 86_400 * 10**9  # where nothing is to be done the clock goes there at once
DONE_LIMIT_S: Final = 30.0  # a slow computer is not a dead one; this is
RETURN_LIMIT_S: Final = 20.0  # so long the clock is held for a node that is being restarted


@dataclass
class _Returning:
    """A node that died and is expected back at `at_ns`."""

    at_ns: int
    until_s: float  # wall time


@dataclass
class _Cut:
    """A channel between two nodes that is broken: who has said so, and how long we wait."""

    said: list[str]
    until_s: float  # wall time; then an end that has not said it is taken out


class LockstepFabric:
    """See `FabricClock`."""

    def __init__(self, daemon: "FabricDaemon") -> None:
        self._daemon = daemon
        self._network = daemon.network
        self._coordinator = Coordinator(daemon.network.participants, lookahead_ns(daemon.network))
        self._started = False
        self._is_attended = daemon.options.applications == 0 or daemon.options.restarts > 0
        self._joining: dict[str, tuple[NodeChannel, int]] = {}
        self._returning: dict[str, _Returning] = {}
        self._changes: dict[str, list[Change]] = {}
        self._calls: dict[str, Wake] = {}
        self._waiting: set[str] = set()
        self._until_ns = 0  # how far the round goes that is waited for
        self._dead: list[str] = []
        self._cuts: dict[tuple[str, str], _Cut] = {}  # channels said to be broken, by their ends
        self._hold_ns: int | None = None
        self._pace: tuple[float, int] | None = None  # since when (wall s), from where (ns)
        self._held: list[trio.Event] = []
        self._is_standing = False
        self._news = trio.Event()

    # --- what nodes say --------------------------------------------------------------------------

    def joined(self, node: "NodeChannel", join: Join) -> None:
        """See `FabricClock`."""
        self._joining[node.name] = (node, join.now_ns)
        self._tell_news()

    def left(self, node: "NodeChannel") -> None:
        """See `FabricClock`."""
        self._joining.pop(node.name, None)
        self._calls.pop(node.name, None)
        self._cuts = {ends: cut for ends, cut in self._cuts.items() if node.name not in ends}
        if self._coordinator.participants[node.name].is_up:
            self._dead.append(node.name)
            self._waiting.discard(node.name)
            for other in self._daemon.nodes.values():
                other.queue(Dropped(node=node.name))
                other.flush()
        self._tell_news()

    def clock_message(self, node: "NodeChannel", message: Message) -> None:
        """See `FabricClock`."""
        if isinstance(message, Wake):
            self._calls[node.name] = message
            self._tell_news()
        elif isinstance(message, Done):
            self._judge(node.name, message)
            self._done(node.name, message)
        elif isinstance(message, ChannelLost):
            self._lost(node.name, message.node)

    def _judge(self, name: str, done: Done) -> None:
        """Refuse a Done nobody asked for, or whose times cannot be: it would drive the clock."""
        if name not in self._waiting or done.round != self._coordinator.rounds:
            detail = f"nobody waits for round {done.round} of {name}"
            raise PeerError(ErrorCode.OUT_OF_STATE, detail, field="round")
        if done.next_ns is not None and done.next_ns < self._until_ns:
            detail = f"{done.next_ns} is before {self._until_ns}, to which the round went"
            raise PeerError(ErrorCode.INVALID, detail, field="next_ns")
        for target, what in done.sent.items():
            # Operations are handed over at once; nothing else arrives within its round.
            first_ns = self._coordinator.now_ns if target == FABRIC else self._until_ns
            if not first_ns <= what.earliest_ns <= self._until_ns + DELAY_NS_MAX:
                detail = f"what was sent to {target} is not handled at {what.earliest_ns}"
                raise PeerError(ErrorCode.INVALID, detail, field=f"sent.{target}")

    def _done(self, name: str, done: Done) -> None:
        sent = {
            target: Sent(what.count, what.earliest_ns)
            for target, what in done.sent.items()
            if target in self._coordinator.participants
        }
        next_ns = done.next_ns
        if next_ns is not None and next_ns > NETWORK_TIME_MAX_NS:
            next_ns = None  # that will never be
        self._coordinator.done(
            name, next_ns, sent, is_demanding=done.is_demanding, is_waiting=done.is_waiting
        )
        wake = self._calls.get(name)
        if wake is not None and self._is_attended:  # Done outdates what it said
            self._calls[name] = Wake(has_calls=False, is_busy=False, applications=wake.applications)
        self._waiting.discard(name)
        if not self._waiting:
            self._tell_news()

    def _lost(self, name: str, other: str) -> None:
        """A node says that its channel to another is broken. The other one must say so, too."""
        far = self._daemon.nodes.get(other)
        participants = self._coordinator.participants
        if far is None or not (participants[name].is_up and participants[other].is_up):
            return  # one of them has gone: that is told otherwise
        first, second = sorted((name, other))
        limit_s = trio.current_time() + self._daemon.options.done_limit_s
        cut = self._cuts.setdefault((first, second), _Cut([], limit_s))
        if name not in cut.said:
            cut.said.append(name)
        if other not in cut.said:
            far.queue(ChannelBroken(node=name))
            far.flush()
        self._tell_news()

    def turn(self) -> None:
        """See `FabricClock`."""

    def _tell_news(self) -> None:
        self._news.set()

    # --- the clock -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Round after round, for as long as there is something to do."""
        while True:
            self._news = trio.Event()
            self._bury_dead()
            if not self._started:
                self._try_start()
            self._begin_channels_anew()
            if self._started and not self._cuts and await self._step():
                continue
            self._tell_held()
            self._is_standing = True
            with trio.move_on_after(self._patience_s()):
                await self._news.wait()
            self._is_standing = False

    def _try_start(self) -> None:
        """All nodes of the file are there: network time begins (or goes on)."""
        if len(self._joining) < len(self._network.participants):
            return
        now = max(at_ns for _, at_ns in self._joining.values())
        self._coordinator.now_ns = now
        self._daemon.fabric.begin(now)
        self._started = True
        self._daemon.report(f"all {len(self._joining)} nodes are here; network time {now} ns")
        members = {name: node.boot_id for name, (node, _) in sorted(self._joining.items())}
        for name, (node, _) in sorted(self._joining.items()):
            self._daemon.fabric.node_up(name, node.boot_id)
            self._coordinator.joined(name, now)
            self._begin(node, now, members)
        self._joining.clear()

    def _begin(self, node: "NodeChannel", at_ns: int, members: dict[str, bytes]) -> None:
        self._changes[node.name] = []
        node.queue(Start(at_ns=at_ns, members=members))
        node.flush()

    def _may_listen(self) -> bool:
        """Whether applications are heard yet: all that are waited for are there, and have waited.

        Until then the network comes up and falls quiet, so that their first calls are made at the
        same network time however long they took to start.
        """
        if not self._is_attended and not self._coordinator.has_demand:
            here = sum(wake.applications for wake in self._calls.values())
            self._is_attended = here >= self._daemon.options.applications
        return self._is_attended

    async def _step(self) -> bool:
        """One round, or one arrival; False if there is nothing to do for now."""
        coordinator = self._coordinator
        is_attended = self._may_listen()
        if is_attended:
            if any(wake.is_busy for wake in self._calls.values()):
                return False
            self._take_calls()
        self._welcome_late()
        stop = min((r.at_ns for r in self._returning.values()), default=None)
        limit = _earliest(stop, self._hold_ns)
        if not coordinator.has_demand and stop is None:
            if not is_attended:
                return False
            if self._hold_ns is None:
                pace_ns = self._pace_ns()
                if pace_ns is None:
                    return False
                limit = pace_ns
        else:
            self._pace = None
        round_ = coordinator.next_round(limit)
        if round_ is not None:
            await self._run_round(round_)
            return True
        if stop is not None and coordinator.now_ns >= stop:
            return self._welcome(stop)
        return False

    def _pace_ns(self) -> int | None:
        """How far the clock may go while only deadlines are ahead: no faster than wall time.

        None: nobody waits, it stands.
        """
        if not self._coordinator.is_waiting and not self._daemon.options.is_free_running:
            self._pace = None
            return None
        now_s = trio.current_time()
        if self._pace is None:
            self._pace = (now_s, self._coordinator.now_ns)
        since_s, from_ns = self._pace
        return max(self._coordinator.now_ns, from_ns + int((now_s - since_s) * 1e9))

    def _take_calls(self) -> None:
        """Calls that came since the last round are made at its start."""
        for name, wake in list(self._calls.items()):
            participant = self._coordinator.participants[name]
            if wake.has_calls and participant.is_up:
                due = self._coordinator.now_ns + self._network.application_call_ns
                next_ns = due if participant.next_ns is None else min(due, participant.next_ns)
                self._coordinator.woke(name, next_ns, is_demanding=True)
                self._calls[name] = Wake(
                    has_calls=False, is_busy=wake.is_busy, applications=wake.applications
                )

    async def _run_round(self, round_: Round) -> None:
        coordinator = self._coordinator
        # A call that came while this round was decided must have no effect within its window.
        start_ns = round_.until_ns - coordinator.lookahead_ns
        floor_ns = max(coordinator.now_ns, start_ns - self._network.application_call_ns)
        self._waiting = set(round_.names)
        self._until_ns = round_.until_ns
        for name in round_.names:
            node = self._daemon.nodes.get(name)
            if node is None:
                self._waiting.discard(name)
                continue
            expected = coordinator.expected_by(name)
            expected.pop(FABRIC, None)  # the device's answers come by the same channel
            coordinator.advancing(name)
            node.queue(
                Advance(
                    round=coordinator.rounds,
                    until_ns=round_.until_ns,
                    floor_ns=floor_ns,
                    hears_calls=self._is_attended,
                    expected=expected,
                    changes=self._changes.pop(name, []),
                )
            )
            self._changes[name] = []
            node.flush()
        await self._wait_for_done(round_)
        self._run_fabric(round_.until_ns)
        coordinator.finish(round_)

    async def _wait_for_done(self, round_: Round) -> None:
        while self._waiting:
            self._news = trio.Event()
            limit_s = self._daemon.options.done_limit_s
            with trio.move_on_after(limit_s) as limit:
                await self._news.wait()
            if limit.cancelled_caught:
                for name in sorted(self._waiting):
                    self._daemon.report(
                        f"node {name} did not finish round {self._coordinator.rounds}"
                        f" (to {round_.until_ns} ns) within {limit_s:g} s; it is taken out"
                    )
                    self._daemon.drop(name)

    def _run_fabric(self, until_ns: int) -> None:
        """Apply the operations before the window's end; answers wait for the node's next round."""
        self._coordinator.advancing(FABRIC)
        sent: dict[str, Sent] = {}
        machine_event_ns = self._network.machine_event_ns
        for delivery in self._daemon.fabric.run(until_ns):
            node = self._daemon.nodes.get(delivery.node)
            if node is None or not self._coordinator.participants[delivery.node].is_up:
                continue
            if delivery.node in self._dead:
                continue  # a new life of it may be there already
            due = delivery.due_ns + machine_event_ns
            assert due >= until_ns, "the fabric answered inside a window"
            node.deliver(delivery.due_ns, delivery.message)
            before = sent.get(delivery.node, Sent(0, due))
            sent[delivery.node] = Sent(before.messages + 1, min(before.earliest_ns, due))
        next_ns = self._daemon.fabric.next_event_ns()
        self._coordinator.done(FABRIC, next_ns, sent, is_demanding=next_ns is not None)

    # --- joining and leaving, at the boundary of rounds ------------------------------------------

    def _bury_dead(self) -> None:
        dead, self._dead = self._dead, []
        now = self._coordinator.now_ns
        for name in dead:
            self._coordinator.left(name)
            self._daemon.fabric.node_down(name, now)
            until = trio.current_time() + self._daemon.options.return_limit_s
            self._returning[name] = _Returning(now + self._network.restart_ns, until)
            self._changes.pop(name, None)
            self._tell_change(name, Change(node=name, boot_id=None, at_ns=now))
            self._daemon.report(f"node {name} is down from network time {now} ns")

    def _begin_channels_anew(self) -> None:
        """Channels both of whose ends know that they broke begin anew, now."""
        now = self._coordinator.now_ns
        for ends, cut in list(self._cuts.items()):
            silent = [name for name in ends if name not in cut.said]
            if silent and trio.current_time() >= cut.until_s:
                for name in silent:
                    self._daemon.report(
                        f"node {name} says nothing of its broken channel; it is out"
                    )
                    self._daemon.drop(name)
            if silent:
                continue
            del self._cuts[ends]
            self._coordinator.cut(*ends)
            for name, other in (ends, ends[::-1]):
                boot_id = self._daemon.nodes[other].boot_id
                change = Change(node=other, boot_id=boot_id, at_ns=now)
                self._tell_one(name, change)
            self._daemon.report(f"the channel {ends[0]} - {ends[1]} broke; anew from {now} ns on")

    def _tell_one(self, name: str, change: Change) -> None:
        participant = self._coordinator.participants[name]
        self._changes.setdefault(name, []).append(change)
        next_ns = participant.next_ns
        due = change.at_ns if next_ns is None else min(change.at_ns, next_ns)
        self._coordinator.woke(name, due, is_demanding=True)

    def _tell_change(self, name: str, change: Change) -> None:
        """A change is an event, now, at every node that is up."""
        for other, participant in self._coordinator.participants.items():
            if other in (name, FABRIC) or not participant.is_up:
                continue
            if change.boot_id is None or self._are_neighbours(name, other):
                self._tell_one(other, change)
            else:
                self._changes.setdefault(other, []).append(change)

    def _are_neighbours(self, name: str, other: str) -> bool:
        return other in self._network.neighbours_of(name)

    def _welcome(self, at_ns: int) -> bool:
        """The clock stands where nodes are expected back: take in those that are here."""
        did = False
        for name, returning in sorted(self._returning.items()):
            if returning.at_ns > at_ns:
                continue
            if name in self._joining:
                self._take_in(name, at_ns)
                did = True
            elif trio.current_time() >= returning.until_s:
                self._daemon.report(f"node {name} did not come back; going on without it")
                del self._returning[name]
                did = True
        return did

    def _welcome_late(self) -> None:
        """Nodes that come when nobody expects them any more take part from now on."""
        for name in sorted(self._joining):
            if name not in self._returning and not self._coordinator.participants[name].is_up:
                self._take_in(name, self._coordinator.now_ns)

    def _take_in(self, name: str, at_ns: int) -> None:
        node, _ = self._joining.pop(name)
        self._returning.pop(name, None)
        self._daemon.fabric.node_up(name, node.boot_id)
        self._coordinator.joined(name, at_ns)
        members = {
            other: self._daemon.nodes[other].boot_id
            for other, participant in self._coordinator.participants.items()
            if participant.is_up and other in self._daemon.nodes
        }
        self._begin(node, at_ns, members)
        self._tell_change(name, Change(node=name, boot_id=node.boot_id, at_ns=at_ns))
        self._daemon.report(f"node {name} is back at network time {at_ns} ns")

    def _patience_s(self) -> float:
        ends_s = [returning.until_s for returning in self._returning.values()]
        ends_s += [cut.until_s for cut in self._cuts.values()]
        limits = [end_s - trio.current_time() for end_s in ends_s]
        next_ns = self._coordinator.next_ns
        if self._pace is not None and next_ns is not None:
            limits.append((next_ns - self._coordinator.now_ns) / 1e9)
        return max(0.01, min(limits, default=3600.0))

    # --- control ---------------------------------------------------------------------------------

    async def hold(self, at_ns: int | None) -> int:
        """See `FabricClock`."""
        now = self._coordinator.now_ns
        if at_ns is not None and at_ns < now:
            raise ValueError(f"network time is {now} ns already; it cannot stand at {at_ns} ns")
        if at_ns is not None and at_ns > now + HOLD_AHEAD_NS:
            raise ValueError(f"{at_ns} ns is more than a day of network time ahead of {now} ns")
        wanted = now if at_ns is None else at_ns
        self._hold_ns = wanted
        stands = trio.Event()
        self._held.append(stands)
        self._tell_news()
        try:
            await stands.wait()
        except trio.Cancelled:  # who asked has gone, and could not release it
            self._held.remove(stands)
            if self._hold_ns == wanted:
                self.release()
            raise
        if self._hold_ns != wanted:
            raise ValueError(f"the hold at {wanted} ns was released or replaced by another")
        return self._coordinator.now_ns

    def release(self) -> None:
        """See `FabricClock`."""
        self._hold_ns = None
        self._tell_news()

    def _tell_held(self) -> None:
        """Answer who waits for a hold: the clock stands there, or the hold is no more."""
        if self._hold_ns is None or self._coordinator.now_ns >= self._hold_ns:
            held, self._held = self._held, []
            for stands in held:
                stands.set()

    def _is_wanted(self) -> bool:
        """Whether somebody has called, is busy or expects something."""
        is_called = any(wake.is_busy or wake.has_calls for wake in self._calls.values())
        return is_called or self._news.is_set() or self._coordinator.has_demand

    def report(self) -> dict[str, object]:
        """See `FabricClock`."""
        return {
            "kind": "lockstep",
            "now_ns": self._coordinator.now_ns,
            "rounds": self._coordinator.rounds,
            "epoch": self._coordinator.epoch,
            "started": self._started,
            "held_at_ns": self._hold_ns,
            "is_quiet": self._is_standing and not self._is_wanted(),
            "lookahead_ns": self._coordinator.lookahead_ns,
        }


def _earliest(first: int | None, second: int | None) -> int | None:
    times = [time for time in (first, second) if time is not None]
    return min(times, default=None)
