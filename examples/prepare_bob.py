"""Bob's half of remote state preparation: he accepts qubits, and is told later which they are.

Alice's direction is known to both here; her outcomes are not, until she says them.
"""

import math

import trio

import qstack


async def main() -> None:
    async with qstack.open_node("bob") as node:
        read = {}
        async with node.epr_socket(remote="alice", port=7) as epr:
            async for pair in epr.accept(12):
                await pair.qubit.ry(math.pi / 4)  # alice's direction, brought to Z
                read[pair.id] = await pair.qubit.measure("Z")
        async with node.listen(port=9) as server, await server.accept() as stream:
            said = await stream.receive()
        agree = sum(read[pair] == outcome for pair, outcome in zip(sorted(read), said, strict=True))
        print(f"bob measured {agree} of {len(read)} qubits to be what alice's outcomes say")


trio.run(main)
