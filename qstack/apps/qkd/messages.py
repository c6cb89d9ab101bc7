"""What the two ends of a key distribution say to each other, over one message stream.

They travel sealed (`conversation.py`), inside an application's stream, never on a channel between
processes. Their layer is APPLICATION, as they are an application's; their types begin at 0x0100,
where no message of a session with a node is, and they are known to a registry of their own, so
that neither can be taken for the other.

Rules
1. Every message fits the 64 KiB of a message stream. Long arrays of bits travel in numbered parts,
   all but the last of `PART_BITS`.
2. Alice is the end that made the pairs; her key bits are the reference.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta

from qstack.apps.qkd.parameters import PAIRS_MAX, Parameters
from qstack.apps.qkd.parity_tree import BITS_MAX, PASSES_MAX, SHORTEST_BLOCK
from qstack.wire.codec import Registry
from qstack.wire.frame import Layer
from qstack.wire.message import Count, Id, Label, Message, Name

PART_BITS: Final = 2**18
PART_BYTES: Final = PART_BITS // 8
PARTS_MAX: Final = PAIRS_MAX // PART_BITS
NODES_MAX: Final = PART_BYTES // 4
LEVELS_MAX: Final = (BITS_MAX - 1).bit_length()
PARITIES_MAX: Final = max(NODES_MAX, BITS_MAX // SHORTEST_BLOCK)

Number = Annotated[int, Meta(ge=0, lt=PARTS_MAX)]
Total = Annotated[int, Meta(ge=1, le=PARTS_MAX)]
Packed = Annotated[bytes, Meta(max_length=PART_BYTES)]
Pairs = Annotated[int, Meta(ge=0, le=PAIRS_MAX)]


class _Qkd(Message, frozen=True, kw_only=True):
    LAYER = Layer.APPLICATION


class Hello(_Qkd, frozen=True, kw_only=True):
    """Both, first: who speaks to whom in which role, on which terms. `attempt` is the next pad."""

    TYPE = 0x0101
    role: Literal["alice", "bob"]
    network: Label
    sender: Name
    receiver: Name
    nonce: Id
    attempt: Annotated[int, Meta(ge=0, le=2**20)]
    is_seeded: bool
    parameters: Parameters


class PairsMeasured(_Qkd, frozen=True, kw_only=True):
    """Bob: all pairs are measured here. Before it no basis is published."""

    TYPE = 0x0102
    pairs: Pairs


class Part(_Qkd, frozen=True, kw_only=True):
    """A numbered part of many bits."""

    part: Number
    parts: Total
    bits: Packed


class Bases(Part, frozen=True, kw_only=True):
    """Both: the basis of each pair, 0 for Z and 1 for X. Alice first."""

    TYPE = 0x0103


class XOutcomes(Part, frozen=True, kw_only=True):
    """Both: the outcomes of the k pairs measured in X at both ends that are the test."""

    TYPE = 0x0104


class Reconcile(_Qkd, frozen=True, kw_only=True):
    """Alice: correction may begin, with the permutations of this seed."""

    TYPE = 0x0105
    seed: Id


class BlocksQuery(_Qkd, frozen=True, kw_only=True):
    """Bob: the parities of the blocks of a pass, as `cascade.AskBlocks`; answered by Parities."""

    TYPE = 0x0106
    number: Annotated[int, Meta(ge=0, lt=2 * PASSES_MAX)]
    level: Annotated[int, Meta(ge=1, le=LEVELS_MAX)]


class NodesQuery(_Qkd, frozen=True, kw_only=True):
    """Bob: the parities of these nodes, 4 bytes each; answered by Parities."""

    TYPE = 0x0107
    nodes: Annotated[bytes, Meta(min_length=4, max_length=PART_BYTES)]


class Parities(_Qkd, frozen=True, kw_only=True):
    """Alice: `count` parities in the order they were asked for."""

    TYPE = 0x0108
    count: Annotated[int, Meta(ge=0, le=PARITIES_MAX)]
    bits: Packed


class Corrected(_Qkd, frozen=True, kw_only=True):
    """Bob: all passes are made; answered by Verify."""

    TYPE = 0x0109


class Verify(_Qkd, frozen=True, kw_only=True):
    """Alice: the hash of her key bits by `choice`, which nobody knew before."""

    TYPE = 0x010A
    choice: Id
    hash: Id


class Unverified(_Qkd, frozen=True, kw_only=True):
    """Bob: his hash is another; one pass more."""

    TYPE = 0x010B


class Verified(_Qkd, frozen=True, kw_only=True):
    """Bob: the hashes are equal; so many of his key bits were wrong."""

    TYPE = 0x010C
    z_errors: Annotated[int, Meta(ge=0, le=BITS_MAX)]


class TranscriptTag(_Qkd, frozen=True, kw_only=True):
    """Both, Bob first: the Wegman-Carter tag of all messages both ways up to Verified."""

    TYPE = 0x010D
    tag: Id


class Seed(Part, frozen=True, kw_only=True):
    """Alice: the seed of privacy amplification."""

    TYPE = 0x010E


class Release(_Qkd, frozen=True, kw_only=True):
    """Alice: length of the key and bits disclosed, with the tag of both and of the seed."""

    TYPE = 0x010F
    key_bits: Annotated[int, Meta(ge=1, le=BITS_MAX)]
    leak_bits: Count
    tag: Id


class Confirm(_Qkd, frozen=True, kw_only=True):
    """Both, Bob first: the key is computed; only the holder of the pads can say so."""

    TYPE = 0x0110
    tag: Id


class Abort(_Qkd, frozen=True, kw_only=True):
    """Either: this run ends without a key. `reason` is a name of the registry."""

    TYPE = 0x0111
    reason: Label


MESSAGES: Final = (
    Hello, PairsMeasured, Bases, XOutcomes, Reconcile, BlocksQuery, NodesQuery, Parities,
    Corrected, Verify, Unverified, Verified, TranscriptTag, Seed, Release, Confirm, Abort,
)  # fmt: skip
REGISTRY: Final = Registry(MESSAGES)
