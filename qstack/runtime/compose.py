"""Putting the layers of a node together, and the generators they draw from.

Every machine has a generator of its own, made from (seed, node, boot, machine): what one draws
never shifts what another one draws. Without a seed, entropy is the operating system's.
"""

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import get_args

import numpy as np

from qstack.link.machine import LinkLayer
from qstack.machine import Machine
from qstack.network.machine import NetworkLayer
from qstack.physical.machine import PhysicalLayer
from qstack.physical.params import READOUT_NS, RESULT_MIN_NS
from qstack.physical.station_machine import StationMachine
from qstack.runtime.absent_layer import NotedCalls
from qstack.runtime.drivers import make_device
from qstack.runtime.layer_link import LayerConnection
from qstack.runtime.network_file import Network
from qstack.runtime.network_tables import LayerName
from qstack.runtime.node import Node, Timing
from qstack.runtime.sessions import SessionLayer
from qstack.runtime.trace import Trace
from qstack.transport.machine import TransportLayer


def entropy_of(entropy: int, *names: str) -> bytes:
    """What the generator of one purpose is made of (16 bytes)."""
    text = "|".join((str(entropy), *names))
    return blake2b(text.encode(), digest_size=16).digest()


def make_machine(
    layer: str, network: Network, name: str, boot_id: bytes, rng: np.random.Generator
) -> Machine:
    """One layer of node `name`, at the beginning of a life.

    Raises ValueError for no layer, and `DriverError` if its device cannot be made.
    """
    match layer:
        case "physical":
            node = network.nodes[name]
            device = make_device(
                node.driver,
                node=name,
                world=network.world,
                rng=rng.spawn(1)[0],
                options=node.driver_options,
                folder=network.folder,
            )
            return PhysicalLayer(name, boot_id, network.world, device, rng)
        case "link":
            neighbours = [link.other_end(name) for link in network.world.links_of(name)]
            shares = network.test_shares_of(name)
            return LinkLayer(name, boot_id, neighbours, network.link_weights, shares)
        case "network":
            in_device = network.nodes[name].programs
            return NetworkLayer(name, boot_id, rng, network.cutoff_ns, swaps_in_device=in_device)
        case "transport":
            return TransportLayer(name, boot_id, rng, known_nodes=frozenset(network.nodes))
        case _:
            raise ValueError(f"a node has no {layer} layer")


def begin_layer(
    layer: str,
    network: Network,
    name: str,
    boot_id: bytes,
    entropy: int,
    outside: LayerConnection | None = None,
) -> Machine:
    """A life of a layer, in this process or at the other end of `outside`.

    Raises `LayerGoneError` if that has gone.
    """
    own = entropy_of(entropy, name, boot_id.hex(), layer)
    if outside is not None:
        machine: Machine = outside.start(boot_id, own)
    else:
        rng = np.random.default_rng(int.from_bytes(own))
        machine = make_machine(layer, network, name, boot_id, rng)
    may_die_alone = layer == "physical" and network.nodes[name].layout == "split"
    return NotedCalls(machine) if may_die_alone else machine


def compose(
    network: Network,
    name: str,
    boot_id: bytes,
    entropy: int,
    trace: Trace | None,
    outside: Mapping[str, LayerConnection] = MappingProxyType({}),
) -> Node:
    """A node with all its layers, ready to be told who is there.

    `outside` are the layers that are processes of their own, which start now. A named station is
    a node of one machine.
    """
    timing = Timing(network.machine_event_ns, network.application_call_ns)
    if name in network.stations:
        return Node(
            name, boot_id, {"physical": _station(network, name, boot_id, entropy)}, timing, trace
        )
    machines: dict[str, Machine] = {
        layer: begin_layer(layer, network, name, boot_id, entropy, outside.get(layer))
        for layer in get_args(LayerName)
    }
    machines["session"] = SessionLayer()
    stations = frozenset(peer for peer in network.peers_of(name) if peer in network.stations)
    return Node(name, boot_id, machines, timing, trace, stations)


def _station(network: Network, name: str, boot_id: bytes, entropy: int) -> StationMachine:
    """The machine of a named station. Raises `DriverError` if its device cannot be made."""
    hardware = network.station_drivers.get(name)
    if hardware is None:
        return StationMachine(name, network.world)
    own = entropy_of(entropy, name, boot_id.hex(), "physical")
    device = make_device(
        hardware.driver,
        node=name,
        world=network.world,
        rng=np.random.default_rng(int.from_bytes(own)),
        options=hardware.driver_options,
        folder=network.folder,
    )
    return StationMachine(name, network.world, device)


def lookahead_ns(network: Network) -> int:
    """The smallest time in which anything at one participant can have an effect at another."""
    delays = [link.delay_ns for link in network.links.values()]
    # Two arms may be a nanosecond less than the whole, each rounded by itself.
    heralded = [link for link in network.links.values() if link.is_heralded]
    delays += [link.herald_back_ns(end) for link in heralded for end in link.ends]
    answers = [
        min(node.profile.t_init_ns, node.profile.readout_ns) for node in network.nodes.values()
    ]
    # Stations hear of clicks, and programs end, as soon as any device answers.
    if network.stations or any(node.programs for node in network.nodes.values()):
        answers.append(RESULT_MIN_NS)
    for station in network.stations:
        ends = network.neighbours_of(station)
        delays += [network.path_delay_ns(station, end) for end in ends]
    return network.machine_event_ns + max(1, min([*delays, *answers, READOUT_NS]))
