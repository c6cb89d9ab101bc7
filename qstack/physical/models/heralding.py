"""Heralded entanglement of two spins by photons: success probability and state, in closed form.

Both schemes send one photon path from each node (`a`, `b`) to a beam splitter with two
detectors. `eta` is everything from spin to click; `dark_probability` is per detector and
detection window; `visibility` is that of Hong-Ou-Mandel interference, the overlap |<a|b>|^2 of
single photons. Spin 1 is bright: the one that emits. Which detector (or pattern) clicked gives
psi+ or psi-, equally likely. Without spin noise the forms are exact: Fock space with the lost
photons traced out. Pure functions, no chance.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from qstack.physical.models.ranges import require_unit
from qstack.quantum.channels import dephasing, depolarising
from qstack.quantum.pauli import FloatArray
from qstack.quantum.state import apply

_QUADRATURE_POINTS = 256


class Heralded(NamedTuple):
    """One attempt: `probability` is the total success probability, of both patterns together."""

    probability: float
    state: FloatArray
    """The (4, 4) Pauli tensor, axes (a, b), for the herald pattern `+`: near psi+."""
    state_minus: FloatArray
    """The same for the pattern `-`: near psi-."""


class _Weights(NamedTuple):
    """Unnormalised populations of |00>, |01>, |10>, |11> and the coherence |01><10|."""

    dark_dark: float
    dark_bright: float
    bright_dark: float
    bright_bright: float
    coherence: float


def single_click(  # noqa: PLR0913 - the parameters of the published form, all by keyword
    *,
    alpha_a: float,
    alpha_b: float,
    eta_a: float,
    eta_b: float,
    dark_probability: float = 0.0,
    visibility: float = 1.0,
    phase_sigma_rad: float = 0.0,
    emission_fidelity: float = 1.0,
    double_excitation: float = 0.0,
    number_resolving: bool = False,
) -> Heralded:
    """Success when exactly one of two detectors clicks in the window (Cabrillo and others 1999).

    `alpha` is the bright-state population; `phase_sigma_rad` the deviation of the optical phase;
    `emission_fidelity` that of a Werner spin-photon pair; `double_excitation` the dephasing
    probability of each spin. For small eta: P = 2 eta alpha, F = 1 - alpha. Coherence goes with
    sqrt(V). Two photons, or a photon and a dark count, in one detector look like one click unless
    the detectors are `number_resolving`. Raises ValueError for a value out of range, or if no
    click is possible.
    """
    require_unit(
        alpha_a=alpha_a,
        alpha_b=alpha_b,
        eta_a=eta_a,
        eta_b=eta_b,
        dark_probability=dark_probability,
        visibility=visibility,
    )
    quiet = 1.0 - dark_probability
    dark_click = 2.0 * dark_probability * quiet
    # A photon: a threshold detector hides a dark count of its own, a resolving one does not.
    photon = quiet**2 if number_resolving else quiet
    # Conditional success: with both, one and no bright spin.
    one_arrives = eta_a * (1.0 - eta_b) + eta_b * (1.0 - eta_a)
    bunched = 0.0 if number_resolving else eta_a * eta_b * (1.0 + visibility) / 2.0
    both_lost = (1.0 - eta_a) * (1.0 - eta_b)
    only_a = alpha_a * (1.0 - alpha_b)
    only_b = alpha_b * (1.0 - alpha_a)
    weights = _Weights(
        dark_dark=(1.0 - alpha_a) * (1.0 - alpha_b) * dark_click,
        dark_bright=only_b * (eta_b * photon + (1.0 - eta_b) * dark_click),
        bright_dark=only_a * (eta_a * photon + (1.0 - eta_a) * dark_click),
        bright_bright=alpha_a
        * alpha_b
        * (photon * (one_arrives + bunched) + both_lost * dark_click),
        coherence=math.sqrt(only_a * eta_a * only_b * eta_b * visibility)
        * photon
        * coherence_factor(phase_sigma_rad),
    )
    return _heralded(weights, _spin_noise(emission_fidelity, double_excitation))


def double_click(
    *,
    eta_a: float,
    eta_b: float,
    dark_probability: float = 0.0,
    visibility: float = 1.0,
    number_resolving: bool = False,
    emission_fidelity: float = 1.0,
) -> Heralded:
    """Success when exactly one detector clicks in each of two bins (Barrett and Kok 2005).

    Without dark counts P = eta_a eta_b / 2 and F = (1 + V) / 2: coherence goes with V. A pair of
    photons in one bin passes only with a dark count in the other, and not at all if the detectors
    are `number_resolving`. Raises ValueError for a value out of range, or if no click is possible.
    """
    require_unit(eta_a=eta_a, eta_b=eta_b, dark_probability=dark_probability, visibility=visibility)
    quiet = 1.0 - dark_probability
    dark_click = 2.0 * dark_probability * quiet
    # A bin with a photon: a threshold detector hides a dark count of its own, a resolving one not.
    photon_bin = quiet**2 if number_resolving else quiet
    both = eta_a * eta_b
    one_lost = eta_a * (1.0 - eta_b) + eta_b * (1.0 - eta_a)
    both_lost = (1.0 - eta_a) * (1.0 - eta_b)
    bunched = 0.0 if number_resolving else both * (1.0 + visibility) / 2.0 * photon_bin
    by_dark_counts = one_lost * photon_bin * dark_click + both_lost * dark_click**2
    opposite = both * photon_bin**2 + by_dark_counts
    equal = bunched * dark_click + by_dark_counts
    weights = _Weights(
        dark_dark=equal / 4.0,
        dark_bright=opposite / 4.0,
        bright_dark=opposite / 4.0,
        bright_bright=equal / 4.0,
        coherence=both * photon_bin**2 * visibility / 4.0,
    )
    return _heralded(weights, _spin_noise(emission_fidelity, 0.0))


def coherence_factor(sigma_rad: float, law: Literal["gaussian", "von-mises"] = "gaussian") -> float:
    """What phase noise leaves of a coherence: exp(-s^2/2), or I1(s^-2)/I0(s^-2) for von Mises.

    It is a dephasing with probability (1 - factor)/2. Raises ValueError for a negative or
    non-finite sigma, or another law.
    """
    if not (sigma_rad >= 0.0 and math.isfinite(sigma_rad)):
        raise ValueError(f"a phase deviation is finite and not negative: {sigma_rad}")
    if law == "gaussian":
        return math.exp(-(sigma_rad**2) / 2.0)
    if law == "von-mises":
        return _bessel_ratio(sigma_rad) if sigma_rad > 0.0 else 1.0
    raise ValueError(f"a phase law is gaussian or von-mises, not {law!r}")


def _bessel_ratio(sigma_rad: float) -> float:
    """I1(k) / I0(k) with k = sigma^-2: the mean cosine under exp(k (cos - 1)).

    The trapezoid rule is exact to rounding for a periodic integrand. Only where the density is
    above e^-60 is it sampled, and k never appears in an exponent that overflows.
    """
    reach = min(math.pi, 12.0 * sigma_rad)
    angles = np.linspace(-reach, reach, _QUADRATURE_POINTS, endpoint=False)
    density = np.exp(-2.0 * (np.sin(angles / 2.0) / sigma_rad) ** 2)
    return float(density @ np.cos(angles) / density.sum())


def _spin_noise(emission_fidelity: float, double_excitation: float) -> FloatArray:
    """The (4, 4) both spins go through: Werner emission w = (4F - 1)/3, then dephasing."""
    if not 0.25 <= emission_fidelity <= 1.0:
        raise ValueError(f"an emission fidelity is in 0.25..1, not {emission_fidelity}")
    lost = 4.0 * (1.0 - emission_fidelity) / 3.0
    return dephasing(double_excitation) @ depolarising(lost)


def _heralded(weights: _Weights, noise: FloatArray) -> Heralded:
    """Normalise, build psi+ and psi- with the sign of the coherence, apply the spins' noise."""
    probability = sum(weights[:4])
    if not probability > 0.0:
        raise ValueError("no herald is possible: no photon and no dark count reaches a detector")
    states = []
    for sign in (1.0, -1.0):
        p00, p01, p10, p11 = (weight / probability for weight in weights[:4])
        pair = np.zeros((4, 4))
        pair[0, 0] = 1.0
        pair[3, 0] = p00 + p01 - p10 - p11
        pair[0, 3] = p00 - p01 + p10 - p11
        pair[3, 3] = p00 - p01 - p10 + p11
        pair[1, 1] = pair[2, 2] = sign * 2.0 * weights.coherence / probability
        states.append(apply(apply(pair, 0, noise), 1, noise))
    return Heralded(probability, states[0], states[1])
