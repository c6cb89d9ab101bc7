"""A rest that others end, or move the end of, on trio's test clock: nothing here waits."""

from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from qstack.runtime.rest import Rest


async def rested(rest: Rest, at_s: float = inf) -> float:
    """How long it rested (s)."""
    begun = trio.current_time()
    await rest.until(at_s)
    return trio.current_time() - begun


async def test_it_ends_by_itself_at_its_time(autojump_clock: MockClock) -> None:
    assert await rested(Rest(), trio.current_time() + 7) == 7


@pytest.mark.parametrize("moved_s", [(9, 3), (3, 5), (9,)])
async def test_it_ends_when_it_was_moved_to_last(
    autojump_clock: MockClock, moved_s: tuple[float, ...]
) -> None:
    rest = Rest()
    begun = trio.current_time()
    took: list[float] = []

    async def resting() -> None:
        took.append(await rested(rest, begun + 7))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(resting)
        await wait_all_tasks_blocked()
        for at_s in moved_s:
            rest.move(begun + at_s)
    assert took == [moved_s[-1]]


async def test_without_a_time_it_lasts_until_its_end(autojump_clock: MockClock) -> None:
    rest = Rest()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest.until)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        rest.end()


async def test_an_end_before_it_began_counts_for_one_rest(autojump_clock: MockClock) -> None:
    rest = Rest()
    rest.end()
    assert await rested(rest) == 0
    assert await rested(rest, trio.current_time() + 2) == 2


async def test_an_end_counts_for_no_later_rest(autojump_clock: MockClock) -> None:
    rest = Rest()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest.until)
        await wait_all_tasks_blocked()
        rest.end()
        rest.end()
    assert await rested(rest, trio.current_time() + 2) == 2


async def test_moving_without_a_rest_changes_nothing(autojump_clock: MockClock) -> None:
    rest = Rest()
    rest.move(trio.current_time())
    assert await rested(rest, trio.current_time() + 2) == 2
