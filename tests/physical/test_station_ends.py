"""A node beside a named station: what it says when, and what it makes of what it hears."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.ids import boot_id
from qstack.machine import FABRIC, Effect, Event, FromPeer, PeerDown, PeerUp, Send, Tell, Told
from qstack.physical.device import Generate, OperationRefused, Release, StopGenerate
from qstack.physical.emulated import EmulatedDevice
from qstack.physical.hardware import World
from qstack.physical.machine import PhysicalLayer
from qstack.physical.service import (
    AttemptsEnded,
    AttemptsStart,
    AttemptsStop,
    Heralded,
    HeraldsMissed,
    LinkCapability,
    LinkLost,
    MeasuredPairs,
)
from qstack.physical.station_device import HeraldedRead, KeepHeralded, Kept, ReadHeralded
from qstack.physical.station_messages import Gen, GenEnd, Heralds, Reply
from qstack.wire.packed import pack_slots
from tests.physical.worlds import chain

TOKEN = b"t" * 16


class Node:
    """The physical layer of `a`, ready, with the station `mid` of its two links."""

    def __init__(self, memory: int = 8) -> None:
        made = chain("abc", memory=memory, is_ring=True)
        links = {name: replace(made.links[name], station="mid") for name in ("a-b", "a-c")}
        world = World(nodes=made.nodes, links=links)
        boot = boot_id(0, "a", 0)
        self.layer = PhysicalLayer("a", boot, world, EmulatedDevice(), np.random.default_rng(0))
        self.now = 10**6
        self.do(PeerUp(FABRIC, bytes(8)))
        self.do(PeerUp("mid", b"station1"))

    def do(self, event: Event) -> list[Effect]:
        return self.layer.handle(event, self.now)

    def start(self, batch: int = 0, kind: Any = "keep") -> list[Effect]:
        asked = AttemptsStart(
            batch=batch, link="a-b", token=TOKEN, kind=kind, bright_state=None,
            pairs=1 if kind == "keep" else 9, basis=None if kind == "keep" else "Z",
        )  # fmt: skip
        return self.do(Told("link", asked))

    def hear(self, **more: Any) -> list[Effect]:
        fields: dict[str, Any] = {
            "link": "a-b", "batch": 0, "token": TOKEN, "outcome": "success", "sequence": 5,
            "cycle": 1, "x_bit": 1, "z_bit": 0, "attempts": 1, "calibration": 0,
        }  # fmt: skip
        return self.do(FromPeer("mid", Reply(**(fields | more))))


def sent(effects: list[Effect], kind: type[Any]) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def told(effects: list[Effect], kind: type[Any]) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Tell) and isinstance(e.message, kind)]


def test_a_link_can_be_run_while_its_station_is_there() -> None:
    node = Node()
    came = told(node.do(PeerUp("mid", b"station2")), LinkCapability)
    assert [m.link for m in came] == ["a-b", "a-c"]
    lost = told(node.do(PeerDown("mid")), LinkLost)
    assert [(m.link, m.error) for m in lost] == [
        ("a-b", "STATION_LOST"),
        ("a-c", "STATION_LOST"),
    ]
    assert told(node.start(), AttemptsEnded)[0].reason == "device"
    assert node.do(PeerDown("mid")) == []


def test_the_device_and_the_station_are_told_of_one_batch_once_each() -> None:
    node = Node()
    effects = node.start()
    (generate,), (gen,) = sent(effects, Generate), sent(effects, Gen)
    assert (gen.batch, gen.token, gen.first_cycle) == (
        generate.batch,
        generate.token,
        generate.first_cycle,
    )
    node.now += 10**6
    effects = node.do(Told("link", AttemptsStop(batch=0)))
    assert len(sent(effects, StopGenerate)) == len(sent(effects, GenEnd)) == 1
    assert sent(effects, GenEnd)[0].until_cycle > gen.first_cycle
    ended = told(node.hear(outcome="ended", cycle=0, attempts=7), AttemptsEnded)
    assert [(m.reason, m.attempts) for m in ended] == [("stopped", 7)]


def test_a_herald_is_told_when_its_qubit_is_in_storage() -> None:
    node = Node()
    node.start()
    effects = node.hear()
    assert told(effects, Heralded) == []
    (keep,) = sent(effects, KeepHeralded)
    heralded = told(node.do(FromPeer(FABRIC, Kept(operation=keep.sequence))), Heralded)
    assert [(m.herald_sequence, m.cycle, m.x_bit, m.z_bit) for m in heralded] == [(5, 1, 1, 0)]


def test_a_herald_is_told_at_once_where_there_is_no_storage() -> None:
    node = Node(memory=1)
    node.start()
    assert len(told(node.hear(), Heralded)) == 1


def test_a_batch_that_is_stopped_while_its_qubit_is_moved_has_succeeded() -> None:
    """The far end has the pair: the link layer must hear of it, and takes it back there."""
    node = Node()
    node.start()
    (keep,) = sent(node.hear(), KeepHeralded)
    node.do(Told("link", AttemptsStop(batch=0)))
    assert node.hear(outcome="ended", token=None, sequence=6, cycle=0) == []
    assert len(told(node.do(FromPeer(FABRIC, Kept(operation=keep.sequence))), Heralded)) == 1


def test_a_qubit_that_cannot_be_moved_is_given_up() -> None:
    node = Node()
    node.start()
    (keep,) = sent(node.hear(), KeepHeralded)
    refused = OperationRefused(operation=keep.sequence, error="GONE", detail="")
    effects = node.do(FromPeer(FABRIC, refused))
    assert told(effects, AttemptsEnded)[0].reason == "station"
    assert len(sent(effects, Release)) == 1


def test_a_device_that_refuses_to_generate_is_said_to_be_local() -> None:
    node = Node()
    (generate,) = sent(node.start(), Generate)
    refused = OperationRefused(operation=generate.sequence, error="BAD_REQUEST", detail="")
    effects = node.do(FromPeer(FABRIC, refused))
    assert [(m.batch, m.error) for m in sent(effects, GenEnd)] == [(0, "LOCAL")]
    assert told(effects, AttemptsEnded)[0].reason == "refused"
    assert told(node.hear(outcome="LOCAL", cycle=0), AttemptsEnded) == []


def test_a_success_for_nobody_is_missed_and_so_is_one_that_was_not_heard_of() -> None:
    node = Node()
    missed = told(node.hear(batch=7), HeraldsMissed)
    assert [(m.low, m.high) for m in missed] == [(5, 6)]
    node.start()
    effects = node.hear(batch=None, outcome="NO_CLASSICAL_OTHER", sequence=9, cycle=0)
    assert [(m.low, m.high) for m in told(effects, HeraldsMissed)] == [(6, 9)]
    assert len(sent(effects, GenEnd)) == 1


def test_a_batch_of_another_link_of_the_station_is_not_meant() -> None:
    node = Node()
    node.start()
    (record,) = node.hear(link="a-c")
    assert getattr(record, "name", "") == "physical.refused"
    assert len(sent(node.hear(), KeepHeralded)) == 1


def test_what_a_station_ends_by_itself_is_ended_at_the_device() -> None:
    node = Node()
    node.start()
    effects = node.hear(outcome="ended", cycle=0)
    assert [m.reason for m in sent(effects, StopGenerate)] == ["given-up"]
    assert told(effects, AttemptsEnded)[0].reason == "stopped"


# --- batches that are measured -------------------------------------------------------------------


def heralds(node: Node, **more: Any) -> list[Effect]:
    fields: dict[str, Any] = {
        "link": "a-b", "batch": 0, "sequence": 5, "pairs": 3, "first_cycle": 10,
        "cycles": pack_slots(np.array([10, 12, 40]), 10), "x_bits": b"\xe0", "z_bits": b"\x40",
        "is_last": False, "calibration": 2,
    }  # fmt: skip
    return node.do(FromPeer("mid", Heralds(**(fields | more))))


def read(node: Node, asked: ReadHeralded, outcomes: bytes = b"\xa0") -> list[Effect]:
    return node.do(FromPeer(FABRIC, HeraldedRead(operation=asked.sequence, outcomes=outcomes)))


def test_heralded_cycles_are_read_by_the_device_and_told_in_order() -> None:
    node = Node()
    (gen,) = sent(node.start(kind="measure"), Gen)
    assert (gen.kind, gen.pairs) == ("measure", 9)
    (first,) = sent(heralds(node), ReadHeralded)
    assert (first.pairs, first.first_cycle, first.bases) == (3, 10, b"")
    (second,) = sent(heralds(node, sequence=8, first_cycle=50, is_last=True), ReadHeralded)
    (told,) = told_pairs(read(node, first))
    assert (told.first_herald_sequence, told.pairs, told.outcomes) == (5, 3, b"\xa0")
    assert (told.x_bits, told.z_bits, told.calibration, told.is_last) == (
        b"\xe0",
        b"\x40",
        2,
        False,
    )
    (told,) = told_pairs(read(node, second))
    assert (told.first_herald_sequence, told.is_last) == (8, True)


def test_the_end_of_a_batch_waits_for_what_is_being_read() -> None:
    node = Node()
    node.start(kind="measure")
    (asked,) = sent(heralds(node), ReadHeralded)
    node.do(Told("link", AttemptsStop(batch=0)))
    assert told(node.hear(outcome="ended", cycle=0, sequence=8, attempts=7), AttemptsEnded) == []
    effects = read(node, asked)
    assert [type(e.message) for e in effects if isinstance(e, Tell)] == [
        MeasuredPairs,
        AttemptsEnded,
    ]


def test_a_batch_stopped_while_its_last_part_is_read_has_all_its_pairs() -> None:
    node = Node()
    node.start(kind="measure")
    (asked,) = sent(heralds(node, is_last=True), ReadHeralded)
    node.do(Told("link", AttemptsStop(batch=0)))
    node.hear(outcome="ended", token=None, cycle=0, sequence=8)
    assert told_pairs(read(node, asked))[0].is_last
    assert told(node.start(1, kind="measure"), AttemptsEnded) == []


@pytest.mark.parametrize(
    "lie",
    [
        {"batch": 7},
        {"pairs": 4},
        {"pairs": 2},
        {"cycles": b"odd"},
        {"cycles": bytes(12)},
        {"first_cycle": 2**40},
        {"x_bits": b""},
        {"z_bits": b"\x40\x00"},
        {"cycles": bytes(40), "pairs": 10, "x_bits": bytes(2), "z_bits": bytes(2)},
    ],
)
def test_heralds_that_cannot_be_are_no_pairs_and_the_link_begins_anew(lie: dict[str, Any]) -> None:
    node = Node()
    node.start(kind="measure")
    effects = heralds(node, **lie)
    assert sent(effects, ReadHeralded) == []
    assert len(told(effects, HeraldsMissed)) == 1
    if "batch" not in lie:
        assert [m.reason for m in told(effects, AttemptsEnded)] == ["refused"]


def test_heralds_of_numbers_that_were_used_or_missed_are_noticed() -> None:
    node = Node()
    node.start(kind="measure")
    heralds(node)
    missed = told(heralds(node, sequence=11), HeraldsMissed)
    assert [(m.low, m.high) for m in missed] == [(8, 11)]
    (missed,) = told(heralds(node, sequence=13), HeraldsMissed)
    assert (missed.low, missed.high) == (13, 16)


@pytest.mark.parametrize("answer", ["refused", "too short"])
def test_what_the_device_cannot_read_ends_the_batch_and_the_link_begins_anew(answer: str) -> None:
    node = Node()
    node.start(kind="measure")
    (asked,) = sent(heralds(node), ReadHeralded)
    if answer == "refused":
        refused = OperationRefused(operation=asked.sequence, error="BAD_REQUEST", detail="")
        effects = node.do(FromPeer(FABRIC, refused))
    else:
        effects = read(node, asked, b"")
    assert [(m.low, m.high) for m in told(effects, HeraldsMissed)] == [(5, 8)]
    assert [m.reason for m in told(effects, AttemptsEnded)] == ["station"]
    assert [m.reason for m in sent(effects, StopGenerate)] == ["given-up"]


def test_a_success_of_one_attempt_is_none_of_a_batch_that_is_measured() -> None:
    node = Node()
    node.start(kind="measure")
    assert told(node.hear(), AttemptsEnded)[0].reason == "refused"


def told_pairs(effects: list[Effect]) -> list[MeasuredPairs]:
    return told(effects, MeasuredPairs)
