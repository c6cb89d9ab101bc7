"""Prediction and routing: bounds, known values, and which path is taken."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstack.network.messages import HOPS_MAX, AdvertisedLink, LinkState
from qstack.network.params import CUTOFF_MAX_NS
from qstack.network.prediction import (
    Chain,
    LinkFigures,
    NodeFigures,
    Weights,
    aging,
    best_fidelity,
    convolve,
    cutoff_min_ns,
    default_cutoff_ns,
    end_to_end,
    expected_time_s,
    plan,
    predict,
    swap_weight,
    swapped,
)
from qstack.network.routing import best_path, can_keep, chain_of
from qstack.quantum import bell, measurement

PLAIN = NodeFigures(1000, 0.0, 0.0, 1e9, 1e9)
WERNER = LinkFigures((0.94, 0.02, 0.02, 0.02), 100.0, 50_000)


def weights(draw: st.DrawFn) -> Weights:
    parts = [draw(st.floats(0.0, 1.0)) for _ in range(4)]
    parts[0] += 1e-3
    total = sum(parts)
    return (parts[0] / total, parts[1] / total, parts[2] / total, parts[3] / total)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    hops = draw(st.integers(1, 6))
    links = [
        LinkFigures(weights(draw), draw(st.floats(0.01, 1e6)), draw(st.integers(0, 10**7)))
        for _ in range(hops)
    ]
    nodes = [
        NodeFigures(
            draw(st.integers(0, 10**7)),
            draw(st.floats(0, 1)),
            draw(st.floats(0, 0.5)),
            draw(st.floats(1e-6, 1e9)),
            draw(st.floats(1e-6, 1e9)),
        )
        for _ in range(hops + 1)
    ]
    return Chain(tuple(links), tuple(nodes))


@given(chains(), st.integers(0, 10**12), st.floats(0.0, 1.0))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_predictions_are_states_and_plans_keep_their_promise(
    chain: Chain, cutoff_ns: int, asked: float
) -> None:
    pair = end_to_end(chain, (cutoff_ns / 1e9,) * len(chain.links))
    assert math.isclose(sum(pair), 1.0)
    assert min(pair) >= 0.0
    fidelity, rate_hz = predict(chain, cutoff_ns)
    assert 0.0 <= fidelity <= 1.0
    assert 0.0 <= rate_hz <= min(link.rate_hz for link in chain.links) * (1 + 1e-9)
    found = plan(chain, asked, None)
    if found is not None:
        assert found.fidelity >= asked
        assert cutoff_min_ns(chain) <= found.cutoff_ns <= max(CUTOFF_MAX_NS, cutoff_min_ns(chain))


@given(st.integers(1, 6), st.floats(0.6, 1.0), st.floats(0.0, 0.2), st.floats(0.0, 0.2))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_best_that_could_be_had_can_be_had(
    hops: int, link_fidelity: float, depolarising: float, flip: float
) -> None:
    rest = (1.0 - link_fidelity) / 3.0
    link = LinkFigures((link_fidelity, rest, rest, rest), 100.0, 50_000)
    node = NodeFigures(1000, depolarising, flip, 10.0, 0.1)
    chain = Chain((link,) * hops, (node,) * (hops + 1))
    assert plan(chain, best_fidelity(chain, None), None) is not None


@given(st.integers(1, 6), st.integers(0, 2**30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_labels_add_by_xor_over_any_number_of_hops(hops: int, bits: int) -> None:
    labels = [bits >> (2 * index) & 3 for index in range(hops)]
    pair: Weights = (1.0, 0.0, 0.0, 0.0)
    expected = 0
    for label in labels:
        a, b, c, d = (float(index == label) for index in range(4))
        pair = convolve(pair, (a, b, c, d))
        expected ^= label
    assert pair[expected] == 1.0


def test_a_swap_is_what_the_engine_makes_of_it() -> None:
    first, second = (0.9, 0.05, 0.03, 0.02), (0.8, 0.1, 0.06, 0.04)
    ideal = measurement.bell_measurement(0.0, 0.0, 1.0, 1.0)[0, 0]
    pair, _ = measurement.swap_pairs(bell.bell_diagonal(first), ideal, bell.bell_diagonal(second))
    np.testing.assert_allclose(bell.bell_probabilities(pair), convolve(first, second))


def test_a_swaps_weight_is_the_loss_of_a_werner_pair() -> None:
    node = NodeFigures(0, 0.1, 0.02, 1.0, 1.0)
    pair = swapped((1.0, 0.0, 0.0, 0.0), node)
    assert math.isclose((4 * pair[0] - 1) / 3, swap_weight(node))


def test_aging_is_none_at_first_and_complete_in_the_end() -> None:
    assert aging(0.0, 1.0, 1.0) == (1.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(aging(1e6, 1.0, 1.0), (0.25,) * 4)
    # Pure dephasing: coherence exp(-t/T2) is 1 - 2 p.
    assert math.isclose(aging(0.3, 1e9, 1.0)[1], (1 - math.exp(-0.3)) / 2, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("rates", "time_s"),
    [
        ((2.0,), 0.5),
        ((1.0, 1.0), 1.5),
        ((1.0, 1.0, 1.0), 1.0 + 1 / 2 + 1 / 3),
        ((1.0, 4.0), 1.0 + 1 / 4 - 1 / 5),
        ((1.0, 1e9), 1.0),
    ],
)
def test_the_expected_time_is_that_of_the_last_of_exponentials(
    rates: tuple[float, ...], time_s: float
) -> None:
    assert math.isclose(expected_time_s(rates), time_s, rel_tol=1e-4)


def test_a_link_that_never_succeeds_has_no_rate() -> None:
    dead = LinkFigures(WERNER.bell_probabilities, 0.0, 0)
    assert predict(Chain((WERNER, dead), (PLAIN,) * 3), 10**9)[1] == 0.0


def test_a_perfect_link_can_be_run_below_its_best() -> None:
    perfect = LinkFigures((1.0, 0.0, 0.0, 0.0), 100.0, 0)
    found = plan(Chain((perfect,), (PLAIN,) * 2), 0.9, None)
    assert found is not None
    assert math.isclose(found.link_min_fidelity, 0.9, abs_tol=1e-6)


def test_the_default_cutoff_is_shorter_the_faster_memories_decay_and_the_more_is_asked() -> None:
    def cutoff(t2_s: float, asked: float = 0.0) -> int:
        node = NodeFigures(1000, 0.0, 0.0, 1e9, t2_s)
        return default_cutoff_ns(Chain((WERNER, WERNER), (node,) * 3), asked)

    assert cutoff(1e9) == CUTOFF_MAX_NS
    assert cutoff(1.0) > cutoff(0.1) > cutoff(0.1, 0.8) > 0


# --- routing --------------------------------------------------------------------------------------


def network(*links: tuple[str, str, float, float], memory: int = 4) -> dict[str, LinkState]:
    """Link states of a network of (node, node, fidelity, rate)."""
    adverts: dict[str, list[AdvertisedLink]] = {}
    for a, b, fidelity, rate_hz in links:
        for here, peer in ((a, b), (b, a)):
            rest = (1.0 - fidelity) / 3.0
            adverts.setdefault(here, []).append(
                AdvertisedLink(
                    peer=peer, bell_probabilities=[fidelity, rest, rest, rest], rate_hz=rate_hz,
                    delay_ns=1000, kinds=["keep", "measure"],
                )
            )  # fmt: skip
    return {
        name: LinkState(
            origin=name, boot_id=bytes(8), sequence=1, age_ns=0, links=own, memory=memory,
            swap_ns=1000, swap_depolarising=0.02, swap_flip=0.0, t1_s=1e9, t2_s=1e9,
            signature=b"",
        )
        for name, own in adverts.items()
    }  # fmt: skip


def test_the_path_of_higher_fidelity_is_taken() -> None:
    states = network(("a", "b", 0.7, 9.0), ("a", "c", 0.98, 1.0), ("c", "b", 0.98, 1.0))
    assert best_path(states, "a", "b", "keep") == ("a", "c", "b")
    direct = network(("a", "b", 0.96, 9.0), ("a", "c", 0.98, 1.0), ("c", "b", 0.98, 1.0))
    assert best_path(direct, "a", "b", "keep") == ("a", "b")


def test_equal_paths_are_told_apart_by_rate_then_by_name() -> None:
    square = [("a", "b", 0.9, 5.0), ("b", "d", 0.9, 5.0), ("a", "c", 0.9, 5.0)]
    assert best_path(network(*square, ("c", "d", 0.9, 5.0)), "a", "d", "keep") == ("a", "b", "d")
    faster = [(a, b, f, 6.0 if "c" in (a, b) else r) for a, b, f, r in square]
    states = network(*faster, ("c", "d", 0.9, 6.0))
    assert best_path(states, "a", "d", "keep") == ("a", "c", "d")


def test_a_link_only_one_end_advertises_is_none() -> None:
    states = network(("a", "b", 0.9, 1.0), ("b", "c", 0.9, 1.0))
    states["c"] = network(("c", "x", 0.9, 1.0))["c"]
    assert best_path(states, "a", "c", "keep") is None
    assert chain_of(states, ("a", "b", "c")) is None


def test_a_link_that_cannot_keep_serves_only_a_measurement_over_itself() -> None:
    states = network(("a", "b", 0.9, 1.0), ("b", "c", 0.9, 1.0))
    for state in states.values():
        for link in state.links:
            link.kinds.remove("keep")
    assert best_path(states, "a", "b", "measure") == ("a", "b")
    assert not can_keep(states, ("a", "b"))
    assert best_path(states, "a", "b", "keep") is None
    assert best_path(states, "a", "c", "measure") is None


def test_paths_end_at_the_longest_route_a_message_can_carry() -> None:
    names = [f"n{index:03d}" for index in range(HOPS_MAX + 2)]
    states = network(*((a, b, 0.99, 1.0) for a, b in pairwise(names)))
    assert best_path(states, names[0], names[HOPS_MAX], "keep") == tuple(names[: HOPS_MAX + 1])
    assert best_path(states, names[0], names[HOPS_MAX + 1], "keep") is None


@pytest.mark.parametrize(("source", "target"), [("a", "a"), ("a", "z"), ("z", "a")])
def test_there_is_no_path_to_oneself_or_to_the_unknown(source: str, target: str) -> None:
    assert best_path(network(("a", "b", 0.9, 1.0)), source, target, "keep") is None
