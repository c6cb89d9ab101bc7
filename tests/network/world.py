"""Several network layers on a scripted link layer and device, in virtual time.

The world keeps the truth: which qubits are entangled and in which Bell state. It checks what the
ends report against it, and keeps a ledger of every qubit the network layer was given. Channels
are FIFO with a delay each. It does not check rates, fidelities or processing delays.
"""

import heapq
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

from qstack.ids import PairId, boot_id, link_id
from qstack.link import service as link
from qstack.machine import (
    CancelTimer,
    Event,
    FromPeer,
    PeerDown,
    PeerUp,
    Record,
    Send,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.network import messages, service
from qstack.network.machine import NetworkLayer
from qstack.physical import service as physical
from qstack.wire.codec import Registry, encode
from qstack.wire.message import Message
from tests.network.world_parts import Entry, Link, LinkRequest, Options, Qubit

SECOND = 1_000_000_000
GOOD = [0.97, 0.01, 0.01, 0.01]
WIRE = Registry(messages.MESSAGES)


class World:
    def __init__(
        self,
        pairs: list[tuple[str, str]],
        seed: int = 0,
        options: Options | None = None,
        kinds: dict[tuple[str, str], list[Any]] | None = None,
    ) -> None:
        self.options = options or Options()
        self.seed = seed
        self.rng = Random(seed)
        self.now = 0
        self.order = 0
        self.heap: list[tuple[int, int, Entry]] = []
        self.foreground = 0
        self.qubits: dict[bytes, Qubit] = {}
        self.told: dict[str, list[Message]] = {}
        self.told_at: dict[tuple[str, int], int] = {}
        self.sent: list[tuple[int, str, str, Message]] = []
        self.records: list[tuple[str, Record]] = []
        self.listens: set[tuple[str, str, bytes]] = set()
        self.sessions: dict[frozenset[str], int] = {}
        self.last: dict[tuple[str, str], int] = {}
        self.delays: dict[frozenset[str], int] = {}
        self.restarts: dict[str, int] = {}
        self.kinds = {frozenset(ends): each for ends, each in (kinds or {}).items()}
        self.timers: dict[tuple[str, str], Entry] = {}
        self.nodes: dict[str, NetworkLayer] = {}
        self.links: dict[frozenset[str], Link] = {}
        self.hold: Callable[[str, str, Message], int] = lambda *_: 0
        self.choose: Callable[[], tuple[int, int]] = lambda: (
            self.rng.getrandbits(1),
            self.rng.getrandbits(1),
        )
        for name in dict.fromkeys(name for pair in pairs for name in pair):
            self.start(name)
        for pair in pairs:
            key = frozenset(pair)
            self.delays[key] = self.rng.randrange(5_000, 200_000)
            self.links[key] = Link(pair, self.delays[key])
        for pair in pairs:
            self.channel_up(*pair)
            self.link_up(*pair)
        self.run(self.now + SECOND // 10)

    # --- clock -----------------------------------------------------------------------------------

    def at(self, time: int, run: Callable[[], None], *, background: bool = False) -> Entry:
        entry = Entry(run, background)
        self.order += 1
        self.foreground += not background
        heapq.heappush(self.heap, (max(time, self.now), self.order, entry))
        return entry

    def cancel(self, entry: Entry) -> None:
        if not entry.is_cancelled:
            entry.is_cancelled = True
            self.foreground -= not entry.background

    def run(self, until: int | None = None) -> None:
        for _ in range(200_000):
            if until is None and self.foreground == 0:
                return
            if not self.heap or (until is not None and self.heap[0][0] > until):
                self.now = until if until is not None else self.now
                return
            time, _, entry = heapq.heappop(self.heap)
            if entry.is_cancelled:
                continue
            self.cancel(entry)
            self.now = time
            entry.run()
        raise AssertionError("the world does not come to rest")

    # --- nodes and channels ----------------------------------------------------------------------

    def start(self, name: str) -> None:
        count = self.restarts.get(name, 0)
        rng = np.random.default_rng([self.seed, len(self.restarts), count, *name.encode()])
        self.nodes[name] = NetworkLayer(
            name, boot_id(self.seed, name, count), rng, self.options.cutoff_ns
        )
        self.told.setdefault(name, [])
        self.restarts[name] = count
        self.give_capability(name)

    def give_capability(self, name: str) -> None:
        capability = physical.NodeCapability(
            memory=self.options.memory,
            swap_ns=1000,
            swap_depolarising=0.01,
            gate_depolarising=0.0,
            swap_flip=0.001,
            t1_s=float("inf"),
            t2_s=1.0,
        )
        self.event(name, Told("physical", capability))

    def event(self, name: str, event: Event) -> None:
        for effect in self.nodes[name].handle(event, self.now):
            self.effect(name, effect)

    def effect(self, name: str, effect: Any) -> None:
        match effect:
            case Send():
                self.send(name, effect.peer, effect.message)
            case Tell(to="transport"):
                self.told_at[name, len(self.told[name])] = self.now
                self.told[name].append(effect.message)
                if isinstance(effect.message, service.EndPairExpired):
                    self.free_expired(name, effect.message)
            case Tell(to="link"):
                self.on_link(name, effect.message)
            case Tell(to="physical"):
                self.on_physical(name, effect.message)
            case SetTimer():
                self.stop_timer(name, effect.key)
                self.timers[name, effect.key] = self.at(
                    effect.at_ns,
                    lambda: self.event(name, TimerFired(effect.key)),
                    background=effect.background,
                )
            case CancelTimer():
                self.stop_timer(name, effect.key)
            case Record():
                self.records.append((name, effect))
            case _:
                raise AssertionError(effect)

    def stop_timer(self, name: str, key: str) -> None:
        entry = self.timers.pop((name, key), None)
        if entry is not None:
            self.cancel(entry)

    def send(self, source: str, target: str, message: Message) -> None:
        key = frozenset((source, target))
        session = self.sessions.get(key)
        assert session is not None, f"{source} sends {message} over a channel that is down"
        self.sent.append((self.now, source, target, message))
        decoded = WIRE.decode(encode(message))
        assert decoded == message
        arrival = self.now + self.delays[key] + self.hold(source, target, message)
        arrival = max(arrival, self.last.get((source, target), 0))
        self.last[source, target] = arrival

        def deliver() -> None:
            if self.sessions.get(key) == session:
                self.event(target, FromPeer(source, message))

        self.at(arrival, deliver)

    def channel_up(self, a: str, b: str) -> None:
        self.order += 1
        self.sessions[frozenset((a, b))] = self.order
        for here, peer in ((a, b), (b, a)):
            self.event(here, PeerUp(peer, boot_id(self.seed, peer, self.restarts[peer])))

    def channel_down(self, a: str, b: str, *, tell: tuple[str, ...] = ()) -> None:
        if self.sessions.pop(frozenset((a, b)), None) is not None:
            for here, peer in ((a, b), (b, a)):
                if not tell or here in tell:
                    self.event(here, PeerDown(peer))

    def link_up(
        self, a: str, b: str, weights: list[float] | None = None, *, tell: tuple[str, ...] = ()
    ) -> None:
        state = self.links[frozenset((a, b))]
        state.is_up = True
        for here, peer in ((a, b), (b, a)):
            if tell and here not in tell:
                continue
            self.event(
                here,
                Told(
                    "link",
                    link.LinkUp(
                        link=link_id(a, b),
                        peer=peer,
                        peer_boot_id=boot_id(self.seed, peer, self.restarts[peer]),
                        kinds=self.kinds.get(frozenset((a, b)), ["keep", "measure"]),
                        options=self.link_options(weights or GOOD),
                        best_fidelity=(weights or GOOD)[0],
                        delay_ns=state.delay_ns,
                        slots=self.options.slots,
                    ),
                ),
            )

    def link_options(self, best: list[float]) -> list[link.LinkOption]:
        """The best at the world's rate; each of the others is faster and worse."""
        return [
            link.LinkOption(
                bell_probabilities=[(1 - 0.05 * k) * w + 0.0125 * k for w in best],
                rate_hz=self.options.rate_hz * (k + 1),
            )
            for k in range(self.options.ways)
        ]

    def link_down(self, a: str, b: str, *, tell: tuple[str, ...] = ()) -> None:
        state = self.links[frozenset((a, b))]
        state.is_up = False
        state.requests.clear()
        for here, peer in ((a, b), (b, a)):
            if not tell or here in tell:
                self.event(here, Told("link", link.LinkDown(link=link_id(a, b), peer=peer)))

    def kill(self, name: str) -> list[tuple[str, str]]:
        """A node dies with its qubits; returns its former links."""
        ends = [state.ends for state in self.links.values() if name in state.ends]
        for key, entry in list(self.timers.items()):
            if key[0] == name:
                self.cancel(entry)
                del self.timers[key]
        for qubit in self.qubits.values():
            if qubit.node == name:
                qubit.owner = "gone"
        for a, b in ends:
            peer = b if a == name else a
            self.link_down(a, b, tell=(peer,))
            self.channel_down(a, b, tell=(peer,))
        return ends

    def restart(self, name: str, after_ns: int = SECOND) -> None:
        ends = self.kill(name)

        def back() -> None:
            self.restarts[name] += 1
            self.start(name)
            for pair in ends:
                self.channel_up(*pair)
                self.link_up(*pair)

        self.at(self.now + after_ns, back)

    # --- the link layer --------------------------------------------------------------------------

    def on_link(self, name: str, message: Message) -> None:
        match message:
            case link.LinkListen():
                self.listens.add((name, message.peer, message.purpose))
            case link.LinkUnlisten():
                self.listens.discard((name, message.peer, message.purpose))
                state = self.links[frozenset((name, message.peer))]
                for request in list(state.requests.values()):
                    if request.create.purpose == message.purpose:
                        self.end_link_request(state, request, "CANCELLED", by=name)
            case link.LinkCreate():
                state = self.links[frozenset((name, message.peer))]
                assert state.is_up
                assert message.request not in state.requests
                request = LinkRequest(message, name)
                state.requests[message.request] = request
                self.at(self.now + 2 * state.delay_ns, lambda: self.admit(state, request))
            case link.LinkCancel():
                for state in self.links.values():
                    found = state.requests.get(message.request)
                    if found is not None:
                        self.end_link_request(state, found, "CANCELLED")
            case _:
                raise AssertionError(message)

    def admit(self, state: Link, request: LinkRequest) -> None:
        create = request.create
        if not request.is_open or create.request not in state.requests:
            return
        if (create.peer, request.creator, create.purpose) not in self.listens:
            self.end_link_request(state, request, "REJECTED")
            return
        self.at(
            create.deadline_ns,
            lambda: self.end_link_request(state, request, "TIMEOUT"),
            background=True,
        )
        self.generate(state, request)

    def end_link_request(
        self, state: Link, request: LinkRequest, error: str, *, by: str = ""
    ) -> None:
        if not request.is_open:
            return
        request.is_open = False
        if state.requests.pop(request.create.request, None) is None:
            return
        message = link.LinkFailed(
            request=request.create.request,
            purpose=request.create.purpose,
            error=error,
            detail="",
            best=None,
        )
        here = by or request.creator
        far = state.ends[1] if here == state.ends[0] else state.ends[0]
        # What the link layers say to each other is in the channel of the network layers.
        arrival = max(self.now + state.delay_ns, self.last.get((here, far), 0))
        self.at(self.now, lambda: self.event(here, Told("link", message)))
        self.at(arrival, lambda: self.event(far, Told("link", message)))

    def generate(self, state: Link, request: LinkRequest) -> None:
        wait_ns = int(self.rng.expovariate(self.options.rate_hz) * 1e9) + 1
        self.at(self.now + wait_ns, lambda: self.succeed(state, request))

    def succeed(self, state: Link, request: LinkRequest) -> None:
        create = request.create
        if not request.is_open or create.request not in state.requests or not state.is_up:
            return
        if create.kind == "measure":
            self.succeed_measured(state, request)
            return
        if state.outstanding < self.options.slots:
            self.make_pair(state, request)
            request.made += 1
        if request.made == create.number:
            self.finish_link_request(state, request)
        else:
            self.generate(state, request)

    def finish_link_request(self, state: Link, request: LinkRequest) -> None:
        """All pairs are made: said at each end after the last of them."""
        request.is_open = False
        del state.requests[request.create.request]
        done = link.LinkDone(request=request.create.request, purpose=request.create.purpose)
        boots = [(end, self.restarts[end]) for end in state.ends]

        def tell() -> None:
            for end, boot in boots:
                if state.is_up and boot == self.restarts[end]:
                    self.event(end, Told("link", done))

        self.at(self.now + state.delay_ns + self.options.spread_ns + 1, tell)

    def make_pair(self, state: Link, request: LinkRequest) -> None:
        create = request.create
        pair = self.rng.randbytes(16)
        bits = self.choose()
        qubits = {end: self.rng.randbytes(16) for end in state.ends}
        a, b = state.ends
        is_void = self.rng.random() < self.options.void
        only = self.rng.choice(state.ends)
        ends = [only] if is_void else [a, b]
        for end in ends:
            peer = b if end == a else a
            self.qubits[qubits[end]] = Qubit(
                end, partner=None if is_void else qubits[peer], bits=bits
            )
        state.outstanding += 1
        left = [len(ends)]
        emitted = self.now
        for end in ends:
            self.qubits[qubits[end]].ends = 0
            message = link.LinkPair(
                request=create.request,
                purpose=create.purpose,
                peer=b if end == a else a,
                pair=pair,
                qubit=qubits[end],
                x_bit=bits[0],
                z_bit=bits[1],
                emitted_at_ns=emitted,
                goodness=0.97,
            )
            later = self.now + state.delay_ns + self.rng.randrange(self.options.spread_ns + 1)
            boot = self.restarts[end]

            def indicate(
                end: str = end, message: link.LinkPair = message, boot: int = boot
            ) -> None:
                left[0] -= 1
                if left[0] == 0:
                    state.outstanding -= 1
                if state.is_up and boot == self.restarts[end]:
                    self.event(end, Told("link", message))
                    if is_void:
                        expired = link.LinkExpired(pair=pair, purpose=create.purpose)
                        self.at(
                            self.now + self.rng.randrange(1_000_000),
                            lambda: self.event(end, Told("link", expired)),
                        )
                else:
                    self.qubits[message.qubit].owner = "gone"

            self.at(later, indicate)

    def succeed_measured(self, state: Link, request: LinkRequest) -> None:
        create = request.create
        assert create.number is not None
        pairs = min(5, create.number - request.made)
        request.made += pairs
        is_last = request.made == create.number
        bases = dict.fromkeys(state.ends, create.peer_basis) | {request.creator: create.basis}
        for end in state.ends:
            message = link.LinkMeasured(
                request=create.request,
                purpose=create.purpose,
                peer=state.ends[0] if end == state.ends[1] else state.ends[1],
                first_pair=bytes(16),
                pairs=pairs,
                outcomes=b"\x28",
                x_bits=b"\x00",
                z_bits=b"\x00",
                bases=b"" if isinstance(bases[end], str) else b"\x24\x00",
                goodness=0.97,
            )
            done = link.LinkDone(request=create.request, purpose=create.purpose)

            def tell(end: str = end, message: Message = message, done: Message = done) -> None:
                self.event(end, Told("link", message))
                if is_last:
                    self.event(end, Told("link", done))

            self.at(self.now + self.rng.randrange(self.options.spread_ns + 1), tell)
        if is_last:
            request.is_open = False
            state.requests.pop(create.request, None)
        else:
            self.generate(state, request)

    # --- the device ------------------------------------------------------------------------------

    def on_physical(self, name: str, message: Message) -> None:
        match message:
            case physical.Free():
                self.end_qubit(name, message.qubit)
            case physical.Transfer():
                qubit = self.qubits[message.qubit]
                assert qubit.owner == "network", f"{name} transfers what is {qubit.owner}"
                qubit.owner = message.to
            case physical.BellMeasure():
                self.bell_measure(name, message)
            case _:
                raise AssertionError(message)

    def end_qubit(self, name: str, qubit_id: bytes) -> None:
        qubit = self.qubits[qubit_id]
        assert qubit.node == name
        if qubit.owner == "gone":
            raise AssertionError(f"{name} ends a qubit twice")
        assert qubit.owner == "network"
        qubit.owner = "gone"

    def bell_measure(self, name: str, message: physical.BellMeasure) -> None:
        first, second = self.qubits[message.first], self.qubits[message.second]
        assert (first.owner, second.owner) == ("network", "network")
        assert (first.node, second.node) == (name, name)
        answer: Message
        if self.rng.random() < self.options.swap_failure:
            answer = physical.CallFailed(call=message.call, error="GONE", detail="")
        else:
            x, z = self.choose()
            first.owner = second.owner = "gone"
            bits = (first.bits[0] ^ second.bits[0] ^ x, first.bits[1] ^ second.bits[1] ^ z)
            for one, other in ((first, second), (second, first)):
                if one.partner is not None and one.partner in self.qubits:
                    far = self.qubits[one.partner]
                    far.partner, far.bits = other.partner, bits
            answer = physical.BellMeasured(call=message.call, x_bit=x, z_bit=z)
        boot = self.restarts[name]

        def reply() -> None:
            if self.restarts[name] == boot:
                self.event(name, Told("physical", answer))

        self.at(self.now + 1000 + self.rng.randrange(self.options.swap_spread_ns + 1), reply)

    def free_expired(self, name: str, message: service.EndPairExpired) -> None:
        for told in self.told[name]:
            if isinstance(told, service.EndPair) and told.pair == message.pair:
                self.qubits[told.qubit].owner = "gone"
                return
        raise AssertionError("a pair expires that was never indicated")

    # --- requests and what came of them ----------------------------------------------------------

    def create(self, source: str, target: str, number: int = 1, **changes: Any) -> bytes:
        request = self.rng.randbytes(16)
        values: dict[str, Any] = {
            "request": request,
            "remote": target,
            "purpose": 7,
            "kind": "keep",
            "number": number,
            "min_fidelity": 0.0,
            "deadline_ns": self.now + 100 * SECOND,
            "priority": 0,
            "basis": None,
            "remote_basis": None,
        }
        self.event(source, Told("transport", service.NetworkCreate(**(values | changes))))
        return request

    def cancel_request(self, name: str, request: bytes) -> None:
        self.event(name, Told("transport", service.NetworkCancel(request=request)))

    def of(self, name: str, kind: type[Any], request: bytes | None = None) -> list[Any]:
        return [
            message
            for message in self.told[name]
            if isinstance(message, kind) and (request is None or message.request == request)
        ]

    def ending(self, name: str, request: bytes) -> str:
        """How a request ended at a node: `done`, an error, or `` if it has not ended."""
        done = self.of(name, service.NetworkDone, request)
        failed = self.of(name, service.NetworkFailed, request)
        assert len(done) + len(failed) <= 1, "a request ends once"
        return "done" if done else failed[0].error if failed else ""

    def valid(self, name: str, request: bytes) -> dict[PairId, service.EndPair]:
        expired = [message.pair for message in self.of(name, service.EndPairExpired, request)]
        pairs = self.of(name, service.EndPair, request)
        assert len({message.pair for message in pairs}) == len(pairs), "a pair is told twice"
        return {message.pair: message for message in pairs if message.pair not in expired}

    def check(self, head: str, tail: str, request: bytes, *, is_cut: bool = False) -> int:
        """Both ends agree with each other and the truth; returns the number of valid pairs."""
        here, there = self.valid(head, request), self.valid(tail, request)
        if not is_cut:
            assert here.keys() == there.keys(), "a pair is valid at one end only"
        for pair in [pair for pair in here if pair in there]:
            first, second = here[pair], there[pair]
            assert (first.side, second.side) == ("head", "tail")
            assert (first.remote, second.remote) == (tail, head)
            assert (first.x_bit, first.z_bit) == (second.x_bit, second.z_bit)
            qubit = self.qubits[first.qubit]
            assert qubit.partner == second.qubit, "the pair is with somebody else"
            assert qubit.bits == (first.x_bit, first.z_bit), "the Bell state is another"
            assert qubit.owner == "transport"
        return len(here)

    def check_ledger(self) -> None:
        """No qubit is left with the network layer."""
        left = [qubit for qubit in self.qubits.values() if qubit.owner == "network"]
        assert not left, f"leaked: {left}"


def chain(count: int) -> list[tuple[str, str]]:
    names = [f"n{index}" for index in range(count)]
    return list(pairwise(names))
