"""What both ends must agree on before a run; any difference ends it with the field named.

Rules
1. All of it is fixed before the first pair: the bound of `finite_key.py` needs that.
2. A grid may promise less than the bound gives, never more.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from qstack.apps.qkd.finite_key import GridRow, declare_grid, key_length, tolerated_count
from qstack.apps.qkd.parity_tree import BITS_MAX, Schedule
from qstack.apps.qkd.verification import LEAK_BITS, undetected_bound

SUITE: Final = "bbm92 cascade toeplitz poly1305 1"
PAIRS_MAX: Final = 2**22
KEY_BITS_MIN: Final = 64
TEST_BITS_MIN: Final = 325
"""With so many a full intercept-resend passes a limit of 11 % with probability below 1e-10."""
TOLERATED_ERRORS: Final = (0.01, 0.02, 0.03, 0.04, 0.05, 0.065, 0.08, 0.095)
EFFICIENCY: Final = 1.15
"""What may be disclosed, over the Shannon limit at the tolerated error; Cascade needs 1.04 to 1.11
in the mean of many runs, and once 1.16."""
SPREAD: Final = 6.0  # standard deviations that `planned` keeps below the expected counts

Epsilon = Annotated[float, Meta(ge=1e-30, le=0.1)]


class ParametersError(ValueError):
    """A parameter no run can be made with; the text names the field."""


class Parameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The run: pairs to measure, share of X, key and test bits, bounds, and what is accepted.

    `leak`: "alice" counts the parities the reference sends (the error pattern is given to the
    eavesdropper); "both" counts each one twice. `bias_tolerated` is how far the share of ones
    may be from 1/2 beyond chance, as with an asymmetric readout: the bound assumes 0.
    """

    suite: Annotated[str, Meta(max_length=63)] = SUITE
    pairs: Annotated[int, Meta(ge=1, le=PAIRS_MAX)]
    fraction_x: Annotated[float, Meta(ge=0.001, le=0.999)]
    n: Annotated[int, Meta(ge=KEY_BITS_MIN, le=BITS_MAX)]
    k: Annotated[int, Meta(ge=TEST_BITS_MIN, le=PAIRS_MAX)]
    eps_sec: Epsilon = 1e-10
    eps_cor: Epsilon = 1e-15
    grid: Annotated[tuple[GridRow, ...], Meta(min_length=1, max_length=32)]
    schedule: Schedule = Schedule()
    leak: Literal["alice", "both"] = "alice"
    bias_tolerated: Annotated[float, Meta(ge=0.0, le=0.25)] = 0.0

    @property
    def least_fidelity(self) -> float:
        """What is asked of the network: with q errors in both bases a pair has 1 - 2 q or more."""
        return 1.0 - 2.0 * self.grid[-1].tolerated_error

    @property
    def leak_factor(self) -> int:
        """Bits counted for each parity."""
        return 2 if self.leak == "both" else 1

    def check(self) -> None:
        """Raises `ParametersError` for values that are out of range or do not fit together."""
        try:
            msgspec.convert(msgspec.to_builtins(self), Parameters)
        except msgspec.ValidationError as error:
            raise ParametersError(str(error)) from None
        if self.suite != SUITE:
            raise ParametersError(f"suite is {self.suite!r}; only {SUITE!r} is known")
        if self.n + self.k > self.pairs:
            raise ParametersError("pairs: fewer than n + k")
        if self.eps_cor < undetected_bound(self.n, 1 + self.schedule.extra_passes):
            raise ParametersError("eps_cor: smaller than what the verification hash can promise")
        self._check_grid()

    def _check_grid(self) -> None:
        rates = [row.tolerated_error for row in self.grid]
        if rates != sorted(set(rates)):
            raise ParametersError("grid: the tolerated errors must ascend")
        for row in self.grid:
            limit = key_length(
                n=self.n,
                k=self.k,
                errors=tolerated_count(row.tolerated_error, self.k),
                leak=row.leak_bits_max,
                tag=LEAK_BITS,
                eps_sec=self.eps_sec / len(self.grid),
            )
            if not 1 <= row.key_bits <= limit:
                raise ParametersError(
                    f"grid: {row.key_bits} key bits at {row.tolerated_error:.4f}, where the "
                    f"bound gives {limit}"
                )

    def difference(self, other: "Parameters") -> str:
        """The first field that is not equal, or nothing."""
        for field in self.__struct_fields__:
            if getattr(self, field) != getattr(other, field):
                return field
        return ""

    def row_for(self, *, x_errors: int, z_errors: int, disclosed: int) -> GridRow | None:
        """The first row that accepts these counts. `disclosed` is without the first hash."""
        for row in self.grid:
            if (
                x_errors <= tolerated_count(row.tolerated_error, self.k)
                and z_errors <= tolerated_count(row.tolerated_error, self.n)
                and disclosed <= row.leak_bits_max
            ):
                return row
        return None

    @property
    def parities_max(self) -> int:
        """Parities after which no row is left."""
        return max(row.leak_bits_max for row in self.grid) // self.leak_factor


def planned(
    pairs: int,
    fraction_x: float,
    *,
    eps_sec: float = 1e-10,
    eps_cor: float = 1e-15,
    tolerated_errors: Sequence[float] = TOLERATED_ERRORS,
    efficiency: float = EFFICIENCY,
    leak: Literal["alice", "both"] = "alice",
    bias_tolerated: float = 0.0,
) -> Parameters:
    """Parameters for so many pairs: n and k that chance falls short of once in 1e9 runs.

    Raises `ParametersError` where no key can come of it.
    """
    if not 0 < fraction_x < 1 or not 1 <= pairs <= PAIRS_MAX:
        raise ParametersError("pairs or fraction_x is out of range")
    n = min(BITS_MAX, _surely(pairs, (1 - fraction_x) ** 2))
    k = _surely(pairs, fraction_x**2)
    if n < KEY_BITS_MIN or k < TEST_BITS_MIN:
        raise ParametersError(
            f"pairs: {pairs} surely give {n} key and {k} test bits; at least {KEY_BITS_MIN} and "
            f"{TEST_BITS_MIN} are needed"
        )
    grid = declare_grid(
        n=n,
        k=k,
        tolerated_errors=tolerated_errors,
        efficiency=efficiency * (2 if leak == "both" else 1),
        tag=LEAK_BITS,
        eps_sec=eps_sec,
    )
    if not grid:
        raise ParametersError(
            f"pairs: {n} key and {k} test bits give no key at any error declared; make more pairs"
        )
    parameters = Parameters(
        pairs=pairs,
        fraction_x=fraction_x,
        n=n,
        k=k,
        eps_sec=eps_sec,
        eps_cor=eps_cor,
        grid=grid,
        leak=leak,
        bias_tolerated=bias_tolerated,
    )
    parameters.check()
    return parameters


def _surely(pairs: int, probability: float) -> int:
    mean = pairs * probability
    return max(0, math.floor(mean - SPREAD * math.sqrt(mean * (1 - probability))))
