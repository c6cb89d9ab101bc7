"""What residual errors of clocks cost: against the forms of clock.py, and against integrals."""

import math
from typing import Any

import numpy as np
import pytest

from qstack.physical.models.clock import Wavepacket, delay_visibility, jitter_visibility
from qstack.physical.models.timing import gate_share, residual_visibility

SHAPES: tuple[Wavepacket, ...] = ("exponential", "gaussian")
CASES = [(0.3, 0.2), (-0.3, 0.2), (2.0, 0.5), (-4.0, 3.0), (0.01, 5.0), (0.0, 1.0), (30.0, 0.1)]


def integral(mean: float, deviation: float, of: Any) -> float:
    """The mean of a function of a Gaussian delay, by a sum over 16 deviations each way."""
    delays = mean + deviation * np.linspace(-16.0, 16.0, 400_001)
    weights = np.exp(-(((delays - mean) / deviation) ** 2) / 2.0)
    return float((of(delays) * weights).sum() / weights.sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("delay", [0.0, 0.4, -1.5])
def test_without_jitter_visibility_is_that_of_a_delay(shape: Wavepacket, delay: float) -> None:
    assert residual_visibility(delay, 0.0, 0.7, shape) == delay_visibility(delay, 0.7, shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("jitter", [0.01, 0.4, 3.0, 50.0])
def test_without_an_offset_visibility_is_that_of_jitter(shape: Wavepacket, jitter: float) -> None:
    expected = jitter_visibility(jitter, 0.7, shape)
    assert residual_visibility(0.0, jitter, 0.7, shape) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("mean", "deviation"), CASES)
def test_visibility_is_the_mean_over_the_delay(mean: float, deviation: float) -> None:
    expected = integral(mean, deviation, lambda d: np.exp(-np.abs(d)))
    assert residual_visibility(mean, deviation, 1.0, "exponential") == pytest.approx(
        expected, rel=1e-5, abs=1e-12
    )
    expected = integral(mean, deviation, lambda d: np.exp(-(d**2) / 4.0))
    assert residual_visibility(mean, deviation, 1.0, "gaussian") == pytest.approx(
        expected, rel=1e-5, abs=1e-12
    )


def exponential_share(delays: Any, gate: float) -> Any:
    """What of an exponential photon of width 1 that is late by so much falls into the gate."""
    opened = np.exp(-np.clip(-delays, 0.0, None))
    closed = np.exp(-np.clip(gate - delays, 0.0, None))
    return (opened - closed) / (1.0 - math.exp(-gate))


def gaussian_share(delays: Any, gate: float) -> Any:
    """The same of a Gaussian one, by a sum of its own."""
    times = np.linspace(-gate / 2.0, gate / 2.0, 2001)
    density = np.exp(-((times[:, None] - delays[None, ::4000]) ** 2) / 2.0).sum(axis=0)
    on_time = np.exp(-(times**2) / 2.0).sum()
    return np.interp(delays, delays[::4000], density / on_time)


@pytest.mark.parametrize(("mean", "deviation"), CASES)
@pytest.mark.parametrize("gate", [1.5, 6.0])
def test_the_gate_takes_what_of_a_photon_falls_into_it(
    mean: float, deviation: float, gate: float
) -> None:
    expected = integral(mean, deviation, lambda d: exponential_share(d, gate))
    assert gate_share(mean, deviation, 1.0, gate, "exponential") == pytest.approx(
        expected, rel=1e-4, abs=1e-9
    )
    expected = integral(mean, deviation, lambda d: gaussian_share(d, gate))
    assert gate_share(mean, deviation, 1.0, gate, "gaussian") == pytest.approx(
        expected, rel=1e-2, abs=1e-9
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_photon_on_time_is_in_its_gate_and_one_far_off_is_not(shape: Wavepacket) -> None:
    assert gate_share(0.0, 0.0, 1.0, 4.0, shape) == pytest.approx(1.0)
    assert gate_share(1e6, 0.5, 1.0, 4.0, shape) == 0.0
    assert gate_share(-1e6, 0.5, 1.0, 4.0, shape) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        (math.inf, 0.1, 1.0, "exponential"),
        (0.0, -0.1, 1.0, "exponential"),
        (0.0, 0.1, 0.0, "gaussian"),
        (0.0, 0.1, 1.0, "square"),
        (0.0, 0.0, 1.0, "square"),
    ],
)
def test_what_cannot_be_is_refused(wrong: tuple[float, float, float, Any]) -> None:
    mean, deviation, width, shape = wrong
    with pytest.raises(ValueError, match=r"finite|wavepacket"):
        residual_visibility(mean, deviation, width, shape)
    with pytest.raises(ValueError, match=r"finite|wavepacket"):
        gate_share(mean, deviation, width, 4.0, shape)
    with pytest.raises(ValueError, match="gate_s"):
        gate_share(0.0, 0.1, 1.0, 0.0, "gaussian")
