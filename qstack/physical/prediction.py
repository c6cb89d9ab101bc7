"""What a node expects of its links and its swaps, from profiles alone.

The same figures serve admission and the choice of paths. Nothing here knows a true state.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from msgspec.structs import replace

from qstack.physical.conditions import IDEAL, Conditions
from qstack.physical.generation import compiles_moves, has_storage
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.link_options import PassChannel, either
from qstack.physical.models.heralding import Heralded
from qstack.physical.models.pair_source import (
    BellWeights,
    PairSource,
    bell_weights,
    gain,
    weights_of,
)
from qstack.physical.models.receiver import Detector, Shares, click_patterns, coincidences
from qstack.physical.params import BRIGHT_STATES, SOURCE_SLOTS
from qstack.physical.profile import Profile
from qstack.physical.round_forecast import measured_forecast, round_forecast
from qstack.physical.service import (
    NO_DECAY_S,
    GenerationOption,
    LinkCapability,
    MeasuredForecast,
    NodeCapability,
)
from qstack.physical.switched import kept_cycle_ns, measured_slowdown
from qstack.quantum.bell import bell_probabilities, fidelity
from qstack.quantum.channels import depolarising
from qstack.quantum.gates import pauli_frame
from qstack.quantum.state import apply
from qstack.wire.packed import BASES

STEPS_MAX: Final = 1024
"""Steps of a satellite's pass that are kept: it is looked at again and again, ever less of it."""


def announced(
    world: World,
    link: LinkHardware,
    bright_state: float | None,
    conditions: Conditions = IDEAL,
    since_ns: int | None = None,
    at_ns: int | None = None,
) -> Heralded | None:
    """What an attempt yields, with the moves to storage at both ends; None if nothing ever.

    The states are those at emission: waiting is for whoever knows how long it lasts. Of a link that
    drifts they are those `since_ns` after a calibration, or, not given, right before the next:
    no pair is worse while care is taken in time. Over a satellite they are the mean of a pass, or
    of what is left of it at `at_ns`.
    """
    heralded = _unmoved(world, link, bright_state, conditions, since_ns, at_ns)
    return None if heralded is None else _moved(world, link, heralded)


def _unmoved(
    world: World,
    link: LinkHardware,
    bright_state: float | None,
    conditions: Conditions,
    since_ns: int | None,
    at_ns: int | None,
) -> Heralded | None:
    """The same before the moves, as pairs are that are measured at once."""
    if link.drift is not None:
        longest_ns = link.drift.calibration_period_ns
        conditions = link.drift.after(longest_ns if since_ns is None else since_ns, conditions)
    try:
        return _over_spells(link, conditions, world.end_profiles(link.id), bright_state, at_ns)
    except ValueError:  # no photon and no dark count reaches a detector
        return None


def _moved(world: World, link: LinkHardware, heralded: Heralded) -> Heralded:
    """With the moves to storage at both ends."""
    plus, minus = heralded.state, heralded.state_minus
    for axis, profile in enumerate(world.end_profiles(link.id)):
        if has_storage(world.nodes[link.ends[axis]].memory, profile.comm_qubits):
            move = depolarising(profile.move_depolarising)
            plus, minus = apply(plus, axis, move), apply(minus, axis, move)
    return Heralded(heralded.probability, plus, minus)


def _over_spells(
    link: LinkHardware,
    conditions: Conditions,
    profiles: tuple[Profile, Profile],
    bright_state: float | None,
    at_ns: int | None,
) -> Heralded:
    """The mean of an attempt over what the channel passes. Raises ValueError if none succeeds."""
    parts = []
    for share, arms in link.spells(at_ns):
        under = conditions if arms is None else replace(conditions, arms=arms)
        if under == IDEAL:
            parts.append((share, link.herald(*profiles, bright_state)))
        else:
            parts.append((share, link.herald_under(under, *profiles, bright_state)))
    if len(parts) == 1:
        return parts[0][1]
    weights = np.array([share * each.probability for share, each in parts])
    total = float(weights.sum())
    states = [np.array([each.state, each.state_minus]) for _, each in parts]
    plus, minus = np.tensordot(weights / total, states, axes=1)
    return Heralded(total, plus, minus)


def goodness_of(
    world: World,
    link: LinkHardware,
    bright_state: float | None,
    conditions: Conditions = IDEAL,
    since_ns: int | None = None,
) -> tuple[float, float]:
    """The expected fidelities to psi+ and to psi-, each when that is what the herald says."""
    heralded = announced(world, link, bright_state, conditions, since_ns)
    if heralded is None:
        return 0.0, 0.0
    plus, minus = fidelity(heralded.state, 1, 0), fidelity(heralded.state_minus, 1, 1)
    return _clipped(plus), _clipped(minus)


def generation_options(
    world: World,
    link: LinkHardware,
    conditions: Conditions | None = IDEAL,
    at_ns: int | None = None,
) -> list[GenerationOption]:
    """The ways to run a link: single-click by bright state (ascending), the others one.

    Under conditions that nobody knows (None) there is none. Over a satellite they are of what is
    left of its pass at `at_ns` (None: of a whole one).
    """
    if conditions is None:
        return []
    if not link.is_heralded:
        return [_source_option(world, link, conditions, at_ns)]
    profiles = world.end_profiles(link.id)
    settings: list[float | None] = [None]
    if link.scheme == "single-click":
        own = (profile.bright_state_default for profile in profiles)
        settings = [*sorted({*BRIGHT_STATES, *own})]
    options = []
    for bright_state in settings:
        measured = _unmoved(world, link, bright_state, conditions, None, at_ns)
        if measured is None:
            continue
        heralded = _moved(world, link, measured)
        options.append(
            GenerationOption(
                bright_state=bright_state,
                probability=_clipped(heralded.probability),
                cycle_ns=_mean_cycle_ns(
                    link,
                    kept_cycle_ns(
                        world, link, link.cycle_ns("keep", *profiles), heralded.probability
                    ),
                ),
                measure_cycle_ns=_mean_cycle_ns(
                    link, link.cycle_ns("measure", *profiles) * measured_slowdown(world, link)
                ),
                bell_probabilities=_corrected(heralded),
                test_round=round_forecast(world, link, heralded),
                measured_round=measured_forecast(world, link, measured),
            )
        )
    return options


def _mean_cycle_ns(link: LinkHardware, cycle_ns: float) -> int:
    """From one attempt to the next in the mean, the time of calibrations included."""
    return math.ceil(cycle_ns if link.drift is None else cycle_ns / link.drift.availability)


def link_slots(world: World, node: str) -> int:
    """How many pairs each heralded link of `node` may have in the making or waiting at once.

    One place of the memory is kept for data if there are more places than links. With
    communication qubits of its own, a link has no more pairs than those.
    """
    links = len(world.heralded_links_of(node))
    if not links:
        return 0
    hardware = world.nodes[node]
    data_reserve = 1 if hardware.memory > links else 0
    slots = max(1, (hardware.memory - data_reserve) // links)
    profile = hardware.profile
    if profile.parallel_links and profile.comm_qubits >= links:
        slots = min(slots, profile.comm_qubits // links)
    return slots


def link_capability(
    world: World,
    node: str,
    link: LinkHardware,
    conditions: Conditions | None = IDEAL,
    at_ns: int = 0,
) -> LinkCapability:
    """What `node` tells its link layer of one link at a network time."""
    opens_ns, until_ns = window(link, at_ns)
    return LinkCapability(
        link=link.id,
        peer=link.other_end(node),
        kinds=[*link.kinds],
        pairing="heralds" if link.is_heralded else "slots",
        options=generation_options(world, link, conditions, at_ns),
        opens_ns=opens_ns,
        until_ns=until_ns,
        slots=link_slots(world, node) if link.is_heralded else SOURCE_SLOTS,
        delay_ns=link.delay_ns,
    )


def window(link: LinkHardware, at_ns: int) -> tuple[int, int]:
    """From when until when the link can be used, now or next; (0, 0): always."""
    if not isinstance(link.channel, PassChannel):
        return 0, 0
    ahead = link.channel.ahead(at_ns)
    return ahead.opens_ns, ahead.until_ns


def swap_ns(profile: Profile) -> int:
    """How long a Bell measurement takes: CNOT, H, readout."""
    return profile.gate_2q_ns + profile.gate_1q_ns + profile.readout_ns


def swap_by_move(profile: Profile, memory: int) -> tuple[int, float]:
    """What swaps add where one of the qubits is brought to a communication qubit first.

    Nanoseconds, and the probability that the pair is replaced by noise; (0, 0) elsewhere.
    """
    if not compiles_moves(profile, memory):
        return 0, 0.0
    return profile.move_ns, profile.move_depolarising


def node_capability(world: World, node: str) -> NodeCapability:
    """What `node` tells its network layer: memory, decay, and the cost of gates and swaps."""
    hardware = world.nodes[node]
    profile = hardware.profile
    is_stored = has_storage(hardware.memory, profile.comm_qubits)
    t1_s, t2_s = profile.decay_times_s(is_stored=is_stored)
    move_ns, move_depolarising = swap_by_move(profile, hardware.memory)
    return NodeCapability(
        memory=hardware.memory,
        swap_ns=swap_ns(profile) + move_ns,
        swap_depolarising=either(profile.gate_2q_depolarising, move_depolarising),
        gate_depolarising=profile.gate_1q_depolarising,
        swap_flip=_clipped(1.0 - (profile.readout_f0 + profile.readout_f1) / 2.0),
        t1_s=min(t1_s, NO_DECAY_S),
        t2_s=min(t2_s, NO_DECAY_S),
    )


def _source_option(
    world: World, link: LinkHardware, conditions: Conditions, at_ns: int | None
) -> GenerationOption:
    """A pair source: coincidences of a slot, and the qubit pair that would err as they do.

    Of a satellite's link the mean over what is left of a pass, coincidence by coincidence.
    """
    assert link.source is not None
    # Slots come as they do: what is lost to others is in their probability.
    availability = 1.0 / measured_slowdown(world, link)
    if link.drift is not None:
        conditions = link.drift.after(link.drift.calibration_period_ns, conditions)
        availability *= link.drift.availability
    detectors: tuple[tuple[Shares, Shares], Detector] | tuple[()] = ()
    if link.detectors is not None:
        detectors = link.detectors.shares, link.detectors.kind(link.source.slot_ns)
    parts = [
        (share * total, weights)
        for share, source in link.pair_sources(conditions, at_ns)
        for total, weights in (_detected(source, *detectors),)
    ]
    total = sum(part for part, _ in parts)
    weights = [sum(part / total * of[place] for part, of in parts) for place in range(4)]
    return GenerationOption(
        bright_state=None,
        probability=_clipped(total * availability),
        cycle_ns=link.source.slot_ns,
        measure_cycle_ns=link.source.slot_ns,
        bell_probabilities=[_clipped(weight) for weight in weights],
        measured_round=_source_round(weights),
    )


@lru_cache(STEPS_MAX)
def _detected(
    source: PairSource, shares: tuple[Shares, Shares] | None = None, kind: Detector | None = None
) -> tuple[float, BellWeights]:
    """Coincidences of a slot in equal bases, and their qubit pair; None: with ideal detectors."""
    if shares is None or kind is None:
        return gain(source), bell_weights(source)
    seen, totals = [], []
    for basis in BASES:
        patterns = click_patterns(source, basis, basis, shares)
        outcomes = coincidences(patterns, kind)
        totals.append(float(outcomes.sum()))
        seen.append(float(np.trace(outcomes) - np.trace(outcomes[::-1])) / totals[-1])
    return totals[BASES.index("Z")], weights_of(*seen)


def _source_round(weights: Sequence[float]) -> MeasuredForecast:
    """What coincidences show: detectors and true multi-pairs are in their qubit pair."""
    agreements = [_clipped(weights[0] + weights[other]) for other in (2, 3, 1)]
    return MeasuredForecast(agreements, 1.0)


def _corrected(heralded: Heralded) -> list[float]:
    """Bell probabilities (phi+ first) with psi+ and psi- each moved to phi+."""
    moved = [
        apply(heralded.state, 1, pauli_frame(1, 0)),
        apply(heralded.state_minus, 1, pauli_frame(1, 1)),
    ]
    weights = np.mean([bell_probabilities(pair) for pair in moved], axis=0)
    return [_clipped(float(weight)) for weight in weights]


def _clipped(probability: float) -> float:
    """Without the last rounding error, which would put it outside 0..1."""
    return min(1.0, max(0.0, probability))
