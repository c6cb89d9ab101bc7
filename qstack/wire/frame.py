"""The frame: 12 bytes of header, then one MessagePack map.

    magic "QSTK" | version u8 | layer u8 | type u16 | length u32      (network order)

The header is judged before anything is allocated for the body.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from msgspec import Struct

from qstack.errors import ErrorCode, PeerError

MAGIC: Final = b"QSTK"
VERSION: Final = 1
HEADER: Final = struct.Struct("!4sBBHI")
CONTROL_BYTES_MAX: Final = 65_536  # a control message; HELLO may agree on more for bulk results
BULK_BYTES_MAX: Final = 4 * 2**20  # what our own daemons offer: 2^25 packed bits
OPTIONAL_TYPE_MIN: Final = 0x8000  # types from here on may be skipped by who does not know them


class Layer(IntEnum):
    """Who a frame is for."""

    SESSION = 0  # HELLO, ERROR, STAMP: the channel itself
    PHYSICAL = 1
    LINK = 2
    NETWORK = 3
    TRANSPORT = 4
    APPLICATION = 5  # an application's session with its node
    CLOCK = 6  # the lockstep coordinator and its participants
    NODE = 7  # a node, those of its layers that are processes of their own, and other nodes


class Frame(Struct, frozen=True, gc=False):
    """One frame, its body still encoded."""

    layer: int
    type: int
    body: bytes


def pack(frame: Frame) -> bytes:
    """The frame's bytes."""
    return HEADER.pack(MAGIC, VERSION, frame.layer, frame.type, len(frame.body)) + frame.body


class FrameReader:
    """Cuts a stream of bytes into frames, whatever pieces it arrives in."""

    def __init__(self, bytes_max: int = CONTROL_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises `PeerError` for what can never become one.

        Frames before a faulty header are returned first, and the next call raises, so that what
        is received does not depend on how the stream was cut.
        """
        buffer = self._buffer
        if not buffer:  # as nearly always: what is whole need not go through it
            frames, offset = self._cut(data)
            buffer += data[offset:]
        else:
            buffer += data
            frames, offset = self._cut(bytes(buffer))
            del buffer[:offset]
        if not frames and len(buffer) >= HEADER.size:
            self._judge(*HEADER.unpack_from(buffer))
        return frames

    def cut(self, data: bytes) -> Iterator[Frame]:
        """The same one by one; what can never become a frame raises `PeerError` in its turn."""
        frames = self.feed(data)
        while frames:
            yield from frames
            frames = self.feed(b"") if self._buffer else []

    def _cut(self, data: bytes) -> tuple[list[Frame], int]:
        """The frames that are whole, up to a faulty header, and where they end."""
        frames: list[Frame] = []
        begin, size, bytes_max = 0, len(data), self.bytes_max
        header, unpack = HEADER.size, HEADER.unpack_from
        while (body := begin + header) <= size:
            magic, version, layer, kind, length = unpack(data, begin)
            end = body + length
            if end > size or magic != MAGIC or version != VERSION or length > bytes_max:
                break
            frames.append(Frame(layer, kind, data[body:end]))
            begin = end
        return frames, begin

    @property
    def is_empty(self) -> bool:
        """Whether no frame has been begun: the only clean place for a stream to end."""
        return not self._buffer

    def _judge(self, magic: bytes, version: int, _layer: int, _type: int, length: int) -> None:
        if magic != MAGIC:
            raise PeerError(ErrorCode.MALFORMED, f"a frame begins with {MAGIC!r}, not {magic!r}")
        if version != VERSION:
            raise PeerError(ErrorCode.VERSION, f"expected frame version {VERSION}, not {version}")
        if length > self.bytes_max:
            raise PeerError(
                ErrorCode.TOO_LARGE, f"{length} bytes announced, at most {self.bytes_max} agreed"
            )
