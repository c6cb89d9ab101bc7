"""Applications die while a repeater is away, at random network times, in virtual time.

Checked in each run (`session_deaths.run`): as soon as it is quiet nothing is left at any node. A
half at an echo port stayed for ten seconds, which on demand do not pass, when its opener's
application died between reading its own half and asking for the other.
"""

import pytest

from tests.runtime import session_deaths


@pytest.mark.parametrize("seed", [15])
def test_an_echo_half_whose_opener_died_in_the_middle_of_its_reading_is_freed(seed: int) -> None:
    session_deaths.run(seed)


@pytest.mark.parametrize("seed", range(1))
def test_applications_that_die_around_the_death_of_a_repeater_leave_nothing(seed: int) -> None:
    session_deaths.run(seed)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(10_000, 12_000, 100))
def test_many_applications_that_die_leave_nothing(first: int) -> None:
    for seed in range(first, first + 100):
        session_deaths.run(seed)
