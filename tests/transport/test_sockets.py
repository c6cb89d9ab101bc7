"""Ports, listeners, opening of streams, bad calls, limits, routes, and what peers may not say."""

from itertools import pairwise
from typing import Any

import pytest

from qstack.ids import CircuitId, LinkPairId, PairId
from qstack.machine import FromPeer, TimerFired, Told
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport import messages, params, service
from tests.transport.world import MS, World, assert_idle


def two() -> tuple[World, object, object]:
    world = World("alice", "bob")
    return world, world.session("alice"), world.session("bob")


@pytest.mark.parametrize("kind", [service.EprOpen, service.Listen])
def test_a_port_of_a_kind_belongs_to_one_session(kind: type) -> None:
    world = World("alice")
    first, second = world.session("alice"), world.session("alice")
    socket = first.socket(first.call(kind, port=5, remote=None))
    assert second.error(second.call(kind, port=5, remote="bob")) == "PORT_IN_USE"
    assert first.error(first.call(kind, port=5, remote=None)) == "PORT_IN_USE"
    first.socket(first.call(kind, port=5, remote="bob"))  # its own session may, for a remote
    other = service.Listen if kind is service.EprOpen else service.EprOpen
    second.socket(second.call(other, port=5, remote=None))  # the other kind is another port
    first.close(socket)
    assert second.error(second.call(kind, port=5, remote=None)) == "PORT_IN_USE"
    world.end_session(first)
    second.socket(second.call(kind, port=5, remote=None))


def test_the_socket_for_the_remote_is_tried_before_the_one_for_anyone() -> None:
    world = World("alice", "bob")
    here, there = world.session("alice"), world.session("bob")
    anyone = there.accept(there.listen(5))
    mine = there.accept(there.listen(5, "alice"))
    here.stream("message", "bob", 5)
    world.run()
    assert isinstance(there.closings.get(mine), service.Accepted)
    assert anyone not in there.closings


@pytest.mark.parametrize("kind", ["qubit", "message"])
@pytest.mark.parametrize("accept_first", [True, False])
def test_a_stream_and_its_accept_meet_in_either_order(kind: str, accept_first: bool) -> None:
    world = World("alice", "bob")
    here, there = world.session("alice"), world.session("bob")
    listener = there.listen(5)
    opening = 0
    if not accept_first:
        opening = here.stream(kind, "bob", 5)
        world.run(100 * MS)
        assert opening not in here.closings
    accept = there.accept(listener)
    if accept_first:
        opening = here.stream(kind, "bob", 5)
    world.run()
    accepted = there.closings[accept]
    assert (accepted.remote, accepted.kind) == ("alice", kind)
    here.close(here.socket(opening))
    there.close(accepted.socket)
    world.run()
    for node in world.nodes.values():
        assert_idle(node.layer)


@pytest.mark.parametrize("how", ["deadline", "cancel", "session"])
@pytest.mark.parametrize("is_accepted", [True, False])
def test_an_opening_can_be_withdrawn(how: str, is_accepted: bool) -> None:
    """Also when the accept is on its way: then the acceptor's stream is closed again."""
    world = World("alice", "bob")
    here, there = world.session("alice"), world.session("bob")
    listener = there.listen(5)
    accept = there.accept(listener) if is_accepted else 0
    opening = here.stream("message", "bob", 5, 3 * MS + 500_000 if how == "deadline" else None)
    world.run(3 * MS + 200_000)
    if how == "cancel":
        here.cancel(opening)
    elif how == "session":
        world.end_session(here)
    world.run()
    if how != "session":
        assert here.error(opening) == {"deadline": "TIMEOUT", "cancel": "CANCELLED"}[how]
    if is_accepted:
        socket = there.socket(accept)
        assert there.error(there.receive(socket)) in {"TIMEOUT", "CANCELLED", "CLOSED"}
        there.close(socket)
    else:
        late = there.accept(listener, within_ns=MS)
        world.run()
        assert there.error(late) == "TIMEOUT"
    for node in world.nodes.values():
        assert_idle(node.layer)


@pytest.mark.parametrize("how", ["deadline", "cancel", "close"])
def test_an_accept_can_be_withdrawn(how: str) -> None:
    world = World("alice")
    here = world.session("alice")
    listener = here.listen(5)
    accept = here.accept(listener, within_ns=MS if how == "deadline" else None)
    if how == "cancel":
        here.cancel(accept)
    elif how == "close":
        here.close(listener)
    world.run()
    expected = {"deadline": "TIMEOUT", "cancel": "CANCELLED", "close": "CLOSED"}
    assert here.error(accept) == expected[how]


def test_an_opening_survives_a_lost_channel_at_any_moment() -> None:
    for lost_at_us in range(0, 6000, 400):
        world = World("alice", "bob")
        here, there = world.session("alice"), world.session("bob")
        accept = there.accept(there.listen(5))
        opening = here.stream("message", "bob", 5, 10**13)
        world.run(lost_at_us * 1000)
        world.disconnect("alice", "bob")
        world.run()
        out, into = here.socket(opening), there.socket(accept)
        here.send(out, b"a")
        there.receive(into)
        world.run()
        assert [each.data for each in there.of(service.MessageArrived)] == [b"a"]


def test_a_peer_that_restarts_ends_an_opening_it_has_heard_of_and_not_one_it_has_not() -> None:
    world = World("alice", "bob")
    here = world.session("alice")
    heard = here.stream("message", "bob", 5, 10**13)
    world.run(10 * MS)
    world.disconnect("alice", "bob", block=True)
    unheard = here.stream("message", "bob", 5, 10**13)
    world.restart("bob")
    world.unblock("alice", "bob")
    there = world.session("bob")
    accept = there.accept(there.listen(5))
    world.run()
    assert here.error(heard) == "PEER_DOWN"
    here.socket(unheard)
    there.socket(accept)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (service.EprOpen, {"port": 5, "remote": "alice"}),
        (service.EprOpen, {"port": 0, "remote": None}),
        (service.Listen, {"port": 0, "remote": None}),
        (service.Listen, {"port": 5, "remote": "alice"}),
        (
            service.StreamOpen,
            {"kind": "qubit", "port": 0, "remote": "bob", "min_fidelity": 0.5, "within_ns": None},
        ),
        (
            service.StreamOpen,
            {"kind": "qubit", "port": 5, "remote": "alice", "min_fidelity": 0.5, "within_ns": None},
        ),
    ],
)
def test_openings_that_make_no_sense_are_bad_requests(
    kind: type, fields: dict[str, object]
) -> None:
    world = World("alice", "bob")
    here = world.session("alice")
    assert here.error(here.call(kind, **fields)) == "BAD_REQUEST"
    assert not world.sent


def test_calls_on_unknown_sockets_are_closed_and_on_wrong_ones_bad() -> None:
    world = World("alice", "bob")
    here = world.session("alice")
    epr, listener = here.epr(5, "bob"), here.listen(5)
    for call in (here.receive(77), here.create(77), here.accept(77)):
        assert here.error(call) == "CLOSED"
    for call in (here.create(listener), here.accept(epr), here.send(epr, b""), here.receive(epr)):
        assert here.error(call) == "BAD_REQUEST"
    here.close(77)  # closing what is not open is nothing
    here.cancel(77)


def test_sockets_of_a_session_are_limited() -> None:
    world = World("alice", "bob")
    here = world.session("alice")
    sockets = [here.listen(port + 1) for port in range(params.SOCKETS_PER_SESSION_MAX)]
    assert here.error(here.call(service.Listen, port=9999, remote=None)) == "NO_RESOURCES"
    here.close(sockets[0])
    assert here.listen(9999) not in sockets  # a socket number is not used twice


def test_a_stream_that_opens_when_the_session_is_full_is_refused_at_both_ends() -> None:
    world = World("alice", "bob")
    here, there = world.session("alice"), world.session("bob")
    opening = here.stream("message", "bob", 5)
    accept = there.accept(there.listen(5))
    for session in (here, there):
        while session.world.nodes[session.node].layer._sockets.has_room(session.name):
            session.listen(1000 + len(session.calls))
    world.run()
    assert there.error(accept) == "NO_RESOURCES"
    second = world.session("bob")
    taken = second.accept(second.listen(6))
    here.cancel(opening)
    for number in (7, 8):
        here.close(number)
    opening = here.stream("message", "bob", 6)
    here.listen(60_000)
    here.listen(60_001)
    world.run()
    assert here.error(opening) == "NO_RESOURCES"
    assert second.error(second.receive(second.socket(taken))) == "NO_RESOURCES"


def test_open_calls_of_a_session_are_limited_and_numbers_are_not_used_twice() -> None:
    world = World("alice", "bob")
    here = world.session("alice")
    listener = here.listen(5)
    calls = [here.accept(listener) for _ in range(params.CALLS_PER_SESSION_MAX)]
    assert not any(call in here.closings for call in calls)
    assert here.error(here.accept(listener)) == "NO_RESOURCES"
    layer = world.nodes["alice"].layer
    again = service.Accept(call=calls[0], socket=listener, within_ns=None)
    (effect,) = layer.handle(Told(here.name, again), world.now)
    assert effect.message.error == "BAD_REQUEST"


def test_streams_nobody_accepts_are_limited_per_peer() -> None:
    world = World("alice", "bob")
    sessions = [world.session("alice") for _ in range(2)]
    calls = [sessions[0].stream("message", "bob", 5) for _ in range(params.PENDING_PER_PEER_MAX)]
    world.run(100 * MS)
    assert not any(call in sessions[0].closings for call in calls)
    one_more = sessions[1].stream("message", "bob", 5)
    world.run(100 * MS)
    assert sessions[1].error(one_more) == "NO_RESOURCES"


def test_routes_are_asked_of_the_network_layer() -> None:
    world = World("alice", "bob")
    here = world.session("alice")
    call = here.call(service.RouteAsk, remote="bob")
    assert here.closings[call].path == ["alice", "bob"]
    options: dict[str, Any] = {"kind": "measure", "min_fidelity": 0.8, "from_remote": True}
    call = here.call(service.RouteAsk, remote="bob", **options)
    assert world.network.asked[-1] == network.RouteQuery(call=2, remote="bob", **options)
    assert here.closings[call] == service.RouteInfo(
        call=call, path=["alice", "bob"], fidelity=0.9, rate_hz=10.0, error_x=0.1, error_z=0.2
    )
    layer = world.nodes["alice"].layer
    late = network.RouteAnswer(call=99, path=[], fidelity=0.0, rate_hz=0.0)
    assert layer.handle(Told("network", late), 0) == []


def test_a_route_question_can_be_withdrawn() -> None:
    world = World("alice", "bob")
    here = world.session("alice")
    layer = world.nodes["alice"].layer
    ask = service.RouteAsk(call=5, remote="bob")
    here.calls[5] = here.calls[6] = ask
    layer.handle(Told(here.name, ask), 0)
    (effect,) = layer.handle(Told(here.name, service.CancelCall(call=5)), 0)
    assert effect.message.error == "CANCELLED"
    layer.handle(Told(here.name, service.RouteAsk(call=6, remote="bob")), 0)
    world.end_session(here)
    assert_idle(layer)


STREAM = b"s" * 16
PAIR = PairId(CircuitId(bytes(16)), 0, LinkPairId(bytes(16)))


@pytest.mark.parametrize(
    "message",
    [
        messages.StreamOpened(stream=STREAM),
        messages.Credit(stream=STREAM, received=0, allowed=0),
        messages.Lost(stream=STREAM, sequence=0, request=0, pair=PAIR),
        messages.Skipped(stream=STREAM, sequence=0, request=0, pair=PAIR),
        messages.RequestsOver(stream=STREAM, below=0),
        messages.Data(stream=STREAM, sequence=0, data=b""),
        messages.OpenStream(stream=STREAM, kind="qubit", port=0, deadline_ns=None),
        messages.OpenFlow(flow=STREAM, port=0, kind="measure", number=1, deadline_ns=None),
    ],
)
def test_messages_about_nothing_are_answered_with_close(message: object) -> None:
    world = World("alice", "bob")
    world.connect("alice", "bob")
    world.event("alice", FromPeer("bob", message))
    assert [close.id for close in world.says(messages.Close)] == [STREAM]
    world.run()
    assert len(world.says(messages.Close)) == 1  # and Close is not answered


def test_messages_out_of_state_are_answered_with_error() -> None:
    world = World("alice", "bob")
    here, there = world.session("alice"), world.session("bob")
    here.stream("qubit", "bob", 5)
    world.run(10 * MS)
    offer = world.says(messages.OpenStream)[0]
    data = messages.Data(stream=offer.stream, sequence=0, data=b"")
    world.event("bob", FromPeer("alice", data))  # not accepted yet
    there.accept(there.listen(5))
    world.run(10 * MS)
    world.event("bob", FromPeer("alice", data))  # not a message stream
    world.event("alice", FromPeer("bob", offer))  # an id of alice's own
    world.event("alice", FromPeer("bob", service.RouteAsk(call=1, remote="bob")))
    names = [error.name for error in world.says(messages.Error)]
    assert names == ["OUT_OF_STATE"] * 3 + ["UNKNOWN_TYPE"]
    world.run()
    assert [record.fields["error"] for record in world.records] == names


def test_a_timer_that_is_not_armed_or_not_due_does_nothing() -> None:
    world = World("alice", "bob")
    here = world.session("alice")
    accept = here.accept(here.listen(5), within_ns=MS)
    (key,) = world.nodes["alice"].timers
    layer = world.nodes["alice"].layer
    assert layer.handle(TimerFired("nothing"), 0) == []
    assert layer.handle(TimerFired(key), MS - 1) == []
    world.run()
    assert here.error(accept) == "TIMEOUT"


@pytest.mark.parametrize("source", ["network", "physical", "app/1"])
def test_a_message_of_the_wrong_layer_is_recorded_and_nothing_more(source: str) -> None:
    layer = World("alice").nodes["alice"].layer
    message = messages.StreamOpened(stream=STREAM)
    (effect,) = layer.handle(Told(source, message), 0)
    assert effect.name == "transport.unknown_message"


def test_answers_nobody_waits_for_are_ignored() -> None:
    layer = World("alice").nodes["alice"].layer
    assert layer.handle(Told("physical", physical.Measured(call=9, outcome=1)), 0) == []
    assert layer.handle(Told("network", network.NetworkDone(request=STREAM)), 0) == []


def test_a_lost_channel_nobody_needs_is_not_asked_for_again() -> None:
    world = World("alice", "bob")
    world.connect("alice", "bob")
    world.disconnect("alice", "bob")
    world.run()
    assert not world.up


def test_a_channel_that_is_needed_is_asked_for_at_growing_intervals() -> None:
    world = World("alice", "bob")
    world.blocked.add(frozenset(("alice", "bob")))
    here = world.session("alice")
    asked: list[int] = []
    opened = world._opened
    world._opened = lambda *ends: (asked.append(world.now), opened(*ends))
    opening = here.stream("message", "bob", 5, 10**13)
    world.run(10**12)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= params.REOPEN_NS
    assert gaps[-1] <= params.REOPEN_NS_MAX + 10 * MS
    world.unblock("alice", "bob")
    there = world.session("bob")
    there.accept(there.listen(5))
    world.run(10**12)
    here.socket(opening)
