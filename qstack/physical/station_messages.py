"""The peer protocol of the physical layer: nodes and heralding stations that have a name.

After the midpoint heralding protocol (MHP) of Dahlberg et al., SIGCOMM'19. A node says GEN when it
begins to attempt, not with each attempt, and the station answers with REPLY when an attempt
succeeded, when something is wrong, or when a batch is over.

    alice                     station                      bob
      | -- Gen(batch 4, token) ->|<- Gen(batch 9, token) -- |   both attempt, in common cycles
      |                          |  its detectors click     |
      | <- Reply(batch 4, seq) --|-- Reply(batch 9, seq) -> |   the batch is over at both ends

Rules
1. A GEN ends in exactly one REPLY that names its batch: a success, an error, or `ended` after
   GenEnd. GenEnd of a batch the station does not know is answered too.
2. Successes of a link are counted by its station: `sequence` names the pair at both ends and is
   never used twice, whatever dies (a station begins at the network time at which it comes up).
   Every other REPLY says the sequence the next success will have, so that a lost one is noticed.
3. An error is told to both ends: the end that has no batch of that token, as far as the station
   knows, hears it with `batch` nil. If it has one its GEN was lost: it ends it and begins anew.
4. Cycles are numbered from network time 0, alike at both ends: cycle n begins at n x cycle time.
"""

from typing import Annotated, Literal

from msgspec import Meta

from qstack.physical.service import AttemptKind
from qstack.wire.frame import Layer
from qstack.wire.message import Bit, Count, Id, Label, Message, Probability

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
    """

    TYPE = 0x0201
    link: Label
    batch: Count
    token: Id
    kind: AttemptKind
    first_cycle: Count
    count: Annotated[int, Meta(ge=1, le=2**53)] | None
    bright_state: Probability | None


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
    known. Fields that do not apply are 0.
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


MESSAGES = (Gen, GenEnd, Reply)
