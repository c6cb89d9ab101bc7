"""Estimates from outcomes: exact where they can be, and covering the truth as they say."""

import numpy as np
import pytest

from qstack.quantum.bell import bell_state, werner
from qstack.quantum.estimation import (
    Readout,
    agrees,
    bases_for,
    estimate,
    estimate_corrected,
    expected_correlators,
    fidelity_of,
    sampling_error,
)

PERFECT = Readout(1.0, 1.0)


def sample(pair: np.ndarray, here: Readout, there: Readout, each: int, seed: int) -> list:
    """Outcomes of `each` pairs in every basis, read with errors."""
    source = np.random.default_rng(seed)
    outcomes = []
    for axis, basis in enumerate("XYZ", start=1):
        joint = np.array(
            [
                [
                    (1 + s * pair[axis, 0] + t * pair[0, axis] + s * t * pair[axis, axis]) / 4
                    for t in (1, -1)
                ]
                for s in (1, -1)
            ]
        )
        reported = here.confusion.T @ joint @ there.confusion
        drawn = source.choice(4, size=each, p=reported.ravel())
        outcomes += [(basis, int(index // 2), int(index % 2)) for index in drawn]
    return outcomes


def test_perfect_pairs_give_fidelity_one():
    outcomes = sample(bell_state(0, 0), PERFECT, PERFECT, 50, 1)
    assert estimate(outcomes).fidelity == 1.0
    assert estimate(outcomes).standard_error > 0  # unanimity is not certainty
    assert all(agrees(*outcome) for outcome in outcomes)


def test_another_bell_state_gives_fidelity_zero():
    assert estimate(sample(bell_state(1, 0), PERFECT, PERFECT, 50, 1)).fidelity == 0.0


@pytest.mark.parametrize("fidelity", [0.5, 0.8, 0.95])
def test_the_correction_takes_out_asymmetric_readout_errors(fidelity):
    here, there = Readout(0.95, 0.995), Readout(0.9, 0.97)
    pair = werner(fidelity)
    outcomes = sample(pair, here, there, 40_000, 7)
    raw, corrected = estimate(outcomes), estimate_corrected(outcomes, here, there)
    # 4.9 standard errors: a false alarm in 1e-6 of seeds, and the seed is fixed.
    assert abs(corrected.fidelity - fidelity) < 4.9 * corrected.standard_error
    expected = fidelity_of(expected_correlators(pair, here, there))
    assert abs(raw.fidelity - expected) < 4.9 * raw.standard_error
    assert abs(raw.fidelity - fidelity) > 4.9 * raw.standard_error  # it does correct something
    assert corrected.standard_error > raw.standard_error


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    pair, hits = werner(0.8), 0
    for seed in range(400):
        result = estimate(sample(pair, PERFECT, PERFECT, 66, seed))
        hits += result.low <= 0.8 <= result.high
    assert 0.90 <= hits / 400 <= 0.99


def test_the_sampling_error_is_the_spread_of_many_estimates():
    pair = werner(0.9)
    spread = np.std([estimate(sample(pair, PERFECT, PERFECT, 40, s)).fidelity for s in range(600)])
    expected = sampling_error(expected_correlators(pair, PERFECT, PERFECT), (40, 40, 40))
    assert spread == pytest.approx(expected, rel=0.15)  # 5 standard errors of the spread


def test_bases_are_dealt_evenly():
    assert [bases_for(200).count(basis) for basis in "XYZ"] == [67, 67, 66]
    assert bases_for(2) == "XY"


def test_a_basis_without_pairs_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="no pair was measured in Z"):
        estimate([("X", 0, 0), ("Y", 0, 1)])


def test_a_readout_that_tells_nothing_cannot_be_corrected():
    with pytest.raises(ValueError, match="tells nothing"):
        estimate_corrected([("X", 0, 0)], Readout(0.5, 0.5), PERFECT)
