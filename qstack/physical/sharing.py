"""Who has the communication qubits: a pure function of who wants them and of the time slice.

In each slice every link has a rank, hash(link, slice), and so has every token within a link. Both
ends of a link compute the same ranks, so of all links wanted in the network the one with the
highest rank is chosen at both of its ends: there is always somebody who can go on, and no cycle
of nodes that wait for each other.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar


class Claim(Protocol):
    """Something that wants a communication qubit."""

    @property
    def link(self) -> str:
        """The link it is for."""
        ...

    @property
    def token(self) -> bytes:
        """The name of the work, alike at both ends."""
        ...


C = TypeVar("C", bound=Claim)


def choose(claims: Sequence[C], time_slice: int, *, qubits: int, is_parallel: bool) -> list[C]:
    """The claims that have a qubit in this slice, first one a link and then what is left.

    Without `is_parallel` all of the qubits go to one link.
    """
    by_link: dict[str, list[C]] = {}
    for claim in claims:
        by_link.setdefault(claim.link, []).append(claim)
    links = sorted(by_link, key=lambda link: _rank(link.encode(), time_slice), reverse=True)
    if not is_parallel:
        links = links[:1]
    ordered = [
        sorted(by_link[link], key=lambda claim: _rank(claim.token, time_slice), reverse=True)
        for link in links
    ]
    longest = max(map(len, ordered), default=0)
    rounds = [queue[place] for place in range(longest) for queue in ordered if place < len(queue)]
    return rounds[:qubits]


def _rank(name: bytes, time_slice: int) -> bytes:
    return blake2b(name + b"|" + str(time_slice).encode(), digest_size=8).digest()
