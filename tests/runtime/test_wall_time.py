"""The wall clock's reading of the fabric's time, with a clock of our own."""

import time

import pytest

from qstack.runtime.wall_time import DRIFT, WallTime


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ours = Clock()
    monkeypatch.setattr(time, "monotonic", ours)
    return ours


def answer(reading: WallTime, clock: Clock, at_ns: int, trip_s: float) -> None:
    reading.asked()
    clock.now_s += trip_s
    reading.answered(at_ns)


def test_an_answer_was_true_in_the_middle_of_its_round_trip(clock: Clock) -> None:
    reading = WallTime(1.0)
    answer(reading, clock, 5_000_000_000, 0.002)
    assert reading.now_ns == pytest.approx(5_001_000_000, abs=100)


def test_a_slow_answer_does_not_replace_a_quick_one(clock: Clock) -> None:
    reading = WallTime(1.0)
    answer(reading, clock, 5_000_000_000, 0.002)
    answer(reading, clock, 9_000_000_000, 0.2)
    assert reading.now_ns == pytest.approx(5_201_000_000, abs=100)


def test_what_is_known_ages_until_a_slow_answer_is_better(clock: Clock) -> None:
    reading = WallTime(1.0)
    answer(reading, clock, 0, 0.002)
    clock.now_s += 0.1 / DRIFT
    answer(reading, clock, 7_000_000_000, 0.1)
    assert reading.now_ns == pytest.approx(7_050_000_000, abs=1_000)


def test_a_new_fabric_is_believed_whatever_was_known(clock: Clock) -> None:
    reading = WallTime(2.0)
    answer(reading, clock, 5_000_000_000, 0.002)
    reading.begin(1_000_000)
    clock.now_s += 0.5
    assert reading.now_ns == pytest.approx(1_001_000_000, abs=100)
