"""Qubit streams: teleportation in order, credits, and the exact fate of every qubit."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from qstack.ids import CircuitId, LinkPairId, PairId
from qstack.machine import FromPeer
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport import messages, params, service
from tests.transport.qubit_stream import Pair
from tests.transport.world import MS, assert_idle

OTHER = PairId(CircuitId(bytes(16)), 7, LinkPairId(bytes(16)))
"""A pair nobody made."""


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_qubits_arrive_in_order_and_in_their_state(pair: Pair) -> None:
    pair.world.network.skew_ns = (0, 30 * MS)  # pairs of different requests overtake each other
    receives = [pair.there.receive_qubit(pair.into) for _ in range(20)]
    sends = [pair.here.send_qubit(pair.out, f"q{n}") for n in range(20)]
    pair.world.run()
    pair.expect_arrived([f"q{n}" for n in range(20)])
    assert all(pair.here.is_finished(call) for call in sends)
    assert list(pair.there.closings)[-20:] == receives
    pair.close()


@pytest.mark.parametrize("tail_first", [True, False])
def test_correction_and_half_may_come_in_either_order(tail_first: bool) -> None:
    pair = Pair()
    network = pair.world.network
    network.skew_ns, network.tail_first = (0, 20 * MS), True
    if not tail_first:
        network.tail_first = False
        network.skew_ns = (0, 0)
        pair.world.delay_ns = 1
    pair.there.receive_qubit(pair.into)
    pair.here.send_qubit(pair.out, "q")
    pair.world.run()
    pair.expect_arrived(["q"])


def test_a_correction_that_comes_before_the_half_waits_for_it(pair: Pair) -> None:
    network = pair.world.network
    network.is_manual = True
    pair.there.receive_qubit(pair.into)
    send = pair.here.send_qubit(pair.out, "q")
    pair.world.run(10 * MS)
    (request,) = network.requests.values()
    network.skew_ns = (0, 0)
    indicate, late = network.indicate, []
    network.indicate = lambda *all_of_it: (
        late.append(all_of_it) if all_of_it[1] else indicate(*all_of_it)
    )
    network.make(request)
    pair.world.run(500 * MS)
    corrections = pair.world.says(messages.Correction)
    assert 1 < len(corrections) < 10  # repeated, at growing intervals
    assert send not in pair.here.closings
    indicate(*late[0])
    pair.world.run()
    pair.expect_arrived(["q"])
    assert pair.here.is_finished(send)
    pair.close()


def test_credits_are_the_open_receives_and_no_pair_is_made_without_one(pair: Pair) -> None:
    sends = [pair.here.send_qubit(pair.out, f"q{n}") for n in range(5)]
    pair.world.run(100 * MS)
    assert not pair.world.network.created
    for _ in range(2):
        pair.there.receive_qubit(pair.into)
    pair.world.run(100 * MS)
    assert sum(create.number for create in pair.world.network.created) == 2
    assert [pair.here.is_finished(call) for call in sends] == [True, True, False, False, False]
    pair.expect_arrived(["q0", "q1"])
    pair.close()
    assert [pair.here.error(call) for call in sends[2:]] == ["CLOSED"] * 3
    assert len(pair.world.nodes["alice"].device.owned_by(pair.here.name)) == 3


def test_credit_of_a_cancelled_receive_serves_the_next_one(pair: Pair) -> None:
    cancelled = pair.there.receive_qubit(pair.into)
    pair.there.cancel(cancelled)
    pair.here.send_qubit(pair.out, "q")
    pair.world.run()
    assert pair.there.error(cancelled) == "CANCELLED"
    assert len(pair.world.held("bob")) == 1
    pair.there.receive_qubit(pair.into)
    pair.world.run()
    pair.expect_arrived(["q"])
    assert max(credit.allowed for credit in pair.world.says(messages.Credit)) == 1


@pytest.mark.parametrize("how", ["deadline", "cancel", "network"])
def test_before_the_measurement_every_failure_gives_the_qubit_back(how: str, pair: Pair) -> None:
    network = pair.world.network
    network.is_manual = True
    if how == "network":
        network.fails_with = ("NO_PATH", None)
    receive = pair.there.receive_qubit(pair.into)
    span = 20 * MS if how == "deadline" else None
    send = pair.here.send_qubit(pair.out, "first", within_ns=span)
    pair.world.run(10 * MS)
    if how == "cancel":
        pair.here.cancel(send)
    pair.world.run()
    expected = {"deadline": "TIMEOUT", "cancel": "CANCELLED", "network": "NO_PATH"}[how]
    assert pair.here.error(send) == expected
    (qubit,) = pair.world.nodes["alice"].device.owned_by(pair.here.name)
    assert pair.world.half(pair.here, qubit).payload == "first"
    # The receiver has lost nothing: it waits on, with another credit.
    assert receive not in pair.there.closings
    network.is_manual, network.fails_with = False, None
    pair.here.send_qubit(pair.out, "second")
    pair.world.run()
    pair.expect_arrived(["second"])
    assert pair.there.of(service.QubitArrived)[0].sequence == 0
    pair.close()


@pytest.mark.parametrize("error", ["NOT_OWNER", "GONE"])
def test_a_refused_bell_measurement_is_told_and_consumes_nothing(error: str, pair: Pair) -> None:
    pair.world.nodes["alice"].device.refuse = error
    receive = pair.there.receive_qubit(pair.into)
    send = pair.here.send_qubit(pair.out, "q")
    pair.world.run()
    assert pair.here.error(send) == error
    assert receive not in pair.there.closings
    assert not pair.world.held("alice")
    assert not pair.world.held("bob")


def run_until(pair: Pair, is_so: Callable[[], bool]) -> None:
    """Let time pass in steps shorter than a Bell measurement."""
    for _ in range(100_000):
        if is_so():
            return
        pair.world.run(500)
    raise AssertionError("it did not happen within 50 ms")


def measured(pair: Pair, *, within_ns: int | None = None) -> tuple[int, int]:
    """A qubit that has just been Bell-measured, its correction on the way; half is at bob's."""
    network = pair.world.network
    network.skew_ns, network.tail_first = (0, 2 * MS), True
    receive = pair.there.receive_qubit(pair.into, within_ns=10**13)
    send = pair.here.send_qubit(pair.out, "q", within_ns=within_ns)
    run_until(pair, lambda: bool(pair.world.says(messages.Correction)))
    return send, receive


def test_loss_of_the_channel_after_the_measurement_delays_but_loses_nothing(pair: Pair) -> None:
    send, _ = measured(pair, within_ns=10**13)
    pair.world.disconnect("alice", "bob", block=True)
    pair.world.run(200 * MS)
    pair.world.unblock("alice", "bob")
    pair.world.run()
    pair.expect_arrived(["q"])
    assert pair.here.is_finished(send)
    pair.close()


def test_a_lost_acknowledgement_is_said_again_and_delivers_once(pair: Pair) -> None:
    send, receive = measured(pair, within_ns=10**13)
    run_until(pair, lambda: receive in pair.there.closings)
    pair.world.disconnect("alice", "bob")
    assert send not in pair.here.closings
    pair.world.run()
    assert pair.here.is_finished(send)
    pair.expect_arrived(["q"])


def test_a_repeated_correction_is_acknowledged_again_and_changes_nothing(pair: Pair) -> None:
    measured(pair)
    pair.world.run()
    (correction,) = pair.world.says(messages.Correction)
    before = len(pair.world.says(messages.Acknowledged))
    pair.world.event("bob", FromPeer("alice", correction))
    assert [a.is_lost for a in pair.world.says(messages.Acknowledged)[before:]] == [False]
    pair.expect_arrived(["q"])
    pair.there.close(pair.into)  # and even when the stream is closed
    pair.world.event("bob", FromPeer("alice", correction))
    assert pair.world.says(messages.Acknowledged)[-1].is_lost is False


def test_the_sender_learns_lost_when_the_receiver_restarts_after_the_measurement(
    pair: Pair,
) -> None:
    send, _ = measured(pair, within_ns=10**13)
    pair.world.restart("bob")
    pair.world.run()
    assert pair.here.error(send) == "LOST"
    assert not pair.world.held("alice")


def test_the_receiver_learns_of_a_sender_that_restarts_between_measurement_and_correction(
    pair: Pair,
) -> None:
    _, receive = measured(pair)
    pair.world.restart("alice")
    pair.world.event("bob", FromPeer("alice", messages.VoidPair(pair=first_pair(pair))))
    pair.world.connect("alice", "bob")
    pair.world.run()
    assert pair.there.error(receive) == "PEER_DOWN"
    assert not pair.world.held("bob")


def first_pair(pair: Pair) -> object:
    (request,) = pair.world.network.requests.values()
    return next(iter(request.told[0] | request.told[1]))


def test_a_pair_expired_in_flight_is_lost_at_both_ends(pair: Pair) -> None:
    send, receive = measured(pair)
    (request,) = pair.world.network.requests.values()
    pair.world.network.expire(request, first_pair(pair))
    pair.world.run()
    assert pair.here.error(send) == "LOST"
    assert pair.there.error(receive) == "LOST"
    assert not pair.world.held("bob")
    pair.close()


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_call_withdrawn_after_the_measurement_ends_with_what_the_receiver_says(how: str) -> None:
    """Lost overtakes nothing: here the receiver has the qubit already, so it is Finished."""
    pair = Pair()
    send, receive = measured(pair, within_ns=5 * MS if how == "deadline" else None)
    if how == "cancel":
        pair.here.cancel(send)
    pair.world.run()
    assert pair.here.is_finished(send)
    assert isinstance(pair.there.closings[receive], service.QubitArrived)


def test_a_call_withdrawn_before_the_half_has_come_is_lost_at_both_ends(pair: Pair) -> None:
    network = pair.world.network
    network.is_manual, network.skew_ns = True, (0, 0)
    receive = pair.there.receive_qubit(pair.into)
    send = pair.here.send_qubit(pair.out, "q")
    pair.world.run(10 * MS)
    indicate, late = network.indicate, []
    network.indicate = lambda *all_of_it: (
        late.append(all_of_it) if all_of_it[1] else indicate(*all_of_it)
    )
    (request,) = network.requests.values()
    network.make(request)
    pair.world.run(10 * MS)
    pair.here.cancel(send)
    pair.world.run(10 * MS)
    assert pair.here.error(send) == pair.there.error(receive) == "LOST"
    indicate(*late[0])
    pair.world.run()
    assert not pair.world.held("bob")
    pair.close()


def test_a_cancel_during_the_measurement_is_lost_or_finished_never_both(pair: Pair) -> None:
    pair.world.network.skew_ns = (0, 0)
    receive = pair.there.receive_qubit(pair.into)
    send = pair.here.send_qubit(pair.out, "q")
    device = pair.world.nodes["alice"].device
    run_until(pair, lambda: not device.owned_by("transport"))  # the Bell measurement is asked for
    pair.here.cancel(send)
    pair.world.run()
    assert pair.here.error(send) == pair.there.error(receive) == "LOST"
    pair.close()


def test_without_a_deadline_a_lost_channel_ends_a_consumed_qubit_as_lost(pair: Pair) -> None:
    send, receive = measured(pair)
    pair.world.disconnect("alice", "bob", block=True)
    assert pair.here.error(send) == "LOST"
    pair.world.unblock("alice", "bob")
    pair.world.run()
    assert pair.there.error(receive) == "LOST"


def test_a_lost_device_gives_device_lost_before_and_lost_during_the_measurement(
    pair: Pair,
) -> None:
    pair.world.network.skew_ns = (0, 0)
    receives = [pair.there.receive_qubit(pair.into) for _ in range(2)]
    during = pair.here.send_qubit(pair.out, "q")
    device = pair.world.nodes["alice"].device
    run_until(pair, lambda: not device.owned_by("transport"))
    pair.world.network.is_manual = True
    before = pair.here.send_qubit(pair.out, "p")
    queued = pair.here.send_qubit(pair.out, "r")
    pair.world.lose_device("alice")
    pair.world.run()
    assert pair.here.error(during) == "LOST"
    assert pair.here.error(before) == pair.here.error(queued) == "DEVICE_LOST"
    assert pair.there.error(receives[0]) == "LOST"
    assert receives[1] not in pair.there.closings
    pair.close()


def test_a_qubit_measured_before_the_device_was_lost_still_arrives(pair: Pair) -> None:
    send, _ = measured(pair)
    pair.world.lose_device("alice")
    pair.world.run()
    assert pair.here.is_finished(send)
    pair.expect_arrived(["q"])


def test_the_receivers_lost_device_loses_its_half_and_ends_its_call(pair: Pair) -> None:
    send, receive = measured(pair)
    pair.world.lose_device("bob")
    pair.world.run()
    assert pair.there.error(receive) == "DEVICE_LOST"
    assert pair.here.error(send) == "LOST"
    again = pair.there.receive_qubit(pair.into)
    pair.world.run()
    assert pair.there.error(again) == "LOST"


def test_an_untaken_qubit_that_goes_with_the_device_is_lost_to_the_next_receive(
    pair: Pair,
) -> None:
    cancelled = pair.there.receive_qubit(pair.into)
    pair.there.cancel(cancelled)
    pair.here.send_qubit(pair.out, "q")
    pair.world.run()
    pair.world.lose_device("bob")
    again = pair.there.receive_qubit(pair.into)
    assert pair.there.error(again) == "LOST"


def test_a_sender_that_closes_still_delivers_what_it_has_measured(pair: Pair) -> None:
    send, _ = measured(pair)
    waiting = pair.here.send_qubit(pair.out, "later")
    pair.here.close(pair.out)
    assert pair.here.error(waiting) == "CLOSED"
    pair.world.run()
    assert pair.here.is_finished(send)
    pair.expect_arrived(["q"])
    assert pair.there.error(pair.there.receive_qubit(pair.into)) == "CLOSED"
    pair.close()


def test_a_sender_whose_session_ends_still_delivers_and_frees_the_rest(pair: Pair) -> None:
    measured(pair)
    pair.here.send_qubit(pair.out, "later")
    pair.world.end_session(pair.here)
    pair.world.run()
    pair.expect_arrived(["q"])
    assert not pair.world.held("alice")
    assert_idle(pair.world.nodes["alice"].layer)


@pytest.mark.parametrize("how", ["close", "session"])
def test_a_receiver_that_goes_ends_the_senders_calls_exactly(how: str, pair: Pair) -> None:
    pair.there.receive_qubit(pair.into)
    send, _ = measured(pair)
    waiting = pair.here.send_qubit(pair.out, "later")
    if how == "close":
        pair.there.close(pair.into)
    else:
        pair.world.end_session(pair.there)
    pair.world.run()
    assert pair.here.error(send) == "LOST"
    assert pair.here.error(waiting) == "CLOSED"
    (back,) = pair.world.nodes["alice"].device.owned_by(pair.here.name)
    assert pair.world.half(pair.here, back).payload == "later"
    assert pair.here.error(pair.here.send_qubit(pair.out, "after")) == "CLOSED"
    assert len(pair.world.nodes["alice"].device.owned_by(pair.here.name)) == 2
    assert not pair.world.held("bob")


def test_a_qubit_the_layer_holds_for_something_else_cannot_be_sent(pair: Pair) -> None:
    first = pair.here.send_qubit(pair.out, "q")
    qubit = pair.here.calls[first].qubit
    again = pair.here.call(service.SendQubit, socket=pair.out, qubit=qubit, within_ns=None)
    assert pair.here.error(again) == "NOT_OWNER"
    assert first not in pair.here.closings


@pytest.mark.parametrize("wrong", ["socket", "kind"])
def test_a_qubit_sent_to_a_wrong_socket_comes_back(wrong: str, pair: Pair) -> None:
    socket = 99 if wrong == "socket" else pair.here.epr(9, None)
    send = pair.here.send_qubit(socket, "q")
    assert pair.here.error(send) == ("CLOSED" if wrong == "socket" else "BAD_REQUEST")
    assert len(pair.world.nodes["alice"].device.owned_by(pair.here.name)) == 1


def test_a_refused_call_gives_its_qubit_back_too(pair: Pair) -> None:
    for n in range(params.CALLS_PER_SESSION_MAX):
        pair.here.send_qubit(pair.out, str(n))
    one_more = pair.here.send_qubit(pair.out, "one more")
    assert pair.here.error(one_more) == "NO_RESOURCES"
    (back,) = pair.world.nodes["alice"].device.owned_by(pair.here.name)
    assert pair.world.half(pair.here, back).payload == "one more"


def test_a_sequence_that_was_not_allowed_ends_the_stream(pair: Pair) -> None:
    stream = pair.world.says(messages.OpenStream)[0].stream
    receive = pair.there.receive_qubit(pair.into)
    lost = messages.Lost(stream=stream, sequence=3, request=0, pair=OTHER)
    pair.world.event("bob", FromPeer("alice", lost))
    assert pair.there.error(receive) == "OUT_OF_STATE"


def test_sixty_four_outstanding_qubits_cost_no_more_each_than_one() -> None:
    """Counted in effects of the machines, which does not depend on the computer."""

    def effects_per_qubit(outstanding: int, qubits: int = 256) -> float:
        pair = Pair()
        made = 0
        apply = pair.world._apply

        def counting(node: str, effect: object) -> None:
            nonlocal made
            made += 1
            apply(node, effect)

        pair.world._apply = counting
        for start in range(0, qubits, outstanding):
            for n in range(outstanding):
                pair.there.receive_qubit(pair.into)
                pair.here.send_qubit(pair.out, str(start + n))
            pair.world.run(100 * MS)
        pair.expect_arrived([str(n) for n in range(qubits)])
        return made / qubits

    assert effects_per_qubit(64) <= 1.2 * effects_per_qubit(1)


def test_a_correction_is_one_gate_before_the_transfer(pair: Pair) -> None:
    seen: list[str] = []
    device = pair.world.nodes["bob"].device
    on_message = device.on_message

    def watching(message: object) -> None:
        if isinstance(message, physical.ApplyGate):
            seen.append(message.name)
        elif isinstance(message, physical.Transfer):
            seen.append("transfer")
        on_message(message)

    device.on_message = watching
    for n in range(20):
        pair.there.receive_qubit(pair.into)
        pair.here.send_qubit(pair.out, str(n))
        pair.world.run(100 * MS)
    whole = " ".join(seen)
    assert {"y transfer", "x transfer", "z transfer"} <= {
        part.strip() + " transfer" for part in whole.split("transfer")
    }


def forged(pair: Pair, sequence: int, request: int) -> messages.Correction:
    """A Correction that names a pair nobody made."""
    stream = pair.world.says(messages.OpenStream)[0].stream
    return messages.Correction(
        stream=stream, sequence=sequence, request=request, pair=OTHER, x_bit=1, z_bit=1
    )


@pytest.mark.parametrize("tail_first", [True, False])
def test_a_correction_for_another_pair_than_the_half_here_is_lost(tail_first: bool) -> None:
    """Identity, never place: it is not applied to whatever half happens to be there."""
    pair = Pair()
    pair.world.network.skew_ns, pair.world.network.tail_first = (0, 20 * MS), True
    receive = pair.there.receive_qubit(pair.into)
    send = pair.here.send_qubit(pair.out, "q")
    if tail_first:
        run_until(pair, lambda: bool(pair.world.held("bob")))
    else:
        run_until(pair, lambda: bool(pair.world.network.requests))
    pair.world.event("bob", FromPeer("alice", forged(pair, 0, 0)))
    pair.world.run()
    assert pair.there.error(receive) == pair.here.error(send) == "LOST"
    assert not pair.world.held("bob")
    pair.close()


def test_a_sequence_skipped_after_its_correction_ends_the_stream(pair: Pair) -> None:
    pair.there.receive_qubit(pair.into)
    correction = forged(pair, 0, 0)
    pair.world.event("bob", FromPeer("alice", correction))
    skipped = messages.Skipped(stream=correction.stream, sequence=0, request=0, pair=OTHER)
    pair.world.event("bob", FromPeer("alice", skipped))
    assert [error.name for error in pair.world.says(messages.Error)] == ["OUT_OF_STATE"]


@pytest.mark.parametrize(
    "message",
    [
        messages.RequestsOver(stream=bytes(16), below=params.STREAM_REQUESTS_MAX + 1),
        messages.Lost(stream=bytes(16), sequence=0, request=1000, pair=OTHER),
    ],
)
def test_requests_that_cannot_be_end_the_stream(message: Any, pair: Pair) -> None:
    receive = pair.there.receive_qubit(pair.into)
    message = replace(message, stream=pair.world.says(messages.OpenStream)[0].stream)
    pair.world.event("bob", FromPeer("alice", message))
    assert pair.there.error(receive) == "OUT_OF_STATE"
    assert [error.about for error in pair.world.says(messages.Error)] == [message.TYPE]


def test_a_request_that_is_done_without_a_pair_is_an_expired_one(pair: Pair) -> None:
    pair.world.network.is_manual = True
    receive = pair.there.receive_qubit(pair.into)
    send = pair.here.send_qubit(pair.out, "q")
    pair.world.run(10 * MS)
    (request,) = pair.world.network.requests
    for name in ("bob", "alice"):
        pair.world.network.tell(name, network.NetworkDone(request=request))
    pair.world.run()
    assert pair.here.error(send) == "EXPIRED"
    assert receive not in pair.there.closings
    pair.close()


def test_more_qubits_allowed_ahead_than_the_limit_end_the_stream(pair: Pair) -> None:
    stream = pair.world.says(messages.OpenStream)[0].stream

    def allow(stop: int) -> None:
        credit = messages.Credit(stream=stream, received=0, allowed=stop)
        pair.world.event("alice", FromPeer("bob", credit))

    allow(params.CREDITS_OPEN_MAX)
    assert not pair.world.says(messages.Error)
    allow(params.CREDITS_OPEN_MAX + 1)
    assert len(pair.world.says(messages.Error)) == 1


def test_a_skip_said_into_a_lost_channel_is_said_again(pair: Pair) -> None:
    pair.world.network.is_manual = True
    receive = pair.there.receive_qubit(pair.into, within_ns=10**13)
    send = pair.here.send_qubit(pair.out, "q")
    pair.world.run(10 * MS)
    pair.here.cancel(send)
    pair.world.disconnect("alice", "bob")
    pair.world.run()
    pair.world.network.is_manual = False
    pair.here.send_qubit(pair.out, "second")
    pair.world.run()
    assert isinstance(pair.there.closings[receive], service.QubitArrived)
    pair.close()
