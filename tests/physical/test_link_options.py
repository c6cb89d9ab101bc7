"""Satellite passes, paths through air, Raman noise and switches: emulated against closed forms."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical.fabric.passes import SourceModels
from qstack.physical.fabric.switchboard import Switchboard
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.link_options import (
    AirChannel,
    ClassicalTraffic,
    PassChannel,
    Signal,
    Switch,
    either,
)
from qstack.physical.models.coexistence import ClassicalLight, raman_photons_hz
from qstack.physical.models.free_space import free_space_transmission
from qstack.physical.models.heralding import double_click
from qstack.physical.models.pair_source import error_rate, gain
from qstack.physical.params import SWITCH_HOLD_NS
from qstack.physical.prediction import link_capability
from qstack.physical.profile_kinds import FreeSpaceProfile, SatelliteProfile
from qstack.physical.profiles import load_any_packaged, load_packaged_profile
from qstack.physical.service import AttemptsStop, Detections, Heralded, MeasuredPairs
from tests.physical.calls import MS, start
from tests.physical.test_photon_pair_link import coincidences, lists_of, measuring, within
from tests.physical.worlds import Bench, FixedLink, chain, source_world

SECOND = 1000 * MS


def satellite(**changes: Any) -> SatelliteProfile:
    profile = load_any_packaged("satellite")
    assert isinstance(profile, SatelliteProfile)
    return replace(profile, **changes)


NEAR: dict[str, Any] = {
    "separation_m": 200_000.0, "elevation_min_deg": 65.0, "optics_loss_db": 0.0,
    "full_divergence_rad": 2e-6, "pointing_jitter_rad": 0.0, "zenith_transmission": 0.1,
}  # fmt: skip
"""A pass of half a minute over two stations, through murky air."""


def passing(first_s: float = 20.0, interval_s: float = 100.0, **more: Any) -> PassChannel:
    profile = satellite(**(NEAR | more))
    return PassChannel(profile=profile, first_pass_s=first_s, pass_interval_s=interval_s)


def satellite_world(channel: PassChannel, **source: Any) -> World:
    world = source_world(**({"slot_rate_hz": 1_000_000, "pair_parameter": 0.02} | source))
    link = replace(world.links["a-b"], channel=channel)
    return World(nodes=world.nodes, links={link.id: link})


# --- passes --------------------------------------------------------------------------------------


def test_a_pass_in_steps_has_the_mean_of_the_pass() -> None:
    channel = PassChannel(profile=satellite(), first_pass_s=500.0, pass_interval_s=5700.0)
    steps = channel.one_pass
    window = channel.profile.window()
    assert window is not None
    assert steps[0].begin_ns == round(window.begin_s * 1e9)
    assert steps[-1].until_ns == round(window.end_s * 1e9)
    assert all(one.until_ns == two.begin_ns for one, two in pairwise(steps))
    losses = [-10 * math.log10(a * b) for _, _, (a, b) in steps]
    assert max(abs(one - two) for one, two in pairwise(losses)) < 0.15


@pytest.mark.parametrize(
    ("at_s", "number", "place"),
    [(0.0, 0, 0), (499.0, 0, None), (700.0, 1, 0), (6200.0, 1, None), (1e6, 176, 0)],
)
def test_every_time_has_its_step_or_the_next_one(
    at_s: float, number: int, place: int | None
) -> None:
    channel = PassChannel(profile=satellite(), first_pass_s=500.0, pass_interval_s=5700.0)
    found = channel.number_at(round(at_s * 1e9))
    assert found[0] == number
    step = channel.stretch(*found)
    if place is None:
        assert step.begin_ns <= at_s * 1e9 < step.until_ns
    else:
        assert found[1] == place
        assert at_s * 1e9 < step.begin_ns


def test_slots_of_a_pass_belong_to_one_step_each_and_there_are_none_between_passes() -> None:
    channel = passing(interval_s=50.0)
    link = satellite_world(channel).links["a-b"]
    models = SourceModels(link)
    slot, total, spells = 0, 0, []
    while slot < 86_000_000:  # two passes
        spell = models.next_step(slot)
        assert spell.until_slot is not None
        assert spell.first_slot >= slot
        spells.append(spell)
        total += spell.until_slot - spell.first_slot
        slot = spell.until_slot
    window = channel.profile.window()
    assert window is not None
    assert total == pytest.approx(2 * window.length_s * 1e6, abs=len(spells))
    steps = [spell.step for spell in spells]
    assert steps == 2 * [*range(len(channel.one_pass))]
    assert models.model(3, None) is models.model(3, None) is not models.model(4, None)


def test_detections_of_a_pass_have_the_closed_form_of_each_of_its_steps() -> None:
    """Counts, errors and singles by step; 5.1 sigma each: false alarm below 4e-7."""
    channel = passing(elevation_min_deg=70.0)
    world = satellite_world(channel, pair_parameter=0.2, background_probability=1e-4)
    link = world.links["a-b"]
    on = Bench(world, 3)
    on.tell("a", "link", measuring(1, "Z"))
    on.tell("b", "link", measuring(9, "Z"))
    on.run(40 * SECOND)
    for node, batch in (("a", 1), ("b", 9)):
        on.tell(node, "link", AttemptsStop(batch=batch))
    on.run(41 * SECOND)
    a, b = lists_of(on, "a"), lists_of(on, "b")
    both = np.intersect1d(a[0], b[0], assume_unique=True)
    steps = [channel.stretch(0, place) for place in range(len(channel.one_pass))]
    seen = 0
    for step in steps:
        source = link.pair_source(arms=step.transmissions)
        low, high = -(-step.begin_ns // 1000), -(-step.until_ns // 1000)
        count = int(((both >= low) & (both < high)).sum())
        assert within(count, gain(source) * (high - low))
        seen += count
        for side, slots in enumerate((a[0], b[0])):
            eta, dark = source.efficiencies[side], source.backgrounds[side]
            clicks = 1 - (1 - dark) / (1 + eta * source.mean_pairs) ** 2
            assert within(int(((slots >= low) & (slots < high)).sum()), clicks * (high - low))
    assert seen == len(both) > 5000  # none outside of the pass
    pairs = coincidences(on)
    expected = [
        (gain(source) * (step.until_ns - step.begin_ns) / 1000, error_rate(source))
        for step in steps
        for source in [link.pair_source(arms=step.transmissions)]
    ]
    errors = sum(count * rate for count, rate in expected)
    assert within(int((pairs[0] != pairs[1]).sum()), errors)


def test_a_request_before_a_pass_waits_for_it_and_one_between_passes_for_the_next() -> None:
    channel = passing(interval_s=50.0)
    on = Bench(satellite_world(channel))
    begin_ns = channel.stretch(0, 0).begin_ns
    on.tell("a", "link", measuring(1))
    on.tell("b", "link", measuring(9))
    on.run(begin_ns)
    assert not on.heard("a", "link", Detections)
    on.run(40 * SECOND)
    first = on.heard("a", "link", Detections)
    assert first[0].first_slot * 1000 >= begin_ns
    for node, batch in (("a", 1), ("b", 9)):
        on.tell(node, "link", AttemptsStop(batch=batch))
    on.run(42 * SECOND)
    assert on.heard("a", "link", Detections)[-1].is_last
    on.tell("a", "link", measuring(2))
    on.tell("b", "link", measuring(10))
    on.run(60 * SECOND)
    later = on.heard("a", "link", Detections)[len(first) + 1 :]
    assert later
    assert later[0].first_slot * 1000 >= channel.stretch(1, 0).begin_ns


def test_a_node_predicts_the_mean_of_a_pass() -> None:
    channel = passing()
    world = satellite_world(channel)
    (option,) = link_capability(world, "a", world.links["a-b"]).options
    gains = [
        gain(world.links["a-b"].pair_source(arms=step.transmissions)) for step in channel.one_pass
    ]
    assert option.probability == pytest.approx(float(np.mean(gains)), rel=1e-6)
    assert min(gains) < option.probability < max(gains)
    assert sum(option.bell_probabilities) == pytest.approx(1.0)


def test_what_a_turned_link_calls_first_is_the_profile_s_second_station() -> None:
    channel = passing()
    turned = replace(channel, is_turned=True)
    assert [step.transmissions[::-1] for step in turned.one_pass] == [
        step.transmissions for step in channel.one_pass
    ]


# --- air and classical light ---------------------------------------------------------------------


def heralded(**more: Any) -> LinkHardware:
    return LinkHardware(
        ends=("a", "b"),
        length_m=5000.0,
        arms_m=(2000.0, 3000.0),
        scheme="double-click",
        **more,
    )


def test_arms_through_air_have_the_transmission_of_the_library() -> None:
    profile = load_any_packaged("free-space-city")
    assert isinstance(profile, FreeSpaceProfile)
    ion = load_packaged_profile("ion-published")
    link = heralded(channel=AirChannel(profile=profile), extra_loss_db=1.0)
    for end, arm_m in (("a", 2000.0), ("b", 3000.0)):
        share = free_space_transmission(arm_m, profile.telescopes(), 0.2)
        expected = ion.coupling * share * 10**-0.1
        assert link.efficiency(end, ion) == pytest.approx(expected)


def traffic(*signals: tuple[str, float], efficiency: float | None = 0.8) -> ClassicalTraffic:
    return ClassicalTraffic(
        filter_nm=0.1,
        window_ns=2.0,
        raman_per_km_nm=2.5e-9,
        signals=tuple(Signal(launched_at=end, power_dbm=power) for end, power in signals),
        detector_efficiency=efficiency,
    )


def raman(power_dbm: float, direction: Any, arm_m: float) -> float:
    light = ClassicalLight(power_dbm, direction)
    return raman_photons_hz((light,), arm_m, 0.1, wavelength_nm=1550.0)


def test_light_from_one_end_scatters_forward_in_its_arm_and_back_from_the_other() -> None:
    ion = load_packaged_profile("ion-published")
    at_a = heralded(traffic=traffic(("a", -10.0)))
    noise_hz = raman(-10.0, "forward", 2000.0) + raman(-10.0 - 0.4, "backward", 3000.0)
    click = -math.expm1(-noise_hz / 2 * 0.8 * 2e-9)
    expected = double_click(
        eta_a=at_a.efficiency("a", ion),
        eta_b=at_a.efficiency("b", ion),
        dark_probability=either(ion.dark_count_probability, click),
        visibility=ion.visibility,
        emission_fidelity=ion.emission_fidelity,
    )
    found = at_a.herald(ion, ion)
    assert found.probability == pytest.approx(expected.probability, rel=1e-9)
    assert np.allclose(found.state, expected.state)
    both = heralded(traffic=traffic(("a", -10.0), ("b", -10.0)))
    assert both.herald(ion, ion).probability > found.probability > heralded().herald(ion, ion)[0]


def test_errors_of_a_link_for_keys_with_classical_light_are_those_of_the_closed_form() -> None:
    """-3 dBm beside the pairs; count, errors and singles within 5.1 sigma (4e-7 each)."""
    world = source_world(arms_m=(8000.0, 12_000.0))
    link = replace(
        world.links["a-b"],
        attenuation_db_per_km=0.2,
        traffic=traffic(("a", -3.0), ("b", -3.0), efficiency=None),
    )
    world = World(nodes=world.nodes, links={link.id: link})
    on = Bench(world, 5)
    on.tell("a", "link", measuring(1, "Z"))
    on.tell("b", "link", measuring(9, "Z"))
    on.run(300 * MS)
    source = link.pair_source()
    arriving_hz = raman(-3.0, "backward", 8000.0) + raman(-3.0 - 2.4, "forward", 8000.0)
    expected = either(2e-6, -math.expm1(-arriving_hz * 0.25 * 2e-9))
    assert source.backgrounds[0] == pytest.approx(expected, rel=1e-9)
    slots, _, _ = lists_of(on, "a")
    until = on.heard("a", "link", Detections)[-1].until_slot
    eta, dark = source.efficiencies[0], source.backgrounds[0]
    assert dark > 1e-3
    assert within(len(slots), (1 - (1 - dark) / (1 + eta * source.mean_pairs) ** 2) * until)
    pairs = coincidences(on)
    count, rate = pairs.shape[1], error_rate(source)
    assert within(count, gain(source) * until)
    assert rate > 0.05  # 1.7 % without
    assert within(int((pairs[0] != pairs[1]).sum()), count * rate, count * rate * (1 - rate))


def test_what_cannot_be_together_is_refused() -> None:
    air = load_any_packaged("free-space-city")
    assert isinstance(air, FreeSpaceProfile)
    with pytest.raises(ValueError, match="not in the air"):
        heralded(channel=AirChannel(profile=air), traffic=traffic(("a", 0.0)))
    with pytest.raises(ValueError, match="a satellite sends pairs"):
        heralded(channel=passing())


# --- switches ------------------------------------------------------------------------------------

SWITCH = Switch(name="s", insertion_loss_db=3.0, reconfiguration_ns=5 * MS)


def switched(probability: float, *, is_one: bool = True) -> Bench:
    """Links a-b and b-c, behind one switch or each behind its own."""
    world = chain("abc", probability, memory=8)
    links = {
        name: replace(link, switch=SWITCH if is_one else replace(SWITCH, name=name))
        for name, link in world.links.items()
    }
    return Bench(World(nodes=world.nodes, links=links))


def heralds(on: Bench, node: str) -> list[int]:
    return [at for at, here, _, said in on.told if here == node and isinstance(said, Heralded)]


def test_a_switch_loses_light_in_both_arms() -> None:
    ion = load_packaged_profile("ion-published")
    plain, behind = heralded(), heralded(switch=SWITCH)
    for end in ("a", "b"):
        assert behind.efficiency(end, ion) == pytest.approx(plain.efficiency(end, ion) * 10**-0.3)


def test_a_switch_is_set_before_each_change_of_link_and_not_between_pairs_of_one() -> None:
    on = switched(1.0)
    for node, link in (("a", "a-b"), ("b", "a-b"), ("b", "b-c"), ("c", "b-c")):
        on.tell(
            node, "link", start(1 if link == "a-b" else 2, link=link, token=link[0].encode() * 16)
        )
    on.run(30 * MS)
    (first,), (second,) = heralds(on, "a"), heralds(on, "c")
    assert 5 * MS < first < 5.1 * MS  # it was set to nothing before
    assert 10 * MS < second < 10.2 * MS
    on.tell("b", "link", start(3, link="b-c", token=b"x" * 16))
    on.tell("c", "link", start(3, link="b-c", token=b"x" * 16))
    on.run(40 * MS)
    assert heralds(on, "c")[1] < 30.1 * MS  # set to it still


def test_each_link_behind_a_switch_of_its_own_waits_for_nobody() -> None:
    on = switched(1.0, is_one=False)
    for node, link in (("a", "a-b"), ("b", "a-b"), ("b", "b-c"), ("c", "b-c")):
        on.tell(
            node, "link", start(1 if link == "a-b" else 2, link=link, token=link[0].encode() * 16)
        )
    on.run(30 * MS)
    assert max(heralds(on, "a") + heralds(on, "c")) < 5.1 * MS


def test_links_that_measure_on_and_on_take_turns_and_lose_the_time_of_setting() -> None:
    """Attempts succeed with 0.01 every 4.5 us; 5.1 sigma of the pairs of each link."""
    on = switched(0.01)
    for node, link in (("a", "a-b"), ("b", "a-b"), ("b", "b-c"), ("c", "b-c")):
        asked = measuring(1 if link == "a-b" else 2, "Z", link=link, token=link[0].encode() * 16)
        on.tell(node, "link", asked)
    on.run(1000 * MS)
    cycle_ns = on.world.links["a-b"].cycle_ns("measure", *on.world.end_profiles("a-b"))
    parts = sorted(
        (part.emitted_at_ns, node, part.pairs)
        for node in ("a", "c")
        for part in on.heard(node, "link", MeasuredPairs)
    )
    settings = 1 + sum(one[1] != two[1] for one, two in pairwise(parts))
    assert 6 <= settings <= 10
    expected = (parts[-1][0] - settings * 5 * MS) / cycle_ns * 0.01
    assert within(sum(pairs for _, _, pairs in parts), expected)
    turns = [[at for at, here, _ in parts if here == node] for node in ("a", "c")]
    for times in turns:
        assert sum(late - early > SWITCH_HOLD_NS for early, late in pairwise(times)) >= 2


def test_a_batch_that_is_stopped_while_it_waits_for_the_switch_lets_the_others_go_on() -> None:
    on = switched(0.0001)
    on.tell("a", "link", start(1, link="a-b"))
    on.tell("b", "link", start(1, link="a-b"))
    on.tell("b", "link", start(2, link="b-c", token=b"c" * 16))
    on.tell("c", "link", start(2, link="b-c", token=b"c" * 16))
    on.run(6 * MS)
    on.tell("c", "link", AttemptsStop(batch=2))
    on.tell("b", "link", AttemptsStop(batch=2))
    on.run(8 * MS)
    on.tell("a", "link", AttemptsStop(batch=1))
    on.tell("b", "link", AttemptsStop(batch=1))
    on.run(20 * MS)
    assert on.fabric.snapshot().batches == {"a": 0, "b": 0, "c": 0}
    assert isinstance(on.world.links["a-b"], FixedLink)


def test_a_source_between_two_pairs_of_receivers_serves_them_in_turn() -> None:
    world = source_world("abc", slot_rate_hz=1_000_000)
    first = replace(world.links["a-b"], switch=SWITCH)
    second = replace(first, ends=("b", "c"))
    on = Bench(World(nodes=world.nodes, links={"a-b": first, "b-c": second}))
    for node, link, batch in (("a", "a-b", 1), ("b", "a-b", 1), ("b", "b-c", 2), ("c", "b-c", 2)):
        on.tell(node, "link", measuring(batch, "Z", link=link, token=link[0].encode() * 16))
    on.run(1000 * MS)
    for node in ("a", "c"):
        parts = on.heard(node, "link", Detections)
        slots = sum(part.until_slot - part.first_slot for part in parts)
        assert 0.38e6 < slots < 0.55e6  # half of a second less the setting
    spans = [
        sorted((part.first_slot, part.until_slot) for part in on.heard(node, "link", Detections))
        for node in ("a", "c")
    ]
    overlap = sum(
        max(0, min(high, other[1]) - max(low, other[0]))
        for low, high in spans[0]
        for other in spans[1]
    )
    assert overlap == 0
    for node, batch in (("a", 1), ("b", 1), ("b", 2), ("c", 2)):
        on.tell(node, "link", AttemptsStop(batch=batch))
    on.run(1100 * MS)
    assert on.fabric.snapshot().batches == {"a": 0, "b": 0, "c": 0}


def test_a_switch_knows_who_attempts_and_from_when() -> None:
    links = {
        name: LinkHardware(
            ends=(name[0], name[2]),
            length_m=5000.0,
            arms_m=(2000.0, 3000.0),
            scheme="double-click",
            switch=SWITCH,
        )
        for name in ("a-b", "b-c")
    }
    links["c-d"] = replace(links["b-c"], ends=("c", "d"), switch=None)
    board = Switchboard(links)
    begun: list[tuple[str, int]] = []
    for at_ns, name in enumerate(("a-b", "b-c")):
        board.enter(name, name, at_ns, partial(lambda link, ns: begun.append((link, ns)), name))
    assert begun == [("a-b", 5 * MS)]
    assert board.from_ns("a-b", "a-b", MS) == 5 * MS
    assert board.from_ns("a-b", "a-b", 6 * MS) == 6 * MS
    assert board.from_ns("b-c", "b-c", MS) is None
    assert board.from_ns("c-d", "c-d", MS) == MS  # no switch at all
    board.leave("a-b", "a-b", 7 * MS)
    assert begun[1:] == [("b-c", 12 * MS)]
    assert not board.must_yield("b-c", 10**12)  # nobody waits
