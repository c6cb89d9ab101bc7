"""Attempts as they are drawn against closed forms, for each scheme; and wrong models rejected.

Every comparison is of a count with a binomial. It alarms when n KL(k/n || p) > ln(2/alpha): by
Chernoff's bound with probability at most alpha if the model is right. alpha is 1e-3 over the
number of comparisons in this file (Bonferroni), so the whole file has at most 1e-3. The power is
bounded the same way: the probability that a wrong model passes is at most POWER_MISSED. Seeds are
hashes of the tests' names.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace

from qstack.physical.device import (
    BellOutcome,
    DoBellMeasure,
    DoMeasure,
    MeasuredReply,
    Outcome,
    Reply,
)
from qstack.physical.fabric import Fabric
from qstack.physical.hardware import LinkHardware, NodeHardware, World
from qstack.physical.link_equipment import (
    SCHEME_OF,
    AbsorptiveEquipment,
    Equipment,
    MidpointEquipment,
)
from qstack.physical.models import swaps
from qstack.physical.models.absorptive import AbsorptiveLink, absorptive
from qstack.physical.models.heralding import Heralded, double_click, single_click
from qstack.physical.models.midpoint_source import (
    MidpointSource,
    midpoint_source,
    play_frames,
    spdc_pairs,
    trial,
)
from qstack.quantum import bell
from qstack.quantum.measurement import readout_effect
from qstack.wire.packed import unpack_bits
from tests.physical.test_fabric_reference import generate, stop
from tests.physical.worlds import PERFECT

COMPARISONS = 92
FALSE_ALARM = 1e-3
ALPHA = FALSE_ALARM / COMPARISONS
POWER_MISSED = 1e-6


class Count(NamedTuple):
    """`seen` of `trials`, which the model says have this probability each."""

    what: str
    seen: int
    trials: int
    probability: float

    @property
    def is_alarming(self) -> bool:
        return self.trials * divergence(self.seen / self.trials, self.probability) > LIMIT


LIMIT = math.log(2.0 / ALPHA)


def divergence(q: float, p: float) -> float:
    """KL of two coins, in nats."""
    total = 0.0
    for a, b in ((q, p), (1.0 - q, 1.0 - p)):
        if a > 0.0:
            total += a * math.log(a / b) if b > 0.0 else math.inf
    return total


def missed(trials: int, right: float, wrong: float) -> float:
    """A bound of the probability that draws of `wrong` are not alarming against `right`."""
    low, high = sorted((right, wrong))
    edge = right
    for _ in range(60):  # the share between the two where the alarm begins
        middle = (low + high) / 2
        if trials * divergence(middle, right) > LIMIT:
            edge = middle
            low, high = (low, middle) if wrong > right else (middle, high)
        else:
            low, high = (middle, high) if wrong > right else (low, middle)
    if edge == right:
        return 1.0
    return math.exp(-trials * divergence(edge, wrong))


def seed_of(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


# --- drawn by the fabric -------------------------------------------------------------------------

F0, F1 = 0.96, 0.91
PROFILE = replace(
    PERFECT,
    coupling=0.5,
    visibility=0.8,
    dark_count_probability=0.002,
    bright_state_default=0.25,
    phase_sigma_rad=0.2,
    readout_f0=F0,
    readout_f1=F1,
)
ARMS_M = (100.0, 200.0)
MIDPOINT = MidpointEquipment(
    wavelength_nm=1550.0,
    pair_parameter=0.1,
    trial_ns=100,
    trials=10,
    latch_efficiency=0.6,
    false_latch_probability=0.003,
    source_fidelity=0.97,
    write_fidelity=0.98,
)
ABSORPTIVE = AbsorptiveEquipment(
    wavelength_nm=1550.0,
    pair_parameter=0.1,
    mode_ns=20,
    modes=8,
    idler_efficiency=0.7,
    dark_count_probability=0.001,
    visibility=0.85,
    number_resolving=False,
    write_efficiency=0.9,
    storage_heralded=True,
)
SCHEMES: dict[str, Any] = {
    "single-click": None,
    "double-click": None,
    "midpoint-source": MIDPOINT,
    "absorptive-memory": ABSORPTIVE,
}


def model(scheme: str) -> Heralded:
    """What the closed forms say of one attempt, from the numbers above."""
    etas = [0.5 * 10 ** (-0.02 * arm_m / 1000.0) for arm_m in ARMS_M]
    if scheme == "single-click":
        return single_click(
            alpha_a=0.25,
            alpha_b=0.25,
            eta_a=etas[0],
            eta_b=etas[1],
            dark_probability=0.002,
            visibility=0.8,
            phase_sigma_rad=0.2,
        )
    if scheme == "double-click":
        return double_click(eta_a=etas[0], eta_b=etas[1], dark_probability=0.002, visibility=0.8)
    if scheme == "midpoint-source":
        return midpoint_source(
            MidpointSource(
                pair_numbers=spdc_pairs(0.1),
                efficiencies=(1.2 * etas[0], 1.2 * etas[1]),
                trials=10,
                false_latches=(0.003, 0.003),
                source_fidelity=0.97,
                write_fidelities=(0.98, 0.98),
            )
        )
    absorbed = absorptive(
        AbsorptiveLink(
            mean_pairs=(0.1, 0.1),
            idler_efficiencies=(1.4 * etas[0], 1.4 * etas[1]),
            write_efficiencies=(0.9, 0.9),
            dark_probability=0.001,
            visibility=0.85,
        )
    ).stored
    assert absorbed is not None
    return absorbed._replace(probability=1 - (1 - absorbed.probability) ** 8)


class Draws(NamedTuple):
    """Measured pairs of a run: how many attempts, and [pattern, outcome a, outcome b]."""

    attempts: int
    table: Any


def drawn(name: str, scheme: Any, basis: Any, **changes: Any) -> Draws:
    """A million attempts of the fabric, both ends read in `basis`."""
    profile = replace(PROFILE, **changes)
    equipment: Equipment | None = SCHEMES[scheme]
    assert equipment is None or SCHEME_OF[type(equipment)] == scheme
    link = LinkHardware(
        ends=("a", "b"), length_m=300.0, arms_m=ARMS_M, scheme=scheme, equipment=equipment
    )
    nodes = {node: NodeHardware(name=node, profile=profile, memory=2) for node in "ab"}
    fabric = Fabric(World(nodes=nodes, links={"a-b": link}), seed_of(name))
    attempts = 1_000_000
    until_ns = attempts * link.cycle_ns("measure", profile, profile)
    for number, node in enumerate("ab"):
        fabric.node_up(node, bytes([number]) * 8)
        wanted = generate(0, 1 + number, "a-b", kind="measure", pairs=10**7, basis=basis)
        fabric.apply(node, wanted)
    fabric.apply("a", stop(until_ns, 3, 1))
    read: dict[str, list[Any]] = {"a": [], "b": []}
    patterns = []
    for node, _, _, message in fabric.run(until_ns + 10**9):
        if isinstance(message, MeasuredReply) and message.pairs:
            read[node].append(unpack_bits(message.outcomes, message.pairs))
            if node == "a":
                patterns.append(unpack_bits(message.z_bits, message.pairs))
    table = np.zeros((2, 2, 2), dtype=int)
    here, there = (np.concatenate(read[node]) for node in "ab")
    np.add.at(table, (np.concatenate(patterns), here, there), 1)
    return Draws(attempts, table)


def compared(draws: Draws, heralded: Heralded, basis: Any) -> list[Count]:
    """Successes of all attempts, and each outcome with its pattern of all attempts: 9 counts."""
    p = heralded.probability
    counts = [Count("success", int(draws.table.sum()), draws.attempts, p)]
    effects = [readout_effect(basis, bit, F0, F1) for bit in (0, 1)]
    for pattern, state in enumerate((heralded.state, heralded.state_minus)):
        for a, b in np.ndindex(2, 2):
            chance = p / 2 * float(effects[a] @ state @ effects[b])
            seen = int(draws.table[pattern, a, b])
            counts.append(Count(f"{pattern}{a}{b}", seen, draws.attempts, chance))
    return counts


# --- drawn photon by photon ----------------------------------------------------------------------


def frames(name: str) -> list[Count]:
    """A midpoint source trial by trial; of what was kept, a coin of each Werner weight."""
    source = MidpointSource(
        pair_numbers=spdc_pairs(0.15),
        efficiencies=(0.6, 0.4),
        trials=12,
        false_latches=(0.004, 0.01),
    )
    generator = np.random.default_rng(seed_of(name))
    played = play_frames(generator, source, 60_000)
    kept = len(played.weights)
    agree = int((generator.random(kept) < (1 + played.weights) / 2).sum())
    found, chances = midpoint_source(source), trial(source)
    weight = -found.state[3, 3]
    assert weight == pytest.approx(chances.weight / chances.both)
    return [
        Count("success", kept, 60_000, found.probability),
        Count("agreement", agree, kept, (1 + weight) / 2),
    ]


def retrieved(name: str, *, resolving: bool = False, visibility: float = 0.8) -> list[Count]:
    """Two Bell pairs joined by photons: heralds, and the Bell label of what they leave."""
    efficiencies = (0.7, 0.5)
    played = swaps.play_retrieved_photons(
        np.random.default_rng(seed_of(name)),
        200_000,
        efficiencies=efficiencies,
        dark_probability=0.01,
        visibility=visibility,
        number_resolving=resolving,
    )
    effects = swaps.retrieved_photon_measurement(
        *efficiencies, dark_probability=0.01, visibility=0.8, number_resolving=resolving
    )
    phi = bell.bell_state(0, 0)
    found = swaps.retrieved_photon_swap(phi, phi, effects)
    counts = []
    for herald, state in ((1, found.state), (2, found.state_minus)):
        weights = bell.bell_probabilities(state)
        for label in range(4):
            seen = int(((played.herald == herald) & (played.label == label)).sum())
            chance = found.probability / 2 * float(weights[label])
            counts.append(Count(f"{herald} {label}", seen, 200_000, chance))
    return counts


def swap_chance(basis: Any, f0: float, f1: float) -> float:
    """That the far qubits read alike after a swap that was brought to psi+."""
    phi = bell.bell_state(0, 0)
    found = swaps.deterministic_swap(
        phi, phi, gate_depolarising_2q=0.05, readout_f0=f0, readout_f1=f1
    )
    effects = [readout_effect(basis, bit, f0, f1) for bit in (0, 1)]
    return float(sum(effect @ found.state @ effect for effect in effects))


def swapped(name: str, f0: float = F0, f1: float = F1) -> list[Count]:
    """Twice 750 swaps in the fabric's register, against the closed form with these readouts."""
    profile = replace(PERFECT, gate_2q_depolarising=0.05, readout_f0=F0, readout_f1=F1)
    counts = []
    for basis in ("X", "Z"):
        seeds = (seed_of(f"{name} {basis} {run}") for run in range(750))
        agree = sum(one_swap(profile, seed, basis) for seed in seeds)
        counts.append(Count(f"agreement in {basis}", agree, 750, swap_chance(basis, f0, f1)))
    return counts


def one_swap(profile: Any, seed: int, basis: Any) -> bool:
    """Whether the far qubits read alike once the announced label is taken out to psi+."""
    nodes = {node: NodeHardware(name=node, profile=profile, memory=4) for node in "abc"}
    links = {}
    for ends in (("a", "b"), ("b", "c")):
        link: Any = LinkHardware(ends=ends, length_m=300.0, arms_m=ARMS_M, scheme="double-click")
        links[link.id] = link
    fabric = Fabric(World(nodes=nodes, links=links), seed)
    for number, node in enumerate("abc"):
        fabric.node_up(node, bytes([number]) * 8)
    for number, (node, link_id) in enumerate(
        [("a", "a-b"), ("b", "a-b"), ("b", "b-c"), ("c", "b-c")], start=1
    ):
        fabric.apply(node, generate(0, number, link_id))
    replies = {
        d.message.batch: d.message for d in fabric.run(10**7) if isinstance(d.message, Reply)
    }

    def qubit(number: int) -> bytes:
        return number.to_bytes(16, "big")

    fabric.apply("b", DoBellMeasure(at_ns=10**7, sequence=9, first=qubit(2), second=qubit(3)))
    fabric.apply("a", DoMeasure(at_ns=10**7, sequence=9, qubit=qubit(1), basis=basis))
    fabric.apply("c", DoMeasure(at_ns=10**7, sequence=9, qubit=qubit(4), basis=basis))
    x, z = 1, 0
    bits = []
    for delivery in fabric.run(2 * 10**7):
        if isinstance(delivery.message, BellOutcome):
            x, z = x ^ delivery.message.x_bit, z ^ delivery.message.z_bit
        elif isinstance(delivery.message, Outcome):
            bits.append(delivery.message.outcome)
    for batch in (1, 3):
        x, z = x ^ replies[batch].x_bit, z ^ replies[batch].z_bit
    flip = z if basis == "X" else x
    return bits[0] == bits[1] ^ flip


# --- right models pass ---------------------------------------------------------------------------


def alarms(counts: list[Count]) -> list[Count]:
    return [count for count in counts if count.is_alarming]


EXPERIMENTS: dict[str, Callable[[str], list[Count]]] = {
    **{
        f"{scheme} in {basis}": lambda name, scheme=scheme, basis=basis: compared(
            drawn(name, scheme, basis), model(scheme), basis
        )
        for scheme in SCHEMES
        for basis in ("X", "Z")
    },
    "midpoint source trial by trial": frames,
    "retrieved photons": retrieved,
    "retrieved photons counted": lambda name: retrieved(name, resolving=True),
    "swaps by gates": swapped,
}


def test_the_false_alarm_rate_is_shared_by_all_comparisons_there_are() -> None:
    sizes = {"midpoint source trial by trial": 2, "swaps by gates": 2}
    sizes |= {"retrieved photons": 8, "retrieved photons counted": 8}
    assert sum(sizes.get(name, 9) for name in EXPERIMENTS) == COMPARISONS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_drawn_is_what_the_closed_form_says(name: str) -> None:
    counts = EXPERIMENTS[name](name)
    assert not alarms(counts)
    assert min(count.trials for count in counts) >= 750


# --- wrong models are found ----------------------------------------------------------------------


def power(counts: list[Count], wrong: list[float]) -> float:
    """The smallest bound of the miss, over the counts of an experiment."""
    return min(
        missed(count.trials, count.probability, p) for count, p in zip(counts, wrong, strict=True)
    )


def test_visibility_for_its_root_is_rejected() -> None:
    """Single click drawn with a coherence of V instead of sqrt(V): a visibility of V squared."""
    name = "wrong: V for sqrt(V)"
    wrong = drawn(name, "single-click", "X", visibility=0.8**2)
    counts = compared(wrong, model("single-click"), "X")
    assert alarms(counts)
    lower = single_click(
        alpha_a=0.25,
        alpha_b=0.25,
        eta_a=0.5,
        eta_b=0.5,
        dark_probability=0.002,
        visibility=0.8**2,
        phase_sigma_rad=0.2,
    )
    expected = [count.probability for count in compared(wrong, lower, "X")]
    assert power(counts, expected) < POWER_MISSED


@pytest.mark.parametrize("scheme", SCHEMES)
def test_missing_readout_errors_are_rejected(scheme: str) -> None:
    name = f"wrong: no readout error, {scheme}"
    wrong = drawn(name, scheme, "Z", readout_f0=1.0, readout_f1=1.0)
    counts = compared(wrong, model(scheme), "Z")
    assert alarms(counts)
    heralded = model(scheme)
    clear = [readout_effect("Z", bit) for bit in (0, 1)]
    expected = [heralded.probability] + [
        heralded.probability / 2 * float(clear[a] @ state @ clear[b])
        for state in (heralded.state, heralded.state_minus)
        for a, b in np.ndindex(2, 2)
    ]
    assert power(counts, expected) < POWER_MISSED


@pytest.mark.parametrize("scheme", SCHEMES)
def test_phi_for_psi_is_rejected(scheme: str) -> None:
    """The far end's outcomes inverted in Z: phi+ where psi+ is announced."""
    draws = drawn(f"wrong: phi for psi, {scheme}", scheme, "Z")
    turned = Draws(draws.attempts, draws.table[:, :, ::-1])
    counts = compared(turned, model(scheme), "Z")
    assert alarms(counts)
    chances = [count.probability for count in counts]
    expected = [chances[0], *(chances[1 + 4 * p + 2 * a + (1 - b)]
                              for p in (0, 1) for a in (0, 1) for b in (0, 1))]  # fmt: skip
    assert power(counts, expected) < POWER_MISSED


@pytest.mark.parametrize("scheme", SCHEMES)
def test_psi_minus_for_psi_plus_is_rejected(scheme: str) -> None:
    draws = drawn(f"wrong: patterns swapped, {scheme}", scheme, "X")
    turned = Draws(draws.attempts, draws.table[::-1])
    counts = compared(turned, model(scheme), "X")
    assert alarms(counts)
    chances = [count.probability for count in counts]
    assert power(counts, [chances[0], *chances[5:], *chances[1:5]]) < POWER_MISSED


def test_a_wrong_visibility_of_retrieved_photons_is_rejected() -> None:
    wrong = retrieved("wrong: sqrt(V) for V", visibility=math.sqrt(0.8))
    assert alarms(wrong)
    effects = swaps.retrieved_photon_measurement(
        0.7, 0.5, dark_probability=0.01, visibility=math.sqrt(0.8)
    )
    phi = bell.bell_state(0, 0)
    found = swaps.retrieved_photon_swap(phi, phi, effects)
    expected = [
        found.probability / 2 * float(weight)
        for state in (found.state, found.state_minus)
        for weight in bell.bell_probabilities(state)
    ]
    assert power(wrong, expected) < POWER_MISSED


def test_swaps_without_readout_errors_are_rejected() -> None:
    counts = swapped("wrong: a swap that reads perfectly", 1.0, 1.0)
    assert alarms(counts)
    assert power(counts, [swap_chance(basis, F0, F1) for basis in ("X", "Z")]) < POWER_MISSED


def test_one_pair_instead_of_many_is_rejected() -> None:
    """A source that never emits two pairs has no multi-pair errors: the weight would be higher."""
    counts = frames("wrong: single pairs")
    (agreement,) = [count for count in counts if count.what == "agreement"]
    source = MidpointSource(
        pair_numbers=(0.7, 0.3), efficiencies=(0.6, 0.4), trials=12, false_latches=(0.004, 0.01)
    )
    chances = trial(source)
    naive = agreement._replace(probability=(1 + chances.weight / chances.both) / 2)
    assert naive.is_alarming
    assert missed(naive.trials, naive.probability, agreement.probability) < POWER_MISSED


def test_the_bounds_are_bounds_of_the_binomial() -> None:
    """Exact tails of a small binomial: alarms at most 2 exp(-limit), misses at most the bound."""
    n, p, q = 400, 0.3, 0.62

    def probability(chance: float, k: int) -> float:
        logs = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        return math.exp(logs + k * math.log(chance) + (n - k) * math.log1p(-chance))

    alarming = [Count("", k, n, p).is_alarming for k in range(n + 1)]
    assert sum(probability(p, k) for k in range(n + 1) if alarming[k]) <= ALPHA
    passed = sum(probability(q, k) for k in range(n + 1) if not alarming[k])
    assert passed <= missed(n, p, q) < 0.01
    assert missed(n, p, p + 1e-6) == 1.0
