"""Links: delays, cycles, efficiencies and what an attempt yields, against the published figures."""

import pytest
from msgspec.structs import replace

from qstack.physical.hardware import (
    LinkHardware,
    NodeHardware,
    Scheme,
    World,
    link_visibility,
)
from qstack.physical.models.fibre import fibre_delay_ns, silica_attenuation_db_per_km
from qstack.physical.models.heralding import Heralded
from qstack.physical.profile import Profile
from qstack.physical.profiles import load_packaged_profile
from qstack.physical.service import Kind


def link(length_m: float, *, scheme: Scheme = "double-click", **fields: float) -> LinkHardware:
    arm_m = length_m / 2.0
    return LinkHardware(
        ends=("alice", "bob"), length_m=length_m, arms_m=(arm_m, arm_m), scheme=scheme, **fields
    )


def rate_per_s(hardware: LinkHardware, profile: Profile) -> float:
    probability = hardware.herald(profile, profile).probability
    return probability * 1e9 / hardware.cycle_ns("keep", profile, profile)


def fidelity(heralded: Heralded) -> float:
    """Overlap with psi+, (1 + XX + YY - ZZ) / 4."""
    xx, yy, zz = (float(heralded.state[k, k]) for k in (1, 2, 3))
    return (1.0 + xx + yy - zz) / 4.0


@pytest.mark.parametrize(("length_m", "pairs_per_s"), [(10e3, 39), (15e3, 25), (25e3, 11)])
def test_published_ions_deliver_the_published_rates(length_m: float, pairs_per_s: int) -> None:
    assert rate_per_s(link(length_m), load_packaged_profile("ion-published")) == pytest.approx(
        pairs_per_s, abs=0.5
    )


@pytest.mark.parametrize("length_m", [10e3, 15e3, 25e3])
def test_published_ions_deliver_the_published_fidelity(length_m: float) -> None:
    ion = load_packaged_profile("ion-published")
    assert fidelity(link(length_m).herald(ion, ion)) == pytest.approx(0.944, abs=0.0015)


def test_near_term_nv_delivers_its_rate_and_fidelity_at_25_km() -> None:
    nv, hardware = load_packaged_profile("nv-near-term"), link(25e3, scheme="single-click")
    assert rate_per_s(hardware, nv) == pytest.approx(4.1, abs=0.05)
    assert fidelity(hardware.herald(nv, nv)) == pytest.approx(0.803, abs=0.002)


def test_colour_centre_delivers_next_to_nothing_at_25_km() -> None:
    assert rate_per_s(link(25e3), load_packaged_profile("colour-centre")) == pytest.approx(
        3e-4, rel=0.15
    )


def test_bench_succeeds_every_second_attempt_and_perfectly() -> None:
    bench = load_packaged_profile("bench")
    heralded = link(2.0, attenuation_db_per_km=0.0).herald(bench, bench)
    assert heralded.probability == pytest.approx(0.5)
    assert fidelity(heralded) == pytest.approx(1.0)


def test_delays_are_those_of_light_in_fibre() -> None:
    assert fibre_delay_ns(10_000.0) == pytest.approx(48_967.2, abs=0.1)
    hardware = link(10_000.0)
    assert (hardware.delay_ns, hardware.arm_ns("alice"), hardware.arm_ns("bob")) == (
        48_967, 24_484, 24_484,
    )  # fmt: skip


def test_arms_belong_to_their_ends() -> None:
    hardware = LinkHardware(
        ends=("alice", "bob"), length_m=4e3, arms_m=(1e3, 3e3), scheme="double-click"
    )
    assert hardware.arm_ns("alice") < hardware.arm_ns("bob")
    assert hardware.other_end("alice") == "bob"
    assert hardware.id == "alice-bob"
    ion = load_packaged_profile("ion-published")
    assert hardware.efficiency("alice", ion) == pytest.approx(0.111 * 10 ** (-0.02))
    assert hardware.efficiency("bob", ion) == pytest.approx(0.111 * 10 ** (-0.06))


def test_extra_loss_is_in_each_arm() -> None:
    ion = load_packaged_profile("ion-published")
    lossy = link(10e3, extra_loss_db=3.0)
    assert lossy.efficiency("bob", ion) == pytest.approx(
        link(10e3).efficiency("bob", ion) * 10**-0.3
    )


def test_kept_cycle_waits_for_the_herald_over_the_longer_arm() -> None:
    ion = load_packaged_profile("ion-published")
    hardware = LinkHardware(
        ends=("alice", "bob"), length_m=4e3, arms_m=(1e3, 3e3), scheme="double-click"
    )
    assert hardware.cycle_ns("keep", ion, ion) == 51_000 + 2 * hardware.arm_ns("bob")


def test_measured_cycle_is_pipelined_and_ends_with_the_readout() -> None:
    ion = load_packaged_profile("ion-published")
    assert link(10e3).cycle_ns("measure", ion, ion) == 51_000 + 1_500_000


@pytest.mark.parametrize("kind", ["keep", "measure"])
def test_cycle_is_that_of_the_slower_end(kind: Kind) -> None:
    ion = load_packaged_profile("ion-published")
    slow = replace(ion, t_emit_ns=20_000)
    hardware = link(10e3)
    cycles = [hardware.cycle_ns(kind, *ends) for ends in ((ion, slow), (slow, ion))]
    assert cycles == [hardware.cycle_ns(kind, ion, ion) + 5_000] * 2


def test_single_click_takes_alpha_from_the_profile_unless_told() -> None:
    nv, hardware = load_packaged_profile("nv-near-term"), link(25e3, scheme="single-click")
    default = hardware.herald(nv, nv).probability
    assert hardware.herald(nv, nv, alpha=0.1).probability == default
    assert hardware.herald(nv, nv, alpha=0.2).probability == pytest.approx(2 * default, rel=0.01)


def test_unlike_ends_lie_between_like_ones() -> None:
    published, projected = (
        load_packaged_profile("ion-published"),
        load_packaged_profile("ion-projected"),
    )
    hardware = link(10e3)
    low, middle, high = (
        fidelity(hardware.herald(*ends))
        for ends in ((published,) * 2, (published, projected), (projected,) * 2)
    )
    assert low < middle < high
    assert link_visibility(published, projected) == pytest.approx((0.89 * 0.95) ** 0.5)


def test_noise_of_two_spins_multiplies() -> None:
    nv, hardware = load_packaged_profile("nv-near-term"), link(25e3, scheme="single-click")
    clean = replace(nv, double_excitation=0.0, phase_sigma_rad=0.0, visibility=1.0)
    excited, noisy = replace(clean, double_excitation=0.1), replace(clean, emission_fidelity=0.85)
    none = hardware.herald(clean, clean).state[1, 1]
    assert hardware.herald(excited, excited).state[1, 1] / none == pytest.approx(0.8)
    assert hardware.herald(excited, clean).state[1, 1] / none == pytest.approx(0.8**0.5)
    assert hardware.herald(noisy, noisy).state[1, 1] / none == pytest.approx(0.64)
    assert hardware.herald(clean, noisy).state[1, 1] / none == pytest.approx(0.8)


def test_better_detectors_at_one_end_do_not_resolve_numbers() -> None:
    ion = load_packaged_profile("ion-published")
    resolving = replace(ion, number_resolving=True)
    hardware = link(10e3)
    assert fidelity(hardware.herald(resolving, resolving)) > fidelity(hardware.herald(ion, ion))
    assert fidelity(hardware.herald(ion, resolving)) == fidelity(hardware.herald(ion, ion))


def test_link_with_a_delay_below_one_nanosecond_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="less than 1 ns"):
        link(0.3)


def test_link_whose_arms_are_not_its_length_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        LinkHardware(ends=("a", "b"), length_m=10.0, arms_m=(5.0, 6.0), scheme="double-click")


@pytest.mark.parametrize("ends", [("bob", "alice"), ("bob", "bob")])
def test_ends_are_two_names_in_order(ends: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="in the order of their names"):
        LinkHardware(ends=ends, length_m=10.0, arms_m=(5.0, 5.0), scheme="double-click")


def test_stranger_has_no_arm() -> None:
    with pytest.raises(ValueError, match="carol"):
        link(10.0).arm_ns("carol")


@pytest.mark.parametrize(
    ("wavelength_nm", "db_per_km"),
    [(1550, 0.2), (1588, 0.2), (637, 5.0), (422, 30.0), (50, 1000.0), (9000, 1000.0)],
)
def test_silica_attenuation_of_known_wavelengths(wavelength_nm: float, db_per_km: float) -> None:
    assert silica_attenuation_db_per_km(wavelength_nm) == pytest.approx(db_per_km)


def test_world_knows_the_profiles_at_the_ends_of_a_link() -> None:
    ion, bench, hardware = (
        load_packaged_profile("ion-published"),
        load_packaged_profile("bench"),
        link(10e3),
    )
    world = World(
        nodes={
            "bob": NodeHardware(name="bob", profile=bench, memory=4),
            "alice": NodeHardware(name="alice", profile=ion, memory=4),
        },
        links={hardware.id: hardware},
    )
    assert world.end_profiles("alice-bob") == (ion, bench)
    assert world.links_of("bob") == [hardware]
    assert world.links_of("carol") == []
