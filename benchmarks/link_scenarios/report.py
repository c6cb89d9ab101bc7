"""How the study is shown: tables for a terminal, a page for the documentation, JSON."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.link_scenarios.findings import Finding
from benchmarks.link_scenarios.patterns import SETUPS, Scenario, Use
from benchmarks.link_scenarios.statistics import Figure
from benchmarks.link_scenarios.study import Cell, Results, cells

NAMES: Final = {"fcfs": "FCFS", "lower-wfq": "LowerWFQ", "higher-wfq": "HigherWFQ"}
COLUMNS: Final = (
    "link", "pattern", "load", "scheduler", "loss", "use", "pairs/s", "latency s", "scaled s",
    "longest s", "queue", "fidelity", "requests", "refused", "failed", "open",
)  # fmt: skip
FINDINGS: Final = ("link", "the study found", "here", "figure", "interval", "verdict")


def shown(figure: Figure) -> str:
    """A mean with half its interval, to the digits it deserves."""
    if math.isnan(figure.value):
        return "-"
    value = f"{figure.value:.3g}"
    return value if math.isinf(figure.half) else f"{value} ±{figure.half:.2g}"


def cell_row(scenario: Scenario, use: Use, cell: Cell) -> list[str]:
    """One line of the table."""
    return [
        scenario.setup,
        scenario.pattern,
        f"{scenario.load:g}",
        NAMES[scenario.scheduler],
        f"{scenario.loss:g}",
        use,
        shown(cell.throughput_hz),
        shown(cell.latency_s),
        shown(cell.scaled_s),
        shown(cell.longest_s),
        shown(cell.queue),
        shown(cell.fidelity),
        str(cell.requests),
        str(cell.refused),
        str(cell.failed),
        str(cell.open),
    ]


def finding_row(finding: Finding) -> list[str]:
    """One line of the findings."""
    low, value, high = (f"{x:.3g}" for x in (finding.figure.low, finding.figure.value,
                                             finding.figure.high))  # fmt: skip
    interval = f"{low} to {high}"
    return [finding.setup, finding.claim, finding.measured, value, interval, finding.verdict]


def rows(results: Results) -> list[list[str]]:
    """The table without its head."""
    return [cell_row(*each) for each in cells(results)]


def tables(results: Results, found: list[Finding]) -> Iterator[Table]:
    """For a terminal."""
    table = Table(*COLUMNS, title="each use in each scenario: means of runs, intervals of 95 %")
    for row in rows(results):
        table.add_row(*row)
    yield table
    if found:
        table = Table(*FINDINGS, title="what the study found")
        for finding in found:
            table.add_row(*finding_row(finding))
        yield table


def as_json(results: Results, found: list[Finding], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "settings": settings,
        "scenarios": [
            {
                "setup": scenario.setup,
                "pattern": scenario.pattern,
                "load": scenario.load,
                "scheduler": scenario.scheduler,
                "loss": scenario.loss,
                "use": use,
                **{
                    name: _plain(value) if isinstance(value, Figure) else value
                    for name, value in vars(cell).items()
                },
            }
            for scenario, use, cell in cells(results)
        ],
        "findings": [{**finding._asdict(), "figure": _plain(finding.figure)} for finding in found],
    }


def _plain(figure: Figure) -> dict[str, float | None]:
    return {
        name: value if math.isfinite(value) else None for name, value in figure._asdict().items()
    }


PAGE: Final = Path(__file__).with_name("page.md")


def page(results: Results, found: list[Finding], settings: dict[str, Any]) -> str:
    """The page of the documentation."""
    setups = dict.fromkeys(scenario.setup for scenario in results)
    return PAGE.read_text(encoding="utf-8").format(
        command=settings["command"],
        settings=_settings_words(settings),
        links=" ".join(_link_words(setup, settings["min_fidelity"]) for setup in setups),
        min_fidelity=settings["min_fidelity"],
        findings=_markdown(FINDINGS, [finding_row(finding) for finding in found]),
        cells=_markdown(COLUMNS, rows(results)),
    )


def _settings_words(settings: dict[str, Any]) -> str:
    spans = ", ".join(f"{span:g} s on {setup}" for setup, span in settings["duration_s"].items())
    return (
        f"Seeds {settings['seed']} to {settings['seed'] + settings['runs'] - 1}, each scenario "
        f"with all of them; a run lasts {spans} (network time). It took "
        f"{settings['wall_s'] / 60:.0f} minutes of wall time (processes: {settings['processes']}), "
        "beside other work."
    )


def _link_words(name: str, min_fidelity: float) -> str:
    setup = SETUPS[name]
    option = setup.option(min_fidelity)
    kept_s, measured_s = (setup.pair_ns(use, min_fidelity) / 1e9 for use in ("CK", "MD"))
    return (
        f"`{name}`: {setup.length_m:g} m, single-click, profile `{setup.profile}`; an attempt "
        f"succeeds with probability {option.probability:.3g} at bright state "
        f"{option.bright_state:g}, a kept pair takes {kept_s:.3g} s and a measured one "
        f"{measured_s:.3g} s in the mean."
    )


def _markdown(head: tuple[str, ...], lines: list[list[str]]) -> str:
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [[*head], ["---"] * len(head), *lines]
    )
