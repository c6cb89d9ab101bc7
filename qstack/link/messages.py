"""What the link layer says to the link layer at the other end of a link.

The distributed queue (after the DQP of Dahlberg et al., SIGCOMM'19): the end with the smaller
node name is master and gives out queue numbers. Every message is part of a conversation
(`conversation.py`), which makes it come exactly once and in order, whatever the channel does.
"""

from typing import Annotated

from msgspec import Meta, Struct

from qstack.link.params import MEASURED_OUTCOMES_MAX, OUTCOMES_MAX, SLOTS_PART_MAX
from qstack.link.service import Number, Priority
from qstack.physical.service import AttemptKind, Kind, Rotation
from qstack.wire.frame import Layer
from qstack.wire.message import (
    BasisChoice,
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
from qstack.wire.packed import SLOT_BYTES


class Place(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a message stands in a conversation; on the wire an array of four.

    `own` and `far` are the sender's and the receiver's number of the conversation, `sequence` is
    that of the message among those of its sender, and the sender has heard the first `heard`
    messages of the receiver.
    """

    own: Count
    far: Count
    sequence: Count
    heard: Count


class LinkMessage(Message, frozen=True, kw_only=True):
    """Base of what one link layer says to another. The conversation sets `at`."""

    LAYER = Layer.LINK
    at: Place = Place(0, 0, 0, 0)


class Add(LinkMessage, frozen=True, kw_only=True):
    """Put a request into the queue both ends share.

    `queue_number` and `virtual_ns` (`queue.Place`) are nil from the slave, which learns them from
    the answer. Bases are as the
    receiver sees them: `basis` is what the receiver measures in, `rotation` what it does before.
    For kind `prepare` nothing is said of bases: the sender alone reads. Both ends attempt from
    `start_ns` on, when the answer can be back; the sender does not wait for it any longer. `device`
    is the receiver's of which the sender knows, from its latest Ready: for another one the request
    is rejected, because the sender is about to learn that all it has on the link is void.
    `bright_state` is that of the option the sender has chosen: where test rounds have lowered one,
    the ends may know of it at different times. `is_tested`: a share of its pairs is sacrificed to
    test rounds of measured pairs.
    """

    TYPE = 0x0001
    request: Id
    queue_number: Count | None
    virtual_ns: Nanoseconds | None
    purpose: Id
    kind: AttemptKind
    number: Number | None
    min_fidelity: Probability
    deadline_ns: Nanoseconds
    priority: Priority
    basis: BasisChoice | None
    peer_basis: BasisChoice | None
    start_ns: Nanoseconds
    device: Count
    atomic: bool
    consecutive: bool
    bright_state: Probability | None
    rotation: Rotation | None = None
    is_tested: bool = False


class AddAccepted(LinkMessage, frozen=True, kw_only=True):
    """The request has its place."""

    TYPE = 0x0002
    request: Id
    queue_number: Count
    virtual_ns: Nanoseconds


class AddRejected(LinkMessage, frozen=True, kw_only=True):
    """The request is not taken; `error` is a registry name, `best` the fidelity to be had."""

    TYPE = 0x0003
    request: Id
    error: Label
    detail: Text
    best: Probability | None


class Remove(LinkMessage, frozen=True, kw_only=True):
    """The request has ended at the sender, with this error."""

    TYPE = 0x0004
    request: Id
    error: Label
    detail: Text


class Expire(LinkMessage, frozen=True, kw_only=True):
    """Pairs with herald sequences in [low, high) that the receiver may have announced are void."""

    TYPE = 0x0005
    low: Count
    high: Count


class Error(LinkMessage, frozen=True, kw_only=True):
    """Your message of type `about` broke a rule; nothing of it was done."""

    TYPE = 0x0006
    name: Label
    detail: Text
    about: Annotated[int, Meta(ge=0, le=0xFFFF)]


class Ready(LinkMessage, frozen=True, kw_only=True):
    """The sender's device can have `slots` pairs with the receiver at once.

    With 0 it has gone: every request on the link has ended, every pair is void. A sender whose
    device is there says a number above 0. `device` counts the devices the sender has had. `room` is
    how many of them can be in the making while its memory is full; nil: as many as `slots`.
    """

    TYPE = 0x0007
    slots: Count
    device: Count
    room: Count | None = None


class DetectedSlots(LinkMessage, frozen=True, kw_only=True):
    """Of a request on a photon-pair link: the slots in which the sender detected something.

    They are all of its slots in [first_slot, until_slot), as distances from `first_slot`
    (`qstack.wire.packed`). Parts follow one another and never overlap. No basis, no outcome.
    """

    TYPE = 0x0008
    request: Id
    first_slot: Count
    until_slot: Count
    slots: Annotated[bytes, Meta(max_length=SLOT_BYTES * SLOTS_PART_MAX)]


class Open(LinkMessage, frozen=True, kw_only=True):
    """The sender begins conversation `number` with the receiver's life `peer_boot_id`.

    `boot_id` is the sender's own life. `answers` is the highest number it knows of the receiver's
    in that life; nil while it knows none. `slots` and `device` are those of the Ready it would say,
    which follows: so a link is up after half a round trip. `at` means nothing.
    """

    TYPE = 0x0009
    boot_id: BootId
    peer_boot_id: BootId
    number: Count
    answers: Count | None
    slots: Count
    device: Count


class Ack(LinkMessage, frozen=True, kw_only=True):
    """Nothing but how much was heard (`at.heard`); has no sequence number of its own."""

    TYPE = 0x000A


class Maintain(LinkMessage, frozen=True, kw_only=True):
    """Let us calibrate, and make no attempts in [start_ns, end_ns) of network time."""

    TYPE = 0x0010
    start_ns: Nanoseconds
    end_ns: Nanoseconds


class MaintainAnswer(LinkMessage, frozen=True, kw_only=True):
    """The window that begins at `start_ns` is taken, or it does not suit."""

    TYPE = 0x0011
    start_ns: Nanoseconds
    is_taken: bool


class RoundOutcomes(LinkMessage, frozen=True, kw_only=True):
    """What the slave read in test rounds: of each its herald sequence and the outcome.

    Both ends know which pairs are sacrificed, and the basis of each; a round that came to nothing
    at the sender is left out.
    """

    TYPE = 0x0012
    sequences: Annotated[list[Count], Meta(min_length=1, max_length=OUTCOMES_MAX)]
    outcomes: Annotated[list[Bit], Meta(min_length=1, max_length=OUTCOMES_MAX)]


Rounds = Annotated[list[Count], Meta(min_length=3, max_length=3)]


class MeasuredOutcomes(LinkMessage, frozen=True, kw_only=True):
    """What the slave read in test rounds of measured pairs, and in which bases; in bulk.

    `sequences` are unsigned integers of eight bytes, big-endian: herald sequences, or slots.
    `outcomes` and `bases` are packed (`qstack.wire.packed`).
    """

    TYPE = 0x0014
    sequences: Annotated[bytes, Meta(min_length=8, max_length=8 * MEASURED_OUTCOMES_MAX)]
    outcomes: Annotated[bytes, Meta(max_length=MEASURED_OUTCOMES_MAX // 8)]
    bases: Annotated[bytes, Meta(max_length=MEASURED_OUTCOMES_MAX // 4)]


class OptionRounds(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Recent test rounds of one option, and how many agreed, in X, Y and Z; an array of five.

    `offered` is the fidelity offered under an alarm; nil: as promised. `kind` is that of the
    requests whose pairs they are.
    """

    bright_state: Probability | None
    rounds: Rounds
    agreeing: Rounds
    offered: Probability | None
    kind: Kind


class RoundReport(LinkMessage, frozen=True, kw_only=True):
    """From the master: all it knows by test rounds. What the slave knew before is void."""

    TYPE = 0x0013
    options: Annotated[list[OptionRounds], Meta(max_length=64)]


MESSAGES = (
    Add, AddAccepted, AddRejected, Remove, Expire, Error, Ready, DetectedSlots, Open, Ack,
    Maintain, MaintainAnswer,
    RoundOutcomes, RoundReport, MeasuredOutcomes,
)  # fmt: skip
