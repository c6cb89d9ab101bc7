"""What the physical layer says to the physical layer at the other end of a link: time transfer.

    second end                                     first end (the link's reference)
      | ===== pulse, stamped t1 ... t2 ============> |     light, through the devices
      | <==== pulse of that number, t4 ... t3 ====== |
      | <--------------------- ClockStamps t2, t3 -- |     messages
      | -- ClockState -----------------------------> |     what the second end makes of it

The ends are in the order of their names. A message names its link by who says it to whom. What is
lost is not said again: the next exchange comes.
"""

from typing import Annotated

from msgspec import Meta

from qstack.physical.device import ClockReading, Picoseconds
from qstack.wire.frame import Layer
from qstack.wire.message import Message, Nanoseconds


class _Said(Message, frozen=True, kw_only=True):
    LAYER = Layer.PHYSICAL


class ClockStamps(_Said, frozen=True, kw_only=True):
    """When pulse `pulse` of the receiver came to the sender, and when that sent it back."""

    TYPE = 0x0041
    pulse: Nanoseconds
    received: ClockReading
    returned: ClockReading


class ClockState(_Said, frozen=True, kw_only=True):
    """The sender's clock is `offset_ps` ahead of the receiver's, as it knows.

    Light of both ends meets with a deviation of at most `deviation_ps` until the next exchange: the
    uncertainty of offset and rate, and the jitter of both clocks, rounded up so that it seldom
    changes. Nil: the sender has not compared its clock yet, or not lately enough.
    """

    TYPE = 0x0042
    offset_ps: Picoseconds
    deviation_ps: Annotated[float, Meta(ge=0, le=1e15)] | None


MESSAGES = (ClockStamps, ClockState)
