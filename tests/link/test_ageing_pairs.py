"""Pairs that wait for the last one of their request: those that grow too old are let go."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from qstack.link import messages, peer, service
from qstack.link.machine import LinkLayer
from qstack.link.params import AGE_GRACE_NS
from qstack.machine import Effect, Event, Tell, Told
from qstack.physical.fabric.keys import QubitKey
from qstack.runtime.virtual import VirtualNetwork
from tests.link.bench import ALICE, BOB, DELAY_NS, PURPOSE, SECOND, Bench, create, identity
from tests.link.lossy import BOTH, OTHER, Chance, LossyBench, check
from tests.runtime.scripts import load_packaged_network

MS = 1_000_000


def waiting(number: int = 2, **more: Any) -> Bench:
    """A request whose pairs come all at the end; a pair stays good for 5 ms."""
    bench = Bench(slots=(3, 3)).begin()
    bench.good_for_ns = 5 * MS
    bench.serving(create(1, number=number, consecutive=False, **more))
    return bench


def serve(bench: Bench) -> None:
    bench.herald()
    for name in BOTH:
        bench.told(name)


def settle(bench: Bench) -> None:
    """What was said is heard and acknowledged."""
    for _ in range(8):
        bench.advance(4 * MS)
        bench.deliver()


def named(bench: Bench, name: str) -> list[bytes]:
    return [pair.pair for pair in bench.all(name, service.LinkPair)]


def test_only_pairs_that_wait_have_a_fidelity_to_keep() -> None:
    for consecutive, floor in ((True, None), (False, 0.5)):
        bench = Bench().begin()
        bench.serving(create(1, consecutive=consecutive))
        for name in BOTH:
            floors = {batch.fidelity_floor for batch in bench.ends[name].batches.values()}
            assert floors == {floor}
    plain = Bench().begin()
    plain.good_for_ns = 1
    plain.serving(create(1))
    serve(plain)
    assert not [key for key in plain.timers(ALICE) if key.startswith("age/")]


def test_one_that_grows_too_old_is_freed_told_and_made_again() -> None:
    bench = waiting()
    serve(bench)
    assert [len(bench.ends[name].batches) for name in BOTH] == [1, 1]
    bench.advance(5 * MS + AGE_GRACE_NS)
    for name in BOTH:
        assert [*bench.ends[name].qubits.values()] == ["freed"]
        assert bench.said(name, messages.Expire) == [messages.Expire(low=0, high=1)]
        assert len(bench.ends[name].batches) == 2
    bench.deliver()
    assert bench.is_connected
    serve(bench)
    serve(bench)
    bench.deliver()
    assert named(bench, ALICE) == named(bench, BOB)
    assert len(named(bench, ALICE)) == 2
    for name in BOTH:
        assert len(bench.all(name, service.LinkDone)) == 1
        assert not bench.all(name, service.LinkExpired) + bench.all(name, service.LinkDown)
        assert not [key for key in bench.timers(name) if key.startswith("age/")]


def test_a_pair_that_will_be_too_old_with_the_last_one_goes_before_the_timer_says_so() -> None:
    """Good until 5 ms: the second one emitted later than a light's way before that is too late."""
    for later_ns, done in ((5 * MS - DELAY_NS, 1), (5 * MS - DELAY_NS + 1, 0)):
        bench = waiting()
        serve(bench)
        bench.advance(later_ns)
        serve(bench)
        bench.deliver()
        for name in BOTH:
            assert len(bench.all(name, service.LinkDone)) == done
            assert len(named(bench, name)) == 2 * done


@pytest.mark.parametrize("late", BOTH)
def test_an_end_that_hears_late_takes_the_same_pairs(late: str) -> None:
    """The last herald is on its way past the end of the first pair: emission decides."""
    bench = waiting()
    serve(bench)
    bench.advance(5 * MS - DELAY_NS)
    bench.herald()
    early = ALICE if late == BOB else BOB
    bench.told(early)
    bench.advance(DELAY_NS + AGE_GRACE_NS - 1)
    bench.told(late)
    bench.deliver()
    assert named(bench, ALICE) == named(bench, BOB)
    assert len(named(bench, late)) == 2


def test_an_end_that_hears_far_too_late_learns_that_the_pairs_are_void() -> None:
    """Later than any herald takes: it has let go, and says so."""
    bench = waiting()
    serve(bench)
    bench.advance(5 * MS - DELAY_NS)
    bench.herald()
    bench.told(ALICE)
    bench.advance(DELAY_NS + AGE_GRACE_NS)
    bench.told(BOB)
    bench.deliver()
    (first, second) = named(bench, ALICE)
    assert [gone.pair for gone in bench.all(ALICE, service.LinkExpired)] == [first]
    bench.advance(5 * MS)  # the other one waits in vain, and grows too old too
    settle(bench)
    bench.advance(10 * SECOND - bench.now)
    bench.deliver()
    assert bench.errors(BOB) == ["TIMEOUT"]
    assert {gone.pair for gone in bench.all(ALICE, service.LinkExpired)} == {first, second}


def test_what_the_far_end_lets_go_by_itself_is_let_go_here() -> None:
    bench = waiting()
    serve(bench)
    bench.inject(ALICE, messages.Expire(low=0, high=1))
    assert [*bench.ends[ALICE].qubits.values()] == ["freed"]
    assert len(bench.ends[ALICE].batches) == 2
    assert not bench.said(ALICE, messages.Expire)
    bench.inject(ALICE, messages.Expire(low=0, high=1))
    assert not bench.all(ALICE, service.LinkDown)


def test_a_pair_known_to_be_void_ends_no_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many pairs of another request were announced since that its place is forgotten."""
    monkeypatch.setattr(peer, "PAIR_HISTORY_MAX", 2)
    bench = waiting(number=3)
    serve(bench)
    bench.serving(create(2, number=6, priority=7))
    for _ in range(6):
        while bench.matches()[0] and bench.tokens(ALICE)[0] != 2:
            bench.advance(50 * MS)
            for name in BOTH:
                bench.answer_stops(name)
                bench.told(name)
        serve(bench)
    bench.advance(AGE_GRACE_NS + 5 * MS)
    bench.deliver()
    assert bench.said(ALICE, messages.Expire)
    assert not bench.all(ALICE, service.LinkDown) + bench.all(BOB, service.LinkDown)


def test_the_outcome_of_a_prepared_state_that_grew_too_old_is_let_go() -> None:
    bench = Bench().begin()
    bench.good_for_ns = 5 * MS
    bench.serving(create(1, kind="prepare", basis="Z", consecutive=False))
    serve(bench)
    bench.advance(5 * MS + AGE_GRACE_NS)
    bench.deliver()
    for _ in range(2):
        serve(bench)
    read, kept = bench.all(ALICE, service.LinkMeasured), bench.all(BOB, service.LinkPair)
    assert [m.first_pair for m in read] == [p.pair for p in kept]
    assert len(read) == 2
    assert [*bench.ends[BOB].qubits.values()] == ["freed", "network", "network"]


def test_a_request_that_runs_out_of_time_says_how_many_grew_too_old() -> None:
    bench = waiting()
    serve(bench)
    bench.advance(5 * MS + AGE_GRACE_NS)
    settle(bench)
    bench.advance(11 * SECOND)
    (failed,) = bench.all(ALICE, service.LinkFailed)
    expected = "0 pairs came before the deadline, 1 more grew too old while they waited"
    assert (failed.error, failed.detail) == ("TIMEOUT", expected)


def test_pairs_that_wait_are_gone_with_their_device() -> None:
    bench = waiting()
    serve(bench)
    bench.device_lost(ALICE)
    bench.advance(5 * MS + AGE_GRACE_NS)
    bench.deliver()
    assert bench.errors(ALICE) == bench.errors(BOB) == ["DEVICE_LOST"]
    assert [*bench.ends[BOB].qubits.values()] == ["freed"]


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_random_faults_while_pairs_grow_old(rate: float) -> None:
    """Pairs come every 120 us and are good for less than 400."""
    let_go = 0
    for seed in range(20):
        rng = Random(seed)
        faults = Chance(seed, rate)
        bench = LossyBench(faults, slots=(3, 3)).start()
        bench.good_for_ns = rng.randrange(100_000, 400_000)
        for which in range(8):
            bench.run(int(10 ** rng.uniform(4, 6.5)))
            by = rng.choice(BOTH)
            asked = create(
                which, OTHER[by], number=rng.randint(1, 3), consecutive=False,
                priority=rng.randrange(2), deadline_ns=bench.now + SECOND // 20,
            )  # fmt: skip
            bench.say(by, asked)
        bench.run(2 * SECOND)
        faults.is_healed = True
        bench.run(12 * SECOND)
        check(bench, [identity(which) for which in range(8)])
        let_go += sum(len(end.machine.peers[OTHER[name]].void) for name, end in bench.ends.items())
    assert let_go > 100


# --- through physical layers and fabric ----------------------------------------------------------


@dataclass
class User:
    """In place of the network layer: alice asks for pairs at once, again and again."""

    node: str
    floor: float
    done: int = 0
    pairs: list[tuple[int, service.LinkPair]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def handle(self, event: Event, now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        match event:
            case Told(_, service.LinkUp(peer=other)):
                listen = Tell("link", service.LinkListen(peer=other, purpose=PURPOSE))
                return [listen, *self._ask(other)]
            case Told(_, service.LinkPair() as pair):
                self.pairs.append((now, pair))
            case Told(_, service.LinkDone()):
                self.done += 1
            case Told(_, service.LinkFailed(error=error)):
                self.failed.append(error)
            case _:
                pass
        return []

    def _ask(self, other: str) -> list[Effect]:
        if self.node != ALICE:
            return []
        asked = create(1, other, number=2, consecutive=False, min_fidelity=self.floor,
                       deadline_ns=2**62)  # fmt: skip
        return [Tell("link", asked)]


def test_in_a_network_both_ends_get_pairs_none_of_which_is_worse_than_asked() -> None:
    """The true fidelity of both pairs when they are handed over, of the fabric."""
    virtual = VirtualNetwork(load_packaged_network("pair"), 5)
    users = {}
    for name, node in virtual.nodes.items():
        users[name] = node.machines["network"] = User(name, 0.97)
    virtual.run_until(20 * SECOND)
    assert [users[name].done for name in BOTH] == [1, 1]
    assert not users[ALICE].failed + users[BOB].failed
    let_go = []
    for name, other in ((ALICE, BOB), (BOB, ALICE)):
        machine = virtual.nodes[name].machines["link"]
        assert isinstance(machine, LinkLayer)
        let_go.append([*machine.peers[other].void])
    assert let_go[0] == let_go[1] != []
    assert [p.pair for _, p in users[ALICE].pairs] == [p.pair for _, p in users[BOB].pairs]
    for (when, here), (_, there) in zip(users[ALICE].pairs, users[BOB].pairs, strict=True):
        ends = QubitKey(ALICE, here.qubit), QubitKey(BOB, there.qubit)
        fabric = virtual.fabric
        true = fabric.pair_fidelity(*ends, when, x=here.x_bit, z=here.z_bit)
        assert true >= 0.97 - 1e-9
