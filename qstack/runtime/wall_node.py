"""The wall clock of a node: events are handled when their network time has come.

Network time is wall time times `time_scale`, counted from when the fabric's process started it.
Timers and messages due within a millisecond of wall time are handled at once: sleeping is coarser
than that (CLOCK.md). All that one turn produced is written in one send to each peer.
"""

from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from qstack.channel.channel import Channel
from qstack.channel.ends import ChannelClosed
from qstack.machine import FABRIC
from qstack.runtime.clock_messages import (
    AskTime,
    Change,
    Changed,
    ChannelOpen,
    Join,
    Start,
    Time,
)
from qstack.runtime.fabric_link import FabricLink
from qstack.runtime.node import LayerAway, Noted, Output, ToFabric, ToOpen, ToPeer, ToSession
from qstack.runtime.rest import Rest
from qstack.runtime.wall_time import ASK_EVERY_S, ASK_TIMES, WallTime
from qstack.wire.message import Message

if TYPE_CHECKING:
    from qstack.runtime.node_daemon import NodeDaemon

EARLY_S: Final = 1e-3  # sleeping is not finer than this
UNHURRIED_S: Final = 5e-3  # what nobody waits for waits so long for something to go with
CHANNEL_LIMIT_S: Final = 5.0  # a channel that is not there by then is refused
TURN_EVENTS_MAX: Final = 512  # then what is written goes out, and others have their turn


class WallClock:
    """See `NodeClock`."""

    def __init__(self, daemon: "NodeDaemon") -> None:
        self._daemon = daemon
        self._node = daemon.node
        self._network = daemon.network
        self._link: FabricLink | None = None
        self._time = WallTime(daemon.network.time_scale)
        self._told_time = trio.Event()
        self._turn_ns: int | None = None
        self._rest = Rest()
        self._nursery: trio.Nursery | None = None
        self._unhurried_s = inf  # when what nobody waits for is sent all the same
        self._planned: tuple[int | None, float] = (None, inf)  # what the pump sleeps for
        self._early_ns = int(EARLY_S * 1e9 * daemon.network.time_scale)
        self.early_ns_max = 0

    @property
    def now_ns(self) -> int:
        """Network time now."""
        return self._time.now_ns

    async def run(self, link: FabricLink) -> None:
        """Join and take part until the channel to the fabric ends."""
        self._link = link
        link.queue(Join(now_ns=max(self._node.now, 0)))
        await link.flush()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._pump, link)
            nursery.start_soon(self._ask_time, link)
            with suppress(ChannelClosed):
                await link.read(self._answered, self._on_clock, self.turn)
            nursery.cancel_scope.cancel()
        self._nursery = None
        self._link = None
        now = self.now_ns
        self._node.peer_down(FABRIC, now)
        self._daemon.members = {}
        for output in self._steps(now):
            self._carry(output)
        self._daemon.sessions.flush()

    async def _ask_time(self, link: FabricLink) -> None:
        """Read the fabric's clock now and again."""
        wait_s, then_s = ASK_EVERY_S
        while True:
            for _ in range(ASK_TIMES):
                self._told_time = trio.Event()
                link.queue(AskTime())
                self._time.asked()
                await link.flush()
                await self._told_time.wait()
            await trio.sleep(wait_s)
            wait_s = then_s

    def _answered(self, position: int, due_ns: int, message: Message) -> None:
        self._node.message_arrived(FABRIC, position, max(due_ns, self._arrival_ns()), message)

    def _on_clock(self, message: Message) -> None:
        if isinstance(message, Start):
            self._time.begin(message.at_ns)
            self._daemon.members = dict(message.members)
            self._node.peer_up(FABRIC, b"\0" * 8, message.at_ns)
            for name, boot in message.members.items():
                if name != self._node.name:
                    self._peer_up(name, boot, message.at_ns)
        elif isinstance(message, Changed):
            self._change(message.change)
        elif isinstance(message, Time):
            self._time.answered(message.at_ns)
            self._told_time.set()

    def _change(self, change: Change) -> None:
        name = change.node
        if name == self._node.name:
            return
        if change.boot_id is None:
            self._daemon.members.pop(name, None)
            self._daemon.peers.down(name)
            if self._node.is_up(name):
                self._node.peer_down(name, self.now_ns)
        else:
            self._daemon.members[name] = change.boot_id
            self._peer_up(name, change.boot_id, self.now_ns)

    def _peer_up(self, name: str, boot_id: bytes, now_ns: int) -> None:
        """A life of a peer; what it has said already comes after the news that it is there."""
        if self._daemon.peers.has_channel_to(name, boot_id):
            self._node.peer_up(name, boot_id, now_ns)
        self._daemon.peers.up(name, boot_id)

    # --- handling events -------------------------------------------------------------------------

    async def _pump(self, link: FabricLink) -> None:
        """Handle what falls due while nothing is read, and send what did not go at once."""
        while True:
            self._handle_due(link)
            self._daemon.peers.flush()
            await link.flush()
            self._note_unhurried(link)
            self._planned = self._node.next_event_ns, self._unhurried_s
            await self._rest.until(self._rest_until_s())

    def turn(self) -> None:
        """See `NodeClock`. It is handled, and answered, in the task that read it: a switch to
        another one costs as much as the handling.
        """
        if self._link is None:
            return
        is_written = self._handle_due(self._link)
        planned = self._node.next_event_ns, self._unhurried_s
        if not is_written:
            self._wake()
        elif planned != self._planned:
            self._planned = planned
            self._rest.move(self._rest_until_s())

    def _handle_due(self, link: FabricLink) -> bool:
        """Everything due, and what it produced; False if the link has more to send."""
        self._turn_ns = None
        for output in self._steps(self.now_ns):
            self._carry(output)
        self._daemon.sessions.flush()
        self._daemon.peers.flush_urgent()
        is_written = link.flush_nowait() if link.is_pressing else True
        self._note_unhurried(link)
        return is_written

    def _note_unhurried(self, link: FabricLink) -> None:
        if not (link.is_queued or self._daemon.peers.has_unhurried):
            self._unhurried_s = inf
        elif self._unhurried_s == inf:
            self._unhurried_s = trio.current_time() + UNHURRIED_S

    def _rest_until_s(self) -> float:
        """Until when to sleep, by trio's clock (s), for what is planned."""
        due_ns, unhurried_s = self._planned
        if due_ns is None:
            return unhurried_s
        rest_s = (due_ns - self.now_ns) / 1e9 / self._network.time_scale - EARLY_S
        return min(trio.current_time() + rest_s, unhurried_s)

    def _steps(self, now_ns: int) -> list[Output]:
        """Everything due by now, or so soon that sleeping would miss it."""
        node = self._node
        outputs = node.run_before(now_ns + self._early_ns, TURN_EVENTS_MAX)
        self.early_ns_max = max(self.early_ns_max, node.now - now_ns)
        return outputs

    def _carry(self, output: Output) -> None:
        if isinstance(output, ToFabric):
            if self._link is not None:
                self._link.queue(output.message)
        elif isinstance(output, ToPeer):
            self._daemon.peers.send(output.peer, output.at_ns, output.message)
        elif isinstance(output, ToSession):
            self._daemon.sessions.tell(output.session, output.at_ns, output.message)
        elif isinstance(output, ToOpen):
            self._open(output.peer)
        elif isinstance(output, LayerAway):
            self._daemon.layer_away(output)
        elif isinstance(output, Noted):
            self._daemon.note(output)

    def _open(self, name: str) -> None:
        peer = self._daemon.peers.peers.get(name)
        if peer is None or peer.boot_id is None or self._nursery is None:
            self._node.channel_refused(name, self.now_ns)
        elif peer.is_usable:
            self._node.peer_up(name, peer.boot_id, self.now_ns)
        else:
            self._daemon.peers.want(name)
            self._nursery.start_soon(self._wait_for_channel, name)

    async def _wait_for_channel(self, name: str) -> None:
        """`channel_made` tells the layers when it stands; this tells them when it does not."""
        await trio.sleep(CHANNEL_LIMIT_S)
        if not self._node.is_up(name):
            self._node.channel_refused(name, self.now_ns)
            self._wake()

    def _arrival_ns(self) -> int:
        """The time of what arrives now: one for all that is read before it is handled.

        What it leads to is then said at one time too, and one Stamp does for all of it.
        """
        if self._turn_ns is None:
            self._turn_ns = self.now_ns
        return self._turn_ns

    def _wake(self) -> None:
        self._rest.end()

    # --- what comes in ---------------------------------------------------------------------------

    def message(self, peer: str, position: int, at_ns: int, message: Message) -> None:
        """See `NodeClock`: due when it has travelled, and not before it is here."""
        if not isinstance(message, ChannelOpen):
            arrival = at_ns + self._network.path_delay_ns(self._node.name, peer)
            self._node.message_arrived(peer, position, max(arrival, self._arrival_ns()), message)

    def has_waiting(self, peer: str, most: int) -> bool:
        """See `PeerUser`."""
        return self._node.has_waiting(peer, most)

    def call(self, session: str, sequence: int, message: Message) -> None:
        """See `NodeClock`."""
        self._node.call(session, sequence, self._arrival_ns(), message)

    def session_ended(self, session: str, sequence: int) -> None:
        """See `NodeClock`."""
        self._node.session_ended(session, sequence, self._arrival_ns())
        self._wake()

    def layer_gone(self, layer: str) -> None:
        """See `NodeClock`."""
        self._node.layer_gone(layer, self._node.machines[layer], self.now_ns)
        self._wake()

    def layer_came(self, layer: str) -> None:
        """See `NodeClock`: it begins at once."""
        self._node.layer_came(layer, partial(self._daemon.begin_layer, layer), self.now_ns)
        self._wake()

    def sessions_changed(self) -> None:
        """See `NodeClock`: the wall clock waits for nobody."""

    def report(self) -> dict[str, object]:
        """See `NodeClock`. `early_ns_max`: the farthest any event was handled before its time."""
        return {
            "kind": "wall",
            "now_ns": self.now_ns,
            "early_ns_max": self.early_ns_max,
            "is_reproducible": False,
        }

    def channel_made(self, peer: str, channel: Channel) -> None:
        """See `NodeClock`."""
        boot = channel.hello.boot_id
        if self._daemon.members.get(peer) == boot:
            self._node.peer_up(peer, boot, self.now_ns)
            self._wake()

    def channel_lost(self, peer: str, channel: Channel) -> None:
        """See `NodeClock`."""
        is_known_life = self._daemon.members.get(peer) == channel.hello.boot_id
        if is_known_life and self._node.is_up(peer):
            self._node.peer_down(peer, self.now_ns)
            self._wake()
