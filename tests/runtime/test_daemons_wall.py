"""Networks whose time is wall time: pairs, messages, and a node that dies and comes back."""

import os
import signal
from collections.abc import Iterator

import pytest
import trio

from qstack.runtime.control_client import ControlError, open_control
from qstack.transport import service as transport
from tests.runtime.programs import deliver
from tests.runtime.running import RunningNetwork, everybody_answers, network, run_folder, variant
from tests.runtime.session_client import attached


@pytest.fixture(scope="module")
def wall() -> Iterator[RunningNetwork]:
    with run_folder() as folder:
        source = variant(folder, "pair", ('clock = "lockstep"', 'clock = "wall"'))
        with network(source, "pair") as running:
            yield running


async def test_pairs_are_delivered(wall: RunningNetwork) -> None:
    await deliver(wall, 5)
    await wall.fact("no qubit is left", lambda r: not any(r["fabric"]["qubits"].values()))


async def test_messages_go_both_ways(wall: RunningNetwork) -> None:
    async with (
        attached(wall.session("alice")) as alice,
        attached(wall.session("bob")) as bob,
    ):
        bob.call(transport.Listen(call=1, port=5, remote=None))
        listener = (await bob.until(transport.Opened, 1)).socket
        bob.call(transport.Accept(call=2, socket=listener, within_ns=None))
        await bob.flush()
        alice.call(
            transport.StreamOpen(
                call=1, kind="message", remote="bob", port=5, min_fidelity=0.0, within_ns=None
            )
        )
        here = (await alice.until(transport.Opened, 1)).socket
        there = (await bob.until(transport.Accepted, 2)).socket
        for sender, receiver, out, inward in (
            (alice, bob, here, there),
            (bob, alice, there, here),
        ):
            sender.call(transport.SendMessage(call=8, socket=out, data=b"hello", within_ns=None))
            await sender.flush()
            receiver.call(transport.ReceiveMessage(call=9, socket=inward, within_ns=None))
            assert (await receiver.until(transport.MessageArrived, 9)).data == b"hello"
            await sender.until(transport.Finished, 8)


@pytest.mark.parametrize("name", ["alice", pytest.param("bob", marks=pytest.mark.soak), "fabric"])
async def test_service_comes_back_after_a_process_is_killed(
    wall: RunningNetwork, name: str
) -> None:
    before = await wall.pids()
    now_ns = (await wall.report())["nodes"]["alice"]["clock"]["now_ns"]
    os.kill(before[name], signal.SIGKILL)

    def is_back(report: dict[str, object]) -> bool:
        if not everybody_answers(report):
            return False
        nodes, fabric = report["nodes"], report["fabric"]
        assert isinstance(nodes, dict)
        assert isinstance(fabric, dict)
        process = fabric["process"] if name == "fabric" else nodes[name]["process"]
        return bool(process["pid"] != before[name])

    after = await wall.fact("it is back", is_back)
    assert after["fabric"]["clock"]["now_ns"] > now_ns
    await deliver(wall)


async def test_the_wall_clock_cannot_be_held(wall: RunningNetwork) -> None:
    async with open_control(wall.control) as control:
        with pytest.raises(ControlError, match="wall clock"), trio.fail_after(5):
            await control.hold(None)
