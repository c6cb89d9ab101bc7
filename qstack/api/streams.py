"""Qubit and message streams between ports: opened by one end, accepted by a listener at the other.

A qubit stream carries qubits from its opener; a message stream carries messages both ways. Both
keep their order. Nothing that arrived is lost when a waiting `receive` is cancelled: the next one
gets it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from qstack.api import checks
from qstack.api.call import Answer, Call, Subject
from qstack.api.checks import DEADLINE_NS
from qstack.api.errors import BadRequest, Closed, NodeGone, QstackError
from qstack.api.qubit import Qubit
from qstack.physical import service as physical
from qstack.transport import service as transport
from qstack.wire.message import Message

if TYPE_CHECKING:
    from qstack.api.node import Node

Arrived = transport.QubitArrived | transport.MessageArrived


class StreamSocket:
    """What the node numbers: a listener, or one end of a stream."""

    def __init__(self, node: "Node", number: int, *, remote: str | None, port: int) -> None:
        self.node = node
        self.number = number
        self.remote = remote
        self.port = port
        self._subject = Subject(port, "socket", number)

    async def __aenter__(self) -> "StreamSocket":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close this end; its calls end with `Closed`, the far end is told."""
        self.node.connection.say(self._subject, transport.CloseSocket(socket=self.number))
        await trio.lowlevel.checkpoint()

    def _call(self, make: Callable[[int], tuple[Message, ...]]) -> Call:
        return Call(
            self._subject,
            make,
            lambda number: transport.CancelCall(call=number),
            lambda answer: self.node.connection.give_back(answer, self.port),
        )


class _Arrivals:
    """What arrives on a stream, in order, whichever call it answers."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._waiting: dict[Call, None] = {}
        self._kept: list[Arrived] = []  # came for calls that were withdrawn

    async def next(self, call: Call) -> Arrived:
        """Wait with `call` for the next one."""
        if self._kept:
            await trio.lowlevel.checkpoint()
            if self._kept:
                return self._kept.pop(0)
        call.late = lambda answer: self._on_late(call, answer)
        self._waiting[call] = None
        connection = self._node.connection
        try:
            connection.start(call)
            answer = await connection.take(call)
        finally:
            self._waiting.pop(call, None)
        if not isinstance(answer, Arrived):
            raise NodeGone(f"the node answered {type(answer).__name__}", code="OUT_OF_STATE")
        return answer

    def _on_late(self, withdrawn: Call, answer: Answer) -> None:
        """Move what a withdrawn call got to the oldest that waits, and so on."""
        self._waiting.pop(withdrawn, None)
        if not isinstance(answer, Arrived):
            return
        for call in self._waiting:
            if not call.answers:
                self._node.connection.answer_instead(call, answer, withdrawn)
                return
            if isinstance(other := call.answers[0], Arrived):
                call.answers[0], answer = answer, other
        self._kept.append(answer)

    def drop(self) -> None:
        """Give back what nobody will take."""
        for answer in self._kept:
            self._node.connection.give_back(answer)
        self._kept.clear()


class QubitSocket(StreamSocket):
    """The sending end of a qubit stream."""

    async def __aenter__(self) -> "QubitSocket":
        return self

    async def send(self, qubit: Qubit, *, deadline_ns: int | None = DEADLINE_NS) -> None:
        """Teleport `qubit`; returns when the far end has it.

        Raises `Lost` if it was consumed and did not arrive. After any other error, also after
        `Expired`, the qubit is still there. If the waiting is cancelled it is freed.
        """
        within_ns = checks.deadline_ns(deadline_ns)
        if qubit.node is not self.node:
            raise BadRequest("the qubit is of another node", code="NOT_OWNER")
        qubit.require()
        call = self._call(
            lambda number: (
                physical.Transfer(call=None, qubit=qubit.id, to=transport.LAYER),
                transport.SendQubit(
                    call=number, socket=self.number, qubit=qubit.id, within_ns=within_ns
                ),
            )
        )
        call.late = lambda answer: self._on_late(answer, qubit)
        qubit.end("sent")
        try:
            await self.node.connection.ask(call, transport.Finished)
        except trio.Cancelled:
            if call.is_unsaid:
                qubit.revive()
            raise
        except QstackError as error:
            if error.code != "LOST":
                qubit.revive()
            raise

    def _on_late(self, answer: Answer, qubit: Qubit) -> None:
        if isinstance(answer, transport.Failed) and answer.error != "LOST":
            self.node.connection.say(qubit.subject, physical.Free(qubit=qubit.id))


class QubitStream(StreamSocket):
    """The receiving end of a qubit stream. Iterate over it until the sender closes."""

    def __init__(self, node: "Node", number: int, *, remote: str | None, port: int) -> None:
        super().__init__(node, number, remote=remote, port=port)
        self._arrivals = _Arrivals(node)

    async def __aenter__(self) -> "QubitStream":
        return self

    def __aiter__(self) -> "QubitStream":
        return self

    async def __anext__(self) -> Qubit:
        try:
            return await self.receive(deadline_ns=None)
        except Closed:
            raise StopAsyncIteration from None

    async def receive(self, *, deadline_ns: int | None = DEADLINE_NS) -> Qubit:
        """The next qubit, in the order they were sent."""
        within_ns = checks.deadline_ns(deadline_ns)
        call = self._call(
            lambda number: (
                transport.ReceiveQubit(call=number, socket=self.number, within_ns=within_ns),
            )
        )
        arrived = await self._arrivals.next(call)
        assert isinstance(arrived, transport.QubitArrived)
        return self.node.take_qubit(arrived.qubit, self.port)

    async def close(self) -> None:
        """Close this end; what arrived and was not taken is freed."""
        self._arrivals.drop()
        await super().close()


class MessageStream(StreamSocket):
    """One end of a message stream, both are alike. Iterate over it until the far end closes."""

    def __init__(self, node: "Node", number: int, *, remote: str | None, port: int) -> None:
        super().__init__(node, number, remote=remote, port=port)
        self._arrivals = _Arrivals(node)

    async def __aenter__(self) -> "MessageStream":
        return self

    def __aiter__(self) -> "MessageStream":
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive(deadline_ns=None)
        except Closed:
            raise StopAsyncIteration from None

    async def send(
        self, data: bytes | bytearray | memoryview, *, deadline_ns: int | None = DEADLINE_NS
    ) -> None:
        """Send one message; returns when the far end has room for it."""
        content = checks.data(data)
        within_ns = checks.deadline_ns(deadline_ns)
        call = self._call(
            lambda number: (
                transport.SendMessage(
                    call=number, socket=self.number, data=content, within_ns=within_ns
                ),
            )
        )
        await self.node.connection.ask(call, transport.Finished)

    async def receive(self, *, deadline_ns: int | None = DEADLINE_NS) -> bytes:
        """The next message, in the order they were sent."""
        within_ns = checks.deadline_ns(deadline_ns)
        call = self._call(
            lambda number: (
                transport.ReceiveMessage(call=number, socket=self.number, within_ns=within_ns),
            )
        )
        arrived = await self._arrivals.next(call)
        assert isinstance(arrived, transport.MessageArrived)
        return arrived.data


class Listener(StreamSocket):
    """Takes streams that others open to a port."""

    async def __aenter__(self) -> "Listener":
        return self

    async def accept(self, *, deadline_ns: int | None = DEADLINE_NS) -> QubitStream | MessageStream:
        """The next stream, of whichever kind its opener chose."""
        within_ns = checks.deadline_ns(deadline_ns)
        call = self._call(
            lambda number: (transport.Accept(call=number, socket=self.number, within_ns=within_ns),)
        )
        answer = await self.node.connection.ask(call, transport.Accepted)
        make = QubitStream if answer.kind == "qubit" else MessageStream
        return make(self.node, answer.socket, remote=answer.remote, port=self.port)
