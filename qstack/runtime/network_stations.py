"""Heralding stations that have a name in NETWORK.toml: what must fit together."""

from typing import Final

from qstack.physical.document import listed, nearest, shown
from qstack.runtime.drivers import EMULATED
from qstack.runtime.network_tables import MIDPOINT, LinkTable, Tables

RESERVED: Final = (MIDPOINT, "fabric")
"""Names no station may have: they mean something else."""


def named_station(link: LinkTable) -> str | None:
    """The name of the station of a link, if it has one."""
    is_name = isinstance(link.station, str) and link.station != MIDPOINT
    return str(link.station) if is_name else None


def station_problems(tables: Tables) -> list[str]:
    """What is wrong with stations and with the links that name them, a line each."""
    problems = []
    nodes = {node.name for node in tables.nodes.values()}
    used = {named_station(link) for link in tables.links.values()}
    for index, station in tables.stations.items():
        path = f"station[{index}].name"
        if station.name in RESERVED:
            problems.append(f"{path}: {shown(station.name)} is reserved; expected another name")
        elif station.name in nodes:
            problems.append(
                f"{path}: a node is called {shown(station.name)}; expected its own name"
            )
        elif station.name not in used and tables.links:
            problems.append(
                f"{path}: no link goes through {shown(station.name)}; expected a [[link]] with "
                f'station = "{station.name}"'
            )
    drivers = {node.name: node.driver for node in tables.nodes.values()}
    for index, link in tables.links.items():
        problem = _problem(link, tables, drivers)
        if problem:
            problems.append(f"link[{index}].{problem}")
    return problems


def _problem(link: LinkTable, tables: Tables, drivers: dict[str, str]) -> str:
    """What is wrong with the station of one link; empty if nothing is."""
    name = named_station(link)
    if name is None:
        if link.station_m is not None:
            return "station_m: only of a station that has a name; expected metres in station"
        return ""
    if name not in tables.station_names:
        similar = nearest(name, tables.station_names)
        known = listed(tables.station_names)
        hint = f'did you mean "{similar}"?' if similar else f'expected "{MIDPOINT}", metres, or '
        hint += "" if similar else (f"one of {known}" if known else "the name of a [[station]]")
        return f"station: no station is called {shown(name)}; {hint}"
    if link.switch is not None:
        return (
            "switch: not with a station that has a name; expected no such table, or station = "
            f'"{MIDPOINT}" or metres'
        )
    others = [drivers[end] for end in link.ends if drivers.get(end, EMULATED) != EMULATED]
    stations = {station.name: station.driver for station in tables.stations.values()}
    own = stations.get(name)  # None: it has another problem
    if others and own == EMULATED:
        return (
            f"station: nodes of driver {shown(others[0])} do not meet in emulated detectors; "
            f'expected a driver for [[station]] "{name}", or "{MIDPOINT}" or metres'
        )
    if own not in (None, EMULATED) and not others:
        return (
            f"station: emulated nodes do not meet in the hardware of driver {shown(own)}; expected "
            f'drivers for them, or none for [[station]] "{name}"'
        )
    return ""
