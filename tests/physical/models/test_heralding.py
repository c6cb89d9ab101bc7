"""Single click and double click beyond the oracles: noise of the spins, bad input."""

import math
from typing import Any

import numpy as np
import pytest

from qstack.physical.models.heralding import coherence_factor, double_click, single_click
from qstack.quantum import bell, pauli


def test_bright_is_one_and_the_axes_are_a_then_b() -> None:
    heralded = single_click(alpha_a=0.4, alpha_b=0.1, eta_a=0.01, eta_b=0.01)
    weights = np.diag(pauli.to_density(heralded.state)).real
    assert weights[2] > 5 * weights[1]
    assert weights[0] == pytest.approx(0.0, abs=1e-15)


def test_the_states_are_density_matrices() -> None:
    for dark in (0.0, 0.01, 0.5):
        for alpha in (0.05, 0.5, 1.0):
            heralded = single_click(
                alpha_a=alpha,
                alpha_b=0.3,
                eta_a=0.7,
                eta_b=0.2,
                dark_probability=dark,
                visibility=0.8,
                phase_sigma_rad=0.3,
                emission_fidelity=0.95,
                double_excitation=0.05,
            )
            for pair in (heralded.state, heralded.state_minus):
                assert pair[0, 0] == pytest.approx(1.0, abs=1e-14)
                assert np.linalg.eigvalsh(pauli.to_density(pair)).min() > -1e-12


def test_emission_noise_multiplies_the_werner_weights_of_the_two_nodes() -> None:
    heralded = double_click(eta_a=0.3, eta_b=0.2, emission_fidelity=0.97)
    weight = ((4 * 0.97 - 1) / 3) ** 2
    assert np.allclose(heralded.state, bell.werner((1 + 3 * weight) / 4, 1, 0), atol=1e-14)
    assert np.allclose(heralded.state_minus, bell.werner((1 + 3 * weight) / 4, 1, 1), atol=1e-14)
    assert heralded.probability == double_click(eta_a=0.3, eta_b=0.2).probability


def test_double_excitation_dephases_each_node_and_keeps_populations() -> None:
    link = {"alpha_a": 0.1, "alpha_b": 0.2, "eta_a": 0.1, "eta_b": 0.3}
    clear, noisy = single_click(**link), single_click(**link, double_excitation=0.04)
    assert noisy.state[1, 1] == pytest.approx((1 - 0.08) ** 2 * clear.state[1, 1])
    assert noisy.state[3, 3] == pytest.approx(clear.state[3, 3])
    assert noisy.probability == clear.probability


def test_one_sided_photons_herald_without_coherence() -> None:
    heralded = single_click(alpha_a=0.5, alpha_b=0.5, eta_a=0.5, eta_b=0.0)
    assert heralded.state[1, 1] == 0.0
    assert heralded.probability == pytest.approx(0.25)


@pytest.mark.parametrize("sigma", [1e-9, 1e-4, 0.02, 0.2617, 0.2618, 0.27, 0.5, 1.0, 2.0, 30.0])
def test_the_von_mises_factor_equals_its_series_and_its_asymptote(sigma: float) -> None:
    k = sigma**-2
    if k > 100.0:
        expected = 1 - 1 / (2 * k) - 1 / (8 * k**2) - 1 / (8 * k**3) - 25 / (128 * k**4)
        tolerance = 1e-9
    else:
        terms = range(1, 200)
        i1 = math.fsum(
            math.exp((2 * n - 1) * math.log(k / 2) - math.lgamma(n) - math.lgamma(n + 1))
            for n in terms
        )
        expected, tolerance = i1 / float(np.i0(k)), 1e-12
    assert coherence_factor(sigma, "von-mises") == pytest.approx(expected, abs=tolerance)


def test_no_phase_noise_leaves_all_coherence() -> None:
    assert coherence_factor(0.0) == coherence_factor(0.0, "von-mises") == 1.0


GOOD_SINGLE = {"alpha_a": 0.1, "alpha_b": 0.1, "eta_a": 0.1, "eta_b": 0.1}
GOOD_DOUBLE = {"eta_a": 0.1, "eta_b": 0.1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha_a", -0.1),
        ("alpha_b", 1.1),
        ("eta_a", 1.1),
        ("eta_b", math.nan),
        ("dark_probability", -1e-9),
        ("visibility", 1.01),
        ("phase_sigma_rad", -0.1),
        ("phase_sigma_rad", math.inf),
        ("emission_fidelity", 0.2),
        ("emission_fidelity", 1.1),
        ("double_excitation", 1.1),
    ],
)
def test_single_click_refuses_a_value_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"is (in|finite)"):
        single_click(**{**GOOD_SINGLE, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eta_a", -0.1),
        ("eta_b", 1.1),
        ("dark_probability", 2.0),
        ("visibility", math.nan),
        ("emission_fidelity", 1.1),
    ],
)
def test_double_click_refuses_a_value_out_of_range(name: str, value: float) -> None:
    arguments: dict[str, Any] = {**GOOD_DOUBLE, name: value}
    with pytest.raises(ValueError, match="is in"):
        double_click(**arguments)


def test_a_link_that_can_never_herald_is_refused() -> None:
    with pytest.raises(ValueError, match="no herald is possible"):
        single_click(alpha_a=0.1, alpha_b=0.1, eta_a=0.0, eta_b=0.0)
    with pytest.raises(ValueError, match="no herald is possible"):
        double_click(eta_a=0.1, eta_b=0.0)


def test_an_unknown_phase_law_is_refused() -> None:
    wrong: Any = "lorentzian"
    with pytest.raises(ValueError, match="phase law"):
        coherence_factor(0.1, wrong)
