"""Bob's half of the first application; see first_pair_alice.py."""

import trio

import qstack


async def main() -> None:
    async with qstack.open_node("bob") as node:
        async with node.epr_socket(remote="alice", port=7) as epr:
            pair = await epr.accept()
            print("bob measured", await pair.qubit.measure("X"))
        async with node.listen(port=8) as server, await server.accept() as stream:
            qubit = await stream.receive()
            print("bob measured the teleported qubit:", await qubit.measure("Z"))
        async with node.listen(port=9) as server, await server.accept() as stream:
            print("alice said", await stream.receive())
            await stream.send(b"hello yourself")


trio.run(main)
