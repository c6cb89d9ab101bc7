"""`qstack qkd`: secret keys from entangled pairs."""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import trio

from qstack.api.errors import QstackError
from qstack.api.node import Node, open_node
from qstack.apps.qkd.events import Abort
from qstack.apps.qkd.forecast import NoRouteError, Plan, forecast, plan_given, plan_predicted
from qstack.apps.qkd.key_file import KeyFile, KeyFileError
from qstack.apps.qkd.parameters import Parameters, ParametersError
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
@click.option("--error-rate", type=float,
              help="The number of pairs is planned for this rate in both bases."
              "  [default: what the network predicts, and headroom]")  # fmt: skip
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
    error_rate: float | None,
    deadline_s: float,
    wait_s: float,
    is_json: bool,
) -> None:
    """Make a key of BITS or more with NODE. The same is run there, with this node as NODE.

    Both ends measure halves of photon pairs in two bases, find the errors, correct them and hash
    what is left to a key about which nobody else knows anything, within the bound that is stated.
    The key goes to a file of mode 0600 (raw bits), what is known of it to FILE.json beside it.

    How many pairs are measured follows from BITS and the error rate to be expected, as both ends
    must come to the same: give it to both, or to none. Unless it is given, the network layer's
    prediction is asked for, and headroom added. With more errors fewer bits come out, which is
    said; with too many, none.

    Exit status 0 only with a key; else 1, and the reason.
    """
    here = source or default_source(peer)
    try:
        plan = plan_given(bits, error_rate or 0.0)  # what cannot be with no errors, never can
        given = None if error_rate is None else plan
    except ParametersError as error:
        raise click.BadParameter(str(error), param_hint="--bits, --error-rate") from None
    session = find_node(here)
    order = Order(
        here=here,
        peer=peer,
        bits=bits,
        given=given,
        secret_path=secret_path or session.parent / "identities" / file_name(here, peer),
        out=out or Path(f"{here}-{peer}.key"),
        port=port,
        deadline_ns=max(1, int(deadline_s * NS_IN_S)),
        wait_s=wait_s,
    )
    times = Times()
    used, outcome = trio.run(_plan_and_run, order, times)
    (say_json if is_json else say_lines)(outcome, used, bits, order.out, times)
    sys.exit(1 if isinstance(outcome, Abort) else 0)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the command line asks for; `given` None: the plan follows from the prediction."""

    here: str
    peer: str
    bits: int
    given: Plan | None
    secret_path: Path
    out: Path
    port: int
    deadline_ns: int
    wait_s: float


async def _plan_and_run(order: Order, times: Times) -> tuple[Plan | None, Outcome]:
    """The plan, if there was one, and what came of it."""
    plan = order.given
    try:
        async with open_node(order.here) as node:
            plan = plan or plan_predicted(order.bits, await forecast(node, order.peer))
            with progress_shown(order.here, order.peer, plan) as on_progress:
                return plan, await _run(node, order, plan, times, on_progress)
    except ParametersError as error:
        return plan, Abort(Reason.PLAN, str(error))
    except NoRouteError as error:
        return plan, Abort(Reason.NO_PAIRS, str(error))
    except SecretError as error:
        return plan, Abort(Reason.SECRET, str(error))
    except KeyFileError as error:
        return plan, Abort(Reason.STORAGE, str(error))
    except QstackError as error:
        return plan, Abort(Reason.NODE, f"{error.code}: {error}")


async def _run(
    node: Node, order: Order, plan: Plan, times: Times, on_progress: OnProgress
) -> Outcome:
    terms = Terms(
        remote=order.peer,
        parameters=plan.parameters,
        port=order.port,
        deadline_ns=order.deadline_ns,
        wait_s=order.wait_s,
    )
    network = (await node.status())["network"]
    with (
        SecretFile(order.secret_path, network=network, here=order.here, peer=order.peer) as file,
        KeyFile(order.out, longest(plan.parameters)) as keys,
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
    return outcome


async def _stop_when_told(stop: trio.Event, task_status: trio.TaskStatus) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()


def longest(parameters: Parameters) -> int:
    """The most key bits these parameters can give."""
    return max(row.key_bits for row in parameters.grid)
