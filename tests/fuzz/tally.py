"""How many inputs each part of the fuzz soak has had: its last test asks that they are enough."""

from collections import Counter

WANTED = 100_000
GROUPS = ("frames", "messages", "certificates", "documents", "daemons")
INPUTS: Counter[str] = Counter()


def add(group: str, inputs: int) -> None:
    """Count inputs of a soak."""
    assert group in GROUPS
    INPUTS[group] += inputs
