"""Conversations about attempts: batches, shared qubits, measured pairs, every refusal."""

from typing import Any

import pytest

from qstack.machine import (
    OwnerGone,
    Send,
    Told,
)
from qstack.physical.device import (
    StopGenerate,
)
from qstack.physical.params import SHARE_NS
from qstack.physical.service import (
    AttemptsEnded,
    AttemptsStop,
    Free,
    Heralded,
    Measure,
    Measured,
    MeasuredPairs,
    MemoryFree,
    Transfer,
)
from qstack.physical.sharing import choose
from tests.physical.calls import APP, MS, TOKEN, bench, gate, operation_of, start


def test_a_pair_is_heralded_at_both_ends_alike_and_belongs_to_link() -> None:
    on = bench(nodes="ab")
    on.tell("a", "link", start(1))
    on.tell("b", "link", start(9))
    on.run(MS)
    (here,), (there,) = on.heard("a", "link", Heralded), on.heard("b", "link", Heralded)
    assert (here.batch, there.batch, here.goodness) == (1, 9, pytest.approx(1.0))
    common = ("herald_sequence", "cycle", "x_bit", "z_bit", "emitted_at_ns")
    assert [getattr(here, f) for f in common] == [getattr(there, f) for f in common]
    on.tell("a", "link", Transfer(call=None, qubit=here.qubit, to=APP))
    on.tell("b", "link", gate(None, "x", there.qubit))
    on.tell("a", APP, Measure(call=1, qubit=here.qubit, basis="Z"))
    on.tell("b", "link", Measure(call=2, qubit=there.qubit, basis="Z"))
    on.run(2 * MS)
    assert on.heard("a", APP)[-1].outcome == on.heard("b", "link", Measured)[-1].outcome


@pytest.mark.parametrize(
    "wrong",
    [
        {"link": "b-c"},
        {"basis": "X"},
        {"pairs": 2},
        {"kind": "measure"},
        {"bright_state": 0.1},
    ],
)
def test_attempts_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    on = bench()
    assert on.tell("a", "link", start(3, **wrong)) == [
        AttemptsEnded(batch=3, reason="refused", attempts=0)
    ]


def test_a_stopped_batch_ends_once_with_its_attempts() -> None:
    on = bench(probability=0.0, nodes="ab")
    on.tell("a", "link", start(1))
    cycle_ns = on.world.links["a-b"].cycle_ns("keep", *on.world.end_profiles("a-b"))
    on.run(5 * cycle_ns)
    for batch in (1, 1, 77):
        on.tell("a", "link", AttemptsStop(batch=batch))
    on.run(on.now + MS)
    on.tell("a", "link", AttemptsStop(batch=1))
    assert on.heard("a", "link", AttemptsEnded) == [
        AttemptsEnded(batch=1, reason="stopped", attempts=5)
    ]


def test_measured_pairs_pass_through_to_the_last() -> None:
    on = bench(probability=0.5, nodes="ab")
    for node, basis in (("a", "X"), ("b", "X")):
        on.tell(node, "link", start(1, kind="measure", pairs=100, basis=basis))
    on.run(100 * MS)
    here, there = on.heard("a", "link", MeasuredPairs), on.heard("b", "link", MeasuredPairs)
    assert [m.pairs for m in here] == [m.pairs for m in there]
    assert sum(m.pairs for m in here) == 100
    assert [m.is_last for m in here] == [False] * (len(here) - 1) + [True]
    for mine, yours in zip(here, there, strict=True):  # psi+ agrees in X, psi- does not
        bits = zip(mine.outcomes, yours.outcomes, mine.z_bits, strict=True)
        assert all(a ^ b == z for a, b, z in bits)


def test_memory_refused_is_announced_when_it_is_free() -> None:
    on = bench(nodes="ab", memory=2)  # one for data, one for the link
    on.tell("a", "link", start(1))
    assert on.tell("a", "link", start(2)) == [
        AttemptsEnded(batch=2, reason="no-memory", attempts=0)
    ]
    on.tell("b", "link", start(1))
    on.run(MS)
    (pair,) = on.heard("a", "link", Heralded)
    on.tell("a", "link", Transfer(call=None, qubit=pair.qubit, to=APP))
    assert on.heard("a", "link", MemoryFree) == []
    on.tell("a", APP, Free(qubit=pair.qubit))
    assert on.heard("a", "link", MemoryFree) == [MemoryFree()]
    on.tell("a", "link", start(3))
    assert on.heard("a", "link", AttemptsEnded)[-1].batch == 2


@pytest.mark.parametrize(("qubits", "parallel"), [(1, True), (1, False), (2, False)])
def test_a_shared_communication_qubit_serves_one_link_at_a_time_and_all_in_turn(
    qubits: int, parallel: bool
) -> None:
    """Every node of a ring asks for both links at once, again and again: all links get pairs."""
    on = bench("abcde", 1.0, is_ring=True, memory=6, comm_qubits=qubits, parallel_links=parallel)
    batch = 0
    pairs = dict.fromkeys(on.world.links, 0)
    asked: dict[tuple[str, int], str] = {}

    def ask(node: str, link: str) -> None:
        nonlocal batch
        batch += 1
        asked[node, batch] = link
        on.tell(node, "link", start(batch, link, token=link.encode().ljust(16)))

    for node in on.nodes:
        for link in on.world.links_of(node):
            ask(node, link.id)
    seen = 0
    while on.now < 60 * SHARE_NS:
        on.run(on.now + SHARE_NS // 16)
        for batches in on.fabric.snapshot().batches.values():
            assert batches <= qubits
        news, seen = on.told[seen:], len(on.told)
        for _, node, to, message in news:
            if to == "link" and isinstance(message, Heralded):
                on.tell(node, "link", Free(qubit=message.qubit))
                pairs[asked[node, message.batch]] += 1
                ask(node, asked[node, message.batch])
            elif to == "link" and isinstance(message, AttemptsEnded):
                assert message.reason == "handed-over"
                ask(node, asked[node, message.batch])
    assert min(pairs.values()) >= 10, pairs


def test_the_highest_claim_of_the_network_is_chosen_at_both_of_its_ends() -> None:
    links = ["a-b", "b-c", "c-d", "a-d"]
    for time_slice in range(200):
        chosen = {}
        for node in "abcd":
            claims = [Claim(x, t) for x in links if node in x for t in (b"1", b"2")]
            for order in (claims, claims[::-1]):
                got = choose(order, time_slice, qubits=1, is_parallel=True)
                chosen[node] = [(claim.link, claim.token) for claim in got]
        assert any(chosen[a] == chosen[b] for a, b in ("ab", "bc", "cd", "ad"))
    assert choose([], 0, qubits=2, is_parallel=True) == []
    both = choose(
        [Claim("x", b"1"), Claim("y", b"1"), Claim("y", b"2")], 3, qubits=2, is_parallel=True
    )
    assert {claim.link for claim in both} == {"x", "y"}


def test_a_link_begins_only_when_what_is_in_flight_of_another_has_ended() -> None:
    on = bench("abc", 0.0, memory=6, comm_qubits=2, parallel_links=False)
    time_slice = [first_of(time_slice) for time_slice in range(20)].index("b-c")
    on.run(time_slice * SHARE_NS)
    on.tell("b", "link", start(1, "a-b"))
    on.run(on.now + 10_000)
    effects = on.handle("b", Told("link", start(2, "b-c")))
    asked = [e.message for e in effects if isinstance(e, Send)]
    assert [(type(m), m.reason) for m in asked] == [(StopGenerate, "handed-over")]
    on.run(on.now + 10_000)
    assert on.heard("b", "link", AttemptsEnded)[0].reason == "handed-over"
    assert on.fabric.snapshot().batches["b"] == 1


class Claim:
    """A batch, as far as sharing is concerned."""

    def __init__(self, link: str, token: bytes = TOKEN) -> None:
        self.link = link
        self.token = token


def first_of(time_slice: int) -> str:
    claims = [Claim("a-b"), Claim("b-c")]
    return choose(claims, time_slice, qubits=1, is_parallel=False)[0].link


def test_a_queued_batch_is_stopped_at_once() -> None:
    on = bench("abc", 0.0, memory=6, comm_qubits=1)
    for batch, link in ((1, "a-b"), (2, "b-c")):
        on.tell("b", "link", start(batch, link))
    on.run(2 * MS)
    assert on.fabric.snapshot().batches["b"] == 1
    for batch in (1, 2):
        on.tell("b", "link", AttemptsStop(batch=batch))
    on.run(4 * MS)
    ended = {m.batch: m.reason for m in on.heard("b", "link", AttemptsEnded)}
    assert ended.keys() == {1, 2}
    assert on.fabric.snapshot().batches["b"] == 0


def test_a_link_layer_that_goes_leaves_nothing_and_its_next_life_is_served() -> None:
    on = bench("abc", 1.0, memory=4, comm_qubits=1)
    on.tell("a", "link", start(1))
    on.tell("b", "link", start(1))
    on.tell("b", "link", start(2, "b-c"))
    on.run(2_000)  # emitted: the herald is on its way
    on.handle("b", OwnerGone("link"))
    told = len(on.heard("b", "link"))
    on.tell("b", "link", start(1, "b-c"))
    on.tell("c", "link", start(1, "b-c"))
    on.run(MS)
    assert on.fabric.snapshot().qubits["b"] == 1
    assert [type(m) for m in on.heard("b", "link")[told:]] == [Heralded]


def test_a_stop_sent_to_the_device_carries_its_reason() -> None:
    on = bench("ab", 0.0)
    on.tell("a", "link", start(1))
    effects = on.handle("a", Told("link", AttemptsStop(batch=1)))
    assert operation_of(effects, StopGenerate).reason == "stopped"
