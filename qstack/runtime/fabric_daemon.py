"""The fabric as a process: the emulated quantum world, the heralding stations, and the clock.

What both clocks share is here; `lockstep_fabric.py` and `wall_fabric.py` say when things happen.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

import msgspec
import trio

from qstack.channel.ca import Credentials
from qstack.channel.channel import Channel, Received
from qstack.channel.ends import ChannelClosed
from qstack.channel.hello import open_channel
from qstack.channel.identity import Identity
from qstack.errors import ErrorCode, PeerError
from qstack.physical import device, program_device, station_device
from qstack.physical.fabric import Fabric
from qstack.runtime.clock_messages import FABRIC_MESSAGES, Join
from qstack.runtime.control_server import serve_control
from qstack.runtime.fabric_link import FABRIC_NODE
from qstack.runtime.listen import listen, serve
from qstack.runtime.lockstep_fabric import DONE_LIMIT_S, RETURN_LIMIT_S, LockstepFabric
from qstack.runtime.network_file import Network
from qstack.runtime.peers import node_hello
from qstack.runtime.status import channel_report, process_report
from qstack.runtime.wall_fabric import WallFabric
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import Frame, Layer
from qstack.wire.message import Message
from qstack.wire.session import Error, Hello, Stamp

REGISTRY: Final = Registry(
    (
        *device.MESSAGES,
        *station_device.MESSAGES,
        *program_device.MESSAGES,
        *FABRIC_MESSAGES,
    )
)


@dataclass(frozen=True)
class FabricOptions:
    """How to run the fabric. `applications`: the clock waits until so many have attached."""

    network: Network
    credentials: Credentials
    control_socket: Path
    seed: int | None
    applications: int = 0
    witnessed_pairs_max: int = 0  # true states kept for reports
    is_free_running: bool = False  # `up --run`: move also when nobody waits for anything
    restarts: int = 0  # how often its supervisor has started it before
    done_limit_s: float = DONE_LIMIT_S
    return_limit_s: float = RETURN_LIMIT_S
    send_delay_s: Callable[[], float] | None = None


@dataclass(eq=False)
class NodeChannel:
    """The channel to one node: one life of it. `outbox` waits for the next flush."""

    name: str
    boot_id: bytes
    channel: Channel
    outbox: list[Frame] = field(default_factory=list)
    stamp_ns: int = -1
    is_delayed: bool = False  # by the tests' random delays, which are the writer's
    wakeup: trio.Event = field(default_factory=trio.Event)

    def queue(self, message: Message) -> None:
        """Queue a clock message."""
        self.outbox.append(encode(message))

    def deliver(self, due_ns: int, message: Message) -> None:
        """Queue an answer of the device, with the time it is due."""
        if due_ns != self.stamp_ns:
            self.outbox.append(encode(Stamp(at_ns=due_ns)))
            self.stamp_ns = due_ns
        self.outbox.append(encode(message))

    def flush(self) -> None:
        """Send what is queued in one write: at once if that is possible, else by the writer."""
        if not self.is_delayed and self.outbox and self.channel.send_nowait(self.outbox):
            self.outbox = []
        if self.outbox or self.channel.has_unsent:
            self.wakeup.set()


class FabricClock(Protocol):
    """When the fabric does what: lockstep or wall."""

    async def run(self) -> None:
        """Let network time pass until cancelled."""
        ...

    def joined(self, node: NodeChannel, join: Join) -> None:
        """A node is there."""
        ...

    def left(self, node: NodeChannel) -> None:
        """A node has gone."""
        ...

    def clock_message(self, node: NodeChannel, message: Message) -> None:
        """A node says something about the clock. Raises `PeerError` for what cannot be."""
        ...

    def turn(self) -> None:
        """One read has been handed over."""
        ...

    async def hold(self, at_ns: int | None) -> int:
        """Stand at `at_ns`; returns when it stands, with the time. Raises `ValueError`."""
        ...

    def release(self) -> None:
        """Go on."""
        ...

    def report(self) -> dict[str, object]:
        """For status."""
        ...


class FabricDaemon:
    """The parts of the fabric's process."""

    def __init__(self, options: FabricOptions, report: Callable[[str], None]) -> None:
        self.options = options
        self.network = options.network
        self.report = report
        self.fabric = Fabric(
            options.network.world,
            _entropy(options),
            witnessed_pairs_max=options.witnessed_pairs_max,
        )
        self.nodes: dict[str, NodeChannel] = {}
        layers = [int(Layer.PHYSICAL), int(Layer.CLOCK)]
        self.hello = node_hello(options.network, FABRIC_NODE, "fabric", os.urandom(8), layers)
        self.clock: FabricClock = (
            LockstepFabric(self) if options.network.clock == "lockstep" else WallFabric(self)
        )
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Run until cancelled."""
        assert self.network.fabric is not None
        listener = await listen(self.network.fabric)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(serve_control, self, self.options.control_socket)
            nursery.start_soon(serve, listener, self._accept, self.report)
            nursery.start_soon(self.clock.run)

    def world_report(self) -> bytes:
        """What `qstack status` shows of the fabric."""
        snapshot = self.fabric.snapshot()
        return msgspec.json.encode(
            {
                "network": self.network.name,
                "clock": self.clock.report(),
                "nodes": sorted(name for name in self.nodes if name in self.network.nodes),
                "stations": sorted(name for name in self.nodes if name in self.network.stations),
                "qubits": snapshot.qubits,
                "batches": snapshot.batches,
                "channels": [channel_report(n.name, n.channel) for n in self.nodes.values()],
                "process": process_report(),
            }
        )

    def drop(self, name: str) -> None:
        """Cut a node off; it may come again, with a new boot id."""
        node = self.nodes.get(name)
        if node is not None:
            self._end(node)

    # --- nodes -----------------------------------------------------------------------------------

    async def _accept(self, stream: trio.SocketStream) -> None:
        channel = await open_channel(
            stream,
            credentials=self.options.credentials,
            server=True,
            expected=self._expected,
            hello=self.hello,
            registry=REGISTRY,
            on_accept=self._judge,
        )
        assert self._nursery is not None
        self._nursery.start_soon(self._serve_node, channel)

    def _expected(self, identity: Identity) -> bool:
        is_known = identity.node in self.network.participants
        return is_known and identity.role == self.network.role_of(identity.node)

    def _judge(self, hello: Hello) -> None:
        if hello.network_digest != self.network.digest:
            ours, theirs = self.network.digest.hex()[:16], hello.network_digest.hex()[:16]
            raise PeerError(
                ErrorCode.NETWORK_MISMATCH,
                f"the fabric read network file {ours}, node {hello.node} read {theirs};"
                " start both from the same file",
                field="network_digest",
            )
        present = self.nodes.get(hello.node)
        if present is not None and present.boot_id == hello.boot_id:
            raise PeerError(ErrorCode.OUT_OF_STATE, f"node {hello.node} is here already")

    async def _serve_node(self, channel: Channel) -> None:
        node = NodeChannel(channel.peer.node, channel.hello.boot_id, channel)
        node.is_delayed = self.options.send_delay_s is not None
        before = self.nodes.get(node.name)
        if before is not None:
            self._end(before)
        self.nodes[node.name] = node
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, node)
            try:
                while self.nodes.get(node.name) is node:
                    try:
                        self._take(node, await channel.receive())
                    except PeerError as fault:
                        await channel.cut_off(fault)
                    self.clock.turn()
            except ChannelClosed as end:
                self.report(f"node {node.name} has gone: {end}")
            except trio.Cancelled:
                await trio.aclose_forcefully(channel.tls.transport)
                raise
            nursery.cancel_scope.cancel()
        self._end(node)

    def _take(self, node: NodeChannel, received: list[Received]) -> None:
        apply, name = self.fabric.apply, node.name
        for _, message in received:
            if isinstance(message, device.Operation):  # as nearly all are
                apply(name, message)
            else:
                self._take_word(node, message)

    def _take_word(self, node: NodeChannel, message: Message | None) -> None:
        match message:
            case Join():
                self.clock.joined(node, message)
            case Error():
                self.report(f"node {node.name} said {message.name}: {message.detail}")
            case None | Stamp():
                pass
            case _:
                self.clock.clock_message(node, message)

    def _end(self, node: NodeChannel) -> None:
        if self.nodes.get(node.name) is node:
            del self.nodes[node.name]
            self.clock.left(node)
            if self._nursery is not None:
                self._nursery.start_soon(trio.aclose_forcefully, node.channel.tls.transport)

    async def _write(self, node: NodeChannel) -> None:
        while True:
            await node.wakeup.wait()
            node.wakeup = trio.Event()
            if self.options.send_delay_s is not None:
                await trio.sleep(self.options.send_delay_s())
            frames, node.outbox = node.outbox, []
            try:
                if frames:
                    await node.channel.send(frames)
                if node.channel.has_unsent:
                    await node.channel.drain()
            except ChannelClosed:
                return  # the reader sees it too


def _entropy(options: FabricOptions) -> int:
    """What the fabric draws from: a restarted one must not draw the same outcomes again."""
    if options.seed is None:
        return int.from_bytes(os.urandom(16))
    if options.restarts == 0:
        return options.seed
    text = f"{options.seed}|{FABRIC_NODE}|{options.restarts}"
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest())
