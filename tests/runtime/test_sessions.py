"""Sessions that sleep in network time."""

from qstack.machine import CancelTimer, OwnerGone, PeerDown, SetTimer, Tell, TimerFired, Told
from qstack.runtime.session_messages import CancelSleep, Sleep, StatusAsk, Woken
from qstack.runtime.sessions import SLEEPS_MAX, SessionLayer

APP = "app/1"


def sleeping(*calls: int) -> SessionLayer:
    layer = SessionLayer()
    for call in calls:
        effects = layer.handle(Told(APP, Sleep(call=call, span_ns=100)), 50)
        assert effects == [SetTimer(f"{APP}:{call}", 150)]
    return layer


def test_a_session_sleeps_and_is_woken_once() -> None:
    layer = sleeping(3)
    assert layer.handle(TimerFired(f"{APP}:3"), 150) == [Tell(APP, Woken(call=3))]
    assert layer.handle(TimerFired(f"{APP}:3"), 150) == []


def test_a_sleep_withdrawn_is_not_answered() -> None:
    layer = sleeping(3, 4)
    assert layer.handle(Told(APP, CancelSleep(call=3)), 60) == [CancelTimer(f"{APP}:3")]
    assert layer.handle(TimerFired(f"{APP}:3"), 150) == []
    assert layer.handle(Told(APP, CancelSleep(call=3)), 160) == []
    assert layer.handle(Told("app/9", CancelSleep(call=3)), 160) == []
    assert layer.handle(TimerFired(f"{APP}:4"), 160) == [Tell(APP, Woken(call=4))]


def test_a_number_that_sleeps_already_is_woken_at_once() -> None:
    layer = sleeping(3)
    assert layer.handle(Told(APP, Sleep(call=3, span_ns=1)), 60) == [Tell(APP, Woken(call=3))]


def test_a_session_has_only_so_many_sleeps() -> None:
    layer = sleeping(*range(SLEEPS_MAX))
    call = Sleep(call=SLEEPS_MAX, span_ns=9)
    assert layer.handle(Told(APP, call), 60) == [Tell(APP, Woken(call=SLEEPS_MAX))]
    assert layer.handle(Told("app/2", call), 60) == [SetTimer(f"app/2:{SLEEPS_MAX}", 69)]


def test_the_sleeps_of_a_session_end_with_it() -> None:
    layer = sleeping(1, 2)
    assert layer.handle(OwnerGone(APP), 60) == [
        CancelTimer(f"{APP}:1"),
        CancelTimer(f"{APP}:2"),
    ]
    assert layer.handle(OwnerGone(APP), 60) == []
    assert layer.handle(TimerFired(f"{APP}:1"), 150) == []


def test_everything_else_is_not_its_business() -> None:
    layer = sleeping(1)
    assert layer.handle(PeerDown("bob"), 60) == []
    assert layer.handle(Told(APP, StatusAsk(call=1)), 60) == []
