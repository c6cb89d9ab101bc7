"""Random work and random deaths in networks with a named station, and lies between its nodes."""

from random import Random

import pytest
from msgspec.structs import replace

from qstack.errors import PeerError
from qstack.physical import station_messages
from qstack.runtime.network_file import parse_network
from qstack.runtime.peers import STATION_REGISTRY
from qstack.wire.codec import encode
from qstack.wire.frame import Frame
from qstack.wire.message import Message
from tests.fuzz.mutator import mutated
from tests.runtime import swarm
from tests.runtime.scripts import SECOND, WatchedNetwork
from tests.runtime.swarm import start_work
from tests.runtime.test_stations import StationNetwork, both, delivered, with_station
from tests.runtime.test_stations_measured import drifting_network, through_mid


def make(name: str, seed: int) -> WatchedNetwork:
    return WatchedNetwork(parse_network(with_station(name), where=name), seed)


def make_split(name: str, seed: int) -> WatchedNetwork:
    return WatchedNetwork(swarm.split(parse_network(with_station(name), where=name)), seed)


@pytest.mark.parametrize("first", [0, 4])
def test_random_deaths_leave_nothing_and_nobody_waiting(first: int) -> None:
    for seed in range(first, first + 4):
        swarm.run(seed, make)


@pytest.mark.parametrize("first", [100, 104])
def test_devices_detectors_and_channels_come_and_go(first: int) -> None:
    for seed in range(first, first + 4):
        swarm.run_with_broken_parts(seed, make)


@pytest.mark.parametrize("first", [200, 203])
def test_layers_die_alone_beside_a_station(first: int) -> None:
    for seed in range(first, first + 3):
        swarm.run_with_dying_layers(seed, make=make_split)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 1400, 40))
def test_many_random_faults(first: int) -> None:
    for seed in range(first, first + 40):
        swarm.run(seed, make)
        swarm.run_with_broken_parts(seed, make)
        swarm.run_with_dying_layers(seed, make=make_split)


class Liar:
    """Changes what nodes and their station say to each other."""

    def __init__(self, rng: Random, lies: float) -> None:
        self.rng = rng
        self.lies = lies
        self.told = 0
        self.older: list[Message] = []

    def __call__(self, _peer: str, message: Message) -> Message:
        if not isinstance(message, station_messages.MESSAGES):
            return message
        self.older = [*self.older[-50:], message]
        if self.rng.random() >= self.lies:
            return message
        message = self.rng.choice(self.older)
        frame = encode(message)
        body = mutated(self.rng, [frame.body], times_max=2)
        try:
            lie = STATION_REGISTRY.decode(Frame(frame.layer, frame.type, body))
        except PeerError:
            names = ("batch", "sequence", "cycle", "first_cycle", "calibration", "until_ns")
            fields = [name for name in names if hasattr(message, name)]
            odd = self.rng.choice([0, 1, 2**32, 2**53 - 1])
            lie = replace(message, **{self.rng.choice(fields): odd})
        assert lie is not None
        self.told += 1
        return lie


@pytest.mark.parametrize("seed", range(6))
def test_whatever_stations_and_nodes_say_no_machine_raises_and_all_ends(seed: int) -> None:
    """A third are lies; then the truth is told, and channels begin anew: it works again."""
    rng = Random(seed)
    texts = [with_station("pair"), with_station("metro"), through_mid(drifting_network())]
    net = StationNetwork(texts[seed % 3], seed)
    liar = net.alters = Liar(rng, 0.3)
    for port in range(1, 4):
        start_work(net, rng, port)
    both(net, 50, 5, basis="X", within_ns=SECOND)
    end_ns = net.now_ns + 3 * SECOND
    for _ in range(6000):
        if not net._is_wanted or not net._advance(end_ns):
            break
    assert liar.told
    net.alters = lambda _, message: message
    for app in net.apps:
        app.end()
    for end in net.network.neighbours_of("mid"):
        net.cut(end, "mid")
        net.mend(end, "mid")
    net.settle()
    apps = both(net, 3, 9, within_ns=20 * SECOND)
    net.settle()
    assert [len(pairs) for pairs in delivered(apps)] == [3, 3]
    net.check_calls()
    net.end_everything()
    net.check_empty()
