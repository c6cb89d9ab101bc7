"""`qstack demo`: a network of processes that delivers pairs, teleports qubits, makes a key."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
import msgspec
import trio
from rich.console import Console

from qstack.cli.demo.expectation_chain import find_chain
from qstack.cli.demo.play import PAIRS, TELEPORTS, choose_cast, play
from qstack.cli.demo.result import Result
from qstack.cli.demo.show import Screen
from qstack.cli.network_argument import network_source
from qstack.runtime.launch import Prepared, prepare
from qstack.runtime.observe import wait_until_ready
from qstack.runtime.run_folder import private_folder
from qstack.runtime.supervisor import Supervisor

CUTOFF_NS = 100_000_000
"""For networks whose file gives none: the prediction has to know it."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--network", default="metro", show_default=True, help="A file or a packaged name.")
@click.option("--seed", type=int, default=1, show_default=True, help="Reproducible, not secret.")
@click.option("--pairs", type=click.IntRange(6, 100_000), default=PAIRS, show_default=True)
@click.option("--teleports", type=click.IntRange(6, 100_000), default=TELEPORTS, show_default=True)
def demo(as_json: bool, network: str, seed: int, pairs: int, teleports: int) -> None:
    """Start a network, deliver pairs, teleport qubits, make a key, kill a repeater; all compared
    with theory.

    Everything is real but the quantum hardware: processes, TLS 1.3 channels, protocols. Exit
    status 0 means that every figure agreed with its prediction.
    """
    started_s = time.perf_counter()
    screen = Screen(Console(stderr=as_json))
    runs = private_folder(Path(tempfile.mkdtemp(prefix="qs-")))
    try:
        prepared = prepare(network_source(network), runs, cutoff_ns=CUTOFF_NS)
        cast = choose_cast(prepared.network)
        find_chain(prepared.network, cast.head, cast.tail)  # what has no prediction is said now
        screen.show("network", network=prepared.network, seed=seed)
        result = trio.run(_run, prepared, seed, screen, started_s, pairs, teleports)
    except BaseException:
        screen.show("failure")
        raise
    finally:
        screen.close()
        shutil.rmtree(runs, ignore_errors=True)
    screen.show("end", result=result)
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    sys.exit(1 if result.failed else 0)


async def _run(
    prepared: Prepared, seed: int, screen: Screen, started_s: float, pairs: int, teleports: int
) -> Result:
    supervisor = Supervisor(
        prepared,
        screen.log,
        seed=seed,
        fabric_options=("--apps", "2", "--witness", str(pairs)),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await wait_until_ready(prepared, supervisor)
        screen.show("ready", seconds=time.perf_counter() - started_s)
        result = await play(
            prepared, seed, screen.show, started_s=started_s, pairs=pairs, teleports=teleports
        )
        nursery.cancel_scope.cancel()
    return result
