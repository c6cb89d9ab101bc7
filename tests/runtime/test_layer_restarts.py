"""One layer of a node dies alone, and begins anew, while everybody else lives on."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

import qstack
from tests.runtime.deaths import is_empty
from tests.runtime.running import RunningNetwork, everybody_answers, network, variant
from tests.runtime.test_split_layout import SPLIT, layer_processes

LAYERS = ("physical", "link", "network", "transport")
WALL = ('clock = "lockstep"', 'clock = "wall"')


async def wait_for_nothing(running: RunningNetwork, began: trio.Event) -> None:
    """A call that only an end of its session, or of the pair's, can close: nobody accepts."""
    async with (
        qstack.open_node("alice", path=str(running.session("alice"))) as node,
        node.epr_socket(remote="bob", port=5) as epr,
    ):
        qubit = await node.qubit()
        began.set()
        await epr.create_keep()
        await qubit.measure("Z")


async def kill(running: RunningNetwork, layer: str) -> None:
    """The layer of alice is killed; it comes back, and nobody else was hurt."""
    before = layer_processes(running)
    pids = await running.pids()
    os.kill(before["alice", layer], signal.SIGKILL)

    def is_back(report: dict[str, Any]) -> bool:
        if not everybody_answers(report):
            return False
        layers = report["nodes"]["alice"]["layers"]
        others = [node["layers"] for node in report["nodes"].values()]
        return not layers[layer].get("is_away") and all(
            len(each["network"]["known_nodes"]) == 2 and each["link"]["links_up"] for each in others
        ) and layer_processes(running).keys() == before.keys()

    await running.fact(f"the {layer} layer is back", is_back)
    after = layer_processes(running)
    assert after.pop(("alice", layer)) != before.pop(("alice", layer))
    assert after == before
    assert await running.pids() == pids


async def ping(running: RunningNetwork) -> None:
    async with (
        qstack.open_node("alice", path=str(running.session("alice"))) as node,
        node.epr_socket(remote="bob", port=0) as epr,
    ):
        pair = await epr.create_keep()
        await pair.qubit.measure("Z")
        await epr.echo(pair, "Z")


@pytest.mark.parametrize("clock", ["lockstep", "wall"])
async def test_each_layer_restarts_alone_after_sigkill(tmp_path: Path, clock: str) -> None:
    changes = [SPLIT] if clock == "lockstep" else [SPLIT, WALL]
    with network(variant(tmp_path, "pair", *changes), "pair") as running:
        await ping(running)
        for layer in LAYERS:
            print(layer, trio.current_time())
            await kill(running, layer)
            print("back", trio.current_time())
            with trio.fail_after(10):
                await ping(running)
            await running.fact("nothing is left", is_empty)
