"""What a request says of reading: which ends read, in which bases, and turned how before.

Rules
1. Both ends read pairs that are measured, nobody those that are kept. Of those that prepare a
   remote state the end that asks reads, and the far end, which keeps, is told nothing of how:
   whoever prepares a state may not want it known.
2. A rotation goes with a basis: the creator says both for itself and for the far end.
"""

from qstack.link.messages import Add
from qstack.link.service import LinkCreate


def reading_problem(asked: LinkCreate | Add) -> str:
    """What is wrong with these values together; empty if nothing is."""
    is_own = isinstance(asked, LinkCreate)
    reads = asked.kind == "measure" or (asked.kind == "prepare" and is_own)
    peer_reads = asked.kind == "measure"
    if (asked.basis is not None, asked.peer_basis is not None) != (reads, peer_reads):
        return "bases go with kind measure, and the own one with kind prepare, and only there"
    turns = [(asked.basis, asked.rotation)]
    if isinstance(asked, LinkCreate):
        turns.append((asked.peer_basis, asked.peer_rotation))
    if any(basis is None and rotation is not None for basis, rotation in turns):
        return "a rotation goes with a basis"
    if asked.kind == "measure" and asked.number is None:
        return "kind measure needs a number of pairs"
    return ""
