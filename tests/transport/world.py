"""A small world for transport machines: channels, a network and devices with ground truth.

The machines are real; what is below them is played. A pair is phi+ with a Pauli frame on its tail
half; a Bell measurement moves the payload of the data qubit, and its frame, to the far half. A
qubit that arrives right has frame (0, 0). Every message crosses the codec.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from msgspec import Struct

from qstack.ids import CircuitId, LinkPairId, PairId, boot_id
from qstack.machine import (
    CancelTimer,
    Effect,
    Event,
    FromPeer,
    OpenChannel,
    OwnerGone,
    PeerDown,
    PeerUp,
    Record,
    Send,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport.machine import TransportLayer
from qstack.wire.message import Message
from qstack.wire.packed import draw_bases, fixed_code, pack_bases
from tests.transport.session import Session, over_the_wire

MS = 1_000_000


class Half(Struct, eq=False):
    """What is true of a qubit."""

    owner: str
    payload: str = ""
    x: int = 0
    z: int = 0
    twin: "Half | None" = None
    is_tail: bool = False
    outcome: tuple[str, int] | None = None  # of this half, told by its twin's frame


class Device:
    """The played physical layer of one node."""

    def __init__(self, world: "World", node: str) -> None:
        self.world, self.node = world, node
        self.qubits: dict[bytes, Half] = {}
        self.gates: list[tuple[str, float]] = []
        self.epoch = 0
        self.refuse: str | None = None  # the next call fails with this error

    def make(self, half: Half) -> bytes:
        qubit = self.world.fresh_id()
        self.qubits[qubit] = half
        return qubit

    def owned_by(self, owner: str) -> list[bytes]:
        return [qubit for qubit, half in self.qubits.items() if half.owner == owner]

    def tell(self, message: Message) -> None:
        self.world.event(self.node, Told("physical", over_the_wire(message)))

    def on_message(self, message: Any) -> None:
        match message:
            case physical.Free():
                half = self.qubits.get(message.qubit)
                assert half is None or half.owner == "transport", "frees what is not its own"
                self.qubits.pop(message.qubit, None)
            case physical.Transfer():
                half = self.qubits.get(message.qubit)
                if half is not None and half.owner == "transport":
                    half.owner = message.to
            case physical.ApplyGate():
                half = self.qubits[message.qubits[0]]
                assert half.owner == "transport"
                self.gates.append((message.name, message.angle))
                half.x ^= message.name in ("x", "y")
                half.z ^= message.name in ("z", "y")
            case physical.Measure():
                self._answer(message, lambda: self._measure(message))
            case physical.BellMeasure():
                self._answer(message, lambda: self._bell_measure(message))
            case _:
                raise AssertionError(message)

    def _answer(self, message: Any, make: Callable[[], Message]) -> None:
        epoch = self.epoch
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            failed = physical.CallFailed(call=message.call, error=error, detail="")
            self.world.later(1000, lambda: self.tell(failed))
            return
        ids = (
            [message.qubit]
            if isinstance(message, physical.Measure)
            else [message.first, message.second]
        )
        if not all(q in self.qubits and self.qubits[q].owner == "transport" for q in ids):
            failed = physical.CallFailed(call=message.call, error="GONE", detail="")
            self.world.later(1000, lambda: self.tell(failed))
            return
        answer = make()
        self.world.later(1000, lambda: self.tell(answer) if self.epoch == epoch else None)

    def read(self, qubit: bytes, basis: str) -> int:
        """Measure a half in truth."""
        half = self.qubits.pop(qubit)
        flip = {"Z": half.x, "X": half.z, "Y": half.x ^ half.z}[basis]
        if half.outcome is not None and half.outcome[0] == basis:
            return half.outcome[1] ^ flip
        bare = int(self.world.rng.integers(2))
        if half.twin is not None:
            # phi+: equal in X and Z, opposite in Y.
            half.twin.outcome = (basis, bare ^ (basis == "Y"))
        return bare ^ flip

    def _measure(self, message: Any) -> Message:
        outcome = self.read(message.qubit, message.basis)
        return physical.Measured(call=message.call, outcome=outcome)

    def _bell_measure(self, message: Any) -> Message:
        data, half = self.qubits.pop(message.first), self.qubits.pop(message.second)
        x_bit, z_bit = (int(bit) for bit in self.world.rng.integers(0, 2, 2))
        far = half.twin
        assert far is not None
        far.payload = data.payload
        far.x ^= x_bit ^ data.x ^ half.x
        far.z ^= z_bit ^ data.z ^ half.z
        far.twin = None
        return physical.BellMeasured(call=message.call, x_bit=x_bit, z_bit=z_bit)


class Request(Struct, eq=False):
    """One request of the played network."""

    create: Any
    head: str
    tail: str
    is_over: bool = False
    made: int = 0
    told: tuple[set[Any], set[Any]] = ()  # pairs told at head, tail


class Network:
    """The played network layer, of all nodes."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.requests: dict[bytes, Request] = {}
        self.created: list[Any] = []
        self.asked: list[Any] = []
        self.pair_ns = MS
        self.skew_ns = (0, 3 * MS)  # head and tail learn of a pair within this
        self.tail_first = False
        self.is_manual = False
        self.is_hostile = False  # peers name requests of others
        self.fails_with: tuple[str, float | None] | None = None
        self.measures_in_device = False
        self.pairs_max: int | None = None  # a request for more has not the time
        self._pairs = count()

    def on_message(self, node: str, message: Any) -> None:
        if isinstance(message, network.NetworkCreate):
            if self.is_hostile and message.request in self.requests:
                bad = network.NetworkFailed(
                    request=message.request, error="BAD_REQUEST", detail="used before", best=None
                )
                self.tell(node, bad)
                return
            assert message.request not in self.requests, "a request id is used once"
            assert message.deadline_ns >= self.world.now
            request = Request(message, node, message.remote, told=(set(), set()))
            self.requests[message.request] = request
            self.created.append(message)
            if self.fails_with is not None:
                error, best = self.fails_with
                self.world.later(MS, lambda: self.fail(request, error, best))
            elif self.pairs_max is not None and message.number > self.pairs_max:
                self.fail(request, "NO_TIME")
            elif not self.is_manual:
                self.world.later(self.pair_ns, lambda: self._next(request))
        elif isinstance(message, network.NetworkCancel):
            request_or_none = self.requests.get(message.request)
            if request_or_none is not None:
                self.fail(request_or_none, "CANCELLED")
        else:
            assert isinstance(message, network.RouteQuery)
            self.asked.append(message)
            answer = network.RouteAnswer(
                call=message.call,
                path=[node, message.remote],
                fidelity=0.9,
                rate_hz=10.0,
                error_x=0.1,
                error_z=0.2,
            )
            self.tell(node, answer)

    def tell(self, node: str, message: Any) -> None:
        message = over_the_wire(message)
        self.world.event(node, Told("network", message))

    def fail(self, request: Request, error: str, best: float | None = None) -> None:
        if request.is_over:
            return
        request.is_over = True
        for end in (0, 1):
            for pair in request.told[end] - request.told[1 - end]:
                expired = network.EndPairExpired(request=request.create.request, pair=pair)
                self.tell((request.head, request.tail)[end], expired)
        failed = network.NetworkFailed(
            request=request.create.request, error=error, detail="", best=best
        )
        self.tell(request.head, failed)
        self.world.later(MS, lambda: self.tell(request.tail, failed))

    def _next(self, request: Request) -> None:
        if request.is_over:
            return
        if request.create.kind == "measure" and self.measures_in_device:
            self.make_measured(request, request.create.number)
            return
        self.make(request)
        if request.made < request.create.number:
            self.world.later(self.pair_ns, lambda: self._next(request))

    def make(self, request: Request) -> PairId:
        """One pair; both ends learn of it after their own time."""
        request.made += 1
        number = next(self._pairs).to_bytes(16, "big")
        pair = PairId(CircuitId(bytes(16)), 0, LinkPairId(number))
        x_bit, z_bit = (int(bit) for bit in self.world.rng.integers(0, 2, 2))
        head, tail = Half("transport"), Half("transport", x=x_bit, z=z_bit, is_tail=True)
        head.twin, tail.twin = tail, head
        low, high = self.skew_ns
        delays = [int(self.world.rng.integers(low, high + 1)) for _ in (0, 1)]
        if self.tail_first:
            delays = [high, low]
        for end, half in enumerate((head, tail)):
            self.world.later(
                delays[end],
                lambda end=end, half=half: self.indicate(request, end, pair, half, x_bit, z_bit),
            )
        return pair

    def indicate(
        self, request: Request, end: int, pair: PairId, half: Half, x_bit: int, z_bit: int
    ) -> None:
        create, node = request.create, (request.head, request.tail)[end]
        if request.is_over:
            return
        request.told[end].add(pair)
        message = network.EndPair(
            request=create.request,
            purpose=create.purpose,
            remote=(request.tail, request.head)[end],
            side=("head", "tail")[end],
            kind=create.kind,
            pair=pair,
            qubit=self.world.nodes[node].device.make(half),
            x_bit=x_bit,
            z_bit=z_bit,
            emitted_at_ns=0,
            goodness=0.9,
            time_of_goodness_ns=self.world.now,
            basis=(create.basis, create.remote_basis)[end],
        )
        self.tell(node, message)
        if len(request.told[0]) == len(request.told[1]) == create.number:
            request.is_over = True
            for name in (request.head, request.tail):
                self.tell(name, network.NetworkDone(request=create.request))

    def expire(self, request: Request, pair: PairId) -> None:
        for end in (0, 1):
            if pair in request.told[end]:
                expired = network.EndPairExpired(request=request.create.request, pair=pair)
                self.tell((request.head, request.tail)[end], expired)

    def make_measured(self, request: Request, pairs: int) -> None:
        create, rng = request.create, self.world.rng
        x_bits, z_bits, head = (rng.integers(0, 2, pairs, dtype=np.uint8) for _ in range(3))
        codes = [bases_of(choice, pairs, rng) for choice in (create.basis, create.remote_basis)]
        flips = np.stack((z_bits, x_bits ^ z_bits ^ 1, x_bits))  # X, Y, Z
        tail = head ^ flips[codes[1], np.arange(pairs)]
        request.is_over = True
        choices = create.basis, create.remote_basis
        for end, outcomes in enumerate((head, tail)):
            message = network.EndMeasured(
                request=create.request,
                purpose=create.purpose,
                remote=(request.tail, request.head)[end],
                side=("head", "tail")[end],
                pairs=pairs,
                outcomes=np.packbits(outcomes).tobytes(),
                x_bits=np.packbits(x_bits).tobytes(),
                z_bits=np.packbits(z_bits).tobytes(),
                bases=b"" if isinstance(choices[end], str) else pack_bases(codes[end]),
                goodness=0.9,
            )
            self.tell((request.head, request.tail)[end], message)


def bases_of(choice: Any, pairs: int, rng: np.random.Generator) -> Any:
    """The codes of the bases of `pairs` pairs."""
    fixed = fixed_code(choice)
    return draw_bases(rng, choice, pairs) if fixed is None else np.full(pairs, fixed)


class Node:
    """One node: its transport machine, device, timers and sessions."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name, self.restarts = world, name, 0
        self.device = Device(world, name)
        self.sessions: dict[str, Session] = {}
        self.boot()

    def boot(self) -> None:
        self.boot_id = boot_id(1, self.name, self.restarts)
        rng = np.random.default_rng([self.restarts, *self.name.encode()])
        self.layer = TransportLayer(self.name, self.boot_id, rng)
        self.timers: dict[str, int] = {}
        self.wall = 0


class World:
    """Nodes, channels and one clock."""

    def __init__(self, *names: str, seed: int = 0, delay_ns: int = MS) -> None:
        self.rng = np.random.default_rng(seed)
        self.now = 0
        self.delay_ns = delay_ns
        self.network = Network(self)
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = count()
        self._ids = count(1)
        self._sessions = count(1)
        self._queue: list[tuple[str, Event]] = []
        self._is_running = False
        self.up: dict[frozenset[str], int] = {}  # generation of the channels that are up
        self._generation = count(1)
        self.blocked: set[frozenset[str]] = set()
        self.sent: list[tuple[str, str, Any]] = []
        self.records: list[Record] = []
        self.effects_max = 0
        self.nodes = {name: Node(self, name) for name in names}

    def fresh_id(self) -> bytes:
        return b"qubit---" + next(self._ids).to_bytes(8, "big")

    def session(self, node: str) -> Session:
        session = Session(self, node, f"app/{next(self._sessions)}")
        self.nodes[node].sessions[session.name] = session
        return session

    def data_qubit(self, node: str, owner: str, payload: str) -> bytes:
        return self.nodes[node].device.make(Half(owner=owner, payload=payload))

    def later(self, delay_ns: int, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay_ns, next(self._sequence), what))

    def event(self, node: str, event: Event) -> None:
        """One event of a node, and everything that follows at once, in one FIFO queue."""
        self._queue.append((node, event))
        if self._is_running:
            return
        self._is_running = True
        while self._queue:
            name, each = self._queue.pop(0)
            for effect in self.nodes[name].layer.handle(each, self.now):
                self._apply(name, effect)
        self._is_running = False

    def _apply(self, node: str, effect: Effect) -> None:
        match effect:
            case Tell(to="network", message=message):
                self.network.on_message(node, over_the_wire(message))
            case Tell(to="physical", message=message):
                self.nodes[node].device.on_message(over_the_wire(message))
            case Tell(to=to, message=message):
                self.nodes[node].sessions[to].hear(over_the_wire(message))
            case Send(peer=peer, message=message):
                self._send(node, peer, over_the_wire(message))
            case OpenChannel(peer=peer):
                self.later(2 * self.delay_ns, lambda: self._opened(node, peer))
            case SetTimer(key=key, at_ns=at_ns):
                self.nodes[node].timers[key] = at_ns
                life = self.nodes[node].restarts
                self.later(at_ns - self.now, lambda: self._fire(node, key, life))
            case CancelTimer(key=key):
                self.nodes[node].timers.pop(key, None)
            case Record():
                self.records.append(effect)

    def _fire(self, node: str, key: str, life: int) -> None:
        owner = self.nodes[node]
        if owner.restarts == life and owner.timers.get(key) == self.now:
            del owner.timers[key]
            self.event(node, TimerFired(key))

    def _send(self, node: str, peer: str, message: Any) -> None:
        self.sent.append((node, peer, message))
        channel = frozenset((node, peer))
        generation = self.up.get(channel)
        # A channel that broke just now takes what is said until PeerDown has been handled.
        assert self.nodes[node].layer._context.channels.is_up(peer)

        def arrive() -> None:
            if generation is not None and self.up.get(channel) == generation:
                self.event(peer, FromPeer(node, message))

        self.later(self.delay_ns, arrive)

    def _opened(self, node: str, peer: str) -> None:
        channel = frozenset((node, peer))
        if channel in self.up:
            return
        if peer not in self.nodes or channel in self.blocked:
            self.event(node, PeerDown(peer))
        else:
            self.connect(node, peer)

    def connect(self, first: str, second: str) -> None:
        self.up[frozenset((first, second))] = next(self._generation)
        for node, peer in ((first, second), (second, first)):
            self.event(node, PeerUp(peer, self.nodes[peer].boot_id))

    def disconnect(self, first: str, second: str, *, block: bool = False) -> None:
        channel = frozenset((first, second))
        if block:
            self.blocked.add(channel)
        if self.up.pop(channel, None) is not None:
            for node, peer in ((first, second), (second, first)):
                self.event(node, PeerDown(peer))

    def unblock(self, first: str, second: str) -> None:
        self.blocked.discard(frozenset((first, second)))

    def restart(self, name: str) -> None:
        """The node dies with its sessions and qubits, and is back at once."""
        node = self.nodes[name]
        for peer in self.nodes:
            if peer != name and frozenset((name, peer)) in self.up:
                del self.up[frozenset((name, peer))]
                self.event(peer, PeerDown(name))
        node.sessions.clear()
        node.device.qubits.clear()
        node.device.epoch += 1
        node.restarts += 1
        node.boot()
        for request in list(self.network.requests.values()):
            if name in {request.head, request.tail}:
                self.network.fail(request, "PEER_DOWN")

    def lose_device(self, name: str) -> None:
        device = self.nodes[name].device
        device.qubits.clear()
        device.epoch += 1
        device.tell(physical.DeviceLost())
        for request in list(self.network.requests.values()):
            if name in {request.head, request.tail}:
                self.network.fail(request, "DEVICE_LOST")
        device.tell(physical.DeviceReady())

    def end_session(self, session: Session, *, freed_first: bool = False) -> None:
        device = self.nodes[session.node].device
        qubits = device.owned_by(session.name)
        for qubit in qubits:
            del device.qubits[qubit]
        freed = Told("physical", physical.QubitsFreed(owner=session.name, qubits=qubits))
        gone = OwnerGone(session.name)
        for event in (freed, gone) if freed_first else (gone, freed):
            self.event(session.node, event)
        del self.nodes[session.node].sessions[session.name]

    def run(self, for_ns: int = 10_000 * MS) -> None:
        """Let network time pass."""
        until = self.now + for_ns
        while self._heap and self._heap[0][0] <= until:
            self.now, _, what = heapq.heappop(self._heap)
            what()
        self.now = until

    def says(self, kind: Any) -> list[Any]:
        """The peer messages of one kind sent so far."""
        return [message for _, _, message in self.sent if isinstance(message, kind)]

    # --- checks ---

    def held(self, node: str) -> list[bytes]:
        """The qubits the transport layer of a node owns."""
        return self.nodes[node].device.owned_by("transport")

    def half(self, session: Session, qubit: bytes) -> Half:
        half = self.nodes[session.node].device.qubits[qubit]
        assert half.owner == session.name
        return half


def assert_idle(layer: TransportLayer) -> None:
    """Nothing is open, nothing is kept but bounded memories."""
    for part in (layer._flows, layer._accepts, layer._streams, layer._routes, layer._echo_calls):
        assert len(part) == 0, part.__dict__
    assert not layer._context.requests
    assert not layer._context._calls
    assert not layer._context.qubits
    assert not layer._calls._sessions
    leftover = [key for key in layer._context._timers if not key.startswith(("echo", "reopen"))]
    assert not leftover, leftover
