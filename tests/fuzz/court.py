"""A network of real daemons in one process, among nodes that are played by the tests.

    abel ---- alice ---- bob        alice, bob, the fabric: daemons
               |
            mallory        carol    abel (dials alice), mallory (dialled by alice), carol: played

A played node takes part in the clock politely (`Puppet`), so that its channel to alice counts;
what it says on that channel, or on a second one to the fabric, is the test's affair.
"""

import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from msgspec.structs import replace

from qstack.channel.ends import ChannelClosed, ChannelRefused
from qstack.channel.hello import open_channel
from qstack.channel.identity import Identity
from qstack.channel.tls import TlsStream, make_context
from qstack.errors import ErrorCode
from qstack.runtime import fabric_link
from qstack.runtime.clock_messages import Advance, ChannelBroken, ChannelLost, Done, Join
from qstack.runtime.control_messages import ControlFailed
from qstack.runtime.network_tables import Address
from qstack.runtime.peers import node_hello
from qstack.runtime.session_messages import SessionError
from qstack.runtime.status import node_report
from qstack.wire.codec import encode
from qstack.wire.frame import BULK_BYTES_MAX, FrameReader, pack
from qstack.wire.message import Message
from qstack.wire.session import Error, Hello
from tests.runtime.programs import deliver
from tests.runtime.running import POLL_S
from tests.runtime.together import Together, together

if TYPE_CHECKING:
    from qstack.channel.channel import Channel

PLAYED = ("abel", "carol", "mallory")
LINKS = (("abel", "alice"), ("alice", "bob"), ("alice", "mallory"))
CLOSE_S = 10.0  # on a machine that has other things to do, too
RSS_GROWTH_MAX_MIB = 48.0


def network_text() -> str:
    """The network file."""
    text = '[network]\nname = "court"\n[fabric]\naddress = "127.0.0.1:0"\n'
    for name in ("abel", "alice", "bob", "carol", "mallory"):
        text += f'[[node]]\nname = "{name}"\naddress = "127.0.0.1:0"\n'
        text += 'profile = "ion-projected"\nmemory = 4\n'
    for ends in LINKS:
        text += f'[[link]]\nends = ["{ends[0]}", "{ends[1]}"]\nlength_m = 10_000\n'
        text += 'scheme = "double-click"\n'
    return text


class Puppet:
    """A node that does what the clock asks of it, and nothing else, unless it has a `lie`."""

    def __init__(self, court: "Court", name: str, life: bytes) -> None:
        self.court = court
        self.name = name
        self.hello = court.hello(name, life)
        self.channel: Channel | None = None
        self.lie: Callable[[Done], Done] | None = None
        self._turn = trio.Lock()
        self._part = trio.CancelScope()
        self._is_away = False

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """The test plays this node alone."""
        self._is_away = True
        self._part.cancel()
        async with self._turn:
            self._is_away = False
            yield

    async def run(self) -> None:
        """Take part, and come again when cut off."""
        while True:
            try:
                async with self._turn:
                    with trio.CancelScope() as self._part:
                        if self._is_away:
                            self._part.cancel()
                        await self._take_part()
            except (ChannelRefused, ChannelClosed, OSError):
                await trio.sleep(POLL_S)

    async def _take_part(self) -> None:
        channel = await open_channel(
            await self.court.dial("fabric"),
            credentials=self.court.daemons.prepared.credentials(self.name, "node"),
            server=False,
            expected=Identity("court", "fabric", "fabric"),
            hello=self.hello,
            registry=fabric_link.REGISTRY,
        )
        self.channel = channel
        try:
            await channel.send([encode(Join(now_ns=0))])
            while True:
                for _, message in await channel.receive():
                    answer = self._answer(message)
                    if answer is not None:
                        await channel.send([encode(answer)])
        finally:
            self.channel = None
            await trio.aclose_forcefully(channel.tls.transport)

    def _answer(self, message: Message | None) -> Message | None:
        match message:
            case Advance():
                done = Done(
                    round=message.round, next_ns=None, is_demanding=False, is_waiting=False, sent={}
                )
                return done if self.lie is None else self.lie(done)
            case ChannelBroken(node=node):
                return ChannelLost(node=node)
            case _:
                return None


@dataclass
class Verdict:
    """How a connection ended: `said` are the registry names, `is_open` that it has not ended."""

    said: list[str] = field(default_factory=list)
    is_open: bool = False
    frames: int = 0


class Court:
    """The daemons, and ways to talk to them."""

    def __init__(self, daemons: Together) -> None:
        self.daemons = daemons
        self.puppets = {name: Puppet(self, name, name.encode().ljust(8, b"-")) for name in PLAYED}

    # `deliver` wants these of a running network
    def session(self, node: str) -> Path:
        return self.daemons.prepared.session_socket(node)

    def log(self) -> str:
        return "\n".join(self.daemons.said[-40:])

    def address(self, name: str) -> Address:
        network = self.daemons.prepared.network
        address = network.fabric if name == "fabric" else network.nodes[name].address
        assert address is not None
        return address

    async def dial(self, name: str) -> trio.SocketStream:
        address = self.address(name)
        return await trio.open_tcp_stream(address.host, address.port)

    def hello(self, name: str, life: bytes, **changes: Any) -> Hello:
        hello = node_hello(self.daemons.prepared.network, name, "node", life, [1, 2, 3, 4])
        return replace(hello, **changes)

    async def handshake(
        self, stream: trio.abc.Stream, name: str, *, server: bool = False
    ) -> TlsStream:
        """TLS as the played node `name`."""
        credentials = self.daemons.prepared.credentials(name, "node")
        tls = TlsStream(stream, make_context(credentials, server=server))
        try:
            with trio.fail_after(CLOSE_S):
                await tls.handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return tls

    async def open(self, target: str, name: str, life: bytes) -> TlsStream | None:
        """A channel to `target`, whose HELLO has come; None if it was refused."""
        try:
            tls = await self.handshake(await self.dial(target), name)
            try:
                await tls.send_all(pack(encode(self.hello(name, life, binding=tls.binding))))
                first = await tls.receive_some()
            except BaseException:
                await trio.aclose_forcefully(tls.transport)
                raise
        except (ChannelRefused, trio.BrokenResourceError):
            return None
        if first[6:8] == Hello.TYPE.to_bytes(2, "big"):
            return tls
        await trio.aclose_forcefully(tls.transport)
        return None

    async def check(self) -> None:
        """The network works: bob gets a pair of alice's."""
        running: Any = self
        await deliver(running, pairs=1)
        assert not [line for line in self.daemons.said if "Traceback" in line]

    def is_empty(self) -> bool:
        """Whether no application has anything at the daemons, nor waits for anything."""
        for daemon in self.daemons.nodes.values():
            report = msgspec.json.decode(node_report(daemon))
            layers = report["layers"]
            counts = [*layers["transport"].values(), layers["physical"]["qubits"]]
            counts += [layers["link"]["open_requests"], layers["session"]["asleep"]]
            if any(counts) or report["sessions"]:
                return False
        return True

    async def fact(self, what: str, holds: Callable[[], bool]) -> None:
        await self.daemons.fact(what, holds)


async def verdict_of(
    stream: trio.abc.ReceiveStream,
    limit_s: float,
    is_enough: Callable[[Verdict], bool] = lambda _verdict: False,
) -> Verdict:
    """What the other side still says, until it ends the stream, or that is enough, or `limit_s` is
    over.
    """
    verdict = Verdict(is_open=True)
    reader = FrameReader(BULK_BYTES_MAX)
    with trio.move_on_after(limit_s):
        try:
            while data := await stream.receive_some(65_536):
                for frame in reader.feed(data):
                    verdict.frames += 1
                    name = said_in(frame.layer, frame.type, frame.body)
                    if name:
                        verdict.said.append(name)
                if is_enough(verdict):
                    return verdict
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        verdict.is_open = False
    return verdict


def said_in(layer: int, kind: int, body: bytes) -> str:
    """The error's name, if the frame is an ERROR of a channel or a session, or of the control."""
    if (layer, kind) == (int(ControlFailed.LAYER), ControlFailed.TYPE):
        name = msgspec.msgpack.decode(body)["detail"].partition(":")[0]
        return name if name in ErrorCode.__members__ else ""
    for error in (Error, SessionError):
        if (layer, kind) == (int(error.LAYER), error.TYPE):
            values: dict[str, str] = msgspec.msgpack.decode(body)
            name = values["name" if error is Error else "error"]
            assert name in ErrorCode.__members__, f"{name} is not in the registry"
            return name
    return ""


def descriptors() -> int:
    """Open files of this process."""
    return len(os.listdir("/proc/self/fd"))


def rss_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


@asynccontextmanager
async def court(runs: Path, done_limit_s: float = 0.5) -> AsyncIterator[Court]:
    """The network, up; afterwards it works, and holds no more files and memory than before."""
    source = runs / "court.toml"
    source.write_text(network_text())
    limits = {"done_limit_s": done_limit_s, "return_limit_s": 0.2}
    async with together(source, runs, absent=PLAYED, **limits) as daemons:
        made = Court(daemons)
        async with trio.open_nursery() as nursery:
            for puppet in made.puppets.values():
                nursery.start_soon(puppet.run)
            await made.fact("neighbours", lambda: daemons.channel_is_up("alice", "bob"))
            await made.check()
            files, mib = descriptors(), rss_mib()
            yield made
            await made.check()
            await made.fact("files are closed", lambda: descriptors() <= files + 4)
            gc.collect()
            assert rss_mib() - mib < RSS_GROWTH_MAX_MIB
            nursery.cancel_scope.cancel()
