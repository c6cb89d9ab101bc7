"""Swaps by gates and by retrieved photons, against the joint state of all four qubits."""

import math

import numpy as np
import pytest

from qstack.physical.models.heralding import double_click
from qstack.physical.models.swaps import (
    deterministic_swap,
    memory_photon_efficiency,
    retrieved_photon_measurement,
    retrieved_photon_swap,
    swap_outcomes,
)
from qstack.quantum import bell, figures, gates, measurement, state
from qstack.quantum.pauli import PAULIS
from tests.physical.models.test_absorptive import counted

PHI = bell.bell_state(0, 0)


@pytest.mark.parametrize("depolarising", [0.0, 0.03])
def test_a_deterministic_swap_of_werner_pairs_is_the_published_formula(depolarising: float) -> None:
    noisy = deterministic_swap(
        bell.werner(0.9),
        bell.werner(0.9),
        gate_depolarising_2q=depolarising,
        readout_f0=0.98,
        readout_f1=0.98,
    )
    expected = figures.chain_fidelity(
        0.9, 2, gate_depolarising_2q=depolarising, readout_fidelity=0.98
    )
    assert noisy.probability == 1.0
    assert bell.fidelity(noisy.state, 1, 0) == pytest.approx(expected, abs=1e-12)
    assert bell.fidelity(noisy.state_minus, 1, 1) == pytest.approx(expected, abs=1e-12)


def test_a_deterministic_swap_is_the_circuit_on_four_qubits() -> None:
    """CNOT and H on the near qubits, read out with unlike errors, and the frame undone."""
    far_a = state.apply(bell.bell_diagonal([0.8, 0.1, 0.06, 0.04]), 0, gates.gate_transfer("s"))
    far_b = bell.bell_diagonal([0.7, 0.05, 0.15, 0.1])
    joint = state.merge(far_a, far_b)  # far a, near a, near b, far b
    joint = state.apply_two(joint, 1, 2, gates.gate_transfer("cnot"))
    joint = state.apply(joint, 1, gates.gate_transfer("h"))
    mean = np.zeros((4, 4))
    for z in (0, 1):
        rest, chance_z = measurement.noisy_project(joint, 1, "Z", z, 0.95, 0.99)
        for x in (0, 1):
            left, chance_x = measurement.noisy_project(rest, 1, "Z", x, 0.95, 0.99)
            mean += chance_z * chance_x * state.apply(left, 1, gates.pauli_frame(1 - x, z))
    found = deterministic_swap(far_a, far_b, readout_f0=0.95, readout_f1=0.99)
    assert found.state == pytest.approx(mean, abs=1e-12)


def test_outcomes_that_cannot_happen_are_left_out() -> None:
    up = np.zeros((4, 4))
    up[0, 0] = up[3, 0] = up[0, 3] = up[3, 3] = 1.0  # both in state 0
    labels = [outcome.label for outcome in swap_outcomes(up, up, measurement.bell_measurement())]
    assert labels == [(0, 0), (0, 1)]


@pytest.mark.parametrize("resolving", [False, True])
def test_retrieved_photons_of_bell_pairs_are_a_double_click(resolving: bool) -> None:
    effects = retrieved_photon_measurement(
        0.5, 0.4, dark_probability=1e-3, visibility=0.9, number_resolving=resolving
    )
    found = retrieved_photon_swap(PHI, PHI, effects)
    expected = double_click(
        eta_a=0.5, eta_b=0.4, dark_probability=1e-3, visibility=0.9, number_resolving=resolving
    )
    assert found.probability == pytest.approx(expected.probability, rel=1e-14)
    assert found.state == pytest.approx(expected.state, abs=1e-14)
    assert found.state_minus == pytest.approx(expected.state_minus, abs=1e-14)


def test_retrieved_photons_of_noisy_pairs_are_those_of_photons_counted() -> None:
    """Pauli noise of a stored pair is Pauli noise of the signals of photons counted one by one."""
    effects = retrieved_photon_measurement(0.4, 0.3, dark_probability=0.01, visibility=0.85)
    first, second = bell.werner(0.9), bell.bell_diagonal([0.8, 0.1, 0.06, 0.04])
    table = counted((1, 1), (0.4, 0.3), (1.0, 1.0), 0.01, 0.85, False) / 4.0
    found = retrieved_photon_swap(first, second, effects)
    for pattern, pair in enumerate((found.state, found.state_minus)):
        ideal = table[pattern][np.ix_([0, 2, 3, 4], [0, 2, 3, 4])]
        expected = (first @ PHI) @ ideal @ (PHI @ second)
        assert found.probability / 2 * pair == pytest.approx(expected, abs=1e-14)


def test_visibility_and_retrieval_noise_cost_what_they_should() -> None:
    effects = retrieved_photon_measurement(
        0.5, 0.5, visibility=0.9, retrieval_fidelities=(0.95, 0.9)
    )
    found = retrieved_photon_swap(PHI, PHI, effects)
    clean = retrieved_photon_swap(PHI, PHI, retrieved_photon_measurement(0.5, 0.5, visibility=0.9))
    assert found.probability == pytest.approx(0.5**2 / 2)
    assert bell.fidelity(clean.state, 1, 0) == pytest.approx((1 + 0.9) / 2)
    weight = (4 * 0.95 - 1) / 3 * (4 * 0.9 - 1) / 3
    assert found.state[1:, 1:] == pytest.approx(weight * clean.state[1:, 1:], abs=1e-14)


def test_the_effects_and_what_is_lost_make_a_measurement() -> None:
    effects = retrieved_photon_measurement(0.6, 0.5, dark_probability=0.1, visibility=0.7)
    for effect in effects:
        # Coefficients of expectations: as a matrix sum_ij E_ij P_i P_j, between 0 and 1.
        matrix = sum(
            effect[i, j] * np.kron(PAULIS[i], PAULIS[j]) for i in range(4) for j in range(4)
        )
        values = np.linalg.eigvalsh(matrix)
        assert -1e-12 < values.min() <= values.max() < 1.0


def test_bad_input_is_refused() -> None:
    good = measurement.bell_measurement()
    with pytest.raises(ValueError, match="a pair is"):
        swap_outcomes(np.zeros(4), PHI, good)
    with pytest.raises(ValueError, match="readout fidelities"):
        deterministic_swap(PHI, PHI, readout_f0=1.1)
    with pytest.raises(ValueError, match="retrieval_fidelities is in"):
        retrieved_photon_measurement(0.5, 0.5, retrieval_fidelities=(0.1, 1.0))
    with pytest.raises(ValueError, match="eta_a is in"):
        retrieved_photon_measurement(1.5, 0.5)
    with pytest.raises(ValueError, match="no herald is possible"):
        retrieved_photon_measurement(0.0, 0.5)
    with pytest.raises(ValueError, match="no herald is possible"):
        retrieved_photon_swap(PHI, PHI, np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="retrieval is in"):
        memory_photon_efficiency(math.nan, 1.0, 1.0)
