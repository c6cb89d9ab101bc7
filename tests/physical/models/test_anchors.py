"""Published experiments and studies, put together from their parts with the library."""

import json
from pathlib import Path
from typing import Any

import pytest

from qstack.physical.models import free_space
from qstack.physical.models.clock import detuning_visibility
from qstack.physical.models.cycles import keep_cycle_ns, measure_cycle_ns, pairs_per_s
from qstack.physical.models.detector import Budget, Detector, FrequencyConverter, path_budget
from qstack.physical.models.fibre import fibre_delay_ns, fibre_loss_db, transmission
from qstack.physical.models.heralding import double_click, single_click
from qstack.physical.models.rates import repeaterless_bound
from qstack.quantum.bell import fidelity

TEXT = (Path(__file__).parents[2] / "data" / "oracles.json").read_text("utf-8")
LINK_LAYER: dict[str, Any] = json.loads(TEXT)["anchors"]["dahlberg2019_psucc"]
README = Path(__file__).parents[3] / "qstack" / "physical" / "models" / "README.md"

# NV laboratory of the link-layer study: everything from emission to click, without a cavity.
LABORATORY = 3.5e-4
DETECTOR = Detector(efficiency=1.0, dark_rate_hz=20.0, window_s=25e-9)
NO_CONVERTER = FrequencyConverter(efficiency=1.0)


def clicked(first: Budget, second: Budget) -> float:
    assert first.noise_probability == second.noise_probability
    return single_click(
        alpha_a=LINK_LAYER["alpha"],
        alpha_b=LINK_LAYER["alpha"],
        eta_a=first.efficiency,
        eta_b=second.efficiency,
        dark_probability=first.noise_probability,
        visibility=0.9,
    ).probability


def test_the_laboratory_of_the_link_layer_study() -> None:
    arm = path_budget(LABORATORY, NO_CONVERTER, 1.0, DETECTOR)
    probability = clicked(arm, arm)
    assert probability == pytest.approx(LINK_LAYER["model_lab"], rel=1e-4)
    assert probability == pytest.approx(LINK_LAYER["lab_no_cavity_no_conversion"], rel=0.05)
    cycle_ns = measure_cycle_ns(5_500, 0, 4_620)
    assert pairs_per_s(probability, cycle_ns) == pytest.approx(6.9, rel=0.1)


def test_25_km_of_the_link_layer_study_with_cavity_and_conversion() -> None:
    """46 % instead of 3 % of light in the line, 30 % converted, 10 and 15 km of 0.5 dB/km."""
    converter = FrequencyConverter(efficiency=0.3)
    arms = [
        path_budget(
            LABORATORY * 0.46 / 0.03,
            converter,
            transmission(fibre_loss_db(length_m, 0.5)),
            DETECTOR,
        )
        for length_m in (10_000, 15_000)
    ]
    probability = clicked(*arms)
    assert probability == pytest.approx(LINK_LAYER["model_ql2020"], rel=1e-3)
    assert probability == pytest.approx(LINK_LAYER["ql2020_cavity_conversion"], rel=0.05)
    arms_ns = tuple(round(fibre_delay_ns(length_m)) for length_m in (10_000, 15_000))
    assert keep_cycle_ns(5_500, 0, arms_ns) == pytest.approx(165_000, rel=0.1)


def test_ions_with_two_photons() -> None:
    """The parameter set behind the fidelity 0.944 at 10, 15 and 25 km."""
    for length_m in (10_000, 15_000, 25_000):
        eta = 0.111 * transmission(fibre_loss_db(length_m / 2))
        found = double_click(eta_a=eta, eta_b=eta, dark_probability=1.4e-5, visibility=0.89)
        assert fidelity(found.state, 1, 0) == pytest.approx(0.944, abs=0.002)
    assert pairs_per_s(2.18e-4, 1e9 / 833e3) == pytest.approx(182, rel=0.01)  # strontium, 2020


def test_the_satellite_of_1120_km() -> None:
    """9.6 dB at 500 km, 15.5 at 1000 and 17.0 at 1200 by diffraction of 10 microradians alone."""
    for distance_m, wanted_db in ((500e3, 9.6), (1000e3, 15.5), (1200e3, 17.0)):
        share = free_space.diffraction_transmission(distance_m, 10e-6, 1.2)
        assert free_space.loss_db(share) == pytest.approx(wanted_db, abs=0.06)


def test_figures_every_physicist_knows() -> None:
    assert repeaterless_bound(transmission(20.0)) == pytest.approx(0.0145, abs=1e-5)
    assert detuning_visibility(1 / 12e-9, 12e-9) == pytest.approx(0.5)  # one linewidth


def test_the_example_of_the_readme_runs() -> None:
    example = README.read_text("utf-8").partition("From the parts of a link to its pairs:")[2]
    lines = example.partition("## From a module")[0].splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(line.removeprefix("    ") for line in lines), names)
    pair = names["pair"]
    assert 0.9 < fidelity(pair.state, 1, 0) <= 1.0
    assert pair.probability == pytest.approx((0.3 * 0.5 * 10**-0.2 * 0.8) ** 2 / 2, rel=0.01)
