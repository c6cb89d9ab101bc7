"""Named heralding stations in the network file: what is read from it, and what is refused."""

import pytest

from qstack.errors import ErrorCode, LocalError
from qstack.runtime.compose import lookahead_ns
from qstack.runtime.network_file import (
    Network,
    NetworkFileError,
    load_packaged_network,
    parse_network,
    require_ports,
)
from tests.runtime.test_stations import with_station


def read(*changes: tuple[str, str]) -> Network:
    return parse_network(with_station("pair", *changes), where="test")


def problems(*changes: tuple[str, str]) -> list[str]:
    with pytest.raises(NetworkFileError) as error:
        read(*changes)
    return error.value.problems


def test_a_named_station_is_a_participant_at_the_midpoint() -> None:
    network = read()
    link = network.links["alice-bob"]
    assert (link.station, link.arms_m) == ("mid", (5000.0, 5000.0))
    assert link.kinds == ("keep", "measure", "prepare")
    assert network.participants == ["alice", "bob", "mid"]
    assert [network.role_of(name) for name in network.participants] == ["node", "node", "station"]
    assert network.address_of("mid") == network.stations["mid"]
    assert network.neighbours_of("mid") == ["alice", "bob"]
    assert network.neighbours_of("alice") == ["bob", "mid"]
    assert network.peers_of("mid") == ["alice", "bob"]
    assert network.peers_of("alice") == ["bob", "mid"]
    assert sorted(network.nodes) == ["alice", "bob"]
    assert network.reachable_from("alice") == ["alice", "bob"]


def test_a_named_station_may_be_anywhere_on_the_fibre() -> None:
    network = read(('station = "mid"', 'station = "mid"\nstation_m = 2_000'))
    assert network.links["alice-bob"].arms_m == (2000.0, 8000.0)
    near, far = (network.path_delay_ns(end, "mid") for end in ("alice", "bob"))
    assert network.path_delay_ns("mid", "alice") == near < far
    assert near + far == pytest.approx(network.path_delay_ns("alice", "bob"), abs=1)


def test_the_window_of_the_clock_is_no_longer_than_an_arm() -> None:
    network = read(('station = "mid"', 'station = "mid"\nstation_m = 1'))
    assert lookahead_ns(network) == network.machine_event_ns + network.path_delay_ns("alice", "mid")
    assert lookahead_ns(network) < lookahead_ns(load_packaged_network("pair"))


def test_networks_without_named_stations_are_as_they_were() -> None:
    network = load_packaged_network("metro")
    assert network.stations == {}
    assert network.participants == sorted(network.nodes)
    assert all(link.station is None for link in network.links.values())
    assert network.world.stations == []


def test_the_digest_covers_the_stations() -> None:
    digests = [
        load_packaged_network("pair").digest,
        read().digest,
        read(('"mid"', '"centre"')).digest,
        read(('"127.0.0.1:0"\n\n[[link]]', '"127.0.0.1:7"\n\n[[link]]')).digest,
    ]
    assert len(set(digests)) == 4


def test_a_stranger_to_a_station_has_no_path_to_it() -> None:
    text = with_station("metro").replace('station = "mid"', 'station = "midpoint"')
    at = text.index('ends = ["alice", "r1"]')
    text = text[:at] + text[at:].replace('station = "midpoint"', 'station = "mid"', 1)
    network = parse_network(text, where="test")
    assert network.path_delay_ns("mid", "r1") > 0
    assert "mid" not in network.peers_of("bob")
    for ends in (("bob", "mid"), ("mid", "bob")):
        with pytest.raises(LocalError) as error:
            network.path_delay_ns(*ends)
        assert error.value.code is ErrorCode.NO_PATH


def test_stations_need_ports_where_processes_are_started_one_by_one() -> None:
    with pytest.raises(NetworkFileError) as error:
        require_ports(read(), "pair.toml")
    assert any(line.startswith("station mid: address:") for line in error.value.problems)


UNUSED = (
    "station[0].name: no link goes through 'mid'; expected a [[link]] with " + 'station = "mid"'
)
BAD_CHANGES = [
    (
        'station = "mid"', 'station = "mdi"',
        [
            UNUSED,
            "link[0].station: no station is called 'mdi'; did you mean \"mid\"?",
        ],
    ),
    (
        'station = "mid"', 'station = "elsewhere"',
        [
            UNUSED,
            "link[0].station: no station is called 'elsewhere'; expected \"midpoint\", metres, or "
            'one of "mid"',
        ],
    ),
    (
        'station = "mid"', 'station = "mid"\nstation_m = 12_000',
        ['link[0].station_m: 12000.0 m is beyond the fibre\'s 10000.0 m; expected "midpoint" or '
         "metres from the first end"],
    ),
    (
        '"mid"', '"alice"',
        ["station[0].name: a node is called 'alice'; expected its own name"],
    ),
    (
        '"mid"', '"fabric"',
        ["station[0].name: 'fabric' is reserved; expected another name"],
    ),
    (
        '"127.0.0.1:0"\n\n[[link]]', '"nowhere"\n\n[[link]]',
        ["station[0].address: 'nowhere' is not an address; expected \"host:port\""],
    ),
    (
        '"127.0.0.1:0"\n\n[[link]]', '"127.0.0.1:0"\nlength_m = 1\n\n[[link]]',
        ['station[0].length_m: unknown key; expected one of "name", "address", '
         '"driver", "driver_options"'],
    ),
    (
        '[[link]]', '[[station]]\nname = "mid"\naddress = "127.0.0.1:0"\n[[link]]',
        ["station[1].name: 'mid' is also the name of station[0]; expected a name of its own"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), BAD_CHANGES)
def test_bad_stations_are_told_apart(old: str, new: str, expected: list[str]) -> None:
    assert problems((old, new)) == expected


def test_a_photon_pair_source_may_be_in_a_named_station_too() -> None:
    text = with_station("metro")
    place = text.index('station = "midpoint"', text.index('scheme = "spdc"'))
    network = parse_network(text[:place] + text[place:].replace('"midpoint"', '"mid"', 1), where="")
    link = network.links["alice-bob"]
    assert (link.station, link.kinds) == ("mid", ("measure",))
    assert "mid" in network.peers_of("bob")


def test_links_behind_a_switch_are_refused_until_they_can_go_through_one() -> None:
    found = problems(('station = "mid"', 'station = "mid"\n[link.switch]\n'))
    assert (
        "link[0].switch: not with a station that has a name; expected no such table, or station = "
        '"midpoint" or metres'
    ) in found


def test_nodes_with_hardware_of_their_own_have_a_station_of_their_own() -> None:
    driver = ("memory = 4", 'memory = 4\ndriver = "template"')
    (problem,) = problems(driver)
    assert problem == (
        "link[0].station: nodes of driver 'template' do not meet in emulated detectors; expected "
        'a driver for [[station]] "mid", or "midpoint" or metres'
    )
