"""The fabric's control socket (see `control_messages.py`): one request, one answer, in order."""

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
    async with stream:
        with suppress(trio.BrokenResourceError):  # who asked has gone, and hears no answer
            try:
                await _answer_all(daemon, stream)
            except PeerError as error:
                await stream.send_all(pack(encode(ControlFailed(detail=str(error)[:500]))))


async def _answer_all(daemon: "FabricDaemon", stream: trio.SocketStream) -> None:
    reader = FrameReader()
    while data := await stream.receive_some():
        for frame in reader.feed(data):
            request = _registry.decode(frame)
            if request is not None:
                answer = await _answer(daemon, request)
                await stream.send_all(pack(encode(answer)))


async def _answer(daemon: "FabricDaemon", request: Message) -> Message:
    match request:
        case Hold(at_ns=at_ns):
            try:
                return Held(now_ns=await daemon.clock.hold(at_ns))
            except ValueError as error:
                return ControlFailed(detail=str(error))
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
