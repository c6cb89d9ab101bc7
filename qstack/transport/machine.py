"""The transport machine of one node: hands each event to the part it is for.

Parts: `flows` and `accepts` (EPR, at the creator and at the acceptor), `streams` with
`qubit_sender`, `qubit_receiver` and `message_streams`, `echo` and `echo_calls`, `routes`,
`delivered` (what became of halves). They share a `context` (now, effects, timers, requests) and
the tables `calls` and `sockets`.

Rules
1. Everything a session says is answered at its call; everything a peer says wrongly is answered
   with Close of the thing, or Error. Nothing escapes `handle`.
2. PeerDown: calls without a deadline end with PEER_DOWN, the others wait for the peer to come back.
   PeerUp of the same boot: everything unacknowledged is said again. Of a new boot: everything that
   was open with the peer ends with PEER_DOWN.
"""

from typing import Final, get_args

import numpy as np

from qstack.errors import ErrorCode
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
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport import messages, service
from qstack.transport.accepts import Accepts
from qstack.transport.calls import Calls
from qstack.transport.context import Context, foreign_reason, reason
from qstack.transport.delivered import DeliveredPairs
from qstack.transport.echo import Echo
from qstack.transport.echo_calls import EchoCalls
from qstack.transport.flows import Flows
from qstack.transport.message_streams import MessageStream
from qstack.transport.qubit_receiver import QubitReceiver
from qstack.transport.qubit_sender import QubitSender
from qstack.transport.routes import Routes
from qstack.transport.sockets import PortSocket, Socket, Sockets
from qstack.transport.streams import OfStream, Streams
from qstack.wire.message import Message


class EprSocket(PortSocket):
    """A rendezvous of equal ports."""


class Listener(PortSocket):
    """Where streams of peers arrive."""


_OnSocket = (
    service.SendQubit
    | service.ReceiveQubit
    | service.EprCreate
    | service.EprAccept
    | service.EchoMeasure
    | service.Accept
    | service.SendMessage
    | service.ReceiveMessage
)
_ON_SOCKET: Final = get_args(_OnSocket)
_OF_STREAM: Final = get_args(OfStream)


class TransportLayer:
    """The transport layer of `node`. `rng` is its only source of chance: for its ids."""

    def __init__(
        self,
        node: str,
        boot_id: bytes,
        rng: np.random.Generator,
        known_nodes: frozenset[str] | None = None,
    ) -> None:
        """`known_nodes` None: whoever exists is found out by asking for a channel."""
        self.node = node
        self.boot_id = boot_id
        self._known_nodes = known_nodes
        self._context = context = Context(node, rng)
        self._calls = calls = Calls(context)
        self._sockets = sockets = Sockets(context)
        self._pairs = pairs = DeliveredPairs(context)
        self._flows = Flows(context, calls, pairs)
        self._accepts = Accepts(context, calls, sockets, pairs)
        self._echo = Echo(context)
        self._echo_calls = EchoCalls(context, calls, pairs)
        self._streams = Streams(context, calls, sockets)
        self._routes = Routes(context, calls)

    def handle(self, event: Event, now: int) -> list[Effect]:
        """Take one event at network time `now` (ns); return everything that follows from it."""
        context = self._context
        context.now, context.effects = now, []
        if isinstance(event, Told):
            self._on_told(event.source, event.message)
        elif isinstance(event, FromPeer):
            self._on_peer(event.peer, event.message)
        else:
            self._dispatch(event)
        return context.effects

    def _on_told(self, source: str, message: Message) -> None:
        if source == network.LAYER:
            if isinstance(message, network.EndPair):  # by far the likeliest
                self._on_end_pair(message)
            else:
                self._on_network(message)
        elif source == physical.LAYER:
            self._on_physical(message)
        else:
            self._on_session(source, message)

    def _dispatch(self, event: TimerFired | PeerUp | PeerDown | OwnerGone | LayerUp) -> None:
        match event:
            case TimerFired(key=key):
                self._context.fire(key)
            case PeerUp(peer=peer, boot_id=boot_id):
                self._on_peer_up(peer, boot_id)
            case PeerDown(peer=peer):
                self._on_peer_down(peer)
            case OwnerGone(owner=owner):
                self._on_owner_gone(owner)
            case LayerUp():
                pass  # what a layer below owed us ended when it went

    # --- sessions ---

    def _on_session(self, session: str, message: Message) -> None:
        if isinstance(message, _ON_SOCKET):  # by far the likeliest
            self._on_socket_call(session, message)
            return
        match message:
            case service.CloseSocket():
                socket = self._sockets.get(session, message.socket)
                if socket is not None:
                    self._close(socket)
            case service.CancelCall():
                self._calls.cancel(session, message.call)
            case service.EprOpen() | service.Listen():
                self._open_port(session, message)
            case service.StreamOpen():
                if self._may_open(session, message):
                    self._streams.open(session, message)
            case service.RouteAsk():
                self._routes.ask(session, message)
            case _:
                self._context.record("transport.unknown_message", source=session)

    def _on_socket_call(self, session: str, message: _OnSocket) -> None:
        socket = self._sockets.get(session, message.socket)
        if isinstance(message, service.ReceiveQubit) and isinstance(socket, QubitReceiver):
            socket.receive(message)
            return
        if isinstance(message, service.SendQubit) and isinstance(socket, QubitSender):
            if self._has_qubit(message.qubit):
                detail = "the transport layer holds this qubit for something else"
                self._calls.refuse(session, message.call, ErrorCode.NOT_OWNER, detail)
            else:
                socket.send(message)
            return
        match message, socket:
            case service.EprCreate(), EprSocket():
                self._flows.create(session, socket, message)
            case service.EprAccept(), EprSocket():
                self._accepts.accept(session, socket, message)
            case service.EchoMeasure(), EprSocket():
                self._echo_calls.ask(session, socket, message)
            case service.Accept(), Listener():
                self._streams.accept(session, socket, message)
            case service.SendMessage(), MessageStream():
                socket.send(message)
            case service.ReceiveMessage(), MessageStream():
                socket.receive(message)
            case _:
                self._refuse_socket_call(session, message, socket)

    def _has_qubit(self, qubit: bytes) -> bool:
        return qubit in self._context.qubits

    def _refuse_socket_call(self, session: str, message: _OnSocket, socket: Socket | None) -> None:
        if isinstance(message, service.SendQubit) and not self._has_qubit(message.qubit):
            self._context.transfer(message.qubit, session)
        if socket is None:
            code, detail = ErrorCode.CLOSED, f"socket {message.socket} is not open"
        else:
            code = ErrorCode.BAD_REQUEST
            detail = f"{type(message).__name__} is not for this kind of socket"
        self._calls.refuse(session, message.call, code, detail)

    def _open_port(self, session: str, message: service.EprOpen | service.Listen) -> None:
        is_epr = isinstance(message, service.EprOpen)
        if not self._may_open(session, message):
            return
        make = EprSocket if is_epr else Listener
        socket = make(session, message.port, message.remote)
        if not self._sockets.hold_port("epr" if is_epr else "listener", socket):
            detail = f"port {message.port} is held already"
            self._calls.refuse(session, message.call, ErrorCode.PORT_IN_USE, detail)
            return
        number = self._sockets.enter(socket)
        self._context.tell(session, service.Opened(call=message.call, socket=number))

    def _may_open(
        self, session: str, message: service.EprOpen | service.Listen | service.StreamOpen
    ) -> bool:
        """Whether the values of an opening call make sense; if not it is answered."""
        is_echo = message.port == service.ECHO_PORT
        code, detail = ErrorCode.BAD_REQUEST, ""
        if message.remote == self.node:
            detail = "the remote is this node"
        elif message.remote is not None and not self._knows(message.remote):
            code, detail = ErrorCode.UNKNOWN_NODE, f"the network has no node {message.remote!r}"
        elif is_echo and not isinstance(message, service.EprOpen):
            detail = "port 0 is the echo port: open an EPR socket to it"
        elif is_echo and message.remote is None:
            detail = "an EPR socket to the echo port needs a remote"
        elif not self._sockets.has_room(session):
            code, detail = ErrorCode.NO_RESOURCES, "the session has too many sockets open"
        if detail:
            self._calls.refuse(session, message.call, code, detail)
        return not detail

    def _knows(self, node: str) -> bool:
        return self._known_nodes is None or node in self._known_nodes

    def _close(self, socket: Socket) -> None:
        why = reason(ErrorCode.CLOSED)
        self._sockets.remove(socket)
        match socket:
            case EprSocket():
                self._sockets.leave_port("epr", socket)
                self._echo_calls.close_socket(socket, why)
                self._end_echo(socket)
                self._flows.close_socket(socket, why)
                self._accepts.close_socket(socket, why)
            case Listener():
                self._sockets.leave_port("listener", socket)
                self._streams.close_listener(socket, why)
            case QubitSender() | QubitReceiver() | MessageStream():
                socket.close(why)
            case _:
                raise AssertionError(f"unknown kind of socket {socket}")

    def _end_echo(self, socket: EprSocket) -> None:
        """With its last socket to an echo port a session can ask about no pair any more."""
        others = [
            other
            for other in self._sockets.of_session(socket.session)
            if isinstance(other, EprSocket)
            and (other.port, other.remote) == (service.ECHO_PORT, socket.remote)
        ]
        if socket.port == service.ECHO_PORT and socket.remote is not None and not others:
            self._pairs.end_echo(socket.session, socket.remote)

    def _on_owner_gone(self, owner: str) -> None:
        match owner:
            case network.LAYER:
                self._on_network_gone()
            case physical.LAYER:
                self._on_device_lost()
            case session:
                self._on_session_gone(session)

    def _on_network_gone(self) -> None:
        """It has forgotten what we asked for, and what our peers asked for us."""
        why = reason(ErrorCode.LAYER_LOST, f"the network layer of {self.node}")
        for request, user in list(self._context.requests.items()):
            if self._context.requests.get(request) is user:
                user.on_failed(why)
        self._routes.on_network_gone(why)

    def _on_session_gone(self, session: str) -> None:
        self._calls.orphan(session)
        self._pairs.on_session_gone(session)  # first: it is told nothing of its pairs any more
        for socket in self._sockets.of_session(session):
            self._close(socket)
        self._sockets.forget_session(session)
        self._streams.on_session_gone(session)
        self._routes.on_session_gone(session)

    def summary(self) -> dict[str, object]:
        """Facts for status: sockets of sessions, EPR flows from and to here, streams."""
        return {
            "sockets": len(self._sockets),
            "flows": len(self._flows) + len(self._accepts),
            "streams": len(self._streams),
        }

    # --- the layers below ---

    def _on_network(self, message: Message) -> None:
        match message:
            case network.EndMeasured():
                self._on_end_measured(message)
            case network.EndPairExpired():
                self._on_expired(message)
            case network.NetworkDone():
                user = self._context.requests.get(message.request)
                if user is not None:
                    user.on_done()
            case network.NetworkFailed():
                user = self._context.requests.get(message.request)
                if user is not None:
                    user.on_failed(foreign_reason(message.error, message.detail, message.best))
            case network.RouteAnswer():
                self._routes.on_answer(message)
            case _:
                self._context.record("transport.unknown_message", source=network.LAYER)

    def _on_expired(self, message: network.EndPairExpired) -> None:
        """A pair is void: a session has it, or a part that may be done with its request."""
        self._echo_calls.on_void(message.pair)
        user = self._context.requests.get(message.request)
        if self._pairs.void(message.pair):
            return
        if user is not None:
            user.on_expired(message)
        else:
            self._echo.on_expired(message.pair)

    def _on_end_pair(self, message: network.EndPair) -> None:
        user = self._context.requests.get(message.request)
        if user is None:
            self._context.free(message.qubit)
            self._stop(message.request)
        else:
            user.on_pair(message)

    def _on_end_measured(self, message: network.EndMeasured) -> None:
        user = self._context.requests.get(message.request)
        if user is None:
            self._stop(message.request)
        else:
            user.on_measured(message)

    def _stop(self, request: bytes) -> None:
        """A request has ended here, or never was: whoever makes its pairs can stop."""
        self._context.tell(network.LAYER, network.NetworkCancel(request=request))

    def _on_physical(self, message: Message) -> None:
        match message:
            case physical.Measured() | physical.BellMeasured() | physical.CallFailed():
                self._context.on_physical(message)
            case physical.QubitsFreed():
                self._pairs.on_qubits_freed(message.owner, message.qubits)
            case physical.DeviceLost():
                self._on_device_lost()
            case physical.DeviceReady():
                pass
            case _:
                self._context.record("transport.unknown_message", source=physical.LAYER)

    def _on_device_lost(self) -> None:
        self._context.on_device_lost()
        self._flows.on_device_lost()
        self._accepts.on_device_lost()
        self._streams.on_device_lost()
        self._echo.on_device_lost()
        self._echo_calls.on_device_lost()
        self._pairs.on_device_lost()

    # --- peers ---

    def _on_peer(self, peer: str, message: Message) -> None:
        if isinstance(message, _OF_STREAM):  # by far the likeliest
            self._streams.on_message(peer, message)
            return
        match message:
            case messages.OpenFlow():
                part = self._echo if message.port == service.ECHO_PORT else self._accepts
                part.on_open(peer, message)
            case messages.CreditFlow():
                self._flows.on_credit(peer, message)
            case messages.CreditAhead():
                self._flows.on_credit_ahead(peer, message)
            case messages.TakeCredit():
                self._accepts.on_take(peer, message)
            case messages.CreditGone():
                self._flows.on_credit_gone(peer, message)
            case messages.OpenStream():
                self._streams.on_open(peer, message)
            case messages.StreamOpened():
                self._streams.on_opened(peer, message)
            case messages.Close():
                self._on_peer_close(peer, message)
            case messages.VoidPair():
                self._on_void_pair(peer, message)
            case messages.KeptPairs():
                self._echo.on_kept(peer, message)
            case messages.EchoRequest():
                self._echo.on_request(peer, message)
            case messages.EchoReply():
                self._echo_calls.on_reply(peer, message)
            case messages.Error():
                self._context.record("transport.peer_error", peer=peer, error=message.name)
            case _:
                error = messages.Error(
                    name=ErrorCode.UNKNOWN_TYPE.name, detail="", about=message.TYPE
                )
                self._context.send(peer, error)

    def _on_peer_close(self, peer: str, message: messages.Close) -> None:
        why = foreign_reason(message.error or ErrorCode.CLOSED.name, message.detail)
        if not (
            self._flows.on_close(peer, message.id, why)
            or self._accepts.on_close(peer, message.id, why)
            or self._echo.on_close(peer, message.id)
            or self._streams.on_close(peer, message.id, why)
        ):
            self._context.record("transport.late_close", peer=peer)

    def _on_void_pair(self, peer: str, message: messages.VoidPair) -> None:
        delivered = self._pairs.get(message.pair)
        if delivered is not None and delivered.remote == peer:
            self._echo_calls.on_void(message.pair)
            self._pairs.void(message.pair)
        else:
            self._echo.on_void_pair(peer, message.pair)

    def _on_peer_up(self, peer: str, boot_id: bytes) -> None:
        if self._context.channels.on_up(peer, boot_id):
            self._flows.on_peer_restarted(peer)
            self._accepts.on_peer_restarted(peer)
            self._echo.on_peer_restarted(peer)
            self._echo_calls.on_peer_restarted(peer)
            self._streams.on_peer_restarted(peer)
        self._flows.resume(peer)
        self._accepts.resume(peer)
        self._echo.resume(peer)
        self._echo_calls.resume(peer)
        self._streams.resume(peer)

    def _on_peer_down(self, peer: str) -> None:
        self._context.channels.on_down(peer)
        why = reason(ErrorCode.PEER_DOWN, f"no channel to {peer}")
        for call in self._calls.of_peer(peer):
            if call.deadline_ns is None and self._calls.is_open(call) and call.peer == peer:
                call.withdraw(call, why)
        self._flows.on_peer_down(peer)
        self._accepts.on_peer_down(peer)
        self._echo.on_peer_down(peer)
        self._streams.on_peer_down(peer)
        is_needed = bool(self._calls.of_peer(peer)) or self._streams.owes(peer)
        self._context.channels.after_down(peer, is_needed=is_needed)
