"""The machine for what sessions ask of their node itself: so far, sleep in network time."""

from qstack.machine import CancelTimer, Effect, Event, OwnerGone, SetTimer, Tell, TimerFired, Told
from qstack.runtime.session_messages import CancelSleep, Sleep, Woken

SLEEPS_MAX = 4096  # per session: a bound on what one application can make its node remember
NAME = "session"


class SessionLayer:
    """Sleeping sessions. A sleep is named by its session and call number."""

    def __init__(self) -> None:
        self._asleep: dict[str, dict[int, None]] = {}

    def summary(self) -> dict[str, object]:
        """Facts for status: sleeping calls."""
        return {"asleep": sum(len(calls) for calls in self._asleep.values())}

    def handle(self, event: Event, now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        match event:
            case Told(session, Sleep(call=call, span_ns=span)):
                calls = self._asleep.setdefault(session, {})
                if call in calls or len(calls) >= SLEEPS_MAX:
                    return [Tell(session, Woken(call=call))]
                calls[call] = None
                return [SetTimer(f"{session}:{call}", now + span)]
            case Told(session, CancelSleep(call=call)):
                if self._asleep.get(session, {}).pop(call, call) is None:
                    return [CancelTimer(f"{session}:{call}")]
            case TimerFired(key):
                session, _, number = key.rpartition(":")
                calls = self._asleep.get(session, {})
                if int(number) in calls:
                    del calls[int(number)]
                    return [Tell(session, Woken(call=int(number)))]
            case OwnerGone(session):
                gone = self._asleep.pop(session, {})
                return [CancelTimer(f"{session}:{call}") for call in gone]
            case _:
                pass
        return []
