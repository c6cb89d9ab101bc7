"""Small worlds for the tests of the physical layer, and a bench: nodes and fabric in one heap."""

import heapq
import math
from itertools import pairwise
from typing import Any

import numpy as np
from msgspec.structs import replace

from qstack.ids import boot_id, link_id
from qstack.machine import (
    FABRIC,
    CancelTimer,
    Effect,
    Event,
    FromPeer,
    PeerUp,
    Send,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.physical.device import Operation
from qstack.physical.emulated import EmulatedDevice
from qstack.physical.fabric import Fabric
from qstack.physical.hardware import LinkHardware, NodeHardware, World
from qstack.physical.machine import PhysicalLayer
from qstack.physical.models.heralding import Heralded
from qstack.physical.profile import Profile
from qstack.physical.source_hardware import PairSourceHardware
from qstack.physical.station_machine import StationMachine
from qstack.quantum.bell import bell_state
from qstack.wire.message import Message

PERFECT = Profile(
    name="perfect",
    platform="test",
    wavelength_nm=1550.0,
    converted_to_nm=None,
    coupling=1.0,
    coupling_includes=(),
    visibility=1.0,
    dark_count_probability=0.0,
    number_resolving=False,
    t_init_ns=1_000,
    t_emit_ns=500,
    init_fidelity=1.0,
    emission_fidelity=1.0,
    double_excitation=0.0,
    phase_sigma_rad=0.0,
    bright_state_default=0.1,
    t1_s=math.inf,
    t2_s=math.inf,
    decay_law="exponential",
    attempt_dephasing=0.0,
    gate_1q_ns=100,
    gate_1q_depolarising=0.0,
    gate_2q_ns=2_000,
    gate_2q_depolarising=0.0,
    readout_ns=3_000,
    readout_f0=1.0,
    readout_f1=1.0,
    move_ns=0,
    move_depolarising=0.0,
    comm_qubits=4,
    parallel_links=True,
)


class FixedLink(LinkHardware, frozen=True, kw_only=True):
    """A link whose attempts succeed with a stated probability, with perfect pairs."""

    probability: float

    def herald(
        self, profile_a: Profile, profile_b: Profile, alpha: float | None = None
    ) -> Heralded:
        """As told; a probability of 0 is no herald at all."""
        if self.probability == 0.0:
            raise ValueError("never")
        return Heralded(self.probability, bell_state(1, 0), bell_state(1, 1))


def fixed_link(
    first: str, second: str, probability: float, arms_m: tuple[float, float]
) -> FixedLink:
    return FixedLink(
        ends=(first, second),
        length_m=sum(arms_m),
        arms_m=arms_m,
        scheme="double-click",
        probability=probability,
    )


def chain(
    nodes: str = "abc",
    probability: float = 1.0,
    *,
    memory: int = 4,
    is_ring: bool = False,
    arms_m: tuple[float, float] = (100.0, 200.0),
    **profile: Any,
) -> World:
    """Nodes of one letter in a row or ring, the perfect profile but for what is given."""
    hardware = replace(PERFECT, **profile)
    ends = [*pairwise(nodes), *([(nodes[0], nodes[-1])] if is_ring else [])]
    links = [fixed_link(first, second, probability, arms_m) for first, second in ends]
    return World(
        nodes={name: NodeHardware(name=name, profile=hardware, memory=memory) for name in nodes},
        links={link.id: link for link in links},
    )


def started_fabric(world: World, seed: int = 0) -> Fabric:
    fabric = Fabric(world, seed)
    for node in world.nodes:
        fabric.node_up(node, boot_id(seed, node, 0))
    return fabric


class Bench:
    """Physical layers, named stations and the fabric in virtual time.

    `told` is what each owner heard, `crossed` what was said to and by stations.
    """

    def __init__(self, world: World, seed: int = 0) -> None:
        self.world = world
        self.now = 0
        self.fabric = Fabric(world, seed)
        self.nodes: dict[str, PhysicalLayer] = {}
        self.stations = {name: StationMachine(name, world) for name in world.stations}
        self.crossed: list[tuple[str, str, Message]] = []
        self.told: list[tuple[int, str, str, Message]] = []
        self.memory_max = dict.fromkeys(world.nodes, 0)
        self._heap: list[tuple[int, str, int, str, Event]] = []
        self._timers: dict[tuple[str, str], int] = {}
        self._pushes = 0
        for name in world.nodes:
            boot = boot_id(seed, name, 0)
            rng = np.random.default_rng([seed, len(self.nodes)])
            self.nodes[name] = PhysicalLayer(name, boot, world, EmulatedDevice(), rng)
            self.fabric.node_up(name, boot)
            self.handle(name, PeerUp(FABRIC, b"fabricid"))
        for name in self.stations:
            self.fabric.node_up(name, boot_id(seed, name, 0))
            self.handle(name, PeerUp(FABRIC, b"fabricid"))
            for end in {end for link in world.links_through(name) for end in link.ends}:
                self.handle(name, PeerUp(end, bytes(8)))
                self.handle(end, PeerUp(name, bytes(8)))

    def tell(self, node: str, owner: str, message: Message) -> list[Message]:
        """Say something at once; what the owner is answered at once."""
        start = len(self.told)
        self.handle(node, Told(owner, message))
        return [said for _, at, to, said in self.told[start:] if (at, to) == (node, owner)]

    def heard(self, node: str, owner: str, kind: type[Message] = Message) -> list[Any]:
        return [
            said
            for _, at, to, said in self.told
            if (at, to) == (node, owner) and isinstance(said, kind)
        ]

    def handle(self, node: str, event: Event) -> list[Effect]:
        machine = self.stations[node] if node in self.stations else self.nodes[node]
        effects = machine.handle(event, self.now)
        for effect in effects:
            match effect:
                case Tell(to=to, message=message):
                    self.told.append((self.now, node, to, message))
                case Send(peer=peer, message=message) if peer != FABRIC:
                    self.post(node, peer, message)
                case Send(message=message):
                    assert isinstance(message, Operation)
                    assert message.at_ns >= self.now
                    self.fabric.apply(node, message)
                case SetTimer(key=key, at_ns=at_ns):
                    assert at_ns >= self.now
                    self._timers[node, key] = at_ns
                    self._push(at_ns, node, node, TimerFired(key))
                case CancelTimer(key=key):
                    self._timers.pop((node, key), None)
                case _:
                    pass
        return effects

    def post(self, node: str, peer: str, message: Message) -> None:
        """A message to a neighbour, or to or from a station."""
        if node in self.stations or peer in self.stations:
            self.crossed.append((node, peer, message))
            station, end = (node, peer) if node in self.stations else (peer, node)
            delay_ns = self.world.links_through(station)[0].arm_ns(end)
        else:
            delay_ns = self.world.links[link_id(node, peer)].delay_ns
        self._push(self.now + delay_ns, node, peer, FromPeer(node, message))

    def run(self, until_ns: int) -> None:
        """Everything before `until_ns`; then it is that time."""
        while True:
            own = self._heap[0][0] if self._heap else until_ns
            fabric = self.fabric.next_event_ns()
            next_ns = min(own, until_ns if fabric is None else fabric)
            if next_ns >= until_ns:
                break
            if own <= next_ns:
                self._next()
                continue
            for node, due_ns, _, message in self.fabric.run(next_ns + 1):
                assert due_ns >= next_ns + self.fabric.lookahead_ns
                self._push(due_ns, FABRIC, node, FromPeer(FABRIC, message))
            for node, count in self.fabric.snapshot().qubits.items():
                self.memory_max[node] = max(self.memory_max[node], count)
        self.now = until_ns

    def _next(self) -> None:
        at_ns, _, _, node, event = heapq.heappop(self._heap)
        self.now = at_ns
        if isinstance(event, TimerFired):
            if self._timers.get((node, event.key)) != at_ns:
                return
            del self._timers[node, event.key]
        self.handle(node, event)

    def _push(self, at_ns: int, source: str, node: str, event: Event) -> None:
        self._pushes += 1
        heapq.heappush(self._heap, (at_ns, source, self._pushes, node, event))


def chi_square_limit(degrees: int) -> float:
    """The value a chi-square variable exceeds with probability 1e-6 (Wilson and Hilferty)."""
    z = 4.7534
    part = 2.0 / (9.0 * degrees)
    return float(degrees * (1.0 - part + z * math.sqrt(part)) ** 3)


def chi_square(first: list[Any], second: list[Any]) -> tuple[float, float]:
    """Two samples of anything sortable: their two-sample chi-square, and its limit at 1e-6.

    Rare values are joined to their neighbours until a bin has 16 entries.
    """
    bins: list[list[int]] = []
    current = [0, 0]
    for value in sorted({*first, *second}):
        current[0] += first.count(value)
        current[1] += second.count(value)
        if sum(current) >= 16:
            bins.append(current)
            current = [0, 0]
    if bins:
        bins[-1] = [bins[-1][0] + current[0], bins[-1][1] + current[1]]
    counts = np.array(bins, dtype=float)
    totals = counts.sum(axis=0)
    weights = np.sqrt(totals[::-1] / totals)
    statistic = float((((counts * weights) @ [1.0, -1.0]) ** 2 / counts.sum(axis=1)).sum())
    return statistic, chi_square_limit(max(1, len(bins) - 1))


def source_world(
    nodes: str = "ab", *, arms_m: tuple[float, float] = (2000.0, 1000.0), **more: Any
) -> World:
    """Nodes, and a photon-pair link between two; `more` are fields of the source. No fibre loss."""
    fields: dict[str, Any] = {
        "wavelength_nm": 1550.0,
        "slot_rate_hz": 100_000_000,
        "pair_parameter": 0.01,
        "detector_efficiency": 0.25,
        "background_probability": 2e-6,
        "misalignment": 0.01,
    }
    link = LinkHardware(
        ends=(nodes[0], nodes[1]),
        length_m=sum(arms_m),
        arms_m=arms_m,
        scheme="spdc",
        attenuation_db_per_km=0.0,
        source=PairSourceHardware(**(fields | more)),
    )
    return World(
        nodes={name: NodeHardware(name=name, profile=PERFECT, memory=4) for name in nodes},
        links={link.id: link},
    )
