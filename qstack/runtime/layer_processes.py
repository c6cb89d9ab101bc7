"""The processes of a node whose layout is split: started, watched, started again.

Rules
1. A layer that goes alone is started again alone: at once the first time, later each time after a
   longer wait. One that dies DEATHS_MAX times in a row ends the node's life, with all its layers.
2. A layer that is `external` is somebody else's to start: the node says how, and waits.
3. Whoever comes is asked who it is; the layers that are here go on meanwhile.
"""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, get_args

import trio

from qstack.machine import LayerGoneError
from qstack.runtime.forks import Fork, start_child
from qstack.runtime.layer_link import LayerConnection, gather, judge, listen_for_layers
from qstack.runtime.network_file import Network
from qstack.runtime.network_tables import LayerName
from qstack.runtime.run_folder import socket_path
from qstack.runtime.supervisor import BACKOFF_S, SETTLED_S

LayerProcess = subprocess.Popen[bytes] | Fork
END_LIMIT_S: Final = 3.0
DEATHS_MAX: Final = 5
"""So often in a row, each after less than SETTLED_S of life, a layer is started again."""


class LayerProcesses:
    """A context: inside it, `connections` are the layers that are there. Empty if it is fused."""

    def __init__(
        self,
        network_file: Path,
        network: Network,
        node: str,
        folder: Path,
        report: Callable[[str], None],
    ) -> None:
        self.connections: dict[str, LayerConnection] = {}
        self._network_file = network_file
        self._network = network
        self._node = node
        self._folder = folder
        self._report = report
        self._path = socket_path(folder, f"layers-{node}.sock")
        self._listener: socket.socket | None = None
        self._children: dict[str, LayerProcess] = {}
        self._deaths: dict[str, int] = {}  # in a row
        self._came_at_s: dict[str, float] = {}
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None

    def __enter__(self) -> "LayerProcesses":
        """Start those that are ours to start, and wait for all."""
        if self._network.nodes[self._node].layout == "split":
            layers = get_args(LayerName)
            self._listener = listen_for_layers(self._path)
            try:
                found = gather(
                    self._listener, self._network, self._node, layers, self._begin, self._report
                )
            except BaseException:
                self._end()
                raise
            self.connections.update(found)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The layers end with their node."""
        self._end()

    # --- while the node lives --------------------------------------------------------------------

    async def run(self, on_gone: Callable[[str], None], on_came: Callable[[str], None]) -> None:
        """Say which layers go and come, until cancelled. Raises `LayerGoneError` (rule 1)."""
        if self._listener is None:
            return
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._came_at_s = dict.fromkeys(self.connections, trio.current_time())
            for connection in self.connections.values():
                nursery.start_soon(self._watch, connection, on_gone)
            listener = trio.socket.from_stdlib_socket(self._listener)
            while True:
                stranger, _ = await listener.accept()
                connection_socket = socket.socket(fileno=stranger.detach())
                nursery.start_soon(self._judge, connection_socket, on_gone, on_came)

    async def arrived(self, layer: str) -> None:
        """Wait until `layer` is here."""
        while layer not in self.connections:
            await self._news.wait()

    def is_external(self, layer: str) -> bool:
        """Whether somebody else starts `layer`."""
        return layer in self._network.nodes[self._node].external

    def away(self, layer: str, why: str) -> None:
        """The node has lost a layer: what is left of it is ended, and it is started again."""
        self._report(f"the {layer} layer has gone: {why}")
        connection = self.connections.pop(layer, None)
        if connection is not None:
            trio.lowlevel.notify_closing(connection.stream.fileno())
            connection.stream.close()
        if self.is_external(layer):
            self._say_how(layer)
        elif self._nursery is not None:
            former = self._children.pop(layer, None)
            self._nursery.start_soon(self._start_again, layer, former, why)

    async def _start_again(self, layer: str, former: LayerProcess | None, why: str) -> None:
        if former is not None:
            former.kill()
            await trio.to_thread.run_sync(former.wait)
        if trio.current_time() - self._came_at_s.pop(layer, trio.current_time()) > SETTLED_S:
            self._deaths.pop(layer, None)
        deaths = self._deaths[layer] = self._deaths.get(layer, 0) + 1
        if deaths > DEATHS_MAX:
            raise LayerGoneError(f"the {layer} layer died {deaths} times in a row: {why}")
        await trio.sleep(BACKOFF_S[min(deaths, len(BACKOFF_S)) - 1])
        child = self._children[layer] = await trio.to_thread.run_sync(self._start, layer)
        status = await trio.to_thread.run_sync(child.wait, abandon_on_cancel=True)
        if layer not in self.connections and self._children.get(layer) is child:
            self.away(layer, f"it ended with status {status} before it was here")

    async def _watch(self, connection: LayerConnection, on_gone: Callable[[str], None]) -> None:
        """Between events a layer says nothing: what can be read is its end, or a broken rule."""
        try:
            await trio.lowlevel.wait_readable(connection.stream.fileno())
        except trio.ClosedResourceError:
            return  # the node has seen it before
        on_gone(connection.layer)

    async def _judge(
        self,
        stranger: socket.socket,
        on_gone: Callable[[str], None],
        on_came: Callable[[str], None],
    ) -> None:
        came = await trio.to_thread.run_sync(
            judge, stranger, self._network, self._node, get_args(LayerName), self.connections,
            self._report, abandon_on_cancel=True,
        )  # fmt: skip
        if came is None:
            return
        if came.layer in self.connections:
            came.stream.close()  # two of them came at once
            return
        self.connections[came.layer] = came
        self._came_at_s[came.layer] = trio.current_time()
        self._report(f"the {came.layer} layer is here again")
        self._news.set()
        self._news = trio.Event()
        on_came(came.layer)
        await self._watch(came, on_gone)

    # --- processes -------------------------------------------------------------------------------

    def _begin(self) -> None:
        for layer in get_args(LayerName):
            if self.is_external(layer):
                self._say_how(layer)
            else:
                self._children[layer] = self._start(layer)

    def _say_how(self, layer: str) -> None:
        self._report(
            f"waiting for the {layer} layer: qstack layer run {self._network_file}"
            f" --node {self._node} --layer {layer}"
        )

    def _start(self, layer: str) -> LayerProcess:
        where = ["--node", self._node, "--run-folder", str(self._folder)]
        return start_child(["layer", "run", str(self._network_file), "--layer", layer, *where])

    def _end(self) -> None:
        """Without their node they end by themselves; who does not is made to."""
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)
        for connection in self.connections.values():
            connection.stream.close()
        for child in self._children.values():
            try:
                child.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
