"""Alice's half of remote state preparation: what she reads fixes which qubits bob has.

Start a network of two (`qstack up pair --apps 2`), then this and prepare_bob.py.
"""

import math

import trio

import qstack

TURN = (0.0, math.pi / 4, 0.0)
"""Before she reads Z she turns by 45 degrees: her direction lies between Z and -X."""


async def main() -> None:
    async with qstack.open_node("alice") as node:
        async with node.epr_socket(remote="bob", port=7, min_fidelity=0.7) as epr:
            outcomes = {}
            async for prepared in epr.create_prepare("Z", 12, rotation=TURN):
                outcomes[prepared.id] = prepared.outcome
                x, y, z = prepared.direction
                print(f"alice measured {prepared.outcome}: ({x:+.2f}, {y:+.2f}, {z:+.2f}) for bob")
        async with node.message_socket(remote="bob", port=9) as stream:
            await stream.send(bytes(outcomes[pair] for pair in sorted(outcomes)))


trio.run(main)
