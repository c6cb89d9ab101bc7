"""Photon-pair links over a channel that loses, repeats and reorders: one fault each, and many.

Checked at the end of every run (`lossy_light.check`): both ends were told of the same pairs, or one
of fewer, and then it says that it has not got its number; every request ends once; no batch,
request or timer is left.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from qstack.link import messages, service
from tests.link.bench import ALICE, BOB, SECOND, identity
from tests.link.lossy import BOTH, HERALD_NS, OTHER, Chance, Faults, ends_of, healthy
from tests.link.lossy_light import LightBench, ask, check, measure, pairs_of
from tests.link.test_lossy_channel import KINDS, cut, single_faults

ASKED = identity(1)
NUMBER = 20
SPAN_NS = 7 * HERALD_NS  # while a request of 20 pairs is served

Scenario = Callable[[LightBench, str], None]


def served(bench: LightBench, by: str) -> None:
    measure(bench, by)


def withdrawn(bench: LightBench, by: str) -> None:
    """By the end that asked, while slots are on their way."""
    measure(bench, by)
    cancel = service.LinkCancel(request=ASKED)
    bench.at(3 * HERALD_NS + 40_000, lambda: bench.say(by, cancel))


def cancelled(bench: LightBench, by: str) -> None:
    """By the other one."""
    measure(bench, by)
    cancel = service.LinkCancel(request=ASKED)
    bench.at(3 * HERALD_NS + 40_000, lambda: bench.say(OTHER[by], cancel))


def expired(bench: LightBench, by: str) -> None:
    """Its deadline lies between the two ends' parts."""
    measure(bench, by, deadline_ns=(bench.now // HERALD_NS + 4) * HERALD_NS + 50_000)


def rejected(bench: LightBench, by: str) -> None:
    measure(bench, by, purpose=b"q" * 16)


def device_goes(bench: LightBench, by: str) -> None:
    """And comes back, while the request is served."""
    measure(bench, by)
    bench.at(3 * HERALD_NS, lambda: bench.device_lost(by))
    bench.at(3 * HERALD_NS + 20_000, lambda: bench.device_ready(by))


def two(bench: LightBench, by: str) -> None:
    """Another request waits for the receiver, or takes it."""
    measure(bench, by)
    bench.at(HERALD_NS, lambda: measure(bench, OTHER[by], 2, priority=2))


SCENARIOS: tuple[Scenario, ...] = (
    served, withdrawn, cancelled, expired, rejected, device_goes, two
)  # fmt: skip


def play(scenario: Scenario, by: str, faults: Faults = healthy) -> LightBench:
    """The whole life of a link with one request, from the first message on."""
    bench = LightBench(faults).start()
    bench.run(20_000_000)
    scenario(bench, by)
    bench.run(2 * SECOND)
    bench.run(10 * SECOND)
    asked = {ASKED: NUMBER} | ({identity(2): NUMBER} if scenario is two else {})
    check(bench, asked)
    return bench


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_single_fault_in_the_life_of_a_request(scenario: Scenario, by: str) -> None:
    plain = play(scenario, by)
    faults = single_faults(plain.log)
    assert len(faults) > 3 * len(plain.log)
    for fault in faults[:: 3 if scenario is two else 1]:
        bench = play(scenario, by, fault)
        asker, other = (ends_of(bench, name, ASKED) for name in (by, OTHER[by]))
        assert len(asker) == 1
        if scenario in (served, two):
            assert asker == other == ["done"], "one fault delays, and nothing else"
            assert pairs_of(bench, ALICE, ASKED) == pairs_of(bench, BOB, ASKED)
        elif scenario is withdrawn:
            assert asker == ["CANCELLED"]
            assert other in ([], asker), "it may never have heard of it"
        elif scenario is cancelled:
            assert asker == other
            assert asker in (["CANCELLED"], ["done"]), "it may not have known of it then"


def test_both_find_the_pairs_of_the_light() -> None:
    bench = play(served, ALICE)
    pairs = pairs_of(bench, ALICE, ASKED)
    assert len(pairs) == NUMBER
    assert {basis for _, basis in pairs} == {0, 2}


SLOT_KINDS: dict[str, tuple[type[Any], ...] | None] = KINDS | {"slots": (messages.DetectedSlots,)}


def soak(seed: int, rate: float, kinds: str, requests: int = 10) -> Chance:
    """Random requests under random faults; then the channel heals."""
    rng = Random(seed)
    faults = Chance(seed, rate, SLOT_KINDS[kinds])
    bench = LightBench(faults).start()
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
    numbers = {m.request: m.number or 0 for _, _, m in bench.log if isinstance(m, messages.Add)}
    refused = {
        m.request: 1 for name in BOTH for m in bench.all(name, service.LinkFailed)
    }  # at once, with nothing said to the far end
    check(bench, refused | numbers)
    assert len(refused | numbers | dict.fromkeys(done(bench), 1)) == requests
    assert all(bench.ends[name].machine.summary()["links_up"] for name in BOTH)
    return faults


def done(bench: LightBench) -> list[bytes]:
    """Requests that an end says are done."""
    return [m.request for name in BOTH for m in bench.all(name, service.LinkDone)]


@pytest.mark.parametrize("kinds", SLOT_KINDS)
@pytest.mark.parametrize("rate", [1e-2, 0.1, 0.3])
def test_random_faults_leave_the_ends_agreed(rate: float, kinds: str) -> None:
    for seed in range(2):
        soak(seed, rate, kinds)


@pytest.mark.soak
@pytest.mark.parametrize("kinds", SLOT_KINDS)
@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.1, 0.3])
def test_many_random_faults_leave_the_ends_agreed(rate: float, kinds: str) -> None:
    for seed in range(1000, 1200):
        soak(seed, rate, kinds)


@pytest.mark.parametrize("deaf", [(ALICE,), (BOB,), BOTH])
def test_who_is_not_answered_ends_its_request_and_both_ends_know(deaf: tuple[str, ...]) -> None:
    bench = LightBench().start()
    bench.run(SECOND)
    measure(bench, ALICE, number=10**5, deadline_ns=100 * SECOND)
    bench.run(SPAN_NS)
    assert pairs_of(bench, BOB, ASKED)
    bench.is_dark = True
    bench.faults = cut(*deaf)
    measure(bench, ALICE, 3, deadline_ns=100 * SECOND)
    bench.run(10 * SECOND)
    bench.is_dark, bench.faults = False, healthy
    bench.run(SECOND)
    check(bench, {ASKED: 10**5, identity(3): NUMBER})
    assert ends_of(bench, ALICE, ASKED) == ["PEER_DOWN"]
    measure(bench, BOB, 2, deadline_ns=100 * SECOND)
    bench.run(SECOND)
    assert ends_of(bench, BOB, identity(2)) == ends_of(bench, ALICE, identity(2)) == ["done"]
