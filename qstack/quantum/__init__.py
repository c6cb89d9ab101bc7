"""The exact few-qubit engine: pure mathematics on real Pauli tensors, with numpy alone."""
