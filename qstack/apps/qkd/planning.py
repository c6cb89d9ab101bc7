"""How many pairs a key of a wanted length takes.

Both ends plan by themselves and must come to the same: nothing that is measured goes in, only
the wanted length and an error rate that is given, or predicted (`forecast`).
"""

from typing import Final

from qstack.apps.qkd.finite_key import GridRow
from qstack.apps.qkd.parameters import (
    PAIRS_MAX,
    TOLERATED_ERRORS,
    Parameters,
    ParametersError,
    planned,
)

FRACTIONS_X: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Shares of X that are tried; the one that needs the fewest pairs is taken."""
PRECISION: Final = 100  # the number of pairs is a multiple of it


def parameters_for(bits: int, *, error_rate: float) -> Parameters:
    """Parameters that give `bits` or more while no basis has more errors than `error_rate`.

    Raises `ParametersError` if no run this stack makes gives so many.
    """
    if bits < 1 or not 0 <= error_rate <= TOLERATED_ERRORS[-1]:
        raise ParametersError(
            f"bits is 1 or more, and the error rate at most {TOLERATED_ERRORS[-1]:g}"
        )
    best: Parameters | None = None
    for fraction_x in FRACTIONS_X:
        most = PAIRS_MAX if best is None else best.pairs - PRECISION
        found = _fewest(bits, fraction_x, error_rate, most // PRECISION)
        best = found or best
    if best is None:
        raise ParametersError(
            f"{PAIRS_MAX} pairs, the most of one run, give less than {bits} bits at an error rate"
            f" of {error_rate:g}; ask for several keys"
        )
    return best


def expected_row(parameters: Parameters, error_rate: float) -> GridRow | None:
    """The row that holds if this is the error rate in both bases."""
    return next((row for row in parameters.grid if row.tolerated_error >= error_rate), None)


def _fewest(bits: int, fraction_x: float, error_rate: float, most: int) -> Parameters | None:
    """Parameters with the fewest pairs, up to `most` times PRECISION; by bisection."""
    best = _enough(bits, most * PRECISION, fraction_x, error_rate)
    low, high = 0, most  # too few; enough
    while best is not None and high - low > 1:
        middle = (low + high) // 2
        found = _enough(bits, middle * PRECISION, fraction_x, error_rate)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    return best


def _enough(bits: int, pairs: int, fraction_x: float, error_rate: float) -> Parameters | None:
    """Parameters for so many pairs, if they give enough."""
    try:
        parameters = planned(pairs, fraction_x)
    except ParametersError:
        return None
    row = expected_row(parameters, error_rate)
    return parameters if row is not None and row.key_bits >= bits else None
