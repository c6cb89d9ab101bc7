"""Flooded link states: which one wins, how old ones go, and that all nodes agree."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from qstack.machine import FromPeer, PeerDown, PeerUp
from qstack.network import messages
from qstack.network.params import MAX_AGE_NS, NODES_MAX, REFRESH_NS
from qstack.wire.codec import encode
from qstack.wire.frame import CONTROL_BYTES_MAX
from tests.network.world import GOOD, SECOND, Options, World, chain

OLD, NEW, NEWEST = b"old-boot", b"new-boot", b"3rd-boot"


def state(origin: str = "far", **changes: Any) -> messages.LinkState:
    values: dict[str, Any] = {
        "origin": origin, "boot_id": OLD, "sequence": 5, "age_ns": SECOND, "links": [],
        "memory": 1, "swap_ns": 0, "swap_depolarising": 0.0,
        "gate_depolarising": 0.0, "swap_flip": 0.0, "t1_s": 1.0, "t2_s": 1.0, "signature": b"",
    }  # fmt: skip
    return messages.LinkState(**(values | changes))


def held(world: World, name: str, origin: str) -> messages.LinkState | None:
    return world.nodes[name]._database.states().get(origin)


def hear(world: World, *states: messages.LinkState, peer: str = "n0") -> None:
    for each in states:
        world.event("n1", FromPeer(peer, each))


def views(world: World) -> list[dict[str, tuple[bytes, int]]]:
    return [
        {o: (s.boot_id, s.sequence) for o, s in sorted(node._database.states().items())}
        for node in world.nodes.values()
    ]


def test_all_nodes_come_to_hold_the_same_states() -> None:
    world = World([*chain(5), ("n4", "n0")])
    first, *others = views(world)
    assert len(first) == 5
    assert all(view == first for view in others)


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [
        ({"sequence": 5}, {"sequence": 6}, True),
        ({"sequence": 5}, {"sequence": 5}, False),
        ({"sequence": 5}, {"sequence": 4, "age_ns": 0}, False),
        ({"sequence": 9}, {"boot_id": NEW, "sequence": 1, "age_ns": 1}, True),
        ({"sequence": 1, "age_ns": 1}, {"boot_id": NEW, "sequence": 9}, False),
    ],
)
def test_newest_wins(first: dict[str, Any], second: dict[str, Any], wins: bool) -> None:
    world = World(chain(3))
    hear(world, state(**first))
    sent = len(world.sent)
    hear(world, state(**second))
    expected = state(**second) if wins else state(**first)
    found = held(world, "n1", "far")
    assert found is not None
    assert (found.boot_id, found.sequence) == (expected.boot_id, expected.sequence)
    assert [target for *_, target, _ in world.sent[sent:]] == (["n2"] if wins else [])


def test_two_restarts_heard_in_any_order_end_with_the_last_life() -> None:
    lives = [
        state(boot_id=OLD, sequence=40, age_ns=3 * SECOND),
        state(boot_id=NEW, sequence=7, age_ns=2 * SECOND),
        state(boot_id=NEWEST, sequence=1, age_ns=SECOND),
    ]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1], [0, 2, 1], [1, 0, 2]):
        world = World(chain(2))
        hear(world, *(lives[index] for index in order))
        found = held(world, "n1", "far")
        assert found is not None
        assert found.boot_id == NEWEST


def test_the_origin_itself_is_believed_about_its_boot() -> None:
    world = World(chain(3))
    hear(world, state("n0", boot_id=NEW, age_ns=0), peer="n2")
    hear(world, state("n0", boot_id=NEWEST, age_ns=SECOND), peer="n0")
    found = held(world, "n1", "n0")
    assert found is not None
    assert found.boot_id == NEWEST


@pytest.mark.parametrize("boot", ["own", "other"])
def test_a_node_answers_a_foreign_state_of_itself_with_a_newer_one(boot: str) -> None:
    world = World(chain(3))
    own = held(world, "n1", "n1")
    assert own is not None
    foreign = replace(own, sequence=99, boot_id=own.boot_id if boot == "own" else OLD)
    sent = len(world.sent)
    hear(world, foreign)
    answers = [m for *_, m in world.sent[sent:] if isinstance(m, messages.LinkState)]
    assert len(answers) == 2
    assert {m.boot_id for m in answers} == {own.boot_id}
    assert answers[0].sequence == (100 if boot == "own" else own.sequence + 1)
    world.run(world.now + SECOND)
    assert views(world)[0] == views(world)[1] == views(world)[2]


def test_an_echo_of_its_own_state_is_not_answered() -> None:
    world = World(chain(2))
    own = held(world, "n1", "n1")
    assert own is not None
    sent = len(world.sent)
    hear(world, own)
    assert len(world.sent) == sent


def test_states_age_on_the_way_and_while_held() -> None:
    world = World(chain(3))
    start, sent = world.now, len(world.sent)
    hear(world, state(age_ns=10))
    passed = world.sent[sent][3]
    assert isinstance(passed, messages.LinkState)
    assert passed.age_ns == 10 + world.delays[frozenset(("n1", "n2"))]
    world.run(start + SECOND)
    world.channel_down("n1", "n2")
    world.channel_up("n1", "n2")
    again = [m for _, s, t, m in world.sent if (s, t) == ("n1", "n2")][-4:]
    far = next(m for m in again if isinstance(m, messages.LinkState) and m.origin == "far")
    assert far.age_ns == passed.age_ns + SECOND


def test_dead_origins_are_forgotten_and_living_ones_stay() -> None:
    world = World(chain(3))
    world.kill("n2")
    assert held(world, "n0", "n2") is not None
    world.run(world.now + MAX_AGE_NS + 2 * REFRESH_NS)
    assert [sorted(world.nodes[n]._database._held) for n in ("n0", "n1")] == [["n0", "n1"]] * 2


def test_a_state_of_too_great_an_age_is_not_accepted() -> None:
    world = World(chain(2))
    hear(world, state("old", age_ns=MAX_AGE_NS), state("older", age_ns=MAX_AGE_NS + 1))
    assert held(world, "n1", "old") is not None
    assert held(world, "n1", "older") is None


def test_a_partition_heals_to_equal_views() -> None:
    world = World(chain(4))
    world.channel_down("n1", "n2")
    world.link_down("n0", "n1")
    world.restart("n3")
    world.run(world.now + 3 * SECOND)
    assert views(world)[0] != views(world)[3]
    world.link_up("n0", "n1")
    world.channel_up("n1", "n2")
    world.run(world.now + SECOND)
    first, *others = views(world)
    assert all(view == first for view in others)


def test_the_database_is_bounded() -> None:
    world = World(chain(2))
    for index in range(NODES_MAX + 5):
        hear(world, state(f"x{index}"))
    assert len(world.nodes["n1"]._database._held) == NODES_MAX
    hear(world, state("x1", sequence=6))
    found = held(world, "n1", "x1")
    assert found is not None
    assert found.sequence == 6


def test_a_lost_channel_or_link_is_advertised_at_once() -> None:
    for lose in ("channel", "link"):
        world = World(chain(3))
        if lose == "channel":
            world.event("n1", PeerDown("n2"))
        else:
            world.link_down("n1", "n2", tell=("n1",))
        own = held(world, "n1", "n1")
        assert own is not None
        assert [link.peer for link in own.links] == ["n0"]


def test_a_channel_to_a_stranger_changes_nothing() -> None:
    world = World(chain(2))
    before, sent = held(world, "n1", "n1"), len(world.sent)
    world.event("n1", PeerUp("stranger", bytes(8)))
    assert held(world, "n1", "n1") == before
    assert len(world.sent) == sent


def test_every_option_of_a_link_is_advertised() -> None:
    world = World(chain(2), options=Options(ways=5))
    own = held(world, "n1", "n0")
    assert own is not None
    (advert,) = own.links
    expected = [(o.bell_probabilities, o.rate_hz) for o in world.link_options(GOOD)]
    assert [(o.bell_probabilities, o.rate_hz) for o in advert.options] == expected


def test_a_node_of_very_many_links_still_fits_its_state_into_a_message() -> None:
    names = [f"{'n' * 58}{index}" for index in range(300)]
    world = World([("hub", name) for name in names[:3]], options=Options(ways=19))
    database = world.nodes["hub"]._database
    one = database.links[names[0]]
    for name in names:
        database._channels[name] = bytes(8)
        database.links[name] = replace(one, peer=name, delay_ns=2**40)
    adverts = database._advertised()
    assert len(adverts) == 256
    assert all(advert.options[0].bell_probabilities == GOOD for advert in adverts)
    assert len(encode(state(links=adverts)).body) < CONTROL_BYTES_MAX
    few = list(database.links)[:48]
    database.links = {name: database.links[name] for name in few}
    adverts = database._advertised()
    assert [len(advert.options) for advert in adverts] == [8] * 48
    assert len(encode(state(links=adverts)).body) < CONTROL_BYTES_MAX


@pytest.mark.parametrize(
    "changes",
    [
        {"options": []},
        {"options": [{"bell_probabilities": [1.0, 0.0, 0.0], "rate_hz": 1.0}]},
        {"options": [{"bell_probabilities": [1.5, 0.0, 0.0, 0.0], "rate_hz": 1.0}]},
        {"options": [{"bell_probabilities": [1.0, 0.0, 0.0, 0.0], "rate_hz": -1.0}]},
        {"options": [{"bell_probabilities": [1.0, 0.0, 0.0, 0.0], "rate_hz": 1.0}] * 33},
    ],
)
def test_an_advertised_link_has_a_bounded_number_of_sensible_options(
    changes: dict[str, Any],
) -> None:
    advert = {"peer": "n1", "delay_ns": 1, "kinds": []} | changes
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(advert, messages.AdvertisedLink)
