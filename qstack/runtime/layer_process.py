"""A layer as a process of its own: one machine, told events by its node and answering them."""

import socket
from pathlib import Path

import numpy as np

from qstack.machine import LayerGoneError
from qstack.runtime.compose import make_machine
from qstack.runtime.layer_envelope import effect_messages, event_of
from qstack.runtime.layer_link import VERSION
from qstack.runtime.layer_messages import (
    Handle,
    Handled,
    LayerHello,
    LayerRefused,
    LayerStart,
    Summary,
    SummaryAsk,
)
from qstack.runtime.layer_stream import LayerStream
from qstack.runtime.network_file import Network
from qstack.runtime.network_tables import LayerName


class LayerRefusedError(Exception):
    """The node does not take this layer; the text says why."""


def serve_layer(path: Path, network: Network, node: str, layer: LayerName) -> None:
    """Be `layer` of the node that listens at `path` until the node ends.

    Raises `LayerRefusedError`, and `OSError` if nobody listens.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        stream = LayerStream(connection)
        hello = LayerHello(
            layer=layer, node=node, versions=[VERSION], network_digest=network.digest
        )
        try:
            stream.send([hello])
            start = stream.next()
        except LayerGoneError as gone:
            raise LayerRefusedError(f"the node at {path}: {gone}") from gone
        if isinstance(start, LayerRefused):
            raise LayerRefusedError(f"{start.error}: {start.detail}")
        if not isinstance(start, LayerStart):
            raise LayerRefusedError(f"the node said {type(start).__name__}, not LayerStart")
        rng = np.random.default_rng(int.from_bytes(start.entropy))
        machine = make_machine(layer, network, node, start.boot_id, rng)
        while True:
            try:
                message = stream.next()
            except LayerGoneError:
                return  # the node has ended, and with it this life of the layer
            if isinstance(message, Handle):
                effects = machine.handle(event_of(message, stream.next), message.now_ns)
                answer = [each for effect in effects for each in effect_messages(effect)]
                stream.send([*answer, Handled()])
            elif isinstance(message, SummaryAsk):
                summary = getattr(machine, "summary", dict)
                stream.send([Summary(facts=summary())])
