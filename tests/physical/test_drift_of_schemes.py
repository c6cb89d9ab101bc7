"""What drift and clocks do to links by memories and by photon pairs: closed forms, and attempts.

Figures of emulated attempts are within 5.1 deviations (false alarm below 4e-7 each); a link that
did not drift would be told apart with more than 20.
"""

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical.clock_hardware import ClockHardware, LinkTiming
from qstack.physical.conditions import IDEAL, Conditions
from qstack.physical.device import Calibrate, Calibrated, DetectionReply, MeasuredReply
from qstack.physical.fabric import Fabric
from qstack.physical.hardware import LinkHardware, NodeHardware, World
from qstack.physical.link_equipment import SCHEME_OF, Equipment
from qstack.physical.models.pair_source import (
    PairSource,
    bell_weights,
    outcome_table,
    visibility,
)
from qstack.physical.models.timing import (
    gate_share,
    pair_fading,
    polarisation_overlap,
    residual_visibility,
)
from qstack.physical.prediction import generation_options
from qstack.physical.profile_kinds import MemoryProfile, parse_any_profile
from qstack.physical.profiles import packaged_profile
from qstack.physical.retrieved_photon import RetrievedPhotonEquipment
from qstack.quantum.pauli import BASIS_INDEX
from qstack.wire.packed import unpack_bits, unpack_slots
from tests.physical.models.test_emulated_attempts import ABSORPTIVE, MIDPOINT, seed_of
from tests.physical.test_drift import drift
from tests.physical.test_fabric_reference import generate, stop
from tests.physical.test_photon_pair_link import within
from tests.physical.worlds import PERFECT, source_world, started_fabric

SECOND, MS = 1_000_000_000, 1_000_000
START_NS = 400 * SECOND
WIDTH_PS, GATE_PS = 10_000.0, 60_000.0
TIMING = LinkTiming(asymmetry_ps=0.0, wavepacket="exponential", width_ps=WIDTH_PS, gate_ps=GATE_PS)
SLOW = drift(
    polarisation_rad_per_root_s=0.02,
    phase_rad_per_root_s=0.03,
    loss_per_s=0.001,
    lock_residual_rad=0.3,
    calibration_period_ns=1000 * SECOND,
)
THEN = Conditions(
    delay_ps=3000.0,
    delay_deviation_ps=1000.0,
    polarisation_rad=0.4,
    phase_rad=0.6,
    transmission=math.exp(-0.4),
)
"""After START_NS, with the clocks below."""


def memory() -> MemoryProfile:
    profile = parse_any_profile(packaged_profile("cold-atom-memory"), where="packaged")
    assert isinstance(profile, MemoryProfile)
    return profile


def retrieved() -> RetrievedPhotonEquipment:
    return RetrievedPhotonEquipment(
        memory=memory(),
        wavelength_nm=1550.0,
        pair_efficiency=0.6,
        pair_fidelity=0.97,
        storage_ns=1000,
        path_efficiency=0.7,
        dark_count_probability=1e-4,
        visibility=0.9,
        number_resolving=False,
    )


KINDS: dict[str, Equipment] = {
    "midpoint-source": MIDPOINT,
    "absorptive-memory": ABSORPTIVE,
    "retrieved-photon": retrieved(),
}


def world_of(equipment: Equipment, **changes: Any) -> World:
    """Two nodes with clocks that nobody aligns, and a link that drifts."""
    clocks = {
        "a": ClockHardware(offset_ps=3000.0, drift_ppb=0.0, accuracy_ppb=0.0, jitter_ps=600.0),
        "b": ClockHardware(offset_ps=0.0, drift_ppb=0.0, accuracy_ppb=0.0, jitter_ps=800.0),
    }
    link = LinkHardware(
        ends=("a", "b"),
        length_m=300.0,
        arms_m=(100.0, 200.0),
        scheme=SCHEME_OF[type(equipment)],
        equipment=equipment,
        timing=TIMING,
        drift=SLOW,
    )
    nodes = {
        name: NodeHardware(name=name, profile=PERFECT, memory=4, clock=clock)
        for name, clock in clocks.items()
    }
    return World(nodes=nodes, links={"a-b": replace(link, **changes)})


# --- closed forms ---------------------------------------------------------------------------------


def test_fading_is_the_mean_of_rotations() -> None:
    """Gaussian angles, integrated: twice the polarisation's about Y, the phase's about Z."""
    angle, weight = np.polynomial.hermite_e.hermegauss(40)
    weight = weight / weight.sum()
    turned = float(weight @ np.cos(2.0 * 0.3 * angle))
    dephased = float(weight @ np.cos(0.5 * angle))
    assert pair_fading(0.3, 0.5) == pytest.approx([turned * dephased, dephased, turned])
    assert pair_fading(0.0, 0.0).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="phase_rad"):
        pair_fading(0.0, -1.0)


def test_turned_light_of_a_pair_source_errs_in_the_bases_it_is_turned_in() -> None:
    lone = PairSource(mean_pairs=1e-7, efficiencies=(0.5, 0.5))
    rotated = replace(lone, polarisation_rad=0.3)
    dephased = replace(lone, phase_rad=0.5)
    f, e = math.exp(-0.18), math.exp(-0.125)
    for source, expected in ((rotated, (f, -1.0, f)), (dephased, (e, -e, 1.0))):
        seen = [visibility(source, basis) for basis in ("X", "Y", "Z")]
        assert seen == pytest.approx(expected, abs=1e-5)
    assert bell_weights(rotated) == pytest.approx(((1 + f) / 2, 0.0, 0.0, (1 - f) / 2), abs=1e-5)
    assert bell_weights(dephased) == pytest.approx(((1 + e) / 2, (1 - e) / 2, 0.0, 0.0), abs=1e-5)
    assert outcome_table(rotated, "Z", "X") == pytest.approx(outcome_table(lone, "Z", "X"))
    with pytest.raises(ValueError, match="polarisation_rad"):
        replace(lone, polarisation_rad=-0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_drifts_is_in_the_numbers_of_each_scheme(kind: str) -> None:
    """Photons that meet: visibility and light. Pairs from the middle: light, and their state."""
    world = world_of(KINDS[kind])
    link, profiles = world.links["a-b"], world.end_profiles("a-b")
    late = THEN.delay_ps, THEN.delay_deviation_ps, WIDTH_PS
    in_gate = gate_share(*late, GATE_PS, "exponential")
    left_db = -10.0 * math.log10(THEN.transmission)
    overlap = residual_visibility(*late, "exponential") * polarisation_overlap(0.4)
    bare = replace(link, drift=None, timing=None, extra_loss_db=link.extra_loss_db + left_db)
    heralded = link.herald_under(THEN, *profiles)
    without_loss = link.herald_under(replace(THEN, transmission=1.0), *profiles)
    # The second end's photons outside the gate are loss of its arm alone: as much longer a fibre.
    missing_m = -10.0 * math.log10(in_gate) / bare.attenuation_db_per_km * 1000.0
    arms = bare.arms_m[0], bare.arms_m[1] + missing_m
    bare = replace(bare, arms_m=arms, length_m=sum(arms))
    if kind == "midpoint-source":
        expected = bare.herald(*profiles)
        faded = np.array([1.0, *pair_fading(0.4, math.hypot(0.6, 0.3))])
        states = expected.state * faded, expected.state_minus * faded
    else:
        equipment = replace(bare.equipment, visibility=bare.equipment.visibility * overlap)
        expected = replace(bare, equipment=equipment).herald(*profiles)
        states = expected.state, expected.state_minus
    assert heralded.probability == pytest.approx(expected.probability, rel=1e-9)
    assert heralded.state == pytest.approx(states[0], abs=1e-9)
    assert heralded.state_minus == pytest.approx(states[1], abs=1e-9)
    assert without_loss.probability > heralded.probability


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_expects_the_worst_before_a_calibration(kind: str) -> None:
    world = world_of(KINDS[kind])
    link, profiles = world.links["a-b"], world.end_profiles("a-b")
    (option,) = generation_options(world, link)
    worst = link.herald_under(SLOW.after(1000 * SECOND, IDEAL), *profiles)
    assert option.probability == pytest.approx(worst.probability)
    cycle_ns = link.cycle_ns("keep", *profiles)
    assert option.cycle_ns == math.ceil(cycle_ns / SLOW.availability)


def test_a_node_expects_the_same_of_a_pair_source_with_the_time_of_calibrations() -> None:
    world = source_world()
    link = replace(world.links["a-b"], drift=replace(SLOW, calibration_ns=250 * SECOND))
    (option,) = generation_options(world, link)
    source = link.pair_source(SLOW.after(1000 * SECOND, IDEAL))
    assert source.efficiencies == pytest.approx([0.25 * math.exp(-1.0)] * 2)
    assert (source.polarisation_rad, source.phase_rad) == pytest.approx(
        (0.02 * math.sqrt(1000.0), math.hypot(0.3, 0.03 * math.sqrt(1000.0)))
    )
    both = outcome_table(source, "Z", "Z")[1:, 1:].sum()
    assert option.probability == pytest.approx(both * 0.8)
    assert option.cycle_ns == 10


# --- emulated attempts ----------------------------------------------------------------------------


def attempted(fabric: Fabric, basis: Any, span_ns: int) -> list[Any]:
    """What the nodes are told of attempts from START_NS on."""
    for number, node in enumerate("ab"):
        wanted = generate(
            START_NS, 1 + number, "a-b", kind="measure", pairs=10**7, basis=basis, first_cycle=0
        )
        fabric.apply(node, wanted)
    for number, node in enumerate("ab"):
        fabric.apply(node, stop(START_NS + span_ns, 3 + number, 1 + number))
    return list(fabric.run(START_NS + span_ns + SECOND))


@pytest.mark.parametrize("kind", KINDS)
def test_attempts_are_drawn_under_what_has_drifted(kind: str) -> None:
    world = world_of(KINDS[kind])
    link, profiles = world.links["a-b"], world.end_profiles("a-b")
    attempts = 100_000
    span_ns = attempts * link.cycle_ns("measure", *profiles)
    assert span_ns < SECOND  # nothing drifts by a step meanwhile
    for basis in ("X", "Y", "Z"):
        fabric = started_fabric(world, seed_of(kind + basis))
        read: dict[str, list[Any]] = {"a": [], "b": []}
        minus = []
        for node, _, _, message in attempted(fabric, basis, span_ns):
            if isinstance(message, MeasuredReply) and message.pairs:
                read[node].append(unpack_bits(message.outcomes, message.pairs))
                if node == "a":
                    minus.append(unpack_bits(message.z_bits, message.pairs))
        here, there = (np.concatenate(read[node]) for node in "ab")
        patterns = np.concatenate(minus)
        drifted, steady = link.herald_under(THEN, *profiles), link.herald(*profiles)
        chance = drifted.probability
        assert within(len(here), attempts * chance, attempts * chance * (1 - chance))
        assert (steady.probability - chance) * attempts > 20 * math.sqrt(attempts * chance)
        place = BASIS_INDEX[basis]
        for pattern, state in enumerate((drifted.state, drifted.state_minus)):
            mine = patterns == pattern
            equal = (1.0 + float(state[place, place])) / 2.0
            count = int(mine.sum())
            seen = int((here == there)[mine].sum())
            assert within(seen, count * equal, max(25.0, count * equal * (1 - equal)))


def test_slots_of_a_pair_source_are_drawn_under_what_has_drifted_until_it_is_calibrated() -> None:
    world = source_world()
    link = replace(world.links["a-b"], drift=SLOW)
    drifted = World(nodes=world.nodes, links={"a-b": link})
    source = link.pair_source(replace(THEN, delay_ps=0.0, delay_deviation_ps=0.0))
    for basis in ("X", "Y", "Z"):
        fabric = started_fabric(drifted, seed_of("pairs" + basis))
        slots: dict[str, Any] = {"a": [], "b": []}
        bits: dict[str, Any] = {"a": [], "b": []}
        for node, _, _, message in attempted(fabric, basis, 500 * MS):
            assert isinstance(message, DetectionReply)
            assert message.calibration == 0
            slots[node].append(unpack_slots(message.slots, message.first_slot))
            bits[node].append(unpack_bits(message.outcomes, message.detections))
        table = outcome_table(source, basis, basis)[1:, 1:]
        where = {node: np.concatenate(slots[node]) for node in "ab"}
        _, here, there = np.intersect1d(
            where["a"], where["b"], assume_unique=True, return_indices=True
        )
        assert within(len(here), float(table.sum()) * 5e7)
        equal = np.concatenate(bits["a"])[here] == np.concatenate(bits["b"])[there]
        assert within(int(equal.sum()), float(np.trace(table)) * 5e7)
        steady = outcome_table(world.links["a-b"].pair_source(), basis, basis)[1:, 1:]
        assert float(steady.sum() - table.sum()) * 5e7 > 20 * math.sqrt(len(here))


def test_a_receiver_that_is_on_is_not_calibrated_and_one_that_is_off_is() -> None:
    world = source_world()
    link = replace(world.links["a-b"], drift=SLOW)
    fabric = started_fabric(World(nodes=world.nodes, links={"a-b": link}))
    told = attempted(fabric, "Z", 10 * MS)
    assert told
    at_ns = START_NS + 2 * SECOND
    for node in "ab":
        fabric.apply(node, Calibrate(at_ns=at_ns, sequence=7, link="a-b"))
    answers = [each.message for each in fabric.run(at_ns + SECOND)]
    assert answers == [Calibrated(operation=7, is_good=True, calibration=1)] * 2
    later = at_ns + 2 * SECOND
    for node, sequence in (("a", 8), ("b", 9)):
        wanted = generate(later, sequence, "a-b", kind="measure", pairs=1, basis="Z")
        fabric.apply(node, wanted)
    fabric.apply("a", Calibrate(at_ns=later + 5 * MS, sequence=10, link="a-b"))
    messages = [each.message for each in fabric.run(later + 8 * MS)]
    refusals = [each for each in messages if not isinstance(each, DetectionReply)]
    assert [each.error for each in refusals] == ["BAD_REQUEST"]
    assert {each.calibration for each in messages if isinstance(each, DetectionReply)} == {1}
    at = fabric._circumstances.at("a-b", at_ns + SECOND)
    assert at is not None
    assert at.transmission > 0.999
