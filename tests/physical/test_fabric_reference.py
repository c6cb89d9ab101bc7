"""The fabric against a reference that steps every attempt one by one, with the same endings."""

import random
from collections import deque
from typing import Any

import numpy as np
import pytest

from qstack.physical.device import (
    BatchEnded,
    DoGate,
    Generate,
    Initialise,
    MeasuredReply,
    Operation,
    Reply,
    StopGenerate,
)
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.hardware import World
from tests.physical.worlds import chain, chi_square, started_fabric

TOKENS = (b"a" * 16, b"b" * 16)
END_NS = 400_000

Script = list[tuple[str, Operation]]
Log = list[tuple[Any, ...]]


class Stepped:
    """Every node and cycle, one after the other. `late` makes it wrong by that many cycles."""

    def __init__(self, world: World, rng: random.Random, late: int = 0) -> None:
        self.world = world
        self.rng = rng
        self.late = late
        self.log: Log = []
        self.attempts = dict.fromkeys(world.nodes, 0)
        self.open: dict[tuple[str, int], dict[str, Any]] = {}
        self.waiting: dict[Any, dict[str, deque[Any]]] = {}
        self.matches: list[dict[str, Any]] = []

    def run(self, script: Script, until_ns: int) -> Log:
        queue = deque(sorted(script, key=lambda item: (item[1].at_ns, item[0], item[1].sequence)))
        emissions = sorted(
            (cycle * self._cycle(link, kind) + self._offset(link), link, kind, cycle)
            for link in self.world.links
            for kind in ("keep", "measure")
            for cycle in range(until_ns // self._cycle(link, kind) + 1)
        )
        for at_ns, link, kind, cycle in emissions:
            while queue and queue[0][1].at_ns <= at_ns:
                node, operation = queue.popleft()
                self._operate(node, operation)
            if at_ns < until_ns:
                self._emit(at_ns, link, kind, cycle)
        return sorted(self.log)

    def _cycle(self, link: str, kind: str) -> int:
        return self.world.links[link].cycle_ns(kind, *self.world.end_profiles(link))

    def _offset(self, link: str) -> int:
        return max(p.t_init_ns + p.t_emit_ns for p in self.world.end_profiles(link))

    def _back(self, link: str, node: str) -> int:
        hardware = self.world.links[link]
        return max(map(hardware.arm_ns, hardware.ends)) + hardware.arm_ns(node)

    def _operate(self, node: str, operation: Operation) -> None:
        if isinstance(operation, Generate):
            cycle_ns = self._cycle(operation.link, operation.kind)
            first = max(operation.first_cycle, -(-operation.at_ns // cycle_ns))
            batch = {"node": node, "op": operation, "first": first, "match": None, "made": 0}
            batch["left"] = operation.pairs
            self.open[node, operation.batch] = batch
            self._queue(batch).append(batch)
            self._pair_up(operation, operation.at_ns)
        elif isinstance(operation, StopGenerate):
            batch = self.open.pop((node, operation.batch), None)
            if batch is None:
                return
            asked = batch["op"]
            due = operation.at_ns + self._back(asked.link, node)
            match = batch["match"]
            if match is not None and asked.kind == "measure":
                self.log.append((node, due, "measured-end", asked.batch))
            else:
                self.log.append((node, due, "ended", asked.batch, batch["made"]))
            if match is None:
                self._queue(batch).remove(batch)
                return
            self.matches.remove(match)
            far = next(other for other in match["batches"] if other is not batch)
            far["match"] = None
            self._queue(far).appendleft(far)
            self._pair_up(asked, operation.at_ns)

    def _queue(self, batch: dict[str, Any]) -> deque[Any]:
        asked = batch["op"]
        queues = self.waiting.setdefault((asked.link, asked.token, asked.kind), {})
        return queues.setdefault(batch["node"], deque())

    def _pair_up(self, asked: Generate, at_ns: int) -> None:
        queues = self.waiting[asked.link, asked.token, asked.kind]
        here, there = (queues.setdefault(e, deque()) for e in self.world.links[asked.link].ends)
        while here and there:
            batches = [here.popleft(), there.popleft()]
            match = {"batches": batches, "from": at_ns}
            for batch in batches:
                batch["match"] = match
            self.matches.append(match)

    def _emit(self, at_ns: int, link: str, kind: str, cycle: int) -> None:
        cycle_ns = self._cycle(link, kind)
        for batch in self.open.values():
            if (batch["op"].link, batch["op"].kind) == (link, kind) and cycle >= batch["first"]:
                batch["made"] += 1
                self.attempts[batch["node"]] += 1
        for match in list(self.matches):
            batches = match["batches"]
            asked = batches[0]["op"]
            first = max(batch["first"] for batch in batches) + self.late
            if (asked.link, asked.kind) != (link, kind) or cycle < first:
                continue
            if cycle * cycle_ns < match["from"]:
                continue
            if self.rng.random() >= self.world.links[link].probability:
                continue
            for batch in batches:
                number, node = batch["op"].batch, batch["node"]
                batch["left"] -= 1
                if kind == "keep":
                    due = at_ns + self._back(link, node)
                    self.log.append((node, due, "reply", number, cycle))
                else:
                    self.log.append((node, at_ns, "pair", number))
            if min(batch["left"] for batch in batches) == 0:
                self.matches.remove(match)
                for batch in batches:
                    del self.open[batch["node"], batch["op"].batch]


def played(world: World, seed: int, script: Script, until_ns: int) -> Log:
    """The same log from the fabric; measured pairs by the times of their emissions' chunk."""
    fabric = started_fabric(world, seed)
    for node, operation in script:
        fabric.apply(node, operation)
    log: Log = []
    for node, due_ns, _, message in fabric.run(until_ns):
        match message:
            case Reply():
                log.append((node, due_ns, "reply", message.batch, message.cycle))
            case BatchEnded():
                log.append((node, due_ns, "ended", message.batch, message.attempts))
            case _:
                pass
    return sorted(log)


def generate(
    at_ns: int,
    sequence: int,
    link: str,
    *,
    kind: str = "keep",
    token: bytes = TOKENS[0],
    **more: Any,
) -> Generate:
    is_keep = kind == "keep"
    fields: dict[str, Any] = {
        "batch": sequence,
        "first_cycle": 0,
        "pairs": 1,
        "basis": None if is_keep else "Z",
        "qubit": sequence.to_bytes(16, "big") if is_keep else None,
        "bright_state": None,
    }
    return Generate(
        at_ns=at_ns, sequence=sequence, link=link, token=token, kind=kind, **(fields | more)
    )


def stop(at_ns: int, sequence: int, batch: int) -> StopGenerate:
    return StopGenerate(at_ns=at_ns, sequence=sequence, batch=batch, reason="stopped")


def random_script(rng: random.Random, world: World, operations: int) -> Script:
    """Starts and stops at any node, often at the very time of an emission or a cycle's start."""
    script: Script = []
    links = list(world.links)
    for sequence in range(operations):
        link = rng.choice(links)
        node = rng.choice(world.links[link].ends)
        cycle_ns = world.links[link].cycle_ns("keep", *world.end_profiles(link))
        at_ns = rng.choice([rng.randrange(200_000), rng.randrange(40) * cycle_ns + 1_500])
        if rng.random() < 0.6:
            first_cycle = rng.randrange(60)
            token = rng.choice(TOKENS)
            script.append(
                (node, generate(at_ns, sequence, link, token=token, first_cycle=first_cycle))
            )
        else:
            script.append((node, stop(at_ns, sequence, rng.randrange(operations))))
    return script


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_fabric_agrees_exactly_with_every_attempt_stepped_when_nothing_is_left_to_chance(
    probability: float,
) -> None:
    for seed in range(40):
        rng = random.Random(seed)
        world = chain("abc", probability, memory=1, comm_qubits=1)
        script = random_script(rng, world, 24)
        expected = Stepped(world, rng).run(script, END_NS)
        assert played(world, seed, script, END_NS) == expected, seed


def test_the_exact_comparison_fails_for_a_reference_that_is_one_cycle_late() -> None:
    world = chain("abc", 1.0, memory=1, comm_qubits=1)
    differ = 0
    for seed in range(20):
        rng = random.Random(seed)
        script = random_script(rng, world, 24)
        expected = Stepped(world, rng, late=1).run(script, END_NS)
        differ += played(world, seed, script, END_NS) != expected
    assert differ > 10


CYCLE_NS = chain("ab").links["a-b"].cycle_ns("keep", *chain("ab").end_profiles("a-b"))

SCENARIOS: dict[str, Script] = {
    "success": [("a", generate(0, 1, "a-b")), ("b", generate(3 * CYCLE_NS + 7, 2, "a-b"))],
    "cancel at one end, which asks again": [
        ("a", generate(0, 1, "a-b")),
        ("b", generate(0, 2, "a-b")),
        ("a", stop(4 * CYCLE_NS, 3, 1)),
        ("a", generate(6 * CYCLE_NS + 1, 4, "a-b")),
    ],
    "cancel at both ends": [
        ("a", generate(0, 1, "a-b")),
        ("b", generate(0, 2, "a-b")),
        ("a", stop(5 * CYCLE_NS + 1_000, 3, 1)),
        ("b", stop(5 * CYCLE_NS + 1_400, 4, 2)),
    ],
    "cancel with an attempt in flight": [
        ("a", generate(0, 1, "a-b")),
        ("b", generate(0, 2, "a-b")),
        ("a", stop(3 * CYCLE_NS + 1_501, 3, 1)),
    ],
    "hand-over between two links": [
        ("a", generate(0, 1, "a-b")),
        ("b", generate(0, 2, "a-b")),
        ("c", generate(0, 3, "b-c")),
        ("b", stop(3 * CYCLE_NS, 4, 2)),
        ("b", generate(3 * CYCLE_NS + 2_000, 5, "b-c")),
        ("b", stop(6 * CYCLE_NS, 6, 5)),
        ("b", generate(6 * CYCLE_NS + 2_000, 7, "a-b")),
    ],
}
RUNS = 500


def outcome(log: Log) -> tuple[Any, ...]:
    """One run in short: how each batch ended, and when, to three cycles."""
    return tuple(
        (node, what, number, min(int(last), 14))
        for node, _, what, number, last in sorted(log, key=lambda entry: (entry[3], entry[0]))
    )


def samples(script: Script, late: int = 0) -> tuple[list[Any], list[Any]]:
    world = chain("abc", 0.15, memory=1, comm_qubits=1)
    until_ns = 25 * CYCLE_NS
    by_fabric = [outcome(played(world, seed, script, until_ns)) for seed in range(RUNS)]
    rng = random.Random(1)
    by_steps = [outcome(Stepped(world, rng, late).run(script, until_ns)) for _ in range(RUNS)]
    return by_fabric, by_steps


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_distribution_of_endings_is_that_of_stepped_attempts(name: str) -> None:
    """Two-sample chi-square over whole outcomes; false alarm 1e-6 each, fixed seeds."""
    statistic, limit = chi_square(*samples(SCENARIOS[name]))
    assert statistic < limit


def test_the_distribution_test_fails_for_one_attempt_too_few() -> None:
    statistic, limit = chi_square(*samples(SCENARIOS["success"], late=1))
    assert statistic > 1.5 * limit


def test_the_measured_pairs_of_a_stopped_batch_are_those_of_stepped_attempts() -> None:
    """Pairs counted before a stop, a second match and the end; false alarm 1e-6, fixed seeds."""
    world = chain("ab", 0.15, comm_qubits=1, memory=1)
    cycle_ns = world.links["a-b"].cycle_ns("measure", *world.end_profiles("a-b"))
    script: Script = [
        ("a", generate(0, 1, "a-b", kind="measure", pairs=12)),
        ("b", generate(2 * cycle_ns + 1, 2, "a-b", kind="measure", pairs=9)),
        ("a", stop(30 * cycle_ns + 1_500, 3, 1)),
        ("a", generate(33 * cycle_ns, 4, "a-b", kind="measure", pairs=3)),
    ]
    until_ns = 60 * cycle_ns
    rng = random.Random(5)
    by_fabric, by_steps = [], []
    for seed in range(400):
        stepped = Stepped(world, rng)
        log = stepped.run(script, until_ns)
        counts = [sum(e[2:] == ("pair", number) for e in log) for number in (1, 2, 4)]
        by_steps.append(tuple(counts))
        fabric = started_fabric(world, seed)
        for node, operation in script:
            fabric.apply(node, operation)
        got = dict.fromkeys((1, 2, 4), 0)
        messages = fabric.run(until_ns)
        # An open chunk has not been reported yet: end it.
        for number, node in ((4, "a"), (2, "b")):
            fabric.apply(node, stop(until_ns, 10 + number, number))
        messages += fabric.run(until_ns + 1)
        for delivery in messages:
            message = delivery.message
            if isinstance(message, MeasuredReply):
                got[message.batch] += message.pairs
        by_fabric.append(tuple(got.values()))
    statistic, limit = chi_square(by_fabric, by_steps)
    assert statistic < limit


@pytest.mark.parametrize("success", [0.0, 1.0])
def test_idle_qubits_are_dephased_by_every_attempt_of_their_node(success: float) -> None:
    """Exact: a spin along X shrinks by 1 - 2p for each attempt, of a waiting Generate too."""
    probability = 0.01
    world = chain("abc", success, attempt_dephasing=probability)
    script: Script = [
        ("b", generate(10_000, 2, "a-b")),
        ("a", generate(20_000, 3, "a-b")),
        ("b", generate(30_000, 4, "b-c")),
        ("b", stop(61_500, 5, 2)),
        ("a", stop(61_500, 6, 3)),
        ("b", generate(70_001, 7, "b-c", kind="measure")),
        ("b", stop(90_000, 8, 7)),
    ]
    stepped = Stepped(world, random.Random(0))
    stepped.run(script, 100_000)
    fabric = started_fabric(world)
    names = [b"q" * 16, b"r" * 16]
    for place, name in enumerate(names):
        fabric.apply("b", Initialise(at_ns=0, sequence=20 + place, qubit=name))
    fabric.apply("b", DoGate(at_ns=0, sequence=30, name="h", qubits=names[:1], angle=0.0))
    fabric.apply("b", DoGate(at_ns=0, sequence=31, name="cnot", qubits=names, angle=0.0))
    for touch in range(7):  # touching changes nothing
        at_ns = 9_999 + touch * 12_345
        fabric.apply(
            "b", DoGate(at_ns=at_ns, sequence=40 + touch, name="z", qubits=names[1:], angle=0.0)
        )
    for node, operation in script:
        fabric.apply(node, operation)
    fabric.run(100_000)
    pair = fabric.truth(QubitKey("b", names[0]), QubitKey("b", names[1]), 100_000)
    factor = (1.0 - 2.0 * probability) ** (2 * stepped.attempts["b"])
    assert stepped.attempts["b"] > 7
    assert pair[1, 1] == pytest.approx(-factor, rel=1e-12)
    assert np.allclose(np.diag(pair), [1.0, -factor, factor, 1.0], rtol=1e-12)
