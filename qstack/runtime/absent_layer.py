"""What stands in for a layer that is away, and what it owes to sessions of applications.

Rules
1. A call that would be answered is answered, with the error of a layer that has gone; all else is
   dropped. So nobody waits for a layer that is not there.
2. Calls of sessions that were open at the physical layer when it went are answered then, and the
   sessions told that their qubits are gone. (The layers know, by `OwnerGone`. Sessions end with
   the transport layer, whose sockets they use.)
"""

from typing import Any, Final

from qstack.errors import ErrorCode
from qstack.link import service as link
from qstack.machine import Effect, Event, Machine, OwnerGone, Tell, Told
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.runtime.lives import LAYERS
from qstack.transport import service as transport
from qstack.wire.message import Message

EMPTY: Final[dict[str, dict[str, object]]] = {
    "physical": {"is_ready": False, "qubits": 0, "qubits_by_owner": {}},
    "link": {"links_up": [], "open_requests": 0, "estimates": []},
    "network": {"known_nodes": [], "circuits": []},
    "transport": {"sockets": 0, "flows": 0, "streams": 0},
}
"""Facts for status of a layer that is away."""
_ANSWERS: Final = (
    physical.Allocated, physical.CallDone, physical.Measured, physical.BellMeasured,
    physical.CallFailed,
)  # fmt: skip
_ERROR: Final = ErrorCode.LAYER_LOST.name


class AbsentLayer:
    """A `Machine` in the place of `layer`."""

    def __init__(self, layer: str) -> None:
        self._layer = layer

    def handle(self, event: Event, now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        del now
        answer = self._answer(event.message) if isinstance(event, Told) else None
        return [Tell(event.source, answer)] if isinstance(event, Told) and answer else []

    def summary(self) -> dict[str, object]:
        """Facts for status."""
        return {"is_away": True, **EMPTY[self._layer]}

    def _answer(self, message: Message) -> Message | None:
        call = getattr(message, "call", None)
        detail = f"the {self._layer} layer"
        match message:
            case link.LinkCreate(request=request, purpose=purpose):
                return link.LinkFailed(
                    request=request, purpose=purpose, error=_ERROR, detail=detail, best=None
                )
            case network.NetworkCreate(request=request):
                return network.NetworkFailed(
                    request=request, error=_ERROR, detail=detail, best=None
                )
            case network.RouteQuery(call=number):
                return network.RouteAnswer(call=number, path=[], fidelity=0.0, rate_hz=0.0)
            case transport.CancelCall():
                return None  # there is no call
            case _ if isinstance(call, int) and self._layer == physical.LAYER:
                return physical.CallFailed(call=call, error=_ERROR, detail=detail)
            case _ if isinstance(call, int) and self._layer == transport.LAYER:
                return transport.Failed(call=call, error=_ERROR, detail=detail, best=None)
            case _:
                return None


class NotedCalls:
    """The physical layer, as a `Machine`, with a note of what it owes to sessions."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._sessions: dict[str, dict[int, None]] = {}

    def handle(self, event: Event, now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        effects = self._machine.handle(event, now)
        if isinstance(event, Told):
            self._note(event.source, event.message)
        elif isinstance(event, OwnerGone):
            self._sessions.pop(event.owner, None)
        if self._sessions:
            for effect in effects:
                if isinstance(effect, Tell) and isinstance(effect.message, _ANSWERS):
                    self._sessions.get(effect.to, {}).pop(effect.message.call, None)
        return effects

    def last_words(self) -> list[Tell]:
        """What sessions are told when it goes."""
        failed: list[Tell] = []
        for session, calls in self._sessions.items():
            for call in calls:
                answer = physical.CallFailed(call=call, error=_ERROR, detail="the physical layer")
                failed.append(Tell(session, answer))
            failed.append(Tell(session, physical.DeviceLost()))
        return failed

    def summary(self) -> dict[str, object]:
        """Facts for status."""
        machine: Any = self._machine
        facts: dict[str, object] = machine.summary()
        return facts

    def _note(self, source: str, message: Message) -> None:
        if isinstance(message, physical.Transfer) and message.to not in LAYERS:
            self._sessions.setdefault(message.to, {})
        if source not in LAYERS and isinstance(call := getattr(message, "call", None), int):
            self._sessions.setdefault(source, {})[call] = None
