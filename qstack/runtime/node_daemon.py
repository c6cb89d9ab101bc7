"""A node as a process: its layers, its channels, its sessions, and one of the two clocks.

What both clocks share is here; `lockstep_node.py` and `wall_node.py` say when events are handled.
No protocol decision is made in any of them.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import trio

from qstack.channel.ca import Credentials
from qstack.errors import ErrorCode
from qstack.ids import boot_id
from qstack.runtime.compose import compose
from qstack.runtime.fabric_link import FabricLink, dial_fabric
from qstack.runtime.layer_link import LayerConnection
from qstack.runtime.listen import forget, listen, listen_locally
from qstack.runtime.lockstep_node import LockstepClock
from qstack.runtime.network_file import Network
from qstack.runtime.node import Node, Noted
from qstack.runtime.peers import PeerChannels, PeerUser, node_hello
from qstack.runtime.session_server import SessionServer
from qstack.runtime.status import node_report
from qstack.runtime.trace import Trace
from qstack.runtime.wall_node import WallClock
from qstack.wire.frame import Layer
from qstack.wire.message import Message

BUSY_LIMIT_S: Final = 10.0  # strict: an application busy for longer is told, and its session ended
FABRIC_LIMIT_S: Final = 20.0  # without a fabric for so long, open calls have nothing to wait for

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
    layers: Mapping[str, LayerConnection] = field(default_factory=dict)  # outside this process


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
        self.node: Node = compose(network, name, boot, entropy, self.trace, options.layers)
        layers = [Layer.PHYSICAL, Layer.LINK, Layer.NETWORK, Layer.TRANSPORT]
        self.hello = node_hello(network, name, "node", boot, [int(layer) for layer in layers])
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

    def _make_clock(self) -> NodeClock:
        return LockstepClock(self) if self.network.clock == "lockstep" else WallClock(self)

    def note(self, noted: Noted) -> None:
        """Count a trace record by its name; pairs lost to cutoff are kept by theirs."""
        self.counters[noted.name] = self.counters.get(noted.name, 0) + 1
        if noted.name == "network.cutoff" and len(self.discarded_pairs) < DISCARDED_MAX:
            pair = noted.fields["pair"]
            assert isinstance(pair, bytes)
            self.discarded_pairs[pair.hex()] = None

    async def run(self) -> None:
        """Run until cancelled."""
        listener = await listen(self.network.nodes[self.name].address)
        sessions = listen_locally(self.options.session_socket)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.peers.run, listener)
                nursery.start_soon(self.sessions.serve, sessions)
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
