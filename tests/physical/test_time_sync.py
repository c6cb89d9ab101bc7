"""Clocks of two nodes compared over their link, and what becomes of attempts meanwhile."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.machine import FABRIC, Effect, Event, FromPeer, PeerDown, PeerUp, Record, Tell
from qstack.physical.clock_hardware import ClockHardware, LinkTiming
from qstack.physical.conditions import Conditions
from qstack.physical.device import AlignClock, ClockReading, PulseStamped, SendPulse
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.hardware import LinkHardware, NodeHardware, Scheme, World
from qstack.physical.messages import ClockStamps, ClockState
from qstack.physical.prediction import generation_options
from qstack.physical.service import (
    AttemptsStart,
    Detections,
    Free,
    Heralded,
    LinkCapability,
    LinkOptions,
)
from qstack.wire.message import Message
from tests.physical.worlds import PERFECT, Bench, chi_square_limit, source_world, started_fabric

SECOND = 1_000_000_000
MS = 1_000_000
WIDTH_PS = 10_000.0


def clock(offset_ps: float = 0.0, drift_ppb: float = 0.0, jitter_ps: float = 0.0) -> ClockHardware:
    return ClockHardware(
        offset_ps=offset_ps, drift_ppb=drift_ppb, accuracy_ppb=20.0, jitter_ps=jitter_ps
    )


def timed_world(
    first: ClockHardware | None,
    second: ClockHardware | None,
    asymmetry_ps: float = 0.0,
    scheme: Scheme = "double-click",
    **profile: Any,
) -> World:
    """Nodes a and b, 300 m apart, with these clocks."""
    hardware = replace(PERFECT, **({"coupling": 0.3} | profile))
    link = LinkHardware(
        ends=("a", "b"),
        length_m=300.0,
        arms_m=(100.0, 200.0),
        scheme=scheme,
        timing=LinkTiming(
            asymmetry_ps=asymmetry_ps,
            wavepacket="exponential",
            width_ps=WIDTH_PS,
            gate_ps=5.0 * WIDTH_PS,
        ),
    )
    clocks = {"a": first, "b": second}
    nodes = {
        name: NodeHardware(name=name, profile=hardware, memory=4, clock=each)
        for name, each in clocks.items()
    }
    return World(nodes=nodes, links={link.id: link})


Faults = Callable[[Message, int], list[int]]
"""What becomes of a message sent at a time: after how long it comes, each time."""


def lost_after(last_ns: int) -> Faults:
    """Nothing said from then on gets through."""
    return lambda _, now: [1_500] if now < last_ns else []


class TimedBench(Bench):
    """Two neighbours that meet; `records` are what they noted, `sent` what they said."""

    def __init__(self, world: World, seed: int = 0, faults: Faults | None = None) -> None:
        self.faults = faults
        self.records: list[str] = []
        self.sent: list[tuple[int, Message]] = []
        super().__init__(world, seed)
        self.handle("a", PeerUp("b", b"b" * 8))
        self.handle("b", PeerUp("a", b"a" * 8))

    def handle(self, node: str, event: Event) -> list[Effect]:
        effects = super().handle(node, event)
        self.records += [effect.name for effect in effects if isinstance(effect, Record)]
        return effects

    def post(self, node: str, peer: str, message: Message) -> None:
        self.sent.append((self.now, message))
        if self.faults is None:
            super().post(node, peer, message)
            return
        for after_ns in self.faults(message, self.now):
            self._push(self.now + after_ns, node, peer, FromPeer(node, message))

    def clocks(self, node: str) -> dict[str, Any]:
        (report,) = self.nodes[node].summary()["clocks"].values()
        return dict(report)

    def delay_ps(self) -> float:
        """The truth: how much later than it should b's light comes."""
        return self.fabric._clocks.delay_ps("a-b", self.now)


# --- the estimate --------------------------------------------------------------------------------


@pytest.mark.parametrize("asymmetry_ps", [0.0, 600.0, -1_234.0])
def test_asymmetry_biases_the_offset_by_half_of_it_exactly(asymmetry_ps: float) -> None:
    bench = TimedBench(timed_world(clock(4_000.0), clock(-1e9), asymmetry_ps))
    bench.run(5 * SECOND)
    expected = -1e9 - 4_000.0 + asymmetry_ps / 2.0
    assert bench.clocks("b")["offset_ps"] == expected
    assert bench.clocks("a")["offset_ps"] == -expected
    assert bench.delay_ps() == asymmetry_ps / 2.0


def test_offset_and_rate_of_drifting_clocks_are_found() -> None:
    bench = TimedBench(timed_world(clock(0.0, 7.0), clock(5e6, -4.0)))
    bench.run(20 * SECOND)
    report = bench.clocks("b")
    assert report["rate_ppb"] == pytest.approx(-11.0, abs=1e-3)
    truth_ps = 5e6 - 11.0 * 20_000.0
    assert report["offset_ps"] == pytest.approx(truth_ps, abs=11.0 * 1_000.0)  # a second old
    assert abs(bench.delay_ps()) < 5.0
    assert report["steps"] == 0


def test_between_exchanges_the_error_grows_with_what_is_not_known_of_the_rate() -> None:
    """After one comparison the rate is not known at all: drift times time, exactly."""
    world = timed_world(clock(0.0, 0.0), clock(100.0, 3.0))
    bench = TimedBench(world, faults=lost_after(100_000))
    for until_ns in (5 * MS, 600 * MS):
        bench.run(until_ns)
        assert bench.clocks("b")["comparisons"] == 1
        assert bench.delay_ps() == pytest.approx(-3.0 * until_ns * 1e-6, abs=1.0)


def test_the_error_is_what_the_uncertainty_says() -> None:
    """Jitter of 50 ps, many seeds: the sum of squared errors by their variance is chi-square."""
    squares = []
    for seed in range(60):
        bench = TimedBench(timed_world(clock(0.0, 2.0, 50.0), clock(1e5, -9.0, 50.0)), seed=seed)
        bench.run(150 * MS)  # three comparisons
        follower = bench.nodes["b"]._time_sync._links["a"].filter
        assert follower.comparisons == 3
        squares.append((bench.delay_ps() / follower.deviation_ps(bench.now)) ** 2)
    assert sum(squares) < chi_square_limit(60)
    assert sum(squares) > 60 - 4.75 * math.sqrt(120)


def test_stamps_of_a_clock_have_its_jitter() -> None:
    fabric = started_fabric(timed_world(clock(0.0, 0.0, 30.0), None))
    delay_ns = timed_world(None, None).links["a-b"].delay_ns
    readings = []
    for number in range(400):
        pulse = SendPulse(at_ns=number * 10_000, sequence=number, link="a-b", pulse=number)
        fabric.apply("a", pulse)
        for delivery in fabric.run((number + 1) * 10_000):
            stamp = delivery.message
            assert isinstance(stamp, PulseStamped)
            if stamp.is_sent:
                readings.append(stamp.reading.whole_ps - number * 10_000_000)
            else:  # b's clock is perfect
                assert stamp.reading.whole_ps == (number * 10_000 + delay_ns) * 1000
    assert abs(np.mean(readings)) < 5.0 * 30.0 / math.sqrt(400)
    assert np.std(readings) == pytest.approx(30.0, rel=5.0 / math.sqrt(800))


# --- what is said of it --------------------------------------------------------------------------


def test_a_link_yields_nothing_until_its_clocks_are_compared_twice() -> None:
    bench = TimedBench(timed_world(clock(1e6), clock(0.0)))
    for node in "ab":
        (capability,) = bench.heard(node, "link", LinkCapability)
        assert capability.options == []
        assert bench.heard(node, "link", LinkOptions) == []
    bench.run(10 * SECOND)
    for node in "ab":
        told = bench.heard(node, "link", LinkOptions)
        assert 1 <= len(told) <= 4  # then nothing changes
        assert all(each.options for each in told)


def test_both_ends_expect_the_same_and_less_than_with_perfect_clocks() -> None:
    world = timed_world(clock(1e6, 1.0, 1_000.0), clock(0.0, 2.0, 1_000.0))
    bench = TimedBench(world)
    bench.run(30 * SECOND)
    last = [bench.heard(node, "link", LinkOptions)[-1].options for node in "ab"]
    assert last[0] == last[1]
    (ideal,) = generation_options(world, world.links["a-b"])
    (expected,) = last[0]
    assert expected.bell_probabilities[0] < ideal.bell_probabilities[0] - 0.02
    assert expected.probability < ideal.probability
    deviation_ps = bench.clocks("b")["deviation_ps"]
    assert 2 * 1_000.0 * math.sqrt(2.0) > deviation_ps >= 1_000.0 * math.sqrt(2.0)


def test_a_herald_is_as_good_as_is_expected_under_the_clocks() -> None:
    bench = TimedBench(timed_world(clock(1e6, 0.0, 2_000.0), clock(0.0, 0.0, 2_000.0)))
    bench.run(3 * SECOND)
    start = AttemptsStart(
        batch=0, link="a-b", token=b"t" * 16, kind="keep", bright_state=None, pairs=1, basis=None
    )
    for node in "ab":
        bench.tell(node, "link", start)
    bench.run(bench.now + SECOND)
    (herald,) = bench.heard("a", "link", Heralded)
    expected = bench.heard("a", "link", LinkOptions)[-1].options[0].bell_probabilities[0]
    assert herald.goodness == pytest.approx(expected, abs=1e-9)


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.2, 0.6])
@pytest.mark.parametrize("kind", ["lost", "twice", "late"])
def test_messages_may_be_lost_repeated_or_late(kind: str, rate: float) -> None:
    rng = np.random.default_rng(7)

    def faults(_: Message, now: int) -> list[int]:
        if now < 200 * MS or rng.random() >= rate:
            return [1_500]
        if kind == "lost":
            return []
        return [1_500, 400 * MS] if kind == "twice" else [int(rng.choice([700, 1_700])) * MS]

    bench = TimedBench(timed_world(clock(0.0, 5.0), clock(3e6, -5.0)), faults=faults)
    bench.run(40 * SECOND)
    report = bench.clocks("b")
    assert report["steps"] == 0
    assert 8 < report["comparisons"] < 44
    assert report["rate_ppb"] == pytest.approx(-10.0, abs=1e-2)
    assert abs(bench.delay_ps()) < 30.0
    expected_losses = 0 if kind == "twice" else 1
    assert ("physical.clock_exchange_lost" in bench.records) == bool(expected_losses)
    if kind != "lost":
        assert "physical.clock_stamps_late" in bench.records


def test_while_no_exchange_succeeds_less_and_less_is_expected_of_the_link() -> None:
    world = timed_world(clock(0.0, 5.0, 20.0), clock(0.0, -5.0, 20.0))
    bench = TimedBench(world, faults=lost_after(2 * SECOND))
    bench.run(3 * SECOND)
    before = bench.clocks("b")["deviation_ps"]
    bench.run(100 * SECOND)
    assert bench.clocks("b")["deviation_ps"] > 4.0 * before
    assert bench.clocks("b")["comparisons"] == 4


def test_an_uncertain_channel_does_not_change_what_is_expected_all_the_time() -> None:
    """Half of the exchanges are lost: what is expected goes down at once, and up seldom."""
    rng = np.random.default_rng(3)

    def half(message: Message, _: int) -> list[int]:
        return [] if isinstance(message, ClockStamps) and rng.random() < 0.5 else [1_500]

    world = timed_world(clock(0.0, 5.0, 1.0), clock(0.0, -5.0, 1.0))
    bench = TimedBench(world, faults=half)
    bench.run(300 * SECOND)
    report = bench.clocks("b")
    assert 100 < report["comparisons"] < 200
    changes = [len(bench.heard(node, "link", LinkOptions)) for node in "ab"]
    assert changes[0] == changes[1] < 30
    assert report["deviation_ps"] < 16.0


def test_a_neighbour_that_went_and_came_back_is_compared_at_once_and_nothing_forgotten() -> None:
    bench = TimedBench(timed_world(clock(0.0, 5.0), clock(3e6, -5.0)))
    bench.run(3 * SECOND)
    bench.handle("b", PeerDown("a"))
    bench.handle("a", PeerDown("b"))
    sent = len(bench.sent)
    bench.run(60 * SECOND)
    assert len(bench.sent) == sent
    for node, peer in ("ab", "ba"):
        bench.handle(node, PeerUp(peer, b"n" * 8))
    bench.run(bench.now + MS)
    report = bench.clocks("b")
    assert report["comparisons"] == 6  # 10 and 100 ms, and three after a second each
    assert report["steps"] == 0
    assert abs(bench.delay_ps()) < 5.0


def test_a_device_that_comes_back_knows_nothing_of_its_clock() -> None:
    bench = TimedBench(timed_world(clock(0.0), clock(3e6)))
    bench.run(3 * SECOND)
    bench.fabric.node_down("b", bench.now)
    bench.handle("b", PeerDown(FABRIC))
    assert bench.delay_ps() == -3e6
    bench.fabric.node_up("b", b"another!")
    bench.handle("b", PeerUp(FABRIC, b"fabricid"))
    bench.run(bench.now + 50 * MS)
    assert bench.clocks("b")["comparisons"] == 2
    assert bench.delay_ps() == 0.0


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("a", ClockStamps(pulse=0, received=ClockReading(0, 0), returned=ClockReading(0, 0))),
        ("b", ClockState(offset_ps=0.0, deviation_ps=None)),
    ],
)
def test_what_the_far_end_has_not_to_say_is_refused(node: str, message: Message) -> None:
    bench = TimedBench(timed_world(clock(), clock(1.0)))
    bench.run(SECOND)
    bench.records.clear()
    bench.handle(node, FromPeer("a" if node == "b" else "b", message))
    assert bench.records == ["physical.refused"]


def test_stamps_that_cannot_be_are_refused_and_the_next_exchange_is_good() -> None:
    far = ClockReading(2**62, 0)

    def lie(message: Message, now: int) -> list[int]:
        return [] if isinstance(message, ClockStamps) and now < SECOND else [1_500]

    bench = TimedBench(timed_world(clock(), clock(1e6)), faults=lie)
    bench.run(MS)
    bench.handle("b", FromPeer("a", ClockStamps(pulse=0, received=far, returned=far)))
    assert "physical.refused" in bench.records
    bench.run(5 * SECOND)
    assert bench.clocks("b")["offset_ps"] == 1e6


@pytest.mark.parametrize(
    "operation",
    [
        SendPulse(at_ns=0, sequence=1, link="a-c", pulse=0),
        AlignClock(at_ns=0, sequence=1, link="a-c", offset_ps=0.0, rate_ppb=0.0),
    ],
)
def test_the_fabric_refuses_clocks_of_a_link_that_is_not_there(operation: Any) -> None:
    fabric = started_fabric(timed_world(clock(), None))
    fabric.apply("a", operation)
    (delivery,) = fabric.run(1)
    assert delivery.message.error == "BAD_REQUEST"


def test_nothing_is_said_on_links_whose_clocks_are_perfect() -> None:
    bench = TimedBench(timed_world(None, None))
    bench.run(10 * SECOND)
    assert bench.sent == []
    assert "clocks" not in bench.nodes["a"].summary()
    (capability,) = bench.heard("a", "link", LinkCapability)
    assert capability.options
    bench.handle("a", FromPeer("b", ClockState(offset_ps=0.0, deviation_ps=None)))
    assert bench.records[-1] == "physical.refused"
    stamped = PulseStamped(link="a-b", pulse=0, is_sent=True, reading=ClockReading(0, 0))
    effects = bench.handle("a", FromPeer(FABRIC, stamped))
    assert not any(isinstance(effect, Tell) for effect in effects)


# --- attempts ------------------------------------------------------------------------------------


def attempts(bench: TimedBench, batch: int, deadline_ns: int) -> int | None:
    """Attempt once from now on; how many cycles it took, None if it has not come by then."""
    start = AttemptsStart(
        batch=batch,
        link="a-b",
        token=batch.to_bytes(16, "big"),
        kind="keep",
        bright_state=None,
        pairs=1,
        basis=None,
    )
    cycle_ns = bench.world.links["a-b"].cycle_ns("keep", *bench.world.end_profiles("a-b"))
    first = -(-bench.now // cycle_ns)
    before = len(bench.heard("a", "link", Heralded))
    for node in "ab":
        bench.tell(node, "link", start)
    bench.run(deadline_ns)
    heralds = bench.heard("a", "link", Heralded)[before:]
    return heralds[0].cycle - first + 1 if heralds else None


def test_attempts_succeed_less_often_and_pairs_are_worse_with_a_biased_clock() -> None:
    """Against the closed form, 300 pairs: means within 5 sigma (false alarm 6e-7)."""
    asymmetry_ps = -20_000.0
    world = timed_world(clock(), clock(1e6), asymmetry_ps, coupling=0.1)
    bench = TimedBench(world)
    bench.run(2 * SECOND)
    profiles = world.end_profiles("a-b")
    link = world.links["a-b"]
    under = link.herald_under(Conditions(delay_ps=-10_000.0), *profiles)
    ideal = link.herald(*profiles)
    assert under.probability < 0.6 * ideal.probability
    counts = []
    for batch in range(300):
        count = attempts(bench, batch, bench.now + 100 * MS)
        assert count is not None
        counts.append(count)
        ends = [bench.heard(node, "link", Heralded)[-1] for node in "ab"]
        keys = [QubitKey(node, herald.qubit) for node, herald in zip("ab", ends, strict=True)]
        z = ends[0].z_bit
        assert bench.fabric.pair_fidelity(keys[0], keys[1], bench.now, x=1, z=z) == pytest.approx(
            (1.0 + math.exp(-1.0)) / 2.0, abs=1e-3
        )
        for node, herald in zip("ab", ends, strict=True):
            bench.tell(node, "link", Free(qubit=herald.qubit))
    mean = 1.0 / under.probability
    assert np.mean(counts) == pytest.approx(mean, abs=5.0 * mean / math.sqrt(300))


def test_attempts_that_began_before_the_clocks_were_compared_herald_afterwards() -> None:
    world = timed_world(clock(), clock(1e9))
    bench = TimedBench(world, faults=lambda _, now: [1_500] if now > 500 * MS else [])
    assert attempts(bench, 0, 900 * MS) is None
    bench.run(3 * SECOND)
    assert len(bench.heard("a", "link", Heralded)) == 1


# --- photon-pair links ---------------------------------------------------------------------------


def timed_source_world(asymmetry_ps: float, offset_ps: float = 0.0) -> World:
    """A photon-pair link whose receivers open gates of 2 ns for photons of 200 ps."""
    world = source_world()
    (link,) = world.links.values()
    assert link.source is not None
    timing = LinkTiming(
        asymmetry_ps=asymmetry_ps, wavepacket="gaussian", width_ps=200.0, gate_ps=2_000.0
    )
    nodes = {
        name: replace(hardware, clock=clock(offset_ps if name == "b" else 0.0))
        for name, hardware in world.nodes.items()
    }
    return World(nodes=nodes, links={link.id: replace(link, timing=timing)})


def detected(bench: TimedBench, span_ns: int) -> list[int]:
    """How often both receivers click in such a time."""
    start = AttemptsStart(
        batch=0, link="a-b", token=b"t" * 16, kind="measure", bright_state=None, pairs=10**7,
        basis="Z",
    )  # fmt: skip
    for node in "ab":
        bench.tell(node, "link", start)
    bench.run(bench.now + span_ns)
    return [sum(part.detections for part in bench.heard(node, "link", Detections)) for node in "ab"]


@pytest.mark.parametrize("asymmetry_ps", [0.0, 2_000.0, -2_200.0])
def test_a_receiver_misses_what_comes_outside_of_its_gates(asymmetry_ps: float) -> None:
    """The first end by its statistics, the second by the gate's share; within 6 sigma."""
    bench = TimedBench(timed_source_world(asymmetry_ps, 5e6))
    bench.run(3 * SECOND)
    link = bench.world.links["a-b"]
    assert bench.heard("a", "link", LinkOptions)[-1].options == generation_options(
        bench.world, link, Conditions(delay_deviation_ps=bench.clocks("b")["deviation_ps"])
    )
    counts = detected(bench, 200 * MS)
    truth = link.pair_source(Conditions(delay_ps=asymmetry_ps / 2.0))
    slots = 200 * MS / 10
    for count, efficiency, background in zip(
        counts, truth.efficiencies, truth.backgrounds, strict=True
    ):
        click = 1.0 - (1.0 - background) / (1.0 + efficiency * truth.mean_pairs) ** 2
        # A last chunk of 20 ms may still be on its way.
        assert 0.88 * slots * click < count < slots * click + 6.0 * math.sqrt(slots * click)
    share = truth.efficiencies[1] / truth.efficiencies[0]
    assert share == pytest.approx(
        {0.0: 1.0, 2_000.0: 0.5, -2_200.0: 0.3085}[asymmetry_ps], rel=1e-3
    )


def test_without_a_comparison_a_receiver_detects_its_noise_alone() -> None:
    bench = TimedBench(timed_source_world(0.0, 5e9), faults=lost_after(0))
    first, second = detected(bench, 200 * MS)
    assert first > 10_000
    assert second < 200
