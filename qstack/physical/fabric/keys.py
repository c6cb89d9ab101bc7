"""How the fabric names a qubit."""

from typing import NamedTuple


class QubitKey(NamedTuple):
    """A qubit of the network."""

    node: str
    qubit: bytes
