"""Lives of link pairs on a circuit: at a node in between, and at an end.

In between (SEGMENT):

    WAITING --PARTNER--> SWAPPING --OUTCOME--> SWAPPED
       |                    |                     |
       +---CUTOFF, VOID-----+---FAILED, VOID------+--VOID--> DISCARDED

At an end (END_PAIR):

    TRACKING --TRACK--> CONFIRMED --EXPIRE, VOID--> DISCARDED
       +----EXPIRE, VOID, RELEASED----------------------^

Rules
1. Every transition of a pair is a cell below; no other module assigns a state.
2. SWAPPED and DISCARDED pairs have no qubit here any more; they are remembered (bounded) so that
   a TRACK that names them can be passed on, or answered with EXPIRE.
3. What is DISCARDED stays so: every later TRACK to it is answered with EXPIRE.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class SegmentState(Member):
    """Where a link pair stands at a node in between."""

    WAITING = auto()
    SWAPPING = auto()
    SWAPPED = auto()
    DISCARDED = auto()


class SegmentInput(Member):
    """What can happen to it."""

    PARTNER = auto()  # a pair of the other side is there: the swap begins
    OUTCOME = auto()  # physical: the swap's two bits
    FAILED = auto()  # physical: the swap could not be done
    CUTOFF = auto()  # too old, or nobody needs it any more
    VOID = auto()  # link: the pair is void


class EndState(Member):
    """Where a link pair stands at an end of the circuit."""

    TRACKING = auto()
    CONFIRMED = auto()
    DISCARDED = auto()


class EndInput(Member):
    """What can happen to it."""

    TRACK = auto()  # the far end's TRACK has arrived at it
    EXPIRE = auto()  # what it had become part of was discarded
    VOID = auto()  # link: the pair is void
    RELEASED = auto()  # no request here needs it


S, On = SegmentState, SegmentInput

SEGMENT: Final = Table(
    S.WAITING,
    {
        (S.WAITING, On.PARTNER): S.SWAPPING,
        (S.WAITING, On.CUTOFF): S.DISCARDED,
        (S.WAITING, On.VOID): S.DISCARDED,
        (S.SWAPPING, On.OUTCOME): S.SWAPPED,
        (S.SWAPPING, On.FAILED): S.DISCARDED,
        (S.SWAPPING, On.VOID): S.DISCARDED,
        (S.SWAPPED, On.VOID): S.DISCARDED,
        (S.DISCARDED, On.VOID): S.DISCARDED,
    },
)

END_PAIR: Final = Table(
    EndState.TRACKING,
    {
        (EndState.TRACKING, EndInput.TRACK): EndState.CONFIRMED,
        (EndState.TRACKING, EndInput.EXPIRE): EndState.DISCARDED,
        (EndState.TRACKING, EndInput.VOID): EndState.DISCARDED,
        (EndState.TRACKING, EndInput.RELEASED): EndState.DISCARDED,
        (EndState.CONFIRMED, EndInput.EXPIRE): EndState.DISCARDED,
        (EndState.CONFIRMED, EndInput.VOID): EndState.DISCARDED,
        (EndState.DISCARDED, EndInput.TRACK): EndState.DISCARDED,
        (EndState.DISCARDED, EndInput.EXPIRE): EndState.DISCARDED,
        (EndState.DISCARDED, EndInput.VOID): EndState.DISCARDED,
    },
)
