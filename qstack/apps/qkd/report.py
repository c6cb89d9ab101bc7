"""Why a key is as long as it is, and what is known of the error rates: for people and scripts."""

import math
from typing import Final

from msgspec import Struct

from qstack.apps.qkd.events import Figures
from qstack.apps.qkd.finite_key import binary_entropy, sampling_margin, tolerated_count
from qstack.apps.qkd.parameters import Parameters
from qstack.apps.qkd.verification import LEAK_BITS

Z_95: Final = 1.959964  # of the normal distribution: 95 % within


class Length(Struct, frozen=True, kw_only=True):
    """The terms of the key length, in bits: secret - leak - tag - hashing, rounded down.

    `leak` and `error` are those of the row declared before the run; `mu` is the sampling margin.
    """

    n: int
    error: float
    mu: float
    secret: float
    leak: int
    tag: int
    hashing: float
    key_bits: int


def interval(share: float, total: int) -> tuple[float, float]:
    """95 % interval of a probability from a share of `total` (Wilson, JASA 22, 209 (1927))."""
    z2 = Z_95**2 / total
    middle = (share + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(share * (1 - share) / total + z2 / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def length_of(parameters: Parameters, figures: Figures) -> Length:
    """The terms of a key that was made. Raises `ValueError` if none was."""
    for row in parameters.grid:
        if row.tolerated_error == figures.tolerated_error:
            break
    else:
        raise ValueError("the figures are not those of a key with these parameters")
    n, k = parameters.n, parameters.k
    eps_sec = parameters.eps_sec / len(parameters.grid)
    error = tolerated_count(row.tolerated_error, k) / k
    mu = sampling_margin(n, k, eps_sec)
    return Length(
        n=n,
        error=error,
        mu=mu,
        secret=n * (1 - binary_entropy(error + mu)),
        leak=row.leak_bits_max,
        tag=LEAK_BITS,
        hashing=2 * math.log2(1 / eps_sec),
        key_bits=row.key_bits,
    )
