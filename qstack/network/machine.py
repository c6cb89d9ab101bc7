"""The network layer of one node: hands each event to the part it is for.

Parts: `link_state` (who is there), `circuit` (set-up), `generation` (pairs from the link layer),
`relay` and `end` (swapping, tracking), `head` and `tail` (requests). Order within one event:
what is lost is told to link states first, then circuits, then requests.
"""

from typing import assert_never

import numpy as np

from qstack.errors import ErrorCode, PeerError
from qstack.ids import FreshIds
from qstack.link import service as link
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
from qstack.network import messages, service
from qstack.network.armed import ArmedRelay, ArmedSwaps
from qstack.network.circuit import Circuit, Circuits
from qstack.network.circuit_states import CircuitInput
from qstack.network.end import End
from qstack.network.generation import Generation
from qstack.network.head import Heads
from qstack.network.link_state import TIMER, LinkStateDatabase
from qstack.network.outbox import TRANSPORT, Outbox
from qstack.network.relay import Relay, Swaps
from qstack.network.tail import Tails
from qstack.physical import service as physical
from qstack.physical.program import ProgramResult
from qstack.wire.message import Message

_OUT_OF_TIME = (ErrorCode.TIMEOUT.name, ErrorCode.NO_TIME.name)


class NetworkLayer:
    """A `Machine`. `cutoff_ns` overrides the cutoff predicted for circuits this node asks for.

    `swaps_in_device`: the device is to swap by itself when both pairs are heralded (`armed`).
    """

    def __init__(
        self,
        node: str,
        boot_id: bytes,
        rng: np.random.Generator,
        cutoff_ns: int | None = None,
        *,
        swaps_in_device: bool = False,
    ) -> None:
        self._out = Outbox(node)
        self._database = LinkStateDatabase(node, boot_id, self._out)
        ids = FreshIds(rng)
        self._generation = Generation(self._database, ids, self._out)
        self._swaps = Swaps(self._out)
        self._armed = ArmedSwaps(self._swaps, self._out) if swaps_in_device else None
        self._heads = Heads(self._database, ids, cutoff_ns, self._out)
        self._tails = Tails(self._database, self._out)
        self._circuits = Circuits(self._database, self._out, self)
        self._heads.join(self._circuits, self._generation, self)
        self._tails.join(self._circuits, self._generation)
        self._trackers: dict[bytes, Relay | End] = {}

    def handle(self, event: Event, now: int) -> list[Effect]:
        """Take one event at network time `now` (ns); return everything that follows from it."""
        effects = self._out.begin(now)
        if isinstance(event, Told):
            self._on_told(event.source, event.message)
        elif isinstance(event, FromPeer):
            self._on_message(event.peer, event.message)
        else:
            self._dispatch(event)
        return effects

    def _dispatch(self, event: TimerFired | PeerUp | PeerDown | OwnerGone | LayerUp) -> None:
        match event:
            case TimerFired():
                self._on_timer(event.key)
            case PeerUp():
                self._on_peer_up(event.peer, event.boot_id)
            case PeerDown():
                self._on_peer_down(event.peer)
            case OwnerGone():
                self._on_owner_gone(event.owner)
            case LayerUp():
                if event.layer == TRANSPORT:
                    self._on_owner_gone(TRANSPORT)
            case _:
                assert_never(event)

    def summary(self) -> dict[str, object]:
        """Facts for status: nodes whose link state is known, and circuits through this node."""
        return {
            "known_nodes": sorted(self._database.states()),
            "circuits": [circuit.summary() for circuit in self._circuits],
        }

    # --- what the parts tell each other (CircuitUser, Releases) ----------------------------------

    def on_active(self, circuit: Circuit) -> None:
        """A circuit can be used here from now on."""
        if circuit.upstream is None:
            self._trackers[circuit.id] = End(circuit, "head", self._heads, self._out)
            self._heads.on_active(circuit)
        elif circuit.downstream is None:
            self._trackers[circuit.id] = End(circuit, "tail", self._tails, self._out)
        elif self._armed is not None:
            self._trackers[circuit.id] = ArmedRelay(circuit, self._swaps, self._armed, self._out)
        else:
            self._trackers[circuit.id] = Relay(circuit, self._swaps, self._out)

    def on_closed(self, circuit: Circuit, error: ErrorCode, detail: str) -> None:
        """A circuit has ended here: its pairs go first, then its requests learn of it."""
        self._generation.end_all(circuit)
        tracker = self._trackers.pop(circuit.id, None)
        if tracker is not None:
            tracker.close()
        if circuit.upstream is None:
            self._heads.on_closed(circuit, error, detail)
        elif circuit.downstream is None:
            self._tails.on_closed(circuit)

    def release(self, circuit: Circuit, request: bytes) -> None:
        """A request of ours has ended: free what it was given and was not confirmed."""
        tracker = self._trackers.get(circuit.id)
        if isinstance(tracker, End):
            tracker.release(request)

    # --- channels and timers ---------------------------------------------------------------------

    def _on_peer_up(self, peer: str, boot_id: bytes) -> None:
        if self._database.is_restart(peer, boot_id):
            self._on_peer_down(peer)
        self._database.on_peer_up(peer, boot_id)
        self._on_topology()

    def _on_peer_down(self, peer: str) -> None:
        self._database.on_peer_down(peer)
        self._circuits.on_neighbour_lost(peer, f"{peer} has gone")
        self._on_topology()

    def _on_topology(self) -> None:
        self._heads.on_topology()
        self._tails.on_topology()

    def _on_timer(self, key: str) -> None:
        match key.split("/")[1:]:
            case ["link-state"]:
                assert key == TIMER, "one timer drives the link state"
                self._database.on_timer()
                self._on_topology()
            case ["deadline", "head", request]:
                self._heads.on_deadline(request)
            case ["deadline", "tail", request]:
                self._tails.on_deadline(request)
            case ["retry", request]:
                self._heads.on_retry(request)
            case ["resume", request]:
                self._tails.on_resume(request)
            case ["idle", circuit_id]:
                circuit = self._circuits.get(bytes.fromhex(circuit_id))
                if circuit is not None:
                    self._heads.on_idle(circuit)
            case ["early", circuit_id]:
                tracker = self._trackers.get(bytes.fromhex(circuit_id))
                if tracker is not None:
                    tracker.on_timer()
            case ["cutoff", circuit_id, pair]:
                tracker = self._trackers.get(bytes.fromhex(circuit_id))
                if isinstance(tracker, Relay):
                    tracker.on_cutoff(bytes.fromhex(pair))
            case _:
                raise AssertionError(f"no timer of ours: {key}")

    def _on_owner_gone(self, owner: str) -> None:
        """Sessions own nothing of the network layer's, but layers beside it do."""
        if owner == TRANSPORT:
            detail = f"the transport layer of {self._out.node}"
            self._heads.on_above_gone(detail)
            self._tails.on_above_gone(detail)
        elif owner == link.LAYER:
            for up in list(self._database.links.values()):
                self._on_link(link.LinkDown(link=up.link, peer=up.peer))
        elif owner == physical.LAYER:
            self._on_device_lost()

    # --- other layers ----------------------------------------------------------------------------

    def _on_told(self, source: str, message: Message) -> None:
        if source == link.LAYER:
            if isinstance(message, link.LinkPair):  # by far the likeliest
                self._on_link_pair(message)
            else:
                self._on_link(message)
        elif source == physical.LAYER:
            self._on_physical(message)
        elif source == TRANSPORT:
            self._on_transport(message)
        else:
            self._out.record("ignored", source=source, message=type(message).__name__)

    def _on_transport(self, message: Message) -> None:
        match message:
            case service.NetworkCreate():
                self._heads.on_create(message)
            case service.NetworkCancel():
                if not self._heads.on_cancel(message.request):
                    self._tails.on_cancel(message.request)
            case service.RouteQuery():
                self._heads.on_route_query(message)
            case _:
                self._out.record("ignored", source=TRANSPORT, message=type(message).__name__)

    def _on_physical(self, message: Message) -> None:
        match message:
            case physical.NodeCapability():
                self._database.on_capability(message)
                self._on_topology()
            case physical.DeviceLost():
                self._on_device_lost()
            case physical.BellMeasured():
                swap = self._swaps.take(message.call)
                relay = self._trackers.get(swap.circuit) if swap is not None else None
                if swap is not None and isinstance(relay, Relay):
                    relay.on_swapped(swap, (message.x_bit, message.z_bit))
            case ProgramResult():
                self._on_program(message)
            case physical.CallFailed() if self._on_program(message):
                pass
            case physical.CallFailed():
                swap = self._swaps.take(message.call)
                if swap is None:
                    return
                for qubit in swap.qubits:  # one of them may have survived the other
                    self._out.tell(physical.LAYER, physical.Free(qubit=qubit))
                relay = self._trackers.get(swap.circuit)
                if isinstance(relay, Relay):
                    relay.on_swap_failed(swap)
            case _:
                pass  # DeviceReady and the like: NodeCapability says all we need

    def _on_program(self, answer: ProgramResult | physical.CallFailed) -> bool:
        """The answer of a device program; whether it was one of ours."""
        armed = self._armed
        circuit = None if armed is None else armed.circuit_of(answer.call)
        if armed is None or circuit is None:
            return False
        tracker = self._trackers.get(circuit)
        relay = tracker if isinstance(tracker, ArmedRelay) else None
        if isinstance(answer, ProgramResult):
            armed.on_result(answer, relay)
        else:
            armed.on_failed(answer, relay)
        return True

    def _on_device_lost(self) -> None:
        self._heads.on_device_lost()
        self._tails.on_device_lost()
        for circuit in self._circuits:
            self._circuits.close(
                circuit, CircuitInput.LOST, ErrorCode.DEVICE_LOST, f"at {self._out.node}"
            )
        self._swaps.clear()
        if self._armed is not None:
            self._armed.clear()
        self._database.on_capability(None)

    def _on_link(self, message: Message) -> None:
        match message:
            case link.LinkUp():
                self._database.on_link_up(message)
                if self._database.closed_link(message.peer) is not None:
                    self._circuits.on_neighbour_closed(message.peer)
                self._on_topology()
            case link.LinkDown():
                self._database.on_link_down(message)
                self._circuits.on_neighbour_lost(message.peer, f"the link to {message.peer}")
                self._on_topology()
            case link.LinkExpired():
                tracker = self._trackers.get(message.purpose)
                if tracker is not None:
                    tracker.on_link_expired(message.pair)
            case link.LinkMeasured():
                self._on_link_measured(message)
            case link.LinkFailed():
                self._on_link_failed(message)
            case link.LinkDone():
                circuit = self._circuits.get(message.purpose)
                if circuit is not None:
                    self._generation.done(circuit, message.request)
            case _:
                pass

    def _on_link_pair(self, message: link.LinkPair) -> None:
        circuit = self._circuits.get(message.purpose)
        tracker = self._trackers.get(message.purpose)
        if (
            circuit is None
            or tracker is None
            or message.peer not in (circuit.upstream, circuit.downstream)
        ):
            self._out.tell(physical.LAYER, physical.Free(qubit=message.qubit))
            return
        self._generation.came(circuit, message.request)
        tracker.on_link_pair(message)

    def _on_link_measured(self, message: link.LinkMeasured) -> None:
        direct = self._generation.direct(message.request)
        circuit = self._circuits.get(direct.circuit) if direct is not None else None
        if direct is None or circuit is None:
            self._out.record("measured_unasked", purpose=message.purpose, pairs=message.pairs)
        elif circuit.upstream is None:
            self._heads.on_measured(circuit, direct.request, message)
        else:
            self._tails.on_measured(circuit, direct.request, message)

    def _on_link_failed(self, message: link.LinkFailed) -> None:
        circuit = self._circuits.get(message.purpose)
        if circuit is None or not self._generation.is_ours(circuit, message.request):
            return  # our own cancel, or the far end's request: it hears the same
        if message.error not in _OUT_OF_TIME:
            error = ErrorCode.__members__.get(message.error, ErrorCode.PEER_DOWN)
            self._circuits.close(circuit, CircuitInput.LOST, error, f"link: {message.detail}"[:500])
        elif self._generation.direct(message.request) is None:
            is_hopeless = message.error == ErrorCode.NO_TIME.name
            self._generation.again(circuit, message.request, is_hopeless=is_hopeless)

    # --- the neighbours' network layers ----------------------------------------------------------

    def _on_message(self, peer: str, message: Message) -> None:
        if not self._database.has_channel(peer):
            self._out.record("ignored", source=peer, message=type(message).__name__)
            return
        try:
            if isinstance(message, messages.Track):  # by far the likeliest
                self._on_track(peer, message)
            else:
                self._on_peer_message(peer, message)
        except PeerError as error:
            self._out.record("peer_error", peer=peer, error=error.code.name, detail=error.detail)
            self._out.send(
                peer,
                messages.Error(name=error.code.name, detail=error.detail[:500], about=message.TYPE),
            )

    def _on_peer_message(self, peer: str, message: Message) -> None:
        match message:
            case messages.Expire():
                self._on_expire(peer, message)
            case messages.LinkState():
                if self._database.on_link_state(peer, message):
                    self._on_topology()
            case messages.Install():
                self._circuits.on_install(peer, message)
            case messages.Installed():
                self._circuits.on_installed(peer, message)
            case messages.Start():
                self._circuits.on_start(peer, message)
            case messages.Refused():
                self._circuits.on_refused(peer, message)
            case messages.Teardown():
                self._circuits.on_teardown(peer, message)
            case messages.Forward():
                self._on_forward(peer, message)
            case messages.Complete():
                self._on_complete(peer, message)
            case messages.Error():
                self._out.record("error_from_peer", peer=peer, error=message.name)
            case _:
                raise PeerError(ErrorCode.INVALID, f"{type(message).__name__} is not sent alone")

    def _on_forward(self, peer: str, forward: messages.Forward) -> None:
        circuit = self._circuits.active(peer, forward)
        if circuit is None:
            return
        if peer != circuit.upstream:
            raise PeerError(ErrorCode.OUT_OF_STATE, "FORWARD comes from the head's side")
        if forward.request in circuit.requests:
            raise PeerError(ErrorCode.OUT_OF_STATE, "the request is open on this circuit")
        if (forward.kind == "measure") != (None not in (forward.basis, forward.remote_basis)):
            raise PeerError(ErrorCode.INVALID, "bases go with kind measure", field="basis")
        if circuit.downstream is None:
            self._tails.on_forward(circuit, forward)
        else:
            self._out.send(circuit.downstream, forward)
            self._generation.begin(circuit, forward)

    def _on_complete(self, peer: str, complete: messages.Complete) -> None:
        circuit = self._circuits.active(peer, complete)
        if circuit is None:
            return
        if circuit.upstream is None:
            self._heads.on_complete(circuit, complete)
        elif circuit.downstream is None:
            self._tails.on_complete(circuit, complete)
        else:
            other = circuit.other_side(peer)
            assert other is not None, "a node in between has two neighbours"
            self._out.send(other, complete)
            self._generation.end(circuit, complete.request)
            relay = self._trackers[circuit.id]
            if isinstance(relay, Relay) and not circuit.requests:
                relay.on_idle()

    def _on_track(self, peer: str, track: messages.Track) -> None:
        """It comes from the side of its origin."""
        circuit = self._circuits.active(peer, track)
        if circuit is None:
            return
        if (peer == circuit.upstream) != (track.origin == "head"):
            raise PeerError(ErrorCode.INVALID, "TRACK goes the wrong way", field="origin")
        self._trackers[circuit.id].on_track(track)

    def _on_expire(self, peer: str, expire: messages.Expire) -> None:
        """It goes to the side of the origin."""
        circuit = self._circuits.active(peer, expire)
        if circuit is None:
            return
        if (peer == circuit.upstream) != (expire.origin == "tail"):
            raise PeerError(ErrorCode.INVALID, "EXPIRE goes the wrong way", field="origin")
        self._trackers[circuit.id].on_expire(expire)
