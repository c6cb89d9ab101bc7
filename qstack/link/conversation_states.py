"""Life of the conversation with one peer, seen from one end. Both ends run the same table.

                         +--ANEW, NO_ANSWER--+
                         v                   |
    SILENT --CHANNEL--> OPENING --HEARD--> OPEN
      ^                  |                   |
      +--CHANNEL_LOST----+-------------------+

Rules
1. What is said of a link is said in OPEN; leaving OPEN makes the link go down.
2. An empty cell is an error of ours: what a peer says is compared before it becomes an input.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class State(Member):
    """Where a conversation stands."""

    SILENT = auto()  # there is no channel
    OPENING = auto()  # the peer's number is not known, or is that of a conversation that ended
    OPEN = auto()  # what is said is heard, unless the conversation ends


class Input(Member):
    """What can happen to it."""

    CHANNEL = auto()  # to this life of the peer
    HEARD = auto()  # the peer has a new number, or names ours
    ANEW = auto()  # the peer has a new number, so it knows nothing of this conversation
    NO_ANSWER = auto()  # to anything, for too long
    CHANNEL_LOST = auto()


S = State
I = Input  # noqa: E741 - short in the table below

CONVERSATION: Final = Table(
    S.SILENT,
    {
        (S.SILENT, I.CHANNEL): S.OPENING,
        (S.OPENING, I.HEARD): S.OPEN,
        (S.OPEN, I.ANEW): S.OPENING,
        (S.OPEN, I.NO_ANSWER): S.OPENING,
        (S.OPENING, I.CHANNEL_LOST): S.SILENT,
        (S.OPEN, I.CHANNEL_LOST): S.SILENT,
    },
)
