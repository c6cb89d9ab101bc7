"""Photon-pair links: two ends compare the slots they detected, and every way to get it wrong."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qstack.errors import PeerError
from qstack.link import messages, service
from qstack.link.coincidences import Coincidences, slot_messages
from qstack.link.params import MEASURED_MAX, SLOTS_AHEAD_MAX, SLOTS_PART_MAX
from qstack.machine import Told
from qstack.physical import service as physical
from qstack.wire.codec import Registry, encode
from qstack.wire.message import BasisProbabilities
from qstack.wire.packed import pack_slots, unpack_bases, unpack_bits, unpack_slots
from tests.link.bench import ALICE, BOB, SECOND, Bench, create, detections, identity
from tests.link.lossy import BOTH, OTHER

EVEN = BasisProbabilities(0.5, 0.0, 0.5)


def asked(which: int = 1, number: int = 4, **more: Any) -> service.LinkCreate:
    fields: dict[str, Any] = {
        "kind": "measure", "number": number, "basis": "Z", "peer_basis": "Z",
    }  # fmt: skip
    return create(which, **(fields | more))


def bench(number: int = 4, **more: Any) -> Bench:
    on = Bench((1, 1), pairing="slots").begin()
    on.serving(asked(number=number, **more))
    return on


def slots_of(message: messages.DetectedSlots) -> list[int]:
    return unpack_slots(message.slots, message.first_slot).tolist()


def part(span: tuple[int, int], slots: list[int], which: int = 1) -> messages.DetectedSlots:
    return messages.DetectedSlots(
        request=identity(which),
        first_slot=span[0],
        until_slot=span[1],
        slots=pack_slots(np.array(slots, dtype=np.int64), span[0]),
    )


def outcomes(on: Bench, name: str) -> list[int]:
    told = on.all(name, service.LinkMeasured)
    return [bit for m in told for bit in unpack_bits(m.outcomes, m.pairs).tolist()]


def pair_ids(on: Bench, name: str) -> list[int]:
    """The slots in the ids of first pairs."""
    return [int.from_bytes(m.first_pair[8:], "big") for m in on.all(name, service.LinkMeasured)]


# --- as it goes ----------------------------------------------------------------------------------


def test_both_ends_announce_the_slots_they_share_in_order_and_are_done() -> None:
    on = bench(number=4)
    assert [b.kind for b in on.ends[ALICE].batches.values()] == ["measure"]
    on.detect(ALICE, (100, 200), [110, 120, 131, 150, 199])
    on.detect(BOB, (100, 200), [105, 120, 131, 199])
    on.deliver()
    assert outcomes(on, ALICE) == outcomes(on, BOB) == [0, 1, 1]
    assert on.all(ALICE, service.LinkDone) == []
    on.detect(BOB, (200, 300), [200, 222, 250])
    on.deliver()
    on.detect(ALICE, (200, 300), [222, 249, 250])
    on.deliver()
    for name in (ALICE, BOB):
        assert outcomes(on, name) == [0, 1, 1, 0]  # 250 is one too many
        assert pair_ids(on, name) == [120, 222]
        assert on.all(name, service.LinkDone) == [
            service.LinkDone(request=identity(1), purpose=b"p" * 16)
        ]
        assert on.errors(name) == []
        assert on.ends[name].stopped
        on.detect(name, (300, 350), [301, 340], is_last=True)  # late: said to nobody
        assert on.ends[name].machine.open_batches == 0
    on.deliver()
    assert outcomes(on, ALICE) == outcomes(on, BOB) == [0, 1, 1, 0]
    told = on.all(ALICE, service.LinkMeasured)[0]
    assert (told.x_bits, told.z_bits, told.bases, told.goodness) == (b"\0", b"\0", b"", 0.7)


def test_slots_and_nothing_else_are_said_to_the_far_end() -> None:
    on = bench(number=100, basis=EVEN, peer_basis="X")
    on.detect(ALICE, (0, 50), [3, 7], [2, 0])
    on.detect(BOB, (0, 50), [7, 9])
    (said,) = on.said(ALICE, messages.DetectedSlots)
    assert said == part((0, 50), [3, 7])
    on.deliver()
    (mine,), (yours,) = (on.all(name, service.LinkMeasured) for name in (ALICE, BOB))
    assert unpack_bases(mine.bases, 1).tolist() == [0]  # X, of slot 7
    assert yours.bases == b""


def test_a_request_goes_on_over_batches_that_were_stopped_for_another() -> None:
    on = bench(number=3)
    on.detect(ALICE, (0, 50), [10])
    on.detect(BOB, (0, 50), [10])
    on.deliver()
    for name in (ALICE, BOB):
        end = on.ends[name]
        ((number, _),) = end.batches.items()
        del end.batches[number]
        end.stopped[number] = "measure"
        on.detect(name, (50, 60), [55], is_last=True)
    on.deliver()
    assert outcomes(on, ALICE) == outcomes(on, BOB) == [0, 1]
    for name in (ALICE, BOB):  # begun again, for what is missing
        ((_, again),) = on.ends[name].batches.items()
        assert again.token == identity(1)
        assert again.pairs <= 2
        on.detect(name, (500, 600), [500])
    on.deliver()
    assert pair_ids(on, ALICE) == pair_ids(on, BOB) == [10, 55, 500]
    assert len(on.all(ALICE, service.LinkDone)) == len(on.all(BOB, service.LinkDone)) == 1


def test_nothing_detected_is_said_too_and_an_empty_range_is_not() -> None:
    on = bench()
    on.detect(ALICE, (0, 50), [])
    on.detect(ALICE, (50, 50), [])
    assert on.said(ALICE, messages.DetectedSlots) == [part((0, 50), [])]


def test_many_detections_are_said_in_parts() -> None:
    slots = list(range(5, 5 + 3 * (2 * SLOTS_PART_MAX + 7), 3))
    parts = slot_messages(identity(1), detections(1, (2, 10**6), slots))
    assert [len(each.slots) // 4 for each in parts] == [SLOTS_PART_MAX, SLOTS_PART_MAX, 7]
    assert [slot for each in parts for slot in slots_of(each)] == slots
    spans = [(each.first_slot, each.until_slot) for each in parts]
    assert (spans[0][0], spans[-1][1]) == (2, 10**6)
    assert [span[1] for span in spans[:-1]] == [span[0] for span in spans[1:]]


def test_many_pairs_are_announced_in_parts() -> None:
    number = MEASURED_MAX + 10
    on = bench(number=10**6)
    slots = list(range(number))
    on.detect(ALICE, (0, number), slots)
    on.detect(BOB, (0, number), slots)
    on.deliver()
    for name in (ALICE, BOB):
        assert sum(m.pairs for m in on.all(name, service.LinkMeasured)) == number
        assert max(m.pairs for m in on.all(name, service.LinkMeasured)) <= MEASURED_MAX


@given(
    lists=st.tuples(*[st.sets(st.integers(0, 199), max_size=80)] * 2),
    cuts=st.tuples(*[st.sets(st.integers(1, 199), max_size=6)] * 2),
    order=st.lists(st.booleans(), max_size=16),
    number=st.integers(1, 40),
)
@settings(deadline=None, max_examples=60)
def test_both_ends_find_the_same_pairs_however_the_parts_are_cut_and_delayed(
    lists: Any, cuts: Any, order: list[bool], number: int
) -> None:
    on = bench(number=number)
    spans = []
    for cut in cuts:
        edges = [0, *sorted(cut), 200]
        spans.append(list(itertools.pairwise(edges)))
    turns = [*order, *[False] * 8, *[True] * 8]
    for turn in turns:
        name, side = (BOB, 1) if turn else (ALICE, 0)
        if spans[side] and on.ends[name].batches:
            span = spans[side].pop(0)
            on.detect(name, span, sorted(s for s in lists[side] if span[0] <= s < span[1]))
        elif turn:
            on.deliver(ALICE, 1)
        else:
            on.deliver(BOB, 1)
    on.deliver()
    shared = sorted(lists[0] & lists[1])
    expected = [slot % 2 for slot in shared[:number]]
    assert outcomes(on, ALICE) == outcomes(on, BOB) == expected
    ends = [len(on.all(name, service.LinkDone)) for name in (ALICE, BOB)]
    assert ends == [int(len(shared) >= number)] * 2


# --- endings -------------------------------------------------------------------------------------


def test_such_a_link_says_what_it_can_be_asked_for_and_refuses_to_keep() -> None:
    on = Bench((1, 1), pairing="slots").begin()
    assert [up.kinds for up in on.all(ALICE, service.LinkUp)] == [["measure"]]
    on.say(ALICE, create(1))
    assert on.errors(ALICE) == ["UNSUPPORTED"]
    add = messages.Add(
        request=identity(2), queue_number=0, virtual_ns=0, purpose=b"p" * 16, kind="keep", number=1,
        min_fidelity=0.5, deadline_ns=SECOND, priority=0, basis=None, peer_basis=None, start_ns=0,
        device=1, atomic=False, consecutive=True, bright_state=0.3,
    )  # fmt: skip
    on.inject(BOB, add)
    assert [said.error for said in on.said(BOB, messages.AddRejected)] == ["UNSUPPORTED"]


def test_the_deadline_ends_a_request_at_both_ends_with_what_came() -> None:
    on = bench(number=5, deadline_ns=SECOND)
    for name in (ALICE, BOB):
        on.detect(name, (0, 50), [9])
    on.deliver()
    on.advance(SECOND)
    for name in (ALICE, BOB):
        assert on.errors(name) == ["TIMEOUT"]
        on.detect(name, (50, 90), [60], is_last=True)
    on.deliver()
    assert outcomes(on, ALICE) == outcomes(on, BOB) == [1]


@pytest.mark.parametrize("by", [ALICE, BOB])
def test_a_cancelled_request_ends_at_both_ends_and_late_slots_are_ignored(by: str) -> None:
    on = bench(number=5)
    other = BOB if by == ALICE else ALICE
    on.say(by, service.LinkCancel(request=identity(1)))
    on.detect(other, (0, 50), [9])  # the far end has not heard yet
    on.deliver()
    for name in (ALICE, BOB):
        assert on.errors(name) == ["CANCELLED"]
        assert on.said(name, messages.Error) == []
        on.detect(name, (50, 60), [], is_last=True)
        assert on.ends[name].machine.open_batches == 0
    assert "link.late_slots" in on.ends[by].records


def test_a_lost_channel_ends_the_request_and_its_slots_are_forgotten() -> None:
    on = bench(number=2)
    on.detect(ALICE, (0, 50), [9])
    on.drop()
    assert on.errors(ALICE) == on.errors(BOB) == ["PEER_DOWN"]
    on.connect()
    on.deliver()
    for name in (ALICE, BOB):
        on.detect(name, (50, 60), [55], is_last=True)
    on.serving(asked(2, number=1))
    for name in (ALICE, BOB):
        on.detect(name, (60, 90), [70])
    on.deliver()
    assert pair_ids(on, ALICE) == pair_ids(on, BOB) == [70]
    assert outcomes(on, ALICE) == outcomes(on, BOB) == [0]


def test_a_lost_device_ends_the_request_at_both_ends() -> None:
    on = bench(number=2)
    on.device_lost(ALICE)
    on.deliver()
    assert on.errors(ALICE) == on.errors(BOB) == ["DEVICE_LOST"]


def test_a_restarted_peer_begins_anew() -> None:
    on = bench(number=2)
    on.detect(BOB, (0, 50), [9])
    on.restart(BOB)
    on.deliver()
    assert on.errors(ALICE) == ["PEER_DOWN"]
    on.detect(ALICE, (0, 60), [9], is_last=True)
    assert on.ends[ALICE].machine.open_batches == 0


# --- a peer that breaks the rules ----------------------------------------------------------------

GOOD = part((10, 50), [10, 20])
WRONG = {
    "slots before those that came": (part((0, 5), []), "OUT_OF_STATE"),
    "a part that overlaps": (part((40, 60), [45]), "OUT_OF_STATE"),
    "the same part again": (GOOD, "OUT_OF_STATE"),
    "a range that ends before it begins": (replace(part((60, 60), []), until_slot=55), "INVALID"),
    "slots that do not ascend": (part((60, 90), [70, 70]), "INVALID"),
    "slots out of order": (part((60, 90), [75, 70]), "INVALID"),
    "a slot beyond its range": (part((60, 90), [90]), "INVALID"),
    "half a slot": (replace(part((60, 90), []), slots=b"\0\0"), "INVALID"),
}


@pytest.mark.parametrize(("wrong", "error"), WRONG.values(), ids=WRONG.keys())
def test_slots_that_break_a_rule_end_the_request_at_both_ends(
    wrong: messages.DetectedSlots, error: str
) -> None:
    on = bench(number=5)
    on.inject(ALICE, GOOD)
    on.inject(ALICE, wrong)
    on.deliver()
    assert on.errors(ALICE) == on.errors(BOB) == [error]
    assert [said.name for said in on.said(ALICE, messages.Error)] == [error]
    on.detect(ALICE, (0, 90), [10], is_last=True)
    on.deliver()
    assert outcomes(on, ALICE) == outcomes(on, BOB) == []


def test_more_slots_than_anybody_is_ahead_end_the_request() -> None:
    on = bench(number=5)
    count = SLOTS_PART_MAX
    for number in range(SLOTS_AHEAD_MAX // count):
        first = number * count
        on.inject(ALICE, part((first, first + count), list(range(first, first + count))))
        assert on.errors(ALICE) == []
    on.inject(ALICE, part((SLOTS_AHEAD_MAX, SLOTS_AHEAD_MAX + 1), [SLOTS_AHEAD_MAX]))
    on.deliver()
    assert on.errors(ALICE) == on.errors(BOB) == ["NO_RESOURCES"]


def test_a_far_end_that_says_nothing_is_given_up() -> None:
    on = bench(number=5)
    on.pipes[BOB].clear()
    span = SLOTS_AHEAD_MAX
    on.detect(ALICE, (0, span), list(range(span)))
    assert on.errors(ALICE) == []
    on.detect(ALICE, (span, span + 1), [span])
    assert on.errors(ALICE) == ["NO_RESOURCES"]
    on.deliver()
    assert on.errors(BOB) == ["NO_RESOURCES"]


def test_slots_for_another_request_are_refused_or_late_and_change_nothing() -> None:
    on = bench(number=1)
    on.say(BOB, asked(2, peer=ALICE))  # alice has not accepted it yet
    on.inject(BOB, part((0, 50), [3], which=2))
    assert [said.name for said in on.said(BOB, messages.Error)] == ["OUT_OF_STATE"]
    on.inject(BOB, part((0, 50), [3], which=9))  # nobody's
    assert len(on.said(BOB, messages.Error)) == 1
    for name in (ALICE, BOB):
        on.detect(name, (0, 50), [7])
    on.deliver()
    assert outcomes(on, ALICE) == outcomes(on, BOB) == [1]


def test_slots_on_a_heralded_link_are_refused() -> None:
    on = Bench().begin()
    on.serving(create(1))
    on.inject(ALICE, part((0, 50), [3]))
    assert [said.name for said in on.said(ALICE, messages.Error)] == ["OUT_OF_STATE"]
    assert on.errors(ALICE) == []


def test_a_part_too_long_is_no_message() -> None:
    long = part((0, 10**5), list(range(SLOTS_PART_MAX + 1)))
    with pytest.raises(PeerError, match="INVALID"):
        Registry(messages.MESSAGES).decode(encode(long))


def test_what_was_compared_is_forgotten() -> None:
    found = Coincidences()
    found.add_own(detections(1, (0, 50), [1, 2, 3], [0, 1, 2]))
    assert found.waiting == 3
    found.add_far(part((0, 3), [2]))
    matched = found.take()
    assert (matched.slots.tolist(), matched.outcomes.tolist()) == ([2], [0])
    assert matched.bases.tolist() == [1]
    assert found.waiting == 1
    assert found.take().slots.tolist() == []


def test_pairs_of_another_calibration_are_another_part() -> None:
    found = Coincidences()
    for calibration, slots in ((0, [1, 2]), (3, [11, 12])):
        span = (10 * bool(calibration), 10 * bool(calibration) + 10)
        said = detections(1, span, slots, [0, 1])
        found.add_own(replace(said, bases=b"", calibration=calibration))
    found.add_far(part((0, 30), [1, 2, 11, 12]))
    parts = found.take().only(slice(3)).parts()
    told = [(each.slots.tolist(), each.calibrations.tolist()) for each in parts]
    assert told == [([1, 2], [0, 0]), ([11], [3])]


def test_measured_pairs_of_before_a_calibration_are_flagged() -> None:
    on = bench()
    for name in BOTH:
        on.ends[name].machine.peers[OTHER[name]].calibration = 1
    on.event(ALICE, Told(physical.LAYER, detections(0, (0, 9), [3])))
    on.deliver()
    on.event(BOB, Told(physical.LAYER, replace(detections(0, (0, 9), [3]), calibration=1)))
    on.deliver()
    told = [on.all(name, service.LinkMeasured)[0] for name in BOTH]
    assert [(each.calibration, each.is_outdated) for each in told] == [(0, True), (1, False)]


def test_detections_of_batches_nobody_knows_are_dropped() -> None:
    on = bench()
    on.event(ALICE, Told(physical.LAYER, detections(77, (0, 9), [3])))
    assert on.said(ALICE, messages.DetectedSlots) == []
