"""The processes of a node whose layout is split: started, waited for, and ended with the node."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, get_args

from qstack.runtime.layer_link import LayerConnection, gather
from qstack.runtime.network_file import Network
from qstack.runtime.network_tables import LayerName
from qstack.runtime.run_folder import socket_path

END_LIMIT_S: Final = 3.0


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
        self.connections: Mapping[str, LayerConnection] = MappingProxyType({})
        self._network_file = network_file
        self._network = network
        self._node = node
        self._folder = folder
        self._report = report
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "LayerProcesses":
        """Start those that are ours to start, and wait for all."""
        node = self._network.nodes[self._node]
        if node.layout == "split":
            path = socket_path(self._folder, f"layers-{self._node}.sock")
            layers = get_args(LayerName)
            try:
                self.connections = gather(
                    path, self._network, self._node, layers, self._begin, self._report
                )
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The layers end with their node."""
        self._end()

    def _begin(self) -> None:
        external = self._network.nodes[self._node].external
        where = ["--node", self._node, "--run-folder", str(self._folder)]
        for layer in get_args(LayerName):
            if layer in external:
                self._report(
                    f"waiting for the {layer} layer: qstack layer run {self._network_file}"
                    f" --node {self._node} --layer {layer}"
                )
                continue
            command = [sys.executable, "-m", "qstack", "layer", "run", str(self._network_file)]
            child = subprocess.Popen(  # noqa: S603 - our own program, and no shell
                [*command, "--layer", layer, *where], stdin=subprocess.DEVNULL
            )
            self._children.append(child)

    def _end(self) -> None:
        """Without their node they end by themselves; who does not is made to."""
        for connection in self.connections.values():
            connection.stream.close()
        for child in self._children:
            try:
                child.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
