"""The link layer of one node: pairs with each neighbour, by a queue both ends share.

It follows the EGP and DQP of Dahlberg et al. (SIGCOMM'19) and draft-dahlberg-ll-quantum in its
service, with our own messages. Attempts are made by the physical layer in batches; the heralding
station counts the successes of a link, and that count names the pair at both ends.

This file sees links come and go, and hands everything else to the part whose it is: `requests`
(the shared queue), `batches` (whom the link works for), `pairs` and, on photon-pair links, `slots`
(what comes of it). README.md lists the known races.
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec.structs import replace

from qstack.errors import ErrorCode
from qstack.link import messages, service
from qstack.link.batches import CHOICE_TIMER, START_TIMER, Batches
from qstack.link.conversation import CONVERSATION_TIMER, Turn
from qstack.link.held import AGE_TIMER
from qstack.link.maintenance import MAINTENANCE_TIMER, Maintenance
from qstack.link.measured_rounds import MEASURED_TIMER, MeasuredRounds
from qstack.link.outbox import ABOVE, Outbox
from qstack.link.pairs import Pairs
from qstack.link.params import START_ALLOWANCE_NS, Weight
from qstack.link.peer import Peer
from qstack.link.requests import DEADLINE_TIMER, Requests
from qstack.link.room import ROOM_TIMER, Rooms
from qstack.link.rounds import ALARM_TIMER, OUTCOMES_TIMER, Rounds
from qstack.link.slots import SlotPairs
from qstack.machine import (
    Effect,
    Event,
    FromPeer,
    LayerUp,
    OwnerGone,
    PeerDown,
    PeerUp,
    TimerFired,
    Told,
)
from qstack.physical import service as physical
from qstack.wire.message import Message


class LinkLayer:
    """All links of one node. `neighbours` are the names at the other ends.

    `weights` are the shares of priorities 0 to 7, alike at both ends; None: all are strict.
    `test_shares`, alike too, are the parts of their pairs that links sacrifice to test rounds, by
    the name at the other end; links that are not in it sacrifice none.
    """

    def __init__(
        self,
        node: str,
        boot_id: bytes,
        neighbours: list[str],
        weights: tuple[Weight, ...] | None = None,
        test_shares: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.node = node
        self.peers = {
            name: Peer(node, name, boot_id, weights, test_share=test_shares.get(name, 0.0))
            for name in sorted(neighbours)
        }
        self._out = Outbox(boot_id, sorted(neighbours))
        self._batches = Batches(self._out)
        self._requests = Requests(self.peers, self._batches, self._out)
        self._rooms = Rooms(self._batches, self._out, self._say_ready)
        self._rounds = Rounds(self._out)
        self._rounds.join(self._on_offers_changed)
        self._measured_rounds = MeasuredRounds(self._rounds, self._out)
        self._pairs = Pairs(
            self._batches,
            self._requests,
            self._rounds,
            self._measured_rounds,
            self._rooms,
            self._out,
        )
        self._slot_pairs = SlotPairs(
            self.peers, self._batches, self._requests, self._measured_rounds, self._out
        )
        self._maintenance = Maintenance(self.peers, self._batches, self._out)

    @property
    def open_batches(self) -> int:
        """Batches the physical layer has still to answer; for status and leak checks."""
        return len(self._batches)

    def handle(self, event: Event, now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        self._out.now = now
        if isinstance(event, Told):
            if isinstance(event.message, physical.Heralded):  # by far the likeliest
                self._pairs.on_heralded(event.message, now)
            else:
                self._on_told(event.source, event.message, now)
        else:
            self._dispatch(event, now)
        if self._maintenance.cares:
            self._maintenance.settle(now)
        return self._out.take()

    def _dispatch(
        self, event: FromPeer | TimerFired | PeerUp | PeerDown | OwnerGone | LayerUp, now: int
    ) -> None:
        match event:
            case FromPeer(name, message):
                self._on_from_peer(name, message, now)
            case TimerFired(key):
                self._on_timer(key, now)
            case PeerUp(name, boot_id):
                self._on_peer_up(name, boot_id, now)
            case PeerDown(name):
                self._on_peer_down(name)
            case OwnerGone(owner):
                self._on_owner_gone(owner, now)
            case LayerUp(layer):
                self._on_layer_up(layer, now)

    def summary(self) -> dict[str, object]:
        """Facts for status: links up, requests open on all links, what test rounds say of each."""
        return {
            "links_up": [peer.name for peer in self.peers.values() if peer.is_up],
            "open_requests": sum(len(peer.requests) for peer in self.peers.values()),
            "estimates": [
                each for peer in self.peers.values() for each in self._rounds.summary(peer)
            ],
        } | self._maintenance.summary()

    # --- the peer and the devices come and go ----------------------------------------------------

    def _on_peer_up(self, name: str, boot_id: bytes, now: int) -> None:
        peer = self.peers.get(name)
        if peer is None or peer.peer_boot_id == boot_id:
            return  # not a neighbour, or said before
        self._on_peer_down(name)
        peer.peer_boot_id = boot_id
        self._out.conversation(name).channel_up(boot_id, now)

    def _on_peer_down(self, name: str) -> None:
        peer = self.peers.get(name)
        if peer is None or peer.peer_boot_id is None:
            return
        self._lose(peer, ErrorCode.PEER_DOWN, f"{name} has gone")
        peer.peer_boot_id = None
        peer.peer_slots = None
        self._out.conversation(name).channel_down()

    def _hear(self, peer: Peer, now: int) -> None:
        """Everything that follows from what has come of the conversation."""
        conversation = self._out.conversation(peer.name)
        while (heard := conversation.take()) is not None:
            if heard is Turn.BEGAN:
                self._say_ready(peer)
            elif heard is Turn.ENDED:
                self._lose(peer, ErrorCode.PEER_DOWN, f"{peer.name} does not answer, or knows none")
                peer.peer_slots = None
            else:
                self._on_peer_message(peer, heard, now)

    def _on_capability(self, capability: physical.LinkCapability, now: int) -> None:
        peer = self.peers.get(capability.peer)
        assert peer is not None, f"the device has a link to {capability.peer}, the node has not"
        peer.capability = capability
        peer.devices += 1
        conversation = self._out.conversation(peer.name)
        conversation.round_trip_ns = 2 * capability.delay_ns + START_ALLOWANCE_NS
        self._say_ready(peer)
        self._announce_if_up(peer, now)

    def _on_options(self, told: physical.LinkOptions, now: int) -> None:
        """The link yields something else, alike at both ends: what is open goes by it."""
        peer = self.peers[told.peer]
        if peer.capability is None:
            return
        was_up = peer.is_up
        peer.capability = replace(
            peer.capability,
            options=told.options,
            opens_ns=told.opens_ns,
            until_ns=told.until_ns,
        )
        if was_up:
            self._on_offers_changed(peer, now)
        else:
            self._announce_if_up(peer, now)

    def _on_device_lost(self) -> None:
        """The far ends are told, who cannot see it: their halves of our pairs are void."""
        for peer in self.peers.values():
            had_device = peer.capability is not None
            for request in peer.requests.values():
                request.held.clear()  # their qubits have gone with the device
            self._lose(peer, ErrorCode.DEVICE_LOST, f"the device of {self.node} has gone")
            peer.capability = None
            if had_device:
                self._say_ready(peer)
            self._rooms.device_gone(peer)

    def _on_link_lost(self, lost: physical.LinkLost) -> None:
        """One link cannot be run any more; its qubits live on, but of its pairs nobody is sure."""
        peer = next((each for each in self.peers.values() if each.link == lost.link), None)
        if peer is None or peer.capability is None:
            return
        error = ErrorCode.__members__.get(lost.error, ErrorCode.DEVICE_LOST)
        self._lose(peer, error, f"{lost.link}: {error.sentence}")
        peer.capability = None
        self._say_ready(peer)
        self._rooms.device_gone(peer)

    def _on_heralds_missed(self, missed: physical.HeraldsMissed, now: int) -> None:
        """What we have not heard of is no pair, nor may the far end take it for one.

        It may have counted it for a request, which it may have ended by its number. Expire takes
        back the pair but not the count, so the ends would not agree: the link begins anew.
        """
        peer = next((each for each in self.peers.values() if each.link == missed.link), None)
        if peer is not None and peer.is_up:
            self._out.record("heralds_missed", peer=peer.name, low=missed.low, high=missed.high)
            self._out.conversation(peer.name).begin_anew(now)
            self._hear(peer, now)

    def _on_owner_gone(self, owner: str, now: int) -> None:
        """Sessions own nothing of the link layer, but layers beside it do."""
        if owner == ABOVE:
            for peer in self.peers.values():
                self._requests.forget_above(peer, now)
        elif owner == physical.LAYER:
            self._batches.forget_all()
            self._rounds.device_gone()
            self._on_device_lost()

    def _on_layer_up(self, layer: str, now: int) -> None:
        self._on_owner_gone(layer, now)
        if layer == ABOVE:
            for peer in self.peers.values():
                if peer.is_up:
                    self._announce(peer)

    def _say_ready(self, peer: Peer) -> None:
        """What the far end is told of our device; where it cannot be yet, by the greeting."""
        slots = peer.capability.slots if peer.capability is not None else 0
        self._out.conversation(peer.name).greeting = (slots, peer.devices)
        self._out.send(
            peer.name, messages.Ready(slots=slots, device=peer.devices, room=peer.told_room)
        )

    def _on_ready(self, peer: Peer, slots: int, room: int | None, now: int) -> None:
        peer.peer_room = room
        if slots == 0:
            self._lose(peer, ErrorCode.DEVICE_LOST, f"the device of {peer.name} has gone")
            peer.peer_slots = None
            return
        was_up = peer.is_up
        peer.peer_slots = slots
        if was_up:
            self._batches.choose_again(peer, now)
        else:
            self._announce_if_up(peer, now)

    def _announce_if_up(self, peer: Peer, now: int) -> None:
        if peer.is_up:
            self._announce(peer)
            self._maintenance.link_up(peer, now)
            self._out.record("up", peer=peer.name)
            self._rounds.link_up(peer, now)
            self._batches.start(peer, now)

    def _on_offers_changed(self, peer: Peer, now: int) -> None:
        if peer.is_up:
            self._announce(peer)
            self._requests.offers_changed(peer, now)
            if peer.lowered and peer.is_master:  # test rounds say that the link is not well
                self._maintenance.want(peer, now)

    def _announce(self, peer: Peer) -> None:
        assert peer.capability is not None
        assert peer.peer_boot_id is not None
        self._out.tell_above(
            service.LinkUp(
                link=peer.link,
                peer=peer.name,
                peer_boot_id=peer.peer_boot_id,
                kinds=peer.capability.kinds,
                options=peer.offers,
                best_fidelity=peer.best_fidelity,
                delay_ns=peer.capability.delay_ns,
                slots=peer.slots,
                opens_ns=peer.capability.opens_ns,
                until_ns=peer.capability.until_ns,
            )
        )

    def _lose(self, peer: Peer, error: ErrorCode, detail: str) -> None:
        """The link has gone, if it was there: its requests end, its pairs are void."""
        if not peer.is_up:
            return
        self._maintenance.link_down(peer)
        self._requests.end_all(peer, error, detail)
        peer.forget_pairs()
        self._rounds.lose(peer)
        self._measured_rounds.lose(peer)
        self._out.tell_above(service.LinkDown(link=peer.link, peer=peer.name))
        self._out.record("down", peer=peer.name)

    # --- events to the part whose they are -------------------------------------------------------

    def _on_told(self, source: str, message: Message, now: int) -> None:
        match message:
            case service.LinkCreate():
                self._requests.create(message, now)
            case service.LinkCancel():
                self._requests.cancel(message.request, now)
            case service.LinkListen():
                if (peer := self.peers.get(message.peer)) is not None:
                    peer.purposes[message.purpose] = None
            case service.LinkUnlisten():
                if (peer := self.peers.get(message.peer)) is not None:
                    self._requests.unlisten(peer, message.purpose, now)
            case physical.MeasuredPairs():
                self._pairs.on_measured(message, now)
            case physical.Measured() | physical.CallFailed():
                self._rounds.on_read(message, now)
            case physical.Detections():
                self._slot_pairs.on_detections(message, now)
            case physical.AttemptsEnded():
                self._pairs.on_attempts_ended(message, now)
            case physical.MemoryFree():
                for peer in self.peers.values():
                    self._rooms.memory_free(peer, now)
            case physical.LinkCapability():
                self._on_capability(message, now)
            case physical.LinkOptions():
                self._on_options(message, now)
            case physical.LinkCare():
                self._maintenance.on_care(message, now)
            case physical.LinkCalibrated():
                self._maintenance.on_calibrated(message)
                if message.is_good:
                    self._rounds.calibrated(self.peers[message.peer], now)
            case physical.DeviceLost():
                self._on_device_lost()
            case physical.LinkLost():
                self._on_link_lost(message)
            case physical.HeraldsMissed():
                self._on_heralds_missed(message, now)
            case physical.DeviceReady():
                pass  # the capabilities that follow say the rest
            case _:
                self._out.record("unexpected", source=source, message=type(message).__name__)

    def _on_from_peer(self, name: str, message: Message, now: int) -> None:
        peer = self.peers.get(name)
        if peer is None:
            self._out.refuse(name, message, ErrorCode.OUT_OF_STATE, "we share no link")
        elif not isinstance(message, messages.LinkMessage):
            self._out.refuse(name, message, ErrorCode.UNKNOWN_TYPE, "not a link message")
        else:
            self._out.conversation(name).hear(message, now)
            self._hear(peer, now)

    def _on_peer_message(self, peer: Peer, message: messages.LinkMessage, now: int) -> None:
        match message:
            case messages.Ready():
                peer.peer_device = message.device
                self._on_ready(peer, message.slots, message.room, now)
            case messages.Add():
                self._requests.on_add(peer, message, now)
            case messages.AddAccepted():
                self._requests.on_accepted(peer, message, now)
            case messages.AddRejected():
                self._requests.on_rejected(peer, message, now)
            case messages.Remove():
                self._requests.on_remove(peer, message, now)
            case messages.DetectedSlots():
                self._slot_pairs.on_slots(peer, message, now)
            case messages.Expire():
                self._pairs.on_expire(peer, message)
            case messages.Maintain():
                self._maintenance.on_maintain(peer, message, now)
            case messages.MaintainAnswer():
                self._maintenance.on_answer(peer, message, now)
            case messages.RoundOutcomes():
                self._rounds.on_outcomes(peer, message, now)
            case messages.MeasuredOutcomes():
                self._measured_rounds.on_outcomes(peer, message, now)
            case messages.RoundReport():
                self._rounds.on_report(peer, message, now)
            case messages.Error():
                self._out.record("peer_error", peer=peer.name, error=message.name)
            case _:
                raise AssertionError(f"{type(message).__name__} is the conversation's")

    def _on_timer(self, key: str, now: int) -> None:
        if key.startswith(DEADLINE_TIMER):
            request_id = bytes.fromhex(key.removeprefix(DEADLINE_TIMER))
            self._requests.on_deadline(request_id, now)
        elif key.startswith(AGE_TIMER):
            self._requests.on_aged(bytes.fromhex(key.removeprefix(AGE_TIMER)), now)
        elif key.startswith(CONVERSATION_TIMER):
            peer = self.peers[key.removeprefix(CONVERSATION_TIMER)]
            self._out.conversation(peer.name).timer_fired(now)
            self._hear(peer, now)
        elif key.startswith(ROOM_TIMER):
            self._rooms.timer_fired(self.peers[key.removeprefix(ROOM_TIMER)], now)
        elif key.startswith(MAINTENANCE_TIMER):
            self._maintenance.on_timer(key.removeprefix(MAINTENANCE_TIMER), now)
        elif key.startswith(CHOICE_TIMER):
            self._batches.choose_again(self.peers[key.removeprefix(CHOICE_TIMER)], now)
        elif key.startswith(START_TIMER):
            peer = self.peers[key.removeprefix(START_TIMER)]
            self._batches.start_later(peer, now)
            self._batches.start(peer, now)
        elif key.startswith(OUTCOMES_TIMER):
            self._rounds.on_outcomes_timer(self.peers[key.removeprefix(OUTCOMES_TIMER)])
        elif key.startswith(MEASURED_TIMER):
            self._measured_rounds.on_timer(self.peers[key.removeprefix(MEASURED_TIMER)])
        elif key.startswith(ALARM_TIMER):
            self._rounds.on_alarm_timer(self.peers[key.removeprefix(ALARM_TIMER)], now)
