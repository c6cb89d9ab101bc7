"""The check of drivers: it passes good ones, and names what is wrong with wrong ones."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qstack.machine import Effect, Tell
from qstack.physical.check.programs import PROGRAMS
from qstack.physical.check.report import Verdict, check_driver
from qstack.physical.check.statistical import FALSE_ALARM, Counted, is_credible
from qstack.physical.device import (
    DeviceHealth,
    Generate,
    Operation,
    OperationRefused,
    Outcome,
    Release,
)
from qstack.physical.drivers.setup import Setup
from qstack.physical.drivers.template import TemplateDevice
from qstack.physical.emulated import EmulatedDevice
from qstack.physical.hardware import Scheme
from qstack.physical.profiles import load_packaged_profile
from qstack.physical.program_device import DisarmProgram
from qstack.physical.service import DeviceLost
from qstack.wire.message import Basis, Message

BENCH = load_packaged_profile("bench")


def failed(make: Callable[[Setup], TemplateDevice], profile: str = "bench") -> dict[str, str]:
    verdicts = check_driver(make, load_packaged_profile(profile))
    return {each.check: each.detail for each in verdicts if each.verdict == "failed"}


@pytest.mark.parametrize("scheme", ["double-click", "single-click"])
def test_the_emulated_device_passes_every_check(scheme: Scheme) -> None:
    """Every check is offered. Seed fixed; false alarm 1e-6."""
    verdicts = list(check_driver(EmulatedDevice, BENCH, scheme=scheme))
    assert [each for each in verdicts if each.verdict != "passed"] == []
    assert {"correlations", "both ends hear the same heralds"} <= {v.check for v in verdicts}


@pytest.mark.parametrize("profile", ["bench", "ion-published", "nv-lab"])
def test_the_template_passes_and_says_what_it_does_not_offer(profile: str) -> None:
    """Seed fixed; false alarm 1e-6."""
    verdicts = list(check_driver(TemplateDevice, load_packaged_profile(profile)))
    assert [each for each in verdicts if each.verdict == "failed"] == []
    assert [each.check for each in verdicts if each.verdict == "not-offered"] == [
        "drawn bases are asked for",
        "rotated pairs are complete",
        "states are prepared remotely",
        "detections follow one another",
        "detections",
    ]


@pytest.mark.soak
def test_the_check_can_be_repeated_and_depends_on_its_seed() -> None:
    def run(seed: int) -> list[Verdict]:
        return list(check_driver(TemplateDevice, BENCH, seed=seed))

    assert run(3) == run(3)
    assert run(3) != run(4)


# --- wrong drivers -------------------------------------------------------------------------------


class Forgets(TemplateDevice):
    """Never answers a stop."""

    def stop(self, batch: Generate, reason: str, at_ns: int) -> None:
        self._parts.pop(batch.batch, None)


class Late(TemplateDevice):
    """Answers measurements a microsecond too late."""

    def say(self, at_ns: int, message: Message) -> None:
        super().say(at_ns + 1000 * isinstance(message, Outcome), message)


class Stutters(TemplateDevice):
    """Says every outcome twice."""

    def say(self, at_ns: int, message: Message) -> None:
        super().say(at_ns, message)
        if isinstance(message, OperationRefused):
            super().say(at_ns, message)


class Immortal(TemplateDevice):
    """Still measures what was released."""

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        return [] if isinstance(operation, Release) else super().submit(operation, now)


class Optimist(TemplateDevice):
    """Succeeds half again as often as its profile says."""

    def _probability(self, batch: Generate) -> float:
        return min(1.0, 1.5 * super()._probability(batch))


class Biased(TemplateDevice):
    """Heralds psi+ more often than psi-, and reads 1 more often than 0."""

    def _bits(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        return (self.setup.rng.random(count) < 0.6).astype(np.uint8)


class Misreads(TemplateDevice):
    """Reads one qubit in fifty wrongly, though its profile has no errors."""

    def measure(self, qubit: bytes, basis: Basis) -> int:
        return super().measure(qubit, basis) ^ int(self.setup.rng.random() < 0.02)


class Clairvoyant(TemplateDevice):
    """Hears of a herald faster than light."""

    def back_ns(self, link: str) -> int:
        return super().back_ns(link) // 2


class Remembers(TemplateDevice):
    """Does not forget what was before a restart."""

    def begin(self, now: int) -> None:
        if now == 0:
            super().begin(now)


class Accepts(TemplateDevice):
    """Takes any link for one of its own."""

    def _start(self, asked: Generate) -> None:
        if asked.link in self.links:
            super()._start(asked)


class Restless(TemplateDevice):
    """Wants to be asked always, and says nothing."""

    def next_event_ns(self) -> int | None:
        return 0


class Overcounts(TemplateDevice):
    """Counts attempts it did not make."""

    def ended(self, batch: Generate, reason: str, at_ns: int, *, attempts: int) -> None:
        super().ended(batch, reason, at_ns, attempts=2 * attempts)


class Repeats(TemplateDevice):
    """Gives every pair the same herald sequence."""

    def _next_heralds(self, link: str, count: int) -> int:
        del link, count
        return 7


class Talks(TemplateDevice):
    """Tells a layer itself."""

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        return [*super().submit(operation, now), Tell("link", DeviceLost())]


class Sleepy(TemplateDevice):
    """Hears of heralds a microsecond later in its programs."""

    def herald(self, batch: Generate, **words: Any) -> None:
        self.lateness_ns = 1000
        super().herald(batch, **words)
        self.lateness_ns = 0

    lateness_ns = 0

    def _call_at(self, at_ns: int, *words: Any) -> None:
        super()._call_at(at_ns + self.lateness_ns, *words)


class Hoards(TemplateDevice):
    """Begins programs that were withdrawn."""

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        return [] if isinstance(operation, DisarmProgram) else super().submit(operation, now)


class Ordinary(TemplateDevice):
    """Runs no programs."""

    runs_programs = False


class Sick(TemplateDevice):
    """Is down from the beginning."""

    def began(self, now: int) -> None:
        super().began(now)
        self.say(now, DeviceHealth(state="down", detail="no helium"))


@pytest.mark.parametrize(
    ("wrong", "check", "words"),
    [
        (Forgets, "a stopped batch ends", "was not answered within"),
        (Late, "a measurement is answered and ends the qubit", "answered by nothing"),
        (Stutters, "every answer comes once", "was answered 2 times"),
        (Immortal, "a release ends the qubit and is silent", "expected OperationRefused"),
        (Optimist, "success probability of kept pairs", "expected 0.456"),
        (Optimist, "success probability of measured pairs", "expected 0.456"),
        (Biased, "bell bits", "z = 1"),
        (Biased, "measured outcomes", "outcome 1 in X"),
        (Misreads, "readout", "state 0 read as 1"),
        (Clairvoyant, "a kept pair is heralded", "light takes"),
        (Remembers, "nothing outlives a restart", "after the device began anew"),
        (Accepts, "an unknown link is refused", "answered by nothing"),
        (Restless, "it is silent before it is asked", "the node would never go on"),
        (Overcounts, "a stopped batch ends", "400 attempts were counted in 200 cycles"),
        (Repeats, "heralds are counted", "herald 7 was followed by 7"),
        (Talks, "a fresh qubit is answered", "the device wants Tell done"),
        (Sleepy, "a program begins at its herald", "answered by nothing"),
        (Hoards, "a program that does not begin ends", "disarmed was answered by nothing"),
        (Sick, "a fresh qubit is answered", "down: no helium"),
    ],
)
def test_a_wrong_driver_is_caught_by_the_check_of_what_is_wrong(
    wrong: type[TemplateDevice], check: str, words: str
) -> None:
    found = failed(wrong)
    assert words in found[check], found


def test_a_driver_need_not_run_programs_but_says_so() -> None:
    verdicts = {each.check: each.verdict for each in check_driver(Ordinary, BENCH)}
    assert [verdicts[check] for check in PROGRAMS] == ["not-offered"] * len(PROGRAMS)


def test_what_a_driver_raises_is_reported_and_the_other_checks_go_on() -> None:
    class Breaks(TemplateDevice):
        def measure(self, qubit: bytes, basis: Basis) -> int:
            raise ZeroDivisionError("in the lab")

    found = failed(Breaks)
    expected = "it raised ZeroDivisionError: in the lab"
    assert found["a measurement is answered and ends the qubit"] == expected
    assert "heralds are counted" not in found


# --- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.0, 0.001, 0.3, 1.0])
def test_the_bound_never_alarms_more_often_than_it_says(probability: float) -> None:
    """Summed exactly: the counts that alarm have less than 1e-6 together."""
    trials = 400
    counts = [Counted("", k, trials, probability) for k in range(trials + 1)]
    alarming = [counted.happened for counted in counts if not is_credible(counted)]
    total = sum(
        math.comb(trials, k) * probability**k * (1.0 - probability) ** (trials - k)
        for k in alarming
    )
    assert total < FALSE_ALARM
    assert alarming
    assert is_credible(Counted("", 0, 0, probability))
