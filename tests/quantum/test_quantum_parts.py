"""The parts of the engine one by one: conventions, and every bad input refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qstack.quantum import bell, channels, decay, figures, gates, measurement, pauli, state

KETS = {
    (0, 0): [1, 0, 0, 1],
    (0, 1): [1, 0, 0, -1],
    (1, 0): [0, 1, 1, 0],
    (1, 1): [0, 1, -1, 0],
}
PLUS = bell.bell_state(0, 0)


@pytest.mark.parametrize("label", bell.LABELS)
def test_a_bell_state_is_the_textbook_ket(label: tuple[int, int]) -> None:
    ket = np.array(KETS[label]) / math.sqrt(2)
    pair = pauli.from_density(np.outer(ket, ket))
    assert np.allclose(pair, bell.bell_state(*label), rtol=0, atol=1e-15)
    assert bell.fidelity(pair, *label) == pytest.approx(1.0)
    assert isinstance(bell.fidelity(pair, *label), float)
    expected = [float(other == label) for other in bell.LABELS]
    assert bell.bell_probabilities(pair) == pytest.approx(expected, abs=1e-15)


def test_phi_plus_agrees_in_x_and_z_and_is_opposite_in_y() -> None:
    assert [bell.expected_agreement_sign(basis, 0, 0) for basis in ("X", "Y", "Z")] == [1, -1, 1]
    assert [bell.expected_agreement_sign(basis, 1, 1) for basis in ("X", "Y", "Z")] == [-1, -1, -1]


@pytest.mark.parametrize("label", bell.LABELS)
def test_the_fidelity_follows_from_the_three_correlators(label: tuple[int, int]) -> None:
    pair = bell.werner(0.83, *label)
    correlators = pair[1, 1], pair[2, 2], pair[3, 3]
    assert bell.fidelity_from_correlators(*correlators, *label) == pytest.approx(0.83)
    assert bell.bell_probabilities(pair).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("first", bell.LABELS)
@pytest.mark.parametrize("second", bell.LABELS)
@pytest.mark.parametrize("outcome", bell.LABELS)
def test_an_ideal_swap_adds_labels(
    first: tuple[int, int], second: tuple[int, int], outcome: tuple[int, int]
) -> None:
    effect = measurement.bell_measurement()[outcome]
    pair, probability = measurement.swap_pairs(
        bell.bell_state(*first), effect, bell.bell_state(*second)
    )
    label = bell.compose(bell.compose(first, second), outcome)
    assert probability == pytest.approx(0.25)
    assert isinstance(probability, float)
    assert np.allclose(pair, bell.bell_state(*label), rtol=0, atol=1e-15)


def test_the_ideal_bell_measurement_is_the_closed_form() -> None:
    povm = measurement.bell_measurement()
    for x, z in bell.LABELS:
        signs = [1, (-1) ** z, -((-1) ** (x + z)), (-1) ** x]
        assert np.allclose(povm[x, z], np.diag(signs) / 4, rtol=0, atol=1e-16)


def test_a_noisy_bell_measurement_is_complete() -> None:
    povm = measurement.bell_measurement(0.07, 0.03, 0.9, 0.97)
    identity = np.zeros((4, 4))
    identity[0, 0] = 1.0
    assert np.allclose(povm.sum(axis=(0, 1)), identity, rtol=0, atol=1e-15)


@pytest.mark.parametrize("label", bell.LABELS)
def test_a_pauli_frame_turns_phi_plus_into_the_bell_state_of_its_label(
    label: tuple[int, int],
) -> None:
    moved = state.apply(PLUS, 1, gates.pauli_frame(*label))
    assert np.array_equal(moved, bell.bell_state(*label))


def test_clifford_gates_are_exact_and_read_only() -> None:
    for name, qubits in gates.GATES.items():
        transfer = gates.gate_transfer(name)
        assert transfer.shape == (4**qubits, 4**qubits)
        if name in ("t", "rx", "ry", "rz"):
            continue
        assert set(np.unique(transfer)) <= {-1.0, 0.0, 1.0}
        assert gates.gate_transfer(name) is transfer
        assert not transfer.flags.writeable


def test_operations_leave_their_arguments_alone() -> None:
    tensor = state.merge(state.merge(PLUS, state.fresh(1)), state.maximally_mixed())
    before = tensor.copy()
    state.apply(tensor, 2, gates.gate_transfer("h"))
    state.apply_two(tensor, 3, 1, gates.gate_transfer("cnot"))
    state.project(tensor, 0, "X", 1)
    state.discard(tensor, 3)[0, 0, 0] = 7.0
    measurement.apply_bell_measurement(tensor, 2, 0, measurement.bell_measurement()[0, 1])
    assert np.array_equal(tensor, before)


def test_measuring_the_last_qubit_leaves_an_empty_state_of_norm_one() -> None:
    rest, probability = state.project(state.fresh(1), 0, "Z", 1)
    assert rest.shape == ()
    assert float(rest) == 1.0
    assert probability == 1.0


def test_measuring_half_a_pair_prepares_the_other() -> None:
    rest, probability = state.project(bell.bell_state(1, 1), 1, "Y", 0)
    assert probability == pytest.approx(0.5)
    assert state.probability_of(rest, 0, "Y", 1) == pytest.approx(1.0)


def test_a_readout_that_knows_nothing_leaves_the_others_unchanged() -> None:
    rest, probability = measurement.noisy_project(PLUS, 0, "Z", 1, 0.5, 0.5)
    assert probability == pytest.approx(0.5)
    assert np.allclose(rest, state.discard(PLUS, 0), rtol=0, atol=1e-15)


def test_the_readout_matrix_has_the_true_bit_in_rows() -> None:
    assert measurement.confusion(0.95, 0.99) == pytest.approx(
        np.array([[0.95, 0.05], [0.01, 0.99]])
    )


def test_infinite_lifetimes_mean_no_noise() -> None:
    assert np.array_equal(decay.decoherence(3.0, math.inf, math.inf).transfer, np.eye(4))
    assert np.array_equal(decay.gaussian_dephasing(1.0, 2.0, math.inf).transfer, np.eye(4))
    assert channels.attempt_dephasing_probability(math.inf) == 0.0


def test_the_longest_coherence_time_is_accepted() -> None:
    longest = decay.decoherence(0.7, 1.3, 2.6)
    assert longest.coherence == pytest.approx(math.exp(-0.7 / 2.6))


def test_dephasing_at_one_is_the_gate_z() -> None:
    assert np.array_equal(channels.dephasing(1.0), gates.gate_transfer("z"))


def test_key_fraction_with_a_real_error_correction() -> None:
    value = figures.bbm92_fraction(0.0451, correction_efficiency=1.19)
    assert value == pytest.approx(0.419200, abs=1e-6)


nan = math.nan
WRONG: Any = "W"
REFUSED: dict[str, Callable[[], object]] = {
    "density not square": lambda: pauli.from_density(np.zeros((2, 4), dtype=complex)),
    "density of side three": lambda: pauli.from_density(np.eye(3, dtype=complex)),
    "density without a side": lambda: pauli.from_density(np.array(1.0 + 0j)),
    "density empty": lambda: pauli.from_density(np.zeros((0, 0), dtype=complex)),
    "density not Hermitian": lambda: pauli.from_density(np.array([[1, 1j], [1j, 0]])),
    "tensor of axis three": lambda: pauli.to_density(np.zeros((4, 3))),
    "no Kraus operator": lambda: pauli.transfer_matrix([]),
    "mixed Kraus operators": lambda: pauli.transfer_matrix([np.eye(2), np.eye(4)]),
    "Kraus on three qubits": lambda: pauli.transfer_matrix([np.eye(8, dtype=complex)]),
    "not unitary": lambda: pauli.unitary_transfer(np.array([[1, 1], [0, 1]], dtype=complex)),
    "Bell label": lambda: bell.bell_state(2, 0),
    "negative Bell label": lambda: bell.fidelity(PLUS, 0, -1),
    "fidelity above one": lambda: bell.werner(1.01),
    "fidelity nan": lambda: bell.werner(nan),
    "three Bell weights": lambda: bell.bell_diagonal([0.5, 0.3, 0.2]),
    "Bell weights below one": lambda: bell.bell_diagonal([0.5, 0.3, 0.1, 0.0]),
    "negative Bell weight": lambda: bell.bell_diagonal([1.1, -0.1, 0.0, 0.0]),
    "Bell weight nan": lambda: bell.bell_diagonal([nan, 0.5, 0.5, 0.0]),
    "not a pair": lambda: bell.fidelity(np.zeros((4, 3))),
    "basis of agreement": lambda: bell.expected_agreement_sign(WRONG, 0, 0),
    "dephasing above one": lambda: channels.dephasing(1.1),
    "dephasing nan": lambda: channels.dephasing(nan),
    "repeated negative": lambda: decay.dephased(0.1, -1),
    "repeated above one": lambda: decay.dephased(1.1, 1),
    "depolarising above 4/3": lambda: channels.depolarising(1.34),
    "two-qubit depolarising": lambda: channels.two_qubit_depolarising(1.07),
    "negative time": lambda: decay.decoherence(-1.0, 1.0, 1.0),
    "infinite time": lambda: decay.decoherence(math.inf, math.inf, math.inf),
    "T1 zero": lambda: decay.decoherence(1.0, 0.0, 1.0),
    "T2 nan": lambda: decay.decoherence(1.0, 1.0, nan),
    "T2 above 2 T1": lambda: decay.decoherence(1.0, 1.0, 2.001),
    "T2 infinite, T1 not": lambda: decay.decoherence(1.0, 1.0, math.inf),
    "age backwards": lambda: decay.gaussian_dephasing(2.0, 1.0, 1.0),
    "age negative": lambda: decay.gaussian_dephasing(-1.0, 1.0, 1.0),
    "gaussian T2 zero": lambda: decay.gaussian_dephasing(0.0, 1.0, 0.0),
    "attempts zero": lambda: channels.attempt_dephasing_probability(0.0),
    "gate name": lambda: gates.gate_transfer("toffoli"),
    "gate without angle": lambda: gates.gate_transfer("h", 0.1),
    "gate angle infinite": lambda: gates.gate_transfer("rx", math.inf),
    "frame": lambda: gates.pauli_frame(0, 2),
    "fresh": lambda: state.fresh(2),
    "axis too large": lambda: state.apply(PLUS, 2, np.eye(4)),
    "axis negative": lambda: state.discard(PLUS, -1),
    "axis of a measurement": lambda: state.probability_of(PLUS, 2, "Z", 0),
    "two equal axes": lambda: state.apply_two(PLUS, 1, 1, np.eye(16)),
    "second axis missing": lambda: state.apply_two(PLUS, 1, 2, np.eye(16)),
    "basis": lambda: state.project(PLUS, 0, WRONG, 0),
    "outcome": lambda: state.project(PLUS, 0, "Z", 2),
    "impossible outcome": lambda: state.project(state.fresh(0), 0, "Z", 1),
    "readout fidelity": lambda: measurement.confusion(1.2, 0.9),
    "readout basis": lambda: measurement.readout_effect(WRONG, 0),
    "reported bit": lambda: measurement.noisy_project(PLUS, 0, "Z", 2, 1.0, 1.0),
    "impossible report": lambda: measurement.noisy_project(state.fresh(0), 0, "Z", 1, 1.0, 1.0),
    "impossible swap": lambda: measurement.swap_pairs(
        state.merge(state.fresh(), state.fresh()),
        measurement.bell_measurement()[1, 0],
        state.merge(state.fresh(), state.fresh()),
    ),
    "impossible swap in a batch": lambda: measurement.swap_batches(
        np.array([PLUS, state.merge(state.fresh(), state.fresh())]),
        measurement.bell_measurement()[1, 0],
        np.array([PLUS, state.merge(state.fresh(), state.fresh())]),
    ),
    "Bell measurement axes": lambda: measurement.apply_bell_measurement(PLUS, 0, 0, np.eye(4)),
    "entropy": lambda: figures.entropy_bits([-0.1, 1.1]),
    "error rate": lambda: figures.bbm92_fraction(1.2),
    "chain": lambda: figures.chain_fidelity(0.9, 0),
    "retrieval law": lambda: figures.retrieval_efficiency(1.0, 1.0, 1.0, WRONG),
    "colours": lambda: figures.verification_threshold(0, 0.0),
    "inherent error": lambda: figures.verification_threshold(2, 0.5),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_input_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        REFUSED[what]()
