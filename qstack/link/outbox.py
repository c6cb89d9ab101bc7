"""What the parts of the link machine share: the effects of a turn, and the words they come in."""

from qstack.errors import ErrorCode
from qstack.link import messages, service
from qstack.link.conversation import Conversation
from qstack.machine import CancelTimer, Effect, Record, Send, SetTimer, Tell
from qstack.physical import service as physical
from qstack.wire.message import Message

ABOVE = "network"
"""The owner above. A layer imports nothing of the one above it, so its name stands here."""


class Outbox:
    """The effects of one turn of one node's link layer, in order; `now` is its network time."""

    def __init__(self, node_boot_id: bytes, neighbours: list[str]) -> None:
        self.now = 0
        self.conversations = {name: Conversation(name, node_boot_id, self) for name in neighbours}
        self._effects: list[Effect] = []
        self._touched: dict[str, None] = {}

    def take(self) -> list[Effect]:
        """The effects of the turn."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for name in touched:
                self.conversations[name].settle(self.now)
        effects, self._effects = self._effects, []
        return effects

    def conversation(self, peer: str) -> Conversation:
        """The conversation with `peer`, to say or hear something in this turn."""
        self._touched[peer] = None
        return self.conversations[peer]

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

    def send(self, peer: str, message: messages.LinkMessage) -> None:
        """Say `message` to the link layer of `peer`, exactly once if the link stays up."""
        self.conversation(peer).say(message, self.now)

    def emit(self, peer: str, message: messages.LinkMessage) -> None:
        """Put `message` into the channel to `peer` as it is; the conversation's alone to use."""
        self._effects.append(Send(peer, message))

    def refuse(self, peer: str, message: Message, error: ErrorCode, detail: str) -> None:
        """Answer a message that broke a rule; an error is never answered by an error."""
        if not isinstance(message, messages.Error) and peer in self.conversations:
            answer = messages.Error(name=error.name, detail=detail, about=message.TYPE)
            self.send(peer, answer)
        self.record("refused", peer=peer, error=error.name, detail=detail)

    def set_timer(
        self, key: str, at_ns: int, *, deadline: bool = False, background: bool = False
    ) -> None:
        """Arm the timer `key`."""
        self._effects.append(SetTimer(key, at_ns, deadline=deadline, background=background))

    def cancel_timer(self, key: str) -> None:
        """Disarm the timer `key`."""
        self._effects.append(CancelTimer(key))

    def record(self, name: str, **fields: object) -> None:
        """Leave a trace record `link.<name>`."""
        self._effects.append(Record(f"link.{name}", fields))


def name_of(error: ErrorCode | str) -> str:
    """The registry name; what came over the wire is a name already."""
    return error.name if isinstance(error, ErrorCode) else error
