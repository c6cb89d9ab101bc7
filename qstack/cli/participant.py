"""What `qstack node run` and `qstack station run` share: one participant, and who it is."""

from pathlib import Path
from typing import Literal

import click

from qstack.channel.identity import Identity
from qstack.cli.daemon import (
    Command,
    credentials_of,
    daemon_options,
    send_delays,
    use_batch_scheduling,
)
from qstack.runtime.network_file import load_network, require_ports
from qstack.runtime.node_daemon import NodeOptions
from qstack.runtime.run_folder import RunFolderError, private_folder, run_folder, socket_path

_OPTIONS = (
    click.option("--name", required=True, help="Which one of the file this is."),
    click.option(
        "--credentials",
        type=click.Path(path_type=Path),
        help="Folder of root.pem and its own key and certificate. [default: in the run folder]",
    ),
)


def participant_options(command: Command) -> Command:
    """The options of every participant that has a name, before its own."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return daemon_options(command)


def participant(
    role: Literal["node", "station"],
    network_file: Path,
    name: str,
    credentials: Path | None,
    folder: Path | None,
    seed: int | None,
    restarts: int,
    send_delay_ms: float,
) -> NodeOptions:
    """The options of NAME, whose socket is in the run folder. Raises `RunFolderError`."""
    network = load_network(network_file)
    known = network.nodes if role == "node" else network.stations
    if name not in known:
        others = ", ".join(known) or "none: its stations are the fabric's"
        raise RunFolderError(f"{network_file} has no {role} {name!r}; it has {others}")
    folder = private_folder(folder or run_folder() / network.name)
    identity = Identity(network.name, name, role)
    options = NodeOptions(
        network=network,
        name=name,
        credentials=credentials_of(credentials or folder / "identities", identity),
        session_socket=socket_path(folder, f"{role}-{name}.sock"),
        seed=seed,
        restarts=restarts,
        send_delay_s=send_delays(send_delay_ms),
    )
    require_ports(network, str(network_file))
    use_batch_scheduling()
    return options
