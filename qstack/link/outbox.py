"""What the parts of the link machine share: the effects of a turn, and the words they come in."""

from qstack.errors import ErrorCode
from qstack.link import messages, service
from qstack.machine import CancelTimer, Effect, Record, Send, SetTimer, Tell
from qstack.physical import service as physical
from qstack.wire.message import Message

ABOVE = "network"
"""The owner above. A layer imports nothing of the one above it, so its name stands here."""


class Outbox:
    """The effects of one turn of one node's link layer, in order."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def take(self) -> list[Effect]:
        """The effects of the turn."""
        effects, self._effects = self._effects, []
        return effects

    def tell_above(self, message: Message) -> None:
        """Say `message` to the network layer."""
        self._effects.append(Tell(ABOVE, message))

    def tell_below(self, message: Message) -> None:
        """Say `message` to the physical layer."""
        self._effects.append(Tell(physical.LAYER, message))

    def tell_failed(
        self,
        request: bytes,
        purpose: bytes,
        error: ErrorCode | str,
        detail: str,
        best: float | None = None,
    ) -> None:
        """Tell the network layer that a request has ended without its pairs."""
        self.tell_above(
            service.LinkFailed(
                request=request, purpose=purpose, error=name_of(error), detail=detail, best=best
            )
        )

    def send(self, peer: str, message: Message) -> None:
        """Send `message` to the link layer of `peer`."""
        self._effects.append(Send(peer, message))

    def refuse(self, peer: str, message: Message, error: ErrorCode, detail: str) -> None:
        """Answer a message that broke a rule; an error is never answered by an error."""
        if not isinstance(message, messages.Error):
            answer = messages.Error(name=error.name, detail=detail, about=message.TYPE)
            self.send(peer, answer)
        self.record("refused", peer=peer, error=error.name, detail=detail)

    def set_timer(self, key: str, at_ns: int, *, deadline: bool = False) -> None:
        """Arm the timer `key`."""
        self._effects.append(SetTimer(key, at_ns, deadline=deadline))

    def cancel_timer(self, key: str) -> None:
        """Disarm the timer `key`."""
        self._effects.append(CancelTimer(key))

    def record(self, name: str, **fields: object) -> None:
        """Leave a trace record `link.<name>`."""
        self._effects.append(Record(f"link.{name}", fields))


def name_of(error: ErrorCode | str) -> str:
    """The registry name; what came over the wire is a name already."""
    return error.name if isinstance(error, ErrorCode) else error
