"""Who a process is: the URI in its certificate, and the layers that lets it speak for.

    qstack://NETWORK/NODE/ROLE

Rules
1. An identity comes from a verified certificate, never from an address or a message.
2. Identities are compared exactly; there are no wildcards and no case folding.
3. The role bounds the layers; the session layer (HELLO, ERROR, STAMP) is open to all.
"""

import re
from typing import Final

from msgspec import Struct

from qstack.wire.frame import Layer

_LAYERS: Final[dict[str, frozenset[Layer]]] = {
    role: frozenset((Layer.SESSION, *layers))
    for role, layers in {
        "node": (
            Layer.PHYSICAL,
            Layer.LINK,
            Layer.NETWORK,
            Layer.TRANSPORT,
            Layer.APPLICATION,
            Layer.CLOCK,  # a node is a participant of an emulated network's clock
            Layer.NODE,
        ),
        "physical": (Layer.PHYSICAL,),
        "link": (Layer.LINK,),
        "network": (Layer.NETWORK,),
        "transport": (Layer.TRANSPORT,),
        "fabric": (Layer.PHYSICAL, Layer.CLOCK),
        "station": (Layer.PHYSICAL, Layer.CLOCK, Layer.NODE),  # a participant of the clock, too
        "operator": (Layer.CLOCK, Layer.APPLICATION),
    }.items()
}
ROLES: Final = tuple(_LAYERS)

_NAME: Final = r"[a-z][a-z0-9-]{0,62}"
_URI: Final = re.compile(rf"qstack://({_NAME})/({_NAME})/({'|'.join(ROLES)})")


class Identity(Struct, frozen=True, order=True):
    """A process of a network. Raises `ValueError` for names that cannot be in a URI."""

    network: str
    node: str
    role: str

    def __post_init__(self) -> None:
        """Check the three parts."""
        for what, name in (("network", self.network), ("node", self.node)):
            if not re.fullmatch(_NAME, name):
                raise ValueError(
                    f"the {what} name {name!r} is not possible: use 1 to 63 small letters, digits "
                    "and hyphens, a letter first"
                )
        if self.role not in _LAYERS:
            raise ValueError(f"there is no role {self.role!r}; the roles are {', '.join(ROLES)}")

    @property
    def uri(self) -> str:
        """The subject alternative name of this identity's certificate."""
        return f"qstack://{self.network}/{self.node}/{self.role}"

    @classmethod
    def parse(cls, uri: str) -> "Identity":
        """The identity a URI states. Raises `ValueError` unless it is exactly of the form."""
        match = _URI.fullmatch(uri)
        if match is None:
            raise ValueError(f"{uri[:200]!r} is not of the form qstack://NETWORK/NODE/ROLE")
        return cls(*match.groups())


def layers_allowed(role: str) -> frozenset[Layer]:
    """The layers whose frames a peer of this role may send. Raises `KeyError` for no role."""
    return _LAYERS[role]
