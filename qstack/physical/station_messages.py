"""The peer protocol of the physical layer: nodes and heralding stations that have a name.

After the midpoint heralding protocol (MHP) of Dahlberg et al., SIGCOMM'19. A node says GEN when it
begins to attempt, not with each attempt, and the station answers with REPLY when an attempt
succeeded, when something is wrong, or when a batch is over.

    alice                     station                      bob
      | -- Gen(batch 4, token) ->|<- Gen(batch 9, token) -- |   both attempt, in common cycles
      |                          |  its detectors click     |
      | <- Reply(batch 4, seq) --|-- Reply(batch 9, seq) -> |   the batch is over at both ends

A batch that is measured makes many pairs, and the station says in bulk which cycles were heralded,
and for which Bell state (`Heralds`): each end then takes what it has read in those cycles. No
outcome and no basis is ever said to a station.

Rules
1. A GEN ends in exactly one REPLY that names its batch: a success, the last of its Heralds, an
   error, or `ended` after GenEnd. GenEnd of a batch the station does not know is answered too.
2. Successes of a link are counted by its station: `sequence` names the pair at both ends and is
   never used twice, whatever dies (a station begins at the network time at which it comes up).
   Every other REPLY says the sequence the next success will have, so that a lost one is noticed.
3. An error is told to both ends: the end that has no batch of that token, as far as the station
   knows, hears it with `batch` nil. If it has one its GEN was lost: it ends it and begins anew.
4. A link that drifts is calibrated by both ends and the station at once. An end says Calibrating
   when it attempts nothing any more; when both have, the station does its part, and tells both by
   StationCalibrated what came of it, with the new number. It watches nothing meanwhile.
5. Cycles are numbered from network time 0, alike at both ends: cycle n begins at n x cycle time.
"""

from typing import Annotated, Literal

from msgspec import Meta

from qstack.physical.params import HERALDS_MAX
from qstack.physical.service import AttemptKind
from qstack.wire.frame import Layer
from qstack.wire.message import Bit, Count, Id, Label, Message, Nanoseconds, Probability

StationError = Literal["QUEUE_MISMATCH", "NO_CLASSICAL_OTHER", "OUT_OF_WINDOW", "GENERAL", "LOCAL"]
"""What can be wrong with a GEN; the names are in the error registry."""
Sequence = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""The number of a success of a link; the one after it is a Count, too."""
Outcome = Literal["success", "ended"] | StationError


class _Station(Message, frozen=True, kw_only=True):
    LAYER = Layer.PHYSICAL


class Gen(_Station, frozen=True, kw_only=True):
    """Node to station: I attempt on `link` in every cycle from `first_cycle` on.

    `token` is the absolute queue id, equal at both ends; `batch` is the sender's own name of it.
    `count` cycles, or until GenEnd (nil). `bright_state`: the population, single-click only.
    `pairs` are wanted: one, but of those that are measured.
    """

    TYPE = 0x0201
    link: Label
    batch: Count
    token: Id
    kind: AttemptKind
    first_cycle: Count
    count: Annotated[int, Meta(ge=1, le=2**53)] | None
    bright_state: Probability | None
    pairs: Annotated[int, Meta(ge=1, le=10**7)]


class GenEnd(_Station, frozen=True, kw_only=True):
    """Node to station: the attempts of `batch` end before `until_cycle`; those made may herald.

    `error`: the device failed to generate (LOCAL), and nothing will come of the batch.
    """

    TYPE = 0x0202
    link: Label
    batch: Count
    until_cycle: Count
    error: Literal["LOCAL"] | None


class Reply(_Station, frozen=True, kw_only=True):
    """Station to both nodes: what came of a batch, which is over.

    `success` in `cycle` with the Bell state (x_bit, z_bit), the `sequence`-th of the link; `ended`
    after `attempts` cycles without one; or an error. `token` is that of the batch, where it is
    known. `calibration` is the number of the link's last calibration, as far as the station knows.
    Fields that do not apply are 0.
    """

    TYPE = 0x0203
    link: Label
    batch: Count | None
    token: Id | None
    outcome: Outcome
    sequence: Sequence
    cycle: Count
    x_bit: Bit
    z_bit: Bit
    attempts: Count
    calibration: Count


class Heralds(_Station, frozen=True, kw_only=True):
    """Station to both nodes: `pairs` cycles of a batch that is measured were heralded.

    `cycles` are packed as distances from `first_cycle` (`qstack.wire.packed`), ascending; `x_bits`
    and `z_bits` are packed bits, in the same order. The pairs are those of the link's successes
    from `sequence` on. `is_last`: the batch is over; else it goes on, with no GEN said again.
    """

    TYPE = 0x0204
    link: Label
    batch: Count
    sequence: Sequence
    pairs: Annotated[int, Meta(ge=1, le=HERALDS_MAX)]
    first_cycle: Count
    cycles: bytes
    x_bits: bytes
    z_bits: bytes
    is_last: bool
    calibration: Count


class Calibrating(_Station, frozen=True, kw_only=True):
    """Node to station: my part of a calibration of `link` begins, which is over by `until_ns`."""

    TYPE = 0x0205
    link: Label
    until_ns: Nanoseconds


class StationCalibrated(_Station, frozen=True, kw_only=True):
    """Station to both nodes: what came of its part, and how often the link has been calibrated.

    It is good if all three parts are; an end that says Calibrating in vain is told that it is not.
    """

    TYPE = 0x0206
    link: Label
    is_good: bool
    calibration: Count


MESSAGES = (Gen, GenEnd, Reply, Heralds, Calibrating, StationCalibrated)
