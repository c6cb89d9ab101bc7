"""Messages to bytes and back, in one canonical encoding.

Encoding: MessagePack map, string keys sorted, no duplicates, shortest integers, finite float64,
no extension types. Decoding checks types and bounds (msgspec), then encodes again and compares:
that catches the duplicate keys and long integers a MessagePack decoder accepts.

Rules
1. Bytes from a peer raise nothing but `PeerError`, however deep, long or odd they are.
2. What msgspec lets through untyped (all below `x`) is walked without recursion.
"""

import math
import re
from typing import Any, Final

import msgspec
from msgspec import UNSET

from qstack.errors import ErrorCode, PeerError
from qstack.wire.frame import OPTIONAL_TYPE_MIN, Frame
from qstack.wire.message import Message

FLOAT: Final = b"\xcb"  # what a float64 begins with
NESTING_MAX: Final = 16  # levels below `x`; deeper is nobody's extension and a stack's trouble
MAY_BE_NON_FINITE: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""Bytes every NaN or infinity begins with (and, rarely, other bytes): then the walk decides."""

_encoder: Final = msgspec.msgpack.Encoder(order="sorted")
_untyped_decoder: Final = msgspec.msgpack.Decoder()


def encode(message: Message) -> Frame:
    """The frame of a message. Cannot fail for a message that exists."""
    return Frame(message.LAYER, message.TYPE, _encoder.encode(message))


class Registry:
    """The message classes one side of a channel understands, by (layer, type)."""

    def __init__(self, classes: tuple[type[Message], ...]) -> None:
        self._decoders: dict[tuple[int, int], msgspec.msgpack.Decoder[Message]] = {}
        for message_class in classes:
            key = (int(message_class.LAYER), message_class.TYPE)
            assert key not in self._decoders, f"{message_class.__name__} takes a type in use: {key}"
            self._decoders[key] = msgspec.msgpack.Decoder(message_class, ext_hook=_refuse_extension)

    def decode(self, frame: Frame) -> Message | None:
        """The message of a frame, or None for an unknown optional type.

        Raises `PeerError` with UNKNOWN_TYPE, INVALID, NOT_CANONICAL or CRITICAL.
        """
        body = frame.body
        decoder = self._decoders.get((frame.layer, frame.type))
        if decoder is None:
            if frame.type >= OPTIONAL_TYPE_MIN:
                return None
            raise PeerError(
                ErrorCode.UNKNOWN_TYPE, f"layer {frame.layer} has no type 0x{frame.type:04x}"
            )
        try:
            message = decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise PeerError(ErrorCode.INVALID, str(error), field=_field_of(error)) from error
        extensions = message.x
        if extensions is not UNSET:
            _check_tree(extensions, "x")
        if _encoder.encode(message) != body:
            raise PeerError(ErrorCode.NOT_CANONICAL, type(message).__name__)
        if FLOAT in body and MAY_BE_NON_FINITE.search(body):
            _check_tree(_untyped_decoder.decode(body), "")
        if extensions is not UNSET:
            _check_extensions(extensions)
        return message


def _refuse_extension(code: int, _data: memoryview) -> object:
    raise PeerError(ErrorCode.INVALID, f"MessagePack extension types are refused, here {code}")


def _field_of(error: Exception) -> str:
    """The path msgspec appends to its messages, such as `$.number`; empty if it names none."""
    _, found, path = str(error).rpartition("`$")
    return path.rstrip("`").lstrip(".") if found else ""


def _check_extensions(extensions: dict[str, Any]) -> None:
    """No extension is known yet, so each key listed in `crit` is one we must refuse."""
    if not extensions:
        raise PeerError(ErrorCode.NOT_CANONICAL, "an empty x is left out", field="x")
    critical = extensions.get("crit", [])
    if not isinstance(critical, list) or not all(isinstance(key, str) for key in critical):
        raise PeerError(ErrorCode.INVALID, "crit is a list of names", field="x.crit")
    if critical:
        raise PeerError(ErrorCode.CRITICAL, ", ".join(critical[:8]), field="x.crit")


def _check_tree(root: object, name: str) -> None:
    """Refuse what no message may hold: odd keys, extension types, NaN, infinity, deep nesting."""
    level = [(name, root)]
    for _ in range(NESTING_MAX):
        level = [below for path, value in level for below in _parts(path, value)]
        if not level:
            return
    raise PeerError(ErrorCode.INVALID, f"nested deeper than {NESTING_MAX} levels", field=name)


def _parts(path: str, value: object) -> list[tuple[str, object]]:
    """What a value contains, with its place; nothing for a plain value."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise PeerError(ErrorCode.INVALID, "the keys of a map are strings", field=path)
        return [(f"{path}.{key}".lstrip("."), item) for key, item in value.items()]
    if isinstance(value, list):
        return [(f"{path}[{place}]", item) for place, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise PeerError(ErrorCode.INVALID, "numbers are finite", field=path)
    if value is not None and not isinstance(value, str | bytes | int | float):
        # A MessagePack timestamp: msgspec decodes extension -1 by itself.
        raise PeerError(ErrorCode.INVALID, "MessagePack extension types are refused", field=path)
    return []
