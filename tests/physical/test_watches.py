"""The detectors of named stations in the fabric: what clicks, when, and for whom."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.ids import boot_id
from qstack.physical.device import (
    DoMeasure,
    Generate,
    Operation,
    OperationRefused,
    Release,
    StopGenerate,
)
from qstack.physical.fabric import Fabric
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.hardware import World
from qstack.physical.params import READOUT_NS, RESULT_MIN_NS
from qstack.physical.station_device import (
    Clicked,
    ClickedInCycles,
    HeraldedRead,
    KeepHeralded,
    Kept,
    ReadHeralded,
    StopWatch,
    WatchEnded,
    WatchLink,
)
from qstack.quantum.bell import fidelity
from qstack.wire.packed import unpack_bits, unpack_slots
from tests.physical.worlds import chain

END_NS = 10**9
QUBITS = {"a": b"a" * 16, "b": b"b" * 16}


def world(probability: float = 1.0, **profile: Any) -> World:
    """a - b through the station `mid`, with unequal arms, and b - c through none."""
    made = chain("abc", probability, **profile)
    links = {name: replace(link) for name, link in made.links.items()}
    links["a-b"] = replace(links["a-b"], station="mid")
    return World(nodes=made.nodes, links=links)


class Detectors:
    """The fabric, both ends and the station; `told` is what it has delivered."""

    def __init__(self, made: World, seed: int = 0) -> None:
        self.fabric = Fabric(made, seed)
        self.link = made.links["a-b"]
        self.told: list[tuple[str, int, Any]] = []
        self.numbers = 0
        for name in ("a", "b", "c", "mid"):
            self.fabric.node_up(name, boot_id(seed, name, 0))

    def do(self, name: str, kind: type[Operation], at_ns: int, /, **fields: Any) -> int:
        self.numbers += 1
        self.fabric.apply(name, kind(at_ns=at_ns, sequence=self.numbers, **fields))
        return self.numbers

    def emit(self, name: str, at_ns: int = 0, **more: Any) -> None:
        fields: dict[str, Any] = {
            "batch": 1, "link": "a-b", "token": b"t" * 16, "kind": "keep", "first_cycle": 0,
            "bright_state": None, "pairs": 1, "basis": None, "qubit": QUBITS[name],
        }  # fmt: skip
        self.do(name, Generate, at_ns, **(fields | more))

    def watch(self, at_ns: int, **more: Any) -> int:
        fields: dict[str, Any] = {
            "link": "a-b", "batches": (1, 1), "first_cycle": 0, "until_cycle": None, "pairs": 1,
            "kind": "keep", "bright_state": None,
        }  # fmt: skip
        return self.do("mid", WatchLink, at_ns, **(fields | more))

    def run(self, until_ns: int = END_NS) -> list[tuple[str, int, Any]]:
        self.told += [(d.node, d.due_ns, d.message) for d in self.fabric.run(until_ns)]
        return self.told

    def arrival_ns(self, cycle: int) -> int:
        model = self.fabric._station.models["a-b"]
        emitted_ns = cycle * model.cycle_ns("keep") + model.emission_offset_ns
        return emitted_ns + self.link.arrival_ns

    def kinds(self) -> list[tuple[str, type]]:
        return [(name, type(message)) for name, _, message in self.told]


def test_photons_that_meet_click_when_they_come_and_are_as_old_as_their_emission() -> None:
    made = Detectors(world())
    made.emit("a")
    made.emit("b")
    made.watch(100)
    ((name, due_ns, clicked),) = made.run()
    assert (name, type(clicked), clicked.cycle) == ("mid", Clicked, 0)
    assert due_ns == made.arrival_ns(0) + RESULT_MIN_NS
    keys = QubitKey("a", QUBITS["a"]), QubitKey("b", QUBITS["b"])
    assert fidelity(made.fabric.truth(*keys, END_NS), clicked.x_bit, clicked.z_bit) > 0.999
    assert not any(made.fabric.snapshot().batches.values())


def test_only_photons_that_come_while_it_watches_are_seen() -> None:
    made = Detectors(world())
    made.emit("a")
    made.emit("b")
    made.watch(made.arrival_ns(7) + 1)
    ((_, _, clicked),) = made.run()
    assert clicked.cycle == 8


def test_without_a_watch_nothing_comes_of_attempts_and_no_node_hears_anything() -> None:
    made = Detectors(world())
    made.emit("a")
    made.emit("b")
    assert made.run() == []
    made.do("a", StopGenerate, END_NS, batch=1, reason="stopped")
    assert made.run(END_NS + 1) == []
    assert made.fabric.snapshot().batches["a"] == 0


def test_a_watch_waits_for_a_batch_that_begins_later() -> None:
    """By a wall clock the operation of a node may come after that of the station."""
    made = Detectors(world())
    made.emit("a")
    made.watch(0)
    made.emit("b", made.arrival_ns(5))
    ((_, _, clicked),) = made.run()
    assert clicked.cycle >= 5


def test_a_stopped_watch_ends_when_the_last_photons_have_come() -> None:
    made = Detectors(world(1e-12))
    made.emit("a")
    made.emit("b")
    number = made.watch(0)
    made.do("mid", StopWatch, 50, watch=number, until_cycle=9)
    assert made.run() == [("mid", made.arrival_ns(8) + RESULT_MIN_NS, WatchEnded(operation=number))]
    made.watch(END_NS)  # the batches emit on, and may be watched again
    assert made.fabric.snapshot().batches == {"a": 1, "b": 1, "c": 0}


def test_a_success_in_flight_clicks_whatever_is_stopped() -> None:
    made = Detectors(world())
    made.emit("a")
    made.emit("b")
    number = made.watch(0)
    between_ns = made.arrival_ns(0) - 1
    made.do("a", StopGenerate, between_ns, batch=1, reason="stopped")
    made.do("mid", StopWatch, between_ns, watch=number, until_cycle=1)
    made.run()
    assert made.kinds() == [("mid", Clicked)]
    assert made.fabric.snapshot().qubits == {"a": 1, "b": 1, "c": 0}


def test_a_success_that_was_not_emitted_yet_does_not_click() -> None:
    made = Detectors(world())
    made.emit("a")
    made.emit("b")
    number = made.watch(0, first_cycle=10)
    made.do("a", StopGenerate, 10, batch=1, reason="stopped")
    made.do("mid", StopWatch, 20, watch=number, until_cycle=1)
    made.run()
    assert made.kinds() == [("mid", WatchEnded)]
    assert not any(made.fabric.snapshot().qubits.values())


@pytest.mark.parametrize("is_stopped_before", [False, True])
def test_who_gives_up_gets_no_qubit_of_what_is_in_flight(is_stopped_before: bool) -> None:
    made = Detectors(world())
    made.emit("a")
    made.emit("b")
    made.watch(0)
    between_ns = made.arrival_ns(0) - 10
    if is_stopped_before:
        made.do("a", StopGenerate, between_ns, batch=1, reason="stopped")
    made.do("a", StopGenerate, between_ns + 1, batch=1, reason="given-up")
    made.do("a", Release, between_ns + 1, qubit=QUBITS["a"])
    made.run()
    assert made.kinds() == [("mid", Clicked)]
    assert made.fabric.snapshot().qubits == {"a": 0, "b": 1, "c": 0}


def test_a_node_that_dies_leaves_its_photons_to_the_far_end_alone() -> None:
    made = Detectors(world())
    made.emit("a")
    made.emit("b")
    made.watch(0)
    between_ns = made.arrival_ns(0) - 1
    made.run(between_ns)
    made.fabric.node_down("a", between_ns)
    made.run()
    assert made.fabric.snapshot().qubits == {"a": 0, "b": 1, "c": 0}
    assert made.fabric.snapshot().batches == {"a": 0, "b": 0, "c": 0}


def test_a_station_that_dies_sees_nothing_and_nodes_emit_on() -> None:
    made = Detectors(world())
    made.emit("a")
    made.emit("b")
    made.watch(0)
    made.run(1)
    made.fabric.node_down("mid", 1)
    assert made.run() == []
    assert made.fabric.snapshot().batches == {"a": 1, "b": 1, "c": 0}


def test_a_heralded_qubit_is_moved_to_storage() -> None:
    made = Detectors(world(move_ns=5000, move_depolarising=0.5))
    made.emit("a")
    made.emit("b")
    made.watch(0)
    made.run()
    number = made.do("a", KeepHeralded, END_NS, qubit=QUBITS["a"], cycle=0)
    made.run(2 * END_NS)
    assert made.told[-1] == ("a", END_NS + 5000, Kept(operation=number))
    keys = QubitKey("a", QUBITS["a"]), QubitKey("b", QUBITS["b"])
    clicked = made.told[0][2]
    found = made.fabric.pair_fidelity(*keys, 2 * END_NS, x=clicked.x_bit, z=clicked.z_bit)
    assert found == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("mid", WatchLink, {"link": "b-c", "batches": (1, 1), "first_cycle": 0}),
        ("mid", WatchLink, {"link": "nowhere", "batches": (1, 1), "first_cycle": 0}),
        ("mid", DoMeasure, {"qubit": QUBITS["a"], "basis": "Z"}),
        ("a", WatchLink, {"link": "a-b", "batches": (1, 1), "first_cycle": 0}),
        ("a", StopWatch, {"watch": 1, "until_cycle": 0}),
        ("a", KeepHeralded, {"qubit": QUBITS["a"], "cycle": 0}),
    ],
)
def test_what_is_not_a_participants_to_ask_is_refused(
    name: str, kind: type[Operation], fields: dict[str, Any]
) -> None:
    made = Detectors(world())
    more = (
        {"until_cycle": None, "pairs": 1, "kind": "keep", "bright_state": None}
        if kind is WatchLink
        else {}
    )
    made.do(name, kind, 0, **(fields | more))
    made.run()
    assert made.kinds() == [(name, OperationRefused)]


def test_a_watch_that_is_open_is_not_opened_twice() -> None:
    made = Detectors(world())
    number = made.watch(0)
    made.numbers = number - 1
    made.watch(1)
    made.run()
    assert made.kinds() == [("mid", OperationRefused)]


def test_an_end_in_the_far_future_is_told_in_time() -> None:
    made = Detectors(world(1e-12))
    number = made.watch(0)
    made.do("mid", StopWatch, 0, watch=number, until_cycle=2**53)
    ((_, due_ns, ended),) = made.run()
    assert isinstance(ended, WatchEnded)
    assert due_ns < 20 * 10**9


# --- batches that are measured -------------------------------------------------------------------


def measuring(made: Detectors, at_ns: int = 0, **more: Any) -> None:
    for name in "ab":
        fields: dict[str, Any] = {"kind": "measure", "pairs": 40, "basis": "Z", "qubit": None}
        made.emit(name, at_ns, **(fields | more))


def take(made: Detectors, name: str, part: ClickedInCycles, at_ns: int, **more: Any) -> int:
    fields: dict[str, Any] = {
        "batch": 1, "pairs": part.pairs, "first_cycle": part.first_cycle, "cycles": part.cycles,
        "bases": b"",
    }  # fmt: skip
    return made.do(name, ReadHeralded, at_ns, **(fields | more))


def test_what_was_read_in_heralded_cycles_waits_for_its_node() -> None:
    made = Detectors(world())
    measuring(made)
    made.watch(0, pairs=40)
    ((name, due_ns, part),) = made.run()
    cycles = unpack_slots(part.cycles, part.first_cycle)
    assert (name, part.pairs, part.is_last) == ("mid", 40, True)
    assert (np.diff(cycles) == 1).all()
    assert due_ns >= int(cycles[-1]) * made.fabric._station.models["a-b"].cycle_ns("measure")
    assert made.fabric.snapshot().batches == {"a": 1, "b": 1, "c": 0}  # it has not been asked for
    for end in "ab":
        take(made, end, part, END_NS)
    made.run(2 * END_NS)
    bits = [unpack_bits(m.outcomes, 40) for _, _, m in made.told[1:]]
    assert (bits[0] != bits[1]).all()  # psi states, in Z
    assert [due - END_NS for _, due, _ in made.told[1:]] == [READOUT_NS, READOUT_NS]
    assert not any(made.fabric.snapshot().batches.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 2},
        {"first_cycle": 10**6},
        {"cycles": bytes(160)},
        {"bases": b"\x00" * 10},
    ],
)
def test_what_was_not_heralded_cannot_be_read(wrong: dict[str, Any]) -> None:
    """The outcomes of other cycles are not told, whoever says that they were heralded."""
    made = Detectors(world())
    measuring(made)
    made.watch(0, pairs=40)
    ((_, _, part),) = made.run()
    take(made, "a", part, END_NS, **wrong)
    made.run(2 * END_NS)
    assert made.kinds()[-1] == ("a", OperationRefused)


@pytest.mark.parametrize("bases", [b"", b"\xff" * 10])
def test_bases_that_the_node_draws_are_those_of_its_pairs(bases: bytes) -> None:
    made = Detectors(world())
    measuring(made, basis="given")
    made.watch(0, pairs=40)
    ((_, _, part),) = made.run()
    take(made, "a", part, END_NS, bases=bases)
    take(made, "a", part, END_NS, bases=bytes(10))
    made.run(2 * END_NS)
    assert made.kinds()[1:] == [("a", OperationRefused), ("a", HeraldedRead)]


def test_of_what_is_stopped_the_part_in_flight_comes_and_then_the_end() -> None:
    made = Detectors(world(0.2))
    measuring(made, pairs=10**6)
    number = made.watch(0, pairs=10**6)
    stop_ns = 1_000_000
    cycle_ns = made.fabric._station.models["a-b"].cycle_ns("measure")
    made.do("a", StopGenerate, stop_ns, batch=1, reason="stopped")
    made.do("mid", StopWatch, stop_ns + 700, watch=number, until_cycle=stop_ns // cycle_ns)
    made.run()
    assert made.kinds() == [("mid", ClickedInCycles), ("mid", WatchEnded)]
    part = made.told[0][2]
    assert stop_ns // cycle_ns - 60 < unpack_slots(part.cycles, part.first_cycle)[-1]
    assert unpack_slots(part.cycles, part.first_cycle)[-1] < stop_ns // cycle_ns
    assert not part.is_last


def test_what_a_node_gives_up_is_not_kept_for_it() -> None:
    made = Detectors(world())
    measuring(made)
    made.watch(0, pairs=40)
    made.run()
    made.do("a", StopGenerate, END_NS, batch=1, reason="given-up")
    made.fabric.node_down("b", END_NS)
    made.run(2 * END_NS)
    assert not any(made.fabric.snapshot().batches.values())
