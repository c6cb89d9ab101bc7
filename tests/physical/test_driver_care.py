"""Drivers in the node's process: calibrations and clocks, offered or not."""

from typing import Any

import numpy as np
import pytest

from qstack.machine import FABRIC, PeerUp, Record, TimerFired, Told
from qstack.physical.device import (
    AlignClock,
    Calibrate,
    Calibrated,
    Generate,
    OperationRefused,
    SendPulse,
)
from qstack.physical.drivers.driver import Driver
from qstack.physical.drivers.setup import Setup
from qstack.physical.hardware import World
from qstack.physical.machine import PhysicalLayer
from qstack.physical.service import CalibrateLink, LinkCalibrated
from tests.physical.test_drift import drifting_world
from tests.physical.test_time_sync import clock, timed_world

MS = 1_000_000


class Careful(Driver):
    """It calibrates, well or not."""

    is_good = True

    def start(self, batch: Generate) -> None:
        """It attempts, and nothing comes of it."""

    def calibrate(self, link: str) -> bool:
        del link
        return self.is_good


def device(kind: type[Driver], world: World | None = None) -> Driver:
    made = kind(Setup(node="a", world=world or drifting_world(), rng=np.random.default_rng(1)))
    made.begin(0)
    return made


def calibrate(link: str = "a-b", at_ns: int = 0) -> Calibrate:
    return Calibrate(at_ns=at_ns, sequence=9, link=link)


@pytest.mark.parametrize("is_good", [True, False])
def test_a_calibration_ends_when_it_should_and_a_good_one_is_counted(is_good: bool) -> None:
    made: Any = device(Careful)
    made.is_good = is_good
    made.submit(calibrate(at_ns=MS), MS)
    assert made.next_event_ns() == 201 * MS
    (answer,) = made.answers(201 * MS)
    assert answer == Calibrated(operation=9, is_good=is_good, calibration=int(is_good))
    assert made.calibration == int(is_good)


@pytest.mark.parametrize(
    ("kind", "operation", "error"),
    [
        (Driver, calibrate(), "UNSUPPORTED"),
        (Careful, calibrate("a-c"), "BAD_REQUEST"),
        (Driver, SendPulse(at_ns=0, sequence=9, link="a-b", pulse=0), "UNSUPPORTED"),
        (
            Driver,
            AlignClock(at_ns=0, sequence=9, link="a-b", offset_ps=0.0, rate_ppb=0.0),
            "UNSUPPORTED",
        ),
    ],
)
def test_what_is_not_offered_or_not_there_is_refused(
    kind: type[Driver], operation: Any, error: str
) -> None:
    made = device(kind)
    made.submit(operation, 0)
    (answer,) = made.answers(MS)
    assert isinstance(answer, OperationRefused)
    assert answer.error == error


def test_a_link_at_work_or_that_does_not_drift_is_not_calibrated() -> None:
    made = device(Careful)
    attempt = Generate(
        at_ns=0, sequence=1, batch=0, link="a-b", token=b"t" * 16, kind="keep", first_cycle=0,
        bright_state=None, pairs=1, basis=None, qubit=b"q" * 16,
    )  # fmt: skip
    made.submit(attempt, 0)
    made.submit(calibrate(), 0)
    steady = device(Careful, timed_world(None, None))
    steady.submit(calibrate(), 0)
    errors = []
    for each in (made, steady):
        (answer,) = each.answers(MS)
        assert isinstance(answer, OperationRefused)
        errors.append(answer.error)
    assert errors == ["BAD_REQUEST", "UNSUPPORTED"]
    assert made.calibration == steady.calibration == 0


@pytest.mark.parametrize("kind", [Careful, Driver])
def test_the_link_layer_gets_one_answer_whether_or_not_the_device_can(kind: type[Driver]) -> None:
    made = device(kind)
    world = drifting_world()
    layer = PhysicalLayer("a", bytes(8), world, made, np.random.default_rng(2))
    layer.handle(PeerUp(FABRIC, bytes(8)), 0)
    layer.handle(Told("link", CalibrateLink(peer="b", until_ns=10**12)), 0)
    at_ns = made.next_event_ns()
    assert at_ns is not None
    effects = layer.handle(TimerFired("device"), at_ns)
    (told,) = [each.message for each in effects if hasattr(each, "message")]
    is_good = kind is Careful
    assert told == LinkCalibrated(peer="b", is_good=is_good, calibration=int(is_good))


def test_a_device_without_a_clock_leaves_the_link_down_and_the_record_says_why() -> None:
    world = timed_world(clock(), clock(1.0))
    made = Driver(Setup(node="b", world=world, rng=np.random.default_rng(1)))
    layer = PhysicalLayer("b", bytes(8), world, made, np.random.default_rng(2))
    layer.handle(PeerUp(FABRIC, bytes(8)), 0)
    layer.handle(PeerUp("a", bytes(8)), 0)
    at_ns = made.next_event_ns()
    assert at_ns is not None
    (record, *_) = layer.handle(TimerFired("device"), at_ns)
    assert isinstance(record, Record)
    assert "no clock" in str(record.fields["why"])
