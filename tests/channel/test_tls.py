"""The encrypted stream, against good peers and odd ones."""

import functools
import socket

import pytest
import trio
import trio.testing
from OpenSSL import SSL
from OpenSSL._util import lib

from qstack.channel.ends import ChannelRefused
from qstack.channel.identity import Identity
from qstack.channel.tls import TlsContext, TlsStream, make_context
from qstack.errors import ErrorCode
from qstack.wire.frame import FrameReader
from qstack.wire.session import Error
from tests.channel.peers import (
    ALICE,
    BOB,
    FUTURE,
    PAST,
    Ours,
    context_of,
    loopback,
    memory,
    open_ours,
)


async def pair(world, near, far):
    """Alice and bob, hands shaken."""
    alice = TlsStream(near, make_context(world.credentials(ALICE), server=False))
    bob = TlsStream(far, make_context(world.credentials(BOB), server=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alice.handshake)
        nursery.start_soon(bob.handshake)
    return alice, bob


async def test_a_good_handshake_is_post_quantum_and_mutual(world, wires):
    async with wires() as (near, far):
        alice, bob = await pair(world, near, far)
        for stream, peer in ((alice, BOB), (bob, ALICE)):
            assert stream.group == "X25519MLKEM768"
            assert stream.version == "TLSv1.3"
            assert stream.peer == peer
            stream.verify_peer(peer)
            stream.verify_peer(lambda identity: identity.network == "metro")
        assert alice.binding == bob.binding
        assert len(alice.binding) == 32


async def test_two_sessions_have_different_bindings(world):
    bindings = set()
    for _ in range(2):
        async with memory() as (near, far):
            alice, _bob = await pair(world, near, far)
            bindings.add(alice.binding)
    assert len(bindings) == 2


async def test_small_messages_are_not_held_back_by_the_transport(world):
    async with loopback() as (near, far):
        alice, bob = await pair(world, near, far)
        for stream in (alice, bob):
            assert stream.transport.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_bytes_of_any_amount_arrive_in_order(world, wires):
    async with wires() as (near, far):
        alice, bob = await pair(world, near, far)
        for size in (1, 16_384, 16_385, 65_536, 1_000_000):
            sent = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
            received = bytearray()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alice.send_all, sent)
                while len(received) < size:
                    received += await bob.receive_some()
            assert received == sent


async def test_reading_less_than_there_is_keeps_the_rest(world):
    async with memory() as (near, far):
        alice, bob = await pair(world, near, far)
        await alice.send_all(b"abcdef")
        assert await bob.receive_some(2) == b"ab"
        assert await bob.receive_some(3) == b"cde"
        assert await bob.receive_some() == b"f"
        with pytest.raises(ValueError, match="at least 1"):
            await bob.receive_some(0)


async def test_one_send_is_one_write_and_one_read_takes_all(world):
    async with memory() as (near, far):
        alice, bob = await pair(world, near, far)
        writes = []
        pump = near.send_stream.send_all_hook

        async def count():
            writes.append(1)
            await pump()

        near.send_stream.send_all_hook = count
        await alice.send_all(b"x" * 40_000)
        assert len(writes) == 1
        assert await bob.receive_some() == b"x" * 40_000


async def test_sending_and_receiving_at_once_both_ways(world, wires):
    async with wires() as (near, far):
        alice, bob = await pair(world, near, far)
        amount = 300_000

        async def collect(stream):
            got = 0
            while got < amount:
                got += len(await stream.receive_some())

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for stream in (alice, bob):
                    nursery.start_soon(stream.send_all, b"y" * amount)
                    nursery.start_soon(collect, stream)


async def test_a_second_sender_at_the_same_time_is_told(world):
    async with loopback() as (near, far):
        alice, _bob = await pair(world, near, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.send_all, b"x" * 50_000_000)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await alice.send_all(b"y")
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.ClosedResourceError):
            await alice.send_all(b"after a half-written record")


async def test_a_goodbye_ends_the_stream_and_a_cut_breaks_it(world, wires):
    async with wires() as (near, far):
        alice, bob = await pair(world, near, far)
        await alice.send_all(b"last")
        await alice.aclose()
        assert await bob.receive_some() == b"last"
        assert await bob.receive_some() == b""
        assert await bob.receive_some() == b""
    async with wires() as (near, far):
        alice, bob = await pair(world, near, far)
        await near.send_eof()
        with pytest.raises(trio.BrokenResourceError, match="no goodbye"):
            await bob.receive_some()


async def test_a_closed_stream_sends_nothing(world):
    async with memory() as (near, far):
        alice, _bob = await pair(world, near, far)
        await alice.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await alice.send_all(b"x")


async def test_changed_ciphertext_breaks_the_stream_after_what_came_before(world):
    async with memory() as (near, far):
        alice, bob = await pair(world, near, far)
        alice._tls.sendall(b"good")
        good = alice._tls.bio_read(1000)
        alice._tls.sendall(b"bad")
        bad = bytearray(alice._tls.bio_read(1000))
        bad[-1] ^= 1
        await near.send_all(good + bad)
        assert await bob.receive_some() == b"good"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await bob.receive_some()


async def test_no_session_is_resumed(world):
    context = context_of(world.files(ALICE), world.root, server=False)
    server = make_context(world.credentials(BOB), server=True)
    session = None
    for _ in range(2):
        async with memory() as (near, far):
            alice, bob = TlsStream(near, context), TlsStream(far, server)
            if session is not None:
                alice._tls.set_session(session)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alice.handshake)
                nursery.start_soon(bob.handshake)
            await bob.send_all(b"x")
            await alice.receive_some()
            assert not lib.SSL_session_reused(alice._tls._ssl)
            session = alice._tls.get_session()
            assert session is not None


@pytest.mark.parametrize(
    ("expected", "code"),
    [
        (Identity("metro", "bob", "link"), ErrorCode.ROLE),
        (Identity("metro", "carol", "node"), ErrorCode.IDENTITY),
        (Identity("other", "bob", "node"), ErrorCode.IDENTITY),
        (lambda identity: False, ErrorCode.IDENTITY),
    ],
)
async def test_a_peer_other_than_expected_is_refused(world, expected, code):
    async with memory() as (near, far):
        alice, _bob = await pair(world, near, far)
        with pytest.raises(ChannelRefused) as caught:
            alice.verify_peer(expected)
        assert caught.value.code is code


async def meet(world, wires, odd: TlsContext):
    """Our side's refusal of an odd peer, and what the odd peer saw: an exception or bytes."""
    ours, seen = Ours(), []

    async def be_odd(stream):
        tls = TlsStream(stream, odd)
        try:
            await tls._shake_hands()
            tls._is_open = True
            data = await tls.receive_some()
            seen.append(data)
        except (ChannelRefused, trio.BrokenResourceError) as error:
            seen.append(error)
        await trio.aclose_forcefully(stream)

    async with wires() as (near, far):
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(be_odd, near)
                nursery.start_soon(
                    functools.partial(open_ours, world, far, ours, server=not odd.server)
                )
    assert ours.channel is None
    assert ours.refusal is not None
    return ours.refusal, seen[0]


def said(seen):
    """The registry error in an ERROR frame."""
    [frame] = FrameReader().feed(seen)
    import msgspec

    return msgspec.msgpack.decode(frame.body, type=Error).name


BOTH = pytest.mark.parametrize("server", [False, True], ids=["odd-client", "odd-server"])


@BOTH
async def test_a_peer_with_the_classical_exchange_alone_is_refused(world, wires, server):
    odd = context_of(world.files(ALICE), world.root, server=server, groups=b"X25519")
    refusal, seen = await meet(world, wires, odd)
    assert refusal.code is ErrorCode.KEY_EXCHANGE
    assert "x25519" in refusal.detail
    assert "allow-classical" in refusal.detail
    if server:  # the client's first application bytes are the refusal, not its HELLO
        assert said(seen) == "KEY_EXCHANGE"


async def test_policy_allow_classical_lets_the_classical_exchange_through(world):
    async with memory() as (near, far):
        odd = context_of(world.files(ALICE), world.root, server=False, groups=b"X25519")
        alice = TlsStream(near, odd)
        bob = TlsStream(
            far, make_context(world.credentials(BOB), server=True, policy="allow-classical")
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.handshake)
            nursery.start_soon(bob.handshake)
        assert bob.group == "x25519"


@BOTH
@pytest.mark.parametrize(
    ("validity", "words"), [(PAST, "expired"), (FUTURE, "not valid yet")], ids=["past", "future"]
)
async def test_a_certificate_out_of_date_is_refused(world, wires, server, validity, words):
    odd = context_of(world.files(ALICE, **validity), world.root, server=server)
    refusal, seen = await meet(world, wires, odd)
    assert refusal.code is ErrorCode.IDENTITY
    assert words in refusal.detail
    assert isinstance(seen, Exception)


@BOTH
async def test_a_certificate_of_another_authority_is_refused(world, abroad, wires, server):
    odd = context_of(abroad.files(ALICE), world.root, server=server)
    refusal, _seen = await meet(world, wires, odd)
    assert refusal.code is ErrorCode.IDENTITY
    assert "another authority" in refusal.detail


async def test_a_client_without_certificate_is_refused(world, wires):
    refusal, seen = await meet(world, wires, context_of(None, world.root, server=False))
    assert refusal.code is ErrorCode.IDENTITY
    assert "showed no certificate" in refusal.detail
    assert "certificate" in str(seen)


@BOTH
async def test_a_peer_of_tls_1_2_is_refused(world, wires, server):
    odd = context_of(world.files(ALICE), world.root, server=server, tls12=True)
    refusal, _seen = await meet(world, wires, odd)
    assert refusal.code is ErrorCode.VERSION
    assert "1.3" in refusal.detail


@BOTH
@pytest.mark.parametrize("alpn", [b"h2", None], ids=["other", "none"])
async def test_a_peer_of_another_application_protocol_is_refused(world, wires, server, alpn):
    odd = context_of(world.files(ALICE), world.root, server=server, alpn=alpn)
    refusal, _seen = await meet(world, wires, odd)
    if server and alpn:  # it selects what was never offered: against RFC 7301, 3.1
        assert refusal.code is ErrorCode.MALFORMED
    else:
        assert refusal.code is ErrorCode.VERSION
        assert "qstack/1" in refusal.detail


@BOTH
async def test_the_wrong_node_and_the_wrong_role_are_refused_with_the_reason(world, wires, server):
    for identity, code in (
        (Identity("metro", "carol", "node"), ErrorCode.IDENTITY),
        (Identity("metro", "alice", "link"), ErrorCode.ROLE),
    ):
        odd = context_of(world.files(identity), world.root, server=server)
        refusal, seen = await meet(world, wires, odd)
        assert refusal.code is code
        assert said(seen) == code.name


async def test_a_certificate_that_names_nobody_is_refused(world, wires):
    """The authority's own certificate has no name of a node."""
    odd = context_of((world.root, world.root.with_suffix(".key")), world.root, server=False)
    refusal, _seen = await meet(world, wires, odd)
    assert refusal.code is ErrorCode.IDENTITY


async def test_bytes_that_are_not_tls_are_refused(world, wires):
    ours = Ours()
    async with wires() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(open_ours, world, far, ours, server=True))
        await near.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await near.send_eof()
    assert ours.refusal.code in {ErrorCode.MALFORMED, ErrorCode.VERSION}


async def test_a_peer_that_hangs_up_in_the_handshake_is_named_down(world, wires):
    ours = Ours()
    async with wires() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(open_ours, world, far, ours, server=True))
        await near.aclose()
    assert ours.refusal.code is ErrorCode.PEER_DOWN


def test_the_context_allows_tls_1_3_alone(world):
    context = make_context(world.credentials(ALICE), server=True).ssl
    assert context.get_verify_mode() == SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF
