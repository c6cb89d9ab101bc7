"""The socket-like interface for applications, asynchronous on trio; `sync` is its twin."""

from qstack.api.epr import EprSocket, MeasuredPairs, Pair, Pairs, Prepared, PreparedStates
from qstack.api.errors import (
    BadRequest,
    Closed,
    Expired,
    Lost,
    NodeGone,
    NoNode,
    NotOwner,
    QstackError,
    Refused,
)
from qstack.api.idleness import to_thread
from qstack.api.node import Node, Route, open_node
from qstack.api.qubit import Qubit
from qstack.api.streams import Listener, MessageStream, QubitSocket, QubitStream

__all__ = [
    "BadRequest",
    "Closed",
    "EprSocket",
    "Expired",
    "Listener",
    "Lost",
    "MeasuredPairs",
    "MessageStream",
    "NoNode",
    "Node",
    "NodeGone",
    "NotOwner",
    "Pair",
    "Pairs",
    "Prepared",
    "PreparedStates",
    "QstackError",
    "Qubit",
    "QubitSocket",
    "QubitStream",
    "Refused",
    "Route",
    "open_node",
    "to_thread",
]
