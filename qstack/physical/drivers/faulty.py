"""A device with a plan of faults around any other one, for tests of the layers above.

Each fault begins at a stated network time and most end at one. Nothing is drawn: a run with faults
is as repeatable as one without. What the device under it does it goes on doing; the faults are in
what is told of it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from qstack.machine import Effect
from qstack.physical.device import (
    AlignClock,
    Answer,
    BatchEnded,
    BellOutcome,
    ClockReading,
    DetectionReply,
    Device,
    DeviceHealth,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    Generate,
    Initialise,
    Initialised,
    MeasuredReply,
    Operation,
    Outcome,
    PulseStamped,
    Release,
    Reply,
    StopGenerate,
)
from qstack.wire.message import Bit, Message
from qstack.wire.packed import (
    pack_bases,
    pack_bits,
    pack_slots,
    unpack_bases,
    unpack_bits,
    unpack_slots,
)

OWN_SEQUENCES: Final = 2**52
"""Operations of the wrapper itself count from here: no node comes so far."""


class StuckDetector(Struct, frozen=True, kw_only=True):
    """Everything that is read at once is read as `outcome`."""

    at_ns: int
    until_ns: int
    outcome: Bit


class BurstLoss(Struct, frozen=True, kw_only=True):
    """The receiver of a photon-pair link detects nothing of what is emitted meanwhile."""

    at_ns: int
    until_ns: int


class LostHeralds(Struct, frozen=True, kw_only=True):
    """Heralds of kept pairs do not reach this end, whose batches end; the far end has its half.

    A driver must not do so: both ends count pairs by their heralds, and nothing repairs that.
    """

    at_ns: int
    until_ns: int


class ClockStep(Struct, frozen=True, kw_only=True):
    """The clock is ahead by so many slots from `at_ns` on, for good.

    What a receiver detects is in other slots; where clocks are compared, stamps and the light of
    attempts are ahead by so much, until the light is timed by a later comparison.
    """

    at_ns: int
    slots: int


class LeakedQubit(Struct, frozen=True, kw_only=True):
    """The oldest qubit there is at `at_ns` has left its two states: no gate acts, it reads 1."""

    at_ns: int


class Unwell(Struct, frozen=True, kw_only=True):
    """The device says that it is degraded, and at `until_ns` that it is ready."""

    at_ns: int
    until_ns: int
    detail: str


class Recalibration(Struct, frozen=True, kw_only=True):
    """The device has been calibrated: batches that begin from `at_ns` on say so."""

    at_ns: int


class Outage(Struct, frozen=True, kw_only=True):
    """The device is down, and there again at `until_ns`, with no qubits."""

    at_ns: int
    until_ns: int


Fault = (
    StuckDetector
    | BurstLoss
    | LostHeralds
    | ClockStep
    | LeakedQubit
    | Unwell
    | Recalibration
    | Outage
)


class FaultyDevice:
    """A device and its faults. Raises ValueError for a clock that steps back.

    (A driver never tells of a slot twice; one whose clock has stepped back must be silent.)
    """

    def __init__(
        self,
        device: Device,
        plan: Sequence[Fault],
        slot_ns: int = 1,
        timed_links: Sequence[str] = (),
    ) -> None:
        """`slot_ns` is that of the node's photon-pair links; `timed_links` compare clocks."""
        if any(isinstance(fault, ClockStep) and fault.slots <= 0 for fault in plan):
            raise ValueError("a clock steps forward, by at least one slot")
        self._device = device
        self._plan = plan
        self._slot_ns = slot_ns
        events = [
            each
            for each in plan
            if isinstance(each, LeakedQubit | Unwell | Outage)
            or (isinstance(each, ClockStep) and timed_links)
        ]
        self._alignments = {
            link: AlignClock(at_ns=0, sequence=0, link=link, offset_ps=0.0, rate_ppb=0.0)
            for link in timed_links
        }
        self._news = sorted(
            {at for each in events for at in (each.at_ns, getattr(each, "until_ns", each.at_ns))}
        )
        self._batches: dict[int, Generate] = {}
        self._lost_batches: dict[int, Generate] = {}  # open when everything ended
        self._qubits: dict[bytes, None] = {}
        self._asked: dict[int, Operation] = {}
        self._leaked: dict[bytes, None] = {}
        self._sequence = OWN_SEQUENCES
        self._is_down = False

    # --- the device interface ---------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """That of the device."""
        return self._device.peer

    def begin(self, now: int) -> None:
        """The device is there (again)."""
        self._forget()
        self._is_down = False
        self._device.begin(now)

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        """Pass it on, but for gates on what has leaked."""
        match operation:
            case Generate():
                self._batches[operation.batch] = operation
            case Initialise() | DoMeasure() | DoBellMeasure():
                self._asked[operation.sequence] = operation
            case Release():
                self._lose(operation.qubit)
            case DoGate() if any(qubit in self._leaked for qubit in operation.qubits):
                return []
            case AlignClock():
                self._alignments[operation.link] = operation
                operation = self._stepped(operation, now)
            case _:
                pass
        return self._device.submit(operation, now)

    def received(self, message: Message, now: int) -> list[Answer]:
        """What the peer means, with the faults of now."""
        return self._faulty(self._device.received(message, now), now)

    def next_event_ns(self) -> int | None:
        """That of the device, or when a fault begins or ends."""
        times = [self._device.next_event_ns(), self._news[0] if self._news else None]
        return min((each for each in times if each is not None), default=None)

    def answers(self, now: int) -> list[Answer]:
        """What is due, with the faults of now."""
        said = self._begin_faults(now)
        return [*said, *self._faulty(self._device.answers(now), now)]

    # --- faults that begin and end ----------------------------------------------------------------

    def _begin_faults(self, now: int) -> list[Answer]:
        said: list[Answer] = []
        while self._news and self._news[0] <= now:
            at_ns = self._news.pop(0)
            for fault in self._plan:
                match fault:
                    case LeakedQubit(at_ns=begins) if begins == at_ns and self._qubits:
                        self._leaked[next(iter(self._qubits))] = None
                    case Unwell(at_ns=begins, detail=detail) if begins == at_ns:
                        said.append(DeviceHealth(state="degraded", detail=detail))
                    case ClockStep(at_ns=begins) if begins == at_ns:
                        said += self._step_clock(now)
                    case Outage(at_ns=begins) if begins == at_ns:
                        said += self._fail(now)
                    case Outage(until_ns=ends) if ends == at_ns:
                        self._is_down = False
                        said.append(DeviceHealth(state="ready", detail=""))
                    case Unwell(until_ns=ends) if ends == at_ns and not self._is_down:
                        said.append(DeviceHealth(state="ready", detail=""))
                    case _:
                        pass
        return said

    def _step_clock(self, now: int) -> list[Answer]:
        """The light of every link goes ahead with the clock that times it."""
        said: list[Answer] = []
        for link, known in self._alignments.items():
            aligned = AlignClock(
                at_ns=now,
                sequence=self._next_sequence(),
                link=link,
                offset_ps=known.offset_ps + known.rate_ppb * (now - known.at_ns) * 1e-6,
                rate_ppb=known.rate_ppb,
            )
            self._alignments[link] = aligned
            said += self._device.submit(self._stepped(aligned, now), now)
        return said

    def _stepped(self, asked: AlignClock, now: int) -> AlignClock:
        """What the device under this one is to be told: its clock has not stepped."""
        return replace(asked, offset_ps=asked.offset_ps - 1000.0 * self._ahead_ns(now))

    def _ahead_ns(self, now: int) -> int:
        steps = [each for each in self._plan if isinstance(each, ClockStep) and each.at_ns <= now]
        return sum(step.slots for step in steps) * self._slot_ns

    def _fail(self, now: int) -> list[Answer]:
        """Everything ends; the far ends and the station see the batches stop."""
        said: list[Answer] = [DeviceHealth(state="down", detail="outage")]
        for batch in self._batches:
            stop = StopGenerate(
                at_ns=now, sequence=self._next_sequence(), batch=batch, reason="stopped"
            )
            said += self._device.submit(stop, now)
        for qubit in self._qubits:
            said += self._release(qubit, now)
        for operation in self._asked.values():
            if isinstance(operation, Initialise):  # it will be made all the same
                said += self._release(operation.qubit, max(now, operation.at_ns))
        self._forget()
        self._is_down = True
        return said

    # --- faults in what is said -------------------------------------------------------------------

    def _faulty(self, answers: Sequence[Answer], now: int) -> list[Answer]:
        said: list[Answer] = []
        for answer in answers:
            if not isinstance(answer, Message):
                said.append(answer)
            elif not self._is_down:
                said += self._changed(self._calibrated(answer), now)
            elif isinstance(answer, Reply):
                # It was in flight when everything ended: nobody knows of its qubit.
                said += self._orphan(answer, now)
        return said

    def _changed(self, answer: Message, now: int) -> list[Answer]:
        stuck = next((each for each in self._now(now) if isinstance(each, StuckDetector)), None)
        is_lost = any(isinstance(each, LostHeralds) for each in self._now(now))
        match answer:
            case Initialised():
                operation = self._asked.pop(answer.operation, None)
                if isinstance(operation, Initialise):
                    self._qubits[operation.qubit] = None
            case Reply():
                batch = self._batches.pop(answer.batch, None)
                if batch is None or batch.qubit is None:
                    return [answer]
                if is_lost:
                    ended = BatchEnded(batch=answer.batch, reason="stopped", attempts=0)
                    return [ended, *self._release(batch.qubit, now)]
                self._qubits[batch.qubit] = None
            case Outcome():
                return [self._read(answer, stuck)]
            case BellOutcome():
                return [self._read_both(answer)]
            case MeasuredReply() if stuck is not None:
                bits = np.full(answer.pairs, stuck.outcome, dtype=np.uint8)
                return [replace(answer, outcomes=pack_bits(bits))]
            case DetectionReply():
                return [self._detected(answer, stuck)]
            case BatchEnded():
                self._batches.pop(answer.batch, None)
            case PulseStamped():
                reading = answer.reading
                ahead = ClockReading(reading.ns + self._ahead_ns(now), reading.ps)
                return [replace(answer, reading=ahead)]
            case _:
                pass
        return [answer]

    def _calibrated(self, answer: Message) -> Message:
        """What is said of a batch, with its calibration."""
        match answer:
            case Reply() | MeasuredReply() | DetectionReply():
                times = self._recalibrations(answer.batch)
                return replace(answer, calibration=answer.calibration + times)
            case _:
                return answer

    def _recalibrations(self, batch: int) -> int:
        """How often the device had been calibrated by this plan when a batch began."""
        begun = self._batches.get(batch)
        return sum(
            isinstance(fault, Recalibration) and fault.at_ns <= begun.at_ns
            for fault in self._plan
            if begun is not None
        )

    def _read(self, outcome: Outcome, stuck: StuckDetector | None) -> Outcome:
        operation = self._asked.pop(outcome.operation, None)
        assert isinstance(operation, DoMeasure), "an outcome answers a measurement"
        if operation.qubit in self._leaked:
            outcome = replace(outcome, outcome=1)
        elif stuck is not None:
            outcome = replace(outcome, outcome=stuck.outcome)
        self._lose(operation.qubit)
        return outcome

    def _read_both(self, outcome: BellOutcome) -> BellOutcome:
        operation = self._asked.pop(outcome.operation, None)
        assert isinstance(operation, DoBellMeasure), "a Bell outcome answers a Bell measurement"
        if operation.first in self._leaked:
            outcome = replace(outcome, z_bit=1)
        if operation.second in self._leaked:
            outcome = replace(outcome, x_bit=1)
        self._lose(operation.first)
        self._lose(operation.second)
        return outcome

    def _detected(self, reply: DetectionReply, stuck: StuckDetector | None) -> DetectionReply:
        """Slots emitted in a burst of loss are missing; the others are told by this clock."""
        if reply.is_last:
            self._batches.pop(reply.batch, None)
        slots = unpack_slots(reply.slots, reply.first_slot)
        kept = np.ones(len(slots), dtype=np.bool_)
        for fault in self._plan:
            if isinstance(fault, BurstLoss):
                times_ns = slots * self._slot_ns
                kept &= (times_ns < fault.at_ns) | (times_ns >= fault.until_ns)
        outcomes = unpack_bits(reply.outcomes, len(slots))[kept]
        if stuck is not None:
            outcomes = np.full(len(outcomes), stuck.outcome, dtype=np.uint8)
        bases = reply.bases
        if bases:
            bases = pack_bases(unpack_bases(bases, len(slots))[kept])
        begun_ns = reply.first_slot * self._slot_ns
        ahead = sum(
            fault.slots
            for fault in self._plan
            if isinstance(fault, ClockStep) and fault.at_ns <= begun_ns
        )
        return replace(
            reply,
            first_slot=reply.first_slot + ahead,
            until_slot=reply.until_slot + ahead,
            detections=int(kept.sum()),
            slots=pack_slots(slots[kept], reply.first_slot),
            outcomes=pack_bits(outcomes),
            bases=bases,
        )

    # --- parts ------------------------------------------------------------------------------------

    def _now(self, now: int) -> list[Fault]:
        """The faults of now that have an end."""
        return [
            fault for fault in self._plan if fault.at_ns <= now < getattr(fault, "until_ns", -1)
        ]

    def _orphan(self, reply: Reply, now: int) -> list[Answer]:
        batch = self._lost_batches.pop(reply.batch, None)
        return [] if batch is None or batch.qubit is None else self._release(batch.qubit, now)

    def _release(self, qubit: bytes, at_ns: int) -> list[Answer]:
        release = Release(at_ns=at_ns, sequence=self._next_sequence(), qubit=qubit)
        return [*self._device.submit(release, at_ns)]

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _lose(self, qubit: bytes) -> None:
        self._qubits.pop(qubit, None)
        self._leaked.pop(qubit, None)

    def _forget(self) -> None:
        self._lost_batches = {**self._batches}
        self._batches.clear()
        self._qubits.clear()
        self._asked.clear()
        self._leaked.clear()
