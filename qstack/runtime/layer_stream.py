"""The stream between a node and a layer's process: a Unix socket, one message at a time.

Both ends block: the node's events are handled one after the other, whoever handles them. A stream
whose far end was waited for in vain is over: nobody waits for it again, and whoever watches it sees
that it has ended.
"""

import socket
from contextlib import suppress
from typing import Final

from qstack.errors import ErrorCode, PeerError
from qstack.machine import LayerGoneError
from qstack.runtime.layer_messages import REGISTRY
from qstack.wire.codec import encode
from qstack.wire.frame import BULK_BYTES_MAX, Frame, FrameReader, pack
from qstack.wire.message import Message

READ_BYTES: Final = 65_536


class LayerStream:
    """One end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = FrameReader(BULK_BYTES_MAX)
        self._ready: list[Frame] = []

    def send(self, messages: list[Message]) -> None:
        """Say them in one write. Raises `LayerGoneError`."""
        try:
            self._connection.sendall(b"".join(pack(encode(message)) for message in messages))
        except OSError as error:
            raise LayerGoneError(f"it does not listen any more: {error.strerror}") from error

    def next(self) -> Message:
        """The next message. Raises `LayerGoneError`."""
        try:
            while not self._ready:
                data = self._connection.recv(READ_BYTES)
                if not data:
                    raise LayerGoneError("it has ended")
                self._ready = self._reader.feed(data)
            message = REGISTRY.decode(self._ready.pop(0))
        except PeerError as error:
            raise LayerGoneError(f"it broke a rule: {error}") from error
        except TimeoutError as error:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            raise LayerGoneError("it does not answer") from error
        except OSError as error:
            raise LayerGoneError(f"it has gone: {error.strerror}") from error
        if message is None:
            raise LayerGoneError(f"it broke a rule: {ErrorCode.UNKNOWN_TYPE.name}")
        return message

    def fileno(self) -> int:
        """What the operating system knows it by."""
        return self._connection.fileno()

    def close(self) -> None:
        """End it."""
        self._connection.close()
