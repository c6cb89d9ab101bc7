"""A node as a process: its layers, its channels, its sessions, and one of the two clocks.

A named heralding station is one, too: with one machine, and sessions of observers only.

What both clocks share is here; `lockstep_node.py` and `wall_node.py` say when events are handled.
No protocol decision is made in any of them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from qstack.channel.ca import Credentials
from qstack.errors import ErrorCode
from qstack.ids import boot_id
from qstack.machine import LayerGoneError, Machine
from qstack.runtime.compose import begin_layer, compose
from qstack.runtime.fabric_link import FabricLink, dial_fabric
from qstack.runtime.layer_processes import LayerProcesses
from qstack.runtime.listen import forget, listen, listen_locally
from qstack.runtime.lockstep_node import LockstepClock
from qstack.runtime.network_file import Network
from qstack.runtime.node import LayerAway, Node, Noted
from qstack.runtime.peers import PeerChannels, PeerUser, node_hello
from qstack.runtime.session_server import SessionServer
from qstack.runtime.status import node_report
from qstack.runtime.trace import Trace
from qstack.runtime.wall_node import WallClock
from qstack.transport import service as transport
from qstack.wire.frame import Layer
from qstack.wire.message import Message

BUSY_LIMIT_S: Final = 10.0  # strict: an application busy for longer is told, and its session ended
FABRIC_LIMIT_S: Final = 20.0  # without a fabric for so long, open calls have nothing to wait for

LAYER_OF: Final = {
    "physical": Layer.PHYSICAL,
    "link": Layer.LINK,
    "network": Layer.NETWORK,
    "transport": Layer.TRANSPORT,
}
"""What a process says in HELLO of the machines it has; sessions are nobody's peers."""

DISCARDED_MAX: Final = 10_000  # of them are named in status; the counter goes on


@dataclass(frozen=True)
class NodeOptions:
    """How to run one node. `restarts`: how often its supervisor has started it before."""

    network: Network
    name: str
    credentials: Credentials
    session_socket: Path
    seed: int | None
    restarts: int
    is_strict: bool = True
    busy_limit_s: float = BUSY_LIMIT_S
    send_delay_s: Callable[[], float] | None = None  # wall delays on every send, for tests
    layers: LayerProcesses | None = None  # outside this process


class NodeClock(PeerUser, Protocol):
    """When a node handles what: lockstep or wall."""

    async def run(self, link: FabricLink) -> None:
        """Take part in network time until the channel to the fabric ends."""
        ...

    def call(self, session: str, sequence: int, message: Message) -> None:
        """An application called."""
        ...

    def session_ended(self, session: str, sequence: int) -> None:
        """A session is over."""
        ...

    def sessions_changed(self) -> None:
        """Sessions came, went, or became busy or idle."""
        ...

    def layer_gone(self, layer: str) -> None:
        """The process of a layer has ended."""
        ...

    def layer_came(self, layer: str) -> None:
        """A layer that was away is here."""
        ...

    @property
    def now_ns(self) -> int:
        """Network time at this node."""
        ...

    def report(self) -> dict[str, object]:
        """For status: kind, now_ns, and what this kind has to say."""
        ...


class NodeDaemon:
    """The parts of a node process. `members` are the nodes that are up, by their boot ids."""

    def __init__(self, options: NodeOptions, report: Callable[[str], None]) -> None:
        self.options = options
        self.network = options.network
        self.name = options.name
        self.report = report
        network, name, seed = options.network, options.name, options.seed
        entropy = seed if seed is not None else int.from_bytes(os.urandom(16))
        boot = boot_id(seed, name, options.restarts) if seed is not None else os.urandom(8)
        self.trace = Trace() if network.clock == "lockstep" else None
        self._entropy = entropy
        outside = {} if options.layers is None else options.layers.connections
        self.node: Node = compose(network, name, boot, entropy, self.trace, outside)
        layers = [int(LAYER_OF[layer]) for layer in self.node.machines if layer in LAYER_OF]
        self.hello = node_hello(network, name, network.role_of(name), boot, layers)
        self.fabric: FabricLink | None = None
        self.members: dict[str, bytes] = {}
        self.counters: dict[str, int] = {}
        self.discarded_pairs: dict[str, None] = {}
        self.clock = self._make_clock()
        self.peers = PeerChannels(
            network,
            self.hello,
            options.credentials,
            self.clock,
            report,
            send_delay_s=options.send_delay_s,
        )
        self.sessions = SessionServer(
            name,
            network.clock,
            is_seeded=seed is not None,
            on_call=self.clock.call,
            on_end=self.clock.session_ended,
            on_change=self.clock.sessions_changed,
            on_turn=self.clock.turn,
            on_status=lambda: (self.clock.now_ns, node_report(self)),
        )
        self.sessions.takes_applications = "session" in self.node.machines

    def _make_clock(self) -> NodeClock:
        return LockstepClock(self) if self.network.clock == "lockstep" else WallClock(self)

    def note(self, noted: Noted) -> None:
        """Count a trace record by its name; pairs lost to cutoff are kept by theirs."""
        self.counters[noted.name] = self.counters.get(noted.name, 0) + 1
        if noted.name == "network.cutoff" and len(self.discarded_pairs) < DISCARDED_MAX:
            pair = noted.fields["pair"]
            assert isinstance(pair, bytes)
            self.discarded_pairs[pair.hex()] = None

    # --- layers that are processes of their own --------------------------------------------------

    @property
    def layers(self) -> LayerProcesses:
        """They; only if the layout is split."""
        assert self.options.layers is not None, "no layer is outside this process"
        return self.options.layers

    def layer_away(self, away: LayerAway) -> None:
        """A layer has gone: see that another life of it comes."""
        if away.layer == transport.LAYER:  # and with it the sockets
            for session in list(self.sessions.sessions.values()):
                if not session.is_observer:
                    self.sessions.end(session.name, ErrorCode.LAYER_LOST, "the transport layer")
        self.layers.away(away.layer, away.why)

    def begin_layer(self, layer: str, boot_id: bytes) -> Machine:
        """The life of a layer that has come. Raises `LayerGoneError`."""
        outside = self.layers.connections.get(layer)
        if outside is None:
            raise LayerGoneError("it has gone before it could begin")
        return begin_layer(layer, self.network, self.name, boot_id, self._entropy, outside)

    async def run(self) -> None:
        """Run until cancelled. Raises `LayerGoneError` if a layer dies again and again."""
        listener = await listen(self.network.address_of(self.name))
        sessions = listen_locally(self.options.session_socket)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.peers.run, listener)
                nursery.start_soon(self.sessions.serve, sessions)
                if self.options.layers is not None:
                    clock = self.clock
                    nursery.start_soon(self.layers.run, clock.layer_gone, clock.layer_came)
                while True:
                    self.fabric = await self._find_fabric()
                    try:
                        await self.clock.run(self.fabric)
                    finally:
                        await trio.aclose_forcefully(self.fabric.channel.tls.transport)
                    self.fabric = None
        finally:
            forget(self.options.session_socket)

    async def _find_fabric(self) -> FabricLink:
        """A channel to the fabric; sessions that wait too long for one are ended."""
        credentials = self.options.credentials
        while True:
            with trio.move_on_after(FABRIC_LIMIT_S):
                return await dial_fabric(self.network, self.hello, credentials, self.report)
            for name in list(self.sessions.sessions):
                limit = f"no fabric for {FABRIC_LIMIT_S:g} s"
                self.sessions.end(name, ErrorCode.DEVICE_LOST, limit)
