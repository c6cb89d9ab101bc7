"""How long a key may be: the finite-key bound of BBM92 for general attacks.

n key bits measured in Z, k test bits measured in X with e errors, `leak` bits disclosed:

    mu  = sqrt((n + k) / (n k) * (k + 1) / k * ln(4 / eps_sec))
    ell = floor(n (1 - h2(e / k + mu)) - leak - tag - 2 log2(1 / eps_sec))

Tomamichel, Lim, Gisin, Renner, Nature Communications 3, 634 (2012), for ideal qubits and bases
chosen actively. The theorem is for acceptance thresholds fixed beforehand. A grid of rows
(tolerated error, disclosed bits, length) declared before the run keeps to it: what is kept of row
r is a part, known to all, of what the fixed protocol of row r would accept, so the distances from
an ideal key add up; each of the R rows is therefore computed with eps_sec / R.

Rules
1. Whatever the inputs, the answer is a length: nonsense (NaN, n = 0, e > k, an error of 1/2 or
   more, too many disclosed bits) gives 0, never an exception and never a key.
2. Rounding never favours the length: it is taken down.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

BOUND: Final = "TLGR12 (Serfling), grid declared before the run"
COUNT_MAX: Final = 2.0**53  # beyond it a float64 does not count


class GridRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is accepted for a key of `key_bits`: errors in each basis, and bits disclosed."""

    tolerated_error: Annotated[float, Meta(ge=0.0, lt=0.5)]
    leak_bits_max: Annotated[int, Meta(ge=0, le=2**40)]
    key_bits: Annotated[int, Meta(ge=0, le=2**40)]


def binary_entropy(probability: float) -> float:
    """h2 in bits; 1 from 1/2 on, and for what is no probability."""
    if probability == 0:
        return 0.0
    if not 0 < probability < 0.5:
        return 1.0
    rest = 1 - probability
    return -(probability * math.log2(probability) + rest * math.log2(rest))


def sampling_margin(n: float, k: float, eps_sec: float) -> float:
    """mu: how much worse the n unseen bits may be than the k seen. Infinite for nonsense."""
    if not (_is_count(n) and _is_count(k) and n >= 1 and k >= 1 and 0 < eps_sec < 1):
        return math.inf
    return math.sqrt((n + k) / (n * k) * (k + 1) / k * math.log(4 / eps_sec))


def key_length(
    *, n: float, k: float, errors: float, leak: float, tag: float, eps_sec: float
) -> int:
    """The secret bits in n key bits, 0 if there are none or an input is nonsense."""
    counts = (n, k, errors, leak, tag)
    if not all(_is_count(count) for count in counts) or errors > k:
        return 0
    margin = sampling_margin(n, k, eps_sec)
    if not math.isfinite(margin):
        return 0
    secret = n * (1 - binary_entropy(errors / k + margin))
    return max(0, math.floor(secret - leak - tag - 2 * math.log2(1 / eps_sec)))


def tolerated_count(tolerated_error: float, bits: int) -> int:
    """The most errors among `bits` that a tolerated rate allows."""
    return math.floor(tolerated_error * bits)


def declare_grid(
    *,
    n: int,
    k: int,
    tolerated_errors: Sequence[float],
    efficiency: float,
    tag: int,
    eps_sec: float,
) -> tuple[GridRow, ...]:
    """The rows for these tolerated errors, ascending; those that give no key are left out.

    A row allows `efficiency` times the Shannon limit at its error to be disclosed.
    """

    def row(rate: float, share: float) -> GridRow:
        leak = math.ceil(efficiency * n * binary_entropy(rate))
        errors = tolerated_count(rate, k)
        length = key_length(n=n, k=k, errors=errors, leak=leak, tag=tag, eps_sec=share)
        return GridRow(tolerated_error=rate, leak_bits_max=leak, key_bits=length)

    rates = sorted(set(tolerated_errors))
    kept = [rate for rate in rates if row(rate, eps_sec / len(rates)).key_bits]
    return tuple(row(rate, eps_sec / len(kept)) for rate in kept)


def _is_count(number: float) -> bool:
    return 0 <= number <= COUNT_MAX  # false for NaN
