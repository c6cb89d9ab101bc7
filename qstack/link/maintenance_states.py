"""Life of the care of one link, seen from one end. Both ends run the same table.

            +----------------------------------END----------------------------------+
            v                                                                       |
    IDLE --PROPOSE--> PROPOSED --AGREED--> AGREED --START--> CLOSED ----------------+
     | ^                 |  |                 ^
     | +----FAILED-------+  +-------ASKED-----+
     +------------------ASKED-----------------+

Rules
1. LOST (the link has gone) leads back to IDLE from everywhere.
2. Only in CLOSED does an end keep from attempting; it leaves CLOSED at the time agreed, whatever
   has become of the calibration.
3. Where both ends propose, the master's proposal stands (PROPOSED --ASKED--> AGREED at the slave).
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class State(Member):
    """Where the care of a link stands."""

    IDLE = auto()
    PROPOSED = auto()  # a window was named, and the far end has not answered
    AGREED = auto()  # it has not begun
    CLOSED = auto()  # MAINTENANCE: no attempts are made


class Input(Member):
    """What can happen to it."""

    PROPOSE = auto()  # it is time
    ASKED = auto()  # the far end named a window that suits
    AGREED = auto()  # the far end takes ours
    FAILED = auto()  # it does not, or has not said so before the window began
    START = auto()
    END = auto()
    LOST = auto()  # the link has gone


S = State

MAINTENANCE: Final = Table(
    S.IDLE,
    {
        (S.IDLE, Input.PROPOSE): S.PROPOSED,
        (S.IDLE, Input.ASKED): S.AGREED,
        (S.PROPOSED, Input.AGREED): S.AGREED,
        (S.PROPOSED, Input.ASKED): S.AGREED,
        (S.PROPOSED, Input.FAILED): S.IDLE,
        (S.AGREED, Input.START): S.CLOSED,
        (S.CLOSED, Input.END): S.IDLE,
        (S.IDLE, Input.LOST): S.IDLE,
        (S.PROPOSED, Input.LOST): S.IDLE,
        (S.AGREED, Input.LOST): S.IDLE,
        (S.CLOSED, Input.LOST): S.IDLE,
    },
)
