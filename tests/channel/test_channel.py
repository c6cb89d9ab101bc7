"""A channel that is up: order, limits, errors, and its end."""

import functools
import itertools

import msgspec
import pytest
import trio
import trio.testing

from qstack.channel.channel import BAD_FRAMES_MAX, ChannelClosed
from qstack.channel.hello import open_channel
from qstack.errors import ErrorCode, LocalError
from qstack.wire.codec import encode
from qstack.wire.frame import CONTROL_BYTES_MAX, HEADER, Frame, FrameReader, pack
from qstack.wire.session import Error, Stamp
from tests.channel.peers import (
    ALICE,
    BOB,
    LINK_DAEMON,
    Deed,
    Note,
    World,
    channels,
    hello,
    loopback,
    memory,
    note,
    raw_peer,
)


async def take(channel, count):
    received = []
    while len(received) < count:
        received += await channel.receive()
    return [message for _frame, message in received]


async def test_messages_arrive_in_order_both_ways_at_once(world, wires):
    async with channels(world, wires) as (alice, bob):
        sent = [Note(number=number) for number in range(400)]

        async def send(channel):
            for start in range(0, len(sent), 7):
                await channel.send([encode(message) for message in sent[start : start + 7]])

        async def collect(channel):
            assert await take(channel, len(sent)) == sent

        async with trio.open_nursery() as nursery:
            for channel in (alice, bob):
                nursery.start_soon(send, channel)
                nursery.start_soon(collect, channel)


async def test_several_tasks_may_send(world):
    async with channels(world, loopback) as (alice, bob):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                frames = [encode(Note(number=number))] * 50
                nursery.start_soon(alice.send, frames)
            numbers = [message.number for message in await take(bob, 1000)]
        assert sorted(numbers) == sorted(list(range(20)) * 50)
        assert sum(a != b for a, b in itertools.pairwise(numbers)) == 19


async def test_what_is_sent_without_waiting_arrives_in_order(world):
    async with channels(world, loopback) as (alice, bob):
        for number in range(200):
            assert alice.send_nowait([encode(Note(number=number))])
        assert [message.number for message in await take(bob, 200)] == list(range(200))


async def test_what_the_socket_does_not_take_is_kept_and_goes_first(world):
    """Nobody reads until the socket is full: no frame is lost, cut or overtaken."""
    async with channels(world, loopback) as (alice, bob):
        batch = 2_000
        sent = 0
        while not alice.has_unsent:
            frames = [encode(Note(number=number)) for number in range(sent, sent + batch)]
            assert alice.send_nowait(frames)
            sent += batch
        assert not alice.send_nowait([encode(Note(number=0))])  # nothing of it was done
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.drain)
            numbers = [message.number for message in await take(bob, sent)]
        assert numbers == list(range(sent))
        assert not alice.has_unsent
        assert alice.send_nowait([encode(Note(number=sent))])
        assert (await take(bob, 1))[0].number == sent


async def test_a_send_after_what_was_left_follows_it(world):
    async with channels(world, loopback) as (alice, bob):
        sent = 0
        while not alice.has_unsent:
            assert alice.send_nowait([encode(Note(number=sent + n)) for n in range(2_000)])
            sent += 2_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.send, [encode(Note(number=sent))])
            numbers = [message.number for message in await take(bob, sent + 1)]
        assert numbers == list(range(sent + 1))


async def test_without_waiting_nothing_too_long_goes_and_memory_streams_wait(world):
    async with channels(world, loopback) as (alice, _bob):
        assert not alice.send_nowait([Frame(2, 1, bytes(2**23))])
    async with channels(world, memory) as (alice, _bob):
        assert not alice.send_nowait([encode(Note(number=1))])


async def test_a_stamp_is_a_message_like_others(world):
    async with channels(world, memory) as (alice, bob):
        await alice.send([encode(Stamp(at_ns=5)), encode(Note(number=1))])
        assert await take(bob, 2) == [Stamp(at_ns=5), Note(number=1)]


async def test_a_frame_over_the_agreed_limit_is_not_sent(world):
    async with channels(world, memory) as (alice, bob):
        with pytest.raises(LocalError) as caught:
            await alice.send([encode(Note(number=1)), Frame(2, 1, b"x" * 65_537)])
        assert caught.value.code is ErrorCode.TOO_LARGE
        await alice.send([encode(Note(number=2))])
        assert await take(bob, 1) == [Note(number=2)]


async def errors_read(tls):
    """All ERROR frames up to the end of the stream."""
    reader, frames = FrameReader(), []
    while data := await tls.receive_some():
        frames += reader.feed(data)
    return [msgspec.msgpack.decode(frame.body, type=Error) for frame in frames]


def link(body, kind=1):
    return pack(Frame(2, kind, body))


NAN = b"\xa6weight\xcb\x7f\xf8" + bytes(6)
EXTENSION_TYPE = b"\xa1x\x81\xa1a\xd4\x05\x00"
CRITICAL = b"\xa1x\x81\xa4crit\x91\xa1a"
NUMBER = b"\xa6number\x01"
WEIGHT = b"\xa6weight\xcb\x3f\xe0" + bytes(6)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82" + WEIGHT + NUMBER, ErrorCode.NOT_CANONICAL),
        (b"\x83" + NUMBER + NUMBER + WEIGHT, ErrorCode.NOT_CANONICAL),
        (b"\x82\xa6number\xcc\x01" + WEIGHT, ErrorCode.NOT_CANONICAL),
    ],
    ids=["unsorted", "duplicate", "long-integer"],
)
async def test_another_encoding_ends_the_channel(world, wires, data, code):
    await ends(world, wires, link(data), code)


async def ends(world, wires, data, code):
    """What was sent before `data` is received; then both sides learn why it is over."""
    peer = raw_peer(world, wires, LINK_DAEMON)
    async with peer as (tls, channel), trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 20
        await tls.send_all(note(1) + data)
        assert await take(channel, 1) == [Note(number=1)]
        said = []

        async def listen():
            said.extend(await errors_read(tls))
            await tls.aclose()

        nursery.start_soon(listen)
        with pytest.raises(ChannelClosed) as caught:
            await channel.receive()
        assert caught.value.code is code
        for action in (channel.receive, functools.partial(channel.send, [])):
            with pytest.raises(ChannelClosed):
                await action()
    assert [error.name for error in said] == [code.name]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (HEADER.pack(b"QSTK", 1, 2, 1, CONTROL_BYTES_MAX + 1), ErrorCode.TOO_LARGE),
        (HEADER.pack(b"XSTK", 1, 2, 1, 0), ErrorCode.MALFORMED),
        (HEADER.pack(b"QSTK", 2, 2, 1, 0), ErrorCode.VERSION),
        (pack(Frame(6, 1, b"\x80")), ErrorCode.ROLE),
        (pack(Frame(6, 0x8001, b"\x80")), ErrorCode.ROLE),
    ],
    ids=["oversize", "magic", "version", "role", "optional-role"],
)
async def test_a_broken_frame_ends_the_channel(world, wires, data, code):
    await ends(world, wires, data, code)


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (link(b"\x80", 0x7FFF), ErrorCode.UNKNOWN_TYPE, ""),
        (pack(Frame(77, 1, b"\x80")), ErrorCode.UNKNOWN_TYPE, ""),
        (link(b"\x82" + NUMBER + NAN), ErrorCode.INVALID, "weight"),
        (link(b"\x82\xa6number\xff" + WEIGHT), ErrorCode.INVALID, "number"),
        (link(b"\x81" + WEIGHT), ErrorCode.INVALID, ""),
        (link(b"\x83" + NUMBER + WEIGHT + EXTENSION_TYPE), ErrorCode.INVALID, ""),
        (link(b"\x83" + NUMBER + WEIGHT + CRITICAL), ErrorCode.CRITICAL, "x.crit"),
        (pack(encode(hello(ALICE))), ErrorCode.OUT_OF_STATE, ""),
    ],
    ids=["type", "layer", "nan", "range", "missing", "extension-type", "critical", "hello"],
)
async def test_a_bad_message_is_answered_and_the_channel_stays(world, wires, data, code, field):
    async with raw_peer(world, wires) as (tls, channel):
        await tls.send_all(data + note(2))
        assert await take(channel, 1) == [Note(number=2)]
        assert channel.refused == 1
        [frame] = FrameReader().feed(await tls.receive_some())
        error = msgspec.msgpack.decode(frame.body, type=Error)
        assert (error.name, error.field) == (code.name, field)
        await tls.send_all(note(3))
        assert await take(channel, 1) == [Note(number=3)]


async def test_an_unknown_optional_type_is_skipped(world):
    async with raw_peer(world, memory) as (tls, channel):
        await tls.send_all(link(b"\x80", 0x8001) + note(1))
        assert await take(channel, 2) == [None, Note(number=1)]
        assert channel.refused == 0


async def test_errors_of_the_peer_are_handed_over_and_not_answered(world):
    async with channels(world, memory) as (alice, bob):
        error = Error(name="UNKNOWN_TYPE", detail="what?", field="")
        await alice.send([encode(error), encode(Note(number=1))])
        assert await take(bob, 2) == [error, Note(number=1)]
        await bob.send([encode(Note(number=2))])
        assert await take(alice, 1) == [Note(number=2)]


async def test_the_role_of_the_certificate_bounds_the_layers(world):
    ends_of = {}

    async def run(stream, identity, server, expected):
        from tests.channel.peers import REGISTRY

        ends_of[server] = await open_channel(
            stream,
            credentials=world.credentials(identity),
            server=server,
            expected=expected,
            hello=hello(identity),
            registry=REGISTRY,
        )

    async with memory() as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, near, LINK_DAEMON, False, BOB)
            nursery.start_soon(run, far, BOB, True, LINK_DAEMON)
        await ends_of[False].send([encode(Note(number=1)), encode(Deed(number=1))])
        assert await take(ends_of[True], 1) == [Note(number=1)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_when_told, ends_of[False])
            with pytest.raises(ChannelClosed, match="may not speak for layer APPLICATION"):
                await ends_of[True].receive()


async def close_when_told(channel):
    [(_frame, message)] = await channel.receive()
    assert message.name == "ROLE"
    with pytest.raises(ChannelClosed, match="it said ROLE"):
        await channel.receive()


@pytest.mark.parametrize("is_cut", [False, True], ids=["goodbye", "cut"])
async def test_the_end_of_the_stream_in_mid_frame_is_named(world, wires, is_cut):
    async with raw_peer(world, wires) as (tls, channel):
        await tls.send_all(note(1) + note(2)[:-1])
        assert await take(channel, 1) == [Note(number=1)]
        await (tls.transport if is_cut else tls).aclose()
        words = "no goodbye" if is_cut else "mid-frame"
        with pytest.raises(ChannelClosed, match=words):
            await channel.receive()


async def test_a_plain_goodbye_has_no_error(world, wires):
    async with channels(world, wires) as (alice, bob):
        await alice.send([encode(Note(number=1))])
        await alice.aclose()
        assert await take(bob, 1) == [Note(number=1)]
        with pytest.raises(ChannelClosed, match="the peer closed the channel") as caught:
            await bob.receive()
        assert caught.value.code is None
        with pytest.raises(ChannelClosed, match="this side closed"):
            await alice.send([encode(Note(number=2))])


async def test_closing_wakes_the_receiver(world):
    async with channels(world, loopback) as (alice, _bob):

        async def receive():
            with pytest.raises(ChannelClosed, match="this side closed"):
                await alice.receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await alice.aclose()


async def test_frames_arrive_one_byte_at_a_time(world):
    async with raw_peer(world, memory) as (tls, channel), trio.open_nursery() as nursery:

        async def drip():
            for octet in note(1) + note(2):
                await tls.send_all(bytes([octet]))

        nursery.start_soon(drip)
        assert await take(channel, 2) == [Note(number=1), Note(number=2)]


async def test_a_flood_of_bad_messages_ends_the_channel(world):
    async with raw_peer(world, memory) as (tls, channel), trio.open_nursery() as nursery:
        await tls.send_all(link(b"\x80", 0x7FFF) * (BAD_FRAMES_MAX + 1))
        nursery.start_soon(errors_read, tls)
        with pytest.raises(ChannelClosed) as caught:
            await channel.receive()
        assert caught.value.code is ErrorCode.RATE
        await tls.aclose()


async def test_who_sends_nonsense_and_reads_no_answers_is_cut_off(world, autojump_clock):
    async with raw_peer(world, loopback) as (tls, channel), trio.open_nursery() as nursery:
        nursery.start_soon(fill, channel)
        await trio.testing.wait_all_tasks_blocked()
        await tls.send_all(link(b"\x80", 0x7FFF))
        with pytest.raises(ChannelClosed) as caught:
            await channel.receive()
        assert caught.value.code is ErrorCode.RATE
        assert trio.current_time() < 10


async def fill(channel):
    frames = [Frame(2, 0x8001, b"x" * 65_536)] * 400  # more than the socket buffers of a loopback
    with pytest.raises(ChannelClosed):
        await channel.send(frames)


async def test_no_exception_of_a_channel_shows_a_key(world: World):
    secret = world.credentials(BOB).key_file.read_text().splitlines()[1]
    async with raw_peer(world, memory) as (tls, channel), trio.open_nursery() as nursery:
        await tls.send_all(b"X" * 12)
        nursery.start_soon(errors_read, tls)
        with pytest.raises(ChannelClosed) as caught:
            await channel.receive()
        texts = f"{caught.value!r} {channel!r} {channel.tls!r} {channel.hello!r}"
        assert secret[:12] not in texts
        assert channel.tls.binding.hex() not in texts
        await tls.aclose()


async def test_a_send_while_another_task_says_the_last_words_finds_the_channel_closed(
    world: World,
) -> None:
    """It was told that the stream is busy, which nobody expected: a daemon ended."""
    async with channels(world, memory) as (alice, _):
        alice.tls._is_open, alice.tls._is_sending = False, True  # as in the middle of `refuse`
        with pytest.raises(ChannelClosed):
            await alice.send([encode(Note(number=1))])
        alice.tls._is_sending = False
