"""The tables of NETWORK.toml as Structs, and the checks that need no profile.

What is not here: what the physics of a link allows (`network_links.py`), reading files
(`network_file.py`). A table that has a problem is left out, the others are still checked.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

from msgspec import Meta, Struct

from qstack.ids import link_id
from qstack.physical.document import PROBLEMS_MAX, check_keys, listed, nearest, read_table, shown
from qstack.physical.hardware import ArmLoss, Attenuation, GroupIndex, Scheme
from qstack.physical.models.fibre import STANDARD_GROUP_INDEX
from qstack.runtime.drivers import EMULATED, FILE_SUFFIX, unknown_driver

Clock = Literal["lockstep", "wall"]
Layout = Literal["fused", "split"]
LayerName = Literal["physical", "link", "network", "transport"]

NODES_MAX: Final = 4096  # what one lockstep coordinator is meant to drive
MEMORY_MAX: Final = 4096
LENGTH_MAX_M: Final = 1e6  # a thousand kilometres: no single fibre is longer

Name = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z][a-z0-9-]{0,62}\Z",
        description="a name of 1 to 63 small letters, digits and hyphens, a letter first",
    ),
]
Delay = Annotated[
    int, Meta(ge=1, le=10**15, description="whole nanoseconds, at least 1 and at most 10^15")
]
TimeScale = Annotated[float, Meta(gt=0, le=1e6, description="a factor above 0, at most 1000000")]
Weight = Annotated[int, Meta(ge=1, le=1000)] | Literal["strict"]
Weights = Annotated[
    tuple[Weight, Weight, Weight, Weight, Weight, Weight, Weight, Weight],
    Meta(description='a list of eight, each a whole number from 1 to 1000 or "strict"'),
]
RoundShare = Annotated[float, Meta(ge=0, le=0.5, description="a share, 0 to 0.5")]
Memory = Annotated[int, Meta(ge=1, le=MEMORY_MAX, description="1 to 4096 qubits")]
Reference = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1000,
        description="the name of a packaged profile, or the path of a profile file",
    ),
]
DriverName = Annotated[
    str, Meta(min_length=1, max_length=63, description="the name of an installed driver")
]
DriverOptions = Annotated[
    dict[str, Any], Meta(description="a table [node.driver_options]: what the driver is told")
]
AddressText = Annotated[str, Meta(max_length=300, description='"host:port"')]
Ends = Annotated[tuple[Name, Name], Meta(description="a list of two node names")]
Length = Annotated[
    float, Meta(gt=0, le=LENGTH_MAX_M, description="metres, above 0 and at most 1000000")
]
MIDPOINT: Final = "midpoint"
Station = Annotated[
    Name | Annotated[float, Meta(gt=0, le=LENGTH_MAX_M)],
    Meta(
        description='"midpoint", metres of fibre from the first end, or the name of a [[station]]'
    ),
]

SourceTable = Annotated[
    dict[str, Any] | Annotated[str, Meta(min_length=1, max_length=1000)],
    Meta(
        description="a table [link.pair_source]: the source and its receivers, or the name or "
        "path of a profile of a source"
    ),
]
MidpointTable = Annotated[
    dict[str, Any], Meta(description="a table [link.midpoint_source]: the source and the memories")
]
RetrievedTable = Annotated[
    dict[str, Any],
    Meta(description="a table [link.retrieved_photon]: the memory, its reading and the detectors"),
]
ChannelTable = Annotated[
    dict[str, Any], Meta(description="a table [link.channel]: a satellite, or a path through air")
]
SwitchTable = Annotated[
    dict[str, Any], Meta(description="a table [link.switch]: its name, loss and time to set")
]
TrafficTable = Annotated[
    dict[str, Any],
    Meta(description="a table [link.classical_traffic]: filter, window and signals"),
]
AbsorptiveTable = Annotated[
    dict[str, Any],
    Meta(description="a table [link.absorptive_memory]: sources, memories and detectors"),
]

ClockTable = Annotated[
    dict[str, Any], Meta(description="a table [node.clock]: how far its hardware clock is off")
]
DetectorsTable = Annotated[
    dict[str, Any],
    Meta(description="a table [link.detectors]: both receivers' detectors, for scheme spdc"),
]
StationDetectorsTable = Annotated[
    dict[str, Any],
    Meta(description="a table [link.station_detectors], for schemes whose memories send trains"),
]
TimingTable = Annotated[
    dict[str, Any], Meta(description="a table [link.timing]: what errors of clocks do to it")
]
DriftTable = Annotated[
    dict[str, Any], Meta(description="a table [link.drift]: what drifts, and its calibration")
]

T = TypeVar("T", bound=Struct)


class Address(NamedTuple):
    """Where a process listens; port 0 is chosen when it starts."""

    host: str
    port: int

    def __str__(self) -> str:
        """As in the file: `host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NetworkTable(Struct, frozen=True, kw_only=True):
    """`[network]`. `time_scale` is of the wall clock; `forward_ns` a hop of a relayed message.

    `link_weights`: the share of a link each priority 0 to 7 gets, or "strict": it goes before all
    that have shares, the highest first. Without it all are strict.
    `test_rounds`: the share of the pairs to keep that each link sacrifices to learn its fidelity.
    """

    name: Name
    clock: Clock = "lockstep"
    time_scale: TimeScale = 1.0
    restart_ns: Delay = 1_000_000_000
    machine_event_ns: Delay = 10_000
    application_call_ns: Delay = 30_000
    forward_ns: Delay = 10_000
    cutoff_ns: Delay | None = None
    link_weights: Weights | None = None
    test_rounds: RoundShare = 0.0


class FabricTable(Struct, frozen=True, kw_only=True):
    """`[fabric]`."""

    address: AddressText


class NodeTable(Struct, frozen=True, kw_only=True):
    """One `[[node]]`. Without `clock` (`qstack.physical.clock_hardware`) its clock is perfect.

    `programs`: its device takes programs, and swaps by itself when both pairs are heralded.
    """

    name: Name
    address: AddressText
    profile: Reference
    memory: Memory
    driver: DriverName = "emulated"
    driver_options: DriverOptions = {}
    layout: Layout = "fused"
    external: list[LayerName] = []
    programs: bool = False
    clock: ClockTable | None = None


class StationTable(Struct, frozen=True, kw_only=True):
    """One `[[station]]`: a heralding station that is a process of its own."""

    name: Name
    address: AddressText
    driver: DriverName = "emulated"
    driver_options: DriverOptions = {}


class LinkTable(Struct, frozen=True, kw_only=True):
    """One `[[link]]`. Without `attenuation_db_per_km` it is that of silica at the wavelength.

    `station` says where the station is, or names one; `station_m`, then only, where that one is.
    `test_rounds` is this link's share, where it is not that of `[network]`.

    `pair_source` is a table of its own (`qstack.physical.source_hardware`), of scheme spdc alone;
    so are `detectors` (`qstack.physical.detector_hardware`), and of schemes of their own
    `midpoint_source`, `absorptive_memory` and `retrieved_photon`
    (`qstack.physical.link_equipment`). `timing` is for links whose nodes have clocks
    (`qstack.physical.clock_hardware`), `drift` for those that drift
    (`qstack.physical.drift_hardware`); `channel`, `switch` and `classical_traffic` are in
    `qstack.physical.link_options`.
    """

    ends: Ends
    length_m: Length
    scheme: Scheme
    station: Station = MIDPOINT
    station_m: Length | None = None
    attenuation_db_per_km: Attenuation | None = None
    group_index: GroupIndex = STANDARD_GROUP_INDEX
    extra_loss_db: ArmLoss = 0.0
    pair_source: SourceTable | None = None
    detectors: DetectorsTable | None = None
    station_detectors: StationDetectorsTable | None = None
    midpoint_source: MidpointTable | None = None
    absorptive_memory: AbsorptiveTable | None = None
    retrieved_photon: RetrievedTable | None = None
    channel: ChannelTable | None = None
    switch: SwitchTable | None = None
    classical_traffic: TrafficTable | None = None
    timing: TimingTable | None = None
    drift: DriftTable | None = None
    test_rounds: RoundShare | None = None


class Tables(NamedTuple):
    """What was read; the key of a node or link is its place in the file, of an address its path."""

    network: NetworkTable | None
    nodes: dict[int, NodeTable]
    links: dict[int, LinkTable]
    stations: dict[int, StationTable]
    station_names: dict[str, int]  # also of stations with another problem
    addresses: dict[str, Address]


def read_tables(raw: dict[str, Any], problems: list[str]) -> Tables:
    """The tables of the file; a line in `problems` for everything wrong with them."""
    meant = check_keys(raw, ["network", "fabric", "node", "station", "link"], "", problems)
    network = None
    if "network" in raw:
        network = read_table(raw["network"], NetworkTable, "network", problems)
    elif "network" not in meant:
        problems.append("network: is missing; expected a table [network] with a name")
    fabric = None
    if "fabric" in raw:
        fabric = read_table(raw["fabric"], FabricTable, "fabric", problems)
    elif "fabric" not in meant and (network is None or network.clock == "lockstep"):
        problems.append(
            "fabric: is missing; expected a table [fabric] with an address: "
            'clock = "lockstep" is coordinated there'
        )
    raw_nodes = _rows(raw, "node", problems)
    if not raw_nodes and "node" not in meant and raw.get("node", []) == []:
        problems.append("node: there is none; expected at least one [[node]]")
    if len(raw_nodes) > NODES_MAX:
        problems.append(f"node: there are {len(raw_nodes)}; expected at most {NODES_MAX}")
        raw_nodes = []
    nodes = _read_rows(raw_nodes, NodeTable, "node", problems)
    links = _read_rows(_rows(raw, "link", problems), LinkTable, "link", problems)
    raw_stations = _rows(raw, "station", problems)
    stations = _read_rows(raw_stations, StationTable, "station", problems)
    problems += [
        f'node[{index}].external: only where layout is split; expected layout = "split"'
        for index, node in nodes.items()
        if node.external and node.layout != "split"
    ]
    for index, node in nodes.items():
        problems += _driver_problems(f"node[{index}]", node)
    for index, station in stations.items():
        problems += _driver_problems(f"station[{index}]", station)
    texts = {"fabric": fabric.address} if fabric else {}
    texts |= {f"node[{index}]": node.address for index, node in nodes.items()}
    texts |= {f"station[{index}]": station.address for index, station in stations.items()}
    addresses = _read_addresses(texts, problems)
    names = _names(raw_nodes, problems, "node")
    station_names = _names(raw_stations, problems, "station")
    if raw_nodes:
        links = _check_ends(links, names, problems)
    return Tables(network, nodes, links, stations, station_names, addresses)


def _driver_problems(path: str, node: NodeTable | StationTable) -> list[str]:
    problem = unknown_driver(node.driver)
    if problem:
        return [f"{path}.driver: {problem}"]
    if node.driver == EMULATED and node.driver_options:
        return [f"{path}.driver_options: the emulated device has none; expected no such table"]
    return [
        f"{path}.driver_options.{key}: {shown(value)} is not allowed; expected the path of a file"
        for key, value in node.driver_options.items()
        if key.endswith(FILE_SUFFIX) and not isinstance(value, str)
    ]


def _rows(raw: dict[str, Any], key: str, problems: list[str]) -> list[Any]:
    rows = raw.get(key, [])
    if isinstance(rows, list):
        return rows
    problems.append(f"{key}: is {shown(rows)}; expected one or more [[{key}]]")
    return []


def _read_rows(rows: list[Any], kind: type[T], key: str, problems: list[str]) -> dict[int, T]:
    read = {}
    for index, row in enumerate(rows):
        if len(problems) >= PROBLEMS_MAX:
            break
        table = read_table(row, kind, f"{key}[{index}]", problems)
        if table is not None:
            read[index] = table
    return read


def _names(rows: list[Any], problems: list[str], key: str) -> dict[str, int]:
    """Each name and the first of its kind that has it, also of those with another problem."""
    first: dict[str, int] = {}
    for index, row in enumerate(rows):
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(name, str):
            continue
        if name in first:
            problems.append(
                f"{key}[{index}].name: {shown(name)} is also the name of {key}[{first[name]}]; "
                "expected a name of its own"
            )
        first.setdefault(name, index)
    return first


def _check_ends(
    links: dict[int, LinkTable], names: dict[str, int], problems: list[str]
) -> dict[int, LinkTable]:
    """The links that join two nodes of the file, each pair of nodes once."""
    good: dict[int, LinkTable] = {}
    first: dict[str, int] = {}
    for index, link in links.items():
        if len(problems) >= PROBLEMS_MAX:
            break
        path = f"link[{index}].ends"
        problem = _wrong_ends(link.ends, names)
        identity = link_id(*link.ends)
        if problem is None and identity in first:
            other = links[first[identity]].ends
            if sorted(other) == sorted(link.ends):
                problem = (
                    f"{identity} is also link[{first[identity]}]; "
                    "expected one link between two nodes"
                )
            else:
                problem = (
                    f"its name {identity} is also that of link[{first[identity]}], which joins "
                    f"{listed(other)}; expected node names that keep them apart"
                )
        if problem is None:
            first[identity] = index
            good[index] = link
        else:
            problems.append(f"{path}: {problem}")
    return good


def _wrong_ends(ends: tuple[str, str], names: dict[str, int]) -> str | None:
    for end in ends:
        if end not in names:
            similar = nearest(end, names)
            hint = f'did you mean "{similar}"?' if similar else f"expected {_some(names)}"
            return f'no node is called "{end}"; {hint}'
    if ends[0] == ends[1]:
        return f'joins "{ends[0]}" to itself; expected two different nodes'
    return None


def _some(names: dict[str, int]) -> str:
    known = list(names)
    return f"one of {listed(shown(name)[1:-1] for name in known[:8])}" + (
        f" and {len(known) - 8} more" if len(known) > 8 else ""
    )


def _read_addresses(texts: dict[str, str], problems: list[str]) -> dict[str, Address]:
    addresses: dict[str, Address] = {}
    first: dict[Address, str] = {}
    for path, text in texts.items():
        try:
            address = parse_address(text)
        except ValueError as error:
            problems.append(f"{path}.address: {error}")
            continue
        addresses[path] = address
        if address.port and address in first:
            problems.append(
                f"{path}.address: {address} is also that of {first[address]}; "
                "expected an address of its own"
            )
        first.setdefault(address, path)
    return addresses


def parse_address(text: str) -> Address:
    """The address `host:port`. Raises `ValueError` with what is wrong; what was expected."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]{0,252}):([0-9]+)", text)
    if match is None:
        raise ValueError(f'{shown(text)} is not an address; expected "host:port"')
    host, port = match[1].strip("[]").lower(), match[2]
    try:
        if match[1].startswith("["):
            host = str(IPv6Address(host))
        elif re.fullmatch(r"[0-9.]+", host):
            host = str(IPv4Address(host))
    except AddressValueError:
        raise ValueError(
            f"{shown(text)} has an impossible host; expected a name, an IPv4 address, "
            "or an IPv6 address in brackets"
        ) from None
    if len(port) > 5 or int(port) > 65_535:
        raise ValueError(
            f"port {shown(port)[1:-1]} is out of range; "
            "expected 0 to 65535 (0: chosen at the start)"
        )
    return Address(host, int(port))
