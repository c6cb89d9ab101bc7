"""Memories: laws of decay, any number of touches, retrieval apart from fidelity."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstack.physical.models import storage
from qstack.physical.models.storage import PhotonMemory
from qstack.quantum import bell, channels, gates, pauli, state

TIMES = st.floats(0.0, 3.0, allow_nan=False, width=32)


@given(
    law=st.sampled_from(["exponential", "gaussian"]),
    t1_s=st.sampled_from([0.7, 5.0, math.inf]),
    t2_s=st.floats(0.05, 1.4),
    touches=st.lists(TIMES, max_size=8),
    end_s=TIMES,
)
def test_any_number_of_touches_leaves_the_same_decay(
    law: Any, t1_s: float, t2_s: float, touches: list[float], end_s: float
) -> None:
    ages = [0.0, *sorted(age for age in touches if age < end_s), end_s]
    touched = np.eye(4)
    for before, after in pairwise(ages):
        touched = storage.waiting(law, t1_s, t2_s, before, after).transfer @ touched
    whole = storage.waiting(law, t1_s, t2_s, 0.0, end_s).transfer
    assert touched == pytest.approx(whole, abs=1e-12)
    expected = math.exp(-end_s / t2_s)
    if law == "gaussian":
        expected = math.exp(-((end_s / t2_s) ** 2)) * math.exp(-end_s / (2.0 * t1_s))
    assert whole[1, 1] == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert whole[3, 3] == pytest.approx(math.exp(-end_s / t1_s), rel=1e-9)


def test_a_gaussian_law_by_elapsed_times_alone_would_be_seen() -> None:
    """The wrong model: each wait from age 0. Ten touches would make T2 look sqrt(10) longer."""
    right = np.eye(4)
    wrong = np.eye(4)
    for step in range(10):
        right = (
            storage.waiting("gaussian", math.inf, 1.0, 0.1 * step, 0.1 * (step + 1)).transfer
            @ right
        )
        wrong = storage.waiting("gaussian", math.inf, 1.0, 0.0, 0.1).transfer @ wrong
    assert right[1, 1] == pytest.approx(math.exp(-1.0))
    assert wrong[1, 1] == pytest.approx(math.exp(-0.1))


def test_collective_dephasing_is_the_mean_over_a_common_angle() -> None:
    angles = np.linspace(-9.0, 9.0, 4001) * math.sqrt(2.0) * 0.4
    weights = np.exp(-(angles**2) / (2 * 2 * 0.4**2))
    weights /= weights.sum()
    mean = np.zeros((16, 16))
    for angle, weight in zip(angles, weights, strict=True):
        turn = gates.gate_transfer("rz", float(angle))
        mean += weight * np.kron(turn, turn)
    assert storage.collective_dephasing(0.4, 1.0) == pytest.approx(mean, abs=1e-9)


def test_collective_dephasing_spares_psi_and_strikes_phi_four_times() -> None:
    noise = storage.collective_dephasing(0.5, 1.0)
    psi = state.apply_two(bell.bell_state(1, 0), 0, 1, noise)
    phi = state.apply_two(bell.bell_state(0, 0), 0, 1, noise)
    assert psi == pytest.approx(bell.bell_state(1, 0))
    assert phi[1, 1] == pytest.approx(math.exp(-4 * 0.25))
    alone = state.discard(state.apply_two(state.merge([1, 1, 0, 0], [1, 1, 0, 0]), 0, 1, noise), 1)
    assert alone[1] == pytest.approx(math.exp(-0.25))
    lone = storage.waiting("gaussian", math.inf, 1.0, 0.0, 0.5).transfer
    assert alone[1] == pytest.approx(lone[1, 1])


def test_spectators_keep_1_over_e_after_n_attempts() -> None:
    assert storage.spectator_coherence(1400, 1400) == pytest.approx(math.exp(-1.0))
    assert storage.spectator_coherence(0, 1400) == 1.0


def comb(**fields: Any) -> PhotonMemory:
    plain: dict[str, Any] = {
        "write_efficiency": 0.8,
        "retrieval_efficiency": 0.5,
        "retrieval_decay_s": 1e-4,
        "retrieval_law": "exponential",
        "fidelity": 0.95,
        "t2_s": 1e-3,
    }
    return PhotonMemory(**{**plain, **fields})


def test_efficiency_and_fidelity_are_two_things() -> None:
    memory = comb()
    assert memory.efficiency(1e-4) == pytest.approx(0.8 * 0.5 * math.exp(-1.0))
    pair = memory.retrieved(bell.bell_state(0, 0), 1, 1e-4)
    assert pair[0, 0] == 1.0  # what came out is a pair, however rarely
    weight, left = (4 * 0.95 - 1) / 3, math.exp(-0.1)
    assert pair[1, 1] == pytest.approx(weight * left)
    assert pair[3, 3] == pytest.approx(weight)
    rho = pauli.to_density(pair)
    assert np.linalg.eigvalsh(rho).min() > 0.0


def test_a_fixed_delay_gives_light_back_then_and_at_no_other_time() -> None:
    memory = comb(fixed_delay_s=2.5e-5, modes=100)
    assert memory.efficiency(2.5e-5) > 0.0
    assert memory.efficiency(2.4e-5) == 0.0
    assert memory.can_wait_for(2.5e-5)
    assert not memory.can_wait_for(2.6e-5)
    assert comb().can_wait_for(1.0)


def test_a_comb_is_better_backward_and_holds_as_many_bins_as_its_delay() -> None:
    best = max(storage.comb_efficiency(d, f, "forward") for d in range(1, 99) for f in range(2, 50))
    assert 0.5 < best < 0.542
    assert storage.comb_efficiency(4.0, 4.0, "backward") > storage.comb_efficiency(
        4.0, 4.0, "forward"
    )
    assert storage.comb_efficiency(400.0, 40.0, "backward") > 0.99
    assert storage.comb_modes(25e-6, 250e-9) == 100
    assert storage.comb_modes(1e-6, 3e-7) == 3
    wrong: Any = "sideways"
    with pytest.raises(ValueError, match="read forward or backward"):
        storage.comb_efficiency(1.0, 2.0, wrong)
    with pytest.raises(ValueError, match="finesse is finite and at least 1"):
        storage.comb_efficiency(1.0, 0.5, "forward")
    with pytest.raises(ValueError, match="mode_s is finite and above 0"):
        storage.comb_modes(1.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"write_efficiency": 1.1}, "write_efficiency is in"),
        ({"retrieval_decay_s": 0.0}, "retrieval_decay_s is finite and above 0"),
        ({"retrieval_law": "linear"}, "a law of decay is exponential or gaussian"),
        ({"law": "linear"}, "a law of decay is exponential or gaussian"),
        ({"fidelity": 0.2}, "fidelity is in 0.25..1"),
        ({"modes": 0}, "modes is finite and at least 1"),
        ({"fixed_delay_s": 0.0}, "fixed_delay_s is finite and above 0"),
        ({"t1_s": 1e-4}, "T2 is at most 2 T1"),
    ],
)
def test_a_memory_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        comb(**fields)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: comb().efficiency(-1.0), "storage_s is finite"),
        (lambda: comb().retrieved(bell.bell_state(0, 0), 0, math.inf), "storage_s is finite"),
        (lambda: comb().can_wait_for(-1.0), "herald_s is finite"),
        (lambda: storage.waiting("gaussian", 1.0, 1.0, 2.0, 1.0), "an elapsed time is finite"),
        (lambda: storage.collective_dephasing(1.0, 0.0), "T2 is positive"),
        (lambda: storage.collective_dephasing(-1.0, 1.0), "elapsed_s is finite"),
        (lambda: storage.spectator_coherence(-1, 10), "repetitions is not negative"),
        (lambda: channels.attempt_dephasing_probability(0.0), "attempts is positive"),
    ],
)
def test_times_that_cannot_be_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_law_is_refused() -> None:
    wrong: Any = "linear"
    with pytest.raises(ValueError, match="a law of decay is exponential or gaussian"):
        storage.waiting(wrong, 1.0, 1.0, 0.0, 1.0)
