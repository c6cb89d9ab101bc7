"""Life of one stream (qubit or message), seen from one end.

    OPENING --opened--> OPEN --close, owing--> LINGERING --settled, ended--> CLOSED
       |                 |
       |                 |                            ^
       |                 |                            +--close, owing--+
       |                 |                                             |
       |                 +----ended by the peer---------------------> DRAINING --close--> CLOSED
       |                 |
       +--close, ended   +----close, nothing owed----> CLOSED
       v
     CLOSED

Rules
1. The acceptor's end begins in OPENING too and is opened by the Accept that takes it.
2. LINGERING: the session has let go, but a qubit's fate or a message is still owed to the peer.
3. DRAINING: the peer has ended it (closed, or restarted); what arrived before can be taken. A peer
   that closed can still be asked for the fate of a qubit: that too is owed.
4. An end in CLOSED is forgotten, but for its id and the fates of its qubits.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class StreamState(Member):
    """Where a stream stands."""

    OPENING = auto()
    OPEN = auto()
    LINGERING = auto()
    DRAINING = auto()
    CLOSED = auto()


class StreamInput(Member):
    """What can happen to it."""

    OPENED = auto()  # accepted here, or StreamOpened came
    CLOSE = auto()  # the session closed it, nothing is owed
    CLOSE_OWING = auto()  # the session closed it, something is owed
    SETTLED = auto()  # nothing is owed any more
    ENDED = auto()  # Close came, or the peer restarted


_S = StreamState
_I = StreamInput

STREAM: Final = Table(
    _S.OPENING,
    {
        (_S.OPENING, _I.OPENED): _S.OPEN,
        (_S.OPENING, _I.CLOSE): _S.CLOSED,
        (_S.OPENING, _I.ENDED): _S.CLOSED,
        (_S.OPEN, _I.CLOSE): _S.CLOSED,
        (_S.OPEN, _I.CLOSE_OWING): _S.LINGERING,
        (_S.OPEN, _I.ENDED): _S.DRAINING,
        (_S.LINGERING, _I.SETTLED): _S.CLOSED,
        (_S.LINGERING, _I.ENDED): _S.CLOSED,
        (_S.DRAINING, _I.CLOSE): _S.CLOSED,
        (_S.DRAINING, _I.CLOSE_OWING): _S.LINGERING,
        (_S.DRAINING, _I.ENDED): _S.DRAINING,
    },
)
