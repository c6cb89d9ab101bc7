"""Nodes with good certificates that break the rules of clocks and channels; the others go on."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from random import Random

import pytest
import trio
from msgspec.structs import replace

from qstack.link.messages import Remove
from qstack.runtime import peers
from qstack.runtime.clock_messages import ChannelOpen, Done, Join, SentTo
from qstack.transport.messages import RequestsOver
from qstack.wire.codec import encode
from qstack.wire.frame import pack
from qstack.wire.message import NETWORK_TIME_MAX_NS
from qstack.wire.session import Stamp
from tests.fuzz.court import CLOSE_S, Court, court, verdict_of
from tests.fuzz.samples import sample
from tests.runtime.running import run_folder

OPEN = pack(encode(ChannelOpen()))


@pytest.fixture
async def made() -> AsyncIterator[Court]:
    with run_folder() as runs:
        async with court(runs) as made:
            yield made


async def said_to(made: Court, name: str, life: bytes, data: bytes) -> list[str]:
    """What alice says to `name`, until she ends its channel."""
    tls = await made.open("alice", name, life)
    assert tls is not None
    async with tls, trio.open_nursery() as nursery:
        nursery.start_soon(push, tls, data)
        verdict = await verdict_of(tls, CLOSE_S)
        nursery.cancel_scope.cancel()
    assert not verdict.is_open
    return verdict.said


async def push(stream: trio.abc.SendStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(data)


def life_of(made: Court, name: str) -> bytes:
    return made.puppets[name].hello.boot_id


async def test_a_life_the_clock_has_not_told_of_says_so_much_and_no_more(made: Court) -> None:
    most = peers.EARLY_BYTES_MAX // peers.EARLY_BYTES_EACH
    assert await said_to(made, "abel", b"new-life", OPEN * (most + 1)) == ["RATE"]


async def test_a_peer_whose_messages_are_not_handled_is_cut_off(
    made: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read in one piece waits until the clock's next round."""
    monkeypatch.setattr(peers, "WAITING_MAX", 256)
    waits = pack(encode(sample(Remove, Random(1))))
    said = await said_to(made, "abel", life_of(made, "abel"), waits * (peers.WAITING_MAX + 10))
    assert said == ["RATE"]


@pytest.mark.parametrize("at_ns", [peers.AHEAD_NS * 2, 2**63 - 1])
async def test_a_stamp_from_the_far_future_ends_the_channel(made: Court, at_ns: int) -> None:
    data = pack(encode(Stamp(at_ns=at_ns))) + OPEN
    assert await said_to(made, "abel", life_of(made, "abel"), data) == ["INVALID"]
    assert made.daemons.nodes["alice"].clock.now_ns < peers.AHEAD_NS


async def test_so_does_one_said_before_the_clock_told_of_that_life(made: Court) -> None:
    """Nothing else was said: its date alone waits to be judged."""
    channels = made.daemons.nodes["alice"].peers
    tls = await made.open("alice", "abel", b"new-life")
    assert tls is not None
    async with tls:
        await tls.send_all(pack(encode(Stamp(at_ns=peers.AHEAD_NS * 2))))
        abel = channels.peers["abel"]
        await made.fact("alice has read it", lambda: abel.stamp_in_ns == peers.AHEAD_NS * 2)
        channels.up("abel", b"new-life")
        verdict = await verdict_of(tls, CLOSE_S)
    assert not verdict.is_open


async def test_words_dated_back_do_not_put_out_who_answers_them(made: Court) -> None:
    """Answered at their date, in a round that is over, they had the coordinator end alice."""
    asks = pack(encode(Stamp(at_ns=0)))
    asks += b"".join(pack(encode(sample(RequestsOver, Random(seed)))) for seed in range(8))
    tls = await made.open("alice", "abel", life_of(made, "abel"))
    assert tls is not None
    async with tls:
        await tls.send_all(asks)
        answered = await verdict_of(tls, CLOSE_S, lambda verdict: verdict.frames >= 8)
        assert answered.is_open
        await made.check()
    assert not [line for line in made.daemons.said if "node alice" in line]


LIES: dict[str, Callable[[Done], Done]] = {
    "before the round's end": lambda done: replace(done, next_ns=0),
    "the wrong round": lambda done: replace(done, round=done.round + 1),
    "an effect within the round": lambda done: replace(
        done, sent={"bob": SentTo(count=1, earliest_ns=0)}
    ),
    "an operation long ago": lambda done: replace(
        done, sent={"fabric": SentTo(count=1, earliest_ns=0)}
    ),
    "an effect in the far future": lambda done: replace(
        done, sent={"bob": SentTo(count=1, earliest_ns=NETWORK_TIME_MAX_NS)}
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_member_whose_done_cannot_be_is_put_out(made: Court, lie: str) -> None:
    mallory = made.puppets["mallory"]
    mallory.lie = LIES[lie]
    before_ns = made.daemons.fabric.clock.report()["now_ns"]
    made.daemons.fabric.drop("carol")  # all the others are told of it, in a round
    await made.fact(
        "mallory has gone",
        lambda: any("node mallory has gone: " in line for line in made.daemons.said),
    )
    mallory.lie = None
    await made.check()
    now_ns = made.daemons.fabric.clock.report()["now_ns"]
    assert isinstance(now_ns, int)
    assert isinstance(before_ns, int)
    assert before_ns <= now_ns < before_ns + 60 * 10**9


async def test_a_done_nobody_waits_for_is_refused(made: Court) -> None:
    tls = await made.open("fabric", "carol", b"new-life")
    assert tls is not None
    done = Done(round=1, next_ns=1, is_demanding=True, is_waiting=True, sent={})
    async with tls:
        await tls.send_all(pack(encode(Join(now_ns=0))) + pack(encode(done)))
        assert (await verdict_of(tls, CLOSE_S)).said == ["OUT_OF_STATE"]


async def test_a_member_from_beyond_the_end_of_time_does_not_join(made: Court) -> None:
    tls = await made.open("fabric", "carol", b"new-life")
    assert tls is not None
    async with tls:
        await tls.send_all(pack(encode(Join(now_ns=NETWORK_TIME_MAX_NS + 1))))
        assert (await verdict_of(tls, 0.3)).said == ["INVALID"]


async def test_a_peer_that_floods_does_not_stop_the_others() -> None:
    """What one read brings is handed over, then others have their turn: pairs come meanwhile."""
    sent = 0

    async def flood(tls: trio.abc.Stream) -> None:
        nonlocal sent
        noise = pack(encode(Stamp(at_ns=0))) * 1000
        while True:
            await tls.send_all(noise)
            sent += 1000

    with run_folder() as runs:
        async with court(runs, done_limit_s=10) as made:
            tls = await made.open("alice", "abel", life_of(made, "abel"))
            assert tls is not None
            async with tls, trio.open_nursery() as nursery:
                nursery.start_soon(flood, tls)
                await made.fact("it floods", lambda: sent > 5000)
                before = sent
                with trio.fail_after(30):
                    for _ in range(3):
                        await made.check()
                assert sent > before + 5000
                nursery.cancel_scope.cancel()
