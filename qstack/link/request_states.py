"""Life of one link request, seen from one end. Both ends run the same table.

      +------------------SERVED-------------+
      |                                     v
    ADDING --ACCEPTED--> SERVING --SERVED--> DONE
      |                     |
      +-----REFUSED---------+--WITHDRAWN, DEADLINE, LINK_LOST--> FAILED

Who asked is data, not a state: the end that did not ask begins with ACCEPTED. The end that asked
attempts without waiting for the answer: its pairs, even all of them, may come before it.

Rules
1. Every transition of a request is a cell below; no other module assigns a state.
2. An empty cell is an error; the machine says whose.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class State(Member):
    """Where a request stands."""

    ADDING = auto()  # the far end has not yet agreed
    SERVING = auto()  # in the queue of both ends
    DONE = auto()
    FAILED = auto()


class Input(Member):
    """What can happen to it."""

    ACCEPTED = auto()  # both ends have it in their queue
    REFUSED = auto()  # the far end does not take it
    SERVED = auto()  # its last pair has come
    WITHDRAWN = auto()  # cancelled at either end
    DEADLINE = auto()
    LINK_LOST = auto()  # the peer or the device has gone


S = State
I = Input  # noqa: E741 - short in the table below

REQUEST: Final = Table(
    S.ADDING,
    {
        (S.ADDING, I.ACCEPTED): S.SERVING,
        (S.ADDING, I.REFUSED): S.FAILED,
        (S.ADDING, I.SERVED): S.DONE,
        (S.ADDING, I.WITHDRAWN): S.FAILED,
        (S.ADDING, I.DEADLINE): S.FAILED,
        (S.ADDING, I.LINK_LOST): S.FAILED,
        (S.SERVING, I.SERVED): S.DONE,
        (S.SERVING, I.WITHDRAWN): S.FAILED,
        (S.SERVING, I.DEADLINE): S.FAILED,
        (S.SERVING, I.LINK_LOST): S.FAILED,
    },
)
