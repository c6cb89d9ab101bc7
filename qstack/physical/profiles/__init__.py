"""The hardware profiles that come with qstack, one file for each published parameter set."""

from functools import cache
from importlib.resources import files

from qstack.physical.document import listed, nearest, shown
from qstack.physical.profile import Profile, ProfileError, parse_profile
from qstack.physical.profile_kinds import AnyProfile, Kind, kind_of, parse_any_profile


def packaged_profiles(kind: Kind = "node") -> list[str]:
    """The names of those of one kind."""
    return [name for name in every_packaged_profile() if kind_of(load_any_packaged(name)) == kind]


def every_packaged_profile() -> list[str]:
    """The names of all of them, of any kind."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml"))


def packaged_profile(name: str) -> str:
    """The text of a profile's file. Raises `ProfileError` for an unknown name."""
    known = every_packaged_profile()
    if name not in known:
        similar = nearest(name, known)
        hint = f'did you mean "{similar}"?' if similar else f"expected one of {listed(known)}"
        raise ProfileError(shown(name), [f"no profile {shown(name)} comes with qstack; {hint}"])
    return (files(__name__) / f"{name}.toml").read_text(encoding="utf-8")


def load_packaged_profile(name: str) -> Profile:
    """The profile of a node. Raises `ProfileError` for an unknown name, or one of another kind."""
    return parse_profile(packaged_profile(name), where=f"packaged profile {name}")


@cache
def load_any_packaged(name: str) -> AnyProfile:
    """A profile of any kind. Raises `ProfileError` for an unknown name."""
    return parse_any_profile(packaged_profile(name), where=f"packaged profile {name}")
