"""What a test round should show: by hand where that is easy, and what lowers it."""

from typing import Any

import pytest

from qstack.physical.prediction import generation_options, link_capability
from qstack.physical.round_forecast import LATE_MIN_NS, PROMPT_NS
from qstack.physical.service import GenerationOption, RoundForecast
from qstack.runtime.network_file import load_packaged_network
from tests.physical.worlds import chain

SETTINGS: dict[str, Any] = {
    "readout_f0": 1.0, "readout_f1": 1.0, "t1_s": float("inf"), "t2_s": float("inf"),
    "decay_law": "exponential", "attempt_dephasing": 0.0,
}  # fmt: skip


def option(**changes: Any) -> GenerationOption:
    world = chain("ab", 0.1, **{**SETTINGS, **changes})
    (found,) = generation_options(world, world.links["a-b"])
    return found


def forecast(**changes: Any) -> RoundForecast:
    found = option(**changes).test_round
    assert found is not None
    return found


@pytest.mark.parametrize("visibility", [1.0, 0.8, 0.3])
def test_without_decay_and_errors_the_agreement_is_that_of_the_fidelity(visibility: float) -> None:
    found = option(visibility=visibility)
    assert found.test_round is not None
    expected = (1 + 2 * found.bell_probabilities[0]) / 3
    assert found.test_round.agreement == pytest.approx(expected)
    assert found.test_round.least == pytest.approx(expected)
    assert found.test_round.gain == pytest.approx(1.0)


@pytest.mark.parametrize("visibility", [1.0, 0.8, 0.3])
def test_pairs_measured_at_once_agree_basis_by_basis_as_their_bell_state_does(
    visibility: float,
) -> None:
    found = option(visibility=visibility)
    assert found.measured_round is not None
    phi_plus, psi_z, psi_x, psi_y = found.bell_probabilities  # (x, z) = 00, 01, 10, 11
    expected = [phi_plus + psi_x, phi_plus + psi_y, phi_plus + psi_z]
    assert found.measured_round.agreements == pytest.approx(expected)
    assert found.measured_round.gain == pytest.approx(1.0)
    read = option(visibility=visibility, readout_f0=0.9, readout_f1=0.9).measured_round
    assert read is not None
    assert read.agreements == pytest.approx([0.5 + 0.64 * (each - 0.5) for each in expected])
    assert option(readout_f0=0.5, readout_f1=0.55).measured_round is None


def test_pairs_measured_at_once_neither_wait_nor_move() -> None:
    perfect = option().measured_round
    assert option(t2_s=0.01, move_depolarising=0.05).measured_round == perfect
    (source,) = source_options()
    assert source.measured_round is not None
    errors = 1.0 - sum(source.bell_probabilities[::2])
    assert source.measured_round.agreements == pytest.approx([1.0 - errors] * 3)
    assert source.test_round is None


def source_options() -> list[GenerationOption]:
    world = load_packaged_network("metro").world
    return generation_options(world, world.links["alice-bob"])


def test_readout_errors_of_both_ends_shrink_what_is_seen() -> None:
    perfect, read = option(visibility=1.0), forecast(visibility=1.0, readout_f0=0.9, readout_f1=0.9)
    assert read.gain == pytest.approx(0.8**2)
    seen = (1 + 0.8**2 * (4 * perfect.bell_probabilities[0] - 1) / 3) / 2
    assert read.agreement == pytest.approx(seen)


def test_unlike_readout_errors_do_not_fake_an_agreement() -> None:
    # psi+ and psi-: equal outcomes in Z are wrong, and a readout that prefers 0 makes them equal.
    alike, unlike = forecast(readout_f0=0.95, readout_f1=0.95), forecast(readout_f1=0.9)
    assert unlike.gain == pytest.approx(alike.gain)
    assert unlike.agreement == pytest.approx(alike.agreement - 0.1**2 / 6, abs=1e-6)


def test_a_gain_turns_a_change_of_the_fidelity_into_one_of_the_agreement() -> None:
    settings = {"t2_s": 0.02, "readout_f0": 0.95, "readout_f1": 0.97}
    first, second = (option(visibility=v, **settings) for v in (0.9, 0.8))
    assert first.test_round is not None
    assert second.test_round is not None
    change = first.bell_probabilities[0] - second.bell_probabilities[0]
    seen = first.test_round.agreement - second.test_round.agreement
    assert seen == pytest.approx(2 / 3 * first.test_round.gain * change, rel=0.02)


def test_waiting_for_the_herald_and_the_layers_is_in_it() -> None:
    still = forecast(visibility=1.0)
    for law in ("exponential", "gaussian"):
        aged = forecast(visibility=1.0, t2_s=0.001, decay_law=law)
        assert aged.least < aged.agreement < still.agreement
        assert aged.gain < still.gain
    assert still.read_by_ns > PROMPT_NS + LATE_MIN_NS
    assert forecast(t2_s=0.1).read_by_ns < still.read_by_ns


def test_attempts_that_go_on_beside_an_idle_qubit_are_in_it() -> None:
    still, struck = forecast(visibility=1.0), forecast(visibility=1.0, attempt_dephasing=0.001)
    assert struck.least < struck.agreement < still.agreement
    assert struck.agreement - struck.least < 0.1


def test_a_readout_that_tells_nothing_makes_no_test_rounds() -> None:
    assert option(readout_f0=0.5, readout_f1=0.5).test_round is None
    assert option(t2_s=1e-7, t1_s=1e-7).test_round is None


def test_a_capability_says_it_to_the_link_layer() -> None:
    world = chain("ab", 0.1, **SETTINGS)
    capability = link_capability(world, "a", world.links["a-b"])
    assert all(option.test_round is not None for option in capability.options)
