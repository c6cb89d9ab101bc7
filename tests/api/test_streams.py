"""Qubit and message streams against a fake node."""

from collections.abc import Callable

import pytest
import trio

import qstack
from qstack.api import MessageStream, QubitStream
from qstack.api.qubit import Qubit
from qstack.errors import ErrorCode
from qstack.physical import service as physical
from qstack.transport import service as transport
from qstack.wire.message import Message
from tests.api.fake_node import FakeNode, failure, silence


def accepted(kind: transport.StreamKind) -> Callable[[Message], list[Message]]:
    """A script: the next stream is of that kind."""
    return lambda message: [
        transport.Accepted(call=message.call, socket=77, remote="carol", kind=kind)
    ]


async def test_a_qubit_is_given_to_the_transport_layer_and_sent_in_one_burst(
    alice: FakeNode,
) -> None:
    async with qstack.open_node("alice") as node:
        async with node.qubit_socket(remote="bob", port=8, min_fidelity=0.6) as out:
            qubit = await node.qubit()
            await qubit.ry(0.3)
            await out.send(qubit)
        [opening] = alice.of(transport.StreamOpen)
        assert (opening.kind, opening.port, opening.min_fidelity) == ("qubit", 8, 0.6)
        place = alice.heard.index(alice.of(physical.Transfer)[0])
        give, send = alice.heard[place : place + 2]
        assert give == physical.Transfer(call=None, qubit=qubit.id, to="transport")
        assert isinstance(send, transport.SendQubit)
        assert send.qubit == qubit.id


@pytest.mark.parametrize(("code", "is_there"), [(ErrorCode.TIMEOUT, True), (ErrorCode.LOST, False)])
async def test_only_a_lost_qubit_is_gone_after_a_failed_send(
    alice: FakeNode, code: ErrorCode, *, is_there: bool
) -> None:
    alice.scripts[transport.SendQubit] = failure(code)
    async with (
        qstack.open_node("alice") as node,
        node.qubit_socket(remote="bob", port=8) as out,
    ):
        qubit = await node.qubit()
        with pytest.raises(qstack.Expired if is_there else qstack.Lost):
            await out.send(qubit)
        assert (qubit.fate is None) == is_there
        if is_there:
            await qubit.h()


@pytest.mark.parametrize("code", [ErrorCode.CANCELLED, ErrorCode.LOST])
async def test_a_qubit_whose_sending_was_cancelled_is_freed_if_it_comes_back(
    alice: FakeNode, code: ErrorCode
) -> None:
    alice.scripts[transport.SendQubit] = silence
    async with (
        qstack.open_node("alice") as node,
        node.qubit_socket(remote="bob", port=8) as out,
    ):
        qubit = await node.qubit()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.send, qubit)
            [send] = await alice.hears(transport.SendQubit)
            nursery.cancel_scope.cancel()
        await alice.hears(transport.CancelCall)
        alice.tell(failure(code)(send)[0])
        await node.sleep(1)
        await node.sleep(1)
    freed = [] if code is ErrorCode.LOST else [physical.Free(qubit=qubit.id)]
    assert alice.of(physical.Free) == freed


async def test_a_qubit_not_yet_sent_when_cancelled_is_still_there(alice: FakeNode) -> None:
    async with (
        qstack.open_node("alice") as node,
        node.qubit_socket(remote="bob", port=8) as out,
    ):
        qubit = await node.qubit()
        with trio.CancelScope() as scope:
            scope.cancel()
            await out.send(qubit)
        await qubit.measure()
    assert not alice.of(physical.Transfer, transport.SendQubit)


async def test_a_listener_takes_qubit_and_message_streams(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node, node.listen(port=8, remote="carol") as server:
        alice.scripts[transport.Accept] = accepted("qubit")
        stream = await server.accept()
        assert isinstance(stream, QubitStream)
        assert (stream.remote, stream.port) == ("carol", 8)
        qubit = await stream.receive()
        assert isinstance(qubit, Qubit)
        await qubit.measure()
        alice.scripts[transport.Accept] = accepted("message")
        async with await server.accept() as other:
            assert isinstance(other, MessageStream)
            await other.send(memoryview(b"there"))
            assert await other.receive() == b"hello"
        await stream.close()
    assert alice.of(transport.SendMessage)[0].data == b"there"


@pytest.mark.parametrize("kind", ["qubit", "message"])
async def test_a_stream_is_iterated_until_the_far_end_closes(
    alice: FakeNode, kind: transport.StreamKind
) -> None:
    def two_then_closed(message: Message) -> list[Message]:
        if len(alice.of(type(message))) > 2:
            return failure(ErrorCode.CLOSED)(message)
        return alice.answer(message)

    asked = transport.ReceiveQubit if kind == "qubit" else transport.ReceiveMessage
    alice.scripts = {transport.Accept: accepted(kind), asked: two_then_closed}
    async with qstack.open_node("alice") as node, node.listen(port=8) as server:
        stream = await server.accept()
        assert len([item async for item in stream]) == 2
        assert alice.of(asked)[0].within_ns is None
        with pytest.raises(qstack.Closed):
            await stream.receive()


async def test_what_arrives_for_a_cancelled_receive_goes_to_the_next_in_order(
    alice: FakeNode,
) -> None:
    alice.scripts[transport.ReceiveMessage] = silence
    async with (
        qstack.open_node("alice") as node,
        node.message_socket(remote="bob", port=9) as stream,
    ):
        got: list[bytes] = []

        async def receive() -> None:
            got.append(await stream.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            [first] = await alice.hears(transport.ReceiveMessage)
            nursery.cancel_scope.cancel()
        await alice.hears(transport.CancelCall)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            [_, second] = await alice.hears(transport.ReceiveMessage, 2)
            alice.tell(transport.MessageArrived(call=first.call, data=b"0"))
        assert got == [b"0"]
        [_, cancel] = await alice.hears(transport.CancelCall, 2)
        assert cancel.call == second.call
        alice.tell(transport.MessageArrived(call=second.call, data=b"1"))
        await node.sleep(1)
        await receive()  # kept: no call is needed for it
        assert got == [b"0", b"1"]
        assert len(alice.of(transport.ReceiveMessage)) == 2


async def test_an_answer_that_came_as_its_receive_was_cancelled_is_not_lost(
    alice: FakeNode,
) -> None:
    alice.scripts[transport.ReceiveMessage] = silence
    async with (
        qstack.open_node("alice") as node,
        node.message_socket(remote="bob", port=9) as stream,
    ):
        got: dict[str, bytes] = {}

        async def receive(name: str, scope: trio.CancelScope) -> None:
            with scope:
                got[name] = await stream.receive()

        first, second = trio.CancelScope(), trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, "first", first)
            await alice.hears(transport.ReceiveMessage)
            nursery.start_soon(receive, "second", second)
            calls = await alice.hears(transport.ReceiveMessage, 2)
            for place, call in enumerate(calls):
                alice.tell(transport.MessageArrived(call=call.call, data=b"%d" % place))
            await alice.until(lambda: not alice.server.busy)
        assert got == {"first": b"0", "second": b"1"}


@pytest.mark.parametrize("moment", range(1, 12))
async def test_whenever_a_receive_is_cancelled_nothing_is_lost_or_out_of_order(
    alice: FakeNode, moment: int
) -> None:
    """A stream of numbers, read by receives of which every other is cancelled at some moment."""
    count = 0

    def next_number(message: Message) -> list[Message]:
        nonlocal count
        count += 1
        return [transport.MessageArrived(call=message.call, data=b"%d" % count)]

    alice.scripts[transport.ReceiveMessage] = next_number
    got: list[int] = []
    async with (
        qstack.open_node("alice") as node,
        node.message_socket(remote="bob", port=9) as stream,
    ):
        for _ in range(20):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:

                async def read(scope: trio.CancelScope = scope) -> None:
                    with scope:
                        got.append(int(await stream.receive()))

                nursery.start_soon(read)
                for _ in range(moment):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
            got.append(int(await stream.receive()))
    assert got == list(range(1, len(got) + 1))


async def test_closing_a_qubit_stream_frees_what_was_not_taken(alice: FakeNode) -> None:
    alice.scripts = {transport.Accept: accepted("qubit"), transport.ReceiveQubit: silence}
    async with qstack.open_node("alice") as node, node.listen(port=8) as server:
        stream = await server.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive)
            [call] = await alice.hears(transport.ReceiveQubit)
            nursery.cancel_scope.cancel()
        alice.tell(transport.QubitArrived(call=call.call, qubit=b"q" * 16, sequence=0))
        await node.sleep(1)
        await stream.close()
        assert await alice.hears(physical.Free) == [physical.Free(qubit=b"q" * 16)]
