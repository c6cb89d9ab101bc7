"""The synchronous interface for applications, under its public name; see `qstack.api.sync`."""

from qstack.api.sync import (
    EprSocket,
    Listener,
    MeasuredPairs,
    MessageStream,
    Node,
    Pair,
    Prepared,
    Qubit,
    QubitSocket,
    QubitStream,
    Route,
    open_node,
)

__all__ = [
    "EprSocket",
    "Listener",
    "MeasuredPairs",
    "MessageStream",
    "Node",
    "Pair",
    "Prepared",
    "Qubit",
    "QubitSocket",
    "QubitStream",
    "Route",
    "open_node",
]
