"""Names of things. An id is never reused, and never a place (STYLE.md, rule 8).

| id | made by | value |
|---|---|---|
| QubitId | physical | boot id (8 bytes) and counter (8 bytes): local to a node |
| LinkPairId | link | hash of link and both boot ids (8 bytes) and herald sequence (8 bytes) |
| PairId | network | circuit, circuit epoch, link pair id at the head end |
| RequestId, CircuitId | who asks | 16 bytes from the machine's generator |
"""

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NewType

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np

QubitId = NewType("QubitId", bytes)
LinkPairId = NewType("LinkPairId", bytes)
RequestId = NewType("RequestId", bytes)
CircuitId = NewType("CircuitId", bytes)

ID_BYTES = 16
BOOT_ID_BYTES = 8
IDS_AT_ONCE: Final = 64  # a generator takes as long for one as for many


class PairId(Struct, frozen=True, order=True):
    """An end-to-end pair, named alike at both ends."""

    circuit: CircuitId
    epoch: int
    head_pair: LinkPairId


class FreshIds:
    """Ids from a generator; what else is drawn from it comes between whole lots of them."""

    def __init__(self, rng: "np.random.Generator") -> None:
        self._rng = rng
        self._lot = b""
        self._taken = 0  # bytes of the lot

    def fresh(self) -> bytes:
        """ID_BYTES bytes that nobody had before."""
        if self._taken == len(self._lot):
            self._lot = self._rng.bytes(ID_BYTES * IDS_AT_ONCE)
            self._taken = 0
        begin, self._taken = self._taken, self._taken + ID_BYTES
        return self._lot[begin : self._taken]


def qubit_id(boot_id: bytes, counter: int) -> QubitId:
    """The `counter`-th qubit of a node's life `boot_id`."""
    return QubitId(boot_id + counter.to_bytes(8, "big"))


def link_pair_id(lives: bytes, herald_sequence: int) -> LinkPairId:
    """Equal at both ends without a message; `lives` as of `lives_of_link`."""
    return LinkPairId(lives + herald_sequence.to_bytes(8, "big"))


def lives_of_link(link: str, boots: tuple[bytes, bytes]) -> bytes:
    """What the ids of all pairs of a link begin with, while both of its ends live.

    `boots` are their boot ids, in the order of the node names.
    """
    return blake2b(b"|".join((link.encode(), *boots)), digest_size=8).digest()


def boot_id(seed: int, node: str, restarts: int) -> bytes:
    """The boot id of a seeded run (CLOCK.md): a function of seed, node and restart count."""
    return blake2b(f"{seed}|{node}|{restarts}".encode(), digest_size=BOOT_ID_BYTES).digest()


def layer_boot_id(node_boot_id: bytes, layer: str, restarts: int) -> bytes:
    """The boot id of a layer that was started again alone, so often in this life of its node."""
    text = b"|".join((node_boot_id, layer.encode(), str(restarts).encode()))
    return blake2b(text, digest_size=BOOT_ID_BYTES).digest()


@lru_cache(maxsize=4096)
def link_id(first: str, second: str) -> str:
    """The name of the link between two nodes, the same seen from either end."""
    return "-".join(sorted((first, second)))
