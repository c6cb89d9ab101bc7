"""The machine contract: what every protocol layer of a node looks like from outside.

A machine is handed an event and the network time, and answers with effects. It never reads a
clock, sleeps, does I/O, or draws randomness but from the generator it was built with, so that a
run is a function of (configuration, seed).

Rules
1. `handle` is complete on return: nothing of the event is left to do later except by a timer.
2. Nothing escapes `handle`. A peer's nonsense is answered by the protocol's error; an exception
   is our own bug and ends the machine. (A machine in another process raises `LayerGoneError`.)
3. A timer event may come late or for a thing already gone: compare, never assume.

Events and effects refer to nothing that refers to them: `gc=False` spares the collector the many.
"""

from typing import Final, Protocol

from msgspec import Struct

from qstack.wire.message import Message

FABRIC: Final = "@fabric"
"""The peer name under which the emulated quantum world is reached."""


class Told(Struct, frozen=True, gc=False):
    """A message from another layer of this node, or from an application session.

    `source` is the owner that said it: a layer's name, or a session id such as `app/3`.
    """

    source: str
    message: Message


class FromPeer(Struct, frozen=True, gc=False):
    """A message from the same layer of node `peer` (or from the fabric, `FABRIC`)."""

    peer: str
    message: Message


class TimerFired(Struct, frozen=True, gc=False):
    """The timer `key`, armed by this machine, has come due."""

    key: str


class PeerUp(Struct, frozen=True):
    """A channel to `peer` is up. `boot_id` is new whenever the peer has restarted."""

    peer: str
    boot_id: bytes


class PeerDown(Struct, frozen=True):
    """The channel to `peer` is gone, and all that was on its way in it."""

    peer: str


class OwnerGone(Struct, frozen=True):
    """An application session has ended, or another layer of this node has lost its state.

    Whatever it owned or asked for must be freed and the far end told; what a layer has given or
    promised is void, and its open calls are not answered.
    """

    owner: str


class LayerUp(Struct, frozen=True):
    """Another layer of this node begins anew, after `OwnerGone`: it owns and knows nothing.

    What came to it meanwhile is freed; what it is told unasked is told again.
    """

    layer: str


Event = Told | FromPeer | TimerFired | PeerUp | PeerDown | OwnerGone | LayerUp


class Tell(Struct, frozen=True, gc=False):
    """Hand `message` to another layer of this node, or to an application session."""

    to: str
    message: Message


class Send(Struct, frozen=True, gc=False):
    """Send `message` to the same layer of `peer`, or an operation to the fabric."""

    peer: str
    message: Message


class OpenChannel(Struct, frozen=True):
    """Ask for a channel to `peer`; answered by `PeerUp`, or `PeerDown` if it cannot be had."""

    peer: str


class SetTimer(Struct, frozen=True, gc=False):
    """Arm (or re-arm) the timer `key` for network time `at_ns`.

    A `background` timer is idle housekeeping: it does not keep the clock of an idle network
    moving. A `deadline` limits a wait: where nothing else is ahead the clock goes towards it, but
    no faster than a person's.
    """

    key: str
    at_ns: int
    background: bool = False
    deadline: bool = False


class CancelTimer(Struct, frozen=True, gc=False):
    """Disarm the timer `key`; nothing happens if it is not armed."""

    key: str


class Record(Struct, frozen=True):
    """A structured trace record with a stable name, such as `link.pair_ready`."""

    name: str
    fields: dict[str, object]


Effect = Tell | Send | OpenChannel | SetTimer | CancelTimer | Record


class LayerGoneError(Exception):
    """The process a machine lives in has gone, or says what it may not; the text says which."""


class Machine(Protocol):
    """One protocol layer of one node."""

    def handle(self, event: Event, now: int) -> list[Effect]:
        """Take one event at network time `now` (ns); return everything that follows from it."""
        ...
