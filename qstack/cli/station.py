"""`qstack station`: one heralding station of a network that has a name in its file."""

from pathlib import Path

import click

from qstack.cli.daemon import reporter, run_until_told
from qstack.cli.participant import participant, participant_options
from qstack.runtime.node_daemon import NodeDaemon


@click.group()
def station() -> None:
    """Run one heralding station of a network on this host."""


@station.command()
@participant_options
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
    who = network_file, name, credentials, folder
    options = participant("station", *who, seed, restarts, send_delay_ms)
    run_until_told(NodeDaemon(options, reporter(name)).run, lifeline=lifeline)
