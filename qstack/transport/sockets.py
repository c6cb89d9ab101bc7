"""The sockets of sessions, and the ports they hold.

Rules
1. A socket number is the session's own and is not used twice in it.
2. A port of one kind (EPR, listener) belongs to one session, which may open it once for each
   remote and once for anyone. Port 0 (echo) belongs to the transport: many may open it as EPR
   socket to measure a path, nobody can listen there.
3. Who comes from outside goes to the socket for that remote first, then to the one for anyone.
"""

from typing import Literal, TypeVar

from msgspec import Struct

from qstack.transport.context import Context
from qstack.transport.params import SOCKETS_PER_SESSION_MAX
from qstack.transport.service import ECHO_PORT

PortKind = Literal["epr", "listener"]


class Socket:
    """What a session may close."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.number = -1  # until it is entered in the table


class PortSocket(Socket):
    """A socket that holds a port: EPR sockets and listeners."""

    def __init__(self, session: str, port: int, remote: str | None) -> None:
        super().__init__(session)
        self.port = port
        self.remote = remote


P = TypeVar("P", bound=PortSocket)


class _Session(Struct, eq=False):
    sockets: dict[int, Socket]
    next_number: int = 0


class _Port(Struct, eq=False):
    session: str
    sockets: dict[str | None, PortSocket]


class Sockets:
    """All sockets of all sessions of this node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sessions: dict[str, _Session] = {}
        self._ports: dict[tuple[PortKind, int], _Port] = {}

    def __len__(self) -> int:
        return sum(len(session.sockets) for session in self._sessions.values())

    def has_room(self, session: str) -> bool:
        """Whether the session may have one more socket."""
        known = self._sessions.get(session)
        return known is None or len(known.sockets) < SOCKETS_PER_SESSION_MAX

    def enter(self, socket: Socket) -> int:
        """Number a socket."""
        known = self._sessions.setdefault(socket.session, _Session({}))
        socket.number = known.next_number
        known.sockets[socket.number] = socket
        known.next_number += 1
        return socket.number

    def get(self, session: str, number: int) -> Socket | None:
        """The socket of that number, if it is open."""
        known = self._sessions.get(session)
        return known.sockets.get(number) if known is not None else None

    def remove(self, socket: Socket) -> None:
        """Forget a socket; its number is not used again while the session lives."""
        known = self._sessions.get(socket.session)
        if known is not None:
            known.sockets.pop(socket.number, None)

    def of_session(self, session: str) -> list[Socket]:
        """The session's open sockets."""
        known = self._sessions.get(session)
        return list(known.sockets.values()) if known is not None else []

    def forget_session(self, session: str) -> None:
        """The session has gone, and all its sockets have been closed."""
        self._sessions.pop(session, None)

    # --- ports ---

    def hold_port(self, kind: PortKind, socket: PortSocket) -> bool:
        """Take the socket's port for it; False if that cannot be."""
        if socket.port == ECHO_PORT:
            return kind == "epr"
        held = self._ports.setdefault((kind, socket.port), _Port(socket.session, {}))
        if held.session != socket.session or socket.remote in held.sockets:
            return False
        held.sockets[socket.remote] = socket
        return True

    def leave_port(self, kind: PortKind, socket: PortSocket) -> None:
        """Give the socket's port back."""
        held = self._ports.get((kind, socket.port))
        if held is not None and held.sockets.get(socket.remote) is socket:
            del held.sockets[socket.remote]
            if not held.sockets:
                del self._ports[kind, socket.port]

    def at_port(self, kind: PortKind, port: int, remote: str) -> list[PortSocket]:
        """The sockets at which `remote` may arrive, in the order to be tried."""
        held = self._ports.get((kind, port))
        if held is None:
            return []
        return [held.sockets[key] for key in (remote, None) if key in held.sockets]
