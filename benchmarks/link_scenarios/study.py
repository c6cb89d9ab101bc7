"""Which runs the study has, and what comes of them together.

Every scenario is run with the same seeds, so that schedulers, and losses, are compared on the same
requests. Runs are spread over processes; each is a function of its scenario and seed alone.
"""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final, NamedTuple

from benchmarks.link_scenarios.patterns import LOADS, Scenario, Use
from benchmarks.link_scenarios.simulation import Run, UseRun, simulate
from benchmarks.link_scenarios.statistics import Figure, mean_of
from qstack.physical.document import DocumentError

MAIN_PATTERN: Final = "equal"
LOSS_SCHEDULER: Final = "higher-wfq"
LOSS_LOAD: Final = LOADS["low"]
DURATION_S: Final = {"lab": 50.0, "ql2020": 400.0}
"""Network time of a run if nobody says: about as much work for both."""


class Job(NamedTuple):
    """One run to be made."""

    scenario: Scenario
    seed: int
    duration_s: float


@dataclass(frozen=True)
class Cell:
    """One use in one scenario, over all runs; sums of counts, means of the rest."""

    throughput_hz: Figure
    latency_s: Figure
    scaled_s: Figure
    longest_s: Figure  # the longest scaled latency of a run
    queue: Figure
    fidelity: Figure
    requests: int
    done: int
    refused: int
    failed: int
    open: int


Results = dict[Scenario, list[Run]]


def scenarios(
    setups: Sequence[str],
    patterns: Sequence[str],
    loads: Sequence[float],
    schedulers: Sequence[str],
    losses: Sequence[float],
    min_fidelity: float,
) -> list[Scenario]:
    """The cells of the study. Without `loads`: all for the main pattern, 0.99 for the others."""
    found = []
    for setup in setups:
        for pattern in patterns:
            every = LOADS.values() if pattern == MAIN_PATTERN else [LOADS["high"]]
            for load in loads or every:
                found += [
                    Scenario(setup, pattern, load, scheduler, 0.0, min_fidelity)
                    for scheduler in schedulers
                ]
        lossy = [each for each in losses if each > 0.0]
        found += [
            Scenario(setup, MAIN_PATTERN, LOSS_LOAD, LOSS_SCHEDULER, loss, min_fidelity)
            for loss in ([0.0, *lossy] if lossy else [])
        ]
    return list(dict.fromkeys(found))


def run_all(jobs: Sequence[Job], processes: int, on_run: Callable[[Run], None]) -> Results:
    """Make all runs; `on_run` is told of each. The processes end with this call in any case."""
    results: Results = {job.scenario: [] for job in jobs}
    with ExitStack() as stack:
        ordered = sorted(jobs, key=_cost, reverse=True)
        made: Iterator[Run] = map(_simulate, ordered)
        if processes > 1:
            # Forked children would share the parent's progress display.
            pool = get_context("spawn").Pool(processes, initializer=_leave_interrupts)
            made = stack.enter_context(pool).imap_unordered(_simulate, ordered)
        for run in made:
            results[run.scenario].append(run)
            on_run(run)
    for runs in results.values():
        runs.sort(key=lambda run: run.seed)
    return results


def _simulate(job: Job) -> Run:
    try:
        return simulate(job.scenario, job.seed, job.duration_s)
    except DocumentError as error:  # cannot be sent to the parent, which would wait for ever
        raise RuntimeError(str(error)) from None


def _cost(job: Job) -> float:
    """The longest first, so that no process is left alone with it at the end."""
    return job.duration_s * job.scenario.load


def _leave_interrupts() -> None:
    """To the parent, which ends its processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def of_runs(runs: Sequence[Run], use: Use, figure: Callable[[UseRun, Run], float]) -> list[float]:
    """One number of each run."""
    return [figure(run.uses[use], run) for run in runs]


def throughput_hz(use: UseRun, run: Run) -> float:
    """Pairs a second."""
    return use.pairs / run.duration_s


def scaled_s(use: UseRun, _run: Run) -> float:
    """The mean scaled latency: from the request to its last pair, divided by its pairs."""
    return _mean(use.scaled_s)


def longest_s(use: UseRun, _run: Run) -> float:
    """The longest scaled latency."""
    return max(use.scaled_s, default=math.nan)


def latency_s(use: UseRun, _run: Run) -> float:
    """The mean latency of requests that were served."""
    return _mean(use.latencies_s)


def cells(results: Results) -> Iterator[tuple[Scenario, Use, Cell]]:
    """All that is to be shown, in the order of the scenarios."""
    for scenario, runs in results.items():
        for use in scenario.uses:
            yield scenario, use, cell(runs, use)


def cell(runs: Sequence[Run], use: Use) -> Cell:
    """One use over all runs of its scenario."""
    parts = [run.uses[use] for run in runs]
    return Cell(
        throughput_hz=mean_of(of_runs(runs, use, throughput_hz)),
        latency_s=mean_of(of_runs(runs, use, latency_s)),
        scaled_s=mean_of(of_runs(runs, use, scaled_s)),
        longest_s=mean_of(of_runs(runs, use, longest_s)),
        queue=mean_of([part.queue for part in parts]),
        fidelity=mean_of([part.fidelity for part in parts]),
        requests=sum(part.requests for part in parts),
        done=sum(part.done for part in parts),
        refused=sum(part.refused for part in parts),
        failed=sum(part.failed for part in parts),
        open=sum(part.open for part in parts),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
