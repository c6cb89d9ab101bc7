"""A node beside a named station: what it says when, and what it makes of what it hears."""

from typing import Any

import numpy as np
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
)
from qstack.physical.station_device import KeepHeralded, Kept
from qstack.physical.station_messages import Gen, GenEnd, Reply
from tests.physical.worlds import chain

TOKEN = b"t" * 16


class Node:
    """The physical layer of `a`, ready, with the station `mid` of its one link."""

    def __init__(self, memory: int = 8) -> None:
        made = chain("ab", memory=memory)
        links = {"a-b": replace(made.links["a-b"], station="mid")}
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
            batch=batch, link="a-b", token=TOKEN, kind=kind, bright_state=None, pairs=1,
            basis=None if kind == "keep" else "Z",
        )  # fmt: skip
        return self.do(Told("link", asked))

    def hear(self, **more: Any) -> list[Effect]:
        fields: dict[str, Any] = {
            "link": "a-b", "batch": 0, "token": TOKEN, "outcome": "success", "sequence": 5,
            "cycle": 1, "x_bit": 1, "z_bit": 0, "attempts": 1,
        }  # fmt: skip
        return self.do(FromPeer("mid", Reply(**(fields | more))))


def sent(effects: list[Effect], kind: type[Any]) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def told(effects: list[Effect], kind: type[Any]) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Tell) and isinstance(e.message, kind)]


def test_a_link_can_be_run_while_its_station_is_there() -> None:
    node = Node()
    assert [m.link for m in told(node.do(PeerUp("mid", b"station2")), LinkCapability)] == ["a-b"]
    lost = told(node.do(PeerDown("mid")), LinkLost)
    assert [(m.link, m.error) for m in lost] == [("a-b", "STATION_LOST")]
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


def test_what_a_station_ends_by_itself_is_ended_at_the_device() -> None:
    node = Node()
    node.start()
    effects = node.hear(outcome="ended", cycle=0)
    assert [m.reason for m in sent(effects, StopGenerate)] == ["given-up"]
    assert told(effects, AttemptsEnded)[0].reason == "stopped"


def test_a_link_through_a_named_station_does_not_measure() -> None:
    assert told(Node().start(kind="measure"), AttemptsEnded)[0].reason == "refused"
