"""NETWORK.toml: one file says what the network is; every node and the fabric read the same one.

    [network]  name, clock ...      [fabric]  address
    [[node]]   name, address, profile, memory, layout
    [[link]]   ends, length_m, scheme, station, pair_source ...
    [[station]] name, address

Rules
1. All that is wrong is reported in one go, a line each: `KEY PATH: what is wrong; what was
   expected`.
2. What cannot be is refused here, not found out later: a visible photon on 10 km of fibre, two
   platforms on one link, a delay shorter than the clock's window of 1 ns.
3. The digest covers what the file and its profiles say, not how they are written: comments,
   order, and the sources of the numbers are not in it. Addresses are.
"""

from collections.abc import Callable
from functools import cached_property, partial
from hashlib import blake2b
from heapq import heappop, heappush
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from qstack.errors import ErrorCode, LocalError
from qstack.link.params import Weight
from qstack.physical.clock_hardware import ClockHardware, read_clock
from qstack.physical.document import DocumentError, listed, nearest, parse_toml, shown
from qstack.physical.hardware import LinkHardware, NodeHardware, World
from qstack.physical.profile import Mark, Profile, ProfileError
from qstack.physical.profile_kinds import AnyProfile, parse_any_profile, require_kind
from qstack.physical.profiles import load_any_packaged
from qstack.physical.switched import with_crosstalk
from qstack.runtime.drivers import EMULATED
from qstack.runtime.network_links import build_link
from qstack.runtime.network_options import unlike_switches
from qstack.runtime.network_stations import station_problems
from qstack.runtime.network_tables import (
    Address,
    Clock,
    LayerName,
    Layout,
    Tables,
    read_tables,
)

FILE_BYTES_MAX: Final = 2**20  # 4096 nodes with one link each take about 3/4 of it
DIGEST_BYTES: Final = 32


class NetworkFileError(DocumentError):
    """A network file cannot be used; `problems` has a line for everything that is wrong."""


class NetworkNode(Struct, frozen=True, kw_only=True):
    """One node: where it listens, what hardware it has, how its layers are laid out.

    `split`: each layer is a process; those that are `external` somebody else starts.
    `programs`: the device takes programs, and the network layer has it swap by one.
    """

    name: str
    address: Address
    profile: Profile
    memory: int
    driver: str
    driver_options: dict[str, object]
    layout: Layout
    external: tuple[LayerName, ...]
    programs: bool
    clock: ClockHardware | None


class StationHardware(Struct, frozen=True, kw_only=True):
    """The driver of a named station's detectors, if they are not emulated."""

    driver: str
    driver_options: dict[str, object]


class Network(Struct, frozen=True, kw_only=True, dict=True):
    """A network file, checked: nodes by name, links by id.

    `stations` are the addresses of those that are participants of their own, by name; with the
    nodes they are the `participants`. `fabric` is None on real hardware only; `cutoff_ns` is None
    where prediction chooses it, `link_weights` where all priorities of link requests are strict.
    `test_rounds` is the share of their pairs that links sacrifice to learn their fidelity;
    `link_test_rounds` that of links, by id, that have one of their own.
    Processing time: `machine_event_ns` an event of a layer, `application_call_ns` a call,
    `forward_ns` a hop of a message between nodes that are not neighbours. `folder` is where paths
    of the file begin; it is not in the digest, nor is what those files hold.
    """

    name: str
    clock: Clock
    time_scale: float
    restart_ns: int
    machine_event_ns: int
    application_call_ns: int
    forward_ns: int
    cutoff_ns: int | None
    link_weights: tuple[Weight, ...] | None
    test_rounds: float
    fabric: Address | None
    nodes: dict[str, NetworkNode]
    links: dict[str, LinkHardware]
    stations: dict[str, Address] = {}
    station_drivers: dict[str, StationHardware] = {}
    link_test_rounds: dict[str, float] = {}
    folder: Path | None = None

    @cached_property
    def participants(self) -> list[str]:
        """Who takes part in network time beside the fabric: nodes and named stations, sorted."""
        return sorted([*self.nodes, *self.stations])

    def address_of(self, participant: str) -> Address:
        """Where a node or station listens. Raises KeyError for neither."""
        if participant in self.stations:
            return self.stations[participant]
        return self.nodes[participant].address

    def role_of(self, participant: str) -> str:
        """The role in its certificate."""
        return "station" if participant in self.stations else "node"

    def neighbours_of(self, participant: str) -> list[str]:
        """With whom it has a channel from the start: ends of its links, and their stations."""
        if participant in self.stations:
            through = self.world.links_through(participant)
            return sorted({end for link in through for end in link.ends})
        links = self.world.links_of(participant)
        stations = sorted({link.station for link in links if link.station is not None})
        return [*(link.other_end(participant) for link in links), *stations]

    def peers_of(self, participant: str) -> list[str]:
        """With whom it may have a channel: stations are for the ends of their links alone."""
        if participant in self.stations:
            return self.neighbours_of(participant)
        known = [*self.nodes, *(n for n in self.neighbours_of(participant) if n in self.stations)]
        return sorted(name for name in known if name != participant)

    @cached_property
    def world(self) -> World:
        """The hardware: what the fabric and the prediction are built from."""
        hardware = {
            node.name: NodeHardware(
                name=node.name,
                profile=node.profile,
                memory=node.memory,
                clock=node.clock,
                is_emulated=node.driver == EMULATED,
                runs_programs=node.programs,
            )
            for node in self.nodes.values()
        }
        return World(nodes=hardware, links=self.links)

    @cached_property
    def digest(self) -> bytes:
        """The hash (32 bytes) of the content, compared in HELLO."""
        replace = msgspec.structs.replace
        nodes = {
            name: replace(
                node,
                profile=replace(node.profile, sources=()),
                clock=None if node.clock is None else replace(node.clock, sources=()),
            )
            for name, node in self.nodes.items()
        }
        links = {name: link.without_provenance() for name, link in self.links.items()}
        said = replace(self, nodes=nodes, links=links, folder=None)
        content = msgspec.msgpack.encode(said, order="sorted")
        return blake2b(content, digest_size=DIGEST_BYTES).digest()

    @cached_property
    def projected(self) -> list[str]:
        """Numbers better than published ones, such as `ion-projected.t2_s`, each once."""
        return self._named("projected", lambda profile: profile.projected)

    @cached_property
    def assumed(self) -> list[str]:
        """Numbers that the source of their profile does not give, each once."""
        return self._named("assumed", lambda profile: profile.assumed)

    def _named(self, mark: Mark, keys: Callable[[Profile], list[str]]) -> list[str]:
        names: dict[str, None] = {}
        for node in self.nodes.values():
            names |= dict.fromkeys(f"{node.profile.name}.{key}" for key in keys(node.profile))
            if node.clock is not None:
                names |= dict.fromkeys(f"{node.name}.{key}" for key in node.clock.marked(mark))
        for link in self.links.values():
            of_light = (link.source, link.detectors, link.station_detectors, link.equipment)
            for part in (*of_light, link.channel, link.timing, link.drift):
                if part is not None:
                    names |= dict.fromkeys(f"{link.id}.{key}" for key in part.marked(mark))
        return list(names)

    def test_shares_of(self, node: str) -> dict[str, float]:
        """The share of test rounds on each link of a node, by the name of the far end."""
        return {
            link.other_end(node): self.link_test_rounds.get(link.id, self.test_rounds)
            for link in self.world.links_of(node)
        }

    def path_delay_ns(self, source: str, target: str) -> int:
        """How long a message takes from one node to another (0: the same node).

        Neighbours: the delay of their link. Others: the shortest fibre path plus `forward_ns`
        for each of its links. To and from a named station: the fibre of an arm.
        Raises `LocalError`: UNKNOWN_NODE, or NO_PATH.
        """
        known_ns = self._path_delays.get((source, target))
        if known_ns is None:
            known_ns = self._path_delays[source, target] = self._path_delay_ns(source, target)
        return known_ns

    def _path_delay_ns(self, source: str, target: str) -> int:
        if source in self.stations or target in self.stations:
            return self._arm_ns(source, target)
        for name in (source, target):
            if name not in self.nodes:
                raise LocalError(ErrorCode.UNKNOWN_NODE, name)
        if source == target:
            return 0
        for neighbour, delay_ns in self._neighbours[source]:
            if neighbour == target:
                return delay_ns
        if source not in self._delays:
            self._delays[source] = self._delays_from(source)
        try:
            return self._delays[source][target]
        except KeyError:
            raise LocalError(ErrorCode.NO_PATH, f"{source} to {target}") from None

    def reachable_from(self, source: str) -> list[str]:
        """The nodes there is a fibre path to, `source` among them, nearest first.

        Raises `LocalError`: UNKNOWN_NODE.
        """
        if source not in self.nodes:
            raise LocalError(ErrorCode.UNKNOWN_NODE, source)
        return list(self._delays_from(source))

    def _arm_ns(self, one: str, other: str) -> int:
        """Between a station and an end of its links: the longest arm of theirs."""
        station, end = (one, other) if one in self.stations else (other, one)
        through = self.world.links_through(station)
        arms = [link.arm_ns(end) for link in through if end in link.ends]
        if not arms:
            raise LocalError(ErrorCode.NO_PATH, f"{one} to {other}")
        return max(arms)

    @cached_property
    def _path_delays(self) -> dict[tuple[str, str], int]:
        """Those asked for so far: every message asks."""
        return {}

    @cached_property
    def _neighbours(self) -> dict[str, list[tuple[str, int]]]:
        neighbours: dict[str, list[tuple[str, int]]] = {name: [] for name in self.nodes}
        for link in self.links.values():
            for end in link.ends:
                neighbours[end].append((link.other_end(end), link.delay_ns))
        return neighbours

    @cached_property
    def _delays(self) -> dict[str, dict[str, int]]:
        """Delays by source and target, filled as they are asked for."""
        return {}

    def _delays_from(self, source: str) -> dict[str, int]:
        """Dijkstra. Of two paths as long in fibre, the one with fewer links is taken."""
        delays: dict[str, int] = {}
        queue = [(0, 0, source)]
        while queue:
            fibre_ns, hops, name = heappop(queue)
            if name in delays:
                continue
            delays[name] = fibre_ns + hops * self.forward_ns
            for neighbour, delay_ns in self._neighbours[name]:
                if neighbour not in delays:
                    heappush(queue, (fibre_ns + delay_ns, hops + 1, neighbour))
        return delays


def load_network(path: str | Path) -> Network:
    """The network of a file. Raises `NetworkFileError` with every problem found."""
    try:
        text = _read_text(Path(path))
    except ValueError as error:
        raise NetworkFileError(str(path), [str(error)]) from error
    return parse_network(text, where=str(path), folder=Path(path).parent)


def require_ports(network: Network, where: str) -> None:
    """What processes that are started one by one need: addresses all of them know.

    Raises `NetworkFileError` naming each that has none; `where` names the file.
    """
    addresses = {f"node {name}": node.address for name, node in network.nodes.items()}
    addresses |= {f"station {name}": address for name, address in network.stations.items()}
    if network.fabric is not None:
        addresses["fabric"] = network.fabric
    problems = [
        f"{of}: address: {address} has no port that others know; expected one from 1 to 65535"
        " (0 is for `qstack up`, which starts all on one host and chooses)"
        for of, address in addresses.items()
        if address.port == 0
    ]
    if problems:
        raise NetworkFileError(where, problems)


def parse_network(text: str, *, where: str, folder: Path | None = None) -> Network:
    """The network of a TOML text; `where` names it in errors.

    Profile files are looked for from `folder` on; without one only packaged profiles are known.
    Raises `NetworkFileError` with every problem found.
    """
    try:
        raw = parse_toml(text)
    except ValueError as error:
        raise NetworkFileError(where, [f"is not TOML: {error}"]) from error
    problems: list[str] = []
    tables = read_tables(raw, problems)
    profiles = _profiles(tables, folder, problems)
    clocks = {
        node.name: read_clock(node.clock, f"node[{index}].clock", problems)
        for index, node in tables.nodes.items()
        if node.clock is not None
    }
    load = partial(_load_any, folder=folder)
    built = {
        index: build_link(index, link, profiles, clocks, load, problems)
        for index, link in tables.links.items()
    }
    links = [link for link in built.values() if link is not None]
    problems += unlike_switches(
        {i: link.switch for i, link in built.items() if link and link.switch}
    )
    problems += _unmatched_drivers(tables)
    problems += station_problems(tables)
    problems += _program_problems(tables)
    if problems:
        raise NetworkFileError(where, problems)
    assert tables.network is not None, "a missing [network] is a problem"
    nodes = {
        node.name: NetworkNode(
            name=node.name,
            address=tables.addresses[f"node[{index}]"],
            profile=profiles[node.name],
            memory=node.memory,
            driver=node.driver,
            driver_options=node.driver_options,
            layout=node.layout,
            external=tuple(node.external),
            programs=node.programs,
            clock=clocks.get(node.name),
        )
        for index, node in tables.nodes.items()
    }
    return Network(
        **msgspec.structs.asdict(tables.network),
        fabric=tables.addresses.get("fabric"),
        nodes=nodes,
        links=with_crosstalk({link.id: link for link in links}, profiles),
        stations={
            station.name: tables.addresses[f"station[{index}]"]
            for index, station in tables.stations.items()
        },
        station_drivers={
            station.name: StationHardware(
                driver=station.driver, driver_options=station.driver_options
            )
            for station in tables.stations.values()
            if station.driver != EMULATED
        },
        link_test_rounds=_test_rounds(tables, built),
        folder=folder,
    )


def _test_rounds(tables: Tables, built: dict[int, LinkHardware | None]) -> dict[str, float]:
    """The shares of test rounds of links that have one of their own, by their ids."""
    shares = {link.id: tables.links[index].test_rounds for index, link in built.items() if link}
    return {name: share for name, share in shares.items() if share is not None}


def packaged_networks() -> list[str]:
    """The names of the networks that come with qstack."""
    entries = (entry.name for entry in (files("qstack") / "data").iterdir())
    return sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml"))


def packaged_network(name: str) -> str:
    """The text of a packaged network file. Raises `NetworkFileError` for an unknown name."""
    known = packaged_networks()
    if name not in known:
        similar = nearest(name, known)
        hint = f'did you mean "{similar}"?' if similar else f"expected one of {listed(known)}"
        raise NetworkFileError(shown(name), [f"no network {shown(name)} comes with qstack; {hint}"])
    return (files("qstack") / "data" / f"{name}.toml").read_text(encoding="utf-8")


def load_packaged_network(name: str) -> Network:
    """A packaged network. Raises `NetworkFileError` for an unknown name."""
    return parse_network(packaged_network(name), where=f"packaged network {name}")


def _profiles(tables: Tables, folder: Path | None, problems: list[str]) -> dict[str, Profile]:
    """The profile of each node that has a good one; each file is read and reported once."""
    read: dict[str, Profile | None] = {}
    for index, node in tables.nodes.items():
        if node.profile not in read:
            try:
                read[node.profile] = _load_profile(node.profile, folder)
            except DocumentError as error:
                read[node.profile] = None
                where = f"node[{index}].profile"
                problems += [f"{where}: {error.where}: {line}" for line in error.problems]
    found = {node.name: read[node.profile] for node in tables.nodes.values()}
    return {name: profile for name, profile in found.items() if profile is not None}


def _unmatched_drivers(tables: Tables) -> list[str]:
    """Links whose ends would never meet: emulated attempts meet in the fabric, others elsewhere."""
    drivers = {node.name: node.driver for node in tables.nodes.values()}
    problems = []
    for index, link in tables.links.items():
        ends = [drivers.get(end) for end in link.ends]
        if None not in ends and (ends[0] == EMULATED) != (ends[1] == EMULATED):
            problems.append(
                f"link[{index}].ends: {link.ends[0]} has the driver {shown(ends[0])},"
                f" {link.ends[1]} {shown(ends[1])}; expected both emulated, or neither:"
                " their attempts would never meet"
            )
    return problems


def _program_problems(tables: Tables) -> list[str]:
    """Test rounds read pairs whose number says so; a device swaps before anybody knows it."""
    if tables.network is None or not tables.network.test_rounds:
        return []
    return [
        f"node[{index}].programs: true, and test_rounds are {tables.network.test_rounds}; expected"
        " one of them alone: a device would swap the pairs that are to be read"
        for index, node in tables.nodes.items()
        if node.programs
    ]


def _load_profile(reference: str, folder: Path | None) -> Profile:
    """The profile of a node, packaged or of a file. Raises `ProfileError`."""
    profile = _load_any(reference, folder=folder)
    require_kind(profile, "node", shown(reference))
    assert isinstance(profile, Profile)
    return profile


def _load_any(reference: str, *, folder: Path | None) -> AnyProfile:
    """A packaged profile, or that of a file: a path has a slash or ends in `.toml`.

    Raises `ProfileError`.
    """
    if "/" not in reference and not reference.endswith(".toml"):
        return load_any_packaged(reference)
    if folder is None:
        raise ProfileError(shown(reference), ["a path, but no file to start from; expected a name"])
    try:
        text = _read_text(folder / reference)
    except ValueError as error:
        raise ProfileError(shown(reference), [str(error)]) from error
    return parse_any_profile(text, where=shown(reference))


def _read_text(path: Path) -> str:
    """The text of a small file. Raises `ValueError` with what is wrong; what was expected."""
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise ValueError(f"is {kind}; expected a TOML file")
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ValueError("no such file; expected a TOML file") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); expected a TOML file") from error
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"is too long; expected at most {FILE_BYTES_MAX} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; expected a TOML file") from None
