"""Mutated bytes, HELLOs, frames and calls against daemons that run: channels and local sockets.

Every bad input (`judge.py`) is answered by an error of the registry before the connection ends, or
by an alert where TLS itself refuses it. After each batch the daemons still make pairs, have raised
nothing, and have closed their files.
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import trio
from OpenSSL import SSL

from qstack.channel.ends import ChannelRefused
from qstack.channel.tls import harden
from qstack.link import messages as link
from qstack.network import messages as network
from qstack.physical import device, program_device
from qstack.runtime import control_server, fabric_daemon, peers, session_server
from qstack.runtime.clock_messages import FABRIC_MESSAGES, PEER_MESSAGES, Join
from qstack.runtime.control_client import open_control
from qstack.runtime.control_messages import REQUESTS
from qstack.runtime.session_messages import Attach
from qstack.runtime.session_server import CALLS
from qstack.transport import messages as transport
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import pack
from qstack.wire.session import MESSAGES, Hello, Stamp
from tests.fuzz import judge, tally
from tests.fuzz.court import CLOSE_S, Court, Verdict, court, verdict_of
from tests.fuzz.mutator import mutated, named, with_right_length
from tests.fuzz.samples import sample, valid_frames
from tests.runtime.running import run_folder

ATTACH = pack(encode(Attach(application="fuzz", versions=[1], is_observer=False)))
LOOK = pack(encode(Attach(application="fuzz", versions=[1], is_observer=True)))
PEER_CLASSES = [*link.MESSAGES, *network.MESSAGES, *transport.MESSAGES, *PEER_MESSAGES, Stamp]
FOR_PEERS = valid_frames(PEER_CLASSES, Random(1), 12)
FOR_FABRIC = valid_frames(
    [*device.MESSAGES, *program_device.MESSAGES, *FABRIC_MESSAGES, Stamp], Random(2), 12
)
FOR_SESSIONS = valid_frames(list(CALLS), Random(3), 12)
FOR_CONTROL = valid_frames(list(REQUESTS), Random(4), 4)


def client_hello() -> bytes:
    """How TLS begins."""
    tls = SSL.Connection(harden(SSL.Context(SSL.TLS_METHOD), server=False), None)
    tls.set_connect_state()
    with suppress(SSL.WantReadError):
        tls.do_handshake()
    return tls.bio_read(65_536)


CLIENT_HELLO = client_hello()

Target = Callable[[Court, Random, int], Awaitable[int]]
"""Makes one connection, with the seed's generator and its number; how many inputs it was."""


def frames_of(rng: Random, corpus: list[bytes]) -> list[bytes]:
    """Frames to send on one connection: good ones at the wrong time, and changed ones."""
    frames = []
    whole = rng.choice((0.3, 0.9, 1.0))
    for _ in range(rng.randint(1, 24)):
        if rng.random() < whole:
            frames.append(rng.choice(corpus))
        else:
            data = mutated(rng, corpus, times_max=2)
            frames.append(with_right_length(data) if rng.random() < 0.9 else data)
    return frames


async def send_bytes(court_: Court, rng: Random, number: int) -> int:
    """No TLS, or not for long, at a node or the fabric."""
    hellos = [rng.randbytes(40), pack(encode(sample(Hello, rng))), CLIENT_HELLO, CLIENT_HELLO]
    data = mutated(rng, hellos)
    stream = await court_.dial(rng.choice(["alice", "fabric"]))
    async with stream:
        with named(0, number, data):
            is_refused = judge.tls_alerts(court_.daemons.prepared.credentials("bob", "node"), data)
            await push(stream, data)
            if rng.random() < 0.9 and not is_refused:
                await stream.send_eof()
            said = await read_all(stream, CLOSE_S if is_refused else 0.02)
            assert judge.has_alert(said) or not is_refused
    return 1


async def read_all(stream: trio.abc.ReceiveStream, limit_s: float) -> bytes:
    """What still comes, until it ends or `limit_s` are over."""
    said = b""
    with trio.move_on_after(limit_s), suppress(trio.BrokenResourceError):
        while data := await stream.receive_some(65_536):
            said += data
    return said


async def say_hello(court_: Court, rng: Random, number: int) -> int:
    """A mutated HELLO over good TLS, as a client of a node or of the fabric."""
    target, name = rng.choice([("alice", "abel"), ("fabric", "carol")])
    stream = await court_.dial(target)
    async with stream:
        try:
            tls = await court_.handshake(stream, name)
        except (ChannelRefused, trio.BrokenResourceError):
            return 0
        data = changed_hello(court_, rng, name, tls.binding)
        with named(0, number, data):
            await push(tls, data)
            await check_hello(tls, data, hellos=1)
        await trio.aclose_forcefully(stream)
    return 1


async def check_hello(tls: trio.abc.Stream, data: bytes, hellos: int) -> None:
    """A HELLO is answered by HELLO (one of so many frames that come) or an error, the rest by one
    and the end; of what is not whole more is waited for.
    """
    judgement = judge.judge_hello(data)
    if judgement is not None:
        verdict = await verdict_of(tls, CLOSE_S)
        assert not verdict.is_open
        assert verdict.said == judgement.errors
    elif judge.is_hello(data):
        verdict = await verdict_of(tls, CLOSE_S, lambda v: v.frames >= hellos)
        assert verdict.frames >= hellos or verdict.said
    else:
        await verdict_of(tls, 0.02)


def changed_hello(court_: Court, rng: Random, name: str, binding: bytes) -> bytes:
    """HELLO with odd fields, odd bytes, or another message in its place."""
    good = court_.hello(name, rng.randbytes(8), binding=binding)
    odd = [
        {"versions": [2]}, {"network": "other"}, {"node": "bob"}, {"role": "fabric"},
        {"binding": rng.randbytes(32)}, {"layers": [1, 2, 3, 4, 5, 6, 77]},
        {"limits": {"frame_bytes": rng.choice((0, 65_535, 65_536, 2**53))}},
        {"network_digest": b"x" * 32}, {"node": "n" * 200}, {"boot_id": bytes(8)},
        {"capabilities": {str(n): n for n in range(64)}}, {"x": {"crit": ["future"]}},
        {"x": {"future": [1, {"a": None}]}},
    ]  # fmt: skip
    if rng.random() < 0.3:
        return pack(
            encode(court_.hello(name, rng.randbytes(8), **{"binding": binding} | rng.choice(odd)))
        )
    corpus = [pack(encode(good)), pack(encode(good)), *valid_frames(list(MESSAGES), rng, 1)]
    data = mutated(rng, corpus)
    return with_right_length(data) if rng.random() < 0.8 else data


async def talk_to_a_node(court_: Court, rng: Random, number: int) -> int:
    """Mutated frames to alice, on a channel her layers use."""
    life = court_.puppets["abel"].hello.boot_id
    with trio.fail_after(5):
        while True:
            tls = await court_.open("alice", "abel", life)
            if tls is not None:
                break
            await trio.sleep(0.01)  # the clock has not told alice yet of a new channel
    return await talk(court_, tls, rng, number, FOR_PEERS, peers.REGISTRY)


async def talk_to_the_fabric(court_: Court, rng: Random, number: int) -> int:
    """Mutated frames to the fabric, by a new life of carol, whose old one is away."""
    async with court_.puppets["carol"].away():
        tls = await court_.open("fabric", "carol", rng.randbytes(8))
        if tls is None:
            return 0
        if rng.random() < 0.5:
            await tls.send_all(pack(encode(Join(now_ns=0))))
        return await talk(court_, tls, rng, number, FOR_FABRIC, fabric_daemon.REGISTRY)


async def serve_a_node(court_: Court, rng: Random, number: int) -> int:
    """Alice dials mallory, who answers with anything: no TLS, an odd HELLO, or odd frames."""
    address = court_.address("mallory")
    listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    with trio.fail_after(5):
        stream = await listeners[0].accept()
    await listeners[0].aclose()
    if rng.random() < 0.1:
        async with stream:
            await push(stream, mutated(rng, [CLIENT_HELLO, *FOR_PEERS[:4]]))
        return 1
    try:
        tls = await court_.handshake(stream, "mallory", server=True)
    except (ChannelRefused, trio.BrokenResourceError):
        return 0
    if rng.random() < 0.5:
        async with tls:
            data = changed_hello(court_, rng, "mallory", tls.binding)
            with named(0, number, data):
                await push(tls, data)
                await check_hello(tls, data, hellos=1)
        return 1
    life = court_.puppets["mallory"].hello.boot_id
    await push(tls, pack(encode(court_.hello("mallory", life, binding=tls.binding))))
    return await talk(court_, tls, rng, number, FOR_PEERS, peers.REGISTRY)


ENDED = re.compile(r"(?:the channel to \w+ ended|node \w+ has gone): ([A-Z_]+): ")
"""What a daemon reports of a channel it has ended itself."""


def reasons(lines: list[str]) -> list[str]:
    """Why daemons ended channels."""
    return [found[1] for found in map(ENDED.match, lines) if found]


async def talk(
    court_: Court,
    tls: trio.abc.Stream,
    rng: Random,
    number: int,
    corpus: list[bytes],
    registry: Registry,
) -> int:
    """Send frames until the other side has had enough, and hear what it says to each bad one."""
    frames = frames_of(rng, corpus)
    data = b"".join(frames)
    judgement = judge.judge_channel(data, registry)

    def is_all(verdict: Verdict) -> bool:
        return not judgement.ends and judge.is_subsequence(judgement.errors, verdict.said)

    reported = len(court_.daemons.said)
    async with tls:
        with named(0, number, data):
            await push(tls, data)
            if rng.random() < 0.2:
                await trio.aclose_forcefully(tls)
                return len(frames)
            verdict = await verdict_of(tls, CLOSE_S if judgement.errors else 0.02, is_all)
            if judge.is_subsequence(judgement.errors, verdict.said):
                assert not (verdict.is_open and judgement.ends), verdict
                return len(frames)
            # What a layer finds in a good frame may end it before the rest is judged.
            words = f"{judgement}, {verdict}"
            assert not verdict.is_open, words
            assert verdict.said, words
            await trio.aclose_forcefully(tls)
            await court_.fact(
                f"it ended for {verdict.said[-1]}: {words}",
                lambda: verdict.said[-1] in reasons(court_.daemons.said[reported:]),
            )
    return len(frames)


async def call_a_node(court_: Court, rng: Random, number: int) -> int:
    """A session with mutated calls."""
    path = court_.session(rng.choice(["alice", "bob"]))
    first = rng.choice([ATTACH, ATTACH, LOOK, b""])
    return await talk_locally(path, rng, number, FOR_SESSIONS, first, session_server._registry)


async def control_the_fabric(court_: Court, rng: Random, number: int) -> int:
    """Mutated requests at the control socket; who holds the clock lets it go."""
    path = court_.daemons.prepared.control_socket
    count = await talk_locally(path, rng, number, FOR_CONTROL, b"", control_server._registry)
    async with open_control(path) as control:
        await control.release()
    return count


async def talk_locally(
    path: Path, rng: Random, number: int, corpus: list[bytes], first: bytes, registry: Registry
) -> int:
    """Send frames; the first bad one is answered, and is the end."""
    frames = frames_of(rng, corpus)
    judgement = judge.judge_session(first + b"".join(frames), registry)
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        with named(0, number, first + b"".join(frames)):
            await push(stream, first + b"".join(frames))
            if rng.random() < 0.3:
                return len(frames)  # and read nothing
            if rng.random() < 0.5:
                await stream.send_eof()
            verdict = await verdict_of(stream, CLOSE_S if judgement.ends else 0.02)
            assert verdict.said or not judgement.ends
            assert not (judgement.ends and verdict.is_open)
    return len(frames)


async def push(stream: trio.abc.SendStream, data: bytes) -> None:
    """Send, to a side that may have closed, or may not read."""
    with trio.move_on_after(1.0):
        try:
            await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


TARGETS: tuple[Target, ...] = (
    send_bytes, say_hello, talk_to_a_node, talk_to_the_fabric, serve_a_node, call_a_node,
    control_the_fabric,
)  # fmt: skip

LOCAL = (call_a_node, control_the_fabric)


async def run(target: Target, seed: int, connections: int) -> int:
    """So many connections; how many inputs they were."""
    rng = Random(seed)
    inputs = 0
    with run_folder() as runs, named(seed, connections, target.__name__.encode()):
        async with court(runs) as made:
            for number in range(connections):
                inputs += await target(made, rng, number)
                if number % 100 == 99:
                    await made.check()
            if target in LOCAL:
                await made.fact("nothing is left of what was called", made.is_empty)
    return inputs


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
async def test_daemons_outlive_what_is_sent_to_them(target: Target) -> None:
    assert await run(target, seed=41, connections=20) >= 10


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4000, 4005))
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
async def test_daemons_outlive_much_more(target: Target, seed: int) -> None:
    tally.add("daemons", await run(target, seed, connections=150))
