"""Distillation formulas against the circuits on four qubits."""

import math
from typing import Any

import numpy as np
import pytest

from qstack.quantum import bell, channels, gates, measurement, pauli, state
from qstack.quantum.distillation import bbpssw, dejmps, epl, pumping

CNOT = gates.gate_transfer("cnot")


def circuit(
    first: Any,
    second: Any,
    *,
    p2: float = 0.0,
    eta: float = 1.0,
    agree: tuple[int, ...] = (0, 1),
) -> tuple[float, Any]:
    """Both ends: CNOT from the first pair to the second, noise, the second read in Z alike."""
    joint = state.merge(first, second)  # a1, b1, a2, b2
    noisy = channels.two_qubit_depolarising(p2) @ CNOT
    joint = state.apply_two(joint, 0, 2, noisy)
    joint = state.apply_two(joint, 1, 3, noisy)
    kept = np.zeros((4, 4))
    for bit in agree:
        effect = measurement.readout_effect("Z", bit, eta, eta)
        kept += np.einsum("abcd,c,d->ab", joint, effect, effect)
    return float(kept[0, 0]), kept / kept[0, 0]


@pytest.mark.parametrize(("p2", "eta"), [(0.0, 1.0), (0.03, 1.0), (0.0, 0.95), (0.04, 0.97)])
def test_bbpssw_is_the_circuit_on_werner_pairs(p2: float, eta: float) -> None:
    pair = bell.werner(0.83)
    probability, kept = circuit(pair, pair, p2=p2, eta=eta)
    found = bbpssw(0.83, gate_depolarising_2q=p2, readout_fidelity=eta)
    assert found.probability == pytest.approx(probability, abs=1e-13)
    assert found.fidelity == pytest.approx(bell.fidelity(kept), abs=1e-13)


def test_dejmps_is_the_circuit_on_unlike_bell_diagonal_pairs() -> None:
    first, second = [0.7, 0.15, 0.1, 0.05], [0.6, 0.1, 0.1, 0.2]

    def turned(weights: list[float]) -> Any:
        pair = bell.bell_diagonal(weights)
        pair = state.apply(pair, 0, gates.gate_transfer("rx", math.pi / 2))
        return state.apply(pair, 1, gates.gate_transfer("rx", -math.pi / 2))

    probability, kept = circuit(turned(first), turned(second))
    found = dejmps(first, second)
    assert found.probability == pytest.approx(probability, abs=1e-13)
    assert found.weights == pytest.approx(bell.bell_probabilities(kept), abs=1e-13)


def single_click_pair(fidelity: float, coherence: float) -> Any:
    """F |psi+><psi+| with dephasing, and (1-F) |11><11|."""
    rho = np.zeros((4, 4))
    rho[1, 1] = rho[2, 2] = fidelity / 2
    rho[1, 2] = rho[2, 1] = fidelity * coherence / 2
    rho[3, 3] = 1 - fidelity
    return pauli.from_density(rho)


@pytest.mark.parametrize("coherence", [1.0, 0.8])
def test_epl_is_the_circuit_on_pairs_of_single_click(coherence: float) -> None:
    pair = single_click_pair(0.7, coherence)
    probability, kept = circuit(pair, pair, agree=(1,))
    found = epl(0.7, coherence)
    assert found.probability == pytest.approx(probability, abs=1e-13)
    best = max(bell.fidelity(kept, 1, 0), bell.fidelity(kept, 1, 1))
    assert found.fidelity == pytest.approx(best, abs=1e-13)


def test_pumping_climbs_to_a_fixed_point_below_one() -> None:
    steps = pumping(0.8, 12)
    assert steps[0].fidelity == pytest.approx(bbpssw(0.8).fidelity)
    assert steps[1].fidelity > steps[0].fidelity
    assert abs(steps[-1].fidelity - steps[-3].fidelity) < 0.01
    assert steps[-1].fidelity < 0.95
    assert pumping(0.8, 0) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bbpssw(1.1), "a fidelity is in"),
        (lambda: bbpssw(0.9, gate_depolarising_2q=-0.1), "a two-qubit depolarising probability"),
        (lambda: bbpssw(0.9, readout_fidelity=math.nan), "a readout fidelity is in"),
        (lambda: dejmps([0.5, 0.5, 0.5, 0.0], [1, 0, 0, 0]), "not a probability distribution"),
        (lambda: dejmps([1, 0, 0, 0], [0.5, 0.5]), "there are four Bell states"),
        (lambda: dejmps([1, 0, 0, 0], [0, 1, 0, 0]), "never agree"),
        (lambda: epl(0.0), "without psi"),
        (lambda: epl(0.5, 1.5), "a coherence is in"),
        (lambda: pumping(2.0, 1), "a fidelity is in"),
        (lambda: pumping(0.8, -1), "rounds is not negative"),
    ],
)
def test_bad_input_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
