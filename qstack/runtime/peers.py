"""The channels of a node to other nodes: one for each pair, dialled, accepted, kept, counted.

The smaller name of two neighbours dials, again and again until there is a channel; any other pair
is dialled by whoever needs it first. What is sent to a peer waits for its channel. Messages are
counted in both directions for the life of a channel, because lockstep waits for counts.

A channel belongs to one life (boot id) of the peer. Frames of a life the clock has not told us of
yet are kept until it does. In lockstep a channel that broke is `broken off` until the clock says
at which network time the next one begins, at both ends: nothing is sent, dialled or accepted.

A peer that sends much more than is handled, or than its life not known yet may, is cut off (RATE).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from qstack.channel.ca import Credentials
from qstack.channel.channel import Channel, Received
from qstack.channel.ends import ChannelClosed, ChannelRefused
from qstack.channel.hello import open_channel
from qstack.channel.identity import Identity
from qstack.errors import ErrorCode, PeerError
from qstack.link import messages as link
from qstack.network import messages as network
from qstack.physical import messages as physical
from qstack.physical import station_messages as station
from qstack.runtime import life_messages
from qstack.runtime.clock_messages import PEER_MESSAGES
from qstack.runtime.listen import Unreached, serve
from qstack.runtime.network_file import Network
from qstack.transport import messages as transport
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import BULK_BYTES_MAX, Frame
from qstack.wire.message import Message
from qstack.wire.session import Error, Hello, Stamp

REDIAL_S: Final = 0.05
AHEAD_NS: Final = 3600 * 10**9  # no node is so far behind another: timers are seconds apart
WAITING_MAX: Final = 65_536  # messages of one peer that wait to be handled
EARLY_BYTES_MAX: Final = 16 * 2**20  # of a life of the peer that the clock has not told us of
EARLY_BYTES_EACH: Final = 1024  # what any message takes, beside its body
UNHURRIED: Final = (link.AddAccepted, link.Ack, network.Complete)
"""What nobody waits for: the wall clock lets it wait for something to go with."""
REGISTRY: Final = Registry(
    (
        *link.MESSAGES, *network.MESSAGES, *transport.MESSAGES, *life_messages.MESSAGES,
        *PEER_MESSAGES, *physical.MESSAGES, *station.MESSAGES,
    )
)  # fmt: skip
STATION_REGISTRY: Final = Registry((*station.MESSAGES, *life_messages.MESSAGES, *PEER_MESSAGES))
"""What is said to a heralding station: nothing of the layers it has not."""


class PeerUser(Protocol):
    """Who is told what comes: the node's clock."""

    def message(self, peer: str, position: int, at_ns: int, message: Message) -> None:
        """The message at `position` of the channel to `peer`, sent at `at_ns` of network time."""
        ...

    @property
    def now_ns(self) -> int:
        """Network time here."""
        ...

    def has_waiting(self, peer: str, most: int) -> bool:
        """Whether more than `most` messages of `peer` were handed over and are not handled yet."""
        ...

    def turn(self) -> None:
        """All that one read brought has been handed over."""
        ...

    def channel_made(self, peer: str, channel: Channel) -> None:
        """A channel to `peer` stands."""
        ...

    def channel_lost(self, peer: str, channel: Channel) -> None:
        """A channel to `peer` broke."""
        ...


@dataclass(eq=False)
class Peer:
    """The channel to one other node."""

    name: str
    boot_id: bytes | None = None  # the life the layers know; None while the peer is down
    channel: Channel | None = None
    received: int = 0  # messages of this channel's life
    stamp_in_ns: int = 0
    stamp_out_ns: int = -1
    early: list[tuple[int, Message]] = field(default_factory=list)
    early_bytes: int = 0  # of all of them
    outbox: list[Frame] = field(default_factory=list)
    wakeup: trio.Event = field(default_factory=trio.Event)
    is_dialling: bool = False
    is_broken_off: bool = False
    mended: trio.Event = field(default_factory=trio.Event)

    @property
    def is_usable(self) -> bool:
        """Whether there is a channel to the life of the peer that the layers know."""
        return self.channel is not None and self.channel.hello.boot_id == self.boot_id

    def take_early(self) -> list[tuple[int, Message]]:
        """What came too early, which is kept no more."""
        early, self.early, self.early_bytes = self.early, [], 0
        return early


class PeerChannels:
    """All of them; `report` hears what went wrong."""

    def __init__(
        self,
        network_file: Network,
        hello: Hello,
        credentials: Credentials,
        user: PeerUser,
        report: Callable[[str], None],
        *,
        send_delay_s: Callable[[], float] | None = None,
    ) -> None:
        self.network = network_file
        self.node = hello.node
        self.peers = {name: Peer(name) for name in network_file.peers_of(self.node)}
        self.refused = 0
        self._registry = REGISTRY if self.node in network_file.nodes else STATION_REGISTRY
        self._hello = hello
        self._credentials = credentials
        self._user = user
        self._report = report
        self._send_delay_s = send_delay_s
        self._believed_ns = 0  # times up to this one are not ahead
        self._unflushed: dict[str, None] = {}
        self._unhurried: dict[str, None] = {}  # peers to whom only such is queued
        self._nursery: trio.Nursery | None = None
        self._progress = trio.Event()

    async def run(self, listener: trio.SocketListener) -> None:
        """Accept, dial and send until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(serve, listener, self._accept, self._report)
            for name in self.peers:
                nursery.start_soon(self._write, self.peers[name])
            for other in self.network.neighbours_of(self.node):
                if self.node < other:
                    self.want(other)

    # --- what the driver says --------------------------------------------------------------------

    def send(self, name: str, at_ns: int, message: Message) -> None:
        """Queue a message, sent at `at_ns` of network time, for the next write."""
        peer = self.peers[name]
        if peer.boot_id is None or peer.is_broken_off:
            return  # what is meant for it is void
        if peer.stamp_out_ns != at_ns:
            peer.outbox.append(encode(Stamp(at_ns=at_ns)))
            peer.stamp_out_ns = at_ns
        peer.outbox.append(encode(message))
        if isinstance(message, UNHURRIED):
            self._unhurried[name] = None
        else:
            self._unflushed[name] = None

    @property
    def has_unhurried(self) -> bool:
        """Whether `flush_urgent` left something."""
        return bool(self._unhurried)

    def flush(self) -> None:
        """Send what is queued, in one write a peer: at once if possible, else by its writer."""
        self._unflushed |= self._unhurried
        self.flush_urgent()

    def flush_urgent(self) -> None:
        """The same, but for peers to whom nothing but what is unhurried is queued."""
        unflushed, self._unflushed = self._unflushed, {}
        for name in unflushed:
            self._unhurried.pop(name, None)
            peer = self.peers[name]
            channel = peer.channel
            if self._send_delay_s is None and peer.is_usable and channel is not None:
                if peer.outbox and channel.send_nowait(peer.outbox):
                    peer.outbox = []
                if not peer.outbox and not channel.has_unsent:
                    continue
            peer.wakeup.set()

    def want(self, name: str) -> None:
        """Dial `name` unless there is a channel or a dialler already."""
        peer = self.peers[name]
        if peer.channel is None and not peer.is_dialling and self._nursery is not None:
            peer.is_dialling = True
            self._nursery.start_soon(self._dial, peer)

    def has_channel_to(self, name: str, boot_id: bytes) -> bool:
        """Whether there is a channel to this life of a peer, which may not be up yet."""
        peer = self.peers.get(name)
        channel = None if peer is None else peer.channel
        return channel is not None and channel.hello.boot_id == boot_id

    def up(self, name: str, boot_id: bytes) -> None:
        """The layers know of this life of the peer from now on; it may be none of ours."""
        peer = self.peers.get(name)
        if peer is None:
            return
        peer.boot_id = boot_id
        early = peer.take_early()
        said_ns = [at_ns for at_ns, _ in early]
        if peer.is_usable and any(map(self._is_ahead, [*said_ns, peer.stamp_in_ns])):
            self._report(f"{name} speaks from the far future; its channel ends")
            channel = peer.channel
            assert channel is not None
            self._drop(peer)
            self._user.channel_lost(name, channel)
            return
        if peer.is_usable:
            for at_ns, message in early:
                self._hand_over(peer, at_ns, message)
        peer.wakeup.set()

    def down(self, name: str) -> None:
        """That life is over: what is queued for it or kept of it is void."""
        peer = self.peers.get(name)
        if peer is None:
            return
        ended, peer.boot_id = peer.boot_id, None
        self._mend(peer)
        peer.received = 0  # of its next life nothing has come: that is to be waited for
        peer.outbox.clear()
        peer.stamp_out_ns = -1
        if peer.channel is not None and peer.channel.hello.boot_id == ended:
            self._drop(peer)
        self._tick()

    def break_off(self, name: str) -> bool:
        """The channel to a living peer is broken, until `mend`. False if that was known."""
        peer = self.peers[name]
        if peer.is_broken_off:
            return False
        peer.is_broken_off, peer.mended = True, trio.Event()
        peer.take_early()
        self._drop(peer)
        self._tick()
        return True

    def mend(self, name: str) -> None:
        """A new channel to the peer begins: what was on its way by the old one is void."""
        peer = self.peers[name]
        peer.received = 0
        self._mend(peer)

    def _mend(self, peer: Peer) -> None:
        peer.is_broken_off = False
        peer.mended.set()

    def down_all(self) -> None:
        """The clock has gone: channels begin anew with it."""
        for name, peer in self.peers.items():
            self.down(name)
            if peer.channel is not None:
                self._drop(peer)

    async def received(self, expected: dict[str, int]) -> None:
        """Wait until so many messages of each source have come, or no more can."""
        while any(
            peer.boot_id is not None and not peer.is_broken_off and peer.received < count
            for peer, count in ((self.peers[name], count) for name, count in expected.items())
        ):
            self._progress = trio.Event()
            await self._progress.wait()

    # --- making channels -------------------------------------------------------------------------

    def _expected(self, identity: Identity) -> bool:
        is_known = identity.node in self.peers
        return is_known and identity.role == self.network.role_of(identity.node)

    async def _dial(self, peer: Peer) -> None:
        address = self.network.address_of(peer.name)
        expected = Identity(self.network.name, peer.name, self.network.role_of(peer.name))
        unreached = Unreached(f"{peer.name} at {address}", self._report)
        while peer.channel is None:
            if peer.is_broken_off:
                await peer.mended.wait()
            try:
                stream = await trio.open_tcp_stream(address.host, address.port)
                channel = await open_channel(
                    stream,
                    credentials=self._credentials,
                    server=False,
                    expected=expected,
                    hello=self._hello,
                    registry=self._registry,
                )
            except (OSError, ChannelRefused) as error:
                unreached.failed(error)
                await trio.sleep(REDIAL_S)
                continue
            peer.is_dialling = False
            await self._read(peer, channel)
            if self.node < peer.name and self._is_neighbour(peer.name):
                peer.is_dialling = True
        peer.is_dialling = False

    def _is_neighbour(self, name: str) -> bool:
        return name in self.network.neighbours_of(self.node)

    async def _accept(self, stream: trio.SocketStream) -> None:
        channel = await open_channel(
            stream,
            credentials=self._credentials,
            server=True,
            expected=self._expected,
            hello=self._hello,
            registry=self._registry,
            on_accept=self._refuse_second,
        )
        assert self._nursery is not None
        self._nursery.start_soon(self._read, self.peers[channel.peer.node], channel)

    def _refuse_second(self, hello: Hello) -> None:
        """Two nodes that dial each other at once keep the channel that the smaller one dialled."""
        peer = self.peers[hello.node]
        if peer.is_broken_off:
            raise PeerError(ErrorCode.OUT_OF_STATE, "the clock has not told us of a new channel")
        has_channel = peer.channel is not None and peer.channel.hello.boot_id == hello.boot_id
        if has_channel or (peer.is_dialling and self.node < peer.name):
            raise PeerError(ErrorCode.OUT_OF_STATE, "there is a channel between us already")

    async def _read(self, peer: Peer, channel: Channel) -> None:
        if peer.channel is not None:
            self._drop(peer)
        peer.channel = channel
        peer.received = 0
        peer.take_early()
        peer.wakeup.set()
        self._user.channel_made(peer.name, channel)
        try:
            while peer.channel is channel:
                frames = await channel.receive()
                try:
                    self._take_all(peer, channel, frames)
                except PeerError as fault:
                    await channel.cut_off(fault)
                self._tick()
                self._user.turn()
        except ChannelClosed as end:
            if end.code is not None:
                self._report(f"the channel to {peer.name} ended: {end}")
        finally:
            if peer.channel is channel:
                peer.channel = None
                peer.outbox.clear()  # it was meant for the channel that has gone
                peer.stamp_out_ns = -1
                self._user.channel_lost(peer.name, channel)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(channel.tls.transport)

    def _drop(self, peer: Peer) -> None:
        channel, peer.channel = peer.channel, None
        peer.outbox.clear()
        peer.stamp_out_ns = -1
        if channel is not None and self._nursery is not None:
            self._nursery.start_soon(trio.aclose_forcefully, channel.tls.transport)

    # --- messages --------------------------------------------------------------------------------

    def _take_all(self, peer: Peer, channel: Channel, frames: list[Received]) -> None:
        """What one read brought. Raises `PeerError`."""
        if self._user.has_waiting(peer.name, WAITING_MAX - len(frames)):
            raise PeerError(ErrorCode.RATE, f"more than {WAITING_MAX} messages to be handled")
        for frame, message in frames:
            self._take(peer, channel, frame, message)

    def _take(self, peer: Peer, channel: Channel, frame: Frame, message: Message | None) -> None:
        is_of_its_life = channel.hello.boot_id == peer.boot_id
        if message is None:
            return
        if isinstance(message, Stamp):
            peer.stamp_in_ns = at_ns = message.at_ns
            if is_of_its_life and self._is_ahead(at_ns):
                detail = f"{at_ns} is far ahead of network time"
                raise PeerError(ErrorCode.INVALID, detail, field="at_ns")
        elif isinstance(message, Error):
            self.refused += 1
            self._report(f"{peer.name} refused a message: {message.name}: {message.detail}")
        elif peer.channel is not channel:
            pass  # a channel that was replaced while its last frames were read
        elif is_of_its_life:
            self._hand_over(peer, peer.stamp_in_ns, message)
        else:
            peer.early_bytes += len(frame.body) + EARLY_BYTES_EACH
            if peer.early_bytes > EARLY_BYTES_MAX:
                detail = "too much before the clock has told us of this life"
                raise PeerError(ErrorCode.RATE, detail)
            peer.early.append((peer.stamp_in_ns, message))

    def _is_ahead(self, at_ns: int) -> bool:
        """Whether nobody can have said anything at that time yet: it would drive our clock."""
        if at_ns > self._believed_ns:  # the clock is read when it matters alone
            self._believed_ns = self._user.now_ns + AHEAD_NS
        return at_ns > self._believed_ns

    def _hand_over(self, peer: Peer, at_ns: int, message: Message) -> None:
        peer.received += 1
        self._user.message(peer.name, peer.received - 1, at_ns, message)

    def _tick(self) -> None:
        self._progress.set()

    async def _write(self, peer: Peer) -> None:
        while True:
            await peer.wakeup.wait()
            peer.wakeup = trio.Event()
            channel = peer.channel
            if not peer.is_usable or channel is None:
                continue
            frames, peer.outbox = peer.outbox, []
            try:
                if self._send_delay_s is not None:
                    await trio.sleep(self._send_delay_s())
                if frames:
                    await channel.send(frames)
                if channel.has_unsent:
                    await channel.drain()
            except ChannelClosed:
                continue  # the reader sees it too, and says so


def node_hello(network: Network, node: str, role: str, boot_id: bytes, layers: list[int]) -> Hello:
    """What this process says of itself on every channel."""
    return Hello(
        versions=[1],
        capabilities={},
        limits={"frame_bytes": BULK_BYTES_MAX},
        network=network.name,
        node=node,
        role=role,
        layers=layers,
        boot_id=boot_id,
        binding=b"",
        network_digest=network.digest,
    )
