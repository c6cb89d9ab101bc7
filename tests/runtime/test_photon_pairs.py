"""Networks with a photon-pair link in virtual time: rates, errors, bases, ways, faults."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qstack.link.service import LinkMeasured
from qstack.machine import Told
from qstack.physical import service as physical
from qstack.physical.models.pair_source import error_rate, gain
from qstack.runtime.network_file import load_packaged_network, packaged_network, parse_network
from qstack.transport import service as transport
from qstack.wire.message import BasisProbabilities
from qstack.wire.packed import unpack_bases, unpack_bits
from tests.runtime.scripts import SECOND, App, Script, WatchedNetwork, epr
from tests.runtime.test_virtual import both, failures, finish, network

ENDS = ("alice", "bob")
MOSTLY_Z = BasisProbabilities(0.1, 0.0, 0.9)
EVEN = BasisProbabilities(0.5, 0.0, 0.5)
LIMIT = 5.1
"""Standard deviations exceeded with probability below 4e-7."""


def read(app: App) -> tuple[Any, Any]:
    """Outcomes, and bases as codes (none where the basis is fixed)."""
    parts = app.all(transport.PairsMeasured)
    outcomes = [unpack_bits(part.outcomes, part.pairs) for part in parts]
    bases = [unpack_bases(part.bases, part.pairs) for part in parts if part.bases]
    none = [np.zeros(0, dtype=np.uint8)]
    return np.concatenate(outcomes or none), np.concatenate(bases or none)


def test_a_key_s_worth_of_pairs_has_rate_and_errors_of_the_closed_forms() -> None:
    """60 000 pairs with bases drawn at each end; every figure false alarm below 4e-7."""
    net = network("metro")
    began = net.now_ns
    apps = both(net, ENDS, 60_000, basis=MOSTLY_Z)
    net.settle()
    (here, mine), (there, yours) = (read(app) for app in apps)
    assert len(here) == len(there) == len(mine) == len(yours) == 60_000
    source = net.network.links["alice-bob"].pair_source()
    span_s = (net.now_ns - began) / 1e9
    expected_s = 60_000 / (gain(source) * 1e8)
    assert expected_s - LIMIT * math.sqrt(60_000) / (gain(source) * 1e8) < span_s
    assert span_s < expected_s + 0.03  # a chunk, and a few round trips
    for code in (0, 2):
        same = (mine == code) & (yours == code)
        rate, count = error_rate(source), int(same.sum())
        errors = int((here[same] != there[same]).sum())
        assert abs(errors - count * rate) < LIMIT * math.sqrt(count * rate)
        share = (0.1, 0.0, 0.9)[code] ** 2
        assert abs(count - 60_000 * share) < LIMIT * math.sqrt(60_000 * share)
    other = mine != yours
    count = int(other.sum())
    assert abs(int((here[other] != there[other]).sum()) - count / 2) < LIMIT * math.sqrt(count) / 2
    for app in apps:
        (goodness,) = {part.goodness for part in app.all(transport.PairsMeasured)}
        assert goodness == pytest.approx(1 - 1.5 * error_rate(source), abs=1e-5)
    finish(net)


def test_each_end_chooses_for_itself() -> None:
    """One end fixed, the other drawn, with other probabilities: nothing is assumed alike."""
    net = network("metro", 2)
    choices = (("alice", "bob", True, "X"), ("bob", "alice", False, EVEN))
    apps = [
        App(net, here, epr(7, there, 2000, is_creator=creates, basis=basis))
        for here, there, creates, basis in choices
    ]
    net.settle()
    (here, none), (there, bases) = (read(app) for app in apps)
    assert len(none) == 0
    assert len(bases) == 2000
    agree = (here == there)[bases == 0]
    assert agree.mean() > 0.93
    assert abs((here == there)[bases == 2].mean() - 0.5) < LIMIT * 0.5 / math.sqrt(900)
    finish(net)


class _Ways(WatchedNetwork):
    """Notes which link layer told of measured pairs, from which peer."""

    def __init__(self, name: str, seed: int) -> None:
        self.measured: list[tuple[str, str]] = []
        super().__init__(name, seed)

    def _boot(self, name: str, at_ns: int) -> None:
        super()._boot(name, at_ns)
        machine: Any = self.nodes[name].machines["network"]
        handle = machine.handle

        class Note:
            def handle(_, event: Any, now: int) -> Any:  # noqa: N805
                if isinstance(event, Told) and isinstance(event.message, LinkMeasured):
                    self.measured.append((name, event.message.peer))
                return handle(event, now)

        self.nodes[name].machines["network"] = Note()


def test_pairs_to_keep_take_the_repeaters_and_measured_ones_the_direct_link_at_one_time() -> None:
    net = _Ways("metro", 1)
    net.settle()
    kept = both(net, ENDS, 5)
    measured = both(net, ENDS, 500, port=8, basis="Z")
    net.settle()
    assert [len(app.all(physical.Measured)) for app in kept] == [5, 5]
    assert [len(read(app)[0]) for app in measured] == [500, 500]
    peers = {(name, pair.peer) for (name, _), pair in net.link_pairs.items()}
    assert ("alice", "r1") in peers
    assert not peers & {("alice", "bob"), ("bob", "alice")}
    assert {*net.measured} == {("alice", "bob"), ("bob", "alice")}
    assert max(app.times(transport.PairsMeasured)[-1] for app in measured) < min(
        app.times(transport.PairDelivered)[0] for app in kept
    )
    net.end_everything()
    net.check_calls()


def asking(remote: str, **options: Any) -> Script:
    yield [transport.RouteAsk(call=1, remote=remote, **options)]


def test_the_route_that_is_told_is_that_of_pairs_to_keep() -> None:
    net = network("metro")
    app = App(net, "alice", asking("bob"))
    net.settle()
    (route,) = app.all(transport.RouteInfo)
    assert route.path == ["alice", "r1", "r2", "bob"]


def test_the_route_of_measured_pairs_is_told_alike_at_both_ends_with_the_errors_they_have() -> None:
    net = network("metro")
    ends = [
        App(net, "alice", asking("bob", kind="measure")),
        App(net, "bob", asking("alice", kind="measure", from_remote=True)),
    ]
    net.settle()
    here, there = (app.all(transport.RouteInfo)[0] for app in ends)
    assert here == there
    assert here.path == ["alice", "bob"]
    assert here.error_x == here.error_z
    assert 3 * here.error_z == pytest.approx(2 * (1 - here.fidelity))
    for basis in ("X", "Z"):
        apps = both(net, ENDS, 20_000, port=9, basis=basis)
        net.settle()
        outcomes = [read(app)[0] for app in apps]
        rate = float(np.mean(outcomes[0] != outcomes[1]))
        spread = (here.error_z * (1 - here.error_z) / 20_000) ** 0.5
        assert abs(rate - here.error_z) < LIMIT * spread
        for app in apps:
            app.end()
    finish(net)


def test_without_another_way_pairs_to_keep_are_refused_and_measured_ones_made() -> None:
    net = network("metro")
    for repeater in ("r1", "r2"):
        net.kill(repeater, net.now_ns + 1, comes_back=False)
    net.run_until(net.now_ns + SECOND)
    kept = both(net, ENDS, 2, within_ns=SECOND)
    measured = both(net, ENDS, 100, port=8, basis=EVEN)
    net.settle()
    assert failures(kept[0])[0] in ("NO_PATH", "TIMEOUT")
    assert [len(read(app)[0]) for app in measured] == [100, 100]
    finish(net)


def test_a_fidelity_beyond_the_link_is_refused_with_its_own() -> None:
    net = network("metro")
    apps = both(net, ENDS, 10, basis="Z", min_fidelity=0.99)
    net.settle()
    (failed,) = apps[0].all(transport.Failed)
    assert failed.error == "FIDELITY"
    assert failed.best == pytest.approx(0.974, abs=1e-3)
    finish(net)


def test_two_requests_share_the_link_in_turns_and_both_end() -> None:
    net = network("metro", 3)
    apps = both(net, ENDS, 20_000, basis=EVEN) + both(net, ENDS, 15_000, port=8, basis="Z")
    net.settle()
    assert [len(read(app)[0]) for app in apps] == [20_000, 20_000, 15_000, 15_000]
    agree = read(apps[2])[0] == read(apps[3])[0]
    assert agree.mean() > 0.97
    finish(net)


def test_a_deadline_within_ends_both_and_the_next_request_is_served() -> None:
    net = network("metro")
    apps = both(net, ENDS, 10**6, basis=EVEN, within_ns=SECOND // 10)
    net.settle()
    assert [failures(app) for app in apps] == [["TIMEOUT"], ["TIMEOUT"]]
    pairs = [read(app)[0] for app in apps]
    assert min(len(each) for each in pairs) > 5_000
    again = both(net, ENDS, 100, port=9, basis="Y")
    net.settle()
    here, there = (read(app)[0] for app in again)
    assert len(here) == len(there) == 100
    assert (here != there).mean() > 0.85  # phi+ differs in Y
    finish(net)


def test_a_session_that_dies_ends_the_request_and_leaves_nothing() -> None:
    net = network("metro")
    alice, bob = both(net, ENDS, 10**6, basis=EVEN)
    net.run_until(net.now_ns + SECOND // 10)
    alice.end()
    net.settle()
    assert failures(bob) != []
    finish(net)


@pytest.mark.parametrize("fault", ["device", "channel"])
def test_a_lost_device_or_channel_ends_the_request_at_both_ends_and_later_it_works(
    fault: str,
) -> None:
    net = network("metro", 4)
    apps = both(net, ENDS, 10**6, basis=EVEN, within_ns=2 * SECOND)
    net.run_until(net.now_ns + SECOND // 10)
    if fault == "device":
        net.lose_device("bob")
    else:
        net.cut(*ENDS)
    net.run_until(net.now_ns + SECOND // 10)
    if fault == "device":
        net.return_device("bob")
    else:
        net.mend(*ENDS)
    net.settle()
    for app in apps:
        assert len(failures(app)) == 1
        assert failures(app)[0] in ("DEVICE_LOST", "PEER_DOWN")
    again = both(net, ENDS, 200, port=9, basis="Z")
    net.settle()
    here, there = (read(app)[0] for app in again)
    assert len(here) == len(there) == 200
    assert (here == there).mean() > 0.9
    finish(net)


@pytest.mark.parametrize("seed", range(4))
def test_an_end_that_dies_and_comes_back_works_again(seed: int) -> None:
    net = network("metro", seed)
    victim = ENDS[seed % 2]
    apps = both(net, ENDS, 10**6, basis=EVEN, within_ns=10 * SECOND)
    net.kill(victim, net.now_ns + 50_000_000 + seed * 1_234_567)
    net.settle()
    for app in apps:
        assert len(failures(app)) == (app.node != victim)
    again = both(net, ENDS, 200, port=9, basis="Z")
    net.settle()
    here, there = (read(app)[0] for app in again)
    assert len(here) == len(there) == 200
    assert (here == there).mean() > 0.9
    finish(net)


def test_runs_of_one_seed_are_equal_and_of_others_differ() -> None:
    found = []
    for seed in (1, 1, 2):
        net = network("metro", seed)
        both(net, ENDS, 3000, basis=MOSTLY_Z)
        net.settle()
        found.append(net.digest)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("name", "ends"), [("pair", ENDS), ("metro", ("alice", "r2"))])
def test_bases_are_drawn_on_heralded_links_and_over_repeaters_too(
    name: str, ends: tuple[str, str]
) -> None:
    """Seeds fixed; about 120 pairs that agree with a probability of 0.85: 80 or fewer with 1e-6."""
    net = network(name)
    choice = BasisProbabilities(0.3, 0.3, 0.4)
    apps = both(net, ends, 360, basis=choice, within_ns=10**12)
    net.settle()
    (here, mine), (there, yours) = (read(app) for app in apps)
    assert len(here) == len(there) == len(mine) == len(yours) == 360
    same = mine == yours
    agree = (here == there) != (mine == 1)  # Y differs
    assert 90 < same.sum() < 160
    assert agree[same].mean() > 0.67
    assert 0.3 < agree[~same].mean() < 0.7
    finish(net)


def test_short_arms_leave_the_clock_its_room() -> None:
    """A source between two nodes 2 m apart, beside slow operations: nothing comes too soon."""
    text = packaged_network("metro").replace("length_m = 35_000", "length_m = 2")
    net = WatchedNetwork(parse_network(text, where="short", folder=Path()), 1)
    net.settle()
    apps = both(net, ENDS, 2000, basis=EVEN)
    net.settle()
    assert [len(read(app)[0]) for app in apps] == [2000, 2000]
    assert load_packaged_network("metro").links["alice-bob"].length_m == 35_000
    finish(net)
