"""Life of one qubit of a stream at its sender, and of one sequence at its receiver.

Sender:

    QUEUED -pair-> MEASURING -outcome-> CORRECTING -acknowledged-> DELIVERED
       |            |     |                  |
       | withdrawn  |     | withdrawn        | withdrawn (deadline, cancel)
       v            |     v                  v
    RETURNED <------+  ABANDONED -outcome-> CONDEMNED -acknowledged-> DELIVERED
       ^---refused-----------+                  +------------> LOST

Receiver, one sequence:

    ALLOWED -correction-> INFORMED -half-> ARRIVED        (Lost: LOST from both; Skipped: SKIPPED)
                             +-no half-> LOST

Rules
1. Up to MEASURING the data qubit can be given back. From then on it is consumed, and its sender
   learns exactly what the receiver says: DELIVERED or LOST. (With the receiver gone: LOST.)
2. The receiver's word is final: the first of Correction with pair, Lost and Skipped counts,
   repetitions are answered with the fate already known.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class SendingState(Member):
    """Where a qubit stands at its sender."""

    QUEUED = auto()  # no pair yet
    MEASURING = auto()  # the Bell measurement is under way
    ABANDONED = auto()  # withdrawn while it was
    CORRECTING = auto()  # Correction said, Acknowledged not yet heard
    CONDEMNED = auto()  # Lost said, Acknowledged not yet heard
    RETURNED = auto()
    DELIVERED = auto()
    LOST = auto()


class SendingInput(Member):
    """What can happen to it there."""

    PAIR = auto()  # network: a pair is here
    OUTCOME = auto()  # physical: the Bell measurement's bits
    REFUSED = auto()  # physical: no Bell measurement was made
    DEVICE_GONE = auto()  # physical: the device went while it measured
    WITHDRAWN = auto()  # deadline, cancel, close, no pair: no further
    EXPIRED = auto()  # network: the pair it went through is void
    ACKNOWLEDGED = auto()  # receiver: it has it
    ACKNOWLEDGED_LOST = auto()  # receiver: it does not have it
    PEER_GONE = auto()  # receiver restarted, closed, or is out of reach for good


class ReceivingState(Member):
    """Where a sequence stands at its receiver."""

    ALLOWED = auto()
    INFORMED = auto()  # the correction is here
    ARRIVED = auto()
    LOST = auto()
    SKIPPED = auto()


class ReceivingInput(Member):
    """What can happen to it there."""

    CORRECTION = auto()  # sender: measured, with this pair
    HALF = auto()  # our half of that pair is here
    NO_HALF = auto()  # it is not here any more, or will not come
    LOST = auto()  # sender: consumed in vain
    SKIPPED = auto()  # sender: not consumed


_S = SendingState
_I = SendingInput

SENDING: Final = Table(
    _S.QUEUED,
    {
        (_S.QUEUED, _I.PAIR): _S.MEASURING,
        (_S.QUEUED, _I.WITHDRAWN): _S.RETURNED,
        (_S.MEASURING, _I.OUTCOME): _S.CORRECTING,
        (_S.MEASURING, _I.REFUSED): _S.RETURNED,
        (_S.MEASURING, _I.DEVICE_GONE): _S.CONDEMNED,
        (_S.MEASURING, _I.WITHDRAWN): _S.ABANDONED,
        (_S.MEASURING, _I.EXPIRED): _S.ABANDONED,
        (_S.ABANDONED, _I.OUTCOME): _S.CONDEMNED,
        (_S.ABANDONED, _I.REFUSED): _S.RETURNED,
        (_S.ABANDONED, _I.DEVICE_GONE): _S.CONDEMNED,
        (_S.ABANDONED, _I.WITHDRAWN): _S.ABANDONED,
        (_S.ABANDONED, _I.EXPIRED): _S.ABANDONED,
        (_S.CORRECTING, _I.ACKNOWLEDGED): _S.DELIVERED,
        (_S.CORRECTING, _I.ACKNOWLEDGED_LOST): _S.LOST,
        (_S.CORRECTING, _I.WITHDRAWN): _S.CONDEMNED,
        (_S.CORRECTING, _I.EXPIRED): _S.CONDEMNED,
        (_S.CORRECTING, _I.PEER_GONE): _S.LOST,
        (_S.CONDEMNED, _I.ACKNOWLEDGED): _S.DELIVERED,
        (_S.CONDEMNED, _I.ACKNOWLEDGED_LOST): _S.LOST,
        (_S.CONDEMNED, _I.WITHDRAWN): _S.CONDEMNED,
        (_S.CONDEMNED, _I.EXPIRED): _S.CONDEMNED,
        (_S.CONDEMNED, _I.PEER_GONE): _S.LOST,
    },
)

_R = ReceivingState
_J = ReceivingInput

RECEIVING: Final = Table(
    _R.ALLOWED,
    {
        (_R.ALLOWED, _J.CORRECTION): _R.INFORMED,
        (_R.ALLOWED, _J.LOST): _R.LOST,
        (_R.ALLOWED, _J.SKIPPED): _R.SKIPPED,
        (_R.INFORMED, _J.HALF): _R.ARRIVED,
        (_R.INFORMED, _J.NO_HALF): _R.LOST,
        (_R.INFORMED, _J.LOST): _R.LOST,
        (_R.ARRIVED, _J.NO_HALF): _R.LOST,  # the device went before the session took it
    },
)
