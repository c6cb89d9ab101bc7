"""Looking at a running network from outside: what each node and the fabric say of themselves."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from qstack.runtime.control_client import ControlError, open_control
from qstack.runtime.session_messages import MESSAGES as SESSION_MESSAGES
from qstack.runtime.session_messages import Attach, Attached, Status, StatusAsk
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import BULK_BYTES_MAX, FrameReader, pack
from qstack.wire.session import Stamp

if TYPE_CHECKING:  # to look at a network takes less than to run it, as `qstack status` shows
    from qstack.runtime.launch import Prepared
    from qstack.runtime.supervisor import Supervisor

ANSWER_LIMIT_S: Final = 3.0
READY_LIMIT_S: Final = 60.0
POLL_S: Final = 0.02
_registry: Final = Registry((*SESSION_MESSAGES, Stamp))

Report = dict[str, Any]


class NotReadyError(ControlError):
    """The network did not come up."""


async def observe_node(socket_path: Path) -> Report | None:
    """A node's report, or None if it does not answer."""
    with trio.move_on_after(ANSWER_LIMIT_S):
        try:
            stream = await trio.open_unix_socket(str(socket_path))
        except OSError:
            return None
        async with stream:
            attach = Attach(application="status", versions=[1], is_observer=True)
            ask = StatusAsk(call=1)
            try:
                await stream.send_all(pack(encode(attach)) + pack(encode(ask)))
                return await _read_status(stream)
            except trio.BrokenResourceError:
                return None
    return None


async def _read_status(stream: trio.SocketStream) -> Report | None:
    reader = FrameReader(BULK_BYTES_MAX)
    while data := await stream.receive_some():
        for frame in reader.feed(data):
            message = _registry.decode(frame)
            if isinstance(message, Status):
                report: Report = json.loads(message.report)
                return report
            assert isinstance(message, (Attached, Stamp))
    return None


def node_sockets(folder: Path) -> list[Path]:
    """The session sockets in the folder of a network."""
    return sorted(folder.glob("node-*.sock"))


def station_sockets(folder: Path) -> list[Path]:
    """The sockets of the named stations in the folder of a network."""
    return sorted(folder.glob("station-*.sock"))


async def observe_fabric(socket_path: Path) -> Report | None:
    """The fabric's report, or None if it does not answer."""
    with trio.move_on_after(ANSWER_LIMIT_S):
        try:
            async with open_control(socket_path) as control:
                return await control.world()
        except ControlError:
            return None
    return None


async def observe_network(folder: Path) -> Report:
    """All that runs in a run folder: {"network", "nodes", "stations", "fabric"}.

    Nodes and named stations are {name: report}.
    """
    found: dict[str, dict[str, Report | None]] = {"node": {}, "station": {}}

    async def one(path: Path, kind: str) -> None:
        found[kind][path.stem.removeprefix(f"{kind}-")] = await observe_node(path)

    async with trio.open_nursery() as nursery:
        for path in node_sockets(folder):
            nursery.start_soon(one, path, "node")
        for path in station_sockets(folder):
            nursery.start_soon(one, path, "station")
    fabric = await observe_fabric(folder / "fabric.sock")
    return {
        "network": folder.name,
        "nodes": dict(sorted(found["node"].items())),
        "stations": dict(sorted(found["station"].items())),
        "fabric": fabric,
    }


async def wait_until_ready(prepared: "Prepared", supervisor: "Supervisor") -> None:
    """Wait until every node knows the nodes it can reach.

    Raises `NotReadyError` with the last words of who died.
    """
    with trio.move_on_after(READY_LIMIT_S):
        while True:
            failing = [c for c in supervisor.children.values() if c.failures >= 2]
            if failing:
                words = "; ".join(f"{c.name}: {(c.tail or ['no word'])[-1]}" for c in failing)
                raise NotReadyError(f"the network does not come up: {words}")
            if await _is_ready(prepared):
                return
            await trio.sleep(POLL_S)
    raise NotReadyError(f"the network did not come up within {READY_LIMIT_S:g} s")


async def _is_ready(prepared: "Prepared") -> bool:
    network = prepared.network
    fabric = await observe_fabric(prepared.control_socket)
    if fabric is None or not fabric["clock"]["started"]:
        return False
    for name in network.nodes:
        report = await observe_node(prepared.session_socket(name))
        if report is None:
            return False
        known = report["layers"]["network"]["known_nodes"]
        if any(other not in known for other in network.reachable_from(name)):
            return False
    return len(fabric["nodes"]) == len(network.nodes)
