"""An end whose memory stays full says so, and the far end stops attempting alone."""

from dataclasses import dataclass, field

import pytest

from qstack.link import messages, service
from qstack.link.params import MEMORY_SHORT_NS
from qstack.machine import Effect, Event, SetTimer, Tell, TimerFired, Told
from qstack.physical import service as physical
from qstack.physical.service import MemoryFree
from qstack.runtime.virtual import VirtualNetwork
from tests.link.bench import ALICE, BOB, DELAY_NS, PURPOSE, SECOND, Bench, create, identity
from tests.link.lossy import BOTH
from tests.runtime.scripts import load_packaged_network

MS = 1_000_000


def passing(bench: Bench, span_ns: int) -> None:
    """Time passes in a healthy network: what is said is heard, what is stopped ends."""
    until = bench.now + span_ns
    while bench.now < until:
        due = [at for end in bench.ends.values() for at in end.timers.values()]
        bench.advance(max(1, min([until, *due]) - bench.now))
        for name in BOTH:
            bench.answer_stops(name)
            bench.told(name)
        bench.deliver()


def serve(bench: Bench) -> None:
    bench.herald()
    for name in BOTH:
        bench.told(name)


def rooms(bench: Bench, name: str) -> list[int | None]:
    """What an end has said of its memory, after it had said that it is there."""
    return [ready.room for ready in bench.said(name, messages.Ready)][1:]


def working(bench: Bench) -> list[int]:
    return [len(bench.ends[name].batches) for name in BOTH]


def memory(bench: Bench, name: str, *, is_full: bool) -> None:
    bench.ends[name].is_full = is_full
    if not is_full:
        bench.event(name, Told("physical", MemoryFree()))


def starved(number: int | None = None) -> Bench:
    """Alice attempts, bob has no memory left."""
    bench = Bench().begin()
    memory(bench, BOB, is_full=True)
    bench.serving(create(1, number=number, deadline_ns=100 * SECOND))
    bench.told(BOB)
    return bench


def test_no_attempts_burn_while_the_far_end_has_no_memory() -> None:
    bench = starved()
    assert working(bench) == [2, 0]
    passing(bench, MEMORY_SHORT_NS + 10 * DELAY_NS)
    assert rooms(bench, BOB) == [0]
    assert working(bench) == [0, 0]
    started = bench.ends[ALICE].machine._batches._next
    passing(bench, 20 * SECOND)
    assert bench.ends[ALICE].machine._batches._next == started
    assert rooms(bench, BOB) == [0]
    assert not bench.all(ALICE, service.LinkDown)


def test_they_begin_again_when_there_is_memory() -> None:
    bench = starved(number=2)
    passing(bench, 2 * SECOND)
    memory(bench, BOB, is_full=False)
    passing(bench, 10 * DELAY_NS)
    assert rooms(bench, BOB) == [0, None]
    assert working(bench) == [2, 2]
    serve(bench)
    serve(bench)
    assert [len(bench.all(name, service.LinkPair)) for name in BOTH] == [2, 2]
    assert [len(bench.all(name, service.LinkDone)) for name in BOTH] == [1, 1]


def test_memory_that_is_full_for_a_moment_is_nobodys_business() -> None:
    """The path of every pair where a node has one place: nothing is said in 5 s of it."""
    bench = Bench(slots=(1, 1)).begin()
    bench.serving(create(1, number=None, deadline_ns=100 * SECOND))
    for _ in range(50):
        for name in BOTH:
            bench.ends[name].is_full = True
        serve(bench)
        for name in BOTH:
            bench.told(name)
        assert working(bench) == [0, 0]
        passing(bench, MEMORY_SHORT_NS // 10)
        for name in BOTH:
            memory(bench, name, is_full=False)
        assert working(bench) == [1, 1]
    assert [rooms(bench, name) for name in BOTH] == [[], []]


def test_an_end_that_has_some_room_says_how_much_and_both_work_for_the_same() -> None:
    bench = Bench().begin()
    bench.serving(create(1, number=None, deadline_ns=100 * SECOND))
    bench.serving(create(2, number=None, deadline_ns=100 * SECOND))
    passing(bench, 100 * MS)
    assert [sorted(bench.tokens(name)) for name in BOTH] == [[1, 2], [1, 2]]
    memory(bench, BOB, is_full=True)
    serve(bench)
    bench.told(BOB)
    assert working(bench) == [2, 1]
    passing(bench, MEMORY_SHORT_NS + 10 * DELAY_NS)
    assert rooms(bench, BOB) == [1]
    assert bench.tokens(ALICE) == bench.tokens(BOB)
    assert len(bench.matches()) == 1


def test_memory_that_another_link_takes_is_not_spoken_of() -> None:
    bench = starved()
    passing(bench, 2 * SECOND)
    for _ in range(5):
        bench.event(BOB, Told("physical", MemoryFree()))
        bench.told(BOB)  # refused again
        passing(bench, MEMORY_SHORT_NS // 20)
    assert rooms(bench, BOB) in ([0], [0, None])
    passing(bench, 3 * SECOND)
    assert rooms(bench, BOB)[-1] == 0
    assert len(rooms(bench, BOB)) <= 3
    assert working(bench) == [0, 0]


def test_an_end_that_comes_back_hears_of_it_at_once() -> None:
    bench = starved()
    passing(bench, 2 * SECOND)
    bench.drop()
    bench.connect()
    bench.deliver()
    assert rooms(bench, BOB)[-1] == 0
    memory(bench, BOB, is_full=False)
    passing(bench, 10 * DELAY_NS)
    bench.serving(create(2, number=1, deadline_ns=100 * SECOND))
    assert working(bench) == [1, 1]


def test_a_device_that_comes_back_has_all_its_memory() -> None:
    bench = starved()
    passing(bench, 2 * SECOND)
    bench.device_lost(BOB)
    bench.ends[BOB].is_full = False
    bench.device_ready(BOB)
    passing(bench, 10 * DELAY_NS)
    assert rooms(bench, BOB)[-1] is None
    bench.serving(create(2, number=2, deadline_ns=100 * SECOND))
    assert working(bench) == [2, 2]


@pytest.mark.parametrize("after_ns", [MEMORY_SHORT_NS // 2, 3 * MEMORY_SHORT_NS])
def test_nothing_is_left_of_it_when_nobody_wants_pairs(after_ns: int) -> None:
    bench = starved()
    passing(bench, after_ns)
    bench.say(ALICE, service.LinkCancel(request=identity(1)))
    passing(bench, 3 * SECOND)
    assert bench.timers(BOB) == bench.timers(ALICE) == []
    memory(bench, BOB, is_full=False)
    passing(bench, SECOND)
    bench.serving(create(2, number=2, deadline_ns=100 * SECOND))
    assert working(bench) == [2, 2]
    assert bench.timers(BOB) == [f"deadline/{identity(2).hex()}"]


def test_more_pairs_at_once_than_fit_is_judged_by_the_memory_there_is_in_all() -> None:
    bench = starved()
    passing(bench, 2 * SECOND)
    bench.say(ALICE, create(2, consecutive=False, deadline_ns=100 * SECOND))
    assert not bench.errors(ALICE)


# --- through physical layers and fabric ----------------------------------------------------------


@dataclass
class User:
    """In place of the network layer: alice asks; bob has all his memory taken for a while."""

    node: str
    free_at_ns: int
    pairs: int = 0
    qubits: list[bytes] = field(default_factory=list)

    def handle(self, event: Event, _now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        match event:
            case Told("physical", physical.DeviceReady()) if self.node == BOB:
                taken = [Tell("physical", physical.Allocate(call=call)) for call in range(4)]
                return [*taken, SetTimer("free", self.free_at_ns)]
            case Told(_, physical.Allocated(qubit=qubit)):
                self.qubits.append(qubit)
            case Told(_, service.LinkUp(peer=peer)):
                effects: list[Effect] = [
                    Tell("link", service.LinkListen(peer=peer, purpose=PURPOSE))
                ]
                if self.node == ALICE:
                    asked = create(1, peer, number=None, deadline_ns=2**62)
                    return [*effects, Tell("link", asked)]
                return effects
            case Told(_, service.LinkPair(qubit=qubit)):
                self.pairs += 1
                return [Tell("physical", physical.Free(qubit=qubit))]
            case TimerFired("free"):
                return [Tell("physical", physical.Free(qubit=qubit)) for qubit in self.qubits]
            case _:
                pass
        return []


def test_in_a_network_no_attempts_are_made_in_vain_for_longer_than_a_second() -> None:
    virtual = VirtualNetwork(load_packaged_network("pair"), 3)
    users = {}
    for name, node in virtual.nodes.items():
        users[name] = node.machines["network"] = User(name, 10 * SECOND)
    made = {}
    for at_ns in (1, 2, 6):
        virtual.run_until(at_ns * SECOND)
        made[at_ns] = virtual.fabric._counter.made_before(ALICE, at_ns * SECOND)
    assert 0 < made[1] <= made[2] == made[6]
    assert users[ALICE].pairs == 0
    assert len(users[BOB].qubits) == 4
    virtual.run_until(20 * SECOND)
    assert users[ALICE].pairs == users[BOB].pairs > 50
    assert virtual.fabric._counter.made_before(ALICE, 20 * SECOND) > 2 * made[6]
