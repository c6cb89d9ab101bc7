"""What `qstack node`, `fabric` and `station run` share: options, the log, and how they end."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import click
import trio

from qstack.channel.ca import Credentials, CredentialsError
from qstack.channel.identity import Identity

Report = Callable[[str], None]
Command = Callable[..., None]

_OPTIONS = (
    click.argument("network_file", type=click.Path(path_type=Path)),
    click.option("--run-folder", "folder", type=click.Path(path_type=Path), help="This network's."),
    click.option("--seed", type=int, help="Reproducible, not secret: everything from this seed."),
    click.option("--restarts", type=int, default=0, hidden=True),
    click.option("--lifeline", is_flag=True, hidden=True),
    click.option("--send-delay-ms", type=float, default=0.0, hidden=True),
)


def daemon_options(command: Command) -> Command:
    """The options of every daemon, before its own."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def reporter(name: str) -> Report:
    """Structured lines on standard error: one JSON object each."""

    def report(text: str) -> None:
        line = {"at": round(time.time(), 3), "process": name, "text": text}
        print(json.dumps(line), file=sys.stderr, flush=True)

    return report


def credentials_of(folder: Path, identity: Identity) -> Credentials:
    """The credentials in `folder` for `identity` and nobody else. Raises `CredentialsError`."""
    found = Credentials.in_folder(folder, identity)
    if found.identity != identity:
        raise CredentialsError(
            f"{found.certificate_file} is for {found.identity.uri}, not for {identity.uri};"
            " ask the operator of this network for the right one"
        )
    return found


def run_until_told(body: Callable[[], Awaitable[None]], *, lifeline: bool) -> None:
    """Run a daemon until Ctrl-C, SIGTERM, or (with a lifeline) the end of standard input."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, nursery.cancel_scope)
            if lifeline:
                nursery.start_soon(_end_with_input, nursery.cancel_scope)
            await body()

    trio.run(main)


async def _end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


async def _end_with_input(scope: trio.CancelScope) -> None:
    """Whoever started us holds the other end of this pipe for as long as it lives."""
    stream = trio.lowlevel.FdStream(os.dup(0))
    async with stream:
        while await stream.receive_some(4096):
            pass
    scope.cancel()


def use_batch_scheduling() -> None:
    """Let whoever this process sends to wait until it has sent everything (Linux, unprivileged).

    By default the kernel lets a woken process push its waker off the processor in the middle of a
    turn: of two messages sent together the second one waits for the answer to the first.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a sandbox may forbid it: it is an improvement, not a need
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def send_delays(milliseconds: float) -> Callable[[], float] | None:
    """Random wall delays for every send, to show that the trace does not depend on them."""
    if not milliseconds:
        return None
    source = random.Random()  # noqa: S311 - it stands for an unpredictable network
    return lambda: source.uniform(0, milliseconds / 1000)
