"""What the world of network layers is made of: qubits, links and their requests, options."""

from collections.abc import Callable
from dataclasses import dataclass, field

from qstack.link import service as link


@dataclass
class Qubit:
    """`owner` is network, transport or gone; `partner` the entangled qubit with its Bell bits."""

    node: str
    owner: str = "network"
    partner: bytes | None = None
    bits: tuple[int, int] = (0, 0)
    ends: int = 0


@dataclass
class LinkRequest:
    create: link.LinkCreate
    creator: str
    made: int = 0
    is_open: bool = True


@dataclass
class Link:
    ends: tuple[str, str]
    delay_ns: int
    is_up: bool = True
    requests: dict[bytes, LinkRequest] = field(default_factory=dict)
    outstanding: int = 0


@dataclass
class Entry:
    run: Callable[[], None]
    background: bool = False
    is_cancelled: bool = False


@dataclass
class Options:
    """What chance may do."""

    rate_hz: float = 1000.0
    ways: int = 1  # to run a link
    slots: int = 3
    spread_ns: int = 20_000  # of indications at the two ends of a link
    swap_spread_ns: int = 50_000
    swap_failure: float = 0.0
    void: float = 0.0  # a pair is announced at one end only and voided later
    memory: int = 8
    cutoff_ns: int | None = None
