"""The hash chain of a node, and the hash of a run."""

import pytest

from qstack.machine import Effect, Event, PeerDown, Record, Tell, TimerFired, Told
from qstack.runtime.session_messages import Sleep, Woken
from qstack.runtime.trace import DIGEST_BYTES, Trace, run_digest

STEP: tuple[int, str, int, str, Event, list[Effect]] = (
    5, "bob", 1, "link", TimerFired("a"), [Tell("app/1", Woken(call=1))],
)  # fmt: skip


def chain(*steps: tuple[int, str, int, str, Event, list[Effect]]) -> bytes:
    trace = Trace()
    for step in steps:
        trace.add(*step)
    assert trace.steps == len(steps)
    return trace.digest


def test_equal_steps_make_equal_chains() -> None:
    assert chain(STEP, STEP) == chain(STEP, STEP)
    assert len(chain(STEP)) == DIGEST_BYTES
    assert chain() == bytes(DIGEST_BYTES)
    assert chain(STEP) != chain(STEP, STEP)


OTHERS: list[tuple[int, str, int, str, Event, list[Effect]]] = [
    (6, *STEP[1:]),
    (5, "carol", *STEP[2:]),
    (5, "bob", 2, *STEP[3:]),
    (5, "bob", 1, "network", *STEP[4:]),
    (*STEP[:4], TimerFired("b"), STEP[5]),
    (*STEP[:4], PeerDown("a"), STEP[5]),
    (*STEP[:5], []),
    (*STEP[:5], [Tell("app/1", Woken(call=2))]),
    (*STEP[:5], [Tell("app/2", Woken(call=1))]),
    (*STEP[:5], [*STEP[5], Record("x", {})]),
]


@pytest.mark.parametrize("other", OTHERS)
def test_every_part_of_a_step_is_in_the_chain(
    other: tuple[int, str, int, str, Event, list[Effect]],
) -> None:
    assert chain(other) != chain(STEP)


def test_messages_of_different_classes_with_equal_fields_differ() -> None:
    first = (*STEP[:4], Told("x", Woken(call=1)), STEP[5])
    second = (*STEP[:4], Told("x", Sleep(call=1, span_ns=1)), STEP[5])
    assert chain(first) != chain(second)


def test_the_order_of_steps_counts_and_that_of_fields_does_not() -> None:
    other = OTHERS[0]
    assert chain(STEP, other) != chain(other, STEP)
    one = (*STEP[:5], [Record("x", {"a": 1, "b": 2})])
    two = (*STEP[:5], [Record("x", {"b": 2, "a": 1})])
    assert chain(one) == chain(two)


def test_an_observer_sees_each_step() -> None:
    seen: list[object] = []
    trace = Trace(lambda *step: seen.append(step))
    trace.add(*STEP)
    assert seen == [(5, "bob", "link", STEP[4], STEP[5])]


def test_the_hash_of_a_run_is_over_names_and_chains_in_the_order_of_names() -> None:
    first, second = chain(STEP), chain(STEP, STEP)
    assert run_digest({"a": first, "b": second}) == run_digest({"b": second, "a": first})
    assert run_digest({"a": first, "b": second}) != run_digest({"a": second, "b": first})
    assert run_digest({"a": first}) != run_digest({"a": first, "b": bytes(DIGEST_BYTES)})
