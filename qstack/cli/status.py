"""`qstack status`: what runs on this host."""

import json
import sys

import click
import trio
from rich.console import Console

from qstack.cli.status_table import status_table
from qstack.runtime.observe import observe_network
from qstack.runtime.run_folder import run_folder


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a network, for scripts.")
def status(as_json: bool) -> None:
    """Show the networks that run here: nodes, layers, links, circuits, channels, clock."""
    folders = sorted({path.parent for path in run_folder().glob("*/*.sock")})
    if not folders and not as_json:
        click.echo("no network is up here; start one with `qstack up NETWORK.toml`", err=True)
        sys.exit(1)
    reports = [trio.run(observe_network, folder) for folder in folders]
    if as_json:
        click.echo(json.dumps({"networks": reports}, sort_keys=True))
        return
    console = Console()
    for report in reports:
        console.rule(f"network {report['network']}")
        console.print(status_table(report))
