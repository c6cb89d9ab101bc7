"""Links that drift: what it costs, and calibrations that both ends do together."""

import math
from typing import Any

import pytest
from msgspec.structs import replace

from qstack.physical.conditions import IDEAL, Conditions
from qstack.physical.device import BatchEnded, Calibrate, Calibrated, Generate, StopGenerate
from qstack.physical.drift_hardware import LinkDrift
from qstack.physical.fabric import Fabric
from qstack.physical.hardware import LinkHardware, Scheme, World
from qstack.physical.models.timing import polarisation_overlap
from qstack.physical.prediction import generation_options
from qstack.physical.service import AttemptsStart, CalibrateLink, LinkCalibrated, LinkCare
from qstack.quantum.bell import fidelity
from tests.physical.test_time_sync import TimedBench, timed_world
from tests.physical.worlds import started_fabric

SECOND = 1_000_000_000
MS = 1_000_000


def drift(**changes: Any) -> LinkDrift:
    fields: dict[str, Any] = {
        "delay_ps_per_s": 0.0,
        "polarisation_rad_per_root_s": 0.0,
        "phase_rad_per_root_s": 0.0,
        "loss_per_s": 0.0,
        "calibration_period_ns": 100 * SECOND,
        "calibration_ns": 200 * MS,
        "lock_duty": 1.0,
        "lock_residual_rad": 0.0,
    }
    return LinkDrift(**(fields | changes))


def drifting_world(scheme: Scheme = "double-click", **changes: Any) -> World:
    world = timed_world(None, None, scheme=scheme)
    (link,) = world.links.values()
    return World(nodes=world.nodes, links={link.id: replace(link, drift=drift(**changes))})


def link_of(world: World) -> LinkHardware:
    return world.links["a-b"]


# --- what it costs --------------------------------------------------------------------------------


def test_conditions_grow_with_the_time_since_the_calibration() -> None:
    drifting = drift(
        delay_ps_per_s=3.0,
        polarisation_rad_per_root_s=0.1,
        phase_rad_per_root_s=0.2,
        loss_per_s=0.01,
    )
    assert drifting.after(0, IDEAL) == IDEAL
    later = drifting.after(25 * SECOND, Conditions(delay_ps=7.0, phase_rad=1.0))
    assert later.delay_ps == pytest.approx(82.0)
    assert later.polarisation_rad == pytest.approx(0.5)
    assert later.phase_rad == pytest.approx(math.sqrt(2.0))
    assert later.transmission == pytest.approx(math.exp(-0.25))


def test_a_polarisation_angle_lowers_the_visibility_by_its_mean_overlap() -> None:
    world = drifting_world()
    profiles = world.end_profiles("a-b")
    heralded = link_of(world).herald_under(Conditions(polarisation_rad=0.4), *profiles)
    ideal = link_of(world).herald(*profiles)
    assert fidelity(ideal.state, 1, 0) == pytest.approx(1.0)
    overlap = (1.0 + math.exp(-2.0 * 0.16)) / 2.0
    assert polarisation_overlap(0.4) == pytest.approx(overlap)
    assert fidelity(heralded.state, 1, 0) == pytest.approx((1.0 + overlap) / 2.0)


def test_loss_takes_the_light_of_both_ends() -> None:
    world = drifting_world()
    profiles = world.end_profiles("a-b")
    few = link_of(world).herald_under(Conditions(transmission=0.5), *profiles)
    ideal = link_of(world).herald(*profiles)
    assert few.probability == pytest.approx(ideal.probability / 4.0)


def test_a_phase_that_drifts_or_is_held_loosely_lowers_the_coherence_of_single_click() -> None:
    """Coherence goes with exp(-s^2/2): drift and the lock's residual add in quadrature."""
    tight = drifting_world("single-click")
    loose = drifting_world("single-click", lock_residual_rad=0.3)
    profiles = tight.end_profiles("a-b")
    coherences = []
    for world, phase_rad in ((tight, 0.0), (tight, 0.5), (loose, 0.0), (loose, 0.4)):
        heralded = link_of(world).herald_under(Conditions(phase_rad=phase_rad), *profiles)
        coherences.append(float(heralded.state[1, 1]))
    expected = [1.0, math.exp(-0.125), math.exp(-0.045), math.exp(-0.125)]
    assert [each / coherences[0] for each in coherences] == pytest.approx(expected)


def test_a_phase_lock_takes_its_share_of_the_attempts() -> None:
    free, locked = drifting_world(), drifting_world(lock_duty=0.8)
    profiles = free.end_profiles("a-b")
    for kind in ("keep", "measure"):
        cycle_ns = link_of(free).cycle_ns(kind, *profiles)
        assert link_of(locked).cycle_ns(kind, *profiles) == math.ceil(cycle_ns / 0.8)


def test_a_node_expects_the_worst_before_a_calibration_and_the_time_that_takes() -> None:
    steady = drifting_world(calibration_ns=MS)
    world = drifting_world(
        polarisation_rad_per_root_s=0.02, calibration_ns=25 * SECOND, loss_per_s=1e-3
    )
    (ideal,) = generation_options(steady, link_of(steady))
    (option,) = generation_options(world, link_of(world))
    overlap = (1.0 + math.exp(-2.0 * 0.02**2 * 100.0)) / 2.0
    assert option.bell_probabilities[0] == pytest.approx((1.0 + overlap) / 2.0)
    assert option.probability == pytest.approx(ideal.probability * math.exp(-0.2))
    assert option.cycle_ns == pytest.approx(ideal.cycle_ns * 1.25, abs=2.0)


def test_the_fabric_draws_under_what_has_drifted_and_anew_after_a_calibration() -> None:
    world = drifting_world(polarisation_rad_per_root_s=0.1)
    fabric = started_fabric(world)
    at = fabric._circumstances.at
    before = at("a-b", 50 * SECOND)
    assert before is not None
    assert before.polarisation_rad == pytest.approx(0.1 * math.sqrt(50.0))
    assert calibrated(fabric, 60 * SECOND, 60 * SECOND) == [(True, 1), (True, 1)]
    after = at("a-b", 60 * SECOND + 200 * MS)
    assert after is not None
    assert after.polarisation_rad == 0.0
    later = at("a-b", 69 * SECOND + 200 * MS)
    assert later is not None
    assert later.polarisation_rad == pytest.approx(0.3)


# --- calibrations in the fabric -------------------------------------------------------------------


def calibrated(fabric: Fabric, *begun_ns: int) -> list[tuple[bool, int]]:
    """What the two ends are told that begin at these times."""
    for node, at_ns in zip("ab", begun_ns, strict=False):
        fabric.apply(node, Calibrate(at_ns=at_ns, sequence=at_ns // MS, link="a-b"))
    told = {}
    for delivery in fabric.run(max(begun_ns) + SECOND):
        assert isinstance(delivery.message, Calibrated)
        told[delivery.node] = delivery.message.is_good, delivery.message.calibration
        begun = begun_ns["ab".index(delivery.node)]
        assert delivery.due_ns > begun + 200 * MS
    return [told[node] for node in sorted(told)]


def test_parts_that_overlap_enough_are_one_calibration_and_others_are_none() -> None:
    fabric = started_fabric(drifting_world())
    assert calibrated(fabric, SECOND, SECOND + 100 * MS) == [(True, 1), (True, 1)]
    assert calibrated(fabric, 3 * SECOND, 3 * SECOND + 101 * MS) == [(False, 1), (False, 1)]
    assert calibrated(fabric, 5 * SECOND) == [(False, 1)]
    assert calibrated(fabric, 7 * SECOND, 7 * SECOND) == [(True, 2), (True, 2)]


def test_an_end_that_goes_down_meanwhile_leaves_the_other_without_a_calibration() -> None:
    fabric = started_fabric(drifting_world())
    for node in "ab":
        fabric.apply(node, Calibrate(at_ns=SECOND, sequence=1, link="a-b"))
    fabric.run(SECOND + MS)
    fabric.node_down("b", SECOND + MS)
    told = [(each.node, each.message) for each in fabric.run(2 * SECOND)]
    assert told == [("a", Calibrated(operation=1, is_good=False, calibration=0))]


@pytest.mark.parametrize("link", ["a-c", "none"])
def test_a_calibration_of_no_link_is_refused(link: str) -> None:
    fabric = started_fabric(drifting_world())
    fabric.apply("a", Calibrate(at_ns=0, sequence=1, link=link))
    (delivery,) = fabric.run(1)
    assert delivery.message.error == "BAD_REQUEST"


def test_a_link_that_does_not_drift_is_not_calibrated() -> None:
    fabric = started_fabric(timed_world(None, None))
    fabric.apply("a", Calibrate(at_ns=0, sequence=1, link="a-b"))
    (delivery,) = fabric.run(1)
    assert delivery.message.error == "UNSUPPORTED"


def test_while_a_node_attempts_its_link_is_not_calibrated() -> None:
    fabric = started_fabric(drifting_world())
    attempt = Generate(
        at_ns=0, sequence=1, batch=0, link="a-b", token=b"t" * 16, kind="keep", first_cycle=0,
        bright_state=None, pairs=1, basis=None, qubit=b"q" * 16,
    )  # fmt: skip
    fabric.apply("a", attempt)
    fabric.apply("a", Calibrate(at_ns=1, sequence=2, link="a-b"))
    fabric.apply("a", StopGenerate(at_ns=2, sequence=3, batch=0, reason="stopped"))
    refused, ended = (each.message for each in fabric.run(3))
    assert refused.error == "BAD_REQUEST"
    assert isinstance(ended, BatchEnded)


# --- calibrations as the link layer asks for them -------------------------------------------------


def test_the_link_layer_is_told_of_the_care_and_heralds_carry_the_number() -> None:
    bench = TimedBench(drifting_world())
    (care,) = bench.heard("a", "link", LinkCare)
    assert care == LinkCare(peer="b", period_ns=100 * SECOND, duration_ns=200 * MS, is_due=False)
    for node, peer in ("ab", "ba"):
        assert bench.tell(node, "link", CalibrateLink(peer=peer, until_ns=10**12)) == []
    bench.run(SECOND)
    for node, peer in ("ab", "ba"):
        (told,) = bench.heard(node, "link", LinkCalibrated)
        assert told == LinkCalibrated(peer=peer, is_good=True, calibration=1)
    start = AttemptsStart(
        batch=0, link="a-b", token=b"t" * 16, kind="keep", bright_state=None, pairs=1, basis=None
    )
    for node in "ab":
        bench.tell(node, "link", start)
    bench.run(2 * SECOND)
    heralds = [message for *_, message in bench.told if hasattr(message, "herald_sequence")]
    assert [herald.calibration for herald in heralds] == [1, 1]


def test_a_link_that_is_not_there_is_not_calibrated() -> None:
    bench = TimedBench(drifting_world())
    (told,) = bench.tell("a", "link", CalibrateLink(peer="c", until_ns=10**12))
    assert told == LinkCalibrated(peer="c", is_good=False, calibration=0)
