"""Who holds a half at the echo port gives it up as soon as nobody can ask about it any more."""

from typing import Any

import pytest
from msgspec.structs import replace

from qstack.machine import FromPeer
from qstack.transport import messages, service
from tests.transport.test_echo import Ping, hold_back_tails
from tests.transport.world import MS


@pytest.fixture
def ping() -> Ping:
    return Ping()


def voided(ping: Ping) -> list[Any]:
    return [void.pair for void in ping.here.of(service.PairVoid)]


def assert_nothing_at_bob(ping: Ping) -> None:
    assert not ping.world.held("bob")
    echo = ping.world.nodes["bob"].layer._echo
    assert not echo._open_pairs
    assert not echo._flows


@pytest.mark.parametrize("freed_first", [False, True])
def test_a_session_that_ends_between_its_reading_and_its_question(
    freed_first: bool, ping: Ping
) -> None:
    read, unread = ping.pairs(2)
    ping.world.nodes["alice"].device.read(read.qubit, "Z")
    ping.world.end_session(ping.here, freed_first=freed_first)
    ping.world.run(10 * MS)
    assert_nothing_at_bob(ping)
    voids = [message.pair for message in ping.world.says(messages.VoidPair)]
    assert sorted(voids) == sorted([read.pair, unread.pair])


def test_an_opener_that_loses_its_device_after_its_reading(ping: Ping) -> None:
    (pair,) = ping.pairs(1)
    ping.world.nodes["alice"].device.read(pair.qubit, "Z")
    ping.world.lose_device("alice")
    ping.world.run(10 * MS)
    assert_nothing_at_bob(ping)


def test_a_session_that_closes_its_last_socket_to_the_echo_port(ping: Ping) -> None:
    other = ping.here.epr(0, "bob")
    elsewhere = ping.here.epr(7, "bob")
    (pair,) = ping.pairs(1)
    for socket in (elsewhere, ping.socket):
        ping.here.close(socket)
    ping.world.run(10 * MS)
    assert ping.world.held("bob")
    assert not voided(ping)
    ping.here.close(other)
    ping.world.run(10 * MS)
    assert_nothing_at_bob(ping)
    assert voided(ping) == [pair.pair]


def test_a_session_that_ends_before_the_far_half_has_come(ping: Ping) -> None:
    indicate, late = hold_back_tails(ping)
    ping.here.create(ping.socket, 2)
    ping.world.run(10 * MS)
    (first, _) = ping.here.of(service.PairDelivered)
    ping.ask(first.pair, "Z")
    ping.world.run(10 * MS)
    ping.world.end_session(ping.here)
    ping.world.run(10 * MS)
    for each in late:
        indicate(*each)
    ping.world.run(10 * MS)
    assert not ping.world.says(messages.EchoReply)
    assert_nothing_at_bob(ping)


def hold_back_heads(ping: Ping, delivered: int) -> None:
    """From the next pairs on, alice learns of so many; of the others only bob does."""
    network = ping.world.network
    network.skew_ns = (0, 0)
    indicate = network.indicate
    left = [None] * delivered

    def some(request: Any, end: int, *others: Any) -> None:
        if end:
            indicate(request, end, *others)
        elif left:
            left.pop()
            indicate(request, end, *others)

    network.indicate = some


@pytest.mark.parametrize("delivered", [0, 1])
@pytest.mark.parametrize("is_up", [True, False])
def test_pairs_of_a_flow_that_fails_which_its_opener_never_had(
    is_up: bool, delivered: int, ping: Ping
) -> None:
    hold_back_heads(ping, delivered)
    ping.world.network.fail = lambda *_: None  # nobody can tell
    create = ping.here.create(ping.socket, 3)
    ping.world.run(10 * MS)
    assert len(ping.world.held("bob")) == 3
    if not is_up:
        ping.world.disconnect("alice", "bob", block=True)
    ping.here.cancel(create)
    ping.world.run(10 * MS)
    if not is_up:
        assert len(ping.world.held("bob")) == 3
        ping.world.unblock("alice", "bob")
        ping.world.connect("alice", "bob")
        ping.world.run(10 * MS)
    assert len(ping.world.held("bob")) == delivered
    for pair in ping.here.of(service.PairDelivered):
        ping.ask(pair.pair, "Z")
    ping.world.run(10 * MS)
    assert len(ping.here.of(service.EchoResult)) == delivered
    assert_nothing_at_bob(ping)


def test_a_flow_that_was_never_said_is_not_closed_later(ping: Ping) -> None:
    ping.world.disconnect("alice", "bob", block=True)
    create = ping.here.create(ping.socket, 1)
    ping.here.cancel(create)
    ping.world.unblock("alice", "bob")
    ping.world.connect("alice", "bob")
    ping.world.run(10 * MS)
    assert not ping.world.says(messages.Close)


def test_what_is_said_of_flows_and_pairs_that_are_not_there_changes_nothing(ping: Ping) -> None:
    (pair,) = ping.pairs(1)
    for message in (
        messages.KeptPairs(flow=bytes(16), pairs=[pair.pair]),
        messages.VoidPair(pair=replace(pair.pair, epoch=9)),
    ):
        ping.world.event("bob", FromPeer("alice", message))
        ping.world.event("bob", FromPeer("mallory", message))
    ping.world.event("bob", FromPeer("mallory", messages.VoidPair(pair=pair.pair)))
    assert len(ping.world.held("bob")) == 1
    ping.ask(pair.pair, "Z")
    ping.world.run(10 * MS)
    assert len(ping.here.of(service.EchoResult)) == 1
