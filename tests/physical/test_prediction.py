"""What a node expects of its hardware: options, slots, swaps, goodness."""

import math

import pytest
from msgspec.structs import replace

from qstack.physical.durations import answer_ns, duration_ns, result_ns
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.prediction import (
    generation_options,
    goodness_of,
    link_capability,
    link_slots,
    node_capability,
)
from qstack.quantum.bell import fidelity
from tests.physical.test_fabric import gate, name
from tests.physical.worlds import PERFECT, chain


def single_click(world: World) -> tuple[World, LinkHardware]:
    old = world.links["a-b"]
    link = LinkHardware(
        ends=old.ends, length_m=old.length_m, arms_m=old.arms_m, scheme="single-click"
    )
    return replace(world, links={"a-b": link}), link


def test_single_click_is_offered_from_fidelity_to_rate() -> None:
    world, link = single_click(chain("ab", coupling=0.01, bright_state_default=0.15))
    options = generation_options(world, link)
    assert [option.bright_state for option in options] == [0.05, 0.1, 0.15, 0.2, 0.3]
    for option in options:
        alpha = option.bright_state
        assert alpha is not None
        # PHYSICS 2.3: small eta, P = 2 eta alpha and F = 1 - alpha.
        assert option.probability == pytest.approx(2 * 0.01 * alpha, rel=0.02)
        assert option.bell_probabilities[0] == pytest.approx(1 - alpha, abs=0.01)
        assert math.fsum(option.bell_probabilities) == pytest.approx(1.0)
        assert option.cycle_ns > option.measure_cycle_ns > 0 or option.measure_cycle_ns == 4_500
        plus, minus = goodness_of(world, link, alpha)
        assert plus == minus == pytest.approx(option.bell_probabilities[0])


def test_a_link_that_can_never_click_has_no_options() -> None:
    world = chain("ab", 0.0)
    link = world.links["a-b"]
    assert link_capability(world, "a", link).options == []
    assert goodness_of(world, link, None) == (0.0, 0.0)


def test_the_move_to_storage_is_expected_where_there_is_storage() -> None:
    moved = chain("ab", 1.0, memory=2, comm_qubits=1, move_depolarising=0.1)
    kept = chain("ab", 1.0, memory=1, comm_qubits=1, move_depolarising=0.1)
    assert goodness_of(kept, kept.links["a-b"], None)[0] == pytest.approx(1.0)
    expected = (1 + 3 * 0.9**2) / 4
    assert goodness_of(moved, moved.links["a-b"], None) == pytest.approx((expected, expected))


@pytest.mark.parametrize(
    ("memory", "comm_qubits", "parallel", "slots"),
    [(1, 1, False, 1), (2, 1, False, 1), (3, 1, False, 1), (5, 1, False, 2), (9, 4, True, 2),
     (9, 4, False, 4), (9, 1, True, 4)],
)  # fmt: skip
def test_slots_share_the_memory_among_links_and_leave_a_place_for_data(
    memory: int, comm_qubits: int, *, parallel: bool, slots: int
) -> None:
    world = chain("abc", memory=memory, comm_qubits=comm_qubits, parallel_links=parallel)
    assert link_slots(world, "b") == slots
    assert link_slots(chain("a"), "a") == 0


def test_a_swap_costs_its_gates_and_readouts() -> None:
    world = chain(
        "abc",
        gate_1q_depolarising=0.01,
        gate_2q_depolarising=0.1,
        readout_f0=0.95,
        readout_f1=0.99,
        t1_s=5.0,
        t2_s=0.4,
    )
    capability = node_capability(world, "b")
    assert (capability.swap_depolarising, capability.gate_depolarising) == (0.1, 0.01)
    assert capability.swap_flip == pytest.approx(0.03)
    assert (capability.swap_ns, capability.t1_s, capability.t2_s) == (5_100, 5.0, 0.4)


def test_bell_probabilities_are_those_of_the_state_the_fabric_will_make() -> None:
    world, link = single_click(chain("ab", coupling=0.3, visibility=0.9, memory=1, comm_qubits=1))
    heralded = link.herald(PERFECT, PERFECT, 0.2)
    assert fidelity(heralded.state, 1, 0) < 1.0
    profile = world.nodes["a"].profile
    expected = fidelity(link.herald(profile, profile, 0.2).state_minus, 1, 1)
    (option,) = [o for o in generation_options(world, link) if o.bright_state == 0.2]
    assert option.bell_probabilities[0] == pytest.approx(expected)


def test_results_leave_the_clock_its_room() -> None:
    quick = replace(PERFECT, gate_1q_ns=0, gate_2q_ns=0)
    one, two = gate(0, 0, "h", name(1)), gate(0, 0, "cz", name(1), name(2))
    assert duration_ns(quick, one) == duration_ns(quick, two) == answer_ns(quick, one) == 0
    assert answer_ns(quick, two) == 1_001
    assert answer_ns(PERFECT, two) == 2_000
    assert result_ns(quick, two) == 1_000
