"""`qstack hardware`: the hardware profiles, what is in them and what they are worth."""

import json
from pathlib import Path
from typing import Any

import click
from msgspec import structs
from rich.console import Console
from rich.table import Table

from qstack.physical.document import unit_of
from qstack.physical.figures import PairFigures, pair_figures, stored_fidelity
from qstack.physical.hardware import Scheme
from qstack.physical.profile import Profile, ProfileError, parse_profile
from qstack.physical.profiles import load_packaged_profile, packaged_profiles

SCHEMES: tuple[Scheme, ...] = ("single-click", "double-click")
"""Those that need nothing but the profiles of two nodes."""
LENGTH_KM = click.FloatRange(0.001, 1000)
WIDE_COLUMNS = 120  # where standard output is no terminal


@click.group()
def hardware() -> None:
    """Show, compare and plot hardware profiles.

    PROFILE is the name of one that comes with qstack, or a TOML file of your own. Every number
    has a source and a mark: published, recalled, projected or assumed.
    """


@hardware.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def list_profiles(as_json: bool) -> None:
    """List the profiles that come with qstack, and how well their numbers are known."""
    profiles = [load_packaged_profile(name) for name in packaged_profiles()]
    if as_json:
        click.echo(json.dumps({"profiles": [_overview(profile) for profile in profiles]}))
        return
    table = Table("profile", "platform", "published", "recalled", "projected", "assumed")
    for profile in profiles:
        counts = _overview(profile)["marks"]
        table.add_row(profile.name, profile.platform, *map(str, counts.values()))
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
    table = Table("value", "", "unit", "mark", "source", title=f"{loaded.name} ({loaded.platform})")
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
    """Compare PROFILES: their numbers side by side, and a link between two nodes of each.

    The link has its station in the middle of the fibre. PLOB is what no protocol exceeds that
    sends photons over the whole fibre at the same rate of attempts.
    """
    loaded = [load(name) for name in profiles]
    worth = [_worth(each, length_km * 1000.0, scheme, storage_ms / 1000.0) for each in loaded]
    if as_json:
        given = {"length_km": length_km, "scheme": scheme, "storage_ms": storage_ms}
        both = [{**_overview(p), **figures} for p, figures in zip(loaded, worth, strict=True)]
        click.echo(json.dumps({**given, "profiles": both}))
        return
    table = Table("", *(profile.name for profile in loaded))
    columns = [_numbers(profile) for profile in loaded]
    for key in columns[0]:
        table.add_row(key, *(_shown(column[key]) for column in columns))
    table.add_section()
    for key in worth[0]:
        table.add_row(key, *(_shown(figures[key]) for figures in worth))
    _console().print(table)
    click.echo(
        f"figures: {scheme} over {length_km:g} km, two such nodes; fidelity when the qubits are"
        f" emitted; stored: one half for {storage_ms:g} ms"
    )
    for profile in loaded:
        if profile.projected:
            click.echo(f"projected in {profile.name}: {', '.join(profile.projected)}")


@hardware.command()
@click.argument("profiles", nargs=-1, required=True)
@click.option(
    "--what",
    type=click.Choice(["distance", "storage"]),
    default="distance",
    show_default=True,
    help="Rate and fidelity against fibre length, or fidelity against storage time.",
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
    profiles: tuple[str, ...], what: str, scheme: Scheme, max_km: float, max_ms: float, output: Path
) -> None:
    """Plot PROFILES into a picture. Needs matplotlib: pip install 'qstack[plot]'."""
    from qstack.cli.hardware_plot import plot_distance, plot_storage  # noqa: PLC0415 - an extra

    loaded = [load(name) for name in profiles]
    if what == "distance":
        plot_distance(loaded, scheme, max_km, output)
    else:
        plot_storage(loaded, max_ms / 1000.0, output)
    click.echo(f"written: {output}")


def load(name: str) -> Profile:
    """A packaged profile by its name, or the profile of a file. Raises `ProfileError`."""
    if "/" not in name and not name.endswith(".toml"):
        return load_packaged_profile(name)
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(name, [f"cannot be read: {error}"]) from error
    return parse_profile(text, where=name)


def _worth(
    profile: Profile, length_m: float, scheme: Scheme, storage_s: float
) -> dict[str, float | None]:
    """The derived figures; nil where nothing is ever heralded."""
    try:
        figures: PairFigures | None = pair_figures(profile, length_m, scheme)
    except ValueError:
        figures = None
    fields = {
        f"pair_{key}": None if figures is None else value
        for key, value in zip(
            PairFigures._fields, figures or [0.0] * len(PairFigures._fields), strict=True
        )
    }
    return {**fields, "stored_fidelity": stored_fidelity(profile, storage_s)}


def _overview(profile: Profile) -> dict[str, Any]:
    marks = [source.mark for source in profile.sources]
    return {
        "name": profile.name,
        "platform": profile.platform,
        "marks": {
            mark: marks.count(mark) for mark in ("published", "recalled", "projected", "assumed")
        },
    }


def _numbers(profile: Profile) -> dict[str, Any]:
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
