"""Drivers by name: entry points of the group `qstack.devices`, and the files they are given.

Those that come with qstack are known also where it is run without being installed.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, cast

import numpy as np

from qstack.physical.device import Device
from qstack.physical.document import listed, nearest, shown
from qstack.physical.drivers.driver import Driver
from qstack.physical.drivers.setup import DriverError, MakeDevice, Setup
from qstack.physical.drivers.station_driver import StationDriver
from qstack.physical.hardware import World

GROUP: Final = "qstack.devices"
EMULATED: Final = "emulated"
OWN: Final = {
    EMULATED: "qstack.physical.emulated:EmulatedDevice",
    "replay": "qstack.physical.drivers.replay:ReplayDevice",
    "template": "qstack.physical.drivers.template:TemplateDevice",
    "template-station": "qstack.physical.drivers.template_station:TemplateStation",
}
FILE_SUFFIX: Final = "_file"
FILE_BYTES_MAX: Final = 2**30  # hours of time tags


def installed_drivers() -> dict[str, str]:
    """The places (`module:name`) of all drivers, by their names."""
    return {entry.name: entry.value for entry in entry_points(group=GROUP)} | OWN


def unknown_driver(name: str) -> str | None:
    """What to say of a driver nobody has; None if it is installed."""
    if name in OWN:
        return None  # without a search through all that is installed
    known = installed_drivers()
    if name in known:
        return None
    similar = nearest(name, known)
    hint = f'did you mean "{similar}"?' if similar else f"installed are {listed(sorted(known))}"
    return f"no driver is called {shown(name)}; {hint}"


def load_driver(place: str) -> MakeDevice:
    """What makes the devices of `MODULE:NAME`; without `:NAME` the one class that looks like it.

    Raises `DriverError` with what is wrong.
    """
    module_name, _, name = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        hint = "expected the name of a module Python finds (PYTHONPATH), such as lab.my_driver"
        raise DriverError(shown(place), [f"cannot be imported: {error}; {hint}"]) from error
    except Exception as error:
        problem = f"cannot be imported: it raised {type(error).__name__}: {error}"
        raise DriverError(shown(place), [problem]) from error
    candidates = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and all(hasattr(value, each) for each in ("begin", "submit", "answers"))
    ]
    if not name:
        if len(candidates) != 1:
            found = f"there are {listed(candidates)}" if candidates else "there is none"
            raise DriverError(shown(place), [f"expected one device class in it; {found}"])
        name = candidates[0]
    make = getattr(module, name, None)
    if not callable(make):
        found = f"; it has {listed(candidates)}" if candidates else ""
        raise DriverError(shown(place), [f"the module has no class or function {name!r}{found}"])
    return cast("MakeDevice", make)


def make_device(
    driver: str,
    *,
    node: str,
    world: World,
    rng: np.random.Generator,
    options: Mapping[str, object],
    folder: Path | None,
) -> Device:
    """The device of a node or named station. `folder` is where its files are looked for.

    Raises `DriverError`.
    """
    where = f"node {node}" if node in world.nodes else f"station {node}"
    problem = unknown_driver(driver)
    if problem:
        raise DriverError(where, [problem])
    make = load_driver(installed_drivers()[driver])
    if driver != EMULATED and (problem := _misplaced(make, node, world)):
        raise DriverError(where, [f"driver {shown(driver)} {problem}"])
    files = read_files(f"{where}, driver {driver}", options, folder)
    return make(Setup(node=node, world=world, rng=rng, options=options, files=files))


def _misplaced(make: MakeDevice, name: str, world: World) -> str:
    """Why a driver is not for this place, as far as it says so itself; empty if it is."""
    is_of_station = isinstance(make, type) and issubclass(make, StationDriver)
    if name not in world.nodes:
        is_of_node = isinstance(make, type) and issubclass(make, Driver)
        return "is for nodes; expected one for a station" if is_of_node else ""
    if is_of_station:
        return "is for stations; expected one for a node"
    named = [link.id for link in world.links_of(name) if link.station is not None]
    if named and not getattr(make, "emits", False):
        return (
            f"does not take what a station says of {named[0]}; expected one whose class says "
            'emits = True (docs/drivers.md), or a link whose station is "midpoint" or metres'
        )
    return ""


def read_files(where: str, options: Mapping[str, object], folder: Path | None) -> dict[str, bytes]:
    """What is in the files that options name. Raises `DriverError`."""
    files: dict[str, bytes] = {}
    for key, value in options.items():
        if not key.endswith(FILE_SUFFIX):
            continue
        path = Path(str(value))
        if folder is None and not path.is_absolute():
            raise DriverError(where, [f"{key}: {shown(value)} is a path, but from nowhere"])
        try:
            with ((folder or Path()) / path).open("rb") as file:
                files[key] = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            problem = f"{key}: {shown(value)} cannot be read ({error.strerror})"
            raise DriverError(where, [problem]) from error
        if len(files[key]) > FILE_BYTES_MAX:
            problem = f"{key}: {shown(value)} has more than {FILE_BYTES_MAX} bytes"
            raise DriverError(where, [problem])
    return files
