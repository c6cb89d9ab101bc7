"""Sessions of applications with their node, over a Unix socket.

An application is busy from when it attaches, or is sent something, until it says Idle with the
number of messages it has received; a node in lockstep does not go on while one is busy
(CLOCK.md, "When the clock runs"). Its calls are handed to the node in the order they came.
"""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from qstack.channel.readable import receive_when_readable
from qstack.errors import ErrorCode, PeerError
from qstack.physical import service as physical
from qstack.runtime import session_messages as words
from qstack.transport import service as transport
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import BULK_BYTES_MAX, FrameReader, pack
from qstack.wire.message import Message
from qstack.wire.session import Stamp

READ_BYTES: Final = 65_536
SESSIONS_MAX: Final = 256
UNSENT_BYTES_MAX: Final = 64 * 2**20  # a reader this far behind is ended, not waited for
FAREWELL_S: Final = 1.0  # so long the last words to a session may take

CALLS: Final = (
    transport.EprOpen, transport.EprCreate, transport.EprAccept, transport.EchoMeasure,
    transport.StreamOpen, transport.Listen, transport.Accept, transport.SendQubit,
    transport.ReceiveQubit, transport.SendMessage, transport.ReceiveMessage,
    transport.CloseSocket, transport.CancelCall, transport.RouteAsk,
    physical.Allocate, physical.ApplyGate, physical.Measure, physical.BellMeasure,
    physical.Reset, physical.Free, physical.Transfer, physical.Move,
    words.Sleep, words.CancelSleep,
)  # fmt: skip
"""What a session may ask of the layers."""
_WORDS: Final = (words.Attach, words.Idle, words.Busy, words.StatusAsk)
_registry: Final = Registry((*CALLS, *_WORDS))


@dataclass(eq=False)
class Session:
    """One connection."""

    name: str
    stream: trio.SocketStream
    is_observer: bool
    stamp_ns: int = -1  # the latest Stamp it was told
    told: int = 0  # messages sent to it
    heard: int = 0  # of them, those it has said it received
    calls: int = 0
    given: physical.Transfer | None = None  # kept until its SendQubit comes
    outbox: list[bytes] = field(default_factory=list)
    outbox_bytes: int = 0
    wakeup: trio.Event = field(default_factory=trio.Event)
    writing: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_escaped: bool = False  # busy, and the clock went on without it
    is_ending: bool = False
    is_writing: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether the clock waits for it: it may still answer what it was told."""
        has_say = self.heard < self.told
        return has_say and not (self.is_observer or self.is_escaped or self.is_ending)


class SessionServer:
    """The sessions of one node. The driver gives callbacks and tells it what to send."""

    def __init__(
        self,
        node: str,
        clock: str,
        *,
        is_seeded: bool,
        on_call: Callable[[str, int, Message], None],
        on_end: Callable[[str, int], None],
        on_change: Callable[[], None],
        on_turn: Callable[[], None],
        on_status: Callable[[], tuple[int, bytes]],
    ) -> None:
        self.node = node
        self.clock = clock
        self.is_seeded = is_seeded
        self.takes_applications = True  # a station has observers only
        self.sessions: dict[str, Session] = {}
        self._on_call = on_call
        self._on_end = on_end
        self._on_change = on_change
        self._on_turn = on_turn
        self._on_status = on_status
        self._made = {"app": 0, "tool": 0}  # apart: who looks on must not show in the trace
        self._settled = trio.Event()
        self._unflushed: dict[str, Session] = {}

    async def serve(self, listener: trio.SocketListener) -> None:
        """Take sessions until cancelled."""
        async with listener, trio.open_nursery() as nursery:
            while True:
                stream = await listener.accept()
                if peer_user(stream) not in (os.getuid(), 0):
                    await trio.aclose_forcefully(stream)
                    continue
                nursery.start_soon(self._run, stream)

    @property
    def busy(self) -> list[str]:
        """The sessions that are busy."""
        return [session.name for session in self.sessions.values() if session.is_busy]

    @property
    def applications(self) -> int:
        """How many sessions are applications."""
        return sum(not session.is_observer for session in self.sessions.values())

    def tell(self, name: str, at_ns: int, message: Message) -> None:
        """Send a message to a session, if it is still there."""
        session = self.sessions.get(name)
        if session is None:
            return
        session.told += 1
        if at_ns != session.stamp_ns:
            session.stamp_ns = at_ns
            self._put(session, Stamp(at_ns=at_ns))
        self._put(session, message)

    def flush(self) -> None:
        """Write what sessions were told: at once if possible, else by their writers."""
        unflushed, self._unflushed = self._unflushed, {}
        for session in unflushed.values():
            if session.outbox and not session.is_writing:
                self._write_nowait(session)
            if session.outbox or session.is_ending:
                session.wakeup.set()

    def _write_nowait(self, session: Session) -> None:
        data = b"".join(session.outbox)
        try:
            sent = os.write(session.stream.socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(data)  # it has gone, and its reader is about to see it
        session.outbox = [data[sent:]] if sent < len(data) else []
        session.outbox_bytes = len(data) - sent

    async def settled(self) -> None:
        """Wait until no session is busy."""
        while self.busy:
            if self._settled.is_set():
                self._settled = trio.Event()
            await self._settled.wait()

    def escape(self, name: str) -> None:
        """Wait no more for a busy session, until it has said Idle."""
        self.sessions[name].is_escaped = True
        self._tell_settled()

    def end(self, name: str, error: ErrorCode, detail: str) -> None:
        """End a session, telling it why."""
        session = self.sessions.get(name)
        if session is not None and not session.is_ending:
            self._put(session, words.SessionError(error=error.name, detail=detail[:500]))
            session.is_ending = True
            session.writing.deadline = trio.current_time() + FAREWELL_S
            self.flush()
            self._tell_settled()

    def _tell_settled(self) -> None:
        if not self.busy:
            self._settled.set()

    # --- one session -----------------------------------------------------------------------------

    async def _run(self, stream: trio.SocketStream) -> None:
        reader = FrameReader(BULK_BYTES_MAX)
        session: Session | None = None
        async with stream, trio.open_nursery() as nursery:
            try:
                while data := await receive_when_readable(stream, READ_BYTES):
                    for frame in reader.cut(data):
                        message = _registry.decode(frame)
                        if session is None:
                            session = self._attach(stream, message)
                            nursery.start_soon(self._write, session)
                        elif message is not None:
                            self._on_message(session, message)
                    self._on_turn()
            except PeerError as error:
                await self._say_why(stream, session, error)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the process died; its end is the same as a close
            nursery.cancel_scope.cancel()
        if session is not None:
            self._detach(session)

    def _attach(self, stream: trio.SocketStream, message: Message | None) -> Session:
        if not isinstance(message, words.Attach):
            raise PeerError(ErrorCode.OUT_OF_STATE, "the first message of a session is Attach")
        if 1 not in message.versions:
            raise PeerError(ErrorCode.VERSION, f"this node speaks 1, not {message.versions}")
        if not (self.takes_applications or message.is_observer):
            raise PeerError(ErrorCode.UNSUPPORTED, f"{self.node} is a station: it has status alone")
        if len(self.sessions) >= SESSIONS_MAX:
            raise PeerError(ErrorCode.NO_RESOURCES, f"{SESSIONS_MAX} sessions are open")
        kind = "tool" if message.is_observer else "app"
        session = Session(f"{kind}/{self._made[kind]}", stream, message.is_observer)
        self._made[kind] += 1
        self.sessions[session.name] = session
        session.told += 1
        attached = words.Attached(
            node=self.node,
            session=session.name,
            version=1,
            clock=self.clock,
            is_seeded=self.is_seeded,
        )
        self._put(session, Stamp(at_ns=self._on_status()[0]))
        self._put(session, attached)
        self.flush()
        self._on_change()
        return session

    def _on_message(self, session: Session, message: Message) -> None:
        if type(message) in _WORDS:
            self._on_word(session, message)
        else:
            _judge_call(session, message)
            self._call(session, message)

    def _on_word(self, session: Session, message: Message) -> None:
        match message:
            case words.Idle(received=received):
                if received <= session.told:
                    session.heard = received
                if session.heard == session.told:
                    session.is_escaped = False
                if not self.busy:
                    self._settled.set()
                    self._on_change()
            case words.Busy():
                session.heard = -1
                self._on_change()
            case words.Attach():
                raise PeerError(ErrorCode.OUT_OF_STATE, "a session is attached once")
            case words.StatusAsk(call=call):
                now, report = self._on_status()
                session.told += 1
                self._put(session, words.Status(call=call, now_ns=now, report=report))
                self.flush()
            case _:
                raise AssertionError(message)

    def _call(self, session: Session, message: Message) -> None:
        """Hand on a call. A qubit is given only together with what says to whom it is sent."""
        given, session.given = session.given, None
        if given is None and isinstance(message, physical.Transfer):
            session.given = message
            return
        if given is not None:
            if not isinstance(message, transport.SendQubit) or message.qubit != given.qubit:
                raise PeerError(ErrorCode.OUT_OF_STATE, "Transfer is followed by its SendQubit")
            self._hand_on(session, given)
        self._hand_on(session, message)

    def _hand_on(self, session: Session, message: Message) -> None:
        self._on_call(session.name, session.calls, message)
        session.calls += 1

    def _detach(self, session: Session) -> None:
        del self.sessions[session.name]
        if not session.is_observer:
            self._on_end(session.name, session.calls)
        self._tell_settled()
        self._on_change()
        self._on_turn()

    def _put(self, session: Session, message: Message) -> None:
        data = pack(encode(message))
        session.outbox.append(data)
        session.outbox_bytes += len(data)
        self._unflushed[session.name] = session
        if session.outbox_bytes > UNSENT_BYTES_MAX:
            session.writing.cancel()

    async def _write(self, session: Session) -> None:
        """Write what there is to say until the session ends, then close."""
        with session.writing, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while session.outbox or not session.is_ending:
                await session.wakeup.wait()
                session.wakeup = trio.Event()
                data, session.outbox = b"".join(session.outbox), []
                session.outbox_bytes = 0
                session.is_writing = True
                await session.stream.send_all(data)
                session.is_writing = False
        await trio.aclose_forcefully(session.stream)

    async def _say_why(
        self, stream: trio.SocketStream, session: Session | None, error: PeerError
    ) -> None:
        """Tell a session what it did wrong, and end it."""
        answer = words.SessionError(error=error.code.name, detail=str(error)[:500])
        waiting = session.outbox if session is not None else []
        with trio.move_on_after(1):
            try:
                await stream.send_all(b"".join(waiting) + pack(encode(answer)))
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                return


def _judge_call(session: Session, message: Message) -> None:
    """Refuse calls that would leave behind what nobody frees when the session ends."""
    if session.is_observer:  # the layers are not told of its end
        raise PeerError(ErrorCode.OUT_OF_STATE, "an observer asks for status, and calls nothing")
    if isinstance(message, physical.Transfer) and message.to != transport.LAYER:
        raise PeerError(
            ErrorCode.INVALID,
            f"an application gives qubits to the {transport.LAYER} layer alone",
            field="to",
        )


def peer_user(stream: trio.SocketStream) -> int:
    """The user id of the process at the other end, from the kernel."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    assert isinstance(raw, bytes)
    return int(struct.unpack("3i", raw)[1])
