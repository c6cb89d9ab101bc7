"""A node as its applications see it: qubits, sockets and network time."""

import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from qstack.api import checks
from qstack.api.call import Call, Subject
from qstack.api.checks import DEADLINE_NS, Kind
from qstack.api.connection import Connection
from qstack.api.epr import EprSocket
from qstack.api.errors import Expired, NoNode
from qstack.api.qubit import Qubit
from qstack.api.streams import Listener, MessageStream, QubitSocket
from qstack.physical import service as physical
from qstack.runtime import session_messages as session
from qstack.runtime.run_folder import RunFolderError, find_node
from qstack.transport import service as transport
from qstack.wire.message import Message

EARLY_VOIDS_MAX: Final = 4096  # pairs found void before the application took them
APPLICATION_NAME_MAX: Final = 63
_VOID: Final = "the far half of this qubit's pair is gone; free it"
_NODE: Final = -1  # the port of what belongs to no socket


@dataclass(frozen=True)
class Route:
    """What could be had to another node; an empty path means there is none.

    `error_x`, `error_z`: the share of pairs expected to read otherwise than phi+ in X, in Z.
    """

    path: tuple[str, ...]
    fidelity: float
    rate_hz: float
    error_x: float
    error_z: float


@asynccontextmanager
async def open_node(
    name: str,
    *,
    path: Path | str | None = None,
    application: str | None = None,
    is_observer: bool = False,
) -> AsyncIterator["Node"]:
    """Attach to the node `name` of this host; leaving the block frees all it had.

    `path` names its session socket; else `$QSTACK_NODE` does, else the run folder is searched. An
    observer only asks for status and never holds the clock. Raises `NoNode`.
    """
    node = Node(name, _find(name) if path is None else Path(path))
    await node.connection.open(application or _own_name(), is_observer=is_observer)
    try:
        yield node
    finally:
        await node.connection.aclose()


def _find(name: str) -> Path:
    try:
        return find_node(checks.remote(name))
    except RunFolderError as error:
        raise NoNode(str(error)) from error


def _own_name() -> str:
    return Path(sys.argv[0] if sys.argv else "").stem[:APPLICATION_NAME_MAX] or "python"


class Node:
    """A session with a node. Made by `open_node`."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.qubits: dict[bytes, Qubit] = {}  # of this session
        self.connection = Connection(
            path, on_void=self._on_void, on_device_lost=self._on_device_lost
        )
        self._early_voids: OrderedDict[bytes, None] = OrderedDict()

    @property
    def is_seeded(self) -> bool:
        """Whether the node's chance comes from a seed: reproducible, not secret."""
        attached = self.connection.attached
        return attached is not None and attached.is_seeded

    # --- network time ----------------------------------------------------------------------------

    def now(self) -> int:
        """Network time in ns: that of the latest word of the node."""
        return self.connection.now_ns

    async def sleep(self, span_ns: int) -> None:
        """Wait for a span of network time."""
        await self.connection.ask(self._sleep(span_ns), session.Woken)

    @contextmanager
    def fail_after(self, span_ns: int) -> Iterator[trio.CancelScope]:
        """Cancel the block after a span of network time, and raise `Expired`."""
        scope = trio.CancelScope()
        is_over = False

        def on_woken(_answer: object) -> None:
            nonlocal is_over
            is_over = True
            scope.cancel()

        timer = self.start_timer(span_ns, on_woken)
        try:
            with scope:
                yield scope
        finally:
            self.connection.withdraw(timer)
        if is_over and scope.cancelled_caught:
            raise Expired(f"{span_ns} ns of network time have passed")

    def start_timer(self, span_ns: int, on_woken: Callable[[object], None]) -> Call:
        """Call `on_woken` after a span of network time, unless the call returned is withdrawn."""
        timer = self._sleep(span_ns)
        timer.on_answer = on_woken
        self.connection.start(timer)
        return timer

    def _sleep(self, span_ns: int) -> Call:
        span = checks.span_ns(span_ns)
        return Call(
            Subject(_NODE, "sleep"),
            lambda number: (session.Sleep(call=number, span_ns=span),),
            lambda number: session.CancelSleep(call=number),
            lambda _answer: None,
        )

    # --- what the node knows ---------------------------------------------------------------------

    async def route(
        self,
        remote: str,
        *,
        kind: Kind = "keep",
        min_fidelity: float = 0.0,
        from_remote: bool = False,
    ) -> Route:
        """What could be had to `remote`: pairs to keep, or measured at once (kind "measure").

        The rate and the error rates are those of the fastest way that keeps `min_fidelity`; if
        there is none the rate is 0. `from_remote`: as the remote would be told when it asked, with
        the path from there.
        """
        name, least = checks.remote(remote), checks.fidelity(min_fidelity)
        way = checks.kind(kind)

        def ask(number: int) -> Message:
            return transport.RouteAsk(
                call=number, remote=name, kind=way, min_fidelity=least, from_remote=from_remote
            )

        call = self._opening("route", _NODE, ask, name)
        answer = await self.connection.ask(call, transport.RouteInfo)
        return Route(
            tuple(answer.path), answer.fidelity, answer.rate_hz, answer.error_x, answer.error_z
        )

    async def status(self) -> dict[str, Any]:
        """What the node is and does; its keys are those of `qstack status --json`."""
        call = Call(
            Subject(_NODE, "status"),
            lambda number: (session.StatusAsk(call=number),),
            None,
            lambda _answer: None,
        )
        answer = await self.connection.ask(call, session.Status)
        return msgspec.json.decode(answer.report, type=dict[str, Any])

    # --- qubits and sockets ----------------------------------------------------------------------

    async def qubit(self) -> Qubit:
        """A fresh qubit in state 0. Raises `Refused` (NO_RESOURCES) if the memory is full."""
        call = Call(
            Subject(_NODE, "allocate"),
            lambda number: (physical.Allocate(call=number),),
            None,
            self.connection.give_back,
        )
        answer = await self.connection.ask(call, physical.Allocated)
        return self.take_qubit(answer.qubit, _NODE)

    @asynccontextmanager
    async def epr_socket(
        self, *, remote: str | None, port: int, min_fidelity: float = 0.5
    ) -> AsyncIterator[EprSocket]:
        """An EPR socket on `port` to the same port of `remote`; None accepts from anyone.

        Port 0 is echo: the far end's node itself accepts there. Raises `Refused` (PORT_IN_USE).
        """
        checked_port, fidelity = checks.port(port), checks.fidelity(min_fidelity)
        name = None if remote is None else checks.remote(remote)
        call = self._opening(
            "epr",
            checked_port,
            lambda number: transport.EprOpen(call=number, port=checked_port, remote=name),
            name,
        )
        opened = await self.connection.ask(call, transport.Opened)
        socket = EprSocket(
            self, opened.socket, remote=name, port=checked_port, min_fidelity=fidelity
        )
        try:
            yield socket
        finally:
            await socket.close()

    @asynccontextmanager
    async def qubit_socket(
        self,
        *,
        remote: str,
        port: int,
        min_fidelity: float = 0.5,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> AsyncIterator[QubitSocket]:
        """A stream of qubits to who listens on `port` of `remote`."""
        number = await self._open_stream("qubit", remote, port, min_fidelity, deadline_ns)
        async with QubitSocket(self, number, remote=remote, port=port) as stream:
            yield stream

    @asynccontextmanager
    async def message_socket(
        self, *, remote: str, port: int, deadline_ns: int | None = DEADLINE_NS
    ) -> AsyncIterator[MessageStream]:
        """A stream of messages, both ways, with who listens on `port` of `remote`."""
        number = await self._open_stream("message", remote, port, 0.0, deadline_ns)
        async with MessageStream(self, number, remote=remote, port=port) as stream:
            yield stream

    @asynccontextmanager
    async def listen(self, *, port: int, remote: str | None = None) -> AsyncIterator[Listener]:
        """Listen on `port` for streams of `remote`, or of anyone."""
        checked_port = checks.port(port)
        name = None if remote is None else checks.remote(remote)
        call = self._opening(
            "listen",
            checked_port,
            lambda number: transport.Listen(call=number, port=checked_port, remote=name),
            name,
        )
        opened = await self.connection.ask(call, transport.Opened)
        async with Listener(self, opened.socket, remote=name, port=checked_port) as listener:
            yield listener

    # --- inside ----------------------------------------------------------------------------------

    def take_qubit(self, name: bytes, port: int) -> Qubit:
        """A qubit the node has handed to this session."""
        qubit = Qubit(self, name, port=port)
        self.qubits[name] = qubit
        if name in self._early_voids:
            del self._early_voids[name]
            qubit.loss = _VOID
        return qubit

    async def _open_stream(
        self,
        kind: transport.StreamKind,
        remote: str,
        port: int,
        min_fidelity: float,
        deadline_ns: int | None,
    ) -> int:
        checked_port, name = checks.port(port), checks.remote(remote)
        fidelity, within_ns = checks.fidelity(min_fidelity), checks.deadline_ns(deadline_ns)
        call = self._opening(
            f"open-{kind}",
            checked_port,
            lambda number: transport.StreamOpen(
                call=number,
                kind=kind,
                remote=name,
                port=checked_port,
                min_fidelity=fidelity,
                within_ns=within_ns,
            ),
            name,
        )
        return (await self.connection.ask(call, transport.Opened)).socket

    def _opening(
        self, kind: str, port: int, make: Callable[[int], Message], remote: str | None
    ) -> Call:
        subject = Subject(port, kind, name=(remote or "").encode())
        return Call(
            subject,
            lambda number: (make(number),),
            lambda number: transport.CancelCall(call=number),
            lambda answer: self.connection.give_back(answer, port),
        )

    def _on_void(self, message: transport.PairVoid) -> None:
        qubit = self.qubits.get(message.qubit)
        if qubit is not None:
            qubit.loss = _VOID
            return
        self._early_voids[message.qubit] = None
        if len(self._early_voids) > EARLY_VOIDS_MAX:
            self._early_voids.popitem(last=False)

    def _on_device_lost(self) -> None:
        for qubit in list(self.qubits.values()):
            qubit.end("lost")
            qubit.loss = "the quantum device has gone, and this qubit with it"
