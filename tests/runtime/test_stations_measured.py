"""Named stations in virtual time beyond pairs to keep: measured pairs, clocks, drift, schemes."""

from typing import Any

import pytest
from msgspec.structs import replace

from qstack.physical.station_machine import PATIENCE_NS
from qstack.physical.station_messages import Calibrating, Gen, Heralds, Reply, StationCalibrated
from qstack.runtime.network_file import packaged_network
from qstack.transport import service as transport
from qstack.wire.message import BasisProbabilities
from qstack.wire.packed import unpack_bases, unpack_bits
from tests.runtime.scripts import SECOND, App
from tests.runtime.test_clocks import CLOCK, TIMING, entries
from tests.runtime.test_drift import DRIFT, calibrations
from tests.runtime.test_network_equipment import equipped
from tests.runtime.test_network_file import link, node
from tests.runtime.test_retrieved_photon import retrieved
from tests.runtime.test_stations import (
    MIDDLE,
    StationNetwork,
    both,
    delivered,
    failures,
    with_station,
    works,
)

LONG_NS = 10**12
DRIFTING = DRIFT | {"calibration_period_ns": SECOND}


def measured(app: App) -> list[transport.PairsMeasured]:
    return app.all(transport.PairsMeasured)


def bits(app: App, field: str = "outcomes") -> list[int]:
    return [bit for m in measured(app) for bit in unpack_bits(getattr(m, field), m.pairs).tolist()]


def through_mid(text: str) -> str:
    """A network file whose links go through the station `mid`."""
    ends = '\nstation = "mid"\nends = '
    return text.replace("[[link]]", MIDDLE, 1).replace("ends = ", ends)


def drifting_network(**clock: object) -> str:
    text = '[network]\nname = "clocks"\n[fabric]\naddress = "127.0.0.1:0"\n'
    for name, drift_ppb in (("alice", 5), ("bob", -7)):
        text += node(name, "ion-projected")
        text += entries("node.clock", CLOCK | {"drift_ppb": drift_ppb})
    text += link("alice", "bob", scheme='"double-click"', length_m=10_000)
    text += entries("link.timing", TIMING | {"asymmetry_ps": 900})
    return text + entries("link.drift", DRIFTING)


# --- measured ------------------------------------------------------------------------------------


def test_measured_pairs_are_those_of_a_station_without_a_name() -> None:
    found = []
    for text in (packaged_network("pair"), with_station()):
        net = StationNetwork(text)
        apps = both(net, 60, basis="Z", within_ns=LONG_NS)
        net.settle()
        assert [len(bits(app)) for app in apps] == [60, 60]
        found.append([bits(app, field) for app in apps for field in ("outcomes", "x_bits")])
    assert found[0] == found[1]


def test_bases_that_are_drawn_are_the_nodes_own() -> None:
    net = StationNetwork(with_station())
    apps = both(net, 60, basis=BasisProbabilities(0.5, 0.0, 0.5), within_ns=LONG_NS)
    net.settle()
    codes = [
        [int(c) for m in measured(app) for c in unpack_bases(m.bases, m.pairs)] for app in apps
    ]
    assert codes[0] != codes[1]
    here, there = (bits(app) for app in apps)
    same = [here[n] == there[n] for n in range(60) if codes[0][n] == codes[1][n]]
    assert sum(same) > 0.8 * len(same)
    works(net, 8)


@pytest.mark.parametrize("name", ["mid", "alice"])
def test_measuring_survives_a_death(name: str) -> None:
    net = StationNetwork(with_station())
    apps = both(net, 40, basis="Z", within_ns=LONG_NS)
    net.kill(name, 5 * SECOND)
    net.settle()
    lives = [app for app in apps if app.lives]
    assert all(len(bits(app)) == 40 or failures([app]) for app in lives)
    works(net, 8)


@pytest.mark.parametrize("to", ["alice", "bob"])
@pytest.mark.parametrize("how", ["lost", "said twice"])
def test_heralds_that_one_end_does_not_hear_or_hears_twice_are_noticed(how: str, to: str) -> None:
    """What was told before stands, the same at both ends; the request ends, and the link works."""
    net = StationNetwork(with_station())
    seen: list[Heralds] = []

    def loses(name: str, peer: str, message: Any) -> bool:
        if not isinstance(message, Heralds) or (name, peer) != ("mid", to):
            return False
        seen.append(message)
        return how == "lost" and len(seen) == 3

    def alters(peer: str, message: Any) -> Any:
        is_third = isinstance(message, Heralds) and peer == to and len(seen) == 3
        return seen[1] if is_third and how == "said twice" else message

    net.loses, net.alters = loses, alters
    apps = both(net, 20, basis="Z", within_ns=LONG_NS)
    net.settle()
    first, second = (bits(app) for app in apps)
    count = min(len(first), len(second))
    assert 2 <= count < 20
    assert len(failures(apps)) == 2
    states = [bits(app, "z_bits")[:count] for app in apps]
    assert states[0] == states[1]
    net.loses, net.alters = lambda *_: False, lambda _, message: message
    works(net, 8)


def test_a_gen_for_measured_pairs_that_is_lost_is_said_again() -> None:
    net = StationNetwork(with_station())
    lost: list[Gen] = []

    def loses(name: str, _: str, message: Any) -> bool:
        if isinstance(message, Gen) and name == "bob" and not lost:
            lost.append(message)
            return True
        return False

    net.loses = loses
    apps = both(net, 5, basis="X", within_ns=LONG_NS)
    net.settle()
    assert [len(bits(app)) for app in apps] == [5, 5]
    assert net.station().summary()["errors"] == {"NO_CLASSICAL_OTHER": 1}
    assert net.now_ns > PATIENCE_NS
    works(net, 8)


# --- clocks, drift and calibrations --------------------------------------------------------------


def test_clocks_are_compared_and_links_calibrated_with_the_station() -> None:
    net = StationNetwork(through_mid(drifting_network()))
    apps = both(net, 300, within_ns=LONG_NS)
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [300, 300]
    assert delivered(apps)[0] == delivered(apps)[1]
    numbers = {name: calibrations(net, name, peer)["calibration"]
               for name, peer in (("alice", "bob"), ("bob", "alice"))}  # fmt: skip
    assert numbers["alice"] == numbers["bob"] >= 1
    assert net.station().summary()["calibrations"] == {"alice-bob": numbers["alice"]}
    assert len(net.said(Calibrating)) == len(net.said(StationCalibrated))
    pairs = [pair.calibration for pair in net.link_pairs.values()]
    assert {0, numbers["alice"]} <= set(pairs)
    works(net, 8)


def test_a_station_that_dies_in_the_window_is_no_calibration_and_the_next_one_is() -> None:
    net = StationNetwork(through_mid(drifting_network()))
    apps = both(net, 300, within_ns=LONG_NS)
    while not net.said(Calibrating):
        net.run_until(net.now_ns + SECOND // 100)
    net.kill("mid", net.now_ns + SECOND // 50)
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [300, 300]
    numbers = net.station().summary()["calibrations"]["alice-bob"]
    assert numbers == calibrations(net, "alice", "bob")["calibration"] >= 1
    works(net, 8)


def test_without_the_word_of_the_station_there_is_no_calibration_and_pairs_come_all_the_same() -> (
    None
):
    net = StationNetwork(through_mid(drifting_network()))
    net.alters = lambda _, m: replace(m, is_good=False) if isinstance(m, StationCalibrated) else m
    apps = both(net, 200, within_ns=LONG_NS)
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [200, 200]
    assert calibrations(net, "alice", "bob")["calibration"] == 0
    net.alters = lambda _, message: message
    works(net, 8)


# --- other schemes -------------------------------------------------------------------------------
EQUIPPED = {
    "midpoint-source": equipped("midpoint_source"),
    "absorptive-memory": equipped("absorptive_memory"),
    "retrieved-photon": retrieved(),
}


@pytest.mark.parametrize("scheme", EQUIPPED)
def test_links_of_other_schemes_go_through_a_named_station(scheme: str) -> None:
    ends = EQUIPPED[scheme].replace('"a", "b"', '"alice", "bob"')
    text = '[network]\nname = "n"\n[fabric]\naddress = "127.0.0.1:0"\n'
    text += node("alice", "ion-projected") + node("bob", "ion-projected") + ends
    found = []
    nets = [StationNetwork(each) for each in (text, through_mid(text))]
    for net in nets:
        kept = both(net, 20, within_ns=LONG_NS)
        net.settle()
        apps = both(net, 20, 8, basis="Z", within_ns=LONG_NS)
        net.settle()
        assert [len(pairs) for pairs in delivered(kept)] == [20, 20]
        found.append([bits(app, field) for app in apps for field in ("outcomes", "z_bits")])
        assert [len(each) for each in found[-1]] == [20, 20, 20, 20]
    assert nets[1].said(Heralds)
    assert found[0] == found[1]
    works(nets[1], 9)


# --- photon-pair links ---------------------------------------------------------------------------

ALL_THROUGH_MID = with_station("metro").replace('station = "midpoint"', 'station = "mid"')
EVEN = BasisProbabilities(0.5, 0.0, 0.5)


@pytest.mark.parametrize("basis", ["Z", EVEN])
def test_a_source_in_a_named_station_makes_the_pairs_of_one_without_a_name(basis: Any) -> None:
    """Its slots begin later, and are drawn alike: who clicks in which order, and what is read."""
    found = []
    nets = [StationNetwork(text) for text in (packaged_network("metro"), ALL_THROUGH_MID)]
    for net in nets:
        apps = both(net, 3000, basis=basis, within_ns=LONG_NS)
        net.settle()
        assert [len(bits(app)) for app in apps] == [3000, 3000]
        found.append([bits(app) for app in apps] if basis == "Z" else [])
    gens, replies = (nets[1].said(kind) for kind in (Gen, Reply))
    assert (len(gens), {gen.link for gen in gens}) == (2, {"alice-bob"})
    assert [reply.outcome for reply in replies] == ["ended", "ended"]
    assert found[0] == found[1]
    works(nets[1], 8)


@pytest.mark.parametrize("name", ["mid", "alice", "bob"])
def test_a_source_and_its_receivers_survive_a_death(name: str) -> None:
    net = StationNetwork(ALL_THROUGH_MID)
    apps = both(net, 10**5, basis="Z", within_ns=10 * SECOND)
    net.kill(name, net.now_ns + SECOND // 10)
    net.settle()
    lives = [app for app in apps if app.lives]
    assert all(len(bits(app)) == 10**5 or failures([app]) for app in lives)
    again = both(net, 1000, 6, basis="Z", within_ns=10 * SECOND)
    net.settle()
    assert [len(bits(app)) for app in again] == [1000, 1000]
    works(net, 8)


@pytest.mark.parametrize("error", ["QUEUE_MISMATCH", "OUT_OF_WINDOW", "GENERAL", "lost"])
def test_errors_of_the_station_switch_receivers_off_and_the_next_batch_goes_on(error: Any) -> None:
    """A GEN that is lost is NO_CLASSICAL_OTHER at both ends."""
    net = StationNetwork(ALL_THROUGH_MID)
    lost: list[Gen] = []
    told: list[str] = []

    def loses(_name: str, peer: str, message: Any) -> bool:
        is_first = isinstance(message, Gen) and peer == "mid" and not lost
        if is_first and error == "lost":
            lost.append(message)
        return is_first and error == "lost"

    def alters(peer: str, message: Any) -> Any:
        if error == "lost":
            return message
        if isinstance(message, Gen) and not lost:  # for something else, so that there is a REPLY
            lost.append(message)
            return replace(message, token=b"o" * 16)
        if isinstance(message, Reply) and peer not in told:
            told.append(peer)
            return replace(message, outcome=error)
        return message

    net.loses, net.alters = loses, alters
    apps = both(net, 500, basis="Z", within_ns=60 * SECOND)
    net.settle()
    assert len(lost) == 1
    if error == "GENERAL":
        assert len(failures(apps)) == 2
    else:
        assert [len(bits(app)) for app in apps] == [500, 500]
    net.loses, net.alters = lambda *_: False, lambda _, message: message
    works(net, 8)
