"""Applications as scripts, and a network in virtual time that watches what it should not see.

A script is a generator: it yields calls and is sent the next message of its node. `App` checks
that every call is closed at most once.
"""

from collections.abc import Callable, Generator
from typing import Any

from msgspec import Struct

from qstack.link.service import LinkPair
from qstack.machine import FABRIC, Effect, Event, Machine, Told
from qstack.physical import service as physical
from qstack.runtime.network_file import Network, load_packaged_network
from qstack.runtime.session_messages import Woken
from qstack.runtime.virtual import VirtualNetwork
from qstack.transport import service as transport
from qstack.transport.params import ECHO_HOLD_NS
from qstack.wire.message import Message

SECOND = 1_000_000_000
Script = Generator[list[Message], Message, None]

CLOSING = (
    transport.Opened, transport.Accepted, transport.Finished, transport.Failed,
    transport.QubitArrived, transport.MessageArrived, transport.EchoResult, transport.RouteInfo,
    physical.Allocated, physical.CallDone, physical.Measured, physical.BellMeasured,
    physical.CallFailed, Woken,
)  # fmt: skip


class Heard(Struct, frozen=True):
    at_ns: int
    message: Message


class App:
    """One session at `node`, running a script."""

    def __init__(self, network: "WatchedNetwork", node: str, script: Script) -> None:
        self.network = network
        self.node = node
        self.session = f"app/{len(network.apps)}"
        self.heard: list[Heard] = []
        self.open: dict[tuple[str, int], Message] = {}
        self.is_alive = True
        self._script = script
        self._life = network.nodes[node]
        network.apps.append(self)
        network.attach(node, self.session, self._on_message, self._note(next(script)))

    def _note(self, calls: list[Message]) -> list[Message]:
        for message in calls:
            number = getattr(message, "call", None)
            if number is not None and not isinstance(message, transport.CancelCall):
                key = (_space(message), number)
                assert key not in self.open, f"the script uses call {key} twice"
                self.open[key] = message
        return calls

    def _on_message(self, message: Message, now: int) -> list[Message]:
        assert self.is_alive, f"{message} for a session that has ended"
        self.heard.append(Heard(now, message))
        if isinstance(message, CLOSING):
            key = (_space(message), message.call)
            assert key in self.open, f"{message} closes no open call"
            del self.open[key]
        try:
            return self._note(self._script.send(message))
        except StopIteration:
            self._script = _listen()
            next(self._script)
            return []

    def all(self, kind: type[Any]) -> list[Any]:
        """Every message of a kind, in order."""
        return [heard.message for heard in self.heard if isinstance(heard.message, kind)]

    def times(self, kind: type[Any]) -> list[int]:
        """When they came."""
        return [heard.at_ns for heard in self.heard if isinstance(heard.message, kind)]

    @property
    def lives(self) -> bool:
        """Whether neither it nor its node has ended."""
        return self.is_alive and self.network.nodes.get(self.node) is self._life

    def end(self) -> None:
        """The process dies."""
        if self.lives:
            self.network.detach(self.node, self.session)
        self.is_alive = False


def _space(message: Message) -> str:
    return type(message).__module__


def _listen() -> Script:
    while True:
        yield []


class _Spy:
    def __init__(self, machine: Machine, see: Callable[[Event], None]) -> None:
        self.machine = machine
        self._see = see

    def handle(self, event: Event, now: int) -> list[Effect]:
        self._see(event)
        return self.machine.handle(event, now)


class WatchedNetwork(VirtualNetwork):
    """A network in virtual time; fails when a link pair is reported twice at a node."""

    def __init__(self, network: str | Network, seed: int) -> None:
        self.apps: list[App] = []
        self.link_pairs: dict[tuple[str, bytes], LinkPair] = {}
        if isinstance(network, str):
            network = load_packaged_network(network)
        super().__init__(network, seed)

    def _boot(self, name: str, at_ns: int) -> None:
        super()._boot(name, at_ns)
        if name in self.network.stations:
            return
        machines = self.nodes[name].machines

        def see(event: Event) -> None:
            if isinstance(event, Told) and isinstance(event.message, LinkPair):
                key = (name, event.message.pair)
                assert key not in self.link_pairs, f"{event.message.pair.hex()} twice at {name}"
                self.link_pairs[key] = event.message

        machines["network"] = _Spy(machines["network"], see)

    def _end_sessions(self, node: str) -> None:
        super()._end_sessions(node)
        for app in self.apps:
            if app.node == node and app.lives:
                app.is_alive = False

    # --- faults beside the death of nodes, at the time the clock stands ---

    def lose_device(self, name: str) -> None:
        """The node lives, its quantum device does not."""
        self.fabric.node_down(name, self.now_ns)
        self.nodes[name].peer_down(FABRIC, self.now_ns)
        self._woke(name)

    def return_device(self, name: str) -> None:
        """The device is there again, with no qubits."""
        node = self.nodes[name]
        self.fabric.node_up(name, node.boot_id)
        node.peer_up(FABRIC, bytes(8), self.now_ns)
        self._woke(name)

    def cut(self, first: str, second: str) -> None:
        """The channel between two nodes breaks."""
        for name, other in ((first, second), (second, first)):
            self.nodes[name].peer_down(other, self.now_ns)
            self._woke(name)

    def mend(self, first: str, second: str) -> None:
        """The channel between two nodes is there again."""
        for name, other in ((first, second), (second, first)):
            self.nodes[name].peer_up(other, self.nodes[other].boot_id, self.now_ns)
            self._woke(name)

    # --- the end ---

    def settle(self, rounds: int = 60_000) -> None:
        """Run until nobody waits for anything; fails if that takes too long."""
        limit = self.coordinator.rounds + rounds
        while self._is_wanted:
            assert self.coordinator.rounds < limit, f"no rest after {rounds} rounds"
            if not self._advance(10**15):
                break

    def end_everything(self) -> None:
        """Every session ends; what they had must be gone from the world."""
        for app in self.apps:
            app.end()
        self.settle()
        # An echo half nobody asks about is freed by a timer that keeps no clock moving.
        self.run_until(self.now_ns + ECHO_HOLD_NS + SECOND)

    def check_calls(self) -> None:
        """Every call of a living session has been closed."""
        for app in self.apps:
            assert not (app.lives and app.open), f"{app.node} {app.session}: open {app.open}"

    def check_empty(self) -> None:
        """Nothing is left in the quantum world, nor in the link layers."""
        snapshot = self.fabric.snapshot()
        assert not any(snapshot.qubits.values()), snapshot
        assert not any(snapshot.batches.values()), snapshot
        assert not any(snapshot.programs.values()), snapshot
        for name, node in self.nodes.items():
            if name in self.network.stations:
                station: Any = node.machines["physical"]
                facts = station.summary()
                assert (facts["open_batches"], facts["watches"]) == (0, 0), facts
                continue
            link: Any = node.machines["link"]
            assert link.open_batches == 0, f"{name} waits for batches"
            assert not any(peer.requests for peer in link.peers.values()), name

    def check_layers(self) -> None:
        """Nothing is left in any layer of any node, and everybody knows everybody."""
        for name, node in self.nodes.items():
            if name in self.network.stations:
                continue
            machines: dict[str, Any] = dict(node.machines)
            facts = {
                layer: machines[layer].summary() for layer in ("physical", "link", "transport")
            }
            links = self.network.world.links_of(name)
            physical = facts["physical"]
            assert physical["is_ready"], (name, facts)
            assert (physical["health"], physical["qubits_by_owner"]) == ("ready", {}), (name, facts)
            assert facts["link"]["links_up"] == sorted(each.other_end(name) for each in links)
            assert not any(facts["transport"].values()), (name, facts)
            layer = machines["network"]
            network: Any = layer.machine if isinstance(layer, _Spy) else layer
            assert network.summary()["known_nodes"] == sorted(self.network.nodes), name
            assert not network._heads._requests, name
            assert not network._tails._requests, name


# --- scripts -------------------------------------------------------------------------------------


def epr(
    port: int,
    remote: str | None,
    number: int,
    *,
    is_creator: bool,
    basis: Any = None,
    read: Callable[[int], Any] = lambda _: "Z",
    within_ns: int | None = 20 * SECOND,
    min_fidelity: float = 0.5,
    **more: Any,
) -> Script:
    """One EPR request or its accept; each pair is read at once in `read(n)`, or kept if None."""
    message = yield [transport.EprOpen(call=1, port=port, remote=remote)]
    if not isinstance(message, transport.Opened):
        return
    asked: Message
    if is_creator:
        asked = transport.EprCreate(
            call=2, socket=message.socket, number=number, basis=basis, min_fidelity=min_fidelity,
            priority=1, within_ns=within_ns, **more,
        )  # fmt: skip
    else:
        asked = transport.EprAccept(
            call=2, socket=message.socket, number=number, basis=basis, within_ns=within_ns
        )
    message = yield [asked]
    pairs = 0
    while True:
        calls: list[Message] = []
        if isinstance(message, transport.PairDelivered):
            if (how := read(pairs)) is not None:
                calls = [physical.Measure(call=pairs + 10, qubit=message.qubit, basis=how)]
            pairs += 1
        message = yield calls


def opened(kind: Any, remote: str, port: int, within_ns: int) -> transport.StreamOpen:
    """The call that opens a stream."""
    return transport.StreamOpen(
        call=1, kind=kind, remote=remote, port=port, min_fidelity=0.5, within_ns=within_ns
    )


def send_qubits(
    remote: str, port: int, gates: list[list[str]], within_ns: int = 20 * SECOND
) -> Script:
    """Open a stream and teleport fresh qubits, each after its gates."""
    message = yield [opened("qubit", remote, port, within_ns)]
    if not isinstance(message, transport.Opened):
        return
    socket = message.socket
    for names in gates:
        message = yield [physical.Allocate(call=2)]
        if not isinstance(message, physical.Allocated):
            return
        qubit = message.qubit
        prepare: list[Any] = [
            physical.ApplyGate(call=None, name=name, qubits=[qubit], angle=0.0) for name in names
        ]
        message = yield [
            *prepare,
            physical.Transfer(call=None, qubit=qubit, to="transport"),
            transport.SendQubit(call=10, socket=socket, qubit=qubit, within_ns=within_ns),
        ]
        if not isinstance(message, transport.Finished):
            yield [physical.Free(qubit=qubit)]
            return


def take_qubits(port: int, bases: list[Any], within_ns: int = 20 * SECOND) -> Script:
    """Accept a stream and read what comes, each qubit in its basis."""
    message = yield [transport.Listen(call=1, port=port, remote=None)]
    if not isinstance(message, transport.Opened):
        return
    message = yield [transport.Accept(call=2, socket=message.socket, within_ns=within_ns)]
    if not isinstance(message, transport.Accepted):
        return
    socket = message.socket
    for basis in bases:
        message = yield [transport.ReceiveQubit(call=10, socket=socket, within_ns=within_ns)]
        if not isinstance(message, transport.QubitArrived):
            return
        message = yield [physical.Measure(call=10, qubit=message.qubit, basis=basis)]


def send_messages(
    remote: str, port: int, data: list[bytes], within_ns: int = 20 * SECOND
) -> Script:
    """Open a message stream and send."""
    message = yield [opened("message", remote, port, within_ns)]
    if not isinstance(message, transport.Opened):
        return
    socket = message.socket
    for item in data:
        message = yield [
            transport.SendMessage(call=10, socket=socket, data=item, within_ns=within_ns)
        ]
        if not isinstance(message, transport.Finished):
            return


def take_messages(port: int, number: int, within_ns: int = 20 * SECOND) -> Script:
    """Accept a message stream and receive."""
    message = yield [transport.Listen(call=1, port=port, remote=None)]
    if not isinstance(message, transport.Opened):
        return
    message = yield [transport.Accept(call=2, socket=message.socket, within_ns=within_ns)]
    if not isinstance(message, transport.Accepted):
        return
    socket = message.socket
    for _ in range(number):
        message = yield [transport.ReceiveMessage(call=10, socket=socket, within_ns=within_ns)]
        if not isinstance(message, transport.MessageArrived):
            return


def echo(remote: str, bases: list[Any], within_ns: int = 20 * SECOND) -> Script:
    """Make pairs with the far end's transport, read both halves of each in its basis."""
    message = yield [transport.EprOpen(call=1, port=transport.ECHO_PORT, remote=remote)]
    if not isinstance(message, transport.Opened):
        return
    socket = message.socket
    message = yield [
        transport.EprCreate(
            call=2, socket=socket, number=len(bases), basis=None, min_fidelity=0.5, priority=1,
            within_ns=within_ns,
        )
    ]  # fmt: skip
    n = 0
    while True:
        calls: list[Message] = []
        if isinstance(message, transport.PairDelivered):
            basis = bases[n]
            n += 1
            calls = [
                physical.Measure(call=9 + n, qubit=message.qubit, basis=basis),
                transport.EchoMeasure(call=9 + n, socket=socket, pair=message.pair, basis=basis),
            ]
        message = yield calls
