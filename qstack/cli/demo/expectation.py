"""What theory expects of pairs and of teleportation over a network: printed beside what came out.

An independent prediction: it shares no code with the protocol machines, the emulated hardware or
the closed forms the stack predicts with. Of the network it takes plain numbers only. When things
happen is a Monte Carlo over replicas (`expectation_timing`), what the pairs are then is exact for
each history (`expectation_states`); all randomness comes from one seed.

Assumptions, beside those of `expectation_timing`
1. A pair counts with the mean of its three correlators, though it is measured in one basis: the
   expectation is the same, for bases do not depend on what a pair has been through.
2. One circuit is open and nobody else uses the network. Each repeater has one place per link,
   every qubit can emit, and idle qubits are not disturbed by attempts: what is otherwise is
   refused.
3. A single link makes one pair at a time, whatever its ends have room for.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qstack.cli.demo.expectation_chain import (
    Chain,
    bell_measurement_ns,
    chain_timing,
    find_chain,
    link_ready_ns,
    shortest_path,
)
from qstack.cli.demo.expectation_states import (
    CARDINAL_STATES,
    OUTCOMES,
    FloatArray,
    Pairs,
    aged,
    bell_effect,
    corrected,
    decay,
    estimated_fidelity,
    fresh,
    needs_gate,
    read_right,
    received_qubit,
    swapped,
)
from qstack.cli.demo.expectation_timing import (
    Delivered,
    IntArray,
    deliver,
)
from qstack.runtime.network_file import Network

CLASSICAL_BOUND: Final = 2.0 / 3.0
"""The best mean fidelity of sending an unknown qubit by measuring it (Massar, Popescu 1995)."""

PHASE_NS: Final = 1_000_000_000  # teleports are asked for at any time of the attempt grids


@dataclass(frozen=True, kw_only=True)
class PairExpectation:
    """What `expect_pairs` expects; `_se` is the standard error of the Monte Carlo mean."""

    pairs: int
    replicas: int
    fidelity: float
    """Of the estimator (1 + <XX> - <YY> + <ZZ>)/4, readout errors of both ends included."""
    fidelity_se: float
    fidelity_sd_pair: float
    """The spread of that between pairs: they have waited for different times."""
    state_fidelity: float
    """Of the corrected state with phi+ at the time of its measurement."""
    pair_interval_s: float
    """The request's time, from the first attempts to the last delivery, per pair."""
    pair_interval_se_s: float
    discards_per_pair: float
    """Link pairs that came to be as old as the cutoff, per delivered pair."""
    discards_per_pair_se: float
    total_s: float
    total_se_s: float


@dataclass(frozen=True, kw_only=True)
class TeleportExpectation:
    """What `expect_teleports` expects; `_se` is the standard error of the Monte Carlo mean."""

    replicas: int
    fidelity: float
    """The probability that the right outcome is read, the mean over the six cardinal states."""
    fidelity_se: float
    pair_fidelity: float
    """Of the pair with its announced Bell state, each half when its end has it confirmed."""
    pair_fidelity_se: float
    ideal: float
    """(2F + 1)/3 with that F: nothing but the pair is imperfect (Horodecki 1999)."""
    classical_bound: float
    duration_s: float
    """From the request until the correction is at the tail."""
    duration_se_s: float


def expect_pairs(
    network: Network,
    head: str,
    tail: str,
    *,
    pairs: int = 200,
    replicas: int = 400,
    seed: int = 0,
    cutoff_ns: int | None = None,
) -> PairExpectation:
    """One request of `pairs` kept pairs, each measured at both ends as soon as it is there.

    `replicas` such requests are played, all links ready at time 0. `cutoff_ns` None: the network
    file's. Raises `NoExpectationError` for what has no model here, ValueError for less than one
    pair or two replicas.
    """
    _require_counts(pairs, replicas)
    chain = find_chain(network, head, tail, cutoff_ns=cutoff_ns)
    generator = np.random.default_rng([seed, 1])
    begin = np.zeros((len(chain.links), replicas), dtype=np.int64)
    delivered = deliver(chain_timing(chain), begin, pairs=pairs, generator=generator)
    at_delivery = _joined(chain, delivered, generator)
    measured = _measured(chain, at_delivery, delivered)
    ends = chain.profiles[0], chain.profiles[-1]
    per_pair = estimated_fidelity(measured, *ends).reshape(replicas, pairs)
    fidelity, fidelity_se = _mean(per_pair.mean(axis=1))
    total, total_se = _mean(delivered.total_ns * 1e-9)
    discards, discards_se = _mean(delivered.discards / pairs)
    return PairExpectation(
        pairs=pairs,
        replicas=replicas,
        fidelity=fidelity,
        fidelity_se=fidelity_se,
        fidelity_sd_pair=float(per_pair.std()),
        state_fidelity=float(measured.fidelity().mean()),
        pair_interval_s=total / pairs,
        pair_interval_se_s=total_se / pairs,
        discards_per_pair=discards,
        discards_per_pair_se=discards_se,
        total_s=total,
        total_se_s=total_se,
    )


def expect_teleports(
    network: Network,
    head: str,
    tail: str,
    *,
    replicas: int = 4000,
    seed: int = 0,
    cutoff_ns: int | None = None,
) -> TeleportExpectation:
    """Teleports of cardinal states, each a request of its own for one pair.

    Every link begins when FORWARD has come down to it and its queues are agreed. `cutoff_ns` None:
    the network file's. Raises `NoExpectationError` for what has no model here, ValueError for less
    than two replicas.
    """
    _require_counts(1, replicas)
    chain = find_chain(network, head, tail, cutoff_ns=cutoff_ns)
    generator = np.random.default_rng([seed, 2])
    asked_ns = generator.integers(PHASE_NS, size=replicas)
    begin = asked_ns + link_ready_ns(chain)[:, np.newaxis]
    delivered = deliver(chain_timing(chain), begin, pairs=1, generator=generator)
    pairs = _joined(chain, delivered, generator)
    head_at, tail_at = delivered.head_at_ns[:, 0], delivered.tail_at_ns[:, 0]
    bell_known_ns = bell_measurement_ns(chain.profiles[0]) + network.machine_event_ns
    message_ns = network.path_delay_ns(head, tail) + network.machine_event_ns
    correct_at = np.maximum(tail_at, head_at + bell_known_ns + message_ns)
    emitted = delivered.emitted_at_ns[:, 0, -1]
    waited = aged(pairs, "right", chain.profiles[-1], tail_at - emitted, correct_at - emitted)
    data_age_ns = head_at - asked_ns + network.application_call_ns
    right = _teleported(chain, waited, data_age_ns, correct_at - emitted)
    fidelity, fidelity_se = _mean(right)
    pair_fidelity, pair_fidelity_se = _mean(pairs.fidelity())
    duration, duration_se = _mean((correct_at - asked_ns) * 1e-9)
    return TeleportExpectation(
        replicas=replicas,
        fidelity=fidelity,
        fidelity_se=fidelity_se,
        pair_fidelity=pair_fidelity,
        pair_fidelity_se=pair_fidelity_se,
        ideal=(2.0 * pair_fidelity + 1.0) / 3.0,
        classical_bound=CLASSICAL_BOUND,
        duration_s=duration,
        duration_se_s=duration_se,
    )


def direct_transmission_hz(network: Network, head: str, tail: str) -> float:
    """Photons a second that one source at `head` gets to a detector through the same fibre.

    coupling x 10^(-loss/10) / (t_init + t_emit) of the head's hardware: it never waits for a
    herald; the loss is that of all fibre from end to end and of its connectors. An upper bound of
    what the same device does without repeaters. Raises `NoExpectationError` if there is no path.
    """
    _, links = shortest_path(network, head, tail)
    profile = network.nodes[head].profile
    loss_db = sum(
        link.attenuation_db_per_km * link.length_m / 1000.0 + 2.0 * link.extra_loss_db
        for link in links
    )
    attempt_s = (profile.t_init_ns + profile.t_emit_ns) * 1e-9
    return float(profile.coupling * 10.0 ** (-loss_db / 10.0) / attempt_s)


# --- the states ----------------------------------------------------------------------------------


def _joined(chain: Chain, delivered: Delivered, generator: Generator) -> Pairs:
    """All delivered pairs, flat, each half as it is when its end has it confirmed."""
    count = delivered.head_at_ns.size
    last = len(chain.links) - 1
    whole: Pairs | None = None
    for place, link in enumerate(chain.links):
        minus = generator.random(count) < 0.5
        pair = fresh(link, chain.end_profiles(link), chain.nodes[place], minus)
        emitted = delivered.emitted_at_ns[:, :, place]
        swaps = delivered.swapped_at_ns
        left_until = delivered.head_at_ns if place == 0 else swaps[:, :, place - 1]
        right_until = delivered.tail_at_ns if place == last else swaps[:, :, place]
        left, right = chain.profiles[place], chain.profiles[place + 1]
        pair = aged(pair, "left", left, 0, (left_until - emitted).ravel())
        pair = aged(pair, "right", right, 0, (right_until - emitted).ravel())
        whole = pair if whole is None else swapped(whole, pair, left, generator)
    assert whole is not None, "a chain has a link"
    return whole


def _measured(chain: Chain, pairs: Pairs, delivered: Delivered) -> Pairs:
    """The tail corrects at once; both ends' applications then measure."""
    head, tail = chain.profiles[0], chain.profiles[-1]
    call_ns = chain.network.application_call_ns
    head_ns = (delivered.head_at_ns - delivered.emitted_at_ns[:, :, 0]).ravel()
    tail_ns = (delivered.tail_at_ns - delivered.emitted_at_ns[:, :, -1]).ravel()
    gate_ns = np.where(needs_gate(pairs), max(call_ns, tail.gate_1q_ns), call_ns)
    fixed = aged(corrected(pairs, tail), "left", head, head_ns, head_ns + call_ns)
    return aged(fixed, "right", tail, tail_ns, tail_ns + gate_ns)


def _teleported(
    chain: Chain, pairs: Pairs, data_age_ns: IntArray, tail_age_ns: IntArray
) -> FloatArray:
    """The probability of the right outcome for each pair, the mean over six states.

    The data qubit is initialised and turned by one gate (by none for |0>), then waits for its
    Bell measurement.
    """
    head, tail = chain.profiles[0], chain.profiles[-1]
    kept, coherence = decay(head, np.zeros_like(data_age_ns), data_age_ns)
    call_ns = chain.network.application_call_ns
    waits_ns = (call_ns, max(call_ns, tail.gate_1q_ns))
    right = np.zeros(len(data_age_ns))
    for axis, is_minus in CARDINAL_STATES:
        length = 2.0 * head.init_fidelity - 1.0
        if axis != "Z" or is_minus:
            length *= 1.0 - head.gate_1q_depolarising
        component = -length if is_minus else length
        data_z = 1.0 - kept + (kept * component if axis == "Z" else 0.0)
        along = data_z if axis == "Z" else coherence * component
        for x, z in OUTCOMES:
            effect = bell_effect(head, x=x, z=z)
            bits = pairs.x_bits ^ x, pairs.z_bits ^ z
            received = received_qubit(pairs, effect, axis, along, data_z)
            right += read_right(received, tail, bits, tail_age_ns, waits_ns, is_minus=is_minus)
    return right / len(CARDINAL_STATES)


def _require_counts(pairs: int, replicas: int) -> None:
    if pairs < 1 or replicas < 2:
        raise ValueError(f"at least 1 pair and 2 replicas, not {pairs} and {replicas}")


def _mean(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Mean and its standard error over replicas."""
    return float(values.mean()), float(values.std(ddof=1)) / sqrt(len(values))
