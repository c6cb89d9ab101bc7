"""A small raw session client: programs of the virtual runner, run against a node's socket."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from qstack.physical import service as physical
from qstack.runtime import session_messages as words
from qstack.transport import service as transport
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import BULK_BYTES_MAX, FrameReader, pack
from qstack.wire.message import Message
from qstack.wire.session import Stamp

REGISTRY = Registry((*words.MESSAGES, *transport.MESSAGES, *physical.MESSAGES, Stamp))
Program = Callable[[Message, int], list[Message]]
Kind = TypeVar("Kind", bound=Message)


class SessionEndedError(Exception):
    """The node closed the session."""


class SessionClient:
    """One session: says Idle whenever it waits and has read everything."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.now_ns = 0
        self.log: list[tuple[int, Message]] = []
        self.says_idle = True
        self._received = 0
        self._reader = FrameReader(BULK_BYTES_MAX)
        self._ready: list[tuple[int, Message]] = []
        self._out = b""

    def call(self, *messages: Message) -> None:
        """Queue calls; they are sent with the next wait."""
        self._out += b"".join(pack(encode(message)) for message in messages)

    async def next(self) -> Message:
        """The next message of the node."""
        while not self._ready:
            await self.flush()
            data = await self.stream.receive_some(65536)
            if not data:
                raise SessionEndedError
            self._feed(data)
        entry = self._ready.pop(0)
        self.log.append(entry)
        return entry[1]

    async def flush(self) -> None:
        """Send what is queued, and Idle."""
        out, self._out = self._out, b""
        if self.says_idle:
            out += pack(encode(words.Idle(received=self._received)))
        if out:
            await self.stream.send_all(out)

    def _feed(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            message = REGISTRY.decode(frame)
            assert message is not None
            if isinstance(message, Stamp):
                self.now_ns = message.at_ns
            else:
                self._received += 1
                self._ready.append((self.now_ns, message))

    async def until(self, kind: type[Kind], call: int | None = None) -> Kind:
        """The next message of a kind (answering `call`); what comes before it is in the log."""
        while True:
            message = await self.next()
            if isinstance(message, kind) and (
                call is None or getattr(message, "call", None) == call
            ):
                return message

    async def run(self, program: Program, first: list[Message]) -> None:
        """Run a program of the virtual runner until the node ends the session."""
        self.call(*first)
        while True:
            message = await self.next()
            self.call(*program(message, self.log[-1][0]))


@asynccontextmanager
async def attached(path: Path, *, is_observer: bool = False) -> AsyncIterator[SessionClient]:
    """A session that stands."""
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        client = SessionClient(stream)
        says_idle, client.says_idle = client.says_idle, False
        client.call(words.Attach(application="test", versions=[1], is_observer=is_observer))
        assert isinstance(await client.next(), words.Attached)
        client.says_idle = says_idle
        yield client
