"""The device interface: what a node asks of its quantum hardware, and what the hardware answers.

An operation carries the network time `at_ns` at which the device is to do it and a `sequence`
that counts the node's operations, so that operations have one order: (at_ns, node, sequence).
Operations without a result (gates, start and stop of attempts, release) are one-way; those with a
result answer at `at_ns` plus the duration the profile gives. The true quantum state never crosses
this interface.

The emulated device (`emulated.py`) sends the operations to the fabric, which answers later as a
peer. A driver in the node's process (`drivers/`) says itself when it has something to answer, and
is asked for it then. What each call must do and by when is in docs/drivers.md. A driver refuses
wrong use (an unknown qubit, a link that is not there) before anything reaches the hardware.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

from qstack.machine import Effect
from qstack.physical.service import Angle, AttemptKind, GateName, Rotation
from qstack.wire.frame import Layer
from qstack.wire.message import (
    Basis,
    Bit,
    BootId,
    Count,
    Id,
    Label,
    Message,
    Nanoseconds,
    Probability,
    Text,
)

Calibration = Count
"""How often the device, or the link, had been calibrated when the batch began: on the wire always,
here 0 if nobody counts. What was learned of pairs of another one need not hold for these."""
Picoseconds = Annotated[float, Meta(ge=-1e15, le=1e15)]
DeviceBasis = Basis | Literal["given"]
"""What a measure batch is read in: one basis, or for each pair one its node gives when asked."""


class Operation(Message, frozen=True, kw_only=True):
    """Base of what a node asks of its device."""

    LAYER = Layer.PHYSICAL
    at_ns: Nanoseconds
    sequence: Count


class Generate(Operation, frozen=True, kw_only=True):
    """GEN: attempt on `link` in every cycle from `first_cycle` on.

    `qubit` is the communication qubit if it is kept, nil if it is read. The station pairs it with
    the far end's oldest waiting Generate of equal token, kind and parameters. With the basis
    `given` each part of the batch asks for its bases by BasesWanted: which basis an end reads in
    does not change whether it detects, so choices for what was not detected need not be made.

    For `prepare` the end without a `qubit` reads in one `basis`, as it would to measure, and is
    answered by a MeasuredReply of one pair, its last; the other end keeps, and gets a Reply. What
    is read is turned by `rotation` before, without noise of a gate, whichever basis follows.
    """

    TYPE = 0x0001
    batch: Count
    link: Label
    token: Id
    kind: AttemptKind
    first_cycle: Count
    bright_state: Probability | None
    pairs: Annotated[int, Meta(ge=1, le=10**7)]
    basis: DeviceBasis | None
    qubit: Id | None
    rotation: Rotation | None = None


class StopGenerate(Operation, frozen=True, kw_only=True):
    """End a batch: attempts whose emission lies before `at_ns` are still in flight.

    One that is `given-up` (links with a named station only) wants nothing of those either.
    """

    TYPE = 0x0002
    batch: Count
    reason: Literal["stopped", "handed-over", "given-up"]


class GiveBases(Operation, frozen=True, kw_only=True):
    """The bases this node has drawn for a part of a batch, packed two bits each. One-way."""

    TYPE = 0x0008
    batch: Count
    part: Count
    bases: bytes


class Initialise(Operation, frozen=True, kw_only=True):
    """Prepare `qubit` (new or existing) in state 0. Result: Initialised."""

    TYPE = 0x0003
    qubit: Id


class DoGate(Operation, frozen=True, kw_only=True):
    """Apply a gate to one or two qubits of this node. One-way."""

    TYPE = 0x0004
    name: GateName
    qubits: Annotated[list[Id], Meta(min_length=1, max_length=2)]
    angle: Angle


class DoMeasure(Operation, frozen=True, kw_only=True):
    """Measure and end `qubit`. Result: Outcome."""

    TYPE = 0x0005
    qubit: Id
    basis: Basis


class DoBellMeasure(Operation, frozen=True, kw_only=True):
    """Bell-measure and end two qubits. Result: BellOutcome."""

    TYPE = 0x0006
    first: Id
    second: Id


class Release(Operation, frozen=True, kw_only=True):
    """End `qubit`. One-way."""

    TYPE = 0x0007
    qubit: Id


Place = Literal["communication", "storage"]
"""Where a qubit of a device with storage is."""


class DoMove(Operation, frozen=True, kw_only=True):
    """Move `qubit` to a free communication qubit, or from there to storage. One-way.

    Needed where two-qubit gates join only a communication qubit with another one.
    """

    TYPE = 0x000B
    qubit: Id
    to: Place


class Clear(Operation, frozen=True, kw_only=True):
    """End every qubit, batch and operation of this node: its physical layer begins anew.

    Result: Cleared. What the device says before that is of the former life. Herald sequences go
    on, for the link layer lives; `boot_id` is that of the new life of the physical layer.
    """

    TYPE = 0x0009
    boot_id: BootId


class Result(Message, frozen=True, kw_only=True):
    """Base of what a device answers; `operation` is the sequence of what it answers."""

    LAYER = Layer.PHYSICAL
    operation: Count


class Initialised(Result, frozen=True, kw_only=True):
    """The qubit is in state 0."""

    TYPE = 0x0021


class Outcome(Result, frozen=True, kw_only=True):
    """The reported measurement outcome."""

    TYPE = 0x0022
    outcome: Bit


class BellOutcome(Result, frozen=True, kw_only=True):
    """The reported Bell state of the two qubits."""

    TYPE = 0x0023
    x_bit: Bit
    z_bit: Bit


class PulsedOutcome(Outcome, frozen=True, kw_only=True):
    """The reported outcome of a qubit that was decoupled: what the hardware read.

    `pulses` is how many there have been since the qubit was initialised or emitted, or since the
    device last undid them. What that means for the outcome is the physical layer's to say.
    """

    TYPE = 0x002C
    pulses: Count


class PulsedBellOutcome(BellOutcome, frozen=True, kw_only=True):
    """The reported Bell state of two qubits that were decoupled; their pulses in their order."""

    TYPE = 0x002D
    pulses: tuple[Count, Count]


class Cleared(Result, frozen=True, kw_only=True):
    """There is nothing of the node in the device."""

    TYPE = 0x002A


class Calibrated(Result, frozen=True, kw_only=True):
    """The calibration is over. `calibration` is the link's now, a new one if it was good."""

    TYPE = 0x0032
    is_good: bool
    calibration: Calibration


class OperationRefused(Result, frozen=True, kw_only=True):
    """The operation cannot be done and changed nothing; `error` is a registry name."""

    TYPE = 0x0027
    error: Label
    detail: Text


class Reply(Message, frozen=True, kw_only=True):
    """REPLY of the heralding station: a batch that keeps succeeded at `cycle`, and has ended."""

    LAYER = Layer.PHYSICAL
    TYPE = 0x0024
    batch: Count
    herald_sequence: Count
    cycle: Count
    x_bit: Bit
    z_bit: Bit
    emitted_at_ns: Nanoseconds
    calibration: Calibration = 0


class MeasuredReply(Message, frozen=True, kw_only=True):
    """REPLY for a batch that is read: some of its pairs, packed as in MeasuredPairs."""

    LAYER = Layer.PHYSICAL
    TYPE = 0x0025
    batch: Count
    first_herald_sequence: Count
    pairs: Count
    outcomes: bytes
    x_bits: bytes
    z_bits: bytes
    bases: bytes
    emitted_at_ns: Nanoseconds
    is_last: bool
    calibration: Calibration = 0


class BasesWanted(Message, frozen=True, kw_only=True):
    """Something was detected `count` times: which bases does the node read it in?

    A receiver that may be blind asks for slots in which it then detects nothing, too: the reply has
    the bases of those it did. Answered by GiveBases with the number of the `part`, in the order of
    asking.
    """

    LAYER = Layer.PHYSICAL
    TYPE = 0x0028
    batch: Count
    part: Count
    count: Count


class DetectionReply(Message, frozen=True, kw_only=True):
    """What the receiver of a photon-pair link has detected; fields as in Detections."""

    LAYER = Layer.PHYSICAL
    TYPE = 0x0029
    batch: Count
    first_slot: Count
    until_slot: Count
    detections: Count
    slots: bytes
    outcomes: bytes
    bases: bytes
    is_last: bool
    calibration: Calibration = 0


class BatchEnded(Message, frozen=True, kw_only=True):
    """REPLY at the end of a batch that was stopped: no (further) success came of it."""

    LAYER = Layer.PHYSICAL
    TYPE = 0x0026
    batch: Count
    reason: Label
    attempts: Count


class SendPulse(Operation, frozen=True, kw_only=True):
    """Send a pulse over the fibre of `link`, and stamp it. One-way; PulseStamped at both ends.

    `pulse` is its number: the network time at which the exchange it is part of was begun.
    """

    TYPE = 0x0011
    link: Label
    pulse: Nanoseconds


class AlignClock(Operation, frozen=True, kw_only=True):
    """Time what is done on `link` so much earlier than this clock says, from now on. One-way.

    `offset_ps` is of `at_ns`, and grows by `rate_ppb` of the time since.
    """

    TYPE = 0x0012
    link: Label
    offset_ps: Picoseconds
    rate_ppb: Annotated[float, Meta(ge=-1e9, le=1e9)]


class Calibrate(Operation, frozen=True, kw_only=True):
    """Calibrate a link, while no batch is open on it. Result: Calibrated, after its duration.

    The ends do it together with the station: it is good if the far end does it at the same time.
    """

    TYPE = 0x0013
    link: Label


class ClockReading(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a hardware clock said, in whole nanoseconds and picoseconds beyond; an array of two."""

    ns: Annotated[int, Meta(ge=-(2**62), le=2**62)]
    ps: Annotated[int, Meta(ge=0, le=999)]

    @property
    def whole_ps(self) -> int:
        """In picoseconds."""
        return self.ns * 1000 + self.ps


class PulseStamped(Message, frozen=True, kw_only=True):
    """A pulse has left (`is_sent`), or has come from the far end, when this node's clock said so.

    `pulse` is the number its sender gave it.
    """

    LAYER = Layer.PHYSICAL
    TYPE = 0x0031
    link: Label
    pulse: Nanoseconds
    is_sent: bool
    reading: ClockReading


HealthState = Literal["ready", "degraded", "down"]


class DeviceHealth(Message, frozen=True, kw_only=True):
    """The device says how it is, unasked; `detail` is a sentence for a person.

    `down`: all qubits and batches are lost, nothing more is answered until it says otherwise.
    `degraded` is told in status and changes nothing else. After `down`, `ready` and `degraded`
    are a device that is there again, with no qubits.
    """

    LAYER = Layer.PHYSICAL
    TYPE = 0x002B
    state: HealthState
    detail: Text


MESSAGES = (
    Generate, StopGenerate, GiveBases, Initialise, DoGate, DoMeasure, DoBellMeasure, Release, Clear,
    Initialised, Outcome, BellOutcome, Cleared, OperationRefused, Reply, MeasuredReply, BasesWanted,
    DetectionReply, BatchEnded, DeviceHealth, DoMove, SendPulse, AlignClock, PulseStamped,
    Calibrate, Calibrated, PulsedOutcome, PulsedBellOutcome,
)  # fmt: skip


Answer = Message | Effect
"""What a device has to say: an answer, or something that has to be sent for it."""


class Device(Protocol):
    """A driver of quantum hardware; one node has one.

    It does no I/O and reads no clock: it is told the network time (`now`, ns) with every call, and
    says by `next_event_ns` when it wants to be asked again.
    """

    @property
    def peer(self) -> str:
        """The peer whose coming and going is the device's."""
        ...

    def begin(self, now: int) -> None:
        """The device is there (again): it has no qubits and no batches."""
        ...

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        """Take an operation, to be done at its `at_ns`; return what has to be sent for it."""
        ...

    def received(self, message: Message, now: int) -> Sequence[Answer]:
        """The peer has said something: what that means in answers."""
        ...

    def next_event_ns(self) -> int | None:
        """When `answers` should be called next; None: not before something else happens."""
        ...

    def answers(self, now: int) -> Sequence[Answer]:
        """Everything that is due at `now` or before, in order."""
        ...
