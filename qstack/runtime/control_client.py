"""A client of the fabric's control socket: hold, release, truth, report."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import trio

from qstack.physical.fabric.witness import MeasuredPair
from qstack.runtime.control_messages import (
    ANSWERS,
    AskTruth,
    AskWorld,
    ControlFailed,
    Held,
    Hold,
    Release,
    Truth,
    World,
)
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import BULK_BYTES_MAX, FrameReader, pack
from qstack.wire.message import Message

_registry: Final = Registry(ANSWERS)


class ControlError(Exception):
    """The fabric cannot be reached, or does not do what was asked."""


class FabricControl:
    """One connection to a fabric; one request at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._reader = FrameReader(BULK_BYTES_MAX)
        self._answers: list[Message] = []
        self._turn = trio.Lock()

    async def hold(self, at_ns: int | None) -> int:
        """Let the clock stand at `at_ns` (None: now); returns when it stands, with the time."""
        answer = await self._ask(Hold(at_ns=at_ns))
        assert isinstance(answer, Held)
        return answer.now_ns

    async def release(self) -> None:
        """Let the clock go on."""
        await self._ask(Release())

    async def world(self) -> dict[str, Any]:
        """The fabric's report."""
        answer = await self._ask(AskWorld())
        assert isinstance(answer, World)
        report: dict[str, Any] = json.loads(answer.report)
        return report

    async def truths(self) -> list[MeasuredPair]:
        """The true states of the measured pairs the fabric was told to keep."""
        pairs: list[MeasuredPair] = []
        while True:
            answer = await self._ask(AskTruth(first=len(pairs)))
            assert isinstance(answer, Truth)
            if not answer.nodes:
                return pairs
            states = np.frombuffer(answer.states, dtype=">f8").reshape(-1, 4, 4).astype(float)
            rows = zip(answer.nodes, answer.qubits, states, strict=True)
            pairs += [MeasuredPair(nodes, qubits, state) for nodes, qubits, state in rows]

    async def _ask(self, request: Message) -> Message:
        async with self._turn:
            try:
                await self._stream.send_all(pack(encode(request)))
                while not self._answers:
                    data = await self._stream.receive_some()
                    if not data:
                        raise ControlError("the fabric has gone")
                    for frame in self._reader.feed(data):
                        message = _registry.decode(frame)
                        if message is not None:
                            self._answers.append(message)
            except trio.BrokenResourceError as error:
                raise ControlError("the fabric has gone") from error
            answer = self._answers.pop(0)
        if isinstance(answer, ControlFailed):
            raise ControlError(answer.detail)
        return answer


@asynccontextmanager
async def open_control(path: Path) -> AsyncIterator[FabricControl]:
    """Connect to the fabric's control socket. Raises `ControlError`."""
    try:
        stream = await trio.open_unix_socket(str(path))
    except OSError as error:
        raise ControlError(
            f"no fabric answers at {path}: {error.strerror}; is the network up?"
        ) from error
    async with stream:
        yield FabricControl(stream)
