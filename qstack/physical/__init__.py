"""The physical layer: attempts, qubits, the device below, and the emulated quantum world."""
