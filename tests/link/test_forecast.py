"""Requests whose time cannot be enough are refused at once; all others are tried."""

from typing import Any

import pytest

from qstack.link import messages
from qstack.link.forecast import expected_ns, shortest_ns
from qstack.link.params import LATENESS_MAX
from qstack.link.peer import Peer
from tests.link.bench import ALICE, BOB, FAST, GOOD, LINK, SECOND, Bench, create, identity

PAIR_NS = 1_000_000  # of GOOD, with one slot


def peer(slots: int = 1, share: float = 0.0) -> Peer:
    found = Bench((slots, slots), test_share=share).begin().ends[ALICE].machine.peers[BOB]
    assert found.link == LINK
    return found


def test_the_expected_time_is_that_of_the_option_and_of_all_slots() -> None:
    assert expected_ns(peer(), GOOD, "keep", 7) == pytest.approx(7 * PAIR_NS)
    assert expected_ns(peer(), FAST, "keep", 7) == pytest.approx(7 * PAIR_NS / 10)
    assert expected_ns(peer(4), GOOD, "keep", 8) == pytest.approx(2 * PAIR_NS)
    assert expected_ns(peer(4), GOOD, "measure", 8) == pytest.approx(4 * PAIR_NS), "one batch"
    assert expected_ns(peer(share=0.5), GOOD, "keep", 1) == pytest.approx(2 * PAIR_NS)
    assert expected_ns(peer(share=0.5), GOOD, "measure", 2) == pytest.approx(PAIR_NS)


def test_no_pair_takes_less_than_its_attempt() -> None:
    assert shortest_ns(peer(), GOOD, "keep", 7) == 7_000
    assert shortest_ns(peer(4), GOOD, "keep", 9) == 3_000
    assert shortest_ns(peer(4), GOOD, "measure", 9) == 4_500


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"number": 1, "deadline_ns": PAIR_NS // LATENESS_MAX - 1}, ["NO_TIME"]),
        ({"number": 1, "deadline_ns": PAIR_NS // LATENESS_MAX}, []),
        ({"number": 1000, "deadline_ns": 10 * PAIR_NS - 1}, ["NO_TIME"]),
        ({"number": 1000, "deadline_ns": 10 * PAIR_NS}, []),
        ({"number": None, "deadline_ns": 1000}, []),
        ({"min_fidelity": 0.95, "number": 10**6, "deadline_ns": 1000}, ["FIDELITY"]),
    ],
)
def test_what_cannot_be_had_in_time_is_refused_at_once(
    changes: dict[str, Any], errors: list[str]
) -> None:
    bench = Bench((1, 1)).begin()
    bench.now = 0
    bench.say(ALICE, create(1, **{"min_fidelity": 0.9, **changes}))
    assert bench.errors(ALICE) == errors
    assert len(bench.said(ALICE, messages.Add)) == 1 - len(errors)


def test_the_far_end_judges_alike() -> None:
    bench = Bench((1, 1)).begin()
    bench.say(ALICE, create(1, number=1000, deadline_ns=SECOND))
    (add,) = bench.said(ALICE, messages.Add)
    changed = {"deadline_ns": bench.now + 1000, "request": identity(2), "queue_number": 1}
    bench.inject(BOB, messages.Add(**{**_fields(add), **changed}))
    assert [said.error for said in bench.said(BOB, messages.AddRejected)] == ["NO_TIME"]


def test_a_way_to_run_the_link_that_is_not_there_keeps_no_fidelity() -> None:
    bench = Bench((1, 1)).begin()
    bench.say(ALICE, create(1, number=10, deadline_ns=SECOND))
    (add,) = bench.said(ALICE, messages.Add)
    for which, bright_state in ((2, 0.25), (3, None)):
        changed = {"bright_state": bright_state, "request": identity(which), "queue_number": which}
        bench.inject(BOB, messages.Add(**{**_fields(add), **changed}))
    assert [said.error for said in bench.said(BOB, messages.AddRejected)] == ["FIDELITY"] * 2


def _fields(add: messages.Add) -> dict[str, Any]:
    return {name: getattr(add, name) for name in add.__struct_fields__ if name not in ("x", "at")}
