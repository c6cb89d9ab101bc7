"""Alice's half of the first application: a pair, a teleported qubit, a message.

Start a network of two (`qstack up pair --apps 2`), then this and first_pair_bob.py.
"""

import trio

import qstack


async def main() -> None:
    async with qstack.open_node("alice") as node:
        async with node.epr_socket(remote="bob", port=7, min_fidelity=0.7) as epr:
            pair = await epr.create_keep()
            print(f"pair with {pair.remote}, expected fidelity {pair.goodness:.3f}")
            print("alice measured", await pair.qubit.measure("X"))
        async with node.qubit_socket(remote="bob", port=8) as out:
            qubit = await node.qubit()
            await qubit.ry(0.3)
            await out.send(qubit)
            print("teleported a qubit")
        async with node.message_socket(remote="bob", port=9) as stream:
            await stream.send(b"hello")
            print("bob answered", await stream.receive())
        print(f"done at {node.now() / 1e6:.3f} ms of network time")


trio.run(main)
