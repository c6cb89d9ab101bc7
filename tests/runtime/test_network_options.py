"""NETWORK.toml: satellites, air, switches, classical light; the example networks at work."""

import math
from pathlib import Path

import numpy as np
import pytest

from qstack.physical.link_options import AirChannel, PassChannel
from qstack.physical.models.pair_source import error_rate, gain
from qstack.physical.profiles import packaged_profile
from qstack.runtime.network_file import Network, load_network
from qstack.transport import service as transport
from qstack.wire.packed import unpack_bits
from tests.runtime.scripts import SECOND, App, WatchedNetwork
from tests.runtime.test_network_file import link, node, parsed, problems_of
from tests.runtime.test_network_pair_sources import pair_link
from tests.runtime.test_virtual import both, failures, finish

EXAMPLES = Path(__file__).parents[2] / "examples"
PASS = '[link.channel]\nprofile = "satellite"\nfirst_pass_s = 120.0\npass_interval_s = 5700.0\n'
AIR = '[link.channel]\nprofile = "free-space-city"\n'
SWITCH = '[link.switch]\nname = "s"\ninsertion_loss_db = 1.0\nreconfiguration_ns = 1000\n'
SIGNALS = 'signals = [{ launched_at = "a", power_dbm = -20.0 }]\n'
TRAFFIC = (
    "[link.classical_traffic]\nfilter_nm = 0.1\nwindow_ns = 1.0\nraman_per_km_nm = 2.5e-9\n"
    + SIGNALS
)
EFFICIENCY = "detector_efficiency = 0.8\n"
FAR: dict[str, object] = {"length_m": 1_000_000}
VISIBLE: dict[str, object] = {"wavelength_nm": 810}


def built(text: str, profile: str = "ion-published") -> Network:
    return parsed(node("a", profile), node("b", profile), text)


def test_a_link_may_go_over_a_satellite() -> None:
    text = pair_link(VISIBLE, **FAR) + PASS
    hardware = built(text).links["a-b"]
    assert isinstance(hardware.channel, PassChannel)
    assert (hardware.channel.first_pass_s, hardware.attenuation_db_per_km) == (120.0, 0.0)
    assert hardware.delay_ns == pytest.approx(4.9e6, rel=0.01)  # on the ground
    assert hardware.arm_ns("a") == pytest.approx(5e6, rel=0.1)  # to the satellite
    assert "a-b.optics_loss_db" in built(text).assumed
    turned = built(text.replace('["a", "b"]', '["b", "a"]')).links["a-b"].channel
    assert isinstance(turned, PassChannel)
    assert turned.is_turned


def test_where_a_channel_s_numbers_come_from_is_not_in_the_digest_and_they_are(
    tmp_path: Path,
) -> None:
    digests = []
    own = packaged_profile("satellite")
    for changed in (
        own,
        own.replace("Micius", "Other"),
        own.replace("value = 10.0", "value = 9.0"),
    ):
        (tmp_path / "own.toml").write_text(changed, encoding="utf-8")
        text = "".join(
            ('[network]\nname = "t"\n[fabric]\naddress = "127.0.0.1:0"\n', node("a"), node("b"))
        )
        text += pair_link(VISIBLE, **FAR) + PASS.replace('"satellite"', '"./own.toml"')
        (tmp_path / "net.toml").write_text(text, encoding="utf-8")
        digests.append(load_network(tmp_path / "net.toml").digest)
    assert digests[0] == digests[1] != digests[2]


def test_any_scheme_of_a_station_may_go_through_air() -> None:
    hardware = built(link("a", "b", length_m=3000) + AIR).links["a-b"]
    assert isinstance(hardware.channel, AirChannel)
    assert hardware.delay_ns == pytest.approx(3000 / 0.299792458 * 1.0003, abs=1)
    assert hardware.attenuation_db_per_km == 0.0


def test_a_source_may_be_that_of_a_profile() -> None:
    named = link("a", "b", scheme='"spdc"', length_m=35_000, pair_source='"photon-pair-link"')
    hardware = built(named).links["a-b"]
    assert gain(hardware.pair_source()) * 1e8 == pytest.approx(1.27e5, rel=0.01)
    assert hardware.extra_loss_db == pytest.approx(1.55)
    assert "a-b.pair_parameter" in built(named).assumed


BAD = {
    "another scheme over a satellite": (
        link("a", "b", **FAR) + PASS,
        'link[0].scheme: "double-click" over a satellite; expected "spdc" or "midpoint-source"',
    ),
    "a source on the ground": (
        pair_link(VISIBLE, station=1000.0, **FAR) + PASS,
        "link[0].station: 1000.0: the source is aboard the satellite; expected \"midpoint\"",
    ),
    "no time of a pass": (
        pair_link(VISIBLE, **FAR) + PASS.replace("first_pass_s = 120.0\n", ""),
        "link[0].channel.first_pass_s: is missing; expected seconds of network time",
    ),
    "passes too close": (
        pair_link(VISIBLE, **FAR) + PASS.replace("5700.0", "100"),
        "link[0].channel.pass_interval_s: 100 s from pass to pass, and one takes 231 s; expected",
    ),
    "a pass before the beginning": (
        pair_link(VISIBLE, **FAR) + PASS.replace("120.0", "-1.0"),
        "link[0].channel.first_pass_s: -1.0 is not allowed; expected seconds of network time",
    ),
    "fibre and a channel": (
        pair_link(VISIBLE, attenuation_db_per_km=0.2, **FAR) + PASS,
        "link[0].attenuation_db_per_km: is of fibre, and the light of this link goes through",
    ),
    "passes through the air of a city": (
        link("a", "b", length_m=3000) + AIR + "pass_interval_s = 10.0\n",
        "link[0].channel.pass_interval_s: a path through air is there at all times; expected none",
    ),
    "no such channel": (
        link("a", "b") + AIR.replace("-city", "-town"),
        "link[0].channel.profile: 'free-space-town': no profile 'free-space-town' comes with",
    ),
    "a memory for a channel": (
        link("a", "b") + AIR.replace("free-space-city", "warm-vapour-memory"),
        "link[0].channel.profile: 'warm-vapour-memory' is of kind \"memory\"; expected a profile",
    ),
    "a channel for a node": (
        node("c", "satellite"),
        'node[2].profile: \'satellite\': kind: "channel" (satellite); expected a profile of kind',
    ),
    "a node for a source": (
        link("a", "b", scheme='"spdc"', pair_source='"bench"'),
        "link[0].pair_source: 'bench' is of kind \"node\"; expected a profile of a source",
    ),
    "no such source": (
        link("a", "b", scheme='"spdc"', pair_source='"photon-pair"'),
        "link[0].pair_source: 'photon-pair': no profile 'photon-pair' comes with qstack; did you",
    ),
    "half a switch": (
        link("a", "b") + '[link.switch]\nname = "s"\ninsertion_loss_db = 1.0\n',
        "link[0].switch.reconfiguration_ns: is missing; expected whole nanoseconds, 0 to 10^12",
    ),
    "a switch that amplifies": (
        link("a", "b") + SWITCH.replace("1.0", "-1.0"),
        "link[0].switch.insertion_loss_db: -1.0 is not allowed; expected decibels, 0 to 100",
    ),
    "two times of one switch": (
        link("a", "b") + SWITCH + node("c") + link("b", "c") + SWITCH.replace("1000", "2000"),
        "link[1].switch.reconfiguration_ns: 2000 ns, and link[0] says 1000 ns of the same switch",
    ),
    "two crosstalks of one switch": (
        link("a", "b") + SWITCH + node("c") + link("b", "c") + SWITCH + "crosstalk_db = 40.0\n",
        "link[1].switch.crosstalk_db: 40.0, and link[0] says None of the same switch 's'",
    ),
    "detectors nobody knows": (
        link("a", "b") + TRAFFIC,
        "link[0].classical_traffic.detector_efficiency: is missing; expected a probability",
    ),
    "detectors known twice": (
        pair_link() + TRAFFIC + EFFICIENCY,
        "link[0].classical_traffic.detector_efficiency: is pair_source.detector_efficiency of this",
    ),
    "light from elsewhere": (
        pair_link() + TRAFFIC.replace('"a"', '"c"'),
        "link[0].classical_traffic.signals[0].launched_at: 'c' is no end; expected one of \"a\"",
    ),
    "light without a power": (
        pair_link() + TRAFFIC.replace(", power_dbm = -20.0", ""),
        "link[0].classical_traffic.signals[0].power_dbm: is missing; expected dBm at launch",
    ),
    "no light": (
        pair_link() + TRAFFIC.replace(SIGNALS, "signals = []\n"),
        "link[0].classical_traffic.signals: [] is not allowed; expected a list of 1 to 200 signals",
    ),
    "a signal that is a number": (
        pair_link() + TRAFFIC.replace(SIGNALS, "signals = [3]\n"),
        "link[0].classical_traffic.signals[0]: is 3; expected a table",
    ),
    "classical light in the air": (
        link("a", "b", length_m=3000) + AIR + TRAFFIC + EFFICIENCY,
        "link[0].classical_traffic: classical light scatters in fibre, and this link goes through",
    ),
    "a filter in metres": (
        pair_link() + TRAFFIC.replace("filter_nm", "filter_m"),
        "link[0].classical_traffic.filter_m: unknown key; this value is given in nanometres",
    ),
    "not a table": (
        link("a", "b", switch=3),
        "link[0].switch: 3 is not allowed; expected a table [link.switch]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), BAD.values(), ids=BAD.keys())
def test_an_option_that_cannot_be_is_told_what_was_expected(text: str, problem: str) -> None:
    problems = problems_of(node("a"), node("b"), text)
    assert any(line.startswith(problem) for line in problems), problems


# --- at work -------------------------------------------------------------------------------------


def agreement(apps: list[App]) -> tuple[int, int]:
    """Pairs, and how many disagree."""
    read = [
        np.concatenate(
            [unpack_bits(part.outcomes, part.pairs) for part in app.all(transport.PairsMeasured)]
        )
        for app in apps
    ]
    return len(read[0]), int((read[0] != read[1]).sum())


def test_two_stations_measure_the_pairs_of_a_satellite_while_it_passes() -> None:
    """60 pairs of the example network; 5.1 sigma of the errors, false alarm below 4e-7."""
    net = WatchedNetwork(load_network(EXAMPLES / "satellite.toml"), 3)
    net.settle()
    apps = both(net, ("north", "south"), 60, basis="Z", within_ns=400 * SECOND)
    net.settle()
    assert not failures(apps[0])
    pairs, errors = agreement(apps)
    assert pairs == 60
    hardware = net.network.links["north-south"]
    assert isinstance(hardware.channel, PassChannel)
    begin_ns = hardware.channel.stretch(0, 0).begin_ns
    source = hardware.pair_source()
    rate_hz = gain(source) * 1e8
    assert 5.0 < rate_hz < 30.0
    waited_s = (net.now_ns - begin_ns) / 1e9
    assert 60 / rate_hz / 2 < waited_s < 60.0  # fewer pairs while it is low
    expected = 60 * error_rate(source)
    assert abs(errors - expected) < 5.1 * math.sqrt(expected) + 1
    finish(net)


def test_a_satellite_that_does_not_come_in_time_is_a_request_that_is_refused() -> None:
    net = WatchedNetwork(load_network(EXAMPLES / "satellite.toml"), 3)
    net.settle()
    apps = both(net, ("north", "south"), 60, basis="Z", within_ns=2 * SECOND)
    net.settle()
    assert failures(apps[0]) == ["NO_TIME"]
    assert net.now_ns < SECOND
    finish(net)


def test_one_source_serves_two_links_of_a_city_beside_their_data() -> None:
    """Errors of both links; 5.1 sigma each, false alarm below 4e-7."""
    net = WatchedNetwork(load_network(EXAMPLES / "coexistence.toml"), 3)
    net.settle()
    first = both(net, ("alice", "bob"), 20_000, basis="Z", within_ns=100 * SECOND)
    second = both(net, ("bob", "charlie"), 20_000, 8, basis="Z", within_ns=100 * SECOND)
    net.settle()
    for apps, link_id in ((first, "alice-bob"), (second, "bob-charlie")):
        assert not failures(apps[0])
        pairs, errors = agreement(apps)
        source = net.network.links[link_id].pair_source()
        expected = pairs * error_rate(source)
        assert pairs == 20_000
        assert abs(errors - expected) < 5.1 * math.sqrt(expected)
    noisy, quiet = (net.network.links[name].pair_source() for name in ("alice-bob", "bob-charlie"))
    assert noisy.backgrounds[0] > 10 * quiet.backgrounds[0]
    finish(net)
