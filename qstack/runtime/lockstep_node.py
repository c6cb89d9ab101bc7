"""The lockstep clock of a node: it goes on when the coordinator says how far, and says when done.

The coordinator lives in the fabric's process (CLOCK.md). Between rounds the node stands still;
what applications call then is kept until the next round, whose start is the call's time.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from qstack.channel.channel import Channel
from qstack.channel.ends import ChannelClosed
from qstack.errors import ErrorCode
from qstack.machine import FABRIC
from qstack.runtime.clock_messages import (
    Advance,
    Change,
    ChannelBroken,
    ChannelLost,
    ChannelOpen,
    Done,
    Dropped,
    Join,
    SentTo,
    Start,
    Wake,
)
from qstack.runtime.compose import lookahead_ns
from qstack.runtime.fabric_link import FabricLink
from qstack.runtime.node import (
    LayerAway,
    LayerDue,
    Noted,
    Output,
    ToFabric,
    ToOpen,
    ToPeer,
    ToSession,
)
from qstack.wire.message import Message

if TYPE_CHECKING:
    from qstack.runtime.node_daemon import NodeDaemon

LAYER_LIMIT_S: Final = 20.0  # so long the clock is held for a layer that is being restarted
ESCAPE_S: Final = 0.1  # interactive: the clock goes on without it after so long
INBOX_MAX: Final = 4096  # clock messages not yet handled; a round is one of them


class LockstepClock:
    """See `NodeClock`."""

    def __init__(self, daemon: "NodeDaemon") -> None:
        self._daemon = daemon
        self._node = daemon.node
        self._network = daemon.network
        self._link: FabricLink | None = None
        self._inbox: trio.MemorySendChannel[Message | None] | None = None
        self._floor_ns = 0
        self._lookahead_ns = lookahead_ns(daemon.network)
        self._in_round = False
        self._is_member = False
        self._has_begun = False  # this life has been told what time it is
        self._parked: list[Callable[[int], None]] = []  # each is told at which network time
        self._due: dict[str, None] = {}  # layers that are to be back at a network time
        self._sent: dict[str, SentTo] = {}
        self._last_wake: Wake | None = None
        self._busy_news = trio.Event()
        self.escapes = 0

    @property
    def now_ns(self) -> int:
        """Everything before it is done here."""
        return max(self._floor_ns, self._node.now)

    # --- the channel to the coordinator ----------------------------------------------------------

    async def run(self, link: FabricLink) -> None:
        """Join, take part until the channel ends, and stand still after it."""
        self._link = link
        link.queue(Join(now_ns=self.now_ns))
        await link.flush()
        inbox_send, inbox = trio.open_memory_channel[Message | None](INBOX_MAX)
        self._inbox = inbox_send
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, link, inbox_send)
            nursery.start_soon(self._watch_busy)
            async with inbox:
                async for message in inbox:
                    if isinstance(message, Start):
                        self._start(message)
                    elif isinstance(message, Advance):
                        await self._advance(link, message)
                    self._tell_wake(link)
                    await link.flush()
            nursery.cancel_scope.cancel()
        self._inbox = None
        self._link = None
        self._lose_fabric()

    async def _read(self, link: FabricLink, inbox: trio.MemorySendChannel[Message | None]) -> None:
        def clock(message: Message) -> None:
            if isinstance(message, Dropped):
                self._daemon.peers.down(message.node)
            elif isinstance(message, ChannelBroken):
                self._break_off(message.node)
            else:
                inbox.send_nowait(message)

        def answered(position: int, due_ns: int, message: Message) -> None:
            self._node.message_arrived(FABRIC, position, due_ns, message)

        async with inbox:
            try:
                await link.read(answered, clock, lambda: None)
            except ChannelClosed as end:
                self._daemon.report(f"the fabric has gone: {end}")

    def _start(self, start: Start) -> None:
        self._floor_ns = start.at_ns
        self._node.now = max(self._node.now, start.at_ns)
        self._is_member = self._has_begun = True
        self._daemon.members = dict(start.members)
        self._node.peer_up(FABRIC, b"\0" * 8, start.at_ns)
        neighbours = self._network.neighbours_of(self._node.name)
        for other, boot in sorted(start.members.items()):
            if other != self._node.name:
                self._daemon.peers.up(other, boot)
        for other in neighbours:
            if other in start.members:
                self._node.peer_up(other, start.members[other], start.at_ns)
        self._last_wake = None

    def _lose_fabric(self) -> None:
        """No clock and no device: whatever was open ends now, and all channels begin anew."""
        self._is_member = False
        now = self.now_ns
        self._node.peer_down(FABRIC, now)
        for other in sorted(self._daemon.members):
            if other != self._node.name:
                self._node.peer_down(other, now)
        self._daemon.members = {}
        self._daemon.peers.down_all()
        if self._has_begun:
            self._make_parked_calls()
            self._run_standing()

    def _run_standing(self) -> None:
        """Without a clock: handle what is due now, and nothing later."""
        limit = self.now_ns + self._network.application_call_ns
        while (due := self._node.next_event_ns) is not None and due <= limit:
            for output in self._node.step():
                if isinstance(output, ToSession):
                    self._daemon.sessions.tell(output.session, output.at_ns, output.message)
                elif isinstance(output, ToOpen):
                    self._node.channel_refused(output.peer, self._node.now)
                elif isinstance(output, LayerAway | LayerDue):
                    self._carry(output)
        self._daemon.sessions.flush()
        self._floor_ns = max(self._floor_ns, self._node.now)

    # --- a round ---------------------------------------------------------------------------------

    async def _advance(self, link: FabricLink, advance: Advance) -> None:
        if self._missing(advance.expected):
            await self._daemon.peers.received(advance.expected)
        self._in_round = advance.hears_calls  # to applications, another is none
        self._floor_ns = max(self._floor_ns, advance.floor_ns)
        self._node.hears_peers_from_ns = advance.until_ns - self._lookahead_ns
        self._sent = {}
        for change in advance.changes:
            self._apply(change)
        if self._in_round:
            await self._settle()
            self._make_parked_calls()
        await self._handle_until(advance.until_ns)
        self._daemon.peers.flush()
        self._daemon.sessions.flush()
        self._in_round = False
        if advance.hears_calls and self._last_wake is not None:
            # Done says that nobody is busy or has called.
            known = self._last_wake.applications
            self._last_wake = Wake(has_calls=False, is_busy=False, applications=known)
        self._floor_ns = max(self._floor_ns, advance.until_ns)
        done = Done(
            round=advance.round,
            next_ns=self._node.next_event_ns,
            is_demanding=self._node.has_demand,
            is_waiting=self._node.is_waiting,
            sent=self._sent,
        )
        link.queue(done)

    def _missing(self, expected: dict[str, int]) -> bool:
        peers = self._daemon.peers.peers
        return any(peers[name].received < count for name, count in expected.items())

    async def _handle_until(self, until_ns: int) -> None:
        node = self._node
        while (due := node.next_event_ns) is not None and due < until_ns:
            for output in node.step():
                if isinstance(output, LayerDue):
                    await self._wait_for_layer(output.layer)
                self._carry(output)
            if self._in_round and self._daemon.sessions.busy:
                await self._settle()

    async def _settle(self) -> None:
        """Wait until the applications that were told something have had their say."""
        sessions = self._daemon.sessions
        sessions.flush()
        if not sessions.busy:
            return
        options = self._daemon.options
        with trio.move_on_after(options.busy_limit_s if options.is_strict else ESCAPE_S):
            await sessions.settled()
        for name in sessions.busy:
            if options.is_strict:
                limit = f"{options.busy_limit_s:g} s of wall time"
                why = f"{name} neither called, waited nor ended for {limit}"
                self._daemon.report(f"{why}; its session is ended (see the strict clock)")
                sessions.end(name, ErrorCode.TIMEOUT, why)
            else:
                self.escapes += 1
                sessions.escape(name)

    async def _watch_busy(self) -> None:
        """An application that is busy between rounds has no more patience than one within."""
        while True:
            await self._busy_news.wait()
            self._busy_news = trio.Event()
            if self._daemon.sessions.busy and not self._in_round:
                await self._settle()
                self.sessions_changed()

    def _carry(self, output: Output) -> None:
        match output:
            case ToPeer(peer, at_ns, message):
                if peer in self._daemon.members:
                    self._daemon.peers.send(peer, at_ns, message)
                    arrival = at_ns + self._network.path_delay_ns(self._node.name, peer)
                    self._count(peer, arrival + self._network.machine_event_ns)
            case ToFabric(at_ns, message):
                if self._link is not None:
                    self._link.queue(message)
                    self._count(FABRIC, at_ns)
            case ToSession(session, at_ns, message):
                self._daemon.sessions.tell(session, at_ns, message)
            case ToOpen(peer, at_ns):
                self._open(peer, at_ns)
            case LayerAway(layer, at_ns):
                self._layer_away(output)
            case LayerDue(layer, at_ns):
                self._layer_due(layer, at_ns)
            case Noted():
                self._daemon.note(output)

    # --- layers that die alone -------------------------------------------------------------------

    def _layer_away(self, away: LayerAway) -> None:
        """One that is ours to start is back at a stated time; an external one, when it comes."""
        self._daemon.layer_away(away)
        if not self._daemon.layers.is_external(away.layer):
            self._due[away.layer] = None
            self._node.layer_due(away.layer, away.at_ns + self._network.restart_ns)

    async def _wait_for_layer(self, layer: str) -> None:
        """The clock is held for it, but not for ever."""
        with trio.move_on_after(LAYER_LIMIT_S):
            await self._daemon.layers.arrived(layer)

    def _layer_due(self, layer: str, at_ns: int) -> None:
        self._due.pop(layer, None)
        if layer in self._daemon.layers.connections:
            self._begin_layer(layer, at_ns)

    def _begin_layer(self, layer: str, at_ns: int) -> None:
        self._node.layer_came(layer, partial(self._daemon.begin_layer, layer), at_ns)

    def _open(self, peer: str, at_ns: int) -> None:
        known = peer in self._network.nodes and peer != self._node.name
        delay = self._network.path_delay_ns(self._node.name, peer) if known else 0
        ready = at_ns + 2 * delay + self._network.machine_event_ns
        if not known or peer not in self._daemon.members:
            self._node.channel_refused(peer, ready)
            return
        self._daemon.peers.want(peer)
        self._daemon.peers.send(peer, at_ns, ChannelOpen())
        self._node.peer_up(peer, self._daemon.members[peer], ready)
        self._count(peer, at_ns + delay + self._network.machine_event_ns)

    def _count(self, target: str, due_ns: int) -> None:
        before = self._sent.get(target)
        if before is None:
            self._sent[target] = SentTo(count=1, earliest_ns=due_ns)
        else:
            earliest = min(before.earliest_ns, due_ns)
            self._sent[target] = SentTo(count=before.count + 1, earliest_ns=earliest)

    def _apply(self, change: Change) -> None:
        name = change.node
        if name == self._node.name:
            return
        if change.boot_id is None:
            self._daemon.members.pop(name, None)
            self._daemon.peers.down(name)
            self._node.peer_down(name, change.at_ns)
            return
        if change.boot_id == self._daemon.members.get(name):
            self._daemon.peers.mend(name)
            self._node.peer_down(name, change.at_ns)
        else:
            self._daemon.members[name] = change.boot_id
            self._daemon.peers.up(name, change.boot_id)
        self._meet(name, change.boot_id, change.at_ns)

    def _meet(self, name: str, boot_id: bytes, at_ns: int) -> None:
        """Neighbours are up for each other; with others a channel is opened when it is needed."""
        if name in self._network.neighbours_of(self._node.name):
            self._node.peer_up(name, boot_id, at_ns)

    def _break_off(self, name: str) -> None:
        """The channel to a member is broken; the coordinator hears of it from both ends."""
        link = self._link
        is_ours = name in self._daemon.members and name in self._daemon.peers.peers
        if link is not None and is_ours and self._daemon.peers.break_off(name):
            link.queue(ChannelLost(node=name))
            if not link.flush_nowait() and self._inbox is not None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.WouldBlock):
                    self._inbox.send_nowait(None)

    # --- what comes in ---------------------------------------------------------------------------

    def message(self, peer: str, position: int, at_ns: int, message: Message) -> None:
        """See `NodeClock`."""
        # A peer that dates its words back would have us go back in time, when they are handled.
        earliest_ns = self._floor_ns - self._network.machine_event_ns
        arrival = max(at_ns + self._network.path_delay_ns(self._node.name, peer), earliest_ns)
        if isinstance(message, ChannelOpen):
            due = arrival + self._network.machine_event_ns
            self._node.peer_up(peer, self._daemon.members[peer], due)
        else:
            self._node.message_arrived(peer, position, arrival, message)

    def has_waiting(self, peer: str, most: int) -> bool:
        """See `PeerUser`."""
        return self._node.has_waiting(peer, most)

    def turn(self) -> None:
        """See `NodeClock`: rounds say when things are handled."""

    def call(self, session: str, sequence: int, message: Message) -> None:
        """See `NodeClock`."""
        self._at_once_or_parked(lambda now: self._node.call(session, sequence, now, message))

    def session_ended(self, session: str, sequence: int) -> None:
        """See `NodeClock`."""
        self._at_once_or_parked(lambda now: self._node.session_ended(session, sequence, now))

    def layer_gone(self, layer: str) -> None:
        """See `NodeClock`."""
        machine = self._node.machines[layer]
        self._at_once_or_parked(lambda now: self._node.layer_gone(layer, machine, now))

    def layer_came(self, layer: str) -> None:
        """See `NodeClock`: it begins when it is due, or now if it is late or was not waited for."""
        if layer not in self._due:
            self._at_once_or_parked(partial(self._begin_layer, layer))

    def _at_once_or_parked(self, make: Callable[[int], None]) -> None:
        if self._in_round:
            make(self.now_ns)
            return
        self._parked.append(make)
        if self._is_member:
            self.sessions_changed()
        elif self._has_begun:
            self._make_parked_calls()
            self._run_standing()
        # Else it is kept until the clock begins: at time 0 every deadline would be long over.

    def _make_parked_calls(self) -> None:
        parked, self._parked = self._parked, []
        for make in parked:
            make(self.now_ns)

    def sessions_changed(self) -> None:
        """See `NodeClock`: outside a round the coordinator is told what may change the clock."""
        if self._in_round or self._inbox is None:
            return
        if self._daemon.sessions.busy:
            self._busy_news.set()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.WouldBlock):
            self._inbox.send_nowait(None)  # told in turn with Done, which outdates it

    def _tell_wake(self, link: FabricLink) -> None:
        """Tell the coordinator what has changed about the sessions, if anything."""
        if not self._is_member:
            return
        wake = Wake(
            has_calls=bool(self._parked),
            is_busy=bool(self._daemon.sessions.busy),
            applications=self._daemon.sessions.applications,
        )
        if wake != self._last_wake:
            self._last_wake = wake
            link.queue(wake)

    def report(self) -> dict[str, object]:
        """See `NodeClock`. `escapes`: how often the clock went on without a busy application."""
        is_seeded = self._daemon.options.seed is not None
        return {
            "kind": "lockstep",
            "now_ns": self.now_ns,
            "escapes": self.escapes,
            "is_reproducible": is_seeded and not self.escapes,
        }

    def channel_made(self, peer: str, channel: Channel) -> None:
        """See `NodeClock`: channels cost wall time only."""

    def channel_lost(self, peer: str, channel: Channel) -> None:
        """See `NodeClock`: the coordinator says who has gone, or is cut off, and when."""
        if self._daemon.members.get(peer) == channel.hello.boot_id:
            self._break_off(peer)
