"""What `qstack qkd run` shows: progress while it runs, then a report as lines or as JSON."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from qstack.apps.qkd import events
from qstack.apps.qkd.events import Abort, KeyMetadata
from qstack.apps.qkd.forecast import Plan
from qstack.apps.qkd.parameters import Parameters
from qstack.apps.qkd.program import OnProgress, Outcome
from qstack.apps.qkd.report import interval, length_of

PHASES: Final = {
    "meeting": "waiting for the peer",
    "greeting": "waiting for the peer",
    "measuring": "measuring",
    "ahead": "measuring",
    "behind": "measuring",
    "sifting": "sifting",
    "testing": "sifting",
    "ready": "sifting",
    "reconciling": "correcting",
    "verifying": "verifying",
    "authenticating": "verifying",
    "amplifying": "amplifying",
    "releasing": "amplifying",
    "confirming": "amplifying",
    "done": "done",
    "aborted": "aborted",
}
"""The states of a run, in words."""


@dataclass
class Times:
    """How long it took, and for how many runs the secret is still good."""

    started_s: float = field(default_factory=time.perf_counter)
    network_s: float = 0.0
    attempts_left: int = 0

    @property
    def wall_s(self) -> float:
        """Until now."""
        return time.perf_counter() - self.started_s


@contextmanager
def progress_shown(here: str, peer: str, plan: Plan) -> Iterator[OnProgress]:
    """Progress on standard error: a bar on a terminal, else a line for each phase."""
    parameters = plan.parameters
    click.echo(
        f"{here} with {peer}: {parameters.pairs} pairs, of which {parameters.fraction_x:.0%} in X"
        f" at each end, for error rates up to {plan.error_rate:g} ({plan.origin})",
        err=True,
    )
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = TextColumn("{task.description:22}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(PHASES["meeting"], total=1.0)

        def show(progress: events.Progress) -> None:
            words = PHASES[progress.phase]
            bar.update(task, description=words, completed=progress.fraction, refresh=True)

        yield show


def _lines() -> OnProgress:
    last = ""

    def show(progress: events.Progress) -> None:
        nonlocal last
        words = PHASES[progress.phase]
        if words != last:
            last = words
            click.echo(words, err=True)

    return show


def say_lines(outcome: Outcome, plan: Plan | None, wanted: int, out: Path, times: Times) -> None:
    """The report, for people."""
    if isinstance(outcome, Abort):
        click.echo(f"qstack: no key: {outcome.text}", err=True)
        return
    assert plan is not None, "no key without a plan"
    parameters = plan.parameters
    click.echo(f"planned for error rates up to {plan.error_rate:g}: {plan.origin}")
    figures = outcome.figures
    assert figures.qber_x is not None
    assert figures.qber_z is not None
    click.echo(f"pairs {figures.pairs}, sifted bits {figures.sifted_bits}: n {figures.n} in Z for"
               f" the key, k {figures.k} in X for the test")  # fmt: skip
    for basis, rate, total in (("X", figures.qber_x, parameters.k),
                               ("Z", figures.qber_z, parameters.n)):  # fmt: skip
        low, high = interval(rate, total)
        click.echo(f"error rate in {basis} {rate:.4f}, 95 % in [{low:.4f}, {high:.4f}]")
    f = f", f = {figures.efficiency:.3f} of the Shannon limit" if figures.efficiency else ""
    click.echo(f"leak {figures.leak_bits} bits of parities{f},"
               f" and {figures.tag_bits} of hashes")  # fmt: skip
    _say_length(outcome, parameters, wanted)
    eps_auth = figures.eps_auth or 0.0
    click.echo(f"bound: {figures.bound}; eps_sec {figures.eps_sec:g}, eps_cor {figures.eps_cor:g},"
               f" eps_auth {eps_auth:.2g}")  # fmt: skip
    note = f", {outcome.note}" if outcome.note else ""
    click.echo(f"origin: {outcome.origin}{note}; {times.attempts_left} runs left in the secret")
    click.echo(f"network time {times.network_s:.3f} s, wall time {times.wall_s:.1f} s")
    click.echo(f"key {outcome.id.hex()}: {out} and {out}.json")


def _say_length(outcome: KeyMetadata, parameters: Parameters, wanted: int) -> None:
    figures = outcome.figures
    terms = length_of(parameters, figures)
    fewer = f": fewer than the {wanted} wanted, as there were more errors than planned for"
    click.echo(f"key bits {outcome.key_bits}{fewer if outcome.key_bits < wanted else ''}")
    click.echo(
        f"  = n (1 - h(e + mu)) {terms.secret:.1f} - leak {terms.leak} - tag {terms.tag}"
        f" - 2 log2(1/eps) {terms.hashing:.1f}"
    )
    click.echo(
        f"  e {terms.error:.4f} and leak: the limits of the row declared for error rates up to"
        f" {figures.tolerated_error:g}; mu {terms.mu:.4f}: {terms.n} unseen bits judged by"
        f" {parameters.k}; eps: eps_sec over {len(parameters.grid)} rows"
    )


def say_json(outcome: Outcome, plan: Plan | None, wanted: int, out: Path, times: Times) -> None:
    """The report, for scripts: no bit of the key."""
    common = {
        "wanted_bits": wanted,
        "planned_pairs": None if plan is None else plan.parameters.pairs,
        "planned_error_rate": None if plan is None else plan.error_rate,
        "predicted": None if plan is None else msgspec.to_builtins(plan.forecast),
        "network_s": times.network_s,
        "wall_s": round(times.wall_s, 3),
    }
    report: dict[str, Any]
    if isinstance(outcome, Abort):
        reason = {"reason": outcome.reason.name, "detail": outcome.detail, "text": outcome.text}
        report = {"ok": False, **reason, **common}
    else:
        assert plan is not None, "no key without a plan"
        parameters = plan.parameters
        figures = outcome.figures
        shares = ((figures.qber_x or 0.0, parameters.k), (figures.qber_z or 0.0, parameters.n))
        report = {
            "ok": True,
            "file": str(out),
            **msgspec.to_builtins(outcome),
            "id": outcome.id.hex(),
            "error_rate_95": dict(zip("XZ", (interval(*share) for share in shares), strict=True)),
            "length": msgspec.to_builtins(length_of(parameters, figures)),
            "attempts_left": times.attempts_left,
            **common,
        }
    click.echo(json.dumps(report))
