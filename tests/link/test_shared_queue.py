"""Two link layers in conversation: measured pairs, the shared queue, and what is lost."""

from typing import Any

import pytest
from msgspec import convert, to_builtins

from qstack.errors import ErrorCode
from qstack.link import messages, service
from qstack.link.params import CHOICE_NS
from qstack.machine import FromPeer, Told
from qstack.physical import service as physical
from tests.link.bench import (
    ALICE,
    BOB,
    DELAY_NS,
    Bench,
    create,
    identity,
)

BOTH = (ALICE, BOB)
OTHER = {ALICE: BOB, BOB: ALICE}


def rows(bench: Bench, name: str) -> list[str]:
    """Names of what was told upward, without the link's coming."""
    return [type(m).__name__ for m in bench.ends[name].above if not isinstance(m, service.LinkUp)]


def serve(bench: Bench, pairs: int = 1) -> None:
    for _ in range(pairs):
        bench.herald()
        for name in BOTH:
            bench.told(name)


# --- measured pairs ------------------------------------------------------------------------------


def measure(which: int, pairs: int, **changes: Any) -> service.LinkCreate:
    return create(which, kind="measure", number=pairs, basis="X", peer_basis="Z", **changes)


def test_measured_pairs_come_in_parts_to_both_ends() -> None:
    bench = Bench().begin()
    bench.serving(measure(1, 100))
    assert [b.basis for b in bench.ends[ALICE].batches.values()] == ["X"]
    assert [b.basis for b in bench.ends[BOB].batches.values()] == ["Z"]
    for part in (60, 30, 10):
        bench.herald(pairs=part)
    for name in BOTH:
        bench.told(name)
        parts = bench.all(name, service.LinkMeasured)
        assert [part.pairs for part in parts] == [60, 30, 10]
        assert rows(bench, name)[-1] == "LinkDone"
    first = [[p.first_pair for p in bench.all(name, service.LinkMeasured)] for name in BOTH]
    assert first[0] == first[1]
    assert [pair[-1] for pair in first[0]] == [0, 60, 90]


def test_a_measuring_batch_that_ends_early_goes_on_in_another_one() -> None:
    bench = Bench().begin()
    bench.serving(measure(1, 100))
    bench.herald(pairs=40)
    for name in BOTH:
        number = next(iter(bench.ends[name].batches))
        bench.told(name)
        bench.end_batch(name, number, "handed-over")
        bench.told(name)
        (batch,) = bench.ends[name].batches.values()
        assert batch.pairs == 60


def test_a_slot_freed_by_a_cancelled_measurement_is_used_at_once() -> None:
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(measure(1, 100))
    bench.serving(create(2, priority=0))
    assert bench.tokens(BOB) == [1]
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    bench.deliver()
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [2]
    for name in BOTH:
        bench.answer_stops(name)
        bench.told(name)
        assert not bench.all(name, service.LinkMeasured)


def test_at_a_cancel_one_end_has_the_first_of_the_others_measured_pairs() -> None:
    bench = Bench().begin()
    bench.serving(measure(1, 100))
    bench.herald(pairs=40)
    bench.told(BOB)
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    bench.told(ALICE)
    bench.deliver()
    assert [m.pairs for m in bench.all(BOB, service.LinkMeasured)] == [40]
    assert not bench.all(ALICE, service.LinkMeasured)
    assert bench.errors(ALICE) == bench.errors(BOB) == ["CANCELLED"]


# --- the queue -----------------------------------------------------------------------------------


def test_slots_are_those_of_the_end_that_has_fewer() -> None:
    bench = Bench(slots=(5, 3)).begin()
    bench.serving(create(1, number=None))
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [1, 1, 1]


def test_the_higher_priority_is_served_first_and_takes_over() -> None:
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1, number=None, priority=1))
    bench.serving(create(3, ALICE, number=1, priority=6), BOB)
    bench.advance(CHOICE_NS)
    for name in BOTH:
        bench.answer_stops(name)
        bench.told(name)
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [3]
    serve(bench)
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [1]


def test_two_requests_of_equal_priority_take_turns() -> None:
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1, number=None))
    serve(bench, 50)
    bench.serving(create(2, ALICE, number=None), BOB)
    serve(bench, 21)
    for name in BOTH:
        got = [int.from_bytes(p.request, "big") for p in bench.all(name, service.LinkPair)]
        assert got[51:] == [2, 1] * 10


def test_two_ends_that_chose_differently_come_together_again() -> None:
    """A herald was told on both sides of the start of another request: they attempt past each
    other, and no herald will ever come."""
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1, number=None, deadline_ns=10**12))
    bench.say(ALICE, create(2, number=None, deadline_ns=10**12))
    bench.deliver()
    bench.herald()
    bench.told(ALICE)
    bench.advance(2 * DELAY_NS + 40_000)
    bench.told(BOB)
    assert (bench.tokens(ALICE), bench.tokens(BOB)) == ([1], [2])
    bench.advance(CHOICE_NS)
    for name in BOTH:
        bench.answer_stops(name)
        bench.told(name)
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [2]


def test_the_timer_of_the_choice_ends_with_the_need_for_it() -> None:
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1, number=1))
    bench.serving(create(2, number=1))
    assert "choice/bob" in bench.ends[ALICE].timers
    serve(bench, 2)
    bench.advance(CHOICE_NS)
    assert not bench.ends[ALICE].timers


@pytest.mark.parametrize(("receiver", "number"), [(ALICE, 4), (BOB, None)])
def test_a_queue_number_from_the_wrong_end_is_refused(receiver: str, number: int | None) -> None:
    bench = Bench().begin()
    bench.say(OTHER[receiver], create(1, receiver))
    fields = to_builtins(bench.said(OTHER[receiver], messages.Add)[0], builtin_types=(bytes,))
    add = convert({**fields, "queue_number": number}, messages.Add, builtin_types=(bytes,))
    bench.arrive_instead(receiver, add)
    (error,) = bench.said(receiver, messages.Error)
    assert (error.name, error.about) == ("OUT_OF_STATE", messages.Add.TYPE)


def test_the_master_numbers_the_requests_of_both() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1))
    bench.say(BOB, create(2, ALICE))
    bench.deliver()
    assert [m.queue_number for m in bench.said(BOB, messages.AddAccepted)] == [0]
    assert [m.queue_number for m in bench.said(ALICE, messages.AddAccepted)] == [1]
    assert [m.queue_number for m in bench.said(BOB, messages.Add)] == [None]


# --- attempts before the answer ------------------------------------------------------------------


def test_the_end_that_asks_attempts_without_waiting_for_the_answer() -> None:
    bench = Bench().begin()
    bench.say(BOB, create(1, ALICE, number=1))
    bench.deliver(to=ALICE)
    bench.advance(2 * DELAY_NS + 40_000)
    assert bench.said(ALICE, messages.AddAccepted)
    assert bench.tokens(BOB) == [1], "the answer is still on its way"
    bench.herald()
    for name in (ALICE, BOB):
        bench.told(name)
    assert rows(bench, ALICE) == rows(bench, BOB)
    assert [len(bench.all(name, service.LinkDone)) for name in (ALICE, BOB)] == [1, 1]
    bench.deliver()
    assert not bench.said(BOB, messages.Error), "the answer is late, not wrong"
    assert not bench.timers(BOB)


def test_attempts_of_a_request_that_is_rejected_stop_and_leave_their_slots() -> None:
    bench = Bench().begin()
    bench.serving(create(1, number=None))
    bench.say(ALICE, service.LinkUnlisten(peer=BOB, purpose=b"q" * 16))
    bench.say(ALICE, create(2, purpose=b"q" * 16, priority=2))
    bench.advance(2 * DELAY_NS + 40_000)
    bench.end_batch(ALICE, next(iter(bench.ends[ALICE].batches)), "handed-over")
    bench.told(ALICE)
    assert bench.tokens(ALICE) == [1, 2]
    bench.deliver()
    bench.answer_stops(ALICE)
    bench.told(ALICE)
    assert bench.errors(ALICE) == ["REJECTED"]
    assert bench.tokens(ALICE) == [1, 1]


def test_a_rejection_after_a_pair_is_out_of_state() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1, number=3))
    bench.deliver(to=BOB)
    bench.advance(2 * DELAY_NS + 40_000)
    bench.herald()
    bench.told(ALICE)
    late = messages.AddRejected(request=identity(1), error="REJECTED", detail="", best=None)
    bench.inject(ALICE, late)
    assert [e.name for e in bench.said(ALICE, messages.Error)] == ["OUT_OF_STATE"]
    assert bench.errors(ALICE) == []


# --- memory and devices --------------------------------------------------------------------------


def test_without_memory_the_link_waits_until_there_is_some() -> None:
    bench = Bench().begin()
    bench.ends[ALICE].is_full = True
    bench.serving(create(1))
    bench.told(ALICE)
    assert bench.tokens(ALICE) == []
    bench.ends[ALICE].is_full = False
    bench.event(ALICE, Told("physical", physical.MemoryFree()))
    assert bench.tokens(ALICE) == [1, 1]
    bench.event(ALICE, Told("physical", physical.MemoryFree()))
    assert bench.tokens(ALICE) == [1, 1]


def test_a_device_that_comes_back_after_a_refusal_is_used_again() -> None:
    bench = Bench().begin()
    bench.ends[ALICE].is_full = True
    bench.serving(create(1))
    bench.told(ALICE)
    bench.ends[ALICE].is_full = False
    bench.device_lost(ALICE)
    bench.device_ready(ALICE)
    bench.deliver()
    bench.serving(create(2))
    assert bench.tokens(ALICE) == [2, 2]


def test_a_batch_handed_over_to_another_link_is_begun_again() -> None:
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1))
    bench.end_batch(ALICE, 0, "handed-over")
    bench.told(ALICE)
    assert bench.tokens(ALICE) == [1]
    assert bench.ends[ALICE].machine.open_batches == 1


def test_a_request_the_device_refuses_ends_at_both_ends() -> None:
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1))
    bench.serving(create(2))
    bench.end_batch(ALICE, 0, "refused")
    bench.told(ALICE)
    bench.deliver()
    assert bench.errors(ALICE) == bench.errors(BOB) == ["UNSUPPORTED"]
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [2]


def test_a_refusal_for_a_request_that_has_ended_changes_nothing() -> None:
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1))
    bench.end_batch(ALICE, 0, "refused")
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    bench.told(ALICE)
    bench.event(ALICE, Told("physical", physical.AttemptsEnded(batch=77, reason="stopped",
                                                               attempts=0)))  # fmt: skip
    bench.event(ALICE, Told("physical", physical.MeasuredPairs(
        batch=77, first_herald_sequence=0, pairs=1, outcomes=b"\0", x_bits=b"\0", z_bits=b"\0",
        bases=b"",        emitted_at_ns=0, is_last=False)))  # fmt: skip
    assert bench.errors(ALICE) == ["CANCELLED"]


@pytest.mark.parametrize("loser", BOTH)
def test_a_lost_device_takes_the_link_down_at_both_ends(loser: str) -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    serve(bench)
    bench.device_lost(loser)
    bench.deliver()
    for name in BOTH:
        assert rows(bench, name) == ["LinkPair", "LinkFailed", "LinkDown"]
        assert bench.errors(name) == ["DEVICE_LOST"]
    bench.say(OTHER[loser], create(2, loser))
    assert bench.errors(OTHER[loser])[-1] == "PEER_DOWN"
    bench.device_ready(loser)
    bench.deliver()
    bench.serving(create(3))
    for name in BOTH:
        assert len(bench.all(name, service.LinkUp)) == 2
        assert bench.tokens(name) == [3, 3]


def test_both_devices_are_lost_and_come_back_one_after_the_other() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    for name in BOTH:
        bench.device_lost(name)
    bench.device_ready(ALICE)
    bench.deliver()
    assert isinstance(bench.ends[ALICE].above[-1], service.LinkDown)
    bench.device_ready(BOB)
    bench.deliver()
    for name in BOTH:
        assert isinstance(bench.ends[name].above[-1], service.LinkUp)
        assert bench.errors(name) == ["DEVICE_LOST"]


# --- the channel ---------------------------------------------------------------------------------


def test_a_broken_channel_ends_requests_and_voids_pairs_at_both_ends() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    serve(bench)
    bench.herald()
    bench.drop()
    for name in BOTH:
        assert rows(bench, name) == ["LinkPair", "LinkFailed", "LinkDown"]
        assert bench.errors(name) == ["PEER_DOWN"]
        bench.told(name)
        assert [*bench.ends[name].qubits.values()] == ["network", "freed"]
    bench.connect()
    bench.deliver()
    bench.serving(create(2))
    assert bench.tokens(BOB) == [2, 2]


def test_a_peer_with_a_new_boot_id_is_another_one() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    serve(bench)
    old = bench.all(ALICE, service.LinkPair)[0].pair
    bench.restart(BOB)
    bench.deliver()
    assert bench.errors(ALICE) == ["PEER_DOWN"]
    bench.answer_stops(ALICE)
    bench.told(ALICE)
    bench.serving(create(2))
    serve(bench)
    new = bench.all(ALICE, service.LinkPair)[-1].pair
    assert new[-8:] == old[-8:]
    assert new != old
    assert bench.all(BOB, service.LinkPair)[-1].pair == new


def test_a_herald_from_before_a_restart_expires_nothing_after_it() -> None:
    """Herald sequences begin anew with a life: the old number is now another pair's."""
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1))
    bench.herald()
    bench.restart(BOB)
    bench.deliver()
    bench.serving(create(2))
    old = bench.ends[ALICE].inbox.popleft()
    serve(bench)
    bench.event(ALICE, Told("physical", old))
    bench.deliver()
    assert not bench.said(ALICE, messages.Expire)
    assert not bench.all(BOB, service.LinkExpired)


OUT_OF_STATE: list[tuple[messages.LinkMessage, ErrorCode]] = [
    (
        messages.AddAccepted(request=identity(1), queue_number=9, virtual_ns=0),
        ErrorCode.OUT_OF_STATE,
    ),
    (
        messages.AddRejected(request=identity(1), error="REJECTED", detail="", best=None),
        ErrorCode.OUT_OF_STATE,
    ),
]


@pytest.mark.parametrize(("message", "error"), OUT_OF_STATE)
def test_a_message_out_of_state_is_answered_and_changes_nothing(
    message: messages.LinkMessage, error: ErrorCode
) -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    bench.inject(ALICE, message)
    (answer,) = bench.said(ALICE, messages.Error)
    assert (answer.name, answer.about) == (error.name, message.TYPE)
    serve(bench, 2)
    assert rows(bench, ALICE)[-1] == "LinkDone"


def test_a_request_that_is_open_is_not_added_again() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    add = bench.said(ALICE, messages.Add)[0]
    bench.inject(BOB, add)
    assert [e.name for e in bench.said(BOB, messages.Error)] == ["OUT_OF_STATE"]


def test_another_place_in_the_queue_than_the_masters_is_refused() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1))
    bench.inject(ALICE, messages.AddAccepted(request=identity(1), queue_number=3, virtual_ns=0))
    assert [e.name for e in bench.said(ALICE, messages.Error)] == ["OUT_OF_STATE"]
    bench.deliver()
    assert rows(bench, ALICE) == []


def test_what_is_no_link_message_is_answered_by_an_error() -> None:
    bench = Bench().begin()
    bench.arrive(ALICE, physical.DeviceReady())
    (answer,) = bench.said(ALICE, messages.Error)
    assert (answer.name, answer.about) == ("UNKNOWN_TYPE", physical.DeviceReady.TYPE)


def test_who_shares_no_link_is_not_answered() -> None:
    """There is no conversation with it."""
    bench = Bench().begin()
    before = len(bench.sent)
    bench.event(ALICE, FromPeer("carol", messages.Ready(slots=1, device=1)))
    assert len(bench.sent) == before
    assert bench.ends[ALICE].records[-1] == "link.refused"


def test_an_error_is_never_answered_by_an_error() -> None:
    bench = Bench().begin()
    error = messages.Error(name="INVALID", detail="", about=5)
    bench.inject(ALICE, error)
    bench.event(ALICE, FromPeer("carol", error))
    assert not bench.said(ALICE, messages.Error)
    assert bench.ends[ALICE].records[-2:] == ["link.peer_error", "link.refused"]


def test_answers_about_unknown_requests_are_late_and_ignored() -> None:
    bench = Bench().begin()
    unknown = identity(99)
    bench.inject(ALICE, messages.AddAccepted(request=unknown, queue_number=0, virtual_ns=0))
    rejected = messages.AddRejected(request=unknown, error="REJECTED", detail="", best=None)
    bench.inject(ALICE, rejected)
    bench.inject(ALICE, messages.Remove(request=unknown, error="CANCELLED", detail=""))
    assert rows(bench, ALICE) == []
    assert not bench.said(ALICE, messages.Error)


def test_more_slots_at_the_far_end_are_used() -> None:
    bench = Bench(slots=(3, 1)).begin()
    bench.serving(create(1, number=None))
    bench.inject(ALICE, messages.Ready(slots=2, device=1))
    assert bench.tokens(ALICE) == [1, 1]


def test_a_long_detail_of_the_far_end_is_cut() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1))
    rejected = messages.AddRejected(
        request=identity(1), error="REJECTED", detail="x" * 500, best=None
    )
    bench.inject(ALICE, rejected)
    (failed,) = bench.all(ALICE, service.LinkFailed)
    assert len(failed.detail) == 500


def test_a_request_said_to_a_device_that_has_gone_is_rejected() -> None:
    """Its sender attempts already, and is about to learn that all it has on the link is void."""
    bench = Bench().begin()
    bench.say(ALICE, create(1, number=5))
    bench.device_lost(BOB)
    bench.device_ready(BOB)
    bench.deliver(to=BOB)
    assert [m.error for m in bench.said(BOB, messages.AddRejected)] == ["DEVICE_LOST"]
    bench.advance(2 * DELAY_NS + 40_000)
    assert bench.matches() == []
    bench.deliver()
    assert bench.errors(ALICE) == ["DEVICE_LOST"]
    bench.serving(create(2, number=5))
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [2, 2]
