"""EPR sockets: creation, acceptance, correction, measurement, failure, at both ends."""

from typing import Any

import numpy as np
import pytest

from qstack.machine import FromPeer
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport import messages, params, service
from qstack.wire.message import BasisProbabilities
from qstack.wire.packed import unpack_bases, unpack_bits
from tests.transport.session import Session
from tests.transport.world import MS, World, assert_idle


def two() -> tuple[World, Session, Session]:
    world = World("alice", "bob")
    return world, world.session("alice"), world.session("bob")


def meet(world: World, here: Session, there: Session) -> tuple[int, int]:
    return here.epr(7, there.node), there.epr(7, here.node)


@pytest.mark.parametrize("creator_first", [True, False])
def test_pairs_arrive_corrected_at_both_ends_whoever_calls_first(creator_first: bool) -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    if creator_first:
        create = here.create(mine, 20)
        world.run(5 * MS)
        accept = there.accept_pairs(its, 20)
    else:
        accept = there.accept_pairs(its, 20)
        world.run(5 * MS)
        create = here.create(mine, 20)
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)
    heads, tails = here.of(service.PairDelivered), there.of(service.PairDelivered)
    assert sorted(pair.pair for pair in heads) == sorted(pair.pair for pair in tails)
    assert len(heads) == 20
    for session, pairs in ((here, heads), (there, tails)):
        for pair in pairs:
            half = world.half(session, pair.qubit)
            assert (half.x, half.z) == (0, 0)
    assert len({(pair.x_bit, pair.z_bit) for pair in tails}) == 4  # raw bits are told as they were
    for node in world.nodes.values():
        assert_idle(node.layer)


@pytest.mark.parametrize("basis", ["X", BasisProbabilities(0.5, 0.0, 0.5)])
@pytest.mark.parametrize("creator_first", [True, False])
def test_of_pairs_that_prepare_a_state_the_creator_reads_and_the_acceptor_keeps(
    basis: Any, creator_first: bool
) -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    if not creator_first:
        there.accept_pairs(its, 20)
        world.run(5 * MS)
    create = here.create(mine, 20, basis, is_prepare=True)
    if creator_first:
        there.accept_pairs(its, 20)
    world.run()
    assert here.is_finished(create)
    prepared, kept = here.of(service.PairPrepared), there.of(service.PairDelivered)
    assert sorted(each.pair for each in prepared) == sorted(pair.pair for pair in kept)
    assert len(prepared) == 20
    assert {each.basis for each in prepared} == ({"X"} if basis == "X" else {"X", "Z"})
    bits = {pair.pair: (pair.x_bit, pair.z_bit) for pair in kept}
    assert {each.pair: (each.x_bit, each.z_bit) for each in prepared} == bits
    for pair in kept:
        half = world.half(there, pair.qubit)
        assert (half.x, half.z) == (0, 0), "the acceptor corrects, as for any pair"
    assert not world.held("alice")
    assert not here.of(service.PairDelivered)
    for node in world.nodes.values():
        assert_idle(node.layer)


def test_the_far_end_of_a_preparation_is_told_nothing_of_how_it_is_read() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    turn = physical.Rotation(0.1, 0.2, 0.0)
    here.create(mine, 3, "X", is_prepare=True, rotation=turn)
    there.accept_pairs(its, 3)
    world.run()
    (create,) = world.network.created
    assert (create.kind, create.basis, create.remote_basis) == ("keep", None, None)
    turns = [each for each in world.nodes["alice"].device.gates if each[0] in ("rx", "ry")]
    assert turns == [("rx", 0.1), ("ry", 0.2)] * 3
    assert all(m.basis is None for _, _, m in world.sent if isinstance(m, messages.CreditFlow))


@pytest.mark.parametrize(
    ("port", "fields"),
    [
        (7, {"basis": None, "is_prepare": True}),
        (7, {"basis": "X", "rotation": physical.Rotation(0.0, 1.0, 0.0)}),
        (7, {"basis": None, "rotation": physical.Rotation(0.0, 1.0, 0.0)}),
        (0, {"basis": "X", "is_prepare": True}),
    ],
)
def test_what_is_no_preparation_is_refused(port: int, fields: dict[str, Any]) -> None:
    world, here, _ = two()
    call = here.create(here.epr(port, "bob"), 1, **fields)
    world.run()
    assert here.error(call) == "BAD_REQUEST"


def test_a_preparation_whose_half_cannot_be_read_ends_at_both_ends() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    world.nodes["alice"].device.refuse = "EXPIRED"
    create = here.create(mine, 4, "Z", is_prepare=True)
    accept = there.accept_pairs(its, 4)
    world.run()
    assert here.error(create) == "EXPIRED"
    assert there.error(accept) in ("EXPIRED", "CANCELLED"), "whichever word comes first"
    for node in world.nodes.values():
        assert_idle(node.layer)


@pytest.mark.parametrize("basis", ["X", "Y", "Z"])
@pytest.mark.parametrize("in_device", [True, False])
def test_measured_outcomes_are_those_of_phi_plus(basis: str, in_device: bool) -> None:
    world, here, there = two()
    world.network.measures_in_device = in_device
    world.network.skew_ns = (0, 0)
    mine, its = meet(world, here, there)
    create = here.create(mine, 37, basis)
    accept = there.accept_pairs(its, 37, basis)
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)

    def bits(session: Session, field: str) -> np.ndarray:
        parts = [
            np.unpackbits(np.frombuffer(getattr(each, field), np.uint8))[: each.pairs]
            for each in session.of(service.PairsMeasured)
        ]
        return np.concatenate(parts)

    differ = bits(here, "outcomes") ^ bits(there, "outcomes")
    assert np.all(differ == (basis == "Y"))
    assert np.array_equal(bits(here, "x_bits"), bits(there, "x_bits"))
    assert np.array_equal(bits(here, "z_bits"), bits(there, "z_bits"))
    assert not world.held("alice")
    assert not world.held("bob")


def drawn(session: Session) -> Any:
    """The codes of the bases of a session's pairs."""
    parts = session.of(service.PairsMeasured)
    return np.concatenate([unpack_bases(each.bases, each.pairs) for each in parts])


@pytest.mark.parametrize("in_device", [True, False])
def test_each_end_draws_its_bases_and_the_tail_flips_each_pair_by_its_own(in_device: bool) -> None:
    """Equal bases agree as phi+ does; the raw bits are of both ends, the bases of one alone."""
    world, here, there = two()
    world.network.measures_in_device = in_device
    world.network.skew_ns = (0, 0)
    mine, its = meet(world, here, there)
    choice = BasisProbabilities(0.3, 0.3, 0.4)
    create = here.create(mine, 150, choice)
    accept = there.accept_pairs(its, 150, choice)
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)
    bits = [
        np.concatenate([unpack_bits(e.outcomes, e.pairs) for e in s.of(service.PairsMeasured)])
        for s in (here, there)
    ]
    bases = drawn(here), drawn(there)
    assert len(bases[0]) == len(bases[1]) == 150
    assert {0, 1, 2} == {*bases[0].tolist()} == {*bases[1].tolist()}
    assert not np.array_equal(*bases)
    same = bases[0] == bases[1]
    assert np.array_equal((bits[0] ^ bits[1])[same], (bases[0] == 1)[same].astype(np.uint8))
    sent = [m for *_, m in world.sent if isinstance(m, messages.CreditFlow)]
    assert [m.basis for m in sent] == [choice]  # the probabilities, never a basis


def test_bases_where_none_were_drawn_and_none_where_they_were_are_refused_without_harm() -> None:
    for choice, bases in (("X", b"\0"), (BasisProbabilities(0.5, 0.0, 0.5), b"")):
        world, here, there = two()
        world.network.is_manual = True
        mine, its = meet(world, here, there)
        there.accept_pairs(its, 3, choice)
        here.create(mine, 3, choice)
        world.run(20 * MS)
        (request,) = world.network.requests.values()
        wrong = network.EndMeasured(
            request=request.create.request, purpose=7, remote="bob", side="head", pairs=3,
            outcomes=b"\0", x_bits=b"\0", z_bits=b"\0", bases=bases, goodness=0.5,
        )  # fmt: skip
        world.network.tell("alice", wrong)
        assert not here.of(service.PairsMeasured)


def test_one_accept_takes_pairs_of_several_creates_and_one_create_serves_several_accepts() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    accepts = [there.accept_pairs(its, number) for number in (5, 2)]
    creates = [here.create(mine, number) for number in (3, 4)]
    world.run()
    assert all(here.is_finished(call) for call in creates)
    assert all(there.is_finished(call) for call in accepts)
    assert len(there.of(service.PairDelivered)) == 7
    assert sum(create.number for create in world.network.created) == 7


def test_kinds_do_not_mix() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    there.accept_pairs(its, 1, "X")
    here.create(mine, 1)
    world.run()
    assert not world.network.created


def test_a_socket_for_anyone_accepts_and_cannot_create() -> None:
    world, here, there = two()
    mine, its = here.epr(7, "bob"), there.epr(7, None)
    accept = there.accept_pairs(its)
    create = here.create(mine)
    refused = there.create(its)
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)
    assert there.error(refused) == "BAD_REQUEST"


def test_a_socket_for_another_remote_does_not_accept() -> None:
    world = World("alice", "bob", "carol")
    here, there = world.session("alice"), world.session("bob")
    mine, its = here.epr(7, "bob"), there.epr(7, "carol")
    accept = there.accept_pairs(its, within_ns=50 * MS)
    create = here.create(mine, within_ns=40 * MS)
    world.run()
    assert here.error(create) == "TIMEOUT"
    assert there.error(accept) == "TIMEOUT"
    assert not world.network.created


def test_a_number_above_the_limit_is_refused_and_the_limit_itself_is_not() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    assert here.error(here.create(mine, params.PAIRS_PER_CALL_MAX + 1)) == "BAD_REQUEST"
    assert there.error(there.accept_pairs(its, params.PAIRS_PER_CALL_MAX + 1)) == "BAD_REQUEST"
    assert here.create(mine, params.PAIRS_PER_CALL_MAX) not in here.closings
    assert there.accept_pairs(its, params.PAIRS_PER_CALL_MAX) not in there.closings


def test_a_failure_of_the_network_reaches_both_calls_with_its_error_and_best() -> None:
    world, here, there = two()
    world.network.fails_with = ("FIDELITY", 0.7)
    mine, its = meet(world, here, there)
    accept, create = there.accept_pairs(its), here.create(mine)
    world.run()
    assert here.error(create) == there.error(accept) == "FIDELITY"
    assert here.closings[create].best == 0.7
    for node in world.nodes.values():
        assert_idle(node.layer)


def test_an_unknown_error_name_from_below_becomes_rejected() -> None:
    world, here, there = two()
    world.network.fails_with = ("NO_SUCH_NAME", None)
    mine, its = meet(world, here, there)
    there.accept_pairs(its)
    create = here.create(mine)
    world.run()
    assert here.error(create) == "REJECTED"


def test_an_accept_that_waits_for_a_flow_is_not_touched_by_the_failure_of_another() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    first, second = there.accept_pairs(its, 2), there.accept_pairs(its, 2)
    world.network.fails_with = ("NO_PATH", None)
    here.create(mine, 2)
    world.run(30 * MS)
    world.network.fails_with = None
    create = here.create(mine, 2)
    world.run()
    assert there.error(first) == "NO_PATH"
    assert there.is_finished(second)
    assert here.is_finished(create)


@pytest.mark.parametrize("who", ["creator", "acceptor"])
@pytest.mark.parametrize("how", ["deadline", "cancel", "close", "session"])
@pytest.mark.parametrize("at_ms", [0, 1, 4, 6, 9])
def test_either_end_can_stop_at_any_moment(who: str, how: str, at_ms: int) -> None:
    """Both calls end, no qubit stays with the transport layer, the network's request ends."""
    world, here, there = two()
    mine, its = meet(world, here, there)
    span = (at_ms + 1) * MS if how == "deadline" else None
    accept = there.accept_pairs(its, 50, within_ns=span if who == "acceptor" else None)
    create = here.create(mine, 50, within_ns=span if who == "creator" else None)
    world.run(at_ms * MS)
    session, call, socket = (here, create, mine) if who == "creator" else (there, accept, its)
    if how == "cancel":
        session.cancel(call)
    elif how == "close":
        session.close(socket)
    elif how == "session":
        world.end_session(session)
    world.run()
    error = {"deadline": "TIMEOUT", "cancel": "CANCELLED", "close": "CLOSED"}.get(how, "CLOSED")
    if how != "session":
        assert session.error(call) == error
    other, its_call = (there, accept) if who == "creator" else (here, create)
    if its_call in other.closings:
        # The network may say CANCELLED before the far end's Close says why.
        assert other.error(its_call) in {error, "CANCELLED"}
    else:
        other.cancel(its_call)  # it was not bound to anything yet, and waits on
    world.run()
    assert all(request.is_over for request in world.network.requests.values())
    for name, node in world.nodes.items():
        assert not world.held(name)
        assert_idle(node.layer)


def test_a_session_that_ends_with_a_delivered_pair_voids_it_at_the_far_end() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    there.accept_pairs(its, 3)
    here.create(mine, 3)
    world.run()
    pairs = here.of(service.PairDelivered)
    world.nodes["alice"].device.read(pairs[0].qubit, "Z")  # used up: not void for the far end
    world.end_session(here, freed_first=bool(world.rng.integers(2)))
    world.run()
    voids = there.of(service.PairVoid)
    assert {void.pair for void in voids} == {pair.pair for pair in pairs[1:]}
    qubits = {pair.pair: pair.qubit for pair in there.of(service.PairDelivered)}
    assert all(void.qubit == qubits[void.pair] for void in voids)


@pytest.mark.parametrize("freed_first", [True, False])
def test_both_orders_of_session_end_and_freed_qubits_void_the_pair(freed_first: bool) -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    there.accept_pairs(its)
    here.create(mine)
    world.run()
    world.disconnect("alice", "bob")  # the notice waits for the channel
    world.end_session(here, freed_first=freed_first)
    world.run()
    assert len(there.of(service.PairVoid)) == 1


def test_void_of_a_pair_one_does_not_hold_with_that_peer_is_ignored() -> None:
    world = World("alice", "bob", "carol")
    here, there = world.session("alice"), world.session("bob")
    mine, its = meet(world, here, there)
    there.accept_pairs(its)
    here.create(mine)
    world.run()
    pair = here.of(service.PairDelivered)[0].pair
    world.event("alice", FromPeer("carol", messages.VoidPair(pair=pair)))
    assert not here.of(service.PairVoid)


def test_expiry_of_a_delivered_pair_is_told_to_both_sessions() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    there.accept_pairs(its)
    here.create(mine)
    world.run()
    (request,) = world.network.requests.values()
    world.network.expire(request, here.of(service.PairDelivered)[0].pair)
    assert len(here.of(service.PairVoid)) == len(there.of(service.PairVoid)) == 1


def test_pairs_beyond_the_number_and_of_unknown_requests_are_freed() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    there.accept_pairs(its)
    here.create(mine)
    world.run()
    (request,) = world.network.requests.values()
    request.is_over = False
    world.network.make(request)
    world.run()
    assert len(here.of(service.PairDelivered)) == 1
    assert not world.held("alice")
    assert not world.held("bob")


def test_fewer_pairs_than_asked_for_fail_the_calls() -> None:
    world, here, there = two()
    world.network.is_manual = True
    mine, its = meet(world, here, there)
    accept, create = there.accept_pairs(its), here.create(mine)
    world.run(20 * MS)
    (request,) = world.network.requests.values()
    for name in ("alice", "bob"):
        world.network.tell(name, network.NetworkDone(request=request.create.request))
    world.run()
    assert here.error(create) == there.error(accept) == "EXPIRED"


def test_outcomes_of_a_wrong_length_are_refused_without_harm() -> None:
    world, here, there = two()
    world.network.is_manual = True
    mine, its = meet(world, here, there)
    there.accept_pairs(its, 9, "X")
    here.create(mine, 9, "X")
    world.run(20 * MS)
    (request,) = world.network.requests.values()
    wrong = network.EndMeasured(
        request=request.create.request,
        purpose=7,
        remote="bob",
        side="head",
        pairs=9,
        outcomes=b"\0",
        x_bits=b"\0\0",
        z_bits=b"\0\0",
        bases=b"",
        goodness=0.5,
    )
    world.network.tell("alice", wrong)
    assert not here.of(service.PairsMeasured)
    world.network.make_measured(request, 12)  # more than asked for: the surplus is cut off
    world.run()
    assert sum(each.pairs for each in here.of(service.PairsMeasured)) == 9


def test_a_reading_that_fails_ends_the_flow() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    world.nodes["alice"].device.refuse = "GONE"
    accept, create = there.accept_pairs(its, 3, "X"), here.create(mine, 3, "X")
    world.run()
    assert here.error(create) == "EXPIRED"
    assert there.error(accept) in {"EXPIRED", "CANCELLED"}


def test_a_lost_device_ends_both_calls() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    accept, create = there.accept_pairs(its, 50), here.create(mine, 50)
    idle = here.accept_pairs(mine)
    world.run(10 * MS)
    world.lose_device("alice")
    world.run()
    assert here.error(create) == here.error(idle) == "DEVICE_LOST"
    assert there.error(accept) in {"DEVICE_LOST", "CANCELLED"}


def test_a_restarted_peer_ends_both_directions_with_peer_down() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    accept = there.accept_pairs(its, 50, within_ns=10**12)
    here.create(mine, 50)
    back = there.create(its, 1, within_ns=10**12)
    world.run(10 * MS)
    world.restart("alice")
    world.run()
    assert there.error(accept) == there.error(back) == "PEER_DOWN"
    assert not world.held("bob")


def test_without_a_deadline_a_lost_channel_ends_the_call_and_with_one_it_resumes() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    waits, ends = here.create(mine, 2, within_ns=10**12), here.create(mine, 2)
    world.run(5 * MS)
    world.disconnect("alice", "bob")
    assert here.error(ends) == "PEER_DOWN"
    accept = there.accept_pairs(its, 2)
    world.run()
    assert here.is_finished(waits)
    assert there.is_finished(accept)


@pytest.mark.parametrize("lost_at_us", range(0, 9000, 700))
def test_the_loss_of_the_channel_at_any_moment_loses_no_pair_of_a_call_with_deadline(
    lost_at_us: int,
) -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    accept = there.accept_pairs(its, 4, within_ns=10**12)
    create = here.create(mine, 4, within_ns=10**12)
    world.run(lost_at_us * 1000)
    world.disconnect("alice", "bob")
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)


def test_an_unreachable_peer_ends_a_call_without_deadline_and_the_deadline_ends_the_other() -> None:
    world, here, _ = two()
    world.blocked.add(frozenset(("alice", "bob")))
    mine = here.epr(7, "bob")
    ends, waits = here.create(mine), here.create(mine, within_ns=1000 * MS)
    world.run(10 * MS)
    assert here.error(ends) == "PEER_DOWN"
    assert waits not in here.closings
    world.run()
    assert here.error(waits) == "TIMEOUT"


def test_offers_nobody_accepts_are_bounded_per_peer() -> None:
    world, here, there = two()
    mine, _ = meet(world, here, there)
    calls = [here.create(mine) for _ in range(params.PENDING_PER_PEER_MAX)]
    world.run(10 * MS)
    assert not any(call in here.closings for call in calls)
    one_more = here.create(mine)
    world.run(10 * MS)
    assert here.error(one_more) == "NO_RESOURCES"


def test_a_credit_for_more_than_is_on_offer_or_of_the_wrong_kind_is_answered_with_error() -> None:
    world, here, _ = two()
    mine = here.epr(7, "bob")
    here.create(mine, 2)
    world.run(10 * MS)
    (offer,) = world.says(messages.OpenFlow)
    for number, basis in ((3, None), (2, "X")):
        credit = messages.CreditFlow(
            flow=offer.flow, request=world.fresh_id(), number=number, basis=basis
        )
        world.event("alice", FromPeer("bob", credit))
    assert [error.name for error in world.says(messages.Error)] == ["OUT_OF_STATE"] * 2
    assert not world.network.created


def test_a_credit_for_an_unknown_flow_is_answered_with_close() -> None:
    world, _, _ = two()
    world.connect("alice", "bob")
    credit = messages.CreditFlow(flow=bytes(16), request=bytes(16), number=1, basis=None)
    world.event("alice", FromPeer("bob", credit))
    assert [close.id for close in world.says(messages.Close)] == [bytes(16)]


def test_delivered_pairs_are_remembered_up_to_a_limit_and_the_oldest_forgotten() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    number = params.DELIVERED_PAIRS_MAX + 1
    world.network.pair_ns = 1000
    there.accept_pairs(its, number)
    here.create(mine, number)
    world.run()
    pairs = world.nodes["bob"].layer._pairs
    assert len(pairs) == params.DELIVERED_PAIRS_MAX
    first, *_, last = there.of(service.PairDelivered)
    assert pairs.get(first.pair) is None
    assert pairs.get(last.pair) is not None


def test_notices_for_a_peer_without_a_channel_are_kept_up_to_a_limit() -> None:
    world, here, there = two()
    mine, its = meet(world, here, there)
    number = params.QUEUED_SENDS_MAX + 1
    world.network.pair_ns = 1000
    there.accept_pairs(its, number)
    here.create(mine, number)
    world.run()
    world.disconnect("alice", "bob")
    world.end_session(here)
    world.run()
    assert len(there.of(service.PairVoid)) == params.QUEUED_SENDS_MAX
    assert [record.name for record in world.records] == ["transport.send_dropped"]
