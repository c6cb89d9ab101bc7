"""Midpoint sources: closed forms against trials counted out, and states against photon numbers."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from qstack.physical.models.midpoint_source import (
    MidpointSource,
    kept_weight,
    midpoint_source,
    play_frames,
    single_pairs,
    spdc_pairs,
    trial,
)
from qstack.quantum.bell import bell_state, fidelity, werner
from qstack.quantum.pauli import to_density
from tests.physical.models.test_absorptive import qubit_readings


def source(**fields: Any) -> MidpointSource:
    plain: dict[str, Any] = {
        "pair_numbers": single_pairs(0.3),
        "efficiencies": (0.5, 0.4),
        "trials": 3,
        "false_latches": (0.02, 0.05),
    }
    return MidpointSource(**{**plain, **fields})


def by_enumeration(here: MidpointSource) -> tuple[float, float]:
    """Success of a frame and the part of it by photons at both ends, over all histories."""
    chances: dict[tuple[bool, bool, bool], float] = {}
    for pairs, chance in enumerate(here.pair_numbers):
        ends = []
        for eta, false in zip(here.efficiencies, here.false_latches, strict=True):
            photon = 1.0 - (1.0 - eta) ** pairs
            dark = 1 - photon
            outcomes = [(True, True, photon), (True, False, dark * false)]
            ends.append([*outcomes, (False, False, dark * (1 - false))])
        for (a, by_a, p_a), (b, by_b, p_b) in itertools.product(*ends):
            key = (a, b, by_a and by_b)
            chances[key] = chances.get(key, 0.0) + chance * p_a * p_b
    success = true = 0.0
    for history in itertools.product(chances, repeat=here.trials):
        weight = math.prod(chances[key] for key in history)
        first = next((key for key in history if key[0] or key[1]), None)
        if first is not None and first[0] and first[1]:
            success += weight
            true += weight * first[2]
    return success, true


@pytest.mark.parametrize("numbers", [single_pairs(0.3), (0.5, 0.3, 0.2)])
def test_a_frame_succeeds_as_often_as_its_histories_say(numbers: tuple[float, ...]) -> None:
    here = source(pair_numbers=numbers)
    success, true = by_enumeration(here)
    found = midpoint_source(here)
    assert found.probability == pytest.approx(success, rel=1e-12)
    chances = trial(here)
    assert chances.both_by_photons / chances.both == pytest.approx(true / success, rel=1e-12)


@pytest.mark.parametrize("pairs", range(1, 6))
def test_one_photon_each_of_n_pairs_is_a_werner_pair(pairs: int) -> None:
    """|n> = sum_m |n-m, m>|n-m, m> / sqrt(n+1), and of each side one photon at random."""
    terms = [(pairs - m, m) for m in range(pairs + 1)]
    pair = np.zeros((5, 5), dtype=complex)
    for of, to in itertools.product(terms, terms):
        reading = qubit_readings(of, to, 1.0)
        pair += np.multiply.outer(reading, reading) / (pairs + 1)
    kept = pair.real[np.ix_([0, 2, 3, 4], [0, 2, 3, 4])]
    weight = float(kept_weight(np.array([pairs]))[0])
    assert kept == pytest.approx(werner((1 + 3 * weight) / 4), abs=1e-12)


def test_a_perfect_source_gives_bell_pairs() -> None:
    found = midpoint_source(
        source(pair_numbers=(0.0, 1.0), efficiencies=(1.0, 1.0), false_latches=(0.0, 0.0))
    )
    assert found.probability == 1.0
    assert found.state == pytest.approx(bell_state(1, 0), abs=1e-15)
    assert found.state_minus == pytest.approx(bell_state(1, 1), abs=1e-15)


def test_fidelities_of_source_and_writing_multiply_as_weights() -> None:
    noisy = source(false_latches=(0.0, 0.0), source_fidelity=0.97, write_fidelities=(0.98, 0.95))
    weights = [(4 * f - 1) / 3 for f in (0.97, 0.98, 0.95)]
    expected = (1 + 3 * math.prod(weights)) / 4
    found = midpoint_source(noisy)
    assert fidelity(found.state, 1, 0) == pytest.approx(expected, abs=1e-14)
    assert fidelity(found.state_minus, 1, 1) == pytest.approx(expected, abs=1e-14)


def test_multi_pairs_of_down_conversion_cost_fidelity_and_more_so_with_loss() -> None:
    """Of two pairs one photon each is a Werner pair of weight 2/3: F = 3/4."""
    few = midpoint_source(source(pair_numbers=(0.0, 0.0, 1.0), false_latches=(0.0, 0.0)))
    assert fidelity(few.state, 1, 0) == pytest.approx(0.75)
    good, bad = (
        midpoint_source(
            source(pair_numbers=spdc_pairs(0.05), efficiencies=etas, false_latches=(0.0, 0.0))
        )
        for etas in ((1.0, 1.0), (0.01, 0.01))
    )
    assert 0.5 < fidelity(bad.state, 1, 0) < fidelity(good.state, 1, 0) < 1.0


def test_a_latch_without_a_photon_leaves_the_mixed_state() -> None:
    found = midpoint_source(source(efficiencies=(0.0, 0.5)))
    assert found.state == pytest.approx(np.diag([1.0, 0.0, 0.0, 0.0]))
    assert np.linalg.eigvalsh(to_density(found.state)).min() > 0.0


def test_long_frames_help_until_a_lone_latch_ends_them() -> None:
    short, long = (midpoint_source(source(trials=n)).probability for n in (1, 10_000))
    chances = trial(source())
    assert short == pytest.approx(chances.both)
    assert long == pytest.approx(chances.both / chances.any)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pair_numbers": (0.5, 0.4)}, "sum to 1"),
        ({"pair_numbers": ()}, "sum to 1"),
        ({"pair_numbers": (1.1, -0.1)}, "sum to 1"),
        ({"efficiencies": (0.1, 1.1)}, "efficiencies is in"),
        ({"false_latches": (-0.1, 0.0)}, "false_latches is in"),
        ({"trials": 0}, "trials is finite and at least 1"),
        ({"source_fidelity": 0.2}, "source_fidelity is in"),
        ({"write_fidelities": (1.0, math.nan)}, "write_fidelities is in"),
    ],
)
def test_a_value_out_of_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**fields)


def test_a_link_that_never_heralds_is_refused() -> None:
    with pytest.raises(ValueError, match="no herald is possible"):
        midpoint_source(source(efficiencies=(0.0, 0.5), false_latches=(0.0, 0.0)))


def test_sources_and_draws_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="pair_probability is in"):
        single_pairs(1.5)
    with pytest.raises(ValueError, match="lam is above 0"):
        spdc_pairs(0.0)
    with pytest.raises(ValueError, match="frames is finite and at least 1"):
        play_frames(np.random.default_rng(0), source(), 0)
