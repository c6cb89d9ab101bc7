"""The heralding station: every GEN ends in one REPLY, every error is told to both ends."""

from typing import Any

import pytest

from qstack.machine import FABRIC, Effect, FromPeer, PeerDown, PeerUp, Send, SetTimer, TimerFired
from qstack.physical import station_machine
from qstack.physical.device import OperationRefused
from qstack.physical.hardware import LinkHardware, NodeHardware, World
from qstack.physical.station_device import (
    Clicked,
    ClickedInCycles,
    StopWatch,
    WatchEnded,
    WatchLink,
)
from qstack.physical.station_machine import AHEAD_NS, PATIENCE_NS, StationMachine
from qstack.physical.station_messages import (
    Calibrating,
    Gen,
    GenEnd,
    Reply,
    StationCalibrated,
)
from qstack.wire.message import Message
from tests.physical.worlds import PERFECT

TOKEN = b"t" * 16
OTHER = b"o" * 16
SECOND = 1_000_000_000


def world(scheme: Any = "double-click") -> World:
    link = LinkHardware(
        ends=("a", "b"), length_m=3000.0, arms_m=(1000.0, 2000.0), scheme=scheme, station="mid"
    )
    nodes = {name: NodeHardware(name=name, profile=PERFECT, memory=4) for name in "abc"}
    return World(nodes=nodes, links={link.id: link})


class Station:
    """The machine of `mid`, with detectors and both ends there; `now` is the present."""

    def __init__(self, scheme: Any = "double-click", now: int = 0) -> None:
        self.machine = StationMachine("mid", world(scheme))
        self.now = now
        for peer in (FABRIC, "a", "b", "c"):
            self.machine.handle(PeerUp(peer, bytes(8)), now)

    def say(self, peer: str, message: Message) -> list[Effect]:
        return self.machine.handle(FromPeer(peer, message), self.now)

    def gen(self, peer: str, batch: int, **more: Any) -> list[Effect]:
        fields: dict[str, Any] = {
            "link": "a-b", "batch": batch, "token": TOKEN, "kind": "keep", "first_cycle": 0,
            "count": None, "bright_state": None, "pairs": 1,
        }  # fmt: skip
        return self.say(peer, Gen(**(fields | more)))

    def end(self, peer: str, batch: int, until_cycle: int = 5, **more: Any) -> list[Effect]:
        fields = {"link": "a-b", "error": None} | more
        return self.say(peer, GenEnd(batch=batch, until_cycle=until_cycle, **fields))

    def matched(self) -> WatchLink:
        """Batch 4 of a and 9 of b are watched."""
        self.gen("a", 4)
        (watch,) = sent(self.gen("b", 9), FABRIC)
        assert isinstance(watch, WatchLink)
        return watch

    def click(self, watch: WatchLink, cycle: int = 3) -> list[Effect]:
        return self.say(
            FABRIC, Clicked(operation=watch.sequence, cycle=cycle, x_bit=1, z_bit=0, calibration=7)
        )


def sent(effects: list[Effect], peer: str) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Send) and e.peer == peer]


def replies(effects: list[Effect]) -> list[tuple[str, int | None, str]]:
    """Who is told what of which batch."""
    return [
        (e.peer, e.message.batch, e.message.outcome)
        for e in effects
        if isinstance(e, Send) and isinstance(e.message, Reply)
    ]


def test_two_gens_of_one_token_are_watched_and_a_click_is_told_to_both_ends() -> None:
    station = Station()
    watch = station.matched()
    assert (watch.link, watch.batches, watch.until_cycle) == ("a-b", (4, 9), None)
    effects = station.click(watch)
    assert replies(effects) == [("a", 4, "success"), ("b", 9, "success")]
    here, there = sent(effects, "a")[0], sent(effects, "b")[0]
    assert (here.sequence, here.cycle, here.x_bit, here.z_bit, here.attempts) == (0, 3, 1, 0, 4)
    assert (there.sequence, there.cycle, there.x_bit, there.z_bit) == (0, 3, 1, 0)
    assert station.machine.summary()["open_batches"] == 0


def test_batches_are_in_the_order_of_the_ends_whoever_comes_first() -> None:
    station = Station()
    station.gen("b", 9)
    (watch,) = sent(station.gen("a", 4), FABRIC)
    assert watch.batches == (4, 9)


def test_the_oldest_of_equal_gens_is_taken_first() -> None:
    station = Station()
    for batch in (1, 2):
        station.gen("a", batch)
    assert [sent(station.gen("b", n), FABRIC)[0].batches for n in (7, 8)] == [(1, 7), (2, 8)]


def test_successes_are_numbered_one_by_one() -> None:
    station = Station()
    told = [sent(station.click(station.matched()), "a") for _ in range(3)]
    assert [reply.sequence for (reply,) in told] == [0, 1, 2]


def test_a_station_that_comes_up_later_uses_no_number_of_a_former_life() -> None:
    station = Station(now=777)
    assert sent(station.click(station.matched()), "a")[0].sequence == 777


def test_detectors_that_come_back_do_not_turn_the_numbers_back() -> None:
    station = Station(now=10)
    for _ in range(5):
        station.click(station.matched())
    station.now = 12
    station.machine.handle(PeerDown(FABRIC), station.now)
    station.machine.handle(PeerUp(FABRIC, bytes(8)), station.now)
    assert sent(station.click(station.matched()), "a")[0].sequence == 15


def test_cycles_whose_photons_have_passed_are_not_watched() -> None:
    station = Station(now=SECOND)
    watch = station.matched()
    link = world().links["a-b"]
    cycle_ns = link.cycle_ns("keep", PERFECT, PERFECT)
    lead_ns = link.emission_offset_ns(PERFECT, PERFECT) + link.arrival_ns
    assert watch.first_cycle * cycle_ns + lead_ns >= SECOND
    assert (watch.first_cycle - 1) * cycle_ns + lead_ns < SECOND


# --- ends ----------------------------------------------------------------------------------------


def test_a_gen_nobody_has_met_ends_at_once() -> None:
    station = Station()
    station.gen("a", 4)
    effects = station.end("a", 4)
    assert replies(effects) == [("a", 4, "ended")]
    assert sent(effects, "a")[0].attempts == 5


def test_a_watched_gen_ends_when_its_photons_have_come_and_the_other_waits_again() -> None:
    station = Station()
    watch = station.matched()
    effects = station.end("a", 4)
    assert replies(effects) == []
    (stop,) = sent(effects, FABRIC)
    assert isinstance(stop, StopWatch)
    assert (stop.watch, stop.until_cycle) == (watch.sequence, 5)
    assert replies(station.say(FABRIC, WatchEnded(operation=watch.sequence))) == [("a", 4, "ended")]
    assert sent(station.gen("a", 5), FABRIC)[0].batches == (5, 9)


def test_photons_in_flight_at_an_end_may_herald() -> None:
    station = Station()
    watch = station.matched()
    station.end("a", 4)
    assert replies(station.click(watch)) == [("a", 4, "success"), ("b", 9, "success")]
    assert replies(station.say(FABRIC, WatchEnded(operation=watch.sequence))) == []


def test_both_may_end() -> None:
    station = Station()
    watch = station.matched()
    station.end("a", 4)
    station.end("b", 9)
    assert replies(station.say(FABRIC, WatchEnded(operation=watch.sequence))) == [
        ("a", 4, "ended"),
        ("b", 9, "ended"),
    ]


def test_the_end_of_an_unknown_batch_is_answered_with_the_count_of_the_link() -> None:
    station = Station()
    station.click(station.matched())
    (reply,) = sent(station.end("a", 4), "a")  # that REPLY was lost on its way
    assert (reply.outcome, reply.batch, reply.sequence) == ("ended", 4, 1)


def test_an_end_in_the_far_future_is_not_waited_for() -> None:
    station = Station()
    station.matched()
    (stop,) = sent(station.end("a", 4, 2**53), FABRIC)
    assert stop.until_cycle * 1_000 < 2 * AHEAD_NS


# --- errors --------------------------------------------------------------------------------------


def patience(station: Station) -> list[Effect]:
    station.now += PATIENCE_NS
    return station.machine.handle(TimerFired("patience/a-b"), station.now)


def test_a_gen_that_stays_alone_is_no_classical_other_at_both_ends() -> None:
    station = Station()
    (timer,) = [e for e in station.gen("a", 4) if isinstance(e, SetTimer)]
    assert timer == SetTimer("patience/a-b", PATIENCE_NS, background=True)
    assert replies(patience(station)) == [
        ("a", 4, "NO_CLASSICAL_OTHER"),
        ("b", None, "NO_CLASSICAL_OTHER"),
    ]
    assert station.machine.summary()["errors"] == {"NO_CLASSICAL_OTHER": 1}


@pytest.mark.parametrize("more", [{"token": OTHER}, {"bright_state": 0.2}])
def test_gens_that_are_not_for_the_same_are_a_queue_mismatch(more: dict[str, Any]) -> None:
    station = Station("single-click")
    station.gen("a", 4, bright_state=0.1)
    assert sent(station.gen("b", 9, **({"bright_state": 0.1} | more)), FABRIC) == []
    assert replies(patience(station)) == [
        ("a", 4, "QUEUE_MISMATCH"),
        ("b", 9, "QUEUE_MISMATCH"),
    ]


def test_one_who_waits_for_less_long_is_left_waiting_and_looked_at_again() -> None:
    station = Station()
    station.gen("a", 4)
    station.now = PATIENCE_NS // 2
    station.gen("b", 9, token=OTHER)
    station.gen("b", 10, token=OTHER)
    station.now = 0
    effects = patience(station)
    assert replies(effects) == [("a", 4, "QUEUE_MISMATCH"), ("b", 9, "QUEUE_MISMATCH")]
    assert [e.at_ns for e in effects if isinstance(e, SetTimer)] == [3 * PATIENCE_NS // 2]


def test_a_window_that_is_over_is_out_of_window() -> None:
    station = Station(now=SECOND)
    assert replies(station.gen("a", 4, count=10)) == [
        ("a", 4, "OUT_OF_WINDOW"),
        ("b", None, "OUT_OF_WINDOW"),
    ]


def test_a_window_in_the_far_future_is_out_of_window() -> None:
    station = Station()
    effects = station.gen("a", 4, first_cycle=2**53, count=2**53)
    assert replies(effects)[0] == ("a", 4, "OUT_OF_WINDOW")


def test_windows_that_do_not_overlap_are_out_of_window() -> None:
    station = Station()
    station.gen("a", 4, first_cycle=100, count=10)
    assert replies(station.gen("b", 9, first_cycle=110, count=10)) == [
        ("a", 4, "OUT_OF_WINDOW"),
        ("b", 9, "OUT_OF_WINDOW"),
    ]


def test_a_window_that_ends_is_told_and_the_longer_one_waits_for_another() -> None:
    station = Station()
    station.gen("a", 4, first_cycle=100, count=10)
    effects = station.gen("b", 9, first_cycle=105)
    (watch,) = sent(effects, FABRIC)
    assert (watch.first_cycle, watch.until_cycle) == (105, 110)
    (stop,) = sent(patience(station), FABRIC)
    assert (stop.watch, stop.until_cycle) == (watch.sequence, 110)
    assert replies(station.say(FABRIC, WatchEnded(operation=watch.sequence))) == [("a", 4, "ended")]
    assert sent(station.gen("a", 5), FABRIC)[0].batches == (5, 9)


def test_a_device_that_failed_to_generate_is_local_at_both_ends() -> None:
    station = Station()
    watch = station.matched()
    effects = station.end("a", 4, error="LOCAL")
    assert replies(effects) == [("a", 4, "LOCAL"), ("b", 9, "LOCAL")]
    assert sent(effects, FABRIC)[0].until_cycle == 0
    assert replies(station.click(watch)) == []


@pytest.mark.parametrize(
    ("peer", "more"),
    [
        ("c", {}),
        ("a", {"link": "b-c"}),
        ("a", {"pairs": 2}),
        ("a", {"kind": "prepare", "pairs": 2}),
        ("a", {"bright_state": 0.1}),
        ("a", {"batch": 4}),
    ],
)
def test_a_gen_that_cannot_be_is_general_to_who_said_it(peer: str, more: dict[str, Any]) -> None:
    station = Station()
    station.gen("a", 4)
    fields = {"batch": 5} | more
    assert replies(station.gen(peer, **fields)) == [(peer, fields["batch"], "GENERAL")]
    assert sent(station.gen("b", 9), FABRIC)[0].batches == (4, 9)


def test_who_opens_too_many_batches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station_machine, "GENS_MAX", 64)
    station = Station()
    for batch in range(64):
        station.gen("a", batch)
    assert replies(station.gen("a", 64)) == [("a", 64, "GENERAL")]


def test_without_detectors_every_gen_is_general() -> None:
    station = Station()
    station.matched()
    station.gen("a", 5)
    assert replies(station.machine.handle(PeerDown(FABRIC), 0)) == [
        ("a", 4, "GENERAL"),
        ("b", 9, "GENERAL"),
        ("a", 5, "GENERAL"),
    ]
    assert replies(station.gen("a", 6)) == [("a", 6, "GENERAL")]


def test_detectors_that_refuse_a_watch_are_general_at_both_ends() -> None:
    station = Station()
    watch = station.matched()
    refused = OperationRefused(operation=watch.sequence, error="BAD_REQUEST", detail="no")
    assert replies(station.say(FABRIC, refused)) == [("a", 4, "GENERAL"), ("b", 9, "GENERAL")]


def test_an_end_that_goes_takes_its_gens_along_and_the_other_is_told() -> None:
    station = Station()
    watch = station.matched()
    effects = station.machine.handle(PeerDown("a"), 0)
    assert replies(effects) == [("b", 9, "NO_CLASSICAL_OTHER")]
    assert sent(effects, FABRIC)[0].watch == watch.sequence
    assert replies(station.say(FABRIC, WatchEnded(operation=watch.sequence))) == []
    station.machine.handle(PeerUp("a", b"new-life"), 0)
    assert sent(station.gen("b", 10), FABRIC) == []


@pytest.mark.parametrize("peer", ["a", FABRIC])
def test_what_is_not_for_a_station_is_refused_and_noted(peer: str) -> None:
    station = Station()
    nonsense = Reply(
        link="a-b", batch=1, token=None, outcome="ended", sequence=0, cycle=0, x_bit=0, z_bit=0,
        attempts=0, calibration=0,
    )  # fmt: skip
    (record,) = station.say(peer, nonsense)
    assert getattr(record, "name", "") == "station.refused"


# --- batches that are measured -------------------------------------------------------------------


def cycles(station: Station, watch: WatchLink, pairs: int = 3, **more: Any) -> list[Effect]:
    fields: dict[str, Any] = {
        "pairs": pairs, "first_cycle": 8, "cycles": bytes(4 * pairs), "x_bits": b"\xe0",
        "z_bits": b"\x40", "is_last": False, "calibration": 4,
    }  # fmt: skip
    return station.say(FABRIC, ClickedInCycles(operation=watch.sequence, **(fields | more)))


def test_measured_pairs_are_told_to_both_ends_part_by_part_and_counted() -> None:
    station = Station()
    station.gen("a", 4, kind="measure", pairs=20)
    (watch,) = sent(station.gen("b", 9, kind="measure", pairs=8), FABRIC)
    assert watch.pairs == 8
    first, second = (sent(cycles(station, watch), "a")[0] for _ in range(2))
    assert (first.batch, first.sequence, first.pairs, first.is_last) == (4, 0, 3, False)
    assert (second.sequence, second.calibration) == (3, 4)
    effects = cycles(station, watch, pairs=2, is_last=True)
    ends = [(sent(effects, peer)[0].batch, sent(effects, peer)[0].sequence) for peer in "ab"]
    assert ends == [(4, 6), (9, 6)]
    facts = station.machine.summary()
    assert (facts["open_batches"], facts["watches"], facts["successes"]) == (0, 0, 8)
    assert cycles(station, watch) == []  # of a watch that is over


def test_detectors_that_say_more_than_was_wanted_are_not_believed() -> None:
    station = Station()
    station.gen("a", 4, kind="measure", pairs=7)
    (watch,) = sent(station.gen("b", 9, kind="measure", pairs=2), FABRIC)
    assert replies(cycles(station, watch)) == [("a", 4, "GENERAL"), ("b", 9, "GENERAL")]


def test_who_goes_on_after_the_far_end_has_stopped_wants_the_rest_only() -> None:
    station = Station()
    station.gen("a", 4, kind="measure", pairs=7)
    (watch,) = sent(station.gen("b", 9, kind="measure", pairs=9), FABRIC)
    cycles(station, watch)
    station.end("a", 4)
    effects = station.say(FABRIC, WatchEnded(operation=watch.sequence))
    assert replies(effects) == [("a", 4, "ended")]
    (again,) = sent(station.gen("a", 5, kind="measure", pairs=20), FABRIC)
    assert (again.batches, again.pairs) == ((5, 9), 6)


def test_a_gen_that_is_measured_and_one_that_is_kept_do_not_meet() -> None:
    station = Station()
    station.gen("a", 4, kind="measure", pairs=7)
    assert sent(station.gen("b", 9), FABRIC) == []
    assert replies(patience(station)) == [("a", 4, "QUEUE_MISMATCH"), ("b", 9, "QUEUE_MISMATCH")]


# --- calibrations --------------------------------------------------------------------------------


@pytest.mark.parametrize(("peer", "link"), [("a", "b-c"), ("c", "a-b"), ("a", "a-b")])
def test_a_calibration_that_cannot_be_is_answered_at_once(peer: str, link: str) -> None:
    """Of no link of this station, of a link of others, of one that does not drift."""
    (told,) = sent(Station().say(peer, Calibrating(link=link, until_ns=10**12)), peer)
    assert told == StationCalibrated(link=link, is_good=False, calibration=0)


def test_an_end_that_calibrates_has_no_gens() -> None:
    station = Station()
    watch = station.matched()
    effects = station.say("a", Calibrating(link="a-b", until_ns=10**12))
    assert replies(effects) == [("a", 4, "OUT_OF_WINDOW"), ("b", 9, "OUT_OF_WINDOW")]
    assert sent(effects, FABRIC)[0].watch == watch.sequence
