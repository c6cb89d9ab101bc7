"""The same as first_pair_alice.py with the synchronous interface; either goes with either Bob."""

import qstack

with qstack.sync.open_node("alice") as node:
    with node.epr_socket(remote="bob", port=7, min_fidelity=0.7) as epr:
        pair = epr.create_keep()
        print(f"pair with {pair.remote}, expected fidelity {pair.goodness:.3f}")
        print("alice measured", pair.qubit.measure("X"))
    with node.qubit_socket(remote="bob", port=8) as out:
        qubit = node.qubit()
        qubit.ry(0.3)
        out.send(qubit)
        print("teleported a qubit")
    with node.message_socket(remote="bob", port=9) as stream:
        stream.send(b"hello")
        print("bob answered", stream.receive())
    print(f"done at {node.now() / 1e6:.3f} ms of network time")
