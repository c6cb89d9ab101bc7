"""What test rounds say of one way to run a link, and when that breaks its promise.

Of a pair that both ends read in X, Y or Z, each as likely, the outcomes are those of the announced
Bell state with the probability (1 + 2 F) / 3, whatever its noise; readout and decay are taken from
what the physical layer expects a round to show (`RoundForecast`). So counting is enough, and
the tests are exact: binomial, with no approximation for few rounds or few errors.

Pairs that are measured for a request are read in its bases, so the weights are those of the rounds
that came. Each basis has its own probability then, and their mean is taken for all: the number of
rounds that agree spreads less than binomially (Hoeffding, Ann. Math. Statist. 27, 713, 1956), so
tests and intervals hold. What was read in fewer bases says nothing of the others: they are taken to
be off as much as those that were read.

Rules
1. Rounds are judged in windows of WINDOW_ROUNDS that do not overlap, after 48, 96, 192, 384 and all
   768 rounds. At each look the interval's upper end (Clopper and Pearson, one-sided) has a
   fifth of FALSE_ALARM: in a window an honest option alarms with at most that probability.
2. Alarm: the upper end is below what is promised. From then on the estimate is what is offered,
   and a new window begins. What is offered under an alarm is a promise too, and judged alike.
3. An alarm ends with the first whole window whose 95 % interval reaches up to the first promise:
   5 standard errors raise it, 2 keep it. Every other whole window sets what is offered anew.
4. Where a promise changes (clocks are compared, a device comes back) a window is judged by the
   least of those made while it lasted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple

from qstack.link.params import FALSE_ALARM, LOOKS
from qstack.physical.service import GenerationOption, Kind
from qstack.quantum.binomial import exact_interval, low_tail

WINDOW_ROUNDS: Final = LOOKS[-1]
LEVEL: Final = 0.95
"""Of the interval that is shown, and of that which ends an alarm."""
_RECOVERY_TAIL: Final = (1.0 - LEVEL) / 2.0


@dataclass
class Counts:
    """Rounds, and those of them that agreed with the announced Bell state, in X, Y and Z."""

    rounds: list[int] = field(default_factory=lambda: [0, 0, 0])
    agreeing: list[int] = field(default_factory=lambda: [0, 0, 0])

    @property
    def total(self) -> int:
        """Rounds in all bases."""
        return sum(self.rounds)

    @property
    def share(self) -> float:
        """Of the rounds that agreed; there is at least one round."""
        return sum(self.agreeing) / self.total

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(_sums(self.rounds, other.rounds), _sums(self.agreeing, other.agreeing))


@dataclass(frozen=True)
class Estimate:
    """A fidelity at emission, with its interval of 95 %, readout errors and decay taken out."""

    fidelity: float
    low: float
    high: float
    rounds: int


class Verdict(Enum):
    """What a round has changed in what is offered."""

    LOWERED = auto()
    ADJUSTED = auto()  # a new window sets the offer under an alarm
    RECOVERED = auto()


@dataclass
class OptionEstimate:
    """The rounds of one option. `offered` is what is promised under an alarm, else None.

    `last_ns` is when a round was counted last.
    """

    promised: GenerationOption
    kind: Kind = "keep"  # of the requests whose pairs are sacrificed
    window: Counts = field(default_factory=Counts)
    before: Counts = field(default_factory=Counts)  # the window before this one
    offered: float | None = None
    last_ns: int = 0
    latest: GenerationOption | None = None  # promised from the next window on

    @property
    def recent(self) -> Counts:
        """Those the estimate is made of: this window and the one before."""
        return self.window.plus(self.before)

    @property
    def estimate(self) -> Estimate | None:
        """What the recent rounds say; None without any."""
        return self._estimate(self.recent) if self.recent.total else None

    def add(self, basis: int, now: int, *, agrees: bool) -> Verdict | None:
        """Count a round, and look if it is time to."""
        each = [int(place == basis) for place in range(3)]
        return self.add_all(Counts(each, [one * agrees for one in each]), now)

    def add_all(self, more: Counts, now: int) -> Verdict | None:
        """Count rounds, and look if it was time to meanwhile."""
        self.last_ns = now
        before, self.window = self.window.total, self.window.plus(more)
        is_due = any(before < look <= self.window.total for look in LOOKS)
        return self._judge() if is_due else None

    def promise(self, option: GenerationOption) -> None:
        """This is what is promised from now on."""
        is_less = _fidelity(option) <= _fidelity(self.promised)
        if is_less or not self.window.total:
            self.promised = option
        self.latest = option

    def begin_anew(self) -> None:
        """Forget all rounds, and what they led to."""
        self.window, self.before, self.offered = Counts(), Counts(), None

    def _judge(self) -> Verdict | None:
        promised = _fidelity(self.promised)
        in_force = promised if self.offered is None else self.offered
        if self._tail(in_force) < FALSE_ALARM / len(LOOKS):
            self._offer()
            return Verdict.LOWERED
        if self.window.total < WINDOW_ROUNDS:
            return None
        if self.offered is None:
            self._close()
            return None
        if self._tail(promised) >= _RECOVERY_TAIL:
            self._close()
            self.offered = None
            return Verdict.RECOVERED
        self._offer()
        return Verdict.ADJUSTED

    def _tail(self, fidelity: float) -> float:
        """The probability of so few agreeing rounds at this fidelity, read as late as may be."""
        expected = _expected(self.promised, self.kind, self.window)
        below = (_fidelity(self.promised) - fidelity) * expected.gain * 2.0 / 3.0
        share = min(1.0, max(0.0, expected.least - below))
        return low_tail(sum(self.window.agreeing), self.window.total, share)

    def _offer(self) -> None:
        self.offered = self._estimate(self.window).fidelity
        self._close()

    def _close(self) -> None:
        self.before, self.window = self.window, Counts()
        self.promised = self.latest or self.promised

    def _estimate(self, counts: Counts) -> Estimate:
        low, high = exact_interval(sum(counts.agreeing), counts.total, LEVEL)
        expected = _expected(self.promised, self.kind, counts)

        def fidelity(share: float) -> float:
            off = 1.5 * (share - expected.agreement) / expected.gain
            return min(1.0, max(0.0, _fidelity(self.promised) + off))

        return Estimate(fidelity(counts.share), fidelity(low), fidelity(high), counts.total)


class _Expected(NamedTuple):
    """What rounds show if the promise is kept: as a `RoundForecast` has it."""

    agreement: float
    least: float
    gain: float


def is_forecast(option: GenerationOption, kind: Kind) -> bool:
    """Whether it is known what rounds of such requests should show."""
    return (option.test_round if kind == "keep" else option.measured_round) is not None


def _expected(option: GenerationOption, kind: Kind, counts: Counts) -> _Expected:
    kept, measured = option.test_round, option.measured_round
    if kind == "keep":
        assert kept is not None, "only options with a forecast have rounds"
        return _Expected(kept.agreement, kept.least, kept.gain)
    assert measured is not None, "only options with a forecast have rounds"
    agreeing = sum(n * p for n, p in zip(counts.rounds, measured.agreements, strict=True))
    mean = min(1.0, agreeing / counts.total)
    return _Expected(mean, mean, measured.gain)


def _fidelity(option: GenerationOption) -> float:
    return option.bell_probabilities[0]


def _sums(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(first, second, strict=True)]


def lowered(option: GenerationOption, offered: float) -> list[float]:
    """The Bell probabilities of an option that keeps only `offered`: phi+ gives to the others.

    By their weights; to each alike where they have none.
    """
    fidelity, *others = option.bell_probabilities
    total = sum(others)
    weights = [other / total for other in others] if total > 0.0 else [1.0 / 3.0] * 3
    missing = max(0.0, fidelity - offered)
    return [
        min(offered, fidelity),
        *(
            min(1.0, other + missing * weight)
            for other, weight in zip(others, weights, strict=True)
        ),
    ]
