"""The fabric's control socket (see `control_messages.py`): one request, one answer, in order.

A hold that has been answered stays until it is released, whoever asked for it; one that is still
waited for ends with the connection.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from qstack.errors import PeerError
from qstack.runtime.control_messages import (
    REQUESTS,
    AskTruth,
    AskWorld,
    ControlDone,
    ControlFailed,
    Held,
    Hold,
    Release,
    Truth,
    World,
)
from qstack.runtime.listen import forget, listen_locally
from qstack.runtime.session_server import peer_user
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import FrameReader, pack
from qstack.wire.message import Message

if TYPE_CHECKING:
    from qstack.runtime.fabric_daemon import FabricDaemon

_registry: Final = Registry(REQUESTS)
READ_BYTES: Final = 65_536
PAIRS_MAX: Final = 10_000  # in one answer: 1.3 MB


async def serve_control(daemon: "FabricDaemon", path: Path) -> None:
    """Serve until cancelled; the socket goes with it."""
    listener = listen_locally(path)
    try:
        async with listener, trio.open_nursery() as nursery:
            while True:
                stream = await listener.accept()
                if peer_user(stream) in (os.getuid(), 0):
                    nursery.start_soon(_serve, daemon, stream)
                else:
                    await trio.aclose_forcefully(stream)
    finally:
        forget(path)


async def _serve(daemon: "FabricDaemon", stream: trio.SocketStream) -> None:
    client = _Client(stream)
    pieces_in, pieces = trio.open_memory_channel[bytes](0)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(client.read, pieces_in)
        with suppress(trio.BrokenResourceError):  # who asked has gone, and hears no answer
            try:
                await _answer_all(daemon, client, pieces)
            except PeerError as error:
                await stream.send_all(pack(encode(ControlFailed(detail=str(error)[:500]))))
        nursery.cancel_scope.cancel()


class _Client:
    """A connection, and the hold it waits for."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.holding = trio.CancelScope()
        self._has_gone = False

    async def read(self, pieces: trio.MemorySendChannel[bytes]) -> None:
        """Read ahead by no more than one piece; who has said the last waits for no hold."""
        async with pieces:
            with suppress(trio.BrokenResourceError):
                while data := await self.stream.receive_some(READ_BYTES):
                    await pieces.send(data)
            self._has_gone = True
            self.holding.cancel()

    async def hold(self, daemon: "FabricDaemon", at_ns: int | None) -> Message:
        """Wait until the clock stands, or the client goes."""
        self.holding = trio.CancelScope()
        if self._has_gone:
            self.holding.cancel()
        try:
            with self.holding:
                return Held(now_ns=await daemon.clock.hold(at_ns))
        except ValueError as error:
            return ControlFailed(detail=str(error))
        return ControlFailed(detail="who asked for it has gone")


async def _answer_all(
    daemon: "FabricDaemon", client: _Client, pieces: trio.MemoryReceiveChannel[bytes]
) -> None:
    reader = FrameReader()
    async with pieces:
        async for data in pieces:
            for frame in reader.cut(data):
                request = _registry.decode(frame)
                if request is not None:
                    answer = await _answer(daemon, client, request)
                    await client.stream.send_all(pack(encode(answer)))


async def _answer(daemon: "FabricDaemon", client: _Client, request: Message) -> Message:
    match request:
        case Hold(at_ns=at_ns):
            return await client.hold(daemon, at_ns)
        case Release():
            daemon.clock.release()
            return ControlDone()
        case AskWorld():
            return World(report=daemon.world_report())
        case AskTruth(first=first):
            pairs = daemon.fabric.witness.pairs[first : first + PAIRS_MAX]
            return Truth(
                first=first,
                nodes=[pair.nodes for pair in pairs],
                qubits=[pair.qubits for pair in pairs],
                states=b"".join(pair.pair.astype(">f8").tobytes() for pair in pairs),
            )
        case _:
            return ControlFailed(detail=f"not a request: {type(request).__name__}")
