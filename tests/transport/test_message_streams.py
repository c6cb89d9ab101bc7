"""Message streams: order, exactly once, the window, both directions, closing, lost channels."""

import pytest

from qstack.machine import FromPeer
from qstack.transport import messages, params, service
from tests.transport.world import MS, World, assert_idle

FAR = 10**13  # a deadline nobody reaches


class Pair:
    """A world with an open message stream between alice (its opener) and bob."""

    def __init__(self) -> None:
        self.world = World("alice", "bob")
        self.here, self.there = self.world.session("alice"), self.world.session("bob")
        accept = self.there.accept(self.there.listen(5))
        opened = self.here.stream("message", "bob", 5)
        self.world.run(20 * MS)
        self.out, self.into = self.here.socket(opened), self.there.socket(accept)
        self.stream = self.world.says(messages.OpenStream)[0].stream

    def arrived(self) -> list[bytes]:
        return [each.data for each in self.there.of(service.MessageArrived)]

    def from_alice(self, message: object) -> None:
        self.world.event("bob", FromPeer("alice", message))

    def close(self) -> None:
        self.here.close(self.out)
        self.there.close(self.into)
        self.world.run()
        for node in self.world.nodes.values():
            assert_idle(node.layer)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_messages_arrive_in_order_in_both_directions(pair: Pair) -> None:
    texts = [b"%d" % n for n in range(300)]
    for text in texts:
        pair.here.send(pair.out, text)
        pair.there.send(pair.into, text)
        pair.here.receive(pair.out)
        pair.there.receive(pair.into)
    pair.world.run()
    assert pair.arrived() == texts
    assert [each.data for each in pair.here.of(service.MessageArrived)] == texts
    pair.close()


def test_the_window_holds_a_sender_that_nobody_reads(pair: Pair) -> None:
    sends = [pair.here.send(pair.out, b"") for _ in range(params.MESSAGE_WINDOW + 1)]
    pair.world.run()
    assert all(pair.here.is_finished(call) for call in sends[:-1])
    assert sends[-1] not in pair.here.closings
    for _ in range(params.CREDIT_STEP - 1):
        pair.there.receive(pair.into)
    pair.world.run()
    assert sends[-1] not in pair.here.closings
    pair.there.receive(pair.into)
    pair.world.run()
    assert pair.here.is_finished(sends[-1])


def test_the_longest_message_passes(pair: Pair) -> None:
    data = bytes(service.MESSAGE_BYTES_MAX)
    pair.here.send(pair.out, data)
    pair.there.receive(pair.into)
    pair.world.run()
    assert pair.arrived() == [data]


def test_what_arrived_before_a_close_can_be_taken_after_it(pair: Pair) -> None:
    for text in (b"a", b"b"):
        pair.here.send(pair.out, text)
    pair.here.close(pair.out)
    pair.world.run()
    for _ in range(2):
        pair.there.receive(pair.into)
    assert pair.arrived() == [b"a", b"b"]
    assert pair.there.error(pair.there.receive(pair.into)) == "CLOSED"
    assert pair.there.error(pair.there.send(pair.into, b"c")) == "CLOSED"
    pair.close()


def test_a_close_ends_the_far_ends_open_calls(pair: Pair) -> None:
    waiting = pair.there.receive(pair.into)
    sends = [pair.there.send(pair.into, b"") for _ in range(params.MESSAGE_WINDOW + 2)]
    own = pair.here.receive(pair.out, within_ns=FAR)
    for _ in range(params.MESSAGE_WINDOW):
        pair.world.run(MS)
    pair.here.close(pair.out)
    pair.world.run()
    assert pair.there.error(waiting) == pair.there.error(sends[-1]) == "CLOSED"
    assert own in pair.here.closings
    pair.close()


def test_a_session_that_ends_closes_its_streams_behind_its_messages(pair: Pair) -> None:
    pair.here.send(pair.out, b"last words")
    pair.world.end_session(pair.here)
    pair.world.run()
    pair.there.receive(pair.into)
    assert pair.arrived() == [b"last words"]
    assert pair.there.error(pair.there.receive(pair.into)) == "CLOSED"


@pytest.mark.parametrize("lost_at_us", range(0, 3000, 250))
@pytest.mark.parametrize("closes", [True, False])
def test_the_loss_of_the_channel_at_any_moment_loses_and_doubles_nothing(
    lost_at_us: int, closes: bool
) -> None:
    pair = Pair()
    texts = [b"%d" % n for n in range(30)]
    for text in texts:
        pair.here.send(pair.out, text, within_ns=FAR)
        pair.there.receive(pair.into, within_ns=FAR)
    if closes:
        pair.here.close(pair.out)
    pair.world.run(lost_at_us * 1000)
    pair.world.disconnect("alice", "bob")
    pair.world.run()
    assert pair.arrived() == texts
    if closes:
        assert pair.there.error(pair.there.receive(pair.into)) == "CLOSED"
    pair.close()


def test_a_restarted_peer_ends_the_calls_but_not_what_arrived(pair: Pair) -> None:
    pair.here.send(pair.out, b"a")
    pair.world.run(10 * MS)
    pair.there.receive(pair.into)
    waiting = pair.there.receive(pair.into, within_ns=FAR)
    pair.here.send(pair.out, b"b")
    pair.world.restart("alice")
    pair.world.run()
    assert pair.arrived() == [b"a"]
    assert pair.there.error(waiting) == "PEER_DOWN"
    assert pair.there.error(pair.there.send(pair.into, b"c")) == "PEER_DOWN"


def test_a_receive_without_deadline_ends_with_the_channel(pair: Pair) -> None:
    ends, waits = pair.there.receive(pair.into), pair.there.receive(pair.into, within_ns=FAR)
    pair.world.disconnect("alice", "bob")
    assert pair.there.error(ends) == "PEER_DOWN"
    pair.here.send(pair.out, b"a")
    pair.world.run()
    assert isinstance(pair.there.closings[waits], service.MessageArrived)


def test_a_repeated_message_is_taken_once_and_a_gap_ends_the_stream(pair: Pair) -> None:
    data = messages.Data(stream=pair.stream, sequence=0, data=b"a")
    for _ in range(2):
        pair.world.event("bob", FromPeer("alice", data))
    calls = [pair.there.receive(pair.into) for _ in range(2)]
    assert pair.arrived() == [b"a"]
    pair.from_alice(messages.Data(stream=pair.stream, sequence=2, data=b"c"))
    assert pair.there.error(calls[1]) == "OUT_OF_STATE"


def test_a_message_beyond_the_window_ends_the_stream(pair: Pair) -> None:
    for n in range(params.MESSAGE_WINDOW):
        pair.from_alice(messages.Data(stream=pair.stream, sequence=n, data=b""))
    assert not pair.world.says(messages.Error)
    beyond = messages.Data(stream=pair.stream, sequence=params.MESSAGE_WINDOW, data=b"")
    pair.from_alice(beyond)
    assert [error.name for error in pair.world.says(messages.Error)] == ["OUT_OF_STATE"]
    pair.world.run()


def test_a_peer_that_has_more_than_was_sent_ends_the_stream(pair: Pair) -> None:
    credit = messages.Credit(stream=pair.stream, received=1, allowed=64)
    pair.from_alice(credit)
    assert pair.there.error(pair.there.receive(pair.into)) == "OUT_OF_STATE"


def test_unacknowledged_messages_are_bounded_whatever_the_peer_allows(pair: Pair) -> None:
    credit = messages.Credit(stream=pair.stream, received=0, allowed=10**6)
    pair.from_alice(credit)
    pair.world.blocked.add(frozenset(("alice", "bob")))
    sends = [pair.there.send(pair.into, b"") for _ in range(params.MESSAGES_UNACKNOWLEDGED_MAX + 1)]
    assert [pair.there.is_finished(call) for call in sends[-2:]] == [True, False]


@pytest.mark.parametrize("how", ["deadline", "cancel", "close"])
def test_calls_of_a_stream_can_be_withdrawn(how: str, pair: Pair) -> None:
    span = 5 * MS if how == "deadline" else None
    for _ in range(params.MESSAGE_WINDOW):
        pair.here.send(pair.out, b"")
    calls = [
        pair.here.send(pair.out, b"", within_ns=span),
        pair.here.receive(pair.out, within_ns=span),
    ]
    if how == "cancel":
        for call in calls:
            pair.here.cancel(call)
    elif how == "close":
        pair.here.close(pair.out)
    pair.world.run(6 * MS)
    expected = {"deadline": "TIMEOUT", "cancel": "CANCELLED", "close": "CLOSED"}[how]
    assert [pair.here.error(call) for call in calls] == [expected] * 2
    pair.close()
