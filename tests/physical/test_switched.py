"""Links that share a switch: what nodes predict of their turns, and light that strays."""

import math
from typing import Any

import pytest
from msgspec.structs import replace

from qstack.physical.hardware import LinkHardware, World
from qstack.physical.link_equipment import SCHEME_OF, Equipment
from qstack.physical.link_options import Switch
from qstack.physical.models.heralding import double_click
from qstack.physical.params import SWITCH_HOLD_NS
from qstack.physical.prediction import generation_options
from qstack.physical.service import MeasuredPairs
from qstack.physical.switched import with_crosstalk
from tests.physical.calls import MS
from tests.physical.models.test_emulated_attempts import ABSORPTIVE, MIDPOINT
from tests.physical.test_drift_of_schemes import retrieved
from tests.physical.test_link_options import measuring
from tests.physical.worlds import PERFECT, Bench, chain, source_world
from tests.runtime.scripts import SECOND, WatchedNetwork
from tests.runtime.test_network_file import link, node, parsed
from tests.runtime.test_virtual import both, failures, finish

SWITCH = Switch(name="s", insertion_loss_db=0.0, reconfiguration_ns=5 * MS)
LEAKY = replace(SWITCH, crosstalk_db=20.0)


def two(switch: Switch, first: dict[str, Any], second: dict[str, Any]) -> dict[str, LinkHardware]:
    """Links a-b and c-d behind one switch, arms without loss."""
    links = {}
    for ends, fields in ((("a", "b"), first), (("c", "d"), second)):
        links["-".join(ends)] = LinkHardware(
            ends=ends,
            length_m=300.0,
            arms_m=(100.0, 200.0),
            attenuation_db_per_km=0.0,
            switch=switch,
            **({"scheme": "double-click"} | fields),
        )
    return links


def equipped(equipment: Equipment) -> dict[str, Any]:
    return {"scheme": SCHEME_OF[type(equipment)], "equipment": equipment}


# --- crosstalk ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "sent"),
    [
        ({}, 0.4),
        ({"scheme": "single-click"}, 0.4 * 0.25),
        (equipped(ABSORPTIVE), 2 * 0.1 * 0.7),
        (equipped(retrieved()), 0.6 * 0.7),
        (equipped(MIDPOINT), 0.0),
    ],
)
def test_a_hundredth_of_what_both_others_send_reaches_both_detectors(
    other: dict[str, Any], sent: float
) -> None:
    profile = replace(PERFECT, coupling=0.4, bright_state_default=0.25)
    lit = with_crosstalk(two(LEAKY, {}, other), dict.fromkeys("abcd", profile))
    each = 0.01 * sent / 2
    stray = 1.0 - (1.0 - each) ** 2
    assert lit["a-b"].stray_probability == pytest.approx(stray)
    heralded = lit["a-b"].herald(profile, profile)
    expected = double_click(eta_a=0.4, eta_b=0.4, dark_probability=stray)
    assert heralded.probability == pytest.approx(expected.probability)
    assert heralded.state == pytest.approx(expected.state)


def test_without_a_figure_or_with_a_switch_of_its_own_nothing_strays() -> None:
    apart = {
        name: replace(each, switch=replace(LEAKY, name=name))
        for name, each in two(LEAKY, {}, {}).items()
    }
    for links in (two(SWITCH, {}, {}), apart):
        assert with_crosstalk(links, dict.fromkeys("abcd", PERFECT)) == links


# --- waiting --------------------------------------------------------------------------------------


def test_a_node_predicts_its_turns() -> None:
    world = chain("abc", 0.01)
    shared = World(
        nodes=world.nodes,
        links={name: replace(each, switch=SWITCH) for name, each in world.links.items()},
    )
    alone = World(nodes=world.nodes, links={"a-b": shared.links["a-b"], "b-c": world.links["b-c"]})
    (free,) = generation_options(alone, alone.links["a-b"])
    (plain,) = generation_options(world, world.links["a-b"])
    (turns,) = generation_options(shared, shared.links["a-b"])
    assert free == plain
    assert turns.probability == plain.probability
    assert turns.cycle_ns == math.ceil(2 * (plain.cycle_ns + 5 * MS * plain.probability))
    slower = 2 * (1 + 5 * MS / SWITCH_HOLD_NS)
    assert turns.measure_cycle_ns == math.ceil(plain.measure_cycle_ns * slower)


def test_pair_sources_have_their_share_in_the_probability_of_a_slot() -> None:
    world = source_world()
    (plain,) = generation_options(world, world.links["a-b"])
    one = replace(world.links["a-b"], switch=SWITCH)
    shared = World(nodes=world.nodes, links={"a-b": one, "a-c": replace(one, ends=("a", "c"))})
    (turns,) = generation_options(shared, one)
    assert turns.probability == pytest.approx(plain.probability / 2 / 1.05)
    assert turns.cycle_ns == plain.cycle_ns


def test_measured_pairs_come_as_predicted_where_links_take_turns() -> None:
    """Four seconds, both links on and on: 5.1 deviations of the pairs, and a turn's part of them.

    Without waiting there would be twice as many.
    """
    world = chain("abc", 0.001, memory=8)
    links = {name: replace(each, switch=SWITCH) for name, each in world.links.items()}
    on = Bench(World(nodes=world.nodes, links=links))
    for name, at in (("a", "a-b"), ("b", "a-b"), ("b", "b-c"), ("c", "b-c")):
        token = at[0].encode() * 16
        on.tell(name, "link", measuring(1 if at == "a-b" else 2, "Z", link=at, token=token))
    on.run(4000 * MS)
    for name, at in (("a", "a-b"), ("c", "b-c")):
        (option,) = generation_options(on.world, links[at])
        expected = 4000 * MS / option.measure_cycle_ns * option.probability
        count = sum(part.pairs for part in on.heard(name, "link", MeasuredPairs))
        assert abs(count - expected) < 5.1 * math.sqrt(expected) + 0.05 * expected


def test_kept_pairs_come_as_predicted_where_links_take_turns() -> None:
    """Both links wanted all the time: the time of 400 pairs in all, 5.1 deviations and 5 %.

    Without waiting it would be less than half.
    """
    switch = '[link.switch]\nname = "s"\ninsertion_loss_db = 1.0\nreconfiguration_ns = 3000000\n'
    ions = [node(name, "ion-projected") for name in "abc"]
    network = parsed(
        *ions, link("a", "b", length_m=10_000) + switch, link("b", "c", length_m=10_000) + switch
    )
    net = WatchedNetwork(network, 3)
    net.settle()
    began_ns = net.now_ns
    apps = [*both(net, ("a", "b"), 200, 7), *both(net, ("c", "b"), 200, 8)]
    net.settle()
    assert not any(failures(app) for app in apps)
    world = network.world
    (option,) = generation_options(world, world.links["a-b"])
    expected_ns = 200 * option.cycle_ns / option.probability
    took_ns = net.now_ns - began_ns
    assert abs(took_ns - expected_ns) < (5.1 / math.sqrt(400) + 0.05) * expected_ns
    assert took_ns < 1000 * SECOND
    finish(net)
