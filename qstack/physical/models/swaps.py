"""Bell measurements that join two pairs: by gates in one node, or by photons read out of memories.

A pair is a (4, 4) Pauli tensor; the first has axes (far, near), the second (near, far). Both kinds
are a POVM of the near qubits; what it leaves of the far ones is A @ S @ B.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qstack.physical.models.heralding import Heralded, double_click
from qstack.physical.models.ranges import require_at_least, require_unit
from qstack.quantum.bell import LABELS, bell_state
from qstack.quantum.channels import depolarising
from qstack.quantum.gates import pauli_frame
from qstack.quantum.measurement import bell_measurement
from qstack.quantum.pauli import FloatArray
from qstack.quantum.state import apply


class Outcome(NamedTuple):
    """One outcome of a Bell measurement: its label, how likely it is, and the far pair."""

    label: tuple[int, int]
    probability: float
    state: FloatArray


def swap_outcomes(pair_a: FloatArray, pair_b: FloatArray, povm: FloatArray) -> list[Outcome]:
    """What each of the four outcomes of a POVM (2, 2, 4, 4), as of `bell_measurement`, leaves.

    Outcomes that cannot happen are left out. Raises ValueError unless the pairs are (4, 4).
    """
    for pair in (pair_a, pair_b):
        if pair.shape != (4, 4):
            raise ValueError(f"a pair is (4, 4), not {pair.shape}")
    outcomes = []
    for x, z in LABELS:
        left = pair_a @ povm[x, z] @ pair_b
        if left[0, 0] > 0.0:
            outcomes.append(Outcome((x, z), float(left[0, 0]), left / left[0, 0]))
    return outcomes


def deterministic_swap(
    pair_a: FloatArray,
    pair_b: FloatArray,
    *,
    gate_depolarising_2q: float = 0.0,
    gate_depolarising_1q: float = 0.0,
    readout_f0: float = 1.0,
    readout_f1: float = 1.0,
) -> Heralded:
    """Gates and readout in one node: it always succeeds, and noise is all it costs.

    The states are the mean over outcomes, each brought to psi+ (psi-) by the Pauli its report asks
    for (Briegel, Duer, Cirac, Zoller 1998 for Werner pairs). Raises ValueError for a value out of
    range.
    """
    povm = bell_measurement(gate_depolarising_2q, gate_depolarising_1q, readout_f0, readout_f1)
    states = []
    for wanted in (0, 1):
        mean = np.zeros((4, 4))
        for (x, z), probability, state in swap_outcomes(pair_a, pair_b, povm):
            mean += probability * apply(state, 1, pauli_frame(1 - x, z ^ wanted))
        states.append(mean)
    return Heralded(1.0, states[0], states[1])


def retrieved_photon_measurement(
    efficiency_a: float,
    efficiency_b: float,
    *,
    dark_probability: float = 0.0,
    visibility: float = 1.0,
    number_resolving: bool = False,
    retrieval_fidelities: tuple[float, float] = (1.0, 1.0),
) -> FloatArray:
    """The effects (2, 4, 4) for psi+ and psi- of two memory qubits that are read into photons.

    `efficiency` is retrieval x path x detector; the photons are dual-rail, and the measurement is
    that of `double_click`: P = eta_r1 eta_r2 eta_d^2 / 2 and F = (1 + V)/2 without noise. What
    heralds nothing is lost. `retrieval_fidelities` are of half a Bell pair, Werner. Raises
    ValueError for a value out of range, or if no click is possible.
    """
    for fidelity in retrieval_fidelities:
        if not 0.25 <= fidelity <= 1.0:
            raise ValueError(f"retrieval_fidelities is in 0.25..1, not {fidelity}")
    clicked = double_click(
        eta_a=efficiency_a,
        eta_b=efficiency_b,
        dark_probability=dark_probability,
        visibility=visibility,
        number_resolving=number_resolving,
    )
    # The state it leaves of two Bell pairs phi+ is A S A / P with A = phi+, its own inverse.
    phi = bell_state(0, 0)
    effects = np.array(
        [clicked.probability / 2.0 * phi @ s @ phi for s in (clicked.state, clicked.state_minus)]
    )
    for axis, fidelity in enumerate(retrieval_fidelities):
        lost = depolarising(4.0 * (1.0 - fidelity) / 3.0)
        effects = np.array([apply(effect, axis, lost) for effect in effects])
    return effects


def retrieved_photon_swap(pair_a: FloatArray, pair_b: FloatArray, effects: FloatArray) -> Heralded:
    """Two pairs joined by the effects of `retrieved_photon_measurement`.

    For pairs phi+ the patterns leave psi+ and psi-. The two are equally likely for Bell-diagonal
    pairs. Raises ValueError if no pattern is possible.
    """
    plus, minus = (pair_a @ effect @ pair_b for effect in effects)
    if not (plus[0, 0] > 0.0 and minus[0, 0] > 0.0):
        raise ValueError("no herald is possible: no photon and no dark count reaches a detector")
    probability = float(plus[0, 0] + minus[0, 0])
    return Heralded(probability, plus / plus[0, 0], minus / minus[0, 0])


def memory_photon_efficiency(retrieval: float, path: float, detector: float) -> float:
    """From a memory to a click: the product. Raises ValueError for a value out of range."""
    require_unit(retrieval=retrieval, path=path, detector=detector)
    return retrieval * path * detector


class Played(NamedTuple):
    """Draws of a measurement by retrieved photons on two Bell pairs phi+.

    `herald` (N,): 0 nothing, 1 psi+, 2 psi-; `label` (N,): 2 x + z of what the far qubits hold.
    """

    herald: NDArray[np.int64]
    label: NDArray[np.int64]


def play_retrieved_photons(
    generator: np.random.Generator,
    attempts: int,
    *,
    efficiencies: tuple[float, float],
    dark_probability: float = 0.0,
    visibility: float = 1.0,
    number_resolving: bool = False,
) -> Played:
    """Draw photons, the beam splitter and dark counts of `attempts`, one by one.

    It knows none of the closed forms: it is there to check them. Both photons there: psi has one
    in each mode and phi two in the same; psi+ and phi take the same detector with (1+V)/2, psi-
    with (1-V)/2. One lost: the other goes anywhere, and the far qubits are left with no relation
    to what clicks. Raises ValueError for a value out of range or fewer than 1 attempt.
    """
    require_unit(dark_probability=dark_probability, visibility=visibility)
    require_unit(efficiency_a=efficiencies[0], efficiency_b=efficiencies[1])
    require_at_least(1, attempts=attempts)
    label = generator.integers(0, 4, attempts)
    there = [generator.random(attempts) < efficiency for efficiency in efficiencies]
    both = there[0] & there[1]
    mode_a = generator.integers(0, 2, attempts)
    opposite = np.where(both, label >= 2, generator.random(attempts) < 0.5)
    same = generator.random(attempts) < (1.0 + np.where(label == 3, -visibility, visibility)) / 2.0
    detector_a = generator.integers(0, 2, attempts)
    apart = np.where(both, ~same, generator.random(attempts) < 0.5)
    counts = np.zeros((attempts, 2, 2), dtype=np.int64)  # mode, detector
    rows = np.arange(attempts)
    np.add.at(counts, (rows, mode_a, detector_a), there[0])
    np.add.at(counts, (rows, mode_a ^ opposite, detector_a ^ apart), there[1])
    counts += generator.random(counts.shape) < dark_probability
    clicks = counts if number_resolving else np.minimum(counts, 1)
    heralds = (clicks.sum(axis=2) == 1).all(axis=1)
    crossed = clicks[:, 0, 0] != clicks[:, 1, 0]
    return Played(np.where(heralds, 1 + crossed, 0), label)
