"""What `qstack hardware` does with each kind of profile: read it, derive figures, choose plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from qstack.physical.figures import PairFigures, pair_figures, stored_fidelity
from qstack.physical.hardware import Scheme
from qstack.physical.kind_figures import air_figures, pass_figures, source_figures, stored_photon
from qstack.physical.profile import Profile, ProfileError
from qstack.physical.profile_kinds import (
    AnyProfile,
    FreeSpaceProfile,
    MemoryProfile,
    SatelliteProfile,
    SourceProfile,
    kind_of,
    parse_any_profile,
    require_kind,
)
from qstack.physical.profiles import load_any_packaged

PLOTS: Final = ("distance", "storage", "pass")
Figures = dict[str, float | None]


def load(name: str) -> AnyProfile:
    """A packaged profile by its name, or the profile of a file. Raises `ProfileError`."""
    if "/" not in name and not name.endswith(".toml"):
        return load_any_packaged(name)
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(name, [f"cannot be read: {error}"]) from error
    return parse_any_profile(text, where=name)


def load_node(name: str) -> Profile:
    """As `load`, of a node: a profile of another kind is refused too. Raises `ProfileError`."""
    profile = load(name)
    require_kind(profile, "node", name)
    assert isinstance(profile, Profile)
    return profile


def described(profile: AnyProfile) -> str:
    """The kind in words; a channel's platform says which channel."""
    kind = kind_of(profile)
    return f"{kind} ({profile.platform})" if kind == "channel" else kind


def require_one_kind(profiles: Sequence[AnyProfile]) -> None:
    """Only like things are compared. Raises `click.ClickException` for others."""
    first = profiles[0]
    for other in profiles[1:]:
        if described(other) != described(first):
            raise click.ClickException(
                f"{first.name} is a {described(first)} and {other.name} a {described(other)}; "
                "expected profiles of one kind: compare each kind by itself"
            )


def plots_of(profile: AnyProfile) -> tuple[str, ...]:
    """What can be drawn of a profile, the usual picture first."""
    match profile:
        case MemoryProfile():
            return ("storage",)
        case SourceProfile() | FreeSpaceProfile():
            return ("distance",)
        case SatelliteProfile():
            return ("pass",)
        case _:
            return ("distance", "storage")


def chosen_plot(profiles: Sequence[AnyProfile], wanted: str | None) -> str:
    """What to draw: as wanted, else the usual picture of the first profile.

    Raises `click.ClickException` if a profile has no such picture, or not beside the others.
    """
    what = wanted or plots_of(profiles[0])[0]
    for profile in profiles:
        possible = plots_of(profile)
        if what not in possible:
            raise click.ClickException(
                f"{profile.name} is a {described(profile)}, which has no plot of {what}; expected "
                + " or ".join(f"--what {each}" for each in possible)
            )
    if what == "distance":
        airs = [isinstance(profile, FreeSpaceProfile) for profile in profiles]
        if any(airs) and not all(airs):
            raise click.ClickException(
                "a free-space channel has loss against distance, and no pairs; expected it in a "
                "plot of its own"
            )
    return what


def worth(profile: AnyProfile, length_m: float, scheme: Scheme, storage_s: float) -> Figures:
    """The derived figures; None where nothing ever comes of it."""
    match profile:
        case MemoryProfile():
            return {
                f"stored_{k}": v for k, v in stored_photon(profile, storage_s)._asdict().items()
            }
        case SourceProfile():
            return {f"pair_{k}": v for k, v in source_figures(profile, length_m)._asdict().items()}
        case SatelliteProfile():
            return {f"pass_{k}": v for k, v in pass_figures(profile)._asdict().items()}
        case FreeSpaceProfile():
            return {f"path_{k}": v for k, v in air_figures(profile, length_m)._asdict().items()}
        case _:
            return _node_worth(profile, length_m, scheme, storage_s)


def circumstances(profile: AnyProfile, length_km: float, scheme: Scheme, storage_ms: float) -> str:
    """What the derived figures hold for."""
    match profile:
        case MemoryProfile():
            return f"a photon that waits {storage_ms:g} ms; fidelity of its Bell pair if it comes"
        case SourceProfile():
            return f"{length_km:g} km of fibre, the source in its middle; bases drawn evenly"
        case SatelliteProfile():
            return "one pass, the profile's own source and detectors included"
        case FreeSpaceProfile():
            return f"{length_km:g} km of air, one arm; bits a use by the PLOB bound"
        case _:
            return (
                f"{scheme} over {length_km:g} km, two such nodes; fidelity when the qubits are"
                f" emitted; stored: one half for {storage_ms:g} ms"
            )


def _node_worth(profile: Profile, length_m: float, scheme: Scheme, storage_s: float) -> Figures:
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
