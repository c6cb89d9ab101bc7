"""`qstack station`: one heralding station of a network that has a name in its file."""

from pathlib import Path

import click

from qstack.channel.identity import Identity
from qstack.cli.daemon import (
    credentials_of,
    daemon_options,
    reporter,
    run_until_told,
    send_delays,
    use_batch_scheduling,
)
from qstack.runtime.network_file import load_network, require_ports
from qstack.runtime.node_daemon import NodeDaemon, NodeOptions
from qstack.runtime.run_folder import RunFolderError, private_folder, run_folder, socket_path


@click.group()
def station() -> None:
    """Run one heralding station of a network on this host."""


@station.command()
@daemon_options
@click.option("--name", required=True, help="Which station of the file this is.")
@click.option(
    "--credentials",
    type=click.Path(path_type=Path),
    help="Folder of root.pem and its key and certificate (role station). [default: in the run"
    " folder]",
)
def run(
    network_file: Path,
    name: str,
    credentials: Path | None,
    folder: Path | None,
    seed: int | None,
    restarts: int,
    lifeline: bool,
    send_delay_ms: float,
) -> None:
    """Run station NAME of NETWORK_FILE until Ctrl-C."""
    network = load_network(network_file)
    if name not in network.stations:
        known = ", ".join(network.stations) or "none: its stations are the fabric's"
        raise RunFolderError(f"{network_file} has no station {name!r}; it has {known}")
    folder = private_folder(folder or run_folder() / network.name)
    identity = Identity(network.name, name, "station")
    options = NodeOptions(
        network=network,
        name=name,
        credentials=credentials_of(credentials or folder / "identities", identity),
        session_socket=socket_path(folder, f"station-{name}.sock"),
        seed=seed,
        restarts=restarts,
        send_delay_s=send_delays(send_delay_ms),
    )
    require_ports(network, str(network_file))
    use_batch_scheduling()
    run_until_told(NodeDaemon(options, reporter(name)).run, lifeline=lifeline)
