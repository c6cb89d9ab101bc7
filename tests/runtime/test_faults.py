"""Nodes die at random network times while all kinds of work are going on.

Checked in each run (`swarm.run`): no exception; the network falls quiet; every call of a living
session is closed once; when all sessions have ended no qubit and no batch is left in the world;
no link pair is reported twice. Seeds that have failed once have tests with a name.
"""

import pytest

from tests.runtime import swarm


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_random_deaths_leave_nothing_open_and_nothing_behind(first: int) -> None:
    for seed in range(first, first + 20):
        swarm.run(seed)


@pytest.mark.parametrize("first", [0])
def test_devices_and_channels_that_break_and_return_leave_nothing_behind(first: int) -> None:
    for seed in range(first, first + 20):
        swarm.run_with_broken_parts(seed)


def test_an_echo_half_whose_opener_lost_its_device_is_freed_in_time() -> None:
    swarm.run_with_broken_parts(11_243)


@pytest.mark.parametrize("seed", [11, 130, 146, 211])
def test_a_closed_and_a_draining_message_stream_do_not_answer_each_other_for_ever(
    seed: int,
) -> None:
    """Credit of the end that drains was answered by Close, and Close by Credit, without end."""
    swarm.run(seed)


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_a_node_that_is_dead_already_cannot_die(seed: int) -> None:
    """The second death was a KeyError of the runner."""
    swarm.run(seed)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(10_000, 16_000, 200))
def test_many_random_deaths_leave_nothing_behind(first: int) -> None:
    for seed in range(first, first + 200):
        swarm.run(seed)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(10_000, 13_000, 200))
def test_many_broken_parts_leave_nothing_behind(first: int) -> None:
    for seed in range(first, first + 200):
        swarm.run_with_broken_parts(seed)
