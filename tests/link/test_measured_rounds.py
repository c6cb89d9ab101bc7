"""Test rounds of measured pairs: which, what is compared of them, and what makes one void."""

from functools import partial
from random import Random
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.ids import link_pair_id, lives_of_link
from qstack.link import messages, service
from qstack.link.halves import Halves, Unmatched, are_sacrificed
from qstack.link.params import MEASURED_ROUNDS_MAX, OUTCOMES_WAIT_NS
from qstack.machine import Told
from qstack.physical import service as physical
from qstack.wire.message import BasisProbabilities
from qstack.wire.packed import pack_bases, pack_bits, unpack_bases, unpack_bits
from tests.link.bench import ALICE, BOB, SECOND, Bench, create, detections
from tests.link.lossy import BOTH, OTHER, Chance, LossyBench, check

EVEN = BasisProbabilities(0.5, 0.0, 0.5)
PAIR_0 = link_pair_id(lives_of_link("alice-bob", (b"a" * 8, b"b" * 8)), 0)


def bench(share: float = 0.5, number: int = 400, pairing: str = "heralds", **changes: Any) -> Bench:
    """A measure request that is being served."""
    on = Bench((1, 1), pairing=pairing, test_share=share).begin()
    reads: dict[str, Any] = {"basis": "X", "peer_basis": "X", "deadline_ns": 10**13}
    on.serving(create(1, kind="measure", number=number, **(reads | changes)))
    return on


def chosen(on: Bench, sequences: Any) -> Any:
    """Which of these are sacrificed."""
    peer = on.ends[ALICE].machine.peers[BOB]
    return are_sacrificed(peer.pair_id(0), np.asarray(sequences), on.test_share)


def settle(on: Bench) -> None:
    for _ in range(3):
        for name in BOTH:
            on.told(name)
            on.answer_stops(name)
        on.deliver()


def serve(on: Bench) -> None:
    """Pairs are heralded until the request has its number; all is said of them."""
    while on.matches():
        on.herald(pairs=100)
        settle(on)
    on.advance(2 * OUTCOMES_WAIT_NS)
    settle(on)


def facts(on: Bench, name: str) -> dict[str, Any]:
    estimates: Any = on.ends[name].machine.summary()["estimates"]
    return estimates[0] if estimates else {}


def say(on: Bench, name: str, first: int, outcomes: Any, **fields: Any) -> None:
    """The device of an end tells of measured pairs."""
    (batch,) = on.ends[name].batches
    nothing = pack_bits(np.zeros(len(outcomes), dtype=np.uint8))
    said: dict[str, Any] = {"x_bits": nothing, "z_bits": nothing, "bases": b""}
    message = physical.MeasuredPairs(
        batch=batch, first_herald_sequence=first, pairs=len(outcomes),
        outcomes=pack_bits(np.asarray(outcomes, dtype=np.uint8)),
        emitted_at_ns=0, is_last=False, **(said | fields),
    )  # fmt: skip
    on.event(name, Told("physical", message))


def told(on: Bench, name: str) -> list[int]:
    parts = on.all(name, service.LinkMeasured)
    return [bit for part in parts for bit in unpack_bits(part.outcomes, part.pairs).tolist()]


# --- which pairs ---------------------------------------------------------------------------------


def test_the_share_of_the_pairs_is_sacrificed_whatever_their_numbers_look_like() -> None:
    # 200000 pairs: 5 standard errors (5.7e-7, two-sided) are 0.0034 of the share.
    for start, step in ((0, 1), (10**12, 1), (0, 4096)):
        numbers = np.arange(start, start + 200_000 * step, step)
        mask = are_sacrificed(PAIR_0, numbers, 0.1)
        assert abs(mask.mean() - 0.1) < 0.0034
        assert abs(mask[1:][mask[:-1]].mean() - 0.1) < 0.011, "neighbours: 5 errors of 20000"
    other = link_pair_id(lives_of_link("alice-bob", (b"a" * 8, b"c" * 8)), 0)
    numbers = np.arange(200_000)
    both = are_sacrificed(PAIR_0, numbers, 0.1) & are_sacrificed(other, numbers, 0.1)
    assert abs(both.mean() - 0.01) < 0.0012, "another life, others: 5 errors"


def test_which_pairs_are_sacrificed_does_not_change_with_time_or_machine() -> None:
    mask = are_sacrificed(PAIR_0, np.arange(40), 0.25)
    assert np.flatnonzero(mask).tolist() == [3, 9, 13, 14, 18, 22, 27, 31, 33, 36, 39]


def test_what_is_left_is_told_alike_at_both_ends_and_the_request_gets_its_number() -> None:
    on = bench(number=400)
    serve(on)
    assert on.herald_sequence > 700
    for name in BOTH:
        assert len(told(on, name)) == 400
        assert len(on.all(name, service.LinkDone)) == 1
    assert [p.first_pair for p in on.all(ALICE, service.LinkMeasured)] == [
        p.first_pair for p in on.all(BOB, service.LinkMeasured)
    ]
    assert on.ends[ALICE].machine.open_batches == on.ends[BOB].machine.open_batches == 0
    sacrificed = int(chosen(on, np.arange(on.herald_sequence)).sum())
    for name in BOTH:
        found = facts(on, name)
        assert (found["kind"], found["test_rounds"]) == ("measure", sacrificed)
        assert found["rounds"]["X"] == found["agreeing"]["X"] == sacrificed
    assert on.herald_sequence == 400 + sacrificed


def test_outcomes_bits_and_bases_of_what_is_left_stay_with_their_pairs() -> None:
    on = bench(basis=EVEN, peer_basis=EVEN)
    rng = np.random.default_rng(5)
    outcomes, x_bits, z_bits = rng.integers(0, 2, (3, 100), dtype=np.uint8)
    bases = rng.choice(np.array([0, 2], dtype=np.uint8), 100)
    say(
        on, ALICE, 1000, outcomes,
        x_bits=pack_bits(x_bits), z_bits=pack_bits(z_bits), bases=pack_bases(bases),
    )  # fmt: skip
    (part,) = on.all(ALICE, service.LinkMeasured)
    kept = ~chosen(on, np.arange(1000, 1100))
    assert part.pairs == kept.sum() < 80
    for packed, all_of_them in ((part.outcomes, outcomes), (part.x_bits, x_bits)):
        assert unpack_bits(packed, part.pairs).tolist() == all_of_them[kept].tolist()
    assert unpack_bits(part.z_bits, part.pairs).tolist() == z_bits[kept].tolist()
    assert unpack_bases(part.bases, part.pairs).tolist() == bases[kept].tolist()
    first = int.from_bytes(part.first_pair[8:])
    assert first == 1000 + int(np.flatnonzero(kept)[0])


@pytest.mark.parametrize(
    ("share", "changes"),
    [
        (0.0, {}),
        (0.5, {"peer_basis": "Z"}),
        (0.5, {"basis": BasisProbabilities(0.5, 0.5, 0.0), "peer_basis": "Z"}),
        (0.5, {"rotation": service.CHSH_ROTATION}),
        (0.5, {"peer_rotation": service.CHSH_ROTATION}),
    ],
)
def test_what_could_never_be_compared_is_the_asker_s_own(
    share: float, changes: dict[str, Any]
) -> None:
    on = bench(share, **changes)
    say(
        on,
        ALICE,
        0,
        [1] * 100,
        bases=b"" if "basis" not in changes else pack_bases(np.zeros(100, dtype=np.uint8)),
    )
    say(on, BOB, 0, [1] * 100)
    assert [len(told(on, name)) for name in BOTH] == [100, 100]
    assert not on.said(BOB, messages.MeasuredOutcomes)


# --- what is compared ----------------------------------------------------------------------------


def test_only_what_was_read_in_one_basis_is_counted_with_the_bell_state_in_mind() -> None:
    on = bench(basis=EVEN, peer_basis=EVEN)
    numbers = np.arange(64)
    here, there = np.tile([0, 0, 2, 2], 16), np.tile([0, 2, 0, 2], 16)
    x_bits, z_bits = np.repeat([0, 1], 32), np.tile(np.repeat([0, 1], 16), 2)
    flips = np.where(here == 2, x_bits, z_bits)  # phi+ corrected: Z sees x, X sees z
    wrong = numbers % 8 == 0  # read in X at both ends
    bits = {"x_bits": pack_bits(x_bits), "z_bits": pack_bits(z_bits)}
    zeros = np.zeros(64, dtype=np.uint8)
    say(on, ALICE, 0, zeros, bases=pack_bases(here.astype(np.uint8)), **bits)
    say(on, BOB, 0, flips ^ wrong, bases=pack_bases(there.astype(np.uint8)), **bits)
    on.advance(2 * OUTCOMES_WAIT_NS)
    on.deliver()
    tested = chosen(on, numbers)
    for name in BOTH:
        found = facts(on, name)
        in_x, in_z = tested & (here == 0) & (there == 0), tested & (here == 2) & (there == 2)
        assert found["rounds"] == {"X": in_x.sum(), "Y": 0, "Z": in_z.sum()}
        assert found["agreeing"] == {"X": (in_x & ~wrong).sum(), "Y": 0, "Z": in_z.sum()}


def test_y_disagrees_on_phi_plus() -> None:
    here = Halves(np.arange(4), np.array([0, 1, 0, 1], np.uint8), np.full(4, 1, np.uint8))
    expected = here.expected_there(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert expected.outcomes.tolist() == [1, 1, 0, 0]


def test_an_alarm_of_measured_pairs_lowers_the_offer_at_both_ends() -> None:
    on = bench(number=10**5, min_fidelity=0.1)
    for part in range(8):
        start = 200 * part
        say(on, ALICE, start, np.zeros(200))
        say(on, BOB, start, np.arange(200) // 2 % 2)
        on.advance(2 * OUTCOMES_WAIT_NS)
        settle(on)
    for name in BOTH:
        assert facts(on, name)["alarm"]
        assert facts(on, name)["offered"] == pytest.approx(0.25, abs=0.2)
        assert "link.alarm" in on.ends[name].records
        assert on.all(name, service.LinkUp)[-1].options[-1].bell_probabilities[0] < 0.45


def test_halves_without_the_other_half_are_void_with_the_link() -> None:
    on = bench()
    say(on, ALICE, 0, [0] * 100)
    say(on, BOB, 0, [0] * 100)
    on.drop()
    on.connect()
    on.deliver()
    on.advance(2 * OUTCOMES_WAIT_NS)
    on.deliver()
    assert facts(on, ALICE) == facts(on, BOB) == {}


def test_of_halves_whose_other_half_does_not_come_the_oldest_are_forgotten() -> None:
    unmatched = Unmatched()
    nothing = np.zeros(MEASURED_ROUNDS_MAX, dtype=np.uint8)
    for start in (0, 1000):
        numbers = np.arange(start, start + MEASURED_ROUNDS_MAX)
        unmatched.add_own(None, Halves(numbers, nothing, nothing))
    assert len(unmatched.own[None]) == MEASURED_ROUNDS_MAX
    unmatched.far = Halves(np.array([999, 1000]), nothing[:2], nothing[:2])
    (compared,) = unmatched.compare()
    assert (compared.rounds, len(unmatched.far)) == ([1, 0, 0], 1)
    assert unmatched.compare() == []


def test_slots_that_both_ends_of_a_photon_pair_link_share_are_sacrificed_alike() -> None:
    on = bench(pairing="slots", number=300, basis="Z", peer_basis="Z")
    numbers = np.arange(0, 5000, 7)
    tested = chosen(on, numbers)
    for name in BOTH:
        (batch,) = on.ends[name].batches
        said = detections(batch, (0, 5000), numbers.tolist())
        said = replace(said, outcomes=pack_bits((numbers % 3 == 0).astype(np.uint8)))
        on.event(name, Told("physical", said))
    on.deliver()
    on.advance(2 * OUTCOMES_WAIT_NS)
    on.deliver()
    for name in BOTH:
        assert told(on, name) == (numbers[~tested] % 3 == 0)[:300].astype(int).tolist()
        assert facts(on, name)["rounds"] == {"X": 0, "Y": 0, "Z": tested.sum()}
        assert facts(on, name)["agreeing"]["Z"] == tested.sum()


# --- what may not be said ------------------------------------------------------------------------


def wrong_messages(on: Bench) -> list[tuple[str, messages.LinkMessage]]:
    tested = np.flatnonzero(chosen(on, np.arange(1000)))[:8].astype(">u8")
    kept = np.flatnonzero(~chosen(on, np.arange(1000)))[:1].astype(">u8")
    good = messages.MeasuredOutcomes(sequences=tested.tobytes(), outcomes=b"\0", bases=b"\0\0")
    return [
        (BOB, good),
        (ALICE, replace(good, sequences=tested.tobytes()[:-1])),
        (ALICE, replace(good, sequences=kept.tobytes(), bases=b"\0")),
        (ALICE, replace(good, outcomes=b"\0\0")),
        (ALICE, replace(good, bases=b"\0")),
        (ALICE, replace(good, bases=b"\xff\xff")),
        (ALICE, replace(good, sequences=b"\xff" * 64)),
    ]


@pytest.mark.parametrize("which", range(7))
def test_what_a_peer_may_not_say_of_measured_pairs_changes_nothing(which: int) -> None:
    on = bench()
    name, message = wrong_messages(on)[which]
    on.inject(name, message)
    assert [said.name for said in on.said(name, messages.Error)] == ["INVALID"]
    assert facts(on, name) == {}


def test_where_there_are_no_test_rounds_none_are_told_or_asked_for() -> None:
    on = bench(0.0)
    on.inject(ALICE, replace(wrong_messages(bench())[0][1]))
    assert [said.name for said in on.said(ALICE, messages.Error)] == ["INVALID"]
    on.say(ALICE, create(2, kind="measure", number=5, basis="X", peer_basis="X"))
    add = on.pipes[BOB][-1]
    assert isinstance(add, messages.Add)
    on.arrive_instead(BOB, replace(add, is_tested=True))
    on.deliver()
    assert on.errors(ALICE) == ["BAD_REQUEST"]


def test_what_is_said_late_of_a_lost_link_is_void() -> None:
    on = bench()
    on.device_lost(BOB)
    on.deliver()
    assert not on.ends[ALICE].machine.peers[BOB].is_up
    on.inject(ALICE, wrong_messages(bench())[0][1])
    assert not on.said(ALICE, messages.Error)
    on.advance(SECOND)
    assert facts(on, OTHER[BOB]) == {}


@pytest.mark.parametrize("seed", range(4))
def test_over_a_bad_channel_both_ends_tell_the_same_pairs_and_count_the_same_rounds(
    seed: int,
) -> None:
    rng = Random(seed)
    faults = Chance(seed, 0.2)
    on = LossyBench(faults, slots=(2, 2), test_share=0.5).start()
    on.run(SECOND // 10)
    asked = []
    for which in range(30):
        by = rng.choice(BOTH)
        request = create(
            which, OTHER[by], kind="measure", number=rng.choice([1, 9, 60]), basis="X",
            peer_basis="X", deadline_ns=on.now + rng.choice([SECOND // 50, SECOND]),
        )  # fmt: skip
        on.say(by, request)
        asked.append(request.request)
        if rng.random() < 0.3:
            cancel = service.LinkCancel(request=request.request)
            on.at(rng.randrange(SECOND // 50), partial(on.say, rng.choice(BOTH), cancel))
        on.run(rng.randrange(SECOND // 20))
    faults.is_healed = True
    on.run(4 * SECOND)
    check(on, asked)
    here, there = (facts(on, name) for name in BOTH)
    assert {**here, "peer": ""} == {**there, "peer": ""}
    assert here["rounds"]["X"] == here["agreeing"]["X"] > 20
