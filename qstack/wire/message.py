"""What every message is: a closed map with one open extension sub-map `x`."""

import math
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Name = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9-]*$(?!\n)")]
"""A node's name. (Alone, `$` also matches before a last line feed.)"""
Text = Annotated[str, Meta(max_length=500)]
"""A sentence for a person."""
Label = Annotated[str, Meta(max_length=200)]
"""A short name made by a program: a link, an owner, an error."""
Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
BootId = Annotated[bytes, Meta(min_length=8, max_length=8)]
Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]
NETWORK_TIME_MAX_NS = 2**62
"""Network time ends here, after 146 years: sums with the longest span stay below 2**63."""
NetworkTime = Annotated[int, Meta(ge=0, le=NETWORK_TIME_MAX_NS)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Bit = Annotated[int, Meta(ge=0, le=1)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Basis = Literal["X", "Y", "Z"]


class BasisProbabilities(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A basis drawn anew for each pair, with these probabilities; on the wire an array of three.

    Raises ValueError unless they sum to 1.
    """

    in_x: Probability
    in_y: Probability
    in_z: Probability

    def __post_init__(self) -> None:
        """Refuse what is no distribution."""
        total = math.fsum((self.in_x, self.in_y, self.in_z))
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"the probabilities of X, Y and Z sum to {total:g}; expected 1")


BasisChoice = Basis | BasisProbabilities
"""What measured pairs are read in: one basis for all, or each in one drawn by the reading node."""


class Message(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Base of all messages. `LAYER` and `TYPE` are its place in the registry.

    Nothing in a message refers back to it, so the garbage collector need not look at messages.
    """

    LAYER: ClassVar[int]
    TYPE: ClassVar[int]

    x: dict[str, Any] | UnsetType = UNSET
