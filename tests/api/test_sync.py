"""The synchronous twin against a fake node in another thread."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

import qstack
from qstack.errors import ErrorCode
from qstack.physical import service as physical
from qstack.runtime import session_messages as session
from qstack.transport import service as transport
from qstack.wire.message import Message
from tests.api.fake_node import FakeNode, failure, pair_id, running, silence
from tests.runtime.running import wait_for


@contextmanager
def serving(*nodes: FakeNode, folder: Path) -> Iterator[Callable[..., None]]:
    """Run fake nodes in a trio run of their own; yields what runs a function in there."""
    ready, ended = threading.Event(), trio.Event()
    token: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def serve(node: FakeNode, task_status: trio.TaskStatus[None]) -> None:
                async with running(node, folder):
                    task_status.started()
                    await trio.sleep_forever()

            for node in nodes:
                await nursery.start(serve, node)
            token.append(trio.lowlevel.current_trio_token())
            ready.set()
            await ended.wait()
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    ready.wait()
    try:
        yield token[0].run_sync_soon
    finally:
        token[0].run_sync_soon(ended.set)
        thread.join()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "qstack"]


@pytest.fixture
def alice(run_folder: Path) -> Iterator[FakeNode]:
    node = FakeNode("alice")
    with serving(node, folder=run_folder):
        yield node


def test_the_example_of_the_documentation(alice: FakeNode) -> None:
    with qstack.sync.open_node("alice") as node:
        with node.epr_socket(remote="bob", port=7, min_fidelity=0.7) as epr:
            pair = epr.create_keep()
            assert pair.qubit.measure("X") == 1
            assert len({pair.id for pair in epr.create_keep(n=20)}) == 20
            assert [pair.remote for pair in epr.accept(n=2)] == ["bob", "bob"]
            assert epr.accept().bits[1] == 1
        with node.qubit_socket(remote="bob", port=8) as out:
            qubit = node.qubit()
            qubit.ry(0.3)
            out.send(qubit)
        with node.message_socket(remote="bob", port=9) as stream:
            stream.send(b"hello")
            assert stream.receive() == b"hello"
    assert threads() == []


def test_every_operation_has_its_twin(alice: FakeNode) -> None:
    with qstack.sync.open_node("alice") as node:
        first, second = node.qubit(), node.qubit()
        for gate in (first.h, first.x, first.y, first.z, first.s, first.t, first.reset):
            gate()
        for turn in (first.rx, first.ry, first.rz):
            turn(0.5)
        first.cnot(second)
        first.cz(second)
        first.free()
        assert node.route("bob", kind="measure", from_remote=True).path == ("alice", "bob")
        assert node.status() == {"node": "fake"}
        before = node.now()
        node.sleep(500)
        assert node.now() == before + 500
        with node.epr_socket(remote="bob", port=0) as epr:
            assert epr.echo(epr.create_keep(), "X") == 1
        with node.listen(port=8) as server, server.accept() as stream:
            assert stream.receive() == b"hello"
            alice.scripts[transport.ReceiveMessage] = failure(ErrorCode.CLOSED)
            assert list(stream) == []
    assert len(alice.of(physical.ApplyGate)) == 11


def test_qubit_streams_are_iterated(alice: FakeNode) -> None:
    alice.scripts[transport.Accept] = lambda message: [
        transport.Accepted(call=message.call, socket=9, remote="bob", kind="qubit")
    ]
    with (
        qstack.sync.open_node("alice") as node,
        node.listen(port=8) as server,
        server.accept() as stream,
    ):
        assert stream.receive().measure() == 1
        alice.scripts[transport.ReceiveQubit] = failure(ErrorCode.CLOSED)
        assert list(stream) == []


def test_measured_pairs(alice: FakeNode) -> None:
    part = {
        "remote": "bob",
        "pairs": 3,
        "outcomes": b"\xa0",
        "x_bits": b"\0",
        "z_bits": b"\xe0",
        "bases": b"",
    }

    def script(message: Message) -> list[Message]:
        return [
            transport.PairsMeasured(call=message.call, goodness=0.9, **part),
            transport.Finished(call=message.call),
        ]

    alice.scripts = {transport.EprCreate: script, transport.EprAccept: script}
    with qstack.sync.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        for pairs in (epr.create_measure(3, "X"), epr.accept_measure(3, "X")):
            assert pairs.outcomes.tolist() == [1, 0, 1]
            assert pairs.z.tolist() == [1, 1, 1]


def test_prepared_states(alice: FakeNode) -> None:
    def script(message: Message) -> list[Message]:
        assert isinstance(message, transport.EprCreate)
        told: list[Message] = [
            transport.PairPrepared(
                call=message.call, remote="bob", pair=pair_id(n), outcome=n, basis="Z",
                x_bit=0, z_bit=0, goodness=0.9, time_of_goodness_ns=5,
            )
            for n in range(message.number)
        ]  # fmt: skip
        return [*told, transport.Finished(call=message.call)]

    alice.scripts = {transport.EprCreate: script}
    with qstack.sync.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        assert epr.create_prepare("Z").direction == (0.0, 0.0, 1.0)
        assert [each.outcome for each in epr.create_prepare("Z", 2)] == [0, 1]


def test_between_its_calls_a_program_is_busy_and_in_them_it_is_not(run_folder: Path) -> None:
    alice = FakeNode("alice")
    alice.scripts[session.Sleep] = silence
    with serving(alice, folder=run_folder) as run_there, qstack.sync.open_node("alice") as node:
        assert alice.server.busy == ["app/0"]

        def wake_if_idle() -> None:
            sleeps = alice.of(session.Sleep)
            if sleeps and not alice.server.busy:
                alice.tell(session.Woken(call=sleeps[0].call))
            else:
                run_there(wake_if_idle)

        run_there(wake_if_idle)
        node.sleep(5)
        assert alice.server.busy == ["app/0"]


def test_two_nodes_of_one_thread_wait_together(run_folder: Path) -> None:
    alice, bob = FakeNode("alice"), FakeNode("bob")
    idle_together: list[bool] = []
    with serving(alice, bob, folder=run_folder):
        with qstack.sync.open_node("alice") as first, qstack.sync.open_node("bob") as second:
            assert len(threads()) == 1
            first.sleep(5)
            for _ in range(2_000):
                if not bob.server.busy:
                    break
                first.status()
            idle_together.append(not bob.server.busy)
            second.sleep(6)
        assert threads() == []
    assert idle_together == [True]


def test_errors_are_those_of_the_asynchronous_interface(alice: FakeNode) -> None:
    alice.scripts[transport.EprCreate] = failure(ErrorCode.FIDELITY, best=0.61)
    with qstack.sync.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        with pytest.raises(qstack.Refused) as caught:
            epr.create_keep()
        assert caught.value.best == 0.61
        with pytest.raises(qstack.BadRequest):
            epr.create_keep(n=0)
        with pytest.raises(qstack.Refused):
            list(epr.create_keep(n=5))


def test_an_exception_of_the_block_ends_the_thread(alice: FakeNode) -> None:
    with (
        pytest.raises(KeyError, match="mine"),
        qstack.sync.open_node("alice") as node,
        node.listen(port=1),
    ):
        raise KeyError("mine")
    assert threads() == []


def test_no_node_is_the_same_error_and_leaves_no_thread(run_folder: Path) -> None:
    with pytest.raises(qstack.NoNode, match="qstack up"), qstack.sync.open_node("alice"):
        pass
    assert threads() == []


def test_an_interrupt_ends_the_call_and_the_thread(alice: FakeNode) -> None:
    def interrupt(_message: object) -> list[session.Woken]:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return []

    alice.scripts[session.Sleep] = interrupt
    with pytest.raises(KeyboardInterrupt), qstack.sync.open_node("alice") as node:
        node.sleep(5)
    assert threads() == []
    wait_for("the node hears it", lambda: bool(alice.of(session.CancelSleep)))


def test_pairs_left_early_are_cancelled(alice: FakeNode) -> None:
    alice.scripts[transport.EprCreate] = lambda message: [alice.pair(message.call)]
    with qstack.sync.open_node("alice") as node, node.epr_socket(remote="bob", port=7) as epr:
        for _ in epr.create_keep(n=5):
            break
        node.sleep(1)
        assert alice.of(transport.CancelCall)
        left = epr.create_keep(n=5)
        next(left)
    del left  # after the thread has ended: nothing happens


def test_fail_after_ends_the_call_in_progress(alice: FakeNode) -> None:
    def time_passes(_message: Message) -> list[Message]:
        return [session.Woken(call=alice.of(session.Sleep)[-1].call)]

    def be_late(node: qstack.sync.Node) -> None:
        with node.fail_after(5_000), node.epr_socket(remote="bob", port=7) as epr:
            epr.create_keep()

    def be_late_between(node: qstack.sync.Node) -> None:
        with node.fail_after(6_000):
            node.qubit()
            node.qubit()  # time passes as it is answered: not too late for it
            node.qubit()

    alice.scripts = {session.Sleep: silence, transport.EprCreate: time_passes}
    with qstack.sync.open_node("alice") as node:
        with pytest.raises(qstack.Expired, match="5000 ns"):
            be_late(node)
        with node.fail_after(10**9):
            node.qubit().measure()
        alice.scripts[physical.Allocate] = lambda message: [
            *alice.answer(message), *time_passes(message)
        ]  # fmt: skip
        with pytest.raises(qstack.Expired, match="6000 ns"):
            be_late_between(node)
        node.qubit()
    assert len(alice.of(transport.CloseSocket)) == 1


def test_a_node_is_used_in_the_thread_that_opened_it(alice: FakeNode) -> None:
    told: list[BaseException] = []

    def elsewhere() -> None:
        with pytest.raises(qstack.BadRequest, match="thread") as caught:
            node.sleep(5)
        told.append(caught.value)

    with qstack.sync.open_node("alice") as node:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(told) == 1


def test_a_node_that_was_left_is_closed(alice: FakeNode) -> None:
    with qstack.sync.open_node("alice") as node:
        pass
    with pytest.raises(qstack.NodeGone, match="closed"):
        node.sleep(5)
