"""What test rounds and the device find out about a link that drifts leads to its calibration."""

from msgspec.structs import replace

from qstack.link import messages, service
from qstack.machine import Told
from qstack.physical import service as physical
from qstack.wire.message import Message
from tests.link.bench import ALICE, BOB, FAST, GOOD, SECOND, Bench, End, create
from tests.link.lossy import BOTH, OTHER
from tests.link.test_rounds import HALF, facts, fidelities, herald_rounds, settle

MS = 1_000_000


class Cared(Bench):
    """A link that drifts; its calibrations are good, and said when the device is heard."""

    calibrations = 0

    def _below(self, end: End, message: Message) -> None:
        if not isinstance(message, physical.CalibrateLink):
            super()._below(end, message)
            return
        self.calibrations += 1
        number = (self.calibrations + 1) // 2  # both ends do it
        told = physical.LinkCalibrated(peer=OTHER[end.name], is_good=True, calibration=number)
        end.inbox.append(told)


def cared(min_fidelity: float = 0.65) -> Cared:
    on = Cared((1, 1), test_share=HALF)
    on.begin()
    for name in BOTH:
        care = physical.LinkCare(
            peer=OTHER[name], period_ns=10**13, duration_ns=100 * MS, is_due=False
        )
        on.event(name, Told("physical", care))
    on.serving(create(1, number=None, deadline_ns=10**13, min_fidelity=min_fidelity))
    return on


def test_an_alarm_of_test_rounds_has_the_link_calibrated_and_is_forgotten_with_it() -> None:
    on = cared()
    on.agrees = lambda sequence: sequence % 2 > 0
    while not on.said(ALICE, messages.Maintain) and on.herald_sequence < 2000:
        herald_rounds(on, 1)
    assert facts(on, ALICE)["alarm"]
    for _ in range(100):  # the first windows were missed: time had passed before they were heard of
        on.advance(20 * MS)
        settle(on)
    assert on.said(BOB, messages.Maintain) == []
    assert on.calibrations == 2
    for name in BOTH:
        assert not on.ends[name].machine.peers[OTHER[name]].is_closed
        assert fidelities(on.all(name, service.LinkUp)[-1]) == [0.9, 0.7]
        assert not facts(on, name)["alarm"]
        assert facts(on, name)["test_rounds"] == 0
        assert len(on.all(name, service.LinkCalibrated)) == 1


def test_what_the_device_expects_of_the_link_holds_for_requests_that_are_open() -> None:
    on = cared(min_fidelity=0.65)
    worse = [
        replace(option, bell_probabilities=[0.62, 0.2, 0.1, 0.08]) if option is FAST else option
        for option in (FAST, GOOD)
    ]
    for name in BOTH:
        told = physical.LinkOptions(peer=OTHER[name], options=worse)
        on.event(name, Told("physical", told))
    settle(on)
    assert [b.bright_state for b in on.ends[ALICE].batches.values()] == [GOOD.bright_state]
    assert [b.bright_state for b in on.ends[BOB].batches.values()] == [GOOD.bright_state]
    for name in BOTH:
        told = physical.LinkOptions(peer=OTHER[name], options=worse[:1])
        on.event(name, Told("physical", told))
    on.advance(SECOND // 100)
    settle(on)
    assert on.errors(ALICE) == on.errors(BOB) == ["FIDELITY"]
    assert on.all(BOB, service.LinkDown) == []
