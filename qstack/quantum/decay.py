"""What waiting does to a qubit, in closed form: channels that treat X and Y alike.

Damping, dephasing and depolarising all have the form (x, y, z) -> (c x, c y, k z + a), and so has
any sequence of them: three numbers instead of matrices. T2 is the total coherence time and
T2 <= 2 T1. Amplitude damping relaxes to |0>. Times are seconds.
"""

import math
from typing import Final, NamedTuple

import numpy as np

from qstack.quantum.pauli import FloatArray

# T2 = 2 T1 written in decimal must not be refused for its last bit.
_T2_MAX: Final = 2.0 * (1.0 + 1e-12)  # of T1
_IDENTITY: Final = np.eye(4)


class Decay(NamedTuple):
    """The channel (x, y, z) -> (coherence x, coherence y, population z + drift)."""

    coherence: float
    population: float
    drift: float

    def then(self, later: "Decay") -> "Decay":
        """This channel and then `later`."""
        return Decay(
            self.coherence * later.coherence,
            self.population * later.population,
            self.drift * later.population + later.drift,
        )

    @property
    def transfer(self) -> FloatArray:
        """Its Pauli transfer matrix (4, 4)."""
        transfer = _IDENTITY.copy()
        transfer[1, 1] = transfer[2, 2] = self.coherence
        transfer[3, 0] = self.drift
        transfer[3, 3] = self.population
        return transfer


def dephased(p: float, times: int = 1) -> Decay:
    """`times` times rho -> (1-p) rho + p Z rho Z.

    Raises ValueError for p outside 0..1 or a negative number of times.
    """
    require(p, "a dephasing probability", 1.0)
    if times < 0:
        raise ValueError(f"a number of repetitions is not negative: {times}")
    return Decay((1.0 - 2.0 * p) ** times, 1.0, 0.0)


def depolarised(p: float) -> Decay:
    """rho -> (1-p) rho + p I/2. Raises ValueError outside 0..4/3, the range of channels."""
    require(p, "a depolarising probability", 4.0 / 3.0)
    return Decay(1.0 - p, 1.0 - p, 0.0)


def decoherence(elapsed_s: float, t1_s: float, t2_s: float) -> Decay:
    """Amplitude damping 1 - exp(-t/T1), then the dephasing that makes coherence exp(-t/T2).

    T1 and T2 may be infinite. Raises ValueError for a negative or infinite elapsed time, a time
    constant that is not positive, or T2 > 2 T1, which no channel has.
    """
    if not 0.0 <= elapsed_s < math.inf:
        raise ValueError(f"an elapsed time is finite and in 0..inf, not {elapsed_s}")
    if not 0.0 < t2_s <= _T2_MAX * t1_s:
        if not (t1_s > 0.0 and t2_s > 0.0):
            raise ValueError(f"T1 and T2 are positive, not {t1_s} and {t2_s}")
        raise ValueError(f"T2 is at most 2 T1: {t2_s} > 2 * {t1_s}")
    damping = -math.expm1(-elapsed_s / t1_s)
    return Decay(math.exp(-elapsed_s / t2_s), 1.0 - damping, damping)


def gaussian_dephasing(age_before_s: float, age_after_s: float, t2_s: float) -> Decay:
    """The step of the law exp(-(t/T2)^2) between two ages since initialisation.

    The factor is g(after) / g(before), so any number of touches gives the same decay. Raises
    ValueError unless 0 <= before <= after and T2 > 0 (infinite allowed).
    """
    require(age_before_s, "an age")
    require(age_after_s, "an age")
    if age_after_s < age_before_s:
        raise ValueError(f"a qubit does not grow younger: {age_before_s} to {age_after_s}")
    if not t2_s > 0.0:
        raise ValueError(f"T2 is positive, not {t2_s}")
    # The difference of squares as a product: exact for a short step late in life.
    exponent = (age_after_s - age_before_s) / t2_s * ((age_after_s + age_before_s) / t2_s)
    return Decay(math.exp(-exponent), 1.0, 0.0)


def require(value: float, name: str, most: float = math.inf) -> None:
    """Raises ValueError unless `value` is finite and in 0..most."""
    if not (0.0 <= value <= most and math.isfinite(value)):
        raise ValueError(f"{name} is finite and in 0..{most:g}, not {value}")
