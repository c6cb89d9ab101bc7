"""The demonstration: a network in one process, what was measured and what theory expects of it."""
