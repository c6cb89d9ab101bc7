"""When an application is idle, and in which order what it says leaves.

A node in lockstep holds the network's clock while one of its applications is busy (CLOCK.md, "When
the clock runs"). trio says when all tasks of a program wait: just before it asks the operating
system for news, with a timeout above zero. That moment every connection says what the tasks have
called since the last one, in an order that does not depend on trio's random one, and Idle.

Rules
1. A thread started by `to_thread` is work of the application: while one runs, nothing is said.
   What it calls into trio must not wait for a node. Threads started otherwise are unseen.
2. `trio.sleep` is waiting: it is wall time, and does not hold the clock.
3. A task's `place` is its path in the tree of who started whom: the same in every run.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Protocol, TypeVar, TypeVarTuple

import trio
import trio.lowlevel

Place = tuple[int, ...]
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Speaker(Protocol):
    """What has something to say when the application waits: a connection."""

    def on_waiting(self) -> None:
        """All tasks wait."""
        ...

    def on_hold(self) -> None:
        """The application is busy, though it may have said it waits."""
        ...


class _TaskPlace:
    """Where a task stands in the tree of tasks."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.started = 0


_task_place: Final[ContextVar[_TaskPlace | None]] = ContextVar("qstack_task_place", default=None)


class Idleness(trio.abc.Instrument):
    """Watches one trio run. `holds` counts what keeps the application busy unseen by trio."""

    def __init__(self) -> None:
        self.holds = 0
        self._speakers: list[Speaker] = []

    def add(self, speaker: Speaker) -> None:
        """Let `speaker` speak from now on."""
        if not self._speakers:
            trio.lowlevel.add_instrument(self)
        self._speakers.append(speaker)

    def remove(self, speaker: Speaker) -> None:
        """Let it speak no more."""
        self._speakers.remove(speaker)
        if not self._speakers:
            trio.lowlevel.remove_instrument(self)

    def hold(self) -> None:
        """Be busy until `holds` is counted down again."""
        self.holds += 1
        for speaker in self._speakers:
            speaker.on_hold()

    def before_io_wait(self, timeout: float) -> None:
        """trio's instrument: nothing is ready to run, for `timeout` seconds at most."""
        if timeout > 0 and not self.holds:
            for speaker in self._speakers:
                speaker.on_waiting()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """trio's instrument: give the new task its place below the one that starts it."""
        starter = task.context.get(_task_place)
        if starter is None:
            return
        task.context.run(_task_place.set, _TaskPlace((*starter.place, starter.started)))
        starter.started += 1


_of_run: Final = trio.lowlevel.RunVar[Idleness | None]("qstack_idleness", None)


def idleness() -> Idleness:
    """The one of this trio run. The task that asks first is the root of the tree of places."""
    known = _of_run.get()
    if known is None:
        known = Idleness()
        _of_run.set(known)
    return known


def place() -> Place:
    """The place of the task that is running."""
    known = _task_place.get()
    if known is None:
        known = _TaskPlace(())
        _task_place.set(known)
    return known.place


async def to_thread(function: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """Run `function` in a thread, as `trio.to_thread.run_sync` does, and be busy meanwhile.

    Network time stands still until the function returns, so what it computes takes none.
    """
    watcher = idleness()
    watcher.hold()
    try:
        return await trio.to_thread.run_sync(function, *arguments)
    finally:
        watcher.holds -= 1
