"""When a satellite's link is open, what it will yield, and memories it sends pairs to."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical.conditions import Conditions
from qstack.physical.device import MeasuredReply
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.link_options import PassChannel
from qstack.physical.models.pair_source import gain
from qstack.physical.params import PASS_TAIL_NS, PASS_UPDATES
from qstack.physical.prediction import generation_options
from qstack.physical.service import LinkCapability, LinkOptions
from tests.physical.models.test_emulated_attempts import MIDPOINT
from tests.physical.test_fabric_reference import generate, stop
from tests.physical.test_link_options import SECOND, passing, satellite_world
from tests.physical.test_photon_pair_link import within
from tests.physical.worlds import Bench, chain, started_fabric

CHANNEL = passing()  # half a minute around 20 s, and again every 100 s
BEGIN_NS, END_NS = CHANNEL.one_pass[0].begin_ns, CHANNEL.one_pass[-1].until_ns
OPENS_NS, UNTIL_NS = 20 * SECOND + BEGIN_NS, 20 * SECOND + END_NS


def memories_world(channel: PassChannel = CHANNEL) -> World:
    """Frames that go down to memories at both ends."""
    equipment = replace(MIDPOINT, pair_parameter=0.2, trials=1000, false_latch_probability=1e-5)
    link = LinkHardware(
        ends=("a", "b"),
        length_m=300_000.0,
        arms_m=(150_000.0, 150_000.0),
        scheme="midpoint-source",
        equipment=equipment,
        channel=channel,
    )
    world = chain("ab")
    return World(nodes=world.nodes, links={"a-b": link})


@pytest.mark.parametrize("at_s", [0.0, 7.0, 12.3, 20.0, 33.0, 60.0, 119.0, 1234.5])
def test_what_is_ahead_is_the_rest_of_the_pass_there_is_or_the_next_one(at_s: float) -> None:
    at_ns = round(at_s * SECOND)
    ahead = CHANNEL.ahead(at_ns)
    number = next(n for n in range(100) if 100 * n * SECOND + UNTIL_NS > at_ns)
    shift_ns = 100 * number * SECOND
    assert (ahead.opens_ns, ahead.until_ns) == (OPENS_NS + shift_ns, UNTIL_NS + shift_ns)
    assert at_ns < ahead.changes_ns <= ahead.until_ns + PASS_TAIL_NS
    left_from_ns = ahead.parts[0].begin_ns + shift_ns + 20 * SECOND
    if at_ns < ahead.opens_ns:
        assert ahead.changes_ns == left_from_ns == ahead.opens_ns
    else:
        piece_ns = (END_NS - BEGIN_NS) / PASS_UPDATES
        assert left_from_ns <= at_ns < left_from_ns + piece_ns + 2 * SECOND
    assert ahead.parts[-1] == CHANNEL.one_pass[-1]


def test_nothing_gets_through_outside_of_passes() -> None:
    middle = CHANNEL.one_pass[len(CHANNEL.one_pass) // 2].transmissions
    assert CHANNEL.at(20 * SECOND) == middle
    assert CHANNEL.at(OPENS_NS - 1) == CHANNEL.at(UNTIL_NS) == (0.0, 0.0)
    assert min(CHANNEL.at(OPENS_NS)) > 0.0


@pytest.mark.parametrize("world", [satellite_world(CHANNEL), memories_world()])
def test_the_link_layer_hears_of_windows_and_of_what_is_left_of_them(world: World) -> None:
    on = Bench(world)
    (first,) = on.heard("a", "link", LinkCapability)
    assert (first.opens_ns, first.until_ns) == (OPENS_NS, UNTIL_NS)
    on.run(120 * SECOND)
    said = [(at, m) for at, node, to, m in on.told if node == "a" and isinstance(m, LinkOptions)]
    far = on.heard("b", "link", LinkOptions)
    assert [m for _, m in said] == [replace(m, peer="b") for m in far]  # alike at both ends
    assert said[0][0] == OPENS_NS
    closing = next(number for number, (_, m) in enumerate(said) if m.opens_ns != OPENS_NS)
    assert said[closing][0] == UNTIL_NS + PASS_TAIL_NS
    assert said[closing][1].opens_ns == OPENS_NS + 100 * SECOND
    assert PASS_UPDATES // 2 <= closing <= PASS_UPDATES
    rates = [m.options[0].probability for _, m in said[:closing]]
    top = int(np.argmax(rates))
    assert top > 0  # it comes nearer first
    assert all(a > b for a, b in pairwise(rates[top:]))  # and then the rest is ever worse
    assert rates[0] == said[closing][1].options[0].probability == first.options[0].probability


def test_the_rate_ahead_is_the_mean_of_the_steps_that_are_left() -> None:
    world = satellite_world(CHANNEL)
    link = world.links["a-b"]
    at_ns = CHANNEL.ahead(26 * SECOND).parts[0].begin_ns + 20 * SECOND
    (option,) = generation_options(world, link, at_ns=at_ns)
    left = [step for step in CHANNEL.one_pass if step.begin_ns + 20 * SECOND >= at_ns]
    gains = [gain(link.pair_source(arms=step.transmissions)) for step in left]
    assert option.probability == pytest.approx(float(np.mean(gains)), rel=1e-6)


def test_memories_on_the_ground_latch_by_the_closed_form_of_each_step() -> None:
    """Frames of a pass, read at once: 5.1 deviations; as in its middle there would be 20 more."""
    channel = passing(80.0, 1000.0, elevation_min_deg=35.0)
    world = memories_world(channel)
    link, profiles = world.links["a-b"], world.end_profiles("a-b")
    opens_ns, until_ns = (
        80 * SECOND + at_ns for at_ns in (channel.one_pass[0][0], channel.one_pass[-1][1])
    )
    cycle_ns = link.cycle_ns("measure", *profiles)
    fabric = started_fabric(world, 4)
    for number, node in enumerate("ab"):
        wanted = generate(0, 1 + number, "a-b", kind="measure", pairs=10**7, basis="Z")
        fabric.apply(node, wanted)
        fabric.apply(node, stop(170 * SECOND, 3 + number, 1 + number))
    emitted: Any = []
    count = 0
    for node, _, _, message in fabric.run(171 * SECOND):
        if isinstance(message, MeasuredReply) and node == "a":
            count += message.pairs
            emitted += [message.emitted_at_ns] * bool(message.pairs)
    assert opens_ns <= min(emitted) <= max(emitted) < until_ns + SECOND // 10
    expected = 0.0
    for step in channel.one_pass:
        chance = link.herald_under(Conditions(arms=step.transmissions), *profiles).probability
        expected += chance * (step.until_ns - step.begin_ns) / cycle_ns
    assert within(count, expected)
    middle = link.herald(*profiles).probability * (until_ns - opens_ns) / cycle_ns
    assert middle - expected > 20 * math.sqrt(middle)


def test_what_was_latched_is_said_on_the_ground() -> None:
    link = memories_world().links["a-b"]
    assert link.equipment is not None
    wanted = link.equipment.train_ns + link.arm_ns("a") + link.delay_ns
    assert link.herald_back_ns("a") == link.herald_back_ns("b") == wanted


def test_only_sources_are_aboard() -> None:
    link = memories_world().links["a-b"]
    with pytest.raises(ValueError, match="a satellite sends pairs to both ends"):
        replace(link, scheme="double-click", equipment=None)
