"""Who listens for which purpose, and what becomes of requests when that changes."""

import pytest

from qstack.link import messages, service
from tests.link.bench import ALICE, BOB, PURPOSE, Bench, create, identity
from tests.link.lossy import BOTH, OTHER

ELSE = b"e" * 16


@pytest.mark.parametrize("by", BOTH)
def test_a_request_is_accepted_for_the_purposes_listened_for_and_for_no_other(by: str) -> None:
    bench = Bench().begin()
    bench.serving(create(1, OTHER[by]), by=by)
    bench.serving(create(2, OTHER[by], purpose=ELSE), by=by)
    assert bench.errors(by) == ["REJECTED"]
    assert bench.errors(OTHER[by]) == []
    (rejected,) = bench.said(OTHER[by], messages.AddRejected)
    assert (rejected.request, rejected.error) == (identity(2), "REJECTED")
    assert [*bench.ends[by].machine.peers[OTHER[by]].requests] == [identity(1)]


def test_who_asks_need_not_listen_itself() -> None:
    bench = Bench().begin()
    bench.say(ALICE, service.LinkUnlisten(peer=BOB, purpose=PURPOSE))
    bench.serving(create(1))
    assert [len(bench.ends[name].batches) for name in BOTH] == [2, 2]


def test_a_listener_that_was_withdrawn_accepts_no_more() -> None:
    bench = Bench().begin()
    bench.say(BOB, service.LinkUnlisten(peer=ALICE, purpose=PURPOSE))
    bench.serving(create(1))
    assert bench.errors(ALICE) == ["REJECTED"]
    bench.say(BOB, service.LinkListen(peer=ALICE, purpose=PURPOSE))
    bench.serving(create(2))
    assert bench.errors(ALICE) == ["REJECTED"]
    assert [len(bench.ends[name].batches) for name in BOTH] == [2, 2]


def test_a_withdrawn_listener_ends_what_is_open_for_its_purpose_and_nothing_else() -> None:
    bench = Bench().begin()
    bench.say(BOB, service.LinkListen(peer=ALICE, purpose=ELSE))
    bench.serving(create(1))
    bench.serving(create(2, purpose=ELSE))
    bench.say(BOB, service.LinkUnlisten(peer=ALICE, purpose=ELSE))
    bench.deliver()
    for name in BOTH:
        (failed,) = bench.all(name, service.LinkFailed)
        assert (failed.request, failed.purpose, failed.error) == (identity(2), ELSE, "CANCELLED")
        assert [*bench.ends[name].machine.peers[OTHER[name]].requests] == [identity(1)]


def test_a_listener_withdrawn_while_a_request_is_on_its_way_rejects_it() -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1))
    bench.say(BOB, service.LinkUnlisten(peer=ALICE, purpose=PURPOSE))
    bench.deliver()
    assert bench.errors(ALICE) == ["REJECTED"]
    assert not bench.all(BOB, service.LinkFailed)


@pytest.mark.parametrize("kind", ["keep", "measure", "prepare"])
@pytest.mark.parametrize("canceller", BOTH)
def test_either_end_cancels_a_request_of_any_kind(kind: str, canceller: str) -> None:
    bases = {
        "keep": {},
        "measure": {"basis": "X", "peer_basis": "Z"},
        "prepare": {"basis": "X"},
    }[kind]
    bench = Bench().begin()
    bench.serving(create(1, kind=kind, **bases))
    bench.say(canceller, service.LinkCancel(request=identity(1)))
    bench.deliver()
    for name in BOTH:
        assert bench.errors(name) == ["CANCELLED"]
        assert not bench.ends[name].batches


def test_purposes_of_unknown_nodes_and_unknown_requests_do_not_matter() -> None:
    bench = Bench().begin()
    bench.say(ALICE, service.LinkListen(peer="carol", purpose=ELSE))
    bench.say(ALICE, service.LinkUnlisten(peer="carol", purpose=ELSE))
    bench.say(ALICE, service.LinkUnlisten(peer=BOB, purpose=ELSE))
    bench.say(ALICE, service.LinkCancel(request=identity(9)))
    assert not bench.ends[ALICE].batches
    assert not bench.all(ALICE, service.LinkFailed)
