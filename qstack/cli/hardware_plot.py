"""The pictures of `qstack hardware plot`: one line a profile. matplotlib is imported here only."""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from qstack.physical.figures import pair_figures, stored_fidelity
from qstack.physical.hardware import Scheme
from qstack.physical.profile import Profile

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise click.ClickException(
        "plots need matplotlib, which is not installed: pip install 'qstack[plot]'"
    ) from error

POINTS = 200
FORMATS = (".png", ".svg", ".pdf")
SHORTEST_KM = 0.01


def plot_distance(profiles: Sequence[Profile], scheme: Scheme, max_km: float, output: Path) -> None:
    """Pairs a second with the PLOB bound, and fidelity, against the length of the fibre (km)."""
    picture = Figure(figsize=(8, 8), layout="constrained")
    rates, fidelities = picture.subplots(2, 1, sharex=True)
    for colour, profile in enumerate(profiles):
        lengths_km = np.linspace(SHORTEST_KM, max_km, POINTS)
        drawn, figures = [], []
        for length_km in lengths_km:
            try:
                figures.append(pair_figures(profile, length_km * 1000.0, scheme))
            except ValueError:  # nothing is heralded any more
                break
            drawn.append(length_km)
        style = {"color": f"C{colour}"}
        rates.semilogy(drawn, [each.rate_hz for each in figures], label=profile.name, **style)
        bound = [each.plob_rate_hz for each in figures]
        rates.semilogy(drawn, bound, linestyle=":", label=f"PLOB, {profile.name}", **style)
        fidelities.plot(drawn, [each.fidelity for each in figures], label=_name(profile), **style)
    rates.set_ylabel("pairs (1/s)")
    rates.set_title(f"{scheme}, two like nodes, station in the middle")
    fidelities.set_ylabel("fidelity when emitted")
    fidelities.set_xlabel("fibre (km)")
    _finish(picture, output)


def plot_storage(profiles: Sequence[Profile], max_s: float, output: Path) -> None:
    """The fidelity of a pair of which one half waits, against the storage time (ms)."""
    picture = Figure(figsize=(8, 5), layout="constrained")
    axes = picture.subplots()
    times_s = np.linspace(0.0, max_s, POINTS)
    for profile in profiles:
        axes.plot(
            1000.0 * times_s, [stored_fidelity(profile, t) for t in times_s], label=_name(profile)
        )
    axes.set_xlabel("storage time of one half (ms)")
    axes.set_ylabel("fidelity of a perfect pair")
    _finish(picture, output)


def _name(profile: Profile) -> str:
    return profile.name + (" (projected values)" if profile.projected else "")


def _finish(picture: Figure, output: Path) -> None:
    if output.suffix not in FORMATS:
        raise click.ClickException(f"{output}: a picture ends in {', '.join(FORMATS)}")
    for axes in picture.axes:
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
    try:
        picture.savefig(output, dpi=150)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
