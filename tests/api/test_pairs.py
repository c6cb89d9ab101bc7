"""EPR sockets, pairs and qubits against a fake node."""

import math
from typing import Any

import numpy as np
import pytest
import trio

import qstack
from qstack.api import MeasuredPairs, Pair, Prepared, Qubit
from qstack.errors import ErrorCode
from qstack.physical import service as physical
from qstack.transport import service as transport
from qstack.wire.message import BasisProbabilities, Message
from tests.api.fake_node import FakeNode, failure, pair_id, silence


async def test_one_pair_is_awaited_and_measured(alice: FakeNode) -> None:
    async with (
        qstack.open_node("alice") as node,
        node.epr_socket(remote="bob", port=7, min_fidelity=0.7) as epr,
    ):
        pair = await epr.create_keep()
        assert isinstance(pair, Pair)
        assert pair.remote == "bob"
        assert pair.bits == (0, 1)
        assert pair.goodness == 0.9
        assert pair.time_of_goodness_ns == 1_000
        assert await pair.qubit.measure("X") == 1
    [create] = alice.of(transport.EprCreate)
    assert create == transport.EprCreate(
        call=1, socket=1, number=1, basis=None, min_fidelity=0.7, priority=0, within_ns=10**10
    )
    assert alice.of(physical.Measure)[0].basis == "X"
    await alice.until(lambda: alice.ended == ["app/0"])
    assert alice.of(transport.CloseSocket) == [transport.CloseSocket(socket=1)]


@pytest.mark.parametrize("side", ["create", "accept"])
async def test_pairs_are_iterated(alice: FakeNode, side: str) -> None:
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        pairs = epr.create_keep(n=20) if side == "create" else epr.accept(n=20)
        names = [pair.id async for pair in pairs]
        assert len(set(names)) == 20
        assert [pair async for pair in pairs] == []
    assert len(alice.of(transport.EprCreate, transport.EprAccept)) == 1


async def test_awaiting_many_pairs_says_to_iterate(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        with pytest.raises(qstack.BadRequest, match="async for"):
            await epr.create_keep(n=2)
    assert not alice.of(transport.EprCreate)


async def test_a_socket_for_anyone_accepts_and_does_not_create(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node, node.epr_socket(remote=None, port=7) as epr:
        assert (await epr.accept()).remote == "bob"
        with pytest.raises(qstack.BadRequest, match="only accept"):
            epr.create_keep()


async def test_bases_are_drawn_with_the_probabilities_asked_for_and_come_as_letters(
    alice: FakeNode,
) -> None:
    def measured(message: Message) -> list[Message]:
        assert isinstance(message, transport.EprCreate | transport.EprAccept)
        bases = b"" if message.basis == "Y" else b"\x82"  # Z X X Z
        return [
            transport.PairsMeasured(
                call=message.call, remote="bob", pairs=4, outcomes=b"\x50", x_bits=b"\0",
                z_bits=b"\0", bases=bases, goodness=0.9,
            ),
            transport.Finished(call=message.call),
        ]  # fmt: skip

    alice.scripts = {transport.EprCreate: measured, transport.EprAccept: measured}
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        drawn = await epr.create_measure(4, {"Z": 0.9, "X": np.float32(0.5) - 0.4})
        fixed = await epr.accept_measure(4, "Y")
        certain = await epr.accept_measure(4, {"Z": 1})
    assert drawn.bases.tolist() == ["Z", "X", "X", "Z"]
    assert drawn.outcomes[drawn.bases == "X"].tolist() == [1, 0]
    assert fixed.bases.tolist() == ["Y"] * 4
    assert certain.bases.tolist() == ["Z", "X", "X", "Z"]
    [create] = alice.of(transport.EprCreate)
    assert isinstance(create.basis, BasisProbabilities)
    assert create.basis.in_x == pytest.approx(0.1)
    assert (create.basis.in_y, create.basis.in_z) == (0.0, pytest.approx(0.9))
    accepts = [message.basis for message in alice.of(transport.EprAccept)]
    assert accepts == ["Y", BasisProbabilities(0.0, 0.0, 1.0)]


async def test_measured_pairs_come_as_arrays(alice: FakeNode) -> None:
    outcomes = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1], dtype=np.uint8)

    def measured(message: Message) -> list[Message]:
        assert isinstance(message, transport.EprCreate | transport.EprAccept)
        parts: list[Message] = [
            transport.PairsMeasured(
                call=message.call,
                remote="bob",
                pairs=len(part),
                outcomes=np.packbits(part).tobytes(),
                x_bits=np.packbits(1 - part).tobytes(),
                z_bits=np.packbits(0 * part).tobytes(),
                bases=b"",
                goodness=goodness,
            )
            for part, goodness in ((outcomes[:5], 0.8), (outcomes[5:], 0.9))
        ]
        return [*parts, transport.Finished(call=message.call)]

    alice.scripts = {transport.EprCreate: measured, transport.EprAccept: measured}
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        for result in (
            await epr.create_measure(11, "Z"),
            await epr.accept_measure(11, "Z", deadline_ns=None),
        ):
            assert isinstance(result, MeasuredPairs)
            assert len(result) == 11
            assert result.outcomes.dtype == np.uint8
            assert np.array_equal(result.outcomes, outcomes)
            assert np.array_equal(result.x, 1 - outcomes)
            assert not result.z.any()
            assert result.goodness == pytest.approx((5 * 0.8 + 6 * 0.9) / 11)
    assert alice.of(transport.EprAccept)[0].within_ns is None


def prepared(call: int, number: int, outcome: int, basis: Any) -> transport.PairPrepared:
    return transport.PairPrepared(
        call=call, remote="bob", pair=pair_id(number), outcome=outcome, basis=basis,
        x_bit=1, z_bit=0, goodness=0.9, time_of_goodness_ns=5,
    )  # fmt: skip


async def test_a_reading_prepares_a_state_at_the_far_end(alice: FakeNode) -> None:
    def read(message: Message) -> list[Message]:
        assert isinstance(message, transport.EprCreate)
        told = [prepared(message.call, n, n % 2, "XYZ"[n // 2]) for n in range(message.number)]
        return [*told, transport.Finished(call=message.call)]

    alice.scripts = {transport.EprCreate: read}
    turn = (0.0, math.pi / 2, 0.0)
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        states = [each async for each in epr.create_prepare({"X": 0.5, "Z": 0.5}, n=6)]
        turned = [each async for each in epr.create_prepare("X", 5, rotation=turn)]
        one = await epr.create_prepare("X", min_fidelity=0.8, priority=3)
    assert [each.direction for each in states] == [
        (1, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1)
    ]  # fmt: skip
    assert [each.outcome for each in states] == [0, 1, 0, 1, 0, 1]
    assert turned[0].direction == pytest.approx((0, 0, 1)), "X after the turn was Z before"
    assert turned[4].direction == pytest.approx((-1, 0, 0))
    assert one == Prepared(
        outcome=0, basis="X", direction=(1.0, 0.0, 0.0), id=pair_id(0), remote="bob",
        bits=(1, 0), goodness=0.9, time_of_goodness_ns=5,
    )  # fmt: skip
    first, second, third = alice.of(transport.EprCreate)
    assert first.basis == BasisProbabilities(0.5, 0.0, 0.5)
    assert all(each.is_prepare for each in (first, second, third))
    assert (first.rotation, second.rotation) == (None, physical.Rotation(*turn))
    assert (third.min_fidelity, third.priority) == (0.8, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        (("W",), {}, "a basis is one of"),
        (({"X": 0.5},), {}, "sum to 1"),
        (("X",), {"rotation": (0.0, 1.0)}, "three angles"),
        (("X",), {"rotation": 1.0}, "three angles"),
        (("X",), {"rotation": ("a", "b", "c")}, "three angles"),
        (("X",), {"rotation": (0.0, math.inf, 0.0)}, "radians"),
        (("X", 0), {}, "number of pairs"),
        (("X",), {"deadline_ns": 0}, "deadline"),
    ],
)
async def test_a_preparation_that_makes_no_sense_is_not_sent(
    alice: FakeNode, arguments: Any, options: Any, match: str
) -> None:
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        with pytest.raises(qstack.BadRequest, match=match):
            epr.create_prepare(*arguments, **options)
    assert not alice.of(transport.EprCreate)


async def test_the_echo_port_reads_the_far_half(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=0) as epr:
        pair = await epr.create_keep()
        assert await epr.echo(pair, "Y") == 1
    assert alice.of(transport.EchoMeasure)[0].pair == pair.id


async def test_gates_are_the_physical_layers(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        first, second = await node.qubit(), await node.qubit()
        for gate in (first.h, first.x, first.y, first.z, first.s, first.t):
            await gate()
        for turn in (first.rx, first.ry, first.rz):
            await turn(0.5)
        await first.cnot(second)
        await first.cz(second)
        await first.reset()
        await first.free()
        await first.free()
        with pytest.raises(qstack.BadRequest, match="two qubits"):
            await second.cz(second)
        await second.measure()
    applied = alice.of(physical.ApplyGate)
    assert [gate.name for gate in applied] == [
        "h",
        "x",
        "y",
        "z",
        "s",
        "t",
        "rx",
        "ry",
        "rz",
        "cnot",
        "cz",
    ]
    assert [gate.angle for gate in applied] == [0.0] * 6 + [0.5] * 3 + [0.0] * 2
    assert applied[-1].qubits == [first.id, second.id]
    assert len(alice.of(physical.Free)) == 1


async def test_a_qubit_that_has_ended_is_not_used_again(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        measured, freed, sent = await node.qubit(), await node.qubit(), await node.qubit()
        await measured.measure()
        await freed.free()
        async with node.qubit_socket(remote="bob", port=8) as out:
            await out.send(sent)
            before = len(alice.heard)
            for qubit, fate in ((measured, "measured"), (freed, "freed"), (sent, "sent")):
                with pytest.raises(qstack.BadRequest, match=fate) as caught:
                    await qubit.h()
                assert caught.value.code == "GONE"
                with pytest.raises(qstack.BadRequest, match=fate):
                    await out.send(qubit)
                with pytest.raises(qstack.BadRequest, match=fate):
                    await qubit.measure()
            assert len(alice.heard) == before


async def test_a_foreign_qubit_is_refused_by_the_node(alice: FakeNode) -> None:
    alice.scripts[physical.Measure] = lambda message: [
        physical.CallFailed(call=message.call, error="NOT_OWNER", detail="")
    ]
    async with qstack.open_node("alice") as node, qstack.open_node("alice") as other:
        theirs = await other.qubit()
        for _ in range(2):
            with pytest.raises(qstack.NotOwner):
                await Qubit(node, theirs.id).measure()
        async with node.qubit_socket(remote="bob", port=8) as out:
            with pytest.raises(qstack.BadRequest, match="another node"):
                await out.send(theirs)


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_qubit_whose_far_half_is_gone_is_lost(alice: FakeNode, *, is_early: bool) -> None:
    def delivered(message: Message) -> list[Message]:
        assert isinstance(message, transport.EprCreate)
        pair = alice.pair(message.call)
        void = transport.PairVoid(qubit=pair.qubit, pair=pair.pair)
        return [pair, *([void] if is_early else []), transport.Finished(call=message.call)]

    alice.scripts[transport.EprCreate] = delivered
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        pair = await epr.create_keep()
        if not is_early:
            await pair.qubit.h()
            alice.tell(transport.PairVoid(qubit=pair.qubit.id, pair=pair.id))
            await node.sleep(1)
        with pytest.raises(qstack.Lost, match="far half"):
            await pair.qubit.measure()
        await pair.qubit.free()
        await alice.hears(physical.Free)


async def test_when_the_device_goes_its_qubits_are_lost(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        qubit = await node.qubit()
        alice.tell(physical.DeviceLost())
        alice.tell(physical.DeviceReady())
        await node.sleep(1)
        with pytest.raises(qstack.Lost, match="device"):
            await qubit.h()


async def test_a_pair_that_comes_after_the_call_was_cancelled_is_freed(alice: FakeNode) -> None:
    alice.scripts[transport.EprCreate] = silence
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(epr.create_keep().__anext__)
                [create] = await alice.hears(transport.EprCreate)
                scope.cancel()
        [cancel] = await alice.hears(transport.CancelCall)
        assert cancel.call == create.call
        pair = alice.pair(create.call)
        alice.tell(pair)
        alice.tell(transport.Finished(call=create.call))
        assert await alice.hears(physical.Free) == [physical.Free(qubit=pair.qubit)]


async def test_a_call_cancelled_before_it_was_said_is_never_said(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        qubit = await node.qubit()
        with trio.CancelScope() as scope:
            scope.cancel()
            await qubit.measure()
        assert await qubit.measure() == 1
    assert len(alice.of(physical.Measure)) == 1
    assert not alice.of(transport.CancelCall)


async def test_pairs_left_early_are_cancelled_and_freed(alice: FakeNode) -> None:
    alice.scripts[transport.EprCreate] = lambda message: [
        alice.pair(message.call), alice.pair(message.call)
    ]  # fmt: skip
    async with qstack.open_node("alice") as node:
        async with node.epr_socket(remote="bob", port=7) as epr:
            async for _ in epr.create_keep(n=5):
                break
            pairs = epr.create_keep(n=5)
            await anext(pairs)
            await pairs.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(pairs)
        await alice.hears(physical.Free, 2)
        assert len(alice.of(transport.CancelCall)) == 2


async def test_two_tasks_do_not_share_one_iteration(alice: FakeNode) -> None:
    alice.scripts[transport.EprCreate] = silence
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        pairs = epr.create_keep(n=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pairs.__anext__)
            await alice.hears(transport.EprCreate)
            with pytest.raises(qstack.BadRequest, match="another task"):
                await anext(pairs)
            nursery.cancel_scope.cancel()


async def test_a_failure_after_some_pairs_is_raised_after_them(alice: FakeNode) -> None:
    alice.scripts[transport.EprCreate] = lambda message: [
        alice.pair(message.call), *failure(ErrorCode.TIMEOUT)(message)
    ]  # fmt: skip
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        pairs = epr.create_keep(n=2)
        await anext(pairs)
        with pytest.raises(qstack.Expired):
            await anext(pairs)
