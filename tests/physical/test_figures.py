"""Figures of a profile: the published ones they must give, and what cannot be asked."""

import math

import pytest
from msgspec.structs import replace

from qstack.physical.figures import pair_figures, stored_fidelity
from qstack.physical.profiles import load_packaged_profile


def test_the_nv_laboratory_succeeds_as_often_as_its_link_layer_was_told() -> None:
    """Dahlberg et al. 2019, code comments: 7.016e-5 for alpha = 0.1 (5 %: another model)."""
    figures = pair_figures(load_packaged_profile("nv-lab"), 2.0, "single-click")
    assert figures.probability == pytest.approx(7.016e-5, rel=0.05)
    assert figures.cycle_ns == 5500 + 2 * 5


def test_strontium_ions_make_the_recalled_rate_and_fidelity() -> None:
    """Stephenson et al. 2020: 182 pairs a second, 0.940; the fibre of 2 m costs 1.4 %."""
    figures = pair_figures(load_packaged_profile("strontium-ion"), 2.0, "double-click")
    assert figures.rate_hz == pytest.approx(182.0, rel=0.03)
    assert figures.fidelity == pytest.approx(0.940, abs=0.001)


@pytest.mark.parametrize(("length_km", "rate_hz"), [(10.0, 39.0), (15.0, 25.0), (25.0, 11.0)])
def test_ions_deliver_the_published_rates(length_km: float, rate_hz: float) -> None:
    figures = pair_figures(load_packaged_profile("ion-published"), 1000 * length_km, "double-click")
    assert figures.rate_hz == pytest.approx(rate_hz, rel=0.04)
    assert figures.fidelity == pytest.approx(0.944, abs=0.001)


def test_plob_is_of_the_whole_fibre_at_the_rate_of_attempts() -> None:
    """The bound for 100 km at 0.2 dB/km is 0.0144996 ebits a mode (Pirandola et al. 2017)."""
    figures = pair_figures(load_packaged_profile("ion-published"), 100e3, "double-click")
    assert figures.plob_rate_hz * figures.cycle_ns / 1e9 == pytest.approx(0.0144996, rel=1e-5)


def test_a_stored_half_decays_by_the_law_of_its_profile() -> None:
    ion = load_packaged_profile("ion-published")
    assert stored_fidelity(ion, 0.0) == pytest.approx(1.0)
    assert stored_fidelity(ion, 0.085) == pytest.approx((1.0 + math.exp(-1.0)) / 2.0)
    exponential = replace(ion, decay_law="exponential", t1_s=0.1)
    # (1 + e^{-t/T1} + 2 e^{-t/T2}) / 4
    expected = (1.0 + math.exp(-0.5) + 2.0 * math.exp(-0.05 / 0.085)) / 4.0
    assert stored_fidelity(exponential, 0.05) == pytest.approx(expected)


def test_what_cannot_be_is_refused() -> None:
    ion = load_packaged_profile("ion-published")
    with pytest.raises(ValueError, match="finite and in"):
        stored_fidelity(ion, -1.0)
    with pytest.raises(ValueError, match="less than 1 ns"):
        pair_figures(ion, 0.1, "double-click")
