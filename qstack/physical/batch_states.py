"""Life of one batch of attempts at one end of a link.

    QUEUED ---begin---> RUNNING ---success---------> ENDED
      |                    |                           ^
      |                   halt (stop, hand-over)       |
      |                    v                           |
      |                 STOPPING --success/finished----+
      +--halt------------------------------------------+

Rules
1. QUEUED waits for the communication qubit; nothing of it has reached the device.
2. A STOPPING batch still holds its communication qubit: attempts in flight may herald.
3. ENDED is said upward exactly once, and the batch is forgotten.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class State(Member):
    """Where a batch stands."""

    QUEUED = auto()
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


class Input(Member):
    """What can happen to it."""

    BEGIN = auto()  # it has the communication qubit
    HALT = auto()  # link withdrew it, or the qubit goes to another link
    SUCCESS = auto()  # device: the pair, or the last of the measured pairs
    FINISHED = auto()  # device: ended without (further) success, or refused


BATCH: Final = Table(
    State.QUEUED,
    {
        (State.QUEUED, Input.BEGIN): State.RUNNING,
        (State.QUEUED, Input.HALT): State.ENDED,
        (State.RUNNING, Input.HALT): State.STOPPING,
        (State.RUNNING, Input.SUCCESS): State.ENDED,
        (State.RUNNING, Input.FINISHED): State.ENDED,
        (State.STOPPING, Input.HALT): State.STOPPING,
        (State.STOPPING, Input.SUCCESS): State.ENDED,
        (State.STOPPING, Input.FINISHED): State.ENDED,
    },
)
