"""Mutated messages between the layers of a network in virtual time: one node in two lies.

What a node says to a peer is changed on its way, in its bytes or by a field of an older message;
what a decoder lets through arrives, beside the truth or in its place. No machine raises, and the
work ends: the lied-to may lose everything but their composure.
"""

from random import Random

import msgspec
import pytest

from qstack.errors import PeerError
from qstack.machine import FABRIC
from qstack.runtime.lockstep import Sent
from qstack.runtime.peers import REGISTRY
from qstack.wire.codec import encode
from qstack.wire.frame import Frame
from qstack.wire.message import Message
from tests.fuzz import tally
from tests.fuzz.mutator import mutated
from tests.runtime.scripts import SECOND, WatchedNetwork
from tests.runtime.swarm import start_work

ROUNDS_MAX = 4000


class LyingNetwork(WatchedNetwork):
    """A network in which messages between nodes are changed on their way."""

    def __init__(self, name: str, seed: int, rng: Random, lies: float) -> None:
        self.rng = rng
        self.lies = lies
        self.inputs = 0
        self.arrived = 0
        self.older: dict[type[Message], list[Message]] = {}
        super().__init__(name, seed)

    def _to_peer(
        self, name: str, peer: str, at_ns: int, message: Message, sent: dict[str, Sent]
    ) -> None:
        known = self.older.setdefault(type(message), [])
        known.append(message)
        del known[:-50]
        if self.rng.random() >= self.lies:
            super()._to_peer(name, peer, at_ns, message, sent)
            return
        if self.rng.random() < 0.5:
            super()._to_peer(name, peer, at_ns, message, sent)
        for _ in range(self.rng.randint(1, 3)):
            self.inputs += 1
            lie = self._lie(message)
            if lie is not None:
                self.arrived += 1
                super()._to_peer(name, peer, at_ns, lie, sent)

    def _lie(self, message: Message) -> Message | None:
        rng = self.rng
        if rng.random() < 0.3:
            message = rng.choice(self.older[rng.choice(list(self.older))])
        frame = encode(message)
        match rng.randrange(3):
            case 0:
                body = mutated(rng, [frame.body], times_max=2)
            case 1:
                body = self._with_other_field(message)
            case _:
                body = self._with_odd_field(message)
        try:
            return REGISTRY.decode(Frame(frame.layer, frame.type, body))
        except PeerError:
            return None

    def _with_other_field(self, message: Message) -> bytes:
        """A field of it is that of an older message."""
        values = msgspec.to_builtins(message, builtin_types=(bytes,))
        older = msgspec.to_builtins(
            self.rng.choice(self.older[type(message)]), builtin_types=(bytes,)
        )
        shared = [key for key in values if key in older]
        if shared:
            key = self.rng.choice(shared)
            values[key] = older[key]
        return msgspec.msgpack.encode(values, order="sorted")

    def _with_odd_field(self, message: Message) -> bytes:
        """A field of it is at the edge of its range, or empty."""
        values = msgspec.to_builtins(message, builtin_types=(bytes,))
        if values:
            key = self.rng.choice(list(values))
            values[key] = self._odd(values[key])
        return msgspec.msgpack.encode(values, order="sorted")

    def _odd(self, value: object) -> object:
        match value:
            case bool():
                return not value
            case int():
                edges = (0, 1, value + 1, value - 1, value * 2, 2**53, 2**63 - 1, 2**32)
                return self.rng.choice(edges)
            case float():
                return self.rng.choice((0.0, 1.0, 0.5, value / 2, 1e-300))
            case bytes():
                return self.rng.choice((b"", bytes(len(value)), value[::-1], value + b"\0"))
            case str():
                return self.rng.choice(("", "alice", "bob", "r1", "fabric", value + "x", "keep"))
            case list():
                return self.rng.choice(([], value * 2, value[::-1], value[:1]))
            case None:
                return self.rng.choice((0, "Z", 2**63 - 1))
            case _:
                return None


def run(seed: int) -> LyingNetwork:
    """Work among liars, to its end or the end of patience."""
    rng = Random(seed)
    network = LyingNetwork(rng.choice(["pair", "metro", "ring"]), seed, rng, lies=0.0)
    network.run_until(SECOND // 50)  # everybody knows the network, and it is the true one
    network.lies = rng.choice([0.1, 0.3, 0.7])
    for port in range(1, 1 + rng.randint(1, 4)):
        start_work(network, rng, port)
    end_ns = network.now_ns + rng.choice([SECOND // 4, 2 * SECOND])
    for _ in range(ROUNDS_MAX):
        if not network._is_wanted or not network._advance(end_ns):
            break
    network.lies = 0.0
    network.end_everything()
    assert network.coordinator.participants[FABRIC].is_up
    return network


def run_many(seeds: range) -> tuple[int, int]:
    inputs = arrived = 0
    for seed in seeds:
        try:
            network = run(seed)
        except BaseException as error:
            error.add_note(f"fuzz: seed {seed}")
            raise
        inputs += network.inputs
        arrived += network.arrived
    return inputs, arrived


def test_no_layer_raises_whatever_peers_say() -> None:
    inputs, arrived = run_many(range(50, 80))
    assert inputs > 150
    assert arrived > 50


@pytest.mark.soak
@pytest.mark.parametrize("first", range(5000, 8000, 200))
def test_no_layer_raises_whatever_more_peers_say(first: int) -> None:
    inputs, _ = run_many(range(first, first + 200))
    tally.add("messages", inputs)
