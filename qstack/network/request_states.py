"""Life of one request, seen from one end. Both ends run the same table.

    WAITING --FORWARDED--> OPEN --SATISFIED--> DONE
       ^                    |
       +---CIRCUIT_LOST-----+
    (WAITING and OPEN) --DEADLINE, CANCELLED, ENDED--> FAILED

WAITING: no circuit carries it. The head looks for one again and again; the tail waits for the
head to come back. A tail's request begins with the first FORWARD.

Rules
1. Every transition of a request is a cell below; no other module assigns a state.
2. DONE and FAILED are final: the request is then forgotten, and what still comes for it is
   answered as for an unknown one.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class RequestState(Member):
    """Where a request stands at this end."""

    WAITING = auto()
    OPEN = auto()
    DONE = auto()
    FAILED = auto()


class RequestInput(Member):
    """What can happen to it."""

    FORWARDED = auto()  # a circuit carries it
    CIRCUIT_LOST = auto()
    SATISFIED = auto()  # all its pairs have been indicated here
    DEADLINE = auto()
    CANCELLED = auto()  # the layer above withdrew it at this end
    ENDED = auto()  # the far end, a refusal for good or the loss of the device ended it


S, On = RequestState, RequestInput

REQUEST: Final = Table(
    S.WAITING,
    {
        (S.WAITING, On.FORWARDED): S.OPEN,
        (S.WAITING, On.DEADLINE): S.FAILED,
        (S.WAITING, On.CANCELLED): S.FAILED,
        (S.WAITING, On.ENDED): S.FAILED,
        (S.OPEN, On.CIRCUIT_LOST): S.WAITING,
        (S.OPEN, On.SATISFIED): S.DONE,
        (S.OPEN, On.DEADLINE): S.FAILED,
        (S.OPEN, On.CANCELLED): S.FAILED,
        (S.OPEN, On.ENDED): S.FAILED,
    },
)
