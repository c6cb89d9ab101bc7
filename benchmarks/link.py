"""Measure the link layer: heralded pairs per wall second, in virtual time and through daemons.

    python benchmarks/link.py [--json] [--seconds S]

Two nodes as in `daemons.toml`, with more or less loss beside that of the fibre: the more, the less
probable is a success. An attempt takes as long in all cases, and a node has two memories, so that
pairs come one by one.

In virtual time users stand in place of the network layers: one asks for pairs to keep without end,
both free each pair as it comes. So what is measured is the link layers, the physical layers and the
fabric, in one process. Through daemons it is a fabric, two nodes and two applications as processes
(`daemons.py`), in lockstep, where nobody waits for hardware; there a pair goes through all layers.

The cost of a batch does not depend on the probability of its attempts: `cost_ratio` is the
processor time for a pair at the least probable success over that at the most probable.
"""

import json
import time
from pathlib import Path
from typing import Any, Final

import click
import trio
from daemons import best, plain, running

from qstack.link import service as link
from qstack.machine import Effect, Event, Tell, Told
from qstack.physical import service as physical
from qstack.physical.prediction import generation_options
from qstack.runtime.network_file import Network, parse_network
from qstack.runtime.virtual import VirtualNetwork

LOSSES_DB: Final = (0.0, 9.8, 23.4)  # in each arm
PAIRS: Final = 4_000
WARM_PAIRS: Final = 400
PURPOSE: Final = b"benchmark-------"
TEXT: Final = (Path(__file__).parent / "daemons.toml").read_text()
BATCH: Final = 16  # pairs of a call through daemons, one call at a time
CALL_LIMIT_NS: Final = 10**13  # the least probable pair takes a second of network time


class User:
    """Asks for pairs if it is alice, and frees what comes."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.pairs = 0

    def handle(self, event: Event, _now: int) -> list[Effect]:
        """See `qstack.machine.Machine`."""
        match event:
            case Told(_, link.LinkUp(peer=peer)):
                effects: list[Effect] = [Tell("link", link.LinkListen(peer=peer, purpose=PURPOSE))]
                return [*effects, Tell("link", _create(peer))] if self.node == "alice" else effects
            case Told(_, link.LinkPair(qubit=qubit)):
                self.pairs += 1
                return [Tell("physical", physical.Free(qubit=qubit))]
            case _:
                return []


def _create(peer: str) -> link.LinkCreate:
    return link.LinkCreate(
        request=bytes(16),
        peer=peer,
        purpose=PURPOSE,
        kind="keep",
        number=None,
        min_fidelity=0.0,
        deadline_ns=2**62,
        priority=1,
        basis=None,
        peer_basis=None,
        atomic=False,
        consecutive=True,
    )


def text_of(loss_db: float) -> str:
    """The network of the daemons' benchmark with so much loss in each arm, two memories a node."""
    text = TEXT
    for old, new in (
        ('station = "midpoint"', f'station = "midpoint"\nextra_loss_db = {loss_db}'),
        ("memory = 512", "memory = 2"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def network_of(loss_db: float) -> Network:
    """The same for virtual time."""
    text = text_of(loss_db).replace('"wall"', '"lockstep"')
    return parse_network(text, where=f"{loss_db} dB", folder=Path(__file__).parent)


def measure(loss_db: float) -> dict[str, float]:
    """Pairs per wall second with one loss."""
    network = network_of(loss_db)
    virtual = VirtualNetwork(network, 1)
    users = {}
    for name, node in virtual.nodes.items():
        node.trace = None
        users[name] = node.machines["network"] = User(name)
    options = generation_options(network.world, network.world.links_of("alice")[0])
    step_ns = 1 + round(max(o.cycle_ns / o.probability for o in options)) * 4
    begun = {}
    for goal in (WARM_PAIRS, WARM_PAIRS + PAIRS):
        while users["bob"].pairs < goal:
            virtual.run_until(virtual.now_ns + step_ns)
        begun[goal] = users["bob"].pairs, time.process_time(), virtual.now_ns
    (first, first_s, first_ns), (last, last_s, last_ns) = begun.values()
    return {
        "loss_db": loss_db,
        "probability": max(o.probability for o in options),
        "pairs_per_wall_s": (last - first) / (last_s - first_s),
        "pairs_per_network_s": (last - first) * 1e9 / (last_ns - first_ns),
        "us_per_pair": (last_s - first_s) * 1e6 / (last - first),
    }


async def measure_daemons(loss_db: float, span_s: float) -> dict[str, float]:
    """The same through daemons: pairs that both applications have held."""
    async with running("lockstep", span_s, text_of(loss_db)) as bench:
        bench.deadline_ns = CALL_LIMIT_NS
        found = await best(bench, 1, "keep", BATCH, BATCH)
    return {
        "loss_db": loss_db,
        "pairs_per_wall_s": found.per_s,
        "us_per_pair": 1000.0 * found.cpu_ms,
    }


def ratio(rows: list[dict[str, float]]) -> float:
    """The cost of a pair at the least probable success over that at the most probable."""
    return rows[-1]["us_per_pair"] / rows[0]["us_per_pair"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.option("--seconds", type=click.FloatRange(2, 60), default=4.0, show_default=True,
              help="How long the daemons work with each loss.")  # fmt: skip
def main(*, as_json: bool, seconds: float) -> None:
    """Heralded pairs per second of processor time, for different probabilities of success."""
    virtual = [measure(loss_db) for loss_db in LOSSES_DB]
    try:
        daemons = [trio.run(measure_daemons, loss_db, seconds) for loss_db in LOSSES_DB]
    except BaseExceptionGroup as error:
        raise plain(error) from error
    result: dict[str, Any] = {
        "losses": virtual,
        "cost_ratio": ratio(virtual),
        "daemons": {"losses": daemons, "cost_ratio": ratio(daemons)},
    }
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    for name, rows in (("virtual time", virtual), ("daemons, lockstep", daemons)):
        click.echo(name)
        for row, known in zip(rows, virtual, strict=True):
            click.echo(
                f"{row['loss_db']:>6.1f} dB  p {known['probability']:.2e}  "
                f"{row['pairs_per_wall_s']:>6.0f} pairs/s  {row['us_per_pair']:>6.0f} us a pair"
            )
        click.echo(f"cost at the least probable over the most probable: {ratio(rows):.2f}")


if __name__ == "__main__":
    main()
