"""Events and effects as messages and back: what crosses between a node and a layer's process.

A `Handle` or `Effect` of a kind that carries a message is followed by it. Raises `PeerError` for
what is not well formed; the caller ends the layer then.
"""

from collections.abc import Callable

from qstack.errors import ErrorCode, PeerError
from qstack.machine import (
    CancelTimer,
    Event,
    FromPeer,
    LayerUp,
    OpenChannel,
    OwnerGone,
    PeerDown,
    PeerUp,
    Record,
    Send,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.machine import Effect as MachineEffect
from qstack.runtime.layer_messages import Effect, EffectKind, Handle
from qstack.wire.message import Message

Next = Callable[[], Message]
"""Gives the message that follows."""


def event_messages(event: Event, now: int) -> list[Message]:
    """What says the event."""
    match event:
        case Told(source, message):
            return [Handle(now_ns=now, kind="told", name=source, boot_id=None), message]
        case FromPeer(peer, message):
            return [Handle(now_ns=now, kind="from-peer", name=peer, boot_id=None), message]
        case TimerFired(key):
            return [Handle(now_ns=now, kind="timer", name=key, boot_id=None)]
        case PeerUp(peer, boot_id):
            return [Handle(now_ns=now, kind="peer-up", name=peer, boot_id=boot_id)]
        case PeerDown(peer):
            return [Handle(now_ns=now, kind="peer-down", name=peer, boot_id=None)]
        case OwnerGone(owner):
            return [Handle(now_ns=now, kind="owner-gone", name=owner, boot_id=None)]
        case LayerUp(layer):
            return [Handle(now_ns=now, kind="layer-up", name=layer, boot_id=None)]


def event_of(handle: Handle, following: Next) -> Event:
    """The event a Handle says."""
    match handle.kind:
        case "told":
            return Told(handle.name, following())
        case "from-peer":
            return FromPeer(handle.name, following())
        case "timer":
            return TimerFired(handle.name)
        case "peer-up":
            if handle.boot_id is None:
                raise PeerError(ErrorCode.INVALID, "up without a boot id", field="boot_id")
            return PeerUp(handle.name, handle.boot_id)
        case "peer-down":
            return PeerDown(handle.name)
        case "owner-gone":
            return OwnerGone(handle.name)
        case "layer-up":
            return LayerUp(handle.name)


def effect_messages(effect: MachineEffect) -> list[Message]:
    """What says the effect."""
    match effect:
        case Tell(to, message):
            return [_effect("tell", to), message]
        case Send(peer, message):
            return [_effect("send", peer), message]
        case OpenChannel(peer):
            return [_effect("open-channel", peer)]
        case SetTimer(key, at_ns, background, deadline):
            return [_effect("set-timer", key, at_ns, background=background, deadline=deadline)]
        case CancelTimer(key):
            return [_effect("cancel-timer", key)]
        case Record(name, fields):
            return [_effect("record", name, fields=fields)]


def effect_of(effect: Effect, following: Next) -> MachineEffect:
    """The effect an Effect says."""
    match effect.kind:
        case "tell":
            return Tell(effect.name, following())
        case "send":
            return Send(effect.name, following())
        case "open-channel":
            return OpenChannel(effect.name)
        case "set-timer":
            return SetTimer(effect.name, effect.at_ns, effect.background, effect.deadline)
        case "cancel-timer":
            return CancelTimer(effect.name)
        case "record":
            return Record(effect.name, effect.fields)


def _effect(
    kind: EffectKind,
    name: str,
    at_ns: int = 0,
    *,
    background: bool = False,
    deadline: bool = False,
    fields: dict[str, object] | None = None,
) -> Effect:
    return Effect(
        kind=kind,
        name=name,
        at_ns=at_ns,
        background=background,
        deadline=deadline,
        fields=fields or {},
    )
