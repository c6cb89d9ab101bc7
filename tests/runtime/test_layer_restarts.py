"""One layer of a node dies alone, and begins anew, while everybody else lives on."""

import os
import signal
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

import qstack
from qstack.machine import LayerGoneError
from qstack.physical import service as physical
from qstack.runtime import layer_processes
from qstack.runtime.absent_layer import AbsentLayer
from qstack.runtime.layer_link import ANSWER_S, listen_for_layers
from qstack.runtime.layer_processes import DEATHS_MAX, LayerProcesses
from qstack.runtime.network_file import load_network
from qstack.transport import service as transport
from tests.runtime import swarm
from tests.runtime.deaths import Application, is_empty
from tests.runtime.programs import deliver
from tests.runtime.running import (
    FACT_S,
    RunningNetwork,
    command,
    environment,
    everybody_answers,
    network,
    run_folder,
    variant,
)
from tests.runtime.scripts import SECOND, App, Script, WatchedNetwork, epr
from tests.runtime.test_split_layout import SPLIT, processes_by_layer

LAYERS = swarm.LAYERS
WALL = ('clock = "lockstep"', 'clock = "wall"')
SPLIT_ALICE = (
    'name = "alice"\naddress = "127.0.0.1:0"',
    'name = "alice"\naddress = "127.0.0.1:0"\nlayout = "split"',
)

# --- in virtual time -----------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 16, 8))
def test_layers_that_die_alone_leave_nothing_open_and_nothing_behind(first: int) -> None:
    for seed in range(first, first + 8):
        swarm.run_with_dying_layers(seed)


def test_layers_that_die_alone_leave_no_test_round_open() -> None:
    def make(name: str, seed: int) -> WatchedNetwork:
        return WatchedNetwork(replace(swarm.split(name), test_rounds=0.3), seed)

    for seed in range(4):
        swarm.run_with_dying_layers(seed, make=make)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(10_000, 12_000, 100))
def test_many_dying_layers_leave_nothing_behind(first: int) -> None:
    for seed in range(first, first + 100):
        swarm.run_with_dying_layers(seed)


def test_a_run_in_which_layers_die_can_be_repeated() -> None:
    assert swarm.run_with_dying_layers(3).digest == swarm.run_with_dying_layers(3).digest


def ask(*calls: Any) -> Script:
    """Calls, and nothing after them."""
    yield [*calls]
    while True:
        yield []


def failures(app: App) -> list[str]:
    """The errors its calls ended with."""
    found = [*app.all(transport.Failed), *app.all(physical.CallFailed)]
    return [message.error for message in found]


def at_work(net: WatchedNetwork) -> list[App]:
    """Pairs read by the link layer, and pairs to keep, for longer than we look."""
    many: dict[str, Any] = {"within_ns": 20 * SECOND}
    apps = [
        App(net, "alice", epr(1, "bob", 200, is_creator=True, basis="X", **many)),
        App(net, "bob", epr(1, "alice", 200, is_creator=False, basis="X", **many)),
        App(net, "alice", epr(2, "bob", 200, is_creator=True, **many)),
        App(net, "bob", epr(2, "alice", 200, is_creator=False, **many)),
    ]
    while not (apps[0].all(transport.PairsMeasured) and apps[2].all(transport.PairDelivered)):
        assert not any(failures(app) for app in apps)
        net.run_until(net.now_ns + SECOND // 20)
    return apps


def open_requests(net: WatchedNetwork) -> int:
    """How many requests the network and link layers of all nodes have open."""
    total = 0
    for node in net.nodes.values():
        machines: Any = node.machines
        if not isinstance(machines["link"], AbsentLayer):
            total += machines["link"].summary()["open_requests"]
        network_layer = machines["network"]
        network_layer = getattr(network_layer, "machine", network_layer)
        if not isinstance(network_layer, AbsentLayer):
            total += len(network_layer._heads._requests) + len(network_layer._tails._requests)
    return total


@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.parametrize(
    ("layer", "errors"),
    [
        ("physical", {"DEVICE_LOST", "PEER_DOWN"}),
        ("link", {"PEER_DOWN"}),
        ("network", {"LAYER_LOST", "PEER_DOWN"}),
        ("transport", {"LAYER_LOST", "PEER_DOWN"}),
    ],
)
def test_what_depends_on_a_layer_ends_at_once_at_both_ends(
    layer: str, errors: set[str], victim: str
) -> None:
    net = WatchedNetwork(swarm.split("pair"), 5)
    net.settle()
    apps = at_work(net)
    net.kill_layer(victim, layer, net.now_ns)
    net.run_until(net.now_ns + net.network.restart_ns // 2)  # before it is back
    goes_on = apps[2:] if layer == "link" else []  # over the next life of the link
    for app in apps:
        assert {*failures(app)} <= errors
        assert app.lives or (app.node == victim and layer == "transport")
        assert not app.lives or app in goes_on or failures(app)
    assert open_requests(net) == (2 if goes_on else 0)
    net.run_until(net.now_ns + SECOND)
    for app in goes_on:
        assert app.open
        app.end()
    swarm.check_service(net)
    net.end_everything()
    net.check_empty()
    net.check_layers()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_request_outlives_a_layer_of_a_node_on_its_path(layer: str) -> None:
    net = WatchedNetwork(swarm.split("metro"), 5)
    net.settle()
    apps = [
        App(net, "alice", epr(1, "bob", 12, is_creator=True)),
        App(net, "bob", epr(1, "alice", 12, is_creator=False)),
    ]
    while len(apps[0].all(transport.PairDelivered)) < 3:
        net.run_until(net.now_ns + 1_000_000)
    net.kill_layer("r1", layer, net.now_ns)
    net.settle()
    net.check_calls()
    assert not any(failures(app) for app in apps)
    assert len(apps[1].all(transport.PairDelivered)) == 12
    net.end_everything()
    net.check_empty()


def test_calls_of_sessions_end_with_the_physical_layer_and_their_sessions_live_on() -> None:
    net = WatchedNetwork(swarm.split("pair"), 5)
    net.settle()
    app = App(net, "alice", ask(physical.Allocate(call=1)))
    net.run_until(net.now_ns + 10_000)
    assert app.open, "the device is at it"
    net.kill_layer("alice", "physical", net.now_ns)
    net.run_until(net.now_ns + 1_000_000)
    assert app.lives
    assert not app.open
    assert failures(app) == ["LAYER_LOST"]
    assert app.all(physical.DeviceLost)


@pytest.mark.parametrize(
    ("layer", "calls"), [("physical", ["LAYER_LOST"]), ("transport", ["LAYER_LOST"] * 2)]
)
def test_calls_to_a_layer_that_is_away_end_with_an_error(layer: str, calls: list[str]) -> None:
    net = WatchedNetwork(swarm.split("pair"), 5)
    net.settle()
    net.kill_layer("alice", layer, net.now_ns)
    net.run_until(net.now_ns + net.network.restart_ns // 2)
    app = App(
        net,
        "alice",
        ask(
            physical.Allocate(call=1),
            transport.EprOpen(call=2, port=3, remote=None),
            transport.RouteAsk(call=3, remote="bob"),
        ),
    )
    net.run_until(net.now_ns + net.network.restart_ns // 4)
    assert failures(app) == calls
    assert not app.open


def test_a_layer_or_a_node_that_is_dead_already_cannot_die() -> None:
    net = WatchedNetwork(swarm.split("pair"), 5)
    net.settle()
    now = net.now_ns
    net.kill_layer("alice", "link", now)
    net.kill_layer("alice", "link", now + 1_000)
    net.kill("bob", now + 2_000)
    net.kill_layer("bob", "link", now + 3_000)
    net.settle()
    swarm.check_service(net)


# --- processes -----------------------------------------------------------------------------------


async def use(running: RunningNetwork, name: str, ended: dict[str, str], began: trio.Event) -> None:
    """One end of a request that would go on for long; how it ended."""
    other = {"alice": "bob", "bob": "alice"}[name]
    try:
        async with (
            qstack.open_node(name, path=str(running.session(name))) as node,
            node.epr_socket(remote=other, port=5) as epr_socket,
        ):
            async for pair in (
                epr_socket.create_keep(100_000, deadline_ns=None)
                if name == "alice"
                else epr_socket.accept(100_000, deadline_ns=None)
            ):
                await pair.qubit.measure("Z")
                began.set()
    except* qstack.QstackError as group:
        ended[name] = type(group.exceptions[0]).__name__


async def kill(
    running: RunningNetwork,
    layer: str,
    node: str = "alice",
    how: signal.Signals = signal.SIGKILL,
) -> None:
    """That layer of a node is killed; it comes back, and no other process was hurt."""
    before = processes_by_layer(running)
    pids = await running.pids()
    os.kill(before[node, layer], how)

    def is_back(report: dict[str, Any]) -> bool:
        if not everybody_answers(report):
            return False
        layers = [said["layers"] for said in report["nodes"].values()]
        if not all(each["link"]["links_up"] and "is_away" not in each[layer] for each in layers):
            return False
        now = processes_by_layer(running).get((node, layer))
        return now not in (None, before[node, layer])

    patience_s = FACT_S if how is signal.SIGKILL else ANSWER_S + 2 * FACT_S
    await running.fact(f"the {layer} layer is back", is_back, patience_s)
    after = processes_by_layer(running)
    del after[node, layer], before[node, layer]
    assert after == before
    assert await running.pids() == pids


@pytest.mark.parametrize("clock", [pytest.param("lockstep", marks=pytest.mark.soak), "wall"])
async def test_each_layer_is_started_again_alone_after_sigkill(tmp_path: Path, clock: str) -> None:
    changes = [SPLIT_ALICE] if clock == "lockstep" else [SPLIT_ALICE, WALL]
    with network(variant(tmp_path, "pair", *changes), "pair") as running:
        for layer in LAYERS:
            ended: dict[str, str] = {}
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    began = trio.Event()
                    for name in ("alice", "bob"):
                        nursery.start_soon(use, running, name, ended, began)
                    await began.wait()
                    await kill(running, layer)
                    if layer == "link":  # the request goes on over the new one
                        assert not ended
                        nursery.cancel_scope.cancel()
            assert layer == "link" or {*ended} == {"alice", "bob"}, (layer, ended)
            await deliver(running)
            await running.fact("nothing is left", is_empty)
        if clock == "wall":
            line = command("ping", "bob", "--from", "alice", "--count", "2")
            await trio.run_process(line, env=environment(running.runs), capture_stdout=True)


@pytest.mark.soak
@pytest.mark.parametrize("clock", ["lockstep", "wall"])
async def test_a_layer_that_is_stopped_is_ended_and_started_again_alone(
    tmp_path: Path, clock: str
) -> None:
    """It is waited for as long as a layer may be silent; the clock waits longer for its node."""
    changes = [SPLIT_ALICE] if clock == "lockstep" else [SPLIT_ALICE, WALL]
    with network(variant(tmp_path, "pair", *changes), "pair") as running:
        began = trio.Event()
        async with trio.open_nursery() as nursery:
            for name in ("alice", "bob"):
                nursery.start_soon(use, running, name, {}, began)
            await began.wait()
            await kill(running, "link", how=signal.SIGSTOP)
            nursery.cancel_scope.cancel()
        await deliver(running)
        await running.fact("nothing is left", is_empty)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
async def test_layers_die_one_after_the_other_while_two_applications_ask_for_everything(
    tmp_path: Path, seed: int
) -> None:
    rng = Random(seed)
    soon = ('clock = "lockstep"', 'clock = "lockstep"\nrestart_ns = 20_000_000')
    with network(variant(tmp_path, "pair", SPLIT, soon), "pair") as running:
        ends = [
            Application(name, str(running.session(name)), running.runs) for name in ("alice", "bob")
        ]
        with trio.fail_after(180):
            async with trio.open_nursery() as nursery:
                for end in ends:
                    nursery.start_soon(end.run)
                for _ in range(12):
                    await trio.sleep(rng.random())
                    await kill(running, rng.choice(LAYERS), rng.choice(["alice", "bob"]))
                for end in ends:
                    end.stop.set()
        assert not [late for end in ends for late in end.watch.late]
        assert all(sum(end.watch.ended.values()) > 100 for end in ends), ends
        await deliver(running)
        await running.fact("nothing is left", is_empty)


async def test_a_layer_that_dies_again_and_again_ends_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_processes, "BACKOFF_S", (0.0,))
    file = variant(tmp_path, "pair", SPLIT)
    said: list[str] = []
    with run_folder() as folder:
        layers = LayerProcesses(file, load_network(file), "alice", folder, said.append)
        layers._listener = listen_for_layers(folder / "s")
        monkeypatch.setattr(layers, "_start", lambda layer: subprocess.Popen(["false"]))

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(layers.run, said.append, said.append)
                await trio.testing.wait_all_tasks_blocked()
                layers.away("link", "it fell")

        with layers._listener, pytest.raises(ExceptionGroup) as raised:
            await run()
        assert raised.group_contains(LayerGoneError, match="the link layer died 6 times in a row")
    assert len(said) == DEATHS_MAX + 1
    assert said[0] == "the link layer has gone: it fell"
    assert said[1] == "the link layer has gone: it ended with status 1 before it was here"
