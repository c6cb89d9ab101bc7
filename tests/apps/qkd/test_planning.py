"""How many pairs a wanted length takes, and why a key is as long as it is."""

import math

import msgspec
import pytest

from qstack.apps.qkd.parameters import ParametersError, planned
from qstack.apps.qkd.planning import FRACTIONS_X, PRECISION, expected_row, parameters_for
from qstack.apps.qkd.report import interval, length_of
from tests.apps.qkd.world import World


@pytest.mark.parametrize("bits", [1, 256, 3000, 100_000, 300_000])
@pytest.mark.parametrize("error_rate", [0.0, 0.02, 0.05])
def test_what_is_planned_gives_what_is_wanted_and_no_share_of_x_does_with_less(bits, error_rate):
    parameters = parameters_for(bits, error_rate=error_rate)
    assert expected_row(parameters, error_rate).key_bits >= bits
    for fraction_x in FRACTIONS_X:
        try:
            fewer = planned(parameters.pairs - 5 * PRECISION, fraction_x)
        except ParametersError:
            continue
        row = expected_row(fewer, error_rate)
        assert row is None or row.key_bits < bits


@pytest.mark.parametrize(
    ("bits", "error_rate"), [(0, 0.03), (-5, 0.03), (10**7, 0.03), (256, 0.2), (256, math.nan)]
)
def test_what_cannot_be_is_refused(bits, error_rate):
    with pytest.raises(ParametersError):
        parameters_for(bits, error_rate=error_rate)


def test_the_terms_of_a_key_add_up_to_its_length():
    run = World(seed=4).run()
    key = run.keys["bob"]
    terms = length_of(run.parameters, key.metadata.figures)
    total = terms.secret - terms.leak - terms.tag - terms.hashing
    assert terms.key_bits == key.metadata.key_bits == math.floor(total)
    assert terms.leak >= key.metadata.figures.leak_bits
    none = msgspec.structs.replace(key.metadata.figures, tolerated_error=None)
    with pytest.raises(ValueError, match="not those"):
        length_of(run.parameters, none)


def test_intervals_are_those_of_wilson():
    low, high = interval(0.02, 1000)
    assert (round(low, 5), round(high, 5)) == (0.01298, 0.03069)  # by hand
    assert interval(0.0, 100)[0] == 0.0
    assert interval(1.0, 100)[1] == 1.0
