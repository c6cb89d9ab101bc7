"""`qstack node`: one node of a network."""

from dataclasses import replace
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
from qstack.machine import LayerGoneError
from qstack.runtime.layer_processes import LayerProcesses
from qstack.runtime.network_file import load_network, require_ports
from qstack.runtime.node_daemon import BUSY_LIMIT_S, NodeDaemon, NodeOptions
from qstack.runtime.run_folder import RunFolderError, private_folder, run_folder, socket_path


@click.group()
def node() -> None:
    """Run one node of a network on this host."""


@node.command()
@daemon_options
@click.option("--name", required=True, help="Which node of the file this is.")
@click.option(
    "--credentials",
    type=click.Path(path_type=Path),
    help="Folder of root.pem and this node's key and certificate. [default: in the run folder]",
)
@click.option("--busy-limit-s", type=float, default=BUSY_LIMIT_S, hidden=True)
@click.option("--interactive", is_flag=True, help="The clock does not wait for busy programs.")
def run(
    network_file: Path,
    name: str,
    credentials: Path | None,
    folder: Path | None,
    seed: int | None,
    restarts: int,
    lifeline: bool,
    busy_limit_s: float,
    interactive: bool,
    send_delay_ms: float,
) -> None:
    """Run node NAME of NETWORK_FILE until Ctrl-C."""
    network = load_network(network_file)
    if name not in network.nodes:
        raise RunFolderError(
            f"{network_file} has no node {name!r}; it has {', '.join(network.nodes)}"
        )
    folder = private_folder(folder or run_folder() / network.name)
    identity = Identity(network.name, name, "node")
    report = reporter(name)
    options = NodeOptions(
        network=network,
        name=name,
        credentials=credentials_of(credentials or folder / "identities", identity),
        session_socket=socket_path(folder, f"node-{name}.sock"),
        seed=seed,
        restarts=restarts,
        is_strict=not interactive,
        busy_limit_s=busy_limit_s,
        send_delay_s=send_delays(send_delay_ms),
    )
    require_ports(network, str(network_file))
    use_batch_scheduling()
    with LayerProcesses(network_file, network, name, folder, report) as layers:
        daemon = NodeDaemon(replace(options, layers=layers), report)
        try:
            run_until_told(daemon.run, lifeline=lifeline)
        except* LayerGoneError as gone:
            raise RunFolderError(f"a layer of {name} has gone: {_first(gone)}") from gone


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
