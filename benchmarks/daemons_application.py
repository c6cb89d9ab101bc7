"""One application of the daemon benchmark: a process of its own, written like any user's program.

    python benchmarks/daemons_application.py TASK

TASK is a JSON object (`Task`). One JSON object is printed: the times (of the host's monotonic
clock, equal in both applications) at which this end was done with a pair, and what else it saw.
An end works for `span_s` from its first pair on and a moment longer than that if it is the tail,
so that the far end never waits for one that has stopped.
"""

import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio
from msgspec import Struct

import qstack
from qstack.api.node import Node
from qstack.api.streams import QubitStream

PORT: Final = 1
START_LIMIT_NS: Final = 20 * 10**9
ACCEPTS_AHEAD: Final = 2
TAIL_EXTRA_S: Final = 0.3
FAR_END_EARLY_S: Final = 1.0  # an end may have seen its first pair so much later than the other


class Task(Struct, frozen=True, kw_only=True):
    """What to do: `phase` is keep, measure, teleport or latency; `outstanding` of them at once.

    `deadline_ns` is of each call, in network time.
    """

    phase: str
    node: str
    remote: str
    is_head: bool
    outstanding: int
    batch: int
    span_s: float
    deadline_ns: int = START_LIMIT_NS


class Done(Struct, kw_only=True):
    """What came of it. `counts` goes with `times_s`: pairs that were done with at that time."""

    times_s: list[float] = []
    counts: list[int] = []
    latencies_s: list[float] = []
    wrong: int = 0


class Work:
    """The common part: what was done when, and when to stop."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.done = Done()
        self.is_over = False
        self.scope = trio.CancelScope()

    def count(self, pairs: int = 1) -> None:
        """So many are done with now."""
        now = time.monotonic()
        if not self.done.times_s:
            extra = 0.0 if self.task.is_head else TAIL_EXTRA_S
            self.scope.deadline = trio.current_time() + self.task.span_s + extra
        self.done.times_s.append(now)
        self.done.counts.append(pairs)

    async def run(self, *bodies: Callable[[], Awaitable[None]]) -> None:
        """Run all of them until the time is over; the far end may stop first."""
        with self.scope:
            try:
                async with trio.open_nursery() as nursery:
                    for body in bodies:
                        nursery.start_soon(body)
            except* qstack.QstackError:
                times_s = self.done.times_s
                if not times_s or times_s[-1] - times_s[0] < self.task.span_s - FAR_END_EARLY_S:
                    raise  # not the far end's stopping


async def keep(work: Work, node: Node) -> None:
    """Pairs, each asked for by a call of its own, freed as soon as it is held."""
    task = work.task
    async with node.epr_socket(remote=task.remote, port=PORT) as epr:

        async def one_after_the_other() -> None:
            while True:
                if task.is_head:
                    pair = await epr.create_keep(deadline_ns=task.deadline_ns)
                else:
                    pair = await epr.accept(deadline_ns=task.deadline_ns)
                await pair.qubit.free()
                work.count()

        await work.run(*[one_after_the_other] * task.outstanding)


async def keep_in_batches(work: Work, node: Node) -> None:
    """Pairs, `batch` of them asked for by each call."""
    task = work.task
    async with node.epr_socket(remote=task.remote, port=PORT) as epr:

        async def one_after_the_other() -> None:
            while True:
                if task.is_head:
                    pairs = epr.create_keep(n=task.batch, deadline_ns=task.deadline_ns)
                else:
                    pairs = epr.accept(n=task.batch, deadline_ns=task.deadline_ns)
                async for pair in pairs:
                    await pair.qubit.free()
                    work.count()

        await work.run(*[one_after_the_other] * (task.outstanding // task.batch))


async def latency(work: Work, node: Node) -> None:
    """One pair at a time: from the call to the pair in hand, at the end that asks. The far end is
    a server: it has the next accept waiting while it is busy with a pair.
    """
    task = work.task
    async with node.epr_socket(remote=task.remote, port=PORT) as epr:

        async def one_after_the_other() -> None:
            while True:
                asked = time.monotonic()
                if task.is_head:
                    pair = await epr.create_keep(deadline_ns=task.deadline_ns)
                else:
                    pair = await epr.accept(deadline_ns=task.deadline_ns)
                work.done.latencies_s.append(time.monotonic() - asked)
                await pair.qubit.free()
                work.count()

        accepts = 1 if task.is_head else ACCEPTS_AHEAD
        await work.run(*[one_after_the_other] * accepts)


async def measure(work: Work, node: Node) -> None:
    """Pairs read as they come, `batch` of them by each call."""
    task = work.task
    async with node.epr_socket(remote=task.remote, port=PORT) as epr:

        async def one_after_the_other() -> None:
            while True:
                if task.is_head:
                    pairs = await epr.create_measure(task.batch, "Z", deadline_ns=task.deadline_ns)
                else:
                    pairs = await epr.accept_measure(task.batch, "Z", deadline_ns=task.deadline_ns)
                work.count(len(pairs))

        await work.run(*[one_after_the_other] * task.outstanding)


async def teleport_out(work: Work, node: Node) -> None:
    """One stream of qubits in state 0."""
    task = work.task
    async with node.qubit_socket(
        remote=task.remote, port=PORT, deadline_ns=task.deadline_ns
    ) as stream:

        async def one_after_the_other() -> None:
            while True:
                qubit = await node.qubit()
                await stream.send(qubit, deadline_ns=task.deadline_ns)
                work.count()

        await work.run(*[one_after_the_other] * task.outstanding)


async def teleport_in(work: Work, node: Node) -> None:
    """The far end of the stream: each qubit is read, and must be in state 0."""
    task = work.task
    async with node.listen(port=PORT) as listener:
        stream = await listener.accept(deadline_ns=task.deadline_ns)
        assert isinstance(stream, QubitStream)

        async def one_after_the_other() -> None:
            while True:
                qubit = await stream.receive(deadline_ns=task.deadline_ns)
                work.done.wrong += await qubit.measure("Z")
                work.count()

        await work.run(*[one_after_the_other] * task.outstanding)


async def main(task: Task) -> None:
    """Attach, work, and say what came of it."""
    work = Work(task)
    async with qstack.open_node(task.node) as node:
        match task.phase:
            case "keep" if task.batch > 1:
                await keep_in_batches(work, node)
            case "keep":
                await keep(work, node)
            case "latency":
                await latency(work, node)
            case "measure":
                await measure(work, node)
            case _:
                await (teleport_out if task.is_head else teleport_in)(work, node)
    print(msgspec.json.encode(work.done).decode(), flush=True)


if __name__ == "__main__":
    trio.run(main, msgspec.json.decode(sys.argv[1], type=Task))
