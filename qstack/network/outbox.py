"""What the parts of the network machine share: who we are, the time, and the effects so far."""

from qstack.machine import CancelTimer, Effect, Record, Send, SetTimer, Tell
from qstack.wire.message import Message

TRANSPORT = "transport"
"""The owner above. A layer imports nothing of the one above it, so its name stands here."""


class Outbox:
    """The effects of one turn of one node's network layer, in order."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.now = 0
        self._effects: list[Effect] = []

    def begin(self, now: int) -> list[Effect]:
        """A turn begins at network time `now`; the list is of its effects, as they come."""
        self.now = now
        self._effects = []
        return self._effects

    def tell(self, layer: str, message: Message) -> None:
        """Say `message` to another layer of this node."""
        self._effects.append(Tell(layer, message))

    def send(self, peer: str, message: Message) -> None:
        """Send `message` to the network layer of the neighbour `peer`."""
        self._effects.append(Send(peer, message))

    def set_timer(
        self, key: str, at_ns: int, *, background: bool = False, deadline: bool = False
    ) -> None:
        """Arm the timer `key`; never for the past."""
        self._effects.append(SetTimer(key, max(at_ns, self.now), background, deadline))

    def cancel_timer(self, key: str) -> None:
        """Disarm the timer `key`."""
        self._effects.append(CancelTimer(key))

    def record(self, name: str, **fields: object) -> None:
        """Leave a trace record `network.<name>`."""
        self._effects.append(Record(f"network.{name}", fields))
