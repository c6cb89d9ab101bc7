"""Life of one circuit, seen from one node on it.

    INSTALLING --INSTALLED--> READY --START--> ACTIVE
        |                       |                 |
        +-------REFUSED---------+--- TEARDOWN/LOST/IDLE --> CLOSED

INSTALLING: INSTALL has gone on downstream. The tail is READY as it is made. The head starts the
circuit itself as soon as it is ready.

Rules
1. Every transition of a circuit is a cell below; no other module assigns a state.
2. Link pairs, FORWARD, TRACK, EXPIRE and COMPLETE belong to ACTIVE (input TRAFFIC). Neighbours
   keep this: a channel is ordered, and START goes before all of them.
3. A circuit is never repaired: the head makes a new one, with a new id.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class CircuitState(Member):
    """Where a circuit stands at this node."""

    INSTALLING = auto()
    READY = auto()
    ACTIVE = auto()
    CLOSED = auto()


class CircuitInput(Member):
    """What can happen to it."""

    INSTALLED = auto()  # downstream: it stands from there to the tail
    START = auto()  # upstream: everybody is ready
    TRAFFIC = auto()  # a message of an active circuit
    REFUSED = auto()  # downstream: somebody cannot be part of it
    TEARDOWN = auto()  # a neighbour on it: it is gone
    LOST = auto()  # a neighbour, a link or the device is gone
    IDLE = auto()  # at the head: unused for too long


S, On = CircuitState, CircuitInput

CIRCUIT: Final = Table(
    S.INSTALLING,
    {
        (S.INSTALLING, On.INSTALLED): S.READY,
        (S.INSTALLING, On.REFUSED): S.CLOSED,
        (S.INSTALLING, On.TEARDOWN): S.CLOSED,
        (S.INSTALLING, On.LOST): S.CLOSED,
        (S.READY, On.START): S.ACTIVE,
        (S.READY, On.TEARDOWN): S.CLOSED,
        (S.READY, On.LOST): S.CLOSED,
        (S.ACTIVE, On.TRAFFIC): S.ACTIVE,
        (S.ACTIVE, On.TEARDOWN): S.CLOSED,
        (S.ACTIVE, On.LOST): S.CLOSED,
        (S.ACTIVE, On.IDLE): S.CLOSED,
    },
)
ACTIVE: Final = CIRCUIT.only(On.TRAFFIC)
"""The state in which it carries requests and pairs, which leave it as it is."""
assert CIRCUIT.step(ACTIVE, On.TRAFFIC) is ACTIVE
