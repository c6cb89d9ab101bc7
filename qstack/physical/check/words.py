"""What the checks of a driver ask for again and again, and how they look at what is answered."""

from typing import Final

import numpy as np

from qstack.errors import ErrorCode
from qstack.physical.check.bench import (
    Bench,
    CheckFailedError,
    NotOfferedError,
)
from qstack.physical.check.world import HERE, LINK, LOSSY_LINK
from qstack.physical.device import (
    BasesWanted,
    BatchEnded,
    DetectionReply,
    DoGate,
    DoMeasure,
    Generate,
    GiveBases,
    MeasuredReply,
    OperationRefused,
    Release,
    Reply,
)
from qstack.wire.message import Basis, BasisProbabilities, Message
from qstack.wire.packed import bases_size, bits_size, draw_bases, pack_bases, unpack_slots

BATCH_WORDS: Final = (Reply, MeasuredReply, DetectionReply, BatchEnded)
STOP_AFTER_CYCLES: Final = 200
READY_TRIES: Final = 40
"""As many times the expected duration of a ready check no check takes, but for one in e^40."""
DRAWN: Final = BasisProbabilities(0.5, 0.0, 0.5)


def first_word(bench: Bench, batch: Generate, since: int) -> Message:
    """What is first said of a batch. Raises if it is refused, or if nothing ever comes."""
    for word in bench.words(since):
        _raise_if_refusal(word, batch)
        if isinstance(word, BATCH_WORDS):
            if word.batch == batch.batch:
                return word
            if word.batch not in [asked.batch for asked in batches_of(bench)]:
                raise CheckFailedError(
                    f"{type(word).__name__} names batch {word.batch}, which was never asked for"
                )
    raise CheckFailedError("a batch was never answered, though its attempts can succeed")


def check_detections(part: DetectionReply) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The slots of a part that is well formed."""
    try:
        slots = unpack_slots(part.slots, part.first_slot)
    except ValueError as error:
        raise CheckFailedError(f"slots: {error}") from error
    if len(slots) != part.detections:
        raise CheckFailedError(f"{part.detections} detections, but {len(slots)} slots")
    if len(part.outcomes) != bits_size(part.detections):
        raise CheckFailedError(f"{part.detections} detections, {len(part.outcomes)} outcome bytes")
    if len(slots) and int(slots[-1]) >= part.until_slot:
        raise CheckFailedError(f"slot {slots[-1]} is not before until_slot {part.until_slot}")
    return slots


def measured(bench: Bench, pairs: int, basis: Basis) -> list[MeasuredReply]:
    """The parts of a measure batch in one basis."""
    since = len(bench.heard)
    batch = bench.generate(LINK, kind="measure", pairs=pairs, basis=basis)
    return [part for _, part in measured_parts(bench, batch, since)]


def measured_parts(bench: Bench, batch: Generate, since: int) -> list[tuple[int, MeasuredReply]]:
    """All parts of a measure batch; bases are given where they are asked for."""
    rng = np.random.default_rng(1)
    parts: list[tuple[int, MeasuredReply]] = []
    for word in bench.words(since):
        _raise_if_refusal(word, batch)
        if isinstance(word, BasesWanted) and word.batch == batch.batch:
            bench.submit(
                GiveBases(
                    at_ns=bench.now,
                    sequence=bench.next_sequence(),
                    batch=word.batch,
                    part=word.part,
                    bases=pack_bases(draw_bases(rng, DRAWN, word.count)),
                )
            )
        elif isinstance(word, MeasuredReply) and word.batch == batch.batch:
            parts.append((bench.now, word))
            if word.is_last:
                return parts
        elif isinstance(word, BATCH_WORDS) and word.batch == batch.batch:
            raise CheckFailedError(f"a measure batch was answered by {type(word).__name__}")
    made = sum(part.pairs for _, part in parts)
    raise CheckFailedError(f"a measure batch has no last part: {made} of {batch.pairs} pairs")


def check_parts(parts: list[tuple[int, MeasuredReply]], pairs: int, *, is_given: bool) -> None:
    """Whether the parts of a measure batch are complete, well formed and in order."""
    made = sum(part.pairs for _, part in parts)
    if made != pairs:
        raise CheckFailedError(f"{pairs} pairs were asked for, {made} came")
    expected = parts[0][1].first_herald_sequence
    for at_ns, part in parts:
        if part.pairs and part.first_herald_sequence != expected:
            raise CheckFailedError(
                f"herald {expected} should be next, but {part.first_herald_sequence} came"
            )
        expected += part.pairs
        sizes = {len(part.outcomes), len(part.x_bits), len(part.z_bits)}
        if sizes != {bits_size(part.pairs)}:
            raise CheckFailedError(
                f"{part.pairs} pairs take {bits_size(part.pairs)} bytes of bits, not {sizes}"
            )
        wanted = bases_size(part.pairs) if is_given else 0
        if len(part.bases) != wanted:
            raise CheckFailedError(f"expected {wanted} bytes of bases, not {len(part.bases)}")
        if part.emitted_at_ns > at_ns:
            raise CheckFailedError("pairs were told of before they were emitted")


def check_herald(bench: Bench, batch: Generate, reply: Reply) -> None:
    """Whether a herald comes in time, and not faster than light."""
    hardware = bench.link(batch.link)
    light_ns = max(map(hardware.arm_ns, hardware.ends)) + hardware.arm_ns(HERE)
    delay_ns = bench.now - reply.emitted_at_ns
    if delay_ns < light_ns:
        raise CheckFailedError(
            f"the herald came {delay_ns} ns after the emission; light takes {light_ns} ns"
        )
    if delay_ns > bench.back_ns(batch.link):
        raise CheckFailedError(
            f"the herald came {delay_ns} ns after the emission; expected at most"
            f" {bench.back_ns(batch.link)} ns"
        )
    if reply.cycle < batch.first_cycle:
        raise CheckFailedError(
            f"cycle {reply.cycle} heralded, before the first one, {batch.first_cycle}"
        )


def kept(bench: Bench) -> Reply:
    """One kept pair; its qubit is released."""
    qubit = bench.new_qubit()
    batch = bench.generate(LINK, kind="keep", qubit=qubit)
    reply = first_word(bench, batch, len(bench.heard))
    if not isinstance(reply, Reply):
        raise CheckFailedError(f"a keep batch was answered by {type(reply).__name__}")
    bench.submit(Release(at_ns=bench.start_ns(), sequence=bench.next_sequence(), qubit=qubit))
    return reply


def ready_ns(bench: Bench) -> int:
    """How long a check of the device before its attempts may take."""
    profile = bench.world.nodes[HERE].profile
    if profile.ready_check_ns is None or profile.ready_check_pass is None:
        return 0
    return int(READY_TRIES * profile.ready_check_ns / profile.ready_check_pass)


def start_on_lossy(bench: Bench, qubit: bytes) -> tuple[Generate, int]:
    """A batch on the link on which nothing succeeds, and its cycle."""
    batch = bench.generate(LOSSY_LINK, kind="keep", qubit=qubit)
    profiles = bench.world.end_profiles(LOSSY_LINK)
    return batch, bench.link(LOSSY_LINK).cycle_ns("keep", *profiles)


def raise_if_refused(bench: Bench, batch: Generate) -> None:
    """Raises `NotOfferedError`, or `CheckFailedError`, if the device has refused a batch."""
    for _, refusal in bench.said(OperationRefused):
        _raise_if_refusal(refusal, batch)


def _raise_if_refusal(word: Message, batch: Generate) -> None:
    if isinstance(word, OperationRefused) and word.operation == batch.sequence:
        if word.error == ErrorCode.UNSUPPORTED.name:
            raise NotOfferedError(word.detail)
        raise CheckFailedError(f"attempts were refused: {word.error} {word.detail}")


def words_of(bench: Bench, batch: Generate) -> list[tuple[int, Message]]:
    """All that was said of a batch, and when. Raises if it was refused."""
    raise_if_refused(bench, batch)
    return [
        (heard.at_ns, heard.message)
        for heard in bench.heard
        if heard.node == HERE
        and isinstance(heard.message, BATCH_WORDS)
        and heard.message.batch == batch.batch
    ]


def expect_closed(bench: Bench, batch: Generate) -> None:
    """A batch has exactly one last word, and it is the last."""
    words = [word for _, word in words_of(bench, batch)]
    last = [place for place, word in enumerate(words) if _is_last(word)]
    if last != [len(words) - 1]:
        said = ", ".join(type(word).__name__ for word in words) or "nothing"
        raise CheckFailedError(f"a batch has exactly one last answer; this one had: {said}")


def _is_last(word: Message) -> bool:
    return getattr(word, "is_last", True)


def batches_of(bench: Bench) -> list[Generate]:
    """All batches that were asked for."""
    return [asked for asked in bench.asked[HERE].values() if isinstance(asked, Generate)]


def measurement(bench: Bench, qubit: bytes) -> DoMeasure:
    """A measurement of a qubit, as soon as the device is free."""
    return DoMeasure(at_ns=bench.start_ns(), sequence=bench.next_sequence(), qubit=qubit, basis="Z")


def expect_refused(bench: Bench, operation: Generate | DoMeasure | DoGate, what: str) -> None:
    """Ask for what is wrong, and see it refused."""
    before = len(bench.heard)
    answer = bench.any_answer_to(operation)
    if isinstance(answer, OperationRefused):
        return
    words = [heard for heard in bench.heard[before:] if heard.node == HERE]
    said = type(answer or words[0].message).__name__ if answer or words else "nothing"
    raise CheckFailedError(f"{what} was answered by {said}; expected OperationRefused")
