"""A repeater dies, and applications die around that time, in virtual time: one run per seed.

The network and the work are those of `death_work.py`: alice and bob ask for pairs, teleport qubits,
use the echo and have pairs measured, again and again, with deadlines. In the end nobody has or
waits for anything, and no time needs to pass until that is so.
"""

from collections.abc import Callable, Generator
from random import Random
from typing import Any

from qstack.physical import service as physical
from qstack.runtime.session_messages import Sleep
from qstack.transport import service as transport
from qstack.wire.message import Message
from tests.runtime.scripts import CLOSING, SECOND, App, Script, WatchedNetwork, opened

MS = SECOND // 1000
DEADLINE_NS = 250 * MS
PAUSE_NS = 20 * MS
AGAIN_NS = 100 * MS
PAIRS, QUBITS, KEYS = 21, 22, 24
READ_PAIRS = 500  # measured pairs in a request

Part = Generator[list[Message], Message, tuple[Any, list[transport.PairDelivered]]]
"""Part of a script: it comes to a call's answer, and the pairs that were told before it."""


def call(*calls: Any) -> Part:
    """Make calls; wait for the answer of the last."""
    last = calls[-1]
    pairs: list[transport.PairDelivered] = []
    message: Any = yield [*calls]
    while not (
        isinstance(message, CLOSING)
        and message.call == last.call
        and type(message).__module__ == type(last).__module__
    ):
        if isinstance(message, transport.PairDelivered):
            pairs.append(message)
        message = yield []
    return message, pairs


def again(port: int, remote: str, attempt: Callable[[int], Script]) -> Script:
    """An EPR socket; attempts at it, a pause after each."""
    answer, _ = yield from call(transport.EprOpen(call=1, port=port, remote=remote))
    while True:
        yield from attempt(answer.socket)
        yield from call(Sleep(call=1, span_ns=PAUSE_NS))


def pairs(remote: str, basis: Any = None, *, is_creator: bool) -> Script:
    """Pairs of one kind, asked for or accepted; those to keep are read one after the other."""
    number = 1 if basis is None else READ_PAIRS

    def attempt(socket: int) -> Script:
        asked: dict[str, Any] = {
            "call": 2, "socket": socket, "number": number, "basis": basis, "within_ns": DEADLINE_NS
        }  # fmt: skip
        message: Any = transport.EprAccept(**asked)
        if is_creator:
            message = transport.EprCreate(**asked, min_fidelity=0.5, priority=1)
        _, delivered = yield from call(message)
        for pair in delivered:
            yield from call(physical.Measure(call=1, qubit=pair.qubit, basis="Z"))

    return again(PAIRS if basis is None else KEYS, remote, attempt)


def echoes(remote: str) -> Script:
    """A pair with the echo port; the half here is read before the other is asked for."""

    def attempt(socket: int) -> Script:
        create = transport.EprCreate(
            call=2, socket=socket, number=1, basis=None, min_fidelity=0.5, priority=1,
            within_ns=DEADLINE_NS,
        )  # fmt: skip
        _, delivered = yield from call(create)
        for pair in delivered:
            yield from call(physical.Measure(call=1, qubit=pair.qubit, basis="Z"))
            question = transport.EchoMeasure(call=1, socket=socket, pair=pair.pair, basis="Z")
            yield from call(question)

    return again(transport.ECHO_PORT, remote, attempt)


def sent_qubits(remote: str) -> Script:
    """A qubit stream, opened again when it ends."""
    while True:
        answer, _ = yield from call(opened("qubit", remote, QUBITS, DEADLINE_NS))
        while isinstance(answer, transport.Opened):
            socket = answer.socket
            allocated, _ = yield from call(physical.Allocate(call=2))
            if isinstance(allocated, physical.Allocated):
                qubit = allocated.qubit
                sent, _ = yield from call(
                    physical.Transfer(call=None, qubit=qubit, to="transport"),
                    transport.SendQubit(call=3, socket=socket, qubit=qubit, within_ns=DEADLINE_NS),
                )
                if isinstance(sent, transport.Finished):
                    continue
                yield from call(
                    physical.Free(qubit=qubit),
                    transport.CloseSocket(socket=socket),
                    Sleep(call=1, span_ns=AGAIN_NS),
                )
                break
            yield from call(Sleep(call=1, span_ns=PAUSE_NS))
        else:
            yield from call(Sleep(call=1, span_ns=AGAIN_NS))


def taken_qubits() -> Script:
    """Streams that come are accepted, what comes by them is read."""
    listener, _ = yield from call(transport.Listen(call=1, port=QUBITS, remote=None))
    while True:
        accept = transport.Accept(call=2, socket=listener.socket, within_ns=DEADLINE_NS)
        stream, _ = yield from call(accept)
        while isinstance(stream, transport.Accepted):
            receive = transport.ReceiveQubit(call=3, socket=stream.socket, within_ns=DEADLINE_NS)
            arrived, _ = yield from call(receive)
            if not isinstance(arrived, transport.QubitArrived):
                yield from call(
                    transport.CloseSocket(socket=stream.socket), Sleep(call=1, span_ns=AGAIN_NS)
                )
                break
            yield from call(physical.Measure(call=1, qubit=arrived.qubit, basis="Z"))


def start_work(network: WatchedNetwork) -> dict[str, list[App]]:
    """Everything at once; the sessions of each end, alice's last one with the echo."""
    scripts = {
        "alice": [
            pairs("bob", is_creator=True), pairs("bob", "X", is_creator=True),
            sent_qubits("bob"), echoes("bob"),
        ],
        "bob": [
            pairs("alice", is_creator=False), pairs("alice", "X", is_creator=False),
            taken_qubits(),
        ],
    }  # fmt: skip
    return {name: [App(network, name, each) for each in mine] for name, mine in scripts.items()}


def run(seed: int) -> WatchedNetwork:
    """A repeater dies, then the sessions of both ends; looked at as soon as it is quiet."""
    rng = Random(seed)
    network = WatchedNetwork("metro", seed)
    network.settle()
    apps = start_work(network)
    dies_ns = network.now_ns + rng.randrange(400 * MS)
    network.kill(rng.choice(["r1", "r2"]), dies_ns)
    if rng.random() < 0.5:
        network.run_until(dies_ns + int(10 ** rng.uniform(5, 9.2)) - 20 * MS)
        ends = rng.sample(sorted(apps), 2)
    else:
        _run_until_a_pair(network, apps["alice"][-1], rng.randint(1, 5))
        network.run_until(network.now_ns + rng.randrange(5 * MS))
        ends = ["alice", "bob"]
    for name in ends:
        for app in apps[name]:
            app.end()
        network.run_until(network.now_ns + int(10 ** rng.uniform(4, 9)))
    network.settle()
    network.check_empty()
    network.check_layers()
    return network


def _run_until_a_pair(network: WatchedNetwork, app: App, number: int) -> None:
    """So many pairs have been delivered to it, or it has had its time."""
    until_ns = network.now_ns + 2 * SECOND
    while len(app.all(transport.PairDelivered)) < number and network.now_ns < until_ns:
        network.run_until(network.now_ns + MS)
