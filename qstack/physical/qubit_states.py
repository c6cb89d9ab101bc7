"""Life of one qubit of a node's memory, from admission to the slot being free again.

    ATTEMPTING ----heralded---> ALIVE --measure--> MEASURING --result--> ENDED
        |                       ^   |                                      ^
    batch ended   INITIALISING--+   +---------free---> RELEASING --freed---+
        |              |   ready    |                      ^               |
        |              |            +--arm--> ARMED -free--+               |
        |              |            +-resumed---+ +------consumed----------+
        |              +---------------free----------------+               |
        +------------------------------------------------------------------+

Rules
1. In every state but ENDED the qubit takes a memory slot; ENDED qubits are forgotten.
2. Only an ALIVE qubit may be used. What is in another state does not exist for the asker: GONE.
3. A refused measurement leaves the qubit ALIVE; a refused initialisation ends it (not drawn).
4. ARMED: a device program may begin at any time; until it has been answered nobody else uses the
   qubit. What a program has read is gone (CONSUMED), also a qubit it took at its herald.
5. MEASURING and RELEASING end when the device has come to it, for the device is serial; RELEASING
   out of a program when that has been answered.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class State(Member):
    """Where a qubit stands."""

    ATTEMPTING = auto()  # reserved for a batch of attempts
    INITIALISING = auto()  # asked for, not yet told to its owner
    ALIVE = auto()
    MEASURING = auto()  # being measured; the slot is held until the result
    ARMED = auto()  # in a device program that waits or runs
    RELEASING = auto()  # given up; the slot is held until the device has come to it
    ENDED = auto()


class Input(Member):
    """What can happen to it."""

    HERALDED = auto()  # its batch succeeded
    BATCH_ENDED = auto()  # its batch ended without success
    READY = auto()  # device: it is in state 0
    USE = auto()  # owner: gate, reset or transfer
    MEASURE = auto()  # owner: measurement or Bell measurement
    RESULT = auto()  # device: the outcome of the measurement
    ARM = auto()  # owner: a device program has it
    RESUMED = auto()  # the program has ended, and has not read it
    CONSUMED = auto()  # a program has read it
    REFUSED = auto()  # device: it cannot initialise or measure this, and has changed nothing
    FREE = auto()  # owner gave it up, or has gone
    FREED = auto()  # the device has come to the release


QUBIT: Final = Table(
    State.INITIALISING,
    {
        (State.ATTEMPTING, Input.HERALDED): State.ALIVE,
        (State.ATTEMPTING, Input.BATCH_ENDED): State.ENDED,
        (State.INITIALISING, Input.READY): State.ALIVE,
        (State.INITIALISING, Input.REFUSED): State.ENDED,
        (State.INITIALISING, Input.FREE): State.RELEASING,
        (State.ALIVE, Input.USE): State.ALIVE,
        (State.ALIVE, Input.MEASURE): State.MEASURING,
        (State.ALIVE, Input.FREE): State.RELEASING,
        (State.ALIVE, Input.ARM): State.ARMED,
        (State.ALIVE, Input.CONSUMED): State.ENDED,
        (State.ARMED, Input.RESUMED): State.ALIVE,
        (State.ARMED, Input.CONSUMED): State.ENDED,
        (State.ARMED, Input.FREE): State.RELEASING,
        (State.INITIALISING, Input.CONSUMED): State.ENDED,
        (State.MEASURING, Input.RESULT): State.ENDED,
        (State.MEASURING, Input.REFUSED): State.ALIVE,
        (State.RELEASING, Input.FREED): State.ENDED,
    },
)
USABLE: Final = QUBIT.only(Input.USE)
"""The state of what exists for those who ask."""
