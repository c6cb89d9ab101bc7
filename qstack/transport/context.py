"""What all parts of the transport machine share: the present moment, its effects, its tables.

Rules
1. Effects leave in the order they were made. A part never keeps one back.
2. A timer is known by its key and the time it was armed for; a firing that comes before that time
   belongs to an earlier arming and is ignored.
3. A network request and a physical call are known to exactly one user each, until it lets go.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
from msgspec import Struct

from qstack.errors import ErrorCode
from qstack.ids import FreshIds
from qstack.machine import CancelTimer, Effect, Record, SetTimer, Tell
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport.channels import Channels
from qstack.transport.params import RECENT_REQUESTS_MAX
from qstack.wire.message import Basis, BasisChoice, BasisProbabilities, Message
from qstack.wire.packed import BASES, draw_bases

K = TypeVar("K")
V = TypeVar("V")

PAULI_GATES: Final[dict[tuple[int, int], physical.GateName]] = {
    (1, 0): "x",
    (0, 1): "z",
    (1, 1): "y",
}
"""The gate that undoes the Bell bits (x, z)."""

PhysicalAnswer = physical.Measured | physical.BellMeasured | physical.CallFailed


class Reason(Struct, frozen=True):
    """Why something ended: the registry name, a sentence, and the fidelity that could be had."""

    error: str
    detail: str = ""
    best: float | None = None


def reason(code: ErrorCode, detail: str = "") -> Reason:
    """The reason `code`."""
    return Reason(code.name, detail)


def foreign_reason(error: str, detail: str, best: float | None = None) -> Reason:
    """A reason somebody else gave; a name that is not in the registry becomes REJECTED."""
    known = error in ErrorCode.__members__
    return Reason(error if known else ErrorCode.REJECTED.name, detail[:500], best)


class BoundedDict(OrderedDict[K, V], Generic[K, V]):
    """A dict that forgets its oldest entry when it would hold more than `entries_max`."""

    def __init__(self, entries_max: int) -> None:
        super().__init__()
        self.entries_max = entries_max

    def put(self, key: K, value: V) -> None:
        """Set `key`, forgetting the oldest entry if there is no room."""
        self[key] = value
        if len(self) > self.entries_max:
            self.popitem(last=False)


class RequestUser(Protocol):
    """Whoever asked for, or is the tail of, one network request."""

    def on_pair(self, message: network.EndPair, /) -> None:
        """A pair; its qubit belongs to the transport layer."""

    def on_measured(self, message: network.EndMeasured, /) -> None:
        """Measured pairs."""

    def on_expired(self, message: network.EndPairExpired, /) -> None:
        """A pair indicated before, and not yet delivered, is void."""

    def on_done(self) -> None:
        """The network has indicated all it will."""

    def on_failed(self, why: Reason, /) -> None:
        """The request ended otherwise."""


class Context:
    """The present moment of one transport machine, and the tables its parts share."""

    def __init__(self, node: str, rng: np.random.Generator) -> None:
        self.node = node
        self.now = 0
        self.effects: list[Effect] = []
        self.channels = Channels(self)
        self.requests: dict[bytes, RequestUser] = {}
        self.recent_requests: BoundedDict[bytes, None] = BoundedDict(RECENT_REQUESTS_MAX)
        self.qubits: set[bytes] = set()  # those the layer holds for a known purpose
        self._rng = rng
        self._ids = FreshIds(rng)
        self._timers: dict[str, tuple[int, Callable[[], None]]] = {}
        self._calls: dict[int, Callable[[PhysicalAnswer | None], None]] = {}
        self._next_call = 0

    def fresh_id(self) -> bytes:
        """16 bytes from the machine's generator."""
        return self._ids.fresh()

    def tell(self, to: str, message: Message) -> None:
        """Hand a message to a layer or session of this node."""
        self.effects.append(Tell(to, message))

    def send(self, peer: str, message: Message) -> None:
        """Send if the channel is up; if not, ask for it, and rely on `resume` when it comes."""
        self.channels.send(peer, message)

    def record(self, name: str, **fields: object) -> None:
        """Leave a trace record."""
        self.effects.append(Record(name, fields))

    # --- timers ---

    def set_timer(
        self,
        key: str,
        at_ns: int,
        callback: Callable[[], None],
        *,
        background: bool = False,
        deadline: bool = False,
    ) -> None:
        """Arm (or re-arm) a timer."""
        self._timers[key] = (at_ns, callback)
        self.effects.append(SetTimer(key, at_ns, background, deadline))

    def cancel_timer(self, key: str) -> None:
        """Disarm a timer, if it is armed."""
        if self._timers.pop(key, None) is not None:
            self.effects.append(CancelTimer(key))

    def fire(self, key: str) -> None:
        """Run the timer `key` if it is armed and due."""
        at_ns, callback = self._timers.get(key, (None, None))
        if at_ns is not None and callback is not None and at_ns <= self.now:
            del self._timers[key]
            callback()

    # --- the layers below ---

    def use_request(self, request: bytes, user: RequestUser) -> None:
        """From now on `user` hears of the network request."""
        assert request not in self.requests, "a request has one user"
        self.requests[request] = user

    def end_request(self, request: bytes, *, cancel: bool) -> None:
        """Hear no more of a network request; `cancel` it if the network may still work on it."""
        if self.requests.pop(request, None) is None:
            return
        self.recent_requests.put(request, None)
        if cancel:
            self.tell(network.LAYER, network.NetworkCancel(request=request))

    def is_known_request(self, request: bytes) -> bool:
        """Whether this request is in use here, or was lately."""
        return request in self.requests or request in self.recent_requests

    def hold(self, qubit: bytes) -> None:
        """Note that the layer holds `qubit`."""
        self.qubits.add(qubit)

    def free(self, qubit: bytes) -> None:
        """End a qubit of ours."""
        self.qubits.discard(qubit)
        self.tell(physical.LAYER, physical.Free(qubit=qubit))

    def transfer(self, qubit: bytes, session: str) -> None:
        """Give a qubit of ours to a session."""
        self.qubits.discard(qubit)
        transfer = physical.Transfer(call=None, qubit=qubit, to=session)
        self.effects.append(Tell(physical.LAYER, transfer))

    def correct(self, qubit: bytes, x_bit: int, z_bit: int) -> None:
        """Apply X^x Z^z: the Bell state (x, z) becomes phi+, a teleported qubit itself.

        One gate for both bits, for each costs fidelity: XZ is Y up to a phase.
        """
        name = PAULI_GATES.get((x_bit, z_bit))
        if name is not None:
            gate = physical.ApplyGate(call=None, name=name, qubits=[qubit], angle=0.0)
            self.tell(physical.LAYER, gate)

    def rotate(self, qubit: bytes, rotation: physical.Rotation) -> None:
        """Turn a qubit of ours before it is read, by gates: angles of 0 need none."""
        turns: tuple[tuple[physical.GateName, float], ...] = (
            ("rx", rotation.x1_rad),
            ("ry", rotation.y_rad),
            ("rx", rotation.x2_rad),
        )
        for name, angle in turns:
            if angle:
                gate = physical.ApplyGate(call=None, name=name, qubits=[qubit], angle=angle)
                self.tell(physical.LAYER, gate)

    def draw_basis(self, choice: BasisChoice) -> Basis:
        """What one qubit is to be read in."""
        if isinstance(choice, BasisProbabilities):
            return BASES[int(draw_bases(self._rng, choice, 1)[0])]
        return choice

    def measure(
        self, qubit: bytes, basis: Basis, answered: Callable[[PhysicalAnswer | None], None]
    ) -> None:
        """Measure a qubit of ours; `answered` gets None if the device goes first."""
        call = self._open_call(answered)
        self.qubits.discard(qubit)
        self.tell(physical.LAYER, physical.Measure(call=call, qubit=qubit, basis=basis))

    def bell_measure(
        self, first: bytes, second: bytes, answered: Callable[[PhysicalAnswer | None], None]
    ) -> None:
        """Bell-measure two qubits; `answered` gets None if the device goes first."""
        call = self._open_call(answered)
        self.tell(physical.LAYER, physical.BellMeasure(call=call, first=first, second=second))

    def on_physical(self, message: PhysicalAnswer) -> None:
        """Hand an answer to whoever made the call; nobody may wait for it any more."""
        answered = self._calls.pop(message.call, None)
        if answered is not None:
            answered(message)

    def on_device_lost(self) -> None:
        """Every open physical call ends without an answer; every qubit is gone."""
        calls, self._calls = self._calls, {}
        self.qubits.clear()
        for answered in calls.values():
            answered(None)

    def _open_call(self, answered: Callable[[PhysicalAnswer | None], None]) -> int:
        self._next_call += 1
        self._calls[self._next_call] = answered
        return self._next_call
