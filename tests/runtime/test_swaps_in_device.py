"""Repeaters that swap by a device program: at the herald, and not when a daemon has heard of it."""

import math
from typing import TYPE_CHECKING, Any, Final

import pytest
from msgspec.structs import replace

from qstack.physical.fabric.keys import QubitKey
from qstack.runtime.network_file import Network, NetworkFileError, parse_network
from qstack.transport import service as transport
from tests.runtime.scripts import App, Script, WatchedNetwork

if TYPE_CHECKING:
    from qstack.link.service import LinkPair

TURN_NS: Final = 2_000_000
T2_S: Final = 0.05
PAIRS: Final = 30
NODE: Final = """
[[node]]
name = "{name}"
address = "127.0.0.1:0"
profile = "bench"
memory = {memory}
"""
TEXT: Final = (
    f"""
[network]
name = "relay"
machine_event_ns = {TURN_NS}
cutoff_ns = 1_000_000_000
[fabric]
address = "127.0.0.1:0"
"""
    + NODE.format(name="alice", memory=64)
    + NODE.format(name="r", memory=2)
    + "programs = true\n"
    + NODE.format(name="bob", memory=64)
    + """
[[link]]
ends = ["alice", "r"]
length_m = 2_000
scheme = "double-click"
extra_loss_db = 14
[[link]]
ends = ["bob", "r"]
length_m = 3_000
scheme = "double-click"
extra_loss_db = 14
"""
)


def network(text: str = TEXT, **more: Any) -> Network:
    """A network in which the repeater's memory alone decays."""
    parsed = parse_network(text, where="relay")
    nodes = {
        name: replace(
            node, profile=replace(node.profile, t2_s=T2_S if name == "r" else math.inf, **more)
        )
        for name, node in parsed.nodes.items()
    }
    return replace(parsed, nodes=nodes)


def keeping(remote: str, number: int, *, is_creator: bool, ends: dict[Any, Any]) -> Script:
    """Take pairs and keep them."""
    message = yield [transport.EprOpen(call=1, port=7, remote=remote)]
    assert isinstance(message, transport.Opened)
    asked: dict[str, Any] = {"call": 2, "socket": message.socket, "number": number}
    asked.update(basis=None, within_ns=10**12)
    if is_creator:
        message = yield [transport.EprCreate(**asked, min_fidelity=0.5, priority=1)]
    else:
        message = yield [transport.EprAccept(**asked)]
    while True:
        if isinstance(message, transport.PairDelivered):
            ends.setdefault(message.pair, {})[is_creator] = message.qubit
        message = yield []


def delivered(net: WatchedNetwork, pairs: int) -> dict[Any, float]:
    """Fidelities of end-to-end pairs, by the link pair of alice and r they were made of."""
    ends: dict[Any, dict[bool, bytes]] = {}
    App(net, "alice", keeping("bob", pairs, is_creator=True, ends=ends))
    App(net, "bob", keeping("alice", pairs, is_creator=False, ends=ends))
    net.settle()
    return {
        pair.head_pair: net.fabric.pair_fidelity(
            QubitKey("alice", qubits[True]), QubitKey("bob", qubits[False]), net.now_ns
        )
        for pair, qubits in ends.items()
    }


def swapped_at(net: WatchedNetwork, turn_ns: int) -> dict[Any, float]:
    """Closed form: the fidelity if both are swapped `turn_ns` after the later herald.

    Oldest with oldest; both halves at r are dephased since their emissions, by T2.
    """
    sides: dict[str, list[LinkPair]] = {"alice": [], "bob": []}
    for (node, _), pair in net.link_pairs.items():
        if node == "r":
            sides[pair.peer].append(pair)
    found = {}
    for first, second in zip(sides["alice"], sides["bob"], strict=False):
        links = [net.network.world.links[name] for name in ("alice-r", "bob-r")]
        heralds = [
            pair.emitted_at_ns + link.herald_back_ns("r")
            for pair, link in zip((first, second), links, strict=True)
        ]
        at_ns = max(heralds) + turn_ns
        waited_s = (2 * at_ns - first.emitted_at_ns - second.emitted_at_ns) * 1e-9
        found[first.pair] = (1.0 + math.exp(-waited_s / T2_S)) / 2.0
    return found


def share(found: dict[Any, float], expected: dict[Any, float]) -> float:
    """How many are as expected, to the last digits."""
    alike = [math.isclose(found[pair], expected[pair], abs_tol=1e-9) for pair in found]
    return sum(alike) / len(alike)


def test_the_wait_for_the_daemon_is_gone() -> None:
    """Each fidelity is that of its closed form: of a swap at the herald, or a turn later."""
    net = started(network())
    found = delivered(net, PAIRS)
    late = swapped_at(net, TURN_NS)
    assert len(found) == PAIRS
    assert share(found, swapped_at(net, 0)) > 0.8  # the others: the herald was on its way already
    assert mean(found) > mean({pair: late[pair] for pair in found}) + 0.015
    finish(net)


def test_without_programs_each_swap_waits_for_the_daemon() -> None:
    net = started(network(TEXT.replace("programs = true", "")))
    found = delivered(net, PAIRS)
    assert share(found, swapped_at(net, TURN_NS)) == 1.0
    assert share(found, swapped_at(net, 0)) == 0.0
    finish(net)


def test_it_is_so_where_memories_are_decoupled_too() -> None:
    """Pulses of all nodes: what the ends have is what the bits say."""
    pulsed = {"decoupling_spacing_ns": 777_777, "decoupling_axis": "xy"}
    net = started(network(**pulsed))
    assert share(delivered(net, 12), swapped_at(net, 0)) > 0.7
    finish(net)


@pytest.mark.parametrize("fault", ["device", "node", "physical", "network", "link", "cancel"])
def test_whatever_dies_at_a_repeater_with_programs_leaves_nothing(fault: str) -> None:
    """Its device, itself, one of its layers; or the request is withdrawn. Then it works again."""
    net = started(network())
    for wait_ns in (140_000_000, 217_000_000, 303_000_000):
        ends: dict[Any, Any] = {}
        apps = [
            App(net, "alice", keeping("bob", 50, is_creator=True, ends=ends)),
            App(net, "bob", keeping("alice", 50, is_creator=False, ends=ends)),
        ]
        net.run_until(net.now_ns + wait_ns)
        if fault == "device":
            net.lose_device("r")
            net.return_device("r")
        elif fault == "node":
            net.kill("r", net.now_ns + 1_000, comes_back=True)
        elif fault != "cancel":
            net.kill_layer("r", fault, net.now_ns + 1_000)
        net.run_until(net.now_ns + 100_000_000)
        for app in apps:
            app.end()
        net.settle()
    found = delivered(net, 5)
    assert len(found) == 5
    assert min(found.values()) > 0.5  # a wrong Bell state has less
    finish(net)


# --- the network file ----------------------------------------------------------------------------


def test_test_rounds_and_programs_exclude_each_other() -> None:
    text = TEXT.replace("machine_event_ns", "test_rounds = 0.1\nmachine_event_ns")
    with pytest.raises(NetworkFileError, match=r"node\[1\].programs: true, and test_rounds"):
        network(text)
    with pytest.raises(NetworkFileError, match="programs"):
        network(TEXT.replace("programs = true", 'programs = "yes"'))


def test_what_a_node_is_told_by_its_file() -> None:
    with_programs, without = network(), network(TEXT.replace("programs = true", ""))
    assert [with_programs.world.nodes[name].runs_programs for name in ("alice", "r")] == [
        False,
        True,
    ]
    assert with_programs.digest != without.digest


def started(of: Network) -> WatchedNetwork:
    net = WatchedNetwork(of, 3)
    net.settle()
    return net


def mean(found: dict[Any, float]) -> float:
    return sum(found.values()) / len(found)


def finish(net: WatchedNetwork) -> None:
    net.end_everything()
    net.check_empty()
