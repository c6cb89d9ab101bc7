"""What a process says of itself to `qstack status`: JSON with stable keys, no secrets."""

import os
import resource
from typing import TYPE_CHECKING

import msgspec

from qstack.machine import LayerGoneError, Machine
from qstack.runtime.absent_layer import AbsentLayer

if TYPE_CHECKING:
    from qstack.channel.channel import Channel
    from qstack.runtime.node_daemon import NodeDaemon


def channel_report(peer: str, channel: "Channel") -> dict[str, object]:
    """One channel: who is at the other end and how it is protected."""
    return {
        "peer": channel.peer.uri,
        "node": peer,
        "group": channel.group,
        "tls": channel.tls.version,
    }


def process_report() -> dict[str, object]:
    """This process: its id and its largest resident memory, in MiB."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"pid": os.getpid(), "rss_mib": round(usage.ru_maxrss / 1024, 1)}


def _facts(layer: str, machine: Machine) -> dict[str, object]:
    """What a layer says of itself; one that has gone is about to be noticed."""
    summary = getattr(machine, "summary", dict)
    try:
        facts: dict[str, object] = summary()
    except LayerGoneError:
        facts = AbsentLayer(layer).summary()
    return facts


def node_report(daemon: "NodeDaemon") -> bytes:
    """A node: process, layers, clock, channels, sessions, counters and trace."""
    channels = [
        channel_report(name, peer.channel)
        for name, peer in daemon.peers.peers.items()
        if peer.channel is not None
    ]
    if daemon.fabric is not None:
        channels.append(channel_report("fabric", daemon.fabric.channel))
    layers = {name: _facts(name, machine) for name, machine in daemon.node.machines.items()}
    return msgspec.json.encode(
        {
            "node": daemon.name,
            "network": daemon.network.name,
            "boot_id": daemon.node.boot_id.hex(),
            "clock": daemon.clock.report(),
            "process": process_report(),
            "has_fabric": daemon.fabric is not None,
            "members": sorted(daemon.members),
            "channels": channels,
            "sessions": sorted(daemon.sessions.sessions),
            "layers": layers,
            "events": daemon.node.events_handled,
            "discarded_pairs": list(daemon.discarded_pairs),
            "counters": dict(sorted(daemon.counters.items())),
            "trace": daemon.trace.digest.hex() if daemon.trace else None,
        }
    )
