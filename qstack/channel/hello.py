"""From a connected stream to a channel that is up: TLS, then HELLO both ways.

    client                                server
      |---- TLS 1.3 handshake --------------|
      |---- HELLO ------------------------->|   judged against certificate and session
      |<--- HELLO, or ERROR and the end ----|   judged likewise

Rules
1. The server's HELLO is its consent: a TLS 1.3 client has finished its handshake before the server
   has judged its certificate, so only the peer's HELLO makes a channel.
2. A refusal is said in an ERROR frame that names the registry's error; the frame holds no secret,
   so it may also tell that the key exchange is too weak. Both sides raise `ChannelRefused`; a
   server whose HELLO is refused has its channel already and receives the ERROR there.
3. A capability counts only if both said it, with the smaller number; so do limits.
4. The limit on time holds for all of it.
"""

import hmac
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple

import trio
from msgspec.structs import replace

from qstack.channel.ca import Credentials
from qstack.channel.channel import SESSION, Channel, error_frame
from qstack.channel.ends import ChannelRefused, readable
from qstack.channel.identity import Identity, layers_allowed
from qstack.channel.tls import Expected, Policy, TlsStream, make_context
from qstack.errors import ErrorCode, LocalError, PeerError
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import CONTROL_BYTES_MAX, Frame, FrameReader, Layer, pack
from qstack.wire.session import Error, Hello

HANDSHAKE_LIMIT_S: Final = 5.0
HALF_OPEN_MAX: Final = 32  # a handshake costs 16 ms of one core: half a second of work
FRAME_BYTES: Final = "frame_bytes"
"""The limit in HELLO on the body of a frame; `CONTROL_BYTES_MAX` if either side leaves it out."""


class Terms(NamedTuple):
    """What two HELLOs come to."""

    version: int
    capabilities: dict[str, int]
    limits: dict[str, int]
    frame_bytes_max: int


def agree(own: Hello, peer: Hello, identity: Identity) -> Terms:
    """Judge the HELLO of a peer whose certificate says `identity`.

    Raises `PeerError` with VERSION, NETWORK_MISMATCH, IDENTITY, ROLE or INVALID.
    """
    version = max((number for number in own.versions if number in peer.versions), default=0)
    if not version:
        raise PeerError(
            ErrorCode.VERSION,
            f"one side speaks {own.versions}, the other {peer.versions}; update the older one",
            field="versions",
        )
    if peer.network != own.network:
        raise PeerError(
            ErrorCode.NETWORK_MISMATCH,
            f"network {peer.network!r} in HELLO, {own.network!r} here; start both from one file",
            field="network",
        )
    if (peer.network, peer.node) != (identity.network, identity.node):
        raise PeerError(
            ErrorCode.IDENTITY,
            f"node {peer.node!r} in HELLO, {identity.uri} in the certificate",
            field="node",
        )
    if peer.role != identity.role:
        raise PeerError(
            ErrorCode.ROLE,
            f"role {peer.role!r} in HELLO, {identity.role!r} in the certificate",
            field="role",
        )
    if not hmac.compare_digest(peer.binding, own.binding):
        raise PeerError(
            ErrorCode.IDENTITY, "this HELLO was made for another TLS session", field="binding"
        )
    _judge_layers(peer, identity)
    limits = _smaller_of_both(own.limits, peer.limits)
    frame_bytes_max = limits.get(FRAME_BYTES, CONTROL_BYTES_MAX)
    if frame_bytes_max < CONTROL_BYTES_MAX:
        raise PeerError(
            ErrorCode.INVALID,
            f"frames of {CONTROL_BYTES_MAX} bytes are the least to be taken",
            field=f"limits.{FRAME_BYTES}",
        )
    capabilities = _smaller_of_both(own.capabilities, peer.capabilities)
    return Terms(version, capabilities, limits, frame_bytes_max)


async def open_channel(
    stream: trio.abc.Stream,
    *,
    credentials: Credentials,
    server: bool,
    expected: Expected,
    hello: Hello,
    registry: Registry,
    policy: Policy = "require",
    on_accept: Callable[[Hello], None] | None = None,
    handshake_limit_s: float = HANDSHAKE_LIMIT_S,
) -> Channel:
    """Make a channel of a connected stream; it is closed if that fails.

    `on_accept` sees the peer's HELLO before the channel is up and may raise `PeerError` to refuse.
    Raises `ChannelRefused`; `CredentialsError` or `LocalError` if the fault is on this side.
    """
    try:
        _check_own(hello, credentials.identity)
        tls = TlsStream(stream, make_context(credentials, server=server, policy=policy))
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    try:
        with trio.fail_after(handshake_limit_s):
            await tls.handshake()
            tls.verify_peer(expected)
            own = replace(hello, binding=tls.binding)
            return await _exchange(tls, own, registry, on_accept or _accept_all, server=server)
    except trio.TooSlowError:
        refusal = ChannelRefused(
            ErrorCode.TIMEOUT, f"no handshake and HELLO within {handshake_limit_s:g} s"
        )
    except PeerError as error:
        refusal = ChannelRefused(error.code, error.detail)
    except ChannelRefused as error:
        refusal = error
    except trio.BrokenResourceError as error:
        refusal = _cause(error)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    words = b"" if refusal.by_peer else pack(error_frame(refusal.code, refusal.detail))
    await tls.refuse(words)
    raise refusal


class HandshakeGate:
    """Counts handshakes under way: `with gate:` around each, by the listener.

    Entering raises `ChannelRefused` (NO_RESOURCES) when `limit` are under way: close at once.
    """

    def __init__(self, limit: int = HALF_OPEN_MAX) -> None:
        self.limit = limit
        self.under_way = 0

    def __enter__(self) -> "HandshakeGate":
        if self.under_way >= self.limit:
            raise ChannelRefused(
                ErrorCode.NO_RESOURCES, f"{self.limit} handshakes are under way; try again later"
            )
        self.under_way += 1
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.under_way -= 1


async def _exchange(
    tls: TlsStream,
    own: Hello,
    registry: Registry,
    accept: Callable[[Hello], None],
    *,
    server: bool,
) -> Channel:
    reader = FrameReader(CONTROL_BYTES_MAX)
    if not server:
        await tls.send_all(pack(encode(own)))
    peer, early = await _receive_hello(tls, reader)
    terms = agree(own, peer, tls.peer)
    accept(peer)
    if server:
        await tls.send_all(pack(encode(own)))
    reader.bytes_max = terms.frame_bytes_max
    return Channel(
        tls,
        hello=peer,
        capabilities=terms.capabilities,
        registry=registry,
        reader=reader,
        early=early,
    )


async def _receive_hello(tls: TlsStream, reader: FrameReader) -> tuple[Hello, list[Frame]]:
    """The peer's HELLO, and the frames that came with it."""
    frames: list[Frame] = []
    while not frames:
        data = await tls.receive_some()
        if not data:
            raise ChannelRefused(
                ErrorCode.PEER_DOWN, "the peer closed the connection before its HELLO"
            )
        frames = reader.feed(data)
    first = frames[0]
    if first.layer != Layer.SESSION or first.type not in (Hello.TYPE, Error.TYPE):
        raise PeerError(
            ErrorCode.OUT_OF_STATE,
            f"the first frame is HELLO, not layer {first.layer} type 0x{first.type:04x}",
        )
    message = SESSION.decode(first)
    if isinstance(message, Hello):
        return message, frames[1:]
    assert isinstance(message, Error)
    code = ErrorCode.__members__.get(message.name)
    detail = readable(message.detail)
    if code is None:
        code, detail = ErrorCode.REJECTED, readable(f"{message.name}: {message.detail}")
    raise ChannelRefused(code, detail, by_peer=True)


def _check_own(hello: Hello, identity: Identity) -> None:
    said = (hello.network, hello.node, hello.role)
    if said != (identity.network, identity.node, identity.role):
        raise LocalError(
            ErrorCode.BAD_REQUEST,
            f"HELLO would say qstack://{'/'.join(said)}, the certificate here says {identity.uri}",
        )


def _judge_layers(peer: Hello, identity: Identity) -> None:
    known = [Layer(number) for number in peer.layers if number in set(Layer)]
    beyond = [layer.name for layer in known if layer not in layers_allowed(identity.role)]
    if beyond:
        raise PeerError(
            ErrorCode.ROLE,
            f"a peer of role {identity.role} may not serve {', '.join(beyond)}",
            field="layers",
        )


def _smaller_of_both(own: dict[str, int], peer: dict[str, int]) -> dict[str, int]:
    return {name: min(number, peer[name]) for name, number in own.items() if name in peer}


def _accept_all(_hello: Hello) -> None:
    """No further condition."""


def _cause(error: trio.BrokenResourceError) -> ChannelRefused:
    """TLS may know why the stream broke, such as an alert about our certificate."""
    cause = error.__cause__
    if isinstance(cause, ChannelRefused):
        return cause
    return ChannelRefused(ErrorCode.PEER_DOWN, "the connection broke before the channel was up")
