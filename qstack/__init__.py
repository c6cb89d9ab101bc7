"""qstack: a quantum-network protocol stack that runs."""
