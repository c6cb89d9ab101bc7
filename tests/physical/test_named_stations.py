"""Links through a station that has a name: the same physics as through one that has none."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.machine import FABRIC, FromPeer, PeerDown
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.hardware import World
from qstack.physical.params import HERALDS_MAX
from qstack.physical.service import (
    AttemptsEnded,
    AttemptsStop,
    CalibrateLink,
    Heralded,
    LinkCalibrated,
    MeasuredPairs,
)
from qstack.physical.station_messages import Gen, Heralds, Reply
from qstack.wire.codec import encode
from qstack.wire.frame import CONTROL_BYTES_MAX
from qstack.wire.message import BasisProbabilities
from qstack.wire.packed import unpack_bases, unpack_bits, unpack_slots
from tests.physical.calls import MS, start
from tests.physical.test_drift import drifting_world
from tests.physical.test_link_equipment import ABSORPTIVE, MIDPOINT
from tests.physical.test_link_equipment import world as equipped_world
from tests.physical.test_rotated_readings import noisy_world
from tests.physical.test_time_sync import clock, timed_world
from tests.physical.worlds import Bench, chain

SECOND = 1_000_000_000


def named(world: World) -> World:
    """The same, with the station called `mid`."""
    links = {name: replace(link, station="mid") for name, link in world.links.items()}
    return World(nodes=world.nodes, links=links)


def single_click() -> World:
    world = noisy_world()
    links = {name: replace(link, scheme="single-click") for name, link in world.links.items()}
    return World(nodes=world.nodes, links=links)


WORLDS = {
    "double-click": noisy_world,
    "single-click": single_click,
    "midpoint-source": lambda: equipped_world(MIDPOINT),
    "absorptive-memory": lambda: equipped_world(ABSORPTIVE),
    "clocks": lambda: timed_world(clock(3_000.0, 2.0, 50.0), clock(0.0, -1.0, 30.0)),
    "drift": lambda: drifting_world(polarisation_rad_per_root_s=0.3, loss_per_s=0.5),
}


def attempt(world: World, until_ns: int = 5 * SECOND, seed: int = 0, **more: Any) -> Bench:
    """Both ends attempt from the start, with one batch each."""
    bench = Bench(world, seed)
    for node in "ab":
        bench.tell(node, "link", start(0, **more))
    bench.run(until_ns)
    return bench


@pytest.mark.parametrize("name", WORLDS)
def test_a_pair_to_keep_is_the_one_that_a_station_without_a_name_heralds(name: str) -> None:
    """The same draw decides; REPLY is later than a herald, and the state as old as its emission."""
    world = WORLDS[name]()
    benches = [attempt(each, seed=3) for each in (world, named(world))]
    told = [[bench.heard(node, "link", Heralded) for node in "ab"] for bench in benches]
    states = []
    for bench, ((first,), (second,)) in zip(benches, told, strict=True):
        common = ("herald_sequence", "cycle", "x_bit", "z_bit", "emitted_at_ns", "calibration")
        assert [getattr(first, f) for f in common] == [getattr(second, f) for f in common]
        keys = QubitKey("a", first.qubit), QubitKey("b", second.qubit)
        states.append(bench.fabric.truth(*keys, 6 * SECOND))
    here, there = told[0][0][0], told[1][0][0]
    assert (here.x_bit, here.z_bit) == (there.x_bit, there.z_bit)
    assert abs(here.cycle - there.cycle) <= 20  # the station began to watch a few cycles later
    assert states[0] == pytest.approx(states[1], abs=1e-4)


@pytest.mark.parametrize("name", WORLDS)
def test_measured_pairs_come_in_the_same_cycles_with_the_same_outcomes(name: str) -> None:
    world = WORLDS[name]()
    found = []
    for each in (world, named(world)):
        bench = attempt(each, 20 * SECOND, seed=5, kind="measure", pairs=300, basis="Z")
        parts = [bench.heard(node, "link", MeasuredPairs) for node in "ab"]
        assert [sum(part.pairs for part in side) for side in parts] == [300, 300]
        assert [side[-1].is_last for side in parts] == [True, True]
        assert not any(part.is_last for side in parts for part in side[:-1])
        assert [p.x_bits + p.z_bits for p in parts[0]] == [p.x_bits + p.z_bits for p in parts[1]]
        sequences = [(p.first_herald_sequence, p.pairs, p.emitted_at_ns) for p in parts[0]]
        assert sequences == [(p.first_herald_sequence, p.pairs, p.emitted_at_ns) for p in parts[1]]
        bits = [np.concatenate([unpack_bits(p.outcomes, p.pairs) for p in side]) for side in parts]
        z_bits = np.concatenate([unpack_bits(p.z_bits, p.pairs) for p in parts[0]])
        assert not any(bench.fabric.snapshot().batches.values())
        found.append((bits, z_bits))
    (here, here_z), (there, there_z) = found
    assert here_z.tolist() == there_z.tolist()
    assert [each.tolist() for each in here] == [each.tolist() for each in there]


def test_a_state_prepared_remotely_is_the_one_that_a_station_without_a_name_leaves() -> None:
    """The reader learns its outcome, and the far end holds what that makes of its half, exactly."""
    seen = set()
    for seed in range(6):
        rows = []
        for world in (noisy_world(), named(noisy_world())):
            bench = Bench(world, seed)
            bench.tell("a", "link", start(0, kind="prepare", basis="Y"))
            bench.tell("b", "link", start(0, kind="prepare"))
            bench.run(SECOND)
            (read,) = bench.heard("a", "link", MeasuredPairs)
            (kept,) = bench.heard("b", "link", Heralded)
            same = read.first_herald_sequence, read.x_bits, read.z_bits, read.emitted_at_ns
            bits = bytes([kept.x_bit << 7]), bytes([kept.z_bit << 7])
            assert same == (kept.herald_sequence, *bits, kept.emitted_at_ns)
            assert (read.pairs, read.is_last) == (1, True)
            (qubit,) = bench.fabric._register._qubits.values()
            rows.append((kept.z_bit, read.outcomes, qubit.group.tensor.tolist()))
            assert not any(bench.fabric.snapshot().batches.values())
        assert rows[0] == rows[1]
        seen.add(rows[0][1])
    assert len(seen) == 2


# --- who knows what ------------------------------------------------------------------------------


def test_a_station_hears_the_same_whatever_is_read_and_in_which_bases() -> None:
    heard = []
    for basis in ("X", "Z", BasisProbabilities(0.5, 0.0, 0.5)):
        bench = attempt(named(noisy_world()), kind="measure", pairs=50, basis=basis)
        heard.append([each for each in bench.crossed if each[1] == "mid"])
    assert heard[0] == heard[1] == heard[2]
    assert len(heard[0]) == 2  # a Gen from each end, and nothing for any attempt


def test_nodes_draw_their_own_bases_of_what_was_heralded_and_outcomes_match_where_they_agree() -> (
    None
):
    """psi states of visibility 1 and no readout errors: outcomes differ in Z, always."""
    world = named(noisy_world(readout_f0=1.0, readout_f1=1.0, emission_fidelity=1.0))
    choice = BasisProbabilities(0.4, 0.0, 0.6)
    bench = attempt(world, kind="measure", pairs=2000, basis=choice)
    ends = []
    for node in "ab":
        parts = bench.heard(node, "link", MeasuredPairs)
        outcomes = np.concatenate([unpack_bits(p.outcomes, p.pairs) for p in parts])
        ends.append((outcomes, np.concatenate([unpack_bases(p.bases, p.pairs) for p in parts])))
    (here, codes), (there, others) = ends
    for drawn in (codes, others):  # 5 deviations of a binomial: a false alarm in 1.7 million
        assert abs(int((drawn == 0).sum()) - 800) < 5 * (2000 * 0.24) ** 0.5
    assert (codes != others).any()
    in_z = (codes == 2) & (others == 2)
    assert (here[in_z] != there[in_z]).all()


def test_parts_are_bounded_and_fit_a_control_frame() -> None:
    quick = {"t_init_ns": 100, "t_emit_ns": 50, "readout_ns": 100}
    bench = attempt(named(chain("ab", **quick)), kind="measure", pairs=20_000, basis="Z")
    said = [m for _, to, m in bench.crossed if to == "a" and isinstance(m, Heralds)]
    assert [each.pairs for each in said] == [HERALDS_MAX, HERALDS_MAX, 20_000 - 2 * HERALDS_MAX]
    assert [each.is_last for each in said] == [False, False, True]
    assert all(len(encode(each).body) < CONTROL_BYTES_MAX for each in said)
    cycles = np.concatenate([unpack_slots(each.cycles, each.first_cycle) for each in said])
    assert (np.diff(cycles) == 1).all()


# --- ends ----------------------------------------------------------------------------------------


def test_a_batch_that_is_stopped_has_the_pairs_made_before_at_both_ends() -> None:
    bench = Bench(named(noisy_world()), 2)
    for node in "ab":
        bench.tell(node, "link", start(0, kind="measure", pairs=10**6, basis="Z"))
    bench.run(55 * MS)
    bench.tell("a", "link", AttemptsStop(batch=0))
    bench.run(SECOND // 2)
    (ended,) = bench.heard("a", "link", AttemptsEnded)
    assert (ended.reason, ended.attempts > 0) == ("stopped", True)
    counts = [sum(part.pairs for part in bench.heard(node, "link", MeasuredPairs)) for node in "ab"]
    assert counts[0] == counts[1] > 100
    last = bench.heard("a", "link", MeasuredPairs)[-1].emitted_at_ns
    assert 50 * MS < last < 55 * MS
    bench.tell("a", "link", start(1, kind="measure", pairs=7, basis="Z"))  # with the rest of b's
    bench.run(SECOND)
    assert bench.heard("a", "link", MeasuredPairs)[-1].is_last
    assert bench.heard("b", "link", MeasuredPairs)[-1].is_last
    first, second = (bench.heard(node, "link", MeasuredPairs) for node in "ab")
    assert [p.first_herald_sequence for p in first] == [p.first_herald_sequence for p in second]
    assert not any(bench.fabric.snapshot().batches.values())


def test_with_its_station_a_batch_ends_and_nothing_of_it_is_left() -> None:
    bench = Bench(named(noisy_world()), 2)
    for node in "ab":
        bench.tell(node, "link", start(0, kind="measure", pairs=10**6, basis="Z"))
    bench.run(60 * MS)
    bench.fabric.node_down("mid", bench.now)
    for node in "ab":
        bench.handle(node, PeerDown("mid"))
    bench.run(SECOND)
    for node in "ab":
        assert [m.reason for m in bench.heard(node, "link", AttemptsEnded)] == ["device"]
    assert not any(bench.fabric.snapshot().batches.values())


# --- calibrations --------------------------------------------------------------------------------


def calibrate(bench: Bench, *nodes: str, until_ns: int = 10**12) -> None:
    for node in nodes:
        peer = "b" if node == "a" else "a"
        assert bench.tell(node, "link", CalibrateLink(peer=peer, until_ns=until_ns)) == []


def results(bench: Bench) -> dict[str, list[tuple[bool, int]]]:
    return {
        node: [(m.is_good, m.calibration) for m in bench.heard(node, "link", LinkCalibrated)]
        for node in "ab"
    }


def test_the_station_takes_part_in_a_calibration_and_names_its_number() -> None:
    bench = Bench(named(drifting_world()))
    calibrate(bench, "a", "b")
    bench.run(SECOND)
    assert results(bench) == {"a": [(True, 1)], "b": [(True, 1)]}
    for node in "ab":
        bench.tell(node, "link", start(0))
        bench.tell(node, "link", start(1, kind="measure", pairs=20, basis="X"))
    bench.run(3 * SECOND)
    for node in "ab":
        assert bench.heard(node, "link", Heralded)[0].calibration == 1
        assert {m.calibration for m in bench.heard(node, "link", MeasuredPairs)} == {1}
    said = [m for _, _, m in bench.crossed if isinstance(m, Reply | Heralds)]
    assert {m.calibration for m in said} == {1}
    calibrate(bench, "a", "b")
    bench.run(4 * SECOND)
    assert results(bench)["a"] == [(True, 1), (True, 2)]
    assert bench.stations["mid"].summary()["calibrations"] == {"a-b": 2}


def test_one_end_alone_is_no_calibration_and_the_next_one_is() -> None:
    bench = Bench(named(drifting_world()))
    calibrate(bench, "a", until_ns=SECOND)
    bench.run(2 * SECOND)
    assert results(bench) == {"a": [(False, 0)], "b": []}
    calibrate(bench, "b", "a")
    bench.run(3 * SECOND)
    assert results(bench) == {"a": [(False, 0), (True, 1)], "b": [(True, 1)]}


def test_a_window_that_is_too_short_for_the_station_is_no_calibration() -> None:
    bench = Bench(named(drifting_world()))
    calibrate(bench, "a", "b", until_ns=200 * MS)
    bench.run(SECOND)
    assert results(bench) == {"a": [(False, 0)], "b": [(False, 0)]}


@pytest.mark.parametrize("gone", ["mid", FABRIC])
def test_a_calibration_does_not_outlive_the_station_or_its_detectors(gone: str) -> None:
    bench = Bench(named(drifting_world()))
    calibrate(bench, "a", "b")
    bench.run(100 * MS)
    if gone == FABRIC:
        bench.handle("mid", PeerDown(FABRIC))
    else:
        bench.fabric.node_down("mid", bench.now)
        for node in "ab":
            bench.handle(node, PeerDown("mid"))
    bench.run(SECOND)
    assert results(bench) == {"a": [(False, 0)], "b": [(False, 0)]}


def test_nothing_is_watched_while_the_station_calibrates_and_a_gen_waits() -> None:
    bench = Bench(named(drifting_world()))
    calibrate(bench, "a", "b")
    bench.run(100 * MS)
    station = bench.stations["mid"]
    for node in "ab":  # link layers that do not keep to their window
        gen = Gen(
            link="a-b", batch=9, token=b"t" * 16, kind="keep", first_cycle=0, count=None,
            bright_state=None, pairs=1,
        )  # fmt: skip
        bench.handle("mid", FromPeer(node, gen))
    assert station.summary()["watches"] == 0
    bench.run(SECOND)
    assert station.summary()["watches"] == 1
    assert results(bench) == {"a": [(True, 1)], "b": [(True, 1)]}
