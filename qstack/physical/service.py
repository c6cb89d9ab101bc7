"""What the physical layer offers upward.

Two parts. `attempts` (heralded entanglement with a neighbour) is used by the link layer only.
`qubits` (allocate, gate, measure, Bell measurement, free, transfer) may be used by link, network,
transport and application sessions: whoever owns the qubit.

Every qubit has one owner: a layer's name or an application session. Calls carry a number chosen
by the caller, unique among its open calls; each call ends in exactly one answer with that number.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from qstack.wire.frame import Layer
from qstack.wire.message import (
    Basis,
    BasisChoice,
    Bit,
    Count,
    Id,
    Label,
    Message,
    Name,
    Nanoseconds,
    Probability,
    Text,
)

LAYER: Final = "physical"
"""The physical layer's name as an owner."""

Angle = Annotated[float, Meta(ge=-1000.0, le=1000.0)]
"""A rotation angle in radians."""
NO_DECAY_S: Final = 1e9
"""A time constant of memory this long stands for none."""
MemoryTime = Annotated[float, Meta(gt=0.0, le=NO_DECAY_S)]
GateName = Literal["h", "x", "y", "z", "s", "t", "rx", "ry", "rz", "cnot", "cz"]
Kind = Literal["keep", "measure"]
AttemptKind = Literal["keep", "measure", "prepare"]
"""What attempts are for. `prepare` (remote state preparation): the qubit of one end is read at
once, which prepares the state of the other end's, which is kept."""
Pairing = Literal["heralds", "slots"]
"""How both ends know their pairs: a station heralds them, or they compare detected slots."""


class Rotation(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is done to a qubit before it is read: turned about X, then about Y, then about X again.

    Angles in radians, exp(-i angle P / 2); on the wire an array of three. ROTX1, ROTY, ROTX2 of
    draft-dahlberg-ll-quantum-03, where they count in 256 parts of a turn.
    """

    x1_rad: Angle
    y_rad: Angle
    x2_rad: Angle


class _Physical(Message, frozen=True, kw_only=True):
    LAYER = Layer.PHYSICAL


# --- attempts: used by the link layer only ------------------------------------------------------


class RoundForecast(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What test rounds of an option should show: pairs that both ends read in one basis.

    On the wire an array of four. The basis is X, Y or Z, each as likely. `agreement`: the
    probability that the outcomes are those of the announced Bell state, readout errors and the
    decay until a prompt reading included; `least` the same of the latest reading that counts,
    of which the answer is there `read_by_ns` after the emission. The
    fidelity of the pairs is above the promised one by 3/2 of what the agreement is above
    `agreement`, divided by `gain`: what readout and decay leave of a correlation.
    """

    agreement: Probability
    least: Probability
    gain: Probability
    read_by_ns: Nanoseconds


class MeasuredForecast(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What pairs of an option that are measured at once should show, where both ends read alike.

    On the wire an array of two. `agreements`: the probabilities, in X, Y and Z, that the outcomes
    are those of the announced Bell state, readout errors included; `gain`: what readout leaves of
    a correlation.
    """

    agreements: Annotated[list[Probability], Meta(min_length=3, max_length=3)]
    gain: Probability


class GenerationOption(_Physical, frozen=True, kw_only=True):
    """One way to run a link: what an attempt yields with it.

    `bell_probabilities` are those of the announced herald in the order (x, z) = 00, 01, 10, 11
    after the announced Bell state has been moved to phi+: fidelity first. A link that pairs by
    slots: `probability` is that of a coincidence in a slot (`cycle_ns`), the Bell probabilities
    those of the Werner pair with the error rate of the coincidences, F = (1 + 3 (1 - 2 E)) / 4.
    `test_round` is nil where pairs cannot be kept, and it or `measured_round` where a reading tells
    next to nothing of them.
    """

    TYPE = 0x0100
    bright_state: Probability | None  # single-click only
    probability: Probability
    cycle_ns: Nanoseconds
    measure_cycle_ns: Nanoseconds
    bell_probabilities: Annotated[list[Probability], Meta(min_length=4, max_length=4)]
    test_round: RoundForecast | None = None
    measured_round: MeasuredForecast | None = None


class LinkCapability(_Physical, frozen=True, kw_only=True):
    """Indication to the link layer, when the device is ready: what the link to `peer` can do.

    `kinds` is what may be asked of it. `slots` is how many pairs with this peer may be in the
    making or waiting at once here (of a link that pairs by slots: how many batches).
    From `opens_ns` until before `until_ns` it can be used, now or next (0: always).
    """

    TYPE = 0x0101
    link: Label
    peer: Name
    kinds: Annotated[list[AttemptKind], Meta(min_length=1, max_length=3)]
    pairing: Pairing
    options: Annotated[list[GenerationOption], Meta(max_length=32)]
    slots: Count
    delay_ns: Nanoseconds
    opens_ns: Nanoseconds = 0
    until_ns: Nanoseconds = 0


class LinkOptions(_Physical, frozen=True, kw_only=True):
    """Indication to the link layer: what the link to `peer` yields now.

    The device is the same one; what it is attempting goes on. The window is as in LinkCapability.
    """

    TYPE = 0x0110
    peer: Name
    options: Annotated[list[GenerationOption], Meta(min_length=1, max_length=32)]
    opens_ns: Nanoseconds = 0
    until_ns: Nanoseconds = 0


class LinkCare(_Physical, frozen=True, kw_only=True):
    """Indication to the link layer: the link to `peer` drifts, and is to be calibrated.

    Every `period_ns`; it takes `duration_ns`, of both ends at once. `is_due`: now, for the device
    says that it is not well.
    """

    TYPE = 0x0111
    peer: Name
    period_ns: Nanoseconds
    duration_ns: Nanoseconds
    is_due: bool


class CalibrateLink(_Physical, frozen=True, kw_only=True):
    """Calibrate the link to `peer`; no batch is open on it. Answered by LinkCalibrated.

    Attempts go on at `until_ns`, whatever has come of it.
    """

    TYPE = 0x0112
    peer: Name
    until_ns: Nanoseconds


class LinkCalibrated(_Physical, frozen=True, kw_only=True):
    """Answer to CalibrateLink: it is over. A good one has a new number, as heralds from now on."""

    TYPE = 0x0113
    peer: Name
    is_good: bool
    calibration: Count


class NodeCapability(_Physical, frozen=True, kw_only=True):
    """Indication to the network layer, when the device is ready: what a swap here costs.

    `swap_depolarising`: probability with which a swap's two-qubit gate replaces the pair by the
    maximally mixed state. `gate_depolarising`: probability with which a one-qubit gate so treats
    its qubit; a swap's leaves its z bit to chance. `swap_flip`: probability that readout reports a
    Bell bit wrongly, per bit. 10^9 s stand for a memory that does not decay: numbers are finite.
    """

    TYPE = 0x0102
    memory: Count
    swap_ns: Nanoseconds
    swap_depolarising: Probability
    gate_depolarising: Probability
    swap_flip: Probability
    t1_s: MemoryTime
    t2_s: MemoryTime


class AttemptsStart(_Physical, frozen=True, kw_only=True):
    """Attempt on `link` in every cycle from now on until success, stop or end of device.

    The far end must attempt with an equal `token`. `batch` names this call here. For `measure`
    up to `pairs` pairs are made in one batch and read at once in `basis`, or each in a basis this
    node draws. On a link that pairs by slots the batch goes on until it is stopped, for its device
    knows no pairs; `pairs` says then how soon something is to be heard of.

    For `prepare` the end that has a `basis` reads its qubit, which is answered by MeasuredPairs,
    and the end that has none keeps it, which is answered by Heralded; `pairs` is 1. With a
    `rotation` what is read is turned before, also where the basis is drawn.

    Of a pair that is to wait the asker may want to know how long it stays as good as
    `fidelity_floor`: then the answer says `good_until_ns`, alike at both ends.
    """

    TYPE = 0x0103
    batch: Count
    link: Label
    token: Id
    kind: AttemptKind
    bright_state: Probability | None
    pairs: Annotated[int, Meta(ge=1, le=10**7)]
    basis: BasisChoice | None
    rotation: Rotation | None = None
    fidelity_floor: Probability | None = None


class AttemptsStop(_Physical, frozen=True, kw_only=True):
    """End a batch. Attempts in flight may still herald; the batch is answered by AttemptsEnded."""

    TYPE = 0x0104
    batch: Count


class Heralded(_Physical, frozen=True, kw_only=True):
    """Indication: an attempt succeeded, its batch has ended, `qubit` is kept and link's.

    `herald_sequence` counts the successes of the link, alike at both ends. `emitted_at_ns` is the
    earlier emission of the two qubits. `good_until_ns` is when the pair's predicted fidelity falls
    below the floor that was asked for; None if there was none, or that is never.
    """

    TYPE = 0x0105
    batch: Count
    qubit: Id
    herald_sequence: Count
    cycle: Count
    x_bit: Bit
    z_bit: Bit
    emitted_at_ns: Nanoseconds
    goodness: Probability
    calibration: Count = 0  # how often the device had been calibrated when the batch began
    good_until_ns: Nanoseconds | None = None


class MeasuredPairs(_Physical, frozen=True, kw_only=True):
    """Indication: `pairs` more pairs that were read, in order of their herald sequence.

    `outcomes`, `x` and `z` are packed bits, first pair in the highest bit of the first byte.
    `bases` are those of this end where they were drawn (`qstack.wire.packed`: two bits a pair),
    empty where the basis is fixed. `is_last` says that the batch has ended with these.
    `good_until_ns` is that of the far end's qubit for `prepare`, as in Heralded.
    """

    TYPE = 0x0106
    batch: Count
    first_herald_sequence: Count
    pairs: Count
    outcomes: bytes
    x_bits: bytes
    z_bits: bytes
    bases: bytes
    emitted_at_ns: Nanoseconds  # of the last pair
    is_last: bool
    calibration: Count = 0  # how often the device had been calibrated when the batch began
    good_until_ns: Nanoseconds | None = None


class Detections(_Physical, frozen=True, kw_only=True):
    """Indication: what this end's receiver has detected in the slots [first_slot, until_slot).

    Slots are numbered from network time 0, alike at both ends, by when they were emitted. `slots`,
    `outcomes` and `bases` are packed (`qstack.wire.packed`), the slots as distances from
    `first_slot`; `bases` is empty where the basis is fixed. Where both detectors clicked the
    outcome is a fair coin's. Indications follow one another in the order of their slots, which
    never overlap. `is_last` says that the batch has ended with these.
    """

    TYPE = 0x010B
    batch: Count
    first_slot: Count
    until_slot: Count
    detections: Count
    slots: bytes
    outcomes: bytes
    bases: bytes
    is_last: bool
    calibration: Count = 0  # how often the device had been calibrated when the batch began


class AttemptsEnded(_Physical, frozen=True, kw_only=True):
    """Indication: the batch ended without (further) success after `attempts` attempts.

    Reasons: `stopped`, `no-memory` (never begun; `MemoryFree` will follow), `handed-over` (the
    communication qubit went to another link), `device` (the device, or the link's station, has
    gone), `refused` (no such link here, or the values do not fit it), `station` (the link's station
    heralds nothing of this batch; another one may do better).
    """

    TYPE = 0x0107
    batch: Count
    reason: Literal["stopped", "no-memory", "handed-over", "device", "refused", "station"]
    attempts: Count


class MemoryFree(_Physical, frozen=True, kw_only=True):
    """Indication to the link layer: memory refused before may be had now."""

    TYPE = 0x0108


class DeviceLost(_Physical, frozen=True, kw_only=True):
    """Indication to everybody: the device has gone; every qubit and open call with it."""

    TYPE = 0x0109


class DeviceReady(_Physical, frozen=True, kw_only=True):
    """Indication to everybody: the device is there (again), with no qubits."""

    TYPE = 0x010A


class LinkLost(_Physical, frozen=True, kw_only=True):
    """Indication to the link layer: `link` cannot be run any more, for `error` (a registry name).

    Its batches have ended; qubits made with it live on. LinkCapability says when it can be again.
    """

    TYPE = 0x0150
    link: Label
    error: Label


class HeraldsMissed(_Physical, frozen=True, kw_only=True):
    """Indication to the link layer: successes with sequences in [low, high) were not heard here.

    The far end may have heard them, and must not take them for pairs: the link begins anew.
    """

    TYPE = 0x0151
    link: Label
    low: Count
    high: Count


# --- qubits: for whoever owns them ---------------------------------------------------------------


class Allocate(_Physical, frozen=True, kw_only=True):
    """Ask for a fresh qubit in state 0; answered by Allocated."""

    TYPE = 0x0120
    call: Count


class ApplyGate(_Physical, frozen=True, kw_only=True):
    """Apply a gate; `angle` is 0 for gates without one. Answered by CallDone.

    With `call` absent (None) no answer is given.
    """

    TYPE = 0x0121
    call: Count | None
    name: GateName
    qubits: Annotated[list[Id], Meta(min_length=1, max_length=2)]
    angle: Angle


class Measure(_Physical, frozen=True, kw_only=True):
    """Measure a qubit, which ends it; answered by Measured."""

    TYPE = 0x0122
    call: Count
    qubit: Id
    basis: Basis


class BellMeasure(_Physical, frozen=True, kw_only=True):
    """Bell-measure two qubits, which ends both; answered by BellMeasured."""

    TYPE = 0x0123
    call: Count
    first: Id
    second: Id


class Reset(_Physical, frozen=True, kw_only=True):
    """Bring a qubit back to state 0; answered by CallDone."""

    TYPE = 0x0124
    call: Count
    qubit: Id


class Free(_Physical, frozen=True, kw_only=True):
    """End a qubit. No answer; freeing what is gone is not an error."""

    TYPE = 0x0125
    qubit: Id


class Transfer(_Physical, frozen=True, kw_only=True):
    """Give a qubit to another owner; refused with CallFailed if `call` is given, else silently."""

    TYPE = 0x0126
    call: Count | None
    qubit: Id
    to: Label


class Move(_Physical, frozen=True, kw_only=True):
    """Bring a qubit to a communication qubit, or from there to storage; answered by CallDone.

    One that is there stays as it is. CallFailed with UNSUPPORTED where there is no storage, with
    NO_RESOURCES where no communication qubit is free. With `call` absent no answer is given.
    """

    TYPE = 0x0128
    call: Count | None
    qubit: Id
    to: Literal["communication", "storage"]


class QubitsFreed(_Physical, frozen=True, kw_only=True):
    """Indication to the transport layer: `owner` has ended, and with it these qubits."""

    TYPE = 0x0127
    owner: Label
    qubits: list[Id]


class Allocated(_Physical, frozen=True, kw_only=True):
    """Answer to Allocate."""

    TYPE = 0x0130
    call: Count
    qubit: Id


class CallDone(_Physical, frozen=True, kw_only=True):
    """Answer to a call without a result."""

    TYPE = 0x0131
    call: Count


class Measured(_Physical, frozen=True, kw_only=True):
    """Answer to Measure."""

    TYPE = 0x0132
    call: Count
    outcome: Bit


class BellMeasured(_Physical, frozen=True, kw_only=True):
    """Answer to BellMeasure: the two bits of the outcome."""

    TYPE = 0x0133
    call: Count
    x_bit: Bit
    z_bit: Bit


class CallFailed(_Physical, frozen=True, kw_only=True):
    """Answer to a call that cannot be done; `error` is a registry name."""

    TYPE = 0x0134
    call: Count
    error: Label
    detail: Text


MESSAGES = (
    GenerationOption, LinkCapability, NodeCapability, AttemptsStart, AttemptsStop, Heralded,
    MeasuredPairs, Detections, AttemptsEnded, MemoryFree, DeviceLost, DeviceReady, LinkLost,
    HeraldsMissed, Allocate, ApplyGate, Measure, BellMeasure, Reset, Free, Transfer, QubitsFreed,
    Allocated, CallDone, Measured, BellMeasured, CallFailed, LinkOptions, LinkCare, CalibrateLink,
    LinkCalibrated, Move,
)  # fmt: skip
