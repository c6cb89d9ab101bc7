"""What every driver must do, a check for each sentence of docs/drivers.md.

A check has a bench of its own; it returns a remark, and raises `CheckFailedError` for what is
wrong, `NotOfferedError` for what the driver says it cannot do.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from qstack.physical.check.bench import (
    SECOND_NS,
    Bench,
    CheckFailedError,
    NotOfferedError,
)
from qstack.physical.check.words import (
    STOP_AFTER_CYCLES,
    batches_of,
    check_detections,
    check_herald,
    check_parts,
    expect_closed,
    expect_refused,
    first_word,
    kept,
    measured,
    measured_parts,
    measurement,
    raise_if_refused,
    ready_ns,
    start_on_lossy,
    words_of,
)
from qstack.physical.check.world import HERE, LINK, LOSSY_LINK, SOURCE_LINK
from qstack.physical.device import (
    BatchEnded,
    BellOutcome,
    DetectionReply,
    DoBellMeasure,
    DoGate,
    Generate,
    GiveBases,
    Initialise,
    Initialised,
    OperationRefused,
    Outcome,
    PulsedOutcome,
    Release,
    Reply,
    Result,
    StopGenerate,
)
from qstack.physical.service import Rotation

if TYPE_CHECKING:
    from qstack.physical.service import GateName

Check = Callable[[Bench], str]
TURN: Final = Rotation(0.3, 0.5, -0.2)

# --- qubits --------------------------------------------------------------------------------------


def a_fresh_qubit_is_answered(bench: Bench) -> str:
    """Initialise: Initialised by at_ns + t_init_ns."""
    bench.initialised()
    return ""


def a_qubit_can_be_initialised_again(bench: Bench) -> str:
    """Initialise of a qubit that is there brings it back to 0."""
    qubit = bench.initialised()
    bench.answer_to(
        Initialise(at_ns=bench.start_ns(), sequence=bench.next_sequence(), qubit=qubit), Initialised
    )
    return ""


def a_measurement_is_answered_and_ends_the_qubit(bench: Bench) -> str:
    """DoMeasure: Outcome by at_ns + readout_ns; the qubit is gone."""
    qubit = bench.initialised()
    said = bench.answer_to(measurement(bench, qubit), Outcome)
    is_decoupled = bench.world.nodes[HERE].profile.decoupling_axis is not None
    if isinstance(said, PulsedOutcome) and not is_decoupled:
        raise CheckFailedError(f"{said.pulses} pulses were counted; the profile has none")
    expect_refused(bench, measurement(bench, qubit), "a measurement of a qubit that was measured")
    return ""


def a_bell_measurement_is_answered_and_ends_both(bench: Bench) -> str:
    """DoBellMeasure: BellOutcome in time; both qubits are gone."""
    first, second = bench.initialised(), bench.initialised()
    bench.answer_to(
        DoBellMeasure(
            at_ns=bench.start_ns(), sequence=bench.next_sequence(), first=first, second=second
        ),
        BellOutcome,
    )
    for qubit in (first, second):
        expect_refused(bench, measurement(bench, qubit), "a measurement after a Bell measurement")
    return ""


def gates_are_silent(bench: Bench) -> str:
    """DoGate has no answer but a refusal; the qubit is still there."""
    qubit = bench.initialised()
    refused = []
    gates: tuple[tuple[GateName, float], ...] = (("x", 0.0), ("h", 0.0), ("rz", 0.5))
    for name, angle in gates:
        gate = DoGate(
            at_ns=bench.start_ns(),
            sequence=bench.next_sequence(),
            name=name,
            qubits=[qubit],
            angle=angle,
        )
        answer = bench.any_answer_to(gate)
        if isinstance(answer, OperationRefused):
            refused.append(name)
        elif answer is not None:
            raise CheckFailedError(f"gate {name} was answered by {type(answer).__name__}")
    bench.answer_to(measurement(bench, qubit), Outcome)
    if refused:
        raise NotOfferedError(f"gates {', '.join(refused)}")
    return ""


def a_release_ends_the_qubit_and_is_silent(bench: Bench) -> str:
    """Release has no answer; the qubit is gone; a second release changes nothing."""
    qubit = bench.initialised()
    for _ in range(2):
        release = Release(at_ns=bench.start_ns(), sequence=bench.next_sequence(), qubit=qubit)
        answer = bench.any_answer_to(release)
        if answer is not None and not isinstance(answer, OperationRefused):
            raise CheckFailedError(f"Release was answered by {type(answer).__name__}")
    expect_refused(bench, measurement(bench, qubit), "a measurement of a released qubit")
    return ""


def an_unknown_qubit_is_refused(bench: Bench) -> str:
    """What names no qubit of the device is refused, not answered."""
    unknown = bench.new_qubit()
    expect_refused(bench, measurement(bench, unknown), "a measurement of an unknown qubit")
    gate = DoGate(
        at_ns=bench.start_ns(),
        sequence=bench.next_sequence(),
        name="x",
        qubits=[unknown],
        angle=0.0,
    )
    expect_refused(bench, gate, "a gate on an unknown qubit")
    return ""


def answers_come_in_the_order_of_operations(bench: Bench) -> str:
    """The device is serial: so are its answers."""
    bench.initialised()
    numbers = []
    for _ in range(4):
        qubit = bench.new_qubit()
        at_ns = bench.start_ns()
        numbers.append(
            bench.submit(Initialise(at_ns=at_ns, sequence=bench.next_sequence(), qubit=qubit))
        )
        numbers.append(bench.submit(measurement(bench, qubit)))
    bench.run(bench.start_ns() + SECOND_NS)
    heard = [said.operation for _, said in bench.said(Result) if said.operation in numbers]
    if heard != numbers:
        raise CheckFailedError(f"operations {numbers} were answered as {heard}")
    return ""


# --- attempts ------------------------------------------------------------------------------------


def a_kept_pair_is_heralded(bench: Bench) -> str:
    """Generate keep: one Reply, no sooner than light allows, and a qubit that can be measured."""
    qubit = bench.new_qubit()
    batch = bench.generate(LINK, kind="keep", qubit=qubit)
    reply = first_word(bench, batch, 0)
    if not isinstance(reply, Reply):
        raise CheckFailedError(f"a keep batch was answered by {type(reply).__name__}")
    check_herald(bench, batch, reply)
    bench.run(bench.now + SECOND_NS)
    expect_closed(bench, batch)
    bench.answer_to(measurement(bench, qubit), Outcome)
    return ""


def heralds_are_counted(bench: Bench) -> str:
    """Herald sequences of a link count up by one; cycles ascend."""
    last: Reply | None = None
    for _ in range(5):
        reply = kept(bench)
        if last is not None:
            if reply.herald_sequence != last.herald_sequence + 1:
                raise CheckFailedError(
                    f"herald {last.herald_sequence} was followed by {reply.herald_sequence}"
                )
            if reply.cycle <= last.cycle:
                raise CheckFailedError(f"cycle {last.cycle} was followed by {reply.cycle}")
        last = reply
    return ""


def measured_pairs_are_complete(bench: Bench) -> str:
    """Generate measure: as many pairs as asked, in parts that follow one another."""
    batch = bench.generate(LINK, kind="measure", pairs=300, basis="Z")
    parts = measured_parts(bench, batch, 0)
    check_parts(parts, 300, is_given=False)
    return f"{len(parts)} parts"


def drawn_bases_are_asked_for(bench: Bench) -> str:
    """Basis `given`: the device asks for bases, or says which it has chosen itself."""
    batch = bench.generate(LINK, kind="measure", pairs=300, basis="given")
    parts = measured_parts(bench, batch, 0)
    check_parts(parts, 300, is_given=True)
    given = {
        operation.bases
        for operation in bench.asked[HERE].values()
        if isinstance(operation, GiveBases)
    }
    if given and {part.bases for _, part in parts if part.pairs} != given:
        raise CheckFailedError("the bases of the replies are not those that were given")
    return "asked for" if given else "chosen by the device"


def rotated_pairs_are_complete(bench: Bench) -> str:
    """Generate measure with a rotation: the pairs come all the same, or it is UNSUPPORTED."""
    batch = bench.generate(LINK, kind="measure", pairs=300, basis="Z", rotation=TURN)
    check_parts(measured_parts(bench, batch, 0), 300, is_given=False)
    return ""


def states_are_prepared_remotely(bench: Bench) -> str:
    """Generate prepare: one pair that is read here, then one that is kept; or UNSUPPORTED."""
    batch = bench.generate(LINK, kind="prepare", basis="X")
    check_parts(measured_parts(bench, batch, 0), 1, is_given=False)
    since = len(bench.heard)
    batch = bench.generate(LINK, kind="prepare", qubit=bench.new_qubit())
    word = first_word(bench, batch, since)
    if not isinstance(word, Reply):
        raise CheckFailedError(f"what is kept was answered by {type(word).__name__}")
    check_herald(bench, batch, word)
    return ""


def a_stopped_batch_ends(bench: Bench) -> str:
    """StopGenerate: one BatchEnded in time, with no more attempts than there were cycles."""
    qubit = bench.new_qubit()
    batch, cycle_ns = start_on_lossy(bench, qubit)
    cycles = STOP_AFTER_CYCLES + ready_ns(bench) // cycle_ns
    bench.run(bench.now + cycles * cycle_ns)
    stopped_ns = bench.stop(batch)
    bench.run(stopped_ns + bench.back_ns(LOSSY_LINK) + 1)
    words = words_of(bench, batch)
    ended = [(at, word) for at, word in words if isinstance(word, BatchEnded)]
    if not words:
        raise CheckFailedError(
            "a stopped batch was not answered within"
            f" {bench.back_ns(LOSSY_LINK)} ns; expected BatchEnded"
        )
    if not ended:
        raise NotOfferedError("the pair came first")
    bench.run(bench.now + SECOND_NS)
    expect_closed(bench, batch)
    attempts = ended[0][1].attempts
    if not 0 < attempts <= cycles + 1:
        raise CheckFailedError(
            f"{attempts} attempts were counted in {cycles} cycles; expected at least"
            " one, and no more than there were"
        )
    expect_refused(
        bench, measurement(bench, qubit), "a measurement of the qubit of a batch that failed"
    )
    return f"{attempts} attempts in {cycles} cycles"


def stopping_an_unknown_batch_is_silent(bench: Bench) -> str:
    """StopGenerate of a batch that has ended, or never was, has no answer."""
    stop = StopGenerate(
        at_ns=bench.now, sequence=bench.next_sequence(), batch=12_345, reason="stopped"
    )
    bench.submit(stop)
    bench.run(bench.now + SECOND_NS)
    answers = [type(heard.message).__name__ for heard in bench.heard if heard.node == HERE]
    if answers:
        raise CheckFailedError(f"it was answered by {answers[0]}; expected nothing")
    return ""


def an_unknown_link_is_refused(bench: Bench) -> str:
    """Generate on a link that does not end here is refused, and no batch is left of it."""
    asked = Generate(
        at_ns=bench.now,
        sequence=bench.next_sequence(),
        batch=777,
        link="no-where",
        token=bytes(16),
        kind="keep",
        first_cycle=0,
        bright_state=None,
        pairs=1,
        basis=None,
        qubit=bench.new_qubit(),
    )
    expect_refused(bench, asked, "attempts on an unknown link")
    return ""


def detections_follow_one_another(bench: Bench) -> str:
    """A photon-pair link: detections in order, until a last one after the stop."""
    batch = bench.generate(SOURCE_LINK, kind="measure", pairs=100, basis="Z")
    bench.run(SECOND_NS // 10)
    raise_if_refused(bench, batch)
    stopped_ns = bench.stop(batch)
    bench.run(stopped_ns + bench.back_ns(SOURCE_LINK) + 1)
    parts = [(at, word) for at, word in words_of(bench, batch) if isinstance(word, DetectionReply)]
    if not parts or not parts[-1][1].is_last:
        raise CheckFailedError("a stopped batch of detections has no last DetectionReply in time")
    until = 0
    for at_ns, part in parts:
        slots = check_detections(part)
        if part.first_slot < until:
            raise CheckFailedError(f"slot {part.first_slot} was told of before, up to {until}")
        until = part.until_slot
        source = bench.link(SOURCE_LINK).source
        assert source is not None, "it is a photon-pair link"
        light_ns = bench.link(SOURCE_LINK).arm_ns(HERE)
        if len(slots) and int(slots[-1]) * source.slot_ns + light_ns > at_ns:
            raise CheckFailedError(f"slot {slots[-1]} was detected before its light was there")
    bench.run(bench.now + SECOND_NS)
    expect_closed(bench, batch)
    return f"{sum(part.detections for _, part in parts)} detections"


# --- the device itself ---------------------------------------------------------------------------


def it_is_silent_before_it_is_asked(bench: Bench) -> str:
    """Nothing is answered that was not asked."""
    bench.run(SECOND_NS)
    words = [heard.message for heard in bench.heard if isinstance(heard.message, Result)]
    if words:
        raise CheckFailedError(f"{type(words[0]).__name__} came, but nothing was asked")
    return ""


def nothing_outlives_a_restart(bench: Bench) -> str:
    """After `begin` the device has no qubits and no batches, and answers nothing of before."""
    kept = bench.new_qubit()
    bench.generate(LINK, kind="keep", qubit=kept)
    qubit = bench.new_qubit()
    bench.submit(Initialise(at_ns=bench.now, sequence=bench.next_sequence(), qubit=qubit))
    bench.run(bench.now + 10)  # nothing is so quick: all of it is still to be answered
    bench.restart()
    since = len(bench.heard)
    bench.run(bench.now + SECOND_NS)
    late = [heard for heard in bench.heard[since:] if heard.node == HERE]
    if late:
        raise CheckFailedError(
            f"{type(late[0].message).__name__} came after the device began anew; expected nothing"
            " of before"
        )
    expect_refused(bench, measurement(bench, qubit), "a measurement of a qubit from before")
    return ""


def every_answer_comes_once(bench: Bench) -> str:
    """No operation is answered twice, no batch has two last words, no herald comes twice."""
    with suppress(NotOfferedError):
        measured(bench, 100, "X")
    for _ in range(3):
        with suppress(NotOfferedError):
            kept(bench)
        bench.any_answer_to(measurement(bench, bench.new_qubit()))
    bench.run(bench.now + SECOND_NS)
    answered = Counter(said.operation for _, said in bench.said(Result))
    unasked = [number for number in answered if number not in bench.asked[HERE]]
    if unasked:
        raise CheckFailedError(f"operation {unasked[0]} was answered, but never asked")
    again = [number for number, times in answered.items() if times > 1]
    if again:
        raise CheckFailedError(f"operation {again[0]} was answered {answered[again[0]]} times")
    heralds = Counter(reply.herald_sequence for _, reply in bench.said(Reply))
    twice = [number for number, times in heralds.items() if times > 1]
    if twice:
        raise CheckFailedError(f"herald {twice[0]} was told {heralds[twice[0]]} times")
    for batch in batches_of(bench):
        expect_closed(bench, batch)
    return ""


def both_ends_hear_the_same_heralds(bench: Bench) -> str:
    """Cycle, sequence and Bell bits are alike at both ends of a link."""
    for _ in range(5):
        kept(bench)
    bench.run(bench.now + SECOND_NS)
    ends = [
        [
            (reply.herald_sequence, reply.cycle, reply.x_bit, reply.z_bit)
            for _, reply in bench.said(Reply, node=node)
        ]
        for node in (HERE, "there")
    ]
    if ends[0] != ends[1]:
        raise CheckFailedError(f"one end heard {ends[0]}, the other {ends[1]}")
    return ""


FUNCTIONAL: Final[dict[str, Check]] = {
    check.__name__.replace("_", " "): check
    for check in (
        it_is_silent_before_it_is_asked,
        a_fresh_qubit_is_answered,
        a_qubit_can_be_initialised_again,
        a_measurement_is_answered_and_ends_the_qubit,
        a_bell_measurement_is_answered_and_ends_both,
        gates_are_silent,
        a_release_ends_the_qubit_and_is_silent,
        an_unknown_qubit_is_refused,
        answers_come_in_the_order_of_operations,
        a_kept_pair_is_heralded,
        heralds_are_counted,
        measured_pairs_are_complete,
        drawn_bases_are_asked_for,
        rotated_pairs_are_complete,
        states_are_prepared_remotely,
        a_stopped_batch_ends,
        stopping_an_unknown_batch_is_silent,
        an_unknown_link_is_refused,
        detections_follow_one_another,
        nothing_outlives_a_restart,
        every_answer_comes_once,
    )
}
TWO_ENDS: Final[dict[str, Check]] = {
    "both ends hear the same heralds": both_ends_hear_the_same_heralds
}
