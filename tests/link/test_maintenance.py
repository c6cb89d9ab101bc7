"""Windows in which both ends of a link calibrate: how they are agreed on, what disturbs them."""

from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from qstack.link import messages, service
from qstack.link.maintenance_states import MAINTENANCE, Input, State
from qstack.link.params import MAINTENANCE_AHEAD_MAX_NS
from qstack.machine import Told
from qstack.physical import service as physical
from qstack.wire.message import Message
from tests.link.bench import ALICE, BOB, DELAY_NS, SECOND, Bench, End, create, measured
from tests.link.lossy import BOTH, OTHER, Chance, Faults, LossyBench, ask, check, healthy

MS = 1_000_000
PERIOD_NS = 5 * SECOND
DURATION_NS = 100 * MS


class CareBench(LossyBench):
    """Its link drifts. The devices calibrate well together if they begin within half of the time.

    `windows` are the times in which each end made no attempts, `began` when batches did begin.
    """

    def __init__(self, faults: Faults = healthy, **options: Any) -> None:
        super().__init__(faults, **options)
        self.calibrations = 0
        self.begun_ns: dict[str, int] = {}
        self.counted_ns: dict[str, int] = {}
        self.asked: list[tuple[int, str]] = []
        self.began: list[int] = []
        self.is_deaf = False  # devices do not answer calibrations

    def device_ready(self, name: str) -> None:
        super().device_ready(name)
        self.care(name, is_due=False)

    def care(self, name: str, *, is_due: bool) -> None:
        told = physical.LinkCare(
            peer=OTHER[name], period_ns=PERIOD_NS, duration_ns=DURATION_NS, is_due=is_due
        )
        self.event(name, Told("physical", told))

    def _below(self, end: End, message: Message) -> None:
        if isinstance(message, physical.CalibrateLink):
            assert not end.batches, "nothing is attempted"
            assert not end.stopped
            self.asked.append((self.now, end.name))
            self.begun_ns[end.name] = self.now
            if not self.is_deaf:
                self.at(DURATION_NS, partial(self._calibrated, end, self.now))
            return
        if isinstance(message, physical.AttemptsStart):
            self.began.append(self.now)
        super()._below(end, message)

    def _calibrated(self, end: End, begun_ns: int) -> None:
        if self.ends[end.name] is not end or not end.has_device:
            return
        other_ns = self.begun_ns.get(OTHER[end.name])
        is_good = other_ns is not None and abs(other_ns - begun_ns) <= DURATION_NS // 2
        if is_good and self.counted_ns != self.begun_ns:
            self.calibrations += 1
            self.counted_ns = {**self.begun_ns}
        told = physical.LinkCalibrated(
            peer=OTHER[end.name], is_good=is_good, calibration=self.calibrations
        )
        self.event(end.name, Told("physical", told))

    def windows(self, name: str = ALICE) -> list[messages.Maintain]:
        """Those an end has named, each once."""
        return self.said(name, messages.Maintain)

    def is_closed(self, name: str) -> bool:
        return self.ends[name].machine.peers[OTHER[name]].is_closed

    def drop_care(self) -> None:
        """No more windows: what the master waits for is idle housekeeping."""
        for end in self.ends.values():
            for key in [key for key in end.timers if key.startswith("maintenance/")]:
                del end.timers[key]


def assert_kept(bench: CareBench, taken: list[messages.Maintain]) -> None:
    """No attempt was begun in a window that both ends took."""
    for window in taken:
        assert not [at for at in bench.began if window.start_ns <= at < window.end_ns]


def test_every_period_the_master_names_a_window_in_which_both_calibrate() -> None:
    bench = CareBench().start()
    bench.run(16 * SECOND)
    windows = bench.windows()
    assert len(windows) == 3
    assert bench.windows(BOB) == []
    for name in BOTH:
        told = bench.all(name, service.LinkCalibrated)
        assert [each.calibration for each in told] == [1, 2, 3]
        assert bench.all(name, service.LinkDown) == []
        assert len(bench.all(name, service.LinkUp)) == 1
    for first, second in pairwise(windows):
        assert second.start_ns - first.end_ns == pytest.approx(PERIOD_NS, abs=60 * MS)
    starts = {at for at, _ in bench.asked}
    assert starts == {window.start_ns for window in windows}


def test_in_a_window_nothing_is_attempted_and_requests_wait() -> None:
    bench = CareBench().start()
    bench.run(PERIOD_NS - SECOND)
    bench.say(ALICE, create(1, number=None, deadline_ns=30 * SECOND))
    bench.run(SECOND + 40 * MS)
    (window,) = bench.windows()
    assert len(bench.all(ALICE, service.LinkPair)) > 100
    bench.run(window.start_ns - bench.now + 20 * MS)
    assert not any(bench.ends[name].batches for name in BOTH)
    assert all(bench.is_closed(name) for name in BOTH)
    before = len(bench.all(ALICE, service.LinkPair))
    bench.say(BOB, create(2, ALICE, number=3, deadline_ns=30 * SECOND))  # it is taken, and waits
    bench.run(window.end_ns - bench.now - 1)
    assert len(bench.all(ALICE, service.LinkPair)) == before
    assert bench.errors(BOB) == []
    bench.run(50 * MS)
    assert_kept(bench, [window])
    assert [at for at in bench.began if at == window.end_ns], "it goes on at once"
    assert [done.request[-1] for done in bench.all(BOB, service.LinkDone)] == [2]


def test_deadlines_hold_in_a_window() -> None:
    bench = CareBench().start()
    bench.run(PERIOD_NS + 10 * MS)
    (window,) = bench.windows()
    bench.say(ALICE, create(1, number=None, deadline_ns=window.start_ns + 50 * MS))
    bench.run(window.start_ns - bench.now + 60 * MS)
    assert bench.now < window.end_ns
    assert bench.errors(ALICE) == bench.errors(BOB) == ["TIMEOUT"]


def test_pairs_of_before_are_flagged_when_they_are_told_after_a_calibration() -> None:
    bench = CareBench().start()
    bench.run(16 * SECOND - PERIOD_NS * 2)  # one calibration has been
    herald = {
        "qubit": b"q" * 16, "herald_sequence": 10**6, "cycle": 1, "x_bit": 1, "z_bit": 0,
        "emitted_at_ns": 0, "goodness": 0.9,
    }  # fmt: skip
    bench.say(ALICE, create(1, number=None, deadline_ns=30 * SECOND))
    bench.run(2 * DELAY_NS + 40_000)
    end = bench.ends[ALICE]
    for number, calibration in ((0, 0), (1, 1)):
        batch = next(iter(end.batches))
        del end.batches[batch]
        qubit = bytes([number]) * 16
        end.qubits[qubit] = "link"
        heralded = physical.Heralded(
            batch=batch, calibration=calibration, **(herald | {"qubit": qubit})
        )
        bench.event(ALICE, Told("physical", heralded))
    pairs = bench.all(ALICE, service.LinkPair)[-2:]
    assert [(pair.calibration, pair.is_outdated) for pair in pairs] == [(0, True), (1, False)]


def test_measured_pairs_of_before_say_so_in_each_message() -> None:
    bench = CareBench().start()
    bench.run(16 * SECOND - PERIOD_NS * 2)
    read: dict[str, Any] = {"kind": "measure", "basis": "X", "peer_basis": "X", "number": 9}
    bench.say(ALICE, create(1, deadline_ns=30 * SECOND, **read))
    bench.run(2 * DELAY_NS + 40_000)
    (batch,) = bench.ends[ALICE].batches
    for calibration in (0, 1):
        part = measured(batch, 10**6 + calibration, 3, is_last=False)
        said = replace(part, calibration=calibration)
        bench.event(ALICE, Told("physical", said))
    told = bench.all(ALICE, service.LinkMeasured)
    assert [(each.calibration, each.is_outdated) for each in told] == [(0, True), (1, False)]


@pytest.mark.parametrize("name", BOTH)
def test_a_device_that_is_not_well_has_its_link_calibrated_soon(name: str) -> None:
    bench = CareBench().start()
    bench.run(SECOND)
    bench.care(name, is_due=True)
    bench.care(name, is_due=True)  # said twice: one window
    bench.run(SECOND)
    assert len(bench.windows(name)) == 1
    for each in BOTH:
        assert len(bench.all(each, service.LinkCalibrated)) == 1


def test_where_both_ends_name_a_window_that_of_the_master_stands() -> None:
    bench = CareBench().start()
    bench.run(SECOND)
    bench.care(BOB, is_due=True)
    bench.run(DELAY_NS // 2)
    bench.care(ALICE, is_due=True)
    bench.run(SECOND)
    (mine,), (others,) = bench.windows(ALICE), bench.windows(BOB)
    assert mine.start_ns != others.start_ns
    assert {at for at, _ in bench.asked} == {mine.start_ns}
    for each in BOTH:
        assert len(bench.all(each, service.LinkCalibrated)) == 1


# --- what goes wrong ------------------------------------------------------------------------------


def lose(kind: type[Message], until_ns: int) -> Faults:
    """Messages of a kind do not get through until then."""

    def faults(bench: LossyBench, _to: str, message: messages.LinkMessage) -> list[int]:
        return [] if isinstance(message, kind) and bench.now < until_ns else [DELAY_NS]

    return faults


@pytest.mark.parametrize("kind", [messages.Maintain, messages.MaintainAnswer])
def test_a_window_that_was_missed_is_no_calibration_and_another_follows(kind: Any) -> None:
    bench = CareBench(lose(kind, PERIOD_NS + 200 * MS)).start()
    bench.run(PERIOD_NS + 100 * MS)
    assert not bench.is_closed(ALICE)
    assert bench.all(ALICE, service.LinkCalibrated) == []
    bench.run(3 * SECOND)
    for name in BOTH:
        assert len(bench.all(name, service.LinkCalibrated)) == 1
        assert bench.all(name, service.LinkDown) == []
        assert not bench.is_closed(name)
    assert "link.maintenance_missed" in bench.ends[ALICE].records


def test_an_answer_lost_once_is_said_again_in_time() -> None:
    bench = CareBench(lose(messages.MaintainAnswer, PERIOD_NS + MS // 2)).start()
    bench.run(PERIOD_NS + SECOND)
    assert len(bench.windows()) == 1
    assert len(bench.all(ALICE, service.LinkCalibrated)) == 1


def test_a_device_that_does_not_come_to_its_end_does_not_keep_the_link_closed() -> None:
    bench = CareBench().start()
    bench.is_deaf = True
    bench.run(PERIOD_NS + SECOND)
    assert not any(bench.is_closed(name) for name in BOTH)
    bench.is_deaf = False
    bench.run(2 * SECOND)
    assert len(bench.all(ALICE, service.LinkCalibrated)) >= 1


@pytest.mark.parametrize("name", BOTH)
def test_an_end_that_dies_in_a_window_leaves_nothing_closed(name: str) -> None:
    bench = CareBench().start()
    bench.run(PERIOD_NS + 100 * MS)
    assert bench.is_closed(ALICE)
    bench.restart(name)
    bench.run(20 * MS)
    for each in BOTH:
        assert not bench.is_closed(each)
    bench.say(ALICE, create(1, number=2, deadline_ns=bench.now + SECOND))
    bench.run(SECOND)
    assert len(bench.all(ALICE, service.LinkDone)) == 1
    bench.begun_ns.clear()
    bench.run(PERIOD_NS)
    for each in BOTH:
        assert bench.all(each, service.LinkCalibrated)


def test_a_channel_that_breaks_in_a_window_ends_it() -> None:
    bench = CareBench().start()
    bench.run(PERIOD_NS + 100 * MS)
    bench.drop()
    assert not any(bench.is_closed(name) for name in BOTH)
    bench.run(SECOND)  # a calibration that comes to its end now is told, and nothing else
    bench.connect()
    bench.run(PERIOD_NS + SECOND)
    assert len(bench.windows()) == 2
    assert not any(bench.is_closed(name) for name in BOTH)


@pytest.mark.parametrize(
    "window",
    [(200 * MS, 200 * MS), (300 * MS, 200 * MS), (MAINTENANCE_AHEAD_MAX_NS * 2, 10**12)],
)
def test_a_window_that_is_none_is_refused(window: tuple[int, int]) -> None:
    bench = CareBench().start()
    bench.run(10 * MS)
    bench.inject(BOB, messages.Maintain(start_ns=window[0], end_ns=window[1]))
    assert bench.ends[BOB].records[-1] == "link.refused"
    assert not bench.said(BOB, messages.MaintainAnswer)


@pytest.mark.parametrize(
    "window", [(5 * MS, 100 * MS), (100 * MS, 10 * SECOND)], ids=["begun", "too long"]
)
def test_a_window_that_does_not_suit_is_not_taken(window: tuple[int, int]) -> None:
    bench = CareBench().start()
    bench.run(10 * MS)
    bench.inject(BOB, messages.Maintain(start_ns=window[0], end_ns=window[1]))
    (answer,) = bench.said(BOB, messages.MaintainAnswer)
    assert not answer.is_taken
    bench.run(SECOND)
    assert not bench.asked


def test_a_link_that_does_not_drift_takes_no_window() -> None:
    bench = Bench().begin()
    bench.inject(BOB, messages.Maintain(start_ns=200 * MS, end_ns=300 * MS))
    bench.deliver()
    (answer,) = bench.said(BOB, messages.MaintainAnswer)
    assert not answer.is_taken
    bench.inject(BOB, messages.MaintainAnswer(start_ns=200 * MS, is_taken=True))
    bench.deliver()
    assert not bench.ends[BOB].machine.peers[ALICE].is_closed
    assert "calibrations" not in bench.ends[BOB].machine.summary()


@pytest.mark.parametrize("seed", range(6))
def test_requests_and_windows_over_a_channel_that_loses_repeats_and_delays(seed: int) -> None:
    """The rules of the lossy channel hold, and after it is healed a calibration succeeds."""
    chance = Chance(seed, 0.15)
    rng = Random(seed)
    bench = CareBench(chance).start()
    asked = []
    for which in range(30):
        bench.run(rng.randrange(PERIOD_NS // 8))
        ask(bench, rng, which)
        asked.append(create(which).request)
        if rng.random() < 0.3:
            bench.care(rng.choice(BOTH), is_due=True)
    chance.is_healed = True
    bench.run(PERIOD_NS + 5 * SECOND)
    assert chance.faults > 10
    for name in BOTH:
        assert not bench.is_closed(name)
        assert bench.all(name, service.LinkCalibrated)
    bench.drop_care()
    check(bench, asked)


def test_the_table_has_no_way_out_of_a_window_but_its_end_and_the_loss_of_the_link() -> None:
    outs = [each for each in Input if (State.CLOSED, each) in MAINTENANCE.cells]
    assert outs == [Input.END, Input.LOST]
