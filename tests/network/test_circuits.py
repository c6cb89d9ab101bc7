"""Requests and circuits: refusals, cancels, deadlines, lost links and restarted nodes."""

from typing import Any

import pytest

from qstack.ids import boot_id
from qstack.machine import FromPeer, OwnerGone, PeerDown, PeerUp, Told
from qstack.network import messages, service
from qstack.network.params import (
    CIRCUIT_IDLE_NS,
    CIRCUITS_MAX,
    ISOLATED_NS,
    NEVER_NS,
    NUMBER_MAX,
    RESUME_NS,
    RETRY_NS,
)
from qstack.physical import service as physical
from qstack.wire.message import BasisProbabilities
from tests.network.world import GOOD, SECOND, Options, World, chain

RING = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "a")]
MILLISECOND = 1_000_000


def routes(world: World) -> list[list[str]]:
    """The routes the heads have asked for, in order."""
    return [
        message.route
        for _, source, _, message in world.sent
        if isinstance(message, messages.Install) and message.route[0] == source
    ]


def failure(world: World, name: str, request: bytes) -> service.NetworkFailed:
    (failed,) = world.of(name, service.NetworkFailed, request)
    assert isinstance(failed, service.NetworkFailed)
    return failed


def errors_of(world: World, source: str) -> list[str]:
    return [m.name for _, s, _, m in world.sent if s == source and isinstance(m, messages.Error)]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"remote": "nowhere"}, "UNKNOWN_NODE"),
        ({"remote": "n0"}, "BAD_REQUEST"),
        ({"number": 0}, "BAD_REQUEST"),
        ({"number": NUMBER_MAX + 1}, "BAD_REQUEST"),
        ({"number": 10**9}, "BAD_REQUEST"),
        ({"deadline_ns": 0}, "NO_TIME"),
        ({"number": NUMBER_MAX, "deadline_ns": 2 * SECOND}, "NO_TIME"),
        ({"min_fidelity": 1.0}, "FIDELITY"),
        ({"kind": "measure"}, "BAD_REQUEST"),
        ({"basis": "X", "remote_basis": "X"}, "BAD_REQUEST"),
    ],
)
def test_what_cannot_be_is_refused_at_once(changes: dict[str, Any], error: str) -> None:
    world = World(chain(3))
    request = world.create("n0", changes.pop("remote", "n2"), **changes)
    assert world.ending("n0", request) == error
    assert not routes(world)


def test_a_number_of_pairs_at_the_limit_is_accepted() -> None:
    world = World(chain(2))
    request = world.create("n0", "n1", NUMBER_MAX, deadline_ns=world.now + 10**6 * SECOND)
    assert world.ending("n0", request) == ""


def test_the_best_fidelity_a_refusal_names_is_accepted() -> None:
    world = World(chain(4))
    request = world.create("n0", "n3", min_fidelity=0.99)
    best = failure(world, "n0", request).best
    assert best is not None
    again = world.create("n0", "n3", min_fidelity=best)
    world.run()
    assert world.ending("n0", again) == "done"
    assert world.of("n0", service.EndPair, again)[0].goodness >= best


def test_a_known_node_without_a_path_is_refused_with_no_path() -> None:
    world = World(chain(3))
    world.link_down("n1", "n2")
    world.run(world.now + SECOND)
    assert world.ending("n0", world.create("n0", "n2")) == "NO_PATH"


def test_nodes_that_cannot_hold_two_qubits_are_not_gone_through() -> None:
    world = World(chain(3), options=Options(memory=1))
    assert world.ending("n0", world.create("n0", "n2")) == "NO_PATH"
    near = world.create("n0", "n1")
    world.run()
    assert world.ending("n0", near) == "done"


def test_a_circuit_is_shared_and_taken_down_when_idle() -> None:
    world = World(chain(3))
    first = world.create("n0", "n2")
    second = world.create("n0", "n2")
    world.run()
    assert world.check("n0", "n2", first) == world.check("n0", "n2", second) == 1
    assert len(routes(world)) == 1
    world.run(world.now + CIRCUIT_IDLE_NS + SECOND)
    assert any(isinstance(message, messages.Teardown) for *_, message in world.sent)
    assert not any(list(node._circuits) for node in world.nodes.values())
    assert not world.listens


def test_a_circuit_does_not_serve_a_fidelity_above_its_own() -> None:
    world = World(chain(3), options=Options(ways=4))
    low = world.create("n0", "n2", min_fidelity=0.5)
    high = world.create("n0", "n2", min_fidelity=0.93)
    world.run()
    assert len(routes(world)) == 2
    assert world.of("n0", service.EndPair, high)[0].goodness >= 0.93
    assert world.ending("n0", low) == "done"


def test_links_may_run_below_their_best_when_less_is_asked_for() -> None:
    world = World(chain(3), options=Options(ways=4))
    world.create("n0", "n2", min_fidelity=0.8)
    world.run()
    install = next(m for *_, m in world.sent if isinstance(m, messages.Install))
    assert 0.8 <= install.fidelity < 0.9
    assert 0.8 < install.link_min_fidelity < 0.97
    offered = [o.bell_probabilities[0] for o in world.link_options(GOOD)]
    assert install.link_min_fidelity in offered


def test_a_link_with_one_option_is_promised_as_it_is() -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", min_fidelity=0.8)
    world.run()
    (pair,) = world.of("n0", service.EndPair, request)
    assert 0.92 < pair.goodness < 0.94


@pytest.mark.parametrize("who", ["n0", "n2"])
@pytest.mark.parametrize("after_ns", [*range(0, 4_000_000, 100_000)])
def test_a_cancel_ends_the_request_at_both_ends_in_every_state(who: str, after_ns: int) -> None:
    world = World(chain(3), 2, Options(rate_hz=2000.0))
    request = world.create("n0", "n2", 4)
    world.run(world.now + after_ns)
    world.cancel_request(who, request)
    world.run()
    known = any(isinstance(m, messages.Forward) for *_, m in world.sent)
    head, tail = world.ending("n0", request), world.ending("n2", request)
    assert head in ("CANCELLED", "done")
    assert tail in (("CANCELLED", "done") if known else ("",))
    world.check("n0", "n2", request)
    world.check_ledger()


@pytest.mark.parametrize("seed", range(20))
def test_the_deadline_ends_the_request_at_both_ends(seed: int) -> None:
    world = World(chain(3), seed)
    deadline_ns = world.now + 10 * MILLISECOND
    request = world.create("n0", "n2", 200, deadline_ns=deadline_ns)
    world.run()
    assert world.ending("n0", request) == world.ending("n2", request) == "TIMEOUT"
    for name in ("n0", "n2"):
        place = world.told[name].index(failure(world, name, request))
        assert world.told_at[name, place] == deadline_ns
    world.check("n0", "n2", request)
    world.check_ledger()


def test_a_deadline_that_is_none_does_not_hold_the_clock() -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", deadline_ns=NEVER_NS)
    world.link_down("n1", "n2")
    start = world.now
    world.run()
    assert world.ending("n0", request) == ""
    assert world.now < start + 10 * SECOND
    world.link_up("n1", "n2")
    world.run()
    assert world.ending("n0", request) == "done"


def test_a_refused_installation_is_tried_again_until_the_deadline() -> None:
    world = World(chain(3))
    state = world.nodes["n2"]._database.capability
    world.event("n2", Told("physical", physical.DeviceLost()))
    request = world.create("n0", "n2", deadline_ns=world.now + SECOND)
    world.run()
    assert state is not None
    assert any(isinstance(m, messages.Refused) and m.node == "n2" for *_, m in world.sent)
    assert world.ending("n0", request) == "TIMEOUT"
    assert failure(world, "n0", request).detail
    assert not world.listens


def test_a_refused_installation_succeeds_once_the_refusal_has_gone() -> None:
    world = World(chain(3))
    world.event("n2", Told("physical", physical.DeviceLost()))
    request = world.create("n0", "n2")
    world.run(world.now + 20 * MILLISECOND)
    assert world.ending("n0", request) == ""
    world.give_capability("n2")
    world.run()
    assert world.check("n0", "n2", request) == 1


def install(world: World, route: list[str], circuit: bytes = b"c" * 16) -> messages.Install:
    return messages.Install(
        circuit=circuit, epoch=1, route=route, cutoff_ns=10**6, link_min_fidelity=0.5, fidelity=0.5
    )


@pytest.mark.parametrize(
    ("route", "error"),
    [
        (["n0", "n1", "n0"], "BAD_REQUEST"),
        (["n0", "n2"], "BAD_REQUEST"),
        (["n1", "n2"], "BAD_REQUEST"),
        (["n2", "n1", "n0"], "BAD_REQUEST"),
        (["n0", "n1", "n9"], "PEER_DOWN"),
    ],
)
def test_an_impossible_route_is_refused(route: list[str], error: str) -> None:
    world = World(chain(3))
    world.event("n1", FromPeer("n0", install(world, route)))
    (refused,) = [m for *_, m in world.sent if isinstance(m, messages.Refused)]
    assert (refused.error, refused.node) == (error, "n1")
    assert not world.listens


def test_circuits_beyond_the_limit_are_refused() -> None:
    world = World(chain(2))
    for index in range(CIRCUITS_MAX + 1):
        assert not any(isinstance(m, messages.Refused) for *_, m in world.sent)
        circuit = index.to_bytes(16, "big")
        world.event("n1", FromPeer("n0", install(world, ["n0", "n1"], circuit)))
    refused = world.sent[-1][3]
    assert isinstance(refused, messages.Refused)
    assert refused.error == "NO_RESOURCES"


def test_a_circuit_id_installed_twice_is_an_error_and_harms_nothing() -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", 50)
    world.run(world.now + 3 * MILLISECOND)
    first = next(m for *_, m in world.sent if isinstance(m, messages.Install))
    world.event("n1", FromPeer("n0", first))
    assert errors_of(world, "n1") == ["OUT_OF_STATE"]
    world.run()
    assert world.check("n0", "n2", request) == 50


@pytest.mark.parametrize(
    "message",
    [
        messages.Start(circuit=b"u" * 16, epoch=1),
        messages.Installed(circuit=b"u" * 16, epoch=1),
        messages.Complete(circuit=b"u" * 16, epoch=1, request=bytes(16), error="", detail=""),
    ],
)
def test_a_message_about_an_unknown_circuit_is_answered_with_teardown(message: Any) -> None:
    world = World(chain(2))
    world.event("n1", FromPeer("n0", message))
    assert isinstance(world.sent[-1][3], messages.Teardown)
    world.run()
    assert not errors_of(world, "n0")


@pytest.mark.parametrize(
    "message",
    [
        messages.Teardown(circuit=b"u" * 16, epoch=1, error="PEER_DOWN", detail=""),
        messages.Refused(circuit=b"u" * 16, epoch=1, node="n0", error="NO_SUCH", detail=""),
        messages.Expire(circuit=b"u" * 16, epoch=1, origin="head", origin_pair=bytes(16)),
        messages.Error(name="INVALID", detail="", about=3),
    ],
)
def test_what_ends_things_is_ignored_where_nothing_is(message: Any) -> None:
    world = World(chain(2))
    sent = len(world.sent)
    world.event("n1", FromPeer("n0", message))
    assert len(world.sent) == sent


def open_circuit() -> tuple[World, messages.Install]:
    world = World(chain(3))
    world.create("n0", "n2", 10**4)
    world.run(world.now + 3 * MILLISECOND)
    return world, next(m for *_, m in world.sent if isinstance(m, messages.Install))


@pytest.mark.parametrize("peer", ["n0", "n2"])
@pytest.mark.parametrize("kind", ["Start", "Installed", "Refused", "Forward"])
def test_set_up_messages_to_an_active_circuit_are_errors(kind: str, peer: str) -> None:
    world, made = open_circuit()
    name: dict[str, Any] = {"circuit": made.circuit, "epoch": made.epoch}
    message: Any = {
        "Start": messages.Start(**name),
        "Installed": messages.Installed(**name),
        "Refused": messages.Refused(**name, node="n2", error="TIMEOUT", detail=""),
        "Forward": next(m for *_, m in world.sent if isinstance(m, messages.Forward)),
    }[kind]
    world.event("n1", FromPeer(peer, message))
    assert errors_of(world, "n1") == ["OUT_OF_STATE"]


def test_only_neighbours_on_a_circuit_have_a_say_in_it() -> None:
    world = World([*chain(3), ("n1", "x")])
    world.create("n0", "n2", 10**4)
    world.run(world.now + 3 * MILLISECOND)
    made = next(m for *_, m in world.sent if isinstance(m, messages.Install))
    for peer, epoch in (("x", made.epoch), ("x", made.epoch + 1), ("n0", made.epoch + 1)):
        down = messages.Teardown(circuit=made.circuit, epoch=epoch, error="TIMEOUT", detail="")
        world.event("n1", FromPeer(peer, down))
    assert errors_of(world, "n1") == ["OUT_OF_STATE"] * 3
    assert world.nodes["n1"]._circuits.get(made.circuit) is not None


def test_a_message_that_is_none_of_the_protocol_is_an_error() -> None:
    world = World(chain(2))
    option = messages.AdvertisedOption(bell_probabilities=[1.0, 0, 0, 0], rate_hz=1.0)
    advert = messages.AdvertisedLink(peer="n0", options=[option], delay_ns=0, kinds=[])
    world.event("n1", FromPeer("n0", advert))
    assert errors_of(world, "n1") == ["INVALID"]


def test_strangers_sessions_and_other_layers_are_ignored() -> None:
    world = World(chain(2))
    sent = len(world.sent)
    for event in (
        PeerUp("stranger", bytes(8)),
        FromPeer("nobody", messages.Error(name="INVALID", detail="", about=1)),
        OwnerGone("app/3"),
        Told("app/3", physical.DeviceReady()),
        Told("physical", physical.DeviceReady()),
        Told("transport", service.NetworkDone(request=bytes(16))),
        PeerDown("stranger"),
    ):
        world.event("n0", event)
    assert len(world.sent) == sent


@pytest.mark.parametrize("seed", range(10))
def test_an_open_request_goes_the_other_way_round_a_ring_when_a_link_fails(seed: int) -> None:
    world = World(RING, seed)
    request = world.create("a", "c", 30)
    world.run(world.now + 10 * MILLISECOND)
    assert routes(world) == [["a", "b", "c"]]
    assert 0 < len(world.of("a", service.EndPair)) < 30
    world.link_down("b", "c")
    later = world.create("a", "c", 2)
    world.run()
    assert ["a", "f", "e", "d", "c"] in routes(world)
    assert world.ending("a", request) == world.ending("a", later) == "done"
    assert world.ending("c", request) == "done"
    assert world.check("a", "c", request, is_cut=True) == 30
    assert world.check("a", "c", later, is_cut=True) == 2
    world.check_ledger()


@pytest.mark.parametrize("seed", range(10))
def test_a_node_in_between_restarts_and_the_request_ends_well(seed: int) -> None:
    world = World(chain(4), seed)
    request = world.create("n0", "n3", 20)
    world.run(world.now + 8 * MILLISECOND)
    world.restart("n1", after_ns=SECOND // 2)
    world.run()
    assert world.ending("n0", request) == world.ending("n3", request) == "done"
    assert world.check("n0", "n3", request, is_cut=True) == 20
    world.check_ledger()


@pytest.mark.parametrize("after_ns", [50 * MILLISECOND, SECOND])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_remote_that_restarts_ends_the_request_with_peer_down(count: int, after_ns: int) -> None:
    world = World(chain(count))
    tail = f"n{count - 1}"
    request = world.create("n0", tail, 10**4)
    world.run(world.now + 8 * MILLISECOND)
    start = world.now
    world.restart(tail, after_ns)
    world.run()
    assert world.ending("n0", request) == "PEER_DOWN"
    place = world.told["n0"].index(failure(world, "n0", request))
    assert world.told_at["n0", place] <= start + ISOLATED_NS + 2 * RETRY_NS
    world.check_ledger()


def test_a_tail_whose_head_does_not_come_back_gives_up() -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", 10**4)
    world.run(world.now + 8 * MILLISECOND)
    start = world.now
    world.kill("n0")
    world.run()
    assert world.ending("n2", request) == "PEER_DOWN"
    assert world.now >= start + RESUME_NS
    world.check_ledger()


def test_a_head_that_restarts_ends_its_requests_at_the_tail() -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", 10**4)
    world.run(world.now + 8 * MILLISECOND)
    world.restart("n0", 200 * MILLISECOND)
    world.run()
    assert world.ending("n2", request) == "PEER_DOWN"
    assert "restarted" in failure(world, "n2", request).detail
    world.check_ledger()


def test_a_peer_that_comes_up_with_a_new_boot_has_lost_its_circuits() -> None:
    world, _ = open_circuit()
    world.restarts["n1"] += 1
    world.event("n2", PeerUp("n1", boot_id(0, "n1", 1)))
    assert not list(world.nodes["n2"]._circuits)


@pytest.mark.parametrize("name", ["n0", "n2"])
def test_a_lost_device_at_an_end_ends_the_request_at_both(name: str) -> None:
    world, _ = open_circuit()
    (request,) = world.nodes["n0"]._heads._requests
    world.event(name, Told("physical", physical.DeviceLost()))
    world.run(world.now + SECOND)
    assert world.ending("n0", request) == world.ending("n2", request) == "DEVICE_LOST"
    assert world.ending(name, world.create(name, "n1")) == "DEVICE_LOST"
    world.check_ledger()


def test_a_lost_device_in_between_is_gone_round() -> None:
    world = World(RING)
    request = world.create("a", "c", 20)
    world.run(world.now + 8 * MILLISECOND)
    world.event("b", Told("physical", physical.DeviceLost()))
    world.run()
    assert world.check("a", "c", request, is_cut=True) == 20


def test_a_repeated_request_id_leaves_the_first_one_alone() -> None:
    world = World(chain(2))
    request = world.create("n0", "n1", 3)
    world.create("n0", "n1", 5, request=request)
    world.run()
    assert world.check("n0", "n1", request) == 3


def test_a_cancel_of_an_unknown_request_is_ignored() -> None:
    world = World(chain(2))
    world.cancel_request("n0", b"?" * 16)
    assert not world.told["n0"]


def test_measure_and_keep_share_a_single_link_circuit() -> None:
    world = World(chain(2))
    keep = world.create("n0", "n1", 3)
    read = world.create("n0", "n1", 20, kind="measure", basis="Z", remote_basis="Z")
    world.run()
    assert world.check("n0", "n1", keep) == 3
    assert world.ending("n0", read) == world.ending("n1", read) == "done"
    world.check_ledger()


def test_cancelling_a_direct_measurement_ends_it_at_both_ends() -> None:
    world = World(chain(2))
    read = world.create("n0", "n1", 10**4, kind="measure", basis="Z", remote_basis="Z")
    world.run(world.now + 8 * MILLISECOND)
    world.cancel_request("n1", read)
    world.run()
    assert world.ending("n0", read) == world.ending("n1", read) == "CANCELLED"


def test_a_route_query_tells_path_fidelity_and_rate_or_nothing() -> None:
    world = World(chain(3))
    for remote in ("n2", "nowhere", "n0"):
        world.event("n0", Told("transport", service.RouteQuery(call=4, remote=remote)))
    found, unknown, own = world.of("n0", service.RouteAnswer)
    assert found.path == ["n0", "n1", "n2"]
    assert 0.9 < found.fidelity < 0.97
    assert 0 < found.rate_hz < 1000
    assert unknown.path == own.path == []


@pytest.mark.parametrize("seed", range(8))
def test_equal_seeds_give_equal_effects(seed: int) -> None:
    first, second = World(chain(4), seed), World(chain(4), seed)
    for world in (first, second):
        world.create("n0", "n3", 3)
        world.run()
    assert first.sent == second.sent
    assert first.told == second.told


# --- links that only measure ----------------------------------------------------------------------


def triangle() -> World:
    """n0 and n2 joined over n1, and by a link of their own that only measures."""
    return World([("n0", "n1"), ("n1", "n2"), ("n0", "n2")], kinds={("n0", "n2"): ["measure"]})


def test_measured_pairs_take_the_direct_link_and_kept_ones_the_way_round() -> None:
    world = triangle()
    keep = world.create("n0", "n2", 3)
    world.run(world.now + MILLISECOND)
    read = world.create("n0", "n2", 12, kind="measure", basis="Z", remote_basis="X")
    world.run()
    assert world.check("n0", "n2", keep) == 3
    assert world.ending("n0", read) == world.ending("n2", read) == "done"
    routes = [m.route for *_, m in world.sent if isinstance(m, messages.Install)]
    assert ["n0", "n1", "n2"] in routes
    assert ["n0", "n2"] in routes
    for name in ("n0", "n2"):
        assert sum(m.pairs for m in world.of(name, service.EndMeasured, read)) == 12
    assert not world.of("n1", service.EndMeasured)
    world.check_ledger()


def test_a_circuit_of_the_direct_link_serves_no_pairs_to_keep() -> None:
    world = triangle()
    read = world.create("n0", "n2", 12, kind="measure", basis="Z", remote_basis="X")
    world.run(world.now + MILLISECOND)
    keep = world.create("n0", "n2", 2)
    world.run()
    assert world.ending("n0", read) == "done"
    assert world.check("n0", "n2", keep) == 2
    assert {m.kinds[0] for *_, s in world.sent if isinstance(s, messages.LinkState)
            for m in s.links if {s.origin, m.peer} == {"n0", "n2"}} == {"measure"}  # fmt: skip


def test_the_bases_an_end_drew_come_up_with_its_outcomes() -> None:
    world = World(chain(2))
    choice = BasisProbabilities(0.5, 0.0, 0.5)
    read = world.create("n0", "n1", 10, kind="measure", basis=choice, remote_basis="X")
    world.run()
    assert [m.bases for m in world.of("n0", service.EndMeasured, read)] == [b"\x24\x00"] * 2
    assert [m.bases for m in world.of("n1", service.EndMeasured, read)] == [b""] * 2
    (forward,) = [m for *_, m in world.sent if isinstance(m, messages.Forward)]
    assert (forward.basis, forward.remote_basis) == (choice, "X")


@pytest.mark.parametrize("what", ["channel", "link"])
def test_a_direct_measurement_ends_with_its_circuit_at_both_ends(what: str) -> None:
    """Nobody knows how many pairs the far end was told of: it does not go on elsewhere."""
    world = World(chain(2))
    read = world.create("n0", "n1", 10**4, kind="measure", basis="Z", remote_basis="Z")
    world.run(world.now + 8 * MILLISECOND)
    if what == "channel":
        world.channel_down("n0", "n1")
    else:
        world.link_down("n0", "n1")
    world.run(world.now + MILLISECOND)
    assert world.ending("n0", read) == world.ending("n1", read) == "PEER_DOWN"
