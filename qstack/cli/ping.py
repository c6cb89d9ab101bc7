"""`qstack ping`: pairs with a node, read at both ends: do they come, how fast, how good are they?

The far half of each pair is read by the far end's transport layer itself (port 0, echo), so that
any node can be measured without a program there.
"""

import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import click
import trio

from qstack.api.errors import QstackError
from qstack.api.node import Node, open_node
from qstack.quantum.estimation import (
    BASES,
    Estimate,
    Readout,
    agrees,
    estimate,
    estimate_corrected,
)
from qstack.quantum.pauli import Basis
from qstack.runtime.network_file import Network, load_network
from qstack.runtime.run_folder import RunFolderError, find_node, run_folder

ECHO_PORT = 0
NS_IN_S = 1e9


@dataclass(frozen=True)
class Echo:
    """One pair: what both ends read, its raw Bell bits, and how long it took."""

    basis: Basis
    here: int
    there: int
    bits: tuple[int, int]
    network_ns: int
    wall_s: float


@click.command()
@click.argument("node")
@click.option("--from", "source", help="The node that asks.  [default: the only other, or first]")
@click.option("-c", "--count", type=click.IntRange(1, 1_000_000), default=12, show_default=True)
@click.option("--min-fidelity", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--deadline", "deadline_s", type=float, default=10.0, show_default=True,
              help="Seconds of network time for each pair.")  # fmt: skip
@click.option("--spam-corrected", is_flag=True, help="Also with readout errors taken out.")
def ping(
    node: str,
    source: str | None,
    count: int,
    min_fidelity: float,
    deadline_s: float,
    spam_corrected: bool,
) -> None:
    """Make pairs with NODE and measure them, in X, Y and Z in turn.

    A line a pair, then rate and fidelity with its 95 % interval. The fidelity is raw: it includes
    the readout errors of both ends, unless --spam-corrected takes them out.
    """
    source = source or default_source(node)
    deadline_ns = int(deadline_s * NS_IN_S)
    echoes: list[Echo] = []
    try:
        trio.run(_ping, source, node, count, min_fidelity, deadline_ns, echoes)
    except QstackError as error:
        click.echo(f"qstack: {source} to {node}: {error.code}: {error}", err=True)
        _summary(echoes, None)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("", err=True)
    readouts = _readouts(source, node) if spam_corrected else None
    _summary(echoes, readouts)


def default_source(target: str) -> str:
    """Some node that runs here and is not the target. Raises `RunFolderError`."""
    here = sorted(p.stem.removeprefix("node-") for p in run_folder().glob("*/node-*.sock"))
    others = [name for name in here if name != target]
    if not others:
        raise RunFolderError(
            "no node to ask from runs here; start a network with `qstack up`, or name one with"
            " --from"
        )
    return others[0]


async def _ping(
    source: str,
    target: str,
    count: int,
    min_fidelity: float,
    deadline_ns: int,
    echoes: list[Echo],
) -> None:
    async with open_node(source) as node:
        click.echo(f"ping {target} from {source}: {count} pairs, minimum fidelity {min_fidelity:g}")
        async for echo in _echoes(node, target, count, min_fidelity, deadline_ns):
            echoes.append(echo)
            _line(len(echoes), echo)


async def _echoes(
    node: Node, target: str, count: int, min_fidelity: float, deadline_ns: int
) -> AsyncIterator[Echo]:
    async with node.epr_socket(remote=target, port=ECHO_PORT, min_fidelity=min_fidelity) as epr:
        for index in range(count):
            basis = BASES[index % 3]
            started_ns, started_s = node.now(), time.perf_counter()
            pair = await epr.create_keep(deadline_ns=deadline_ns)
            came_ns, came_s = node.now(), time.perf_counter()
            there = await epr.echo(pair, basis)
            here = await pair.qubit.measure(basis)
            yield Echo(basis, here, there, pair.bits, came_ns - started_ns, came_s - started_s)


def _line(number: int, echo: Echo) -> None:
    verdict = "agree" if agrees(echo.basis, echo.here, echo.there) else "DISAGREE"
    x, z = echo.bits
    click.echo(
        f"pair {number}: network {echo.network_ns / 1e6:.3f} ms, wall {echo.wall_s * 1e3:.1f} ms,"
        f" bell x={x} z={z}, {echo.basis}: {echo.here}/{echo.there} {verdict}"
    )


def _summary(echoes: list[Echo], readouts: tuple[Readout, Readout] | None) -> None:
    if not echoes:
        return
    network_s = sum(echo.network_ns for echo in echoes) / NS_IN_S
    agreed = sum(agrees(e.basis, e.here, e.there) for e in echoes)
    rate = len(echoes) / network_s if network_s else float("inf")
    click.echo(f"{len(echoes)} pairs, {agreed} agree; {rate:.3f} pairs/s of network time")
    outcomes = [(echo.basis, echo.here, echo.there) for echo in echoes]
    if len({basis for basis, _, _ in outcomes}) < len(BASES):
        click.echo("fidelity: needs a pair in each of X, Y and Z (use -c 3 or more)")
        return
    click.echo(f"fidelity {_interval(estimate(outcomes))} (raw)")
    if readouts is not None:
        corrected = estimate_corrected(outcomes, *readouts)
        click.echo(f"fidelity {_interval(corrected)} (readout errors taken out)")
        for name, readout in zip(("here", "there"), readouts, strict=True):
            rows = "; ".join(
                f"true {true}: reported 0 {row[0]:.4f}, 1 {row[1]:.4f}"
                for true, row in enumerate(readout.confusion)
            )
            click.echo(f"confusion matrix {name}: {rows}")


def _interval(result: Estimate) -> str:
    return f"{result.fidelity:.4f}, 95 % in [{result.low:.4f}, {result.high:.4f}]"


def _readouts(source: str, target: str) -> tuple[Readout, Readout]:
    """The readout of both nodes, from the network file as it runs."""
    network: Network = load_network(find_node(source).parent / "network.toml")
    here, there = (network.nodes[name].profile for name in (source, target))
    return Readout(here.readout_f0, here.readout_f1), Readout(there.readout_f0, there.readout_f1)
