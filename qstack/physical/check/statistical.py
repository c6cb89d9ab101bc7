"""What a driver's numbers must be, by the profile of its node: counts against probabilities.

Each check counts how often something happened in n trials, and compares with the probability p
the profile predicts. The count is judged by the bound of Chernoff (1952): k of n or more (or fewer)
come with probability at most exp(-n D(k/n || p)), D the relative entropy. A driver that is as its
profile says fails any of the checks with probability `FALSE_ALARM` at most, all together.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from qstack.physical.check.bench import SECOND_NS, Bench, CheckFailedError, NotOfferedError
from qstack.physical.check.words import (
    check_detections,
    first_word,
    measured,
    raise_if_refused,
)
from qstack.physical.check.world import HERE, LINK, SOURCE_LINK
from qstack.physical.device import (
    DetectionReply,
    DoGate,
    DoMeasure,
    MeasuredReply,
    OperationRefused,
    Outcome,
    Release,
    Reply,
)
from qstack.physical.fabric.clicks import SourceModel
from qstack.physical.fabric.link_model import LinkModel
from qstack.physical.frames import outcome_of
from qstack.physical.profile import Profile
from qstack.quantum.channels import depolarising
from qstack.quantum.gates import gate_transfer
from qstack.quantum.measurement import readout_effect
from qstack.wire.packed import BASES, unpack_bits

FALSE_ALARM: Final = 1e-6
KEPT: Final = 200
MEASURED: Final = 8_000
READ: Final = 2_000
COUNTS_MAX: Final = 32  # more than all checks together compare; each may fail with its share


class Counted(NamedTuple):
    """`happened` of `trials`; `probability` is what the profile says."""

    what: str
    happened: int
    trials: int
    probability: float


def is_credible(counted: Counted) -> bool:
    """Whether so many come with more than its share of `FALSE_ALARM`, by Chernoff's bound."""
    what, happened, trials, probability = counted
    del what
    if not trials:
        return True
    allowed = FALSE_ALARM / COUNTS_MAX / 2.0  # the bound is for one side
    exponent = trials * _relative_entropy(happened / trials, probability)
    return exponent <= -math.log(allowed)


def _relative_entropy(q: float, p: float) -> float:
    total = 0.0
    for part, weight in ((q, p), (1.0 - q, 1.0 - p)):
        if part > 0.0:
            total += part * math.log(part / weight) if weight > 0.0 else math.inf
    return total


Count = Callable[[Bench], Iterator[Counted]]


def success_probability_of_kept_pairs(bench: Bench) -> Iterator[Counted]:
    """Attempts until a herald: `KEPT` successes in as many attempts as there were cycles."""
    _require_prompt(bench)
    attempts = 0
    for _ in range(KEPT):
        qubit = bench.new_qubit()
        batch = bench.generate(LINK, kind="keep", qubit=qubit)
        reply = first_word(bench, batch, len(bench.heard))
        if not isinstance(reply, Reply):
            raise CheckFailedError(f"a keep batch was answered by {type(reply).__name__}")
        attempts += reply.cycle - batch.first_cycle + 1
        bench.submit(Release(at_ns=bench.start_ns(), sequence=bench.next_sequence(), qubit=qubit))
    yield Counted("heralds per attempt", KEPT, attempts, _model(bench).success(None).probability)


def success_probability_of_measured_pairs(bench: Bench) -> Iterator[Counted]:
    """Measured pairs in the cycles from the start of the batch to the last emission."""
    _require_prompt(bench)
    cycle_ns = _model(bench).cycle_ns("measure")
    first_cycle = -(-bench.now // cycle_ns)
    parts = measured(bench, MEASURED, "Z")
    last_ns = max(part.emitted_at_ns for part in parts)
    attempts = (last_ns - _model(bench).emission_offset_ns) // cycle_ns - first_cycle + 1
    probability = _model(bench).success(None).probability
    yield Counted("pairs per attempt", MEASURED, max(attempts, MEASURED), probability)


def bell_bits(bench: Bench) -> Iterator[Counted]:
    """A herald announces psi+ or psi-, equally often."""
    parts = measured(bench, MEASURED, "Z")
    bits = [_bits(part) for part in parts]
    x_bits, z_bits = (np.concatenate([each[place] for each in bits]) for place in (1, 2))
    yield Counted("x = 1", int(x_bits.sum()), len(x_bits), 1.0)
    yield Counted("z = 1", int(z_bits.sum()), len(z_bits), 0.5)


def measured_outcomes(bench: Bench) -> Iterator[Counted]:
    """Outcomes 1 of one end, in each basis."""
    tables = _model(bench).joint_outcomes(None).mean(axis=0)
    axis = bench.link(LINK).ends.index(HERE)
    for code, basis in enumerate(BASES):
        parts = measured(bench, MEASURED // 2, basis)
        outcomes = np.concatenate([_bits(part)[0] for part in parts])
        alone = tables[code, code].sum(axis=1 - axis)
        yield Counted(f"outcome 1 in {basis}", int(outcomes.sum()), len(outcomes), float(alone[1]))


def readout(bench: Bench) -> Iterator[Counted]:
    """A fresh qubit read in Z, as it is and after an X gate: initialisation and readout errors."""
    profile = bench.world.nodes[HERE].profile
    for flips in (0, 1):
        ones, probability = 0, 0.0
        for _ in range(READ):
            qubit = bench.initialised()
            if flips:
                _flip(bench, qubit)
            measure = DoMeasure(
                at_ns=bench.start_ns(), sequence=bench.next_sequence(), qubit=qubit, basis="Z"
            )
            said = bench.answer_to(measure, Outcome)
            meant = outcome_of(profile, said, "Z")
            ones += meant
            is_turned = meant != said.outcome  # by its pulses: the hardware reads the other state
            as_one = _read_as_one(profile, flips ^ is_turned)
            probability += 1.0 - as_one if is_turned else as_one
        what = "state 0 read as 1" if not flips else "state 1 read as 1"
        yield Counted(what, ones, READ, probability / READ)


def detections(bench: Bench) -> Iterator[Counted]:
    """Slots with a detection, on the photon-pair link."""
    batch = bench.generate(SOURCE_LINK, kind="measure", pairs=1000, basis="Z")
    bench.run(SECOND_NS // 20)
    raise_if_refused(bench, batch)
    bench.stop(batch)
    bench.run(bench.now + bench.back_ns(SOURCE_LINK) + 1)
    parts = [part for _, part in bench.said(DetectionReply) if part.batch == batch.batch]
    found = sum(len(check_detections(part)) for part in parts)
    slots = sum(part.until_slot - part.first_slot for part in parts)
    model = SourceModel(bench.link(SOURCE_LINK))
    probability = model.click_probability_of(bench.link(SOURCE_LINK).ends.index(HERE))
    yield Counted("detections per slot", found, slots, probability)


def correlations(bench: Bench) -> Iterator[Counted]:
    """How often both ends read alike, for each Bell state and basis."""
    tables = _model(bench).joint_outcomes(None)
    for code, basis in enumerate(BASES):
        since = len(bench.heard)
        batch = bench.generate(LINK, kind="measure", pairs=MEASURED // 2, basis=basis, far=basis)
        first_word(bench, batch, since)
        bench.run(bench.now + 1)
        bench.run_until_quiet()
        ends = [
            [_bits(part) for _, part in bench.said(MeasuredReply, since, node)]
            for node in (HERE, "there")
        ]
        here, there = (
            [np.concatenate([part[place] for part in parts]) for place in range(3)]
            for parts in ends
        )
        if len(here[0]) != len(there[0]) or (here[2] != there[2]).any():
            raise CheckFailedError("the two ends were told of different pairs")
        for z in (0, 1):
            chosen = here[2] == z
            alike = int((here[0][chosen] == there[0][chosen]).sum())
            probability = float(np.trace(tables[z, code, code]))
            what = f"alike in {basis} for z = {z}"
            yield Counted(what, alike, int(chosen.sum()), probability)


def judged(counts: Iterator[Counted]) -> str:
    """All of them, in words. Raises `CheckFailedError` for the first that is not credible."""
    said = []
    for counted in counts:
        what, happened, trials, probability = counted
        if not is_credible(counted):
            raise CheckFailedError(
                f"{what}: {happened} of {trials} ({happened / trials:.6g});"
                f" expected {probability:.6g}"
            )
        said.append(f"{what}: {happened / max(1, trials):.4g} ({probability:.4g})")
    return "; ".join(said)


# --- parts ---------------------------------------------------------------------------------------


def _require_prompt(bench: Bench) -> None:
    """Attempts can be counted from outside only where they begin at once."""
    if bench.world.nodes[HERE].profile.ready_check_ns is not None:
        raise NotOfferedError("the device checks itself before it attempts, for an unknown time")


def _model(bench: Bench) -> LinkModel:
    return LinkModel(bench.world, bench.link(LINK))


def _bits(part: MeasuredReply) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint8]], ...]:
    """Outcomes, x and z of a part."""
    try:
        return tuple(
            unpack_bits(each, part.pairs).astype(np.uint8)
            for each in (part.outcomes, part.x_bits, part.z_bits)
        )
    except ValueError as error:
        raise CheckFailedError(f"packed bits: {error}") from error


def _flip(bench: Bench, qubit: bytes) -> None:
    gate = DoGate(
        at_ns=bench.start_ns(), sequence=bench.next_sequence(), name="x", qubits=[qubit], angle=0.0
    )
    answer = bench.any_answer_to(gate)
    if isinstance(answer, OperationRefused):
        raise NotOfferedError(answer.detail)


def _read_as_one(profile: Profile, flips: int) -> float:
    state = np.array([1.0, 0.0, 0.0, 2.0 * profile.init_fidelity - 1.0])
    if flips:
        state = depolarising(profile.gate_1q_depolarising) @ gate_transfer("x") @ state
    effect = readout_effect("Z", 1, profile.readout_f0, profile.readout_f1)
    return float(effect @ state)


STATISTICAL: Final[dict[str, Count]] = {
    each.__name__.replace("_", " "): each
    for each in (
        success_probability_of_kept_pairs,
        success_probability_of_measured_pairs,
        bell_bits,
        measured_outcomes,
        readout,
        detections,
    )
}
TWO_ENDS: Final[dict[str, Count]] = {"correlations": correlations}
