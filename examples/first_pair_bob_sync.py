"""The same as first_pair_bob.py with the synchronous interface; either goes with either Alice."""

import qstack

with qstack.sync.open_node("bob") as node:
    with node.epr_socket(remote="alice", port=7) as epr:
        print("bob measured", epr.accept().qubit.measure("X"))
    with node.listen(port=8) as server, server.accept() as stream:
        print("bob measured the teleported qubit:", stream.receive().measure("Z"))
    with node.listen(port=9) as server, server.accept() as stream:
        print("alice said", stream.receive())
        stream.send(b"hello yourself")
