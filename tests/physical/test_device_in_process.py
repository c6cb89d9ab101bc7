"""A device in the node's process: its timer, its answers, its health."""

from typing import TYPE_CHECKING, Any

import numpy as np

from qstack.machine import FABRIC, CancelTimer, Effect, PeerDown, PeerUp, SetTimer, TimerFired, Told
from qstack.physical.device import DeviceHealth
from qstack.physical.drivers.setup import Setup
from qstack.physical.drivers.template import TemplateDevice
from qstack.physical.machine import DEVICE_TIMER, PhysicalLayer
from qstack.physical.service import (
    Allocate,
    Allocated,
    AttemptsEnded,
    AttemptsStart,
    AttemptsStop,
    CallFailed,
    DeviceLost,
    DeviceReady,
    Heralded,
    Measure,
    Measured,
)
from tests.physical.worlds import chain

if TYPE_CHECKING:
    from qstack.wire.message import Message

APP = "app/1"
TOKEN = bytes(16)


class Node:
    """A physical layer over the template driver, and its timers."""

    def __init__(self, probability: float = 1.0) -> None:
        world = chain("ab", probability)
        self.device = TemplateDevice(Setup(node="a", world=world, rng=np.random.default_rng(1)))
        self.layer = PhysicalLayer("a", bytes(8), world, self.device, np.random.default_rng(2))
        self.now = 0
        self.timers: dict[str, int] = {}
        self.told: list[tuple[str, Message]] = []
        self.handle(PeerUp(FABRIC, bytes(8)))

    def handle(self, event: Any) -> list[Effect]:
        effects = self.layer.handle(event, self.now)
        for effect in effects:
            match effect:
                case SetTimer(key=key, at_ns=at_ns):
                    self.timers[key] = at_ns
                case CancelTimer(key=key):
                    self.timers.pop(key, None)
                case _ if hasattr(effect, "to"):
                    self.told.append((effect.to, effect.message))
        return effects

    def run(self, until_ns: int) -> None:
        while self.timers and min(self.timers.values()) < until_ns:
            key = min(self.timers, key=lambda each: self.timers[each])
            self.now = max(self.now, self.timers.pop(key))
            self.handle(TimerFired(key))
        self.now = until_ns

    def heard(self, owner: str, kind: type[Any]) -> list[Any]:
        return [said for to, said in self.told if to == owner and isinstance(said, kind)]

    def allocate(self) -> bytes:
        self.handle(Told(APP, Allocate(call=1)))
        self.run(self.now + 10_000)
        qubit: bytes = self.heard(APP, Allocated)[-1].qubit
        return qubit

    def start(self, batch: int = 1) -> None:
        self.handle(
            Told(
                "link",
                AttemptsStart(
                    batch=batch, link="a-b", token=TOKEN, kind="keep", bright_state=None, pairs=1,
                    basis=None,
                ),
            )
        )  # fmt: skip

    def health(self, state: Any, detail: str = "") -> None:
        self.device.say(self.now, DeviceHealth(state=state, detail=detail))
        self.handle(TimerFired(DEVICE_TIMER))


def test_a_device_in_the_process_answers_when_its_timer_fires() -> None:
    node = Node()
    qubit = node.allocate()
    node.handle(Told(APP, Measure(call=2, qubit=qubit, basis="Z")))
    assert node.timers[DEVICE_TIMER] == node.now + 3_000  # the profile's readout
    node.run(node.now + 10_000)
    assert node.heard(APP, Measured) == [Measured(call=2, outcome=0)]
    assert DEVICE_TIMER not in node.timers


def test_a_herald_of_a_device_in_the_process_goes_to_the_link_layer() -> None:
    node = Node()
    node.start()
    node.run(1_000_000)
    (heralded,) = node.heard("link", Heralded)
    node.start(2)
    node.handle(Told("link", AttemptsStop(batch=2)))
    node.run(2_000_000)
    assert heralded.batch == 1
    ended = node.heard("link", AttemptsEnded)
    assert [each.reason for each in ended] == ["stopped"]


def test_degraded_is_told_in_status_and_changes_nothing_else() -> None:
    node = Node()
    qubit = node.allocate()
    node.health("degraded", "detector 2 is noisy")
    assert node.layer.summary() == {
        "is_ready": True,
        "health": "degraded",
        "health_detail": "detector 2 is noisy",
        "qubits": 1,
        "qubits_by_owner": {"app/1": 1},
    }
    assert node.heard("link", DeviceLost) == []
    node.handle(Told(APP, Measure(call=2, qubit=qubit, basis="Z")))
    node.run(node.now + 10_000)
    assert len(node.heard(APP, Measured)) == 1
    node.health("ready")
    assert node.layer.summary()["health"] == "ready"
    assert len(node.heard("link", DeviceReady)) == 1


def test_down_loses_every_qubit_and_batch_until_the_device_is_ready_again() -> None:
    node = Node()
    qubit = node.allocate()
    node.start()
    node.health("down", "the laser is out of lock")
    assert [each.reason for each in node.heard("link", AttemptsEnded)] == ["device"]
    assert len(node.heard(APP, DeviceLost)) == 1
    assert node.layer.summary() == {
        "is_ready": False,
        "health": "down",
        "health_detail": "the laser is out of lock",
        "qubits": 0,
        "qubits_by_owner": {},
    }
    node.handle(Told(APP, Measure(call=2, qubit=qubit, basis="Z")))
    assert [each.error for each in node.heard(APP, CallFailed)] == ["DEVICE_LOST"]
    node.run(node.now + 10**6)  # what the device says meanwhile is told to nobody
    assert node.heard("link", Heralded) == []
    node.device.begin(node.now)
    node.health("degraded", "warming up")
    assert len(node.heard("link", DeviceReady)) == 2
    node.allocate()
    assert node.layer.summary()["qubits"] == 1


def test_a_device_is_not_asked_while_network_time_is_away() -> None:
    node = Node()
    node.start()
    assert DEVICE_TIMER in node.timers
    node.handle(PeerDown(FABRIC))
    assert DEVICE_TIMER not in node.timers
    assert node.layer.summary()["health"] == "down"
    node.handle(PeerUp(FABRIC, bytes(8)))
    node.run(node.now + 10**6)
    assert node.heard("link", Heralded) == []  # it began anew


def test_a_herald_says_how_often_the_device_had_been_calibrated_when_its_batch_began() -> None:
    node = Node()
    node.start()
    node.device.calibration += 1
    node.start(2)
    node.run(10**6)
    assert [each.calibration for each in node.heard("link", Heralded)] == [0, 1]
