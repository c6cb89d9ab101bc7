"""Valid messages of every class, made from what their fields' types allow."""

import re
from random import Random
from typing import Any

from msgspec import inspect

from qstack.api import connection
from qstack.apps.qkd import messages as qkd
from qstack.channel.channel import SESSION
from qstack.runtime import (
    control_client,
    control_server,
    fabric_daemon,
    fabric_link,
    layer_messages,
    observe,
    peers,
    session_server,
)
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import pack
from qstack.wire.message import BasisProbabilities, Message

WORDS = ("alice", "bob", "r1", "metro", "node", "keep", "Z", "alice-bob", "frame_bytes", "")

REGISTRIES: dict[str, Registry] = {
    "session": SESSION,
    "peer": peers.REGISTRY,
    "node at the fabric": fabric_daemon.REGISTRY,
    "fabric at a node": fabric_link.REGISTRY,
    "application": session_server._registry,
    "node at an application": connection._registry,
    "control": control_server._registry,
    "control's answers": control_client._registry,
    "observer": observe._registry,
    "qkd": qkd.REGISTRY,
    "a layer": layer_messages.REGISTRY,
}


def message_classes() -> list[type[Message]]:
    """Every class of message there is, each once."""
    found: dict[type[Message], None] = {}
    todo: list[type[Message]] = list(Message.__subclasses__())
    while todo:
        kind = todo.pop(0)
        todo += kind.__subclasses__()
        if (
            hasattr(kind, "TYPE")
            and hasattr(kind, "LAYER")
            and kind.__module__.startswith("qstack")
        ):
            found[kind] = None
    return sorted(found, key=lambda kind: (int(kind.LAYER), kind.TYPE, kind.__name__))


def sample(kind: type[Any], rng: Random) -> Any:
    """A value of a struct class that a decoder lets through."""
    if kind is BasisProbabilities:
        return BasisProbabilities(in_x=0.25, in_y=0.25, in_z=0.5)
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    values: dict[str, Any] = {}
    for field in info.fields:
        if field.name == "x":
            if rng.random() < 0.1:
                values["x"] = {"note": rng.choice((1, "two", [3], {"four": 4.5}, None))}
        elif field.required or rng.random() < 0.5:
            values[field.name] = value_of(field.type, rng)
    return kind(**values)


def value_of(info: inspect.Type, rng: Random) -> Any:
    """A value of a type as msgspec describes it."""
    match info:
        case inspect.Metadata(type=inner):
            return value_of(inner, rng)
        case inspect.IntType(ge=ge, le=le, gt=gt, lt=lt):
            low = ge if ge is not None else (gt + 1 if gt is not None else -(2**40))
            high = le if le is not None else (lt - 1 if lt is not None else 2**40)
            near = min(high, low + 12)
            return rng.choice((low, high, rng.randint(low, near), rng.randint(low, near)))
        case inspect.FloatType(ge=ge, le=le, gt=gt, lt=lt):
            low = ge if ge is not None else gt if gt is not None else -100.0
            high = le if le is not None else lt if lt is not None else 100.0
            between = rng.uniform(float(low), float(high))
            return between if lt is not None else rng.choice((float(high), between))
        case inspect.BoolType():
            return rng.random() < 0.5
        case inspect.NoneType():
            return None
        case inspect.StrType(min_length=least, max_length=most, pattern=pattern):
            return _text(rng, least or 0, most or 40, pattern)
        case inspect.BytesType(min_length=least, max_length=most):
            low = least or 0
            return rng.randbytes(rng.randint(low, max(low, min(most or 40, low + 24))))
        case inspect.LiteralType(values=values):
            return rng.choice(list(values))
        case inspect.UnionType(types=types):
            return value_of(rng.choice(list(types)), rng)
        case inspect.ListType(item_type=item, min_length=least, max_length=most):
            low = least or 0
            count = rng.randint(low, max(low, min(most or 4, low + 3)))
            return [value_of(item, rng) for _ in range(count)]
        case inspect.VarTupleType(item_type=item, min_length=least):
            return tuple(value_of(item, rng) for _ in range((least or 0) + 1))
        case inspect.TupleType(item_types=items):
            return tuple(value_of(item, rng) for item in items)
        case inspect.DictType(key_type=key, value_type=value):
            count = rng.randrange(4)
            return {value_of(key, rng): value_of(value, rng) for _ in range(count)}
        case inspect.StructType(cls=cls):
            return sample(cls, rng)
        case inspect.AnyType():
            return rng.choice((1, "any", None))
        case _:
            raise AssertionError(f"no sample of {info}")


def _text(rng: Random, least: int, most: int, pattern: str | None) -> str:
    words = [word for word in WORDS if least <= len(word) <= most]
    if pattern is not None:
        words = [word for word in words if re.search(pattern, word)]
    return rng.choice(words) if words else "a" * least


def valid_frames(classes: list[type[Message]], rng: Random, each: int) -> list[bytes]:
    """Some frames of every class, and what their values decode to is what they are."""
    frames = []
    for kind in classes:
        for _ in range(each):
            try:
                message = sample(kind, rng)
            except ValueError:
                continue  # fields that do not go together
            frames.append(pack(encode(message)))
    return frames
