"""Recordings and time tags: what a file may say, and what a replay cannot do."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical.device import (
    BatchEnded,
    DetectionReply,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    Generate,
    Initialise,
    MeasuredReply,
    Operation,
    OperationRefused,
    Outcome,
    Release,
    Reply,
    StopGenerate,
)
from qstack.physical.drivers.recording import (
    KeptPair,
    MeasuredPair,
    RecordedGate,
    Swap,
    read_recording,
    write_recording,
)
from qstack.physical.drivers.replay import ReplayDevice
from qstack.physical.drivers.setup import DriverError, Setup
from qstack.physical.drivers.time_tags import TimeTags, read_time_tags, write_time_tags
from qstack.physical.service import GateName
from qstack.wire.message import Basis, Message
from qstack.wire.packed import unpack_bits, unpack_slots
from tests.physical.worlds import chain, source_world

US = 1000
KEPT = KeptPair("a-b", 20 * US, 10 * US, 3, 0, 1, 0, (RecordedGate("x", 0.0),), "Z", 1)
SECOND_KEPT = KeptPair("a-b", 60 * US, 50 * US, 9, 1, 1, 1)
THIRD_KEPT = KeptPair("a-b", 90 * US, 80 * US, 12, 2, 1, 1, (), "X", 0)


def device(*lines: Any, node: str = "a") -> ReplayDevice:
    data = write_recording("a", "test", lines)
    files = {"heralds_file": data}
    setup = Setup(node=node, world=chain("ab"), rng=np.random.default_rng(1), files=files)
    made = ReplayDevice(setup)
    made.begin(0)
    return made


class Asking:
    """Operations for a device, and its answers as time goes on."""

    def __init__(self, asked: ReplayDevice) -> None:
        self.device = asked
        self.now = 0
        self.sequence = 0

    def ask(self, operation_kind: type[Operation], **fields: Any) -> int:
        self.sequence += 1
        operation = operation_kind(at_ns=self.now, sequence=self.sequence, **fields)
        assert self.device.submit(operation, self.now) == []
        return self.sequence

    def keep(self, batch: int, qubit: bytes, link: str = "a-b") -> int:
        return self.generate(batch, link=link, kind="keep", qubit=qubit)

    def generate(self, batch: int, **fields: Any) -> int:
        asked: dict[str, Any] = {
            "batch": batch, "link": "a-b", "token": bytes(16), "kind": "measure",
            "first_cycle": 0, "bright_state": None, "pairs": 1, "basis": None, "qubit": None,
        }  # fmt: skip
        return self.ask(Generate, **(asked | fields))

    def measure(self, qubit: bytes, basis: Basis) -> Message:
        self.ask(DoMeasure, qubit=qubit, basis=basis)
        (answer,) = self.until(self.now + 10 * US)
        return answer

    def gate(self, name: GateName, *qubits: bytes) -> list[Message]:
        self.ask(DoGate, name=name, qubits=[*qubits], angle=0.0)
        return self.until(self.now + 10 * US)

    def until(self, now: int) -> list[Message]:
        """What is answered up to `now`."""
        said: list[Message] = []
        while (next_ns := self.device.next_event_ns()) is not None and next_ns <= now:
            self.now = max(self.now, next_ns)
            said += self.device.answers(self.now)
        self.now = now
        return said


def qubit(number: int) -> bytes:
    return number.to_bytes(16, "big")


# --- replaying -----------------------------------------------------------------------------------


def test_a_recorded_herald_answers_the_batch_that_is_open_when_it_was_emitted() -> None:
    asking = Asking(device(KEPT, SECOND_KEPT))
    asking.keep(1, qubit(1))
    asking.keep(2, qubit(2))
    assert asking.until(20 * US - 1) == []
    (reply,) = asking.until(20 * US)
    expected = Reply(batch=1, herald_sequence=0, cycle=3, x_bit=1, z_bit=0, emitted_at_ns=10 * US)
    assert reply == expected
    (reply,) = asking.until(100 * US)
    assert isinstance(reply, Reply)
    assert (reply.batch, reply.herald_sequence) == (2, 1)


def test_a_herald_without_a_batch_is_passed_over() -> None:
    asking = Asking(device(KEPT, SECOND_KEPT))
    asking.until(30 * US)
    asking.keep(1, qubit(1))
    (reply,) = asking.until(100 * US)
    assert isinstance(reply, Reply)
    assert reply.herald_sequence == 1


def test_a_batch_stopped_in_flight_still_gets_its_herald_and_another_its_end() -> None:
    asking = Asking(device(KEPT, SECOND_KEPT))
    asking.keep(1, qubit(1))
    asking.keep(2, qubit(2))
    asking.until(15 * US)  # the first has been emitted
    for batch in (1, 2):
        asking.ask(StopGenerate, batch=batch, reason="stopped")
    said = asking.until(1000 * US)
    assert [type(each) for each in said] == [BatchEnded, Reply]
    assert said[0] == BatchEnded(batch=2, reason="stopped", attempts=said[0].attempts)


def test_recorded_gates_and_outcomes_are_done_again() -> None:
    asking = Asking(device(KEPT))
    asking.keep(1, qubit(1))
    asking.until(20 * US)
    assert asking.gate("x", qubit(1)) == []
    assert asking.measure(qubit(1), "Z") == Outcome(operation=3, outcome=1)


def refusal(said: list[Message] | Message) -> str:
    (answer,) = said if isinstance(said, list) else [said]
    assert isinstance(answer, OperationRefused)
    assert answer.error == "UNSUPPORTED"
    return answer.detail


def test_what_is_not_in_the_recording_is_refused_in_words() -> None:
    asking = Asking(device(KEPT, SECOND_KEPT, THIRD_KEPT))
    for number in (1, 2, 3):
        asking.keep(number, qubit(number))
    asking.until(100 * US)
    first, second, third = map(qubit, (1, 2, 3))
    still = "herald 0 of a-b was read after gate x"
    assert refusal(asking.measure(first, "Z")) == still
    assert "a recording cannot be changed" in refusal(asking.gate("h", first))
    assert "still recorded are none" in refusal(asking.gate("x", third))
    assert "still recorded are x" in refusal(asking.gate("cnot", first, third))
    assert refusal(asking.measure(third, "Z")) == "herald 2 of a-b was read in X, not in Z"
    assert refusal(asking.measure(second, "Z")) == "the recording has no outcome of herald 1 of a-b"
    asking.ask(DoBellMeasure, first=second, second=third)
    assert "no Bell measurement of herald 1" in refusal(asking.until(200 * US))
    asking.ask(Initialise, qubit=qubit(9))
    assert refusal(asking.until(300 * US)) == "this device makes no fresh qubits"
    asking.generate(7, basis="X")
    assert refusal(asking.until(400 * US)) == "the recording has no pairs read in X of link a-b"
    asking.ask(Release, qubit=third)
    asking.ask(DoMeasure, qubit=third, basis="X")
    (gone,) = asking.until(500 * US)
    assert isinstance(gone, OperationRefused)
    assert gone.error == "GONE"


def test_a_recorded_swap_is_done_again() -> None:
    swap = Swap(("a-b", 1), ("a-b", 2), 0, 1)
    asking = Asking(device(SECOND_KEPT, THIRD_KEPT, swap))
    for number in (1, 2):
        asking.keep(number, qubit(number))
    asking.until(100 * US)
    asking.ask(DoBellMeasure, first=qubit(1), second=qubit(2))
    (answer,) = asking.until(200 * US)
    assert (answer.x_bit, answer.z_bit) == (0, 1)


def pairs(number: int, basis: Basis = "Z", at_us: int = 20) -> list[MeasuredPair]:
    return [
        MeasuredPair("a-b", at_us * US, 10 * US, place, 1, place % 2, basis, place % 2)
        for place in range(number)
    ]


def test_measured_pairs_come_in_parts_and_no_more_than_are_asked_for() -> None:
    asking = Asking(
        device(
            *pairs(5),
            *(
                replace(
                    p, at_ns=40 * US, emitted_at_ns=30 * US, herald_sequence=5 + p.herald_sequence
                )
                for p in pairs(5)
            ),
        )
    )
    asking.generate(1, pairs=7, basis="Z")
    first, second = asking.until(100 * US)
    assert isinstance(first, MeasuredReply)
    assert isinstance(second, MeasuredReply)
    assert (first.pairs, first.is_last) == (5, False)
    assert (second.pairs, second.is_last) == (2, True)
    assert second.first_herald_sequence == 5
    assert unpack_bits(first.outcomes, 5).tolist() == [0, 1, 0, 1, 0]


def test_a_part_whose_heralds_do_not_follow_one_another_is_two() -> None:
    five = pairs(5)
    asking = Asking(device(*five[:2], *five[3:]))
    asking.generate(1, pairs=4, basis="Z")
    said = asking.until(100 * US)
    assert [(each.first_herald_sequence, each.pairs) for each in said] == [(0, 2), (3, 2)]


# --- files ---------------------------------------------------------------------------------------


def test_a_recording_is_read_as_it_was_written() -> None:
    lines = [KEPT, SECOND_KEPT, *pairs(2), Swap(("a-b", 1), ("a-c", 2), 1, 1)]
    read = read_recording(write_recording("a", "test", lines), "file")
    assert (read.header.node, read.header.origin) == ("a", "test")
    assert read.kept == {"a-b": [KEPT, SECOND_KEPT]}
    assert read.measured == {"a-b": pairs(2)}
    assert list(read.swaps.values()) == lines[-1:]


HEADER = '{"record":"recording","version":1,"node":"a","origin":"test"}'
KEEP = (
    '{"record":"keep","link":"a-b","at_ns":5,"emitted_at_ns":1,"cycle":0,"herald_sequence":0,'
    '"x_bit":1,"z_bit":0'
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (KEEP + "}", "line 1: expected the record 'recording'"),
        (f"{HEADER}\n{HEADER}", "line 2: expected the record 'recording'"),
        (f"{HEADER}\nnonsense", "line 2: JSON is malformed"),
        (f'{HEADER}\n{KEEP},"basis":"Z"}}', "line 2: a basis and an outcome go together"),
        (f'{HEADER}\n{KEEP},"lenght":1}}', "line 2: Object contains unknown field `lenght`"),
        (
            HEADER + "\n" + KEEP.replace('"x_bit":1', '"x_bit":2') + "}",
            "line 2: Expected `int` <= 1",
        ),
        (HEADER + "\n" + KEEP.replace('"at_ns":5', '"at_ns":0') + "}", "at_ns 0 is before"),
        (HEADER.replace('"version":1', '"version":2'), "line 1: Invalid enum value 2"),
        ("\xff", "line 1"),
    ],
)
def test_a_bad_recording_is_told_by_its_line(text: str, problem: str) -> None:
    with pytest.raises(DriverError) as raised:
        read_recording(text.encode("latin-1"), "file")
    assert problem in "; ".join(raised.value.problems)


def test_a_recording_of_another_node_or_none_at_all_is_refused() -> None:
    with pytest.raises(DriverError, match="is of node a; expected one of b"):
        device(KEPT, node="b")
    with pytest.raises(DriverError, match="nothing to replay"):
        ReplayDevice(Setup(node="a", world=chain("ab"), rng=np.random.default_rng(1)))


# --- time tags -----------------------------------------------------------------------------------

TAGS = TimeTags(
    "a-b",
    10_000,
    1000,
    401_000,
    np.array([1000, 1001, 5000, 250_000, 400_999], dtype=np.int64),
    np.array([0, 2, 2, 1, 0], dtype=np.uint8),
    np.array([1, 0, 1, 0, 1], dtype=np.uint8),
)


def read(data: bytes) -> TimeTags:
    return read_time_tags(data, "file", np.random.default_rng(1))


def same(first: TimeTags, second: TimeTags) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_time_tags_are_read_as_they_were_written() -> None:
    assert same(read(write_time_tags(TAGS)), TAGS)


def test_offset_drift_and_a_lost_pulse_of_the_tagger_s_clock_do_not_matter() -> None:
    head, _, rows = write_time_tags(TAGS).decode().partition("channel,time_ps\n")
    drifted = []
    for row in rows.split():
        channel, time_ps = map(int, row.split(","))
        if (channel, time_ps) != (0, 2_000_000_000):  # the third pulse is lost
            # 2e-7 of drift are 0.2 slots in the millisecond from a pulse to the next but one.
            drifted.append(f"{channel},{777_777 + round(time_ps * (1 + 1e-6))}")
    drifted_text = head + "channel,time_ps\n" + "\n".join(drifted)
    assert same(read(drifted_text.encode()), TAGS)


def test_of_several_clicks_in_a_slot_one_counts_at_random() -> None:
    head = write_time_tags(TAGS).decode().partition("channel,time_ps\n")[0]
    rows = ["0,0"]
    for slot in range(1000):
        rows += [f"1,{slot * 10_000 + 10}", f"2,{slot * 10_000 + 20}"]
    tags = read((head + "channel,time_ps\n" + "\n".join(rows)).encode())
    assert len(tags.slots) == 1000
    assert 400 < int(tags.outcomes.sum()) < 600  # 6.3 sigma: false alarm 3e-10


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("# qstack time tags 1", "# tags", "line 1: expected"),
        ("# slot_ps = 10000", "# slot_ps = ten", "slot_ps: expected a whole number"),
        ("# slot_ps = 10000", "# slot_ps = 0", "expected more than 0"),
        ("# link = a-b\n", "", "link: is missing"),
        ("# channel 0 = sync\n", "", "expected one sync channel"),
        ("# channel 1 = X 0", "# channel 1 = Q 0", "line 8: not a line of the head"),
        ("channel,time_ps\n", "", "not a line of the head"),
        ("channel,time_ps\n", "channel,time_ps\n9,0\n", "line 15: channel 9 is not in the head"),
        ("channel,time_ps\n", "channel,time_ps\n1,0\n", "line 15: expected a pulse"),
        ("channel,time_ps\n0,0", "channel,time_ps\n0,99999", "line 16: times ascend"),
        ("channel,time_ps\n0,0", "channel,time_ps\n0,0.5", "after line 14"),
        ("channel,time_ps\n0,0", "channel,time_ps\n0,x", "after line 14"),
        ("channel,time_ps\n0,0", "channel,time_ps\n0,0,1", "after line 14"),
        ("# qstack", "# \xe4stack", "is not ASCII"),
    ],
)
def test_bad_time_tags_are_told_by_their_line(old: str, new: str, problem: str) -> None:
    text = write_time_tags(TAGS).decode()
    assert old in text
    with pytest.raises(DriverError) as raised:
        read(text.replace(old, new, 1).encode("latin-1"))
    assert problem in "; ".join(raised.value.problems)


def test_a_head_without_tags_is_refused() -> None:
    head = write_time_tags(TAGS).decode().partition("channel,time_ps\n")[0]
    with pytest.raises(DriverError, match="expected tags after the head"):
        read((head + "channel,time_ps\n").encode())
    with pytest.raises(DriverError, match="expected the head to end in"):
        read(head.encode())


def receiver(**fields: Any) -> Asking:
    data = write_time_tags(TAGS._replace(**fields))
    setup = Setup(
        node="a", world=source_world("ab"), rng=np.random.default_rng(1), files={"tags_file": data}
    )
    made = ReplayDevice(setup)
    made.begin(0)
    return Asking(made)


def test_time_tags_become_detections_in_slots() -> None:
    asking = receiver()
    asking.generate(1, pairs=10, basis="given")
    said = asking.until(3_000 * US)
    asking.ask(StopGenerate, batch=1, reason="stopped")
    said += asking.until(9_000 * US)
    parts = [each for each in said if isinstance(each, DetectionReply)]
    assert len(parts) == len(said)
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    slots = [unpack_slots(part.slots, part.first_slot) for part in parts]
    assert np.concatenate(slots).tolist() == [1000, 1001, 5000, 250_000]  # one comes after 3 ms


def test_with_one_basis_only_detections_in_it_count() -> None:
    asking = receiver()
    asking.generate(1, pairs=10, basis="Z")
    parts = asking.until(10_000 * US)
    slots = [unpack_slots(part.slots, part.first_slot) for part in parts]
    assert np.concatenate(slots).tolist() == [1001, 5000]
    assert all(part.bases == b"" for part in parts)


def test_time_tags_must_fit_the_link() -> None:
    with pytest.raises(DriverError, match="a-c is no photon-pair link"):
        receiver(link="a-c")
    with pytest.raises(DriverError, match="slots of 10 ns"):
        receiver(slot_ps=5000)
    asking = Asking(device(KEPT))
    asking.generate(1, link="a-c", basis="Z")
    (refused,) = asking.until(100 * US)
    assert isinstance(refused, OperationRefused)
    assert refused.error == "BAD_REQUEST"
