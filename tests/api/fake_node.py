"""A node for tests: the real session server on a Unix socket, with scripted answers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from qstack.errors import ErrorCode
from qstack.ids import CircuitId, LinkPairId, PairId
from qstack.physical import service as physical
from qstack.runtime import session_messages as session
from qstack.runtime.listen import forget, listen_locally
from qstack.runtime.session_server import SessionServer
from qstack.transport import service as transport
from qstack.wire.message import Message

Script = Callable[[Message], list[Message]]


def pair_id(number: int) -> PairId:
    """A made-up pair."""
    return PairId(CircuitId(bytes(16)), 1, LinkPairId(number.to_bytes(16, "big")))


class FakeNode:
    """Answers every call at once, unless `scripts` has another answer for its class."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.now_ns = 1_000
        self.heard: list[Message] = []  # calls, of all sessions
        self.by_session: dict[str, list[Message]] = {}
        self.ended: list[str] = []
        self.changes = 0
        self.scripts: dict[type[Message], Script] = {}
        self.made = 0
        self.server = SessionServer(
            name,
            "lockstep",
            is_seeded=True,
            on_call=self._on_call,
            on_end=self._on_end,
            on_change=self._on_change,
            on_turn=self._on_turn,
            on_status=lambda: (self.now_ns, b'{"node": "fake"}'),
        )
        self._progress = trio.Event()

    def _on_turn(self) -> None:
        self.server.flush()

    def of(self, *kinds: type[Message]) -> list[Message]:
        """The calls of these kinds."""
        return [message for message in self.heard if isinstance(message, kinds)]

    def tell(self, message: Message, name: str = "app/0") -> None:
        """Say something to a session."""
        self.server.tell(name, self.now_ns, message)
        self.server.flush()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until the node has heard or seen something."""
        with trio.fail_after(5):
            while not is_so():
                self._progress = trio.Event()
                await self._progress.wait()

    async def hears(self, kind: type[Message], count: int = 1) -> list[Message]:
        """Wait until so many calls of a kind have come."""
        await self.until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)

    def fresh(self) -> int:
        """A number not used before."""
        self.made += 1
        return self.made

    def qubit(self) -> bytes:
        """A fresh qubit's name."""
        return self.fresh().to_bytes(16, "big")

    def pair(self, call: int) -> transport.PairDelivered:
        """A fresh pair for a call."""
        number = self.fresh()
        return transport.PairDelivered(
            call=call,
            remote="bob",
            pair=pair_id(number),
            qubit=number.to_bytes(16, "big"),
            x_bit=number & 1,
            z_bit=1,
            goodness=0.9,
            time_of_goodness_ns=self.now_ns,
        )

    def _on_call(self, name: str, _sequence: int, message: Message) -> None:
        self.heard.append(message)
        self.by_session.setdefault(name, []).append(message)
        script = self.scripts.get(type(message), self.answer)
        for answer in script(message):
            self.tell(answer, name)
        self._progress.set()

    def _on_end(self, name: str, _calls: int) -> None:
        self.ended.append(name)
        self._progress.set()

    def _on_change(self) -> None:
        self.changes += 1
        self._progress.set()

    def answer(self, message: Message) -> list[Message]:
        """What a node with everything at hand would say."""
        match message:
            case transport.EprOpen() | transport.StreamOpen() | transport.Listen():
                return [transport.Opened(call=message.call, socket=self.fresh())]
            case transport.EprCreate(basis=None) | transport.EprAccept(basis=None):
                pairs: list[Message] = [self.pair(message.call) for _ in range(message.number)]
                return [*pairs, transport.Finished(call=message.call)]
            case transport.Accept():
                return [
                    transport.Accepted(
                        call=message.call, socket=self.fresh(), remote="bob", kind="message"
                    )
                ]
            case transport.SendQubit() | transport.SendMessage():
                return [transport.Finished(call=message.call)]
            case transport.ReceiveQubit():
                return [transport.QubitArrived(call=message.call, qubit=self.qubit(), sequence=0)]
            case transport.ReceiveMessage():
                return [transport.MessageArrived(call=message.call, data=b"hello")]
            case transport.EchoMeasure():
                return [transport.EchoResult(call=message.call, outcome=1)]
            case transport.RouteAsk():
                return [
                    transport.RouteInfo(
                        call=message.call, path=["alice", "bob"], fidelity=0.9, rate_hz=10.0
                    )
                ]
            case physical.Allocate():
                return [physical.Allocated(call=message.call, qubit=self.qubit())]
            case physical.ApplyGate(call=int(call)) | physical.Reset(call=call):
                return [physical.CallDone(call=call)]
            case physical.Measure():
                return [physical.Measured(call=message.call, outcome=1)]
            case session.Sleep():
                self.now_ns += message.span_ns
                return [session.Woken(call=message.call)]
            case _:
                return []


def silence(_message: Message) -> list[Message]:
    """A script: no answer."""
    return []


def failure(code: ErrorCode, best: float | None = None) -> Script:
    """A script: the call fails."""
    return lambda message: [
        transport.Failed(
            call=getattr(message, "call", 0), error=code.name, detail="scripted", best=best
        )
    ]


@asynccontextmanager
async def running(node: FakeNode, folder: Path, network: str = "net") -> AsyncIterator[FakeNode]:
    """Serve a fake node in the run folder."""
    place = folder / network
    place.mkdir(exist_ok=True)
    path = place / f"node-{node.name}.sock"
    listener = listen_locally(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.server.serve, listener)
        try:
            yield node
        finally:
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(listener)
            forget(path)
