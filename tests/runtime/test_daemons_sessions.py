"""Applications that die, never wait, or talk nonsense, and what their node makes of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from qstack.physical import service as physical
from qstack.runtime import session_messages as words
from qstack.runtime.control_client import ControlError, open_control
from qstack.runtime.control_messages import Hold
from qstack.transport import service as transport
from qstack.wire.codec import encode
from qstack.wire.frame import HEADER, pack
from qstack.wire.message import Message
from tests.runtime.programs import PORT, WITHIN_NS, deliver
from tests.runtime.running import RunningNetwork, network, packaged
from tests.runtime.session_client import SessionClient, SessionEndedError, attached

BUSY_LIMIT_S = 0.4


@pytest.fixture(scope="module")
def pair() -> Iterator[RunningNetwork]:
    limit = f"--node-option=--busy-limit-s={BUSY_LIMIT_S}"
    with network(packaged("pair"), "pair", limit) as running:
        yield running


class Keeper:
    """Makes or accepts pairs and keeps them."""

    def __init__(self, other: str, pairs: int, *, creates: bool) -> None:
        self.first: list[Message] = [transport.EprOpen(call=1, port=PORT, remote=other)]
        self.qubits: list[bytes] = []
        self.void: list[bytes] = []
        self._pairs = pairs
        self._creates = creates

    def __call__(self, message: Message, now: int) -> list[Message]:
        match message:
            case transport.Opened(socket=socket) if self._creates:
                return [
                    transport.EprCreate(
                        call=2,
                        socket=socket,
                        number=self._pairs,
                        basis=None,
                        min_fidelity=0.5,
                        priority=1,
                        within_ns=WITHIN_NS,
                    )
                ]
            case transport.Opened(socket=socket):
                return [
                    transport.EprAccept(
                        call=2,
                        socket=socket,
                        number=self._pairs,
                        basis=None,
                        within_ns=WITHIN_NS,
                    )
                ]
            case transport.PairDelivered(qubit=qubit):
                self.qubits.append(qubit)
            case transport.PairVoid(qubit=qubit):
                self.void.append(qubit)
            case _:
                pass
        return []


async def keep(running: RunningNetwork, node: str, keeper: Keeper, end: trio.Event) -> None:
    """Run a keeper until `end`, then close the connection without a word."""
    async with attached(running.session(node)) as session, trio.open_nursery() as nursery:
        nursery.start_soon(session.run, keeper, keeper.first)
        await end.wait()
        nursery.cancel_scope.cancel()


async def test_the_qubits_of_an_application_that_dies_are_freed_and_the_far_end_is_told(
    pair: RunningNetwork,
) -> None:
    alice, bob = Keeper("bob", 2, creates=True), Keeper("alice", 2, creates=False)
    alice_ends, bob_ends = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, pair, "alice", alice, alice_ends)
        nursery.start_soon(keep, pair, "bob", bob, bob_ends)
        await pair.fact("both hold two", lambda _: len(alice.qubits) == len(bob.qubits) == 2)
        held = (await pair.report())["fabric"]["qubits"]
        assert held == {"alice": 2, "bob": 2}
        alice_ends.set()
        await pair.fact("hers are freed", lambda r: r["fabric"]["qubits"]["alice"] == 0)
        await pair.fact("he is told", lambda _: sorted(bob.void) == sorted(bob.qubits))
        bob_ends.set()
        await pair.fact("all are freed", lambda r: not any(r["fabric"]["qubits"].values()))
    await deliver(pair)


async def ended_for(session: SessionClient) -> words.SessionError:
    """The last words of the node to a session."""
    with trio.fail_after(5):
        said = await session.until(words.SessionError)
        with pytest.raises(SessionEndedError):
            await session.next()
    return said


async def test_an_application_that_never_waits_after_an_answer_is_told_and_ended(
    pair: RunningNetwork,
) -> None:
    async with attached(pair.session("alice")) as session:
        session.call(transport.EprOpen(call=1, port=PORT, remote="bob"))
        await session.until(transport.Opened, 1)
        session.says_idle = False
        said = await ended_for(session)
    assert said.error == "TIMEOUT"
    assert f"{BUSY_LIMIT_S:g} s" in said.detail
    await deliver(pair)


async def test_an_application_that_never_waits_at_all_holds_others_no_longer_than_the_limit(
    pair: RunningNetwork,
) -> None:
    async with attached(pair.session("bob")) as session:
        session.says_idle = False
        await deliver(pair)
        assert (await ended_for(session)).error == "TIMEOUT"


async def test_the_interactive_clock_goes_on_without_a_busy_application_and_counts_it() -> None:
    with network(packaged("pair"), "pair", "--seed", "3", "--interactive") as running:
        before = await running.report()
        async with attached(running.session("bob")) as session:
            session.says_idle = False
            session.call(transport.EprOpen(call=1, port=9, remote="alice"))
            await session.until(transport.Opened, 1)
            await deliver(running)
            report = await running.report()
            session.call(transport.CloseSocket(socket=0))
            await session.flush()
            assert report["nodes"]["bob"]["sessions"] != []
    assert before["nodes"]["alice"]["clock"]["is_reproducible"]
    assert report["nodes"]["bob"]["clock"]["escapes"] >= 1
    assert not report["nodes"]["bob"]["clock"]["is_reproducible"]


ATTACH = pack(encode(words.Attach(application="test", versions=[1], is_observer=False)))

LOOK = pack(encode(words.Attach(application="test", versions=[1], is_observer=True)))
GIFT = pack(encode(physical.Transfer(call=None, qubit=bytes(16), to="link")))
GIVE = pack(encode(physical.Transfer(call=None, qubit=bytes(16), to="transport")))
SEND_ANOTHER = pack(
    encode(transport.SendQubit(call=1, socket=0, qubit=bytes(range(16)), within_ns=None))
)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (pack(encode(words.Idle(received=0))), "OUT_OF_STATE"),
        (b"GET / HTTP/1.1\r\n\r\n", "MALFORMED"),
        (
            pack(encode(words.Attach(application="test", versions=[9], is_observer=False))),
            "VERSION",
        ),
        (ATTACH + ATTACH, "OUT_OF_STATE"),
        (ATTACH + HEADER.pack(b"QSTK", 1, 7, 0x7777, 0), "UNKNOWN_TYPE"),
        (ATTACH + pack(encode(physical.MemoryFree())), "UNKNOWN_TYPE"),
        (LOOK + pack(encode(physical.Allocate(call=1))), "OUT_OF_STATE"),
        (ATTACH + GIFT, "INVALID"),
        (ATTACH + GIVE + GIVE, "OUT_OF_STATE"),
        (ATTACH + GIVE + SEND_ANOTHER, "OUT_OF_STATE"),
    ],
    ids=[
        "no-attach",
        "another-protocol",
        "version",
        "twice",
        "unknown",
        "not-for-sessions",
        "observer",
        "gift",
        "given twice",
        "another sent",
    ],
)
async def test_nonsense_is_answered_and_ends_the_session(
    pair: RunningNetwork, said: bytes, error: str
) -> None:
    """What an observer calls for, and a qubit given away, would be nobody's when it has gone."""
    stream = await trio.open_unix_socket(str(pair.session("alice")))
    async with stream:
        session = SessionClient(stream)
        session.says_idle = False
        await stream.send_all(said)
        assert (await ended_for(session)).error == error


async def test_a_qubit_given_and_never_sent_is_freed_with_its_session(pair: RunningNetwork) -> None:
    async with attached(pair.session("alice")) as session:
        session.call(physical.Allocate(call=1))
        qubit = (await session.until(physical.Allocated, 1)).qubit
        session.call(physical.Transfer(call=None, qubit=qubit, to="transport"))
        await session.flush()
        await pair.fact("it is there", lambda report: has_qubits(report, 1))
    await pair.fact("it is freed", lambda report: has_qubits(report, 0))


def has_qubits(report: dict[str, Any], number: int) -> bool:
    return bool(report["nodes"]["alice"]["layers"]["physical"]["qubits"] == number)


async def test_a_qubit_sent_by_no_socket_comes_back(pair: RunningNetwork) -> None:
    async with attached(pair.session("alice")) as session:
        session.call(physical.Allocate(call=1))
        qubit = (await session.until(physical.Allocated, 1)).qubit
        session.call(physical.Transfer(call=None, qubit=qubit, to="transport"))
        session.call(transport.SendQubit(call=2, socket=77, qubit=qubit, within_ns=None))
        assert (await session.until(transport.Failed, 2)).error == "CLOSED"
        session.call(physical.Measure(call=3, qubit=qubit, basis="Z"))
        await session.until(physical.Measured, 3)


async def test_who_leaves_while_waiting_for_a_hold_holds_nothing(pair: RunningNetwork) -> None:
    async with attached(pair.session("bob")) as busy:  # so that the clock stands before it
        busy.says_idle = False
        busy.call(words.Busy())
        await busy.flush()
        async with await trio.open_unix_socket(str(pair.control)) as stream:
            await stream.send_all(pack(encode(Hold(at_ns=3600 * 10**9))))
            await pair.fact("it holds", lambda r: r["fabric"]["clock"]["held_at_ns"] is not None)
        await pair.fact("it goes on", lambda r: r["fabric"]["clock"]["held_at_ns"] is None)
    await deliver(pair)


async def test_a_hold_stays_when_who_asked_for_it_has_been_answered(pair: RunningNetwork) -> None:
    async with open_control(pair.control) as control:
        held_ns = await control.hold(None)
    async with open_control(pair.control) as control:
        assert (await control.world())["clock"]["held_at_ns"] == held_ns
        await control.release()
        assert (await control.world())["clock"]["held_at_ns"] is None
    await deliver(pair)


async def test_a_hold_more_than_a_day_ahead_is_refused(pair: RunningNetwork) -> None:
    async with open_control(pair.control) as control:
        with pytest.raises(ControlError, match="more than a day"):
            await control.hold(2**62)
        await control.release()
    await deliver(pair)
