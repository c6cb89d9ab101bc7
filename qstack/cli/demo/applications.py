"""The demo's two applications, each a process of its own, written like any user's program.

    python -m qstack.cli.demo.applications PLAN

PLAN is a JSON object (`Plan`). What happens is said on standard output, a JSON object a line. A
line on standard input lets the head go on from one act to the next; while it waits for it, it is
busy, and the clock of the network stands.
"""

import json
import math
import sys

import msgspec
import trio
from msgspec import Struct

import qstack
from qstack.api.epr import EprSocket, Pair
from qstack.api.node import Node
from qstack.api.qubit import Qubit
from qstack.api.streams import MessageStream
from qstack.cli.demo.key_act import KeyPlan, make_key, receive_message, send_message
from qstack.quantum.estimation import bases_for

PAIR_PORT = 7
STREAM_PORT = 8
RECOVERY_PORT = 9
NOTE_PORT = 10
LONG_NS = 600 * 10**9
RECOVERY_PAIRS = 1000  # more than can come before the repeater dies
RETRY_NS = 100_000_000

CARDINAL_STATES = (
    ("Z", 0, None, 0.0),
    ("Z", 1, "x", 0.0),
    ("X", 0, "ry", math.pi / 2),
    ("X", 1, "ry", -math.pi / 2),
    ("Y", 0, "rx", -math.pi / 2),
    ("Y", 1, "rx", math.pi / 2),
)
"""Basis, right outcome, and the one gate that prepares it from state 0."""


class Plan(Struct, frozen=True, kw_only=True):
    """What one application does.

    `recovery_ns` is the deadline of the request in the last act; without `key` no key is made.
    """

    is_head: bool
    node: str
    remote: str
    pairs: int
    teleports: int
    min_fidelity: float
    recovery_ns: int | None
    key: KeyPlan | None


def say(event: str, **fields: object) -> None:
    """One line on standard output."""
    print(json.dumps({"event": event, **fields}), flush=True)


async def told_to_go_on(act: str, now_ns: int) -> None:
    """Wait for a line on standard input, and hold the clock meanwhile."""
    say("waiting", act=act, now_ns=now_ns)
    await qstack.to_thread(sys.stdin.readline)


async def measure_pairs(node: Node, plan: Plan) -> None:
    """Act one: pairs, each measured at both ends in the same basis."""
    bases = bases_for(plan.pairs)
    async with node.epr_socket(
        remote=plan.remote, port=PAIR_PORT, min_fidelity=plan.min_fidelity
    ) as epr:
        if plan.is_head:
            pairs = epr.create_keep(n=plan.pairs, deadline_ns=LONG_NS)
        else:
            pairs = epr.accept(n=plan.pairs, deadline_ns=LONG_NS)
        index = 0
        async for pair in pairs:
            now_ns = node.now()
            outcome = await pair.qubit.measure(bases[index])
            say(
                "pair",
                pair=pair.id.head_pair.hex(),
                qubit=pair.qubit.id.hex(),
                basis=bases[index],
                outcome=outcome,
                now_ns=now_ns,
                goodness=pair.goodness,
            )
            index += 1


async def teleport_out(node: Node, plan: Plan) -> None:
    """Act two, sending: cardinal states, one after the other."""
    async with node.qubit_socket(
        remote=plan.remote, port=STREAM_PORT, min_fidelity=plan.min_fidelity
    ) as out:
        for index in range(plan.teleports):
            _, _, gate, angle = CARDINAL_STATES[index % len(CARDINAL_STATES)]
            qubit = await node.qubit()
            match gate:
                case "x":
                    await qubit.x()
                case "ry":
                    await qubit.ry(angle)
                case "rx":
                    await qubit.rx(angle)
                case _:
                    pass
            await out.send(qubit, deadline_ns=LONG_NS)
            say("sent", now_ns=node.now())


async def teleport_in(node: Node, plan: Plan) -> None:
    """Act two, receiving: each qubit is measured in the basis of the state it should be in."""
    async with node.listen(port=STREAM_PORT) as server:
        stream = await server.accept(deadline_ns=LONG_NS)
        for index in range(plan.teleports):
            basis, right, _, _ = CARDINAL_STATES[index % len(CARDINAL_STATES)]
            qubit = await stream.receive(deadline_ns=LONG_NS)
            assert isinstance(qubit, Qubit)
            outcome = await qubit.measure(basis)
            say("teleport", state=index % len(CARDINAL_STATES), right=int(outcome == right))


async def live_through_a_failure(node: Node, plan: Plan) -> None:
    """Act three, at the head: a request is open when a repeater dies; then one that succeeds."""
    async with node.epr_socket(remote=plan.remote, port=RECOVERY_PORT) as epr:
        came = 0
        say("open", now_ns=node.now())
        try:
            async for pair in epr.create_keep(n=RECOVERY_PAIRS, deadline_ns=plan.recovery_ns):
                came += 1
                await pair.qubit.measure("Z")
        except qstack.QstackError as error:
            say("told", came=came, code=error.code, reason=error.reason, now_ns=node.now())
        else:
            say("told", came=came, code="", reason="all pairs came", now_ns=node.now())
        pair = await ask_until_there_is_a_path(node, epr)
        say("recovered", now_ns=node.now())
        await pair.qubit.measure("Z")


async def ask_until_there_is_a_path(node: Node, epr: EprSocket) -> Pair:
    """A pair, asked for again while there is no path; the first refusal is said."""
    is_said = False
    while True:
        try:
            return await epr.create_keep(deadline_ns=LONG_NS)
        except qstack.Refused as error:
            if not is_said:
                say("refused", code=error.code, reason=error.reason, now_ns=node.now())
                is_said = True
            await node.sleep(RETRY_NS)


async def accept_until_told(node: Node, plan: Plan) -> None:
    """Act three, at the tail: take whatever pairs come, whatever happens to them."""
    async with node.epr_socket(remote=plan.remote, port=RECOVERY_PORT) as epr:
        while True:
            try:
                pair = await epr.accept(deadline_ns=None)
                await pair.qubit.measure("Z")
            except qstack.QstackError as error:
                say("tail-told", code=error.code, reason=error.reason, now_ns=node.now())


async def play_head(node: Node, plan: Plan) -> None:
    """All acts, at the end that asks. The tail's notes say when it is done with an act."""
    async with node.message_socket(
        remote=plan.remote, port=NOTE_PORT, deadline_ns=LONG_NS
    ) as notes:
        await measure_pairs(node, plan)
        await notes.receive(deadline_ns=LONG_NS)
        await told_to_go_on("pairs", node.now())
        await teleport_out(node, plan)
        await notes.receive(deadline_ns=LONG_NS)
        await told_to_go_on("teleports", node.now())
        if plan.key is not None:
            await make_key(node, plan.remote, plan.key, say)
            await send_message(node, plan.remote, plan.key, say)
            await notes.receive(deadline_ns=LONG_NS)
            await told_to_go_on("key", node.now())
        if plan.recovery_ns is not None:
            await live_through_a_failure(node, plan)
        say("end", now_ns=node.now())


async def play_tail(node: Node, plan: Plan) -> None:
    """All acts, at the other end."""
    async with node.listen(port=NOTE_PORT) as server:
        notes = await server.accept(deadline_ns=LONG_NS)
        assert isinstance(notes, MessageStream)
        await measure_pairs(node, plan)
        await notes.send(b"the pairs are measured")
        await teleport_in(node, plan)
        await notes.send(b"the qubits are measured")
        if plan.key is not None:
            await make_key(node, plan.remote, plan.key, say)
            await receive_message(node, plan.key, say)
            await notes.send(b"the message is read")
        await accept_until_told(node, plan)


async def main(plan: Plan) -> None:
    """Play one of the two parts."""
    async with qstack.open_node(plan.node) as node:
        await (play_head if plan.is_head else play_tail)(node, plan)


if __name__ == "__main__":
    trio.run(main, msgspec.json.decode(sys.argv[1], type=Plan))
