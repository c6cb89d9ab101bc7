"""Putting the layers of a node together, and the generators they draw from.

Every machine has a generator of its own, made from (seed, node, boot, machine): what one draws
never shifts what another one draws. Without a seed, entropy is the operating system's.
"""

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from qstack.link.machine import LinkLayer
from qstack.network.machine import NetworkLayer
from qstack.physical.emulated import EmulatedDevice
from qstack.physical.machine import PhysicalLayer
from qstack.physical.params import READOUT_NS
from qstack.runtime.network_file import Network
from qstack.runtime.node import Node, Timing
from qstack.runtime.sessions import SessionLayer
from qstack.runtime.trace import Trace
from qstack.transport.machine import TransportLayer

if TYPE_CHECKING:
    from qstack.machine import Machine


def generator(entropy: int, *names: str) -> np.random.Generator:
    """The generator of one purpose."""
    text = "|".join((str(entropy), *names))
    return np.random.default_rng(int.from_bytes(blake2b(text.encode(), digest_size=16).digest()))


def compose(network: Network, name: str, boot_id: bytes, entropy: int, trace: Trace | None) -> Node:
    """A node with all its layers, ready to be told who is there."""
    boot = boot_id.hex()
    neighbours = [link.other_end(name) for link in network.world.links_of(name)]
    machines: dict[str, Machine] = {
        "physical": PhysicalLayer(
            name,
            boot_id,
            network.world,
            EmulatedDevice(),
            generator(entropy, name, boot, "physical"),
        ),
        "link": LinkLayer(name, boot_id, neighbours),
        "network": NetworkLayer(
            name, boot_id, generator(entropy, name, boot, "network"), network.cutoff_ns
        ),
        "transport": TransportLayer(
            name,
            boot_id,
            generator(entropy, name, boot, "transport"),
            known_nodes=frozenset(network.nodes),
        ),
        "session": SessionLayer(),
    }
    timing = Timing(network.machine_event_ns, network.application_call_ns)
    return Node(name, boot_id, machines, timing, trace)


def lookahead_ns(network: Network) -> int:
    """The smallest time in which anything at one participant can have an effect at another."""
    delays = [link.delay_ns for link in network.links.values()]
    answers = [
        min(node.profile.t_init_ns, node.profile.readout_ns) for node in network.nodes.values()
    ]
    return network.machine_event_ns + max(1, min([*delays, *answers, READOUT_NS]))
