"""The programs of one device, without a node: in the fabric, and in the base of drivers."""

from typing import Any, Final

import numpy as np

from qstack.physical.device import (
    DoMeasure,
    Initialise,
    OperationRefused,
    Outcome,
    Release,
)
from qstack.physical.drivers.setup import Setup
from qstack.physical.drivers.template import TemplateDevice
from qstack.physical.fabric import Fabric
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.program import Place, Step
from qstack.physical.program_book import PROGRAMS_MAX
from qstack.physical.program_device import (
    ArmProgram,
    DisarmProgram,
    ProgramDone,
    ProgramEnded,
)
from tests.physical.calls import MS, TOKEN
from tests.physical.test_fabric_reference import generate
from tests.physical.worlds import chain, started_fabric

HERALD: Final = Place(link="a-b", token=TOKEN)
READ_Z: Final = Step("measure", [0], basis="Z")


def device(qubits: int) -> tuple[Fabric, list[bytes]]:
    """The device of b, with so many qubits, at 20 us."""
    fabric = started_fabric(chain("abc", runs_programs=True))
    names = [bytes([number + 1] * 16) for number in range(qubits)]
    for sequence, name in enumerate(names):
        fabric.apply("b", Initialise(at_ns=0, sequence=sequence, qubit=name))
    fabric.run(20_000)
    return fabric, names


def armed(sequence: int, places: list[Place], steps: list[Step], at_ns: int = 20_000) -> ArmProgram:
    return ArmProgram(
        at_ns=at_ns, sequence=sequence, places=places, steps=steps, until_ns=at_ns + MS
    )


def herald(fabric: Fabric, at_ns: int) -> None:
    for node in "ab":
        asked = generate(at_ns, 50, "a-b", token=TOKEN, qubit=node.encode() * 16)
        fabric.apply(node, asked)


def results(fabric: Fabric, until_ns: int = 10**9) -> list[Any]:
    kinds = OperationRefused | Outcome | ProgramDone | ProgramEnded
    return [
        each.message for each in fabric.run(until_ns)
        if each.node == "b" and isinstance(each.message, kinds)
    ]  # fmt: skip


def test_a_qubit_that_has_gone_from_the_device_ends_its_program() -> None:
    """In wall time an operation may be overtaken; the herald is then for the next who waits."""
    fabric, names = device(2)
    place = Place(link="a-b", token=TOKEN)
    steps = [Step("bell-measure", [0, 1])]
    fabric.apply("b", armed(10, [Place(qubit=names[0]), place], steps))
    fabric.apply("b", armed(11, [Place(qubit=names[1]), place], steps))
    fabric.apply("b", DoMeasure(at_ns=30_000, sequence=12, qubit=names[0], basis="Z"))
    herald(fabric, 40_000)
    said = results(fabric)
    assert [type(each) for each in said] == [Outcome, ProgramEnded, ProgramDone]
    assert said[1].reason == "gone"
    assert said[2].qubits[0] == names[1]


def test_the_device_refuses_more_programs_than_it_has_room_for() -> None:
    fabric, _ = device(0)
    for sequence in range(PROGRAMS_MAX + 1):
        fabric.apply("b", armed(sequence, [HERALD], [READ_Z]))
    (full,) = results(fabric, 10**6)
    assert (full.operation, full.error) == (PROGRAMS_MAX, "NO_RESOURCES")


def test_the_device_keeps_what_a_running_program_has() -> None:
    """Others are refused; a release waits for the end."""
    fabric, names = device(2)
    places = [Place(qubit=name) for name in names]
    steps = [Step("gate", [0], gate="h"), Step("gate", [0, 1], gate="cz")] * 4
    fabric.apply("b", armed(10, places, steps))
    fabric.apply("b", DoMeasure(at_ns=22_000, sequence=11, qubit=names[0], basis="Z"))
    fabric.apply("b", Release(at_ns=22_000, sequence=12, qubit=names[1]))
    fabric.apply("b", armed(13, places[:1], [READ_Z], at_ns=22_100))
    said = {each.operation: each for each in results(fabric)}
    assert (said[11].error, said[13].error) == ("OUT_OF_STATE", "BAD_REQUEST")
    assert (said[10].steps_done, said[10].error) == (8, None)
    snapshot = fabric.snapshot()
    assert (snapshot.qubits["b"], snapshot.programs["b"]) == (1, 0)


def test_a_driver_with_nothing_left_of_a_program_is_not_woken_for_it() -> None:
    """The base class: a deadline far ahead must not make the clock run."""
    world = chain("abc", runs_programs=True)
    rng = np.random.default_rng(1)
    driver = TemplateDevice(Setup(node="b", world=world, rng=rng))
    driver.begin(0)
    driver.submit(armed(1, [HERALD], [READ_Z]), 20_000)
    assert driver.next_event_ns() == 20_000 + MS
    disarm = DisarmProgram(at_ns=21_000, sequence=2, program=1)
    driver.submit(disarm, 21_000)
    assert driver.next_event_ns() == 21_000 + RESULT_MIN_NS
    (ended,) = driver.answers(22_000)
    assert ended == ProgramEnded(operation=1, reason="disarmed")
    assert driver.next_event_ns() is None
    assert driver.answers(20_000 + MS) == []
