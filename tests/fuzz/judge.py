"""What must come back for bytes that were sent to a daemon, worked out apart from it.

Bad input is what the frame reader or a decoder refuses, whatever the state. For each there is an
error of the registry before the end of the connection; what is well-formed may be answered by an
error, too, where the state does not allow it.
"""

from typing import NamedTuple

from OpenSSL import SSL

from qstack.channel.ca import Credentials
from qstack.channel.channel import SESSION, SESSION_TYPES
from qstack.channel.ends import ChannelRefused
from qstack.channel.identity import layers_allowed
from qstack.channel.tls import make_context
from qstack.errors import ErrorCode, PeerError
from qstack.wire.codec import Registry
from qstack.wire.frame import BULK_BYTES_MAX, CONTROL_BYTES_MAX, Frame, FrameReader, Layer
from qstack.wire.session import Error, Hello

ALERT = 21  # the type of a TLS record
CHANNEL_ENDS = "channel"


class Judgement(NamedTuple):
    """The errors that must be said, in this order, and whether the connection ends with them."""

    errors: list[str]
    ends: bool


def judge_channel(data: bytes, registry: Registry) -> Judgement:
    """For frames on a channel of a node: others go on after an error whose scope is a message."""
    errors: list[str] = []
    frames, fault = frames_of(data, BULK_BYTES_MAX)
    forbidden = frozenset(Layer) - layers_allowed("node")
    for frame in frames:
        try:
            _decode(frame, registry, forbidden)
        except PeerError as error:
            errors.append(error.code.name)
            if error.code.value.scope == CHANNEL_ENDS:
                return Judgement(errors, ends=True)
    return Judgement([*errors, fault] if fault else errors, ends=bool(fault))


def judge_session(data: bytes, registry: Registry) -> Judgement:
    """For frames at a local socket: the first error is the end."""
    frames, fault = frames_of(data, BULK_BYTES_MAX)
    for frame in frames:
        try:
            registry.decode(frame)
        except PeerError as error:
            return Judgement([error.code.name], ends=True)
    return Judgement([fault] if fault else [], ends=bool(fault))


def judge_hello(data: bytes) -> Judgement | None:
    """For what is said in place of HELLO; None where it is one, or not whole yet."""
    frames, fault = frames_of(data, CONTROL_BYTES_MAX)
    if not frames:
        return Judgement([fault], ends=True) if fault else None
    first = frames[0]
    if first.layer != Layer.SESSION or first.type not in (Hello.TYPE, Error.TYPE):
        return Judgement([ErrorCode.OUT_OF_STATE.name], ends=True)
    try:
        SESSION.decode(first)
    except PeerError as error:
        return Judgement([error.code.name], ends=True)
    return None


def is_hello(data: bytes) -> bool:
    """Whether it begins with a whole HELLO, which is answered by HELLO or an error."""
    frames, _ = frames_of(data, CONTROL_BYTES_MAX)
    place = (int(Layer.SESSION), Hello.TYPE)
    return bool(frames) and (frames[0].layer, frames[0].type) == place and judge_hello(data) is None


def frames_of(data: bytes, bytes_max: int) -> tuple[list[Frame], str]:
    """The whole frames, and the error of what follows them."""
    reader = FrameReader(bytes_max)
    frames: list[Frame] = []
    try:
        frames.extend(reader.cut(data))
    except PeerError as error:
        return frames, error.code.name
    return frames, ""


def _decode(frame: Frame, registry: Registry, forbidden: frozenset[Layer]) -> None:
    if frame.layer in forbidden:
        raise PeerError(ErrorCode.ROLE)
    if frame.layer != Layer.SESSION or frame.type not in SESSION_TYPES:
        registry.decode(frame)
    elif isinstance(SESSION.decode(frame), Hello):
        raise PeerError(ErrorCode.OUT_OF_STATE)


def tls_alerts(credentials: Credentials, data: bytes) -> bool:
    """Whether TLS answers these first bytes of a client with an alert: asked of a server here."""
    tls = SSL.Connection(make_context(credentials, server=True).ssl, None)
    tls.set_accept_state()
    tls.bio_write(data)
    said = b""
    try:
        tls.do_handshake()
    except SSL.WantReadError:
        return False
    except (SSL.Error, ChannelRefused):  # another protocol is refused by the context itself
        pass
    try:
        said = tls.bio_read(65_536)
    except SSL.WantReadError:
        return False
    return has_alert(said)


def has_alert(said: bytes) -> bool:
    """Whether there is an alert among TLS records."""
    while len(said) >= 5:
        if said[0] == ALERT:
            return True
        said = said[5 + int.from_bytes(said[3:5], "big") :]
    return False


def is_subsequence(wanted: list[str], said: list[str]) -> bool:
    """Whether all that is wanted was said, in its order."""
    rest = iter(said)
    return all(name in rest for name in wanted)
