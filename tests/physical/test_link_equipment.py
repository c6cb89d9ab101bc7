"""Links by a midpoint source and by absorptive memories: their times, states, and the fabric."""

import math
from typing import Any

import pytest
from msgspec.structs import replace

from qstack.physical.device import MeasuredReply, Reply
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.hardware import LinkHardware, NodeHardware, World
from qstack.physical.link_equipment import (
    SCHEME_OF,
    TABLE_OF,
    AbsorptiveEquipment,
    Equipment,
    MidpointEquipment,
)
from qstack.physical.models.absorptive import AbsorptiveLink, absorptive
from qstack.physical.models.midpoint_source import MidpointSource, midpoint_source, spdc_pairs
from qstack.physical.prediction import generation_options, link_capability
from qstack.physical.service import Heralded
from qstack.quantum import bell
from qstack.quantum.decay import decoherence
from tests.physical.calls import MS, start
from tests.physical.test_fabric_reference import generate, stop
from tests.physical.worlds import PERFECT, Bench, started_fabric

MIDPOINT = MidpointEquipment(
    wavelength_nm=1550.0,
    pair_parameter=0.05,
    trial_ns=100,
    trials=50,
    latch_efficiency=0.5,
    false_latch_probability=1e-4,
    source_fidelity=0.98,
    write_fidelity=0.97,
)
ABSORPTIVE = AbsorptiveEquipment(
    wavelength_nm=1550.0,
    pair_parameter=0.02,
    mode_ns=20,
    modes=100,
    idler_efficiency=0.6,
    dark_count_probability=1e-6,
    visibility=0.95,
    number_resolving=False,
    write_efficiency=0.8,
    storage_heralded=True,
)
BOTH: tuple[Equipment, ...] = (MIDPOINT, ABSORPTIVE)
ARMS_M = (1_000.0, 2_000.0)
ETAS = (10**-0.02, 10**-0.04)


def link(equipped: Equipment, **fields: Any) -> LinkHardware:
    scheme: Any = SCHEME_OF[type(equipped)]
    plain: dict[str, Any] = {
        "ends": ("a", "b"),
        "length_m": 3_000.0,
        "arms_m": ARMS_M,
        "scheme": scheme,
        "equipment": equipped,
    }
    return LinkHardware(**{**plain, **fields})


def world(equipment: Equipment, **profile: Any) -> World:
    hardware = replace(PERFECT, **profile)
    nodes = {name: NodeHardware(name=name, profile=hardware, memory=4) for name in "ab"}
    return World(nodes=nodes, links={"a-b": link(equipment)})


def expected(equipment: Equipment) -> Any:
    """Probability of an attempt and both states, from the library itself."""
    if isinstance(equipment, MidpointEquipment):
        return midpoint_source(
            MidpointSource(
                pair_numbers=spdc_pairs(0.05),
                efficiencies=(0.5 * ETAS[0], 0.5 * ETAS[1]),
                trials=50,
                false_latches=(1e-4, 1e-4),
                source_fidelity=0.98,
                write_fidelities=(0.97, 0.97),
            )
        )
    absorbed = absorptive(
        AbsorptiveLink(
            mean_pairs=(0.02, 0.02),
            idler_efficiencies=(0.6 * ETAS[0], 0.6 * ETAS[1]),
            write_efficiencies=(0.8, 0.8),
            dark_probability=1e-6,
            visibility=0.95,
        )
    )
    of_mode = absorbed.stored if equipment.storage_heralded else absorbed.heralded
    assert of_mode is not None
    return of_mode._replace(probability=1 - (1 - of_mode.probability) ** 100)


@pytest.mark.parametrize("equipment", [*BOTH, replace(ABSORPTIVE, storage_heralded=False)])
def test_an_attempt_has_the_probability_and_states_of_the_library(equipment: Equipment) -> None:
    found, wanted = link(equipment).herald(PERFECT, PERFECT), expected(equipment)
    assert found.probability == pytest.approx(wanted.probability, rel=1e-12)
    assert found.state == pytest.approx(wanted.state, abs=1e-15)
    assert found.state_minus == pytest.approx(wanted.state_minus, abs=1e-15)


def test_cycles_are_those_of_frames_and_trains() -> None:
    first, second = (link(equipment) for equipment in BOTH)
    near_ns, far_ns = first.arm_ns("a"), first.arm_ns("b")
    prepare_ns, read_ns = PERFECT.t_init_ns, PERFECT.readout_ns
    assert first.cycle_ns("keep", PERFECT, PERFECT) == prepare_ns + 5_000 + near_ns + far_ns
    assert second.cycle_ns("keep", PERFECT, PERFECT) == prepare_ns + 2_000 + 2 * far_ns
    for each, light_ns in ((first, 5_000), (second, 2_000)):
        assert each.cycle_ns("measure", PERFECT, PERFECT) == prepare_ns + light_ns + read_ns
        assert each.emission_offset_ns(PERFECT, PERFECT) == prepare_ns
    assert first.herald_back_ns("a") == first.herald_back_ns("b") == 5_000 + near_ns + far_ns
    assert second.herald_back_ns("a") == 2_000 + far_ns + near_ns
    assert second.herald_back_ns("b") == 2_000 + 2 * far_ns


@pytest.mark.parametrize("equipment", BOTH)
def test_pairs_delivered_in_virtual_time_have_the_predicted_fidelity(equipment: Equipment) -> None:
    """Kept for 2 ms in memories with T1 and T2: the state of the attempt, aged, to rounding."""
    here = world(equipment, t1_s=0.5, t2_s=0.02)
    wanted = expected(equipment)
    seen = set()
    for seed in range(8):
        on = Bench(here, seed)
        for batch, node in enumerate("ab"):
            on.tell(node, "link", start(batch))
        on.run(100 * MS)
        (first,), (second,) = on.heard("a", "link", Heralded), on.heard("b", "link", Heralded)
        common = ("herald_sequence", "cycle", "x_bit", "z_bit", "emitted_at_ns")
        assert [getattr(first, f) for f in common] == [getattr(second, f) for f in common]
        assert first.x_bit == 1
        pair = wanted.state_minus if first.z_bit else wanted.state
        assert first.goodness == pytest.approx(bell.fidelity(pair, 1, first.z_bit), abs=1e-12)
        aging = decoherence(2e-3, 0.5, 0.02).transfer
        keys = QubitKey("a", first.qubit), QubitKey("b", second.qubit)
        got = on.fabric.truth(*keys, first.emitted_at_ns + 2 * MS)
        assert got == pytest.approx(aging @ pair @ aging.T, abs=1e-12)
        seen.add(first.z_bit)
    assert seen == {0, 1}


@pytest.mark.parametrize("equipment", BOTH)
def test_heralds_are_back_when_their_light_allows(equipment: Equipment) -> None:
    here = world(equipment)
    hardware = here.links["a-b"]
    fabric = started_fabric(here, 4)
    fabric.apply("a", generate(0, 1, "a-b"))
    fabric.apply("b", generate(0, 2, "a-b"))
    replies = fabric.run(10**9)
    assert {delivery.node for delivery in replies} == {"a", "b"}
    for node, due_ns, _, message in replies:
        assert isinstance(message, Reply)
        assert due_ns == message.emitted_at_ns + hardware.herald_back_ns(node)
        cycle_ns = hardware.cycle_ns("keep", PERFECT, PERFECT)
        assert message.emitted_at_ns == message.cycle * cycle_ns + PERFECT.t_init_ns


@pytest.mark.parametrize("equipment", BOTH)
def test_measured_pairs_come_at_the_predicted_rate(equipment: Equipment) -> None:
    """Five sigma of a binomial, fixed seed: false alarm 6e-7."""
    here = world(equipment)
    fabric = started_fabric(here, 9)
    for node, sequence in (("a", 1), ("b", 2)):
        fabric.apply(node, generate(0, sequence, "a-b", kind="measure", pairs=10**7))
    until_ns = 2 * 10**9
    fabric.apply("a", stop(until_ns, 3, 1))
    made = sum(
        d.message.pairs
        for d in fabric.run(until_ns + 1)
        if d.node == "a" and isinstance(d.message, MeasuredReply)
    )
    (option,) = generation_options(here, here.links["a-b"])
    cycles = until_ns // option.measure_cycle_ns
    chance = option.probability
    assert abs(made - chance * cycles) < 5 * math.sqrt(cycles * chance * (1 - chance))


@pytest.mark.parametrize("equipment", BOTH)
def test_a_node_promises_what_the_library_says(equipment: Equipment) -> None:
    here = world(equipment)
    capability = link_capability(here, "a", here.links["a-b"])
    (option,) = capability.options
    wanted = expected(equipment)
    assert (capability.pairing, capability.kinds) == ("heralds", ["keep", "measure", "prepare"])
    assert option.probability == pytest.approx(wanted.probability)
    assert option.bright_state is None
    assert option.bell_probabilities[0] == pytest.approx(bell.fidelity(wanted.state, 1, 0))


def test_provenance_is_left_out_of_comparisons_and_kept_otherwise() -> None:
    assert link(MIDPOINT).without_provenance() == link(MIDPOINT)
    assert MIDPOINT.marked("assumed") == ABSORPTIVE.marked("assumed") == []
    assert set(TABLE_OF) == set(SCHEME_OF)


@pytest.mark.parametrize(
    ("scheme", "equipment"),
    [
        ("double-click", MIDPOINT),
        ("midpoint-source", ABSORPTIVE),
        ("midpoint-source", None),
        ("absorptive-memory", None),
    ],
)
def test_equipment_that_is_not_the_scheme_s_is_refused(scheme: Any, equipment: Any) -> None:
    with pytest.raises(ValueError, match="does not go with"):
        link(MIDPOINT, scheme=scheme, equipment=equipment)


def test_memories_that_cannot_store_are_refused_when_both_must() -> None:
    dark = replace(ABSORPTIVE, write_efficiency=1e-300)
    with pytest.raises(ValueError, match="memories store nothing"):
        link(dark).herald(PERFECT, PERFECT)
