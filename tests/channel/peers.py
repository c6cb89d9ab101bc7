"""An authority, credentials, and ways to be a peer that keeps no rule."""

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trio
import trio.testing
from OpenSSL import SSL
from OpenSSL._util import lib

from qstack.channel.ca import Credentials, create_authority, file_stem, issue, request
from qstack.channel.channel import Channel
from qstack.channel.ends import ChannelRefused
from qstack.channel.hello import open_channel
from qstack.channel.identity import Identity
from qstack.channel.tls import TlsContext, TlsStream, harden, make_context
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import Layer, pack
from qstack.wire.message import Count, Message
from qstack.wire.session import MESSAGES, Hello

ALICE = Identity("metro", "alice", "node")
BOB = Identity("metro", "bob", "node")
LINK_DAEMON = Identity("metro", "alice", "link")


class Note(Message):
    LAYER = Layer.LINK
    TYPE = 1
    number: Count
    weight: float = 0.5


class Deed(Message):
    LAYER = Layer.APPLICATION
    TYPE = 1
    number: Count


REGISTRY = Registry((*MESSAGES, Note, Deed))


def note(number: int) -> bytes:
    return pack(encode(Note(number=number)))


def hello(identity: Identity, **changes: Any) -> Hello:
    values: dict[str, Any] = {
        "versions": [1],
        "capabilities": {},
        "limits": {},
        "network": identity.network,
        "node": identity.node,
        "role": identity.role,
        "layers": [],
        "boot_id": b"12345678",
        "binding": b"",
        "network_digest": b"d" * 32,
    }
    return Hello(**(values | changes))


class World:
    """One authority in a folder, and credentials made on demand."""

    def __init__(self, folder: Path, network: str = "metro") -> None:
        self.folder = folder
        self.ca = folder / "ca"
        self.root = create_authority(self.ca, network)
        self._made = 0
        self._credentials: dict[Identity, Credentials] = {}

    def files(self, identity: Identity, **validity: Any) -> tuple[Path, Path]:
        self._made += 1
        folder = self.folder / f"host{self._made}"
        csr = request(folder, identity)
        certificate = folder / f"{file_stem(identity)}.pem"
        certificate.write_bytes(issue(self.ca, csr, identity, **validity))
        return certificate, certificate.with_suffix(".key")

    def credentials(self, identity: Identity) -> Credentials:
        if identity not in self._credentials:
            self._credentials[identity] = Credentials(*self.files(identity), self.root)
        return self._credentials[identity]


DAY = timedelta(days=1)
PAST = {"not_before": datetime.now(UTC) - 3 * DAY, "not_after": datetime.now(UTC) - DAY}
FUTURE = {"not_before": datetime.now(UTC) + DAY, "not_after": datetime.now(UTC) + 3 * DAY}


def context_of(
    files: tuple[Path, Path] | None,
    root: Path,
    *,
    server: bool,
    groups: bytes | None = None,
    alpn: bytes | None = b"qstack/1",
    tls12: bool = False,
) -> TlsContext:
    """A context that need not keep the rules."""
    context = SSL.Context(SSL.TLS_METHOD)
    if files is not None:
        context.use_certificate_file(str(files[0]))
        context.use_privatekey_file(str(files[1]))
    context.load_verify_locations(str(root))
    harden(context, server=server)
    if tls12:
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    if groups is not None:
        assert lib.SSL_CTX_set1_curves_list(context._context, groups) == 1
    if alpn != b"qstack/1":
        if server:
            context.set_alpn_select_callback(
                lambda _connection, _offered: alpn or SSL.NO_OVERLAPPING_PROTOCOLS
            )
        else:
            context.set_alpn_protos([alpn or b"none"])
    return TlsContext(context, server, "allow-classical")


@asynccontextmanager
async def loopback() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends of a real connection: who called, who was called."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        far = await listener.accept()
    async with near, far:
        yield near, far


@asynccontextmanager
async def memory() -> AsyncIterator[tuple[trio.abc.Stream, trio.abc.Stream]]:
    near, far = trio.testing.memory_stream_pair()
    async with near, far:
        yield near, far


Wires = Callable[[], Any]


@dataclass
class Ours:
    """Our end of a connection to an odd peer: a channel, or why there is none."""

    channel: Channel | None = None
    refusal: ChannelRefused | None = None


async def open_ours(
    world: World, stream: trio.abc.Stream, ours: Ours, *, server: bool, **options: Any
) -> None:
    """Be bob, and expect alice."""
    values: dict[str, Any] = {"expected": ALICE, "hello": hello(BOB), "registry": REGISTRY}
    try:
        ours.channel = await open_channel(
            stream, credentials=world.credentials(BOB), server=server, **(values | options)
        )
    except ChannelRefused as refusal:
        ours.refusal = refusal


@asynccontextmanager
async def channels(world: World, wires: Wires, **options: Any) -> AsyncIterator[Any]:
    """A pair of channels: alice (client) and bob (server)."""
    found: dict[bool, Channel] = {}
    mine = {"hello": hello(ALICE), "expected": BOB, "server": False}
    yours = {"hello": hello(BOB), "expected": ALICE, "server": True}

    async def run(stream: trio.abc.Stream, values: dict[str, Any], identity: Identity) -> None:
        found[values["server"]] = await open_channel(
            stream, credentials=world.credentials(identity), registry=REGISTRY, **values
        )

    async with wires() as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, near, mine | options.get("alice", {}), ALICE)
            nursery.start_soon(run, far, yours | options.get("bob", {}), BOB)
        yield found[False], found[True]


@asynccontextmanager
async def raw_peer(
    world: World, wires: Wires, identity: Identity = ALICE
) -> AsyncIterator[tuple[TlsStream, Channel]]:
    """Bob's channel, and alice as a bare TLS stream that may send any bytes."""
    async with wires() as (near, far):
        ours = Ours()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                functools.partial(open_ours, world, far, ours, server=True, expected=identity)
            )
            tls = TlsStream(near, make_context(world.credentials(identity), server=False))
            await tls.handshake()
            await tls.send_all(pack(encode(hello(identity, binding=tls.binding))))
            await tls.receive_some()  # bob's HELLO
        assert ours.channel is not None
        yield tls, ours.channel
