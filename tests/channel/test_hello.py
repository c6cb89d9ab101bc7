"""HELLO: what is agreed, and what is refused with which error."""

import functools

import msgspec
import pytest
import trio
import trio.testing
from OpenSSL import SSL

from qstack.channel.channel import ChannelClosed, ChannelRefused
from qstack.channel.hello import HandshakeGate, agree, open_channel
from qstack.channel.identity import Identity
from qstack.channel.tls import TlsStream, make_context
from qstack.errors import ErrorCode, LocalError, PeerError
from qstack.wire.codec import encode
from qstack.wire.frame import BULK_BYTES_MAX, CONTROL_BYTES_MAX, Frame, FrameReader, pack
from qstack.wire.session import Error, Stamp
from tests.channel.peers import (
    ALICE,
    BOB,
    LINK_DAEMON,
    REGISTRY,
    Ours,
    channels,
    hello,
    loopback,
    memory,
    note,
    open_ours,
)


async def test_two_good_peers_have_a_channel(world, wires):
    async with channels(world, wires) as (alice, bob):
        assert alice.peer == BOB
        assert bob.peer == ALICE
        assert alice.hello.node == "bob"
        assert bob.hello.boot_id == b"12345678"
        assert {alice.group, bob.group} == {"X25519MLKEM768"}
        assert {alice.tls.version, bob.tls.version} == {"TLSv1.3"}
        assert alice.frame_bytes_max == bob.frame_bytes_max == CONTROL_BYTES_MAX


async def test_capabilities_and_limits_are_what_both_said(world):
    first = {
        "capabilities": {"stepped": 1, "bulk": 2, "mine": 1},
        "limits": {"frame_bytes": BULK_BYTES_MAX},
    }
    second = {
        "capabilities": {"stepped": 3, "bulk": 1, "yours": 1},
        "limits": {"frame_bytes": 100_000, "other": 3},
    }
    options = {
        "alice": {"hello": hello(ALICE, **first)},
        "bob": {"hello": hello(BOB, **second)},
    }
    async with channels(world, memory, **options) as (alice, bob):
        assert alice.capabilities == bob.capabilities == {"stepped": 1, "bulk": 1}
        assert alice.frame_bytes_max == bob.frame_bytes_max == 100_000


IDENTITY = Identity("metro", "alice", "node")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"versions": [2, 3]}, ErrorCode.VERSION, "versions"),
        ({"network": "other"}, ErrorCode.NETWORK_MISMATCH, "network"),
        ({"node": "carol"}, ErrorCode.IDENTITY, "node"),
        ({"role": "operator"}, ErrorCode.ROLE, "role"),
        ({"binding": b"z" * 32}, ErrorCode.IDENTITY, "binding"),
        ({"binding": b""}, ErrorCode.IDENTITY, "binding"),
        ({"limits": {"frame_bytes": 100}}, ErrorCode.INVALID, "limits.frame_bytes"),
    ],
)
def test_each_wrong_word_of_a_hello_has_its_error(changes, code, field):
    own = hello(BOB, binding=b"b" * 32, limits={"frame_bytes": 10**6})
    good = {"binding": b"b" * 32, "layers": [1, 2, 200]}
    assert agree(own, hello(ALICE, **good), IDENTITY).version == 1
    with pytest.raises(PeerError) as caught:
        agree(own, hello(ALICE, **(good | changes)), IDENTITY)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.detail


def test_a_hello_may_not_claim_layers_beyond_the_role():
    own = hello(BOB, binding=b"b" * 32)
    said = {"binding": b"b" * 32}
    agree(own, hello(LINK_DAEMON, layers=[0, 2, 200], **said), LINK_DAEMON)
    with pytest.raises(PeerError, match="may not serve NETWORK, CLOCK") as caught:
        agree(own, hello(LINK_DAEMON, layers=[2, 3, 6], **said), LINK_DAEMON)
    assert (caught.value.code, caught.value.field) == (ErrorCode.ROLE, "layers")


def test_the_highest_common_version_counts():
    own = hello(BOB, versions=[1, 2, 4])
    assert agree(own, hello(ALICE, versions=[3, 2, 1]), IDENTITY).version == 2


async def converse(world, wires, first_bytes, *, server=False, options=None):
    """Our refusal when alice sends `first_bytes(tls)`, and all that alice then reads."""
    ours, frames = Ours(), []

    async def alice(stream):
        tls = TlsStream(stream, make_context(world.credentials(ALICE), server=server))
        await tls.handshake()
        await tls.send_all(first_bytes(tls))
        reader = FrameReader()
        while data := await tls.receive_some():
            frames.extend(reader.feed(data))
        await tls.aclose()

    async with wires() as (near, far):
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alice, near)
                run = functools.partial(open_ours, server=not server, **(options or {}))
                nursery.start_soon(run, world, far, ours)
    return ours, frames


def last_error(frames):
    return msgspec.msgpack.decode(frames[-1].body, type=Error)


def spoken(**changes):
    return lambda tls: pack(encode(hello(ALICE, **({"binding": tls.binding} | changes))))


@pytest.mark.parametrize("server", [False, True], ids=["client", "server"])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"versions": [9]}, ErrorCode.VERSION),
        ({"network": "other"}, ErrorCode.NETWORK_MISMATCH),
        ({"node": "carol"}, ErrorCode.IDENTITY),
        ({"role": "fabric"}, ErrorCode.ROLE),
        ({"binding": b"from another session".ljust(32)}, ErrorCode.IDENTITY),
    ],
    ids=["version", "network", "node", "role", "replay"],
)
async def test_a_wrong_hello_is_answered_by_its_error_and_the_end(
    world, wires, server, changes, code
):
    ours, frames = await converse(world, wires, spoken(**changes), server=server)
    assert ours.refusal.code is code
    assert not ours.refusal.by_peer
    assert last_error(frames).name == code.name
    assert last_error(frames).detail == ours.refusal.detail


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (note(1), ErrorCode.OUT_OF_STATE),
        (pack(encode(Stamp(at_ns=1))), ErrorCode.OUT_OF_STATE),
        (b"HTTP/1.1 200 OK", ErrorCode.MALFORMED),
        (pack(Frame(0, 1, b"\x80")), ErrorCode.INVALID),
        (pack(Frame(0, 1, b"x" * (CONTROL_BYTES_MAX + 1))), ErrorCode.TOO_LARGE),
    ],
    ids=["link", "stamp", "http", "empty", "large"],
)
async def test_a_first_frame_other_than_a_hello_is_refused(world, wires, first, code):
    ours, frames = await converse(world, wires, lambda _tls: first)
    assert ours.refusal.code is code
    assert last_error(frames).name == code.name


async def test_a_refusal_is_raised_on_both_sides(world, wires):
    def refuse(_hello):
        raise PeerError(ErrorCode.NETWORK_MISMATCH, "digest aa here, digest bb there")

    refusals = {}

    async def run(stream, identity, **values):
        try:
            await open_channel(
                stream,
                credentials=world.credentials(identity),
                hello=hello(identity),
                registry=REGISTRY,
                **values,
            )
        except ChannelRefused as refusal:
            refusals[identity.node] = refusal

    async with wires() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(run, near, ALICE, server=False, expected=BOB))
        nursery.start_soon(
            functools.partial(run, far, BOB, server=True, expected=ALICE, on_accept=refuse)
        )
    assert refusals["alice"].code is refusals["bob"].code is ErrorCode.NETWORK_MISMATCH
    assert refusals["alice"].by_peer
    assert "digest aa here" in str(refusals["alice"])
    assert not refusals["bob"].by_peer


async def test_a_server_learns_in_the_channel_that_its_hello_was_refused(world):
    ours = Ours()
    async with memory() as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(open_ours, world, far, ours, server=True))

            def refuse(_hello):
                raise PeerError(ErrorCode.NETWORK_MISMATCH, "not that file")

            with pytest.raises(ChannelRefused):
                await open_channel(
                    near,
                    credentials=world.credentials(ALICE),
                    server=False,
                    expected=BOB,
                    hello=hello(ALICE),
                    registry=REGISTRY,
                    on_accept=refuse,
                )
        [(_frame, message)] = await ours.channel.receive()
        assert message == Error(name="NETWORK_MISMATCH", detail="not that file", field="")
        with pytest.raises(ChannelClosed, match="not that file") as caught:
            await ours.channel.receive()
        assert caught.value.code is ErrorCode.NETWORK_MISMATCH


async def test_a_refusal_by_an_error_unknown_here_keeps_its_words(world):
    words = Error(name="TOO_NEW", detail="\x1b[31mred", field="")
    ours, _frames = await converse(world, memory, lambda _tls: pack(encode(words)))
    assert ours.refusal.by_peer
    assert "TOO_NEW: ?[31mred" in str(ours.refusal)


async def test_a_peer_that_closes_instead_of_saying_hello_is_down(world, wires):
    ours = Ours()
    async with wires() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(open_ours, world, far, ours, server=True))
        tls = TlsStream(near, make_context(world.credentials(ALICE), server=False))
        await tls.handshake()
        await tls.aclose()
    assert ours.refusal.code is ErrorCode.PEER_DOWN


async def test_no_handshake_and_no_hello_are_given_up_after_five_seconds(world, autojump_clock):
    for shakes_hands in (False, True):
        ours = Ours()
        start = trio.current_time()
        async with memory() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(open_ours, world, far, ours, server=True))
            if shakes_hands:
                tls = TlsStream(near, make_context(world.credentials(ALICE), server=False))
                await tls.handshake()
                frames = FrameReader().feed(await tls.receive_some())
                assert last_error(frames).name == "TIMEOUT"
        assert ours.refusal.code is ErrorCode.TIMEOUT
        assert 5 <= trio.current_time() - start <= 5.6


async def test_a_dripping_peer_does_not_stretch_the_limit(world, autojump_clock):
    ours = Ours()
    async with memory() as (near, far), trio.open_nursery() as nursery:

        async def drip():
            tls = TlsStream(near, make_context(world.credentials(ALICE), server=False))
            await tls.handshake()
            for octet in spoken()(tls):
                await trio.sleep(1)
                await tls.send_all(bytes([octet]))

        nursery.start_soon(drip)
        await open_ours(world, far, ours, server=True)
        nursery.cancel_scope.cancel()
    assert ours.refusal.code is ErrorCode.TIMEOUT
    assert trio.current_time() < 7


async def test_what_is_sent_right_behind_a_hello_is_not_lost(world):
    def hello_and_more(tls):
        large = pack(Frame(2, 0x8001, b"b" * (CONTROL_BYTES_MAX + 1)))
        return spoken(limits={"frame_bytes": BULK_BYTES_MAX})(tls) + note(1) + large + note(2)

    own = hello(BOB, limits={"frame_bytes": BULK_BYTES_MAX})
    ours = Ours()
    async with memory() as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                functools.partial(open_ours, world, far, ours, server=True, hello=own)
            )
            tls = TlsStream(near, make_context(world.credentials(ALICE), server=False))
            await tls.handshake()
            await tls.send_all(hello_and_more(tls))
            await tls.receive_some()
        received = []
        while len(received) < 3:
            received += await ours.channel.receive()
    assert [frame.type for frame, _message in received] == [1, 0x8001, 1]


async def test_a_hello_in_one_piece_with_the_end_of_the_handshake_is_not_lost(world, wires):
    ours = Ours()
    async with wires() as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(open_ours, world, far, ours, server=True))
            tls = TlsStream(near, make_context(world.credentials(ALICE), server=False))
            connection = tls._tls
            while True:
                try:
                    connection.do_handshake()
                except SSL.WantReadError:
                    await near.send_all(tls._encrypted(65_536))
                    connection.bio_write(await near.receive_some())
                else:
                    break
            tls.binding = connection.export_keying_material(b"EXPORTER-qstack-hello", 32)
            connection.sendall(spoken()(tls) + note(1))
            await near.send_all(tls._encrypted(65_536))
            await tls.receive_some()
        [(_frame, message)] = await ours.channel.receive()
        assert message.number == 1


async def test_a_hello_of_our_own_that_is_not_ours_is_our_fault(world):
    async with memory() as (near, far):
        with pytest.raises(LocalError, match="the certificate here says qstack://metro/bob/node"):
            await open_channel(
                near,
                credentials=world.credentials(BOB),
                server=False,
                expected=ALICE,
                hello=hello(ALICE),
                registry=REGISTRY,
            )
        assert await far.receive_some() == b""


async def test_a_cancelled_opening_closes_the_stream(world):
    async with memory() as (_near, far), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(open_ours, world, far, Ours(), server=True))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
        await far.receive_some()


def test_the_gate_counts_handshakes_under_way():
    gate = HandshakeGate(limit=2)
    with gate:
        with gate:
            with pytest.raises(ChannelRefused, match="2 handshakes are under way") as caught, gate:
                raise AssertionError("the gate was full")
            assert caught.value.code is ErrorCode.NO_RESOURCES
        assert gate.under_way == 1
        with gate:
            assert gate.under_way == 2
    assert gate.under_way == 0


async def test_a_handshake_that_fails_frees_its_place(world):
    gate = HandshakeGate(limit=1)
    for _ in range(2):
        async with loopback() as (near, far):
            await near.aclose()
            with gate, pytest.raises(ChannelRefused):
                await open_channel(
                    far,
                    credentials=world.credentials(BOB),
                    server=True,
                    expected=ALICE,
                    hello=hello(BOB),
                    registry=REGISTRY,
                )
