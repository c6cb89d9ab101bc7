"""What a named station asks of its detectors, and a node of its device, where a station heralds.

Operations like those of `device.py`, in the same order and with the same rules. The emulated
detectors are in the fabric, which knows which photons meet; a station learns where they clicked.
"""

from qstack.physical.device import Operation, Result
from qstack.wire.message import Bit, Count, Id, Label


class WatchLink(Operation, frozen=True, kw_only=True):
    """Station: watch the detectors of `link` for photons of these batches of both ends.

    `batches` in the order of the link's ends; from `first_cycle` on, before `until_cycle` (nil:
    without end). Result: one of Clicked, WatchEnded.
    """

    TYPE = 0x0061
    link: Label
    batches: tuple[Count, Count]
    first_cycle: Count
    until_cycle: Count | None


class StopWatch(Operation, frozen=True, kw_only=True):
    """Station: the photons of `watch` (the sequence of its WatchLink) end before `until_cycle`.

    One-way: the answer is that of the watch.
    """

    TYPE = 0x0062
    watch: Count
    until_cycle: Count


class KeepHeralded(Operation, frozen=True, kw_only=True):
    """Node: the attempt with `qubit` was heralded: move it to storage. Result: Kept."""

    TYPE = 0x0063
    qubit: Id


class Clicked(Result, frozen=True, kw_only=True):
    """The detectors clicked as for the Bell state (x_bit, z_bit), for photons of `cycle`."""

    TYPE = 0x0071
    cycle: Count
    x_bit: Bit
    z_bit: Bit


class WatchEnded(Result, frozen=True, kw_only=True):
    """All photons of the watch have come, and the detectors did not click as they must."""

    TYPE = 0x0072


class Kept(Result, frozen=True, kw_only=True):
    """The qubit is in storage."""

    TYPE = 0x0073


MESSAGES = (WatchLink, StopWatch, KeepHeralded, Clicked, WatchEnded, Kept)
