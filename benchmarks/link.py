"""Measure the link layer: heralded pairs per wall second, in virtual time.

    python benchmarks/link.py [--json]

Two nodes as in `daemons.toml`, over fibres of different length: the longer, the less probable is a
success. In place of the network layers stand users: one asks for pairs to keep without end, both
free each pair as it comes. So what is measured is the link layers, the physical layers and the
fabric, in one process. A node has two memories, so that pairs come one by one over every length.
The cost of a batch does not depend on the probability of its attempts: `cost_ratio` is the time for
a pair at the least probable success over that at the most probable.
"""

import json
import time
from pathlib import Path
from typing import Any, Final

import click

from qstack.link import service as link
from qstack.machine import Effect, Event, Tell, Told
from qstack.physical import service as physical
from qstack.physical.prediction import generation_options
from qstack.runtime.network_file import Network, parse_network
from qstack.runtime.virtual import VirtualNetwork

LENGTHS_M: Final = (1_000, 100_000, 235_000)
PAIRS: Final = 4_000
WARM_PAIRS: Final = 400
PURPOSE: Final = b"benchmark-------"
TEXT: Final = (Path(__file__).parent / "daemons.toml").read_text()


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


def network_of(length_m: int) -> Network:
    """The network of the daemons' benchmark over so much fibre."""
    text = TEXT
    for old, new in (
        ("length_m = 1_000", f"length_m = {length_m}"),
        ('"wall"', '"lockstep"'),
        ("memory = 512", "memory = 2"),
    ):
        assert old in text
        text = text.replace(old, new)
    return parse_network(text, where=f"{length_m} m", folder=Path(__file__).parent)


def measure(length_m: int) -> dict[str, float]:
    """Pairs per wall second over one length."""
    network = network_of(length_m)
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
        "length_m": length_m,
        "probability": max(o.probability for o in options),
        "pairs_per_wall_s": (last - first) / (last_s - first_s),
        "pairs_per_network_s": (last - first) * 1e9 / (last_ns - first_ns),
        "us_per_pair": (last_s - first_s) * 1e6 / (last - first),
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def main(*, as_json: bool) -> None:
    """Heralded pairs per second of processor time, for different probabilities of success."""
    rows = [measure(length_m) for length_m in LENGTHS_M]
    ratio = rows[-1]["us_per_pair"] / rows[0]["us_per_pair"]
    result: dict[str, Any] = {"lengths": rows, "cost_ratio": ratio}
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    for row in rows:
        click.echo(
            f"{row['length_m']:>8.0f} m  p {row['probability']:.2e}  "
            f"{row['pairs_per_wall_s']:>8.0f} pairs/s of CPU  {row['us_per_pair']:.0f} us a pair"
        )
    click.echo(f"cost at the least probable over the most probable: {ratio:.2f}")


if __name__ == "__main__":
    main()
