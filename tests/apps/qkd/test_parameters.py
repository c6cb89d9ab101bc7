"""What a run may be made with, and how two ends' parameters are compared."""

import math

import msgspec
import pytest

from qstack.apps.qkd.finite_key import GridRow
from qstack.apps.qkd.parameters import SUITE, Parameters, ParametersError, planned
from qstack.apps.qkd.parity_tree import Schedule
from tests.apps.qkd.world import SMALL


def changed(**fields) -> Parameters:
    return msgspec.structs.replace(SMALL, **fields)


def test_planned_parameters_are_in_order():
    SMALL.check()
    assert SMALL.suite == SUITE
    assert [row.tolerated_error for row in SMALL.grid] == sorted(
        row.tolerated_error for row in SMALL.grid
    )


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"suite": "bb84 1"}, "suite"),
        ({"pairs": 0}, "pairs"),
        ({"pairs": 2**23}, "pairs"),
        ({"pairs": 9000}, "pairs"),
        ({"fraction_x": 0.0}, "fraction_x"),
        ({"fraction_x": math.nan}, "fraction_x"),
        ({"n": 10}, "n"),
        ({"n": 2**21}, "n"),
        ({"k": 324}, "k"),
        ({"eps_sec": 0.0}, "eps_sec"),
        ({"eps_sec": math.nan}, "eps_sec"),
        ({"eps_cor": 1e-29}, "eps_cor"),
        ({"eps_cor": 1e-40}, "eps_cor"),
        ({"grid": ()}, "grid"),
        ({"grid": SMALL.grid[::-1]}, "grid"),
        ({"grid": SMALL.grid[:1] * 2}, "grid"),
        ({"leak": "none"}, "leak"),
        ({"schedule": Schedule(passes=2)}, "passes"),
        ({"schedule": Schedule(extra_passes=50)}, "passes"),
        ({"bias_tolerated": 0.3}, "bias_tolerated"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(fields, named):
    with pytest.raises(ParametersError, match=named):
        changed(**fields).check()


@pytest.mark.parametrize("more", [1, -(10**6)])
def test_a_grid_cannot_promise_more_than_the_bound_or_nothing(more):
    first = SMALL.grid[0]
    row = GridRow(
        tolerated_error=first.tolerated_error,
        leak_bits_max=first.leak_bits_max,
        key_bits=max(0, first.key_bits + more),
    )
    with pytest.raises(ParametersError, match="key bits at"):
        changed(grid=(row, *SMALL.grid[1:])).check()


def test_a_grid_may_promise_less():
    row = msgspec.structs.replace(SMALL.grid[0], key_bits=8)
    changed(grid=(row, *SMALL.grid[1:])).check()


@pytest.mark.parametrize(
    ("pairs", "fraction_x"),
    [(0, 0.5), (100, 0.5), (2**30, 0.5), (20_000, 0.0), (20_000, 0.02), (20_000, math.nan),
     (4000, 0.5)],
)  # fmt: skip
def test_a_plan_that_gives_no_key_is_refused(pairs, fraction_x):
    with pytest.raises(ParametersError):
        planned(pairs, fraction_x)


def test_the_first_row_that_accepts_everything_is_chosen():
    rows = SMALL.grid
    k, n = SMALL.k, SMALL.n
    assert SMALL.row_for(x_errors=0, z_errors=0, disclosed=0) is rows[0]
    assert SMALL.row_for(x_errors=int(0.015 * k), z_errors=0, disclosed=0) is rows[1]
    assert SMALL.row_for(x_errors=0, z_errors=int(0.015 * n), disclosed=0) is rows[1]
    over = rows[0].leak_bits_max + 1
    assert SMALL.row_for(x_errors=0, z_errors=0, disclosed=over) is rows[1]
    assert SMALL.row_for(x_errors=0, z_errors=0, disclosed=rows[-1].leak_bits_max + 1) is None
    assert SMALL.row_for(x_errors=k // 10, z_errors=0, disclosed=0) is None


def test_a_row_accepts_its_very_count_and_not_one_more():
    row = SMALL.grid[-1]
    count = math.floor(row.tolerated_error * SMALL.k)
    assert SMALL.row_for(x_errors=count, z_errors=0, disclosed=0) is row
    assert SMALL.row_for(x_errors=count + 1, z_errors=0, disclosed=0) is None


def test_counting_both_ways_leaves_less_key():
    both = planned(200_000, 0.5, leak="both")
    alice = planned(200_000, 0.5)
    assert both.grid[0].leak_bits_max >= 2 * alice.grid[0].leak_bits_max - 1
    assert both.grid[0].key_bits < alice.grid[0].key_bits
    assert both.parities_max <= max(row.leak_bits_max for row in both.grid) // 2


@pytest.mark.parametrize("field", Parameters.__struct_fields__)
def test_a_difference_is_named(field):
    values = {"suite": "x", "pairs": 1, "fraction_x": 0.4, "n": 65, "k": 400, "eps_sec": 1e-9,
              "eps_cor": 1e-9, "grid": SMALL.grid[:1], "schedule": Schedule(passes=8),
              "leak": "both", "bias_tolerated": 0.1}  # fmt: skip
    assert SMALL.difference(changed(**{field: values[field]})) == field
    assert SMALL.difference(changed()) == ""
