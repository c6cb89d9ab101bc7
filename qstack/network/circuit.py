"""Circuits: set-up in two phases, and their end, as one node on them sees it.

INSTALL goes from the head to the tail with the whole route, INSTALLED back, then START down. Who
cannot be part of it answers REFUSED, which takes it down on its way to the head. A circuit that
loses a neighbour, a link or a device is taken down in both directions with TEARDOWN.

Rules
1. A message about a circuit is taken only from the two neighbours on it, with its epoch.
2. About a circuit that ended here lately a message is ignored: it crossed our TEARDOWN. About one
   never known here it is answered with TEARDOWN, so that a peer gives up what we have forgotten.
3. The epoch is the head's count of circuits since it started; each has a new id besides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from qstack.errors import ErrorCode, PeerError
from qstack.ids import CircuitId
from qstack.link import service as link
from qstack.network.circuit_states import ACTIVE, CIRCUIT, CircuitInput, CircuitState
from qstack.network.link_state import LinkStateDatabase
from qstack.network.messages import (
    Complete,
    Expire,
    Forward,
    Install,
    Installed,
    Refused,
    Start,
    Teardown,
    Track,
)
from qstack.network.outbox import Outbox
from qstack.network.params import (
    CIRCUITS_MAX,
    CLOSED_CIRCUITS_MAX,
    PROMISE_SLACK,
    RELAY_MEMORY_MIN,
)
from qstack.network.prediction import Chain
from qstack.table import IllegalInputError

CircuitMessage = Installed | Refused | Start | Teardown | Forward | Complete | Track | Expire


@dataclass
class Circuit:
    """One circuit at one node. `requests` are those open on it, oldest first."""

    install: Install
    position: int
    can_keep: bool = True  # known at the head only
    chain: Chain | None = None  # what its links promised last, known at the head only
    state: CircuitState = CIRCUIT.start
    requests: dict[bytes, Forward] = field(default_factory=dict)
    # What its messages and pairs ask for again and again, from `install`, which never changes.
    id: CircuitId = field(init=False)  # its name on all nodes
    epoch: int = field(init=False)  # the head's count of circuits
    head: str = field(init=False)  # the node that asked for it
    tail: str = field(init=False)  # the node at its far end
    upstream: str | None = field(init=False)  # the neighbour towards the head, None at the head
    downstream: str | None = field(init=False)  # the neighbour towards the tail, None at the tail
    is_single_link: bool = field(init=False)  # head and tail are neighbours on it
    fidelity: float = field(init=False)  # what its links keep now, known at the head only

    def __post_init__(self) -> None:
        """See the fields."""
        route, position = self.install.route, self.position
        self.id = CircuitId(self.install.circuit)
        self.epoch = self.install.epoch
        self.head, self.tail = route[0], route[-1]
        self.upstream = route[position - 1] if position > 0 else None
        self.downstream = route[position + 1] if position + 1 < len(route) else None
        self.is_single_link = len(route) == 2
        self.fidelity = self.install.fidelity

    def summary(self) -> dict[str, object]:
        """Facts for status; the route begins with the head."""
        return {
            "route": self.install.route,
            "state": self.state.name,
            "requests": len(self.requests),
            "cutoff_ns": self.install.cutoff_ns,
            "fidelity": self.install.fidelity,
        }

    @property
    def is_worse(self) -> bool:
        """Whether its links keep less than it was made for."""
        return self.fidelity < self.install.fidelity - PROMISE_SLACK

    def other_side(self, peer: str) -> str | None:
        """The neighbour on the other side than `peer`."""
        return self.downstream if peer == self.upstream else self.upstream


class CircuitUser(Protocol):
    """Whom the set-up tells when a circuit can be used and when it no longer can."""

    def on_active(self, circuit: Circuit) -> None:
        """The circuit has become active here."""

    def on_closed(self, circuit: Circuit, error: ErrorCode, detail: str) -> None:
        """The circuit has ended here; `circuit.requests` are those it carried."""


class Circuits:
    """All circuits through this node."""

    def __init__(self, database: LinkStateDatabase, out: Outbox, user: CircuitUser) -> None:
        self._database = database
        self._out = out
        self._user = user
        self._circuits: dict[bytes, Circuit] = {}
        self._closed: dict[bytes, None] = {}

    def __iter__(self) -> Iterator[Circuit]:
        return iter(list(self._circuits.values()))

    def get(self, circuit: bytes) -> Circuit | None:
        """The circuit of that id, if it is there."""
        return self._circuits.get(circuit)

    def of(self, peer: str, message: CircuitMessage) -> Circuit | None:
        """The circuit a neighbour's message is about, or None if it is to be ignored.

        Raises PeerError if the neighbour has no say in it or the epoch is not its own.
        """
        circuit = self._circuits.get(message.circuit)
        if circuit is None:
            if message.circuit not in self._closed and not isinstance(
                message, Teardown | Refused | Expire
            ):
                self._send_teardown(
                    peer, message.circuit, message.epoch, ErrorCode.OUT_OF_STATE, "not known here"
                )
            return None
        if peer not in (circuit.upstream, circuit.downstream):
            raise PeerError(ErrorCode.OUT_OF_STATE, f"{peer} is not beside us on the circuit")
        if message.epoch != circuit.epoch:
            raise PeerError(ErrorCode.OUT_OF_STATE, f"its epoch is {circuit.epoch}", field="epoch")
        return circuit

    def active(self, peer: str, message: CircuitMessage) -> Circuit | None:
        """Like `of`, for the messages that belong to an active circuit."""
        circuit = self._circuits.get(message.circuit)
        if (
            circuit is not None
            and circuit.state is ACTIVE
            and circuit.epoch == message.epoch
            and peer in (circuit.upstream, circuit.downstream)
        ):
            return circuit
        circuit = self.of(peer, message)
        if circuit is not None:
            self._step(circuit, CircuitInput.TRAFFIC)  # which is not allowed
        return circuit

    # --- set-up ----------------------------------------------------------------------------------

    def install(self, install: Install, *, can_keep: bool) -> Circuit:
        """Begin a circuit at its head."""
        circuit = Circuit(install, 0, can_keep)
        self._circuits[circuit.id] = circuit
        assert circuit.downstream is not None, "a route has at least two nodes"
        self._out.send(circuit.downstream, install)
        self._out.record("install", circuit=circuit.id, route=install.route)
        return circuit

    def on_install(self, peer: str, install: Install) -> None:
        """A neighbour asks us to be part of a circuit."""
        if install.circuit in self._circuits or install.circuit in self._closed:
            raise PeerError(ErrorCode.OUT_OF_STATE, "a circuit of this id was installed before")
        refusal = self._refusal(peer, install)
        if refusal is not None:
            error, detail = refusal
            self._out.record("refuse", circuit=install.circuit, error=error.name)
            self._send_refused(
                peer,
                Refused(
                    circuit=install.circuit,
                    epoch=install.epoch,
                    node=self._out.node,
                    error=error.name,
                    detail=detail,
                ),
            )
            return
        circuit = Circuit(install, install.route.index(self._out.node))
        self._circuits[circuit.id] = circuit
        self._out.tell(link.LAYER, link.LinkListen(peer=peer, purpose=circuit.id))
        if circuit.downstream is not None:
            self._out.send(circuit.downstream, install)
        else:
            self._step(circuit, CircuitInput.INSTALLED)
            self._out.send(peer, Installed(circuit=circuit.id, epoch=circuit.epoch))

    def on_installed(self, peer: str, message: Installed) -> None:
        """The circuit stands from the downstream neighbour to the tail."""
        circuit = self._from(peer, message, is_upstream=False)
        if circuit is None:
            return
        self._step(circuit, CircuitInput.INSTALLED)
        if circuit.upstream is not None:
            self._out.send(circuit.upstream, message)
            return
        self._step(circuit, CircuitInput.START)
        self._out.send(peer, Start(circuit=circuit.id, epoch=circuit.epoch))
        self._out.record("circuit_active", circuit=circuit.id)
        self._user.on_active(circuit)

    def on_start(self, peer: str, message: Start) -> None:
        """Everybody is ready."""
        circuit = self._from(peer, message, is_upstream=True)
        if circuit is None:
            return
        self._step(circuit, CircuitInput.START)
        if circuit.downstream is not None:
            self._out.send(circuit.downstream, message)
        self._user.on_active(circuit)

    def on_refused(self, peer: str, message: Refused) -> None:
        """Somebody downstream cannot be part of the circuit."""
        circuit = self._from(peer, message, is_upstream=False)
        if circuit is None:
            return
        self._step(circuit, CircuitInput.REFUSED)
        if circuit.upstream is not None:
            self._send_refused(circuit.upstream, message)
        self._end(circuit, code_of(message.error), f"{message.node}: {message.detail}")

    def on_teardown(self, peer: str, message: Teardown) -> None:
        """A neighbour says that the circuit is gone."""
        circuit = self.of(peer, message)
        if circuit is None:
            return
        self._step(circuit, CircuitInput.TEARDOWN)
        other = circuit.other_side(peer)
        if other is not None and self._database.has_channel(other):
            self._out.send(other, message)
        self._end(circuit, code_of(message.error), message.detail)

    # --- the end ---------------------------------------------------------------------------------

    def on_neighbour_lost(self, peer: str, detail: str) -> None:
        """The channel or the link to `peer` has gone, and with it every circuit over it."""
        for circuit in self:
            if peer in (circuit.upstream, circuit.downstream):
                self.close(circuit, CircuitInput.LOST, ErrorCode.PEER_DOWN, detail)

    def on_neighbour_closed(self, peer: str) -> None:
        """The link to `peer` is closed for a while: circuits on over it look for another way.

        Requests on a circuit of that link alone wait for it in the link layer.
        """
        for circuit in self:
            if peer in (circuit.upstream, circuit.downstream) and not circuit.is_single_link:
                detail = f"the link to {peer} is closed"
                self.close(circuit, CircuitInput.LOST, ErrorCode.PEER_DOWN, detail)

    def close(
        self, circuit: Circuit, received: CircuitInput, error: ErrorCode, detail: str
    ) -> None:
        """End a circuit from here and tell both neighbours on it."""
        self._step(circuit, received)
        for peer in (circuit.upstream, circuit.downstream):
            if peer is not None:
                self._send_teardown(peer, circuit.id, circuit.epoch, error, detail)
        self._end(circuit, error, detail)

    def _end(self, circuit: Circuit, error: ErrorCode, detail: str) -> None:
        assert circuit.state is CircuitState.CLOSED, "only a closed circuit is dropped"
        del self._circuits[circuit.id]
        self._closed[circuit.id] = None
        if len(self._closed) > CLOSED_CIRCUITS_MAX:
            del self._closed[next(iter(self._closed))]
        if circuit.upstream is not None:
            self._out.tell(link.LAYER, link.LinkUnlisten(peer=circuit.upstream, purpose=circuit.id))
        self._out.record("circuit_closed", circuit=circuit.id, error=error.name, detail=detail)
        self._user.on_closed(circuit, error, detail)

    # --- parts -----------------------------------------------------------------------------------

    def _refusal(self, peer: str, install: Install) -> tuple[ErrorCode, str] | None:
        """Why we cannot be part of it, or None."""
        route, node = install.route, self._out.node
        if node not in route or len(dict.fromkeys(route)) < len(route):
            return ErrorCode.BAD_REQUEST, "the route has a loop or misses this node"
        position = route.index(node)
        if position == 0 or route[position - 1] != peer:
            return ErrorCode.BAD_REQUEST, f"{peer} is not before this node in the route"
        capability = self._database.capability
        if capability is None:
            return ErrorCode.DEVICE_LOST, "no quantum device here"
        is_relay = position + 1 < len(route)
        if is_relay and capability.memory < RELAY_MEMORY_MIN:
            return ErrorCode.NO_RESOURCES, f"{capability.memory} qubits are too few to swap"
        for neighbour in route[position - 1 : position + 2]:
            if neighbour != node and not self._database.is_adjacent(neighbour):
                return ErrorCode.PEER_DOWN, f"no working link to {neighbour}"
        if len(self._circuits) >= CIRCUITS_MAX:
            return ErrorCode.NO_RESOURCES, f"{CIRCUITS_MAX} circuits are open"
        return None

    def _from(self, peer: str, message: CircuitMessage, *, is_upstream: bool) -> Circuit | None:
        """Like `of`, for messages that come from one side only."""
        circuit = self.of(peer, message)
        if circuit is not None:
            expected = circuit.upstream if is_upstream else circuit.downstream
            if peer != expected:
                raise PeerError(ErrorCode.OUT_OF_STATE, f"not from the side of {peer}")
        return circuit

    def _step(self, circuit: Circuit, received: CircuitInput) -> None:
        try:
            circuit.state = CIRCUIT.step(circuit.state, received)
        except IllegalInputError as error:
            raise PeerError(ErrorCode.OUT_OF_STATE, str(error)) from error

    def _send_refused(self, peer: str, message: Refused) -> None:
        if self._database.has_channel(peer):
            self._out.send(peer, message)

    def _send_teardown(
        self, peer: str, circuit: bytes, epoch: int, error: ErrorCode, detail: str
    ) -> None:
        if self._database.has_channel(peer):
            self._out.send(
                peer, Teardown(circuit=circuit, epoch=epoch, error=error.name, detail=detail)
            )


def code_of(name: str) -> ErrorCode:
    """The registry row of a name from the wire; an unknown one counts as PEER_DOWN."""
    return ErrorCode.__members__.get(name, ErrorCode.PEER_DOWN)
