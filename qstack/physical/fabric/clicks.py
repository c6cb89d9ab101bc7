"""The slots of a pair source in which a detector clicks, as arrays: never slot by slot.

Slots are independent, and whether and where detectors click does not depend on the bases. So the
gaps between slots with a click are geometric, and which sides click is drawn for each of them. A
chunk ends early where one side would have more than DETECTIONS_MAX: the next one may begin anew
after the last slot this one decided. Where detectors are not ideal these are candidates
(`models/receiver.py`), of which a `Receiver` sees some.
"""

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qstack.physical.conditions import IDEAL, Conditions
from qstack.physical.fabric.link_model import SETTINGS_MAX, Rotations
from qstack.physical.hardware import LinkHardware
from qstack.physical.models.pair_source import outcome_table
from qstack.physical.models.receiver import click_patterns
from qstack.physical.params import CHUNK_NS, DETECTIONS_MAX, SOURCE_CHUNK_MIN_NS
from qstack.physical.rotations import axes
from qstack.quantum.pauli import FloatArray
from qstack.wire.packed import Slots

BOTH, ONLY_A, ONLY_B = 0, 1, 2
# More slots than any run has; larger gaps would overflow their running sum.
_GAP_SLOTS_MAX: Final = 2**46


class Clicks(NamedTuple):
    """Slots with a click, ascending, from `first_slot` until before `until_slot`.

    `kinds` are BOTH, ONLY_A, ONLY_B; `luck` (2, N) is for the outcomes.
    """

    first_slot: int
    until_slot: int
    slots: Slots
    kinds: NDArray[np.uint8]
    luck: FloatArray

    def before(self, slot: int) -> "Clicks":
        """Only what lies before `slot`."""
        until = min(max(slot, self.first_slot), self.until_slot)
        count = int(np.searchsorted(self.slots, until, side="left"))
        return Clicks(
            self.first_slot, until, self.slots[:count], self.kinds[:count], self.luck[:, :count]
        )

    def of(self, end: int) -> NDArray[np.bool_]:
        """Where end 0 or 1 clicks."""
        clicked: NDArray[np.bool_] = self.kinds != (ONLY_B if end == 0 else ONLY_A)
        return clicked


class SourceModel:
    """The physics of one photon-pair link under some conditions, worked out once.

    `arms`: for these transmissions of its channel (`LinkHardware.pair_source`).
    """

    def __init__(
        self,
        link: LinkHardware,
        conditions: Conditions = IDEAL,
        arms: tuple[float, float] | None = None,
    ) -> None:
        assert link.source is not None, "a photon-pair link has a source"
        self.link = link
        self.name = link.id
        self.ends = link.ends
        self.slot_ns = link.source.slot_ns
        self._source = link.pair_source(conditions, arms)
        self.tables = lru_cache(SETTINGS_MAX)(self._tables)
        self.patterns = lru_cache(SETTINGS_MAX)(self._patterns)
        self._detections_max = DETECTIONS_MAX
        if link.detectors is not None and link.detectors.afterpulse_probability:
            self._detections_max //= 2  # afterpulses come to them
        same = outcome_table(self._source, "Z", "Z")  # clicks are alike for all bases
        self._kinds = np.array([same[1:, 1:].sum(), same[1:, 0].sum(), same[0, 1:].sum()])

    def _tables(self, rotations: Rotations = (None, None)) -> FloatArray:
        """(1, 3, 3, 2, 2): both outcomes of a coincidence, by the codes of both bases."""
        first, second = (axes(rotation) for rotation in rotations)
        tables = np.array([[outcome_table(self._source, a, b) for b in second] for a in first])
        clicked = tables[:, :, 1:, 1:]
        shares: FloatArray = clicked / clicked.sum(axis=(2, 3), keepdims=True)
        return shares[np.newaxis]

    def _patterns(self, rotations: Rotations = (None, None)) -> tuple[FloatArray, FloatArray]:
        """What real detectors see of candidates: `JointPatterns` has them."""
        detectors = self.link.detectors
        assert detectors is not None, "the detectors are those of the closed forms"
        first, second = (axes(rotation) for rotation in rotations)
        tables = np.array(
            [[click_patterns(self._source, a, b, detectors.shares) for b in second] for a in first]
        )
        both = tables[:, :, 1:, 1:]
        alone = np.stack([tables[0, 0, 1:, 0], tables[0, 0, 0, 1:]])
        tiny = np.finfo(np.float64).tiny
        return (
            both / both.sum(axis=(2, 3), keepdims=True),
            alone / np.maximum(alone.sum(axis=1, keepdims=True), tiny),
        )

    @property
    def click_probability(self) -> float:
        """That any detector clicks in a slot."""
        return float(self._kinds.sum())

    def click_probability_of(self, end: int) -> float:
        """That a detector of end 0 or 1 clicks in a slot."""
        return float(self._kinds[BOTH] + self._kinds[ONLY_A if end == 0 else ONLY_B])

    def span_slots(self, pairs: int) -> int:
        """How many slots a chunk has when so many pairs are wanted."""
        least, most = SOURCE_CHUNK_MIN_NS // self.slot_ns, CHUNK_NS // self.slot_ns
        enough = 1.1 * pairs / max(float(self._kinds[BOTH]), np.finfo(np.float64).tiny)
        return max(1, int(min(max(enough, least), most)))

    def draw(self, generator: np.random.Generator, first_slot: int, span_slots: int) -> Clicks:
        """The clicks of the next chunk, of at most `span_slots` slots."""
        probability = self.click_probability
        expected = span_slots * probability
        # Rarely too few for the span: then the chunk is just shorter. More than the limit of both
        # sides are never of use.
        enough = min(int(expected + 6.0 * math.sqrt(expected)) + 4, 2 * self._detections_max + 1)
        gaps = np.minimum(generator.geometric(probability, enough), _GAP_SLOTS_MAX)
        slots = first_slot - 1 + np.cumsum(gaps)
        until = min(first_slot + span_slots, int(slots[-1]) + 1)
        count = int(np.searchsorted(slots, until, side="left"))
        edges = np.cumsum(self._kinds / probability)[:-1]
        kinds = np.searchsorted(edges, generator.random(count), side="right").astype(np.uint8)
        clicks = Clicks(first_slot, until, slots[:count], kinds, generator.random((2, count)))
        for end in (0, 1):
            mine = clicks.slots[clicks.of(end)]
            if len(mine) > self._detections_max:
                clicks = clicks.before(int(mine[self._detections_max]))
        return clicks
