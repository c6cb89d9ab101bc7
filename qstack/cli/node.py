"""`qstack node`: one node of a network."""

from dataclasses import replace
from pathlib import Path

import click

from qstack.cli.daemon import reporter, run_until_told
from qstack.cli.participant import participant, participant_options
from qstack.machine import LayerGoneError
from qstack.runtime.layer_processes import LayerProcesses
from qstack.runtime.node_daemon import BUSY_LIMIT_S, NodeDaemon
from qstack.runtime.run_folder import RunFolderError


@click.group()
def node() -> None:
    """Run one node of a network on this host."""


@node.command()
@participant_options
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
    who = network_file, name, credentials, folder
    options = participant("node", *who, seed, restarts, send_delay_ms)
    report, own = reporter(name), options.session_socket.parent
    with LayerProcesses(network_file, options.network, name, own, report) as layers:
        options = replace(
            options, layers=layers, is_strict=not interactive, busy_limit_s=busy_limit_s
        )
        daemon = NodeDaemon(options, report)
        try:
            run_until_told(daemon.run, lifeline=lifeline)
        except* LayerGoneError as gone:
            raise RunFolderError(f"a layer of {name} has gone: {_first(gone)}") from gone


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
