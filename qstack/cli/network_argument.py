"""The NETWORK argument: a file, or the name of a packaged network."""

from importlib.resources import files
from pathlib import Path

from qstack.runtime.network_file import packaged_networks


def network_source(argument: str) -> Path:
    """The file meant by `argument`. A packaged name is meant only if no such file is here."""
    path = Path(argument)
    if not path.exists() and argument in packaged_networks():
        return Path(str(files("qstack") / "data" / f"{argument}.toml"))
    return path
