"""Test rounds on whole networks: honest links stay, links worse than their profile are left.

Nodes predict with the network file; the fabric emulates another one.
"""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from qstack.link.machine import LinkLayer
from qstack.link.params import LOOKS
from qstack.physical.fabric import Fabric
from qstack.physical.hardware import World
from qstack.physical.prediction import generation_options
from qstack.physical.profile import Profile
from qstack.runtime import virtual
from qstack.runtime.compose import compose
from qstack.runtime.layer_messages import REGISTRY, Summary
from qstack.runtime.network_file import Network, NetworkFileError, parse_network
from qstack.runtime.network_file import packaged_network as packaged
from qstack.runtime.node import Noted
from qstack.transport import service as transport
from qstack.wire.codec import encode
from qstack.wire.message import BasisChoice, BasisProbabilities
from tests.link.test_estimation import alarms_by, share_of
from tests.runtime.scripts import SECOND, App, WatchedNetwork, epr

Truth = Callable[[World], World]


class Degraded(World, frozen=True, kw_only=True):
    """The same hardware, but one link's photons interfere worse than both profiles say."""

    link: str
    visibility: float

    def end_profiles(self, link: str) -> tuple[Profile, Profile]:
        first, second = super().end_profiles(link)
        if link != self.link:
            return first, second
        return replace(first, visibility=self.visibility), replace(
            second, visibility=self.visibility
        )


def degraded(world: World, link: str, visibility: float) -> World:
    return Degraded(nodes=world.nodes, links=world.links, link=link, visibility=visibility)


def network_of(name: str, share: float) -> Network:
    text = packaged(name).replace("[network]", f"[network]\ntest_rounds = {share}", 1)
    return parse_network(text, where=name)


def started(
    monkeypatch: pytest.MonkeyPatch, network: Network, truth: World | None, seed: int
) -> WatchedNetwork:
    """The network, at rest; `truth` is what the fabric emulates."""
    if truth is not None:
        monkeypatch.setattr(virtual, "Fabric", lambda _, seed: Fabric(truth, seed))
    net = WatchedNetwork(network, seed)
    net.settle()
    return net


def between(net: WatchedNetwork, first: str, second: str, port: int, number: int) -> list[App]:
    """Pairs for an application at each end, read at once."""
    within_ns = 1000 * SECOND
    return [
        App(net, first, epr(port, second, number, is_creator=True, within_ns=within_ns)),
        App(net, second, epr(port, first, number, is_creator=False, within_ns=within_ns)),
    ]


def is_alarm(noted: Noted) -> bool:
    return noted.name == "link.alarm"


def estimates(net: WatchedNetwork, name: str) -> list[dict[str, Any]]:
    machine: Any = net.nodes[name].machines["link"]
    found: list[dict[str, Any]] = machine.summary()["estimates"]
    return found


def finish(net: WatchedNetwork) -> None:
    net.settle(10**6)
    net.run_until(net.now_ns + 3 * SECOND)
    net.check_calls()
    net.end_everything()
    net.check_empty()


def test_an_honest_link_shows_what_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    net = started(monkeypatch, network_of("pair", 0.5), None, seed=4)
    alice, bob = between(net, "alice", "bob", 7, 200)
    finish(net)
    assert len(alice.all(transport.PairDelivered)) == len(bob.all(transport.PairDelivered)) == 200
    (here,), (there,) = (estimates(net, name) for name in ("alice", "bob"))
    assert here["test_rounds"] == there["test_rounds"] > 150
    assert here["interval"][0] < here["promised"] < here["interval"][1], "95 %, seed fixed"
    assert not here["alarm"]
    machine: Any = net.nodes["alice"].machines["link"]
    said = Summary(facts=machine.summary())
    assert REGISTRY.decode(encode(said)) == said, "as a layer in its own process says it"


def test_a_link_worse_than_its_profile_alarms_within_the_predicted_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = network_of("pair", 0.5)
    (link,) = network.world.links.values()
    truth = degraded(network.world, link.id, 0.5)
    (promised,), (true,) = (generation_options(world, link) for world in (network.world, truth))
    share = share_of(promised, true.bell_probabilities[0])
    predicted = next(
        rounds
        for rounds, power in zip(LOOKS, alarms_by(promised, share), strict=True)
        if power >= 1 - 1e-6
    )
    net = started(monkeypatch, network, truth, seed=4)
    alarms: list[dict[str, Any]] = []
    net._watch = lambda _, noted: alarms.append(noted.fields) if is_alarm(noted) else None
    between(net, "alice", "bob", 7, predicted + 100)
    finish(net)
    assert [first["rounds"] in LOOKS for first in alarms[:2]] == [True, True]
    assert all(first["rounds"] <= predicted for first in alarms[:2])
    for name in ("alice", "bob"):
        (found,) = estimates(net, name)
        assert found["alarm"]
        assert found["test_rounds"] >= LOOKS[0]
        assert found["offered"] == pytest.approx(true.bell_probabilities[0], abs=0.15)


def test_paths_leave_a_link_that_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("ring", 0.5)
    truth = degraded(network.world, "alice-bob", 0.1)
    net = started(monkeypatch, network, truth, seed=4)
    circuits: Any = net.nodes["alice"].machines["network"]
    apps = between(net, "alice", "carol", 7, 150)
    net.run_until(net.now_ns + SECOND)
    assert [each["route"] for each in circuits.machine.summary()["circuits"]] == [
        ["alice", "bob", "carol"]
    ]
    finish(net)
    later = between(net, "alice", "carol", 8, 3)
    net.run_until(net.now_ns + SECOND)
    (route,) = [each["route"] for each in circuits.machine.summary()["circuits"]]
    assert route == ["alice", "frank", "erin", "dave", "carol"]
    finish(net)
    for app, number in [*((app, 150) for app in apps), *((app, 3) for app in later)]:
        assert len(app.all(transport.PairDelivered)) == number


def measured_between(net: WatchedNetwork, number: int, basis: BasisChoice) -> list[App]:
    """Pairs that both ends read, for an application at each."""
    how: dict[str, Any] = {"within_ns": 1000 * SECOND, "basis": basis}
    return [
        App(net, "alice", epr(7, "bob", number, is_creator=True, **how)),
        App(net, "bob", epr(7, "alice", number, is_creator=False, **how)),
    ]


@pytest.mark.parametrize(("name", "number"), [("pair", 200), ("metro", 10_000)])
def test_an_honest_link_shows_what_it_promises_by_measured_pairs(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    net = started(monkeypatch, network_of(name, 0.5), None, seed=4)
    apps = measured_between(net, number, BasisProbabilities(0.2, 0.0, 0.8))
    finish(net)
    for app in apps:
        assert sum(part.pairs for part in app.all(transport.PairsMeasured)) == number
    (here,), (there,) = (estimates(net, end) for end in ("alice", "bob"))
    assert {**here, "peer": ""} == {**there, "peer": ""}
    assert (here["kind"], here["alarm"]) == ("measure", False)
    assert here["test_rounds"] > 100
    assert here["interval"][0] < here["promised"] < here["interval"][1], "95 %, seed fixed"


def test_measured_pairs_find_a_link_that_is_worse_than_its_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = network_of("pair", 0.5)
    (link,) = network.world.links.values()
    truth = degraded(network.world, link.id, 0.5)
    net = started(monkeypatch, network, truth, seed=4)
    measured_between(net, 150, "X")
    finish(net)
    for name in ("alice", "bob"):
        (found,) = estimates(net, name)
        assert found["alarm"]
        assert found["offered"] < found["promised"] - 0.15


@pytest.mark.parametrize("share", ["-0.1", "0.6", '"some"', "true"])
def test_a_share_that_cannot_be_is_refused(share: str) -> None:
    text = packaged("pair").replace("[network]", f"[network]\ntest_rounds = {share}", 1)
    with pytest.raises(NetworkFileError, match="test_rounds"):
        parse_network(text, where="pair")


def test_a_link_may_have_a_share_of_its_own_alike_at_both_ends() -> None:
    share = "\ntest_rounds = 0.3"
    text = packaged("metro").replace("[network]", "[network]\ntest_rounds = 0.1", 1)
    network = parse_network(text.replace("[[link]]", "[[link]]" + share, 1), where="metro")
    own, *others = network.links.values()
    first, second = own.ends
    assert network.test_shares_of(first)[second] == network.test_shares_of(second)[first] == 0.3
    for link in others:
        assert network.test_shares_of(link.ends[0])[link.ends[1]] == 0.1
    assert parse_network(text, where="metro").digest != network.digest
    for name in network.nodes:
        machine = compose(network, name, bytes(8), 1, None).machines["link"]
        assert isinstance(machine, LinkLayer)
        shares = {peer.name: peer.test_share for peer in machine.peers.values()}
        assert shares == network.test_shares_of(name)


def test_without_a_share_there_are_no_test_rounds_and_the_digests_differ() -> None:
    without = parse_network(packaged("pair"), where="pair")
    assert without.test_rounds == 0.0
    assert without.digest != network_of("pair", 0.1).digest, "both ends sacrifice the same pairs"
