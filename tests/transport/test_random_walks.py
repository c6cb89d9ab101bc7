"""Random walks over everything at once, with checkers that know the truth.

Checked: every call ends in exactly one closing answer; every qubit has one owner and none stays
with the layer; a qubit that arrives has its sender's state and nobody else's, in order; a SendQubit
that is Finished has its qubit at the far end, one that is LOST has not delivered it while the
channel stood, any other gives it back; kept pairs are phi+; messages arrive in order, exactly once;
at the end every table is empty. Not checked: fidelity, timing.
"""

from typing import Any

import numpy as np
import pytest

from qstack.transport import service
from tests.transport.session import Session
from tests.transport.world import MS, World, assert_idle

SEEDS = 40  # of each kind
STEPS = 80
FAR = 10**14


class Walk:
    """One seeded walk in a world of three nodes."""

    def __init__(self, seed: int, *, is_harsh: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.is_harsh = is_harsh  # nodes restart, devices go, sessions end
        self.world = World("alice", "bob", "carol", seed=seed)
        self.world.network.skew_ns = (0, int(self.rng.integers(0, 6)) * MS)
        self.sessions: list[Session] = []
        self.gone: list[Session] = []
        self.sockets: list[tuple[Session, str, int]] = []
        self.payloads = 0
        self.ports = 0
        self.listeners: dict[str, tuple[int, int]] = {}  # of each session: port, socket
        self.sends: dict[str, tuple[Session, int]] = {}
        self.texts: dict[tuple[str, int], list[bytes]] = {}
        for node in self.world.nodes:
            for _ in range(2):
                self.begin(node)

    def begin(self, node: str) -> None:
        session = self.world.session(node)
        self.sessions.append(session)
        self.ports += 1
        self.listeners[session.name] = (self.ports, session.listen(self.ports))

    def pick(self, things: Any) -> Any:
        return things[int(self.rng.integers(len(things)))]

    def span(self) -> int | None:
        return self.pick([None, FAR, FAR, int(self.rng.integers(1, 60)) * MS])

    def collect(self) -> None:
        """Sockets that were opened since."""
        known = {(session.name, number) for session, _, number in self.sockets}
        for session in self.sessions:
            for call, closing in session.closings.items():
                if isinstance(closing, (service.Opened, service.Accepted)):
                    if (session.name, closing.socket) in known:
                        continue
                    made = session.calls[call]
                    if isinstance(closing, service.Accepted):
                        kind = f"{closing.kind} in"
                    elif isinstance(made, service.StreamOpen):
                        kind = f"{made.kind} out"
                    else:
                        kind = type(made).__name__
                    self.sockets.append((session, kind, closing.socket))

    def step(self) -> None:
        self.collect()
        if len(self.sockets) > 8 and self.rng.random() < 0.93:
            kinds = {kind: None for _, kind, _ in self.sockets if kind != "Listen"}
            for _ in range(int(self.rng.integers(1, 4))):
                kind = self.pick(list(kinds) or ["Listen"])
                self.use(*self.pick([each for each in self.sockets if each[1] == kind][-6:]))
        else:
            self.open(self.pick(self.sessions))
        if self.rng.random() < 0.15:
            self.disturb()
        self.world.run(int(self.rng.integers(0, 4 * MS)))

    def open(self, session: Session) -> None:
        far = self.pick([each for each in self.sessions if each.node != session.node])
        port, listener = self.listeners[far.name]
        match int(self.rng.integers(6)):
            case 0 | 1:
                self.ports += 1
                session.call(service.EprOpen, port=self.ports, remote=far.node)
                far.call(service.EprOpen, port=self.ports, remote=self.pick([None, session.node]))
            case 2 | 3 | 4:
                session.stream(self.pick(["qubit", "message"]), far.node, port, self.span())
                far.accept(listener, self.span())
            case _:
                session.call(service.RouteAsk, remote=far.node)

    def use(self, session: Session, kind: str, socket: int) -> None:
        number, basis = int(self.rng.integers(1, 6)), self.pick([None, None, None, "X"])
        match kind:
            case "EprOpen" if self.rng.random() < 0.5:
                session.create(socket, number, basis, within_ns=self.span())
            case "EprOpen":
                session.accept_pairs(socket, number, basis, self.span())
            case "Listen":
                session.accept(socket, self.span())
            case "qubit out":
                for _ in range(number):
                    self.payloads += 1
                    payload = f"q{self.payloads}"
                    call = session.send_qubit(socket, payload, self.span())
                    self.sends[payload] = (session, call)
            case "qubit in":
                for _ in range(number):
                    session.receive_qubit(socket, self.span())
            case _ if self.rng.random() < 0.5:
                self.payloads += 1
                session.send(socket, b"%s/%d/%d" % (session.name.encode(), socket, self.payloads))
            case _:
                session.receive(socket, self.span())

    def disturb(self) -> None:
        session = self.pick(self.sessions)
        nodes = [str(name) for name in self.rng.permutation(list(self.world.nodes))]
        match int(self.rng.integers(12 if self.is_harsh else 8)):
            case 0 | 1 | 2 if session.calls:
                session.cancel(self.pick(list(session.calls)))
            case 3 if self.sockets:
                closing = self.pick(self.sockets)
                closing[0].close(closing[2])
            case 4 | 5:
                self.world.disconnect(nodes[0], nodes[1])
            case 6 if self.world.network.requests:
                request = self.pick(list(self.world.network.requests.values()))
                self.world.network.fail(request, "TIMEOUT")
            case 7 if self.world.network.requests:
                request = self.pick(list(self.world.network.requests.values()))
                pairs = sorted(request.told[0] | request.told[1])
                if pairs:
                    self.world.network.expire(request, pairs[0])
            case 8 | 9:
                self.leave(session)
                self.world.end_session(session, freed_first=bool(self.rng.integers(2)))
                self.begin(session.node)
            case 10:
                self.world.lose_device(nodes[0])
            case 11:
                for dead in [each for each in self.sessions if each.node == nodes[0]]:
                    self.leave(dead)
                self.world.restart(nodes[0])
                self.begin(nodes[0])

    def leave(self, session: Session) -> None:
        self.sessions.remove(session)
        self.gone.append(session)
        self.sockets = [each for each in self.sockets if each[0] is not session]

    # --- checks ---

    def check_messages(self) -> None:
        """Each stream end hears a gapless beginning of what one far end said, in order."""
        for session in self.sessions + self.gone:
            heard: dict[int, list[bytes]] = {}
            for message in session.of(service.MessageArrived):
                heard.setdefault(session.calls[message.call].socket, []).append(message.data)
            for texts in heard.values():
                origins = {text.rsplit(b"/", 1)[0] for text in texts}
                assert len(origins) == 1
                name, _, socket = origins.pop().decode().rpartition("/")
                (origin,) = [each for each in self.sessions + self.gone if each.name == name]
                said = [
                    call.data
                    for number, call in origin.calls.items()
                    if isinstance(call, service.SendMessage)
                    and call.socket == int(socket)
                    and not isinstance(origin.closings.get(number), service.Failed)
                ]
                assert texts == said[: len(texts)]

    def check_qubits(self) -> None:
        arrived: dict[str, Session] = {}
        order: dict[tuple[str, int], list[int]] = {}
        for session in self.sessions:
            device = self.world.nodes[session.node].device
            for message in session.of(service.QubitArrived):
                socket = session.calls[message.call].socket
                order.setdefault((session.name, socket), []).append(message.sequence)
                half = device.qubits.get(message.qubit)
                if half is None:
                    assert self.is_harsh
                    continue
                assert (half.owner, half.x, half.z) == (session.name, 0, 0)
                assert half.payload not in arrived
                arrived[half.payload] = session
            for message in session.of(service.PairDelivered):
                half = device.qubits.get(message.qubit)
                assert self.is_harsh or half is not None
                assert half is None or (half.owner, half.x, half.z) == (session.name, 0, 0)
        for sequences in order.values():
            assert sequences == sorted(set(sequences))
        for payload, (session, call) in self.sends.items():
            self.check_fate(payload, session, call, arrived)

    def check_fate(
        self, payload: str, session: Session, call: int, arrived: dict[str, Session]
    ) -> None:
        if session in self.gone:
            return
        closing = session.closings[call]
        back = [
            half
            for half in self.world.nodes[session.node].device.qubits.values()
            if half.payload == payload and half.owner == session.name
        ]
        if isinstance(closing, service.Finished):
            assert not back
        elif closing.error == "LOST":
            assert not back
            assert payload not in arrived or "went before it said" in closing.detail
        else:
            assert payload not in arrived
            assert back or self.is_harsh

    def finish(self) -> None:
        self.check_queues()
        self.collect()
        for session, _, socket in self.sockets:
            session.close(socket)
        for session in self.sessions:
            for call in session.calls:
                session.cancel(call)
        self.world.run(FAR // 1000)
        for session in self.sessions:
            # What was opened by an answer on its way.
            for closing in list(session.closings.values()):
                if isinstance(closing, (service.Opened, service.Accepted)):
                    session.close(closing.socket)
        for first, second in (("alice", "bob"), ("alice", "carol"), ("bob", "carol")):
            if frozenset((first, second)) not in self.world.up:
                self.world.connect(first, second)
        self.world.run(FAR // 1000)
        for session in self.sessions:
            assert set(session.calls) == set(session.closings)
        self.check_messages()
        self.check_qubits()
        for name, node in self.world.nodes.items():
            assert not self.world.held(name)
            assert_idle(node.layer)

    def check_queues(self) -> None:
        for node in self.world.nodes.values():
            calls = sum(map(len, node.layer._calls._sessions.values()))
            assert len(node.layer._context._timers) <= 3 * (calls + 100)
            assert len(node.layer._context.requests) <= 3000


@pytest.mark.parametrize("is_harsh", [False, True])
@pytest.mark.parametrize("block", range(8))
def test_random_walks_keep_every_promise(block: int, is_harsh: bool) -> None:
    for seed in range(block, SEEDS, 8):
        walk = Walk(seed + 1000 * is_harsh, is_harsh=is_harsh)
        try:
            for _ in range(STEPS):
                walk.step()
            walk.finish()
        except Exception as error:
            error.add_note(f"seed {seed}, harsh {is_harsh}")
            raise
