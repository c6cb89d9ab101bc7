"""Two link layers in conversation: every way a request and a pair can go."""

from typing import Any

import pytest
from msgspec import ValidationError, convert, to_builtins

from qstack.link import messages, service
from qstack.link.params import NUMBER_MAX, PAIR_HISTORY_MAX, REQUESTS_MAX
from qstack.machine import LayerUp, OwnerGone, PeerUp, TimerFired, Told
from qstack.physical import service as physical
from tests.link.bench import (
    ALICE,
    BOB,
    DELAY_NS,
    LINK,
    PURPOSE,
    SECOND,
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


# --- the link ------------------------------------------------------------------------------------


def test_a_link_is_up_when_both_devices_and_the_channel_are_there() -> None:
    bench = Bench(slots=(3, 1))
    bench.device_ready(ALICE)
    bench.connect()
    bench.deliver()
    assert not bench.all(ALICE, service.LinkUp)
    bench.device_ready(BOB)
    bench.deliver()
    for name in BOTH:
        (up,) = bench.all(name, service.LinkUp)
        assert (up.link, up.peer, up.slots, up.best_fidelity) == (LINK, OTHER[name], 1, 0.9)
        assert [o.rate_hz for o in up.options] == pytest.approx([1000.0, 10_000.0])
        assert [o.bell_probabilities[0] for o in up.options] == [0.9, 0.7]


def test_a_device_without_a_way_to_run_the_link_brings_no_link_up() -> None:
    bench = Bench().begin()
    bench.device_lost(ALICE)
    bench.deliver()
    none: list[physical.GenerationOption] = []
    empty = physical.LinkCapability(
        link=LINK, peer=BOB, kinds=["keep", "measure"], pairing="heralds", options=none, slots=1,
        delay_ns=1,
    )  # fmt: skip
    bench.event(ALICE, Told("physical", empty))
    bench.deliver()
    assert len(bench.all(ALICE, service.LinkUp)) == 1
    bench.say(ALICE, create(1))
    assert bench.errors(ALICE) == ["PEER_DOWN"]


def test_a_channel_said_again_changes_nothing() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    before = len(bench.sent)
    bench.event(ALICE, PeerUp(BOB, bench.ends[BOB].boot_id))
    assert len(bench.sent) == before
    assert rows(bench, ALICE) == []


def test_channels_of_others_and_ends_of_sessions_do_not_matter() -> None:
    bench = Bench().begin()
    bench.event(ALICE, PeerUp("carol", b"12345678"))
    bench.event(ALICE, OwnerGone("app/1"))
    bench.say(ALICE, service.LinkListen(peer="carol", purpose=PURPOSE))
    bench.say(ALICE, service.LinkUnlisten(peer="carol", purpose=PURPOSE))
    bench.say(ALICE, physical.CallDone(call=1))
    assert rows(bench, ALICE) == []
    assert bench.ends[ALICE].records[-1] == "link.unexpected"


@pytest.mark.parametrize("by", BOTH)
def test_requests_and_listeners_of_a_network_layer_that_has_gone_end_at_both_ends(by: str) -> None:
    bench = Bench().begin()
    bench.serving(create(1, OTHER[by], number=3), by)
    bench.event(ALICE, OwnerGone("network"))
    bench.deliver()
    assert bench.errors(BOB) == ["LAYER_LOST"]
    assert not any(bench.ends[name].batches for name in BOTH)
    before = len(bench.all(ALICE, service.LinkUp))
    bench.event(ALICE, LayerUp("network"))
    assert len(bench.all(ALICE, service.LinkUp)) == before + 1, "the new one is told of its link"
    bench.say(BOB, create(2, ALICE))
    bench.deliver()
    assert bench.errors(BOB) == ["LAYER_LOST", "REJECTED"], "nobody listens at alice"


def test_a_physical_layer_that_has_gone_is_a_device_that_has_gone() -> None:
    bench = Bench().begin()
    bench.serving(create(1, number=3))
    bench.event(ALICE, OwnerGone("physical"))
    assert bench.ends[ALICE].machine.open_batches == 0, "nobody will answer them"
    bench.deliver()
    for name in BOTH:
        assert bench.errors(name) == ["DEVICE_LOST"]
    bench.event(ALICE, LayerUp("physical"))
    bench.device_ready(ALICE)
    bench.deliver()
    assert len(bench.all(BOB, service.LinkUp)) == 2


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("number", [1, 2, 5])
def test_either_end_asks_and_both_get_the_same_pairs(by: str, number: int) -> None:
    bench = Bench().begin()
    bench.serving(create(1, OTHER[by], number=number), by)
    serve(bench, number)
    pairs = [[(p.pair, p.x_bit, p.z_bit) for p in bench.all(name, service.LinkPair)]
             for name in BOTH]  # fmt: skip
    assert pairs[0] == pairs[1]
    assert len(set(pairs[0])) == number
    for name in BOTH:
        assert rows(bench, name)[-1] == "LinkDone"
        assert not bench.ends[name].batches
        assert {*bench.ends[name].qubits.values()} == {"network"}


def test_a_request_without_number_goes_on_until_it_is_withdrawn() -> None:
    bench = Bench().begin()
    bench.serving(create(1, number=None))
    serve(bench, 20)
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    bench.deliver()
    assert bench.errors(ALICE) == bench.errors(BOB) == ["CANCELLED"]
    assert len(bench.all(BOB, service.LinkPair)) == 20


def test_attempts_begin_at_both_ends_at_the_same_time() -> None:
    bench = Bench().begin()
    bench.say(BOB, create(1, ALICE))
    bench.deliver()
    for name in BOTH:
        assert not bench.ends[name].batches
    bench.advance(2 * DELAY_NS + 40_000 - 1)
    assert not bench.tokens(ALICE) + bench.tokens(BOB)
    bench.advance(1)
    assert bench.tokens(ALICE) == bench.tokens(BOB) == [1, 1]


def test_a_later_start_does_not_put_off_an_earlier_one() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1, number=1))
    bench.deliver()
    late = bench.said(ALICE, messages.Add)[0]
    fields = {**to_builtins(late, builtin_types=(bytes,)), "request": identity(2)}
    fields.update(queue_number=5, virtual_ns=0, start_ns=SECOND // 2)
    bench.inject(BOB, convert(fields, messages.Add, builtin_types=(bytes,)))
    bench.advance(2 * DELAY_NS + 40_000)
    assert bench.tokens(BOB) == [1]
    bench.advance(SECOND)
    assert bench.tokens(BOB) == [1, 2]


def test_a_start_that_no_round_trip_explains_is_refused() -> None:
    """The clock would have run there for it: a peer's 2^53 ns are 104 days."""
    bench = Bench().begin()
    bench.say(ALICE, create(1, number=1))
    bench.deliver()
    late = bench.said(ALICE, messages.Add)[0]
    fields = {**to_builtins(late, builtin_types=(bytes,)), "request": identity(2)}
    fields.update(queue_number=5, start_ns=2**53)
    before = len(rows(bench, BOB))
    bench.inject(BOB, convert(fields, messages.Add, builtin_types=(bytes,)))
    assert len(rows(bench, BOB)) == before
    assert not [
        said for said in bench.said(BOB, messages.AddAccepted) if said.request == identity(2)
    ]


@pytest.mark.parametrize("by", BOTH)
def test_nobody_listens(by: str) -> None:
    bench = Bench().begin()
    bench.say(by, create(1, OTHER[by], purpose=b"q" * 16))
    bench.deliver()
    assert bench.errors(by) == ["REJECTED"]
    assert rows(bench, OTHER[by]) == []


def test_a_fidelity_beyond_the_link_is_refused_with_the_best_there_is() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1, min_fidelity=0.9))
    bench.say(ALICE, create(2, min_fidelity=0.91))
    (failed,) = bench.all(ALICE, service.LinkFailed)
    assert (failed.request, failed.error, failed.best) == (identity(2), "FIDELITY", 0.9)


def test_the_fastest_option_that_keeps_the_promise_is_run() -> None:
    bench = Bench().begin()
    bench.serving(create(1, number=1, min_fidelity=0.7))
    bench.serving(create(2, number=1, min_fidelity=0.71))
    assert [b.bright_state for b in bench.ends[BOB].batches.values()] == [0.3, 0.1]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"number": NUMBER_MAX + 1}, "BAD_REQUEST"),
    ({"number": 10**9}, "BAD_REQUEST"),
    ({"kind": "measure", "number": 5}, "BAD_REQUEST"),
    ({"kind": "measure", "number": 5, "basis": "X"}, "BAD_REQUEST"),
    ({"kind": "measure", "number": None, "basis": "X", "peer_basis": "X"}, "BAD_REQUEST"),
    ({"basis": "X"}, "BAD_REQUEST"),
    ({"peer_basis": "X"}, "BAD_REQUEST"),
    ({"deadline_ns": 0}, "NO_TIME"),
    ({"min_fidelity": 1.0}, "FIDELITY"),
]


@pytest.mark.parametrize(("changes", "error"), REFUSED)
def test_what_cannot_be_is_refused_here(changes: dict[str, Any], error: str) -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1, **changes))
    assert bench.errors(ALICE) == [error]
    assert not bench.said(ALICE, messages.Add)


@pytest.mark.parametrize(("changes", "error"), REFUSED)
def test_what_cannot_be_is_refused_there_too(changes: dict[str, Any], error: str) -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1))
    fields = to_builtins(bench.said(ALICE, messages.Add)[0], builtin_types=(bytes,))
    add = convert({**fields, **changes}, messages.Add, builtin_types=(bytes,))
    bench.arrive_instead(BOB, add)
    (rejected,) = bench.said(BOB, messages.AddRejected)
    assert rejected.error == error
    assert rejected.best == (0.9 if error == "FIDELITY" else None)
    assert not bench.timers(BOB)


@pytest.mark.parametrize("number", [0, -1, 10**9 + 1])
def test_numbers_no_request_can_have_are_refused_by_the_message_type(number: int) -> None:
    fields = to_builtins(create(1), builtin_types=(bytes,))
    with pytest.raises(ValidationError):
        convert({**fields, "number": number}, service.LinkCreate, builtin_types=(bytes,))


def test_the_largest_number_is_taken() -> None:
    bench = Bench().begin()
    bench.serving(create(1, number=NUMBER_MAX))
    assert bench.tokens(BOB) == [1, 1]


def test_only_so_many_requests_are_open() -> None:
    bench = Bench().begin()
    for number in range(REQUESTS_MAX + 1):
        bench.say(ALICE, create(number))
    assert bench.errors(ALICE) == ["NO_RESOURCES"]
    bench.deliver()
    bench.say(BOB, create(REQUESTS_MAX + 1, ALICE))
    assert bench.errors(BOB) == ["NO_RESOURCES"]


def test_a_node_that_is_no_neighbour_is_unknown() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1, "zoe"))
    assert bench.errors(ALICE) == ["UNKNOWN_NODE"]


def test_an_id_is_open_once() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    bench.say(ALICE, create(1))
    assert bench.errors(ALICE) == ["BAD_REQUEST"]
    bench.say(BOB, create(1, ALICE))
    assert bench.errors(BOB) == ["BAD_REQUEST"]
    serve(bench, 2)
    assert rows(bench, BOB)[-1] == "LinkDone"


# --- the end of requests -------------------------------------------------------------------------


def test_the_deadline_ends_a_request_at_both_ends_without_a_message() -> None:
    bench = Bench().begin()
    bench.serving(create(1, deadline_ns=SECOND))
    before = len(bench.sent)
    bench.advance(SECOND)
    assert bench.errors(ALICE) == bench.errors(BOB) == ["TIMEOUT"]
    assert len(bench.sent) == before
    assert len(bench.ends[ALICE].stopped) == len(bench.ends[BOB].stopped) == 2


def test_a_deadline_that_passes_while_the_request_is_on_its_way() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1, deadline_ns=SECOND))
    bench.advance(SECOND)
    bench.deliver()
    assert bench.errors(ALICE) == ["TIMEOUT"]
    assert [r.error for r in bench.said(BOB, messages.AddRejected)] == ["NO_TIME"]
    assert rows(bench, BOB) == []


def test_a_timer_for_what_is_gone_changes_nothing() -> None:
    bench = Bench().begin()
    bench.event(ALICE, TimerFired("deadline/" + identity(1).hex()))
    bench.serving(create(1))
    bench.event(ALICE, TimerFired("deadline/" + identity(1).hex()))
    assert rows(bench, ALICE) == []


@pytest.mark.parametrize("asker", BOTH)
@pytest.mark.parametrize("canceller", BOTH)
def test_either_end_withdraws_a_request_that_is_served(asker: str, canceller: str) -> None:
    bench = Bench().begin()
    bench.serving(create(1, OTHER[asker]), asker)
    bench.say(canceller, service.LinkCancel(request=identity(1)))
    bench.deliver()
    assert bench.errors(ALICE) == bench.errors(BOB) == ["CANCELLED"]
    for name in BOTH:
        bench.answer_stops(name)
        bench.told(name)
        assert bench.ends[name].machine.open_batches == 0
        assert not bench.ends[name].batches


@pytest.mark.parametrize("asker", BOTH)
def test_a_request_is_withdrawn_before_the_answer(asker: str) -> None:
    bench = Bench().begin()
    bench.say(asker, create(1, OTHER[asker]))
    bench.say(asker, service.LinkCancel(request=identity(1)))
    bench.deliver()
    assert bench.errors(ALICE) == bench.errors(BOB) == ["CANCELLED"]


@pytest.mark.parametrize("answer", ["accepted", "rejected"])
def test_an_answer_that_comes_after_the_end_is_ignored(answer: str) -> None:
    bench = Bench().begin()
    purpose = PURPOSE if answer == "accepted" else b"q" * 16
    bench.say(ALICE, create(1, purpose=purpose))
    bench.deliver(BOB)
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    bench.deliver()
    assert bench.errors(ALICE) == ["CANCELLED"]
    assert not bench.said(ALICE, messages.Error)
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    assert bench.errors(ALICE) == ["CANCELLED"]


def test_both_ends_withdraw_at_the_same_time() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    for name in BOTH:
        bench.say(name, service.LinkCancel(request=identity(1)))
    bench.deliver()
    assert bench.errors(ALICE) == bench.errors(BOB) == ["CANCELLED"]


def test_who_listens_no_more_withdraws_what_is_open() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    bench.say(BOB, service.LinkUnlisten(peer=ALICE, purpose=PURPOSE))
    bench.deliver()
    assert bench.errors(ALICE) == bench.errors(BOB) == ["CANCELLED"]
    bench.say(ALICE, create(2))
    bench.deliver()
    assert bench.errors(ALICE)[-1] == "REJECTED"


# --- pairs and races -----------------------------------------------------------------------------


@pytest.mark.parametrize("canceller", BOTH)
def test_a_herald_in_flight_at_a_cancel_is_freed_here_and_expired_there(canceller: str) -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    bench.herald()
    far = OTHER[canceller]
    bench.told(far)
    bench.say(canceller, service.LinkCancel(request=identity(1)))
    bench.told(canceller)
    bench.deliver()
    (pair,) = bench.all(far, service.LinkPair)
    (expired,) = bench.all(far, service.LinkExpired)
    assert expired.pair == pair.pair
    assert not bench.all(canceller, service.LinkPair)
    assert [*bench.ends[canceller].qubits.values()] == ["freed"]


def test_a_herald_in_flight_to_both_ends_at_a_cancel_is_freed_at_both() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    bench.herald()
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    bench.deliver()
    for name in BOTH:
        bench.told(name)
    bench.deliver()
    for name in BOTH:
        assert rows(bench, name) == ["LinkFailed"]
        assert [*bench.ends[name].qubits.values()] == ["freed"]


def test_a_herald_between_the_deadlines_is_taken_back() -> None:
    bench = Bench().begin()
    bench.serving(create(1, deadline_ns=SECOND))
    bench.herald()
    bench.told(ALICE)
    bench.advance(SECOND)
    bench.told(BOB)
    bench.deliver()
    assert rows(bench, ALICE) == ["LinkPair", "LinkFailed", "LinkExpired"]
    assert rows(bench, BOB) == ["LinkFailed"]


def test_an_expire_says_once_which_pairs_are_void() -> None:
    bench = Bench(slots=(4, 4)).begin()
    bench.serving(create(1, number=None))
    serve(bench, 5)
    for _ in range(2):
        bench.inject(ALICE, messages.Expire(low=1, high=3))
        assert len(bench.all(ALICE, service.LinkExpired)) == 2


def test_an_expire_of_a_pair_nobody_remembers_makes_all_pairs_void() -> None:
    bench = Bench(slots=(4, 4)).begin()
    bench.serving(create(1, number=None))
    serve(bench, PAIR_HISTORY_MAX + 2)
    bench.inject(ALICE, messages.Expire(low=2, high=3))
    assert len(bench.all(ALICE, service.LinkExpired)) == 1
    assert not bench.all(ALICE, service.LinkDown)
    bench.inject(ALICE, messages.Expire(low=1, high=2))
    bench.deliver()
    for name in BOTH:
        assert len(bench.all(name, service.LinkDown)) == 1
        assert len(bench.all(name, service.LinkUp)) == 2


def test_an_empty_range_of_pairs_is_refused() -> None:
    bench = Bench().begin()
    bench.inject(ALICE, messages.Expire(low=3, high=3))
    (error,) = bench.said(ALICE, messages.Error)
    assert (error.name, error.about) == ("INVALID", messages.Expire.TYPE)


def test_a_herald_of_no_batch_is_freed() -> None:
    bench = Bench().begin()
    bench.serving(create(1))
    bench.herald()
    bench.told(ALICE)
    again = bench.ends[BOB].inbox[0]
    bench.told(BOB)
    bench.ends[BOB].qubits[again.qubit] = "link"
    bench.event(BOB, Told("physical", again))
    assert len(bench.all(BOB, service.LinkPair)) == 1
    assert bench.ends[BOB].qubits[again.qubit] == "freed"
