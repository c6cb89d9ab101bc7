"""Bounds, waiting, the DLCZ repeater and attempt cycles: beyond the oracles."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from qstack.physical.models import cycles, rates


def test_the_bound_falls_as_the_loss_and_repeaters_take_its_root() -> None:
    assert rates.repeaterless_bound(1e-6) == pytest.approx(1e-6 / math.log(2), rel=1e-6)
    assert rates.repeaterless_bound(0.01, 1) == pytest.approx(rates.repeaterless_bound(0.1))
    assert rates.repeaterless_bound(0.0) == 0.0


def test_the_mean_of_the_slowest_is_that_of_its_distribution() -> None:
    times = np.arange(0, 3000)
    for links, p in ((1, 0.3), (3, 0.05), (8, 0.02)):
        late = 1.0 - (1.0 - (1.0 - p) ** times) ** links
        assert rates.attempts_to_all(links, p) == pytest.approx(late.sum(), rel=1e-9)
    assert rates.attempts_to_all(5, 1.0) == 1.0
    assert rates.attempts_by_rule(4, 0.01) == pytest.approx(225.0)


def stepped(p: float, cutoff: int, decay: float) -> tuple[float, float]:
    """Both links step by step as a chain of states: age of the pair that waits, or none."""
    # value[k]: expected further attempts with a pair of age k; mass of ages is followed forward.
    attempts = mean_decay = 0.0
    waiting = np.zeros(cutoff + 1)
    none = 1.0
    for _ in range(20_000):
        attempts += none + waiting.sum()
        done = none * p * p
        mean_decay += done
        begun = none * 2 * p * (1 - p)
        none *= (1 - p) ** 2
        later = np.zeros(cutoff + 1)
        for age in range(cutoff):
            mean_decay += waiting[age] * p * math.exp(-(age + 1) / decay)
            later[age + 1] = waiting[age] * (1 - p)
        none += later[cutoff]
        later[cutoff] = 0.0
        later[0] = begun
        waiting = later
        if none + waiting.sum() < 1e-14:
            break
    return attempts, mean_decay


@pytest.mark.parametrize(("p", "cutoff"), [(0.2, 1), (0.1, 6), (0.5, 40)])
def test_waiting_with_a_cutoff_is_that_of_the_chain_of_states(p: float, cutoff: int) -> None:
    found = rates.parallel_with_cutoff(p, cutoff, 12.0)
    assert found == pytest.approx(stepped(p, cutoff, 12.0), rel=1e-9)


def test_more_memory_makes_the_repeater_faster_than_it_gets_more_faithful() -> None:
    chain = rates.DlczChain(600e3, 2, 0.89, 0.9)
    better = chain._replace(memory_efficiency=0.90)
    times = [
        rates.dlcz_time_s(c, rates.dlcz_pair_probability(2, 0.9, c.memory_efficiency * 0.9))
        for c in (chain, better)
    ]
    assert 1.11 < times[0] / times[1] < 1.17


def test_the_time_formula_is_its_factors() -> None:
    """Link, swaps and last step by their probabilities, and 3/2 for each doubling."""
    chain = rates.DlczChain(600e3, 3, 0.9, 0.9)
    p, eta = 0.003, 0.81
    cycle_s = 600e3 / 8 / 2e8
    denominators = [2**i - (2**i - 1) * eta for i in range(4)]
    swaps = math.prod(eta * denominators[i] / (2 * denominators[i - 1] ** 2) for i in range(1, 4))
    last = eta**2 / (2 * denominators[3] ** 2)
    link = rates.dlcz_link_probability(chain, p)
    expected = 1.5**4 * cycle_s / (link * swaps * last)
    assert rates.dlcz_time_s(chain, p) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rates.repeaterless_bound(1.1), "transmission is in"),
        (lambda: rates.repeaterless_bound(1.0), "without loss has no bound"),
        (lambda: rates.repeaterless_bound(0.5, -1), "repeaters is finite"),
        (lambda: rates.attempts_to_all(0, 0.5), "links is finite and at least 1"),
        (lambda: rates.attempts_to_all(31, 0.5), "up to 30 links"),
        (lambda: rates.attempts_to_all(2, 0.0), "probability is finite and above 0"),
        (lambda: rates.parallel_with_cutoff(0.5, 0, 1.0), "cutoff is finite and at least 1"),
        (lambda: rates.parallel_with_cutoff(0.5, 1, 0.0), "decay_attempts is finite and above"),
        (lambda: rates.sequential_with_cutoff(0.0, 1), "probability is finite and above 0"),
        (lambda: rates.dlcz_pair_probability(5, 0.9, 0.8), "x_n is known for n in 0..4"),
        (lambda: rates.dlcz_pair_probability(1, 0.9, 1.0), "both below 1"),
        (lambda: rates.dlcz_double_pairs(-1), "nesting is finite"),
        (
            lambda: rates.dlcz_time_s(rates.DlczChain(6e5, 1, 0.0, 0.9), 0.1),
            "memory_efficiency is finite and above 0",
        ),
        (
            lambda: rates.dlcz_time_s(rates.DlczChain(6e5, 7, 0.9, 0.9), 0.1),
            "x_n is known",
        ),
    ],
)
def test_rates_refuse_what_cannot_be(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- cycles --------------------------------------------------------------------------------------


def test_a_kept_qubit_waits_for_the_longer_arm_and_a_read_one_for_itself() -> None:
    assert cycles.keep_cycle_ns(3_800, 200, (50_000, 75_000)) == 154_000
    assert cycles.measure_cycle_ns(3_800, 200, 3_700, reset_ns=300) == 8_000
    assert cycles.measure_cycle_ns(3_800, 200, 3_700, station_dead_ns=10_120) == 10_120


def test_photons_of_unlike_arms_meet() -> None:
    arms = (50_000, 75_000)
    delays = cycles.emission_delays_ns(arms)
    assert [delay + arm for delay, arm in zip(delays, arms, strict=True)] == [75_000, 75_000]
    assert [cycles.herald_wait_ns(arms, end) for end in (0, 1)] == [125_000, 150_000]


def test_frames_and_trains_take_their_trials_and_the_way() -> None:
    assert cycles.frame_cycle_ns(40, 100, 1_000, (5_000, 7_000)) == 17_000
    assert cycles.train_cycle_ns(100, 50, 1_000, (5_000, 7_000)) == 20_000


def test_modes_beyond_the_memories_do_not_count() -> None:
    assert cycles.usable_modes(100, (80, 60)) == 60
    assert cycles.usable_modes(10, (80, 60)) == 10


def test_at_least_one_of_many_modes_by_all_their_outcomes() -> None:
    p, modes = 0.3, 5
    chances = [
        math.prod(p if hit else 1 - p for hit in hits)
        for hits in itertools.product((0, 1), repeat=modes)
        if any(hits)
    ]
    assert cycles.multiplexed_probability(p, modes) == pytest.approx(sum(chances))
    assert cycles.multiplexed_probability(1.0, 3) == 1.0
    assert cycles.multiplexed_probability(1e-12, 1000) == pytest.approx(1e-9, rel=1e-6)
    assert cycles.successes_per_attempt(p, modes) == pytest.approx(1.5)
    assert cycles.pairs_per_s(0.01, 10_000) == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cycles.keep_cycle_ns(-1, 0, (1, 1)), "prepare_ns is finite"),
        (lambda: cycles.measure_cycle_ns(1, 1, 1, reset_ns=-1), "reset_ns is finite"),
        (lambda: cycles.emission_delays_ns((-1, 1)), "arms_ns is finite"),
        (lambda: cycles.herald_wait_ns((1, 1), 2), "the ends 0 and 1"),
        (lambda: cycles.frame_cycle_ns(0, 1, 1, (1, 1)), "trials is finite and at least 1"),
        (lambda: cycles.train_cycle_ns(0, 1, 1, (1, 1)), "modes is finite and at least 1"),
        (lambda: cycles.usable_modes(1, (0, 1)), "memory_modes is finite and at least 1"),
        (lambda: cycles.multiplexed_probability(1.1, 1), "probability is in"),
        (lambda: cycles.successes_per_attempt(0.1, 0), "modes is finite and at least 1"),
        (lambda: cycles.pairs_per_s(0.1, 0), "cycle_ns is finite and at least 1"),
    ],
)
def test_cycles_refuse_what_cannot_be(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
