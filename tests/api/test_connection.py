"""The connection with the node: bursts, idleness, cancellation, and its end."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import qstack
from qstack.api import Node
from qstack.api.node import Route
from qstack.errors import ErrorCode
from qstack.physical import service as physical
from qstack.runtime import session_messages as session
from qstack.transport import service as transport
from qstack.wire.codec import encode
from qstack.wire.frame import pack
from qstack.wire.message import Message
from qstack.wire.session import Stamp
from tests.api.fake_node import FakeNode, failure, running, silence


@pytest.fixture
def schedule(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Choose the order in which trio runs ready tasks."""

    def choose(seed: int) -> None:
        import trio._core._run as inside

        monkeypatch.setattr(inside, "_ALLOW_DETERMINISTIC_SCHEDULING", False)
        monkeypatch.setattr(inside, "_r", random.Random(seed))

    return choose


async def program(node: Node, *, count: int) -> None:
    """Many tasks on many objects, all calling at once; qubits are told apart by their turns."""

    async def rotate(place: int) -> None:
        qubit = await node.qubit()
        await qubit.rx(place / 10)
        await qubit.measure("Z")

    async def talk(port: int) -> None:
        async with node.message_socket(remote="bob", port=port) as stream:
            await stream.send(b"%d" % port)
            await stream.receive()

    async with trio.open_nursery() as nursery:
        for place in range(count):
            nursery.start_soon(rotate, place)
            nursery.start_soon(talk, count - place)


async def test_what_a_program_says_does_not_depend_on_the_order_of_its_tasks(
    run_folder: Path, schedule: Callable[[int], None]
) -> None:
    heard = []
    for seed in range(6):
        schedule(seed)
        async with running(FakeNode("alice"), run_folder) as alice:
            async with qstack.open_node("alice") as node:
                await program(node, count=12)
            await alice.until(lambda alice=alice: bool(alice.ended))
        heard.append(alice.heard)
    assert len(heard[0]) == 12 * 3 + 12 * 4
    assert all(other == heard[0] for other in heard)


async def test_a_burst_is_sorted_by_port_and_what_gives_back_goes_first(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        kept = await node.qubit()

        async def listen(port: int) -> None:
            async with node.listen(port=port):
                pass

        async with trio.open_nursery() as nursery:
            for port in (9, 3, 7):
                nursery.start_soon(listen, port)
            nursery.start_soon(node.sleep, 5)
            nursery.start_soon(kept.free)
    kinds = [type(message).__name__ for message in alice.heard[1:6]]
    assert kinds == ["Free", "Sleep", "Listen", "Listen", "Listen"]
    assert [message.port for message in alice.of(transport.Listen)] == [3, 7, 9]
    calls = [message.call for message in alice.heard if hasattr(message, "call")]
    assert calls == list(range(len(calls)))


async def test_the_node_is_told_when_the_application_waits(alice: FakeNode) -> None:
    async with qstack.open_node("alice"):
        assert alice.server.busy == ["app/0"]  # attached, and has not waited yet
        await trio.sleep(0.001)
        await alice.until(lambda: not alice.server.busy)
        changes = alice.changes
        for _ in range(5):
            await trio.sleep(0.001)
        assert alice.changes == changes  # nothing new is said
        alice.tell(transport.PairVoid(qubit=bytes(16), pair=alice.pair(0).pair))
        assert alice.server.busy == ["app/0"]
        await alice.until(lambda: not alice.server.busy)


async def test_an_idle_that_was_said_too_early_is_ignored(alice: FakeNode) -> None:
    async with qstack.open_node("alice"):
        await alice.until(lambda: not alice.server.busy)
        stale = session.Idle(received=1)
        alice.tell(transport.PairVoid(qubit=bytes(16), pair=alice.pair(0).pair))
        alice.server._on_message(alice.server.sessions["app/0"], stale)
        assert alice.server.busy == ["app/0"]
        await alice.until(lambda: not alice.server.busy)


async def test_in_the_middle_of_a_frame_the_application_is_not_idle(run_folder: Path) -> None:
    async with by_hand(run_folder) as (stream, _node):
        void = pack(encode(transport.PairVoid(qubit=bytes(16), pair=FakeNode("a").pair(0).pair)))
        await stream.send_all(pack(encode(Stamp(at_ns=77))) + void + void[:20])
        with trio.move_on_after(0.05) as limit:
            await stream.receive_some()
        assert limit.cancelled_caught
        await stream.send_all(void[20:])
        assert await stream.receive_some() == pack(encode(session.Idle(received=3)))


class by_hand:  # noqa: N801
    """A node that is but a stream: what it sent first is `Attached`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "node.sock"

    async def __aenter__(self) -> tuple[trio.SocketStream, Node]:
        from qstack.runtime.listen import listen_locally

        listener = listen_locally(self.path)
        self.opening = qstack.open_node("alice", path=self.path)
        attached = session.Attached(
            node="alice", session="app/0", version=1, clock="wall", is_seeded=False
        )
        async with trio.open_nursery() as nursery:
            nodes: list[Node] = []

            async def enter() -> None:
                nodes.append(await self.opening.__aenter__())

            nursery.start_soon(enter)
            self.stream = await listener.accept()
            await self.stream.receive_some()
            frames = (Stamp(at_ns=7), attached)
            await self.stream.send_all(b"".join(pack(encode(frame)) for frame in frames))
        await trio.aclose_forcefully(listener)
        assert await self.stream.receive_some() == pack(encode(session.Idle(received=1)))
        assert nodes[0].now() == 7
        return self.stream, nodes[0]

    async def __aexit__(self, *_: object) -> None:
        await self.opening.__aexit__(None, None, None)
        await self.stream.aclose()


async def test_while_a_thread_of_ours_works_nothing_is_said(alice: FakeNode) -> None:
    import threading

    go = threading.Event()
    async with qstack.open_node("alice") as node:
        await alice.until(lambda: not alice.server.busy)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.sleep, 5)
            nursery.start_soon(qstack.to_thread, go.wait, 5.0)
            await trio.sleep(0.02)
            assert not alice.heard
            go.set()
        assert len(alice.of(session.Sleep)) == 1
        assert await qstack.to_thread(int, "7") == 7
        with pytest.raises(ValueError, match="invalid"):
            await qstack.to_thread(int, "x")
        await node.sleep(1)  # the failure gave its hold back


async def test_network_time_is_that_of_the_last_word_of_the_node(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        assert node.now() == 1_000
        await node.sleep(500)
        assert node.now() == 1_500
        assert await node.status() == {"node": "fake"}
        route = await node.route("bob")
        assert route == Route(("alice", "bob"), 0.9, 10.0, 0.5, 0.5)
        await node.route("bob", kind="measure", min_fidelity=0.8, from_remote=True)
        first, second = alice.of(transport.RouteAsk)
        options: dict[str, Any] = {"kind": "measure", "min_fidelity": 0.8, "from_remote": True}
        assert first == transport.RouteAsk(call=first.call, remote="bob")
        assert second == transport.RouteAsk(call=second.call, remote="bob", **options)


async def test_fail_after_ends_a_block_in_network_time(alice: FakeNode) -> None:
    alice.scripts[transport.EprCreate] = silence
    alice.scripts[session.Sleep] = silence
    async with qstack.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:

        async def be_late() -> None:
            with node.fail_after(5_000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(epr.create_keep().__anext__)
                    [sleep] = await alice.hears(session.Sleep)
                    alice.tell(session.Woken(call=sleep.call))

        with pytest.raises(qstack.Expired, match="5000 ns"):
            await be_late()
        await alice.hears(transport.CancelCall)
        with node.fail_after(5_000):
            await (await node.qubit()).free()
        assert await alice.hears(session.CancelSleep) == [session.CancelSleep(call=4)]
        alice.tell(session.Woken(call=4))  # crossed on the way: ignored
        with node.fail_after(5_000) as scope:
            scope.cancel()
            await trio.sleep_forever()


async def test_a_cancelled_sleep_is_withdrawn(alice: FakeNode) -> None:
    alice.scripts[session.Sleep] = silence
    async with qstack.open_node("alice") as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.sleep, 10)
            await alice.hears(session.Sleep)
            nursery.cancel_scope.cancel()
        await alice.hears(session.CancelSleep)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (physical.Allocate, lambda call: physical.Allocated(call=call, qubit=b"q" * 16)),
        (transport.StreamOpen, lambda call: transport.Opened(call=call, socket=5)),
        (
            transport.Accept,
            lambda call: transport.Accepted(call=call, socket=5, remote="bob", kind="qubit"),
        ),
    ],
)
async def test_what_arrives_for_a_cancelled_call_is_given_back(
    alice: FakeNode, kind: type[Message], answer: Callable[[int], Message]
) -> None:
    alice.scripts[kind] = silence
    async with qstack.open_node("alice") as node, node.listen(port=1) as listener:

        async def open_stream() -> None:
            async with node.message_socket(remote="bob", port=9):
                pass

        wanted = {
            physical.Allocate: node.qubit,
            transport.StreamOpen: open_stream,
            transport.Accept: listener.accept,
        }
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wanted[kind])
            [call] = await alice.hears(kind)
            nursery.cancel_scope.cancel()
        alice.tell(answer(call.call))
        await alice.hears(physical.Free if kind is physical.Allocate else transport.CloseSocket)


async def test_when_the_node_dies_every_open_call_is_told(run_folder: Path) -> None:
    told: list[qstack.QstackError] = []
    alice = FakeNode("alice")
    alice.scripts = dict.fromkeys((session.Sleep, transport.EprCreate, physical.Allocate), silence)
    async with trio.open_nursery() as outer:
        death = trio.CancelScope()

        async def live(task_status: trio.TaskStatus[None]) -> None:
            with death:
                async with running(alice, run_folder):
                    task_status.started()
                    await trio.sleep_forever()

        await outer.start(live)
        async with qstack.open_node("alice") as node:
            async with node.epr_socket(remote="bob", port=7) as epr:

                async def expect(call: Callable[[], object]) -> None:
                    with pytest.raises(qstack.NodeGone) as caught:
                        await call()
                    told.append(caught.value)

                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(expect, node.qubit)
                        nursery.start_soon(expect, lambda: node.sleep(10))
                        nursery.start_soon(expect, epr.create_keep().__anext__)
                    await alice.hears(physical.Allocate, 20)
                    death.cancel()
            with pytest.raises(qstack.NodeGone):
                await node.qubit()
            await epr.close()  # giving back to nobody is not an error
    assert len(told) == 60
    assert {error.code for error in told} == {"PEER_DOWN"}
    assert len({id(error) for error in told}) == 60


async def test_a_session_the_node_ends_says_why(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        alice.scripts[session.Sleep] = silence
        async with trio.open_nursery() as nursery:

            async def expect() -> None:
                with pytest.raises(qstack.NodeGone, match="busy for 10 s") as caught:
                    await node.sleep(10)
                assert caught.value.code == "TIMEOUT"

            nursery.start_soon(expect)
            await alice.hears(session.Sleep)
            alice.server.end("app/0", ErrorCode.TIMEOUT, "busy for 10 s")


async def test_nonsense_of_the_node_ends_the_connection(run_folder: Path) -> None:
    for nonsense in (b"HTTP/1.1 200 OK\r\n\r\n", pack(encode(session.Idle(received=1)))):
        async with by_hand(run_folder) as (stream, node), trio.open_nursery() as nursery:

            async def expect(node: Node = node) -> None:
                with pytest.raises(qstack.NodeGone, match="broke a rule"):
                    await node.sleep(10)

            nursery.start_soon(expect)
            await stream.receive_some()
            await stream.send_all(nonsense)


async def test_an_answer_of_the_wrong_kind_is_not_taken_for_the_right_one(alice: FakeNode) -> None:
    alice.scripts[physical.Allocate] = lambda message: [transport.Finished(call=message.call)]
    async with qstack.open_node("alice") as node:
        with pytest.raises(qstack.NodeGone, match="Finished"):
            await node.qubit()


async def test_leaving_the_block_ends_calls_that_still_wait(alice: FakeNode) -> None:
    alice.scripts[session.Sleep] = silence
    async with trio.open_nursery() as nursery:

        async def expect(node: Node) -> None:
            with pytest.raises(qstack.NodeGone) as caught:
                await node.sleep(10)
            assert caught.value.code == "CLOSED"

        async with qstack.open_node("alice") as node:
            nursery.start_soon(expect, node)
            await alice.hears(session.Sleep)


async def test_ten_thousand_calls_at_once(alice: FakeNode) -> None:
    async with qstack.open_node("alice") as node:
        outcomes: list[int] = []

        async def one() -> None:
            outcomes.append(await (await node.qubit()).measure())

        async with trio.open_nursery() as nursery:
            for _ in range(5_000):
                nursery.start_soon(one)
    assert outcomes == [1] * 5_000
    assert len(alice.heard) == 10_000


async def test_what_the_socket_does_not_take_at_once_is_sent_later(alice: FakeNode) -> None:
    async with (
        qstack.open_node("alice") as node,
        node.message_socket(remote="bob", port=9) as stream,
        trio.open_nursery() as nursery,
    ):
        for place in range(100):
            nursery.start_soon(stream.send, bytes([place]) * 60_000)
    sent = alice.of(transport.SendMessage)
    assert [message.data[0] for message in sent] == list(range(100))


async def test_two_nodes_in_one_process(alice: FakeNode, run_folder: Path) -> None:
    async with running(FakeNode("bob"), run_folder) as bob:
        async with qstack.open_node("alice") as first, qstack.open_node("bob") as second:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.sleep, 5)
                nursery.start_soon(second.sleep, 6)
            await alice.until(lambda: not alice.server.busy and not bob.server.busy)
        assert bob.of(session.Sleep)[0].span_ns == 6


async def test_two_sockets_on_one_port_are_told_apart(alice: FakeNode) -> None:
    async with (
        qstack.open_node("alice") as node,
        node.epr_socket(remote="bob", port=7) as to_bob,
        node.epr_socket(remote="carol", port=7) as to_carol,
    ):
        await to_carol.create_keep()
        await to_bob.create_keep()
        assert to_bob.number != to_carol.number
        numbers = [create.socket for create in alice.of(transport.EprCreate)]
        assert numbers == [to_carol.number, to_bob.number]
        alice.scripts[transport.EprOpen] = failure(ErrorCode.PORT_IN_USE)
        with pytest.raises(qstack.Refused) as caught:
            async with node.epr_socket(remote="bob", port=7):
                pass
        assert caught.value.code == "PORT_IN_USE"


# --- finding the node ----------------------------------------------------------------------------


async def test_no_node_says_what_to_do(run_folder: Path) -> None:
    with pytest.raises(qstack.NoNode, match=r"no node 'alice' .* start one with `qstack up`"):
        async with qstack.open_node("alice"):
            pass


async def test_a_node_of_two_networks_must_be_named_by_its_socket(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running(FakeNode("alice"), run_folder, "east"),
        running(FakeNode("alice"), run_folder, "west") as west,
    ):
        with pytest.raises(qstack.NoNode, match="east, west"):
            async with qstack.open_node("alice"):
                pass
        monkeypatch.setenv("QSTACK_NODE", str(run_folder / "west" / "node-alice.sock"))
        async with qstack.open_node("alice") as node:
            await node.sleep(5)
        assert west.of(session.Sleep)


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_socket_nobody_answers_at(run_folder: Path, *, is_there: bool) -> None:
    from qstack.runtime.listen import listen_locally

    path = run_folder / "node.sock"
    if is_there:
        await trio.aclose_forcefully(listen_locally(path))
    with pytest.raises(qstack.NoNode, match="no node answers at"):
        async with qstack.open_node("alice", path=path):
            pass


async def test_a_node_that_does_not_answer_is_given_up(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qstack.runtime.listen import listen_locally

    monkeypatch.setattr("qstack.api.connection.ATTACH_LIMIT_S", 0.05)
    path = run_folder / "node.sock"
    async with listen_locally(path):
        with pytest.raises(qstack.NoNode, match="no answer"):
            async with qstack.open_node("alice", path=path):
                pass


async def test_a_node_that_refuses_the_session_says_why(
    alice: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qstack.runtime.session_server.SESSIONS_MAX", 0)
    with pytest.raises(qstack.Refused, match="0 sessions are open") as caught:
        async with qstack.open_node("alice"):
            pass
    assert caught.value.code == "NO_RESOURCES"


async def test_an_observer_holds_nothing(alice: FakeNode) -> None:
    async with qstack.open_node("alice", is_observer=True) as node:
        assert not alice.server.busy
        assert await node.status() == {"node": "fake"}
        assert alice.server.applications == 0


async def test_an_error_of_the_block_comes_out_as_it_is(alice: FakeNode) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with qstack.open_node("alice") as node, node.listen(port=1):
            raise KeyError("mine")
    await alice.until(lambda: alice.ended == ["app/0"])
