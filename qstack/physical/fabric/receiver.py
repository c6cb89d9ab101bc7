"""One end's two detectors on a photon-pair link, where they are not always ready.

Which of the candidates (`models/receiver.py`) a detector registers follows from its own past alone:
it is dead for some slots after a click, and may pulse once more after its last one. Detections are
taken in bulk, by slots with a candidate and never slot by slot.

Rules
1. `expect` is called for each part in the order of slots, `register` later in the same order: what
   has become of a part is known only when its bases are.
2. Bases are wanted for all that could be read, afterpulses of clicks that may not be among them.
3. A receiver that is switched on anew has live detectors, and nothing to pulse after.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qstack.physical.models.receiver import Detector
from qstack.wire.packed import Bits, Slots


class Echo(NamedTuple):
    """An afterpulse of `detector` there will be, if what has the number `parent` is its last click.

    Numbers are of candidates, of each detector, and of echoes.
    """

    slot: int
    detector: int
    parent: int
    number: int


class Part(NamedTuple):
    """`slots` in which something could be read, ascending; `is_light`: by a candidate.

    `light` are those slots; candidate i has the number `base` + 2 i + detector.
    """

    slots: Slots
    is_light: NDArray[np.bool_]
    light: Slots
    base: int
    echoes: list[Echo]


class Seen(NamedTuple):
    """What was registered: `places` in the slots of the part, and `outcomes`."""

    places: NDArray[np.int64]
    outcomes: Bits


class Receiver:
    """Both detectors of one end, of one kind; `generator` is theirs alone."""

    def __init__(self, kind: Detector, generator: Generator) -> None:
        self._kind = kind
        self._generator = generator
        self._numbers = 0
        self._pending: list[Echo] = []
        self._last_slots = [-kind.dead_slots - 1] * 2
        self._last_numbers = [-1, -1]

    def expect(self, light: Slots, first_slot: int, until_slot: int) -> Part:
        """What could be read from `first_slot` until before `until_slot`, with these candidates.

        What would have come between parts is not seen.
        """
        base = self._numbers
        self._numbers += 2 * len(light)
        echoes = self._pending
        if self._kind.afterpulse:
            echoes = echoes + self._echoes(light, base)
        self._pending = [echo for echo in echoes if echo.slot >= until_slot]
        due = sorted(echo for echo in echoes if first_slot <= echo.slot < until_slot)
        slots = light
        if due:
            late = np.array([echo.slot for echo in due], dtype=np.int64)
            slots = np.union1d(light, late)
        is_light = np.isin(slots, light, assume_unique=True)
        return Part(slots, is_light, light, base, due)

    def register(self, part: Part, patterns: Bits) -> Seen:
        """What is registered, with these patterns (bits: detectors) of light."""
        clicked = [self._of(detector, part, patterns) for detector in (0, 1)]
        slots = np.union1d(clicked[0], clicked[1])
        first, second = (np.isin(slots, each, assume_unique=True) for each in clicked)
        outcomes: Bits = second.astype(np.uint8)
        double = first & second
        outcomes[double] = self._generator.random(int(double.sum())) < 0.5
        return Seen(np.searchsorted(part.slots, slots), outcomes)

    def _of(self, detector: int, part: Part, patterns: Bits) -> Slots:
        """The slots in which one detector clicks."""
        places = np.flatnonzero(patterns >> detector & 1)
        slots, dead = part.light[places], self._kind.dead_slots
        echoes = [echo for echo in part.echoes if echo.detector == detector]
        if not echoes:
            is_live = live_ones(slots, self._last_slots[detector], dead)
            if is_live.any():
                last = int(np.flatnonzero(is_live)[-1])
                self._last_slots[detector] = int(slots[last])
                self._last_numbers[detector] = part.base + 2 * int(places[last]) + detector
            return slots[is_live]
        numbers = part.base + 2 * places + detector
        events = [(slot, -1, n) for slot, n in zip(slots.tolist(), numbers.tolist(), strict=True)]
        events += [(echo.slot, echo.parent, echo.number) for echo in echoes]
        last, last_number = self._last_slots[detector], self._last_numbers[detector]
        clicked = []
        for slot, parent, number in sorted(events):
            if slot > last + dead and parent in (-1, last_number):
                last, last_number = slot, number
                clicked.append(slot)
        self._last_slots[detector], self._last_numbers[detector] = last, last_number
        return np.array(clicked, dtype=np.int64)

    def _echoes(self, light: Slots, base: int) -> list[Echo]:
        """Afterpulses there may be of candidates, and those of afterpulses."""
        kind, generator = self._kind, self._generator
        echoes = []
        for place, detector in np.argwhere(generator.random((len(light), 2)) < kind.afterpulse):
            slot, parent = int(light[place]), base + 2 * int(place) + int(detector)
            while True:
                slot += kind.dead_slots + 1
                if kind.stay:
                    slot += int(math.log(1.0 - generator.random()) / math.log(kind.stay))
                echoes.append(Echo(slot, int(detector), parent, self._numbers))
                parent = self._numbers
                self._numbers += 1
                if generator.random() >= kind.afterpulse:
                    break
        return echoes


def live_ones(slots: Slots, last: int, dead_slots: int) -> NDArray[np.bool_]:
    """Which of these (ascending) a detector registers that is dead so long after each it does.

    Its last click before was at `last`. Each run of slots without a gap longer than the dead time
    is followed from click to click, all of them at once.
    """
    is_live = np.zeros(len(slots), dtype=np.bool_)
    begin = int(np.searchsorted(slots, last + dead_slots, side="right"))
    rest = slots[begin:]
    if len(rest):
        taken = is_live[begin:]
        taken[0] = True
        taken[1:] = np.diff(rest) > dead_slots
        following = np.searchsorted(rest, rest + dead_slots, side="right")
        clicks = np.flatnonzero(taken)
        while len(clicks):
            clicks = following[clicks]
            clicks = clicks[clicks < len(rest)]
            clicks = clicks[~taken[clicks]]
            taken[clicks] = True
    return is_live
