"""`qstack up`: a whole network on this host, kept running in the foreground."""

import json
import sys

import click
import trio
from rich.console import Console
from rich.live import Live

from qstack.cli.daemon import run_until_told
from qstack.cli.network_argument import network_source
from qstack.cli.status_table import changing_table, channel_table
from qstack.runtime.launch import Prepared, prepare, release
from qstack.runtime.observe import observe_network, wait_until_ready
from qstack.runtime.run_folder import run_folder
from qstack.runtime.supervisor import Supervisor

REFRESH_S = 1.0


@click.command()
@click.argument("network")
@click.option("--seed", type=int, help="Reproducible, not secret: everything from this seed.")
@click.option("--apps", type=int, default=0, help="Hold the clock until so many have attached.")
@click.option("--run", "free", is_flag=True, help="Move the clock also when nobody waits.")
@click.option("--interactive", is_flag=True, help="The clock does not wait for busy programs.")
@click.option("--quiet", is_flag=True, help="No table; a line when the network is ready.")
@click.option("--send-delay-ms", type=float, default=0.0, hidden=True)
@click.option("--fabric-option", multiple=True, hidden=True, help="Passed on, for tests.")
@click.option("--node-option", multiple=True, hidden=True, help="Passed on, for tests.")
def up(
    network: str,
    seed: int | None,
    apps: int,
    free: bool,
    interactive: bool,
    quiet: bool,
    send_delay_ms: float,
    fabric_option: tuple[str, ...],
    node_option: tuple[str, ...],
) -> None:
    """Keep NETWORK (a file, or a packaged name such as metro) running until Ctrl-C.

    Everything runs as processes on this host; applications find their node by its name.
    """
    delay = () if not send_delay_ms else ("--send-delay-ms", str(send_delay_ms))
    node_options = (*delay, *(("--interactive",) if interactive else ()), *node_option)
    fabric_options = (*delay, "--apps", str(apps), *(("--run",) if free else ()), *fabric_option)
    console = Console(stderr=quiet)
    prepared = prepare(network_source(network), run_folder())
    supervisor = Supervisor(
        prepared,
        lambda name, line: _log(prepared, name, line),
        seed=seed,
        node_options=node_options,
        fabric_options=fabric_options,
        station_options=delay,
    )
    try:
        run_until_told(lambda: _run(prepared, supervisor, console, quiet=quiet), lifeline=False)
    finally:
        release(prepared)
    if not quiet:
        console.print(f"network {prepared.network.name} is down; nothing is left running")


async def _run(
    prepared: Prepared, supervisor: Supervisor, console: Console, *, quiet: bool
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await wait_until_ready(prepared, supervisor)
        if quiet:
            ready = {"network": prepared.network.name, "ready": True}
            print(json.dumps(ready), flush=True)
            await trio.sleep_forever()
        report = await observe_network(prepared.folder)
        console.print(channel_table(report))
        console.print(
            f"network [bold]{prepared.network.name}[/] is up; run folder {prepared.folder};"
            " Ctrl-C stops it"
        )
        with Live(changing_table(report), console=console, auto_refresh=False) as live:
            while True:
                await trio.sleep(REFRESH_S)
                report = await observe_network(prepared.folder)
                live.update(changing_table(report), refresh=True)


def _log(prepared: Prepared, name: str, line: str) -> None:
    """Keep what the processes say beside the network; a run's folder goes with the run."""
    try:
        with (prepared.folder / "log").open("a") as log:
            log.write(f"{name}: {line}\n")
    except OSError as error:
        print(f"{name}: {line} ({error.strerror})", file=sys.stderr)
