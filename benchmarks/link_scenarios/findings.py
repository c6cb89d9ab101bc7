"""What the study found, in our numbers: each with its interval and a verdict.

A verdict is of the interval of 95 %: "shown" if all of it is on the side the study found, "not
shown" if all of it is on the other, else "not certain". What the study found is said in its
abstract and its section on scheduling; it gives no thresholds, so the ones here are ours.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from benchmarks.link_scenarios.patterns import LOADS, SETUPS, Scenario, Use
from benchmarks.link_scenarios.simulation import Run, UseRun
from benchmarks.link_scenarios.statistics import Figure, mean_of, ratio_of
from benchmarks.link_scenarios.study import (
    LOSS_LOAD,
    LOSS_SCHEDULER,
    MAIN_PATTERN,
    Results,
    longest_s,
    of_runs,
    scaled_s,
)

LITTLE: Final = 0.10
"""A change of less than this part is "little"."""
SATURATED: Final = 0.9
"""An overloaded link whose time is used to this part is at its capacity."""


class Finding(NamedTuple):
    """One sentence of the study, and what we measured of it."""

    setup: str
    claim: str
    measured: str
    figure: Figure
    verdict: str


def findings(results: Results, min_fidelity: float) -> list[Finding]:
    """All that the runs at hand can say."""
    found: list[Finding] = []
    for setup in SETUPS:
        look = _Look(results, setup, min_fidelity)
        found += [*_scheduling(look), *_loads(look), *_losses(look)]
    return found


class _Look:
    """The runs of one setup, by the rest of their scenario."""

    def __init__(self, results: Results, setup: str, min_fidelity: float) -> None:
        self.setup = setup
        self._results = results
        self._min_fidelity = min_fidelity

    def runs(
        self, scheduler: str, load: float, pattern: str = MAIN_PATTERN, loss: float = 0.0
    ) -> list[Run]:
        """The runs of a scenario; none if there are not at least two."""
        key = Scenario(self.setup, pattern, load, scheduler, loss, self._min_fidelity)
        runs = self._results.get(key, [])
        return runs if len(runs) > 1 else []

    def losses(self) -> list[float]:
        """The losses there are runs of."""
        return sorted(
            key.loss for key in self._results if key.setup == self.setup and key.loss > 0.0
        )

    def finding(self, claim: str, measured: str, figure: Figure, verdict: str) -> Finding:
        """A finding of this setup."""
        return Finding(self.setup, claim, measured, figure, verdict)


Number = Callable[[UseRun, Run], float]


def _ratio(over: Sequence[Run], under: Sequence[Run], use: Use, number: Number) -> Figure:
    return ratio_of(of_runs(over, use, number), of_runs(under, use, number))


def above(figure: Figure, bound: float) -> str:
    """Whether a figure is above a bound."""
    if figure.low > bound:
        return "shown"
    return "not shown" if figure.high < bound else "not certain"


def near_one(figure: Figure) -> str:
    """Whether a ratio is 1 but for little."""
    if figure.low > 1.0 - LITTLE and figure.high < 1.0 + LITTLE:
        return "shown"
    is_far = figure.high < 1.0 - LITTLE or figure.low > 1.0 + LITTLE
    return "not shown" if is_far else "not certain"


def link_time(run: Run) -> float:
    """The part of the link's time that the pairs of a run took, each its mean time."""
    setup = SETUPS[run.scenario.setup]
    return sum(
        part.pairs * setup.pair_ns(use, run.scenario.min_fidelity) / 1e9 / run.duration_s
        for use, part in run.uses.items()
    )


def _scheduling(look: _Look) -> Iterator[Finding]:
    high = LOADS["high"]
    fcfs, wfq = look.runs("fcfs", high), look.runs("higher-wfq", high)
    if fcfs and wfq:
        gain = _ratio(fcfs, wfq, "NL", scaled_s)
        claim = "strict priority makes NL requests faster"
        yield look.finding(claim, "mean scaled latency of NL, FCFS : HigherWFQ", gain,
                           above(gain, 1.0))  # fmt: skip
        longest = _ratio(fcfs, wfq, "NL", longest_s)
        yield look.finding(claim, "longest scaled latency of NL, FCFS : HigherWFQ", longest,
                           above(longest, 1.0))  # fmt: skip
        for use in ("CK", "MD"):
            cost = _ratio(wfq, fcfs, use, scaled_s)
            verdict = "shown" if cost.high < gain.low else "not certain"
            yield look.finding(
                f"{use} requests lose less by it than NL gains",
                f"mean scaled latency of {use}, HigherWFQ : FCFS",
                cost,
                "not shown" if cost.low > gain.high else verdict,
            )
    yield from _throughput(look, high)
    lower = look.runs("lower-wfq", high)
    if lower and wfq:
        ratio = _ratio(lower, wfq, "CK", scaled_s)
        yield look.finding("a larger weight makes CK faster",
                           "mean scaled latency of CK, LowerWFQ : HigherWFQ", ratio,
                           above(ratio, 1.0))  # fmt: skip
    fcfs, wfq = look.runs("fcfs", high, "no-nl"), look.runs("higher-wfq", high, "no-nl")
    if fcfs and wfq:
        ratio = _ratio(fcfs, wfq, "CK", scaled_s)
        yield look.finding("where most is MD and nothing NL, weights make CK faster",
                           "mean scaled latency of CK, FCFS : HigherWFQ (no-nl)", ratio,
                           above(ratio, 1.0))  # fmt: skip


def _throughput(look: _Look, load: float) -> Iterator[Finding]:
    fcfs = look.runs("fcfs", load)
    for scheduler, name in (("higher-wfq", "HigherWFQ"), ("lower-wfq", "LowerWFQ")):
        runs = look.runs(scheduler, load)
        if fcfs and runs:
            ratio = ratio_of([link_time(run) for run in runs], [link_time(run) for run in fcfs])
            yield look.finding("the scheduler hardly changes the throughput",
                               f"link time used, {name} : FCFS", ratio,
                               near_one(ratio))  # fmt: skip


def _loads(look: _Look) -> Iterator[Finding]:
    low, high, ultra = (look.runs("fcfs", load) for load in LOADS.values())
    for less, more, names in ((low, high, "0.99 : 0.7"), (high, ultra, "1.5 : 0.99")):
        if less and more:
            ratio = _ratio(more, less, "CK", scaled_s)
            yield look.finding("latency grows with the load",
                               f"mean scaled latency of CK (FCFS), load {names}", ratio,
                               above(ratio, 1.0))  # fmt: skip
    if ultra:
        used = mean_of([link_time(run) for run in ultra])
        yield look.finding("an overloaded link works at its capacity",
                           "link time used at load 1.5 (FCFS)", used,
                           above(used, SATURATED))  # fmt: skip


def _losses(look: _Look) -> Iterator[Finding]:
    whole = look.runs(LOSS_SCHEDULER, LOSS_LOAD)
    for loss in look.losses():
        lossy = look.runs(LOSS_SCHEDULER, LOSS_LOAD, loss=loss)
        if not whole or not lossy:
            continue
        claim = f"losing {loss:g} of the control messages changes little"
        lost = f"{sum(run.lost for run in lossy)} of {sum(run.messages for run in lossy)} lost"
        ratios = [
            ("link time used", ratio_of([link_time(r) for r in lossy],
                                        [link_time(r) for r in whole])),
            ("mean scaled latency of NL", _ratio(lossy, whole, "NL", scaled_s)),
            ("mean scaled latency of MD", _ratio(lossy, whole, "MD", scaled_s)),
            ("fidelity of CK", _ratio(lossy, whole, "CK", lambda use, _run: use.fidelity)),
        ]  # fmt: skip
        for what, ratio in ratios:
            yield look.finding(claim, f"{what}, with loss : without ({lost})", ratio,
                               near_one(ratio))  # fmt: skip
