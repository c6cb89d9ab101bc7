"""The link layer over a channel that loses, repeats and reorders: one fault each, and many.

Checked at the end of every run (`lossy.check`): both ends agree on every pair, with the truth of
the station; every request ends once; no memory, batch, request or timer is left.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from qstack.link import messages, service
from qstack.link.params import ATTEMPTS_MAX, RESEND_MAX_NS, WINDOW
from qstack.machine import Told
from qstack.physical import service as physical
from tests.link.bench import ALICE, BOB, DELAY_NS, SECOND, Bench, create, identity
from tests.link.lossy import (
    BOTH,
    HERALD_NS,
    OTHER,
    Chance,
    Faults,
    LossyBench,
    ask,
    check,
    ends_of,
    healthy,
    valid_pairs,
)

ASKED = identity(1)
MEASURE: dict[str, Any] = {"kind": "measure", "number": 60, "basis": "X", "peer_basis": "Y"}

Scenario = Callable[[LossyBench, str], None]


def cancel(bench: LossyBench, name: str, after_ns: int) -> None:
    bench.at(after_ns, lambda: bench.say(name, service.LinkCancel(request=ASKED)))


def keep(bench: LossyBench, by: str) -> None:
    bench.say(by, create(1, OTHER[by], number=3))


def measure(bench: LossyBench, by: str) -> None:
    bench.say(by, create(1, OTHER[by], **MEASURE))


def without_number(bench: LossyBench, by: str) -> None:
    """Withdrawn by the end that asked, while a herald is on its way."""
    bench.say(by, create(1, OTHER[by], number=None))
    cancel(bench, by, 5 * HERALD_NS + 20_000)


def cancelled(bench: LossyBench, by: str) -> None:
    """Withdrawn by the end that did not ask."""
    bench.say(by, create(1, OTHER[by], number=9))
    cancel(bench, OTHER[by], 4 * HERALD_NS + 40_000)


def measure_cancelled(bench: LossyBench, by: str) -> None:
    bench.say(by, create(1, OTHER[by], **MEASURE))
    cancel(bench, by, 4 * HERALD_NS + 40_000)


def expired(bench: LossyBench, by: str) -> None:
    """Its deadline lies between the two ends' heralds, so that one half is taken back."""
    deadline_ns = (bench.now // HERALD_NS + 5) * HERALD_NS + 50_000
    bench.say(by, create(1, OTHER[by], number=None, deadline_ns=deadline_ns))


def rejected(bench: LossyBench, by: str) -> None:
    bench.say(by, create(1, OTHER[by], purpose=b"q" * 16))


def device_goes(bench: LossyBench, by: str) -> None:
    """And comes back, while the request is served."""
    bench.say(by, create(1, OTHER[by], number=9))
    bench.at(4 * HERALD_NS, lambda: bench.device_lost(by))
    bench.at(4 * HERALD_NS + 20_000, lambda: bench.device_ready(by))


SCENARIOS: tuple[Scenario, ...] = (
    keep, measure, without_number, cancelled, measure_cancelled, expired, rejected, device_goes,
)  # fmt: skip


def play(scenario: Scenario, by: str, faults: Faults = healthy) -> LossyBench:
    """The whole life of a link with one request, from the first message on."""
    bench = LossyBench(faults).start()
    # Where the beginning is disturbed the link comes up later: no scenario begins before.
    bench.run(20_000_000)
    scenario(bench, by)
    bench.run(2 * SECOND)
    bench.run(10 * SECOND)
    check(bench, [ASKED])
    return bench


class Single:
    """What becomes of one message, by its place among all that are sent."""

    def __init__(self, place: int, arrivals: list[int]) -> None:
        self.place = place
        self.arrivals = arrivals

    def __call__(self, bench: LossyBench, _to: str, _message: messages.LinkMessage) -> list[int]:
        is_it = len(bench.log) - 1 == self.place
        return self.arrivals if is_it else [DELAY_NS]


def single_faults(log: list[tuple[int, str, messages.LinkMessage]]) -> list[Single]:
    """Each message lost, repeated, and overtaken by each later one that is on its way with it."""
    found = []
    for place, (sent_ns, to, _) in enumerate(log):
        found.append(Single(place, []))
        found.append(Single(place, [DELAY_NS, DELAY_NS]))
        found.append(Single(place, [DELAY_NS, 5 * DELAY_NS]))
        overtaking = [at - sent_ns for at, other, _ in log[place + 1 :] if other == to]
        found += [
            Single(place, [after_ns + DELAY_NS + 1])
            for after_ns in overtaking
            if after_ns <= 2 * DELAY_NS
        ]
    return found


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_single_fault_in_the_life_of_a_request(scenario: Scenario, by: str) -> None:
    plain = play(scenario, by)
    faults = single_faults(plain.log)
    assert len(faults) > 3 * len(plain.log)
    for fault in faults:
        bench = play(scenario, by, fault)
        asker, other = (ends_of(bench, name, ASKED) for name in (by, OTHER[by]))
        assert len(asker) == 1
        if scenario not in (expired, rejected, cancelled):
            assert len(other) == 1
        if scenario in (keep, measure):
            assert asker == other == ["done"], "one fault delays, and nothing else"


KINDS: dict[str, tuple[type[Any], ...] | None] = {
    "all": None,
    "add": (messages.Add, messages.AddAccepted, messages.AddRejected),
    "remove": (messages.Remove, messages.Expire),
    "ready": (messages.Ready,),
    "conversation": (messages.Open, messages.Ack),
}


def soak(seed: int, rate: float, kinds: str, requests: int = 12) -> Chance:
    """Random requests under random faults; then the channel heals."""
    rng = Random(seed)
    faults = Chance(seed, rate, KINDS[kinds])
    bench = LossyBench(faults, slots=(rng.randint(1, 3), rng.randint(1, 3))).start()
    for which in range(requests):
        bench.run(int(10 ** rng.uniform(4, 7.3)))
        ask(bench, rng, which)
        if rng.random() < 0.05:
            name = rng.choice(BOTH)
            bench.device_lost(name)
            bench.at(100_000, lambda name=name: bench.device_ready(name))
    bench.run(2 * SECOND)
    faults.is_healed = True
    bench.run(12 * SECOND)
    check(bench, [identity(which) for which in range(requests)])
    assert all(bench.ends[name].machine.summary()["links_up"] for name in BOTH)
    return faults


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.1, 0.3])
def test_random_faults_leave_the_ends_agreed(rate: float, kinds: str) -> None:
    for seed in range(12):
        soak(seed, rate, kinds)


@pytest.mark.soak
@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.1, 0.3])
def test_many_random_faults_leave_the_ends_agreed(rate: float, kinds: str) -> None:
    for seed in range(1000, 1400):
        soak(seed, rate, kinds)


# --- the conversation itself ---------------------------------------------------------------------


def test_a_healthy_channel_carries_one_ack_for_a_request_and_no_other_message() -> None:
    bench = LossyBench().start()
    bench.run(SECOND)
    before = len(bench.log)
    bench.say(ALICE, create(1, number=9))
    bench.run(SECOND)
    kinds = [type(message).__name__ for _, _, message in bench.log[before:]]
    assert kinds == ["Add", "AddAccepted", "Ack"]


def test_a_healthy_idle_link_says_nothing() -> None:
    bench = LossyBench().start()
    bench.run(SECOND)
    before = len(bench.log)
    bench.run(100 * SECOND)
    assert len(bench.log) == before
    assert not any(end.timers for end in bench.ends.values())


def cut(*receivers: str) -> Faults:
    """Nothing gets through to these ends."""
    return lambda _bench, to, _message: [] if to in receivers else [DELAY_NS]


@pytest.mark.parametrize("deaf", [(ALICE,), (BOB,), BOTH])
def test_who_is_not_answered_loses_the_link_and_both_ends_know(deaf: tuple[str, ...]) -> None:
    bench = LossyBench().start()
    bench.run(SECOND)
    bench.say(ALICE, create(1, number=None, deadline_ns=100 * SECOND))
    bench.run(SECOND // 1000)
    assert valid_pairs(bench, ALICE)
    for end in bench.ends.values():
        end.is_full = True  # the request is open, and makes no more pairs
    bench.faults = cut(*deaf)
    bench.say(ALICE, create(2, number=1, deadline_ns=100 * SECOND))
    bench.run(10 * SECOND)
    assert ends_of(bench, ALICE, identity(1)) == ["PEER_DOWN"]
    assert valid_pairs(bench, ALICE) == []
    bench.faults = healthy
    for name, end in bench.ends.items():
        end.is_full = False
        bench.event(name, Told("physical", physical.MemoryFree()))
    bench.run(SECOND)
    check(bench, [identity(1), identity(2)])
    for name in BOTH:
        downs = len(bench.all(name, service.LinkDown))
        assert 1 <= downs <= 2, "who hears but is not heard may take it for up once more"
        assert len(bench.all(name, service.LinkUp)) == downs + 1
    bench.say(BOB, create(3, ALICE, number=2, deadline_ns=100 * SECOND))
    bench.run(SECOND)
    assert ends_of(bench, BOB, identity(3)) == ["done"]


def test_an_idle_network_need_not_run_for_a_peer_that_does_not_answer() -> None:
    bench = LossyBench(cut(*BOTH)).start()
    bench.run(30 * SECOND)
    at_ns = [at for at, to, _ in bench.log if to == BOB]
    assert len(at_ns) >= ATTEMPTS_MAX
    assert at_ns[-1] - at_ns[-2] == RESEND_MAX_NS


def test_messages_of_a_former_life_are_dropped() -> None:
    """They come after the restart, from a channel that keeps what it should not."""
    bench = Bench().begin()
    bench.say(ALICE, create(1))
    kept = list(bench.pipes[BOB])
    bench.restart(ALICE)
    bench.deliver()
    before = len(bench.ends[BOB].above)
    for message in kept:
        bench.arrive(BOB, message)
    bench.deliver()
    assert len(bench.ends[BOB].above) == before
    assert bench.ends[BOB].records[-1] == "link.stale"


def test_messages_come_in_order_whatever_the_order_they_arrive_in() -> None:
    bench = Bench().begin()
    for which in range(1, 10):
        bench.say(ALICE, create(which, number=1))
    arriving = list(bench.pipes[BOB])
    bench.pipes[BOB].clear()
    Random(1).shuffle(arriving)
    for message in [*arriving, *arriving]:
        bench.arrive(BOB, message)
    answers = [m.request for m in bench.said(BOB, messages.AddAccepted)]
    assert answers == [identity(which) for which in range(1, 10)]


def test_more_than_the_window_waits_for_acknowledgements() -> None:
    bench = LossyBench().start()
    bench.run(SECOND)
    before = len(bench.log)
    for which in range(WINDOW + 40):
        bench.say(ALICE, create(which, number=1))
    assert len(bench.log) - before == WINDOW
    bench.run(SECOND)
    check(bench, [identity(which) for which in range(WINDOW + 40)])
    assert len(bench.all(BOB, service.LinkDone)) == WINDOW + 40


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"heard": 99}, "INVALID"), ({"sequence": WINDOW + 99}, "OUT_OF_STATE")],
)
def test_places_that_cannot_be_are_refused(changes: dict[str, int], error: str) -> None:
    bench = Bench().begin()
    bench.say(ALICE, create(1))
    last = bench.pipes[BOB].pop()
    bench.arrive(BOB, replace(last, at=replace(last.at, **changes)))
    assert [e.name for e in bench.said(BOB, messages.Error)] == [error]
    assert not bench.said(BOB, messages.AddAccepted)
