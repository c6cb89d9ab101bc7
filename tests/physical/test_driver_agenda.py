"""The agenda of drivers in the node's or the station's process: order, and what became void."""

import numpy as np
import pytest

from qstack.physical.device import BatchEnded, Calibrate, Generate, OperationRefused
from qstack.physical.drivers.driver import Driver
from qstack.physical.drivers.setup import Setup
from qstack.physical.drivers.station_driver import StationDriver
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.station_device import WatchLink
from tests.physical.worlds import chain

SETUP = Setup(node="b", world=chain("abc"), rng=np.random.default_rng(1))


def ended(number: int) -> BatchEnded:
    return BatchEnded(batch=number, reason="stopped", attempts=0)


class NodeToy(Driver):
    """Whichever batch it is woken for first ends all of them."""

    def open(self, number: int, at_ns: int) -> None:
        batch = Generate(
            at_ns=0, sequence=number, batch=number, link="a-b", token=bytes(16), kind="measure",
            basis="Z", qubit=None, first_cycle=0, pairs=1, bright_state=None,
        )  # fmt: skip
        self.batches[number] = batch
        self.wake(at_ns, batch)

    def woken(self, batch: Generate, at_ns: int) -> None:
        self.batches.clear()
        self.say(at_ns, ended(batch.batch))


class StationToy(StationDriver):
    """The same of watches."""

    def open(self, number: int, at_ns: int) -> None:
        self.watches[number] = WatchLink(
            at_ns=0, sequence=number, link="a-b", batches=(1, 2), first_cycle=0, until_cycle=None,
            kind="keep", bright_state=None, pairs=1,
        )  # fmt: skip
        self.wake(at_ns, self.watches[number])

    def woken(self, asked: WatchLink, at_ns: int) -> None:
        self.watches.clear()
        self.say(at_ns, ended(asked.sequence))


@pytest.mark.parametrize("kind", [NodeToy, StationToy])
def test_what_is_due_comes_in_order_and_what_was_closed_meanwhile_is_not_woken_for(
    kind: type[NodeToy | StationToy],
) -> None:
    toy = kind(SETUP)
    toy.open(7, 50)
    toy.open(4, 50)  # void as soon as 7 was woken, in the same call
    toy.open(5, 60)  # void too: nobody has to come for it
    toy.say(50, ended(1))
    assert toy.answers(49) == []
    assert toy.next_event_ns() == 50
    assert toy.answers(50) == [ended(1), ended(7)]
    assert toy.next_event_ns() is None
    toy.open(6, 70)
    toy.begin(65)
    assert toy.next_event_ns() is None


@pytest.mark.parametrize(
    ("kind", "link", "error"),
    [
        (NodeToy, "a-b", "UNSUPPORTED"),  # it does not drift
        (NodeToy, "a-c", "BAD_REQUEST"),
        (StationToy, "a-c", "UNSUPPORTED"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(
    kind: type[NodeToy | StationToy], link: str, error: str
) -> None:
    toy = kind(SETUP)
    toy.submit(Calibrate(at_ns=10, sequence=3, link=link), 10)
    (refused,) = toy.answers(10 + RESULT_MIN_NS)
    assert isinstance(refused, OperationRefused)
    assert (refused.operation, refused.error) == (3, error)
    assert toy.calibration == 0
