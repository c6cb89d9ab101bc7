"""The pair source: published closed forms, the sum over photon numbers, brute force."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qstack.physical.models.pair_source import (
    TRUNCATION,
    PairSource,
    bell_weights,
    error_rate,
    gain,
    outcome_table,
    pair_numbers,
    visibility,
)
from qstack.quantum.bell import expected_agreement_sign

ORACLES = json.loads((Path(__file__).parents[2] / "data" / "oracles.json").read_text("utf-8"))
CASES = [case for case in ORACLES["cases"] if case["id"].startswith("spdc_bbm92_")]
BASES: tuple[Any, ...] = ("X", "Y", "Z")


def source(inputs: dict[str, float]) -> PairSource:
    return PairSource(
        mean_pairs=inputs["lam"],
        efficiencies=(inputs["etaA"], inputs["etaB"]),
        backgrounds=(inputs["Y0A"], inputs["Y0B"]),
        misalignment=inputs["e_d"],
    )


METRO = PairSource(
    mean_pairs=0.01, efficiencies=(0.25, 0.25), backgrounds=(2e-6, 2e-6), misalignment=0.01
)
ODD = PairSource(
    mean_pairs=0.3, efficiencies=(0.7, 0.2), backgrounds=(0.01, 0.03), misalignment=0.04
)


def qber(table: Any) -> float:
    """Of equal bases, for phi+ in X and Z."""
    clicked = table[1:, 1:]
    return float((clicked[0, 1] + clicked[1, 0]) / clicked.sum())


# --- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_closed_forms_are_those_of_the_oracle(case: dict[str, Any]) -> None:
    here, expected, tol = source(case["inputs"]), case["expected"], case["tol"]
    assert gain(here) == pytest.approx(expected["Q"], rel=tol)
    assert error_rate(here) == pytest.approx(expected["QBER"], rel=tol)
    entropy = -sum(p * math.log2(p) for p in (error_rate(here), 1 - error_rate(here)))
    rate = gain(here) / 2 * (1 - 2.16 * entropy)
    assert rate == pytest.approx(expected["rate_per_pulse_f1p16"], rel=tol)
    assert len(CASES) == 3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_photon_number_sum_agrees_with_the_closed_forms(case: dict[str, Any]) -> None:
    here = source(case["inputs"])
    table = outcome_table(here, "Z", "Z")
    assert table[1:, 1:].sum() == pytest.approx(gain(here), abs=2 * TRUNCATION)
    is_dark = max(here.backgrounds) > 0.0
    assert qber(table) == pytest.approx(error_rate(here), abs=7e-6 if is_dark else 1e-9)


def test_the_link_of_the_physics_page_has_its_figures() -> None:
    assert gain(METRO) * 1e8 == pytest.approx(1.27e5, rel=0.005)
    assert error_rate(METRO) == pytest.approx(0.0173, abs=5e-5)
    assert gain(METRO) * 1e8 / 2 == pytest.approx(6.4e4, rel=0.01)


def test_true_multi_pairs_leave_an_error_floor_that_single_pairs_do_not_have() -> None:
    """QBER 3.4 % at lam = 0.05 with perfect optics; a source of single pairs has none."""
    here = PairSource(mean_pairs=0.05, efficiencies=(0.3, 0.2))
    assert qber(outcome_table(here, "Z", "Z")) == pytest.approx(0.0341, abs=5e-5)
    weights = pair_numbers(0.05)[:2]
    single = outcome_table(here, "Z", "Z", weights=weights)
    assert qber(single) == pytest.approx(0.0, abs=1e-12)


def test_small_gains_keep_their_digits() -> None:
    """Both clicks need the one pair there is: eta^2 times the mean number of pairs."""
    faint = PairSource(mean_pairs=1e-4, efficiencies=(1e-5, 1e-5))
    assert gain(faint) == pytest.approx(2e-4 * 1e-10 * (1 + 1.5e-4), rel=1e-6)
    assert outcome_table(faint, "Z", "Z")[1:, 1:].sum() == pytest.approx(gain(faint), rel=1e-2)


# --- the sum over photon numbers -----------------------------------------------------------------


@pytest.mark.parametrize("mean_pairs", [1e-6, 0.01, 0.05, 0.5, 1.0])
def test_the_cutoff_leaves_out_what_it_states(mean_pairs: float) -> None:
    numbers = pair_numbers(mean_pairs)
    assert 1.0 - numbers.sum() == pytest.approx(0.0, abs=TRUNCATION + 1e-15)
    assert len(numbers) == 1 or 1.0 - numbers[:-1].sum() >= TRUNCATION - 1e-15
    longer = pair_numbers(mean_pairs, 1e-15)
    mean = float((np.arange(len(longer)) * longer).sum())
    assert mean == pytest.approx(2 * mean_pairs, rel=1e-9)


@pytest.mark.parametrize("here", [METRO, ODD])
def test_tables_are_distributions_whose_clicks_do_not_depend_on_the_bases(here: PairSource) -> None:
    clicks = []
    for a, b in itertools.product(BASES, BASES):
        table = outcome_table(here, a, b)
        assert table.min() >= 0.0
        assert table.sum() == pytest.approx(1.0, abs=2 * TRUNCATION)
        assert table[1] == pytest.approx(table[2][[0, 2, 1]], abs=1e-15)  # no side is special
        clicks.append((table[0, 0], table[0, 1:].sum(), table[1:, 0].sum()))
    assert np.ptp(np.array(clicks), axis=0) == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("here", [METRO, ODD])
def test_correlations_have_the_signs_of_phi_plus_and_none_between_different_bases(
    here: PairSource,
) -> None:
    seen = visibility(here)
    for a, b in itertools.product(BASES, BASES):
        clicked = outcome_table(here, a, b)[1:, 1:]
        value = (clicked * [[1, -1], [-1, 1]]).sum() / clicked.sum()
        expected = expected_agreement_sign(a, 0, 0) * seen if a == b else 0.0
        assert value == pytest.approx(expected, abs=1e-12)
    assert seen == pytest.approx(1.0 - 2.0 * qber(outcome_table(here, "Z", "Z")))


def test_the_figure_of_fidelity_is_that_of_the_visibility() -> None:
    weights = bell_weights(METRO)
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] == pytest.approx((1 + 3 * (1 - 2 * 0.0173)) / 4, abs=1e-4)


def rotation(basis: str) -> Any:
    """Rows: the modes of the analyser, in those of Z."""
    half = math.sqrt(0.5)
    return {
        "Z": np.eye(2),
        "X": half * np.array([[1, 1], [1, -1]]),
        "Y": half * np.array([[1, -1j], [1, 1j]]),
    }[basis]


def photon_amplitudes(basis: str, number: int) -> Any:
    """(n+1, n+1): row k, column m: <n-k, k in the basis | n-m, m in Z>, by multiplying out."""
    u = rotation(basis)
    rows = np.zeros((number + 1, number + 1), dtype=complex)
    for m in range(number + 1):
        # a_Z0^(n-m) a_Z1^m as a polynomial in the creation operators of the basis.
        polynomial = np.array([1.0 + 0j])
        for z in [0] * (number - m) + [1] * m:
            polynomial = np.convolve(polynomial, [u[0, z], u[1, z]])
        for k in range(number + 1):
            scale = float(math.factorial(number - k) * math.factorial(k))
            scale /= math.factorial(number - m) * math.factorial(m)
            rows[k, m] = polynomial[k] * math.sqrt(scale)
    return rows


def brute_force(here: PairSource, a: str, b: str, numbers: Any) -> Any:
    """Every photon number in every mode, every detector, every coin: nothing clever."""
    table = np.zeros((3, 3))
    f = (1 - math.sqrt(1 - 2 * here.misalignment)) / 2
    for number, weight in enumerate(numbers):
        joint = photon_amplitudes(a, number) @ photon_amplitudes(b, number).T
        chances = np.abs(joint) ** 2 / (number + 1) * weight
        for k, m in itertools.product(range(number + 1), repeat=2):
            sides = []
            for side, place in ((0, k), (1, m)):
                clicks = [
                    1 - (1 - here.efficiencies[side]) ** photons
                    * math.sqrt(1 - here.backgrounds[side])
                    for photons in (number - place, place)
                ]  # fmt: skip
                both = clicks[0] * clicks[1]
                only = [clicks[0] - both + both / 2, clicks[1] - both + both / 2]
                none = (1 - clicks[0]) * (1 - clicks[1])
                sides.append(
                    [none, only[0] * (1 - f) + only[1] * f, only[1] * (1 - f) + only[0] * f]
                )
            table += chances[k, m] * np.outer(sides[0], sides[1])
    return table


@pytest.mark.parametrize(("a", "b"), list(itertools.product(BASES, BASES)))
def test_tables_agree_with_brute_force_in_fock_space(a: Any, b: Any) -> None:
    numbers = pair_numbers(ODD.mean_pairs)[:6]
    expected = brute_force(ODD, a, b, numbers)
    assert outcome_table(ODD, a, b, weights=numbers) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(
    "wrong",
    [{"mean_pairs": 0.0}, {"mean_pairs": 1.1}, {"efficiencies": (0.0, 0.5)},
     {"efficiencies": (0.5, 1.1)}, {"backgrounds": (1.0, 0.0)}, {"backgrounds": (0.0, -1e-9)},
     {"misalignment": 0.6}, {"misalignment": -0.1}, {"mean_pairs": math.nan}],
)  # fmt: skip
def test_a_source_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"mean_pairs": 0.1, "efficiencies": (0.5, 0.5)}
    with pytest.raises(ValueError, match=r"lam|efficiencies|backgrounds|misalignment"):
        PairSource(**(fields | wrong))
