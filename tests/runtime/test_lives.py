"""Who is up for which layer, as layers die alone here and at peers."""

from qstack.ids import layer_boot_id
from qstack.machine import FABRIC, PeerDown, PeerUp
from qstack.physical.device import Clear, Cleared, Initialised
from qstack.runtime.life_messages import LayerBegun, LayerGone, LayerKnown
from qstack.runtime.lives import LAYERS, Lives

NODE, BOB = b"alice---", b"bob-----"
FIRST, SECOND = (layer_boot_id(NODE, "link", number) for number in (1, 2))


def lives(*peers: str) -> Lives:
    made = Lives(NODE)
    for peer in peers:
        assert made.peer_up(peer, BOB, 0) == [(layer, PeerUp(peer, BOB)) for layer in LAYERS]
    return made


def begun(made: Lives, layer: str) -> list[object]:
    made.layer_gone(layer, 5)
    handed = made.layer_up(layer, 6)
    assert handed == []
    return [message for _, message in made.take()]


def test_peers_are_up_for_all_layers_and_told_nothing_while_no_layer_dies_alone() -> None:
    made = lives("bob")
    assert made.is_plain
    assert made.peer_up("bob", BOB, 1) == []
    assert made.peer_down("bob", is_refusal=False) == [(x, PeerDown("bob")) for x in LAYERS]
    assert made.peer_down("bob", is_refusal=False) == []
    assert made.take() == []


def test_a_new_life_learns_of_a_peer_when_that_knows_of_it_and_not_before() -> None:
    made = lives("bob")
    made.layer_gone("link", 5)
    assert made.take() == [("bob", LayerGone(layer="link"))]
    assert made.is_void("bob", "link")
    assert not made.is_void("bob", "network")
    assert made.layer_up("link", 6) == []
    assert made.take() == [("bob", LayerBegun(layer="link", boot_id=FIRST))]
    assert made.is_void("bob", "link")
    late = LayerKnown(layer="link", boot_id=SECOND)
    assert made.heard("bob", late) == []
    assert made.is_void("bob", "link")
    known = LayerKnown(layer="link", boot_id=FIRST)
    assert made.heard("bob", known) == [("link", PeerUp("bob", BOB))]
    assert not made.is_void("bob", "link")


def test_every_life_has_a_boot_id_of_its_own() -> None:
    made = lives("bob")
    first, second = begun(made, "link"), begun(made, "link")
    assert first[1] == LayerBegun(layer="link", boot_id=FIRST)
    assert second[1] == LayerBegun(layer="link", boot_id=SECOND)
    assert made.boot_id_of("link") == SECOND
    assert made.boot_id_of("network") == NODE
    stale = LayerKnown(layer="link", boot_id=FIRST)
    assert made.heard("bob", stale) == []


def test_a_layer_sees_the_same_layer_of_a_peer_go_and_come() -> None:
    made = lives("bob")
    assert made.heard("bob", LayerGone(layer="link")) == [("link", PeerDown("bob"))]
    assert made.is_away_there("bob", "link")
    assert not made.is_away_there("bob", "network")
    come = LayerBegun(layer="link", boot_id=FIRST)
    assert made.heard("bob", come) == [("link", PeerDown("bob")), ("link", PeerUp("bob", FIRST))]
    assert made.take() == [("bob", LayerKnown(layer="link", boot_id=FIRST))]
    assert not made.is_away_there("bob", "link")


def test_what_a_peer_said_of_its_layers_holds_for_its_life_and_no_longer() -> None:
    made = lives("bob")
    made.heard("bob", LayerBegun(layer="link", boot_id=FIRST))
    made.heard("bob", LayerGone(layer="transport"))
    made.peer_down("bob", is_refusal=False)
    up = dict(made.peer_up("bob", BOB, 9))
    assert up["link"] == PeerUp("bob", FIRST)
    assert up["network"] == PeerUp("bob", BOB)
    assert "transport" not in up
    again = dict(made.peer_up("bob", b"another-", 9))
    assert again["link"] == again["transport"] == PeerUp("bob", b"another-")


def test_both_ends_may_begin_anew_at_once() -> None:
    made = lives("bob")
    begun(made, "link")
    theirs = LayerBegun(layer="link", boot_id=SECOND)
    assert made.heard("bob", theirs) == [("link", PeerDown("bob"))], "bob does not know us yet"
    known = LayerKnown(layer="link", boot_id=FIRST)
    assert made.heard("bob", known) == [("link", PeerUp("bob", SECOND))]


def test_what_a_lost_channel_may_have_swallowed_is_said_again() -> None:
    made = lives("bob")
    begun(made, "link")
    made.peer_down("bob", is_refusal=False)
    known = LayerKnown(layer="link", boot_id=FIRST)
    assert made.heard("bob", known) == [], "there is no channel any more"
    assert "link" not in dict(made.peer_up("bob", BOB, 9))
    assert made.take() == [("bob", LayerBegun(layer="link", boot_id=FIRST))]
    made.heard("bob", known)
    made.peer_down("bob", is_refusal=False)
    assert "link" in dict(made.peer_up("bob", BOB, 10))
    assert made.take() == []


def test_a_peer_that_met_no_former_life_is_told_of_the_link_layer_only() -> None:
    made = lives()
    begun(made, "link")
    begun(made, "transport")
    made.layer_gone("network", 7)
    up = dict(made.peer_up("bob", BOB, 9))
    assert "transport" in up
    assert "link" not in up
    assert "network" not in up
    assert made.take() == [
        ("bob", LayerBegun(layer="link", boot_id=FIRST)),
        ("bob", LayerGone(layer="network")),
    ]


def test_the_device_is_cleared_and_void_until_it_says_so() -> None:
    made = lives(FABRIC)
    answer = Initialised(operation=3)
    assert made.admits(answer)
    made.layer_gone("physical", 5)
    [(peer, clear)] = made.take()
    assert peer == FABRIC
    assert isinstance(clear, Clear)
    assert (clear.at_ns, clear.boot_id) == (5, layer_boot_id(NODE, "physical", 1))
    assert not made.admits(answer)
    assert made.layer_up("physical", 6) == []
    assert not made.admits(Cleared(operation=clear.sequence - 1))
    cleared = Cleared(operation=clear.sequence)
    assert made.admits(cleared)
    assert made.admits(answer)
    assert made.heard(FABRIC, cleared) == [("physical", PeerUp(FABRIC, BOB))]


def test_a_physical_layer_that_comes_after_the_answer_learns_of_the_device_at_once() -> None:
    made = lives(FABRIC)
    made.layer_gone("physical", 5)
    [(_, clear)] = made.take()
    assert isinstance(clear, Clear)
    cleared = Cleared(operation=clear.sequence)
    assert made.admits(cleared)
    assert made.heard(FABRIC, cleared) == []
    assert made.layer_up("physical", 6) == [("physical", PeerUp(FABRIC, BOB))]


def test_a_device_that_returns_is_cleared_again_for_a_layer_that_died_alone() -> None:
    made = lives()
    made.layer_gone("physical", 5)
    assert made.take() == [], "no device is there"
    assert made.admits(Initialised(operation=3))
    made.layer_up("physical", 6)
    made.peer_up(FABRIC, BOB, 7)
    made.peer_down(FABRIC, is_refusal=False)
    assert "physical" not in dict(made.peer_up(FABRIC, BOB, 8))
    [(_, clear)] = made.take()
    assert isinstance(clear, Clear)
    assert clear.at_ns == 8
