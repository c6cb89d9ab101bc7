"""A network of two nodes with a photon-pair link, as a user runs it, and ends of runs in it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from qstack.api.node import open_node
from qstack.apps.qkd.events import Abort, KeyMetadata, Progress
from qstack.apps.qkd.key_file import KeyFile
from qstack.apps.qkd.parameters import Parameters
from qstack.apps.qkd.planning import parameters_for
from qstack.apps.qkd.program import Outcome, Terms, distribute
from qstack.apps.qkd.secret_file import SecretFile
from qstack.channel.preshared import file_name
from tests.runtime.running import RunningNetwork, packaged, run_folder, start

OTHER = {"alice": "bob", "bob": "alice"}
PARAMETERS = parameters_for(64, error_rate=0.04)
"""The link's error rate is 0.0175: a run of these has no key once in 1e12."""
KEY_BITS_MAX = 5000


def two_nodes(folder: Path) -> Path:
    """metro without its repeaters: alice and bob, and the photon pairs between them."""
    head, *tables = packaged("metro").read_text().split("\n[[")
    kept = [table for table in tables if '"r1"' not in table and '"r2"' not in table]
    path = folder / "metro.toml"
    path.write_text("\n[[".join((head, *kept)))
    return path


@contextmanager
def network(*options: str) -> Iterator[RunningNetwork]:
    """It runs; stopped by Ctrl-C."""
    with run_folder() as runs:
        running = start(runs, two_nodes(runs), "metro", *options)
        try:
            yield running
        finally:
            assert running.stop() == 0


async def end(
    node_socket: Path,
    here: str,
    folder: Path,
    *,
    parameters: Parameters = PARAMETERS,
    secret: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    stop: trio.Event | None = None,
    deadline_ns: int = 10**10,
    port: int = 5,
) -> Outcome:
    """One end of a run; its key, if there is one, is `folder`/`here`.key."""
    peer = OTHER[here]
    secret = secret or node_socket.parent / "identities" / file_name(here, peer)
    terms = Terms(
        remote=peer, parameters=parameters, port=port, deadline_ns=deadline_ns, wait_s=20.0
    )
    async with open_node(here, path=node_socket) as node:
        with (
            SecretFile(secret, network="metro", here=here, peer=peer) as file,
            KeyFile(folder / f"{here}.key", KEY_BITS_MAX) as keys,
        ):
            return await distribute(
                node, terms, file.secret, keys, on_progress=on_progress, stop=stop
            )


def both(network: RunningNetwork, folder: Path, **options: dict[str, Any]) -> dict[str, Outcome]:
    """Both ends in this process; `options` are those of each end, by its name."""
    outcomes: dict[str, Outcome] = {}

    async def one(here: str) -> None:
        outcomes[here] = await end(
            network.session(here),
            here,
            folder,
            **options.get(here, {}),
        )

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for here in OTHER:
                nursery.start_soon(one, here)

    trio.run(run)
    return outcomes


def die_at(node_socket: Path, here: str, folder: Path, phase: str) -> None:
    """One end, in a process of its own, that is killed when it says it is in `phase`."""

    def on_progress(progress: Progress) -> None:
        if progress.phase == phase:
            os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> None:
        await end(node_socket, here, folder, on_progress=on_progress)

    trio.run(run)


def reasons(outcomes: dict[str, Outcome]) -> dict[str, str]:
    """Why there was no key."""
    return {
        here: outcome.reason.name
        for here, outcome in outcomes.items()
        if isinstance(outcome, Abort)
    }


def keys_in(folder: Path) -> dict[str, bytes]:
    """The keys that were stored; nothing else is there but what is known of them."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    keys = {name: content for name, content in files.items() if name.endswith(".key")}
    assert sorted(files) == sorted([*keys, *(f"{name}.json" for name in keys)])
    return keys


def metadata(outcome: Outcome) -> KeyMetadata:
    """Of a key that was made."""
    assert isinstance(outcome, KeyMetadata), outcome
    return outcome
