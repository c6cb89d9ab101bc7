"""Networks whose heralding station is a participant of its own, in virtual time, with faults."""

from typing import Any

import pytest
from msgspec.structs import replace

from qstack.errors import ErrorCode
from qstack.machine import FromPeer
from qstack.physical import service as physical
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.station_machine import PATIENCE_NS
from qstack.physical.station_messages import Gen, GenEnd, Reply
from qstack.quantum.bell import fidelity
from qstack.runtime.network_file import packaged_network, parse_network
from qstack.transport import service as transport
from qstack.wire.message import Message
from tests.runtime.scripts import App, WatchedNetwork, epr

MIDDLE = '[[station]]\nname = "mid"\naddress = "127.0.0.1:0"\n\n[[link]]'


def with_station(name: str = "pair", *changes: tuple[str, str]) -> str:
    """A packaged network whose heralded links go through the station `mid`."""
    text = packaged_network(name)
    text = text.replace("[[link]]", MIDDLE, 1)
    for scheme in ("single-click", "double-click"):
        heralded = f'scheme = "{scheme}"\nstation = '
        text = text.replace(f'{heralded}"midpoint"', f'{heralded}"mid"')
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


class StationNetwork(WatchedNetwork):
    """It can lose what a station says, and says what crosses between it and nodes."""

    def __init__(self, text: str, seed: int = 1) -> None:
        self.crossed: list[tuple[str, str, Message]] = []
        self.loses: Any = lambda _name, _peer, _message: False
        self.alters: Any = lambda _peer, message: message
        super().__init__(parse_network(text, where="test"), seed)
        self.settle()

    def _to_peer(self, name: str, peer: str, at_ns: int, message: Message, sent: Any) -> None:
        if "mid" in (name, peer):
            self.crossed.append((name, peer, message))
        if not self.loses(name, peer, message):
            super()._to_peer(name, peer, at_ns, self.alters(peer, message), sent)

    def said(self, kind: type[Any], to: str | None = None) -> list[Any]:
        """What crossed, of a kind."""
        return [m for _, peer, m in self.crossed if isinstance(m, kind) and to in (None, peer)]

    def station(self) -> Any:
        """The machine."""
        return self.nodes["mid"].machines["physical"]


def both(net: StationNetwork, number: int, port: int = 7, **options: Any) -> list[App]:
    return [
        App(net, "alice", epr(port, "bob", number, is_creator=True, **options)),
        App(net, "bob", epr(port, "alice", number, is_creator=False, **options)),
    ]


def delivered(apps: list[App]) -> list[list[Any]]:
    return [[m.pair for m in app.all(transport.PairDelivered)] for app in apps]


def failures(apps: list[App]) -> list[str]:
    return [failed.error for app in apps for failed in app.all(transport.Failed)]


def works(net: StationNetwork, port: int) -> None:
    """Pairs come again, and nothing is left anywhere."""
    apps = both(net, 10, port)
    net.settle()
    pairs = delivered(apps)
    assert len(pairs[0]) == 10
    assert pairs[0] == pairs[1]
    net.check_calls()
    net.end_everything()
    net.check_empty()
    net.check_layers()


@pytest.mark.parametrize(
    "changes",
    [
        (),
        (('station = "mid"', 'station = "mid"\nstation_m = 2_000'),),
        (("memory = 4", "memory = 1"),),
        (('scheme = "double-click"', 'scheme = "single-click"'),),
    ],
    ids=["midpoint", "unequal arms", "nothing to move to", "single-click"],
)
def test_pairs_come_through_a_station_and_nothing_is_said_for_each_attempt(
    changes: tuple[tuple[str, str], ...],
) -> None:
    net = StationNetwork(with_station("pair", *changes))
    apps = both(net, 20)
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [20, 20]
    assert delivered(apps)[0] == delivered(apps)[1]
    heralds = net.said(Reply)
    successes = [m for m in heralds if m.outcome == "success"]
    assert len(net.said(Gen)) == len(heralds)
    assert len({m.sequence for m in successes}) == len(successes) / 2
    assert len(net.said(GenEnd)) == len([m for m in heralds if m.outcome == "ended"])
    assert net.station().summary()["errors"] == {}
    works(net, 8)


def test_states_are_those_of_a_station_that_has_no_name() -> None:
    """The pair is as old as its emission; REPLY comes some microseconds later than a herald."""
    found = []
    for text in (packaged_network("pair"), with_station()):
        net = WatchedNetwork(parse_network(text, where="test"), 3)
        net.settle()
        apps = [
            App(net, "alice", epr(7, "bob", 1, is_creator=True, read=lambda _: None)),
            App(net, "bob", epr(7, "alice", 1, is_creator=False, read=lambda _: None)),
        ]
        net.settle()
        here, there = (app.all(transport.PairDelivered)[0] for app in apps)
        keys = QubitKey("alice", here.qubit), QubitKey("bob", there.qubit)
        state = net.fabric.truth(*keys, net.now_ns)
        found.append(fidelity(state, 0, 0))
        assert found[-1] > here.goodness - 0.05
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_repeaters_and_a_photon_pair_link_beside_a_station() -> None:
    net = StationNetwork(with_station("metro"))
    assert net.network.neighbours_of("mid") == sorted(
        {end for link in net.network.world.links_through("mid") for end in link.ends}
    )
    works(net, 7)


# --- deaths --------------------------------------------------------------------------------------


def test_a_station_that_dies_takes_its_link_down_and_brings_it_back() -> None:
    net = StationNetwork(with_station())
    apps = both(net, 60)
    net.kill("mid", 100_000_000)
    net.run_until(100_500_000)
    for name in ("alice", "bob"):
        link: Any = net.nodes[name].machines["link"]
        assert link.summary()["links_up"] == []
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [60, 60]  # the circuit came back
    numbers = {m.sequence for m in net.said(Reply) if m.outcome == "success"}
    assert len([n for n in numbers if n < 1000]) > 0
    assert all(n >= 100_000_000 for n in numbers if n >= 1000)  # no number of the former life
    works(net, 8)


def test_a_station_that_stays_away_ends_requests_with_an_error_at_both_ends() -> None:
    net = StationNetwork(with_station())
    apps = both(net, 60, within_ns=20 * 10**9)
    net.kill("mid", 100_000_000, comes_back=False)
    net.settle()
    assert len(failures(apps)) == 2
    assert set(failures(apps)) <= {"PEER_DOWN", "STATION_LOST", "NO_PATH", "TIMEOUT"}
    net.end_everything()
    snapshot = net.fabric.snapshot()
    assert not any(snapshot.qubits.values())
    assert not any(snapshot.batches.values())


def test_a_link_layer_says_that_the_station_was_lost() -> None:
    net = StationNetwork(with_station())
    heard: list[Any] = []
    link: Any = net.nodes["alice"].machines["link"]
    handle = link.handle

    def listening(event: Any, now: int) -> Any:
        heard.append(getattr(event, "message", None))
        return handle(event, now)

    link.handle = listening
    both(net, 60)
    net.kill("mid", 100_000_000)
    net.settle()
    lost = [m for m in heard if isinstance(m, physical.LinkLost)]
    assert [(m.link, m.error) for m in lost] == [("alice-bob", ErrorCode.STATION_LOST.name)]


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_node_that_dies_is_told_of_by_the_station(name: str) -> None:
    net = StationNetwork(with_station())
    both(net, 60)
    net.kill(name, 100_000_000)
    net.settle()
    assert set(net.station().summary()["errors"]) <= {"NO_CLASSICAL_OTHER"}
    works(net, 8)


@pytest.mark.parametrize("at_ns", [100_000_000, 100_050_000, 103_000_000])
@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_node_that_loses_its_station_alone_tells_the_far_end(name: str, at_ns: int) -> None:
    net = StationNetwork(with_station())
    apps = both(net, 60)
    net.run_until(at_ns)
    net.cut(name, "mid")
    net.settle()
    assert len(failures(apps)) == 2
    net.mend(name, "mid")
    net.settle()
    works(net, 8)


def test_a_device_that_goes_is_local_at_both_ends() -> None:
    net = StationNetwork(with_station())
    apps = both(net, 60)
    net.run_until(100_000_000)
    net.lose_device("alice")
    net.settle()
    assert "LOCAL" in net.station().summary()["errors"]
    assert failures(apps) == ["DEVICE_LOST", "DEVICE_LOST"]
    net.return_device("alice")
    net.settle()
    works(net, 8)


@pytest.mark.parametrize("layer", ["physical", "link", "network", "transport"])
def test_a_layer_that_dies_alone_begins_anew_with_the_station(layer: str) -> None:
    split = ('profile = "ion-projected"', 'profile = "ion-projected"\nlayout = "split"')
    net = StationNetwork(with_station("pair", split))
    both(net, 60)
    net.kill_layer("alice", layer, 100_000_000)
    net.settle()
    works(net, 8)


# --- what is lost on its way ---------------------------------------------------------------------


def test_a_herald_that_reaches_one_end_only_is_noticed_and_made_void() -> None:
    """It waited for the deadline of the request, before; now for the patience of the station."""
    net = StationNetwork(with_station())
    lost: list[Reply] = []

    def loses(name: str, peer: str, message: Any) -> bool:
        is_reply = isinstance(message, Reply) and (name, peer) == ("mid", "alice")
        if is_reply and message.outcome == "success" and message.sequence == 3 and not lost:
            lost.append(message)
            return True
        return False

    net.loses = loses
    apps = both(net, 10, within_ns=60 * 10**9)
    net.settle()
    assert len(lost) == 1
    pairs = delivered(apps)
    assert len(pairs[0]) == 10
    assert set(pairs[0]) == set(pairs[1])
    assert net.now_ns < 3 * PATIENCE_NS
    net.loses = lambda *_: False
    works(net, 8)


def test_a_gen_that_is_lost_is_no_classical_other_and_said_again() -> None:
    net = StationNetwork(with_station())
    lost: list[Message] = []

    def loses(name: str, peer: str, message: Message) -> bool:
        if isinstance(message, Gen) and name == "bob" and not lost:
            lost.append(message)
            return True
        return False

    net.loses = loses
    apps = both(net, 5, within_ns=60 * 10**9)
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [5, 5]
    assert net.station().summary()["errors"] == {"NO_CLASSICAL_OTHER": 1}
    works(net, 8)


@pytest.mark.parametrize(
    "error", ["QUEUE_MISMATCH", "NO_CLASSICAL_OTHER", "OUT_OF_WINDOW", "LOCAL"]
)
def test_after_an_error_of_the_station_another_batch_begins(error: Any) -> None:
    net = StationNetwork(with_station())
    told: list[str] = []

    def alters(peer: str, message: Message) -> Message:
        if isinstance(message, Reply) and peer not in told:
            told.append(peer)
            return replace(message, outcome=error, cycle=0, x_bit=0, z_bit=0)
        return message

    net.alters = alters
    apps = both(net, 5, within_ns=60 * 10**9)
    net.settle()
    assert sorted(told) == ["alice", "bob"]
    assert [len(pairs) for pairs in delivered(apps)] == [5, 5]
    assert net.now_ns < 3 * PATIENCE_NS
    works(net, 8)


def test_what_a_station_can_never_do_ends_the_request() -> None:
    net = StationNetwork(with_station())
    net.alters = lambda _, m: replace(m, outcome="GENERAL") if isinstance(m, Reply) else m
    apps = both(net, 5, within_ns=10**9)
    net.settle()
    assert set(failures(apps)) <= {"UNSUPPORTED", "TIMEOUT", "PEER_DOWN"}
    assert len(failures(apps)) == 2
    net.alters = lambda _, message: message
    works(net, 8)


@pytest.mark.parametrize("lie", [{"sequence": 0}, {"cycle": 2**53}, {"batch": 2**53}])
def test_a_station_that_lies_makes_no_pair(lie: dict[str, int]) -> None:
    """A number used before, a cycle still to come, a batch nobody has."""
    net = StationNetwork(with_station())

    def alters(_: str, message: Any) -> Any:
        is_lie = isinstance(message, Reply) and message.outcome == "success" and message.sequence
        return replace(message, **lie) if is_lie else message

    net.alters = alters
    apps = both(net, 5, within_ns=10**8)
    net.settle()
    assert all(len(pairs) <= 1 for pairs in delivered(apps))
    net.alters = lambda _, message: message
    works(net, 8)


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_what_is_not_from_the_station_of_a_link_is_refused(name: str) -> None:
    net = StationNetwork(with_station())
    layer: Any = net.nodes["bob"].machines["physical"]
    reply = Reply(
        link="alice-bob", batch=0, token=None, outcome="ended", sequence=0, cycle=0, x_bit=0,
        z_bit=0, attempts=0, calibration=0,
    )  # fmt: skip
    (record,) = layer.handle(FromPeer(name, reply), net.now_ns)
    assert record.name == "physical.refused"
    (record,) = layer.handle(FromPeer("mid", replace(reply, link="bob-carol")), net.now_ns)
    assert record.name == "physical.refused"
