"""Streams of both kinds: opening, listening, accepting, closing; who gets which message.

Rules
1. An OpenStream waits, bounded per peer, until a listener on its port for that peer has an Accept
   open. It is forgotten with the channel: the opener says it again.
2. Of a closed stream the id is remembered, and the fates of its qubits: a late Correction is
   answered with what became of the qubit, anything else with Close. Close is never answered.
"""

from msgspec import Struct

from qstack.errors import ErrorCode
from qstack.transport import messages, service
from qstack.transport.calls import Call, Calls
from qstack.transport.context import BoundedDict, Context, Reason, reason
from qstack.transport.message_streams import MessageStream
from qstack.transport.params import CLOSED_IDS_MAX, PENDING_PER_PEER_MAX
from qstack.transport.qubit_receiver import QubitReceiver
from qstack.transport.qubit_sender import QubitSender
from qstack.transport.sockets import PortSocket, Sockets
from qstack.transport.stream_socket import Name, StreamSocket

Key = tuple[str, bytes]
OfStream = (
    messages.Correction
    | messages.Acknowledged
    | messages.Credit
    | messages.Lost
    | messages.Skipped
    | messages.RequestsOver
    | messages.Data
)


class _Opening(Struct, eq=False):
    """A StreamOpen of ours that nobody has accepted yet."""

    call: Call
    stream: StreamSocket
    kind: service.StreamKind


class _Accept(Struct, eq=False):
    """An Accept of ours that nothing has come for yet."""

    call: Call
    listener: PortSocket


class Streams:
    """All streams of this node."""

    def __init__(self, context: Context, calls: Calls, sockets: Sockets) -> None:
        self._context = context
        self._calls = calls
        self._sockets = sockets
        self._streams: dict[Key, StreamSocket] = {}
        self._opening: dict[Key, _Opening] = {}
        self._pending: dict[Key, messages.OpenStream] = {}
        self._accepts: dict[tuple[str, int], _Accept] = {}
        self._closed: BoundedDict[Key, dict[int, bool]] = BoundedDict(CLOSED_IDS_MAX)

    def __len__(self) -> int:
        return len(self._streams) + len(self._opening) + len(self._pending) + len(self._accepts)

    # --- calls ---

    def open(self, session: str, message: service.StreamOpen) -> None:
        """StreamOpen: ask the remote's listener."""
        call = self._calls.open(
            session,
            message.call,
            within_ns=message.within_ns,
            withdraw=self._withdraw_opening,
            peer=message.remote,
        )
        if call is None:
            return
        name = Name(
            peer=message.remote,
            id=self._context.fresh_id(),
            is_opener=True,
            port=message.port,
            min_fidelity=message.min_fidelity,
        )
        make = QubitSender if message.kind == "qubit" else MessageStream
        stream = make(self._context, self._calls, session, name, self._on_closed)
        opening = _Opening(call, stream, message.kind)
        self._opening[name.peer, name.id] = opening
        self._say_open(opening)

    def accept(self, session: str, listener: PortSocket, message: service.Accept) -> None:
        """Accept: take the next stream, now or when one comes."""
        call = self._calls.open(
            session, message.call, within_ns=message.within_ns, withdraw=self._withdraw_accept
        )
        if call is None:
            return
        accept = _Accept(call, listener)
        self._accepts[session, call.number] = accept
        for (peer, _), offer in list(self._pending.items()):
            if self._fits(accept, peer, offer):
                self._take(accept, peer, offer)
                return

    def close_listener(self, listener: PortSocket, why: Reason) -> None:
        """The listener's accepts end."""
        for accept in list(self._accepts.values()):
            if accept.listener is listener:
                self._withdraw_accept(accept.call, why)

    def on_session_gone(self, session: str) -> None:
        """Streams that were still opening are not opened."""
        for opening in list(self._opening.values()):
            if opening.call.session == session:
                self._withdraw_opening(opening.call, reason(ErrorCode.CLOSED))

    # --- from a peer ---

    def on_open(self, peer: str, message: messages.OpenStream) -> None:
        """A stream wants to be accepted, perhaps not for the first time."""
        key = (peer, message.stream)
        stream = self._streams.get(key)
        if stream is not None and not stream.name.is_opener:
            stream.say(messages.StreamOpened(stream=message.stream))
            stream.resume()
        elif key in self._closed:
            self._close(peer, message.stream, reason(ErrorCode.CLOSED))
        elif stream is not None or key in self._opening:
            detail = "the stream's id is in use"
            self._error(peer, detail, message.TYPE)
        elif message.port == service.ECHO_PORT:
            detail = "the echo port takes no streams"
            self._close(peer, message.stream, reason(ErrorCode.REJECTED, detail))
        elif key not in self._pending:
            self._enter(peer, message)

    def _enter(self, peer: str, message: messages.OpenStream) -> None:
        if sum(1 for name, _ in self._pending if name == peer) >= PENDING_PER_PEER_MAX:
            detail = f"{PENDING_PER_PEER_MAX} streams wait to be accepted"
            self._close(peer, message.stream, reason(ErrorCode.NO_RESOURCES, detail))
            return
        self._pending[peer, message.stream] = message
        for listener in self._sockets.at_port("listener", message.port, peer):
            for accept in list(self._accepts.values()):
                if accept.listener is listener and self._fits(accept, peer, message):
                    self._take(accept, peer, message)
                    return

    def on_opened(self, peer: str, message: messages.StreamOpened) -> None:
        """The far end has accepted."""
        key = (peer, message.stream)
        opening = self._opening.pop(key, None)
        if opening is None:
            if key not in self._streams:
                self._close(peer, message.stream, reason(ErrorCode.CLOSED))
            return
        if not self._sockets.has_room(opening.call.session):
            why = reason(ErrorCode.NO_RESOURCES, "the session has too many sockets")
            self._closed.put(key, {})
            self._close(peer, message.stream, why)
            self._calls.fail(opening.call, why)
            return
        number = self._sockets.enter(opening.stream)
        self._streams[key] = opening.stream
        self._calls.answer(opening.call, service.Opened(call=opening.call.number, socket=number))
        opening.stream.open()

    def on_message(self, peer: str, message: OfStream) -> None:
        """A message of a stream that stands."""
        stream = self._streams.get((peer, message.stream))
        if stream is None:
            self._on_unknown(peer, message)
        elif isinstance(message, messages.Correction) and isinstance(stream, QubitReceiver):
            stream.on_correction(message)
        elif isinstance(message, messages.Acknowledged) and isinstance(stream, QubitSender):
            stream.on_acknowledged(message)
        elif isinstance(message, messages.Credit):
            stream.on_credit(message)
        else:
            self._on_rare(peer, stream, message)

    def _on_rare(self, peer: str, stream: StreamSocket, message: OfStream) -> None:
        match message, stream:
            case (messages.Lost(), QubitReceiver()):
                stream.on_lost(message)
            case (messages.Skipped(), QubitReceiver()):
                stream.on_skipped(message)
            case (messages.RequestsOver(), QubitReceiver()):
                stream.on_over(message)
            case (messages.Data(), MessageStream()):
                stream.on_data(message)
            case _:
                self._error(peer, "not a message of this kind of stream", message.TYPE)

    def on_close(self, peer: str, stream_id: bytes, why: Reason) -> bool:
        """The far end has closed a stream. Whether it was one."""
        key = (peer, stream_id)
        if self._pending.pop(key, None) is not None:
            return True
        opening = self._opening.pop(key, None)
        if opening is not None:
            self._closed.put(key, {})
            self._calls.fail(opening.call, why)
            return True
        stream = self._streams.get(key)
        if stream is not None:
            stream.on_close(why)
        return stream is not None

    def on_peer_down(self, peer: str) -> None:
        """What is pending will be said again."""
        self._pending = {key: each for key, each in self._pending.items() if key[0] != peer}
        for stream in self._of(peer):
            stream.on_peer_down()

    def resume(self, peer: str) -> None:
        """The channel is back: all ends say again what was not acknowledged."""
        for (name, _), opening in list(self._opening.items()):
            if name == peer:
                self._say_open(opening)
        for stream in self._of(peer):
            stream.resume()

    def on_peer_restarted(self, peer: str) -> None:
        """The peer's ends are no more."""
        why = reason(ErrorCode.PEER_DOWN, "it restarted")
        for (name, stream_id), opening in list(self._opening.items()):
            if name == peer and opening.stream.is_said:
                del self._opening[name, stream_id]
                self._calls.fail(opening.call, why)
        for stream in self._of(peer):
            stream.end(why)

    def on_device_lost(self) -> None:
        """Qubits are gone; the streams stand."""
        for stream in list(self._streams.values()):
            stream.on_device_lost()

    def owes(self, peer: str) -> bool:
        """Whether an end owes the peer something, so that a lost channel is needed again."""
        return any(stream.owes() for stream in self._of(peer))

    # --- parts ---

    def _of(self, peer: str) -> list[StreamSocket]:
        return [stream for (name, _), stream in self._streams.items() if name == peer]

    def _say_open(self, opening: _Opening) -> None:
        name = opening.stream.name
        opening.stream.say(
            messages.OpenStream(
                stream=name.id,
                kind=opening.kind,
                port=name.port,
                deadline_ns=opening.call.deadline_ns,
            )
        )

    def _fits(self, accept: _Accept, peer: str, offer: messages.OpenStream) -> bool:
        if offer.deadline_ns is not None and offer.deadline_ns <= self._context.now:
            return False  # the opener's Close is on its way
        listener = accept.listener
        return listener.port == offer.port and listener.remote in {None, peer}

    def _take(self, accept: _Accept, peer: str, offer: messages.OpenStream) -> None:
        call = accept.call
        if not self._sockets.has_room(call.session):
            self._withdraw_accept(
                call, reason(ErrorCode.NO_RESOURCES, "the session has too many sockets")
            )
            return
        del self._accepts[call.session, call.number]
        del self._pending[peer, offer.stream]
        name = Name(peer=peer, id=offer.stream, is_opener=False, port=offer.port)
        make = QubitReceiver if offer.kind == "qubit" else MessageStream
        stream = make(self._context, self._calls, call.session, name, self._on_closed)
        number = self._sockets.enter(stream)
        self._streams[peer, offer.stream] = stream
        accepted = service.Accepted(call=call.number, socket=number, remote=peer, kind=offer.kind)
        self._calls.answer(call, accepted)
        stream.say(messages.StreamOpened(stream=offer.stream))
        stream.open()

    def _withdraw_opening(self, call: Call, why: Reason) -> None:
        key = next(key for key, opening in self._opening.items() if opening.call is call)
        del self._opening[key]
        self._closed.put(key, {})
        self._close(*key, why)
        self._calls.fail(call, why)

    def _withdraw_accept(self, call: Call, why: Reason) -> None:
        del self._accepts[call.session, call.number]
        self._calls.fail(call, why)

    def _on_closed(self, stream: StreamSocket) -> None:
        key = (stream.name.peer, stream.name.id)
        self._streams.pop(key, None)
        self._closed.put(key, stream.fates)

    def _on_unknown(self, peer: str, message: OfStream) -> None:
        key = (peer, message.stream)
        if key in self._opening or isinstance(message, messages.Acknowledged):
            # An accepted end whose StreamOpened was lost speaks; it will, when asked again.
            return
        match message:
            case messages.Correction() | messages.Lost() | messages.Skipped():
                if key in self._closed:
                    is_lost = self._closed[key].get(message.sequence, True)
                    acknowledged = messages.Acknowledged(
                        stream=message.stream, sequence=message.sequence, is_lost=is_lost
                    )
                    self._context.send(peer, acknowledged)
                    return
            case _ if key in self._pending:
                self._error(peer, "the stream is not accepted yet", message.TYPE)
                return
            case _:
                pass
        self._close(peer, message.stream, reason(ErrorCode.CLOSED))

    def _close(self, peer: str, stream: bytes, why: Reason) -> None:
        self._context.send(peer, messages.Close(id=stream, error=why.error, detail=why.detail))

    def _error(self, peer: str, detail: str, about: int) -> None:
        error = messages.Error(name=ErrorCode.OUT_OF_STATE.name, detail=detail, about=about)
        self._context.send(peer, error)
