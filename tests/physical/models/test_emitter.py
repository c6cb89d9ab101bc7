"""Emitters and down-conversion statistics against sums over photon numbers."""

import math
from typing import Any

import numpy as np
import pytest

from qstack.physical.models import emitter


@pytest.mark.parametrize("brightness", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("g2", [0.0, 1e-6, 0.02, 0.3])
def test_photon_numbers_have_the_brightness_and_g2_asked_for(brightness: float, g2: float) -> None:
    none, one, two = emitter.emitter_photon_numbers(brightness, g2)
    assert min(none, one, two) >= 0.0
    assert none + one + two == pytest.approx(1.0)
    assert one + two == pytest.approx(brightness)
    assert 2 * two / (one + 2 * two) ** 2 == pytest.approx(g2, rel=1e-9)


def coincidences(overlap: float, noise: float) -> float:
    """1 - 2 (coincidences / singles^2 of one input each), of signal and unlike noise photons.

    Each input has one signal photon and, with probability `noise`, another unlike all others.
    """
    both = 0.0
    for a in (0, 1):
        for b in (0, 1):
            weight = (noise if a else 1 - noise) * (noise if b else 1 - noise)
            # Like photons of the two inputs part with (1 - M)/2, any other two with 1/2.
            others = math.comb(2 + a + b, 2) - 1
            both += weight * ((1 - overlap) / 2 + others / 2)
    mean = (2 + 2 * noise) / 2
    return 1.0 - 2.0 * both / mean**2


def test_measured_visibility_is_that_of_photons_on_a_beam_splitter() -> None:
    noise = 1e-4
    g2 = 2 * noise / (1 + noise) ** 2
    slope = (coincidences(0.9, noise) - 0.9) / g2
    assert slope == pytest.approx(-(1 + 0.9), rel=1e-3)
    assert emitter.measured_visibility(0.9, g2) == pytest.approx(coincidences(0.9, noise), abs=1e-7)
    assert emitter.single_photon_overlap(emitter.measured_visibility(0.9, 0.02), 0.02) == (
        pytest.approx(0.9)
    )


def test_dephasing_and_cavities() -> None:
    assert emitter.dephased_overlap(1e-9, 2e-9) == 1.0
    assert emitter.dephased_overlap(12e-9, 6e-9) == 0.25
    assert emitter.cavity_enhanced_share(30.0, 0.03) == pytest.approx(0.9 / 1.87)
    assert emitter.cavity_enhanced_share(1.0, 0.03) == pytest.approx(0.03)


@pytest.mark.parametrize("mu", [1e-3, 0.05, 2.0])
@pytest.mark.parametrize("eta", [0.0, 1e-6, 0.3, 1.0])
def test_heralded_g2_is_that_of_the_sum_over_pair_numbers(mu: float, eta: float) -> None:
    numbers = np.arange(300)
    chances = np.array([emitter.thermal_pair_probability(mu, int(n)) for n in numbers])
    assert chances.sum() == pytest.approx(1.0)
    click = numbers if eta == 0.0 else 1.0 - (1.0 - eta) ** numbers
    clicked = chances * click
    mean = (clicked * numbers).sum()
    expected = (clicked * numbers * (numbers - 1)).sum() * clicked.sum() / mean**2
    assert emitter.heralded_g2(mu, eta) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: emitter.emitter_photon_numbers(1.1, 0.0), "brightness is in"),
        (lambda: emitter.emitter_photon_numbers(0.5, -0.1), "g2 is finite"),
        (lambda: emitter.emitter_photon_numbers(1.0, 0.9), "takes more than two photons"),
        (lambda: emitter.measured_visibility(1.1, 0.0), "overlap is in"),
        (lambda: emitter.single_photon_overlap(0.99, 0.1), "no photons have a visibility"),
        (lambda: emitter.single_photon_overlap(0.99, 1.0), "no photons have a visibility"),
        (lambda: emitter.dephased_overlap(1.0, 2.1), "T2 is at most 2 T1"),
        (lambda: emitter.dephased_overlap(0.0, 1.0), "lifetime_s is finite and above 0"),
        (lambda: emitter.cavity_enhanced_share(0.0, 1.0), "nothing is emitted"),
        (lambda: emitter.cavity_enhanced_share(-1.0, 0.5), "purcell is finite"),
        (lambda: emitter.thermal_pair_probability(-0.1, 1), "mean_pairs is finite"),
        (lambda: emitter.heralded_g2(0.0), "mean_pairs is finite and above 0"),
        (lambda: emitter.heralded_g2(0.1, 1.1), "herald_efficiency is in"),
    ],
)
def test_emitters_refuse_what_cannot_be(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
