"""How long pairs stay good, against closed forms and the fabric's truth."""

import math
from typing import Any

import pytest

from qstack.physical.ageing import good_for_ns
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.service import Heralded, MeasuredPairs
from tests.physical.calls import MS, start
from tests.physical.test_rotated_readings import noisy_world
from tests.physical.worlds import Bench, chain

BOTH = ("a", "b")


@pytest.mark.parametrize(("kept", "halves"), [(BOTH, 2), (("a",), 1)])
@pytest.mark.parametrize("law", ["exponential", "gaussian"])
def test_a_perfect_pair_that_dephases_is_good_for_the_time_of_the_closed_form(
    kept: tuple[str, ...], halves: int, law: str
) -> None:
    """F = (1 + c) / 2 with c = e^(-n t/T2), or e^(-n (t/T2)^2), for n halves that wait."""
    world = chain("ab", t2_s=0.1, decay_law=law)
    for floor in (0.99, 0.8, 0.51):
        exponent = -math.log(2.0 * floor - 1.0) / halves
        expected_s = 0.1 * (exponent if law == "exponential" else math.sqrt(exponent))
        for z in (0, 1):
            got = good_for_ns(world, "a-b", None, z, floor, kept)
            assert got == pytest.approx(expected_s * 1e9, abs=2.0)


def test_with_t1_it_is_the_closed_form_of_psi() -> None:
    """PHYSICS 2.4, both halves: F = (e^(-t/T1) + e^(-2t/T2)) / 2."""
    t1_s, t2_s, floor = 0.4, 0.1, 0.7
    good_ns = good_for_ns(chain("ab", t1_s=t1_s, t2_s=t2_s), "a-b", None, 0, floor, BOTH)
    assert good_ns is not None
    for age_ns, is_good in ((good_ns, True), (good_ns + 1, False)):
        age_s = age_ns * 1e-9
        value = (math.exp(-age_s / t1_s) + math.exp(-2.0 * age_s / t2_s)) / 2.0
        assert (value >= floor) == is_good


def test_for_ever_and_never() -> None:
    assert good_for_ns(chain("ab"), "a-b", None, 0, 0.9, BOTH) is None
    assert good_for_ns(chain("ab", t2_s=0.1), "a-b", None, 0, 0.5, BOTH) is None
    assert good_for_ns(noisy_world(), "a-b", None, 0, 0.99, BOTH) == 0
    assert good_for_ns(chain("ab", 0.0), "a-b", None, 0, 0.1, BOTH) == 0


def heralded(on: Bench, here: dict[str, Any], there: dict[str, Any]) -> None:
    on.tell("a", "link", start(1, **here))
    on.tell("b", "link", start(1, **there))
    on.run(on.now + 100 * MS)


def test_a_herald_says_so_alike_at_both_ends_and_it_is_true() -> None:
    on = Bench(noisy_world())
    floor = {"fidelity_floor": 0.75}
    heralded(on, floor, floor)
    (here,), (there,) = (on.heard(node, "link", Heralded) for node in BOTH)
    assert here.good_until_ns == there.good_until_ns is not None
    ends = QubitKey("a", here.qubit), QubitKey("b", there.qubit)
    bits = {"x": here.x_bit, "z": here.z_bit}
    for at_ns, is_good in ((here.good_until_ns, True), (here.good_until_ns + 2, False)):
        true = on.fabric.pair_fidelity(*ends, at_ns, **bits)
        assert true == pytest.approx(0.75, abs=1e-7)
        assert (true >= 0.75) == is_good


def test_who_asks_nothing_is_told_nothing() -> None:
    on = Bench(noisy_world())
    heralded(on, {}, {})
    assert [on.heard(node, "link", Heralded)[0].good_until_ns for node in BOTH] == [None, None]


def test_of_a_prepared_state_one_half_waits_and_both_ends_know_how_long() -> None:
    world = noisy_world()
    on = Bench(world)
    floor = {"kind": "prepare", "fidelity_floor": 0.75}
    heralded(on, {"basis": "Z", **floor}, floor)
    (read,), (kept,) = on.heard("a", "link", MeasuredPairs), on.heard("b", "link", Heralded)
    assert read.good_until_ns == kept.good_until_ns
    expected = good_for_ns(world, "a-b", None, kept.z_bit, 0.75, ("b",))
    assert kept.good_until_ns == kept.emitted_at_ns + (expected or 0)


def test_measured_pairs_do_not_age() -> None:
    on = Bench(noisy_world())
    asked = {"kind": "measure", "basis": "Z", "pairs": 5, "fidelity_floor": 0.75}
    heralded(on, asked, asked)
    assert {part.good_until_ns for part in on.heard("a", "link", MeasuredPairs)} == {None}
