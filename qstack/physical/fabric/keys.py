"""How the fabric names a qubit."""

from msgspec import Struct


class QubitKey(Struct, frozen=True, gc=False):
    """A qubit of the network."""

    node: str
    qubit: bytes
