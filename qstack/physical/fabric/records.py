"""What nodes have read in cycles that heralded, until they know which those were and ask for it.

A spin that is measured is read right after its emission, whatever the station will say of it. A
node with a named station hears in which cycles its attempts were heralded, and takes from its
device what was read in those; the rest is of no use to anybody. Nothing of this is ever told to a
station, and the bases that a node draws are known here when it asks, and not before.

A batch is asked in the order of its cycles: what was read before those asked for is forgotten.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from qstack.errors import ErrorCode
from qstack.physical.device import DeviceBasis
from qstack.physical.fabric.register import RefusedError
from qstack.physical.params import READOUT_NS
from qstack.physical.station_device import HeraldedRead, ReadHeralded
from qstack.wire.packed import BASES, Bits, Codes, pack_bits, unpack_bases


class Record(NamedTuple):
    """One end's part of cycles that heralded together.

    `cycles` are packed distances from `first_cycle`; all is read at `ready_ns`, in `basis`.
    """

    first_cycle: int
    pairs: int
    cycles: bytes
    ready_ns: int
    basis: DeviceBasis
    read: Callable[[Codes], Bits]


class Records:
    """Those of all nodes, by batch."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], deque[Record]] = {}

    def add(self, node: str, batch: int, record: Record) -> None:
        """The next part of a batch."""
        self._kept.setdefault((node, batch), deque()).append(record)

    def read(self, node: str, asked: ReadHeralded, at_ns: int) -> tuple[int, HeraldedRead]:
        """When a node is told what it has read, and what. Raises `RefusedError`."""
        kept = self._kept.get((node, asked.batch), deque())
        while kept and kept[0].first_cycle < asked.first_cycle:
            kept.popleft()
        if not kept or (kept[0].first_cycle, kept[0].cycles) != (asked.first_cycle, asked.cycles):
            detail = f"batch {asked.batch} has no such heralded cycles"
            raise RefusedError(ErrorCode.BAD_REQUEST, detail)
        codes = _codes(kept[0], asked.bases)
        record = kept.popleft()
        if not kept:
            del self._kept[node, asked.batch]
        due_ns = max(at_ns + READOUT_NS, record.ready_ns)
        outcomes = pack_bits(record.read(codes))
        return due_ns, HeraldedRead(operation=asked.sequence, outcomes=outcomes)

    def forget(self, node: str, batch: int | None) -> None:
        """Nobody will ask for what was read in a batch of a node, or in any (None)."""
        for key in [key for key in self._kept if key[0] == node and batch in (None, key[1])]:
            del self._kept[key]

    def count(self, node: str) -> int:
        """Batches of a node of which something was read that nobody has asked for."""
        return sum(name == node for name, _ in self._kept)


def _codes(record: Record, bases: bytes) -> Codes:
    """The bases of a part. Raises `RefusedError`."""
    if record.basis != "given":
        if bases:
            raise RefusedError(ErrorCode.BAD_REQUEST, f"the basis is {record.basis}")
        return np.full(record.pairs, BASES.index(record.basis), dtype=np.uint8)
    try:
        return unpack_bases(bases, record.pairs)
    except ValueError as error:
        raise RefusedError(ErrorCode.BAD_REQUEST, str(error)) from error
