"""The hardware profiles that come with qstack, one file for each published parameter set."""

from importlib.resources import files

from qstack.physical.document import listed, nearest, shown
from qstack.physical.profile import Profile, ProfileError, parse_profile


def packaged_profiles() -> list[str]:
    """Their names."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml"))


def packaged_profile(name: str) -> str:
    """The text of a profile's file. Raises `ProfileError` for an unknown name."""
    known = packaged_profiles()
    if name not in known:
        similar = nearest(name, known)
        hint = f'did you mean "{similar}"?' if similar else f"expected one of {listed(known)}"
        raise ProfileError(shown(name), [f"no profile {shown(name)} comes with qstack; {hint}"])
    return (files(__name__) / f"{name}.toml").read_text(encoding="utf-8")


def load_packaged_profile(name: str) -> Profile:
    """A profile. Raises `ProfileError` for an unknown name."""
    return parse_profile(packaged_profile(name), where=f"packaged profile {name}")
