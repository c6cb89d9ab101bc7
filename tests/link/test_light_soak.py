"""A photon-pair link with its real source and receivers, whose link messages are lost.

Two nodes of the packaged network `metro` with the link between them alone: link and physical
layers, emulated receivers and the fabric's source as they are deployed. Users ask for measured
pairs, withdraw and run out of time.

Checked: of each request one end has the first pairs of the other's, all of both where both say that
it is done; where both read in one basis the outcomes are those of one pair; requests end.
"""

from random import Random

import numpy as np
import pytest

from qstack.ids import ID_BYTES
from qstack.link import service
from qstack.machine import Effect, SetTimer, Tell
from qstack.physical.models.pair_source import error_rate
from qstack.runtime.network_file import Network, packaged_network, parse_network
from qstack.wire.message import BasisProbabilities, Message
from qstack.wire.packed import unpack_bases, unpack_bits
from tests.link.test_soak import MILLISECOND, PURPOSE, FaultyNetwork, User, run

EVEN = BasisProbabilities(0.5, 0.0, 0.5)
ASK_NS = 8 * MILLISECOND
Z = 2


class Receiver(User):
    """Asks for measured pairs with bases drawn by each end; keeps outcomes and bases."""

    def __init__(self, node: str, rng: Random, ask_ns: int) -> None:
        super().__init__(node, rng, ask_ns)
        self.read: dict[bytes, list[tuple[int, int]]] = {}

    def _on_link(self, message: Message, now: int) -> list[Effect]:
        if isinstance(message, service.LinkMeasured):
            bits = unpack_bits(message.outcomes, message.pairs).tolist()
            bases = unpack_bases(message.bases, message.pairs).tolist()
            self.read.setdefault(message.request, []).extend(zip(bits, bases, strict=True))
        return super()._on_link(message, now)

    def _ask(self, now: int) -> list[Effect]:
        rng = self._rng
        effects: list[Effect] = [SetTimer("ask", now + rng.randrange(1, 2 * self.ask_ns))]
        known = [request for request in self.asked if request not in self.ended]
        if known and rng.random() < 0.2:
            return [*effects, Tell("link", service.LinkCancel(request=rng.choice(known)))]
        request = rng.randbytes(ID_BYTES)
        self.asked[request] = None
        create = service.LinkCreate(
            request=request, peer=next(iter(self.neighbours)), purpose=PURPOSE, kind="measure",
            number=rng.choice([1, 30, 500, 2_000]), min_fidelity=0.5,
            deadline_ns=now + int(self.ask_ns * 10 ** rng.uniform(-1.0, 1.5)),
            priority=rng.randrange(3), basis=EVEN, peer_basis=EVEN, atomic=False, consecutive=True,
        )  # fmt: skip
        return [*effects, Tell("link", create)]


class FaultyLight(FaultyNetwork):
    """A photon-pair link that loses messages; its users measure."""

    user = Receiver

    def check(self) -> None:
        super().check()
        alice, bob = (self.users[name] for name in ("alice", "bob"))
        assert isinstance(alice, Receiver)
        assert isinstance(bob, Receiver)
        for request in {**alice.ended, **bob.ended}:
            here, there = alice.read.get(request, []), bob.read.get(request, [])
            is_done = [user.ended.get(request) == "LinkDone" for user in (alice, bob)]
            if all(is_done):
                assert len(here) == len(there)
            assert len(here) <= len(there) or not is_done[1]
            assert len(there) <= len(here) or not is_done[0]

    def compared(self) -> tuple[int, int]:
        """Pairs both ends read in Z, and how many of them differ."""
        reads = [user.read for user in self.users.values() if isinstance(user, Receiver)]
        first, second = reads
        rows = [
            (one, other)
            for request in first
            for one, other in zip(first[request], second.get(request, []), strict=False)
        ]
        bits = np.array([(one[0], other[0]) for one, other in rows if one[1] == other[1] == Z])
        return len(bits), int((bits[:, 0] != bits[:, 1]).sum())


def light() -> Network:
    """The photon-pair link of the metropolitan network, and its two nodes."""
    blocks = packaged_network("metro").split("\n\n[[")
    kept = [blocks[0]]
    for block in blocks[1:]:
        is_node = block.startswith("node]]") and ('"alice"' in block or '"bob"' in block)
        if is_node or 'scheme = "spdc"' in block:
            kept.append(block)
    return parse_network("\n\n[[".join(kept), where="metro", folder=None)


def soak(seed: int, rate: float, faults: int) -> FaultyLight:
    """So many faults at least; the pairs compared are those of one light."""
    one = FaultyLight(light(), ASK_NS, seed, rate)
    run(one, faults)
    pairs, errors = one.compared()
    (link,) = one.network.links.values()
    expected = error_rate(link.pair_source())
    # Had the ends ever been out of step, half of what follows would differ.
    assert pairs > 100
    assert errors / pairs < expected + 6 * (expected / pairs) ** 0.5
    return one


@pytest.mark.parametrize("rate", [0.3])
def test_some_faults_on_a_photon_pair_link(rate: float) -> None:
    one = soak(1, rate, faults=15 if rate < 0.1 else 400)
    assert {*one.users["alice"].ended.values()} == {"LinkDone", "LinkFailed"}


@pytest.mark.soak
@pytest.mark.parametrize(("rate", "faults"), [(0.01, 60), (0.1, 1_000), (0.3, 1_000)])
def test_thousands_of_faults_on_a_photon_pair_link(rate: float, faults: int) -> None:
    for seed in range(4):
        soak(seed, rate, faults)
