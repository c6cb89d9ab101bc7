"""What a driver must do that runs device programs (`qstack.physical.program`)."""

from collections.abc import Callable
from typing import Final

from qstack.errors import ErrorCode
from qstack.physical.check.bench import SECOND_NS, Bench, CheckFailedError, NotOfferedError
from qstack.physical.check.words import expect_refused, first_word, measurement
from qstack.physical.check.world import HERE, LINK, LOSSY_LINK
from qstack.physical.device import OperationRefused, Outcome, Reply, Result
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.program import Place, Step
from qstack.physical.program_device import (
    ArmProgram,
    DisarmProgram,
    ProgramDone,
    ProgramEnded,
)


def a_local_program_is_one_operation(bench: Bench) -> str:
    """ArmProgram without a herald: ProgramDone by the sum of its steps; what it read is gone."""
    names = [bench.new_qubit(), bench.new_qubit()]
    steps = [
        Step("initialise", [0]),
        Step("initialise", [1]),
        Step("gate", [0], gate="x"),
        Step("measure", [0], basis="Z"),
        Step("gate", [1], gate="x", when=[0]),
    ]
    asked = _arm(bench, [Place(qubit=name) for name in names], steps)
    done = bench.answer_to(asked, ProgramDone)
    if (done.qubits, done.steps_done, len(done.bits)) != (names, len(steps), 1):
        raise CheckFailedError(
            f"qubits {[name.hex() for name in done.qubits]}, {done.steps_done} steps and"
            f" {len(done.bits)} bits; expected those asked for, {len(steps)} and 1"
        )
    expect_refused(bench, measurement(bench, names[0]), "a measurement of what a program read")
    bench.answer_to(measurement(bench, names[1]), Outcome)
    return ""


def a_program_begins_at_its_herald(bench: Bench) -> str:
    """The herald is told, the program begins at that time, and its result names the qubit."""
    token = (bench.batches + 1).to_bytes(16, "big")
    place = Place(link=LINK, token=token)
    asked = _arm(bench, [place], [Step("measure", [0], basis="Z")], SECOND_NS * 3600)
    _submit(bench, asked)
    qubit = bench.new_qubit()
    batch = bench.generate(LINK, kind="keep", qubit=qubit)
    reply = first_word(bench, batch, 0)
    if not isinstance(reply, Reply):
        raise CheckFailedError(f"a keep batch was answered by {type(reply).__name__}")
    heralded_ns = bench.now
    bench.run(bench.now + bench.world.nodes[HERE].profile.readout_ns + RESULT_MIN_NS + 1)
    done = _answers(bench, asked)
    if [type(each) for each in done] != [ProgramDone]:
        raise CheckFailedError(f"a program whose herald has come was answered by {_names(done)}")
    (said,) = done
    assert isinstance(said, ProgramDone), "it was looked at"
    if said.qubits != [qubit] or len(said.bits) != 1:
        raise CheckFailedError("the result does not name the heralded qubit and one bit")
    if said.began_at_ns != heralded_ns:
        raise CheckFailedError(
            f"the program began at {said.began_at_ns} ns; the herald came at {heralded_ns} ns"
        )
    expect_refused(bench, measurement(bench, qubit), "a measurement of what a program read")
    return ""


def a_program_that_does_not_begin_ends(bench: Bench) -> str:
    """By its deadline, or withdrawn: one ProgramEnded, in time; the qubit is as it was."""
    place = Place(link=LOSSY_LINK, token=bytes(16))
    steps = [Step("bell-measure", [0, 1])]
    first, second = bench.initialised(), bench.initialised()
    late = _arm(bench, [Place(qubit=first), place], steps, 50_000)
    _submit(bench, late)
    withdrawn = _arm(bench, [Place(qubit=second), place], steps, SECOND_NS)
    _submit(bench, withdrawn)
    disarm = DisarmProgram(
        at_ns=bench.start_ns(), sequence=bench.next_sequence(), program=withdrawn.sequence
    )
    bench.submit(disarm)
    bench.run(late.until_ns + RESULT_MIN_NS + 1)
    for asked, reason in ((late, "expired"), (withdrawn, "disarmed")):
        said = _answers(bench, asked)
        if [each.reason for each in said if isinstance(each, ProgramEnded)] != [reason]:
            raise CheckFailedError(f"a program that {reason} was answered by {_names(said)}")
    for qubit in (first, second):
        bench.answer_to(measurement(bench, qubit), Outcome)
    return ""


def wrong_programs_are_refused(bench: Bench) -> str:
    """What names no qubit, no link or no sense is refused, and changes nothing."""
    qubit = bench.initialised()
    mine, read = Place(qubit=qubit), Step("measure", [0], basis="Z")
    wrong = (
        ("an unknown qubit", [Place(qubit=bench.new_qubit())], [read]),
        ("an unknown link", [Place(link="no-where", token=bytes(16))], [read]),
        ("a qubit twice", [mine, mine], [Step("bell-measure", [0, 1])]),
        ("a measurement without a basis", [mine], [Step("measure", [0])]),
        ("a condition on what is read later", [mine], [Step("gate", [0], gate="x", when=[0])]),
    )
    for what, places, steps in wrong:
        answer = bench.any_answer_to(_arm(bench, places, steps))
        if not isinstance(answer, OperationRefused):
            raise CheckFailedError(f"a program with {what} was not refused")
        if answer.error == ErrorCode.UNSUPPORTED.name:
            raise NotOfferedError(answer.detail)
    bench.answer_to(measurement(bench, qubit), Outcome)
    return ""


def _arm(
    bench: Bench, places: list[Place], steps: list[Step], for_ns: int = SECOND_NS
) -> ArmProgram:
    at_ns = bench.start_ns()
    return ArmProgram(
        at_ns=at_ns,
        sequence=bench.next_sequence(),
        places=places,
        steps=steps,
        until_ns=at_ns + for_ns,
    )


def _submit(bench: Bench, asked: ArmProgram) -> None:
    """Ask for a program that waits. Raises `NotOfferedError` if the device runs none."""
    bench.submit(asked)
    bench.run(asked.at_ns + RESULT_MIN_NS + 1)
    for said in _answers(bench, asked):
        if isinstance(said, OperationRefused) and said.error == ErrorCode.UNSUPPORTED.name:
            raise NotOfferedError(said.detail)
        raise CheckFailedError(f"a program that waits was answered by {type(said).__name__}")


def _answers(bench: Bench, asked: ArmProgram) -> list[Result]:
    return [said for _, said in bench.said(Result) if said.operation == asked.sequence]


def _names(said: list[Result]) -> str:
    return ", ".join(type(each).__name__ for each in said) or "nothing"


PROGRAMS: Final[dict[str, Callable[[Bench], str]]] = {
    check.__name__.replace("_", " "): check
    for check in (
        a_local_program_is_one_operation,
        a_program_begins_at_its_herald,
        a_program_that_does_not_begin_ends,
        wrong_programs_are_refused,
    )
}
