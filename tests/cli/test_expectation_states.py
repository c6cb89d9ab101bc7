"""The states of the independent expectation against explicit matrices and the oracles."""

import math
from dataclasses import replace
from functools import reduce
from typing import Any

import msgspec
import numpy as np
import pytest

from qstack.cli.demo import expectation_states
from qstack.cli.demo.expectation_states import Pairs
from qstack.physical.models.heralding import single_click
from qstack.physical.profile import Profile
from qstack.physical.profiles import load_packaged_profile
from tests.cli.expectation_cases import ORACLES, SIGMAS, sigmas

# --- explicit matrices ---------------------------------------------------------------------------

PAULIS = {
    "I": np.eye(2, dtype=complex),
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1.0 + 0j, -1.0]),
}
H = np.array([[1, 1], [1, -1]], dtype=complex) / math.sqrt(2.0)
CNOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=complex)
NOISY = msgspec.structs.replace(
    load_packaged_profile("ion-projected"),
    t1_s=0.3,
    t2_s=0.2,
    gate_1q_depolarising=0.07,
    gate_2q_depolarising=0.11,
    readout_f0=0.93,
    readout_f1=0.98,
)


def kron(*factors: Any) -> Any:
    return reduce(np.kron, factors)


def density(pairs: Pairs, place: int) -> Any:
    p = PAULIS
    return (
        kron(p["I"], p["I"])
        + pairs.left_z[place] * kron(p["Z"], p["I"])
        + pairs.right_z[place] * kron(p["I"], p["Z"])
        + sum(getattr(pairs, a * 2)[place] * kron(p[a.upper()], p[a.upper()]) for a in "xyz")
    ) / 4.0


def pairs_from(density_matrix: Any, count: int) -> Pairs:
    """`count` copies, announced as psi+."""

    def mean(a: str, b: str) -> Any:
        value = np.trace(density_matrix @ kron(PAULIS[a], PAULIS[b])).real
        return np.full(count, value)

    bits = np.zeros(count, dtype=bool)
    return Pairs(
        mean("Z", "I"), mean("I", "Z"), mean("X", "X"), mean("Y", "Y"), mean("Z", "Z"), ~bits, bits
    )


def odd_pair(seed: int, count: int) -> Pairs:
    """A lopsided state of the family: populations at random, real coherences."""
    rng = np.random.default_rng(seed)
    populations = rng.dirichlet(np.ones(4))
    matrix = np.diag(populations).astype(complex)
    for a, b in ((0, 3), (1, 2)):
        matrix[a, b] = matrix[b, a] = 0.8 * math.sqrt(populations[a] * populations[b])
    return pairs_from(matrix, count)


def depolarised(matrix: Any, qubits: tuple[int, ...], p: float, total: int) -> Any:
    """rho -> (1 - p) rho + p (I / 2^k) on k qubits, by the sum over all Paulis."""
    mixed = np.zeros_like(matrix)
    letters = ["I"] * total
    for word in np.ndindex(*(4,) * len(qubits)):
        for qubit, letter in zip(qubits, word, strict=True):
            letters[qubit] = "IXYZ"[letter]
        operator = kron(*(PAULIS[a] for a in letters))
        mixed += operator @ matrix @ operator.conj().T / 4 ** len(qubits)
    return (1.0 - p) * matrix + p * mixed


def bell_measured(left: Any, right: Any, profile: Profile, x: int, z: int) -> Any:
    """The unnormalised outer pair after the circuit, gate by gate on four qubits."""
    eye = np.eye(2)
    matrix = kron(left, right)
    gate = kron(eye, CNOT, eye)
    matrix = depolarised(gate @ matrix @ gate.T, (1, 2), profile.gate_2q_depolarising, 4)
    gate = kron(eye, H, eye, eye)
    matrix = depolarised(gate @ matrix @ gate.T, (1,), profile.gate_1q_depolarising, 4)
    f0, f1 = profile.readout_f0, profile.readout_f1
    effects = (np.diag([f0, 1.0 - f1]), np.diag([1.0 - f0, f1]))
    matrix = kron(eye, effects[z], effects[x], eye) @ matrix
    return np.einsum("abcdebcf->adef", matrix.reshape((2,) * 8)).reshape(4, 4)


def test_a_noisy_swap_equals_the_circuit_on_four_qubits() -> None:
    count = 40_000
    left, right = odd_pair(1, count), odd_pair(2, count)
    joined = expectation_states.swapped(left, right, NOISY, np.random.default_rng(3))
    for x in (False, True):
        for z in (False, True):
            exact = bell_measured(density(left, 0), density(right, 0), NOISY, x, z)
            chance = np.trace(exact).real
            # both link pairs are announced as (1, 0): the sum of their bits is nothing
            places = np.flatnonzero((joined.x_bits == x) & (joined.z_bits == z))
            assert np.allclose(density(joined, places[0]), exact / chance, atol=1e-12)
            se = math.sqrt(chance * (1.0 - chance) / count)
            assert sigmas(len(places) / count, se, chance) < SIGMAS


def test_waiting_equals_the_kraus_operators_of_damping_and_dephasing() -> None:
    pairs, elapsed_s = odd_pair(4, 1), 0.05
    damping = 1.0 - math.exp(-elapsed_s / NOISY.t1_s)
    flip = (1.0 - math.exp(elapsed_s / 2.0 / NOISY.t1_s - elapsed_s / NOISY.t2_s)) / 2.0
    kraus = [
        math.sqrt(weight) * phase @ operator
        for operator in (
            np.diag([1.0, math.sqrt(1.0 - damping)]),
            np.array([[0.0, math.sqrt(damping)], [0.0, 0.0]]),
        )
        for weight, phase in ((1.0 - flip, np.eye(2)), (flip, np.diag([1.0, -1.0])))
    ]
    age_ns = np.array([round(elapsed_s * 1e9)])
    for side in ("left", "right"):
        operators = [kron(k, np.eye(2)) if side == "left" else kron(np.eye(2), k) for k in kraus]
        exact = sum(k @ density(pairs, 0) @ k.conj().T for k in operators)
        waited = expectation_states.aged(pairs, side, NOISY, 0, age_ns)
        assert np.allclose(density(waited, 0), exact, atol=1e-12)


@pytest.mark.parametrize("law", ["exponential", "gaussian"])
def test_waiting_in_two_steps_is_waiting_in_one(law: Any) -> None:
    profile = msgspec.structs.replace(NOISY, decay_law=law)
    half, whole = np.array([30_000_000]), np.array([80_000_000])
    first = expectation_states.aged(odd_pair(5, 1), "left", profile, 0, half)
    second = expectation_states.aged(first, "left", profile, half, whole)
    once = expectation_states.aged(odd_pair(5, 1), "left", profile, 0, whole)
    assert np.allclose(density(second, 0), density(once, 0), atol=1e-12)


def test_a_correction_equals_the_pauli_gate_and_its_noise() -> None:
    for x in (False, True):
        for z in (False, True):
            pairs = replace(odd_pair(6, 1), x_bits=np.array([x]), z_bits=np.array([z]))
            gate = kron(
                PAULIS["I"],
                np.linalg.matrix_power(PAULIS["X"], x) @ np.linalg.matrix_power(PAULIS["Z"], z),
            )
            exact = gate @ density(pairs, 0) @ gate.conj().T
            if x or z:
                exact = depolarised(exact, (1,), NOISY.gate_1q_depolarising, 2)
            fixed = expectation_states.corrected(pairs, NOISY)
            assert np.allclose(density(fixed, 0), exact, atol=1e-12)
            assert not expectation_states.needs_gate(fixed).any()


def test_readout_errors_enter_the_estimator_as_in_the_outcome_table() -> None:
    pairs = odd_pair(7, 1)
    f0, f1 = NOISY.readout_f0, NOISY.readout_f1
    outcome = np.diag([f0 - (1.0 - f0), (1.0 - f1) - f1])  # the mean of +-1 for each basis state
    turns = {"X": H, "Y": H @ np.diag([1.0, -1j]), "Z": np.eye(2)}
    means = {}
    for basis, turn in turns.items():
        gate = kron(turn, turn)
        turned = gate @ density(pairs, 0) @ gate.conj().T
        means[basis] = np.trace(turned @ kron(outcome, outcome)).real
    exact = (1.0 + means["X"] - means["Y"] + means["Z"]) / 4.0
    value = expectation_states.estimated_fidelity(pairs, NOISY, NOISY)
    assert value[0] == pytest.approx(exact, abs=1e-12)


# --- heralding oracles ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ORACLES if name.startswith("double_click_")])
def test_double_click_gives_the_oracle(name: str) -> None:
    asked, wanted = ORACLES[name]["inputs"], ORACLES[name]["expected"]
    state = expectation_states.double_click(
        (asked["etaA"], asked["etaB"]),
        asked.get("p_dark_per_detector_window", 0.0),
        asked.get("visibility", asked.get("V", 1.0)),
        is_resolving=asked.get("number_resolving", False),
    )
    fidelity = state.populations[1] + state.coherence
    assert state.probability == pytest.approx(wanted.get("P_success", wanted.get("P")), rel=1e-9)
    assert fidelity == pytest.approx(wanted["F"], rel=1e-9)


@pytest.mark.parametrize("name", [name for name in ORACLES if name.startswith("single_click_0")])
def test_single_click_gives_the_oracle(name: str) -> None:
    asked, wanted = ORACLES[name]["inputs"], ORACLES[name]["expected"]
    state = expectation_states.single_click(
        (asked["etaA"], asked["etaB"]),
        (asked["alphaA"], asked["alphaB"]),
        asked["p_dark_per_detector_window"],
        asked["visibility"],
        math.exp(-(asked["sigma_phase"] ** 2) / 2.0),
        is_resolving=False,
    )
    fidelity = (state.populations[1] + state.populations[2]) / 2.0 + state.coherence
    assert state.probability == pytest.approx(wanted["P_success"], rel=1e-8)
    assert fidelity == pytest.approx(wanted["F"], rel=1e-8)


def test_single_click_with_resolving_detectors_is_that_of_the_physics_library() -> None:
    state = expectation_states.single_click(
        (0.4, 0.6), (0.3, 0.2), 0.02, 0.85, 1.0, is_resolving=True
    )
    other = single_click(
        alpha_a=0.3,
        alpha_b=0.2,
        eta_a=0.4,
        eta_b=0.6,
        dark_probability=0.02,
        visibility=0.85,
        number_resolving=True,
    )
    assert state.probability == pytest.approx(other.probability, rel=1e-12)
    assert 2.0 * state.coherence == pytest.approx(other.state[1, 1], rel=1e-12)
    assert state.populations[3] + state.populations[0] == pytest.approx(
        (1.0 + other.state[3, 3]) / 2.0, rel=1e-12
    )


def test_a_received_qubit_equals_the_circuit_on_three_qubits() -> None:
    pairs, data_z = odd_pair(8, 1), np.array([0.2])
    axes: tuple[expectation_states.Axis, ...] = ("X", "Y", "Z")
    for axis in axes:
        along = data_z if axis == "Z" else np.array([0.7])
        data = (np.eye(2) + data_z[0] * PAULIS["Z"]) / 2.0
        if axis != "Z":
            data = data + along[0] * PAULIS[axis] / 2.0
        for x in (False, True):
            for z in (False, True):
                spectator = kron(np.eye(2) / 2.0, data)
                exact = bell_measured(spectator, density(pairs, 0), NOISY, x, z)
                arrived = np.einsum("abac->bc", exact.reshape(2, 2, 2, 2))
                effect = expectation_states.bell_effect(NOISY, x=x, z=z)
                got = expectation_states.received_qubit(pairs, effect, axis, along, data_z)
                assert got.weight[0] / 4.0 == pytest.approx(np.trace(arrived).real, abs=1e-12)
                component = np.trace(arrived @ PAULIS[axis]).real
                assert got.component[0] / 4.0 == pytest.approx(component, abs=1e-12)
