"""Conversations with the physical layer of a node: every answer, every refusal, every loss."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstack.machine import (
    FABRIC,
    FromPeer,
    OwnerGone,
    PeerDown,
    PeerUp,
    Tell,
    TimerFired,
    Told,
)
from qstack.physical import batch_states, qubit_states
from qstack.physical.device import (
    Generate,
    Initialise,
    OperationRefused,
    Outcome,
    Reply,
)
from qstack.physical.service import (
    Allocate,
    Allocated,
    AttemptsEnded,
    AttemptsStop,
    BellMeasure,
    BellMeasured,
    CallDone,
    CallFailed,
    DeviceLost,
    DeviceReady,
    Free,
    Heralded,
    LinkCapability,
    Measure,
    Measured,
    NodeCapability,
    QubitsFreed,
    Reset,
    Transfer,
)
from qstack.wire.message import Message
from tests.physical.calls import APP, MS, OTHER, allocate, bench, gate, only, operation_of, start


def test_a_device_that_comes_is_announced_with_what_it_can_do() -> None:
    on = bench(memory=5)
    for layer in ("link", "network", "transport"):
        assert isinstance(on.heard("b", layer)[0], DeviceReady)
    first, second = on.heard("b", "link", LinkCapability)
    assert (first.link, first.peer, second.link, second.peer) == ("a-b", "a", "b-c", "c")
    assert first.slots == 2
    assert first.delay_ns == on.world.links["a-b"].delay_ns
    (option,) = first.options
    assert option.bright_state is None
    assert option.probability == 1.0
    assert option.bell_probabilities == pytest.approx([1.0, 0.0, 0.0, 0.0])
    (capability,) = on.heard("b", "network", NodeCapability)
    assert (capability.memory, capability.swap_ns, capability.swap_flip) == (5, 5_100, 0.0)


def test_a_qubit_lives_through_gates_reset_and_measurement() -> None:
    on = bench()
    qubit = allocate(on)
    on.tell("a", APP, gate(1, "x", qubit))
    on.run(on.now + MS)
    on.tell("a", APP, Measure(call=2, qubit=qubit, basis="Z"))
    assert only(on.tell("a", APP, gate(3, "x", qubit))).error == "GONE"
    on.run(on.now + MS)
    assert on.heard("a", APP)[1:] == [
        CallDone(call=1),
        CallFailed(call=3, error="GONE", detail=qubit.hex()),
        Measured(call=2, outcome=1),
    ]
    again = allocate(on)
    on.tell("a", APP, gate(None, "x", again))
    on.tell("a", APP, Reset(call=4, qubit=again))
    on.tell("a", APP, Measure(call=5, qubit=again, basis="Z"))
    on.run(on.now + MS)
    assert on.heard("a", APP)[-2:] == [CallDone(call=4), Measured(call=5, outcome=0)]
    assert on.fabric.snapshot().qubits["a"] == 0


def test_operations_of_a_node_wait_for_each_other() -> None:
    on = bench()
    first, second = allocate(on), allocate(on)
    begin = on.now
    on.tell("a", APP, gate(1, "cnot", first, second))
    on.tell("a", APP, gate(2, "h", first))
    on.tell("a", APP, BellMeasure(call=3, first=first, second=second))
    on.run(begin + MS)
    answers = [(at - begin, said) for at, _, to, said in on.told if to == APP and at > begin]
    assert [at for at, _ in answers] == [2_000, 2_100, 2_100 + 5_100]
    assert isinstance(answers[-1][1], BellMeasured)


def test_a_bell_pair_is_told_as_it_was_made() -> None:
    on = bench()
    first, second = allocate(on), allocate(on)
    for call in (gate(None, "h", first), gate(None, "cnot", first, second), gate(None, "x", first)):
        on.tell("a", APP, call)
    on.tell("a", APP, BellMeasure(call=1, first=first, second=second))
    on.run(on.now + MS)
    assert on.heard("a", APP)[-1] == BellMeasured(call=1, x_bit=1, z_bit=0)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda q, o: gate(7, "cnot", q), "BAD_REQUEST"),
        (lambda q, o: gate(7, "h", q, o), "BAD_REQUEST"),
        (lambda q, o: gate(7, "cnot", q, q), "BAD_REQUEST"),
        (lambda q, o: gate(7, "h", q, angle=0.1), "BAD_REQUEST"),
        (lambda q, o: gate(7, "h", o), "NOT_OWNER"),
        (lambda q, o: gate(7, "cz", q, o), "NOT_OWNER"),
        (lambda q, o: gate(7, "h", b"?" * 16), "GONE"),
        (lambda q, o: Measure(call=7, qubit=o, basis="X"), "NOT_OWNER"),
        (lambda q, o: Measure(call=7, qubit=b"?" * 16, basis="X"), "GONE"),
        (lambda q, o: BellMeasure(call=7, first=q, second=q), "BAD_REQUEST"),
        (lambda q, o: BellMeasure(call=7, first=q, second=o), "NOT_OWNER"),
        (lambda q, o: BellMeasure(call=7, first=b"?" * 16, second=q), "GONE"),
        (lambda q, o: Reset(call=7, qubit=o), "NOT_OWNER"),
        (lambda q, o: Reset(call=7, qubit=b"?" * 16), "GONE"),
        (lambda q, o: Transfer(call=7, qubit=o, to=APP), "NOT_OWNER"),
        (lambda q, o: Transfer(call=7, qubit=b"?" * 16, to=APP), "GONE"),
        (lambda q, o: Transfer(call=7, qubit=q, to=""), "BAD_REQUEST"),
    ],
)
def test_a_call_that_cannot_be_done_fails_and_changes_nothing(make: Any, error: str) -> None:
    on = bench()
    mine, others = allocate(on, APP), allocate(on, OTHER)
    (answer,) = on.tell("a", APP, make(mine, others))
    assert isinstance(answer, CallFailed)
    assert (answer.call, answer.error) == (7, error)
    assert on.fabric.snapshot().operations_waiting == 0
    on.tell("a", APP, Measure(call=8, qubit=mine, basis="Z"))
    on.tell("a", OTHER, Measure(call=8, qubit=others, basis="Z"))
    on.run(on.now + MS)
    assert on.heard("a", APP, Measured) == on.heard("a", OTHER, Measured)
    assert on.heard("a", APP, Measured) == [Measured(call=8, outcome=0)]


def test_what_nobody_waits_for_is_refused_in_silence() -> None:
    on = bench()
    others = allocate(on, OTHER)
    for call in (
        gate(None, "h", others),
        Transfer(call=None, qubit=others, to=APP),
        Free(qubit=others),
        Free(qubit=b"?" * 16),
        DeviceReady(),
        start(1),
        AttemptsStop(batch=1),
    ):
        assert on.tell("a", APP, call) == []
    assert on.fabric.snapshot().qubits["a"] == 1
    effects = on.handle("a", FromPeer("b", DeviceReady()))
    assert [type(effect).__name__ for effect in effects] == ["Record"]
    for key in ("call/77", "free/77", "other"):
        assert on.handle("a", TimerFired(key)) == []


def test_the_memory_is_never_more_than_full_and_its_places_come_back() -> None:
    on = bench(memory=2, nodes="a")
    qubits = [allocate(on), allocate(on)]
    (refused,) = on.tell("a", APP, Allocate(call=3))
    assert refused == CallFailed(call=3, error="NO_RESOURCES", detail="the memory is full")
    on.tell("a", APP, gate(None, "cnot", *qubits))
    on.tell("a", APP, Free(qubit=qubits[0]))  # behind the gate
    assert isinstance(on.tell("a", APP, Allocate(call=4))[0], CallFailed)
    on.run(on.now + MS)
    allocate(on)
    on.tell("a", APP, Measure(call=5, qubit=qubits[1], basis="Z"))
    assert isinstance(on.tell("a", APP, Allocate(call=6))[0], CallFailed)
    on.run(on.now + MS)
    allocate(on)
    assert on.memory_max == {"a": 2}


def test_a_transferred_qubit_belongs_to_its_new_owner() -> None:
    on = bench()
    qubit = allocate(on)
    assert on.tell("a", APP, Transfer(call=1, qubit=qubit, to=OTHER)) == [CallDone(call=1)]
    assert only(on.tell("a", APP, gate(2, "x", qubit))).error == "NOT_OWNER"
    assert on.tell("a", OTHER, Transfer(call=None, qubit=qubit, to=APP)) == []
    on.tell("a", APP, gate(3, "x", qubit))
    on.run(on.now + MS)
    assert on.heard("a", APP)[-1] == CallDone(call=3)


def test_what_an_owner_leaves_is_freed_and_transport_is_told() -> None:
    on = bench(memory=4, nodes="a")
    kept, measured = allocate(on), allocate(on)
    on.tell("a", APP, gate(1, "h", kept))
    on.tell("a", APP, Measure(call=2, qubit=measured, basis="Z"))
    on.tell("a", APP, Allocate(call=3))
    heard = len(on.heard("a", APP))
    on.handle("a", OwnerGone(APP))
    on.handle("a", OwnerGone("nobody"))
    assert on.heard("a", "transport", QubitsFreed) == [QubitsFreed(owner=APP, qubits=[kept])]
    on.run(on.now + MS)
    assert len(on.heard("a", APP)) == heard
    assert on.fabric.snapshot().qubits == {"a": 0}
    for _ in range(4):
        allocate(on, OTHER)


def test_a_lost_device_ends_every_call_and_batch_and_everybody_learns() -> None:
    on = bench(probability=0.0)
    first, second = allocate(on), allocate(on)
    on.tell("a", APP, gate(1, "cnot", first, second))
    on.tell("a", APP, Free(qubit=first))
    on.tell("a", APP, Measure(call=2, qubit=second, basis="Z"))
    on.tell("a", OTHER, Allocate(call=3))
    on.tell("a", "link", start(4))
    on.handle("a", PeerDown("b"))
    on.handle("a", PeerDown(FABRIC))
    on.handle("a", PeerDown(FABRIC))
    lost = [CallFailed(call=call, error="DEVICE_LOST", detail="") for call in (1, 2, 3)]
    assert on.heard("a", APP)[-3:] == [*lost[:2], DeviceLost()]
    assert on.heard("a", OTHER) == [lost[2], DeviceLost()]
    assert on.heard("a", "link")[-2:] == [
        AttemptsEnded(batch=4, reason="device", attempts=0),
        DeviceLost(),
    ]
    for layer in ("network", "transport"):
        assert on.heard("a", layer)[-1] == DeviceLost()
    assert only(on.tell("a", APP, Measure(call=5, qubit=second, basis="Z"))).error == "DEVICE_LOST"
    assert only(on.tell("a", "link", start(6))).reason == "device"
    told = len(on.told)
    on.run(on.now + MS)  # what was on its way is not heard
    assert len(on.told) == told
    on.handle("a", PeerUp(FABRIC, b"fabricie"))
    assert only(on.tell("a", APP, gate(8, "x", second))).error == "GONE"
    allocate(on)


def test_a_device_that_comes_again_unannounced_has_been_lost_between() -> None:
    on = bench()
    on.handle("a", PeerUp("b", b"12345678"))
    on.handle("a", PeerUp(FABRIC, b"fabricie"))
    assert [type(m) for m in on.heard("a", "network")] == [
        DeviceReady, NodeCapability, DeviceLost, DeviceReady, NodeCapability,
    ]  # fmt: skip


def test_a_refused_operation_fails_its_call_and_leaves_the_qubit() -> None:
    on = bench(nodes="a", memory=11)
    qubits = [allocate(on) for _ in range(11)]
    for other in qubits[1:]:
        on.tell("a", APP, gate(1, "cnot", qubits[0], other))
    on.run(on.now + MS)
    *done, failed = on.heard("a", APP)[-10:]
    assert done == [CallDone(call=1)] * 9
    assert (failed.call, failed.error) == (1, "UNSUPPORTED")
    on.tell("a", APP, Measure(call=2, qubit=qubits[10], basis="Z"))
    on.run(on.now + MS)
    assert on.heard("a", APP)[-1] == Measured(call=2, outcome=0)


def refusal(operation: int) -> FromPeer:
    return FromPeer(FABRIC, OperationRefused(operation=operation, error="GONE", detail=""))


def test_refusals_of_the_device_end_what_they_are_about() -> None:
    on = bench(memory=1, nodes="ab")
    effects = on.handle("a", Told(APP, Allocate(call=1)))
    answer = on.handle("a", refusal(operation_of(effects, Initialise).sequence))
    assert Tell(APP, CallFailed(call=1, error="GONE", detail="")) in answer
    effects = on.handle("a", Told("link", start(5)))  # the place is free again
    answer = on.handle("a", refusal(operation_of(effects, Generate).sequence))
    assert Tell("link", AttemptsEnded(batch=5, reason="refused", attempts=0)) in answer
    assert len(on.handle("a", refusal(12345))) == 1  # a record
    for nonsense in (
        Outcome(operation=9, outcome=1),
        Reply(batch=8, herald_sequence=0, cycle=0, x_bit=1, z_bit=0, emitted_at_ns=0),
        DeviceReady(),
    ):
        effects = on.handle("a", FromPeer(FABRIC, nonsense))
        assert [type(effect).__name__ for effect in effects] == ["Record"]


@pytest.mark.parametrize("table", [qubit_states.QUBIT, batch_states.BATCH])
def test_the_tables_end_in_ended(table: Any) -> None:
    ended = type(table.start).ENDED
    assert [state for state in type(table.start) if table.is_final(state)] == [ended]
    assert ended.name in table.matrix()


CALLS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from([APP, OTHER]),
        st.sampled_from(["allocate", "free", "measure", "bell", "gate", "give", "gone", "attempt",
                         "stop", "lose"]),
        st.integers(0, 5),
        st.integers(0, 40_000),
    ),
    min_size=5,
    max_size=60,
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(calls=CALLS, memory=st.integers(1, 4), probability=st.sampled_from([0.0, 0.5, 1.0]))
def test_memory_is_conserved_and_every_call_ends(
    calls: list[Any], memory: int, probability: float
) -> None:
    on = bench("ab", probability, memory=memory, comm_qubits=1, t2_s=math.inf)
    # What a caller knows of qubits, by node: some are gone, some are another's.
    known: dict[str, list[bytes]] = {"a": [b"?" * 16], "b": [b"?" * 16]}
    expected: dict[tuple[str, str, int], int] = {}
    gone: dict[tuple[str, str], int] = {}
    for number, (node, session, kind, pick, wait_ns) in enumerate(calls):
        known[node] += [m.qubit for _, at, _, m in on.told if at == node and is_new(m, known[node])]
        qubit, other = known[node][pick % len(known[node])], known[node][-1]
        owner = "link" if kind in ("attempt", "stop") else session
        say: Message | None = {
            "allocate": Allocate(call=number),
            "free": Free(qubit=qubit),
            "measure": Measure(call=number, qubit=qubit, basis="X"),
            "bell": BellMeasure(call=number, first=qubit, second=other),
            "gate": gate(number, "cnot", qubit, other),
            "give": Transfer(call=number, qubit=qubit, to=OTHER),
            "attempt": start(number),
            "stop": AttemptsStop(batch=pick),
        }.get(kind)
        if say is not None:
            if kind not in ("free", "stop"):
                expected[node, owner, number] = 0
            on.tell(node, owner, say)
        elif kind == "gone":
            gone[node, owner] = number
            on.handle(node, OwnerGone(owner))
        else:
            on.fabric.node_down(node, on.now)
            on.handle(node, PeerDown(FABRIC))
            on.fabric.node_up(node, bytes(8))
            on.handle(node, PeerUp(FABRIC, bytes(8)))
        on.run(on.now + wait_ns)
    for node in "ab":
        for batch in range(len(calls)):
            on.tell(node, "link", AttemptsStop(batch=batch))
    on.run(on.now + 100 * MS)
    for _, node, to, message in on.told:
        number = getattr(message, "call", getattr(message, "batch", None))
        if number is not None:
            expected[node, to, number] += 1
    for (node, owner, number), answers in expected.items():
        last = gone.get((node, owner), -1)
        assert answers == 1 or (answers == 0 and number < last), (node, owner, number)
    assert all(most <= memory for most in on.memory_max.values())
    held = on.fabric.snapshot()
    for node in "ab":
        assert held.qubits[node] == len(on.nodes[node]._memory)
        for owner in (APP, OTHER, "link"):
            on.handle(node, OwnerGone(owner))
    on.run(on.now + 100 * MS)
    assert on.fabric.snapshot().qubits == {"a": 0, "b": 0}
    assert on.fabric.snapshot().batches == {"a": 0, "b": 0}


def is_new(message: Message, known: list[bytes]) -> bool:
    return isinstance(message, Allocated | Heralded) and message.qubit not in known
