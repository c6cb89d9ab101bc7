"""Whole networks in virtual time: what applications get, and that runs can be repeated."""

import math
import os
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qstack.physical import service as physical
from qstack.physical.fabric.register import QubitKey
from qstack.runtime.session_messages import Sleep, Woken
from qstack.transport import service as transport
from tests.runtime.scripts import (
    SECOND,
    App,
    Script,
    WatchedNetwork,
    echo,
    epr,
    send_messages,
    send_qubits,
    take_messages,
    take_qubits,
)

if TYPE_CHECKING:
    from qstack.wire.message import Message

BASES = ("X", "Y", "Z")
AGREEMENT = {"X": 1, "Y": 0, "Z": 1}  # do the outcomes of phi+ agree?


def network(name: str, seed: int = 1) -> WatchedNetwork:
    built = WatchedNetwork(name, seed)
    built.settle()
    return built


def both(
    net: WatchedNetwork, ends: tuple[str, str], number: int, port: int = 7, **options: Any
) -> list[App]:
    first, second = ends
    return [
        App(net, first, epr(port, second, number, is_creator=True, **options)),
        App(net, second, epr(port, first, number, is_creator=False, **options)),
    ]


def finish(net: WatchedNetwork) -> None:
    """Everything is said, every call is closed, and nothing is left when the sessions end."""
    net.settle()
    net.check_calls()
    net.end_everything()
    net.check_empty()


def failures(app: App) -> list[str]:
    return [failed.error for failed in app.all(transport.Failed)]


# --- pairs ---------------------------------------------------------------------------------------


PAUSE_NS = SECOND // 50  # both halves are there by then, corrected


def resting(remote: str, number: int, *, is_creator: bool, truth: Any) -> Script:
    """Take pairs, wait a little, look at the truth of each and measure it."""
    message = yield [transport.EprOpen(call=1, port=7, remote=remote)]
    assert isinstance(message, transport.Opened)
    asked: dict[str, Any] = {"call": 2, "socket": message.socket, "number": number}
    asked.update(basis=None, within_ns=10**12)
    if is_creator:
        message = yield [transport.EprCreate(**asked, min_fidelity=0.5, priority=1)]
    else:
        message = yield [transport.EprAccept(**asked)]
    pairs: list[transport.PairDelivered] = []
    while True:
        calls: list[Message] = []
        if isinstance(message, transport.PairDelivered):
            truth.found(message, len(pairs), is_creator)
            calls = [Sleep(call=10 + len(pairs), span_ns=PAUSE_NS)]
            pairs.append(message)
        elif isinstance(message, Woken):
            n = message.call - 10
            truth.look(pairs[n].pair)
            basis: Any = BASES[n % 3]
            calls = [physical.Measure(call=10 + n, qubit=pairs[n].qubit, basis=basis)]
        message = yield calls


class Truth:
    """With which probability the outcomes of each pair are equal, by its true state."""

    def __init__(self, net: WatchedNetwork) -> None:
        self.net = net
        self.halves: dict[Any, dict[bool, bytes]] = {}
        self.basis: dict[Any, int] = {}
        self.equal: dict[Any, float] = {}

    def found(self, half: transport.PairDelivered, number: int, is_creator: bool) -> None:
        self.halves.setdefault(half.pair, {})[is_creator] = half.qubit
        self.basis[half.pair] = 1 + number % 3

    def look(self, pair: Any) -> None:
        if pair in self.equal:
            return
        qubits = self.halves[pair]
        keys = QubitKey("alice", qubits[True]), QubitKey("bob", qubits[False])
        state = self.net.fabric.truth(*keys, self.net.now_ns)
        axis = self.basis[pair]
        joint = np.array([
            [1 + a * state[axis, 0] + b * state[0, axis] + a * b * state[axis, axis]
             for b in (1, -1)] for a in (1, -1)
        ]) / 4  # fmt: skip
        read = [_readout(self.net, name) for name in ("alice", "bob")]
        seen = read[0] @ joint @ read[1].T
        self.equal[pair] = float(seen[0, 0] + seen[1, 1])


def _readout(net: WatchedNetwork, name: str) -> Any:
    profile = net.network.nodes[name].profile
    f0, f1 = profile.readout_f0, profile.readout_f1
    return np.array([[f0, 1 - f1], [1 - f0, f1]])


@pytest.mark.parametrize(("name", "number"), [("pair", 300), ("metro", 240)])
def test_outcomes_agree_as_the_true_states_say(name: str, number: int) -> None:
    """Seed fixed; within 4.9 sigma of the sum of the true probabilities: false alarm 1e-6."""
    net = network(name)
    truth = Truth(net)
    apps = [
        App(net, "alice", resting("bob", number, is_creator=True, truth=truth)),
        App(net, "bob", resting("alice", number, is_creator=False, truth=truth)),
    ]
    net.settle()
    here, there = ({m.call: m.outcome for m in app.all(physical.Measured)} for app in apps)
    pairs = [[m.pair for m in app.all(transport.PairDelivered)] for app in apps]
    assert pairs[0] == pairs[1]
    assert len(here) == len(there) == len(truth.equal) == number
    for axis in (1, 2, 3):
        of_axis = [n for n in range(number) if 1 + n % 3 == axis]
        equal = sum(here[10 + n] == there[10 + n] for n in of_axis)
        chances = [truth.equal[pairs[0][n]] for n in of_axis]
        sigma = math.sqrt(sum(p * (1 - p) for p in chances))
        assert abs(equal - sum(chances)) < 4.9 * sigma
        assert abs(sum(chances) / len(chances) - 0.5) > 0.25
    finish(net)


def test_a_held_pair_is_as_good_as_it_is_said_to_be() -> None:
    net = network("metro", 3)
    apps = both(net, ("alice", "bob"), 1, read=lambda _: None)
    net.settle()
    here, there = (app.all(transport.PairDelivered)[0] for app in apps)
    keys = QubitKey("alice", here.qubit), QubitKey("bob", there.qubit)
    at_ns = max(app.times(transport.PairDelivered)[0] for app in apps) + 200_000
    assert (here.pair, here.x_bit, here.z_bit) == (there.pair, there.x_bit, there.z_bit)
    assert net.fabric.pair_fidelity(*keys, max(at_ns, net.now_ns)) > here.goodness - 0.05
    finish(net)


@pytest.mark.parametrize(
    ("name", "ends"),
    [("pair", ("alice", "bob")), ("metro", ("alice", "bob")), ("metro", ("alice", "r2"))],
)
@pytest.mark.parametrize("basis", BASES)
def test_pairs_are_measured_directly(name: str, ends: tuple[str, str], basis: str) -> None:
    """Seeds fixed; 60 pairs that agree with a probability of 0.9: 36 or fewer do with 1e-7.

    Over a heralded link, over a photon-pair link, and over two links with a repeater between.
    """
    net = network(name)
    apps = both(net, ends, 60, basis=basis, within_ns=10**12)
    net.settle()
    bits = []
    for app in apps:
        parts = app.all(transport.PairsMeasured)
        assert sum(part.pairs for part in parts) == 60
        bits.append(np.concatenate([
            np.unpackbits(np.frombuffer(part.outcomes, dtype=np.uint8))[: part.pairs]
            for part in parts
        ]))  # fmt: skip
        assert [type(m.message).__name__ for m in app.heard][-1] == "Finished"
    agree = int(np.sum((bits[0] == bits[1]) == AGREEMENT[basis]))
    assert agree > 36
    finish(net)


def test_neighbours_and_ends_share_a_repeater() -> None:
    net = network("metro", 5)
    apps = both(net, ("alice", "bob"), 5) + both(net, ("r1", "r2"), 5)
    net.settle()
    for app in apps:
        assert len(app.all(physical.Measured)) == 5
        assert len(app.all(transport.Finished)) == 1
    finish(net)


# --- streams and echo ----------------------------------------------------------------------------

CARDINAL: list[tuple[list[str], str, int]] = [
    ([], "Z", 0),
    (["x"], "Z", 1),
    (["h"], "X", 0),
    (["x", "h"], "X", 1),
    (["h", "s"], "Y", 0),
    (["x", "h", "s"], "Y", 1),
]


def test_cardinal_states_are_teleported() -> None:
    """Seed fixed; 72 qubits that are right with a probability of 0.88: 47 or fewer with 1e-6."""
    net = network("metro", 2)
    states = CARDINAL * 12
    sender = App(net, "alice", send_qubits("bob", 4, [gates for gates, _, _ in states], 10**11))
    receiver = App(net, "bob", take_qubits(4, [basis for _, basis, _ in states], 10**11))
    net.settle()
    assert len(sender.all(transport.Finished)) == len(states)
    outcomes = [m.outcome for m in receiver.all(physical.Measured)]
    assert len(outcomes) == len(states)
    right = sum(out == bit for out, (_, _, bit) in zip(outcomes, states, strict=True))
    assert right > 47
    arrived = receiver.all(transport.QubitArrived)
    assert [each.sequence for each in arrived] == list(range(len(states)))
    finish(net)


def test_messages_go_between_nodes_that_are_no_neighbours() -> None:
    net = network("metro")
    data = [bytes([n]) * n for n in range(100)]
    sender = App(net, "alice", send_messages("bob", 9, data))
    receiver = App(net, "bob", take_messages(9, len(data)))
    net.settle()
    assert [m.data for m in receiver.all(transport.MessageArrived)] == data
    assert len(sender.all(transport.Finished)) == len(data)
    finish(net)


def test_echo_measures_a_path_alone() -> None:
    """Seed fixed; 60 pairs that agree with a probability of 0.85: 34 or fewer do with 1e-6."""
    net = network("metro", 4)
    app = App(net, "alice", echo("bob", list(BASES) * 20))
    net.settle()
    here = [m.outcome for m in app.all(physical.Measured)]
    there = {m.call: m.outcome for m in app.all(transport.EchoResult)}
    assert len(here) == len(there) == 60
    mine = {m.call: m.outcome for m in app.all(physical.Measured)}
    agree = sum((mine[n] == there[n]) == AGREEMENT[BASES[(n - 10) % 3]] for n in mine)
    assert agree > 34
    finish(net)


# --- refusals ------------------------------------------------------------------------------------


def test_a_fidelity_out_of_reach_is_refused_with_the_best_there_is() -> None:
    net = network("metro")
    apps = both(net, ("alice", "bob"), 1, min_fidelity=0.999, within_ns=5 * SECOND)
    net.settle()
    (failed,) = apps[0].all(transport.Failed)
    assert failed.error == "FIDELITY"
    assert 0.5 < failed.best < 0.999
    finish(net)


def test_an_unknown_node_is_refused() -> None:
    net = network("pair")
    for ask in ("epr", "stream"):
        script = epr(7, "zoe", 1, is_creator=True) if ask == "epr" else send_messages("zoe", 1, [])
        app = App(net, "alice", script)
        net.settle()
        assert failures(app) == ["UNKNOWN_NODE"], ask
    finish(net)


@pytest.mark.parametrize("number", [10**9, 10**6 + 1])
def test_too_many_pairs_are_refused(number: int) -> None:
    net = network("pair")
    apps = both(net, ("alice", "bob"), number, within_ns=SECOND)
    net.settle()
    assert failures(apps[0]) == ["BAD_REQUEST"]
    finish(net)


def test_a_deadline_passes_at_both_ends() -> None:
    net = network("metro")
    began = net.now_ns
    apps = both(net, ("alice", "bob"), 12, within_ns=SECOND)
    net.settle()
    for app in apps:
        assert failures(app) == ["TIMEOUT"]
        assert began + SECOND <= app.times(transport.Failed)[0] < began + SECOND + SECOND // 100
        assert 0 < len(app.all(transport.PairDelivered)) < 12
    finish(net)


def test_what_the_network_cannot_do_in_time_is_refused_at_once() -> None:
    net = network("metro")
    began = net.now_ns
    apps = both(net, ("alice", "bob"), 1000, within_ns=SECOND)
    net.settle()
    assert failures(apps[0]) == failures(apps[1]) == ["NO_TIME"]
    assert apps[0].times(transport.Failed)[0] < began + SECOND // 100
    finish(net)


def test_nobody_accepts() -> None:
    net = network("pair")
    app = App(net, "alice", epr(7, "bob", 1, is_creator=True, within_ns=SECOND))
    net.settle()
    assert failures(app) in (["TIMEOUT"], ["REJECTED"])
    finish(net)


# --- ways around ---------------------------------------------------------------------------------


def way(net: WatchedNetwork, first: str, last: str) -> list[str]:
    """The path the network would take now."""

    def ask() -> Script:
        yield [transport.RouteAsk(call=1, remote=last)]

    app = App(net, first, ask())
    net.settle()
    path: list[str] = app.all(transport.RouteInfo)[0].path
    return path


@pytest.mark.parametrize("comes_back", [False, True])
def test_when_a_node_on_the_way_dies_pairs_go_the_other_way(*, comes_back: bool) -> None:
    net = network("ring", 2)
    path = way(net, "alice", "dave")
    assert len(path) == 4
    apps = both(net, ("alice", "dave"), 12)
    began = net.now_ns
    net.kill(path[1], began + SECOND // 2, comes_back=comes_back)
    net.settle()
    for app in apps:
        assert len(app.all(transport.Finished)) == 1
        times = app.times(transport.PairDelivered)
        assert len(times) >= 12
        assert times[0] < began + SECOND // 2 < times[-1]
    if not comes_back:
        other = way(net, "alice", "dave")
        assert path[1] not in other
        assert {*other} & {*path} == {"alice", "dave"}
    finish(net)


@pytest.mark.parametrize("fault", ["device", "channel"])
def test_when_a_link_goes_down_pairs_go_the_other_way_and_it_comes_back(fault: str) -> None:
    net = network("ring", 4)
    path = way(net, "alice", "dave")
    apps = both(net, ("alice", "dave"), 12)
    net.run_until(net.now_ns + SECOND // 4)
    before = len(apps[0].all(transport.PairDelivered))
    assert 0 < before < 12
    broken = path[1]
    if fault == "device":
        net.lose_device(broken)
    else:
        net.cut(broken, path[2])
    net.settle()
    for app in apps:
        assert len(app.all(transport.Finished)) == 1
    other = way(net, "alice", "dave")
    assert {*other} & {*path} == {"alice", "dave"}
    if fault == "device":
        net.return_device(broken)
    else:
        net.mend(broken, path[2])
    net.settle()
    again = both(net, ("alice", broken), 2, port=8)
    net.settle()
    for app in again:
        assert len(app.all(transport.Finished)) == 1
    finish(net)


def test_neighbours_that_are_not_on_the_way_notice_nothing() -> None:
    net = network("ring", 3)
    apps = both(net, ("alice", "bob"), 10)
    net.kill("dave", net.now_ns + SECOND // 50)
    net.settle()
    for app in apps:
        assert not failures(app)
        assert len(app.all(physical.Measured)) == 10
    finish(net)


# --- the end of sessions -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pair", "metro"])
def test_the_far_end_is_told_when_a_session_dies_with_its_pairs(name: str) -> None:
    net = network(name)
    alice, bob = both(net, ("alice", "bob"), 1, read=lambda _: None)
    net.settle()
    (half,) = bob.all(transport.PairDelivered)
    assert not bob.all(transport.PairVoid)
    alice.end()
    net.settle()
    assert [(v.pair, v.qubit) for v in bob.all(transport.PairVoid)] == [(half.pair, half.qubit)]
    snapshot = net.fabric.snapshot()
    assert (snapshot.qubits["alice"], snapshot.qubits["bob"]) == (0, 1)
    finish(net)


# --- runs that can be repeated -------------------------------------------------------------------

REPEATED = """
import sys
from tests.runtime import swarm
print(*(swarm.run(seed).digest for seed in (3, 4, 5, 8)))
"""


def digests(hash_seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", REPEATED], env=environment, capture_output=True, text=True,
        check=True, timeout=100,
    )  # fmt: skip
    return done.stdout.split()


def test_runs_are_equal_in_processes_with_different_hash_seeds() -> None:
    first, second = digests("1"), digests("4242")
    assert first == second
    assert len({*first}) == 4


def test_runs_of_one_seed_are_equal_and_of_others_differ() -> None:
    found = []
    for seed in (1, 1, 2):
        net = network("metro", seed)
        both(net, ("alice", "bob"), 5)
        net.settle()
        found.append(net.digest)
    assert found[0] == found[1] != found[2]


def test_time_never_goes_back_for_an_application() -> None:
    net = network("metro", 6)
    apps = both(net, ("alice", "bob"), 10)
    net.settle()
    for app in apps:
        assert all(a.at_ns <= b.at_ns for a, b in pairwise(app.heard))
