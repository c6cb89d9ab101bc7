"""Parts of batches on their way to their nodes, some of which wait for the bases of their node.

A batch with a fixed basis is answered at once. A batch whose node draws its bases is first asked
for as many as the part has (`BasesWanted`), and answered when they have come (`GiveBases`): the
fabric chooses no basis. Parts of a batch are answered in their order.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from qstack.errors import ErrorCode
from qstack.physical.device import BasesWanted, DeviceBasis, GiveBases
from qstack.physical.fabric.register import RefusedError
from qstack.physical.params import READOUT_NS
from qstack.wire.message import Message
from qstack.wire.packed import BASES, Codes, unpack_bases

Deliver = Callable[[str, int, Message], None]
Finish = Callable[[Codes, bytes], Message]
"""From the bases of a part, and as the reply has them packed, to the reply."""

_NONE: Final = np.zeros(0, dtype=np.uint8)


class _Part(NamedTuple):
    number: int
    detections: int
    finish: Finish


class Readings:
    """All parts of all nodes that wait. `deliver` sends to a node."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._waiting: dict[tuple[str, int], deque[_Part]] = {}
        self._asked = 0

    def answer(
        self, node: str, batch: int, basis: DeviceBasis, count: int, due_ns: int, finish: Finish
    ) -> None:
        """Send a part to its node at `due_ns`, or ask the node for its bases then."""
        if basis != "given":
            codes = np.full(count, BASES.index(basis), dtype=np.uint8)
            self._deliver(node, due_ns, finish(codes, b""))
            return
        waiting = self._waiting.get((node, batch))
        if not count and waiting is None:
            self._deliver(node, due_ns, finish(_NONE, b""))
            return
        part = _Part(self._asked, count, finish)
        self._waiting.setdefault((node, batch), deque()).append(part)
        if count:
            self._asked += 1
            self._deliver(node, due_ns, BasesWanted(batch=batch, part=part.number, count=count))

    def close(self, node: str, batch: int, due_ns: int, message: Message) -> None:
        """Send the last answer of a batch at `due_ns`, or after its parts that wait."""
        self.answer(node, batch, "given", 0, due_ns, lambda _codes, _packed: message)

    def give(self, node: str, operation: GiveBases, at_ns: int) -> None:
        """The bases of a part. Raises `RefusedError`."""
        parts = self._waiting.get((node, operation.batch))
        if parts is None or parts[0].number != operation.part:
            raise RefusedError(ErrorCode.BAD_REQUEST, f"part {operation.part} is not next")
        try:
            codes = unpack_bases(operation.bases, parts[0].detections)
        except ValueError as error:
            raise RefusedError(ErrorCode.BAD_REQUEST, str(error)) from error
        due_ns = at_ns + READOUT_NS
        self._deliver(node, due_ns, parts.popleft().finish(codes, operation.bases))
        while parts and not parts[0].detections:
            self._deliver(node, due_ns, parts.popleft().finish(_NONE, b""))
        if not parts:
            del self._waiting[node, operation.batch]

    def node_gone(self, node: str) -> None:
        """Nobody will give these bases."""
        for key in [key for key in self._waiting if key[0] == node]:
            del self._waiting[key]

    def count(self, node: str) -> int:
        """Batches of a node that wait for bases."""
        return sum(name == node for name, _ in self._waiting)
