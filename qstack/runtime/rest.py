"""A rest of one task that others end, or move the end of without waking it."""

from math import inf

import trio


class Rest:
    """For one task that waits for a time, which may come to be another while it waits."""

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None  # while it rests
        self._is_over = False

    async def until(self, at_s: float = inf) -> None:
        """Wait until `at_s` of trio's clock, or the end; not at all if that came before."""
        if not self._is_over:
            with trio.CancelScope(deadline=at_s) as self._scope:
                await trio.sleep_forever()
            self._scope = None
        self._is_over = False

    def move(self, at_s: float) -> None:
        """Let a rest there is end at `at_s` instead."""
        if self._scope is not None:
            self._scope.deadline = at_s

    def end(self) -> None:
        """End the rest there is, or the next one as it begins."""
        self._is_over = True
        if self._scope is not None:
            self._scope.cancel()
