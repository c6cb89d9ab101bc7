"""Errors: every one of the registry has a class, and bad values are found before sending."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import qstack
from qstack.api import checks
from qstack.api.epr import EprSocket
from qstack.api.errors import CLASSES, error_of
from qstack.api.node import Node
from qstack.errors import ErrorCode
from qstack.runtime import session_messages as session
from qstack.transport import service as transport
from tests.api.fake_node import FakeNode, failure


@pytest.mark.parametrize("code", list(ErrorCode), ids=lambda code: code.name)
async def test_every_error_of_the_registry_is_raised_as_its_class(
    alice: FakeNode, code: ErrorCode
) -> None:
    alice.scripts[transport.EprCreate] = failure(code, best=0.83)
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        with pytest.raises(qstack.QstackError) as caught:
            await epr.create_keep()
    assert type(caught.value) is CLASSES[code]
    assert caught.value.code == code.name
    assert caught.value.best == 0.83
    assert code.sentence in str(caught.value)
    assert "scripted" in caught.value.reason


def test_the_named_errors_are_the_documented_classes() -> None:
    expected = {
        "FIDELITY": qstack.Refused,
        "TIMEOUT": qstack.Expired,
        "LOST": qstack.Lost,
        "GONE": qstack.Lost,
        "EXPIRED": qstack.Lost,
        "NOT_OWNER": qstack.NotOwner,
        "CLOSED": qstack.Closed,
        "PEER_DOWN": qstack.NodeGone,
        "DEVICE_LOST": qstack.NodeGone,
        "BAD_REQUEST": qstack.BadRequest,
    }
    assert {name: CLASSES[ErrorCode[name]] for name in expected} == expected
    assert issubclass(qstack.BadRequest, ValueError)
    assert issubclass(qstack.NoNode, qstack.NodeGone)
    assert set(CLASSES) == set(ErrorCode)


def test_an_error_of_a_newer_node_is_refused_with_its_name() -> None:
    error = error_of("TOO_LATE", "much")
    assert type(error) is qstack.Refused
    assert error.code == "TOO_LATE"


BAD: list[Callable[[Node, EprSocket], Any]] = [
    lambda _, epr: epr.create_keep(0),
    lambda _, epr: epr.create_keep(10**9),
    lambda _, epr: epr.create_keep(1.5),
    lambda _, epr: epr.create_keep(True),
    lambda _, epr: epr.create_keep(min_fidelity=1.01),
    lambda _, epr: epr.create_keep(min_fidelity=math.nan),
    lambda _, epr: epr.create_keep(priority=8),
    lambda _, epr: epr.create_keep(deadline_ns=0),
    lambda _, epr: epr.accept(deadline_ns=-5),
    lambda _, epr: epr.accept(deadline_ns=2**63),
    lambda _, epr: epr.accept(0),
    lambda _, epr: epr.create_measure(1, "W"),
    lambda _, epr: epr.accept_measure(0, "X"),
    lambda _, epr: epr.accept_measure(1, "x"),
    lambda _, epr: epr.create_measure(1, 5),
    lambda _, epr: epr.create_measure(1, {}),
    lambda _, epr: epr.create_measure(1, {"W": 1.0}),
    lambda _, epr: epr.create_measure(1, {"Z": 0.5, "X": 0.4}),
    lambda _, epr: epr.create_measure(1, {"Z": 1.5, "X": -0.5}),
    lambda _, epr: epr.accept_measure(1, {"Z": math.nan, "X": 1.0}),
    lambda _, epr: epr.accept_measure(1, {"Z": "much"}),
    lambda node, _: node.sleep(0),
    lambda node, _: node.sleep(-1),
    lambda node, _: node.route("Bob"),
    lambda node, _: node.route("bob\n"),
    lambda node, _: node.route("bob", kind="lend"),
    lambda node, _: node.route("bob", min_fidelity=1.1),
    lambda node, _: node.epr_socket(remote="bob", port=65_536).__aenter__(),
    lambda node, _: node.epr_socket(remote="", port=1).__aenter__(),
    lambda node, _: node.listen(port=-1).__aenter__(),
    lambda node, _: node.message_socket(remote="bob", port=9, deadline_ns=0).__aenter__(),
    lambda node, _: node.qubit_socket(remote="bob", port=9, min_fidelity=-0.1).__aenter__(),
]


@pytest.mark.parametrize("bad", BAD)
async def test_a_value_that_makes_no_sense_is_refused_before_anything_is_sent(
    alice: FakeNode, bad: Callable[[Node, EprSocket], Any]
) -> None:
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        before = len(alice.heard)

        async def try_it() -> None:
            result = bad(node, epr)
            if isinstance(result, Awaitable):
                await result

        with pytest.raises(qstack.BadRequest) as caught:
            await try_it()
        assert isinstance(caught.value, ValueError)
        assert len(alice.heard) == before


def test_a_deadline_that_has_passed_is_called_so() -> None:
    with pytest.raises(qstack.Refused, match="deadline in the past"):
        checks.deadline_ns(0)


async def test_angles_and_messages_have_bounds(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        qubit = await node.qubit()
        for angle in (math.inf, math.nan, 1001.0):
            with pytest.raises(qstack.BadRequest, match="angle"):
                await qubit.rx(angle)
        with pytest.raises(qstack.BadRequest, match="basis"):
            await qubit.measure("W")
        async with node.message_socket(remote="bob", port=9) as stream:
            await stream.send(bytes(transport.MESSAGE_BYTES_MAX))
            with pytest.raises(qstack.BadRequest, match="bytes"):
                await stream.send(bytes(transport.MESSAGE_BYTES_MAX + 1))


async def test_the_largest_values_allowed_are_taken_by_the_node(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        async with node.epr_socket(remote="a" * 63, port=65_535, min_fidelity=1) as epr:
            alice.scripts[transport.EprCreate] = failure(ErrorCode.FIDELITY)
            pairs = epr.create_keep(checks.PAIRS_MAX, priority=7, deadline_ns=checks.SPAN_NS_MAX)
            with pytest.raises(qstack.Refused):
                await anext(pairs)
        qubit = await node.qubit()
        await qubit.rz(1000)
        await node.sleep(checks.SPAN_NS_MAX)
    assert alice.of(session.Sleep)[0].span_ns == 2**62
