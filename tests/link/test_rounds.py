"""Test rounds between two ends: which pairs, what is said of them, and what makes one void."""

from random import Random
from typing import Any

import pytest

from qstack.link import messages, service
from qstack.link.params import ALARM_HOLD_NS, OUTCOMES_EACH, OUTCOMES_WAIT_NS
from qstack.link.rounds import ROUNDS_OPEN_MAX, round_basis
from qstack.machine import Told
from qstack.physical import service as physical
from tests.link.bench import ALICE, BOB, READ_BY_NS, SECOND, Bench, create, identity
from tests.link.lossy import BOTH, OTHER, Chance, LossyBench, check, ends_of, valid_pairs

HALF = 0.5


def bench(share: float = HALF, **changes: Any) -> Bench:
    """A request for many pairs, being served."""
    on = Bench((1, 1), test_share=share).begin()
    on.serving(create(1, **{"number": None, "deadline_ns": 10**13, **changes}))
    return on


def is_sacrificed(on: Bench, sequence: int) -> bool:
    peer = on.ends[ALICE].machine.peers[BOB]
    return round_basis(peer.pair_id(sequence), on.test_share) is not None


def herald(on: Bench, pairs: int = 1) -> None:
    """Pairs, known at both ends and read where they are sacrificed."""
    for _ in range(pairs):
        on.herald()
        settle(on)


def settle(on: Bench) -> None:
    for _ in range(3):
        for name in BOTH:
            on.told(name)
            on.answer_stops(name)
        on.deliver()


def herald_rounds(on: Bench, rounds: int) -> None:
    """Go on until so many pairs more were sacrificed, and all is said of them."""
    while rounds:
        rounds -= is_sacrificed(on, on.herald_sequence)
        herald(on)
    on.advance(2 * OUTCOMES_WAIT_NS)
    settle(on)


def herald_until_sacrificed(on: Bench) -> int:
    """Make the pairs before the next sacrificed one; its sequence."""
    while not is_sacrificed(on, on.herald_sequence):
        herald(on)
    return on.herald_sequence


def facts(on: Bench, name: str) -> dict[str, Any]:
    estimates: Any = on.ends[name].machine.summary()["estimates"]
    return estimates[0] if estimates else {}


def rounds_of(on: Bench, name: str) -> int:
    return int(facts(on, name).get("test_rounds", 0))


def fidelities(up: service.LinkUp) -> list[float]:
    return [option.bell_probabilities[0] for option in up.options]


# --- which pairs ---------------------------------------------------------------------------------


def test_the_share_of_the_pairs_is_sacrificed_in_each_basis_alike() -> None:
    # 30000 pairs: 5 standard errors (5.7e-7, two-sided) are 0.0087 of the share, 175 of a basis.
    bases = [round_basis(Random(seed).randbytes(16), 0.1) for seed in range(30_000)]
    chosen = [basis for basis in bases if basis is not None]
    assert abs(len(chosen) / 30_000 - 0.1) < 0.0087
    for basis in range(3):
        assert abs(chosen.count(basis) - len(chosen) / 3) < 175


def test_without_a_share_no_pair_is_sacrificed_and_nothing_said() -> None:
    on = bench(0.0)
    herald(on, 40)
    assert len(on.all(ALICE, service.LinkPair)) == 40
    kinds = {type(message) for _, message in on.sent}
    assert not kinds & {messages.RoundOutcomes, messages.RoundReport}
    assert facts(on, ALICE) == {}


def test_both_ends_sacrifice_the_same_pairs_and_tell_nobody() -> None:
    on = bench()
    herald(on, 60)
    announced = [[pair.pair for pair in on.all(name, service.LinkPair)] for name in BOTH]
    peer = on.ends[ALICE].machine.peers[BOB]
    kept = [peer.pair_id(n) for n in range(60) if not is_sacrificed(on, n)]
    assert announced == [kept, kept]
    for name in BOTH:
        owners = list(on.ends[name].qubits.values())
        assert owners.count("network") == len(kept)
        assert owners.count("freed") == 60 - len(kept)


def test_a_sacrificed_pair_counts_for_no_request() -> None:
    on = bench(number=5)
    while on.matches():
        herald(on)
    assert on.herald_sequence > 5
    assert len(on.all(BOB, service.LinkPair)) == 5
    assert [len(on.all(name, service.LinkDone)) for name in BOTH] == [1, 1]


def test_an_offer_says_what_is_left_for_requests() -> None:
    (whole,) = bench(0.0).all(ALICE, service.LinkUp)
    (left,) = bench(0.25).all(ALICE, service.LinkUp)
    assert [o.rate_hz for o in left.options] == [0.75 * o.rate_hz for o in whole.options]


# --- what is said --------------------------------------------------------------------------------


def test_both_ends_know_what_was_counted() -> None:
    on = bench()
    on.agrees = lambda sequence: sequence % 5 > 0
    herald_rounds(on, 40)
    here, there = (facts(on, name) for name in BOTH)
    assert {**here, "peer": ""} == {**there, "peer": ""}
    tested = [n for n in range(on.herald_sequence) if is_sacrificed(on, n)]
    assert here["test_rounds"] == len(tested) == 40
    assert sum(here["agreeing"].values()) == sum(n % 5 > 0 for n in tested)
    assert here["promised"] == 0.7, "the fastest option that keeps what was asked for"
    assert here["interval"][0] < here["fidelity_estimate"] < here["interval"][1]


def test_outcomes_are_said_many_at_once_or_after_a_second() -> None:
    on = bench()
    while sum(is_sacrificed(on, n) for n in range(on.herald_sequence)) < OUTCOMES_EACH:
        herald(on)
    said = on.said(BOB, messages.RoundOutcomes)
    assert [len(each.sequences) for each in said] == [OUTCOMES_EACH]
    assert "outcomes/alice" not in on.ends[BOB].timers
    herald_until_sacrificed(on)
    herald(on)
    assert len(on.said(BOB, messages.RoundOutcomes)) == 1
    on.advance(OUTCOMES_WAIT_NS)
    assert [len(each.sequences) for each in on.said(BOB, messages.RoundOutcomes)] == [32, 1]
    assert on.said(ALICE, messages.RoundOutcomes) == [], "the master counts, and does not tell"


def test_a_slave_that_begins_anew_hears_what_is_known_when_the_link_is_up() -> None:
    on = bench()
    herald_rounds(on, 10)
    on.restart(BOB)
    on.deliver()
    assert rounds_of(on, BOB) == 10
    on.restart(ALICE)
    on.deliver()
    assert rounds_of(on, BOB) == rounds_of(on, ALICE) == 0, "with the master it is forgotten"


# --- what makes a round void ---------------------------------------------------------------------


def test_a_round_is_void_where_one_end_had_ended_the_request() -> None:
    for late in BOTH:
        on = bench()
        herald_until_sacrificed(on)
        on.herald()
        on.say(late, service.LinkCancel(request=identity(1)))
        other = OTHER[late]
        on.told(other)
        on.told(other)
        on.told(late)
        settle(on)
        on.advance(2 * OUTCOMES_WAIT_NS)
        settle(on)
        assert rounds_of(on, ALICE) == rounds_of(on, BOB) == 0
        assert [set(on.ends[name].qubits.values()) <= {"freed", "network"} for name in BOTH]
        known = on.ends[ALICE].machine._rounds._known[BOB]
        assert not known.rounds


def test_a_round_is_void_where_a_device_failed_or_read_too_late() -> None:
    for name in BOTH:
        on = bench()
        herald_until_sacrificed(on)
        on.herald()
        for each in BOTH:
            on.event(each, on.told_next(each))
        (answer,) = [m for m in on.ends[name].inbox if isinstance(m, physical.Measured)]
        on.ends[name].inbox.remove(answer)
        (unread,) = [q for q, owner in on.ends[name].qubits.items() if owner == "freed"][-1:]
        on.ends[name].qubits[unread] = "link"
        failed = physical.CallFailed(call=answer.call, error="UNSUPPORTED", detail="")
        on.event(name, Told("physical", failed))
        assert on.ends[name].qubits[unread] == "freed"
        settle(on)
        herald_until_sacrificed(on)
        on.herald()
        for each in BOTH:
            on.event(each, on.told_next(each))
        other = OTHER[name]
        on.told(other)
        on.now += READ_BY_NS + 1
        on.told(name)
        on.advance(2 * OUTCOMES_WAIT_NS)
        settle(on)
        assert rounds_of(on, ALICE) == rounds_of(on, BOB) == 0
        herald_rounds(on, 3)
        assert rounds_of(on, ALICE) == rounds_of(on, BOB) == 3, "the next ones count"


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("how", ["drop", "device", "restart", "anew"])
def test_a_round_half_measured_is_void_with_the_link(name: str, how: str) -> None:
    on = bench()
    herald_until_sacrificed(on)
    on.herald()
    for each in BOTH:
        on.event(each, on.told_next(each))
    other = OTHER[name]
    on.told(other)
    match how:
        case "drop":
            on.drop()
            on.connect()
        case "device":
            on.device_lost(name)
            on.deliver()
            on.device_ready(name)
        case "restart":
            on.restart(name)
        case _:
            on.ends[name].machine._out.conversation(other).begin_anew(on.now)
            on.advance(SECOND // 10)
    settle(on)
    on.advance(2 * OUTCOMES_WAIT_NS)
    settle(on)
    assert rounds_of(on, ALICE) == rounds_of(on, BOB) == 0
    on.serving(create(2, number=None, deadline_ns=10**13))
    before = on.herald_sequence
    herald_rounds(on, 4)
    assert rounds_of(on, ALICE) == rounds_of(on, BOB) == 4, f"from {before} on"


def test_outcomes_for_pairs_this_end_never_had_are_forgotten_in_time() -> None:
    on = bench(share=1.0 / 2)
    for start in range(0, 4 * ROUNDS_OPEN_MAX, 64):
        sequences = [n for n in range(10**6 + start, 10**6 + start + 64) if is_sacrificed(on, n)]
        said = messages.RoundOutcomes(sequences=sequences, outcomes=[0] * len(sequences))
        on.inject(ALICE, said)
    known = on.ends[ALICE].machine._rounds._known[BOB]
    assert len(known.early) == ROUNDS_OPEN_MAX


def wrong_messages(on: Bench) -> list[tuple[str, messages.LinkMessage]]:
    tested = next(n for n in range(1000, 2000) if is_sacrificed(on, n))
    kept = next(n for n in range(1000, 2000) if not is_sacrificed(on, n))
    good = messages.OptionRounds(0.3, [2, 2, 2], [1, 1, 1], None, "keep")
    return [
        (BOB, messages.RoundOutcomes(sequences=[tested], outcomes=[0])),
        (ALICE, messages.RoundOutcomes(sequences=[kept], outcomes=[0])),
        (ALICE, messages.RoundOutcomes(sequences=[tested], outcomes=[0, 1])),
        (ALICE, messages.RoundReport(options=[good])),
        (
            BOB,
            messages.RoundReport(
                options=[messages.OptionRounds(0.3, [1] * 3, [2] * 3, None, "keep")]
            ),
        ),
    ]


@pytest.mark.parametrize("which", range(5))
def test_what_a_peer_may_not_say_is_refused_and_changes_nothing(which: int) -> None:
    on = bench()
    name, message = wrong_messages(on)[which]
    ups = len(on.all(name, service.LinkUp))
    on.inject(name, message)
    assert [said.name for said in on.said(name, messages.Error)] == ["INVALID"]
    assert facts(on, name) == {}
    assert len(on.all(name, service.LinkUp)) == ups


def test_what_the_master_says_is_minded_once_the_option_is_there() -> None:
    on = bench()
    (up,) = on.all(BOB, service.LinkUp)
    bad = messages.OptionRounds(0.3, [20] * 3, [10] * 3, 0.25, "keep")
    unknown = messages.OptionRounds(0.7, [20] * 3, [10] * 3, 0.25, "keep")
    on.inject(BOB, messages.RoundReport(options=[unknown]))
    assert on.all(BOB, service.LinkUp) == [up]
    on.device_lost(BOB)
    on.inject(BOB, messages.RoundReport(options=[unknown, bad]))
    on.device_ready(BOB)
    assert not on.said(BOB, messages.Error)
    assert fidelities(on.all(BOB, service.LinkUp)[-1]) == [0.9, 0.25]
    on.deliver()
    assert fidelities(on.all(BOB, service.LinkUp)[-1]) == [0.9, 0.7], "the master knows of none"


def test_test_rounds_are_refused_where_there_are_none() -> None:
    on = bench(0.0)
    on.inject(ALICE, messages.RoundOutcomes(sequences=[1], outcomes=[0]))
    on.inject(BOB, messages.RoundReport(options=[]))
    assert [len(on.said(name, messages.Error)) for name in BOTH] == [1, 1]


# --- alarms --------------------------------------------------------------------------------------


def test_a_link_that_keeps_its_promise_stays_as_it_is() -> None:
    on = bench()
    on.agrees = lambda sequence: sequence % 5 > 0  # 0.8 = (1 + 2 * 0.7) / 3
    herald_rounds(on, 800)
    assert [len(on.all(name, service.LinkUp)) for name in BOTH] == [1, 1]
    assert not facts(on, BOB)["alarm"]
    assert "link.alarm" not in on.ends[ALICE].records


def test_an_alarm_lowers_the_offer_at_both_ends_and_is_recorded() -> None:
    on = bench()
    on.agrees = lambda sequence: sequence % 2 > 0
    herald_rounds(on, 96)
    for name in BOTH:
        _, lowered = on.all(name, service.LinkUp)
        assert on.ends[name].records.count("link.alarm") == 1
        found = facts(on, name)
        assert found["alarm"]
        assert fidelities(lowered) == [0.9, found["offered"]]
        assert found["offered"] == pytest.approx(0.25, abs=0.2)
        assert lowered.best_fidelity == 0.9
    assert [m.offered for m in on.said(ALICE, messages.RoundReport)[-1].options] == [
        facts(on, BOB)["offered"]
    ]


def test_a_request_goes_on_with_another_option_that_keeps_its_fidelity() -> None:
    on = bench(min_fidelity=0.5)
    on.agrees = lambda sequence: sequence % 2 > 0
    herald_rounds(on, 96)
    settle(on)
    assert [b.bright_state for b in on.ends[ALICE].batches.values()] == [0.1]
    assert [b.bright_state for b in on.ends[BOB].batches.values()] == [0.1]
    pairs = len(on.all(BOB, service.LinkPair))
    herald(on, 20)
    assert len(on.all(BOB, service.LinkPair)) > pairs


def alarmed(on: Bench) -> Bench:
    """Both options are found worse than any request allows."""
    on.agrees = lambda sequence: sequence % 2 > 0
    while on.matches() and on.herald_sequence < 2000:
        herald_rounds(on, 1)
    return on


def test_a_request_no_option_keeps_ends_with_the_best_that_can_be_had() -> None:
    on = alarmed(bench(min_fidelity=0.65))
    for name in BOTH:
        (failed,) = on.all(name, service.LinkFailed)
        best = on.all(name, service.LinkUp)[-1].best_fidelity
        assert (failed.error, failed.best) == ("FIDELITY", best)
        assert best < 0.65
    on.say(ALICE, create(2, min_fidelity=0.65, deadline_ns=10**13))
    assert on.errors(ALICE) == ["FIDELITY", "FIDELITY"]
    on.say(BOB, create(3, ALICE, min_fidelity=0.65, deadline_ns=10**13))
    assert on.errors(BOB) == ["FIDELITY", "FIDELITY"]
    settle(on)
    assert not on.ends[ALICE].batches
    assert on.ends[ALICE].machine.open_batches == 0


@pytest.mark.parametrize("seed", range(6))
def test_requests_that_cross_an_alarm_end_alike_at_both_ends(seed: int) -> None:
    rng = Random(seed)
    faults = Chance(seed, 0.2 if seed % 2 else 0.0)
    on = LossyBench(faults, slots=(2, 2), test_share=HALF).start()
    on.agrees = lambda sequence: sequence % 2 > 0
    on.run(SECOND // 10)
    asked = []
    for which in range(120):
        by, floor = rng.choice(BOTH), rng.choice([0.1, 0.65, 0.8])
        end_ns = on.now + SECOND // 5
        request = create(which, OTHER[by], number=4, deadline_ns=end_ns, min_fidelity=floor)
        on.say(by, request)
        asked.append(request.request)
        on.run(rng.randrange(SECOND // 50))
    faults.is_healed = True
    on.run(4 * SECOND)
    del on.ends[ALICE].timers["alarm/bob"]
    check(on, asked)
    ends = [end for name in BOTH for request in asked for end in ends_of(on, name, request)]
    assert "FIDELITY" in ends
    assert [facts(on, name)["alarm"] for name in BOTH] == [True, True]
    for name in BOTH:
        for failed in on.all(name, service.LinkFailed):
            assert failed.error != "FIDELITY" or failed.best is not None


def test_the_goodness_of_pairs_is_not_above_the_offer() -> None:
    on = bench(min_fidelity=0.0)
    on.agrees = lambda sequence: sequence % 2 > 0
    herald_rounds(on, 96)
    herald(on, 4)
    offered = facts(on, ALICE)["offered"]
    assert on.all(ALICE, service.LinkPair)[0].goodness == 0.8
    assert on.all(ALICE, service.LinkPair)[-1].goodness < 0.8
    assert offered < 0.8


def test_an_alarm_outlives_the_channel_and_the_slave() -> None:
    on = alarmed(bench(min_fidelity=0.65))
    best = on.all(ALICE, service.LinkUp)[-1].best_fidelity
    on.drop()
    on.connect()
    on.deliver()
    on.restart(BOB)
    on.deliver()
    for name in BOTH:
        assert on.all(name, service.LinkUp)[-1].best_fidelity == best


def test_an_alarm_nobody_can_disprove_ends_after_a_while() -> None:
    on = alarmed(bench(min_fidelity=0.65))
    on.advance(ALARM_HOLD_NS // 2)
    on.deliver()
    assert facts(on, ALICE)["alarm"]
    on.advance(ALARM_HOLD_NS // 2)
    on.deliver()
    for name in BOTH:
        assert fidelities(on.all(name, service.LinkUp)[-1]) == [0.9, 0.7]
        assert "link.alarm_over" in on.ends[name].records
        assert not on.timers(name)


def test_an_alarm_ends_while_another_option_is_used() -> None:
    on = bench(min_fidelity=0.5)
    on.agrees = lambda sequence: sequence % 2 > 0
    herald_rounds(on, 96)
    on.agrees = lambda _: True
    for _ in range(4):
        herald_rounds(on, 2)
        assert facts(on, BOB)["alarm"]
        for _ in range(150):
            on.advance(SECOND)
            on.deliver()
    assert not facts(on, ALICE)["alarm"]
    herald_rounds(on, 2)
    estimates: Any = on.ends[BOB].machine.summary()["estimates"]
    first, second = estimates
    assert (first["alarm"], first["test_rounds"], second["alarm"]) == (False, 0, False)


def test_an_alarm_ends_with_a_good_window() -> None:
    on = bench(min_fidelity=0.2)
    on.agrees = lambda sequence: sequence % 20 > 8
    herald_rounds(on, 192)
    assert facts(on, BOB)["alarm"]
    on.agrees = lambda _: True
    bright = {b.bright_state for b in on.ends[BOB].batches.values()}
    on.say(ALICE, service.LinkCancel(request=identity(1)))
    settle(on)
    assert bright == {0.3}, "it is still the fastest that keeps so little"
    on.serving(create(9, number=None, deadline_ns=10**14, min_fidelity=0.2))
    herald_rounds(on, 2 * 768)
    for name in BOTH:
        assert not facts(on, name)["alarm"]
        assert fidelities(on.all(name, service.LinkUp)[-1]) == [0.9, 0.7]


# --- a channel with faults -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_over_a_bad_channel_every_round_counts_once_or_is_void_at_both_ends(seed: int) -> None:
    faults = Chance(seed, 0.3)
    on = LossyBench(faults, slots=(2, 2), test_share=HALF).start()
    on.agrees = lambda sequence: sequence % 5 > 0
    on.run(SECOND // 10)
    asked = []
    for which in range(40):
        by = Random(seed + which).choice(BOTH)
        request = create(which, OTHER[by], number=15, deadline_ns=on.now + SECOND)
        on.say(by, request)
        asked.append(request.request)
        on.run(SECOND // 8)
    faults.is_healed = True
    on.run(6 * SECOND)
    check(on, asked)
    assert faults.faults > 10
    here, there = (facts(on, name) for name in BOTH)
    assert {**here, "peer": ""} == {**there, "peer": ""}
    tested = sum(is_sacrificed(on, n) for n in range(on.herald_sequence))
    assert 20 < here["test_rounds"] <= tested
    assert len(valid_pairs(on, ALICE)) <= on.herald_sequence - tested
    assert not on.ends[ALICE].machine._rounds._readings
    for name in BOTH:
        for known in on.ends[name].machine._rounds._known.values():
            assert not known.rounds, "nothing waits"
            assert not known.early
            assert not known.untold


@pytest.mark.parametrize(("fidelity", "rounds"), [(0.7, 4 * 768), (0.3, 384)])
def test_in_virtual_time_honest_windows_never_alarm_and_bad_ones_do(
    fidelity: float, rounds: int
) -> None:
    # Honest: 4 windows of 1e-6. Bad: 384 rounds at F = 0.3 for 0.7 are found out but for 1e-6.
    rng = Random(11)
    is_good = [rng.random() < (1 + 2 * fidelity) / 3 for _ in range(20_000)]
    on = LossyBench(slots=(4, 4), test_share=HALF).start()
    on.agrees = lambda sequence: is_good[sequence]
    on.run(SECOND // 10)
    on.say(ALICE, create(1, number=None, min_fidelity=0.0, deadline_ns=10**13))
    while rounds_of(on, BOB) < min(rounds, 768) or on.herald_sequence < 2 * rounds:
        on.run(SECOND // 20)
    alarms = [on.ends[name].records.count("link.alarm") for name in BOTH]
    assert alarms == ([0, 0] if fidelity == 0.7 else [1, 1])


def test_rounds_cost_a_message_for_many_of_them() -> None:
    on = LossyBench(slots=(2, 2), test_share=0.1).start()
    on.run(SECOND // 10)
    on.say(ALICE, create(1, number=2000, deadline_ns=on.now + 100 * SECOND))
    on.run(5 * SECOND)
    kinds = [type(message) for _, _, message in on.log]
    rounds = rounds_of(on, BOB)
    assert rounds > 150
    assert kinds.count(messages.RoundOutcomes) <= rounds / OUTCOMES_EACH + 6
    assert kinds.count(messages.RoundReport) <= kinds.count(messages.RoundOutcomes) + 1
