"""`qstack device`: drivers of quantum hardware, and whether they do what they must."""

import json
from pathlib import Path

import click
import numpy as np
from msgspec import structs
from rich.console import Console
from rich.table import Table

from qstack.cli.hardware import SCHEMES
from qstack.cli.hardware_kinds import load_node
from qstack.physical.check.report import check_driver
from qstack.physical.check.world import HERE, check_world
from qstack.physical.drivers.setup import Setup
from qstack.physical.hardware import Scheme
from qstack.runtime.drivers import installed_drivers, load_driver, read_files

WIDE_COLUMNS = 140  # where standard output is no terminal
MARKS = {"passed": "passed", "failed": "FAILED", "not-offered": "not offered"}


@click.group()
def device() -> None:
    """List and check drivers of quantum hardware (docs/drivers.md)."""


@device.command("list")
def list_drivers() -> None:
    """List the drivers a network file may name, and where they come from."""
    for name, place in sorted(installed_drivers().items()):
        click.echo(f"{name}\t{place}")


@device.command()
@click.argument("module")
@click.option(
    "--profile",
    default="ion-published",
    show_default=True,
    help="The hardware profile the driver is to behave as: a name, or a TOML file.",
)
@click.option("--scheme", type=click.Choice(SCHEMES), default="double-click", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--option", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the driver."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def check(
    module: str,
    profile: str,
    scheme: Scheme,
    seed: int,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check the driver MODULE:CLASS, or that of a name in `qstack device list`.

    Functional checks ask for every operation, rightly and wrongly, and see what is answered and
    when. Statistical checks count, and compare with what the profile predicts; a driver that is as
    its profile says fails any of them with a probability of 10^-6 at most. Everything happens in
    virtual time. Exit status 1 if a check failed.
    """
    make = load_driver(installed_drivers().get(module, module))
    loaded = load_node(profile)
    options: dict[str, object] = dict(_option(pair) for pair in pairs)
    setup = Setup(
        node=HERE,
        world=check_world(loaded, scheme),
        rng=np.random.default_rng(seed),
        options=options,
        files=read_files(module, options, Path.cwd()),
    )
    verdicts = list(check_driver(make, loaded, scheme=scheme, seed=seed, setup=setup))
    failed = [verdict for verdict in verdicts if verdict.verdict == "failed"]
    if as_json:
        said = {"driver": module, "profile": loaded.name, "scheme": scheme, "seed": seed}
        said |= {"is_passed": not failed}
        checks = [structs.asdict(verdict) for verdict in verdicts]
        click.echo(json.dumps({**said, "checks": checks}))
    else:
        table = Table("check", "", "verdict", "detail", title=f"{module} as {loaded.name}")
        for verdict in verdicts:
            table.add_row(
                verdict.check, verdict.kind, MARKS[verdict.verdict], verdict.detail or "-"
            )
        console = Console()
        console = console if console.is_terminal else Console(width=WIDE_COLUMNS)
        console.print(table, markup=False)
        click.echo(f"{len(verdicts)} checks, {len(failed)} failed")
    if failed:
        raise click.exceptions.Exit(1)


def _option(pair: str) -> tuple[str, str]:
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--option")
    return key, value
