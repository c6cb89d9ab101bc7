"""The synchronous twin: the names of the asynchronous interface, without `async` and `await`.

    with qstack.sync.open_node("alice") as node:
        with node.epr_socket(remote="bob", port=7) as epr:
            outcome = epr.create_keep().qubit.measure("X")

A call in progress is idle; between its calls a program is busy, and network time stands still.
Errors are those of the asynchronous interface. A node is used in the thread that opened it.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from qstack.api import epr as async_epr
from qstack.api import node as async_node
from qstack.api import qubit as async_qubit
from qstack.api import streams as async_streams
from qstack.api.checks import DEADLINE_NS, Kind
from qstack.api.epr import BasisArgument, MeasuredPairs, Prepared
from qstack.api.errors import Closed
from qstack.api.node import Route
from qstack.api.portal import Limit, Portal, portal
from qstack.ids import PairId

__all__ = [
    "EprSocket",
    "Listener",
    "MeasuredPairs",
    "MessageStream",
    "Node",
    "Pair",
    "Prepared",
    "Qubit",
    "QubitSocket",
    "QubitStream",
    "Route",
    "open_node",
]

Item = TypeVar("Item")
Made = TypeVar("Made")


class Qubit:
    """See `qstack.api.qubit.Qubit`."""

    def __init__(self, caller: Portal, qubit: async_qubit.Qubit) -> None:
        self._portal = caller
        self.inner = qubit

    @property
    def id(self) -> bytes:
        """Its name, local to the node."""
        return self.inner.id

    def h(self) -> None:
        """Hadamard gate."""
        self._portal.call(self.inner.h)

    def x(self) -> None:
        """Pauli X gate."""
        self._portal.call(self.inner.x)

    def y(self) -> None:
        """Pauli Y gate."""
        self._portal.call(self.inner.y)

    def z(self) -> None:
        """Pauli Z gate."""
        self._portal.call(self.inner.z)

    def s(self) -> None:
        """Phase gate: the square root of Z."""
        self._portal.call(self.inner.s)

    def t(self) -> None:
        """T gate: the square root of S."""
        self._portal.call(self.inner.t)

    def rx(self, angle: float) -> None:
        """Rotate about X by `angle` radians."""
        self._portal.call(self.inner.rx, angle)

    def ry(self, angle: float) -> None:
        """Rotate about Y by `angle` radians."""
        self._portal.call(self.inner.ry, angle)

    def rz(self, angle: float) -> None:
        """Rotate about Z by `angle` radians."""
        self._portal.call(self.inner.rz, angle)

    def cnot(self, target: "Qubit") -> None:
        """Controlled NOT; this qubit controls."""
        self._portal.call(self.inner.cnot, target.inner)

    def cz(self, target: "Qubit") -> None:
        """Controlled Z."""
        self._portal.call(self.inner.cz, target.inner)

    def measure(self, basis: str = "Z") -> int:
        """Measure in basis X, Y or Z, which ends the qubit; the outcome, 0 or 1."""
        return self._portal.call(self.inner.measure, basis)

    def reset(self) -> None:
        """Bring the qubit to state 0."""
        self._portal.call(self.inner.reset)

    def free(self) -> None:
        """End the qubit. Nothing happens if it has ended before."""
        self._portal.finish(self.inner.free)


@dataclass(frozen=True)
class Pair:
    """See `qstack.api.epr.Pair`."""

    qubit: Qubit
    id: PairId
    remote: str
    bits: tuple[int, int]
    goodness: float
    time_of_goodness_ns: int
    inner: async_epr.Pair


class EprSocket:
    """See `qstack.api.epr.EprSocket`."""

    def __init__(self, caller: Portal, socket: async_epr.EprSocket) -> None:
        self._portal = caller
        self._socket = socket

    @overload
    def create_keep(
        self,
        n: None = None,
        *,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> Pair: ...

    @overload
    def create_keep(
        self,
        n: int,
        *,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> Iterator[Pair]: ...

    def create_keep(
        self,
        n: int | None = None,
        *,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> Pair | Iterator[Pair]:
        """Make one pair, or with `n` an iterator over so many; the far end accepts them."""
        pairs = self._socket.create_keep(
            n, min_fidelity=min_fidelity, priority=priority, deadline_ns=deadline_ns
        )
        return self._next(pairs) if n is None else self._iterate(pairs, self._pair)

    @overload
    def create_prepare(
        self,
        basis: BasisArgument,
        n: None = None,
        *,
        rotation: tuple[float, float, float] | None = None,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> Prepared: ...

    @overload
    def create_prepare(
        self,
        basis: BasisArgument,
        n: int,
        *,
        rotation: tuple[float, float, float] | None = None,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> Iterator[Prepared]: ...

    def create_prepare(
        self,
        basis: BasisArgument,
        n: int | None = None,
        *,
        rotation: tuple[float, float, float] | None = None,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> Prepared | Iterator[Prepared]:
        """Prepare one qubit at the far end, which accepts it, or with `n` an iterator over more."""
        states = self._socket.create_prepare(
            basis,
            n,
            rotation=rotation,
            min_fidelity=min_fidelity,
            priority=priority,
            deadline_ns=deadline_ns,
        )
        if n is None:
            return self._portal.call(states.__anext__)
        return self._iterate(states, lambda prepared: prepared)

    @overload
    def accept(self, n: None = None, *, deadline_ns: int | None = DEADLINE_NS) -> Pair: ...

    @overload
    def accept(self, n: int, *, deadline_ns: int | None = DEADLINE_NS) -> Iterator[Pair]: ...

    def accept(
        self, n: int | None = None, *, deadline_ns: int | None = DEADLINE_NS
    ) -> Pair | Iterator[Pair]:
        """Take one pair, or with `n` an iterator over so many, that the far end makes."""
        pairs = self._socket.accept(n, deadline_ns=deadline_ns)
        return self._next(pairs) if n is None else self._iterate(pairs, self._pair)

    def create_measure(
        self,
        n: int,
        basis: BasisArgument,
        *,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> MeasuredPairs:
        """Make `n` pairs and read each half at once in `basis`, or each in one that is drawn.

        Probabilities such as `{"Z": 0.9, "X": 0.1}` have this node draw the basis of each pair.
        """

        async def create() -> MeasuredPairs:
            return await self._socket.create_measure(
                n, basis, min_fidelity=min_fidelity, priority=priority, deadline_ns=deadline_ns
            )

        return self._portal.call(create)

    def accept_measure(
        self, n: int, basis: BasisArgument, *, deadline_ns: int | None = DEADLINE_NS
    ) -> MeasuredPairs:
        """Take `n` pairs the far end makes with `create_measure`, read in `basis`."""

        async def accept() -> MeasuredPairs:
            return await self._socket.accept_measure(n, basis, deadline_ns=deadline_ns)

        return self._portal.call(accept)

    def echo(self, pair: Pair, basis: str) -> int:
        """Have the far end read its half of a pair from this socket, which is open to port 0."""
        return self._portal.call(self._socket.echo, pair.inner, basis)

    def close(self) -> None:
        """Close the socket."""
        self._portal.finish(self._socket.close)

    def _next(self, pairs: async_epr.Pairs) -> Pair:
        return self._pair(self._portal.call(pairs.__anext__))

    def _pair(self, pair: async_epr.Pair) -> Pair:
        return Pair(
            qubit=Qubit(self._portal, pair.qubit),
            id=pair.id,
            remote=pair.remote,
            bits=pair.bits,
            goodness=pair.goodness,
            time_of_goodness_ns=pair.time_of_goodness_ns,
            inner=pair,
        )

    def _iterate(
        self, arrivals: async_epr.Arrivals[Item], made: Callable[[Item], Made]
    ) -> Generator[Made, None, None]:
        try:
            while True:
                yield made(self._portal.call(arrivals.__anext__))
        except StopAsyncIteration:
            return
        finally:
            if self._portal.is_usable_here():
                self._portal.finish(arrivals.aclose)


class _Stream:
    """What all stream sockets do."""

    def __init__(self, caller: Portal, stream: async_streams.StreamSocket) -> None:
        self._portal = caller
        self._base = stream
        self.remote = stream.remote
        self.port = stream.port

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this end."""
        if self._portal.is_usable_here():
            self._portal.finish(self._base.close)


class QubitSocket(_Stream):
    """See `qstack.api.streams.QubitSocket`."""

    def __init__(self, caller: Portal, stream: async_streams.QubitSocket) -> None:
        super().__init__(caller, stream)
        self._stream = stream

    def __enter__(self) -> "QubitSocket":
        return self

    def send(self, qubit: Qubit, *, deadline_ns: int | None = DEADLINE_NS) -> None:
        """Teleport `qubit`; returns when the far end has it."""

        async def send() -> None:
            await self._stream.send(qubit.inner, deadline_ns=deadline_ns)

        self._portal.call(send)


class QubitStream(_Stream):
    """See `qstack.api.streams.QubitStream`."""

    def __init__(self, caller: Portal, stream: async_streams.QubitStream) -> None:
        super().__init__(caller, stream)
        self._stream = stream

    def __enter__(self) -> "QubitStream":
        return self

    def __iter__(self) -> "QubitStream":
        return self

    def __next__(self) -> Qubit:
        try:
            return self.receive(deadline_ns=None)
        except Closed:
            raise StopIteration from None

    def receive(self, *, deadline_ns: int | None = DEADLINE_NS) -> Qubit:
        """The next qubit, in the order they were sent."""

        async def receive() -> async_qubit.Qubit:
            return await self._stream.receive(deadline_ns=deadline_ns)

        return Qubit(self._portal, self._portal.call(receive))


class MessageStream(_Stream):
    """See `qstack.api.streams.MessageStream`."""

    def __init__(self, caller: Portal, stream: async_streams.MessageStream) -> None:
        super().__init__(caller, stream)
        self._stream = stream

    def __enter__(self) -> "MessageStream":
        return self

    def __iter__(self) -> "MessageStream":
        return self

    def __next__(self) -> bytes:
        try:
            return self.receive(deadline_ns=None)
        except Closed:
            raise StopIteration from None

    def send(
        self, data: bytes | bytearray | memoryview, *, deadline_ns: int | None = DEADLINE_NS
    ) -> None:
        """Send one message; returns when the far end has room for it."""

        async def send() -> None:
            await self._stream.send(data, deadline_ns=deadline_ns)

        self._portal.call(send)

    def receive(self, *, deadline_ns: int | None = DEADLINE_NS) -> bytes:
        """The next message, in the order they were sent."""

        async def receive() -> bytes:
            return await self._stream.receive(deadline_ns=deadline_ns)

        return self._portal.call(receive)


class Listener(_Stream):
    """See `qstack.api.streams.Listener`."""

    def __init__(self, caller: Portal, stream: async_streams.Listener) -> None:
        super().__init__(caller, stream)
        self._listener = stream

    def __enter__(self) -> "Listener":
        return self

    def accept(self, *, deadline_ns: int | None = DEADLINE_NS) -> QubitStream | MessageStream:
        """The next stream, of whichever kind its opener chose."""

        async def accept() -> async_streams.QubitStream | async_streams.MessageStream:
            return await self._listener.accept(deadline_ns=deadline_ns)

        stream = self._portal.call(accept)
        if isinstance(stream, async_streams.QubitStream):
            return QubitStream(self._portal, stream)
        return MessageStream(self._portal, stream)


class Node:
    """See `qstack.api.node.Node`."""

    def __init__(self, caller: Portal, node: async_node.Node) -> None:
        self._portal = caller
        self._node = node
        self.name = node.name

    @property
    def is_seeded(self) -> bool:
        """Whether the node's chance comes from a seed: reproducible, not secret."""
        return self._node.is_seeded

    def now(self) -> int:
        """Network time in ns: that of the latest word of the node."""
        return self._node.now()

    def sleep(self, span_ns: int) -> None:
        """Wait for a span of network time."""
        self._portal.call(self._node.sleep, span_ns)

    @contextmanager
    def fail_after(self, span_ns: int) -> Iterator[None]:
        """Raise `Expired` from the call in progress, or the next, after a span of network time."""
        limit = Limit(f"{span_ns} ns of network time have passed")

        async def start() -> Any:
            return self._node.start_timer(span_ns, lambda _answer: self._portal.exceed(limit))

        async def stop() -> None:
            self._node.connection.withdraw(timer)

        timer = self._portal.call(start)
        try:
            with self._portal.limited(limit):
                yield
        finally:
            self._portal.finish(stop)

    def route(
        self,
        remote: str,
        *,
        kind: Kind = "keep",
        min_fidelity: float = 0.0,
        from_remote: bool = False,
    ) -> Route:
        """What could be had to `remote`: pairs to keep, or measured at once (kind "measure")."""
        ask = partial(
            self._node.route,
            remote,
            kind=kind,
            min_fidelity=min_fidelity,
            from_remote=from_remote,
        )
        return self._portal.call(ask)

    def status(self) -> dict[str, Any]:
        """What the node is and does; its keys are those of `qstack status --json`."""
        return self._portal.call(self._node.status)

    def qubit(self) -> Qubit:
        """A fresh qubit in state 0. Raises `Refused` (NO_RESOURCES) if the memory is full."""
        return Qubit(self._portal, self._portal.call(self._node.qubit))

    @contextmanager
    def epr_socket(
        self, *, remote: str | None, port: int, min_fidelity: float = 0.5
    ) -> Iterator[EprSocket]:
        """An EPR socket on `port` to the same port of `remote`; None accepts from anyone."""
        manager = self._node.epr_socket(remote=remote, port=port, min_fidelity=min_fidelity)
        with self._portal.entered(manager) as socket:
            yield EprSocket(self._portal, socket)

    @contextmanager
    def qubit_socket(
        self,
        *,
        remote: str,
        port: int,
        min_fidelity: float = 0.5,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> Iterator[QubitSocket]:
        """A stream of qubits to who listens on `port` of `remote`."""
        manager = self._node.qubit_socket(
            remote=remote, port=port, min_fidelity=min_fidelity, deadline_ns=deadline_ns
        )
        with self._portal.entered(manager) as stream:
            yield QubitSocket(self._portal, stream)

    @contextmanager
    def message_socket(
        self, *, remote: str, port: int, deadline_ns: int | None = DEADLINE_NS
    ) -> Iterator[MessageStream]:
        """A stream of messages, both ways, with who listens on `port` of `remote`."""
        manager = self._node.message_socket(remote=remote, port=port, deadline_ns=deadline_ns)
        with self._portal.entered(manager) as stream:
            yield MessageStream(self._portal, stream)

    @contextmanager
    def listen(self, *, port: int, remote: str | None = None) -> Iterator[Listener]:
        """Listen on `port` for streams of `remote`, or of anyone."""
        with self._portal.entered(self._node.listen(port=port, remote=remote)) as listener:
            yield Listener(self._portal, listener)


@contextmanager
def open_node(
    name: str,
    *,
    path: Path | str | None = None,
    application: str | None = None,
    is_observer: bool = False,
) -> Iterator[Node]:
    """Attach to the node `name` of this host; leaving the block frees all it had."""
    opening = async_node.open_node(
        name, path=path, application=application, is_observer=is_observer
    )
    with portal() as caller, caller.entered(opening) as node:
        yield Node(caller, node)
