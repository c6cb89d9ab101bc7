"""What a link may have beside plain fibre: another channel, a switch, classical light in its fibre.

    [link.channel]            profile = "satellite", first_pass_s, pass_interval_s
    [link.switch]             name, insertion_loss_db, reconfiguration_ns
    [link.classical_traffic]  filter_nm, window_ns, raman_per_km_nm, signals ...

Rules
1. A satellite's loss changes during a pass: in steps of about `STEP_S`, constant within each, as in
   its middle (`Passes`). Outside of passes nothing is sent, and receivers are off.
2. A switch lets one link at a time use a station; links share it by its name. To set it anew takes
   `reconfiguration_ns`, in which nothing is attempted.
3. Classical light goes the whole way from the end it is launched at to the other; what it scatters
   reaches the quantum detectors forward or backward (`models/coexistence.py`). Of the losses in an
   arm beside the fibre, Raman light is spared: an upper bound, for who knows where they are.
"""

import math
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct, structs

from qstack.physical.models.coexistence import ClassicalLight, Direction, raman_photons_hz
from qstack.physical.models.detector import noise_probability
from qstack.physical.models.free_space import (
    double_downlink_transmission,
    free_space_transmission,
    slant_range_m,
)
from qstack.physical.params import PASS_TAIL_NS, PASS_UPDATES
from qstack.physical.profile import Mark
from qstack.physical.profile_kinds import FreeSpaceProfile, Loss, SatelliteProfile
from qstack.physical.source_hardware import SECOND_NS

AIR_GROUP_INDEX: Final = 1.0003
STEP_S: Final = 1.0
"""About how long a satellite's loss is taken as constant: 0.15 dB at most, low over the horizon."""

FirstPass = Annotated[
    float, Meta(ge=0, le=1e9, description="seconds of network time to the middle of the first pass")
]
PassInterval = Annotated[
    float, Meta(gt=0, le=1e9, description="seconds from one pass to the next, above 0")
]
SwitchName = Annotated[
    str, Meta(min_length=1, max_length=63, description="the name of the switch, 1 to 63 characters")
]
Reconfiguration = Annotated[int, Meta(ge=0, le=10**12, description="whole nanoseconds, 0 to 10^12")]
Filter = Annotated[float, Meta(gt=0, le=100, description="nanometres, above 0, at most 100")]
Window = Annotated[float, Meta(gt=0, le=1e9, description="nanoseconds, above 0, at most 10^9")]
Raman = Annotated[
    float,
    Meta(ge=0, le=1e-6, description="per kilometre and nanometre, 0 to 1e-6 (C band: 2.5e-9)"),
]
Power = Annotated[float, Meta(ge=-100, le=30, description="dBm at launch, -100 to 30")]
ClickShare = Annotated[float, Meta(gt=0, le=1, description="a probability, above 0, at most 1")]


# --- the channel ---------------------------------------------------------------------------------


class AirChannel(Struct, frozen=True, kw_only=True):
    """Both arms of a link through the air."""

    profile: FreeSpaceProfile

    def marked(self, mark: Mark) -> list[str]:
        """The keys of its numbers with this mark."""
        return self.profile.marked(mark)

    def transmissions(self, arms_m: tuple[float, float]) -> tuple[float, float]:
        """Of arms of these lengths."""
        telescopes, air = self.profile.telescopes(), self.profile.attenuation_db_per_km
        first, second = (free_space_transmission(arm_m, telescopes, air) for arm_m in arms_m)
        return first, second


class Stretch(NamedTuple):
    """From `begin_ns` until before `until_ns` both arms have these transmissions."""

    begin_ns: int
    until_ns: int
    transmissions: tuple[float, float]


class Ahead(NamedTuple):
    """The pass that is, or comes next: open from `opens_ns` until before `until_ns`.

    `parts` are those that are left of it, and `changes_ns` when that should be looked at again.
    """

    opens_ns: int
    until_ns: int
    changes_ns: int
    parts: tuple[Stretch, ...]


class PassChannel(Struct, frozen=True, kw_only=True, dict=True):
    """Two downlinks while a satellite passes: for the first time with its middle at `first_pass_s`.

    The first station of the profile is that of the link's first end; `is_turned`: of its second.
    """

    profile: SatelliteProfile
    first_pass_s: float
    pass_interval_s: float
    is_turned: bool = False

    def marked(self, mark: Mark) -> list[str]:
        """The keys of its numbers with this mark."""
        return self.profile.marked(mark)

    @cached_property
    def one_pass(self) -> tuple[Stretch, ...]:
        """The stretches of a pass, in time from its middle."""
        window = self.profile.window()
        assert window is not None, "a profile without a window is refused when it is read"
        count = max(1, math.ceil(window.length_s / STEP_S))
        edges = [
            round((window.begin_s + window.length_s * step / count) * SECOND_NS)
            for step in range(count + 1)
        ]
        return tuple(
            Stretch(begin_ns, until_ns, self._transmissions((begin_ns + until_ns) / 2 / SECOND_NS))
            for begin_ns, until_ns in pairwise(edges)
        )

    def _transmissions(self, at_s: float) -> tuple[float, float]:
        """Of the arms of both ends at a time of the pass."""
        profile = self.profile
        telescopes = (profile.telescopes(), profile.telescopes())
        first, second = double_downlink_transmission(
            profile.height_m, profile.stations(), telescopes, at_s
        )
        return (second, first) if self.is_turned else (first, second)

    @property
    def arm_m(self) -> float:
        """The longest way of light, at the lowest elevation: no report is earlier."""
        return slant_range_m(self.profile.height_m, self.profile.elevation_min_deg)

    def transmissions(self, arms_m: tuple[float, float]) -> tuple[float, float]:
        """In the middle of a pass, whatever lies on the ground."""
        del arms_m
        return self.one_pass[len(self.one_pass) // 2].transmissions

    def number_at(self, at_ns: int) -> tuple[int, int]:
        """Which stretch of which pass it is at `at_ns`, or else comes next: (pass, stretch)."""
        first_ns = round(self.first_pass_s * SECOND_NS)
        interval_ns = round(self.pass_interval_s * SECOND_NS)
        begin_ns, end_ns = self.one_pass[0].begin_ns, self.one_pass[-1].until_ns
        number = max(0, (at_ns - first_ns - end_ns) // interval_ns + 1)
        within_ns = at_ns - first_ns - number * interval_ns
        if within_ns < begin_ns:
            return number, 0
        place = next(i for i, part in enumerate(self.one_pass) if within_ns < part.until_ns)
        return number, place

    def stretch(self, number: int, place: int) -> Stretch:
        """A stretch of a pass, in network time."""
        middle_ns = round(self.first_pass_s * SECOND_NS)
        middle_ns += number * round(self.pass_interval_s * SECOND_NS)
        begin_ns, until_ns, transmissions = self.one_pass[place]
        return Stretch(middle_ns + begin_ns, middle_ns + until_ns, transmissions)

    def at(self, at_ns: int) -> tuple[float, float]:
        """The transmissions of both arms at a network time; nothing comes outside of passes."""
        part = self.stretch(*self.number_at(at_ns))
        return part.transmissions if part.begin_ns <= at_ns else (0.0, 0.0)

    def ahead(self, at_ns: int) -> Ahead:
        """What is left at `at_ns`, by pieces of a pass: alike for whoever looks in one of them."""
        number, place = self.number_at(at_ns)
        parts = self.one_pass
        size = -(-len(parts) // PASS_UPDATES)
        first = place - place % size
        opens_ns = self.stretch(number, 0).begin_ns
        until_ns = self.stretch(number, len(parts) - 1).until_ns
        if at_ns < opens_ns:
            changes_ns = opens_ns
        elif first + size < len(parts):
            changes_ns = self.stretch(number, first + size).begin_ns
        else:
            changes_ns = until_ns + PASS_TAIL_NS
        return Ahead(opens_ns, until_ns, changes_ns, parts[first:])


LinkChannel = AirChannel | PassChannel


def plain(channel: LinkChannel | None) -> LinkChannel | None:
    """The same channel, without where its numbers come from."""
    if channel is None:
        return None
    return structs.replace(channel, profile=structs.replace(channel.profile, sources=()))


# --- the switch ----------------------------------------------------------------------------------


class Switch(Struct, frozen=True, kw_only=True):
    """A switch before the station, in each arm; links of one `name` share it and the station.

    What comes through of links it is not set to is `crosstalk_db` less (None: nothing does).
    """

    name: SwitchName
    insertion_loss_db: Loss
    reconfiguration_ns: Reconfiguration
    crosstalk_db: Loss | None = None


# --- classical light -----------------------------------------------------------------------------


class Signal(Struct, frozen=True, kw_only=True):
    """Classical light launched at one end of the link towards the other."""

    launched_at: str
    power_dbm: Power


class Fibre(NamedTuple):
    """Both arms of a link, and the wavelength of its quantum light."""

    ends: tuple[str, str]
    arms_m: tuple[float, float]
    db_per_km: float
    wavelength_nm: float


class ClassicalTraffic(Struct, frozen=True, kw_only=True):
    """Classical signals in the fibre of a quantum link, and what its receivers let through.

    `filter_nm` is the width of the filter before a detector, `window_ns` the time in which a click
    counts (of a slot, a window, a trial). `detector_efficiency` is None where the link has it
    elsewhere (`spdc`, `midpoint-source`).
    """

    filter_nm: Filter
    window_ns: Window
    raman_per_km_nm: Raman
    signals: tuple[Signal, ...]
    detector_efficiency: ClickShare | None = None

    def photons_hz(self, fibre: Fibre, arm: int) -> tuple[float, float]:
        """Noise photons a second out of fibre `arm` (0 or 1): at its node, and at the station."""
        at_node = at_station = 0.0
        for signal in self.signals:
            from_here = signal.launched_at == fibre.ends[arm]
            # What comes from the other end has lost the other arm when it enters this one.
            lost_db = 0.0 if from_here else fibre.db_per_km * fibre.arms_m[1 - arm] / 1000.0
            launched_dbm = signal.power_dbm - lost_db
            at_station += self._raman_hz(launched_dbm, fibre, arm, forward=from_here)
            at_node += self._raman_hz(launched_dbm, fibre, arm, forward=not from_here)
        return at_node, at_station

    def at_station(self, fibre: Fibre) -> float:
        """The probability of a noise click per window in each of two detectors in the station.

        Light of both arms meets at a beam splitter, so each detector gets half of it.
        """
        assert self.detector_efficiency is not None, "a file without it is refused"
        total_hz = sum(self.photons_hz(fibre, arm)[1] for arm in (0, 1))
        return noise_probability(total_hz / 2.0 * self.detector_efficiency, self.window_ns * 1e-9)

    def at_node(self, fibre: Fibre, arm: int, efficiency: float) -> float:
        """The probability of a noise click per window in any detector of one end's receiver."""
        arriving_hz = self.photons_hz(fibre, arm)[0]
        return noise_probability(arriving_hz * efficiency, self.window_ns * 1e-9)

    def _raman_hz(self, power_dbm: float, fibre: Fibre, arm: int, *, forward: bool) -> float:
        direction: Direction = "forward" if forward else "backward"
        return raman_photons_hz(
            (ClassicalLight(power_dbm, direction, self.raman_per_km_nm),),
            fibre.arms_m[arm],
            self.filter_nm,
            wavelength_nm=fibre.wavelength_nm,
            attenuation_db_per_km=fibre.db_per_km,
        )


def either(first: float, second: float) -> float:
    """The probability of one or the other of two independent clicks."""
    return first + second - first * second
