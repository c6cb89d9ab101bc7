"""The detectors of a photon-pair link's receivers, where they are not ideal in time and alike.

As in profiles, every number of the file travels with its source and a mark (`profile.py`), and
nothing has a default; a link without such a table has detectors that are always ready, alike, and
on time. Efficiency and background are in the table of the source (`source_hardware.py`).
"""

import math
from typing import Annotated, Any, Final

from msgspec import Meta, structs

from qstack.physical.models.receiver import Detector, Shares, gate_acceptance, stray_share
from qstack.physical.profile import read_entries
from qstack.physical.source_hardware import PairSourceHardware
from qstack.physical.sourced import Sourced

DeadTime = Annotated[int, Meta(ge=0, le=10**9, description="whole nanoseconds, 0 to 10^9")]
Jitter = Annotated[float, Meta(ge=0, le=1e6, description="picoseconds, 0 to 10^6")]
Gate = Annotated[float, Meta(gt=0, le=1e12, description="picoseconds, above 0, at most 10^12")]
Afterpulse = Annotated[float, Meta(ge=0, le=0.2, description="a probability, 0 to 0.2")]
Decay = Annotated[float, Meta(ge=0, le=1e9, description="nanoseconds, 0 to 10^9")]
Share = Annotated[float, Meta(gt=0, le=1, description="a share, above 0, at most 1")]

STRAY_MAX: Final = 1e-6
"""Clicks that jitter puts into another slot's gate are not emulated: no more of them than this."""


class ReceiverDetectors(Sourced, frozen=True, kw_only=True):
    """Both receivers' detectors: dead after a click, late by a jitter, pulsing once more.

    The gate of a slot is centred on the photon; outside of it a detector is off. Of an afterpulse
    (`afterpulse_probability` after a click, once the detector is live again) the time is
    exponential with `afterpulse_decay_ns`. The efficiency of the source's table is that of the
    detector that reads outcome 0; that of the other one is this share of it, for each end.
    """

    dead_time_ns: DeadTime
    jitter_ps: Jitter
    gate_ps: Gate
    afterpulse_probability: Afterpulse
    afterpulse_decay_ns: Decay
    first_end_share: Share
    second_end_share: Share

    @property
    def acceptance(self) -> float:
        """The share of clicks that come in their gate."""
        return gate_acceptance(self.jitter_ps, self.gate_ps)

    @property
    def shares(self) -> tuple[Shares, Shares]:
        """Of both ends' detectors, as the models have them."""
        return (1.0, self.first_end_share), (1.0, self.second_end_share)

    def dead_slots(self, slot_ns: int) -> int:
        """Slots after a click in which its detector is dead."""
        return max(0, -(-self.dead_time_ns // slot_ns) - 1)

    def kind(self, slot_ns: int) -> Detector:
        """A detector of these in slots, without anything to click at."""
        decay_ns = self.afterpulse_decay_ns
        return Detector(
            probability=0.0,
            dead_slots=self.dead_slots(slot_ns),
            afterpulse=self.afterpulse_probability,
            stay=math.exp(-slot_ns / decay_ns) if decay_ns else 0.0,
        )

    def turned(self) -> "ReceiverDetectors":
        """The same seen from the other end."""
        return structs.replace(
            self, first_end_share=self.second_end_share, second_end_share=self.first_end_share
        )


class StationDetectors(Sourced, frozen=True, kw_only=True):
    """The detectors of a station in which trains of modes meet: one for each output and bin.

    Each is dead for `dead_time_ns` after a click. (Efficiency and dark counts are elsewhere.)
    """

    dead_time_ns: DeadTime

    def dead_modes(self, mode_ns: int) -> int:
        """Modes after a click in which its detector is dead."""
        return max(0, -(-self.dead_time_ns // mode_ns) - 1)


def read_station_detectors(
    raw: dict[str, Any], path: str, problems: list[str]
) -> StationDetectors | None:
    """Those of a table `station_detectors`; None, and lines in `problems`, if they cannot be."""
    before = len(problems)
    values, sources = read_entries(raw, {"dead_time_ns": DeadTime}, path, problems)
    if len(problems) > before:
        return None
    return StationDetectors(**values, sources=tuple(sources))


def read_detectors(
    raw: dict[str, Any], source: PairSourceHardware | None, path: str, problems: list[str]
) -> ReceiverDetectors | None:
    """The detectors of a table `detectors`; None, and lines in `problems`, if they cannot be."""
    before = len(problems)
    kinds = {field.name: field.type for field in structs.fields(ReceiverDetectors)}
    del kinds["sources"]
    values, sources = read_entries(raw, kinds, path, problems)
    if len(problems) > before:
        return None
    detectors = ReceiverDetectors(**values, sources=tuple(sources))
    if source is not None:
        problems += [f"{path}.{line}" for line in _unfit(detectors, source)]
    return detectors if len(problems) == before else None


def _unfit(detectors: ReceiverDetectors, source: PairSourceHardware) -> list[str]:
    """Lines for what does not go with the slots of the source."""
    slot_ps = source.slot_ns * 1000
    if detectors.gate_ps > slot_ps:
        return [
            f"gate_ps.value: {detectors.gate_ps:g} is longer than the slot of {slot_ps} ps; "
            "expected a part of it"
        ]
    stray = stray_share(detectors.jitter_ps, detectors.gate_ps, slot_ps)
    if stray > STRAY_MAX:
        return [
            f"jitter_ps.value: {detectors.jitter_ps:g} puts {stray:.1g} of the clicks into "
            f"another slot; expected at most {STRAY_MAX:g}: a shorter gate, or longer slots"
        ]
    return []
