"""Nodes whose layers are processes of their own: nothing else is different."""

import select
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from qstack.machine import (
    CancelTimer,
    Effect,
    Event,
    FromPeer,
    LayerGoneError,
    LayerUp,
    OpenChannel,
    OwnerGone,
    PeerDown,
    PeerUp,
    Record,
    Send,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.physical.service import Free
from qstack.runtime.launch import prepare, release
from qstack.runtime.layer_envelope import effect_messages, effect_of, event_messages, event_of
from qstack.runtime.layer_link import RemoteMachine, gather, listen_for_layers
from qstack.runtime.layer_messages import Effect as EffectSaid
from qstack.runtime.layer_messages import Handle, Handled, LayerHello, LayerRefused, SummaryAsk
from qstack.runtime.layer_stream import LayerStream
from qstack.runtime.network_file import load_network
from qstack.wire.frame import Frame, Layer, pack
from tests.runtime.programs import daemon_chains, deliver, virtual_chains
from tests.runtime.running import (
    READY_S,
    RunningNetwork,
    command,
    environment,
    everybody_answers,
    network,
    packaged,
    processes_of,
    run_folder,
    variant,
    words_of,
)
from tests.runtime.test_daemons_by_hand import daemon

SPLIT = ("memory = 4", 'memory = 4\nlayout = "split"')
MESSAGE = Free(qubit=bytes(16))
BOOT = b"12345678"


# --- the envelope --------------------------------------------------------------------------------

EVENTS: list[Event] = [
    Told("app/1", MESSAGE),
    FromPeer("bob", MESSAGE),
    TimerFired("a key"),
    PeerUp("bob", BOOT),
    PeerDown("bob"),
    OwnerGone("app/1"),
    LayerUp("link"),
]
EFFECTS: list[Effect] = [
    Tell("network", MESSAGE),
    Send("bob", MESSAGE),
    OpenChannel("bob"),
    SetTimer("a key", 7, background=True),
    SetTimer("a key", 7, deadline=True),
    CancelTimer("a key"),
    Record("link.up", {"peer": "bob", "number": 3, "pair": b"\0"}),
]


def streams() -> tuple[LayerStream, LayerStream]:
    near, far = socket.socketpair()
    near.settimeout(5)
    far.settimeout(5)
    return LayerStream(near), LayerStream(far)


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_crosses_as_it_is(event: Event) -> None:
    near, far = streams()
    near.send(event_messages(event, 5))
    handle = far.next()
    assert isinstance(handle, Handle)
    assert handle.now_ns == 5
    assert event_of(handle, far.next) == event
    near.close()
    far.close()


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_crosses_as_it_is(effect: Effect) -> None:
    near, far = streams()
    near.send(effect_messages(effect))
    said = far.next()
    assert isinstance(said, EffectSaid)
    assert effect_of(said, far.next) == effect
    near.close()
    far.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense that is no frame",
        pack(Frame(Layer.NODE, 0x0077, b"\x80")),
        pack(Frame(Layer.NODE, Handled.TYPE, b"\xc1")),
        pack(Frame(Layer.NODE, SummaryAsk.TYPE, b"\x80")),
        b"",
    ],
)
def test_a_layer_that_answers_nonsense_or_goes_is_gone(answer: bytes) -> None:
    near, far = socket.socketpair()
    near.settimeout(5)
    far.sendall(answer)
    far.shutdown(socket.SHUT_WR)
    machine = RemoteMachine("link", LayerStream(near))
    with pytest.raises(LayerGoneError):
        machine.handle(PeerDown("bob"), 0)
    near.close()
    far.close()


def test_a_layer_that_is_silent_is_waited_for_once_also_by_status() -> None:
    near, far = socket.socketpair()
    near.settimeout(0.05)
    with near, far:
        machine = RemoteMachine("link", LayerStream(near))
        with pytest.raises(LayerGoneError, match="it does not answer"):
            machine.summary()
        assert select.select([near], [], [], 0)[0], "whoever watches it sees its end"
        near.settimeout(60)
        for ask in (machine.summary, lambda: machine.handle(PeerDown("bob"), 1)):
            with pytest.raises(LayerGoneError):
                ask()


def test_layers_that_do_not_belong_are_refused_and_the_right_one_is_taken(tmp_path: Path) -> None:
    pair = load_network(packaged("pair"))
    good: dict[str, Any] = {
        "layer": "link",
        "node": "alice",
        "versions": [1],
        "network_digest": pair.digest,
    }
    bad = [
        {**good, "layer": "network"},
        {**good, "node": "bob"},
        {**good, "versions": [2]},
        {**good, "network_digest": bytes(32)},
    ]
    path, said, answers = tmp_path / "s", [], []
    clients: list[socket.socket] = []

    def begin() -> None:
        for fields in [*bad, good]:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.connect(str(path))
            LayerStream(client).send([LayerHello(**fields)])
            clients.append(client)

    # All are in the queue of the listener before the first is judged.
    with listen_for_layers(path) as listener:
        found = gather(listener, pair, "alice", ["link"], begin, said.append)
    assert list(found) == ["link"]
    for client in clients[:-1]:
        refusal = LayerStream(client).next()
        assert isinstance(refusal, LayerRefused)
        answers.append(refusal.error)
    assert answers == ["ROLE", "ROLE", "VERSION", "NETWORK_MISMATCH"]
    assert len(said) == 4
    for client in clients:
        client.close()
    found["link"].stream.close()


# --- processes -----------------------------------------------------------------------------------


def processes_by_layer(running: RunningNetwork) -> dict[tuple[str, str], int]:
    """The process of each layer: by node and layer."""
    found = {}
    for pid in processes_of(running.runs):
        words = words_of(pid)
        if "layer" in words and "run" in words:
            found[words[words.index("--node") + 1], words[words.index("--layer") + 1]] = pid
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_the_trace_of_a_split_node_is_that_of_a_fused_one(tmp_path: Path) -> None:
    source = variant(tmp_path, "pair", SPLIT)
    with network(source, "pair", "--seed", "11", "--apps", "2") as running:
        layers = processes_by_layer(running)
        assert len(layers) == 8
        assert len({parent_of(pid) for pid in layers.values()}) == 1, "forks of one process"
        chains, programs = await daemon_chains(running, 6)
    assert all(len(program.outcomes) == 6 for program in programs.values())
    assert chains == virtual_chains(packaged("pair"), 11, 6)
    assert not processes_of(running.runs)


def test_a_layer_that_is_external_is_waited_for_and_started_by_hand() -> None:
    """Our own link layer, from its own command: it talks to its node in specified messages only."""
    with run_folder() as runs, ExitStack() as processes:
        text = packaged("pair").read_text()
        place = text.index("memory = 4", text.index('name = "alice"'))
        more = 'layout = "split"\nexternal = ["link"]\n'
        (runs / "pair.toml").write_text(text[:place] + more + text[place:])
        prepared = prepare(runs / "pair.toml", runs)
        processes.callback(release, prepared)
        source = str(prepared.network_file)
        for line in (("fabric",), ("node", "--name", "bob"), ("node", "--name", "alice")):
            node = processes.enter_context(daemon(runs, line[0], "run", source, *line[1:]))
        assert node.stderr is not None
        assert "waiting for the link layer: qstack layer run" in node.stderr.readline()
        layer = command("layer", "run", source, "--node", "alice", "--layer", "link")
        link = subprocess.Popen(layer, env=environment(runs))
        running = RunningNetwork(node, runs, "pair")

        async def use() -> None:
            def is_up(report: dict[str, Any]) -> bool:
                return len(report["nodes"]) == 2 and everybody_answers(report)

            await running.fact("it is up", is_up, READY_S)  # seven programs, started at once
            await deliver(running)

        trio.run(use)
        link.kill()
        link.wait()
        said = [node.stderr.readline() for _ in range(2)]
        assert "the link layer has gone" in said[0]
        assert "waiting for the link layer: qstack layer run" in said[1]
        again = subprocess.Popen(layer, env=environment(runs))
        assert "the link layer is here again" in node.stderr.readline()
        trio.run(use)
        processes.close()
        assert again.wait(10) == 0, "it ends with its node"


def test_a_layer_without_a_node_that_waits_for_it_says_so() -> None:
    with run_folder() as runs:
        line = command("layer", "run", str(packaged("pair")), "--node", "alice", "--layer", "link")
        done = subprocess.run(
            line, env=environment(runs), capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "no node waits at" in done.stderr
    assert "layout" in done.stderr
