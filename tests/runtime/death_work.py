"""What two applications ask for while processes die: everything the demo does, at the same time.

Alice and bob ask for circuits and pairs, teleport qubits, send messages, use the echo, and make
keys over the photon-pair link, again and again. Every call either makes is watched: it ends within
its own deadline of network time, or, if it has none, within `QUICK_NS`, whatever it comes to.

    python -m tests.runtime.death_work NAME SESSION RUN_FOLDER     (one end, which will be killed)
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

import qstack
from qstack.api.call import Answer, Call
from qstack.api.node import Node
from qstack.apps.qkd.events import KeyMetadata
from qstack.apps.qkd.key_file import KeyFile
from qstack.apps.qkd.parameters import planned
from qstack.apps.qkd.program import MEETING, PORT, Terms, distribute
from qstack.apps.qkd.secret_file import SecretFile
from qstack.channel.preshared import file_name
from qstack.runtime import session_messages as session

DEADLINE_NS = 250_000_000
QUICK_NS = 20_000_000  # gates, readings, what is opened here: no deadline, and no peer waited for
KEY_NS = 600_000_000
LATE_NS = 10_000_000  # processing of an answer that came in time
PAUSE_NS = 20_000_000
AGAIN_NS = 100_000_000  # after an error
KEY_PAUSE_NS = 600_000_000  # most cases have one key in the making, and time without
PAIRS, QUBITS, NOTES, ECHOES = 21, 22, 23, 0
PARAMETERS = planned(12_000, 0.3)
KEY_BITS_MAX = max(row.key_bits for row in PARAMETERS.grid)
ENDS = {"alice": "bob", "bob": "alice"}


class Watch:
    """Every call of an application: which are open now, how they ended, which were late."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self.is_over = is_over  # whether calls are made because the test says so
        self.open: dict[Call, str] = {}
        self.ended: dict[str, int] = {}
        self.late: list[str] = []

    def put_on(self, node: Node) -> None:
        """Watch what this session calls from now on."""
        connection = node.connection
        take, start = connection.take, connection.start
        limits: dict[Call, tuple[str, int, int | None]] = {}

        def started(call: Call) -> None:
            what, limit_ns = what_of(call)
            if connection.received <= 1 or self.is_over():
                limit_ns = None  # it does not follow on a word of the node: we do not know the time
            limits[call] = (what, connection.now_ns, limit_ns)
            start(call)

        async def taken(call: Call) -> Answer:
            what, began_ns, limit_ns = limits[call]
            self.open[call] = what
            try:
                answer = await take(call)
            except qstack.QstackError as error:
                self.count(f"{what}: {error.code}")
                raise
            else:
                self.count(what)
                return answer
            finally:
                del self.open[call]
                took_ns = connection.now_ns - began_ns
                if limit_ns is not None and took_ns > limit_ns + LATE_NS:
                    self.late.append(f"{what} took {took_ns} ns")

        connection.start, connection.take = started, taken

    def count(self, what: str) -> None:
        """One more that ended so."""
        self.ended[what] = self.ended.get(what, 0) + 1


def what_of(call: Call) -> tuple[str, int | None]:
    """A call's name, and its longest time; None for a key's, whose program has a deadline."""
    message: Any = call.make(0)[-1]
    what = type(message).__name__
    if call.subject.port == PORT:
        return f"key {what}", None
    if isinstance(message, session.Sleep):
        return what, message.span_ns
    if hasattr(message, "within_ns"):
        assert message.within_ns is not None, f"{what} has no deadline"
        return what, message.within_ns
    return what, QUICK_NS


class Application:
    """One end: work that goes on until it is told to stop."""

    def __init__(self, name: str, path: str, runs: Path) -> None:
        self.name = name
        self.other = ENDS[name]
        self.path = path
        self.runs = runs
        self.stop = trio.Event()
        self.watch = Watch(self.stop.is_set)

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self.stop.is_set()

    def __repr__(self) -> str:
        watch = self.watch
        return f"{self.name}: open {[*watch.open.values()]}, late {watch.late}, {watch.ended}"

    async def run(self) -> None:
        """Work; attach again if the node has gone."""
        while not self.is_stopping:
            try:
                async with qstack.open_node(self.name, path=self.path) as node:
                    self.watch.put_on(node)
                    await self._work(node)
            except* (qstack.QstackError, OSError):
                await trio.sleep(0.05)

    async def _work(self, node: Node) -> None:
        tasks = {
            "alice": (self._create, self._send_qubits, self._send_notes, self._echo),
            "bob": (self._accept, self._receive_qubits, self._receive_notes),
        }
        async with trio.open_nursery() as nursery:
            for task in (*tasks[self.name], self._make_key):
                nursery.start_soon(self._again, node, task)

    async def _again(self, node: Node, task: Callable[[Node], Awaitable[None]]) -> None:
        """A task, from opening its socket on; an error of its socket is not the end."""
        while not self.is_stopping:
            try:
                await task(node)
            except qstack.NodeGone:
                raise
            except qstack.QstackError:
                pass  # the watch has counted it
            if not self.is_stopping:
                await node.sleep(AGAIN_NS)

    async def _create(self, node: Node) -> None:
        async with node.epr_socket(remote=self.other, port=PAIRS) as epr:
            while not self.is_stopping:
                pair = await epr.create_keep(deadline_ns=DEADLINE_NS)
                await pair.qubit.h()
                await pair.qubit.measure("Z")

    async def _accept(self, node: Node) -> None:
        async with node.epr_socket(remote=self.other, port=PAIRS) as epr:
            while not self.is_stopping:
                pair = await epr.accept(deadline_ns=DEADLINE_NS)
                await pair.qubit.measure("Z")

    async def _send_qubits(self, node: Node) -> None:
        async with node.qubit_socket(
            remote=self.other, port=QUBITS, deadline_ns=DEADLINE_NS
        ) as out:
            while not self.is_stopping:
                qubit = await node.qubit()
                try:
                    await qubit.ry(1.0)
                    await out.send(qubit, deadline_ns=DEADLINE_NS)
                finally:
                    await qubit.free()

    async def _receive_qubits(self, node: Node) -> None:
        async with node.listen(port=QUBITS) as server:
            stream: Any = await server.accept(deadline_ns=DEADLINE_NS)
            async with stream:
                while not self.is_stopping:
                    qubit = await stream.receive(deadline_ns=DEADLINE_NS)
                    await qubit.measure("Z")

    async def _send_notes(self, node: Node) -> None:
        async with node.message_socket(
            remote=self.other, port=NOTES, deadline_ns=DEADLINE_NS
        ) as out:
            while not self.is_stopping:
                await out.send(b"note", deadline_ns=DEADLINE_NS)
                await node.sleep(PAUSE_NS)

    async def _receive_notes(self, node: Node) -> None:
        async with node.listen(port=NOTES) as server:
            stream: Any = await server.accept(deadline_ns=DEADLINE_NS)
            async with stream:
                while not self.is_stopping:
                    await stream.receive(deadline_ns=DEADLINE_NS)

    async def _echo(self, node: Node) -> None:
        async with node.epr_socket(remote=self.other, port=ECHOES) as epr:
            while not self.is_stopping:
                pair = await epr.create_keep(deadline_ns=DEADLINE_NS)
                await pair.qubit.measure("Z")
                await epr.echo(pair, "Z")
                await node.sleep(PAUSE_NS)

    async def _make_key(self, node: Node) -> None:
        """Keys are made until the end; each ends, as one or not, within its program's deadline."""
        met_ns = None

        def on_progress(progress: Any) -> None:
            nonlocal met_ns
            if met_ns is None and progress.phase != MEETING:
                met_ns = node.now()

        folder = Path(self.path).parent  # of the network
        secret_path = folder / "identities" / file_name(self.name, self.other)
        terms = Terms(remote=self.other, parameters=PARAMETERS, deadline_ns=KEY_NS)
        path = self.runs / f"{self.name}.key"
        with (
            SecretFile(secret_path, network=folder.name, here=self.name, peer=self.other) as secret,
            KeyFile(path, KEY_BITS_MAX) as keys,
        ):
            outcome = await distribute(
                node, terms, secret.secret, keys, on_progress=on_progress, stop=self.stop
            )
        path.unlink(missing_ok=True)
        keys.metadata_path.unlink(missing_ok=True)
        is_key = isinstance(outcome, KeyMetadata)
        self.watch.count("a key" if is_key else f"no key: {outcome.reason.name}")
        if met_ns is not None and node.now() - met_ns > KEY_NS + LATE_NS:
            self.watch.late.append(f"a key took {node.now() - met_ns} ns")
        if not self.is_stopping:
            await node.sleep(KEY_PAUSE_NS)


if __name__ == "__main__":
    trio.run(Application(sys.argv[1], sys.argv[2], Path(sys.argv[3])).run)
