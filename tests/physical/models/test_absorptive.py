"""Absorptive memories with pair sources: the closed sums against photons counted one by one."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest

from qstack.physical.models.absorptive import Absorbed, AbsorptiveLink, absorptive
from qstack.physical.models.heralding import Heralded, double_click, single_click
from qstack.quantum.bell import bell_state, fidelity
from qstack.quantum.pauli import to_density
from tests.physical.models import fock

# Modes: signals A (H, V), signals B (H, V); then for H and for V: detectors c and d in two inner
# states each, and what was lost of A and B.
SIGNALS = 4
PER_BIN = 6
MODES = SIGNALS + 2 * PER_BIN


def idler(end: int, lane: int, eta: float, overlap: float) -> fock.Polynomial:
    """An idler's creation operator behind the beam splitter: B has another inner state in part."""
    start = SIGNALS + PER_BIN * lane
    c1, c2, d1, d2, lost_a, lost_b = (fock.mode(start + k, MODES) for k in range(PER_BIN))
    if end == 0:
        there = fock.plus([(math.sqrt(0.5), c1), (math.sqrt(0.5), d1)])
        return fock.plus([(math.sqrt(eta), there), (math.sqrt(1 - eta), lost_a)])
    like, unlike = math.sqrt(overlap / 2), math.sqrt((1 - overlap) / 2)
    there = fock.plus([(like, c1), (-like, d1), (unlike, c2), (-unlike, d2)])
    return fock.plus([(math.sqrt(eta), there), (math.sqrt(1 - eta), lost_b)])


def emission(end: int, pairs: int, eta: float, overlap: float) -> fock.Polynomial:
    """(S_H^+ I_H^+ + S_V^+ I_V^+)^n / n!: the n-pair term of the source, amplitude lam^(n/2)."""
    both = fock.plus(
        [
            (1.0, fock.times(fock.mode(2 * end + lane, MODES), idler(end, lane, eta, overlap)))
            for lane in (0, 1)
        ]
    )
    return fock.plus([(1.0 / math.factorial(pairs), fock.power(both, pairs, MODES))])


def clicks(count: int, dark: float, resolving: bool) -> float:
    """The probability that one detector with `count` photons reports exactly one click."""
    if not resolving:
        return 1.0 if count else dark
    return {0: dark, 1: 1.0 - dark}.get(count, 0.0)


def pattern_weights(environment: tuple[int, ...], dark: float, resolving: bool) -> tuple[Any, Any]:
    """The probabilities of heralding psi+ and psi- for photons in the detectors."""
    lanes = []
    for lane in (0, 1):
        c1, c2, d1, d2, *_ = environment[PER_BIN * lane : PER_BIN * (lane + 1)]
        counts = (c1 + c2, d1 + d2)
        quiet = [1.0 - dark if count == 0 else 0.0 for count in counts]
        one = [clicks(count, dark, resolving) for count in counts]
        lanes.append((one[0] * quiet[1], quiet[0] * one[1]))
    (c_h, d_h), (c_v, d_v) = lanes
    return c_h * c_v + d_h * d_v, c_h * d_v + d_h * c_v


def qubit_readings(of: tuple[int, int], to: tuple[int, int], write: float) -> Any:
    """<of| O |to> of one memory for O = I, stored, X, Y, Z: one photon of n at random."""
    total = sum(of)
    full = 1.0 - (1.0 - write) ** total
    share = full / total if total else 0.0
    same = of == to
    up = math.sqrt(of[0] * to[1]) if (of[0], of[1]) == (to[0] + 1, to[1] - 1) else 0.0
    down = math.sqrt(to[0] * of[1]) if (of[0], of[1]) == (to[0] - 1, to[1] + 1) else 0.0
    return np.array(
        [
            float(same),
            full * same,
            share * (up + down),
            -1j * share * (up - down),
            share * (of[0] - of[1]) * same,
        ]
    )


@cache
def counted(
    pairs: tuple[int, int],
    etas: tuple[float, float],
    writes: tuple[float, float],
    dark: float,
    overlap: float,
    resolving: bool,
) -> Any:
    """[pattern, 5, 5] of so many pairs from each source, before the powers of lam."""
    emitted = [emission(end, pairs[end], etas[end], overlap) for end in (0, 1)]
    amplitudes = fock.state(fock.times(*emitted))
    together: dict[tuple[int, ...], list[tuple[tuple[int, ...], complex]]] = {}
    for key, amplitude in amplitudes.items():
        together.setdefault(key[SIGNALS:], []).append((key[:SIGNALS], amplitude))
    table = np.zeros((2, 5, 5), dtype=complex)
    for environment, signals in together.items():
        weights = np.array(pattern_weights(environment, dark, resolving))
        if not weights.any():
            continue
        for of, left in signals:
            for to, right in signals:
                at_a = qubit_readings((of[0], of[1]), (to[0], to[1]), writes[0])
                at_b = qubit_readings((of[2], of[3]), (to[2], to[3]), writes[1])
                reading = np.conj(left) * right * np.multiply.outer(at_a, at_b)
                table += np.multiply.outer(weights, reading)
    assert np.abs(table.imag).max() < 1e-12
    return table.real


def by_counting(link: AbsorptiveLink, pairs_max: int) -> Any:
    """[pattern, 5, 5] summed over pair numbers up to `pairs_max` in all."""
    table = np.zeros((2, 5, 5))
    lam_a, lam_b = link.mean_pairs
    ratios = (lam_a / (1 + lam_a), lam_b / (1 + lam_b))
    vacuum = ((1 - ratios[0]) * (1 - ratios[1])) ** 2
    for a in range(pairs_max + 1):
        for b in range(pairs_max + 1 - a):
            table += (
                vacuum
                * ratios[0] ** a
                * ratios[1] ** b
                * counted(
                    (a, b),
                    link.idler_efficiencies,
                    link.write_efficiencies,
                    link.dark_probability,
                    link.visibility,
                    link.number_resolving,
                )
            )
    return table


def as_table(found: Absorbed) -> Any:
    """The same [pattern, 5, 5] from the library's answer, the rows it determines."""
    assert found.stored is not None
    table = np.zeros((2, 5, 5))
    known, either = found.stored, found.heralded
    for pattern, name in enumerate(("state", "state_minus")):
        state, stored = getattr(either, name), getattr(known, name)
        table[pattern, 0, 0] = either.probability / 2
        table[pattern, 1, 1] = known.probability / 2
        table[pattern, 2:, 2:] = either.probability / 2 * state[1:, 1:]
        assert known.probability * stored[1:, 1:] == pytest.approx(
            either.probability * state[1:, 1:], abs=1e-15
        )
    return table


LINKS = {
    "threshold": {},
    "resolving": {"number_resolving": True},
    "dark": {"dark_probability": 1e-3},
    "dark and resolving": {"dark_probability": 1e-3, "number_resolving": True},
    "unlike ends": {
        "idler_efficiencies": (0.8, 0.3),
        "write_efficiencies": (0.9, 0.5),
        "visibility": 0.8,
    },
    "perfect": {"idler_efficiencies": (1.0, 1.0), "write_efficiencies": (1.0, 1.0)},
}


def link(**fields: Any) -> AbsorptiveLink:
    plain = {
        "mean_pairs": (0.002, 0.002),
        "idler_efficiencies": (0.4, 0.4),
        "write_efficiencies": (0.7, 0.7),
        "visibility": 0.9,
    }
    return AbsorptiveLink(**{**plain, **fields})


@pytest.mark.parametrize("name", LINKS)
def test_the_sums_are_those_of_photons_counted_one_by_one(name: str) -> None:
    """Up to four pairs in all: what is left out is of order lam^3 of what is there."""
    pump = (0.002, 0.001) if name == "unlike ends" else (0.002, 0.002)
    here = link(**LINKS[name], mean_pairs=pump)
    expected, found = by_counting(here, 4), as_table(absorptive(here))
    rows = (slice(None), range(5), range(5))
    size = expected[0, 0, 0]
    assert found[rows] == pytest.approx(expected[rows], abs=1e-6 * size)
    assert np.abs(found[:, 2:, 2:] - expected[:, 2:, 2:]).max() < 1e-6 * size
    # Marginals and cross terms vanish: the library says so by its form.
    crossed = expected[:, 2:, 2:] * (1 - np.eye(3))
    assert np.abs(crossed).max() < 1e-14
    assert np.abs(expected[:, 0, 2:]).max() < 1e-14


def test_three_pairs_more_come_closer_still() -> None:
    here = link(mean_pairs=(0.02, 0.02))
    found = as_table(absorptive(here))
    misses = [np.abs(np.diagonal(found - by_counting(here, n), 0, 1, 2)).max() for n in (2, 3)]
    assert misses[1] < misses[0] / 8


@pytest.mark.parametrize("resolving", [False, True])
@pytest.mark.parametrize("dark", [0.0, 0.01])
def test_one_photon_from_each_node_counted_is_the_closed_form_of_double_click(
    dark: float, resolving: bool
) -> None:
    """A spin that is maximally entangled with its photon is a signal of exactly one pair."""
    table = counted((1, 1), (0.4, 0.3), (1.0, 1.0), dark, 0.85, resolving) / 4.0
    clicked = double_click(
        eta_a=0.4,
        eta_b=0.3,
        dark_probability=dark,
        visibility=0.85,
        number_resolving=resolving,
    )
    for pattern, pair in enumerate((clicked.state, clicked.state_minus)):
        assert table[pattern, 0, 0] == pytest.approx(clicked.probability / 2, abs=1e-14)
        readings = table[pattern][np.ix_([0, 2, 3, 4], [0, 2, 3, 4])]
        assert readings == pytest.approx(clicked.probability / 2 * pair, abs=1e-14)


def spins_counted(
    alphas: tuple[float, float], etas: tuple[float, float], dark: float, resolving: bool
) -> Any:
    """[detector, 4, 4] density of two spins of single click, whose photons are in one mode."""
    amplitudes: dict[tuple[int, int], fock.State] = {}
    for a in (0, 1):
        for b in (0, 1):
            light: fock.Polynomial = {(0,) * MODES: 1.0}
            for end, bright in enumerate((a, b)):
                if bright:
                    light = fock.times(light, idler(end, 0, etas[end], 0.85))
            weight = math.sqrt(
                math.prod(x if up else 1 - x for x, up in zip(alphas, (a, b), strict=True))
            )
            amplitudes[a, b] = {key: weight * value for key, value in fock.state(light).items()}
    density = np.zeros((2, 4, 4), dtype=complex)
    for left, bra in amplitudes.items():
        for right, ket in amplitudes.items():
            place = (2 * left[0] + left[1], 2 * right[0] + right[1])
            for environment, amplitude in bra.items():
                c1, c2, d1, d2 = environment[SIGNALS : SIGNALS + 4]
                counts = (c1 + c2, d1 + d2)
                one = [clicks(count, dark, resolving) for count in counts]
                quiet = [1.0 - dark if count == 0 else 0.0 for count in counts]
                both = amplitude * np.conj(ket.get(environment, 0.0))
                density[0][place] += one[0] * quiet[1] * both
                density[1][place] += quiet[0] * one[1] * both
    return density


@pytest.mark.parametrize("resolving", [False, True])
@pytest.mark.parametrize("dark", [0.0, 0.02])
def test_one_photon_path_from_each_node_counted_is_the_closed_form_of_single_click(
    dark: float, resolving: bool
) -> None:
    density = spins_counted((0.3, 0.2), (0.4, 0.6), dark, resolving)
    clicked = single_click(
        alpha_a=0.3,
        alpha_b=0.2,
        eta_a=0.4,
        eta_b=0.6,
        dark_probability=dark,
        visibility=0.85,
        number_resolving=resolving,
    )
    for found, pair in zip(density, (clicked.state, clicked.state_minus), strict=True):
        assert found.trace().real == pytest.approx(clicked.probability / 2, abs=1e-14)
        expected = clicked.probability / 2 * to_density(pair)
        assert found == pytest.approx(expected, abs=1e-14)


def test_single_pairs_alone_are_a_double_click() -> None:
    """The order lam^2 of both stored is the scheme with one photon from each node."""
    faint = absorptive(link(mean_pairs=(1e-5, 1e-5), write_efficiencies=(1.0, 1.0)))
    assert faint.stored is not None
    clicked = double_click(eta_a=0.4, eta_b=0.4, visibility=0.9)
    one_each = (2e-5) ** 2
    assert faint.stored.probability == pytest.approx(one_each * clicked.probability, rel=1e-3)
    assert fidelity(faint.stored.state, 1, 0) == pytest.approx(
        fidelity(clicked.state, 1, 0), abs=1e-4
    )


def test_without_knowing_that_both_hold_a_photon_half_of_the_heralds_are_empty() -> None:
    """Two pairs of one source herald as often as one of each (Sangouard and others 2011)."""
    found = absorptive(link(mean_pairs=(1e-5, 1e-5), idler_efficiencies=(0.01, 0.01)))
    assert found.both_stored == pytest.approx(0.7**2 / 2, rel=1e-3)
    perfect = absorptive(link(mean_pairs=(1e-5, 1e-5), write_efficiencies=(1.0, 1.0)))
    assert fidelity(perfect.heralded.state, 1, 0) < 0.6
    assert perfect.stored is not None
    assert fidelity(perfect.stored.state, 1, 0) == pytest.approx(0.95, abs=1e-3)


def test_multi_pairs_cost_fidelity_in_proportion_to_lam() -> None:
    errors = []
    for lam in (1e-3, 2e-3):
        found = absorptive(link(mean_pairs=(lam, lam), visibility=1.0))
        assert found.stored is not None
        errors.append(1.0 - fidelity(found.stored.state, 1, 0))
    assert errors[1] / errors[0] == pytest.approx(2.0, rel=0.01)
    assert 1e-3 < errors[0] < 5e-3


@pytest.mark.parametrize("lam", [1e-4, 0.03, 0.4, 1.0])
@pytest.mark.parametrize("resolving", [False, True])
def test_the_states_are_density_matrices_and_the_patterns_mirror(
    lam: float, resolving: bool
) -> None:
    found = absorptive(link(mean_pairs=(lam, lam), number_resolving=resolving))
    assert found.stored is not None
    for heralded in (found.heralded, found.stored):
        assert 0.0 < heralded.probability < 1.0
        for pair in (heralded.state, heralded.state_minus):
            assert pair[0, 0] == 1.0
            assert np.linalg.eigvalsh(to_density(pair)).min() > -1e-12
        assert heralded.state_minus[1, 1] == -heralded.state[1, 1]


def test_dark_counts_alone_leave_nothing_but_noise() -> None:
    blind = absorptive(link(idler_efficiencies=(0.0, 0.0), dark_probability=0.01))
    assert blind.heralded.probability == pytest.approx((2 * 0.01 * 0.99) ** 2)
    assert blind.heralded.state[1, 1] == 0.0
    assert abs(blind.heralded.state[3, 3]) < 1e-12


def test_memories_that_store_nothing_are_said_to_be_empty() -> None:
    found = absorptive(link(write_efficiencies=(0.0, 1.0)))
    assert (found.both_stored, found.stored) == (0.0, None)
    assert found.heralded.state == pytest.approx(np.diag([1.0, 0.0, 0.0, 0.0]))


def test_the_states_are_near_psi_plus_and_psi_minus() -> None:
    found = absorptive(link(mean_pairs=(1e-6, 1e-6), visibility=1.0))
    assert isinstance(found.stored, Heralded)
    assert found.stored.state == pytest.approx(bell_state(1, 0), abs=1e-4)
    assert found.stored.state_minus == pytest.approx(bell_state(1, 1), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean_pairs", (0.0, 0.1), "lam is above 0"),
        ("mean_pairs", (0.1, 1.5), "lam is above 0"),
        ("idler_efficiencies", (1.1, 0.1), "idler_efficiencies is in"),
        ("idler_efficiencies", (0.1, math.nan), "idler_efficiencies is in"),
        ("write_efficiencies", (0.1, -0.1), "write_efficiencies is in"),
        ("dark_probability", -1e-9, "dark_probability is in"),
        ("visibility", 1.01, "visibility is in"),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        link(**{name: value})


def test_a_station_that_never_clicks_is_refused() -> None:
    with pytest.raises(ValueError, match="no herald is possible"):
        absorptive(link(idler_efficiencies=(0.0, 0.0)))
