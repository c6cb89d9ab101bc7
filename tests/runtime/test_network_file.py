"""NETWORK.toml: the packaged networks are good, and every bad file is told all that is wrong."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from qstack.errors import ErrorCode, LocalError
from qstack.physical.hardware import World
from qstack.physical.profile import ProfileError
from qstack.physical.profiles import (
    load_packaged_profile,
    packaged_profile,
    packaged_profiles,
)
from qstack.runtime.network_file import (
    FILE_BYTES_MAX,
    Network,
    NetworkFileError,
    load_network,
    load_packaged_network,
    packaged_network,
    packaged_networks,
    parse_network,
)
from qstack.runtime.network_tables import NODES_MAX, Address, parse_address

HEAD = '[network]\nname = "test"\n[fabric]\naddress = "127.0.0.1:0"\n'
PAIR = packaged_network("pair")


def node(name: str, profile: str = "ion-published", **lines: object) -> str:
    fields = {"address": '"127.0.0.1:0"', "memory": 4, **lines}
    text = "".join(f"{key} = {value}\n" for key, value in fields.items())
    return f'[[node]]\nname = "{name}"\nprofile = "{profile}"\n{text}'


def link(first: str, second: str, **lines: object) -> str:
    fields = {"length_m": 10_000, "scheme": '"double-click"', **lines}
    text = "".join(f"{key} = {value}\n" for key, value in fields.items())
    return f'[[link]]\nends = ["{first}", "{second}"]\n{text}'


def parsed(*parts: str, head: str = HEAD) -> Network:
    return parse_network(head + "".join(parts), where="test")


def problems_of(*parts: str, head: str = HEAD, folder: Path | None = None) -> list[str]:
    with pytest.raises(NetworkFileError) as caught:
        parse_network(head + "".join(parts), where="test", folder=folder)
    return caught.value.problems


def problem_of_pair(old: str, new: str) -> str:
    """The one problem of the smallest network after one change of its text."""
    assert PAIR.count(old) >= 1
    problems = problems_of(PAIR.replace(old, new, 1), head="")
    assert len(problems) == 1, problems
    return problems[0]


# --- good files ---------------------------------------------------------------------------------


def test_every_packaged_network_is_good_and_named_like_its_file() -> None:
    assert packaged_networks() == ["metro", "pair", "ring"]
    assert [load_packaged_network(name).name for name in packaged_networks()] == (
        packaged_networks()
    )


def test_every_packaged_profile_can_be_loaded() -> None:
    names = packaged_profiles()
    assert {"bench", "ion-published", "nv-lab"} <= set(names)
    assert [load_packaged_profile(name).name for name in names] == names


def test_metro_is_two_repeaters_and_a_pair_source_between_alice_and_bob() -> None:
    metro = load_packaged_network("metro")
    assert list(metro.nodes) == ["alice", "r1", "r2", "bob"]
    lengths = {link.id: link.length_m for link in metro.links.values()}
    assert lengths == {
        "alice-r1": 10_000, "r1-r2": 25_000, "bob-r2": 15_000, "alice-bob": 35_000,
    }  # fmt: skip
    assert [link.id for link in metro.links.values() if not link.is_heralded] == ["alice-bob"]
    assert (metro.clock, metro.restart_ns, metro.cutoff_ns) == ("lockstep", 10**9, 10**8)
    assert all(entry.memory == 4 for entry in metro.nodes.values())
    assert all(entry.profile.name == "ion-projected" for entry in metro.nodes.values())
    assert metro.fabric == Address("127.0.0.1", 0)


def test_projected_numbers_of_a_network_are_listed_once() -> None:
    projected = load_packaged_network("metro").projected
    assert {"ion-projected.t2_s", "ion-projected.visibility"} <= set(projected)
    assert "ion-projected.coupling" not in projected
    assert len(projected) == len(set(projected))


def test_defaults_are_those_of_the_clock() -> None:
    network = parsed(node("alice"))
    assert (network.clock, network.time_scale, network.restart_ns) == ("lockstep", 1.0, 10**9)
    assert (network.machine_event_ns, network.application_call_ns) == (10_000, 30_000)
    assert (network.forward_ns, network.cutoff_ns) == (10_000, None)
    assert network.nodes["alice"].layout == "fused"


def test_world_holds_the_hardware_of_the_file() -> None:
    network = parsed(node("alice"), node("bob"), link("bob", "alice", station=1000))
    world = network.world
    assert isinstance(world, World)
    assert world.nodes["alice"].memory == 4
    hardware = world.links["alice-bob"]
    assert hardware.ends == ("alice", "bob")
    assert hardware.arms_m == (9000.0, 1000.0)  # metres from the first end written: bob


def test_fibre_of_a_link_loses_what_its_wavelength_loses(tmp_path: Path) -> None:
    unconverted = without_converter(tmp_path, "ion-published")
    text = HEAD + node("a", unconverted) + node("b", unconverted) + link("a", "b", length_m=500)
    network = parse_network(text, where="test", folder=tmp_path)
    assert network.links["a-b"].attenuation_db_per_km == pytest.approx(2.2)  # 854 nm
    assert parsed(node("a"), node("b"), link("a", "b")).links["a-b"].attenuation_db_per_km == 0.2


def test_stated_fibre_is_used() -> None:
    fibre = {"attenuation_db_per_km": 0.16, "group_index": 1.44, "extra_loss_db": 1.5}
    hardware = parsed(node("a"), node("b"), link("a", "b", **fibre)).links["a-b"]
    assert hardware.attenuation_db_per_km == 0.16
    assert (hardware.group_index, hardware.extra_loss_db) == (1.44, 1.5)


def test_disconnected_network_is_allowed() -> None:
    network = parsed(node("alice"), node("bob"))
    with pytest.raises(LocalError) as caught:
        network.path_delay_ns("alice", "bob")
    assert caught.value.code is ErrorCode.NO_PATH


def test_network_without_fabric_is_allowed_on_the_wall_clock() -> None:
    head = '[network]\nname = "test"\nclock = "wall"\n'
    assert parsed(node("alice"), head=head).fabric is None


def test_addresses_may_repeat_while_their_port_is_not_chosen() -> None:
    assert len(parsed(node("alice"), node("bob")).nodes) == 2


# --- delays -------------------------------------------------------------------------------------


def test_neighbours_are_as_far_as_their_link() -> None:
    metro = load_packaged_network("metro")
    assert metro.path_delay_ns("alice", "r1") == metro.links["alice-r1"].delay_ns
    assert metro.path_delay_ns("alice", "alice") == 0


def test_others_are_as_far_as_the_fibre_and_a_forwarding_a_hop() -> None:
    metro = load_packaged_network("metro")
    fibre_ns = sum(metro.links[name].delay_ns for name in ("alice-r1", "r1-r2"))
    assert metro.path_delay_ns("alice", "r2") == fibre_ns + 2 * 10_000
    assert metro.path_delay_ns("r2", "alice") == metro.path_delay_ns("alice", "r2")


def test_message_takes_the_shortest_fibre() -> None:
    parts = [node(name) for name in ("a", "b", "c", "d")]
    parts += [link("a", "b", length_m=30_000), link("b", "d", length_m=30_000)]
    parts += [link("a", "c", length_m=10_000), link("c", "d", length_m=20_000)]
    network = parsed(*parts)
    short = network.links["a-c"].delay_ns + network.links["c-d"].delay_ns
    assert network.path_delay_ns("a", "d") == short + 2 * network.forward_ns


def test_of_two_paths_as_long_the_one_with_fewer_hops_is_taken() -> None:
    parts = [node(name) for name in ("a", "b", "c", "d", "e")]
    parts += [link("a", "b"), link("b", "c"), link("c", "d")]
    parts += [link("a", "e"), link("e", "d", length_m=20_000)]
    network = parsed(*parts)
    fibre_ns = network.links["a-e"].delay_ns + network.links["d-e"].delay_ns
    assert fibre_ns == 3 * network.links["a-b"].delay_ns
    assert network.path_delay_ns("a", "d") == fibre_ns + 2 * network.forward_ns


def test_unknown_node_has_no_delay() -> None:
    with pytest.raises(LocalError) as caught:
        load_packaged_network("pair").path_delay_ns("alice", "zed")
    assert caught.value.code is ErrorCode.UNKNOWN_NODE


# --- the digest ---------------------------------------------------------------------------------


def test_digest_is_of_the_content_not_of_the_writing() -> None:
    first = parsed(node("a"), node("b"), link("a", "b"))
    second = parsed("# a comment\n", node("b"), node("a"), link("b", "a", length_m=1e4))
    assert len(first.digest) == 32
    assert first.digest == second.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "pair"', 'name = "pear"'),
        ("length_m = 10_000", "length_m = 10_001"),
        ("memory = 4", "memory = 5"),
        ('profile = "ion-projected"', 'profile = "ion-published"'),
        ('clock = "lockstep"', 'clock = "wall"'),
        ("127.0.0.1:0", "127.0.0.1:1"),
    ],
)
def test_digest_changes_with_the_content(old: str, new: str) -> None:
    changed = parse_network(PAIR.replace(old, new, 1), where="test")
    assert changed.digest != load_packaged_network("pair").digest


def test_digest_covers_the_numbers_of_a_profile_but_not_their_sources() -> None:
    network = load_packaged_network("pair")
    alice = network.nodes["alice"]

    def digest_with(**changes: object) -> bytes:
        changed = replace(alice, profile=replace(alice.profile, **changes))
        return replace(network, nodes={**network.nodes, "alice": changed}).digest

    assert digest_with(sources=()) == network.digest
    assert digest_with(t2_s=2.0) != network.digest


# --- bad files ----------------------------------------------------------------------------------

BAD_CHANGES = [
    ("memory = 4", "memroy = 4", "node[0].memroy: unknown key; did you mean `memory`?"),
    ("memory = 4", "memory = 0", "node[0].memory: 0 is not allowed; expected 1 to 4096 qubits"),
    ("memory = 4", "memory = 4.5", "node[0].memory: 4.5 is not allowed; expected 1 to 4096 qubits"),
    ("memory = 4", "", "node[0].memory: is missing; expected 1 to 4096 qubits"),
    ("memory = 4", 'memory = 4\nlayout = "spilt"', ("node[0].layout: 'spilt' is not allowed; "
     'expected one of "fused", "split"')),
    ("memory = 4", 'memory = 4\nexternal = ["link"]', ("node[0].external: only where layout is "
     'split; expected layout = "split"')),
    ('name = "pair"', 'name = "Pair"', ("network.name: 'Pair' is not allowed; expected a name "
     "of 1 to 63 small letters, digits and hyphens, a letter first")),
    ('name = "pair"', 'name = "pair\\n"', ("network.name: 'pair\\n' is not allowed; expected a "
     "name of 1 to 63 small letters, digits and hyphens, a letter first")),
    ("length_m = 10_000", "length_km = 10", ("link[0].length_km: unknown key; this value is given "
     "in metres: expected `length_m`")),
    ("length_m = 10_000", "length = 10", ("link[0].length: unknown key; this value is given in "
     "metres: expected `length_m`")),
    ("length_m = 10_000", "length_m = -5", ("link[0].length_m: -5 is not allowed; expected "
     "metres, above 0 and at most 1000000")),
    ("length_m = 10_000", "length_m = 0", ("link[0].length_m: 0 is not allowed; expected metres, "
     "above 0 and at most 1000000")),
    ("length_m = 10_000", "length_m = 10_000\ntest_rounds = 1", ("link[0].test_rounds: 1 is not "
     "allowed; expected a share, 0 to 0.5")),
    ("length_m = 10_000", 'length_m = 10_000\ntest_rounds = "some"', ("link[0].test_rounds: 'some' "
     "is not allowed; expected a share, 0 to 0.5")),
    ("length_m = 10_000", "length_m = nan", ("link[0].length_m: nan is not allowed; expected "
     "metres, above 0 and at most 1000000")),
    ("length_m = 10_000", 'length_m = "10 km"', ("link[0].length_m: '10 km' is not allowed; "
     "expected metres, above 0 and at most 1000000")),
    ("length_m = 10_000", "length_m = 0.3", ("link[0].length_m: 0.3 m are less than 1 ns from "
     "node to station; expected at least 0.41 m, for every delay is at least 1 ns")),
    ("length_m = 10_000", "length_m = 600_000", ("link[0].length_m: photons lose 120 dB on "
     "600000 m of fibre; expected at most 100 dB: a shorter link, with repeaters between")),
    ('scheme = "double-click"', 'scheme = "triple-click"', ("link[0].scheme: 'triple-click' is "
     'not allowed; expected one of "single-click", "double-click", "spdc", "midpoint-source", '
     '"absorptive-memory", "retrieved-photon"')),
    ('station = "midpoint"', 'station = "middle"', ("link[0].station: no station is called "
     "'middle'; expected \"midpoint\", metres, or the name of a [[station]]")),
    ('station = "midpoint"', "station = true", ("link[0].station: true is not allowed; expected "
     '"midpoint", metres of fibre from the first end, or the name of a [[station]]')),
    ('station = "midpoint"', "station_m = 5000", ("link[0].station_m: only of a station that has a "
     "name; expected metres in station")),
    ('station = "midpoint"', "station = 12_000", ("link[0].station: 12000.0 m is beyond the "
     'fibre\'s 10000.0 m; expected "midpoint" or metres from the first end')),
    ('station = "midpoint"', "station = 0.1", ("link[0].station: 0.1 m leaves less than 1 ns to "
     "one end; expected 0.20 m of fibre or more to either, for every delay is at least 1 ns")),
    ('station = "midpoint"', "station = 10_000", ("link[0].station: 10000.0 m leaves less than "
     "1 ns to one end; expected 0.20 m of fibre or more to either, for every delay is at least "
     "1 ns")),
    ('ends = ["alice", "bob"]', 'ends = ["alice", "bbo"]', ('link[0].ends: no node is called '
     '"bbo"; did you mean "bob"?')),
    ('ends = ["alice", "bob"]', 'ends = ["alice", "zzz"]', ('link[0].ends: no node is called '
     '"zzz"; expected one of "alice", "bob"')),
    ('ends = ["alice", "bob"]', 'ends = ["bob", "bob"]', ('link[0].ends: joins "bob" to itself; '
     "expected two different nodes")),
    ('ends = ["alice", "bob"]', 'ends = ["bob"]', ("link[0].ends: ['bob'] is not allowed; "
     "expected a list of two node names")),
    ('clock = "lockstep"', 'clock = "sundial"', ("network.clock: 'sundial' is not allowed; "
     'expected one of "lockstep", "wall"')),
    ('clock = "lockstep"', "time_scale = 0", ("network.time_scale: 0 is not allowed; expected a "
     "factor above 0, at most 1000000")),
    ('clock = "lockstep"', "restart_ns = 0", ("network.restart_ns: 0 is not allowed; expected "
     "whole nanoseconds, at least 1 and at most 10^15")),
    ('clock = "lockstep"', "forward_ns = 0", ("network.forward_ns: 0 is not allowed; expected "
     "whole nanoseconds, at least 1 and at most 10^15")),
    ('clock = "lockstep"', "cutoff_ms = 100", ("network.cutoff_ms: unknown key; this value is "
     "given in nanoseconds: expected `cutoff_ns`")),
    ("127.0.0.1:0", "127.0.0.1:70000", ("fabric.address: port 70000 is out of range; expected 0 "
     "to 65535 (0: chosen at the start)")),
    ("127.0.0.1:0", "127.0.0.1", ("fabric.address: '127.0.0.1' is not an address; expected "
     '"host:port"')),
    ("127.0.0.1:0", "127.0.0.300:1", ("fabric.address: '127.0.0.300:1' has an impossible host; "
     "expected a name, an IPv4 address, or an IPv6 address in brackets")),
    ('[fabric]\naddress = "127.0.0.1:0"', "", ("fabric: is missing; expected a table [fabric] "
     'with an address: clock = "lockstep" is coordinated there')),
    ("[fabric]", "[fabrik]", "fabrik: unknown key; did you mean `fabric`?"),
    ("[[link]]", "[link]", "link: is a table; expected one or more [[link]]"),
    ('profile = "ion-projected"', 'profile = "ion-projcted"', ("node[0].profile: 'ion-projcted': "
     "no profile 'ion-projcted' comes with qstack; did you mean \"ion-projected\"?")),
    ('profile = "ion-projected"', 'profile = "./mine.toml"', ("node[0].profile: './mine.toml': a "
     "path, but no file to start from; expected a name")),
    ('profile = "ion-projected"', 'profile = "bench"', ('link[0].ends: "alice" is bench and '
     '"bob" is trapped-ion; expected one platform at both ends of a heralded link')),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "problem"), BAD_CHANGES)
def test_bad_change_of_a_good_file_is_told_apart(old: str, new: str, problem: str) -> None:
    assert problem_of_pair(old, new) == problem


def test_one_name_for_two_nodes_is_refused() -> None:
    assert problems_of(node("alice"), node("bob"), node("alice")) == [
        "node[2].name: 'alice' is also the name of node[0]; expected a name of its own"
    ]


def test_node_with_a_name_that_cannot_be_is_refused() -> None:
    problem = "expected a name of 1 to 63 small letters, digits and hyphens, a letter first"
    for name in ("Alice", "1st", "a.b", "a" * 64):
        shown = f"'{name}'"[:57] + "..." if len(name) > 58 else f"'{name}'"
        assert problems_of(node(name)) == [f"node[0].name: {shown} is not allowed; {problem}"]


def test_two_links_between_two_nodes_are_refused() -> None:
    nodes = [node("alice"), node("bob")]
    assert problems_of(*nodes, link("alice", "bob"), link("bob", "alice")) == [
        "link[1].ends: alice-bob is also link[0]; expected one link between two nodes"
    ]


def test_two_links_that_would_have_one_name_are_refused() -> None:
    nodes = [node(name) for name in ("a", "b-c", "a-b", "c")]
    problem = (
        'link[1].ends: its name a-b-c is also that of link[0], which joins "a", "b-c"; '
        "expected node names that keep them apart"
    )
    assert problems_of(*nodes, link("a", "b-c"), link("a-b", "c")) == [problem]


def test_one_address_for_two_nodes_is_refused() -> None:
    nodes = [node(name, address='"LocalHost:7000"') for name in ("alice", "bob")]
    assert problems_of(*nodes) == [
        "node[1].address: localhost:7000 is also that of node[0]; expected an address of its own"
    ]


def test_the_fabric_has_an_address_of_its_own() -> None:
    head = HEAD.replace("127.0.0.1:0", "[::1]:7000")
    assert problems_of(node("alice", address='"[0::1]:7000"'), head=head) == [
        "node[0].address: [::1]:7000 is also that of fabric; expected an address of its own"
    ]


@pytest.mark.parametrize("head", [HEAD, "node = []\n" + HEAD])
def test_network_without_nodes_is_refused(head: str) -> None:
    assert problems_of(head=head) == ["node: there is none; expected at least one [[node]]"]


def test_empty_file_is_refused() -> None:
    assert [line.partition(":")[0] for line in problems_of(head="")] == [
        "network", "fabric", "node",
    ]  # fmt: skip


def test_link_to_a_node_with_another_problem_is_not_a_link_to_nowhere() -> None:
    assert problems_of(node("alice", memory=0), node("bob"), link("alice", "bob")) == [
        "node[0].memory: 0 is not allowed; expected 1 to 4096 qubits"
    ]


def test_all_problems_are_reported_in_one_go() -> None:
    head = HEAD.replace("[fabric]", 'clock = "moon"\n[fabric]')
    parts = [node("alice", memory=0), node("bob", layuot='"split"'), node("bob")]
    parts += [link("bob", "zed"), link("bob", "bob"), link("bob", "alice", length_m=-1)]
    assert [line.partition(":")[0] for line in problems_of(*parts, head=head)] == [
        "network.clock", "node[0].memory", "node[1].layuot", "link[2].length_m", "node[2].name",
        "link[0].ends", "link[1].ends",
    ]  # fmt: skip


def test_error_text_names_the_file_and_every_problem() -> None:
    with pytest.raises(NetworkFileError) as caught:
        parse_network("", where="NETWORK.toml")
    assert str(caught.value).splitlines()[0] == "NETWORK.toml:"
    assert len(str(caught.value).splitlines()) == 1 + len(caught.value.problems)


def test_text_that_is_not_toml_is_refused() -> None:
    assert problems_of(head="[network\n")[0].startswith("is not TOML: ")


def test_node_that_is_not_a_table_is_refused() -> None:
    assert problems_of(head="node = [3]\n" + HEAD) == ["node[0]: is 3; expected a table"]


def test_as_many_nodes_as_the_limit_are_read_and_one_more_refused() -> None:
    nodes = [node(f"n{number}", "bench", layout='"fused"') for number in range(NODES_MAX)]
    assert len(parsed(*nodes).nodes) == NODES_MAX
    assert problems_of(*nodes, node("one-more")) == [
        f"node: there are {NODES_MAX + 1}; expected at most {NODES_MAX}"
    ]


# --- light that cannot be -----------------------------------------------------------------------


def without_converter(folder: Path, name: str, wavelength_nm: int | None = None) -> str:
    """A copy of a packaged profile, its photons entering the fibre as they are emitted."""
    text = packaged_profile(name)
    start = text.index("[converted_to_nm]")
    text = text[:start] + text[text.index("[coupling]") :]
    if wavelength_nm is not None:
        head, _, tail = text.partition("[wavelength_nm]\nvalue = ")
        text = f"{head}[wavelength_nm]\nvalue = {wavelength_nm}\n{tail.partition(chr(10))[2]}"
    (folder / "unconverted.toml").write_text(text, encoding="utf-8")
    return "./unconverted.toml"


def test_visible_photon_on_kilometres_of_fibre_is_refused(tmp_path: Path) -> None:
    strontium = without_converter(tmp_path, "ion-published", 422)
    nodes = node("a", strontium) + node("b", strontium)
    assert problems_of(nodes, link("a", "b", length_m=2000), folder=tmp_path) == [
        (
            "link[0].length_m: photons of 422 nm lose 60 dB on 2000 m of fibre; expected a profile "
            "with a converter to telecom (converted_to_nm = 1550), or at most 1333 m"
        )
    ]
    text = HEAD + nodes + link("a", "b", length_m=2)
    assert parse_network(text, where="test", folder=tmp_path).links


def test_nitrogen_vacancy_photon_on_ten_kilometres_is_refused(tmp_path: Path) -> None:
    unconverted = without_converter(tmp_path, "nv-near-term")
    nodes = node("a", unconverted) + node("b", unconverted)
    assert problems_of(nodes, link("a", "b"), folder=tmp_path) == [
        (
            "link[0].length_m: photons of 637 nm lose 50 dB on 10000 m of fibre; expected a "
            "profile with a converter to telecom (converted_to_nm = 1550), or at most 8000 m"
        )
    ]


def test_fibre_too_good_for_its_wavelength_is_refused(tmp_path: Path) -> None:
    strontium = without_converter(tmp_path, "ion-published", 422)
    nodes = node("a", strontium) + node("b", strontium)
    good = link("a", "b", length_m=100, attenuation_db_per_km=0.2)
    assert problems_of(nodes, good, folder=tmp_path) == [
        ("link[0].attenuation_db_per_km: 0.2 dB/km cannot be at 422 nm, where fibre loses about "
        "30; expected at least 15, or a profile with a converter to telecom "
        "(converted_to_nm = 1550)")
    ]  # fmt: skip


def test_photons_of_two_wavelengths_are_refused(tmp_path: Path) -> None:
    unconverted = without_converter(tmp_path, "ion-published")
    parts = [node("a", unconverted), node("b"), link("a", "b", length_m=100)]
    assert problems_of(*parts, folder=tmp_path) == [
        ("link[0].ends: photons of 854 nm and 1550 nm meet, and cannot interfere; expected one "
        "wavelength, or converters (converted_to_nm)")
    ]  # fmt: skip


# --- files --------------------------------------------------------------------------------------


def file_problem(path: Path) -> str:
    with pytest.raises(NetworkFileError) as caught:
        load_network(path)
    assert caught.value.where == str(path)
    return caught.value.problems[0]


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "NETWORK.toml"
    path.write_text(PAIR, encoding="utf-8")
    assert load_network(path).digest == load_network(str(path)).digest
    assert load_network(path).digest == load_packaged_network("pair").digest


def test_profile_path_is_relative_to_the_network_file(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    text = packaged_profile("bench").replace('name = "bench"', 'name = "lab"')
    (tmp_path / "lab" / "mine.toml").write_text(text, encoding="utf-8")
    path = tmp_path / "NETWORK.toml"
    path.write_text(HEAD + node("alice", "lab/mine.toml"), encoding="utf-8")
    assert load_network(path).nodes["alice"].profile.name == "lab"


def test_bad_profile_file_is_reported_once_with_its_own_key_paths(tmp_path: Path) -> None:
    text = packaged_profile("bench").replace(
        "[visibility]\nvalue = 1.0", "[visibility]\nvalue = 1.3"
    )
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    parts = [node("alice", "mine.toml"), node("bob", "mine.toml"), link("alice", "bob")]
    assert problems_of(*parts, folder=tmp_path) == [
        ("node[0].profile: 'mine.toml': visibility.value: 1.3 is not allowed; "
        "expected a probability, 0 to 1")
    ]  # fmt: skip


def test_profile_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert problems_of(node("alice", "mine.toml"), folder=tmp_path) == [
        "node[0].profile: 'mine.toml': no such file; expected a TOML file"
    ]


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert file_problem(tmp_path / "none.toml") == "no such file; expected a TOML file"


def test_directory_is_refused(tmp_path: Path) -> None:
    assert file_problem(tmp_path) == "is a directory; expected a TOML file"


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert file_problem(tmp_path / "pipe") == "is not a regular file; expected a TOML file"


def test_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert file_problem(tmp_path / "file" / "x").endswith("expected a TOML file")


def test_name_too_long_for_a_file_is_refused(tmp_path: Path) -> None:
    assert file_problem(tmp_path / ("x" * 5000)).startswith("cannot be read (")


def test_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "NETWORK.toml"
    path.write_bytes(b"# caf\xe9\n")
    assert file_problem(path) == "byte 5 is not UTF-8; expected a TOML file"


def test_file_as_long_as_the_limit_is_read_and_a_longer_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "NETWORK.toml"
    path.write_text(PAIR + "#" * (FILE_BYTES_MAX - len(PAIR)), encoding="utf-8")
    assert load_network(path).name == "pair"
    path.write_text(PAIR + "#" * (FILE_BYTES_MAX - len(PAIR) + 1), encoding="utf-8")
    assert file_problem(path) == f"is too long; expected at most {FILE_BYTES_MAX} bytes"


@pytest.mark.parametrize("name", ["metros", "../metro", "profiles/bench", ""])
def test_unknown_packaged_network_is_refused(name: str) -> None:
    with pytest.raises(NetworkFileError, match="comes with qstack; "):
        load_packaged_network(name)


def test_unknown_packaged_profile_is_refused() -> None:
    with pytest.raises(ProfileError, match='did you mean "bench"'):
        load_packaged_profile("bnch")


@pytest.mark.parametrize("coupling", ["1e-12", "5e-324"])
def test_a_link_on_which_no_attempt_can_succeed_is_refused(coupling: str, tmp_path: Path) -> None:
    """So small a probability gave numbers of attempts that no integer of 64 bits holds."""
    bright = "[coupling]\nvalue = 1.0"
    text = packaged_profile("bench").replace(bright, f"[coupling]\nvalue = {coupling}")
    (tmp_path / "dim.toml").write_text(text, encoding="utf-8")
    nodes = [node(name, "dim.toml") for name in "ab"]
    [problem] = problems_of(*nodes, link("a", "b"), folder=tmp_path)
    assert problem.startswith("link[0].ends: an attempt succeeds with a probability of ")


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["127.0.0.1:0", "node-1.example.org:65535", "[::1]:7000"])
def test_address_is_shown_as_it_was_written(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", ":1", "host", "host:", "host:-1", "host:65536", "host:1e3", "::1:7000", "[::g]:1",
     "[1.2]:1", "1.2.3:4", "a b:1", "host:1\n", "-x:1", "host:" + "9" * 200, "host:٣"],
)  # fmt: skip
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="; expected "):
        parse_address(text)
