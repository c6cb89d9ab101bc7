"""The thread in which the synchronous interface runs the asynchronous one.

Each thread that opens nodes has one such thread beside it, with one trio run, from the first node
it opens until it has left the last. While a call is in progress the application is idle as soon as
trio waits; between calls it is busy.
"""

import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio

from qstack.api.errors import BadRequest, Expired, NodeGone
from qstack.api.idleness import Idleness, idleness

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Limit:
    """A limit on the calls of a block."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.is_over = False


class Portal:
    """See the module. Made by `portal`; used by the thread that made it and no other."""

    def __init__(self) -> None:
        self.users = 0
        self.is_closed = False
        self._owner = threading.get_ident()
        self._limits: list[Limit] = []
        self._scope: trio.CancelScope | None = None  # of the call in progress
        self._future: Future[Any] | None = None
        self._stop = trio.Event()
        self._ready: Future[None] = Future()
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        self._watcher: Idleness
        self._thread = threading.Thread(target=self._run, name="qstack", daemon=True)
        self._thread.start()
        self._ready.result()

    def call(self, function: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
        """Await `function(*arguments)` over there; its result or exception is that of the call."""
        return self._call(function, arguments, self._limits)

    def finish(self, function: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
        """The same for what ends something: no limit in network time stops it."""
        return self._call(function, arguments, [])

    @contextmanager
    def entered(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter and leave an asynchronous context manager over there."""
        value = self.call(manager.__aenter__)
        try:
            yield value
        except BaseException as error:
            self.finish(manager.__aexit__, type(error), error, error.__traceback__)
            raise
        self.finish(manager.__aexit__, None, None, None)

    @contextmanager
    def limited(self, limit: Limit) -> Iterator[None]:
        """Have a limit for the calls of the block."""
        self._limits.append(limit)
        try:
            yield
        finally:
            self._limits.remove(limit)

    def exceed(self, limit: Limit) -> None:
        """The limit is reached (said over there): end the call in progress."""
        limit.is_over = True
        if self._scope is not None:
            self._scope.cancel()

    def is_usable_here(self) -> bool:
        """Whether this thread may call, and there is something to call."""
        return not self.is_closed and threading.get_ident() == self._owner

    def close(self) -> None:
        """End the thread."""
        self.is_closed = True
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._stop.set)
        self._thread.join()

    # --- inside ----------------------------------------------------------------------------------

    def _call(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        arguments: tuple[*Ts],
        limits: list[Limit],
    ) -> T:
        if threading.get_ident() != self._owner:
            raise BadRequest("a node is used in the thread that opened it; open it in each")
        if self.is_closed:
            raise NodeGone("the node was closed", code="CLOSED")
        scope = trio.CancelScope()
        future: Future[T] = Future()
        self._future = future

        def start() -> None:
            self._nursery.start_soon(self._perform, function, arguments, limits, scope, future)

        try:
            self._token.run_sync_soon(start)
            return future.result()
        except BaseException:
            if not future.done():  # interrupted here: take the call back
                self._token.run_sync_soon(scope.cancel)
                future.exception()
            raise
        finally:
            self._future = None

    async def _perform(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        arguments: tuple[*Ts],
        limits: list[Limit],
        scope: trio.CancelScope,
        future: "Future[T]",
    ) -> None:
        if limits:
            self._scope = scope
        if any(limit.is_over for limit in limits):
            scope.cancel()
        self._watcher.holds -= 1
        with scope:
            result = await outcome.acapture(function, *arguments)
            self._watcher.holds += 1
            self._scope = None
            if isinstance(result, outcome.Value):
                future.set_result(result.value)
            elif isinstance(result.error, trio.Cancelled):
                over = [limit.reason for limit in limits if limit.is_over]
                future.set_exception(Expired(over[0] if over else "the call was interrupted"))
                raise result.error
            else:
                future.set_exception(result.error)

    def _run(self) -> None:
        try:
            trio.run(self._main)
        finally:
            if self._future is not None and not self._future.done():
                self._future.set_exception(NodeGone("the thread of the node ended"))

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._watcher = idleness()
        self._watcher.holds += 1
        async with trio.open_nursery() as self._nursery:
            self._ready.set_result(None)
            await self._stop.wait()
            self._nursery.cancel_scope.cancel()


class _OfThread(threading.local):
    portal: Portal | None = None


_of_thread = _OfThread()


@contextmanager
def portal() -> Iterator[Portal]:
    """The portal of this thread; its thread ends when the last block that uses it is left."""
    used = _of_thread.portal
    if used is None:
        used = _of_thread.portal = Portal()
    used.users += 1
    try:
        yield used
    finally:
        used.users -= 1
        if not used.users:
            _of_thread.portal = None
            used.close()
