"""The hardware clock of a node, and what makes a link sensitive to clocks.

Network time is what software is told. Light is timed by a node's hardware clock, which is off by
`offset_ps + drift_ppb t`, and each of whose pulses and time stamps jitters. A node knows of its
clock only what its data sheet says (`accuracy_ppb`, `jitter_ps`) and what comparisons find.

As in profiles, every number of the file travels with its source and a mark (`profile.py`), and
nothing has a default; a node without such a table has a perfect clock.
"""

import math
from typing import Annotated, Any, Final

from msgspec import Meta, Struct, structs

from qstack.physical.models.clock import Wavepacket
from qstack.physical.profile import read_entries
from qstack.physical.sourced import Sourced

Offset = Annotated[
    float, Meta(ge=-1e12, le=1e12, description="picoseconds, -10^12 to 10^12 (one second)")
]
Drift = Annotated[float, Meta(ge=-1e5, le=1e5, description="parts in 10^9, -100000 to 100000")]
Accuracy = Annotated[float, Meta(ge=0, le=1e5, description="parts in 10^9, 0 to 100000")]
Jitter = Annotated[float, Meta(ge=0, le=1e6, description="picoseconds, 0 to 10^6")]
Ageing = Annotated[float, Meta(ge=-1e3, le=1e3, description="parts in 10^9 a day, -1000 to 1000")]
RateWander = Annotated[
    float, Meta(ge=0, le=1e3, description="parts in 10^9 in the root of a day, 0 to 1000")
]
Asymmetry = Annotated[
    float, Meta(ge=-1e9, le=1e9, description="picoseconds, -10^9 to 10^9 (a millisecond)")
]
Width = Annotated[float, Meta(gt=0, le=1e9, description="picoseconds, above 0, at most 10^9")]


DAY_S: Final = 86_400.0


class ClockHardware(Sourced, frozen=True, kw_only=True):
    """A clock: its error at network time 0, its rate, the deviation of a pulse or a stamp.

    `drift_ppb` is its true rate beside 1 at network time 0; `accuracy_ppb` what is promised of
    that. The rate changes evenly (`ageing_ppb_per_day`) and as a random walk
    (`rate_wander_ppb_per_root_day`); nodes know of both from the data sheet, and of the first no
    sign. None: it does not.
    """

    offset_ps: Offset
    drift_ppb: Drift
    accuracy_ppb: Accuracy
    jitter_ps: Jitter
    ageing_ppb_per_day: Ageing | None = None
    rate_wander_ppb_per_root_day: RateWander | None = None

    def error_ps(self, at_ns: int) -> float:
        """How far it is ahead of network time; `models.clock.Clock.error_s` in picoseconds.

        Without what its random walk makes of it (`fabric/wander.py`).
        """
        aged_ppb = (self.ageing_ppb_per_day or 0.0) * at_ns * 1e-9 / DAY_S
        return self.offset_ps + (self.drift_ppb + aged_ppb / 2.0) * at_ns * 1e-6

    @property
    def wander_ppb_per_root_s(self) -> float:
        """The random walk of its rate, in a second."""
        return (self.rate_wander_ppb_per_root_day or 0.0) / math.sqrt(DAY_S)

    @property
    def change_ppb_per_s(self) -> float:
        """How far its rate may change in a second, for all its node knows."""
        return math.hypot(self.wander_ppb_per_root_s, (self.ageing_ppb_per_day or 0.0) / DAY_S)


PERFECT_CLOCK: Final = ClockHardware(offset_ps=0.0, drift_ppb=0.0, accuracy_ppb=0.0, jitter_ps=0.0)


class LinkTiming(Sourced, frozen=True, kw_only=True):
    """What a link makes of errors of clocks.

    `asymmetry_ps`: how much longer light takes from the first of the link's ends to the second
    than back. Photons are of this shape and width (lifetime of an exponential one, deviation of
    the intensity of a Gaussian one), and the station takes those in a gate of `gate_ps`.
    `measured_asymmetry_ps` is what somebody has found the asymmetry to be: the nodes take it off.
    """

    asymmetry_ps: Asymmetry
    wavepacket: Wavepacket
    width_ps: Width
    gate_ps: Width
    measured_asymmetry_ps: Asymmetry | None = None

    def turned(self) -> "LinkTiming":
        """The same seen from the other end."""
        measured_ps = self.measured_asymmetry_ps
        return structs.replace(
            self,
            asymmetry_ps=-self.asymmetry_ps,
            measured_asymmetry_ps=None if measured_ps is None else -measured_ps,
        )


def read_clock(raw: dict[str, Any], path: str, problems: list[str]) -> ClockHardware | None:
    """The clock of a table `clock`; None, and lines in `problems`, if it cannot be."""
    before = len(problems)
    values, sources = read_entries(raw, _kinds(ClockHardware), path, problems)
    if len(problems) == before and abs(values["drift_ppb"]) > values["accuracy_ppb"]:
        problems.append(
            f"{path}.drift_ppb.value: {values['drift_ppb']:g} is more than its accuracy of "
            f"{values['accuracy_ppb']:g}; expected what the data sheet allows"
        )
    return ClockHardware(**values, sources=tuple(sources)) if len(problems) == before else None


def read_timing(raw: dict[str, Any], path: str, problems: list[str]) -> LinkTiming | None:
    """The timing of a table `timing`; None, and lines in `problems`, if it cannot be."""
    before = len(problems)
    values, sources = read_entries(raw, _kinds(LinkTiming), path, problems)
    return LinkTiming(**values, sources=tuple(sources)) if len(problems) == before else None


def _kinds(of: type[Struct]) -> dict[str, object]:
    kinds = {field.name: field.type for field in structs.fields(of)}
    del kinds["sources"]
    return kinds
