"""Reading after a rotation, and remote state preparation, against density matrices.

The oracle knows nothing of our representation: complex matrices, unitaries, POVM elements. Every
comparison of frequencies has a fixed seed and a false alarm below 1e-6.
"""

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical import rotations
from qstack.physical.device import Generate, OperationRefused
from qstack.physical.drivers.recorder import RecordingDevice
from qstack.physical.drivers.setup import Setup
from qstack.physical.drivers.template import TemplateDevice
from qstack.physical.fabric.clicks import SourceModel
from qstack.physical.fabric.prepared import read_half
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.models.pair_source import PairSource, outcome_table
from qstack.physical.service import (
    AttemptsEnded,
    AttemptsStop,
    Heralded,
    Measure,
    Measured,
    MeasuredPairs,
    Rotation,
    Transfer,
)
from qstack.quantum.pauli import PAULIS, to_density
from qstack.wire.message import BasisProbabilities
from qstack.wire.packed import BASES, unpack_bases, unpack_bits
from tests.physical.calls import MS, start
from tests.physical.test_photon_pair_link import Z_SCORE, coincidences, measuring
from tests.physical.worlds import Bench, chain, chi_square_limit, source_world, started_fabric

TURN = Rotation(0.7, -1.1, 2.3)
OTHER = Rotation(-0.4, 0.9, 0.2)
CHSH = Rotation(0.0, math.pi / 4.0, 0.0)
NOISY: dict[str, Any] = {
    "readout_f0": 0.95,
    "readout_f1": 0.99,
    "emission_fidelity": 0.97,
    "visibility": 0.9,
    "t1_s": 0.4,
    "t2_s": 0.1,
}


# --- the oracle ----------------------------------------------------------------------------------


def unitary(rotation: Rotation | None) -> Any:
    """exp(-i angle P / 2), about X, then Y, then X."""
    turned = np.eye(2, dtype=complex)
    angles = (0.0, 0.0, 0.0) if rotation is None else tuple(getattr(rotation, f) for f in FIELDS)
    for angle, pauli in zip(angles, (PAULIS[1], PAULIS[2], PAULIS[1]), strict=True):
        turned = (math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * pauli) @ turned
    return turned


FIELDS = ("x1_rad", "y_rad", "x2_rad")


def element(basis: str, bit: int, rotation: Rotation | None, f0: float, f1: float) -> Any:
    """The matrix whose expectation is the probability of a report."""
    pauli = PAULIS[1 + BASES.index(basis)]
    true = [(np.eye(2) + sign * pauli) / 2.0 for sign in (1, -1)]
    seen = f0 * true[0] + (1 - f1) * true[1]
    turned = unitary(rotation)
    return turned.conj().T @ (seen if bit == 0 else np.eye(2) - seen) @ turned


def joint(rho: Any, bases: tuple[str, str], turns: Any, f0: float, f1: float) -> Any:
    """(2, 2) probabilities of both reports."""
    a, b = ([element(basis, bit, turn, f0, f1) for bit in (0, 1)]
            for basis, turn in zip(bases, turns, strict=True))  # fmt: skip
    return np.array([[np.trace(np.kron(x, y) @ rho).real for y in b] for x in a])


def left(rho: Any, effect: Any, end: int) -> Any:
    """What is left of the other half once `end` of a pair has reported."""
    both = np.kron(effect, np.eye(2)) if end == 0 else np.kron(np.eye(2), effect)
    parts = (both @ rho).reshape(2, 2, 2, 2)
    other = np.einsum("ijik->jk", parts) if end == 0 else np.einsum("ijkj->ik", parts)
    return other / np.trace(other)


def noisy_world(arms_m: tuple[float, float] = (100.0, 200.0), **more: Any) -> World:
    """Real double-click pairs with readout errors, and much success."""
    world = chain("ab", **(NOISY | more))
    link = LinkHardware(ends=("a", "b"), length_m=sum(arms_m), arms_m=arms_m, scheme="double-click")
    return replace(world, links={link.id: link})


def states_of(world: World) -> list[Any]:
    """The density matrices of psi+ and psi- heralds."""
    heralded = world.links["a-b"].herald(*world.end_profiles("a-b"))
    return [to_density(heralded.state), to_density(heralded.state_minus)]


# --- rotations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [None, TURN, OTHER, CHSH])
def test_effects_after_a_rotation_are_those_of_the_unitary(rotation: Rotation | None) -> None:
    effects = rotations.effects(rotation, 0.95, 0.99)
    for code, basis in enumerate(BASES):
        for bit in (0, 1):
            matrix = element(basis, bit, rotation, 0.95, 0.99)
            expected = [np.trace(matrix @ pauli).real / 2.0 for pauli in PAULIS]
            assert effects[code, bit] == pytest.approx(expected, abs=1e-12)
    directions = rotations.effects(rotation)[:, 0, 1:] * 2.0
    assert rotations.axes(rotation) == pytest.approx(directions, abs=1e-12)


def test_the_drafts_bases_are_rotations_before_z_and_the_chsh_set_is_x_and_z_turned() -> None:
    half = math.sqrt(0.5)
    for rotation, basis, axis in (
        (Rotation(0.0, -math.pi / 2, 0.0), "Z", (1, 0, 0)),
        (Rotation(math.pi / 2, 0.0, 0.0), "Z", (0, 1, 0)),
        (CHSH, "X", (half, 0, half)),  # 011: Z turned by +pi/4 about Y
        (CHSH, "Z", (-half, 0, half)),  # 100: Z turned by -pi/4
    ):
        code = BASES.index(basis)
        assert rotations.axes(rotation)[code] == pytest.approx(axis, abs=1e-12)


# --- measured pairs of a heralded link -----------------------------------------------------------


def read_both(on: Bench, asked: tuple[dict[str, Any], dict[str, Any]], pairs: int) -> Any:
    """Columns: outcomes of a and b, codes of both bases, the pattern."""
    for number, (node, more) in enumerate(zip("ab", asked, strict=True)):
        on.tell(node, "link", start(number, **({"kind": "measure", "pairs": pairs} | more)))
    on.run(on.now + 10_000 * MS)
    columns = []
    for node, more in zip("ab", asked, strict=True):
        parts = on.heard(node, "link", MeasuredPairs)
        outcomes = np.concatenate([unpack_bits(p.outcomes, p.pairs) for p in parts])
        if isinstance(more["basis"], str):
            codes = np.full(len(outcomes), BASES.index(more["basis"]))
        else:
            codes = np.concatenate([unpack_bases(p.bases, p.pairs) for p in parts])
        columns += [outcomes, codes]
    patterns = np.concatenate([unpack_bits(p.z_bits, p.pairs) for p in parts])
    assert len(patterns) == pairs
    return np.array([columns[0], columns[2], columns[1], columns[3], patterns])


def fits(counts: Any, expected: Any) -> bool:
    """Chi-square of the counts of four outcomes; false alarm 1e-6."""
    wanted = expected * counts.sum()
    statistic = float(((counts - wanted) ** 2 / wanted).sum())
    return statistic <= chi_square_limit(3)


def counted(columns: Any) -> Any:
    return np.array([[((columns[0] == i) & (columns[1] == j)).sum() for j in (0, 1)]
                     for i in (0, 1)])  # fmt: skip


def test_pairs_read_after_rotations_have_the_statistics_of_the_rotated_state() -> None:
    """2 patterns; unrotated statistics, or the ends exchanged, would not pass."""
    on = Bench(noisy_world(), 3)
    asked = ({"basis": "X", "rotation": TURN}, {"basis": "Z", "rotation": OTHER})
    columns = read_both(on, asked, 20_000)
    for pattern, rho in enumerate(states_of(on.world)):
        counts = counted(columns[:, columns[4] == pattern])
        assert fits(counts, joint(rho, ("X", "Z"), (TURN, OTHER), 0.95, 0.99))
        assert not fits(counts, joint(rho, ("X", "Z"), (None, None), 0.95, 0.99))
        assert not fits(counts, joint(rho, ("X", "Z"), (OTHER, TURN), 0.95, 0.99))


def test_bases_drawn_for_each_pair_are_rotated_too_and_give_the_chsh_value() -> None:
    """S of the exact states, readout errors included; four correlations of psi+ and psi- each."""
    on = Bench(noisy_world(), 5)
    drawn = BasisProbabilities(0.5, 0.0, 0.5)
    columns = read_both(on, ({"basis": drawn}, {"basis": drawn, "rotation": CHSH}), 40_000)
    value = 0.0
    for pattern, rho in enumerate(states_of(on.world)):
        for a in (0, 2):
            for b in (0, 2):
                chosen = (columns[2] == a) & (columns[3] == b) & (columns[4] == pattern)
                counts = counted(columns[:, chosen])
                names = (BASES[a], BASES[b])
                assert fits(counts, joint(rho, names, (None, CHSH), 0.95, 0.99)), (pattern, names)
                seen = (counts[0, 0] + counts[1, 1] - counts[0, 1] - counts[1, 0]) / counts.sum()
                value += abs(float(seen)) / 2.0
    assert value > 2.0  # no local model has that


# --- photon-pair links ---------------------------------------------------------------------------


def test_a_table_of_a_pair_source_depends_on_the_angle_between_the_axes_alone() -> None:
    source = PairSource(mean_pairs=0.2, efficiencies=(0.5, 0.3), backgrounds=(1e-4, 1e-5),
                        misalignment=0.02)  # fmt: skip
    for a, b in ((TURN, OTHER), (OTHER, CHSH)):
        for here, there in zip(rotations.axes(a), rotations.axes(b), strict=True):
            # phi+ is alike in here and its mirror image in Y: turn both so that `here` is Z.
            angle = math.acos(float(here @ (np.array([1.0, -1.0, 1.0]) * there)))
            in_plane = np.array([math.sin(angle), 0.0, math.cos(angle)])
            expected = outcome_table(source, "Z", in_plane)
            assert outcome_table(source, here, there) == pytest.approx(expected, abs=1e-12)
    for letter, axis in zip(BASES, np.eye(3), strict=True):
        assert (outcome_table(source, letter, "X") == outcome_table(source, axis, "X")).all()


def test_a_weak_source_has_the_fringe_of_a_pair_of_qubits() -> None:
    source = PairSource(mean_pairs=1e-9, efficiencies=(0.5, 0.3))
    for angle in np.linspace(0.0, math.pi, 7):
        table = outcome_table(source, "Z", np.array([math.sin(angle), 0.0, math.cos(angle)]))
        clicked = table[1:, 1:] / table[1:, 1:].sum()
        expected = (1.0 + math.cos(angle)) / 4.0
        assert clicked[0, 0] == pytest.approx(expected, abs=1e-6)


def test_rotated_receivers_read_what_their_table_says() -> None:
    on = Bench(source_world(), 7)
    on.tell("a", "link", measuring(1, "Z", rotation=TURN))
    on.tell("b", "link", measuring(9, "Z", rotation=OTHER))
    on.run(1000 * MS)
    on.tell("a", "link", AttemptsStop(batch=1))
    on.tell("b", "link", AttemptsStop(batch=9))
    on.run(1001 * MS)
    pairs = coincidences(on)
    model = SourceModel(on.world.links["a-b"])
    assert fits(counted(pairs), model.tables((TURN, OTHER))[0, 2, 2])
    assert not fits(counted(pairs), model.tables((None, None))[0, 2, 2])


# --- remote state preparation --------------------------------------------------------------------


def prepare(on: Bench, reader: str, times: int, basis: Any, read_in: str) -> list[Any]:
    """(pattern, outcome of the reader, code of its basis, outcome of the far end) for each."""
    keeper = "b" if reader == "a" else "a"
    rows = []
    for number in range(times):
        more = {"kind": "prepare", "basis": basis, "rotation": TURN}
        on.tell(reader, "link", start(number, **more))
        on.tell(keeper, "link", start(number, kind="prepare"))
        on.run(on.now + MS)
        read = on.heard(reader, "link", MeasuredPairs)[-1]
        kept = on.heard(keeper, "link", Heralded)[-1]
        same = read.first_herald_sequence, read.x_bits, read.z_bits, read.emitted_at_ns
        bits = bytes([kept.x_bit << 7]), bytes([kept.z_bit << 7])
        assert same == (kept.herald_sequence, *bits, kept.emitted_at_ns)
        assert (read.batch, read.pairs, read.is_last, kept.batch) == (number, 1, True, number)
        on.tell(keeper, "link", Transfer(call=None, qubit=kept.qubit, to="app/1"))
        on.run(kept.emitted_at_ns + 20 * MS)
        on.tell(keeper, "app/1", Measure(call=number, qubit=kept.qubit, basis=read_in))
        on.run(on.now + MS)
        code = BASES.index(basis) if isinstance(basis, str) else unpack_bases(read.bases, 1)[0]
        rows.append((kept.z_bit, read.outcomes[0] >> 7, int(code),
                     on.heard(keeper, "app/1", Measured)[-1].outcome))  # fmt: skip
        on.told.clear()
    return rows


def decayed(rho: Any, elapsed_s: float) -> Any:
    """Amplitude damping towards 0 with T1, coherence with T2 (exponential)."""
    t1_s, t2_s = NOISY["t1_s"], NOISY["t2_s"]
    excited = rho[1, 1] * math.exp(-elapsed_s / t1_s)
    coherence = rho[0, 1] * math.exp(-elapsed_s / t2_s)
    return np.array([[1 - excited, coherence], [np.conj(coherence), excited]])


@pytest.mark.parametrize("reader", ["a", pytest.param("b", marks=pytest.mark.soak)])
def test_a_remotely_prepared_state_is_that_of_the_exact_pair_given_the_report(reader: str) -> None:
    """All of pattern, report and basis read at the far end, 20 ms later; false alarm 1e-6."""
    world = noisy_world()
    for seed, read_in in enumerate(BASES):
        on = Bench(world, 11 + seed)
        rows = np.array(prepare(on, reader, 1500, "Y", read_in))
        excess, degrees = 0.0, 0
        for pattern, rho in enumerate(states_of(world)):
            for outcome in (0, 1):
                effect = element("Y", outcome, TURN, 0.95, 0.99)
                state = decayed(left(rho, effect, 0 if reader == "a" else 1), 0.02)
                one = np.trace(element(read_in, 1, None, 0.95, 0.99) @ state).real
                mine = rows[(rows[:, 0] == pattern) & (rows[:, 1] == outcome)]
                seen = int(mine[:, 3].sum())
                excess += (seen - len(mine) * one) ** 2 / (len(mine) * one * (1 - one))
                degrees += 1
        assert excess <= chi_square_limit(degrees)
        summary = on.nodes["a"].summary()["qubits"], on.nodes["b"].summary()["qubits"]
        assert summary == (0, 0)
        snapshot = on.fabric.snapshot()
        assert (snapshot.qubits, snapshot.batches) == ({"a": 0, "b": 0}, {"a": 0, "b": 0})


def test_the_reader_may_draw_its_basis_and_the_far_end_gets_what_that_one_makes() -> None:
    world = noisy_world()
    on = Bench(world, 17)
    rows = np.array(prepare(on, "a", 1500, BasisProbabilities(0.3, 0.0, 0.7), "X"))
    drawn = int((rows[:, 2] == 0).sum())
    assert abs(drawn - 450) <= Z_SCORE * math.sqrt(1500 * 0.21)
    assert not (rows[:, 2] == 1).any()
    excess = 0.0
    for code in (0, 2):
        for pattern, rho in enumerate(states_of(world)):
            for outcome in (0, 1):
                state = left(rho, element(BASES[code], outcome, TURN, 0.95, 0.99), 0)
                one = np.trace(element("X", 1, None, 0.95, 0.99) @ decayed(state, 0.02)).real
                mine = rows[(rows[:, 2] == code) & (rows[:, 0] == pattern)
                            & (rows[:, 1] == outcome)]  # fmt: skip
                seen = int(mine[:, 3].sum())
                excess += (seen - len(mine) * one) ** 2 / (len(mine) * one * (1 - one))
    assert excess <= chi_square_limit(8)


def test_a_perfect_pair_prepares_exactly_the_mirrored_direction() -> None:
    """With X^x Z^z at the far end: (-1)^m (a, -b, c), as the link's service says."""
    world = chain("ab")
    link = world.links["a-b"]
    heralded = link.herald(*world.end_profiles("a-b"))
    for pair, z in ((heralded.state, 0), (heralded.state_minus, 1)):
        frame = np.diag([1.0, (-1.0) ** z, (-1.0) ** (1 + z), -1.0])  # X^1 Z^z
        for code, axis in enumerate(rotations.axes(TURN)):
            read = read_half(pair, 0, rotations.effects(TURN)[code], 0.7)
            sign = (-1.0) ** read.outcome
            expected = sign * axis * np.array([1.0, -1.0, 1.0])
            assert (frame @ read.other)[1:] == pytest.approx(expected, abs=1e-12)


def test_prepare_takes_the_slower_cycle_of_keeping_and_measuring() -> None:
    link = chain("ab").links["a-b"]
    profiles = chain("ab", readout_ns=50_000).end_profiles("a-b")
    kinds = ("prepare", "keep", "measure")
    cycles = [link.cycle_ns(kind, *profiles) for kind in kinds]
    assert cycles[0] == max(cycles[1:]) == cycles[2]
    slow = chain("ab", arms_m=(20_000.0, 20_000.0)).links["a-b"]
    assert slow.cycle_ns("prepare", *profiles) == slow.cycle_ns("keep", *profiles)


def test_two_ends_that_both_keep_or_both_read_are_never_brought_together() -> None:
    for more in ({}, {"basis": "Z"}):
        on = Bench(chain("ab"))
        for node in "ab":
            on.tell(node, "link", start(0, kind="prepare", **more))
        on.run(5 * MS)
        assert not on.heard("a", "link", Heralded)
        assert not on.heard("a", "link", MeasuredPairs)
        on.tell("a", "link", AttemptsStop(batch=0))
        on.run(6 * MS)
        (ended,) = on.heard("a", "link", AttemptsEnded)
        assert (ended.reason, ended.attempts > 0) == ("stopped", True)


def test_a_prepare_batch_of_one_end_may_be_stopped_while_the_other_goes_on() -> None:
    on = Bench(chain("ab", 0.0))
    on.tell("a", "link", start(0, kind="prepare", basis="Z"))
    on.tell("b", "link", start(0, kind="prepare"))
    on.run(MS)
    on.tell("a", "link", AttemptsStop(batch=0))
    on.run(2 * MS)
    assert [e.reason for e in on.heard("a", "link", AttemptsEnded)] == ["stopped"]
    assert not on.heard("b", "link", AttemptsEnded)
    assert on.fabric.snapshot().batches == {"a": 0, "b": 1}


# --- refusals ------------------------------------------------------------------------------------


BAD = [
    {"kind": "keep", "rotation": TURN},
    {"kind": "prepare", "rotation": TURN},
    {"kind": "prepare", "basis": "Z", "pairs": 2},
]


@pytest.mark.parametrize("more", BAD)
def test_what_does_not_go_together_is_refused(more: dict[str, Any]) -> None:
    on = Bench(chain("ab"))
    (ended,) = on.tell("a", "link", start(0, **more))
    assert isinstance(ended, AttemptsEnded)
    assert ended.reason == "refused"


def generate(**more: Any) -> Generate:
    fields: dict[str, Any] = {
        "at_ns": 0, "sequence": 1, "batch": 1, "link": "a-b", "token": b"t" * 16,
        "kind": "measure", "first_cycle": 0, "bright_state": None, "pairs": 1, "basis": "Z",
        "qubit": None,
    }  # fmt: skip
    return Generate(**(fields | more))


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "keep", "basis": None, "qubit": b"q" * 16, "rotation": TURN},
        {"kind": "prepare", "basis": "given"},
        {"kind": "prepare", "qubit": b"q" * 16},
        {"kind": "prepare", "basis": None},
        {"kind": "prepare", "pairs": 2},
    ],
)
def test_the_fabric_refuses_it_too(more: dict[str, Any]) -> None:
    fabric = started_fabric(chain("ab"))
    fabric.apply("a", generate(**more))
    (delivery,) = fabric.run(MS)
    assert isinstance(delivery.message, OperationRefused)
    assert delivery.message.error == "BAD_REQUEST"


def test_a_photon_pair_link_prepares_nothing() -> None:
    on = Bench(source_world())
    (ended,) = on.tell("a", "link", start(0, kind="prepare", basis="Z"))
    assert isinstance(ended, AttemptsEnded)
    assert ended.reason == "refused"


def setup() -> Setup:
    return Setup(node="a", world=chain("ab"), rng=np.random.default_rng(1))


@pytest.mark.parametrize(
    "asked", [generate(rotation=TURN), generate(kind="prepare"), generate(kind="prepare",
    basis=None, qubit=b"q" * 16)]
)  # fmt: skip
def test_a_driver_that_does_not_say_it_can_refuses_as_unsupported(asked: Generate) -> None:
    device = TemplateDevice(setup())
    device.begin(0)
    assert device.submit(asked, 0) == []
    refused = device.answers(device.next_event_ns() or 0)
    assert [r.error for r in refused if isinstance(r, OperationRefused)] == ["UNSUPPORTED"]
    assert not device.batches


def test_a_driver_may_say_that_it_can() -> None:
    class Turning(TemplateDevice):
        rotates = prepares = True

    device = Turning(setup())
    device.begin(0)
    device.submit(generate(rotation=TURN), 0)
    assert [batch.rotation for batch in device.batches.values()] == [TURN]


def test_a_recorder_writes_nothing_of_what_recordings_have_no_words_for() -> None:
    class Turning(TemplateDevice):
        rotates = True

    device = RecordingDevice(Turning(setup()), "a")
    device.begin(0)
    device.submit(generate(rotation=TURN), 0)
    device.submit(generate(batch=2, sequence=2), 0)
    answers = []
    while (at_ns := device.next_event_ns()) is not None:
        answers += device.answers(at_ns)
    assert len(answers) == 2
    assert device.recording("a test").count(b'"record":"measure"') == 1
