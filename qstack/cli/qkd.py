"""`qstack qkd`: secret keys from entangled pairs."""

import signal
import sys
from pathlib import Path

import click
import trio

from qstack.api.errors import QstackError
from qstack.api.node import open_node
from qstack.apps.qkd.events import Abort
from qstack.apps.qkd.key_file import KeyFile, KeyFileError
from qstack.apps.qkd.parameters import Parameters, ParametersError
from qstack.apps.qkd.planning import ERROR_RATE, parameters_for
from qstack.apps.qkd.program import PORT, WAIT_S, OnProgress, Outcome, Terms, distribute
from qstack.apps.qkd.reasons import Reason
from qstack.apps.qkd.secret import SecretError
from qstack.apps.qkd.secret_file import SecretFile
from qstack.channel.preshared import file_name
from qstack.cli.ping import default_source
from qstack.cli.qkd_output import Times, progress_shown, say_json, say_lines
from qstack.runtime.run_folder import find_node

NS_IN_S = 1e9
DEADLINE_S = 60.0


@click.group()
def qkd() -> None:
    """Distribute secret keys between two nodes (BBM92)."""


@qkd.command()
@click.option("--with", "peer", required=True, metavar="NODE", help="The node to share it with.")
@click.option("--from", "source", metavar="NODE", help="The node here.  [default: another one]")
@click.option("--bits", type=click.IntRange(1), required=True, help="The length wanted.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: HERE-PEER.key]")
@click.option("--secret", "secret_path", type=click.Path(path_type=Path), metavar="FILE",
              help="The pre-shared secret.  [default: in the network's run folder]")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65_535), default=PORT, show_default=True)
@click.option("--error-rate", type=float, default=ERROR_RATE, show_default=True,
              help="The number of pairs is planned for this rate in both bases.")  # fmt: skip
@click.option("--deadline", "deadline_s", type=click.FloatRange(0, 1e9, min_open=True),
              default=DEADLINE_S, show_default=True,
              help="Seconds of network time, from when both ends are there.")  # fmt: skip
@click.option("--wait", "wait_s", type=click.FloatRange(0, 1e9, min_open=True), default=WAIT_S,
              show_default=True, help="Seconds of wall time to wait for the peer.")  # fmt: skip
@click.option("--json", "is_json", is_flag=True, help="One JSON object, for scripts.")
def run(
    peer: str,
    source: str | None,
    bits: int,
    out: Path | None,
    secret_path: Path | None,
    port: int,
    error_rate: float,
    deadline_s: float,
    wait_s: float,
    is_json: bool,
) -> None:
    """Make a key of BITS or more with NODE. The same is run there, with this node as NODE.

    Both ends measure halves of photon pairs in two bases, find the errors, correct them and hash
    what is left to a key about which nobody else knows anything, within the bound that is stated.
    The key goes to a file of mode 0600 (raw bits), what is known of it to FILE.json beside it.

    How many pairs are measured follows from BITS and --error-rate alone, as both ends must come to
    the same. With more errors fewer bits come out, which is said; with too many, none.

    Exit status 0 only with a key; else 1, and the reason.
    """
    here = source or default_source(peer)
    try:
        parameters = parameters_for(bits, error_rate=error_rate)
    except ParametersError as error:
        raise click.BadParameter(str(error), param_hint="--bits, --error-rate") from None
    terms = Terms(
        remote=peer,
        parameters=parameters,
        port=port,
        deadline_ns=max(1, int(deadline_s * NS_IN_S)),
        wait_s=wait_s,
    )
    session = find_node(here)
    secret_path = secret_path or session.parent / "identities" / file_name(here, peer)
    out = out or Path(f"{here}-{peer}.key")
    times = Times()
    with progress_shown(here, peer, parameters) as on_progress:
        outcome = trio.run(_run, here, terms, secret_path, out, times, on_progress)
    (say_json if is_json else say_lines)(outcome, parameters, bits, out, times)
    sys.exit(1 if isinstance(outcome, Abort) else 0)


async def _run(
    here: str,
    terms: Terms,
    secret_path: Path,
    out: Path,
    times: Times,
    on_progress: OnProgress,
) -> Outcome:
    try:
        async with open_node(here) as node:
            network = (await node.status())["network"]
            with (
                SecretFile(secret_path, network=network, here=here, peer=terms.remote) as file,
                KeyFile(out, longest(terms.parameters)) as keys,
            ):
                started_ns = node.now()
                stop = trio.Event()
                async with trio.open_nursery() as nursery:
                    await nursery.start(_stop_when_told, stop)
                    outcome = await distribute(
                        node, terms, file.secret, keys, on_progress=on_progress, stop=stop
                    )
                    nursery.cancel_scope.cancel()
                times.network_s = (node.now() - started_ns) / NS_IN_S
                times.attempts_left = file.secret.attempts_left
    except SecretError as error:
        return Abort(Reason.SECRET, str(error))
    except KeyFileError as error:
        return Abort(Reason.STORAGE, str(error))
    except QstackError as error:
        return Abort(Reason.NODE, f"{error.code}: {error}")
    return outcome


async def _stop_when_told(stop: trio.Event, task_status: trio.TaskStatus) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()


def longest(parameters: Parameters) -> int:
    """The most key bits these parameters can give."""
    return max(row.key_bits for row in parameters.grid)
