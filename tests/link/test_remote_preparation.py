"""Requests that say how qubits are read, and remote state preparation, at the link layer."""

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest

from qstack.link import messages, service
from qstack.machine import Effect, Event, Tell, Told
from qstack.physical import service as physical
from qstack.physical.rotations import effects
from qstack.physical.service import Rotation
from qstack.runtime.virtual import VirtualNetwork
from qstack.wire.message import BasisProbabilities
from tests.link.bench import ALICE, BOB, DELAY_NS, PURPOSE, Bench, create, identity
from tests.link.lossy import BOTH, OTHER, Chance, LossyBench
from tests.runtime.scripts import load_packaged_network

TURN, FAR_TURN = Rotation(0.1, 0.2, 0.3), Rotation(-1.0, 0.5, 2.0)
DRAWN = BasisProbabilities(0.25, 0.0, 0.75)
SECOND = 1_000_000_000


def prepare(which: int = 1, **more: Any) -> service.LinkCreate:
    """A request of alice to prepare states at bob."""
    fields: dict[str, Any] = {"kind": "prepare", "basis": "X", "rotation": TURN}
    return create(which, **(fields | more))


def measure(**more: Any) -> service.LinkCreate:
    fields: dict[str, Any] = {"kind": "measure", "basis": "Z", "peer_basis": "X"}
    return create(1, **(fields | more))


def heard(bench: Bench) -> None:
    for name in BOTH:
        bench.told(name)


def batch(bench: Bench, name: str) -> physical.AttemptsStart:
    return next(iter(bench.ends[name].batches.values()))


# --- rotations -----------------------------------------------------------------------------------


def test_each_end_turns_what_it_reads_as_the_creator_says() -> None:
    bench = Bench().begin()
    asked = measure(basis=DRAWN, rotation=TURN, peer_rotation=FAR_TURN)
    bench.serving(asked)
    assert (batch(bench, ALICE).basis, batch(bench, ALICE).rotation) == (DRAWN, TURN)
    assert (batch(bench, BOB).basis, batch(bench, BOB).rotation) == ("X", FAR_TURN)
    (add,) = bench.said(ALICE, messages.Add)
    assert (add.basis, add.rotation) == ("X", FAR_TURN)
    assert TURN not in [getattr(add, name) for name in add.__struct_fields__]


def test_requests_without_rotations_attempt_without() -> None:
    bench = Bench().begin()
    bench.serving(measure())
    assert [batch(bench, name).rotation for name in BOTH] == [None, None]


@pytest.mark.parametrize(
    "asked",
    [
        create(1, rotation=TURN),
        create(1, peer_rotation=TURN),
        create(1, basis="Z"),
        measure(peer_basis=None),
        measure(basis=None, rotation=TURN),
        measure(number=None),
        prepare(basis=None),
        prepare(basis=None, rotation=None),
        prepare(peer_basis="Z"),
        prepare(peer_rotation=TURN),
    ],
)
def test_bases_and_rotations_that_do_not_go_together_are_refused(asked: Any) -> None:
    bench = Bench().begin()
    bench.say(ALICE, asked)
    assert bench.errors(ALICE) == ["BAD_REQUEST"]
    assert not bench.said(ALICE, messages.Add)


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "prepare", "basis": "Z"},
        {"kind": "prepare", "peer_basis": "Z"},
        {"kind": "prepare", "rotation": TURN},
        {"kind": "keep", "rotation": TURN},
        {"kind": "measure", "basis": "Z"},
    ],
)
def test_a_far_end_that_asks_so_is_rejected(more: dict[str, Any]) -> None:
    bench = Bench().begin()
    fields: dict[str, Any] = {
        "request": identity(1), "queue_number": 0, "virtual_ns": 0, "purpose": PURPOSE,
        "number": 1, "min_fidelity": 0.5, "deadline_ns": SECOND, "priority": 1, "basis": None,
        "peer_basis": None, "start_ns": 0, "device": 1, "atomic": False, "consecutive": True,
        "bright_state": 0.3,
    }  # fmt: skip
    bench.inject(BOB, messages.Add(**(fields | more)))
    (rejected,) = bench.said(BOB, messages.AddRejected)
    assert rejected.error == "BAD_REQUEST"


# --- remote state preparation --------------------------------------------------------------------


def test_the_far_end_keeps_and_is_not_told_what_the_other_reads() -> None:
    bench = Bench().begin()
    bench.serving(prepare(basis=DRAWN))
    here, there = batch(bench, ALICE), batch(bench, BOB)
    assert (here.kind, here.basis, here.rotation, here.pairs) == ("prepare", DRAWN, TURN, 1)
    assert (there.kind, there.basis, there.rotation, there.pairs) == ("prepare", None, None, 1)
    (add,) = bench.said(ALICE, messages.Add)
    assert (add.basis, add.peer_basis, add.rotation) == (None, None, None)


def test_the_creator_learns_outcomes_and_the_far_end_gets_qubits_of_the_same_pairs() -> None:
    bench = Bench().begin()
    bench.serving(prepare(number=3))
    for _ in range(3):
        bench.herald()
        heard(bench)
    read, kept = bench.all(ALICE, service.LinkMeasured), bench.all(BOB, service.LinkPair)
    assert [m.first_pair for m in read] == [p.pair for p in kept]
    assert [m.pairs for m in read] == [1, 1, 1]
    assert not bench.all(ALICE, service.LinkPair) + bench.all(BOB, service.LinkMeasured)
    assert [len(bench.all(name, service.LinkDone)) for name in BOTH] == [1, 1]
    assert [*bench.ends[BOB].qubits.values()] == ["network"] * 3
    assert not bench.ends[ALICE].qubits


def test_either_end_may_prepare_and_several_at_a_time() -> None:
    bench = Bench().begin()
    bench.serving(prepare(2, peer=ALICE, number=4), by=BOB)
    assert len(bench.matches()) == 2
    bench.herald(bench.matches()[1])
    heard(bench)
    assert len(bench.all(BOB, service.LinkMeasured)) == 1
    assert len(bench.all(ALICE, service.LinkPair)) == 1


def test_a_photon_pair_link_prepares_nothing() -> None:
    bench = Bench(pairing="slots").begin()
    bench.say(ALICE, prepare())
    assert bench.errors(ALICE) == ["UNSUPPORTED"]


def test_an_outcome_whose_qubit_the_far_end_has_let_go_is_void() -> None:
    """Bob withdraws while the herald is on its way to him; alice has been told of the pair."""
    bench = Bench().begin()
    bench.serving(prepare())
    bench.herald()
    bench.told(ALICE)
    bench.say(BOB, service.LinkCancel(request=identity(1)))
    heard(bench)
    bench.deliver()
    (read,) = bench.all(ALICE, service.LinkMeasured)
    assert [e.pair for e in bench.all(ALICE, service.LinkExpired)] == [read.first_pair]
    assert [*bench.ends[BOB].qubits.values()] == ["freed"]
    assert not bench.all(BOB, service.LinkPair)
    assert bench.errors(ALICE) == bench.errors(BOB) == ["CANCELLED"]


def test_a_qubit_whose_outcome_came_too_late_is_void() -> None:
    """The other way round: nobody will ever say in which state it is."""
    bench = Bench().begin()
    bench.serving(prepare())
    bench.herald()
    bench.told(BOB)
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    heard(bench)
    bench.deliver()
    (kept,) = bench.all(BOB, service.LinkPair)
    assert [e.pair for e in bench.all(BOB, service.LinkExpired)] == [kept.pair]
    assert not bench.all(ALICE, service.LinkMeasured)


def test_states_prepared_all_at_the_end_or_not_at_all() -> None:
    bench = Bench().begin()
    bench.serving(prepare(consecutive=False))
    bench.herald()
    heard(bench)
    assert not bench.all(ALICE, service.LinkMeasured) + bench.all(BOB, service.LinkPair)
    bench.herald()
    heard(bench)
    assert len(bench.all(ALICE, service.LinkMeasured)) == len(bench.all(BOB, service.LinkPair)) == 2
    bench.serving(prepare(2, consecutive=False))
    bench.herald()
    heard(bench)
    bench.say(ALICE, service.LinkCancel(request=identity(2)))
    bench.deliver()
    assert [*bench.ends[BOB].qubits.values()] == ["network", "network", "freed"]
    assert len(bench.all(ALICE, service.LinkMeasured)) == len(bench.all(BOB, service.LinkPair)) == 2
    assert not bench.all(BOB, service.LinkExpired)


def test_more_states_at_once_than_fit_are_refused() -> None:
    bench = Bench().begin()
    bench.say(ALICE, prepare(number=3, consecutive=False))
    assert bench.errors(ALICE) == ["NO_RESOURCES"]


def valid(bench: Bench, name: str) -> dict[bytes, None]:
    """Pairs an end was told of in whichever way, and that nothing has made void."""
    pairs: dict[bytes, None] = {}
    for message in bench.ends[name].above:
        match message:
            case service.LinkPair(pair=pair) | service.LinkMeasured(first_pair=pair):
                pairs[pair] = None
            case service.LinkExpired(pair=pair):
                del pairs[pair]
            case service.LinkDown():
                pairs.clear()
            case _:
                pass
    return pairs


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_random_faults_leave_each_outcome_its_qubit(rate: float) -> None:
    for seed in range(15):
        rng = Random(seed)
        faults = Chance(seed, rate)
        bench = LossyBench(faults, slots=(3, 3)).start()
        bench.good_for_ns = rng.choice([None, 300_000])
        for which in range(8):
            bench.run(int(10 ** rng.uniform(4, 6.5)))
            by = rng.choice(BOTH)
            asked = prepare(
                which, peer=OTHER[by], number=rng.randint(1, 3), consecutive=rng.random() < 0.5,
                deadline_ns=bench.now + rng.choice([DELAY_NS * 12, SECOND // 20]),
            )  # fmt: skip
            bench.say(by, asked)
        bench.run(2 * SECOND)
        faults.is_healed = True
        bench.run(12 * SECOND)
        assert {*valid(bench, ALICE)} == {*valid(bench, BOB)}
        for end in bench.ends.values():
            assert not end.batches
            assert not end.timers
            assert "link" not in end.qubits.values()


# --- through physical layers and fabric ----------------------------------------------------------


@dataclass
class User:
    """In place of the network layer: alice asks, and both read what they keep in X."""

    node: str
    asked: service.LinkCreate
    measured: list[service.LinkMeasured] = field(default_factory=list)
    pairs: list[service.LinkPair] = field(default_factory=list)
    outcomes: dict[int, int] = field(default_factory=dict)

    def handle(self, event: Event, _now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        match event:
            case Told(_, service.LinkUp(peer=peer, kinds=kinds)):
                assert kinds == ["keep", "measure", "prepare"]
                effects: list[Effect] = [
                    Tell("link", service.LinkListen(peer=peer, purpose=PURPOSE))
                ]
                return [*effects, Tell("link", self.asked)] if self.node == ALICE else effects
            case Told(_, service.LinkMeasured() as message):
                self.measured.append(message)
            case Told(_, service.LinkPair() as message):
                self.pairs.append(message)
                call = len(self.pairs)
                asked = physical.Measure(call=call, qubit=message.qubit, basis="X")
                return [Tell("physical", asked)]
            case Told(_, physical.Measured(call=call, outcome=outcome)):
                self.outcomes[call] = outcome
            case _:
                pass
        return []


def run(asked: service.LinkCreate) -> tuple[VirtualNetwork, User, User]:
    virtual = VirtualNetwork(load_packaged_network("pair"), 3)
    users = {}
    for name, node in virtual.nodes.items():
        users[name] = node.machines["network"] = User(name, asked)
    while len(users[ALICE].measured) < (asked.number or 0):
        virtual.run_until(virtual.now_ns + SECOND // 10)
        assert virtual.now_ns < 100 * SECOND
    virtual.run_until(virtual.now_ns + SECOND // 10)
    return virtual, users[ALICE], users[BOB]


def test_a_state_prepared_from_end_to_end_is_the_one_the_outcome_says() -> None:
    """Bob reads X of what alice prepared; false alarm below 4e-7 for each of 4 frequencies.

    Against the herald's exact state and both readouts; what decays until bob reads (60 us of a
    second of T2) is allowed for by 0.001.
    """
    turn = Rotation(0.3, 0.6, 0.0)
    asked = prepare(basis="Z", rotation=turn, number=600, min_fidelity=0.0, deadline_ns=2**62)
    virtual, alice, bob = run(asked)
    assert [m.first_pair for m in alice.measured] == [p.pair for p in bob.pairs]
    rows = np.array([
        (pair.z_bit, read.outcomes[0] >> 7, bob.outcomes[call])
        for read, (call, pair) in zip(alice.measured, enumerate(bob.pairs, 1), strict=True)
    ])  # fmt: skip
    world = virtual.network.world
    profiles = world.end_profiles("alice-bob")
    heralded = world.links["alice-bob"].herald(*profiles)
    here, there = (effects(turn, p.readout_f0, p.readout_f1) for p, turn in
                   zip(profiles, (turn, None), strict=True))  # fmt: skip
    seen_apart = []
    for z, state in enumerate((heralded.state, heralded.state_minus)):
        for outcome in (0, 1):
            weights = here[2, outcome] @ state @ there[0].T
            one = float(weights[1] / weights.sum())
            mine = rows[(rows[:, 0] == z) & (rows[:, 1] == outcome)][:, 2]
            limit = 5.1 * math.sqrt(one * (1.0 - one) / len(mine)) + 0.001
            assert abs(float(mine.mean()) - one) < limit
            seen_apart.append(abs(one - 0.5) / limit)
    assert max(seen_apart) > 1.0  # an unprepared qubit would not pass
