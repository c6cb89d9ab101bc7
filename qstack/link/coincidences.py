"""Pairs found by comparing slots: what both ends of one request detected, and when both are known.

Each end knows its own detections and is told the slots of the other's, both in ascending parts
that say up to which slot they are complete. Where both are complete, the slots they share are the
pairs, in slot order. Both ends have the same two lists, so they find the same pairs in the same
order, however the parts were cut and whenever they came. Nothing here knows a basis or an outcome
of the far end.
"""

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qstack.errors import ErrorCode, PeerError
from qstack.link.messages import DetectedSlots
from qstack.link.params import MEASURED_MAX, SLOTS_AHEAD_MAX, SLOTS_PART_MAX
from qstack.physical.service import Detections
from qstack.wire.packed import (
    Bits,
    Codes,
    Slots,
    pack_slots,
    unpack_bases,
    unpack_bits,
    unpack_slots,
)

_NO_SLOTS: Final[Slots] = np.zeros(0, dtype=np.int64)
_NO_BITS: Final[Bits] = np.zeros(0, dtype=np.uint8)


class Matched(NamedTuple):
    """Pairs in slot order: outcomes and bases of this end; `bases` is empty for a fixed basis.

    `calibrations` are those of the attempts at this end.
    """

    slots: Slots
    outcomes: Bits
    bases: Codes
    calibrations: Slots

    def only(self, which: npt.NDArray[np.bool_] | slice) -> "Matched":
        """Some of them."""
        bases = self.bases[which] if len(self.bases) else self.bases
        return Matched(self.slots[which], self.outcomes[which], bases, self.calibrations[which])

    def parts(self) -> list["Matched"]:
        """Pairs of one calibration each, and no more than an indication takes."""
        changes = (np.flatnonzero(np.diff(self.calibrations)) + 1).tolist()
        return [
            self.only(slice(first, min(first + MEASURED_MAX, end)))
            for start, end in pairwise([0, *changes, len(self.slots)])
            for first in range(start, end, MEASURED_MAX)
        ]


class Coincidences:
    """The detections of one request that are still to be compared, of both ends."""

    def __init__(self) -> None:
        self._slots, self._outcomes, self._bases = _NO_SLOTS, _NO_BITS, _NO_BITS
        self._calibrations = _NO_SLOTS
        self._until = 0
        self._far_slots = _NO_SLOTS
        self._far_until = 0

    @property
    def waiting(self) -> int:
        """Own detections to which the far end has not yet said anything."""
        return len(self._slots)

    def add_own(self, detections: Detections) -> None:
        """What our receiver has detected."""
        count = detections.detections
        slots = unpack_slots(detections.slots, detections.first_slot)
        self._slots = np.concatenate((self._slots, slots))
        outcomes = unpack_bits(detections.outcomes, count)
        self._outcomes = np.concatenate((self._outcomes, outcomes))
        calibrations = np.full(count, detections.calibration, dtype=np.int64)
        self._calibrations = np.concatenate((self._calibrations, calibrations))
        if detections.bases:
            bases = unpack_bases(detections.bases, count)
            self._bases = np.concatenate((self._bases, bases))
        self._until = detections.until_slot

    def add_far(self, message: DetectedSlots) -> None:
        """What the far end says it has detected. Raises PeerError, and then changes nothing."""
        if message.first_slot < self._far_until:
            detail = f"slots from {message.first_slot} on, after those before {self._far_until}"
            raise PeerError(ErrorCode.OUT_OF_STATE, detail, field="first_slot")
        if message.until_slot < message.first_slot:
            detail = f"[{message.first_slot}, {message.until_slot}) is no range"
            raise PeerError(ErrorCode.INVALID, detail, field="until_slot")
        try:
            slots = unpack_slots(message.slots, message.first_slot)
        except ValueError as error:
            raise PeerError(ErrorCode.INVALID, str(error), field="slots") from error
        if len(slots) and slots[-1] >= message.until_slot:
            detail = f"slot {slots[-1]} is not before {message.until_slot}"
            raise PeerError(ErrorCode.INVALID, detail, field="slots")
        if len(self._far_slots) + len(slots) > SLOTS_AHEAD_MAX:
            detail = f"more than {SLOTS_AHEAD_MAX} slots ahead of us"
            raise PeerError(ErrorCode.NO_RESOURCES, detail, field="slots")
        self._far_slots = np.concatenate((self._far_slots, slots))
        self._far_until = message.until_slot

    def take(self) -> Matched:
        """The next pairs; what was compared is forgotten."""
        until = min(self._until, self._far_until)
        mine = int(np.searchsorted(self._slots, until))
        far = int(np.searchsorted(self._far_slots, until))
        slots, places, _ = np.intersect1d(
            self._slots[:mine], self._far_slots[:far], assume_unique=True, return_indices=True
        )
        bases = self._bases[places] if len(self._bases) else _NO_BITS
        matched = Matched(slots, self._outcomes[places], bases, self._calibrations[places])
        self._slots, self._outcomes = self._slots[mine:], self._outcomes[mine:]
        self._bases, self._far_slots = self._bases[mine:], self._far_slots[far:]
        self._calibrations = self._calibrations[mine:]
        return matched


def slot_messages(request: bytes, detections: Detections) -> list[DetectedSlots]:
    """What the far end is told of our detections, in parts it takes; never bases or outcomes."""
    slots = unpack_slots(detections.slots, detections.first_slot)
    parts = []
    first = detections.first_slot
    for start in range(0, max(1, len(slots)), SLOTS_PART_MAX):
        end = start + SLOTS_PART_MAX
        until = int(slots[end]) if end < len(slots) else detections.until_slot
        parts.append(
            DetectedSlots(
                request=request,
                first_slot=first,
                until_slot=until,
                slots=pack_slots(slots[start:end], first),
            )
        )
        first = until
    return parts
