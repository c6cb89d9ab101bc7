"""Programs that run alike in the virtual runner and against daemons."""

from collections.abc import Callable
from pathlib import Path

import trio

from qstack.physical import service as physical
from qstack.runtime.network_file import load_network
from qstack.runtime.virtual import VirtualNetwork
from qstack.transport import service as transport
from qstack.wire.message import BasisChoice, Message
from qstack.wire.packed import unpack_bits
from tests.runtime.running import FACT_S, RunningNetwork, is_quiet
from tests.runtime.session_client import SessionClient, SessionEndedError, attached

PORT = 7
WITHIN_NS = 10**12


class Measurer:
    """Makes (or accepts) pairs and measures each in Z as it comes."""

    def __init__(
        self, other: str, pairs: int, *, creates: bool, basis: BasisChoice | None = None
    ) -> None:
        self.first: list[Message] = [transport.EprOpen(call=1, port=PORT, remote=other)]
        self.outcomes: list[int] = []
        self.log: list[Message] = []
        self.is_finished = False
        self._pairs = pairs
        self._creates = creates
        self._basis = basis
        self._calls = 10

    def __call__(self, message: Message, now: int) -> list[Message]:
        del now
        self.log.append(message)
        match message:
            case transport.Opened(socket=socket):
                return [self._ask(socket)]
            case transport.PairDelivered(qubit=qubit):
                self._calls += 1
                return [physical.Measure(call=self._calls, qubit=qubit, basis="Z")]
            case transport.PairsMeasured():
                self.outcomes += unpack_bits(message.outcomes, message.pairs).tolist()
            case physical.Measured(outcome=outcome):
                self.outcomes.append(outcome)
            case transport.Finished(call=2) | transport.Failed(call=2):
                self.is_finished = True
            case _:
                pass
        return []

    def _ask(self, socket: int) -> Message:
        if self._creates:
            return transport.EprCreate(
                call=2,
                socket=socket,
                number=self._pairs,
                basis=self._basis,
                min_fidelity=0.5,
                priority=1,
                within_ns=WITHIN_NS,
            )
        return transport.EprAccept(
            call=2, socket=socket, number=self._pairs, basis=self._basis, within_ns=WITHIN_NS
        )


def measurers(pairs: int, basis: BasisChoice | None = None) -> dict[str, Measurer]:
    """alice creates, bob accepts; with a basis the pairs are read as they come."""
    return {
        "alice": Measurer("bob", pairs, creates=True, basis=basis),
        "bob": Measurer("alice", pairs, creates=False, basis=basis),
    }


def virtual_chains(
    source: Path,
    seed: int,
    pairs: int,
    kill: tuple[str, int] | None = None,
    basis: BasisChoice | None = None,
) -> dict[str, str]:
    """The chain of each node after the measurers have run in virtual time.

    A node that was killed has, as its daemon, the chain of its present life alone.
    """
    network = VirtualNetwork(load_network(source), seed)
    network.run_until_quiet()
    for node, program in measurers(pairs, basis).items():
        network.attach(node, "app/0", program, program.first)
    if kill is not None:
        name, at_ns = kill
        network.kill(name, at_ns)
        network.run_until(at_ns + network.network.restart_ns - 1)
        del network.chains[name]
    network.run_until_quiet()
    return {name: trace.digest.hex() for name, trace in network.chains.items()}


async def daemon_chains(
    running: RunningNetwork,
    pairs: int,
    meanwhile: Callable[[], object] | None = None,
    basis: BasisChoice | None = None,
) -> tuple[dict[str, str], dict[str, Measurer]]:
    """The same through daemons: the chains when everything is quiet, and the programs."""
    programs = measurers(pairs, basis)
    chains: dict[str, str] = {}

    async def one(node: str) -> None:
        async with attached(running.session(node)) as session:
            await session.run(programs[node], programs[node].first)

    async with trio.open_nursery() as nursery:
        for node in programs:
            nursery.start_soon(one, node)
        if meanwhile is not None:
            nursery.start_soon(meanwhile)
        await running.fact(
            "both programs are done",
            lambda report: is_quiet(report) and all(p.is_finished for p in programs.values()),
        )
        report = await running.report()  # nodes were asked before the fabric said "quiet"
        participants = report["nodes"] | report["stations"]
        chains = {name: each["trace"] for name, each in participants.items()}
        nursery.cancel_scope.cancel()
    return chains, programs


async def deliver(running: RunningNetwork, pairs: int = 2) -> None:
    """New sessions at alice and bob make pairs, and measure them: the network works."""
    programs = measurers(pairs)

    async def one(node: str, other: str) -> None:
        program = programs[node]
        async with attached(running.session(node)) as session:
            await path_to(session, other)
            session.call(*program.first)
            while not program.is_finished or len(program.outcomes) < pairs:
                message = await session.next()
                session.call(*program(message, session.now_ns))

    with trio.move_on_after(FACT_S) as limit:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, "alice", "bob")
                nursery.start_soon(one, "bob", "alice")
        except* SessionEndedError as group:
            raise AssertionError(f"a node ended a session\n{running.log()}") from group
    logs = {node: program.log for node, program in programs.items()}
    assert not limit.cancelled_caught, f"no pairs: {logs}\n{running.log()}"
    assert not [m for log in logs.values() for m in log if isinstance(m, transport.Failed)], logs


async def path_to(session: SessionClient, other: str) -> None:
    """Wait until the node knows a path: link states travel, also after a process came back."""
    call = 1000
    while True:
        call += 1
        session.call(transport.RouteAsk(call=call, remote=other))
        answer = await session.next()
        if isinstance(answer, transport.RouteInfo) and answer.path:
            return
        assert isinstance(answer, transport.RouteInfo | transport.Failed)
