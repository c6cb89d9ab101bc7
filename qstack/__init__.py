"""qstack: a quantum-network protocol stack that runs.

The interface for applications is here, under short names: `qstack.open_node`, its errors,
`qstack.to_thread`, and the synchronous twin `qstack.sync`. They are loaded when first asked for:
a protocol machine or a command that imports one module of qstack loads neither trio nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qstack import sync
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
    from qstack.api.node import open_node

__all__ = [
    "BadRequest",
    "Closed",
    "Expired",
    "Lost",
    "NoNode",
    "NodeGone",
    "NotOwner",
    "QstackError",
    "Refused",
    "open_node",
    "sync",
    "to_thread",
]


def __getattr__(name: str) -> object:
    """Load the interface for applications (PEP 562)."""
    if name == "sync":
        return import_module("qstack.sync")
    if name in __all__:
        return getattr(import_module("qstack.api"), name)
    raise AttributeError(f"module 'qstack' has no attribute {name!r}")
