"""The trace of a node: one hash chain over everything its machines were told and answered.

Two runs with equal chains did the same things at the same network times (CLOCK.md, "What the same
trace means"). TLS, wall times and sockets are not in it.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final

import msgspec

from qstack.machine import Effect, Event

DIGEST_BYTES: Final = 16
_encoder: Final = msgspec.msgpack.Encoder(order="sorted")

Observer = Callable[[int, str, str, Event, list[Effect]], None]
"""Called with (now, source, layer, event, effects) for each step; for ladders and logs."""


class Trace:
    """The chain of one node. `steps` counts its links."""

    def __init__(self, observer: Observer | None = None) -> None:
        self._chain = bytes(DIGEST_BYTES)
        self._observer = observer
        self.steps = 0

    def add(
        self, now: int, source: str, sequence: int, layer: str, event: Event, effects: list[Effect]
    ) -> None:
        """Append one machine call."""
        row = [now, source, sequence, layer, _named(event), [_named(item) for item in effects]]
        self._chain = blake2b(self._chain + _encoder.encode(row), digest_size=DIGEST_BYTES).digest()
        self.steps += 1
        if self._observer is not None:
            self._observer(now, source, layer, event, effects)

    @property
    def digest(self) -> bytes:
        """The chain so far."""
        return self._chain


def run_digest(chains: Mapping[str, bytes]) -> str:
    """The hash of a run: over the chains of its nodes, sorted by name."""
    total = blake2b(digest_size=DIGEST_BYTES)
    for name in sorted(chains):
        total.update(name.encode() + b"\0" + chains[name])
    return total.hexdigest()


def _named(item: Event | Effect) -> list[object]:
    message = getattr(item, "message", None)
    return [type(item).__name__, type(message).__name__ if message is not None else "", item]
