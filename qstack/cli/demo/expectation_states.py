"""What state pairs are in: the noise of the independent expectation, on arrays of pairs.

Everything of a chain stays in one family of two-qubit states: those whose only correlators are
XX, YY, ZZ and the local Z of each side ("X states"). Five arrays so hold n pairs exactly, with
damping that does not commute with the frame, readout that favours an outcome, and all. Own
formulas: nothing is shared with the emulation.

Conventions: bits (x, z) name X^x Z^z acting on phi+; depolarising(p) keeps 1 - p of every
correlator of its qubits; state 0 is the one amplitude damping leads to; times are nanoseconds.
"""

from dataclasses import dataclass, replace
from math import exp, sqrt
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qstack.physical.hardware import LinkHardware
from qstack.physical.profile import Profile

FloatArray = NDArray[np.float64]
BitArray = NDArray[np.bool_]
AgeArray = NDArray[np.int64]
Side = Literal["left", "right"]
Axis = Literal["X", "Y", "Z"]

OUTCOMES = ((False, False), (False, True), (True, False), (True, True))
"""The (x, z) of a Bell measurement."""

CARDINAL_STATES: tuple[tuple[Axis, bool], ...] = (
    ("Z", False),
    ("Z", True),
    ("X", False),
    ("X", True),
    ("Y", False),
    ("Y", True),
)
"""Axis, and whether it is the state of eigenvalue -1."""


@dataclass(frozen=True)
class Pairs:
    """n two-qubit states, and the bits of the Bell state each is announced to be near."""

    left_z: FloatArray
    right_z: FloatArray
    xx: FloatArray
    yy: FloatArray
    zz: FloatArray
    x_bits: BitArray
    z_bits: BitArray

    def fidelity(self) -> FloatArray:
        """With the announced Bell state: (1 + XX - YY + ZZ)/4 once the bits are taken out."""
        x, z = sign(self.x_bits), sign(self.z_bits)
        fidelity: FloatArray = (1.0 + z * self.xx - x * z * self.yy + x * self.zz) / 4.0
        return fidelity


def sign(bits: BitArray) -> FloatArray:
    """-1 where the bit is set, else 1."""
    return np.where(bits, -1.0, 1.0)


@dataclass(frozen=True)
class LinkState:
    """A link: success probability of an attempt; populations 00, 01, 10, 11 and the coherence
    of 01 with 10 of a heralded pair before the spins' noise, ends as in the link hardware."""

    probability: float
    populations: tuple[float, float, float, float]
    coherence: float


def double_click(
    etas: tuple[float, float], dark: float, visibility: float, *, is_resolving: bool
) -> LinkState:
    """Barrett and Kok (2005): one click in each of two time bins (PHYSICS, section 2.3).

    `dark` is the probability of a dark count, per detector and bin.
    """
    a, b = etas
    silent = 1.0 - dark
    false_click = 2.0 * dark * silent
    clean = silent * silent if is_resolving else silent
    single = a * (1.0 - b) + b * (1.0 - a)
    nothing = (1.0 - a) * (1.0 - b)
    # Opposite spins: a photon in each bin. Equal spins: both in one bin, the other by accident.
    opposite = a * b * clean**2 + single * clean * false_click + nothing * false_click**2
    same_bin = 0.0 if is_resolving else a * b * (1.0 + visibility) / 2.0 * clean
    equal = false_click * (same_bin + single * clean + nothing * false_click)
    total = (opposite + equal) / 2.0
    weights = [weight / (4.0 * total) for weight in (equal, opposite, opposite, equal)]
    return LinkState(
        total,
        (weights[0], weights[1], weights[2], weights[3]),
        a * b * clean**2 * visibility / (4.0 * total),
    )


def single_click(
    etas: tuple[float, float],
    bright: tuple[float, float],
    dark: float,
    visibility: float,
    phase_factor: float,
    *,
    is_resolving: bool,
) -> LinkState:
    """Exactly one click of two detectors (PHYSICS, section 2.3); spin 1 is bright."""
    (a, b), (up_a, up_b) = etas, bright
    silent = 1.0 - dark
    false_click = 2.0 * dark * silent
    bunched = 0.0 if is_resolving else a * b * (1.0 + visibility) / 2.0
    light = silent * silent if is_resolving else silent
    both = light * (a + b - 2.0 * a * b + bunched)
    p11 = up_a * up_b * (both + (1.0 - a) * (1.0 - b) * false_click)
    p10 = up_a * (1.0 - up_b) * (a * light + (1.0 - a) * false_click)
    p01 = up_b * (1.0 - up_a) * (b * light + (1.0 - b) * false_click)
    p00 = (1.0 - up_a) * (1.0 - up_b) * false_click
    total = p00 + p01 + p10 + p11
    amplitude = sqrt(up_a * (1.0 - up_a) * a * up_b * (1.0 - up_b) * b * visibility)
    return LinkState(
        total,
        (p00 / total, p01 / total, p10 / total, p11 / total),
        amplitude * light * phase_factor / total,
    )


def link_state(link: LinkHardware, profile_a: Profile, profile_b: Profile) -> LinkState:
    """The scheme of a link with its own numbers; profiles in the order of its ends."""
    profiles = (profile_a, profile_b)
    a, b = (
        profile.coupling
        * 10.0 ** (-(link.attenuation_db_per_km * arm_m / 1000.0 + link.extra_loss_db) / 10.0)
        for profile, arm_m in zip(profiles, link.arms_m, strict=True)
    )
    dark = max(profile.dark_count_probability for profile in profiles)
    visibility = sqrt(profile_a.visibility * profile_b.visibility)
    is_resolving = profile_a.number_resolving and profile_b.number_resolving
    if link.scheme == "double-click":
        return double_click((a, b), dark, visibility, is_resolving=is_resolving)
    return single_click(
        (a, b),
        (profile_a.bright_state_default, profile_b.bright_state_default),
        dark,
        visibility,
        exp(-(profile_a.phase_sigma_rad**2 + profile_b.phase_sigma_rad**2) / 4.0),
        is_resolving=is_resolving,
    )


def fresh(
    link: LinkHardware, profiles: tuple[Profile, Profile], left: str, minus: BitArray
) -> Pairs:
    """Heralded pairs at their emission, psi- where `minus`, with the end `left` on the left.

    The spins' noise: Werner emission w = (4F - 1)/3 of each, and for single-click the dephasing
    of double excitation, 1 - 2p for a pair.
    """
    state = link_state(link, *profiles)
    p00, p01, p10, p11 = state.populations
    spins = [(4.0 * profile.emission_fidelity - 1.0) / 3.0 for profile in profiles]
    local = sqrt(spins[0] * spins[1])
    coherent = 2.0 * state.coherence * spins[0] * spins[1]
    if link.scheme == "single-click":
        coherent *= sqrt(np.prod([1.0 - 2.0 * p.double_excitation for p in profiles]))
    z = (local * (p00 + p01 - p10 - p11), local * (p00 + p10 - p01 - p11))
    if left != link.ends[0]:
        z = (z[1], z[0])
    ones = np.ones(len(minus))
    return Pairs(
        left_z=z[0] * ones,
        right_z=z[1] * ones,
        xx=coherent * sign(minus),
        yy=coherent * sign(minus),
        zz=(p00 + p11 - p01 - p10) * spins[0] * spins[1] * ones,
        x_bits=np.ones(len(minus), dtype=np.bool_),
        z_bits=minus,
    )


def decay(profile: Profile, from_ns: AgeArray, to_ns: AgeArray) -> tuple[FloatArray, FloatArray]:
    """What is left of the Z polarisation and of the coherence between two ages of a qubit.

    Exponential: exp(-t/T1), exp(-t/T2). Gaussian: the phase goes with exp(-(t/T2)^2) of the whole
    age beside the exp(-t/2T1) of damping.
    """
    before_s, after_s = from_ns * 1e-9, to_ns * 1e-9
    elapsed_s = after_s - before_s
    populations = np.exp(-elapsed_s / profile.t1_s)
    if profile.decay_law == "exponential":
        return populations, np.exp(-elapsed_s / profile.t2_s)
    squares = (after_s / profile.t2_s) ** 2 - (before_s / profile.t2_s) ** 2
    return populations, np.exp(-squares) * np.sqrt(populations)


def aged(
    pairs: Pairs, side: Side, profile: Profile, from_ns: AgeArray | int, to_ns: AgeArray
) -> Pairs:
    """One qubit of each pair waits from one age to another. Damping brings it towards 0."""
    kept, coherence = decay(profile, np.asarray(from_ns), to_ns)
    here, there = (pairs.left_z, pairs.right_z) if side == "left" else (pairs.right_z, pairs.left_z)
    relaxed = 1.0 - kept
    here = kept * here + relaxed
    zz = kept * pairs.zz + relaxed * there
    left, right = (here, there) if side == "left" else (there, here)
    return replace(
        pairs, left_z=left, right_z=right, xx=pairs.xx * coherence, yy=pairs.yy * coherence, zz=zz
    )


@dataclass(frozen=True)
class BellEffect:
    """The effect (c II + xx XX + yy YY + zz ZZ)/4 of one reported outcome."""

    identity: float
    xx: float
    yy: float
    zz: float


def bell_effect(profile: Profile, *, x: bool, z: bool) -> BellEffect:
    """CNOT, two-qubit noise, H on the first, its noise, and readout of both: first z, second x.

    A bit read as b has the effect (bias I + (-1)^b contrast Z)/2, bias = 1 +- (f0 - f1) and
    contrast = f0 + f1 - 1; taken back through the circuit, Z of the first is XX, Z of the second
    ZZ, and their product -YY.
    """
    difference = profile.readout_f0 - profile.readout_f1
    contrast = profile.readout_f0 + profile.readout_f1 - 1.0
    bias_x, s_x = (1.0 - difference, -1.0) if x else (1.0 + difference, 1.0)
    bias_z, s_z = (1.0 - difference, -1.0) if z else (1.0 + difference, 1.0)
    pair_kept = 1.0 - profile.gate_2q_depolarising
    first = contrast * s_z * (1.0 - profile.gate_1q_depolarising)
    second = contrast * s_x
    return BellEffect(
        bias_x * bias_z,
        pair_kept * first * bias_x,
        -pair_kept * first * second,
        pair_kept * second * bias_z,
    )


def swapped(left: Pairs, right: Pairs, profile: Profile, generator: Generator) -> Pairs:
    """A Bell measurement joins pairs; the outcome of each is drawn as likely as it is."""
    effects = [bell_effect(profile, x=x, z=z) for x, z in OUTCOMES]
    together = left.right_z * right.left_z
    chances = np.array([(e.identity + e.zz * together) / 4.0 for e in effects])
    drawn = generator.random(len(together))
    place = (drawn >= np.cumsum(chances, axis=0)[:-1]).sum(axis=0)
    identity, xx, yy, zz = np.array([[e.identity, e.xx, e.yy, e.zz] for e in effects]).T[:, place]
    weight = identity + zz * together
    bits = np.array(OUTCOMES)[place]
    return Pairs(
        left_z=(identity * left.left_z + zz * left.zz * right.left_z) / weight,
        right_z=(identity * right.right_z + zz * left.right_z * right.zz) / weight,
        xx=xx * left.xx * right.xx / weight,
        yy=yy * left.yy * right.yy / weight,
        zz=(identity * left.left_z * right.right_z + zz * left.zz * right.zz) / weight,
        x_bits=left.x_bits ^ right.x_bits ^ bits[:, 0],
        z_bits=left.z_bits ^ right.z_bits ^ bits[:, 1],
    )


def corrected(pairs: Pairs, profile: Profile) -> Pairs:
    """The tail takes the announced bits out by one Pauli gate; by none where they are 00."""
    x, z = sign(pairs.x_bits), sign(pairs.z_bits)
    kept = np.where(needs_gate(pairs), 1.0 - profile.gate_1q_depolarising, 1.0)
    none = np.zeros_like(pairs.x_bits)
    return Pairs(
        left_z=pairs.left_z,
        right_z=kept * x * pairs.right_z,
        xx=kept * z * pairs.xx,
        yy=kept * x * z * pairs.yy,
        zz=kept * x * pairs.zz,
        x_bits=none,
        z_bits=none,
    )


def needs_gate(pairs: Pairs) -> BitArray:
    """Whether the tail has something to correct."""
    return pairs.x_bits | pairs.z_bits


def estimated_fidelity(pairs: Pairs, left: Profile, right: Profile) -> FloatArray:
    """What (1 + <XX> - <YY> + <ZZ>)/4 of corrected pairs is with both ends' readout errors.

    An outcome +-1 of readout (f0, f1) has the mean (f0 - f1) + (f0 + f1 - 1) <P>.
    """
    offsets = [p.readout_f0 - p.readout_f1 for p in (left, right)]
    slopes = [p.readout_f0 + p.readout_f1 - 1.0 for p in (left, right)]
    both, plain = slopes[0] * slopes[1], offsets[0] * offsets[1]
    xx = plain + both * pairs.xx
    yy = plain + both * pairs.yy
    zz = (
        plain
        + offsets[0] * slopes[1] * pairs.right_z
        + slopes[0] * offsets[1] * pairs.left_z
        + both * pairs.zz
    )
    fidelity: FloatArray = (1.0 + xx - yy + zz) / 4.0
    return fidelity


@dataclass(frozen=True)
class Received:
    """The far qubit after one outcome of a Bell measurement, not normalised.

    `weight` is 4 x the outcome's probability, `component` 4 x that times the Bloch component
    along the axis of the state that was sent.
    """

    axis: Axis
    weight: FloatArray
    component: FloatArray


def received_qubit(
    pairs: Pairs, effect: BellEffect, axis: Axis, along: FloatArray, data_z: FloatArray
) -> Received:
    """What a qubit becomes that is measured with the left halves of `pairs`.

    It has the Bloch component `along` on the axis of its state, and `data_z`.
    """
    weight = effect.identity + effect.zz * data_z * pairs.left_z
    if axis == "X":
        return Received(axis, weight, effect.xx * along * pairs.xx)
    if axis == "Y":
        return Received(axis, weight, effect.yy * along * pairs.yy)
    component = effect.identity * pairs.right_z + effect.zz * data_z * pairs.zz
    return Received(axis, weight, component)


def read_right(
    received: Received,
    tail: Profile,
    bits: tuple[BitArray, BitArray],
    age_ns: AgeArray,
    waits_ns: tuple[int, int],
    *,
    is_minus: bool,
) -> FloatArray:
    """The probability that the outcome happens and the state sent (-1 of its axis if `is_minus`)
    is read.

    The tail takes `bits` out by one gate, or none, at age `age_ns`, and reads after waits_ns[0],
    or waits_ns[1] with a gate.
    """
    x, z = bits
    has_gate = x | z
    turned = {"X": sign(z), "Y": sign(x ^ z), "Z": sign(x)}[received.axis]
    component = turned * received.component
    component = component * np.where(has_gate, 1.0 - tail.gate_1q_depolarising, 1.0)
    wait_ns = np.where(has_gate, waits_ns[1], waits_ns[0])
    kept, coherence = decay(tail, age_ns, age_ns + wait_ns)
    if received.axis == "Z":
        component = kept * component + (1.0 - kept) * received.weight
    else:
        component = coherence * component
    difference, contrast = tail.readout_f0 - tail.readout_f1, tail.readout_f0 + tail.readout_f1 - 1
    mean = difference * received.weight + contrast * component
    probability: FloatArray = (received.weight - mean if is_minus else received.weight + mean) / 8.0
    return probability
