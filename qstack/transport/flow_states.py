"""Life of one flow (an EPR request between two nodes) at its opener.

    OFFERED --credit--> FILLING --all pairs came--> FINISHED
       |  ^               | |
       |  +---------------+ |        (a credit for a part: the rest is still on offer)
       +------failed--------+-----> FAILED

A credit taken ahead that turns out void takes its part back to OFFERED.

Rules
1. PARTED and CREDITED differ in whether something is left to be credited.
2. A flow fails as a whole: pairs delivered before stay with their session.
3. The acceptor keeps no table: its offer is a number left to credit, and its grants.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class FlowState(Member):
    """Where a flow stands."""

    OFFERED = auto()  # the far end has still pairs to credit
    FILLING = auto()  # all is credited, pairs are coming
    FINISHED = auto()
    FAILED = auto()


class FlowInput(Member):
    """What can happen to it."""

    PARTED = auto()  # peer: credit for a part of what was on offer
    CREDITED = auto()  # peer: credit for all that was left
    UNCREDITED = auto()  # peer: a credit taken ahead was void
    COMPLETE = auto()  # the last pair has been delivered
    FAILURE = auto()  # network, peer, deadline, session or device ended it


_S = FlowState
_I = FlowInput

FLOW: Final = Table(
    _S.OFFERED,
    {
        (_S.OFFERED, _I.PARTED): _S.OFFERED,
        (_S.OFFERED, _I.CREDITED): _S.FILLING,
        (_S.OFFERED, _I.UNCREDITED): _S.OFFERED,
        (_S.OFFERED, _I.FAILURE): _S.FAILED,
        (_S.FILLING, _I.UNCREDITED): _S.OFFERED,
        (_S.FILLING, _I.COMPLETE): _S.FINISHED,
        (_S.FILLING, _I.FAILURE): _S.FAILED,
    },
)
