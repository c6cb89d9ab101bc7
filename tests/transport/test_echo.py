"""Echo: port 0 reads the far halves, so that anybody can measure a path."""

from collections.abc import Callable
from typing import Any

import pytest

from qstack.machine import FromPeer
from qstack.network import service as network
from qstack.transport import messages, params, service
from tests.transport.world import MS, World, assert_idle


class Ping:
    """A world with an echo socket from alice to bob, where no session is."""

    def __init__(self) -> None:
        self.world = World("alice", "bob")
        self.here = self.world.session("alice")
        self.socket = self.here.epr(0, "bob")

    def pairs(self, number: int) -> list[service.PairDelivered]:
        before = len(self.here.of(service.PairDelivered))
        self.here.create(self.socket, number)
        self.world.run(200 * MS)
        return self.here.of(service.PairDelivered)[before:]

    def ask(self, pair: object, basis: str) -> int:
        return self.here.call(service.EchoMeasure, socket=self.socket, pair=pair, basis=basis)


@pytest.fixture
def ping() -> Ping:
    return Ping()


@pytest.mark.parametrize("basis", ["X", "Y", "Z"])
def test_both_outcomes_of_a_pair_are_those_of_phi_plus(basis: str, ping: Ping) -> None:
    device = ping.world.nodes["alice"].device
    for pair in ping.pairs(20):
        mine = device.read(pair.qubit, basis)
        call = ping.ask(pair.pair, basis)
        ping.world.run(10 * MS)
        assert ping.here.closings[call].outcome ^ mine == (basis == "Y")
    assert not ping.world.held("bob")
    for node in ping.world.nodes.values():
        assert_idle(node.layer)


def test_a_question_that_comes_before_the_half_waits_for_it(ping: Ping) -> None:
    indicate, late = hold_back_tails(ping)
    ping.here.create(ping.socket)
    ping.world.run(10 * MS)
    (pair,) = ping.here.of(service.PairDelivered)
    call = ping.ask(pair.pair, "Z")
    ping.world.run(10 * MS)
    assert call not in ping.here.closings
    indicate(*late[0])
    ping.world.run(200 * MS)
    assert isinstance(ping.here.closings[call], service.EchoResult)


@pytest.mark.parametrize("how", ["fails", "done", "closed"])
def test_a_question_about_a_half_that_never_comes_fails(how: str, ping: Ping) -> None:
    hold_back_tails(ping)
    create = ping.here.create(ping.socket, 50 if how == "closed" else 2)
    ping.world.run(5 * MS)  # the first of them is here
    call = ping.ask(ping.here.of(service.PairDelivered)[0].pair, "Z")
    ping.world.run(5 * MS)
    (request,) = ping.world.network.requests.values()
    if how == "fails":
        ping.world.network.fail(request, "NO_PATH")
    elif how == "done":
        ping.world.network.tell("bob", network.NetworkDone(request=request.create.request))
    else:
        ping.here.cancel(create)
    ping.world.run(10 * MS)
    assert ping.here.error(call) == "EXPIRED"


def hold_back_tails(ping: Ping) -> tuple[Callable[..., None], list[tuple[Any, ...]]]:
    """From now on bob does not learn of his halves, until they are indicated by hand."""
    network, late = ping.world.network, []
    network.skew_ns = (0, 0)
    indicate = network.indicate
    network.indicate = lambda *all_of_it: (
        late.append(all_of_it) if all_of_it[1] else indicate(*all_of_it)
    )
    return indicate, late


@pytest.mark.parametrize("what", ["expire", "restart", "refuse"])
def test_a_half_that_goes_is_void_at_the_far_end(what: str, ping: Ping) -> None:
    (pair,) = ping.pairs(1)
    if what == "expire":
        (request,) = ping.world.network.requests.values()
        expired = network.EndPairExpired(request=request.create.request, pair=pair.pair)
        ping.world.network.tell("bob", expired)
    elif what == "restart":
        ping.world.restart("alice")
        ping.world.connect("alice", "bob")
    else:
        ping.world.nodes["bob"].device.refuse = "GONE"
        assert ping.ask(pair.pair, "X")
    ping.world.run(50 * MS)
    voids = [] if what == "restart" else [pair.pair]
    assert [void.pair for void in ping.here.of(service.PairVoid)] == voids
    if what != "refuse":
        assert not ping.world.held("bob")


@pytest.mark.parametrize("lost_at_us", range(0, 14_000, 900))
def test_the_loss_of_the_channel_at_any_moment_loses_no_pair(lost_at_us: int, ping: Ping) -> None:
    create = ping.here.create(ping.socket, params.ECHO_PAIRS_MAX + 2, within_ns=10**12)
    ping.world.run(lost_at_us * 1000)
    ping.world.disconnect("alice", "bob")
    ping.world.run(1500 * MS)
    for pair in ping.here.of(service.PairDelivered)[:2]:
        ping.ask(pair.pair, "Z")
    ping.world.run(3000 * MS)
    assert ping.here.is_finished(create)
    assert len(ping.here.of(service.EchoResult)) == 2


def test_flows_to_the_echo_port_are_limited_per_peer(ping: Ping) -> None:
    calls = [ping.here.create(ping.socket, 64) for _ in range(params.PENDING_PER_PEER_MAX)]
    ping.world.run(200 * MS)
    assert not any(isinstance(ping.here.closings.get(call), service.Failed) for call in calls)
    calls = [ping.here.create(ping.socket, 64) for _ in range(2)]
    ping.world.run(20 * MS)
    assert ping.here.error(calls[1]) == "NO_RESOURCES"


def test_pairs_beyond_the_limit_are_credited_as_others_are_read(ping: Ping) -> None:
    create = ping.here.create(ping.socket, params.ECHO_PAIRS_MAX + 1)
    ping.world.run(200 * MS)
    assert len(ping.world.held("bob")) == params.ECHO_PAIRS_MAX
    assert create not in ping.here.closings
    ping.ask(ping.here.of(service.PairDelivered)[0].pair, "Z")
    ping.world.run(200 * MS)
    assert ping.here.is_finished(create)


def test_a_half_nobody_asks_about_is_freed_and_the_other_is_void(ping: Ping) -> None:
    (pair,) = ping.pairs(1)
    ping.world.run(params.ECHO_HOLD_NS)
    assert not ping.world.held("bob")
    assert [void.pair for void in ping.here.of(service.PairVoid)] == [pair.pair]
    assert ping.here.error(ping.ask(pair.pair, "Z")) == "BAD_REQUEST"


def test_a_pair_is_read_once_and_only_by_its_session_and_socket(ping: Ping) -> None:
    first, second = ping.pairs(2)
    other = ping.world.session("alice")
    socket = other.epr(0, "bob")
    foreign = other.call(service.EchoMeasure, socket=socket, pair=first.pair, basis="Z")
    assert other.error(foreign) == "BAD_REQUEST"
    wrong = ping.here.epr(5, "bob")
    call = ping.here.call(service.EchoMeasure, socket=wrong, pair=first.pair, basis="Z")
    assert ping.here.error(call) == "BAD_REQUEST"
    ping.ask(first.pair, "Z")
    assert ping.here.error(ping.ask(first.pair, "X")) == "BAD_REQUEST"
    ping.world.run(10 * MS)
    assert ping.here.error(ping.ask(first.pair, "Z")) == "BAD_REQUEST"
    assert second.pair not in {void.pair for void in ping.here.of(service.PairVoid)}


def test_the_echo_port_is_not_accepted_by_sessions_and_does_not_measure(ping: Ping) -> None:
    assert ping.here.error(ping.here.accept_pairs(ping.socket)) == "BAD_REQUEST"
    create = ping.here.create(ping.socket, 1, "X")
    ping.world.run(10 * MS)
    assert ping.here.error(create) == "UNSUPPORTED"


@pytest.mark.parametrize("how", ["expire", "device", "cancel", "close", "restart", "channel"])
def test_a_question_ends_however_its_pair_does(how: str, ping: Ping) -> None:
    (pair,) = ping.pairs(1)
    call = ping.ask(pair.pair, "Z")
    if how == "expire":
        (request,) = ping.world.network.requests.values()
        ping.world.network.expire(request, pair.pair)
    elif how == "device":
        ping.world.lose_device("bob")
    elif how == "cancel":
        ping.here.cancel(call)
    elif how == "close":
        ping.here.close(ping.socket)
    elif how == "restart":
        ping.world.restart("bob")
    else:
        ping.world.disconnect("alice", "bob")
    ping.world.run()
    expected = {"cancel": "CANCELLED", "close": "CLOSED", "expire": "EXPIRED", "device": "EXPIRED"}
    assert ping.here.error(call) == expected.get(how, "PEER_DOWN")
    ping.world.run(params.ECHO_HOLD_NS)
    assert not ping.world.held("bob")
    assert_idle(ping.world.nodes["alice"].layer)


def test_a_session_that_ends_frees_the_far_halves(ping: Ping) -> None:
    ping.pairs(3)
    ping.world.end_session(ping.here)
    ping.world.run(10 * MS)
    assert not ping.world.held("bob")


def test_a_flow_that_is_closed_or_fails_leaves_nothing_behind(ping: Ping) -> None:
    create = ping.here.create(ping.socket, 50)
    ping.world.run(20 * MS)
    ping.here.cancel(create)
    ping.world.run()
    ping.world.network.fails_with = ("NO_PATH", None)
    create = ping.here.create(ping.socket, 50)
    ping.world.run()
    assert ping.here.error(create) == "NO_PATH"
    assert not ping.world.held("bob")
    assert not ping.world.nodes["bob"].layer._echo._open_pairs


def test_a_repeated_question_gets_the_same_answer(ping: Ping) -> None:
    (pair,) = ping.pairs(1)
    ping.ask(pair.pair, "X")
    ping.world.run(10 * MS)
    (question,) = ping.world.says(messages.EchoRequest)
    ping.world.event("bob", FromPeer("alice", question))
    first, second = ping.world.says(messages.EchoReply)
    assert first == second


def test_a_question_about_a_pair_that_never_was_is_answered_void(ping: Ping) -> None:
    (pair,) = ping.pairs(1)
    question = messages.EchoRequest(flow=bytes(16), pair=pair.pair, basis="X")
    ping.world.event("bob", FromPeer("alice", question))
    assert len(ping.world.says(messages.VoidPair)) == 1


def test_two_sessions_measure_the_same_path(ping: Ping) -> None:
    other = ping.world.session("alice")
    create = other.create(other.epr(0, "bob"), 2)
    ping.pairs(2)
    assert other.is_finished(create)
