"""A photon-pair link through its physical layers and the fabric: what the two ends detect."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.ids import boot_id
from qstack.machine import FABRIC, FromPeer, OwnerGone, PeerDown, PeerUp
from qstack.physical.device import (
    BasesWanted,
    BatchEnded,
    DetectionReply,
    Generate,
    GiveBases,
    OperationRefused,
    StopGenerate,
)
from qstack.physical.fabric.clicks import BOTH, SourceModel
from qstack.physical.generation import generate
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.models.pair_source import (
    PairSource,
    error_rate,
    gain,
    outcome_table,
    pair_numbers,
)
from qstack.physical.params import CHUNK_NS, DETECTIONS_MAX, READOUT_NS, SOURCE_CHUNK_MIN_NS
from qstack.physical.prediction import link_capability, link_slots
from qstack.physical.service import (
    AttemptsEnded,
    AttemptsStop,
    Detections,
    DeviceLost,
    MeasuredPairs,
    MemoryFree,
)
from qstack.physical.station_device import StopWatch, WatchEnded, WatchLink
from qstack.wire.message import BasisProbabilities
from qstack.wire.packed import BASES, unpack_bases, unpack_bits, unpack_slots
from tests.physical.calls import MS, TOKEN, bench, start
from tests.physical.worlds import Bench, chain, source_world, started_fabric

EVEN = BasisProbabilities(0.5, 0.0, 0.5)
ALL = BasisProbabilities(0.3, 0.3, 0.4)
Z_SCORE = 5.1
"""Standard deviations exceeded with probability below 4e-7."""


def measuring(batch: int = 1, basis: Any = "Z", **more: Any) -> Any:
    return start(batch, **({"kind": "measure", "pairs": 10**6, "basis": basis} | more))


def begun(basis_a: Any = "Z", basis_b: Any = "Z", *, seed: int = 0, **source: Any) -> Bench:
    on = Bench(source_world(**source), seed)
    on.tell("a", "link", measuring(1, basis_a))
    on.tell("b", "link", measuring(9, basis_b))
    return on


def lists_of(on: Bench, node: str, code: int = 2) -> tuple[Any, Any, Any]:
    """Slots, outcomes and bases of one end; `code` is its fixed basis."""
    slots, outcomes, bases = [], [], []
    before = 0
    for said in on.heard(node, "link", Detections):
        assert before <= said.first_slot <= said.until_slot
        before = said.until_slot
        here = unpack_slots(said.slots, said.first_slot)
        assert len(here) == said.detections
        assert not len(here) or here[-1] < said.until_slot
        slots.append(here)
        outcomes.append(unpack_bits(said.outcomes, said.detections))
        fixed = np.full(said.detections, code, dtype=np.uint8)
        bases.append(unpack_bases(said.bases, said.detections) if said.bases else fixed)
    return np.concatenate(slots), np.concatenate(outcomes), np.concatenate(bases)


def coincidences(on: Bench, codes: tuple[int, int] = (2, 2)) -> Any:
    """Columns: outcome at a, at b, basis of a, of b."""
    a, b = lists_of(on, "a", codes[0]), lists_of(on, "b", codes[1])
    _, in_a, in_b = np.intersect1d(a[0], b[0], assume_unique=True, return_indices=True)
    return np.stack([a[1][in_a], b[1][in_b], a[2][in_a], b[2][in_b]])


def within(count: int, expected: float, variance: float | None = None) -> bool:
    return abs(count - expected) <= Z_SCORE * math.sqrt(expected if variance is None else variance)


# --- the statistics ------------------------------------------------------------------------------


def test_sampled_gain_and_error_are_those_of_the_closed_forms() -> None:
    """The link of PHYSICS.md 2.5 for one second. Each figure: false alarm below 4e-7."""
    on = begun()
    on.run(1000 * MS)
    on.tell("a", "link", AttemptsStop(batch=1))
    on.tell("b", "link", AttemptsStop(batch=9))
    on.run(1001 * MS)
    source = on.world.links["a-b"].pair_source()
    pairs = coincidences(on)
    count = pairs.shape[1]
    assert within(count, gain(source) * 1e8)
    assert gain(source) * 1e8 == pytest.approx(1.27e5, rel=0.01)
    errors, rate = int((pairs[0] != pairs[1]).sum()), error_rate(source)
    assert rate == pytest.approx(0.0173, abs=1e-4)
    assert within(errors, count * rate, count * rate * (1 - rate))
    for node, side in (("a", 0), ("b", 1)):
        slots, outcomes, _ = lists_of(on, node)
        eta, dark = source.efficiencies[side], source.backgrounds[side]
        clicks = 1 - (1 - dark) / (1 + eta * source.mean_pairs) ** 2
        assert within(len(slots), clicks * 1e8)
        assert within(int(outcomes.sum()), len(slots) / 2, len(slots) / 4)


def test_the_error_floor_of_double_pairs_shows_where_single_pairs_would_have_none() -> None:
    """QBER 3.4 % at lam = 0.05 with perfect optics: a source of single pairs is told apart.

    With single pairs alone there would be no error at all; here are thousands, and their number
    is that of the closed form within 5.1 standard deviations.
    """
    perfect: dict[str, Any] = {
        "background_probability": 0.0,
        "misalignment": 0.0,
        "pair_parameter": 0.05,
    }
    on = begun(detector_efficiency=0.25, **perfect)
    on.run(200 * MS)
    source = on.world.links["a-b"].pair_source()
    single = outcome_table(source, "Z", "Z", weights=pair_numbers(0.05)[:2])
    assert single[1, 2] + single[2, 1] < 1e-15
    pairs = coincidences(on)
    errors, count = int((pairs[0] != pairs[1]).sum()), pairs.shape[1]
    rate = error_rate(source)
    assert rate == pytest.approx(0.034, abs=0.001)
    assert within(errors, count * rate, count * rate * (1 - rate))
    assert errors > 1000


@pytest.mark.parametrize(
    "source",
    [
        {"pair_parameter": 0.5, "detector_efficiency": 0.6, "slot_rate_hz": 1_000_000},
        {"pair_parameter": 0.1, "background_probability": 0.1, "slot_rate_hz": 10_000_000},
    ],
)
def test_every_pair_of_bases_has_its_table(source: dict[str, Any]) -> None:
    """Nine chi-squares over outcome pairs, three degrees each; false alarm 1e-6 for all nine."""
    on = begun(ALL, ALL, **source)
    on.run(400 * MS)
    hardware = on.world.links["a-b"].pair_source()
    pairs = coincidences(on)
    worst = 0.0
    for code_a, code_b in itertools.product(range(3), range(3)):
        mine = pairs[:, (pairs[2] == code_a) & (pairs[3] == code_b)]
        seen = np.array([[((mine[0] == x) & (mine[1] == y)).sum() for y in (0, 1)] for x in (0, 1)])
        table = outcome_table(hardware, BASES[code_a], BASES[code_b])[1:, 1:]
        expected = table / table.sum() * seen.sum()
        assert expected.min() > 20
        worst = max(worst, float(((seen - expected) ** 2 / expected).sum()))
    assert worst < 37.0  # chi-square of 3 degrees exceeds it with probability 4.6e-8
    assert pairs.shape[1] > 5000


def test_choices_are_the_nodes_own_and_have_their_probabilities() -> None:
    on = begun(BasisProbabilities(0.1, 0.0, 0.9), EVEN)
    on.run(100 * MS)
    for node, expected in (("a", (0.1, 0.0, 0.9)), ("b", (0.5, 0.0, 0.5))):
        _, _, bases = lists_of(on, node)
        for code, probability in enumerate(expected):
            count = int((bases == code).sum())
            variance = len(bases) * probability * (1 - probability)
            assert within(count, len(bases) * probability, variance)


def test_what_one_end_detects_does_not_depend_on_the_basis_of_the_other() -> None:
    """Its slots not at all; its outcomes only by which of the two was asked first."""
    slots = {}
    for basis in ("X", "Z", EVEN):
        on = begun("Z", basis)
        on.run(30 * MS)
        slots[str(basis)] = lists_of(on, "a")[0].tolist()
    assert len({tuple(each) for each in slots.values()}) == 1


def test_equal_seeds_detect_alike_and_others_do_not() -> None:
    said = []
    for seed in (3, 3, 4):
        on = begun(EVEN, EVEN, seed=seed)
        on.run(20 * MS)
        said.append(on.told)
    assert said[0] == said[1] != said[2]


def test_the_device_is_never_told_probabilities_and_the_nodes_never_each_others_bases() -> None:
    on = begun(EVEN, "X")
    asked = on.handle("a", FromPeer(FABRIC, BasesWanted(batch=0, part=0, count=3)))
    assert [type(effect).__name__ for effect in asked] == ["Send"]
    on.run(5 * MS)
    assert all(said.bases for said in on.heard("a", "link", Detections) if said.detections)
    assert not any(said.bases for said in on.heard("b", "link", Detections))


# --- chunks --------------------------------------------------------------------------------------


def test_chunks_are_bounded_in_time_in_detections_and_by_what_is_wanted() -> None:
    link = source_world().links["a-b"]
    model = SourceModel(link)
    assert model.span_slots(1) == SOURCE_CHUNK_MIN_NS // 10
    assert model.span_slots(10**6) == CHUNK_NS // 10
    assert model.span_slots(1000) == pytest.approx(1100 / gain(link.pair_source()), abs=1)
    generator = np.random.default_rng(1)
    clicks = model.draw(generator, 700, 10**9)
    assert max(int(clicks.of(end).sum()) for end in (0, 1)) == DETECTIONS_MAX
    assert clicks.slots[0] >= 700
    assert clicks.slots[-1] < clicks.until_slot
    faint = SourceModel(source_world(detector_efficiency=1e-6).links["a-b"])
    few = faint.draw(generator, 0, 1000)
    assert (few.first_slot, few.until_slot) == (0, 1000)


def test_a_cut_keeps_what_lies_before_it() -> None:
    model = SourceModel(source_world().links["a-b"])
    clicks = model.draw(np.random.default_rng(2), 100, 100_000)
    half = clicks.before(50_000)
    assert (half.first_slot, half.until_slot) == (100, 50_000)
    assert half.slots.tolist() == [slot for slot in clicks.slots.tolist() if slot < 50_000]
    assert half.luck.shape == (2, len(half.slots))
    assert clicks.before(0).until_slot == 100
    assert clicks.before(10**9).until_slot == clicks.until_slot
    assert (clicks.kinds == BOTH).any()


def test_light_needs_its_time_through_each_arm() -> None:
    on = begun()
    on.run(30 * MS)
    link = on.world.links["a-b"]
    for node in "ab":
        first = next(
            (at, m) for at, to, _, m in on.told if to == node and isinstance(m, Detections)
        )
        assert first[0] == first[1].until_slot * 10 + link.arm_ns(node) + READOUT_NS


# --- lives of batches ----------------------------------------------------------------------------


def lasts(on: Bench, node: str) -> list[bool]:
    return [said.is_last for said in on.heard(node, "link", Detections)]


@pytest.mark.parametrize("basis", ["Z", EVEN])
def test_a_stopped_batch_ends_with_what_was_emitted_before_and_the_far_end_goes_on(
    basis: Any,
) -> None:
    on = begun(basis, basis)
    on.run(MS + 123_457)
    on.tell("a", "link", AttemptsStop(batch=1))
    on.tell("a", "link", AttemptsStop(batch=1))
    on.run(60 * MS)
    assert lasts(on, "a") == [*[False] * (len(lasts(on, "a")) - 1), True]
    assert not any(lasts(on, "b"))
    ends = [on.heard(node, "link", Detections)[-1].until_slot for node in "ab"]
    assert ends == [-(-(MS + 123_457) // 10)] * 2
    on.tell("a", "link", measuring(2, basis))  # the same token: it goes on
    on.run(90 * MS)
    assert on.heard("b", "link", Detections)[-1].until_slot > 6_000_000
    on.tell("b", "link", AttemptsStop(batch=9))
    on.tell("a", "link", AttemptsStop(batch=2))
    on.run(100 * MS)
    assert (lasts(on, "a").count(True), lasts(on, "b").count(True)) == (2, 1)
    assert on.heard("b", "link", AttemptsEnded) == []
    assert set(on.fabric.snapshot().batches.values()) == {0}


def test_a_batch_that_never_began_ends_without_detections() -> None:
    on = Bench(source_world())
    on.tell("a", "link", measuring(1))
    on.tell("b", "link", measuring(1, token=b"o" * 16))  # another request: they do not meet
    on.run(10 * MS)
    on.tell("a", "link", AttemptsStop(batch=1))
    on.run(11 * MS)
    assert on.heard("a", "link", AttemptsEnded) == [
        AttemptsEnded(batch=1, reason="stopped", attempts=0)
    ]
    assert on.heard("a", "link", Detections) == on.heard("b", "link")[2:] == []


def test_both_stop_at_once_and_each_has_one_last_answer() -> None:
    on = begun(EVEN, EVEN)
    on.run(2 * MS)
    on.tell("a", "link", AttemptsStop(batch=1))
    on.tell("b", "link", AttemptsStop(batch=9))
    on.run(3 * MS)
    for node in "ab":
        assert lasts(on, node).count(True) == 1
        assert lasts(on, node)[-1]
    assert set(on.fabric.snapshot().batches.values()) == {0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "keep", "pairs": 1, "basis": None},
        {"basis": None},
        {"bright_state": 0.1},
    ],
)
def test_what_such_a_link_cannot_do_is_refused(wrong: dict[str, Any]) -> None:
    on = Bench(source_world())
    assert on.tell("a", "link", measuring(3, **wrong)) == [
        AttemptsEnded(batch=3, reason="refused", attempts=0)
    ]


def test_a_receiver_serves_one_batch_at_a_time_and_says_when_it_is_free() -> None:
    on = begun()
    assert on.tell("a", "link", measuring(2, token=b"o" * 16)) == [
        AttemptsEnded(batch=2, reason="no-memory", attempts=0)
    ]
    on.run(MS)
    assert on.heard("a", "link", MemoryFree) == []
    on.tell("a", "link", AttemptsStop(batch=1))
    on.run(2 * MS)
    assert on.heard("a", "link", MemoryFree) == [MemoryFree()]


def test_it_takes_no_memory_and_no_share_of_the_other_links() -> None:
    ring = chain("abc", memory=7, comm_qubits=4)
    source = source_world("ac").links["a-c"]
    with_source = type(ring)(nodes=ring.nodes, links={**ring.links, "a-c": source})
    assert link_slots(with_source, "a") == link_slots(ring, "a")
    on = begun()
    on.run(MS)
    assert on.nodes["a"].summary()["qubits"] == 0
    capability = link_capability(with_source, "a", source)
    assert (capability.kinds, capability.pairing, capability.slots) == (["measure"], "slots", 1)
    kept = link_capability(with_source, "a", ring.links["a-b"])
    assert (kept.kinds, kept.pairing) == (["keep", "measure", "prepare"], "heralds")
    (option,) = capability.options
    exact = PairSource(
        mean_pairs=0.01, efficiencies=(0.25, 0.25), backgrounds=(2e-6, 2e-6), misalignment=0.01
    )
    assert option.probability == pytest.approx(gain(exact))
    assert option.bell_probabilities[0] == pytest.approx(1 - 1.5 * error_rate(exact), abs=1e-5)


# --- deaths --------------------------------------------------------------------------------------


def test_a_lost_device_ends_the_batch_once() -> None:
    on = begun()
    on.run(MS)
    on.handle("a", PeerDown(FABRIC))
    assert on.heard("a", "link")[-2:] == [
        AttemptsEnded(batch=1, reason="device", attempts=0), DeviceLost()
    ]  # fmt: skip
    assert on.tell("a", "link", measuring(2)) == [
        AttemptsEnded(batch=2, reason="device", attempts=0)
    ]
    on.handle("a", PeerUp(FABRIC, b"fabricid"))
    reply = DetectionReply(
        batch=0, first_slot=0, until_slot=9, detections=0, slots=b"", outcomes=b"", bases=b"",
        is_last=True,
    )  # fmt: skip
    count = len(on.heard("a", "link", Detections))
    for late in (
        reply,
        BasesWanted(batch=0, part=1, count=2),
        BatchEnded(batch=0, reason="", attempts=0),
    ):
        on.handle("a", FromPeer(FABRIC, late))
    assert len(on.heard("a", "link", Detections)) == count


@pytest.mark.parametrize("basis", ["Z", EVEN])
def test_the_far_end_of_a_node_that_dies_keeps_what_was_emitted_before(basis: Any) -> None:
    on = begun(basis, basis)
    on.run(MS + 555)
    on.fabric.node_down("a", on.now)
    for node, due_ns, _, message in on.fabric.run(on.now):
        on._push(due_ns, FABRIC, node, FromPeer(FABRIC, message))
    on.run(20 * MS)
    on.tell("b", "link", AttemptsStop(batch=9))
    on.run(21 * MS)
    assert on.heard("b", "link", Detections)[-1].until_slot == -(-(MS + 555) // 10)
    assert lasts(on, "b").count(True) == 1
    assert on.fabric.snapshot().batches == {"a": 0, "b": 0}


@pytest.mark.parametrize("basis", ["Z", EVEN])
def test_a_link_layer_that_goes_leaves_nothing_behind(basis: Any) -> None:
    on = begun(basis, basis)
    on.run(MS)
    for node in "ab":
        on.handle(node, OwnerGone("link"))
        on.handle(node, OwnerGone("link"))
    told = len(on.told)
    on.run(30 * MS)
    assert not [m for _, _, owner, m in on.told[told:] if owner == "link"]
    assert on.fabric.snapshot().batches == {"a": 0, "b": 0}


# --- the fabric and its operations ---------------------------------------------------------------


def operation(sequence: int, **more: Any) -> Generate:
    fields: dict[str, Any] = {
        "at_ns": 0, "batch": 1, "link": "a-b", "token": TOKEN, "kind": "measure",
        "first_cycle": 0, "bright_state": None, "pairs": 10, "basis": "given", "qubit": None,
    }  # fmt: skip
    return Generate(sequence=sequence, **(fields | more))


@pytest.mark.parametrize(
    ("node", "wrong", "why"),
    [
        ("c", {}, "not on a link"),
        ("a", {"kind": "keep", "pairs": 1, "basis": None, "qubit": TOKEN}, "only measures"),
        ("a", {"qubit": TOKEN}, "names no qubit"),
        ("a", {"basis": None}, "has a basis"),
    ],
)
def test_the_fabric_refuses_what_makes_no_sense(node: str, wrong: dict[str, Any], why: str) -> None:
    fabric = started_fabric(source_world("abc"))
    fabric.apply(node, operation(4, **wrong))
    ((to, _, _, refused),) = fabric.run(10)
    assert to == node
    assert isinstance(refused, OperationRefused)
    assert (refused.operation, refused.error) == (4, "BAD_REQUEST")
    assert why in refused.detail


def test_the_fabric_refuses_a_receiver_in_use_and_bases_that_do_not_fit() -> None:
    fabric = started_fabric(source_world())
    fabric.apply("a", operation(1))
    fabric.apply("a", operation(2, batch=2))
    fabric.apply("b", operation(1))
    said = fabric.run(5 * MS)
    assert [m.detail for _, _, _, m in said if isinstance(m, OperationRefused)] == [
        "the receiver is in use"
    ]
    wanted = [m for node, _, _, m in said if node == "a" and isinstance(m, BasesWanted)]
    assert wanted[0].count > 0
    size = -(-wanted[0].count // 4)
    attempts = [
        (wanted[1].part, bytes(size)),  # not the next one
        (wanted[0].part, bytes(size + 1)),
        (wanted[0].part, b"\xff" * size),
        (wanted[0].part, bytes(size)),
        (wanted[0].part, bytes(size)),  # again
    ]
    for number, (part, bases) in enumerate(attempts):
        give = GiveBases(at_ns=5 * MS, sequence=10 + number, batch=1, part=part, bases=bases)
        fabric.apply("a", give)
    said = fabric.run(5 * MS + 1)
    kinds = [type(m).__name__ for node, _, _, m in said if node == "a"]
    kinds = [kind for kind in kinds if kind != "BasesWanted"]  # of the chunk that ends then
    assert kinds == [*["OperationRefused"] * 3, "DetectionReply", "OperationRefused"]


def test_a_refused_start_ends_the_batch_at_the_node() -> None:
    on = Bench(source_world())
    effects = on.tell("a", "link", measuring(1))
    assert effects == []
    refused = OperationRefused(operation=1, error="BAD_REQUEST", detail="no")
    on.handle("a", FromPeer(FABRIC, refused))
    assert on.heard("a", "link", AttemptsEnded) == [
        AttemptsEnded(batch=1, reason="refused", attempts=0)
    ]


def test_a_node_that_never_gives_bases_leaves_nothing_when_it_goes() -> None:
    fabric = started_fabric(source_world())
    for node in "ab":
        fabric.apply(node, operation(1))
    fabric.run(3 * MS)
    for node in "ab":
        fabric.apply(node, StopGenerate(at_ns=3 * MS, sequence=2, batch=1, reason="stopped"))
    fabric.run(4 * MS)
    assert fabric.snapshot().batches == {"a": 1, "b": 1}
    for node in "ab":
        fabric.node_down(node, 5 * MS)
    assert fabric.snapshot().batches == {"a": 0, "b": 0}
    fabric.node_up("a", boot_id(0, "a", 1))
    fabric.apply("a", operation(1, at_ns=6 * MS))
    assert fabric.run(7 * MS) == []


def test_a_link_is_heralded_or_has_a_source() -> None:
    good = source_world().links["a-b"]
    for scheme, source in (("spdc", None), ("double-click", good.source)):
        with pytest.raises(ValueError, match="a source goes with spdc"):
            LinkHardware(
                ends=("a", "b"), length_m=3000.0, arms_m=good.arms_m, scheme=scheme, source=source
            )
    profiles = source_world().end_profiles("a-b")
    with pytest.raises(ValueError, match="nothing heralds"):
        good.herald(*profiles)
    with pytest.raises(ValueError, match="no pair source"):
        chain("ab").links["a-b"].pair_source()


# --- heralded links: bases drawn for each pair ---------------------------------------------------


def test_measured_pairs_of_a_heralded_link_are_read_in_drawn_bases_too() -> None:
    """psi+ and psi-, perfect: equal bases are certain for each pattern, different ones a coin."""
    on = bench(probability=0.5, nodes="ab")
    for node, basis in (("a", ALL), ("b", EVEN)):
        on.tell(node, "link", measuring(1, basis, pairs=3000))
    on.run(100 * MS)
    here, there = (on.heard(node, "link", MeasuredPairs) for node in "ab")
    assert [m.pairs for m in here] == [m.pairs for m in there]
    assert sum(m.pairs for m in here) == 3000
    assert [m.is_last for m in here] == [False] * (len(here) - 1) + [True]
    agreements: dict[tuple[int, int], list[bool]] = {}
    for mine, yours in zip(here, there, strict=True):
        count = mine.pairs
        bases = unpack_bases(mine.bases, count), unpack_bases(yours.bases, count)
        bits = unpack_bits(mine.outcomes, count) ^ unpack_bits(yours.outcomes, count)
        z_bits = unpack_bits(mine.z_bits, count)
        flips = np.select(
            [bases[0] == 2, bases[0] == 0], [np.ones_like(z_bits), z_bits], 1 - z_bits
        )
        for a, b, wrong in zip(*bases, bits ^ flips, strict=True):
            # Y of psi: X^x Z^z of phi+ flips by x xor z, and phi+ itself differs in Y.
            agreements.setdefault((int(a), int(b)), []).append(not wrong)
    for (a, b), agreed in agreements.items():
        if a == b:
            assert all(agreed), (a, b)
        else:
            assert within(sum(agreed), len(agreed) / 2, len(agreed) / 4), (a, b)


def test_a_heralded_batch_stopped_while_its_bases_are_asked_for_ends_once_and_last() -> None:
    on = bench(probability=0.001, nodes="ab")
    for node in "ab":
        on.tell(node, "link", measuring(1, EVEN, pairs=10**6))
    on.run(30 * MS)
    on.tell("a", "link", AttemptsStop(batch=1))
    on.run(on.now + 1_000)
    on.tell("b", "link", AttemptsStop(batch=1))
    on.run(on.now + 10 * MS)
    for node in "ab":
        ends = on.heard(node, "link", AttemptsEnded)
        measured = on.heard(node, "link", MeasuredPairs)
        assert len(ends) + sum(m.is_last for m in measured) == 1
        assert on.heard(node, "link")[-1] in [*ends, measured[-1]]
    pairs = [sum(m.pairs for m in on.heard(node, "link", MeasuredPairs)) for node in "ab"]
    assert pairs[0] == pairs[1] > 0
    assert set(on.fabric.snapshot().batches.values()) == {0}


# --- a source in a station that has a name -------------------------------------------------------


def run_source(number: int = 7, link: str = "a-b", batches: tuple[int, int] = (1, 9)) -> WatchLink:
    return WatchLink(
        at_ns=0, sequence=number, link=link, batches=batches, first_cycle=0, until_cycle=None,
        pairs=1, kind="measure", bright_state=None,
    )  # fmt: skip


def test_a_source_runs_for_the_batches_its_station_names_and_until_it_stops() -> None:
    plain = source_world()
    links = {name: replace(link, station="mid") for name, link in plain.links.items()}
    fabric = started_fabric(World(nodes=plain.nodes, links=links))
    fabric.node_up("mid", boot_id(0, "mid", 0))
    for node, number in (("a", 1), ("b", 9)):
        fabric.apply(node, generate(measuring(number), 0, sequence=1, batch=number, cycle_ns=10,
                                    qubit=None))  # fmt: skip
    assert fabric.run(MS) == []  # nothing runs it
    fabric.apply("mid", replace(run_source(6, batches=(1, 8)), at_ns=MS))
    assert fabric.run(2 * MS) == []  # for others
    for sequence in (7, 8):  # it runs already; and one that is nobody's
        link = "a-b" if sequence == 7 else "b-c"
        fabric.apply("mid", replace(run_source(sequence, link), at_ns=2 * MS))
    assert [d.message.error for d in fabric.run(3 * MS)] == ["BAD_REQUEST"] * 2
    fabric.apply("mid", StopWatch(at_ns=3 * MS, sequence=9, watch=6, until_cycle=0))
    fabric.apply("mid", replace(run_source(10), at_ns=4 * MS))
    fabric.apply("mid", StopWatch(at_ns=9 * MS, sequence=11, watch=10, until_cycle=0))
    told = fabric.run(20 * MS)
    ended = [d.message.operation for d in told if isinstance(d.message, WatchEnded)]
    assert ended == [6, 10]
    for node in "ab":
        parts = [d.message for d in told if d.node == node]
        slots = np.concatenate([unpack_slots(p.slots, p.first_slot) for p in parts])
        assert 10 * int(slots.min()) >= 4 * MS
        assert 10 * int(slots.max()) < 9 * MS
        assert not any(part.is_last for part in parts)
