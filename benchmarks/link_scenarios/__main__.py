"""`python -m benchmarks.link_scenarios`: the scenarios of SIGCOMM'19 on our link layer."""

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks.link_scenarios.findings import findings
from benchmarks.link_scenarios.patterns import LOADS, MIN_FIDELITY, PATTERNS, SCHEDULERS, SETUPS
from benchmarks.link_scenarios.report import as_json, page, tables
from benchmarks.link_scenarios.simulation import Run
from benchmarks.link_scenarios.study import DURATION_S, Job, Results, run_all, scenarios

PICTURES = (".png", ".svg", ".pdf")


def load_of(text: str) -> float:
    """One of the study's names, or a part of the link's time. Raises click.UsageError."""
    try:
        load = LOADS[text] if text in LOADS else float(text)
    except ValueError:
        load = 0.0
    if not 0.0 < load <= 10.0:
        raise click.BadParameter(f"{text!r} is none of {', '.join(LOADS)}, nor in (0, 10]")
    return load


@click.command()
@click.option("--profile", "setups", type=click.Choice(list(SETUPS)), multiple=True,
              default=list(SETUPS), show_default=True,
              help="The link; may be given again, as those below.")  # fmt: skip
@click.option("--pattern", "patterns", type=click.Choice(list(PATTERNS)), multiple=True,
              default=["equal", "no-nl"], show_default=True, help="Who asks for what.")  # fmt: skip
@click.option("--load", "loads", type=load_of, multiple=True, metavar="low|high|ultra|NUMBER",
              help="[default: all three for `equal`, high for the others]")  # fmt: skip
@click.option("--scheduler", "schedulers", type=click.Choice(list(SCHEDULERS)), multiple=True,
              default=list(SCHEDULERS), show_default=True)  # fmt: skip
@click.option("--loss", "losses", type=click.FloatRange(0, 0.9), multiple=True,
              default=[1e-4, 1e-2, 0.1, 0.3], show_default=True,
              help="Of link messages, at load 0.7 with HigherWFQ; 0: no such runs.")  # fmt: skip
@click.option("--duration-s", type=click.FloatRange(0, 1e6, min_open=True),
              help="Network time of a run.  [default: 50 on lab, 400 on ql2020]")  # fmt: skip
@click.option("--runs", type=click.IntRange(1, 1000), default=4, show_default=True,
              help="Seeds of each scenario; a finding takes two.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--min-fidelity", type=click.FloatRange(0.25, 1), default=MIN_FIDELITY,
              show_default=True)  # fmt: skip
@click.option("--processes", type=click.IntRange(1, 64), default=min(2, os.cpu_count() or 1),
              show_default=True)  # fmt: skip
@click.option("--json", "is_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), metavar="FILE",
              help="Throughput and scaled latency as a picture (png, svg, pdf).")  # fmt: skip
@click.option("--page", "document", type=click.Path(path_type=Path), metavar="FILE",
              help="Everything as a page of Markdown.")  # fmt: skip
def main(
    *,
    setups: tuple[str, ...],
    patterns: tuple[str, ...],
    loads: tuple[float, ...],
    schedulers: tuple[str, ...],
    losses: tuple[float, ...],
    duration_s: float | None,
    runs: int,
    seed: int,
    min_fidelity: float,
    processes: int,
    is_json: bool,
    picture: Path | None,
    document: Path | None,
) -> None:
    """NL, CK and MD requests on one link, by load and scheduler, in virtual time.

    All of it takes about three minutes on two free cores. Longer runs and more of them (`--runs 10
    --duration-s 2000`) make the intervals narrow.
    """
    for setup in setups:
        try:
            SETUPS[setup].option(min_fidelity)
        except ValueError as error:
            raise click.BadParameter(f"{setup}: {error}", param_hint="--min-fidelity") from None
    if picture is not None and picture.suffix not in PICTURES:
        raise click.BadParameter(f"a picture ends in {', '.join(PICTURES)}", param_hint="--plot")
    wanted = scenarios(setups, patterns, loads, schedulers, losses, min_fidelity)
    jobs = [
        Job(scenario, number, duration_s or DURATION_S[scenario.setup])
        for scenario in wanted
        for number in range(seed, seed + runs)
    ]
    started = time.monotonic()
    results = run_shown(jobs, processes)
    settings = {
        "command": shlex.join(["python", "-m", "benchmarks.link_scenarios", *sys.argv[1:]]),
        "seed": seed,
        "runs": runs,
        "min_fidelity": min_fidelity,
        "duration_s": {job.scenario.setup: job.duration_s for job in jobs},
        "processes": processes,
        "wall_s": time.monotonic() - started,
    }
    show(results, settings, is_json=is_json, picture=picture, document=document)


def _stop(*_: object) -> None:
    """As Ctrl-C, which a shell's background job ignores."""
    raise KeyboardInterrupt


def run_shown(jobs: list[Job], processes: int) -> Results:
    """All runs, with their progress on standard error."""
    signal.signal(signal.SIGTERM, _stop)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("runs", total=sum(job.duration_s for job in jobs))

        def on_run(run: Run) -> None:
            progress.advance(task, run.duration_s)

        return run_all(jobs, processes, on_run)


def show(
    results: Results,
    settings: dict[str, Any],
    *,
    is_json: bool,
    picture: Path | None,
    document: Path | None,
) -> None:
    """Tables or JSON, and the files that were asked for."""
    found = findings(results, settings["min_fidelity"])
    if is_json:
        click.echo(json.dumps(as_json(results, found, settings), indent=1))
    else:
        console = Console(width=None if sys.stdout.isatty() else 200)
        for table in tables(results, found):
            console.print(table)
    if picture is not None:
        from benchmarks.link_scenarios.plot import plot  # noqa: PLC0415 - an extra

        plot(results, picture)
    if document is not None:
        try:
            document.write_text(page(results, found, settings), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{document}: {error.strerror}") from error


if __name__ == "__main__":
    main()
