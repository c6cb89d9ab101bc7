"""The open calls of sessions: each ends in exactly one closing answer, unless its session ended.

Rules
1. A call is answered here and nowhere else; answering takes it off the table and disarms its
   deadline.
2. A deadline, a cancel, a closed socket, a lost peer: all `withdraw` the call. Its part undoes what
   it began and answers; only a qubit already consumed makes it wait for its fate first.
3. A call whose session has gone is an orphan: it is undone alike, its answer is not told, and a
   qubit that would go back is freed.
"""

from collections.abc import Callable

from msgspec import Struct

from qstack.errors import ErrorCode
from qstack.machine import Tell
from qstack.transport import service
from qstack.transport.context import Context, Reason, reason
from qstack.transport.params import CALLS_PER_SESSION_MAX
from qstack.wire.message import Message


class Call(Struct, eq=False):
    """One open call. `peer` is the node it needs now; `withdraw` undoes it."""

    session: str
    number: int
    peer: str | None
    deadline_ns: int | None
    withdraw: Callable[["Call", Reason], None]
    is_orphan: bool = False


class Calls:
    """All open calls of all sessions of this node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sessions: dict[str, dict[int, Call]] = {}

    def open(
        self,
        session: str,
        number: int,
        *,
        within_ns: int | None,
        withdraw: Callable[[Call, Reason], None],
        peer: str | None = None,
    ) -> Call | None:
        """Enter a call; None if it was refused (and answered)."""
        calls = self._sessions.setdefault(session, {})
        if number in calls:
            self.refuse(session, number, ErrorCode.BAD_REQUEST, f"call {number} is still open")
            return None
        if len(calls) >= CALLS_PER_SESSION_MAX:
            detail = f"a session may have {CALLS_PER_SESSION_MAX} calls open"
            self.refuse(session, number, ErrorCode.NO_RESOURCES, detail)
            return None
        deadline_ns = None if within_ns is None else self._context.now + within_ns
        call = Call(session, number, peer, deadline_ns, withdraw)
        calls[number] = call
        if deadline_ns is not None:
            self._context.set_timer(
                _key(call), deadline_ns, lambda: self._on_deadline(call), deadline=True
            )
        if peer is not None:
            self._context.channels.need(peer)
        return call

    def refuse(self, session: str, number: int, code: ErrorCode, detail: str) -> None:
        """Answer a call that never was entered."""
        self._context.tell(session, _failed(number, reason(code, detail)))

    def answer(self, call: Call, message: Message) -> None:
        """Close the call with its answer."""
        calls = self._sessions.get(call.session)
        if calls is None or calls.get(call.number) is not call:
            return
        del calls[call.number]
        if not calls:
            del self._sessions[call.session]
        if call.deadline_ns is not None:
            self._context.cancel_timer(_key(call))
        self.indicate(call, message)

    def indicate(self, call: Call, message: Message) -> None:
        """Tell the session something about its call."""
        if not call.is_orphan:
            self._context.effects.append(Tell(call.session, message))

    def fail(self, call: Call, why: Reason) -> None:
        """Close the call with Failed."""
        self.answer(call, _failed(call.number, why))

    def finish(self, call: Call) -> None:
        """Close the call with Finished."""
        self.answer(call, service.Finished(call=call.number))

    def give(self, call: Call, qubit: bytes) -> None:
        """Hand a qubit of ours to the call's session, or free it if there is none any more."""
        if call.is_orphan:
            self._context.free(qubit)
        else:
            self._context.transfer(qubit, call.session)

    def cancel(self, session: str, number: int) -> None:
        """The session withdraws a call; one that has ended before is not an error."""
        call = self._sessions.get(session, {}).get(number)
        if call is not None:
            call.withdraw(call, reason(ErrorCode.CANCELLED))

    def orphan(self, session: str) -> list[Call]:
        """The session has gone: from now on it is told nothing. Its calls that were open."""
        calls = list(self._sessions.get(session, {}).values())
        for call in calls:
            call.is_orphan = True
        return calls

    def of_peer(self, peer: str) -> list[Call]:
        """The open calls that need `peer`."""
        return [
            call
            for calls in self._sessions.values()
            for call in calls.values()
            if call.peer == peer
        ]

    def is_open(self, call: Call) -> bool:
        """Whether the call has not been answered."""
        return self._sessions.get(call.session, {}).get(call.number) is call

    def _on_deadline(self, call: Call) -> None:
        call.withdraw(call, reason(ErrorCode.TIMEOUT))


def _key(call: Call) -> str:
    return f"call/{call.session}/{call.number}"


def _failed(number: int, why: Reason) -> service.Failed:
    return service.Failed(call=number, error=why.error, detail=why.detail, best=why.best)
