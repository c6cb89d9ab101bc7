"""Clocks: noise as drawn against the deviations it is said to have; interference by integrals."""

import math
from typing import Any

import numpy as np
import pytest

from qstack.physical.models import clock
from qstack.physical.models.clock import Clock


def allan(readings_s: Any, spacing_s: float, step: int) -> float:
    """The overlapping Allan deviation over `step` spacings."""
    second = readings_s[2 * step :] - 2 * readings_s[step:-step] + readings_s[: -2 * step]
    return float(np.sqrt((second**2).mean() / 2)) / (step * spacing_s)


@pytest.mark.parametrize(
    ("noise", "steps"),
    [
        ({"white_frequency": 1e-11}, (1, 10, 100)),
        ({"flicker_frequency": 1e-11}, (4, 16, 64)),
        ({"white_phase_s": 1e-10}, (1, 10, 100)),
        ({"drift_per_s": 1e-12}, (1, 10, 100)),
    ],
)
def test_noise_as_drawn_has_the_allan_deviation_it_is_said_to_have(
    noise: dict[str, float], steps: tuple[int, ...]
) -> None:
    """65 536 readings: a statistical error of 2.3 % at the most, so 5 sd and more."""
    here = Clock(**noise)
    readings = here.readings_s(np.random.default_rng(11), 65_536, 0.5)
    for step in steps:
        expected = here.allan_deviation(0.5 * step)
        assert allan(readings, 0.5, step) == pytest.approx(expected, rel=0.12)


def test_a_white_clock_wanders_by_its_deviation() -> None:
    here = Clock(white_frequency=1e-11, white_phase_s=2e-11)
    generator = np.random.default_rng(12)
    ends = [here.readings_s(generator, 11, 1.0)[-1] for _ in range(4000)]
    assert np.std(ends) == pytest.approx(here.deviation_s(10.0), rel=0.06)  # 5 sd


def test_a_quiet_clock_is_its_parabola() -> None:
    here = Clock(offset_s=1e-6, frequency=1e-9, drift_per_s=1e-12)
    readings = here.readings_s(np.random.default_rng(0), 5, 100.0)
    assert readings == pytest.approx([here.error_s(100.0 * n) for n in range(5)], abs=1e-18)
    assert here.error_s(100.0) == pytest.approx(1e-6 + 1e-7 + 5e-9)
    assert here.deviation_s(100.0) == 0.0


def test_a_way_that_is_longer_biases_the_offset_by_half_of_the_difference() -> None:
    offset_s, there_s, back_s = 3e-9, 100.2e-6, 100.0e-6
    sent_a, sent_b = 1.0, 2.0  # by the clock of whoever sends
    found = clock.two_way(sent_a, sent_a + there_s + offset_s, sent_b, sent_b + back_s - offset_s)
    bias_s = clock.asymmetry_bias_s(there_s, back_s)
    assert bias_s == pytest.approx(1e-7)
    assert found.offset_s - offset_s == pytest.approx(bias_s, abs=1e-15)
    assert found.delay_s == pytest.approx(100.1e-6, abs=1e-15)


def test_the_correlation_clock_by_drawing_coincidences() -> None:
    generator = np.random.default_rng(13)
    means = (
        generator.normal(0, 50e-12, (4000, 100))
        - generator.normal(0, 70e-12, (4000, 100))
        + generator.normal(0, 10e-12, (4000, 100))
        - generator.normal(0, 10e-12, (4000, 100))
    ).mean(axis=1)
    expected = clock.correlation_deviation_s(50e-12, 70e-12, 10e-12, 100)
    assert means.std() == pytest.approx(expected, rel=0.06)


def overlap(delay: float, detuning: float, shape: str) -> float:
    """|<a|b>|^2 of two amplitudes by integration."""
    times = np.linspace(-60.0, 60.0, 600_001)

    def amplitude(at: Any) -> Any:
        if shape == "gaussian":  # the intensity has standard deviation 2
            return np.exp(-(at**2) / 16.0) / (8.0 * math.pi) ** 0.25
        return np.where(at >= 0.0, np.exp(-np.clip(at, 0.0, None) / 4.0) / math.sqrt(2.0), 0.0)

    product = amplitude(times) * amplitude(times - delay) * np.exp(1j * detuning * times)
    return float(abs(product.sum() * (times[1] - times[0])) ** 2)


@pytest.mark.parametrize("shape", ["exponential", "gaussian"])
@pytest.mark.parametrize("delay", [0.0, 0.7, -2.0])
def test_visibility_is_the_overlap_of_the_wavepackets(shape: Any, delay: float) -> None:
    """Both of width 2: lifetime, or standard deviation of the intensity."""
    found = clock.delay_visibility(delay, 2.0, shape)
    assert found == pytest.approx(overlap(delay, 0.0, shape), abs=1e-3)


def test_detuning_is_the_overlap_too() -> None:
    found = clock.detuning_visibility(0.3, 2.0)
    assert found == pytest.approx(overlap(0.0, 0.3, "exponential"), abs=1e-3)


@pytest.mark.parametrize("shape", ["exponential", "gaussian"])
@pytest.mark.parametrize("jitter", [0.0, 0.1, 1.0, 10.0])
def test_jitter_is_the_mean_over_delays(shape: Any, jitter: float) -> None:
    grid = np.linspace(-8.0, 8.0, 40_001)
    density = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    values = [clock.delay_visibility(jitter * z, 2.0, shape) for z in grid]
    expected = float(density @ np.array(values))
    assert clock.jitter_visibility(jitter, 2.0, shape) == pytest.approx(expected, abs=1e-5)


def test_very_large_jitter_leaves_the_tail_and_no_overflow() -> None:
    small, large = (clock.jitter_visibility(j, 1.0, "exponential") for j in (19.99, 20.01))
    assert large == pytest.approx(small, rel=2e-3)
    assert 0.0 < clock.jitter_visibility(1e6, 1.0, "exponential") < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Clock(white_phase_s=-1.0), "white_phase_s is finite"),
        (lambda: Clock(flicker_frequency=math.nan), "flicker_frequency is finite"),
        (lambda: Clock().deviation_s(-1.0), "at_s is finite"),
        (lambda: Clock().allan_deviation(0.0), "interval_s is finite and above 0"),
        (lambda: Clock().readings_s(np.random.default_rng(0), 1, 1.0), "readings is finite"),
        (lambda: Clock().readings_s(np.random.default_rng(0), 9, 0.0), "spacing_s is finite"),
        (lambda: clock.asymmetry_bias_s(-1.0, 0.0), "there_s is finite"),
        (lambda: clock.correlation_deviation_s(1, 1, 1, 0), "coincidences is finite and at least"),
        (lambda: clock.delay_visibility(1.0, 0.0, "gaussian"), "width_s is finite and above 0"),
        (lambda: clock.detuning_visibility(1.0, -1.0), "lifetime_s is finite and above 0"),
        (lambda: clock.jitter_visibility(-1.0, 1.0, "gaussian"), "jitter_s is finite"),
    ],
)
def test_clocks_refuse_what_cannot_be(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_wavepacket_is_refused() -> None:
    wrong: Any = "square"
    for function in (clock.delay_visibility, clock.jitter_visibility):
        with pytest.raises(ValueError, match="a wavepacket is exponential or gaussian"):
            function(1.0, 1.0, wrong)
