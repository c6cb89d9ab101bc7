"""Profiles of memories, pair sources and channels: every packaged one is good, bad ones say why."""

import math

import pytest

from qstack.physical.kind_figures import (
    air_figures,
    pass_figures,
    pass_moment,
    source_figures,
    stored_photon,
)
from qstack.physical.profile import Profile, ProfileError, parse_profile
from qstack.physical.profile_kinds import (
    FreeSpaceProfile,
    MemoryProfile,
    SatelliteProfile,
    SourceProfile,
    kind_of,
    parse_any_profile,
    require_kind,
)
from qstack.physical.profiles import (
    every_packaged_profile,
    load_any_packaged,
    load_packaged_profile,
    packaged_profile,
    packaged_profiles,
)

OTHERS = [name for name in every_packaged_profile() if name not in packaged_profiles()]


def problems_of(text: str) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        parse_any_profile(text, where="test")
    return caught.value.problems


def with_value(name: str, key: str, value: str) -> str:
    """The packaged profile, one of its values replaced by other TOML."""
    head, _, tail = packaged_profile(name).partition(f"[{key}]\nvalue = ")
    assert tail, f"{name} has no {key}"
    return f"{head}[{key}]\nvalue = {value}\n{tail.partition(chr(10))[2]}"


def memory(name: str) -> MemoryProfile:
    profile = load_any_packaged(name)
    assert isinstance(profile, MemoryProfile)
    return profile


def satellite() -> SatelliteProfile:
    profile = load_any_packaged("satellite")
    assert isinstance(profile, SatelliteProfile)
    return profile


def test_there_is_a_profile_of_every_kind() -> None:
    assert packaged_profiles("memory") == ["cold-atom-memory", "warm-vapour-memory"]
    assert packaged_profiles("source") == ["photon-pair-link"]
    assert packaged_profiles("channel") == ["free-space-city", "satellite"]
    assert isinstance(load_any_packaged("bench"), Profile)


@pytest.mark.parametrize("name", OTHERS)
def test_every_one_is_named_like_its_file_and_has_a_source_for_each_number(name: str) -> None:
    profile = load_any_packaged(name)
    assert profile.name == name
    numbers = {
        key
        for key in profile.__struct_fields__
        if key not in {"name", "platform", "sources"} and getattr(profile, key) is not None
    }
    assert set(profile.provenance) == numbers
    assert all(row.source for row in profile.sources)


def test_memories_have_the_numbers_of_their_sets() -> None:
    cold, warm = memory("cold-atom-memory"), memory("warm-vapour-memory")
    assert (cold.retrieval_efficiency, cold.fidelity, cold.retrieval_decay_s) == (0.9, 0.99, 1e-4)
    assert (warm.fidelity, warm.retrieval_decay_s) == (0.95, 1.6e-4)
    assert {warm.provenance[key].mark for key in ("fidelity", "retrieval_decay_s")} == {"published"}


def test_a_photon_that_waits_is_lost_by_the_law_of_its_memory() -> None:
    cold, warm = memory("cold-atom-memory"), memory("warm-vapour-memory")
    assert stored_photon(cold, 0.0) == pytest.approx((0.9, 0.99))
    assert stored_photon(cold, 1e-4).efficiency == pytest.approx(0.9 / math.e)
    assert stored_photon(cold, 2e-4).efficiency == pytest.approx(0.9 * math.exp(-4.0))
    assert stored_photon(warm, 3.2e-4).efficiency == pytest.approx(0.5 * math.exp(-2.0))
    assert stored_photon(warm, 3.2e-4).fidelity == pytest.approx(0.95)


def test_the_pair_link_delivers_what_its_set_says() -> None:
    profile = load_any_packaged("photon-pair-link")
    assert isinstance(profile, SourceProfile)
    figures = source_figures(profile, 35_000.0)
    assert figures.rate_hz == pytest.approx(1.27e5, rel=0.01)
    assert figures.sifted_hz == pytest.approx(6.4e4, rel=0.01)
    assert figures.qber == pytest.approx(0.0173, abs=1e-4)
    assert figures.rate_hz < figures.plob_rate_hz


def test_a_pass_of_the_satellite_has_the_published_loss() -> None:
    """56 to 71 dB of both arms (2020), and of the order of a pair a second."""
    profile = satellite()
    window = profile.window()
    assert window is not None
    moments = [pass_moment(profile, window.begin_s + k * window.length_s / 10) for k in range(11)]
    losses = [each.loss_db for each in moments]
    assert 55.5 < min(losses) < max(losses) < 71.0
    assert losses[5] == min(losses)
    assert moments[0].elevations_deg[1] == pytest.approx(profile.elevation_min_deg)
    assert all(each.rate_hz < each.plob_rate_hz for each in moments)
    figures = pass_figures(profile)
    assert figures.window_s == pytest.approx(window.length_s)
    assert figures.pairs == pytest.approx(
        sum(each.rate_hz for each in moments[:-1]) * window.length_s / 10, rel=0.02
    )


def test_stations_beside_the_track_are_as_far_apart_as_stations_along_it() -> None:
    text = with_value("satellite", "track_angle_deg", "90")
    turned = parse_any_profile(text, where="test")
    assert isinstance(turned, SatelliteProfile)
    first, second = turned.stations()
    along = satellite().stations()
    assert second.across_deg - first.across_deg == pytest.approx(
        along[1].along_deg - along[0].along_deg
    )
    assert abs(first.along_deg) < 1e-12


def test_a_path_through_air_loses_by_diffraction_and_air() -> None:
    profile = load_any_packaged("free-space-city")
    assert isinstance(profile, FreeSpaceProfile)
    short, long = air_figures(profile, 10_000.0), air_figures(profile, 20_000.0)
    assert short.loss_db > profile.optics_loss_db + 10.0 * profile.attenuation_db_per_km
    assert long.loss_db > short.loss_db
    assert long.plob_bits < short.plob_bits


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('kind = "memry"', "kind: 'memry' is not allowed; did you mean \"memory\"?"),
        ("kind = 3", 'kind: 3 is not allowed; expected one of "node", "memory", '
         '"source", "channel"'),
        ('kind = "channel"', 'platform: is missing; expected one of "satellite", "free-space"'),
        ('kind = "channel"\nplatform = "satelite"', "platform: 'satelite' is not allowed; did you "
         'mean "satellite"?'),
        ("kind = ", "is not TOML: Invalid value"),
        (with_value("cold-atom-memory", "fidelity", "1.1"),
         "fidelity.value: 1.1 is not allowed; expected a fidelity, 0.25 to 1"),
        (with_value("cold-atom-memory", "t1_s", "0.1"),
         "t2_s.value: inf s is longer than 2 x t1_s = 0.2 s; expected T2 <= 2 T1"),
        (with_value("photon-pair-link", "slot_rate_hz", "300_000_000"),
         "slot_rate_hz.value: the slots of 300000000 Hz do not begin at whole nanoseconds"),
        (with_value("satellite", "elevation_min_deg", "45"),
         "elevation_min_deg.value: both stations never see the satellite at 45 degrees; expected"),
        (with_value("satellite", "height_m", "500"),
         "height_m.value: 500 is not allowed; expected metres, 100000 to 10^8"),
        (packaged_profile("satellite").replace("[height_m]", "[height_km]"),
         "height_km: unknown key; this value is given in metres: expected `height_m`"),
        (packaged_profile("warm-vapour-memory").partition("[t1_s]")[0],
         "t2_s: is missing; expected { value = ..., source = ..., mark = ... } with seconds"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_was_expected(text: str, problem: str) -> None:
    assert any(line.startswith(problem) for line in problems_of(text)), problems_of(text)


def test_a_profile_of_another_kind_is_refused_where_a_node_s_is_wanted() -> None:
    with pytest.raises(ProfileError, match="is not a node"):
        load_packaged_profile("satellite")
    with pytest.raises(ProfileError, match="expected a profile of kind"):
        require_kind(satellite(), "memory", "here")
    plain = packaged_profile("bench").replace('kind = "node"\n', "")
    assert parse_profile(plain, where="test") == load_packaged_profile("bench")
    assert kind_of(load_packaged_profile("bench")) == "node"
