"""What the network layer says to the network layer of another node.

All of it goes hop by hop over the channels of neighbours. Circuits are set up in two phases, so
that nobody starts before everybody is ready (the race the RuleSet authors describe): INSTALL to
the tail, INSTALLED back, START with an epoch. Tracking follows QNP (Kozlowski et al., CoNEXT'20):
one TRACK from each end for each of its link pairs; swaps never wait for messages. A TRACK names the
link pair it has arrived at and an update always says which pair it replaces (identity, never
place).
"""

from typing import Annotated, Literal

from msgspec import Meta

from qstack.link.service import Number, Priority
from qstack.physical.service import Kind
from qstack.wire.frame import Layer
from qstack.wire.message import (
    BasisChoice,
    Bit,
    BootId,
    Count,
    Id,
    Label,
    Message,
    Name,
    Nanoseconds,
    Probability,
    Text,
)

Side = Literal["head", "tail"]
HOPS_MAX = 63


class _Network(Message, frozen=True, kw_only=True):
    LAYER = Layer.NETWORK


class AdvertisedOption(_Network, frozen=True, kw_only=True):
    """A way to run a link: Bell weights in the order (x, z) = 00, 01, 10, 11, pairs per second."""

    TYPE = 0x0011
    bell_probabilities: Annotated[list[Probability], Meta(min_length=4, max_length=4)]
    rate_hz: Annotated[float, Meta(ge=0.0, le=1e12)]


class AdvertisedLink(_Network, frozen=True, kw_only=True):
    """A link as one of its ends advertises it, with the ways the link layer may run it."""

    TYPE = 0x0010
    peer: Name
    options: Annotated[list[AdvertisedOption], Meta(min_length=1, max_length=32)]
    delay_ns: Nanoseconds
    kinds: Annotated[list[Kind], Meta(max_length=2)]


class LinkState(_Network, frozen=True, kw_only=True):
    """What `origin` says of itself; flooded, the newest (boot, sequence) wins.

    `sequence` starts at 1 for each boot. `age_ns` grows by the path delay and the time held; too
    old a state is forgotten. `signature` is reserved (empty) until link states are signed.
    """

    TYPE = 0x0001
    origin: Name
    boot_id: BootId
    sequence: Count
    age_ns: Nanoseconds
    links: Annotated[list[AdvertisedLink], Meta(max_length=256)]
    memory: Count
    swap_ns: Nanoseconds
    swap_depolarising: Probability
    gate_depolarising: Probability  # of one qubit: the swap's z bit, the tail's correction
    swap_flip: Probability
    t1_s: Annotated[float, Meta(gt=0.0, le=1e9)]  # 1e9 s stands for "does not decay"
    t2_s: Annotated[float, Meta(gt=0.0, le=1e9)]
    signature: Annotated[bytes, Meta(max_length=4096)]


class Install(_Network, frozen=True, kw_only=True):
    """Set up a circuit along `route` (head first). Each hop reserves and hands it on."""

    TYPE = 0x0002
    circuit: Id
    epoch: Count
    route: Annotated[list[Name], Meta(min_length=2, max_length=HOPS_MAX + 1)]
    cutoff_ns: Nanoseconds
    link_min_fidelity: Probability
    fidelity: Probability  # predicted at hand-over; goodness of the pairs at both ends


class Installed(_Network, frozen=True, kw_only=True):
    """The circuit stands from here to the tail."""

    TYPE = 0x0003
    circuit: Id
    epoch: Count


class Refused(_Network, frozen=True, kw_only=True):
    """`node` cannot be part of the circuit; it is being taken down back to the head."""

    TYPE = 0x0004
    circuit: Id
    epoch: Count
    node: Name
    error: Label
    detail: Text


class Start(_Network, frozen=True, kw_only=True):
    """Everybody is ready: generation for this epoch may begin."""

    TYPE = 0x0005
    circuit: Id
    epoch: Count


class Teardown(_Network, frozen=True, kw_only=True):
    """The circuit is gone; open requests on it end with `error`."""

    TYPE = 0x0006
    circuit: Id
    epoch: Count
    error: Label
    detail: Text


class Forward(_Network, frozen=True, kw_only=True):
    """A request begins on the circuit: each hop starts generating on its downstream link."""

    TYPE = 0x0007
    circuit: Id
    epoch: Count
    request: Id
    purpose: Count
    kind: Kind
    number: Number
    deadline_ns: Nanoseconds
    priority: Priority
    basis: BasisChoice | None
    remote_basis: BasisChoice | None


class Complete(_Network, frozen=True, kw_only=True):
    """A request has ended (from the head, or from the tail when it cancels); error `` if done."""

    TYPE = 0x0008
    circuit: Id
    epoch: Count
    request: Id
    error: Label
    detail: Text


class Track(_Network, frozen=True, kw_only=True):
    """From the end `origin`: its link pair `origin_pair` has become part of a longer pair.

    The sender says that `origin_pair` is now entangled, through the swaps so far, up to the far
    qubit of link pair `pair`, with the running Bell bits (x, z). `request` is the request the
    head gives this pair to (nil from the tail, which does not decide).
    """

    TYPE = 0x0009
    circuit: Id
    epoch: Count
    origin: Side
    origin_pair: Id
    pair: Id
    x_bit: Bit
    z_bit: Bit
    request: Id | None


class Expire(_Network, frozen=True, kw_only=True):
    """To the end `origin`: what it tracks under `origin_pair` has been discarded."""

    TYPE = 0x000A
    circuit: Id
    epoch: Count
    origin: Side
    origin_pair: Id


class Error(_Network, frozen=True, kw_only=True):
    """Your message of type `about` broke a rule."""

    TYPE = 0x000B
    name: Label
    detail: Text
    about: Annotated[int, Meta(ge=0, le=0xFFFF)]


MESSAGES = (
    AdvertisedOption, AdvertisedLink, LinkState, Install, Installed, Refused, Start, Teardown,
    Forward, Complete, Track, Expire, Error,
)  # fmt: skip
