"""Peers that say anything at any time: replays, made-up ids, wrong values, out of order.

Checked: nothing escapes `handle`, no call is answered twice, nothing is kept without bound, and
the layer is idle when the sessions have gone. Not checked: what such a peer does to the qubits it
shares with us.
"""

import msgspec
import numpy as np
import pytest

from qstack.ids import CircuitId, LinkPairId, PairId
from qstack.machine import FromPeer
from qstack.transport import messages, service
from tests.transport.test_random_walks import Walk
from tests.transport.world import MS, World, assert_idle


def made_up(kind: type, rng: np.random.Generator, ids: list[bytes]) -> object:
    """A message of the class with values a decoder would let through."""

    def number(largest: int) -> int:
        return int(rng.choice([0, 1, 2, 63, 64, largest, int(rng.integers(0, largest + 1))]))

    def id_() -> bytes:
        return ids[int(rng.integers(len(ids)))] if ids and rng.random() < 0.8 else rng.bytes(16)

    values: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        match field.name:
            case "x":
                continue
            case "flow" | "stream" | "request" | "id":
                values[field.name] = id_()
            case "requests":
                values[field.name] = [id_() for _ in range(int(rng.integers(0, 4)))]
            case "pair":
                circuit = CircuitId(bytes(16))
                link_pair = LinkPairId(number(40).to_bytes(16, "big"))
                values[field.name] = PairId(circuit, 0, link_pair)
            case "port":
                values[field.name] = number(5)
            case "kind":
                is_flow = kind in (messages.OpenFlow, messages.CreditAhead)
                kinds = ["keep", "measure"] if is_flow else ["qubit", "message"]
                values[field.name] = kinds[int(rng.integers(2))]
            case "number":
                values[field.name] = 1 + number(10**9 - 1)
            case "basis" if kind is messages.EchoRequest:
                values[field.name] = "X"
            case "basis":
                values[field.name] = [None, "Z"][int(rng.integers(2))]
            case "deadline_ns":
                values[field.name] = [None, 0, 2**63 - 1][int(rng.integers(3))]
            case "x_bit" | "z_bit" | "outcome":
                values[field.name] = int(rng.integers(2))
            case "is_lost":
                values[field.name] = bool(rng.integers(2))
            case "data":
                values[field.name] = b"data"
            case "error" | "name":
                values[field.name] = ["", "CLOSED", "nonsense"][int(rng.integers(3))]
            case "detail":
                values[field.name] = "d" * number(500)
            case "about":
                values[field.name] = number(0xFFFF)
            case _:
                values[field.name] = number(2**53)
    return kind(**values)


class HostileWalk(Walk):
    """A walk in which every node's peers also say what they should not."""

    def step(self) -> None:
        super().step()
        said = self.world.sent
        ids = [
            value
            for _, _, message in said[-60:]
            for name in ("flow", "stream", "request", "id")
            if isinstance(value := getattr(message, name, None), bytes)
        ]
        for _ in range(int(self.rng.integers(0, 4))):
            node, peer = (str(name) for name in self.rng.permutation(list(self.world.nodes))[:2])
            if said and self.rng.random() < 0.5:
                message = self.pick(said[-200:])[2]
            else:
                message = made_up(self.pick(messages.MESSAGES), self.rng, ids)
            self.world.event(node, FromPeer(peer, message))


@pytest.mark.parametrize("block", range(4))
def test_nothing_a_peer_says_breaks_a_node(block: int) -> None:
    for seed in range(block, 16, 4):
        walk = HostileWalk(seed + 9000, is_harsh=bool(seed % 2))
        walk.world.network.is_hostile = True
        try:
            for _ in range(70):
                walk.step()
            for session in walk.sessions:
                walk.world.end_session(session)
            walk.world.run(10**14)
            for peer in ("bob", "carol"):
                walk.world.restart(peer)
                if frozenset(("alice", peer)) not in walk.world.up:
                    walk.world.connect("alice", peer)
            walk.world.run(10**14)
            assert_idle(walk.world.nodes["alice"].layer)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_offers_of_a_peer_that_nobody_takes_end_with_the_peer() -> None:
    world = World("alice", "bob")
    world.connect("alice", "bob")
    for n in range(10):
        offer = messages.OpenStream(stream=b"%016d" % n, kind="qubit", port=5, deadline_ns=None)
        world.event("alice", FromPeer("bob", offer))
        flow = messages.OpenFlow(flow=b"%016d" % n, port=5, kind="keep", number=1, deadline_ns=None)
        world.event("alice", FromPeer("bob", flow))
    layer = world.nodes["alice"].layer
    assert (len(layer._streams), len(layer._accepts)) == (10, 10)
    world.disconnect("alice", "bob")
    assert_idle(layer)


def test_an_offer_past_its_deadline_is_not_taken() -> None:
    world = World("alice", "bob")
    world.connect("alice", "bob")
    here = world.session("alice")
    stream = messages.OpenStream(stream=bytes(16), kind="qubit", port=5, deadline_ns=MS)
    flow = messages.OpenFlow(flow=bytes(16), port=5, kind="keep", number=1, deadline_ns=MS)
    world.event("alice", FromPeer("bob", stream))
    world.event("alice", FromPeer("bob", flow))
    world.run(2 * MS)
    here.accept(here.listen(5))
    here.accept_pairs(here.epr(5, None))
    assert not here.of(service.Accepted)
    assert not world.says(messages.CreditFlow)
