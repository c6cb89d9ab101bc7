"""Quantum memories: how a stored qubit ages, and how likely its photon comes out again.

Efficiency and fidelity are two things: a photon that does not come out is missed, one that does
has the conditional fidelity. Times in seconds. Laws of decay: exponential exp(-t/T2), and the
Gaussian exp(-(t/T2)^2) of slow collective noise, which depends on the age and not on the elapsed
time alone: it is taken between two ages, so that any number of touches gives the same.
"""

import math
from typing import Literal

import numpy as np
from msgspec import Struct

from qstack.physical.models.ranges import (
    require_at_least,
    require_not_negative,
    require_positive,
    require_unit,
)
from qstack.quantum import channels, decay
from qstack.quantum.decay import Decay
from qstack.quantum.figures import (
    comb_efficiency_backward,
    comb_efficiency_forward,
    retrieval_efficiency,
)
from qstack.quantum.pauli import FloatArray
from qstack.quantum.state import apply

Law = Literal["exponential", "gaussian"]


def waiting(law: Law, t1_s: float, t2_s: float, age_before_s: float, age_after_s: float) -> Decay:
    """The channel of waiting between two ages.

    The Gaussian law is of the dephasing beside the damping: exp(-t/2T1) exp(-(t/T2)^2). Raises
    ValueError for ages out of order, times not above 0, T2 > 2 T1 (exponential) or another law.
    """
    elapsed_s = age_after_s - age_before_s
    if law == "exponential":
        return decay.decoherence(elapsed_s, t1_s, t2_s)
    if law == "gaussian":
        damping = decay.decoherence(elapsed_s, t1_s, 2.0 * t1_s)
        return damping.then(decay.gaussian_dephasing(age_before_s, age_after_s, t2_s))
    raise ValueError(f"a law of decay is exponential or gaussian, not {law!r}")


def collective_dephasing(elapsed_s: float, t2_s: float) -> FloatArray:
    """Two qubits of one node in the same slowly varying field: (16, 16).

    Both turn by the same unknown angle, so phi loses four times the exponent of one qubit,
    exp(-4 (t/T2)^2), and psi keeps all. Raises ValueError for a time out of range.
    """
    require_not_negative(elapsed_s=elapsed_s)
    if not t2_s > 0.0:
        raise ValueError(f"T2 is positive, not {t2_s}")
    exponent = (elapsed_s / t2_s) ** 2  # the angle is Gaussian with variance twice that
    still = np.diag([1.0, 0.0, 0.0, 1.0])
    cosine = np.diag([0.0, 1.0, 1.0, 0.0])
    sine = np.zeros((4, 4))
    sine[1, 2], sine[2, 1] = -1.0, 1.0
    mixed = np.kron(still, cosine) + np.kron(cosine, still)
    twice = math.exp(-4.0 * exponent)
    transfer: FloatArray = (
        np.kron(still, still)
        + math.exp(-exponent) * mixed
        + (1.0 + twice) / 2.0 * np.kron(cosine, cosine)
        + (1.0 - twice) / 2.0 * np.kron(sine, sine)
    )
    return transfer


def spectator_coherence(attempts: int, attempts_to_1_over_e: float) -> float:
    """What attempts leave of an idle qubit's coherence: (1 - 2p)^n, with (1 - 2p)^N = 1/e.

    Raises ValueError for a negative number of attempts or N not above 0.
    """
    p = channels.attempt_dephasing_probability(attempts_to_1_over_e)
    return decay.dephased(p, attempts).coherence


def comb_efficiency(
    optical_depth: float, finesse: float, reading: Literal["forward", "backward"]
) -> float:
    """Of an atomic frequency comb at once (Afzelius 2009): at most 54 % forward, 1 backward.

    Raises ValueError for a negative depth, a finesse below 1 or another direction.
    """
    require_not_negative(optical_depth=optical_depth)
    require_at_least(1, finesse=finesse)
    if reading == "forward":
        return comb_efficiency_forward(optical_depth, finesse)
    if reading == "backward":
        return comb_efficiency_backward(optical_depth, finesse)
    raise ValueError(f"a comb is read forward or backward, not {reading!r}")


def comb_modes(delay_s: float, mode_s: float) -> int:
    """How many time bins go into a comb before the first comes out: delay / mode, rounded down.

    Raises ValueError unless both are above 0.
    """
    require_positive(delay_s=delay_s, mode_s=mode_s)
    return math.floor(delay_s / mode_s * (1.0 + 1e-12))


class PhotonMemory(Struct, frozen=True, kw_only=True):
    """A memory that takes a photon and gives it back.

    `retrieval_efficiency` is that at once, `retrieval_decay_s` and `retrieval_law` how it decays
    (exponential: like a comb; Gaussian: like cold atoms); `fidelity` is that of half of a Bell
    pair that comes out, Werner, and `t1_s`, `t2_s`, `law` how the qubit ages meanwhile. `modes` are
    held at once. With a `fixed_delay_s` light comes out after that time and at no other; without,
    on demand. Raises ValueError for a value out of range.
    """

    write_efficiency: float
    retrieval_efficiency: float
    retrieval_decay_s: float
    retrieval_law: Law
    fidelity: float = 1.0
    t1_s: float = math.inf
    t2_s: float = math.inf
    law: Law = "exponential"
    modes: int = 1
    fixed_delay_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require_unit(
            write_efficiency=self.write_efficiency, retrieval_efficiency=self.retrieval_efficiency
        )
        require_positive(retrieval_decay_s=self.retrieval_decay_s)
        if not 0.25 <= self.fidelity <= 1.0:
            raise ValueError(f"fidelity is in 0.25..1, not {self.fidelity}")
        require_at_least(1, modes=self.modes)
        if self.fixed_delay_s is not None:
            require_positive(fixed_delay_s=self.fixed_delay_s)
        for law in (self.retrieval_law, self.law):
            if law not in ("exponential", "gaussian"):
                raise ValueError(f"a law of decay is exponential or gaussian, not {law!r}")
        waiting(self.law, self.t1_s, self.t2_s, 0.0, 0.0)

    def efficiency(self, storage_s: float) -> float:
        """From the photon before to the photon behind, after this time.

        0 if the delay is fixed and another. Raises ValueError for a negative time.
        """
        require_not_negative(storage_s=storage_s)
        if self.fixed_delay_s is not None and not math.isclose(storage_s, self.fixed_delay_s):
            return 0.0
        return self.write_efficiency * retrieval_efficiency(
            self.retrieval_efficiency, storage_s, self.retrieval_decay_s, self.retrieval_law
        )

    def retrieved(self, pair: FloatArray, axis: int, storage_s: float) -> FloatArray:
        """The pair whose qubit of `axis` was stored and came out. Raises ValueError if negative."""
        require_not_negative(storage_s=storage_s)
        aged = apply(pair, axis, waiting(self.law, self.t1_s, self.t2_s, 0.0, storage_s).transfer)
        return apply(aged, axis, channels.depolarising(4.0 * (1.0 - self.fidelity) / 3.0))

    def can_wait_for(self, herald_s: float) -> bool:
        """Whether a herald that comes so late finds the light still in.

        Raises ValueError for a negative time.
        """
        require_not_negative(herald_s=herald_s)
        return self.fixed_delay_s is None or herald_s <= self.fixed_delay_s
