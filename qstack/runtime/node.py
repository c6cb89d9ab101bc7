"""A node: its layers around one queue, in network time. No I/O; drivers feed it and flush it.

The heap is ordered by (time, source, sequence). One event is taken from it, and all that follows
inside the node is run to completion, in the order it was said, before the next one: no machine is
called while one is running.

Processing time is a constant (CLOCK.md, 6): a message or a device's answer is handled
`machine_event_ns` after it arrived, an application's call `application_call_ns` after it was
made; timers fire when they are due.

A layer may die alone. Its timers go with it, an `AbsentLayer` takes its place, the other layers are
told by `OwnerGone`, and what of peers and device is for it waits for its next life (`lives.py`).
When that begins, the others are told by `LayerUp`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import Final

from msgspec import Struct

from qstack.machine import (
    FABRIC,
    CancelTimer,
    Effect,
    Event,
    FromPeer,
    LayerGoneError,
    LayerUp,
    Machine,
    OpenChannel,
    OwnerGone,
    PeerDown,
    PeerUp,
    Record,
    Send,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.physical.device import Cleared
from qstack.runtime.absent_layer import AbsentLayer, NotedCalls
from qstack.runtime.lives import LAYERS, Handed, Lives
from qstack.runtime.trace import Trace
from qstack.wire.frame import Layer
from qstack.wire.message import Message

GENERATION: Final = 2**48
"""Messages of one channel are numbered below this, its generations in multiples of it."""
TIMER: Final = "@timer"
"""The source of what fires, told by identity."""
NEVER_NS: Final = 2**63
CANCELLED_MIN: Final = 256  # fewer cancelled timers are not worth rebuilding the heap for
ROOM: Final[dict[int, str]] = {
    Layer.PHYSICAL: "physical",
    Layer.LINK: "link",
    Layer.NETWORK: "network",
    Layer.TRANSPORT: "transport",
    Layer.APPLICATION: "session",
    Layer.NODE: "",  # the node itself
}


class ToPeer(Struct, frozen=True, gc=False):
    """For another node, sent at `at_ns`."""

    peer: str
    at_ns: int
    message: Message


class ToFabric(Struct, frozen=True, gc=False):
    """An operation for the device."""

    at_ns: int
    message: Message


class ToSession(Struct, frozen=True, gc=False):
    """For an application, said at `at_ns`."""

    session: str
    at_ns: int
    message: Message


class ToOpen(Struct, frozen=True):
    """A channel is wanted."""

    peer: str
    at_ns: int


class Noted(Struct, frozen=True):
    """A trace record."""

    at_ns: int
    layer: str
    name: str
    fields: dict[str, object]


class LayerAway(Struct, frozen=True):
    """A layer has gone; another life of it is wanted (`Node.layer_came`)."""

    layer: str
    at_ns: int
    why: str


class LayerDue(Struct, frozen=True):
    """The time has come at which a layer that is away was to be back."""

    layer: str
    at_ns: int


Output = ToPeer | ToFabric | ToSession | ToOpen | Noted | LayerAway | LayerDue


class _OfLayer(Struct, frozen=True):
    """What a driver says of a layer; no machine is told it as it is."""

    layer: str


class _Gone(_OfLayer, frozen=True):
    machine: Machine  # the life that has gone


class _Due(_OfLayer, frozen=True):
    pass


class _Came(_OfLayer, frozen=True):
    start: Callable[[bytes], Machine]


class Urgency(IntEnum):
    """What an event that lies ahead means for the clock of the network."""

    WORK = 0  # it runs, as fast as everybody can
    WAIT = 1  # a deadline: it goes on, no faster than wall time
    IDLE = 2  # housekeeping: it may stand


WORK, WAIT, IDLE = Urgency  # looked up in the enumeration they cost as much as a call


@dataclass(frozen=True)
class Timing:
    """Constants of processing, from the network file."""

    machine_event_ns: int
    application_call_ns: int


class Node:
    """The layers of one node in one process."""

    def __init__(
        self,
        name: str,
        boot_id: bytes,
        machines: dict[str, Machine],
        timing: Timing,
        trace: Trace | None,
        stations: frozenset[str] = frozenset(),
    ) -> None:
        """`machines` are all layers, or a heralding station's one; `stations` its such peers."""
        assert tuple(machines) in (LAYERS, LAYERS[:1])
        self.name = name
        self.boot_id = boot_id
        self.machines = machines
        self.timing = timing
        self._message_ns = timing.machine_event_ns
        self.trace = trace
        self.now = 0
        self.hears_peers_from_ns = 0  # what they say comes no earlier, whatever its date
        self.events_handled = 0
        self._heap: list[tuple[int, str, int, str, Event | _OfLayer]] = []
        self._timers: dict[tuple[str, str], int] = {}  # by layer and key, numbered as they are set
        self._armed: dict[int, Urgency] = {}  # those numbers
        self._timer_sequence = 0
        self._cancelled = 0  # about so many timers in the heap are cancelled
        self._own_numbers: dict[str, int] = {}
        self._events = 0  # in the heap, timers apart
        self._ahead = [0] * len(Urgency)  # timers by urgency
        self._lives = Lives(boot_id, tuple(machines), stations)
        self._begins: dict[str, int] = {}  # numbers of a source below it are of a lost channel

    # --- what the driver says --------------------------------------------------------------------

    def message_arrived(self, peer: str, sequence: int, at_ns: int, message: Message) -> None:
        """The `sequence`-th message of this channel to `peer` is here at network time `at_ns`."""
        if peer == FABRIC and not (self._lives.is_plain or self._lives.admits(message)):
            return
        due = at_ns + self._message_ns
        room = "" if isinstance(message, Cleared) else ROOM[message.LAYER]
        numbered = self._begins.get(peer, 0) + sequence
        heappush(self._heap, (due, peer, numbered, room, FromPeer(peer, message)))
        self._events += 1

    def call(self, session: str, sequence: int, at_ns: int, message: Message) -> None:
        """An application's call, made at `at_ns`."""
        due = at_ns + self.timing.application_call_ns
        self._push(due, session, sequence, ROOM[message.LAYER], Told(session, message))

    def session_ended(self, session: str, sequence: int, at_ns: int) -> None:
        """The session is over; every layer is told, after the calls it made before."""
        due = at_ns + self.timing.application_call_ns
        self._push(due, session, sequence, "", OwnerGone(session))

    def peer_up(self, peer: str, boot_id: bytes, at_ns: int) -> None:
        """A channel to `peer` is usable from `at_ns` on."""
        self._push_own("@up " + peer, at_ns, PeerUp(peer, boot_id))

    def peer_down(self, peer: str, at_ns: int) -> None:
        """The channel is gone, and what has arrived by it but is still to be handled is void."""
        for source in (peer, "@up " + peer):
            self._begins[source] = self._begins.get(source, 0) + GENERATION
        self._push_own("@down " + peer, at_ns, PeerDown(peer))

    def channel_refused(self, peer: str, at_ns: int) -> None:
        """A channel that was asked for cannot be had."""
        self._push_own("@refused " + peer, at_ns, PeerDown(peer))

    def is_up(self, peer: str) -> bool:
        """Whether the layers have been told of a channel to `peer`."""
        return self._lives.is_up(peer)

    def layer_gone(self, layer: str, machine: Machine, at_ns: int) -> None:
        """This life of a layer is over, as is seen from outside at `at_ns`."""
        due = at_ns + self.timing.application_call_ns
        self._push_own("@gone " + layer, due, _Gone(layer, machine))

    def layer_due(self, layer: str, at_ns: int) -> None:
        """A layer that is away is to be back at `at_ns`: the clock goes there, and `LayerDue` is
        said.
        """
        self._push_own("@due " + layer, at_ns, _Due(layer))

    def layer_came(self, layer: str, start: Callable[[bytes], Machine], at_ns: int) -> None:
        """A layer that is away is back at `at_ns`: `start` makes it, with the boot id it is given.

        Should `start` raise `LayerGoneError`, it has gone again.
        """
        due = at_ns + self.timing.application_call_ns
        self._push_own("@came " + layer, due, _Came(layer, start))

    def has_waiting(self, peer: str, most: int) -> bool:
        """Whether more than `most` messages of a peer are here and not handled yet."""
        if len(self._heap) <= most:
            return False
        begins = self._begins.get(peer, 0)
        return sum(entry[1] == peer and entry[2] >= begins for entry in self._heap) > most

    # --- running ---------------------------------------------------------------------------------

    @property
    def next_event_ns(self) -> int | None:
        """When the node has something to do next."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    @property
    def has_demand(self) -> bool:
        """Whether anything but idle housekeeping and deadlines is ahead."""
        return self._events > 0 or self._ahead[WORK] > 0

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for something with a deadline."""
        return self._ahead[WAIT] > 0

    def step(self) -> list[Output]:
        """Handle the next event."""
        return self.run_before(NEVER_NS, events_max=1)

    def run_before(self, end_ns: int, events_max: int | None = None) -> list[Output]:
        """Handle what is due before `end_ns`, each event with all that follows from it here."""
        outputs: list[Output] = []
        heap, begins, now, lives = self._heap, self._begins, self.now, self._lives
        heard_ns = self.hears_peers_from_ns
        events = 0
        while heap and heap[0][0] < end_ns and events != events_max:
            due, source, sequence, room, event = heappop(heap)
            if source is TIMER:
                if not self._fires(sequence, room, event):
                    continue
            else:
                self._events -= 1
                if sequence < begins.get(source, 0):
                    continue  # its channel has gone
                if due < heard_ns and isinstance(event, FromPeer):
                    due = heard_ns
            events += 1
            self.now = now = max(now, due)
            if isinstance(event, _OfLayer):
                self._run(self._on_layer(event, outputs), source, sequence, outputs)
            elif not room:
                self._run(self._on_all(event, source, outputs), source, sequence, outputs)
            elif lives.is_plain or not self._is_void(room, event):
                self._run([(room, event)], source, sequence, outputs)
        self.events_handled += events
        return outputs

    def _is_void(self, room: str, event: Event) -> bool:
        return isinstance(event, FromPeer) and self._lives.is_void(event.peer, room)

    def _on_all(self, event: Event, source: str, outputs: list[Output]) -> Handed:
        """What an event that is for no layer alone is to the layers."""
        match event:
            case PeerUp(peer, boot_id):
                handed = self._lives.peer_up(peer, boot_id, self.now)
            case PeerDown(peer):
                is_refusal = source.startswith("@refused")
                handed = self._lives.peer_down(peer, is_refusal=is_refusal)
            case FromPeer(peer, message):
                handed = self._lives.heard(peer, message)
            case _:
                handed = [(target, event) for target in self.machines]
        self._say(outputs)
        return handed

    def _run(self, queue: Handed, source: str, sequence: int, outputs: list[Output]) -> None:
        now, machines, trace = self.now, self.machines, self.trace
        then, said = queue.append, outputs.append
        for room, event in queue:  # which grows meanwhile
            try:
                effects = machines[room].handle(event, now)
            except LayerGoneError as gone:
                self._lose(room, str(gone), queue, outputs)
                effects = machines[room].handle(event, now)
            if trace is not None:
                trace.add(now, source, sequence, room, event, effects)
            for effect in effects:
                if isinstance(effect, Tell) and effect.to in machines:  # by far the likeliest
                    then((effect.to, Told(room, effect.message)))
                elif isinstance(effect, Send):
                    message = effect.message
                    is_fabric = effect.peer == FABRIC
                    said(ToFabric(now, message) if is_fabric else ToPeer(effect.peer, now, message))
                else:
                    self._take(room, effect, queue, outputs)

    # --- lives of layers -------------------------------------------------------------------------

    def _on_layer(self, event: _OfLayer, outputs: list[Output]) -> Handed:
        queue: Handed = []
        machine = self.machines[event.layer]
        is_away = isinstance(machine, AbsentLayer)
        match event:
            case _Gone() if machine is event.machine and not is_away:
                self._lose(event.layer, "its process has ended", queue, outputs)
            case _Due() if is_away:
                outputs.append(LayerDue(event.layer, self.now))
            case _Came() if is_away:
                queue.extend(self._begin(event.layer, event.start, outputs))
            case _:
                pass  # it was seen before
        return queue

    def _lose(self, layer: str, why: str, queue: Handed, outputs: list[Output]) -> None:
        """A layer has gone, with its timers and all it knew; the others hear of it in turn."""
        machine, self.machines[layer] = self.machines[layer], AbsentLayer(layer)
        for room, key in list(self._timers):
            if room == layer:
                self._cancel_timer(room, key)
        self._lives.layer_gone(layer, self.now)
        self._say(outputs)
        if isinstance(machine, NotedCalls):
            words = machine.last_words()
            outputs.extend(ToSession(word.to, self.now, word.message) for word in words)
        outputs.append(LayerAway(layer, self.now, why))
        queue.extend((other, OwnerGone(layer)) for other in LAYERS if other != layer)

    def _begin(
        self, layer: str, start: Callable[[bytes], Machine], outputs: list[Output]
    ) -> Handed:
        """A layer begins a life: the others are told first, who have something to tell it."""
        try:
            self.machines[layer] = start(self._lives.boot_id_of(layer))
        except LayerGoneError as gone:
            outputs.append(LayerAway(layer, self.now, str(gone)))
            return []
        others: Handed = [(other, LayerUp(layer)) for other in LAYERS if other != layer]
        handed = others + self._lives.layer_up(layer, self.now)
        self._say(outputs)
        return handed

    def _say(self, outputs: list[Output]) -> None:
        for peer, message in self._lives.take():
            to_peer = ToPeer(peer, self.now, message)
            outputs.append(ToFabric(self.now, message) if peer == FABRIC else to_peer)

    def _take(self, room: str, effect: Effect, queue: Handed, outputs: list[Output]) -> None:
        """What goes to applications, timers, and what is rare."""
        # A chain of isinstance, likeliest first: twice as quick as patterns.
        if isinstance(effect, Tell):
            outputs.append(ToSession(effect.to, self.now, effect.message))
        elif isinstance(effect, SetTimer):
            urgency = IDLE if effect.background else WAIT if effect.deadline else WORK
            self._set_timer(room, effect.key, effect.at_ns, urgency)
        elif isinstance(effect, CancelTimer):
            self._cancel_timer(room, effect.key)
        elif isinstance(effect, OpenChannel):
            if self._lives.is_away_there(effect.peer, room):
                queue.append((room, PeerDown(effect.peer)))
            else:
                outputs.append(ToOpen(effect.peer, self.now))
        elif isinstance(effect, Record):
            outputs.append(Noted(self.now, room, effect.name, effect.fields))

    # --- heap and timers -------------------------------------------------------------------------

    def _push(
        self, due: int, source: str, sequence: int, room: str, event: Event | _OfLayer
    ) -> None:
        heappush(self._heap, (due, source, sequence, room, event))
        self._events += 1

    def _push_own(self, source: str, due: int, event: Event | _OfLayer) -> None:
        """An event of the driver's making, numbered by its source alone.

        When a driver comes to say it, within a round, is a matter of wall time: a count it shared
        with other events would carry that into the trace.
        """
        self._own_numbers[source] = self._own_numbers.get(source, 0) + 1
        numbered = self._begins.get(source, 0) + self._own_numbers[source]
        self._push(due, source, numbered, "", event)

    def _set_timer(self, room: str, key: str, at_ns: int, urgency: Urgency) -> None:
        if (room, key) in self._timers:
            self._cancel_timer(room, key)
        self._timer_sequence = sequence = self._timer_sequence + 1
        self._timers[room, key] = sequence
        self._armed[sequence] = urgency
        self._ahead[urgency] += 1
        heappush(self._heap, (max(at_ns, self.now), TIMER, sequence, room, TimerFired(key)))

    def _cancel_timer(self, room: str, key: str) -> None:
        sequence = self._timers.pop((room, key), None)
        if sequence is not None:
            self._ahead[self._armed.pop(sequence)] -= 1
            self._cancelled += 1
            if self._cancelled > max(CANCELLED_MIN, len(self._heap) // 2):
                self._clear_out()

    def _clear_out(self) -> None:
        """Rebuild the heap without what is cancelled: deadlines are seldom lived to see."""
        armed = self._armed
        self._heap[:] = [
            entry for entry in self._heap if entry[1] is not TIMER or entry[2] in armed
        ]
        heapify(self._heap)
        self._cancelled = 0

    def _is_stale(self, source: str, sequence: int) -> bool:
        """A timer that was cancelled, or a message of a channel that has gone."""
        if source is TIMER:
            return sequence not in self._armed
        return sequence < self._begins.get(source, 0)

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and self._is_stale(heap[0][1], heap[0][2]):
            if heappop(heap)[1] is not TIMER:
                self._events -= 1

    def _fires(self, sequence: int, room: str, event: Event | _OfLayer) -> bool:
        """Account for a timer taken from the heap; False if it was cancelled."""
        urgency = self._armed.pop(sequence, None)
        if urgency is None:
            return False
        assert isinstance(event, TimerFired)
        del self._timers[room, event.key]
        self._ahead[urgency] -= 1
        return True
