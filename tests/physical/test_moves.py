"""Moves asked for from above: admission of communication qubits, times, errors, cost."""

from typing import Any

import pytest

from qstack.machine import OwnerGone, Send, Told
from qstack.physical.device import DoMove, Generate
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.service import (
    BellMeasure,
    BellMeasured,
    CallDone,
    CallFailed,
    Free,
    Move,
)
from tests.physical.calls import APP, MS, OTHER, allocate, bench, gate, operation_of, start
from tests.physical.worlds import Bench

STORAGE: dict[str, Any] = {
    "comm_qubits": 1, "parallel_links": False, "memory": 4,
    "move_ns": 50_000, "move_depolarising": 0.04,
}  # fmt: skip
STAR: dict[str, Any] = {**STORAGE, "topology": "star"}


def move(on: Bench, qubit: bytes, to: Any, call: int | None = 1, owner: str = APP) -> list[Any]:
    return on.tell("a", owner, Move(call=call, qubit=qubit, to=to))


def begun(on: Bench, batch: int) -> bool:
    """Whether the device is told to attempt at once."""
    effects = on.handle("a", Told("link", start(batch)))
    return any(isinstance(e, Send) and isinstance(e.message, Generate) for e in effects)


def test_a_move_takes_its_time_and_depolarises_the_qubit() -> None:
    """Exactly by the profile's move, once each way; a qubit that is there stays as it is."""
    on = bench("ab", **STORAGE)
    mine = [allocate(on), allocate(on)]
    kept = 1.0
    for place, to, cost in (
        (0, "communication", 0.96), (0, "communication", 1.0), (0, "storage", 0.96),
    ):  # fmt: skip
        begin_ns = on.now
        assert move(on, mine[place], to) == []
        on.run(on.now + MS)
        times = [at for at, _, _, said in on.told if isinstance(said, CallDone)]
        assert times[-1] == begin_ns + 50_000
        kept *= cost
        keys = QubitKey("a", mine[0]), QubitKey("a", mine[1])
        assert on.fabric.truth(*keys, on.now)[3, 0] == pytest.approx(kept, abs=1e-12)


def test_a_refused_move_has_changed_nothing() -> None:
    on = bench("ab", **STORAGE)
    first, second = allocate(on), allocate(on)
    for qubit, to, owner, error in (
        (first, "storage", OTHER, "NOT_OWNER"),
        (b"?" * 16, "storage", APP, "GONE"),
    ):
        assert move(on, qubit, to, owner=owner)[0].error == error
    move(on, first, "communication")
    assert move(on, second, "communication")[0].error == "NO_RESOURCES"
    on.run(on.now + MS)
    move(on, first, "storage")
    on.run(on.now + MS)
    assert move(on, second, "communication") == []
    nowhere = bench("ab", memory=4)
    (unsupported,) = move(nowhere, allocate(nowhere), "storage")
    assert unsupported.error == "UNSUPPORTED"


def test_the_device_may_still_refuse_and_the_place_is_given_back() -> None:
    """In wall time a pair may take the communication qubit first."""
    on = bench("ab", **STORAGE)
    mine = allocate(on)
    taken = DoMove(at_ns=on.now, sequence=1, qubit=mine, to="communication")
    other = allocate(on, OTHER)
    on.fabric.apply("a", taken)
    move(on, other, "communication", owner=OTHER)
    on.run(on.now + MS)
    assert on.heard("a", OTHER, CallFailed)[-1].error == "NO_RESOURCES"
    assert begun(on, 1)


def test_attempts_wait_while_the_communication_qubit_is_lent() -> None:
    on = bench("ab", probability=0.0, **STORAGE)
    mine = allocate(on)
    move(on, mine, "communication", call=None)
    on.run(on.now + MS)
    assert on.heard("a", APP, CallDone) == []  # nobody waited for it
    assert not begun(on, 1)
    on.run(on.now + 30 * MS)
    assert on.fabric.snapshot().batches["a"] == 0
    move(on, mine, "storage")
    on.run(on.now + 20 * MS)
    assert on.fabric.snapshot().batches["a"] == 1
    assert move(on, mine, "communication")[0].error == "NO_RESOURCES"  # and the other way round


@pytest.mark.parametrize("way", ["freed", "owner gone", "measured"])
def test_a_lent_communication_qubit_comes_back_when_its_qubit_ends(way: str) -> None:
    on = bench("ab", probability=0.0, **STORAGE)
    mine = allocate(on)
    move(on, mine, "communication")
    on.run(on.now + MS)
    if way == "freed":
        on.tell("a", APP, Free(qubit=mine))
    elif way == "owner gone":
        on.handle("a", OwnerGone(APP))
    else:
        other = allocate(on)
        on.tell("a", APP, BellMeasure(call=4, first=mine, second=other))
    on.run(on.now + MS)
    assert begun(on, 1)


def test_who_moves_a_qubit_to_the_middle_of_a_star_saves_the_moves_of_its_gates() -> None:
    on = bench("ab", **STAR)
    mine = [allocate(on), allocate(on)]
    effects = on.handle("a", Told(APP, gate(1, "cz", *mine)))
    assert sum(isinstance(e, Send) and isinstance(e.message, DoMove) for e in effects) == 2
    on.run(on.now + MS)
    move(on, mine[1], "communication")
    on.run(on.now + MS)
    effects = [
        *on.handle("a", Told(APP, gate(2, "cz", *mine))),
        *on.handle("a", Told(APP, BellMeasure(call=3, first=mine[0], second=mine[1]))),
    ]
    assert not any(isinstance(e, Send) and isinstance(e.message, DoMove) for e in effects)
    on.run(on.now + MS)
    assert on.heard("a", APP, CallFailed) == []


def test_gates_of_others_that_need_the_middle_of_a_star_are_refused_while_it_is_lent() -> None:
    on = bench("ab", **STAR)
    mine, others = allocate(on), [allocate(on, OTHER), allocate(on, OTHER)]
    move(on, mine, "communication")
    on.run(on.now + MS)
    (gate_refused,) = on.tell("a", OTHER, gate(1, "cz", *others))
    bell = BellMeasure(call=2, first=others[0], second=others[1])
    (bell_refused,) = on.tell("a", OTHER, bell)
    assert (gate_refused.error, bell_refused.error) == ("NO_RESOURCES", "NO_RESOURCES")
    move(on, mine, "storage")
    on.run(on.now + MS)
    on.tell("a", OTHER, bell)
    on.run(on.now + MS)
    assert len(on.heard("a", OTHER, BellMeasured)) == 1


def test_a_session_hears_of_a_move_only_when_a_refusal_would_have_come() -> None:
    on = bench("ab", **(STORAGE | {"move_ns": 0}))
    mine = allocate(on)
    begin_ns = on.now
    effects = on.handle("a", Told(APP, Move(call=1, qubit=mine, to="communication")))
    assert operation_of(effects, DoMove).at_ns == begin_ns
    on.run(on.now + MS)
    assert [at for at, _, _, said in on.told if isinstance(said, CallDone)] == [begin_ns + 1_001]
