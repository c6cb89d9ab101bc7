"""The pictures of `qstack hardware plot`: one line a profile. matplotlib is imported here only."""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from qstack.physical.figures import PairFigures, pair_figures, stored_fidelity
from qstack.physical.hardware import Scheme
from qstack.physical.kind_figures import (
    SourceFigures,
    air_figures,
    pass_moment,
    source_figures,
    stored_photon,
)
from qstack.physical.profile import Profile
from qstack.physical.profile_kinds import (
    AnyProfile,
    FreeSpaceProfile,
    MemoryProfile,
    SatelliteProfile,
    SourceProfile,
)

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise click.ClickException(
        "plots need matplotlib, which is not installed: pip install 'qstack[plot]'"
    ) from error

POINTS = 200
FORMATS = (".png", ".svg", ".pdf")
SHORTEST_KM = 0.01


def draw(
    profiles: Sequence[AnyProfile],
    what: str,
    output: Path,
    *,
    scheme: Scheme,
    max_km: float,
    max_s: float,
) -> None:
    """The picture `what` (`hardware_kinds.chosen_plot`) of profiles that have it.

    Raises `click.ClickException` for a file that cannot be a picture, or cannot be written.
    """
    if what == "storage":
        picture = _storage(profiles, max_s)
    elif what == "pass":
        picture = _pass([each for each in profiles if isinstance(each, SatelliteProfile)])
    elif isinstance(profiles[0], FreeSpaceProfile):
        picture = _air([each for each in profiles if isinstance(each, FreeSpaceProfile)], max_km)
    else:
        picture = _distance(profiles, scheme, max_km)
    _finish(picture, output)


def _distance(profiles: Sequence[AnyProfile], scheme: Scheme, max_km: float) -> Figure:
    """Pairs a second with the PLOB bound, and fidelity, against the length of the fibre (km)."""
    picture = Figure(figsize=(8, 8), layout="constrained")
    rates, fidelities = picture.subplots(2, 1, sharex=True)
    for colour, profile in enumerate(profiles):
        drawn, figures = [], []
        for length_km in np.linspace(SHORTEST_KM, max_km, POINTS):
            try:
                figures.append(_pairs(profile, length_km * 1000.0, scheme))
            except ValueError:  # nothing is heralded any more
                break
            drawn.append(length_km)
        style = {"color": f"C{colour}"}
        rates.semilogy(drawn, [each.rate_hz for each in figures], label=profile.name, **style)
        bound = [each.plob_rate_hz for each in figures]
        rates.semilogy(drawn, bound, linestyle=":", label=f"PLOB, {profile.name}", **style)
        fidelities.plot(drawn, [each.fidelity for each in figures], label=_name(profile), **style)
    rates.set_ylabel("pairs (1/s)")
    heralded = [profile for profile in profiles if not isinstance(profile, SourceProfile)]
    rates.set_title(f"{scheme if heralded else 'coincidences'}, station in the middle")
    fidelities.set_ylabel("fidelity when emitted")
    fidelities.set_xlabel("fibre (km)")
    return picture


def _pairs(profile: AnyProfile, length_m: float, scheme: Scheme) -> PairFigures | SourceFigures:
    """What has a rate, a fidelity and a bound. Raises ValueError if nothing ever comes of it."""
    if isinstance(profile, SourceProfile):
        return source_figures(profile, length_m)
    assert isinstance(profile, Profile), "other kinds have no such picture"
    return pair_figures(profile, length_m, scheme)


def _storage(profiles: Sequence[AnyProfile], max_s: float) -> Figure:
    """The fidelity of a pair of which one half waits, and how likely a photon comes out again."""
    memories = [profile for profile in profiles if isinstance(profile, MemoryProfile)]
    picture = Figure(figsize=(8, 8 if memories else 5), layout="constrained")
    axes = picture.subplots(2 if memories else 1, 1, sharex=True, squeeze=False)[:, 0]
    times_s = np.linspace(0.0, max_s, POINTS)
    for profile in profiles:
        kept = [_stored(profile, time_s) for time_s in times_s]
        axes[0].plot(1000.0 * times_s, kept, label=_name(profile))
    axes[0].set_ylabel("fidelity of a perfect pair")
    for memory in memories:
        efficiencies = [stored_photon(memory, time_s).efficiency for time_s in times_s]
        axes[1].plot(1000.0 * times_s, efficiencies, label=_name(memory))
        axes[1].set_ylabel("storage and retrieval efficiency")
    axes[-1].set_xlabel("storage time of one half (ms)")
    return picture


def _stored(profile: AnyProfile, storage_s: float) -> float:
    if isinstance(profile, MemoryProfile):
        return stored_photon(profile, storage_s).fidelity
    assert isinstance(profile, Profile), "other kinds store nothing"
    return stored_fidelity(profile, storage_s)


def _pass(satellites: Sequence[SatelliteProfile]) -> Figure:
    """Pairs a second with the PLOB bound, elevations and loss, over one pass (s)."""
    picture = Figure(figsize=(8, 10), layout="constrained")
    rates, elevations, losses = picture.subplots(3, 1, sharex=True)
    for colour, satellite in enumerate(satellites):
        window = satellite.window()
        assert window is not None, "a profile without a window is refused when it is read"
        times_s = np.linspace(window.begin_s, window.end_s, POINTS)
        moments = [pass_moment(satellite, at_s) for at_s in times_s]
        style = {"color": f"C{colour}"}
        name = _name(satellite)
        rates.semilogy(times_s, [each.rate_hz for each in moments], label=name, **style)
        bound = [each.plob_rate_hz for each in moments]
        rates.semilogy(times_s, bound, linestyle=":", label=f"PLOB, {name}", **style)
        for place, line in enumerate(("-", "--")):
            seen = [each.elevations_deg[place] for each in moments]
            label = f"{name}, station {place + 1}"
            elevations.plot(times_s, seen, linestyle=line, label=label, **style)
        losses.plot(times_s, [each.loss_db for each in moments], label=name, **style)
    rates.set_ylabel("coincidences (1/s)")
    elevations.set_ylabel("elevation (degrees)")
    losses.set_ylabel("loss of both arms and detectors (dB)")
    losses.set_xlabel("time from the middle of the pass (s)")
    return picture


def _air(channels: Sequence[FreeSpaceProfile], max_km: float) -> Figure:
    """Loss, and the PLOB bound of a use, against the length of a path through air (km)."""
    picture = Figure(figsize=(8, 8), layout="constrained")
    losses, bounds = picture.subplots(2, 1, sharex=True)
    lengths_km = np.linspace(SHORTEST_KM, max_km, POINTS)
    for channel in channels:
        figures = [air_figures(channel, length_km * 1000.0) for length_km in lengths_km]
        losses.plot(lengths_km, [each.loss_db for each in figures], label=_name(channel))
        bounds.semilogy(lengths_km, [each.plob_bits for each in figures], label=_name(channel))
    losses.set_ylabel("loss (dB)")
    bounds.set_ylabel("PLOB bound (ebits a use)")
    bounds.set_xlabel("air (km)")
    return picture


def _name(profile: AnyProfile) -> str:
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
