"""The node's side of layers that are processes of their own: waiting for them, and asking them.

Rules
1. A layer is taken if it is one this node has outside, is not there yet, and has read the same
   network file; otherwise it is refused with the reason.
2. A layer that goes, is silent for ANSWER_S or breaks a rule dies alone: `LayerGoneError`. The node
   waits for its answer and does nothing else meanwhile.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from qstack.errors import ErrorCode
from qstack.machine import Effect as MachineEffect
from qstack.machine import Event, LayerGoneError
from qstack.runtime.layer_envelope import effect_of, event_messages
from qstack.runtime.layer_messages import (
    Effect,
    Handled,
    LayerHello,
    LayerRefused,
    LayerStart,
    Summary,
    SummaryAsk,
)
from qstack.runtime.layer_stream import LayerStream
from qstack.runtime.network_file import Network

ANSWER_S: Final = 10.0  # before the clock gives up the whole node (30 s)
VERSION: Final = 1


class LayerConnection:
    """A layer that has come, and waits for its start."""

    def __init__(self, layer: str, stream: LayerStream) -> None:
        self.layer = layer
        self.stream = stream

    def start(self, boot_id: bytes, entropy: bytes) -> "RemoteMachine":
        """Let it begin its life. Raises `LayerGoneError`."""
        self.stream.send([LayerStart(boot_id=boot_id, entropy=entropy)])
        return RemoteMachine(self.layer, self.stream)


class RemoteMachine:
    """See `qstack.machine.Machine`: the machine is at the other end."""

    def __init__(self, layer: str, stream: LayerStream) -> None:
        self._layer = layer
        self._stream = stream

    def handle(self, event: Event, now: int) -> list[MachineEffect]:
        """Ask it. Raises `LayerGoneError`."""
        self._stream.send(event_messages(event, now))
        effects: list[MachineEffect] = []
        while True:
            message = self._stream.next()
            if isinstance(message, Handled):
                return effects
            if not isinstance(message, Effect):
                raise LayerGoneError(f"{self._layer} said {type(message).__name__} in a turn")
            effects.append(effect_of(message, self._stream.next))

    def summary(self) -> dict[str, object]:
        """Facts for status."""
        self._stream.send([SummaryAsk()])
        message = self._stream.next()
        if not isinstance(message, Summary):
            raise LayerGoneError(f"{self._layer} said {type(message).__name__}, not Summary")
        return dict(message.facts)


def listen_for_layers(path: Path) -> socket.socket:
    """A socket at `path`, for processes of this user alone."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(16)
    return listener


def gather(
    listener: socket.socket,
    network: Network,
    node: str,
    layers: Sequence[str],
    begin: Callable[[], None],
    report: Callable[[str], None],
) -> dict[str, LayerConnection]:
    """Wait until all of `layers` have come, which `begin` may start.

    A stranger, or a layer that comes twice, is refused and reported.
    """
    found: dict[str, LayerConnection] = {}
    begin()
    while len(found) < len(layers):
        connection, _ = listener.accept()
        came = judge(connection, network, node, layers, found, report)
        if came is not None:
            found[came.layer] = came
    return found


def judge(
    connection: socket.socket,
    network: Network,
    node: str,
    layers: Sequence[str],
    found: Mapping[str, LayerConnection],
    report: Callable[[str], None],
) -> LayerConnection | None:
    """Who has come; None if it is refused (rule 1)."""
    connection.settimeout(ANSWER_S)
    stream = LayerStream(connection)
    try:
        hello = stream.next()
        error, detail = _why_not(hello, network, node, layers, found)
        if error is None:
            assert isinstance(hello, LayerHello)
            return LayerConnection(hello.layer, stream)
        report(f"refused a layer: {error.name}: {detail}")
        stream.send([LayerRefused(error=error.name, detail=detail[:200])])
    except LayerGoneError as gone:
        report(f"a layer that came: {gone}")
    stream.close()
    return None


def _why_not(
    hello: object,
    network: Network,
    node: str,
    wanted: Sequence[str],
    found: Mapping[str, LayerConnection],
) -> tuple[ErrorCode | None, str]:
    if not isinstance(hello, LayerHello):
        return ErrorCode.OUT_OF_STATE, "LayerHello comes first"
    if VERSION not in hello.versions:
        return ErrorCode.VERSION, f"version {VERSION} is spoken here, not {hello.versions}"
    if hello.node != node or hello.layer not in wanted:
        return ErrorCode.ROLE, f"{node} waits for {', '.join(wanted)}, not {hello.layer}"
    if hello.layer in found:
        return ErrorCode.OUT_OF_STATE, f"the {hello.layer} layer is here already"
    if hello.network_digest != network.digest:
        ours, theirs = network.digest.hex()[:16], hello.network_digest.hex()[:16]
        return ErrorCode.NETWORK_MISMATCH, f"the node read {ours}, the layer {theirs}"
    return None, ""
