"""`qstack hardware`: the hardware profiles, what is in them and what they are worth."""

import json
import sys
from pathlib import Path
from typing import Any

import click
from msgspec import structs
from rich.console import Console
from rich.table import Table

from qstack.cli.hardware_kinds import (
    PLOTS,
    chosen_plot,
    circumstances,
    load,
    require_one_kind,
    worth,
)
from qstack.physical.document import unit_of
from qstack.physical.hardware import Scheme
from qstack.physical.profile_kinds import AnyProfile, kind_of
from qstack.physical.profiles import every_packaged_profile, load_any_packaged
from qstack.physical.validation import Compared, rows
from qstack.physical.validation import compare as compare_row

SCHEMES: tuple[Scheme, ...] = ("single-click", "double-click")
"""Those that need nothing but the profiles of two nodes."""
LENGTH_KM = click.FloatRange(0.001, 1000)
VALIDATION_COLUMNS = (
    "result", "source", "inputs", "published", "ours", "tolerance", "verdict",
)  # fmt: skip
WIDE_COLUMNS = 120  # where standard output is no terminal


@click.group()
def hardware() -> None:
    """Show, compare and plot hardware profiles: of nodes, memories, pair sources and channels.

    PROFILE is the name of one that comes with qstack, or a TOML file of your own. Every number
    has a source and a mark: published, recalled, projected or assumed.
    """


@hardware.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def list_profiles(as_json: bool) -> None:
    """List the profiles that come with qstack, and how well their numbers are known."""
    profiles = [load_any_packaged(name) for name in every_packaged_profile()]
    if as_json:
        click.echo(json.dumps({"profiles": [_overview(profile) for profile in profiles]}))
        return
    table = Table("profile", "kind", "platform", "published", "recalled", "projected", "assumed")
    for profile in profiles:
        counts = _overview(profile)["marks"]
        table.add_row(profile.name, kind_of(profile), profile.platform, *map(str, counts.values()))
    _console().print(table)
    click.echo("numbers by mark; `qstack hardware show PROFILE` gives each with its source")


@hardware.command()
@click.argument("profile")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def show(profile: str, as_json: bool) -> None:
    """Show every number of PROFILE with its unit, source and mark."""
    loaded = load(profile)
    provenance = loaded.provenance
    rows = [
        {
            "key": key,
            "value": value,
            "unit": unit_of(key) or "",
            "mark": provenance[key].mark,
            "source": provenance[key].source,
        }
        for key, value in _numbers(loaded).items()
        if key in provenance
    ]
    if as_json:
        click.echo(json.dumps({**_overview(loaded), "values": rows}, default=list))
        return
    title = f"{loaded.name} ({kind_of(loaded)}, {loaded.platform})"
    table = Table("value", "", "unit", "mark", "source", title=title)
    for row in rows:
        name = row["key"].removesuffix("_" + row["unit"]) if row["unit"] else row["key"]
        table.add_row(name, _shown(row["value"]), row["unit"], row["mark"], row["source"])
    _console().print(table)
    for mark, keys in (("projected", loaded.projected), ("assumed", loaded.assumed)):
        if keys:
            click.echo(f"{mark}: {', '.join(keys)}")


@hardware.command()
@click.argument("profiles", nargs=-1, required=True)
@click.option("--length-km", type=LENGTH_KM, default=10.0, show_default=True, help="Of the fibre.")
@click.option("--scheme", type=click.Choice(SCHEMES), default="double-click", show_default=True)
@click.option("--storage-ms", type=click.FloatRange(0), default=10.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def compare(
    profiles: tuple[str, ...], length_km: float, scheme: Scheme, storage_ms: float, as_json: bool
) -> None:
    """Compare PROFILES of one kind: their numbers side by side, and what they are worth.

    Nodes: a link between two of each, its station in the middle of the fibre. Memories: a photon
    that has waited. Sources: a link for keys. Channels: a pass, or a path through air. PLOB is
    what no protocol exceeds that sends photons over the whole channel at the same rate.
    """
    loaded = [load(name) for name in profiles]
    require_one_kind(loaded)
    figures = [worth(each, length_km * 1000.0, scheme, storage_ms / 1000.0) for each in loaded]
    if as_json:
        given = {"length_km": length_km, "scheme": scheme, "storage_ms": storage_ms}
        both = [{**_overview(p), **each} for p, each in zip(loaded, figures, strict=True)]
        click.echo(json.dumps({**given, "profiles": both}))
        return
    table = Table("", *(profile.name for profile in loaded))
    columns = [_numbers(profile) for profile in loaded]
    for key in columns[0]:
        table.add_row(key, *(_shown(column[key]) for column in columns))
    table.add_section()
    for key in figures[0]:
        table.add_row(key, *(_shown(each[key]) for each in figures))
    _console().print(table)
    click.echo(f"figures: {circumstances(loaded[0], length_km, scheme, storage_ms)}")
    for profile in loaded:
        if profile.projected:
            click.echo(f"projected in {profile.name}: {', '.join(profile.projected)}")


@hardware.command()
@click.argument("profiles", nargs=-1, required=True)
@click.option(
    "--what",
    type=click.Choice(PLOTS),
    help="Rate and fidelity (or loss) against distance, efficiency and fidelity against storage "
    "time, or a satellite's rate over a pass. Left out: the usual one of the first profile.",
)
@click.option("--scheme", type=click.Choice(SCHEMES), default="double-click", show_default=True)
@click.option("--max-km", type=LENGTH_KM, default=100.0, show_default=True)
@click.option("--max-ms", type=click.FloatRange(1e-6, 1e9), default=100.0, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The picture: .png, .svg or .pdf.",
)
def plot(
    profiles: tuple[str, ...],
    what: str | None,
    scheme: Scheme,
    max_km: float,
    max_ms: float,
    output: Path,
) -> None:
    """Plot PROFILES into a picture. Needs matplotlib: pip install 'qstack[plot]'."""
    from qstack.cli.hardware_plot import draw  # noqa: PLC0415 - an extra

    loaded = [load(name) for name in profiles]
    chosen = chosen_plot(loaded, what)
    draw(loaded, chosen, output, scheme=scheme, max_km=max_km, max_s=max_ms / 1000.0)
    click.echo(f"written: {output}")


def _overview(profile: AnyProfile) -> dict[str, Any]:
    marks = [source.mark for source in profile.sources]
    return {
        "name": profile.name,
        "kind": kind_of(profile),
        "platform": profile.platform,
        "marks": {
            mark: marks.count(mark) for mark in ("published", "recalled", "projected", "assumed")
        },
    }


def _numbers(profile: AnyProfile) -> dict[str, Any]:
    return {
        key: value
        for key, value in structs.asdict(profile).items()
        if key not in {"name", "platform", "sources"}
    }


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case tuple() | list():
            return ", ".join(map(str, value)) or "nothing"
        case _:
            return str(value)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDE_COLUMNS)


@hardware.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--markdown", is_flag=True, help="The table of docs/validation.md.")
def validate(as_json: bool, markdown: bool) -> None:
    """Put published results beside our own figures. Exit status 1 if one is out of tolerance.

    Parameters are the published ones, nothing is fitted. Results that are only recalled are
    informative: they neither pass nor fail.
    """
    compared = [compare_row(row) for row in rows()]
    cells = [_validation_cells(each) for each in compared]
    if as_json:
        click.echo(json.dumps({"rows": [_validation_object(each) for each in compared]}))
    elif markdown:
        click.echo("| " + " | ".join(VALIDATION_COLUMNS) + " |")
        click.echo("|" + "---|" * len(VALIDATION_COLUMNS))
        for row in cells:
            click.echo("| " + " | ".join(row) + " |")
    else:
        table = Table(*VALIDATION_COLUMNS)
        for row in cells:
            table.add_row(*row)
        _console().print(table)
    if any(each.verdict == "FAIL" for each in compared):
        sys.exit(1)


def _validation_cells(compared: Compared) -> list[str]:
    row = compared.row
    tolerance = f"{100 * row.relative:g} %" if row.relative else f"{row.absolute:g}"
    unit = f" {row.unit}" if row.unit else ""
    figures = f"{row.published:.4g}{unit}", f"{compared.ours:.4g}{unit}"
    known = f"{row.source} ({row.provenance})"
    return [row.result, known, row.inputs, *figures, tolerance, compared.verdict]


def _validation_object(compared: Compared) -> dict[str, Any]:
    row = compared.row._asdict()
    return {**row, "ours": compared.ours, "verdict": compared.verdict}
