"""The virtual-time runner: a whole network in one process, in lockstep, as fast as it goes.

Nodes, layers, fabric and clock are those of the daemons; only channels are missing. For the same
network, program and seed the trace is that of the daemons.
"""

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush

from qstack.ids import boot_id
from qstack.machine import FABRIC
from qstack.physical.device import Operation
from qstack.physical.fabric import Delivery, Fabric
from qstack.runtime.compose import begin_layer, compose, lookahead_ns
from qstack.runtime.lockstep import Coordinator, Round, Sent
from qstack.runtime.network_file import Network
from qstack.runtime.node import (
    LayerAway,
    LayerDue,
    Node,
    Noted,
    Output,
    ToFabric,
    ToOpen,
    ToPeer,
    ToSession,
)
from qstack.runtime.trace import Trace, run_digest
from qstack.wire.message import Message

Program = Callable[[Message, int], list[Message]]
"""What an application does with a message of its node, at a network time: calls to make."""
Watcher = Callable[[str, Noted], None]


class _Session:
    def __init__(self, node: str, program: Program) -> None:
        self.node = node
        self.program = program
        self.calls = 0


class VirtualNetwork:
    """A network in virtual time. `restarts` and faults are at stated network times."""

    def __init__(self, network: Network, seed: int, watch: Watcher | None = None) -> None:
        self.network = network
        self.seed = seed
        self.fabric = Fabric(network.world, seed)
        self.coordinator = Coordinator(network.participants, lookahead_ns(network))
        self.nodes: dict[str, Node] = {}
        self.chains: dict[str, Trace] = {}
        self._watch = watch
        self._restarts = dict.fromkeys(network.participants, 0)
        self._received: dict[tuple[str, str], int] = {}
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._faults: list[tuple[int, int, str, bool]] = []  # (time, order, node, comes back)
        self._layer_faults: list[tuple[int, int, str, str]] = []  # (time, order, node, layer)
        self._returns: list[tuple[int, int, str]] = []
        self._order = 0
        for name in network.participants:
            self._boot(name, 0)
        for name in network.participants:
            self._meet(name, 0)
            self.coordinator.joined(name, self.nodes[name].next_event_ns)

    # --- running ---------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """Everything before this time is done."""
        return self.coordinator.now_ns

    @property
    def digest(self) -> str:
        """The hash of the run so far."""
        return run_digest({name: trace.digest for name, trace in self.chains.items()})

    def run_until(self, limit_ns: int) -> None:
        """Let the clock go to `limit_ns`, whether or not anybody wants it to."""
        while self._advance(limit_ns):
            pass

    def run_until_quiet(self, limit_ns: int = 10**15) -> None:
        """Run while somebody waits for something, as the clock of a network does."""
        while self._is_wanted and self._advance(limit_ns):
            pass

    @property
    def _is_wanted(self) -> bool:
        clock = self.coordinator
        faults = self._faults or self._layer_faults or self._returns
        return clock.has_demand or clock.is_waiting or bool(faults)

    def _advance(self, limit_ns: int) -> bool:
        """One round or one fault; False when the clock stands at the limit."""
        stop = self._next_stop()
        if stop is not None and stop <= limit_ns:
            round_ = self.coordinator.next_round(stop)
            if round_ is None:
                self._do_stop(stop)
                return True
        else:
            round_ = self.coordinator.next_round(limit_ns)
            if round_ is None:
                return False
        self._run_round(round_)
        return True

    def _run_round(self, round_: Round) -> None:
        for name in round_.names:
            self.coordinator.advancing(name)
        for name in round_.names:
            node = self.nodes[name]
            sent: dict[str, Sent] = {}
            while (due := node.next_event_ns) is not None and due < round_.until_ns:
                for output in node.step():
                    self._carry(name, output, sent)
            self.coordinator.done(
                name,
                node.next_event_ns,
                sent,
                is_demanding=node.has_demand,
                is_waiting=node.is_waiting,
            )
        self.coordinator.advancing(FABRIC)
        sent = {}
        for delivery in self.fabric.run(round_.until_ns):
            self._deliver(delivery, round_.until_ns, sent)
        next_ns = self.fabric.next_event_ns()
        self.coordinator.done(FABRIC, next_ns, sent, is_demanding=next_ns is not None)
        self.coordinator.finish(round_)

    # --- carrying --------------------------------------------------------------------------------

    def _carry(self, name: str, output: Output, sent: dict[str, Sent]) -> None:
        match output:
            case ToPeer(peer, at_ns, message):
                self._to_peer(name, peer, at_ns, message, sent)
            case ToFabric(at_ns, message):
                assert isinstance(message, Operation)
                self.fabric.apply(name, message)
                _count(sent, FABRIC, at_ns)
            case ToSession(session, at_ns, message):
                self._to_session(name, session, at_ns, message)
            case ToOpen(peer, at_ns):
                self._open(name, peer, at_ns, sent)
            case LayerAway(layer, at_ns):
                self.nodes[name].layer_due(layer, at_ns + self.network.restart_ns)
                if layer == "transport":
                    self._end_sessions(name)
            case LayerDue(layer, at_ns):
                start = partial(begin_layer, layer, self.network, name, entropy=self.seed)
                self.nodes[name].layer_came(layer, lambda boot_id: start(boot_id=boot_id), at_ns)
            case Noted():
                if self._watch is not None:
                    self._watch(name, output)

    def _to_peer(
        self, name: str, peer: str, at_ns: int, message: Message, sent: dict[str, Sent]
    ) -> None:
        if not self.coordinator.participants[peer].is_up:
            return
        arrival = at_ns + self.network.path_delay_ns(name, peer)
        self.nodes[peer].message_arrived(name, self._number(name, peer), arrival, message)
        _count(sent, peer, arrival + self.network.machine_event_ns)

    def _deliver(self, delivery: Delivery, until_ns: int, sent: dict[str, Sent]) -> None:
        if not self.coordinator.participants[delivery.node].is_up:
            return
        due = delivery.due_ns + self.network.machine_event_ns
        assert due >= until_ns, "the fabric answered inside a window"
        number = self._number(FABRIC, delivery.node)
        node = self.nodes[delivery.node]
        node.message_arrived(FABRIC, number, delivery.due_ns, delivery.message)
        _count(sent, delivery.node, due)

    def _number(self, source: str, target: str) -> int:
        number = self._received.get((source, target), 0)
        self._received[source, target] = number + 1
        return number

    def _open(self, name: str, peer: str, at_ns: int, sent: dict[str, Sent]) -> None:
        known = peer in self.network.nodes and peer != name
        delay = self.network.path_delay_ns(name, peer) if known else 0
        ready = at_ns + 2 * delay + self.network.machine_event_ns
        if not known or not self.coordinator.participants[peer].is_up:
            self.nodes[name].channel_refused(peer, ready)
            return
        self.nodes[name].peer_up(peer, self.nodes[peer].boot_id, ready)
        there = at_ns + delay + self.network.machine_event_ns
        self.nodes[peer].peer_up(name, self.nodes[name].boot_id, there)
        self._number(name, peer)  # the daemons say it in a message, which is counted
        _count(sent, peer, there)

    # --- applications ----------------------------------------------------------------------------

    def attach(self, node: str, session: str, program: Program, first: list[Message]) -> None:
        """Start a program in a session of `node`, with its first calls made now."""
        self._sessions[node, session] = _Session(node, program)
        self._call(node, session, max(self.now_ns, self.nodes[node].now), first)

    def detach(self, node: str, session: str) -> None:
        """End a session as if its process had died."""
        entry = self._sessions.pop((node, session))
        self.nodes[node].session_ended(session, entry.calls, max(self.now_ns, self.nodes[node].now))
        self._woke(node)

    def _call(self, node: str, session: str, at_ns: int, calls: list[Message]) -> None:
        entry = self._sessions[node, session]
        for message in calls:
            self.nodes[node].call(session, entry.calls, at_ns, message)
            entry.calls += 1
        self._woke(node)

    def _woke(self, name: str) -> None:
        node = self.nodes[name]
        self.coordinator.woke(name, node.next_event_ns, is_demanding=node.has_demand)

    def _to_session(self, name: str, session: str, at_ns: int, message: Message) -> None:
        entry = self._sessions.get((name, session))
        if entry is not None:
            self._call(name, session, at_ns, entry.program(message, at_ns))

    def _end_sessions(self, node: str) -> None:
        """Their sockets have gone with the transport layer."""
        for name, session in list(self._sessions):
            if name == node:
                self.detach(name, session)

    # --- faults ----------------------------------------------------------------------------------

    def kill(self, node: str, at_ns: int, *, comes_back: bool = True) -> None:
        """Let `node` die at `at_ns`; it is back `restart_ns` later, with a new boot id.

        It may be a named station. Nothing happens if it is dead then.
        """
        self._order += 1
        heappush(self._faults, (at_ns, self._order, node, comes_back))

    def kill_layer(self, node: str, layer: str, at_ns: int) -> None:
        """Let one layer of `node` die at `at_ns`; it begins anew `restart_ns` later.

        Nothing happens if it, or the node, is dead then.
        """
        self._order += 1
        heappush(self._layer_faults, (at_ns, self._order, node, layer))

    def _next_stop(self) -> int | None:
        heaps = (self._faults, self._layer_faults, self._returns)
        return min((heap[0][0] for heap in heaps if heap), default=None)

    def _do_stop(self, at_ns: int) -> None:
        if self._layer_faults and self._layer_faults[0][0] == at_ns:
            _, _, name, layer = heappop(self._layer_faults)
            if name in self.nodes:
                self.nodes[name].layer_gone(layer, self.nodes[name].machines[layer], at_ns)
                self._woke(name)
            return
        if self._faults and self._faults[0][0] == at_ns:
            _, _, name, comes_back = heappop(self._faults)
            if name not in self.nodes:
                return  # it is dead already
            self._die(name, at_ns)
            if comes_back:
                self._order += 1
                heappush(self._returns, (at_ns + self.network.restart_ns, self._order, name))
            return
        _, _, name = heappop(self._returns)
        self._restarts[name] += 1
        self._boot(name, at_ns)
        self._meet(name, at_ns)
        self.coordinator.joined(name, self.nodes[name].next_event_ns)
        for other in self.network.neighbours_of(name):
            if other in self.nodes:
                self.nodes[other].peer_up(
                    name, boot_id(self.seed, name, self._restarts[name]), at_ns
                )
                self._woke(other)

    def _die(self, name: str, at_ns: int) -> None:
        self.coordinator.left(name)
        self.fabric.node_down(name, at_ns)
        del self.nodes[name]
        for key in [key for key in self._sessions if key[0] == name]:
            del self._sessions[key]
        for key in [key for key in self._received if name in key]:
            del self._received[key]
        for other, node in self.nodes.items():
            node.peer_down(name, at_ns)
            self._woke(other)

    def _boot(self, name: str, at_ns: int) -> None:
        boot = boot_id(self.seed, name, self._restarts[name])
        trace = self.chains[name] = Trace()  # of this life: a daemon that died took its own along
        self.nodes[name] = compose(self.network, name, boot, self.seed, trace)
        self.nodes[name].now = at_ns
        self.fabric.node_up(name, boot)

    def _meet(self, name: str, at_ns: int) -> None:
        """Channels of a node that has just come: the fabric, and the neighbours that are up."""
        node = self.nodes[name]
        node.peer_up(FABRIC, b"\0" * 8, at_ns)
        for other in self.network.neighbours_of(name):
            if other in self.nodes:
                node.peer_up(other, self.nodes[other].boot_id, at_ns)


def _count(sent: dict[str, Sent], target: str, due_ns: int) -> None:
    before = sent.get(target)
    if before is None:
        sent[target] = Sent(1, due_ns)
    else:
        sent[target] = Sent(before.messages + 1, min(before.earliest_ns, due_ns))
