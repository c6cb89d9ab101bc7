"""What is told of a way before anybody asks for pairs: the path, the rate, the error rates."""

from dataclasses import replace

import pytest

from qstack.machine import Told
from qstack.network import service
from qstack.network.prediction import Chain, LinkFigures, NodeFigures, OptionFigures, plan
from qstack.network.route_query import error_rates
from qstack.physical.service import Kind
from tests.network.test_circuits import triangle
from tests.network.world import World, chain

PLAIN = NodeFigures(1000, 0.0, 0.0, 0.0, 1e9, 1e9)
OPTION = OptionFigures((0.9, 0.05, 0.03, 0.02), 1000.0)


def ask(world: World, node: str, query: service.RouteQuery) -> service.RouteAnswer:
    before = len(world.of(node, service.RouteAnswer))
    world.event(node, Told("transport", query))
    (answer,) = world.of(node, service.RouteAnswer)[before:]
    assert isinstance(answer, service.RouteAnswer)
    return answer


def test_measured_pairs_go_the_direct_way_and_kept_ones_round() -> None:
    world = triangle()
    kept = ask(world, "n0", service.RouteQuery(call=1, remote="n2"))
    measured = ask(world, "n0", service.RouteQuery(call=2, remote="n2", kind="measure"))
    assert kept.path == ["n0", "n1", "n2"]
    assert (measured.call, measured.path) == (2, ["n0", "n2"])
    assert measured.rate_hz > kept.rate_hz
    # The played links have Bell weights (0.97, 0.01, 0.01, 0.01), and read without more errors.
    assert measured.error_x == measured.error_z == pytest.approx(0.02)
    assert kept.error_z > measured.error_z


@pytest.mark.parametrize("kind", ["keep", "measure"])
def test_both_ends_are_told_the_same_of_the_same_way(kind: Kind) -> None:
    world = World(chain(4))
    here = ask(world, "n0", service.RouteQuery(call=1, remote="n3", kind=kind))
    there = ask(world, "n3", service.RouteQuery(call=1, remote="n0", kind=kind, from_remote=True))
    assert here == there
    assert here.path == ["n0", "n1", "n2", "n3"]


def test_a_fidelity_out_of_reach_has_a_path_and_no_rate() -> None:
    world = World(chain(3))
    query = service.RouteQuery(call=1, remote="n2", kind="measure", min_fidelity=0.99)
    answer = ask(world, "n0", query)
    assert answer.path == ["n0", "n1", "n2"]
    assert answer.fidelity < 0.99
    assert (answer.rate_hz, answer.error_x, answer.error_z) == (0.0, 0.5, 0.5)


@pytest.mark.parametrize("from_remote", [False, True])
@pytest.mark.parametrize("remote", ["nowhere", "n0"])
def test_without_a_path_nothing_is_expected(remote: str, from_remote: bool) -> None:
    query = service.RouteQuery(call=1, remote=remote, kind="measure", from_remote=from_remote)
    answer = ask(World(chain(3)), "n0", query)
    assert answer == service.RouteAnswer(call=1, path=[], fidelity=0.0, rate_hz=0.0)


@pytest.mark.parametrize(
    ("keeps", "flip", "expected"),
    [
        (False, 0.1, (0.07, 0.05)),  # weights of Z and Y, of X and Y; readout is in them already
        (True, 0.0, (0.07, 0.05)),
        (True, 0.1, (0.5 - 0.5 * 0.64 * 0.86, 0.5 - 0.5 * 0.64 * 0.9)),
    ],
)
def test_error_rates_are_those_of_the_pair_and_of_both_readouts(
    keeps: bool, flip: float, expected: tuple[float, float]
) -> None:
    node = replace(PLAIN, swap_flip=flip, gate_depolarising=0.02)  # no gate corrects outcomes
    one = Chain((LinkFigures((OPTION,), 1000, keeps=keeps),), (node, node))
    run = plan(one, 0.0, 10**9)
    assert run is not None
    assert error_rates(one, run) == pytest.approx(expected, abs=1e-6)
