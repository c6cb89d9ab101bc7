"""What a named station asks of its detectors, and a node of its device, where a station heralds.

Operations like those of `device.py`, in the same order and with the same rules. The emulated
detectors are in the fabric, which knows which photons meet; a station learns where they clicked.
"""

from typing import Annotated

from msgspec import Meta

from qstack.physical.device import Calibration, Operation, Result
from qstack.physical.params import HERALDS_MAX
from qstack.physical.service import AttemptKind
from qstack.wire.message import Bit, Count, Id, Label, Probability

Pairs = Annotated[int, Meta(ge=1, le=HERALDS_MAX)]


class WatchLink(Operation, frozen=True, kw_only=True):
    """Station: watch the detectors of `link` for photons of these batches of both ends.

    `batches` in the order of the link's ends; from `first_cycle` on, before `until_cycle` (nil:
    without end). `kind` and `bright_state` are what both ends have said of their attempts.
    Result: one of Clicked, WatchEnded; where batches are measured ClickedInCycles, until there are
    `pairs` or the watch is stopped, and then WatchEnded. Where the station is a source of photon
    pairs it emits for these batches until the watch is stopped: WatchEnded.
    """

    TYPE = 0x0061
    link: Label
    batches: tuple[Count, Count]
    first_cycle: Count
    until_cycle: Count | None
    kind: AttemptKind
    bright_state: Probability | None
    pairs: Annotated[int, Meta(ge=1, le=10**7)]


class StopWatch(Operation, frozen=True, kw_only=True):
    """Station: the photons of `watch` (the sequence of its WatchLink) end before `until_cycle`.

    One-way: the answer is that of the watch.
    """

    TYPE = 0x0062
    watch: Count
    until_cycle: Count


class KeepHeralded(Operation, frozen=True, kw_only=True):
    """Node: the attempt with `qubit` in `cycle` was heralded: move it to storage. Result: Kept.

    The emulated device is not told where there is no storage; hardware always is.
    """

    TYPE = 0x0063
    qubit: Id
    cycle: Count


class ReadHeralded(Operation, frozen=True, kw_only=True):
    """Node: take what was read in cycles of `batch` that were heralded. Result: HeraldedRead.

    `cycles` of `pairs` are distances from `first_cycle`, as in Heralds; `bases` are packed where
    the node draws them, else empty. What was read in earlier cycles is forgotten.
    """

    TYPE = 0x0064
    batch: Count
    pairs: Pairs
    first_cycle: Count
    cycles: bytes
    bases: bytes


class Clicked(Result, frozen=True, kw_only=True):
    """The detectors clicked as for the Bell state (x_bit, z_bit), for photons of `cycle`."""

    TYPE = 0x0071
    cycle: Count
    x_bit: Bit
    z_bit: Bit
    calibration: Calibration


class WatchEnded(Result, frozen=True, kw_only=True):
    """All photons of the watch have come, and the detectors did not click as they must."""

    TYPE = 0x0072


class ClickedInCycles(Result, frozen=True, kw_only=True):
    """The detectors clicked in `pairs` cycles, packed as in Heralds; the last of the watch or not.

    The last of those that were wanted, that is: of a watch that is stopped the end is WatchEnded.
    """

    TYPE = 0x0074
    pairs: Pairs
    first_cycle: Count
    cycles: bytes
    x_bits: bytes
    z_bits: bytes
    is_last: bool
    calibration: Calibration


class HeraldedRead(Result, frozen=True, kw_only=True):
    """What this node has read in those cycles, packed bits."""

    TYPE = 0x0075
    outcomes: bytes


class Kept(Result, frozen=True, kw_only=True):
    """The qubit is in storage."""

    TYPE = 0x0073


MESSAGES = (
    WatchLink, StopWatch, KeepHeralded, ReadHeralded, Clicked, WatchEnded, Kept, ClickedInCycles,
    HeraldedRead,
)  # fmt: skip
