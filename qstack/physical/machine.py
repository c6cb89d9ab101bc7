"""The physical layer of one node: attempts for the link layer, qubits for whoever owns them.

Nodes meet at heralding stations, through the device; to those that have a name it says when it
attempts (`station_gens.py`). Neighbours say to each other how their clocks compare
(`time_sync.py`), where they have some. The device's coming and going is a `PeerUp` and `PeerDown`
of the device's peer name, or what it says of its own health. A device in this process is asked for
its answers by a timer. The generator draws the bases of measured pairs, where the asker leaves them
to chance, and nothing else.
"""

from collections.abc import Sequence
from itertools import count
from typing import Final

import numpy as np

from qstack.ids import link_id
from qstack.machine import (
    CancelTimer,
    Effect,
    Event,
    FromPeer,
    LayerUp,
    OwnerGone,
    PeerDown,
    PeerUp,
    Record,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.physical.attempts import LINK_LAYER, SHARE_TIMER, Attempts
from qstack.physical.calibration import Calibrations
from qstack.physical.device import (
    Answer,
    BasesWanted,
    BatchEnded,
    BellOutcome,
    Calibrated,
    DetectionReply,
    Device,
    DeviceHealth,
    GiveBases,
    Initialised,
    MeasuredReply,
    OperationRefused,
    Outcome,
    PulseStamped,
    Reply,
    Result,
)
from qstack.physical.device_order import DeviceOrder
from qstack.physical.generation import has_storage
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.link_options import PassChannel
from qstack.physical.memory import Memory
from qstack.physical.params import TOLD_LAYERS
from qstack.physical.prediction import (
    generation_options,
    link_capability,
    link_slots,
    node_capability,
    window,
)
from qstack.physical.program import Arm, Disarm
from qstack.physical.programs import Programs
from qstack.physical.qubits import CALL_TIMER, CALLS, FREE_TIMER, Qubits
from qstack.physical.receivers import Receivers
from qstack.physical.service import (
    LAYER,
    AttemptsStart,
    AttemptsStop,
    CalibrateLink,
    DeviceLost,
    DeviceReady,
    LinkCapability,
    LinkOptions,
    MemoryFree,
    Move,
    Transfer,
)
from qstack.physical.station_device import HeraldedRead, Kept
from qstack.physical.station_ends import StationEnds
from qstack.physical.station_gens import StationGens
from qstack.physical.time_sync import SYNC_TIMER, TimeSync
from qstack.wire.message import BasisProbabilities, Message
from qstack.wire.packed import draw_bases, pack_bases

DEVICE_TIMER: Final = "device"
SATELLITE_TIMER: Final = "satellite/"
RESULTS: Final = (Outcome, BellOutcome, Initialised)
"""Of operations on qubits: what is answered to those who asked for them."""


class PhysicalLayer:
    """The machine. `boot_id` makes its qubit ids unlike those of every former life."""

    def __init__(
        self,
        node: str,
        boot_id: bytes,
        world: World,
        device: Device,
        rng: np.random.Generator,
    ) -> None:
        hardware = world.nodes[node]
        self._node = node
        self._world = world
        self._device = device
        self._rng = rng
        self._is_reached = False  # its peer is up
        self._is_ready = False
        self._health = DeviceHealth(state="ready", detail="")
        self._wakes_ns: int | None = None  # when the device's timer is armed for
        self._order = DeviceOrder(device, hardware.profile, hardware.memory)
        self._memory = Memory(boot_id, hardware.memory, link_slots(world, node))
        self._programs = Programs(node, world, self._order, self._memory)
        self._qubits = Qubits(
            self._order,
            self._memory,
            withdraw=self._programs.freed,
            comm_qubits_at_work=lambda: self._attempts.at_work,
        )
        numbers = count()
        gens = StationGens(node, world)
        self._attempts = Attempts(node, world, self._order, self._memory, numbers, gens, rng)
        self._calibrations = Calibrations(node, world, self._order, self._attempts, gens)
        self._receivers = Receivers(node, world, self._order, numbers, gens)
        self._stations = StationEnds(
            gens,
            self._attempts,
            self._receivers,
            self._qubits,
            self._order,
            self._calibrations,
            moves=has_storage(hardware.memory, hardware.profile.comm_qubits)
            or not hardware.is_emulated,
        )
        self._gens = gens
        self._time_sync = TimeSync(node, world, self._order)
        self._newsworthy = (
            self._memory.refused_links,
            self._receivers.refused_links,
            self._time_sync.news,
        )
        """Where something to be told turns up."""

    def handle(self, event: Event, now: int) -> list[Effect]:
        """Take one event at network time `now` (ns); return everything that follows from it."""
        if isinstance(event, Told):
            message = event.message
            if isinstance(message, Transfer) and self._is_ready:  # by far the likeliest event
                # Nothing else comes of it: the device is not asked, and no place is free.
                return self._qubits.on_transfer(event.source, message)
            effects = self._on_told(event.source, message, now)
        elif isinstance(event, FromPeer):
            effects = self._on_heard(event.peer, event.message, now)
        else:
            effects = self._dispatch(event, now)
        if any(self._newsworthy):
            effects += self._news(now)
        effects += self._look_at_agenda()
        return effects

    def summary(self) -> dict[str, object]:
        """Facts for status: whether and how the device is there; places taken in memory, whose."""
        return {
            "is_ready": self._is_ready,
            "health": self._health.state if self._is_reached else "down",
            "health_detail": self._health.detail,
            "qubits": len(self._memory),
            "qubits_by_owner": self._memory.by_owner(),
        } | ({"clocks": clocks} if (clocks := self._time_sync.summary()) else {})

    def _look_at_agenda(self) -> list[Effect]:
        """Come back when the device has something to say."""
        wakes_ns = self._device.next_event_ns() if self._is_reached else None
        if wakes_ns == self._wakes_ns:
            return []
        self._wakes_ns = wakes_ns
        return [CancelTimer(DEVICE_TIMER) if wakes_ns is None else SetTimer(DEVICE_TIMER, wakes_ns)]

    def _news(self, now: int) -> list[Effect]:
        effects: list[Effect] = []
        has_room = self._memory.take_news_of_room()
        if self._receivers.take_news_of_room() or has_room:
            effects.append(Tell(LINK_LAYER, MemoryFree()))
        for peer in self._time_sync.take_news():
            effects += self._expectations(peer, now)
        return effects

    def _on_heard(self, peer: str, message: Message, now: int) -> list[Effect]:
        if peer == self._device.peer:
            return self._on_answers(self._device.received(message, now), now)
        if self._stations.knows(peer):
            return self._stations.heard(peer, message, now) if self._is_ready else []
        heard = self._time_sync.heard(peer, message, now)
        return [_refused(message, f"not for {peer} to say")] if heard is None else heard

    def _dispatch(
        self, event: TimerFired | PeerUp | PeerDown | OwnerGone | LayerUp, now: int
    ) -> list[Effect]:
        match event:
            case TimerFired(key=key):
                return self._on_timer(key, now)
            case PeerUp(peer=peer):
                if self._stations.knows(peer):
                    return self._came(peer, now)
                if peer != self._device.peer:
                    return self._time_sync.peer_up(peer, now)
                return self._on_reached(now)
            case PeerDown(peer=peer):
                if peer != self._device.peer:
                    self._time_sync.peer_down(peer)
                    return self._stations.went(peer, now)
                self._is_reached = False
                return self._on_device_down(now)
            case OwnerGone(owner=owner):
                return self._on_owner_gone(owner, now)
            case LayerUp(layer=layer):
                return self._on_layer_up(layer, now)

    def _on_told(self, source: str, message: Message, now: int) -> list[Effect]:
        if isinstance(message, CALLS):  # by far the likeliest
            return self._qubits.on_call(source, message, now, is_ready=self._is_ready)
        if isinstance(message, AttemptsStart) and source == LINK_LAYER:
            part = self._receivers if self._receivers.serves(message.link) else self._attempts
            return part.start(message, now, is_ready=self._is_ready)
        match message:
            case Move():
                effects = self._qubits.on_call(source, message, now, is_ready=self._is_ready)
                return effects + self._attempts.arbitrate(now)
            case Arm() | Disarm():
                return self._programs.on_call(source, message, now, is_ready=self._is_ready)
            case AttemptsStop() if source == LINK_LAYER:
                return [
                    *self._receivers.stop(message, now),
                    *self._attempts.stop(message, now),
                ]
            case CalibrateLink() if source == LINK_LAYER:
                return self._calibrations.start(message, now, is_ready=self._is_ready)
            case _:
                return [_refused(message, f"not for {source} to ask")]

    def _on_answers(self, answers: Sequence[Answer], now: int) -> list[Effect]:
        effects: list[Effect] = []
        for answer in answers:
            if isinstance(answer, Message):
                effects += self._on_device(answer, now)
            else:
                effects.append(answer)
        return effects

    def _on_device(self, message: Message, now: int) -> list[Effect]:
        if self._is_ready:
            if isinstance(message, Reply):  # by far the likeliest
                effects, unwanted = self._attempts.succeeded(message, now)
                if unwanted is not None:
                    effects += self._qubits.take_back(unwanted, now)
                return effects
            if isinstance(message, RESULTS) and message.operation not in self._programs.open:
                return self._qubits.on_result(message)
        if isinstance(message, DeviceHealth) and self._is_reached:
            return self._on_health(message, now)
        if not self._is_ready:
            return [_refused(message, "from a device that has gone")]
        return self._on_rare_answer(message, now)

    def _on_rare_answer(self, message: Message, now: int) -> list[Effect]:
        match message:
            case OperationRefused():
                return self._on_refused(message, now)
            case Kept() | HeraldedRead():
                return self._stations.done(message, now)
            case Calibrated():
                return self._calibrations.done(message, now)
            case Result() if message.operation in self._programs.open:
                return self._programs.on_result(message)
            case Result():
                return self._qubits.on_result(message)
            case MeasuredReply():
                return self._attempts.measured(message, now)
            case DetectionReply():
                return self._receivers.detected(message)
            case BasesWanted():
                return self._give_bases(message, now)
            case PulseStamped():
                return self._time_sync.stamped(message, now)
            case BatchEnded():
                ended = self._receivers.ended(message)
                return self._attempts.ended(message, now) if ended is None else ended
            case _:
                return [_refused(message, "no device says this")]

    def _on_refused(self, refusal: OperationRefused, now: int) -> list[Effect]:
        why = f"operation {refusal.operation}: {refusal.error} {refusal.detail}"
        effects: list[Effect] = [_refused(refusal, why)]
        answers = self._qubits.on_refused(refusal, now)
        if answers is None:
            answers = self._programs.refused(refusal)
        if answers is None:
            answers = self._attempts.refused(refusal.operation, now)
        if answers is None:
            answers = self._stations.refused(refusal.operation, now)
        if answers is None:
            answers = self._receivers.refused(refusal.operation, now)
        if answers is None:
            answers = self._calibrations.refused(refusal.operation)
        return effects + (answers or [])

    def _give_bases(self, wanted: BasesWanted, now: int) -> list[Effect]:
        """The device has detected something: in which bases we read it, nobody else knows."""
        choice = self._receivers.basis_of(wanted.batch) or self._attempts.basis_of(wanted.batch)
        if not isinstance(choice, BasisProbabilities):
            return [_refused(wanted, f"no bases are drawn for batch {wanted.batch}")]
        bases = pack_bases(draw_bases(self._rng, choice, wanted.count))
        return self._order.submit(
            GiveBases(
                at_ns=now,
                sequence=self._order.next_sequence(),
                batch=wanted.batch,
                part=wanted.part,
                bases=bases,
            ),
            now,
        )

    def _on_timer(self, key: str, now: int) -> list[Effect]:
        if key == DEVICE_TIMER:
            self._wakes_ns = None
            return self._on_answers(self._device.answers(now), now)
        if key.startswith(SATELLITE_TIMER):
            peer = key.removeprefix(SATELLITE_TIMER)
            if not self._is_ready:
                return []
            return [*self._expectations(peer, now), self._next_pass_change(peer, now)]
        if key == SHARE_TIMER:
            return self._attempts.slice_over(now)
        if key.startswith(SYNC_TIMER):
            return self._time_sync.timer_fired(key, now)
        if key.startswith(CALL_TIMER):
            return self._qubits.call_timer(int(key.removeprefix(CALL_TIMER)))
        if key.startswith(FREE_TIMER):
            return self._qubits.free_timer(int(key.removeprefix(FREE_TIMER)))
        return []

    def _on_owner_gone(self, owner: str, now: int) -> list[Effect]:
        effects: list[Effect] = []
        if owner == LINK_LAYER:
            effects += self._attempts.asker_gone(now)
            effects += self._receivers.asker_gone(now)
            self._calibrations.asker_gone()
        effects += self._programs.owner_gone(owner, now)
        return effects + self._qubits.owner_gone(owner, now)

    def _came(self, station: str, now: int) -> list[Effect]:
        """A peer is there: if it is the station of links of ours, these can be run now."""
        links = [self._world.links[name] for name in self._stations.came(station)]
        return [Tell(LINK_LAYER, self._capability(link, now)) for link in links if self._is_ready]

    def _on_reached(self, now: int) -> list[Effect]:
        """The peer of the device is there, and with it a device with nothing in it."""
        effects = self._on_device_down(now)
        self._is_reached = True
        self._health = DeviceHealth(state="ready", detail="")
        self._device.begin(now)
        return effects + self._on_device_up(now)

    def _on_health(self, health: DeviceHealth, now: int) -> list[Effect]:
        """The device says how it is; down is as if it had gone."""
        before, self._health = self._health.state, health
        effects: list[Effect] = [
            Record("physical.device_health", {"state": health.state, "detail": health.detail})
        ]
        if health.state == "down":
            return effects + self._on_device_down(now)
        if not self._is_ready:
            return effects + self._on_device_up(now)
        is_worse = health.state == "degraded" and before != "degraded"
        return effects + self._calibrations.care(is_due=True) if is_worse else effects

    def _on_device_up(self, now: int) -> list[Effect]:
        """Everybody learns that the device is there; link and network what it can do."""
        effects: list[Effect] = []
        self._is_ready = True
        self._order.reset()
        effects += [Tell(layer, DeviceReady()) for layer in TOLD_LAYERS]
        effects += [told for layer in TOLD_LAYERS for told in self._capabilities(layer, now)]
        for link in self._world.links_of(self._node):
            if isinstance(link.channel, PassChannel):
                effects.append(self._next_pass_change(link.other_end(self._node), now))
        effects += self._time_sync.device_up(now)
        return [*effects, Record("physical.device_ready", {})]

    def _capabilities(self, layer: str, now: int) -> list[Effect]:
        """What the device can do, as far as it matters to `layer`."""
        if layer == LINK_LAYER:
            links = self._world.links_of(self._node)
            there = [link for link in links if not self._gens.is_away(link.id)]
            told: list[Effect] = [Tell(layer, self._capability(link, now)) for link in there]
            return told + self._calibrations.care(is_due=False)
        if layer == "network":
            return [Tell(layer, node_capability(self._world, self._node))]
        return []

    def _capability(self, link: LinkHardware, now: int) -> LinkCapability:
        known = self._time_sync.conditions(link.other_end(self._node))
        return link_capability(self._world, self._node, link, known, now)

    def _next_pass_change(self, peer: str, now: int) -> SetTimer:
        """A satellite comes, has gone a part of its way, or has gone: idle housekeeping."""
        passes = self._world.links[link_id(self._node, peer)].channel
        assert isinstance(passes, PassChannel), "timers are set for passes alone"
        return SetTimer(SATELLITE_TIMER + peer, passes.ahead(now).changes_ns, background=True)

    def _expectations(self, peer: str, now: int) -> list[Effect]:
        """Something else is known of the link to `peer`: the link layer is told, heralds say so."""
        link = self._world.links[link_id(self._node, peer)]
        known = self._time_sync.conditions(peer)
        if known is not None:
            self._attempts.expect(link.id, known)
        options = generation_options(self._world, link, known, now)
        if not options:
            return []
        opens_ns, until_ns = window(link, now)
        told = LinkOptions(peer=peer, options=options, opens_ns=opens_ns, until_ns=until_ns)
        return [Tell(LINK_LAYER, told)]

    def _on_layer_up(self, layer: str, now: int) -> list[Effect]:
        """A layer begins anew: it learns of the device what it would have if that came now."""
        effects = self._on_owner_gone(layer, now)
        if self._is_ready and layer in TOLD_LAYERS:
            effects += [Tell(layer, DeviceReady()), *self._capabilities(layer, now)]
        return effects

    def _on_device_down(self, now: int) -> list[Effect]:
        """Every call and batch is answered, then everybody who had anything is told."""
        if not self._is_ready:
            return []
        self._is_ready = False
        self._time_sync.device_down()
        owners = dict.fromkeys(
            (
                *TOLD_LAYERS,
                *self._memory.owners(),
                *self._qubits.owners(),
                *self._programs.owners(),
            )
        )
        owners.pop(LAYER, None)
        effects = [
            *self._qubits.device_lost(),
            *self._programs.device_lost(),
            *self._attempts.device_lost(now),
            *self._receivers.device_lost(now),
            *self._calibrations.device_lost(),
        ]
        self._stations.device_lost()
        self._memory.clear()
        effects += [Tell(owner, DeviceLost()) for owner in owners]
        return [*effects, Record("physical.device_lost", {})]


def _refused(message: Message, why: str) -> Record:
    return Record("physical.refused", {"what": type(message).__name__, "why": why})
