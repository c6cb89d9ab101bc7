"""Functions from states to states, against slower ways to the same."""

import numpy as np
import pytest

from qstack.quantum import state


def test_two_states_joined_by_an_effect_are_the_larger_state_contracted() -> None:
    rng = np.random.default_rng(5)
    effect = rng.standard_normal((4, 4))
    for qubits_a, axis_a, qubits_b, axis_b in [
        (1, 0, 2, 1),
        (2, 0, 2, 1),
        (3, 1, 2, 0),
        (2, 1, 1, 0),
    ]:
        a = rng.standard_normal((4,) * qubits_a)
        b = rng.standard_normal((4,) * qubits_b)
        joined = state.swapped((a, axis_a), effect, (b, axis_b))
        larger = state.contract_two(state.merge(a, b), axis_a, qubits_a + axis_b, effect)
        assert joined == pytest.approx(larger)
