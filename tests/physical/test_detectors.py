"""Receivers of photon pairs with unlike detectors, dead time, jitter and afterpulses.

Figures of emulated attempts are within 5.1 deviations of closed forms (false alarm below 4e-7
each); the wrong models that are named lie at least as many deviations off as they say, and would
pass with less than 1e-6.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical.detector_hardware import ReceiverDetectors, StationDetectors
from qstack.physical.fabric.receiver import Receiver, live_ones
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.link_equipment import Equipment
from qstack.physical.models.absorptive import AbsorptiveLink, click_probability
from qstack.physical.models.cycles import blinded_probability, multiplexed_probability
from qstack.physical.models.detector import detected_rate_hz
from qstack.physical.models.pair_source import PairSource, gain, outcome_table
from qstack.physical.models.receiver import (
    ALIKE,
    Detector,
    click_patterns,
    coincidences,
    gate_acceptance,
    side_detectors,
    stray_share,
)
from qstack.physical.prediction import generation_options
from qstack.physical.service import Detections
from qstack.wire.message import Basis, BasisProbabilities
from qstack.wire.packed import BASES
from tests.physical import test_photon_pair_link as ideal
from tests.physical.calls import MS
from tests.physical.models.test_emulated_attempts import ABSORPTIVE
from tests.physical.test_drift_of_schemes import retrieved, world_of
from tests.physical.test_photon_pair_link import lists_of, measuring, within
from tests.physical.worlds import Bench, source_world

ALL = BasisProbabilities(0.3, 0.3, 0.4)


def detectors(**changes: Any) -> ReceiverDetectors:
    fields: dict[str, Any] = {
        "dead_time_ns": 0,
        "jitter_ps": 0.0,
        "gate_ps": 1000.0,
        "afterpulse_probability": 0.0,
        "afterpulse_decay_ns": 0.0,
        "first_end_share": 1.0,
        "second_end_share": 1.0,
    }
    return ReceiverDetectors(**(fields | changes))


def real_world(kind: ReceiverDetectors, **source: Any) -> World:
    world = source_world(**source)
    link = replace(world.links["a-b"], detectors=kind)
    return World(nodes=world.nodes, links={link.id: link})


def run(kind: ReceiverDetectors, ms: int, basis: Any = "Z", **source: Any) -> tuple[Bench, int]:
    """A bench in which both ends read for so long, and the slots they were told of."""
    on = Bench(real_world(kind, **source), 11)
    on.tell("a", "link", measuring(1, basis))
    on.tell("b", "link", measuring(9, basis))
    on.run(ms * MS)
    return on, min(on.heard(node, "link", Detections)[-1].until_slot for node in "ab")


def link_of(on: Bench) -> LinkHardware:
    return on.world.links["a-b"]


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bases", [("X", "X"), ("Y", "Y"), ("X", "Z")])
def test_like_detectors_that_are_always_ready_are_those_of_the_pair_source(bases: Any) -> None:
    source = PairSource(
        mean_pairs=0.3, efficiencies=(0.4, 0.6), backgrounds=(1e-3, 2e-3), misalignment=0.03
    )
    patterns = click_patterns(source, *bases)
    assert patterns.sum() == pytest.approx(1.0, abs=1e-11)
    assert patterns[1].sum() == pytest.approx(0.0, abs=1e-12)  # nothing gets lost
    seen = coincidences(patterns, Detector(probability=0.0))
    assert seen == pytest.approx(outcome_table(source, *bases)[1:, 1:], abs=1e-14)


def test_a_weak_detector_clicks_by_its_own_efficiency_and_ties_coincidences_to_bases() -> None:
    """One photon each way: coincidences of equal bases (1 + s t)/2, of unlike (1+s)(1+t)/4."""
    source = PairSource(mean_pairs=1e-6, efficiencies=(0.5, 0.8))
    s, t = 0.6, 0.5
    counts = {}
    pairs: list[tuple[Basis, Basis]] = [("Z", "Z"), ("X", "X"), ("X", "Z")]
    for first, second in pairs:
        patterns = click_patterns(source, first, second, ((1.0, s), (1.0, t)))
        counts[first + second] = coincidences(patterns, Detector(probability=0.0)).sum() / (
            2e-6 * 0.4
        )
        weak = side_detectors(patterns, 1, Detector(probability=0.0))
        assert weak[1].probability / weak[0].probability == pytest.approx(t, rel=1e-4)
        assert patterns[0, 0] == pytest.approx(click_patterns(source, "Z", "Z")[0, 0], abs=1e-15)
    assert counts["ZZ"] == pytest.approx((1 + s * t) / 2, rel=1e-4)
    assert counts["XX"] == pytest.approx(counts["ZZ"], rel=1e-9)
    assert counts["XZ"] == pytest.approx((1 + s) * (1 + t) / 4, rel=1e-4)


def test_a_detector_counts_as_the_textbook_says() -> None:
    """R / (1 + R tau), in slots; and with afterpulses, each in a live slot of its own."""
    slow = Detector(probability=0.01, dead_slots=50)
    assert slow.click_probability == pytest.approx(detected_rate_hz(0.01, 50.0))
    assert slow.live_share == pytest.approx(1.0 - 50 * slow.click_probability)
    assert slow.afterpulses == pytest.approx(0.0, abs=1e-15)
    pulsing = Detector(probability=1e-6, dead_slots=50, afterpulse=0.1, stay=0.5)
    assert pulsing.afterpulses / pulsing.click_probability == pytest.approx(0.1, rel=1e-4)
    assert Detector(probability=0.0, afterpulse=0.1).click_probability == 0.0


def test_jitter_loses_what_comes_outside_of_the_gate() -> None:
    assert gate_acceptance(0.0, 1.0) == 1.0
    assert gate_acceptance(50e-12, 100e-12) == pytest.approx(math.erf(1 / math.sqrt(2)))
    assert stray_share(50e-12, 100e-12, 100e-12) == pytest.approx(math.erfc(1 / math.sqrt(2)))
    assert stray_share(0.0, 1.0, 1.0) == 0.0
    late = detectors(jitter_ps=500.0, gate_ps=1000.0)
    efficiencies = real_world(late).links["a-b"].pair_source().efficiencies
    assert efficiencies == pytest.approx([0.25 * math.erf(1 / math.sqrt(2))] * 2)


@pytest.mark.parametrize(
    "wrong", [{"probability": 1.1}, {"probability": 0.1, "dead_slots": -1}, {"stay": 2.0}]
)
def test_detectors_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(reversed(wrong))):
        Detector(**({"probability": 0.1} | wrong))


# --- in bulk --------------------------------------------------------------------------------------


def test_dead_time_in_bulk_is_that_of_one_click_after_the_other() -> None:
    generator = np.random.default_rng(5)
    assert not live_ones(np.zeros(0, dtype=np.int64), 0, 3).any()
    for dead in (0, 1, 7, 40):
        slots = np.cumsum(generator.geometric(0.1, 400)).astype(np.int64)
        last, expected = 12, []
        for slot in slots.tolist():
            if slot > last + dead:
                last = slot
                expected.append(slot)
        assert slots[live_ones(slots, 12, dead)].tolist() == expected


def test_a_receiver_clicks_as_its_renewal_process_over_many_parts() -> None:
    """Dead time and afterpulses, 400 000 slots in parts of 997: counts by `Detector`.

    Without afterpulses there would be 8 deviations fewer.
    """
    kind = Detector(probability=0.05, dead_slots=20, afterpulse=0.15, stay=0.8)
    generator = np.random.default_rng(8)
    receiver = Receiver(kind, np.random.default_rng(9))
    last, count, until, wanted = [-100, -100], [0, 0], 0, 0
    while until < 400_000:
        patterns = (generator.random((997, 2)) < kind.probability) @ np.array([1, 2])
        light = np.flatnonzero(patterns)
        until += 997
        part = receiver.expect(until - 997 + light, until - 997, until)
        seen = receiver.register(part, patterns[light].astype(np.uint8))
        wanted += len(part.slots)
        for place, outcome in zip(seen.places.tolist(), seen.outcomes.tolist(), strict=True):
            slot = int(part.slots[place])
            assert slot > last[outcome] + kind.dead_slots
            last[outcome] = slot
            count[outcome] += 1
    # Both may click in one slot, which counts for one of them; they do so independently here.
    doubles = kind.click_probability**2 * until
    expected = kind.click_probability * until
    assert within(sum(count), 2 * expected - doubles)
    bare = replace(kind, afterpulse=0.0).click_probability * until
    assert 2 * (expected - bare) > 8 * math.sqrt(2 * bare)
    assert wanted > sum(count)


def test_afterpulses_between_two_passes_are_seen_by_nobody() -> None:
    kind = Detector(probability=0.5, dead_slots=3, afterpulse=0.999, stay=0.9)
    receiver = Receiver(kind, np.random.default_rng(1))
    first = receiver.expect(np.array([8]), 0, 10)  # it may pulse from slot 12 on
    assert receiver.register(first, np.array([1], dtype=np.uint8)).places.tolist() == [0]
    later = receiver.expect(np.array([10**9]), 10**9, 10**9 + 10)
    assert later.slots.min() == 10**9
    assert receiver.register(later, np.array([2], dtype=np.uint8)).places[0] == 0


# --- emulated links -------------------------------------------------------------------------------


def test_a_dead_time_takes_clicks_by_the_closed_form() -> None:
    """1 us after each click: 2.0e5 of 2.5e5 clicks are left (without it: 100 deviations more)."""
    on, slots = run(detectors(dead_time_ns=1000), 500)
    link = link_of(on)
    assert link.detectors is not None
    assert link.detectors.dead_slots(10) == 99
    patterns = click_patterns(link.pair_source(), "Z", "Z")
    for side, node in enumerate("ab"):
        pair = side_detectors(patterns, side, link.detectors.kind(10))
        lit = patterns.sum(axis=1 - side)
        doubles = lit[4] * pair[0].live_share * pair[1].live_share
        expected = (sum(each.click_probability for each in pair) - doubles) * slots
        told, outcomes, _ = lists_of(on, node)
        assert within(len(told), expected)
        assert lit[1:].sum() * slots - expected > 100 * math.sqrt(expected)
        for outcome in (0, 1):
            assert np.diff(told[outcomes == outcome]).min() >= 100


def test_unlike_detectors_tie_what_is_told_to_both_bases() -> None:
    """Nine counts of coincidences by outcomes: chi-square of 36 degrees, false alarm 1e-7.

    Detectors alike, of the mean efficiency, would miss it by far more.
    """
    on, slots = run(
        detectors(first_end_share=0.6, second_end_share=0.5), 100, ALL, pair_parameter=0.05
    )
    link = link_of(on)
    assert link.detectors is not None
    pairs = ideal.coincidences(on)
    chances = (0.3, 0.3, 0.4)
    mean = replace(link.pair_source(), efficiencies=(0.25 * 0.8, 0.25 * 0.75))
    statistic = {"right": 0.0, "wrong": 0.0}
    for first, second in itertools.product(range(3), range(3)):
        mine = pairs[:, (pairs[2] == first) & (pairs[3] == second)]
        seen = np.array([[((mine[0] == x) & (mine[1] == y)).sum() for y in (0, 1)] for x in (0, 1)])
        for what, source, shares in (
            ("right", link.pair_source(), link.detectors.shares),
            ("wrong", mean, (ALIKE, ALIKE)),
        ):
            patterns = click_patterns(source, BASES[first], BASES[second], shares)
            expected = coincidences(patterns, Detector(probability=0.0))
            expected *= slots * chances[first] * chances[second]
            statistic[what] += float(((seen - expected) ** 2 / expected).sum())
    assert statistic["right"] < 105.0  # chi-square of 36 degrees: above it with 1e-8
    assert statistic["wrong"] > 500.0


def test_predicted_coincidences_are_those_of_emulated_slots() -> None:
    """All of it at once: rate and error as predicted, within 1 % beside the 5.1 deviations."""
    everything = detectors(
        dead_time_ns=200, jitter_ps=200.0, afterpulse_probability=0.05, afterpulse_decay_ns=300.0,
        first_end_share=0.7,
    )  # fmt: skip
    on, slots = run(everything, 80, pair_parameter=0.03)
    (option,) = generation_options(on.world, link_of(on))
    pairs = ideal.coincidences(on)
    count, errors = pairs.shape[1], int((pairs[0] != pairs[1]).sum())
    expected = option.probability * slots
    assert abs(count - expected) < 5.1 * math.sqrt(expected) + 0.01 * expected
    rate = 2.0 * (1.0 - option.bell_probabilities[0]) / 3.0
    assert abs(errors - rate * count) < 5.1 * math.sqrt(rate * count) + 0.01 * rate * count
    assert abs(gain(link_of(on).pair_source()) * slots - expected) > 20 * math.sqrt(expected)


def test_a_device_asks_for_the_bases_of_what_it_may_see_and_tells_those_of_what_it_did() -> None:
    pulsing = detectors(
        dead_time_ns=500, afterpulse_probability=0.2, afterpulse_decay_ns=50.0, second_end_share=0.3
    )
    on, slots = run(pulsing, 10, ALL, pair_parameter=0.05)
    told, _, bases = lists_of(on, "b")
    assert len(told) == len(bases)
    assert slots > 700_000
    for code, share in enumerate((0.3, 0.3, 0.4)):
        count = int((bases == code).sum())
        assert within(count, len(bases) * share, len(bases) * share * (1 - share))


# --- stations of trains ---------------------------------------------------------------------------


@pytest.mark.parametrize(("dead", "modes"), [(0, 30), (3, 30), (40, 30), (10, 300)])
def test_trains_succeed_as_often_as_detectors_are_live(dead: int, modes: int) -> None:
    """Four detectors played mode by mode, success by one click in each bin.

    5.1 deviations, and 1 % of the probability for what two detectors have in common. Always live
    ones would be 10 deviations off.
    """
    generator = np.random.default_rng(dead + modes)
    trains, click = 20_000, 0.02
    alone = (2.0 * click * (1.0 - click)) ** 2
    last = np.full((trains, 4), -dead - 1)
    succeeded = np.zeros(trains, dtype=np.bool_)
    for mode in range(modes):
        clicked = (generator.random((trains, 4)) < click) & (mode > last + dead)
        last[clicked] = mode
        succeeded |= (clicked[:, 0] ^ clicked[:, 1]) & (clicked[:, 2] ^ clicked[:, 3])
    chance = blinded_probability(alone, click, dead, modes)
    spread = 5.1 * math.sqrt(trains * chance * (1.0 - chance)) + 0.01 * trains * chance
    assert abs(int(succeeded.sum()) - trains * chance) < spread
    free = multiplexed_probability(alone, modes)
    assert (free == chance) == (dead == 0)
    if dead >= 10:
        assert (free - chance) * trains > 10 * math.sqrt(trains * free)


def test_a_detector_of_a_long_train_settles_to_its_live_share() -> None:
    success, click = 1e-6, 0.01
    steady = Detector(probability=click, dead_slots=100).live_share
    train = blinded_probability(success, click, 100, 10**6)
    assert train == pytest.approx(multiplexed_probability(success * steady**2, 10**6), rel=1e-3)
    assert blinded_probability(1.0, 0.5, 3, 2) == 1.0
    with pytest.raises(ValueError, match="dead_modes"):
        blinded_probability(0.1, 0.1, -1, 3)


@pytest.mark.parametrize("equipment", [ABSORPTIVE, retrieved()])
def test_a_station_with_a_dead_time_is_in_the_numbers_of_its_link(equipment: Equipment) -> None:
    link = world_of(equipment).links["a-b"]
    profiles = world_of(equipment).end_profiles("a-b")
    mode_ns = getattr(equipment, "mode_ns", None) or retrieved().memory.mode_ns
    same = replace(link, station_detectors=StationDetectors(dead_time_ns=mode_ns))
    slow = replace(link, station_detectors=StationDetectors(dead_time_ns=50 * mode_ns))
    free = link.herald(*profiles)
    assert same.herald(*profiles).probability == free.probability
    blind = slow.herald(*profiles)
    modes = getattr(equipment, "modes", None) or retrieved().memory.modes
    assert (blind.probability < free.probability) == (modes > 1)
    assert blind.state == pytest.approx(free.state)
    with pytest.raises(ValueError, match="no train of modes"):
        replace(
            link, scheme="double-click", equipment=None, station_detectors=same.station_detectors
        )


def test_a_detector_of_the_station_is_silent_by_the_thermal_light_of_both_sources() -> None:
    """Against Fock space: the sum over photon numbers of both, for overlaps 0 and 1."""
    link = AbsorptiveLink(mean_pairs=(0.3, 0.2), idler_efficiencies=(0.8, 0.5), visibility=0.0)
    numbers = np.arange(60)
    silent = 1.0
    for lam, eta in ((0.3, 0.8), (0.2, 0.5)):
        silent *= float(
            ((1 - eta / 2) ** numbers * lam**numbers / (1 + lam) ** (numbers + 1)).sum()
        )
    assert click_probability(link) == pytest.approx(1.0 - silent)
    mixed = 1.0 / (1.0 + (0.3 * 0.8 + 0.2 * 0.5) / 2)  # one mode of thermal light
    assert click_probability(replace(link, visibility=1.0)) == pytest.approx(1.0 - mixed)


def test_receivers_belong_to_photon_pair_links() -> None:
    link = real_world(detectors()).links["a-b"]
    with pytest.raises(ValueError, match="receivers go with spdc"):
        replace(link, scheme="double-click", source=None)
