"""Frame parity: decoupling pulses turn what waits, and nobody above the physical layer notices."""

import random
from itertools import pairwise
from typing import Any, Final, get_args

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical import qubits
from qstack.physical.check.report import check_driver
from qstack.physical.device import (
    BellOutcome,
    DoBellMeasure,
    DoMeasure,
    Initialise,
    Outcome,
    PulsedBellOutcome,
    PulsedOutcome,
)
from qstack.physical.drivers.recorder import RecordingDevice
from qstack.physical.drivers.recording import read_recording
from qstack.physical.drivers.setup import Setup
from qstack.physical.drivers.template import TemplateDevice
from qstack.physical.emulated import EmulatedDevice
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.frames import bell_bits_of, outcome_of, unframed
from qstack.physical.models.decoupling import (
    Axis,
    Frame,
    frame_after,
    is_reading_flipped,
    pulses_by,
    toggled,
)
from qstack.physical.models.storage import waiting
from qstack.physical.profile import ProfileError, parse_profile
from qstack.physical.profiles import load_packaged_profile, packaged_profile
from qstack.physical.service import (
    BellMeasure,
    BellMeasured,
    Heralded,
    Measure,
    Measured,
)
from qstack.quantum import bell, state
from qstack.quantum.gates import gate_transfer, pauli_frame
from qstack.wire.message import Basis
from tests.physical.calls import APP, MS, allocate, bench, gate, start
from tests.physical.worlds import PERFECT, Bench

AXES: Final[tuple[Axis, ...]] = get_args(Axis)
BASES: Final[tuple[Basis, ...]] = ("X", "Y", "Z")
SPACING_NS: Final = 10_000


def decoupled(axis: Axis = "x", spacing_ns: int = SPACING_NS, **more: Any) -> dict[str, Any]:
    return {"decoupling_spacing_ns": spacing_ns, "decoupling_axis": axis, **more}


# --- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "frames"),
    [
        (None, [(0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]),
        ("x", [(0, 0), (1, 0), (0, 0), (1, 0), (0, 0)]),
        ("y", [(0, 0), (1, 1), (0, 0), (1, 1), (0, 0)]),
        ("xy", [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0)]),
    ],
)
def test_the_frame_is_that_of_the_pulses_so_far(
    axis: Axis | None, frames: list[tuple[int, int]]
) -> None:
    assert [frame_after(axis, pulses) for pulses in range(5)] == frames


def test_pulses_come_half_a_spacing_after_the_beginning_and_then_at_each() -> None:
    ages = (0, 4, 5, 14, 15, 24, 25)
    assert [pulses_by(age, 10) for age in ages] == [0, 0, 1, 1, 2, 2, 3]
    assert pulses_by(2**53, 1) == 2**53  # whole numbers: exact at any age


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("frame", [Frame(0, 0), Frame(0, 1), Frame(1, 0), Frame(1, 1)])
def test_a_reading_is_flipped_where_the_frame_anticommutes(frame: Frame, basis: Basis) -> None:
    sign = pauli_frame(*frame)[BASES.index(basis) + 1, BASES.index(basis) + 1]
    assert is_reading_flipped(frame, basis) == (sign < 0)


@pytest.mark.parametrize("law", ["exponential", "gaussian"])
@pytest.mark.parametrize(("start_ns", "end_ns"), [(0, 3), (0, 25), (7, 88), (15, 300), (33, 34)])
def test_waiting_with_pulses_is_that_of_each_pulse_done_by_itself(
    law: Any, start_ns: int, end_ns: int
) -> None:
    """The closed form of the toggling frame against damping, a flip, damping, a flip, ..."""
    t1_s, t2_s, spacing_ns = 60e-9, 50e-9, 10
    waited = waiting(law, t1_s, t2_s, start_ns * 1e-9, end_ns * 1e-9)
    found = toggled(waited, t1_s, spacing_ns, start_ns, end_ns).transfer
    times = [start_ns, *(5 + 10 * k for k in range(40) if start_ns < 5 + 10 * k <= end_ns), end_ns]
    stepped = np.eye(4)
    for place, (begin, end) in enumerate(pairwise(times)):
        if place:
            stepped = gate_transfer("x") @ stepped
        stepped = waiting(law, t1_s, t2_s, begin * 1e-9, end * 1e-9).transfer @ stepped
    frames = [frame_after("x", pulses_by(age, spacing_ns)) for age in (start_ns, end_ns)]
    lab = pauli_frame(*frames[1]) @ found @ pauli_frame(*frames[0])
    assert lab == pytest.approx(stepped, abs=1e-12)


# --- pairs: what layers above see is what they see without ---------------------------------------


def pair(on: Bench, link: str, number: int) -> Heralded:
    """A pair of a link; the first end's herald."""
    for node in link.split("-"):
        on.tell(node, "link", start(number, link=link, token=bytes([number] * 16)))
    on.run(on.now + MS // 2)
    heralds = [on.heard(node, "link", Heralded)[-1] for node in link.split("-")]
    return heralds[0]


def read(on: Bench, node: str, qubit: bytes, basis: Basis) -> int:
    on.tell(node, "link", Measure(call=77, qubit=qubit, basis=basis))
    on.run(on.now + 5_000)
    answer = on.heard(node, "link", Measured)[-1]
    assert isinstance(answer, Measured)
    return answer.outcome


def disagreements(axis: Axis, **more: Any) -> int:
    """Perfect pairs read late, at two times: how many do not agree with their heralds."""
    wrong = 0
    for basis in BASES:
        on = bench("ab", **decoupled(axis), **more)
        for number in range(8):
            herald = pair(on, "a-b", number)
            far = on.heard("b", "link", Heralded)[-1]
            on.run(on.now + number * 7_777)
            outcomes = read(on, "a", herald.qubit, basis), read(on, "b", far.qubit, basis)
            state_of = bell.bell_state(herald.x_bit, herald.z_bit)
            sign = state_of[BASES.index(basis) + 1, BASES.index(basis) + 1]
            wrong += (outcomes[0] == outcomes[1]) != (sign > 0)
    return wrong


@pytest.mark.parametrize("axis", AXES)
def test_correlations_of_pairs_are_exactly_those_without_pulses(axis: Axis) -> None:
    assert disagreements(axis) == 0


@pytest.mark.parametrize("axis", AXES)
def test_the_model_that_ignores_the_parity_is_told_apart(
    axis: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qubits, "outcome_of", lambda _profile, result, _basis: result.outcome)
    assert disagreements(axis) > 0


@pytest.mark.parametrize("axis", AXES)
def test_a_swap_of_flipped_qubits_announces_what_the_ends_have(axis: Axis) -> None:
    """At odd and even counts; the exact state of the ends is the Bell state of all three bits."""
    for wait_ns in (0, 6_000, 13_000, 21_000, 34_000):
        on = bench("abc", **decoupled(axis, 9_000))
        first = pair(on, "a-b", 1)
        on.run(on.now + wait_ns)
        second = pair(on, "b-c", 2)
        at_b = [herald.qubit for herald in on.heard("b", "link", Heralded)]
        on.tell("b", "link", BellMeasure(call=5, first=at_b[0], second=at_b[1]))
        on.run(on.now + MS)
        (said,) = on.heard("b", "link", BellMeasured)
        far = on.heard("c", "link", Heralded)[-1].qubit
        bits = first.x_bit ^ second.x_bit ^ said.x_bit, first.z_bit ^ second.z_bit ^ said.z_bit
        ends = QubitKey("a", first.qubit), QubitKey("c", far)
        x, z = bits
        assert on.fabric.pair_fidelity(*ends, on.now, x=x, z=z) == pytest.approx(1.0, abs=1e-12)


def test_the_pulses_are_done_to_the_state_itself() -> None:
    """What the hardware has is the pair with both frames on it, and its noise is that without."""
    noisy: dict[str, Any] = {"t2_s": 0.002}
    with_pulses, without = bench("ab", **decoupled("y"), **noisy), bench("ab", **noisy)
    truths = []
    for on in (with_pulses, without):
        herald = pair(on, "a-b", 1)
        keys = QubitKey("a", herald.qubit), QubitKey("b", on.heard("b", "link", Heralded)[0].qubit)
        at_ns = herald.emitted_at_ns + 1_005_000  # 101 pulses
        on.run(at_ns)
        truths.append(on.fabric.truth(*keys, at_ns))
        lab = on.fabric.truth(*keys, at_ns, with_pulses=True)
        flipped = state.apply(truths[-1], 0, pauli_frame(1, 1))
        expected = state.apply(flipped, 1, pauli_frame(1, 1))
        assert lab == pytest.approx(expected if on is with_pulses else truths[-1], abs=1e-12)
    assert truths[0] == pytest.approx(truths[1], abs=1e-12)


# --- gates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", AXES)
def test_any_circuit_does_what_it_does_without_pulses(axis: Axis) -> None:
    """Random gates and waits on two qubits; exact states of what they stand for are equal."""
    names = ["h", "x", "y", "z", "s", "t", "rx", "cnot", "cz"]
    for seed in range(6):
        truths = []
        for more in (decoupled(axis, 7_000), {}):
            luck = random.Random(seed)
            on = bench("ab", t2_s=0.003, gate_1q_depolarising=0.01, **more)
            mine = [allocate(on), allocate(on)]
            for _ in range(12):
                name = luck.choice(names)
                count = 2 if name in ("cnot", "cz") else 1
                angle = luck.uniform(-3, 3) if name == "rx" else 0.0
                on.tell("a", APP, gate(None, name, *luck.sample(mine, count), angle=angle))
                on.run(on.now + luck.randrange(3_000, 40_000))
            keys = [QubitKey("a", each) for each in mine]
            truths.append(on.fabric.truth(keys[0], keys[1], on.now))
        assert truths[0] == pytest.approx(truths[1], abs=1e-12)


# --- what is said --------------------------------------------------------------------------------


def test_the_device_says_how_many_pulses_there_were_and_nothing_where_none_are_counted() -> None:
    for more, kinds in (
        (decoupled(), (PulsedOutcome, PulsedBellOutcome)),
        ({}, (Outcome, BellOutcome)),
    ):
        on = bench("ab", **more)
        names = [bytes([number] * 16) for number in range(3)]
        for number, name in enumerate(names):
            on.fabric.apply("a", Initialise(at_ns=0, sequence=1000 + number, qubit=name))
        on.fabric.apply("a", DoMeasure(at_ns=46_000, sequence=2000, qubit=names[0], basis="Z"))
        last = DoBellMeasure(at_ns=35_000, sequence=2001, first=names[1], second=names[2])
        on.fabric.apply("a", last)
        said = [each.message for each in on.fabric.run(MS)][3:]
        assert [type(each) for each in said] == [kinds[1], kinds[0]]
        if more:
            assert [each.pulses for each in said] == [(4, 4), 5]  # at 5, 15, 25, 35 and 45 us
            assert outcome_of(on.world.nodes["a"].profile, said[1], "Z") == 0
            assert said[1].outcome == 1


def test_frames_of_two_qubits_add_up_in_the_bits_of_a_bell_measurement() -> None:
    bench_of = bench("ab", **decoupled("xy")).world.nodes["a"].profile
    said = PulsedBellOutcome(operation=1, x_bit=0, z_bit=1, pulses=(1, 2))
    assert bell_bits_of(bench_of, said) == (1, 0)
    assert bell_bits_of(PERFECT, BellOutcome(operation=1, x_bit=0, z_bit=1)) == (0, 1)
    assert unframed(bench_of, 0, "X", 2) == 1


def test_a_recording_keeps_the_counts_and_an_older_one_has_none() -> None:
    on = bench("ab", **decoupled())
    device = RecordingDevice(EmulatedDevice(), "a")
    on.nodes["a"]._device = on.nodes["a"]._order._device = device
    herald = pair(on, "a-b", 1)
    read(on, "a", herald.qubit, "Z")
    data = device.recording("emulated")
    (kept,) = read_recording(data, "here").kept["a-b"]
    assert kept.pulses
    (older,) = read_recording(data.replace(b',"pulses":%d' % kept.pulses, b""), "here").kept["a-b"]
    assert older.pulses is None


# --- profiles and drivers ------------------------------------------------------------------------

FIGURES: Final = """
[decoupling_spacing_ns]
value = 40000
source = "this test"
mark = "assumed"
[decoupling_axis]
value = "xy"
source = "this test"
mark = "assumed"
"""


def test_a_profile_switches_it_on_by_two_figures_and_no_packaged_one_does() -> None:
    text = packaged_profile("bench")
    profile = parse_profile(text + FIGURES, where="mine")
    assert (profile.decoupling_spacing_ns, profile.decoupling_axis) == (40_000, "xy")
    assert {"decoupling_axis", "decoupling_spacing_ns"} <= {*profile.assumed}
    assert load_packaged_profile("bench").decoupling_axis is None
    with pytest.raises(ProfileError, match="one without the other"):
        parse_profile(text + FIGURES.partition("[decoupling_axis]")[0], where="mine")
    with pytest.raises(ProfileError, match="decoupling_axis"):
        parse_profile(text + FIGURES.replace('"xy"', '"w"'), where="mine")


class Counts(TemplateDevice):
    """A toy whose every qubit has had one pulse, or says so."""

    def measure(self, qubit: bytes, basis: Basis) -> int:
        return super().measure(qubit, basis) ^ self.turns

    def pulses(self, qubit: bytes, at_ns: int) -> int | None:
        return 1

    turns = 1


class Misses(Counts):
    turns = 0


def failed(make: Any, **figures: Any) -> dict[str, str]:
    profile = replace(load_packaged_profile("bench"), **figures)
    return {
        each.check: each.detail for each in check_driver(make, profile) if each.verdict == "failed"
    }


def test_the_check_reads_by_the_pulses_a_driver_counts() -> None:
    """Seed fixed; false alarm 1e-6."""
    figures = decoupled("x", 20_000)
    assert failed(EmulatedDevice, **figures) == {}
    assert failed(Counts, **figures) == {}
    assert "readout" in failed(Misses, **figures)
    assert "the profile has none" in failed(Counts)["a measurement is answered and ends the qubit"]


def test_a_setup_is_all_a_driver_needs_to_know_its_axis() -> None:
    on = bench("ab", **decoupled("y"))
    rng = np.random.default_rng(1)
    device = TemplateDevice(Setup(node="a", world=on.world, rng=rng, options={}, files={}))
    assert device.profile.decoupling_axis == "y"
    assert device.pulses(b"q" * 16, 0) is None
