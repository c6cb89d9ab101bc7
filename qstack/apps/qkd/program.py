"""One end of a key distribution, run: a machine over an EPR socket and a message stream.

Both ends run the same. The node whose name comes first in the alphabet is alice: she opens the
stream and makes the pairs; the other is bob, who listens and takes them. The stream uses the port,
and so do the pairs: ports of streams and of pairs are told apart.

Rules
1. All events pass one queue, and effects are carried out in their order, each before the next. A
   key is on the disk before what follows it is said.
2. Waiting for the peer is wall time, as nothing happens in the network before it comes; from then
   on the deadline counts, in network time.
3. Every end is a key that is stored or an `Abort`. Errors of the interface become one.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import numpy as np
import trio
from msgspec import Struct, structs

from qstack.api.epr import EprSocket, MeasuredPairs
from qstack.api.errors import Closed, Expired, QstackError
from qstack.api.node import Node
from qstack.api.streams import MessageStream
from qstack.apps.qkd import events
from qstack.apps.qkd.alice import Alice
from qstack.apps.qkd.bob import Bob
from qstack.apps.qkd.key_file import KeyFile, KeyFileError
from qstack.apps.qkd.machine import FRACTIONS, Machine
from qstack.apps.qkd.parameters import Parameters
from qstack.apps.qkd.reasons import Reason
from qstack.apps.qkd.secret import Secret
from qstack.apps.qkd.sifting import SystemGenerator
from qstack.apps.qkd.states import State

PORT: Final = 1984
DEADLINE_NS: Final = 60 * 10**9
WAIT_S: Final = 60.0
PAIRS_A_CALL: Final = 20_000  # after so many, progress is said
FAREWELL_S: Final = 5.0  # wall time to say the last words

MEETING: Final = "meeting"
"""The phase before the machine's: the peer is waited for."""

OnProgress = Callable[[events.Progress], None]
Outcome = events.KeyMetadata | events.Abort


class Terms(Struct, frozen=True, kw_only=True):
    """With whom, what, and how long: `deadline_ns` in network time, `wait_s` for the peer."""

    remote: str
    parameters: Parameters
    port: int = PORT
    deadline_ns: int = DEADLINE_NS
    wait_s: float = WAIT_S


async def distribute(
    node: Node,
    terms: Terms,
    secret: Secret,
    keys: KeyFile,
    *,
    on_progress: OnProgress = lambda _progress: None,
    stop: trio.Event | None = None,
) -> Outcome:
    """Make a key with the same program at `terms.remote`, and store it in `keys`.

    Returns what is known of the key, or why there is none. `stop` ends the run: the peer is told.
    """
    run = _Run(node, terms, secret, keys, on_progress)
    async with trio.open_nursery() as nursery:
        if stop is not None:
            nursery.start_soon(run.watch, stop)
        outcome = await run.meet_and_run()
        nursery.cancel_scope.cancel()
    return outcome


class _Run:
    """One run. `outcome` is known at its end."""

    def __init__(
        self, node: Node, terms: Terms, secret: Secret, keys: KeyFile, on_progress: OnProgress
    ) -> None:
        self._node = node
        self._terms = terms
        self._keys = keys
        self._on_progress = on_progress
        self._is_alice = node.name < terms.remote
        self._machine: Machine = (Alice if self._is_alice else Bob)(
            parameters=terms.parameters,
            secret=secret,
            generator=SystemGenerator(),
            is_seeded=node.is_seeded,
        )
        self._told, self._events = trio.open_memory_channel[events.Event](float("inf"))
        self._waiting = trio.CancelScope()  # for the peer, or to say something to it
        self._is_stopped = False
        self._is_ending = False
        self._measured = 0  # pairs, by whole calls
        self._outcome: Outcome | None = None

    async def watch(self, stop: trio.Event) -> None:
        """End the run when `stop` is set."""
        await stop.wait()
        self._is_stopped = True
        self._end_by(events.Failure(Reason.INTERRUPTED, ""))

    def _end_by(self, event: events.Event) -> None:
        """This event is the last; nothing that is waited for shall delay it."""
        self._is_ending = True
        self._told.send_nowait(event)
        self._waiting.cancel()

    # --- the two ends meet -----------------------------------------------------------------------

    async def meet_and_run(self) -> Outcome:
        """All of it."""
        self._on_progress(events.Progress(MEETING, 0.0, self._machine.figures))
        try:
            async with AsyncExitStack() as stack:
                stream: MessageStream | None = None
                with self._waiting, trio.move_on_after(self._terms.wait_s):
                    stream = await stack.enter_async_context(self._stream())
                if stream is not None:
                    return await self._run(stream)
        except QstackError as error:
            return events.Abort(Reason.NODE, f"{error.code}: {error}")
        if self._is_stopped:
            return events.Abort(Reason.INTERRUPTED, "")
        detail = f"{self._terms.remote} did not come within {self._terms.wait_s:g} s"
        return events.Abort(Reason.TIMEOUT, detail)

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[MessageStream]:
        remote, port = self._terms.remote, self._terms.port
        if self._is_alice:
            opening = self._node.message_socket(remote=remote, port=port, deadline_ns=None)
            async with opening as stream:
                yield stream
            return
        async with self._node.listen(port=port, remote=remote) as listener:
            while True:
                async with await listener.accept(deadline_ns=None) as arrived:
                    if isinstance(arrived, MessageStream):
                        yield arrived
                        return

    # --- events and effects ----------------------------------------------------------------------

    async def _run(self, stream: MessageStream) -> Outcome:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, stream)
            nursery.start_soon(self._await_deadline)
            outcome = await self._handle(events.Begin(), stream, nursery)
            while outcome is None:
                outcome = await self._handle(await self._events.receive(), stream, nursery)
            nursery.cancel_scope.cancel()
        return outcome

    async def _handle(
        self, event: events.Event, stream: MessageStream, nursery: trio.Nursery
    ) -> Outcome | None:
        """Carry out what follows from an event; what the run ended with, if it did."""
        effects = self._machine.handle(event)
        self._is_ending |= any(isinstance(e, events.Key | events.Abort) for e in effects)
        for effect in effects:
            match effect:
                case events.Send():
                    await self._say(stream, effect.data)
                case events.Need():
                    nursery.start_soon(self._measure, effect)
                case events.Progress():
                    self._on_progress(effect)
                case events.Key():
                    ended = self._store(effect)
                    if isinstance(ended, events.Abort):
                        return ended
                    self._outcome = ended
                case events.Abort():
                    return effect
        return self._outcome

    async def _say(self, stream: MessageStream, data: bytes) -> None:
        """Send; that it was not possible is an event, unless the run has ended."""
        self._waiting = trio.CancelScope()
        if self._is_ending:
            self._waiting.deadline = trio.current_time() + FAREWELL_S
        try:
            with self._waiting:
                await stream.send(data, deadline_ns=None)
        except QstackError as error:
            self._told.send_nowait(events.Closed(f"{error.code}: {error}"))

    def _store(self, key: events.Key) -> Outcome:
        try:
            self._keys.store(key)
        except KeyFileError as error:
            detail = f"{error}; key {key.metadata.id.hex()} is nobody's, if the peer has it"
            return events.Abort(Reason.STORAGE, detail)
        return key.metadata

    # --- what happens meanwhile ------------------------------------------------------------------

    async def _receive(self, stream: MessageStream) -> None:
        try:
            while True:
                data = await stream.receive(deadline_ns=None)
                self._told.send_nowait(events.Received(data))
        except Closed:
            self._end_by(events.Closed("it closed the stream"))
        except QstackError as error:
            self._end_by(events.Closed(f"{error.code}: {error}"))

    async def _await_deadline(self) -> None:
        try:
            await self._node.sleep(self._terms.deadline_ns)
        except QstackError as error:
            self._end_by(events.Closed(f"{error.code}: {error}"))
        else:
            self._end_by(self._deadline())

    def _deadline(self) -> events.Event:
        pairs = self._terms.parameters.pairs
        if self._measured == pairs:
            return events.Deadline()
        seconds = self._terms.deadline_ns / 1e9
        detail = (
            f"after {seconds:g} s of network time {self._measured} of {pairs} pairs were measured"
            f" (counted by {PAIRS_A_CALL})"
        )
        return events.Failure(Reason.TIMEOUT, detail)

    # --- pairs -----------------------------------------------------------------------------------

    async def _measure(self, need: events.Need) -> None:
        """Have all pairs measured; the event says what came, or why not."""
        opening = self._node.epr_socket(
            remote=self._terms.remote,
            port=self._terms.port,
            min_fidelity=self._terms.parameters.least_fidelity,
        )
        parts: list[MeasuredPairs] = []
        try:
            async with opening as epr:
                for before in range(0, need.pairs, PAIRS_A_CALL):
                    count = min(PAIRS_A_CALL, need.pairs - before)
                    parts.append(await self._call(epr, count, need.probabilities))
                    self._on_measured(before + count, need.pairs)
        except Expired as error:
            self._told.send_nowait(events.Failure(Reason.TIMEOUT, str(error)))
        except QstackError as error:
            detail = f"{sum(map(len, parts))} of {need.pairs}; {error.code}: {error}"
            self._told.send_nowait(events.Failure(Reason.NO_PAIRS, detail))
        else:
            bases = np.concatenate([part.bases == "X" for part in parts]).astype(np.uint8)
            outcomes = np.concatenate([part.outcomes for part in parts])
            self._told.send_nowait(events.Measured(bases, outcomes))

    async def _call(
        self, epr: EprSocket, count: int, probabilities: dict[str, float]
    ) -> MeasuredPairs:
        call = epr.create_measure if self._is_alice else epr.accept_measure
        return await call(count, probabilities, deadline_ns=None)

    def _on_measured(self, done: int, pairs: int) -> None:
        begin, end = FRACTIONS[State.MEASURING], FRACTIONS[State.SIFTING]
        fraction = begin + (end - begin) * done / pairs
        figures = structs.replace(self._machine.figures, pairs=done)
        self._measured = done
        self._on_progress(events.Progress("measuring", fraction, figures))
