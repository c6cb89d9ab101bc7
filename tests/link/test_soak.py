"""Whole networks in virtual time whose link messages are lost, repeated and delayed.

In place of the network layers stand users who ask for pairs, hold and measure them, withdraw and
run out of time. The fabric's witness knows which qubits were two halves of one pair.

Checked: no pair is reported twice, or by a wrong peer; what is a valid pair at both ends is one in
the fabric; what one end holds for valid the other does too; memory and requests are all back.
"""

from random import Random

import pytest

from qstack.ids import ID_BYTES
from qstack.link import service
from qstack.link.machine import LinkLayer
from qstack.machine import Effect, Event, SetTimer, Tell, TimerFired, Told
from qstack.physical import service as physical
from qstack.physical.machine import PhysicalLayer
from qstack.runtime.lockstep import Sent
from qstack.runtime.network_file import Network
from qstack.runtime.virtual import VirtualNetwork
from qstack.wire.frame import Layer
from qstack.wire.message import Message
from tests.runtime.scripts import load_packaged_network

PURPOSE = b"s" * 16
MILLISECOND = 1_000_000
ASK_NS = {"pair": 4 * MILLISECOND, "metro": 60 * MILLISECOND, "ring": 60 * MILLISECOND}


class User:
    """Asks its neighbours for pairs, and measures what comes."""

    def __init__(self, node: str, rng: Random, ask_ns: int) -> None:
        self.node = node
        self.ask_ns = ask_ns
        self.is_done = False
        self.pairs: dict[bytes, service.LinkPair] = {}  # by pair, all that were announced
        self.void: dict[bytes, None] = {}
        self.asked: dict[bytes, None] = {}
        self.ended: dict[bytes, str] = {}
        self.up: dict[str, None] = {}
        self.neighbours: dict[str, None] = {}
        self.was_up = False
        self._held: dict[str, bytes] = {}  # qubits by their timer
        self._rng = rng
        self._calls = 0

    def handle(self, event: Event, now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        match event:
            case Told("link", message):
                return self._on_link(message, now)
            case TimerFired("ask"):
                return [] if self.is_done else self._ask(now)
            case TimerFired(key):
                self._calls += 1
                qubit = self._held.pop(key)
                return [
                    Tell("physical", physical.Measure(call=self._calls, qubit=qubit, basis="Z"))
                ]
            case _:
                return []

    def _on_link(self, message: Message, now: int) -> list[Effect]:
        match message:
            case service.LinkUp(peer=peer):
                self.neighbours[peer] = None
                is_first = not self.was_up
                self.was_up = True
                self.up = dict.fromkeys(sorted([*self.up, peer]))
                listen = Tell("link", service.LinkListen(peer=peer, purpose=PURPOSE))
                return [listen, SetTimer("ask", now + self.ask_ns)] if is_first else [listen]
            case service.LinkDown(peer=peer):
                del self.up[peer]
                gone = [p for p, pair in self.pairs.items() if pair.peer == peer]
                self.void.update(dict.fromkeys(gone))
            case service.LinkPair():
                assert message.pair not in self.pairs, "reported twice"
                self.pairs[message.pair] = message
                key = message.qubit.hex()
                self._held[key] = message.qubit
                return [SetTimer(key, now + self._rng.randrange(1, 3 * MILLISECOND))]
            case service.LinkExpired(pair=pair):
                assert pair not in self.void
                self.void[pair] = None
            case service.LinkDone(request=request) | service.LinkFailed(request=request):
                assert request not in self.ended, "ended twice"
                self.ended[request] = type(message).__name__
            case _:
                pass
        return []

    def _ask(self, now: int) -> list[Effect]:
        rng = self._rng
        effects: list[Effect] = [SetTimer("ask", now + rng.randrange(1, 2 * self.ask_ns))]
        known = [request for request in self.asked if request not in self.ended]
        if known and rng.random() < 0.3:
            cancel = service.LinkCancel(request=rng.choice(known))
            return [*effects, Tell("link", cancel)]
        request = rng.randbytes(ID_BYTES)
        self.asked[request] = None
        is_keep = rng.random() < 0.8
        create = service.LinkCreate(
            request=request, peer=rng.choice(sorted(self.neighbours)), purpose=PURPOSE,
            kind="keep" if is_keep else "measure",
            number=rng.choice([1, 2, 5, None if is_keep else 9]), min_fidelity=0.5,
            deadline_ns=now + int(self.ask_ns * 10 ** rng.uniform(-1.0, 1.5)),
            priority=rng.randrange(3), basis=None if is_keep else "X",
            peer_basis=None if is_keep else "Z",
            atomic=False,
            consecutive=True,
        )  # fmt: skip
        return [*effects, Tell("link", create)]


class FaultyNetwork(VirtualNetwork):
    """A network of users, whose link messages do not all come, or come once, or in order."""

    user = User

    def __init__(self, network: Network, ask_ns: int, seed: int, rate: float) -> None:
        self.users: dict[str, User] = {}
        self.faults = 0
        self.rate = rate
        self.ask_ns = ask_ns
        self._rng = Random(seed)
        super().__init__(network, seed)
        self.fabric.witness._pairs_max = 10**6

    def _boot(self, name: str, at_ns: int) -> None:
        super()._boot(name, at_ns)
        user = self.user(name, Random(f"{self.seed} {name}"), self.ask_ns)
        self.users[name] = self.nodes[name].machines["network"] = user

    def _to_peer(
        self, name: str, peer: str, at_ns: int, message: Message, sent: dict[str, Sent]
    ) -> None:
        if message.LAYER != Layer.LINK or self._rng.random() >= self.rate:
            super()._to_peer(name, peer, at_ns, message, sent)
            return
        self.faults += 1
        delay_ns = self.network.path_delay_ns(name, peer)
        late_ns = at_ns + int(delay_ns * self._rng.choice([0.5, 2, 10, 50]))
        for when_ns in self._rng.choice([[], [], [at_ns, late_ns], [late_ns]]):
            super()._to_peer(name, peer, when_ns, message, sent)

    def finish(self) -> None:
        """The channels heal, nobody asks any more, all deadlines pass."""
        self.rate = 0.0
        for user in self.users.values():
            user.is_done = True
        self.run_until(self.now_ns + 40 * self.ask_ns + 20_000 * MILLISECOND)

    def check(self) -> None:
        for name, user in self.users.items():
            assert set(user.asked) <= set(user.ended)
            link, device = (self.nodes[name].machines[layer] for layer in ("link", "physical"))
            assert isinstance(link, LinkLayer)
            assert isinstance(device, PhysicalLayer)
            assert link.summary()["open_requests"] == 0
            assert [*user.up] == [peer.name for peer in link.peers.values() if peer.is_up]
            assert device.summary()["qubits"] == 0
        self._check_pairs()

    def _check_pairs(self) -> None:
        halves: dict[bytes, dict[str, service.LinkPair]] = {}
        owners: dict[tuple[str, bytes], bytes] = {}
        for name, user in self.users.items():
            for pair, said in user.pairs.items():
                owners[name, said.qubit] = pair
                if pair not in user.void:
                    halves.setdefault(pair, {})[name] = said
        assert all(len(half) == 2 for half in halves.values()), "valid at one end alone"
        for here, there in (half.items() for half in halves.values()):
            assert (here[1].peer, there[1].peer) == (there[0], here[0])
            bits = [(said.x_bit, said.z_bit) for _, said in (here, there)]
            assert bits[0] == bits[1]
        valid = 0
        for nodes, qubits, _ in self.fabric.witness.pairs:
            names = [owners.get(half) for half in zip(nodes, qubits, strict=True)]
            assert None in names or names[0] == names[1]
            valid += names[0] in halves
        assert valid == len(halves), "every pair both ends hold for valid is one of the fabric"


def soak(network: str, seed: int, rate: float, faults: int) -> FaultyNetwork:
    """So many faults at least, then the end."""
    one = FaultyNetwork(load_packaged_network(network), ASK_NS[network], seed, rate)
    run(one, faults)
    return one


def run(one: FaultyNetwork, faults: int) -> None:
    """Until so many faults have been; then the end, and all checks."""
    while one.faults < faults:
        one.run_until(one.now_ns + 5 * one.ask_ns)
    one.finish()
    one.check()


@pytest.mark.parametrize(("network", "rate"), [("pair", 0.01), *((name, 0.3) for name in ASK_NS)])
def test_some_faults_in_whole_networks(network: str, rate: float) -> None:
    one = soak(network, 1, rate, faults=15 if rate < 0.1 else 200)
    pairs = sum(len(user.pairs) for user in one.users.values())
    assert pairs > 20
    assert {*one.users["alice"].ended.values()} == {"LinkDone", "LinkFailed"}


@pytest.mark.soak
@pytest.mark.parametrize("network", ASK_NS)
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3])
def test_ten_thousand_faults_in_whole_networks(network: str, rate: float) -> None:
    for seed in range(3):
        soak(network, seed, rate, faults={0.01: 100, 0.1: 1200, 0.3: 2200}[rate] // 3)
