"""The daemons of a network in one process: what happens inside is in reach."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from qstack.runtime.fabric_daemon import FabricDaemon, FabricOptions
from qstack.runtime.fabric_link import FABRIC_NODE
from qstack.runtime.launch import Prepared, prepare, release
from qstack.runtime.node_daemon import NodeDaemon, NodeOptions
from tests.runtime.running import FACT_S, POLL_S


class Together:
    """They are up; `said` is what they reported."""

    def __init__(
        self, prepared: Prepared, seed: int, absent: tuple[str, ...] = (), **options: Any
    ) -> None:
        self.prepared = prepared
        self.said: list[str] = []
        self.fabric = FabricDaemon(
            FabricOptions(
                network=prepared.network,
                credentials=prepared.credentials(FABRIC_NODE, "fabric"),
                control_socket=prepared.control_socket,
                seed=seed,
                **options,
            ),
            self.said.append,
        )
        self.nodes = {
            name: NodeDaemon(
                NodeOptions(
                    network=prepared.network,
                    name=name,
                    credentials=prepared.credentials(name, prepared.network.role_of(name)),
                    session_socket=prepared.session_socket(name)
                    if name in prepared.network.nodes
                    else prepared.station_socket(name),
                    seed=seed,
                    restarts=0,
                ),
                self.said.append,
            )
            for name in prepared.network.participants
            if name not in absent
        }

    def channel_is_up(self, one: str, other: str) -> bool:
        """Whether both ends have it."""
        return self.nodes[one].peers.peers[other].is_usable and (
            self.nodes[other].peers.peers[one].is_usable
        )

    async def cut(self, one: str, other: str) -> None:
        """Break the channel between two nodes, at the end of `one`."""
        channel = self.nodes[one].peers.peers[other].channel
        assert channel is not None
        await trio.aclose_forcefully(channel.tls.transport)

    async def fact(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something is true."""
        with trio.move_on_after(FACT_S):
            while True:
                if holds():
                    return
                await trio.sleep(POLL_S)
        raise AssertionError(f"never true: {what}; said: {self.said}")


@asynccontextmanager
async def together(
    source: Path, runs: Path, seed: int = 1, absent: tuple[str, ...] = (), **options: Any
) -> AsyncIterator[Together]:
    """The daemons of a network, with the channels of neighbours.

    Nodes that are `absent` are the caller's to play, and then nothing is waited for; `options`
    are the fabric's.
    """
    prepared = prepare(source, runs)
    try:
        daemons = Together(prepared, seed, absent, **options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemons.fabric.run)
            for node in daemons.nodes.values():
                nursery.start_soon(node.run)
            for link in () if absent else prepared.network.links.values():
                ends = link.ends
                await daemons.fact("neighbours", lambda ends=ends: daemons.channel_is_up(*ends))
            yield daemons
            nursery.cancel_scope.cancel()
    finally:
        release(prepared)
