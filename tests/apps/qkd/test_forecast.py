"""A plan from the network layer's prediction: the headroom, and when there is none to be had."""

import math

import pytest
import trio

from qstack.api.errors import Refused
from qstack.api.node import Route
from qstack.apps.qkd import forecast as module
from qstack.apps.qkd.forecast import Forecast, NoRouteError, forecast, plan_given, plan_predicted
from qstack.apps.qkd.parameters import TOLERATED_ERRORS, ParametersError

PATH = ("alice", "bob")
NONE = Route((), 0.0, 0.0, 0.5, 0.5)
GOOD = Route(PATH, 0.97, 900.0, 0.02, 0.01)


class AskedNode:
    """Answers questions about routes, one after the other, the last one again and again."""

    def __init__(self, name, *answers):
        self.name = name
        self.answers = [*answers]
        self.asked = []
        self.slept_ns = 0

    async def route(self, remote, **options):
        await trio.lowlevel.checkpoint()
        self.asked.append((remote, options))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, span_ns):
        await trio.lowlevel.checkpoint()
        self.slept_ns += span_ns


@pytest.mark.parametrize(("here", "there", "is_theirs"), [("a", "b", False), ("b", "a", True)])
async def test_both_ends_ask_about_the_way_of_the_one_that_makes_the_pairs(here, there, is_theirs):
    node = AskedNode(here, GOOD)
    assert await forecast(node, there) == Forecast(PATH, 0.02, 0.01, 900.0)
    options = {"kind": "measure", "min_fidelity": pytest.approx(0.81), "from_remote": is_theirs}
    assert node.asked == [(there, options)]
    assert node.slept_ns == 0


async def test_a_route_that_is_not_known_yet_is_waited_for():
    node = AskedNode("alice", NONE, NONE, GOOD)
    assert (await forecast(node, "bob")).path == PATH
    assert node.slept_ns == 2 * module.ASK_AGAIN_NS


async def test_no_route_is_said_after_a_second_of_network_time():
    node = AskedNode("alice", NONE)
    with pytest.raises(NoRouteError, match=r"^no route to bob$"):
        await forecast(node, "bob")
    assert node.slept_ns == 980_000_000


async def test_pairs_that_are_too_poor_are_said_with_what_could_be_had():
    node = AskedNode("alice", Route(PATH, 0.7, 0.0, 0.5, 0.5))
    with pytest.raises(NoRouteError, match=r"over alice-bob is 0\.7000; a key needs 0\.81"):
        await forecast(node, "bob")


async def test_an_error_of_the_node_is_not_taken_for_a_route():
    node = AskedNode("alice", Refused("", code="LAYER_LOST"))
    with pytest.raises(Refused):
        await forecast(node, "bob")


@pytest.mark.parametrize("bits", [64, 1000, 30_000])
@pytest.mark.parametrize(
    ("error_x", "error_z"), [(0, 0), (0.0173, 0.0173), (0.05, 0.01), (0, 0.05)]
)
def test_a_plan_is_the_least_that_leaves_room_for_chance_and_the_model(bits, error_x, error_z):
    expected = Forecast(PATH, error_x, error_z, 1.0)
    plan = plan_predicted(bits, expected)
    assert plan.error_rate in TOLERATED_ERRORS
    assert plan.origin.startswith("predicted by the network layer: error rates ")
    assert plan.parameters == plan_given(bits, plan.error_rate).parameters

    def limit(predicted, judged):
        likely = 1.1 * predicted
        return likely + 3 * math.sqrt(likely * (1 - likely) / judged)

    def limits(parameters):
        return limit(error_x, parameters.k), limit(error_z, parameters.n)

    assert max(limits(plan.parameters)) <= plan.error_rate
    lower = [rate for rate in TOLERATED_ERRORS if rate < plan.error_rate]
    for rate in lower:
        assert max(limits(plan_given(bits, rate).parameters)) > rate


def test_a_small_difference_of_predictions_makes_no_other_plan():
    plans = [plan_predicted(1000, Forecast(PATH, rate, rate, 1.0)) for rate in (0.0171, 0.0175)]
    assert plans[0].parameters == plans[1].parameters
    assert plans[0].error_rate == 0.03


@pytest.mark.parametrize(
    ("bits", "rate", "words"),
    [
        (64, 0.09, "over alice-bob, 1 pairs/s: with headroom that is more than the 0.095"),
        (64, 0.5, "more than the 0.095"),
        (10**7, 0.01, "ask for several keys"),
        (9000, 0.07, "ask for several keys"),
    ],
)
def test_what_no_plan_serves_is_refused_with_the_reason(bits, rate, words):
    with pytest.raises(ParametersError, match=words):
        plan_predicted(bits, Forecast(PATH, rate, rate, 1.0))


def test_a_rate_that_is_given_is_called_so():
    plan = plan_given(64, 0.04)
    assert (plan.error_rate, plan.origin, plan.forecast) == (0.04, "as given", None)
