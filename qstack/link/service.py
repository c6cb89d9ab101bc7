"""What the link layer offers upward: pairs with a neighbour.

Either end may ask. Both ends learn of each pair and of the end of each request. `purpose` is the
label under which the layer above knows what the pairs are for (a circuit); a request for a
purpose the far end has not listened for is rejected.

Three kinds of pairs, as the types K, M and R of draft-dahlberg-ll-quantum and qlink-interface:

- `keep`: both ends get a qubit each (`LinkPair`).
- `measure`: both ends read theirs at once (`LinkMeasured`). An end reads in X, Y or Z, or draws one
  of them for each pair with stated probabilities; before it reads, what is read may be turned
  (`Rotation`). Of the draft's sets of random bases X/Z and X/Y/Z are probabilities, and the CHSH
  set (Z turned by pi/4 about Y, to either side) is X and Z after `CHSH_ROTATION`: what is called
  Z is then (Z - X)/sqrt2, basis 100 of the draft, and what is called X is (Z + X)/sqrt2, its 011.
- `prepare` (remote state preparation): the end that asks reads its half at once, in its basis and
  rotation, and learns its outcome (`LinkMeasured`); the far end keeps the other half (`LinkPair`).
  Which state that is the asking end alone knows. With the Bell bits (x, z) that both ends are
  told, X^x Z^z at the far end makes the pair phi+, and if the asking end then reads m along the
  direction (a, b, c) of the Bloch sphere, the qubit of a perfect pair points along
  (-1)^m (a, -b, c). The far end is told neither m, nor the basis, nor the rotation.
"""

import math
from typing import Annotated, Final

from msgspec import Meta

from qstack.physical.service import AttemptKind, Rotation
from qstack.wire.frame import Layer
from qstack.wire.message import (
    BasisChoice,
    Bit,
    Count,
    Id,
    Label,
    Message,
    Name,
    Nanoseconds,
    Probability,
    Text,
)

LAYER: Final = "link"

Priority = Annotated[int, Meta(ge=0, le=7)]
"""Higher is served sooner."""
Number = Annotated[int, Meta(ge=1, le=10**9)]
CHSH_ROTATION: Final = Rotation(0.0, math.pi / 4.0, 0.0)
"""Makes X and Z the two bases that one end of a CHSH test reads in; the other's are X and Z."""


class _Link(Message, frozen=True, kw_only=True):
    LAYER = Layer.LINK


class LinkOption(_Link, frozen=True, kw_only=True):
    """One way the link can be run, of those that no other beats in both fidelity and rate.

    `bell_probabilities` as in physical's GenerationOption, fidelity first; `rate_hz` is of pairs
    per second with one slot.
    """

    TYPE = 0x010C
    bell_probabilities: Annotated[list[Probability], Meta(min_length=4, max_length=4)]
    rate_hz: Annotated[float, Meta(ge=0.0, le=1e12)]


class LinkUp(_Link, frozen=True, kw_only=True):
    """Indication: the link to `peer` works.

    `kinds` is what may be asked of it. `options` go from the best fidelity (`best_fidelity`) to the
    highest rate. A request gets the fastest that keeps its `min_fidelity`. Said again when test
    rounds have changed what an option promises, and as a satellite passes. From `opens_ns` until
    before `until_ns` there can be pairs, now or next (0: always); requests wait for it.
    """

    TYPE = 0x0101
    link: Label
    peer: Name
    peer_boot_id: Annotated[bytes, Meta(min_length=8, max_length=8)]
    kinds: Annotated[list[AttemptKind], Meta(min_length=1, max_length=3)]
    options: Annotated[list[LinkOption], Meta(min_length=1, max_length=32)]
    best_fidelity: Probability
    delay_ns: Nanoseconds
    slots: Count
    opens_ns: Nanoseconds = 0
    until_ns: Nanoseconds = 0


class LinkDown(_Link, frozen=True, kw_only=True):
    """Indication: the link to `peer` has gone; pairs with it are void, requests have ended."""

    TYPE = 0x0102
    link: Label
    peer: Name


class LinkListen(_Link, frozen=True, kw_only=True):
    """Accept requests of `peer` for `purpose` from now on."""

    TYPE = 0x0103
    peer: Name
    purpose: Id


class LinkUnlisten(_Link, frozen=True, kw_only=True):
    """Accept no more requests for `purpose`; those open are cancelled."""

    TYPE = 0x0104
    peer: Name
    purpose: Id


class LinkCreate(_Link, frozen=True, kw_only=True):
    """Ask for pairs. With `number` nil they keep coming until cancelled or the deadline.

    While an `atomic` request is served no pair of another one is made on the link. Pairs of one
    that is `consecutive` are indicated as they come; else all of them when the last has come, or
    none. Either of these has a number. A pair that waits for the last one, and would be worse than
    `min_fidelity` by its predicted decay when it is handed over, is let go and made again.

    For kind `measure` each end reads its qubits in its own basis: `basis` here, `peer_basis`
    there. Where that is three probabilities, each end draws its bases itself and keeps them.
    What is read is turned by `rotation` here and by `peer_rotation` there before. For kind
    `prepare` this end alone reads, and the far end is not told how.
    """

    TYPE = 0x0105
    request: Id
    peer: Name
    purpose: Id
    kind: AttemptKind
    number: Number | None
    min_fidelity: Probability
    deadline_ns: Nanoseconds
    priority: Priority
    basis: BasisChoice | None
    peer_basis: BasisChoice | None
    atomic: bool
    consecutive: bool
    rotation: Rotation | None = None
    peer_rotation: Rotation | None = None


class LinkCancel(_Link, frozen=True, kw_only=True):
    """Withdraw a request, from either end. Ends it with CANCELLED at both."""

    TYPE = 0x0106
    request: Id


class LinkPair(_Link, frozen=True, kw_only=True):
    """Indication, at both ends: a pair, announced in Bell state (x, z).

    Of kind `prepare` at the far end alone: what is kept is then half of a pair that was read.
    Its qubit now belongs to the network layer. `goodness` is the estimate of its fidelity at
    `emitted_at_ns`, the earlier emission of its two qubits, from which its age counts.
    `calibration` is the link's when its attempts began; `is_outdated`: there is a newer one.
    """

    TYPE = 0x0107
    request: Id
    purpose: Id
    peer: Name
    pair: Id
    qubit: Id
    x_bit: Bit
    z_bit: Bit
    emitted_at_ns: Nanoseconds
    goodness: Probability
    calibration: Count = 0
    is_outdated: bool = False


class LinkMeasured(_Link, frozen=True, kw_only=True):
    """Indication, at both ends: measured pairs, in the same order at both; packed bits.

    Of kind `prepare` at the end that asked alone, one by one, each with the name of its pair.
    `bases` are those of this end where it drew them, two bits a pair (`qstack.wire.packed`); empty
    where the basis is fixed. `calibration` and `is_outdated` are of all of them, as in LinkPair.
    """

    TYPE = 0x0108
    request: Id
    purpose: Id
    peer: Name
    first_pair: Id
    pairs: Count
    outcomes: bytes
    x_bits: bytes
    z_bits: bytes
    bases: bytes
    goodness: Probability
    calibration: Count = 0
    is_outdated: bool = False


class LinkExpired(_Link, frozen=True, kw_only=True):
    """Indication: an announced pair is void; its qubit is still the network layer's to free.

    Also of kind `prepare`: the outcome then belongs to no qubit at the far end.
    """

    TYPE = 0x0109
    pair: Id
    purpose: Id


class LinkDone(_Link, frozen=True, kw_only=True):
    """Confirm, at both ends: the request got its number of pairs."""

    TYPE = 0x010A
    request: Id
    purpose: Id


class LinkFailed(_Link, frozen=True, kw_only=True):
    """Confirm, at both ends: the request ended otherwise. `best` is the fidelity to be had."""

    TYPE = 0x010B
    request: Id
    purpose: Id
    error: Label
    detail: Text
    best: Probability | None


class LinkCalibrated(_Link, frozen=True, kw_only=True):
    """Indication: the link to `peer` is calibrated anew; pairs of a lower number are outdated."""

    TYPE = 0x0110
    link: Label
    peer: Name
    calibration: Count


MESSAGES = (
    LinkUp, LinkDown, LinkListen, LinkUnlisten, LinkCreate, LinkCancel, LinkPair, LinkMeasured,
    LinkExpired, LinkDone, LinkFailed, LinkOption,
    LinkCalibrated,
)  # fmt: skip
