"""Devices whose stored qubits meet only by way of a communication qubit: electron and carbons."""

import math
from typing import Any

import numpy as np
import pytest

from qstack.physical.device import (
    DoBellMeasure,
    DoGate,
    DoMove,
    Initialise,
    OperationRefused,
    Place,
)
from qstack.physical.drivers.setup import Setup
from qstack.physical.drivers.template import TemplateDevice
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.prediction import node_capability
from qstack.physical.profile import ProfileError, parse_profile
from qstack.physical.profiles import load_packaged_profile, packaged_profile
from qstack.physical.service import BellMeasure, BellMeasured, CallDone, CallFailed, Heralded
from tests.physical.calls import APP, MS, allocate, bench, gate, start
from tests.physical.worlds import Bench, chain, started_fabric

STAR: dict[str, Any] = {
    "topology": "star", "comm_qubits": 1, "parallel_links": False, "memory": 3,
    "move_ns": 50_000, "move_depolarising": 0.04,
}  # fmt: skip
NS_2Q, NS_1Q, NS_READ = 2_000, 100, 3_000


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def star_fabric(**more: Any) -> Any:
    """A fabric with two qubits of node a, both in storage if there is any."""
    fabric = started_fabric(chain("ab", **(STAR | more)))
    for number in (1, 2):
        fabric.apply("a", Initialise(at_ns=0, sequence=number, qubit=name(number)))
    fabric.run(10_000)
    return fabric


def said(fabric: Any, *operations: Any) -> list[Any]:
    for operation in operations:
        fabric.apply("a", operation)
    return [delivery.message for delivery in fabric.run(10**10)]


def cnot(sequence: int, at_ns: int = 20_000) -> DoGate:
    qubits = [name(1), name(2)]
    return DoGate(at_ns=at_ns, sequence=sequence, name="cnot", qubits=qubits, angle=0.0)


def move(sequence: int, number: int, to: Any, at_ns: int = 15_000) -> DoMove:
    return DoMove(at_ns=at_ns, sequence=sequence, qubit=name(number), to=to)


# --- the device ----------------------------------------------------------------------------------


def test_two_stored_qubits_of_a_star_do_not_meet() -> None:
    bell = DoBellMeasure(at_ns=20_000, sequence=4, first=name(1), second=name(2))
    refusals = said(star_fabric(), cnot(3), bell)
    assert [refusal.error for refusal in refusals] == ["UNSUPPORTED", "UNSUPPORTED"]
    assert "needs one on a communication qubit" in refusals[0].detail


@pytest.mark.parametrize("number", [1, 2])
def test_either_of_them_on_the_communication_qubit_is_enough(number: int) -> None:
    assert said(star_fabric(), move(3, number, "communication"), cnot(4)) == []


@pytest.mark.parametrize("more", [{"topology": "all-to-all"}, {"topology": None}, {"memory": 1}])
def test_where_all_meet_or_nothing_is_stored_nothing_is_refused(more: dict[str, Any]) -> None:
    assert said(star_fabric(**more), cnot(3)) == []


def test_a_move_that_cannot_be_is_refused() -> None:
    fabric = star_fabric()
    (taken,) = said(fabric, move(3, 1, "communication"), move(4, 2, "communication", 16_000))
    assert isinstance(taken, OperationRefused)
    assert taken.error == "NO_RESOURCES"
    assert said(fabric, move(5, 1, "storage"), move(6, 2, "communication", 10**6)) == []
    (gone,) = said(fabric, move(7, 9, "storage"))
    assert gone.error == "GONE"
    (nowhere,) = said(star_fabric(memory=1), move(3, 1, "storage"))
    assert nowhere.error == "UNSUPPORTED"


def test_a_move_depolarises_once_and_only_if_it_moves() -> None:
    on = started(2)
    first, second = pair_of(on)
    before = on.fabric.pair_fidelity(first, second, on.now, x=1)
    at_ns = on.now + 1
    places: list[Place] = ["communication", "communication", "storage"]
    for sequence, to in enumerate(places, 1001):
        on.fabric.apply("a", DoMove(at_ns=at_ns, sequence=sequence, qubit=first.qubit, to=to))
    on.fabric.run(at_ns + 1)
    kept = 0.96**2
    assert on.fabric.pair_fidelity(first, second, at_ns, x=1) == pytest.approx(
        kept * before + (1 - kept) / 4, abs=1e-9
    )


def started(seed: int) -> Bench:
    """A pair of a and b whose herald said psi+, moved to storage at both ends."""
    on = bench("ab", **(STAR | {"memory": 4}))
    on.fabric = type(on.fabric)(on.world, seed)
    for node in on.world.nodes:
        on.fabric.node_up(node, b"bootid%d" % seed)
    for attempt in range(20):
        for node in ("a", "b"):
            on.tell(node, "link", start(attempt, token=name(attempt)))
        on.run(on.now + MS)
        if on.heard("a", "link", Heralded)[-1].z_bit == 0:
            return on
    raise AssertionError("psi- twenty times")


def pair_of(on: Bench) -> tuple[QubitKey, QubitKey]:
    heralds = [on.heard(node, "link", Heralded)[-1] for node in ("a", "b")]
    return QubitKey("a", heralds[0].qubit), QubitKey("b", heralds[1].qubit)


# --- decay in both places ------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 4])
def test_a_qubit_decays_as_its_place_does(memory: int) -> None:
    """T2 20 ms on the communication qubit and 1 s in storage; 10 ms of waiting."""
    places: dict[str, Any] = {
        "comm_t1_s": 1e9, "comm_t2_s": 0.02, "t1_s": 1e9, "t2_s": 1.0,
        "move_ns": 2 * MS, "move_depolarising": 0.0, "memory": memory,
    }  # fmt: skip
    on = bench("ab", **(STAR | places))
    for node in ("a", "b"):
        on.tell(node, "link", start(1))
    on.run(20 * MS)
    first, second = pair_of(on)
    herald = on.heard("a", "link", Heralded)[-1]
    born_ns, at_ns = herald.emitted_at_ns, 20 * MS
    link = on.world.links["a-b"]
    coherence = 1.0
    for end in ("a", "b"):
        waited_ns = at_ns - born_ns
        back_ns = link.herald_back_ns(end) + 2 * MS
        there_ns = waited_ns if memory == 1 else back_ns
        coherence *= math.exp(-there_ns * 1e-9 / 0.02 - (waited_ns - there_ns) * 1e-9)
    found = on.fabric.pair_fidelity(first, second, at_ns, x=1, z=herald.z_bit)
    assert found == pytest.approx((1 + coherence) / 2, abs=1e-6)
    expected = 0.02 if memory == 1 else 1.0
    assert node_capability(on.world, "a").t2_s == expected


def test_what_the_electron_and_the_carbon_of_a_profile_have_is_checked_apart() -> None:
    text = packaged_profile("nv-lab")
    alone = text.partition("[comm_t2_s]")[0]
    with pytest.raises(ProfileError, match="comm_t1_s, comm_t2_s: one without the other"):
        parse_profile(alone, where="test")
    longer = text.replace("value = 3600.0", "value = 0.1")
    with pytest.raises(ProfileError, match=r"comm_t2_s.value: 1.46 s is longer than 2 x comm_t1_s"):
        parse_profile(longer, where="test")
    lab = parse_profile(text, where="test")
    assert lab.decay_times_s(is_stored=False) == (3600.0, 1.46)
    assert lab.decay_times_s(is_stored=True) == (36000.0, 1.0)


# --- the node ------------------------------------------------------------------------------------


def test_a_gate_of_two_stored_qubits_goes_by_way_of_the_communication_qubit() -> None:
    on = bench("ab", **STAR)
    first, second = allocate(on), allocate(on)
    begun = on.now
    on.tell("a", APP, gate(1, "cnot", first, second))
    on.run(begun + 10 * MS)
    ((done_ns, _, _, done),) = [row for row in on.told if isinstance(row[3], CallDone)]
    assert isinstance(done, CallDone)
    assert done_ns == begun + 2 * STAR["move_ns"] + NS_2Q
    assert not on.heard("a", APP, CallFailed)
    third = allocate(on)
    on.tell("a", APP, gate(2, "cz", third, second))  # the communication qubit is free again
    on.run(on.now + 10 * MS)
    assert not on.heard("a", APP, CallFailed)


def test_a_bell_measurement_of_stored_qubits_takes_a_move_first() -> None:
    on = bench("ab", **STAR)
    first, second = allocate(on), allocate(on)
    begun = on.now
    on.tell("a", APP, BellMeasure(call=1, first=first, second=second))
    on.run(begun + 10 * MS)
    ((done_ns, _, _, _),) = [row for row in on.told if isinstance(row[3], BellMeasured)]
    assert done_ns == begun + STAR["move_ns"] + NS_2Q + NS_1Q + NS_READ
    assert on.fabric.snapshot().qubits["a"] == 0


def test_a_node_without_a_star_moves_nothing() -> None:
    on = bench("ab", **(STAR | {"topology": None}))
    first, second = allocate(on), allocate(on)
    begun = on.now
    on.tell("a", APP, gate(1, "cnot", first, second))
    on.run(begun + 10 * MS)
    ((done_ns, _, _, _),) = [row for row in on.told if isinstance(row[3], CallDone)]
    assert done_ns == begun + NS_2Q


def test_a_node_expects_of_its_swaps_what_the_move_costs() -> None:
    world = chain("ab", **STAR, gate_2q_depolarising=0.02)
    star = node_capability(world, "a")
    plain = node_capability(chain("ab", **(STAR | {"memory": 1}), gate_2q_depolarising=0.02), "a")
    assert star.swap_ns - plain.swap_ns == STAR["move_ns"]
    assert plain.swap_depolarising == 0.02
    assert star.swap_depolarising == pytest.approx(1 - 0.98 * 0.96)


def test_colour_centres_are_stars_and_ions_are_not() -> None:
    for star in ("nv-lab", "nv-near-term", "colour-centre"):
        assert load_packaged_profile(star).topology == "star"
    assert load_packaged_profile("ion-published").topology is None


class _Moving(TemplateDevice):
    """The template, which writes down what it was asked to move."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.moved: list[tuple[bytes, str]] = []

    def move(self, qubit: bytes, to: Place) -> None:
        self.moved.append((qubit, to))


def test_a_driver_is_asked_for_moves_and_may_leave_them_to_its_gates() -> None:
    world = chain("ab", **STAR)
    setup = Setup(node="a", world=world, rng=np.random.default_rng(1))
    moving, plain = _Moving(setup), TemplateDevice(setup)
    for device in (moving, plain):
        device.begin(0)
        device.submit(Initialise(at_ns=0, sequence=1, qubit=name(1)), 0)
        device.submit(move(2, 1, "communication"), 0)
        device.submit(move(3, 2, "storage"), 0)
        refusals = [said for said in device.answers(10**6) if isinstance(said, OperationRefused)]
        assert [(refusal.operation, refusal.error) for refusal in refusals] == [(3, "GONE")]
    assert moving.moved == [(name(1), "communication")]
