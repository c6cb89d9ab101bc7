"""The engine against an independent dense density-matrix simulation written here."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstack.quantum import bell, channels, decay, gates, measurement, pauli, state

settings.register_profile("engine", deadline=None, derandomize=True, max_examples=40)
EXACT = settings.get_profile("engine")

I2 = np.eye(2, dtype=complex)
X = np.array([[0, 1], [1, 0]], dtype=complex)
Y = np.array([[0, -1j], [1j, 0]])
Z = np.diag([1.0 + 0j, -1.0])
H = (X + Z) / math.sqrt(2)
CNOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=complex)
SWAP = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=complex)
FIXED = {
    "x": X,
    "y": Y,
    "z": Z,
    "h": H,
    "s": np.diag([1, 1j]),
    "t": np.diag([1, np.exp(0.25j * np.pi)]),
    "cnot": CNOT,
    "cz": np.diag([1, 1, 1, -1.0 + 0j]),
    "swap": SWAP,
}
AXES = {"rx": X, "ry": Y, "rz": Z}
EIGENSTATES = {
    "X": np.array([[1, 1], [1, -1]]) / math.sqrt(2),
    "Y": np.array([[1, 1j], [1, -1j]]) / math.sqrt(2),
    "Z": np.eye(2),
}


def unitary_of(name: str, angle: float) -> Any:
    if name in AXES:
        return math.cos(angle / 2) * I2 - 1j * math.sin(angle / 2) * AXES[name]
    return FIXED[name]


def random_density(generator: np.random.Generator, qubits: int) -> Any:
    side = 2**qubits
    root = generator.normal(size=(side, side)) + 1j * generator.normal(size=(side, side))
    rho = root @ root.conj().T
    return rho / np.trace(rho)


def embed(operator: Any, qubits: int, places: tuple[int, ...]) -> Any:
    """The operator on the given qubits of `qubits`, entry by entry."""
    full = np.zeros((2**qubits, 2**qubits), dtype=complex)
    for column in range(2**qubits):
        bits = [(column >> (qubits - 1 - k)) & 1 for k in range(qubits)]
        source = sum(bits[k] << (len(places) - 1 - i) for i, k in enumerate(places))
        for target in range(operator.shape[0]):
            after = list(bits)
            for i, k in enumerate(places):
                after[k] = (target >> (len(places) - 1 - i)) & 1
            row = sum(bit << (qubits - 1 - k) for k, bit in enumerate(after))
            full[row, column] += operator[target, source]
    return full


def dense_channel(rho: Any, kraus: list[Any], places: tuple[int, ...]) -> Any:
    qubits = rho.shape[0].bit_length() - 1
    full = [embed(operator, qubits, places) for operator in kraus]
    return sum(operator @ rho @ operator.conj().T for operator in full)


def dense_trace_out(rho: Any, place: int) -> Any:
    qubits = rho.shape[0].bit_length() - 1
    parts = rho.reshape((2,) * (2 * qubits))
    side = 2 ** (qubits - 1)
    return np.trace(parts, axis1=place, axis2=qubits + place).reshape(side, side)


def dense_effect(rho: Any, effect: Any, places: tuple[int, ...]) -> tuple[Any, float]:
    """The normalised rest after a POVM element on `places`, and the probability."""
    qubits = rho.shape[0].bit_length() - 1
    rest = embed(effect, qubits, places) @ rho
    for place in sorted(places, reverse=True):
        rest = dense_trace_out(rest, place)
    probability = np.trace(rest).real
    return rest / probability, float(probability)


def depolarising_kraus(p: float, qubits: int) -> list[Any]:
    products = [I2, X, Y, Z]
    if qubits == 2:
        products = [np.kron(a, b) for a in products for b in products]
    count = len(products)
    weights = [1 - p + p / count, *[p / count] * (count - 1)]
    return [math.sqrt(w) * product for w, product in zip(weights, products, strict=True)]


def dephasing_kraus(p: float) -> list[Any]:
    return [math.sqrt(1 - p) * I2, math.sqrt(p) * Z]


def decoherence_kraus(t: float, t1: float, t2: float) -> list[Any]:
    gamma = 1 - math.exp(-t / t1)
    p = max(0.0, (1 - math.exp(-t / t2 + t / (2 * t1))) / 2)
    damping = [np.diag([1, math.sqrt(1 - gamma)]), np.array([[0, math.sqrt(gamma)], [0, 0]])]
    return [after @ before for before in damping for after in dephasing_kraus(p)]


unit = st.floats(0.0, 1.0)
angles = st.floats(-7.0, 7.0)
seeds = st.integers(0, 2**32 - 1)
times = st.tuples(st.floats(0.0, 5.0), st.floats(0.1, 10.0), st.floats(0.01, 1.0))
one_qubit = st.one_of(
    st.tuples(st.just("gate"), st.sampled_from([n for n, k in gates.GATES.items() if k == 1])),
    st.tuples(st.just("dephasing"), unit),
    st.tuples(st.just("depolarising"), unit),
    st.tuples(st.just("decoherence"), times),
)
two_qubit = st.one_of(
    st.tuples(st.just("gate2"), st.sampled_from(["cnot", "cz", "swap"])),
    st.tuples(st.just("depolarising2"), unit),
)
steps = st.lists(
    st.tuples(st.one_of(one_qubit, two_qubit), st.permutations(range(3)), angles), max_size=8
)


def both_forms(kind: str, value: Any, angle: float) -> tuple[Any, list[Any]]:
    """One step as the engine's transfer matrix and as this file's Kraus operators."""
    if kind in ("gate", "gate2"):
        turn = angle if value in AXES else 0.0
        return gates.gate_transfer(value, turn), [unitary_of(value, angle)]
    if kind == "dephasing":
        return channels.dephasing(value), dephasing_kraus(value)
    if kind == "depolarising":
        return channels.depolarising(value), depolarising_kraus(value, 1)
    if kind == "depolarising2":
        return channels.two_qubit_depolarising(value), depolarising_kraus(value, 2)
    t, t1, share = value
    return decay.decoherence(t, t1, 2 * t1 * share).transfer, decoherence_kraus(
        t, t1, 2 * t1 * share
    )


@pytest.mark.parametrize("name", gates.GATES)
def test_every_gate_is_its_unitary(name: str) -> None:
    for angle in (0.0, 0.3, -1.1, math.pi / 2, 4.0):
        transfer = gates.gate_transfer(name, angle if name in AXES else 0.0)
        expected = pauli.unitary_transfer(unitary_of(name, angle))
        assert np.allclose(transfer, expected, rtol=0, atol=1e-14)


@settings(EXACT, max_examples=80)
@given(seeds, steps, st.sampled_from("XYZ"), st.integers(0, 2), st.integers(0, 1), unit, unit)
def test_random_circuits_of_three_qubits_equal_the_dense_simulation(
    seed: int, circuit: Any, basis: Any, axis: int, bit: int, f0: float, f1: float
) -> None:
    rho = random_density(np.random.default_rng(seed), 3)
    tensor = pauli.from_density(rho)
    for (kind, value), order, angle in circuit:
        transfer, kraus = both_forms(kind, value, angle)
        if len(transfer) == 4:
            tensor = state.apply(tensor, order[0], transfer)
            rho = dense_channel(rho, kraus, (order[0],))
        else:
            tensor = state.apply_two(tensor, order[0], order[1], transfer)
            rho = dense_channel(rho, kraus, (order[0], order[1]))
    assert np.allclose(pauli.to_density(tensor), rho, rtol=0, atol=1e-11)
    assert np.allclose(
        pauli.to_density(state.discard(tensor, axis)), dense_trace_out(rho, axis), atol=1e-11
    )
    kets = [EIGENSTATES[basis][k] for k in (0, 1)]
    projectors = [np.outer(ket, ket.conj()) for ket in kets]
    chance = np.trace(embed(projectors[bit], 3, (axis,)) @ rho).real
    assert state.probability_of(tensor, axis, basis, bit) == pytest.approx(chance, abs=1e-11)
    if chance > 1e-6:
        rest, probability = state.project(tensor, axis, basis, bit)
        dense_rest, _ = dense_effect(rho, projectors[bit], (axis,))
        assert probability == pytest.approx(chance, abs=1e-11)
        assert np.allclose(pauli.to_density(rest), dense_rest, rtol=0, atol=1e-8)
    right, wrong = ((f0, 1 - f1), (1 - f0, f1))[bit]
    effect = right * projectors[0] + wrong * projectors[1]
    reported = np.trace(embed(effect, 3, (axis,)) @ rho).real
    if reported > 1e-6:
        rest, probability = measurement.noisy_project(tensor, axis, basis, bit, f0, f1)
        dense_rest, _ = dense_effect(rho, effect, (axis,))
        assert probability == pytest.approx(reported, abs=1e-11)
        assert np.allclose(pauli.to_density(rest), dense_rest, rtol=0, atol=1e-8)


def dense_swap(
    rho: Any, outcome: tuple[int, int], p2: float, p1: float, f0: float, f1: float
) -> tuple[Any, float]:
    """The circuit of a Bell measurement on qubits 1 and 2 of four, run forwards."""
    rho = dense_channel(rho, [CNOT], (1, 2))
    rho = dense_channel(rho, depolarising_kraus(p2, 2), (1, 2))
    rho = dense_channel(rho, [H], (1,))
    rho = dense_channel(rho, depolarising_kraus(p1, 1), (1,))
    readout = [np.diag([f0, 1 - f1]), np.diag([1 - f0, f1])]
    x, z = outcome
    return dense_effect(rho, np.kron(readout[z], readout[x]), (1, 2))


@settings(EXACT)
@given(seeds, unit, unit, st.floats(0.5, 1.0), st.floats(0.5, 1.0))
def test_a_swap_equals_the_full_simulation_of_four_qubits(
    seed: int, p2: float, p1: float, f0: float, f1: float
) -> None:
    generator = np.random.default_rng(seed)
    rho_a, rho_b = random_density(generator, 2), random_density(generator, 2)
    a, b = pauli.from_density(rho_a), pauli.from_density(rho_b)
    povm = measurement.bell_measurement(p2, p1, f0, f1)
    total = 0.0
    for x, z in bell.LABELS:
        expected, chance = dense_swap(np.kron(rho_a, rho_b), (x, z), p2, p1, f0, f1)
        pair, probability = measurement.swap_pairs(a, povm[x, z], b)
        assert probability == pytest.approx(chance, abs=1e-12)
        assert np.allclose(pauli.to_density(pair), expected, rtol=0, atol=1e-11)
        general = measurement.apply_bell_measurement(state.merge(a, b), 1, 2, povm[x, z])
        assert np.allclose(general[0], pair, rtol=0, atol=1e-12)
        assert general[1] == pytest.approx(probability, abs=1e-12)
        total += probability
    assert total == pytest.approx(1.0, abs=1e-12)


@settings(EXACT)
@given(seeds, st.integers(0, 4))
def test_density_matrix_to_tensor_and_back_is_the_identity(seed: int, qubits: int) -> None:
    rho = random_density(np.random.default_rng(seed), qubits)
    tensor = pauli.from_density(rho)
    assert tensor.shape == (4,) * qubits
    assert tensor[(0,) * qubits] == pytest.approx(1.0)
    assert np.allclose(pauli.to_density(tensor), rho, rtol=0, atol=1e-13)


@settings(EXACT)
@given(seeds, st.one_of(one_qubit, two_qubit), angles)
def test_every_channel_keeps_the_trace_and_the_positivity_of_its_choi_state(
    seed: int, step: Any, angle: float
) -> None:
    kind, value = step
    transfer, kraus = both_forms(kind, value, angle)
    assert np.allclose(transfer, pauli.transfer_matrix(kraus), rtol=0, atol=1e-12)
    assert transfer[0] == pytest.approx([1.0, *[0.0] * (len(transfer) - 1)], abs=1e-15)
    rho = random_density(np.random.default_rng(seed), 2)
    tensor = pauli.from_density(rho)
    after = (
        state.apply(tensor, 0, transfer)
        if len(transfer) == 4
        else state.apply_two(tensor, 0, 1, transfer)
    )
    assert after[0, 0] == pytest.approx(1.0, abs=1e-12)
    assert np.linalg.eigvalsh(pauli.to_density(after)).min() > -1e-12


@settings(EXACT)
@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=12), st.floats(0.1, 10.0))
def test_any_number_of_touches_gives_the_same_decay(waits: list[float], t2: float) -> None:
    gaussian = markovian = decay.Decay(1.0, 1.0, 0.0)
    age = 0.0
    for wait in waits:
        gaussian = gaussian.then(decay.gaussian_dephasing(age, age + wait, t2))
        markovian = markovian.then(decay.decoherence(wait, t2, t2))
        age += wait
    assert np.allclose(gaussian, decay.gaussian_dephasing(0.0, age, t2), rtol=0, atol=1e-12)
    assert gaussian.coherence == pytest.approx(math.exp(-((age / t2) ** 2)), abs=1e-12)
    assert np.allclose(markovian, decay.decoherence(age, t2, t2), rtol=0, atol=1e-12)


@settings(EXACT)
@given(unit, unit, times)
def test_one_decay_after_another_is_the_product_of_their_matrices(
    p: float, q: float, waiting: tuple[float, float, float]
) -> None:
    t, t1, share = waiting
    steps = decay.dephased(p), decay.decoherence(t, t1, 2 * t1 * share), decay.depolarised(q)
    for first, second in itertools.permutations(steps, 2):
        joined = first.then(second).transfer
        assert np.allclose(joined, second.transfer @ first.transfer, rtol=0, atol=1e-15)


@settings(EXACT)
@given(unit, st.integers(0, 20))
def test_repeated_dephasing_is_dephasing_repeated(p: float, n: int) -> None:
    once = np.linalg.matrix_power(channels.dephasing(p), n)
    assert np.allclose(decay.dephased(p, n).transfer, once, rtol=0, atol=1e-14)


@settings(EXACT)
@given(seeds)
def test_swapping_a_batch_is_swapping_each(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a = np.array([pauli.from_density(random_density(generator, 2)) for _ in range(5)])
    b = np.array([pauli.from_density(random_density(generator, 2)) for _ in range(5)])
    effect = measurement.bell_measurement(0.1, 0.05, 0.9, 0.95)[1, 0]
    pairs, probabilities = measurement.swap_batches(a, effect, b)
    assert np.array_equal(measurement.swap_pairs(a, effect, b)[1], probabilities)
    assert np.array_equal(measurement.swap_pairs(a, effect, b)[0], pairs)
    batch_fidelity = bell.fidelities(pairs, 1, 1)
    assert np.array_equal(bell.fidelity(pairs, 1, 1), batch_fidelity)
    assert bell.bell_probabilities(pairs).shape == (5, 4)
    for k in range(5):
        pair, probability = measurement.swap_pairs(a[k], effect, b[k])
        assert np.allclose(pairs[k], pair, rtol=0, atol=1e-14)
        assert probabilities[k] == pytest.approx(probability, abs=1e-14)
        assert batch_fidelity[k] == pytest.approx(bell.fidelity(pair, 1, 1), abs=1e-14)
