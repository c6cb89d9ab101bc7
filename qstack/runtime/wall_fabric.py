"""The wall clock in the fabric's process: operations are stamped when they arrive.

Network time is wall time times `time_scale`. Results are sent as soon as they are known, with the
time they are due; the fabric's own events are waited for unless they are too near to sleep for.
"""

import time
from math import inf
from typing import TYPE_CHECKING

import trio

from qstack.runtime.clock_messages import AskTime, Change, Changed, Join, Start, Time
from qstack.runtime.rest import Rest
from qstack.runtime.wall_node import EARLY_S
from qstack.wire.message import Message

if TYPE_CHECKING:
    from qstack.runtime.fabric_daemon import FabricDaemon, NodeChannel


class WallFabric:
    """See `FabricClock`."""

    def __init__(self, daemon: "FabricDaemon") -> None:
        self._daemon = daemon
        self._scale = daemon.network.time_scale
        self._zero_s = time.monotonic()
        self._rest = Rest()
        self._planned_ns: int | None = None  # until when `run` sleeps
        self._is_begun = False

    @property
    def now_ns(self) -> int:
        """Network time now."""
        return int((time.monotonic() - self._zero_s) * 1e9 * self._scale)

    def joined(self, node: "NodeChannel", join: Join) -> None:
        """See `FabricClock`."""
        if not self._is_begun:  # after a death of the fabric time goes on from what nodes saw
            self._zero_s = time.monotonic() - join.now_ns / 1e9 / self._scale
            self._daemon.fabric.begin(join.now_ns)
            self._is_begun = True
        self._daemon.fabric.node_up(node.name, node.boot_id)
        members = {name: other.boot_id for name, other in self._daemon.nodes.items()}
        node.queue(Start(at_ns=self.now_ns, members=members))
        node.flush()
        self._tell_change(node, node.boot_id)

    def left(self, node: "NodeChannel") -> None:
        """See `FabricClock`."""
        now = self.now_ns
        self._run_fabric(now)
        self._daemon.fabric.node_down(node.name, now)
        self._tell_change(node, None)

    def _tell_change(self, node: "NodeChannel", boot_id: bytes | None) -> None:
        change = Change(node=node.name, boot_id=boot_id, at_ns=self.now_ns)
        for other in self._daemon.nodes.values():
            if other is not node:
                other.queue(Changed(change=change))
                other.flush()

    def clock_message(self, node: "NodeChannel", message: Message) -> None:
        """See `FabricClock`: the wall clock asks nobody, but is asked."""
        if isinstance(message, AskTime):
            node.queue(Time(at_ns=self.now_ns))
            node.flush()

    def turn(self) -> None:
        """See `FabricClock`."""
        self._run_fabric(self.now_ns + self._early_ns)
        due = self._daemon.fabric.next_event_ns()
        if due != self._planned_ns:
            self._planned_ns = due
            self._rest.move(self._rest_until_s(due))

    @property
    def _early_ns(self) -> int:
        return int(EARLY_S * 1e9 * self._scale)

    def _run_fabric(self, until_ns: int) -> None:
        told = {}
        deliveries = self._daemon.fabric.run(until_ns)
        now, nodes = self.now_ns, self._daemon.nodes
        for delivery in deliveries:
            node = nodes.get(delivery.node)
            if node is not None:
                # What is late is due now: one Stamp does for all of it, here and at the node.
                node.deliver(max(delivery.due_ns, now), delivery.message)
                told[delivery.node] = node
        for node in told.values():
            node.flush()

    async def run(self) -> None:
        """Wait for the fabric's own events."""
        while True:
            self._run_fabric(self.now_ns + self._early_ns)
            self._planned_ns = due = self._daemon.fabric.next_event_ns()
            await self._rest.until(self._rest_until_s(due))

    def _rest_until_s(self, due_ns: int | None) -> float:
        """Until when to sleep, by trio's clock (s), for what is due then."""
        if due_ns is None:
            return inf
        return trio.current_time() + (due_ns - self.now_ns) / 1e9 / self._scale - EARLY_S

    async def hold(self, at_ns: int | None) -> int:
        """See `FabricClock`. Raises `ValueError`: the wall clock stands for nobody."""
        raise ValueError(f"this network runs by the wall clock; it cannot be held (at {at_ns})")

    def release(self) -> None:
        """See `FabricClock`: nothing is held."""

    def report(self) -> dict[str, object]:
        """See `FabricClock`."""
        return {"kind": "wall", "now_ns": self.now_ns, "time_scale": self._scale, "started": True}
