"""Credits an acceptor gives before anything is offered: flows that take them are not offered."""

import pytest

from qstack.machine import FromPeer, Told
from qstack.network import service as network
from qstack.transport import messages, params, service
from qstack.transport.qubit_requests import request_id
from qstack.transport.stream_socket import Name
from tests.transport.session import Session
from tests.transport.world import MS, World, assert_idle


def two() -> tuple[World, Session, Session, int, int]:
    """alice and bob with a channel, and a socket each."""
    world = World("alice", "bob")
    world.connect("alice", "bob")
    here, there = world.session("alice"), world.session("bob")
    return world, here, there, here.epr(7, "bob"), there.epr(7, "alice")


def test_a_flow_to_an_acceptor_that_waits_is_asked_for_at_once() -> None:
    world, here, there, mine, its = two()
    accept = there.accept_pairs(its, 3)
    world.run(5 * MS)
    create = here.create(mine, 3)
    assert [each.number for each in world.network.created] == [3], "no answer was waited for"
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)
    assert not world.says(messages.OpenFlow)
    assert not world.says(messages.CreditFlow)
    for node in world.nodes.values():
        assert_idle(node.layer)


def test_what_the_credits_do_not_cover_is_offered() -> None:
    world, here, there, mine, its = two()
    accepts = [there.accept_pairs(its, 2), there.accept_pairs(its, 1)]
    world.run(5 * MS)
    create = here.create(mine, 10)
    assert [each.number for each in world.network.created] == [2, 1]
    assert [offer.number for offer in world.says(messages.OpenFlow)] == [7]
    world.run(100 * MS)
    accepts.append(there.accept_pairs(its, 7))
    world.run()
    assert here.is_finished(create)
    assert all(there.is_finished(call) for call in accepts)
    assert len(there.of(service.PairDelivered)) == 10


def test_an_accept_of_more_pairs_credits_the_rest_anew() -> None:
    world, here, there, mine, its = two()
    accept = there.accept_pairs(its, 5)
    world.run(5 * MS)
    creates = []
    for number in (2, 3):
        creates.append(here.create(mine, number))
        world.run(100 * MS)
    assert all(here.is_finished(call) for call in creates)
    assert there.is_finished(accept)
    assert [credit.number for credit in world.says(messages.CreditAhead)] == [5, 3]
    assert not world.says(messages.OpenFlow)


def test_measured_pairs_go_by_credits_with_a_basis() -> None:
    world, here, there, mine, its = two()
    there.accept_pairs(its, 4)
    accept = there.accept_pairs(its, 4, "X")
    world.run(5 * MS)
    create = here.create(mine, 4, "X")
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)
    assert [(c.kind, c.remote_basis) for c in world.network.created] == [("measure", "X")]


def test_an_older_flow_on_offer_is_not_overtaken() -> None:
    world, here, there, mine, its = two()
    first = here.create(mine)
    accept = there.accept_pairs(its)
    world.run(MS)  # the offer and the credit ahead cross
    second = here.create(mine)
    world.run(100 * MS)
    assert here.is_finished(first)
    assert there.is_finished(accept)
    assert second not in here.closings
    assert not world.says(messages.TakeCredit)


def test_a_credit_taken_back_leaves_the_flow_on_offer() -> None:
    world, here, there, mine, its = two()
    first = there.accept_pairs(its, 2)
    world.run(5 * MS)
    there.cancel(first)
    create = here.create(mine, 2)  # CreditGone is on its way
    world.run(100 * MS)
    assert there.error(first) == "CANCELLED"
    assert create not in here.closings
    second = there.accept_pairs(its, 2)
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(second)
    assert not world.held("alice")
    assert not world.held("bob")
    for node in world.nodes.values():
        assert_idle(node.layer)


def test_a_credit_taken_back_before_the_flow_is_forgotten() -> None:
    world, here, there, mine, its = two()
    accept = there.accept_pairs(its, within_ns=20 * MS)
    world.run(100 * MS)
    assert there.error(accept) == "TIMEOUT"
    here.create(mine)
    assert not world.network.created
    assert [offer.number for offer in world.says(messages.OpenFlow)] == [1]


@pytest.mark.parametrize("run_ns", [0, MS // 2, MS, 3 * MS])
def test_a_channel_lost_while_a_credit_is_taken_costs_nothing(run_ns: int) -> None:
    world, here, there, mine, its = two()
    accept = there.accept_pairs(its, within_ns=10_000 * MS)
    world.run(5 * MS)
    world.network.is_manual = True
    create = here.create(mine, within_ns=10_000 * MS)
    world.run(run_ns)
    world.disconnect("alice", "bob")
    world.network.is_manual = False
    world.connect("alice", "bob")
    for request in list(world.network.requests.values()):
        world.network.make(request)
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)
    assert world.held("alice") == world.held("bob") == []


def test_credits_end_with_the_channel_and_come_back_with_it() -> None:
    world, here, there, mine, its = two()
    there.accept_pairs(its, within_ns=10_000 * MS)
    world.run(5 * MS)
    world.disconnect("alice", "bob")
    here.create(mine, within_ns=10_000 * MS)
    assert not world.network.created
    world.connect("alice", "bob")
    world.run()
    assert len(world.network.created) == 1
    assert len(world.says(messages.CreditAhead)) == 2


def test_a_peer_that_restarts_forgets_what_was_credited() -> None:
    world, here, there, _, its = two()
    there.accept_pairs(its, within_ns=10_000 * MS)
    world.run(5 * MS)
    world.restart("alice")
    world.connect("alice", "bob")
    again = world.session("alice")
    world.run(5 * MS)
    create = again.create(again.epr(7, "bob"))
    world.run()
    assert again.is_finished(create)
    assert not here.of(service.PairDelivered)


def test_taking_more_than_was_credited_is_out_of_state() -> None:
    world, _, there, _, its = two()
    accept = there.accept_pairs(its, 2)
    world.run(5 * MS)
    (credit,) = world.says(messages.CreditAhead)
    taken = messages.TakeCredit(flow=bytes(16), request=credit.request, number=3)
    world.event("bob", FromPeer("alice", taken))
    assert [error.name for error in world.says(messages.Error)] == ["OUT_OF_STATE"]
    assert accept not in there.closings


def test_a_credit_nobody_gave_is_answered_as_gone() -> None:
    world, *_ = two()
    taken = messages.TakeCredit(flow=bytes(16), request=b"r" * 16, number=1)
    world.event("bob", FromPeer("alice", taken))
    assert [gone.request for gone in world.says(messages.CreditGone)] == [b"r" * 16]


@pytest.mark.parametrize(("kind", "basis"), [("keep", "X"), ("measure", None)])
def test_a_credit_whose_basis_does_not_go_with_its_kind_is_invalid(
    kind: str, basis: str | None
) -> None:
    world, *_ = two()
    credit = messages.CreditAhead(port=7, kind=kind, request=b"r" * 16, number=1, basis=basis)
    world.event("alice", FromPeer("bob", credit))
    assert [error.name for error in world.says(messages.Error)] == ["INVALID"]


def test_a_credit_the_far_end_used_for_a_flow_that_ended_is_not_taken_again() -> None:
    world, here, there, mine, its = two()
    first = here.create(mine)
    accept = there.accept_pairs(its)  # offer and credit ahead cross
    world.run(3 * MS // 2)
    here.cancel(first)  # as do the credit of the offer, and its end
    world.run(10 * MS)
    assert here.error(first) == there.error(accept) == "CANCELLED"
    second = here.create(mine)
    assert not world.says(messages.TakeCredit)
    accept = there.accept_pairs(its)
    world.run()
    assert here.is_finished(second)
    assert there.is_finished(accept)


def test_credits_beyond_the_limit_are_not_kept_and_the_pairs_come_all_the_same() -> None:
    world, here, there, mine, its = two()
    for n in range(params.PENDING_PER_PEER_MAX):
        credit = messages.CreditAhead(
            port=9, kind="keep", request=b"%016d" % n, number=1, basis=None
        )
        world.event("alice", FromPeer("bob", credit))
    accept = there.accept_pairs(its)
    world.run(5 * MS)
    create = here.create(mine)
    assert world.says(messages.OpenFlow), "the credit found no room"
    world.run()
    assert here.is_finished(create)
    assert there.is_finished(accept)


def test_a_request_that_a_stream_was_to_use_is_used_once() -> None:
    """The same request named for a stream and for a flow: the stream ends, nothing breaks."""
    world, here, there, mine, _ = two()
    listener = there.listen(5)
    accepted = there.accept(listener)
    stream = here.stream("qubit", "bob", 5)
    world.run(10 * MS)
    there.socket(accepted)
    (opened,) = world.says(messages.OpenStream)
    allowed = messages.Credit(stream=opened.stream, received=0, allowed=1)
    world.event("alice", FromPeer("bob", allowed))
    name = Name(peer="bob", id=opened.stream, is_opener=True, port=5)
    request = request_id(name, "alice", 0)
    ahead = messages.CreditAhead(port=7, kind="keep", request=request, number=1, basis=None)
    world.event("alice", FromPeer("bob", ahead))
    here.create(mine)
    sent = here.send_qubit(here.socket(stream), "data")
    world.run(10 * MS)
    assert here.error(sent) == "OUT_OF_STATE"


def test_a_stream_whose_requests_are_named_for_a_flow_ends_when_it_is_accepted() -> None:
    world, _, there, _, its = two()
    there.accept_pairs(its)
    world.run(10 * MS)
    (ahead,) = world.says(messages.CreditAhead)
    listener = there.listen(5)
    accepted = there.accept(listener)
    offer = messages.OpenStream(stream=b"s" * 16, kind="qubit", port=5, deadline_ns=None)
    name = Name(peer="alice", id=offer.stream, is_opener=False, port=5)
    requests = world.nodes["bob"].layer._context.requests
    requests[request_id(name, "bob", 3)] = requests[ahead.request]
    world.event("bob", FromPeer("alice", offer))
    received = there.receive_qubit(there.socket(accepted))
    assert there.error(received) == "OUT_OF_STATE"
    assert [each.name for each in world.says(messages.Error)] == ["OUT_OF_STATE"]


@pytest.mark.parametrize("basis", [None, "Z"])
@pytest.mark.parametrize("in_device", [True, False])
def test_pairs_that_come_before_the_word_of_their_flow_are_kept(
    basis: str | None, in_device: bool
) -> None:
    world, here, there, mine, its = two()
    world.network.pair_ns, world.network.skew_ns = 1000, (0, 0)
    world.network.measures_in_device = in_device
    accept = there.accept_pairs(its, 4, basis)
    world.run(5 * MS)
    create = here.create(mine, 3, basis)
    world.run(MS // 2)
    assert not there.of(service.PairDelivered)
    assert not there.of(service.PairsMeasured)
    assert len(world.held("bob")) == (0 if basis and in_device else 3)
    world.run()
    assert here.is_finished(create)
    if basis is None:
        assert len(there.of(service.PairDelivered)) == 3
        assert all(world.half(there, each.qubit).x == 0 for each in there.of(service.PairDelivered))
    else:
        assert sum(each.pairs for each in there.of(service.PairsMeasured)) == 3
    assert accept not in there.closings, "one pair is still wanted"
    there.cancel(accept)
    world.run()
    assert_idle(world.nodes["bob"].layer)


def test_early_pairs_of_an_accept_that_ends_are_freed() -> None:
    world, here, there, mine, its = two()
    world.network.pair_ns, world.network.skew_ns = 1000, (0, 0)
    accept = there.accept_pairs(its, 5)
    world.run(5 * MS)
    create = here.create(mine, 5)
    world.run(3000)
    assert world.held("bob")
    there.cancel(accept)
    assert not world.held("bob")
    world.run()
    assert there.error(accept) == "CANCELLED"
    assert here.error(create) == "CANCELLED"
    assert_idle(world.nodes["bob"].layer)


def test_a_request_that_ends_before_the_word_of_its_flow_leaves_the_accept_to_others() -> None:
    world, here, there, mine, its = two()
    accept = there.accept_pairs(its)
    world.run(5 * MS)
    world.network.is_manual = True
    create = here.create(mine)
    (request,) = world.network.requests
    ended = network.NetworkFailed(request=request, error="PEER_DOWN", detail="", best=None)
    world.event("bob", Told("network", ended))
    world.network.is_manual = False
    world.run()
    assert len(world.says(messages.CreditAhead)) == 2
    assert [gone.request for gone in world.says(messages.CreditGone)] == [request]
    assert here.is_finished(create), "it was offered, and credited anew"
    assert there.is_finished(accept)
