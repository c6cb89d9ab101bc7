"""Networks with random work and random deaths: one run per seed."""

from collections.abc import Callable
from random import Random
from typing import Any

from msgspec.structs import replace

from qstack.runtime.network_file import Network, load_packaged_network
from qstack.transport import service as transport
from tests.runtime.scripts import (
    SECOND,
    App,
    WatchedNetwork,
    echo,
    epr,
    send_messages,
    send_qubits,
    take_messages,
    take_qubits,
)


def start_work(network: WatchedNetwork, rng: Random, port: int, number_max: int = 6) -> None:
    """One piece of work between two nodes, of a random kind."""
    first, second = rng.sample(sorted(network.network.nodes), 2)
    number = rng.randint(1, number_max)
    within_ns = rng.choice([SECOND // 10, SECOND, 5 * SECOND])
    held = rng.random()
    match rng.randrange(6):
        case 0 | 1:

            def read(_: int) -> str | None:
                return "Z" if rng.random() < held else None

            _both_ends(network, (first, second), port, number, within_ns=within_ns, read=read)
        case 2:
            _both_ends(network, (first, second), port, 50, within_ns=within_ns, basis="X")
        case 3:
            App(network, first, send_qubits(second, port, [["h"]] * number, within_ns))
            App(network, second, take_qubits(port, ["X"] * number, within_ns))
        case 4:
            App(network, first, send_messages(second, port, [b"data"] * number, within_ns))
            App(network, second, take_messages(port, number, within_ns))
        case _:
            App(network, first, echo(second, ["Z"] * number, within_ns))


def _both_ends(
    network: WatchedNetwork, ends: tuple[str, str], port: int, number: int, **options: Any
) -> None:
    first, second = ends
    App(network, first, epr(port, second, number, is_creator=True, **options))
    App(network, second, epr(port, first, number, is_creator=False, **options))


def packaged(name: str, seed: int) -> WatchedNetwork:
    """A network that comes with qstack."""
    return WatchedNetwork(name, seed)


Make = Callable[[str, int], WatchedNetwork]


def run(seed: int, make: Make = packaged) -> WatchedNetwork:
    """A network with work, deaths and returns, checked at its end."""
    rng = Random(seed)
    network = make(rng.choice(["pair", "metro", "ring"]), seed)
    network.run_until(rng.randrange(SECOND // 100))
    for port in range(1, 1 + rng.randint(1, 4)):
        start_work(network, rng, port)
    for _ in range(rng.randint(0, 3)):
        at_ns = network.now_ns + int(10 ** rng.uniform(4, 9.3))
        network.kill(rng.choice(sorted(network.nodes)), at_ns, comes_back=rng.random() < 0.7)
    for _ in range(rng.randint(0, 2)):
        network.run_until(network.now_ns + rng.randrange(SECOND))
        rng.choice(network.apps).end()
    network.settle()
    network.check_calls()
    network.end_everything()
    network.check_empty()
    return network


def run_with_broken_parts(seed: int, make: Make = packaged) -> WatchedNetwork:
    """Devices and channels go and come back, nodes live; checked at the end."""
    rng = Random(seed)
    network = make(rng.choice(["pair", "metro", "ring"]), seed)
    network.settle()
    for port in range(1, 1 + rng.randint(1, 4)):
        start_work(network, rng, port)
    for _ in range(rng.randint(1, 3)):
        break_something(network, rng)
    network.settle()
    network.check_calls()
    network.end_everything()
    network.check_empty()
    return network


def break_something(network: WatchedNetwork, rng: Random) -> None:
    """A device or a channel goes, and is back after a while."""
    network.run_until(network.now_ns + int(10 ** rng.uniform(4, 9)))
    pause_ns = int(10 ** rng.uniform(4, 8.5))
    if rng.random() < 0.5:
        name = rng.choice(sorted(network.nodes))
        network.lose_device(name)
        network.run_until(network.now_ns + pause_ns)
        network.return_device(name)
    else:
        links = network.network.links.values()
        through = [(end, link.station) for link in links for end in link.ends if link.station]
        ends = rng.choice(sorted([*(link.ends for link in links), *through]))
        network.cut(*ends)
        network.run_until(network.now_ns + pause_ns)
        network.mend(*ends)


LAYERS = ("physical", "link", "network", "transport")


def split(network: str | Network) -> Network:
    """A network, or a packaged one, with nodes whose layers may die alone."""
    if isinstance(network, str):
        network = load_packaged_network(network)
    nodes = {name: replace(node, layout="split") for name, node in network.nodes.items()}
    return replace(network, nodes=nodes, restart_ns=50_000_000)


def with_split_nodes(name: str, seed: int) -> WatchedNetwork:
    """One of those, with a process a layer."""
    return WatchedNetwork(split(name), seed)


def run_with_dying_layers(
    seed: int, layers: tuple[str, ...] = LAYERS, make: Make = with_split_nodes
) -> WatchedNetwork:
    """Layers die alone, and in company, and begin anew; then new work is done as ever."""
    rng = Random(seed)
    network = make(rng.choice(["pair", "metro", "ring"]), seed)
    network.settle()
    for port in range(1, 1 + rng.randint(2, 6)):
        start_work(network, rng, port, number_max=60)
    for _ in range(rng.randint(1, 3)):
        at_ns = network.now_ns + int(10 ** rng.uniform(6, 8.7))
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            node = rng.choice(sorted(network.network.nodes))
            network.kill_layer(node, rng.choice(layers), at_ns)
            at_ns += rng.choice([0, 1000, 100_000, 50_000_000, 50_100_000])
    if rng.random() < 0.2:
        network.kill(rng.choice(sorted(network.nodes)), network.now_ns + rng.randrange(SECOND))
    elif rng.random() < 0.3:
        break_something(network, rng)
    network.settle()
    network.check_calls()
    check_service(network)
    network.end_everything()
    network.check_empty()
    network.check_layers()
    return network


def check_service(network: WatchedNetwork) -> None:
    """A pair, a teleport and a message between two ends, with nothing lost."""
    names = sorted(network.network.nodes)
    is_kept = bool(network.network.stations)  # links through named stations only keep
    first, second = names[0], names[-1]
    for app in network.apps:
        app.end()
    network.settle()
    before = len(network.apps)
    options: dict[str, Any] = {"within_ns": 20 * SECOND}
    options |= {"read": lambda _: "Z"} if is_kept else {"basis": "Z"}
    _both_ends(network, (first, second), 90, 2, **options)
    App(network, first, send_qubits(second, 91, [["h"]], 20 * SECOND))
    App(network, second, take_qubits(91, ["X"], 20 * SECOND))
    App(network, first, echo(second, ["Z"], 20 * SECOND))
    network.settle()
    network.check_calls()
    for app in network.apps[before:]:
        failed = [m for m in app.all(transport.Failed) if m.error != "CLOSED"]
        assert not failed, (app.node, failed)
    assert network.apps[before].all(transport.PairDelivered if is_kept else transport.PairsMeasured)
    assert network.apps[before + 3].all(transport.QubitArrived)
