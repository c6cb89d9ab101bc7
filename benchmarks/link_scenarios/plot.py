"""The picture of the study: throughput and scaled latency. matplotlib is imported here only."""

import math
from pathlib import Path
from typing import Final

import click

from benchmarks.link_scenarios.patterns import USES
from benchmarks.link_scenarios.report import NAMES
from benchmarks.link_scenarios.study import Results, cell

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise click.ClickException(
        "plots need matplotlib, which is not installed: pip install 'qstack[plot]'"
    ) from error

WIDTH: Final = 0.27


def plot(results: Results, output: Path) -> None:
    """A column of two charts a link: pairs a second and scaled latency of each use."""
    whole = {scenario: runs for scenario, runs in results.items() if not scenario.loss}
    setups = list(dict.fromkeys(scenario.setup for scenario in whole))
    widest = max(sum(scenario.setup == setup for scenario in whole) for setup in setups)
    picture = Figure(figsize=(len(setups) * (2.5 + 0.6 * widest), 8), layout="constrained")
    charts = picture.subplots(2, len(setups), squeeze=False, sharex="col")
    for column, setup in enumerate(setups):
        rates, latencies = charts[0][column], charts[1][column]
        own = [(scenario, runs) for scenario, runs in whole.items() if scenario.setup == setup]
        for shift, use in enumerate(USES):
            style = {"color": f"C{shift}", "width": WIDTH, "capsize": 2, "label": use}
            found = [
                (place + (shift - 1) * WIDTH, cell(runs, use))
                for place, (scenario, runs) in enumerate(own)
                if use in scenario.uses
            ]
            if not found:
                continue
            places = [place for place, _ in found]
            for chart, figures in (
                (rates, [each.throughput_hz for _, each in found]),
                (latencies, [each.scaled_s for _, each in found]),
            ):
                values = [each.value for each in figures]
                errors = [each.half if math.isfinite(each.half) else 0.0 for each in figures]
                # Nothing is less than nothing: the interval is drawn from there.
                below = [min(pair) for pair in zip(errors, values, strict=True)]
                chart.bar(places, values, yerr=[below, errors], **style)
        words = [f"{s.pattern} {s.load:g}\n{NAMES[s.scheduler]}" for s, _ in own]
        latencies.set_xticks(range(len(own)), words, rotation=90, fontsize="small")
        rates.set_title(setup)
        rates.set_ylabel("throughput (pairs/s)")
        latencies.set_ylabel("scaled latency (s)")
        latencies.set_yscale("log")
        rates.legend(fontsize="small")
    try:
        picture.savefig(output, dpi=150)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
