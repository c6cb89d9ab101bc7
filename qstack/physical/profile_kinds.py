"""Profiles of what is not a node: a memory for photons, a channel through the air, a pair source.

A file says by `kind` what it is about; without one it is a node's (`profile.py`). In all of them
every number has its unit in its name, and travels with a source and a mark.

Rules
1. A kind has a Struct, its keys are the Struct's, and nothing has a default.
2. A channel's `platform` says which channel: `satellite` (two downlinks at once, from a source
   aboard) or `free-space` (a horizontal path).
3. What numbers must hold together is checked when the profile is read, as in `profile.py`.
"""

import math
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, structs

from qstack.physical.document import listed, nearest, parse_toml, shown
from qstack.physical.models.free_space import (
    EARTH_RADIUS_M,
    GroundStation,
    Interval,
    Telescopes,
    visible_together,
)
from qstack.physical.models.storage import PhotonMemory
from qstack.physical.profile import (
    Coupling,
    DecayLaw,
    DecayTime,
    Fidelity,
    Label,
    Latency,
    Profile,
    ProfileError,
    Wavelength,
    parse_profile,
    read_entries,
)
from qstack.physical.source_hardware import (
    SECOND_NS,
    Background,
    Efficiency,
    Misalignment,
    PairParameter,
    PairSourceHardware,
    SlotRate,
    off_grid,
)
from qstack.physical.sourced import Sourced

Kind = Literal["node", "memory", "source", "channel"]

PositiveTime = Annotated[float, Meta(gt=0, le=1e6, description="seconds, above 0, at most 10^6")]
MemoryModes = Annotated[
    int, Meta(ge=1, le=10**6, description="a whole number of modes, 1 to 1000000")
]
Loss = Annotated[float, Meta(ge=0, le=100, description="decibels, 0 to 100")]
AirLoss = Annotated[float, Meta(ge=0, le=100, description="decibels per kilometre, 0 to 100")]
Height = Annotated[float, Meta(ge=1e5, le=1e8, description="metres, 100000 to 10^8")]
Divergence = Annotated[float, Meta(gt=0, le=0.01, description="radians, above 0, at most 0.01")]
Jitter = Annotated[float, Meta(ge=0, le=0.01, description="radians, 0 to 0.01")]
Diameter = Annotated[float, Meta(gt=0, le=50, description="metres, above 0, at most 50")]
Transmission = Annotated[float, Meta(gt=0, le=1, description="a share, above 0, at most 1")]
Elevation = Annotated[float, Meta(ge=5, lt=90, description="degrees, at least 5 and below 90")]
Angle = Annotated[float, Meta(ge=0, le=90, description="degrees, 0 to 90")]
Separation = Annotated[float, Meta(gt=0, le=5e6, description="metres, above 0, at most 5000000")]
Offset = Annotated[float, Meta(ge=0, le=5e6, description="metres, 0 to 5000000")]
PairRate = Annotated[float, Meta(gt=0, le=1e12, description="pairs a second, above 0 to 10^12")]


class MemoryProfile(Sourced, frozen=True, kw_only=True):
    """A memory that takes photons and gives them back (`models/storage.py`).

    `retrieval_efficiency` is that at once, of what was stored with `write_efficiency`; it decays
    with `retrieval_decay_s` by `retrieval_law`. `fidelity` is that of half of a Bell pair which
    comes out at once, `t1_s`, `t2_s` and `decay_law` how the qubit ages meanwhile. `modes` of
    `mode_ns` are held at once; `fixed_delay_s` is left out where light comes out on demand.
    """

    name: Label
    platform: Label
    wavelength_nm: Wavelength
    write_efficiency: Coupling
    retrieval_efficiency: Coupling
    retrieval_decay_s: PositiveTime
    retrieval_law: DecayLaw
    fidelity: Fidelity
    t1_s: DecayTime
    t2_s: DecayTime
    decay_law: DecayLaw
    mode_ns: Latency
    modes: MemoryModes
    fixed_delay_s: PositiveTime | None = None

    def photon_memory(self) -> PhotonMemory:
        """The same as the physics library takes it."""
        return PhotonMemory(
            write_efficiency=self.write_efficiency,
            retrieval_efficiency=self.retrieval_efficiency,
            retrieval_decay_s=self.retrieval_decay_s,
            retrieval_law=self.retrieval_law,
            fidelity=self.fidelity,
            t1_s=self.t1_s,
            t2_s=self.t2_s,
            law=self.decay_law,
            modes=self.modes,
            fixed_delay_s=self.fixed_delay_s,
        )


class SourceProfile(Sourced, frozen=True, kw_only=True):
    """A source of photon pairs and its two receivers: a link for keys, nothing stored.

    The numbers of `source_hardware.py`; `arm_loss_db` is what source and receiver lose in each arm
    beside the fibre.
    """

    name: Label
    platform: Label
    wavelength_nm: Wavelength
    slot_rate_hz: SlotRate
    pair_parameter: PairParameter
    detector_efficiency: Efficiency
    background_probability: Background
    misalignment: Misalignment
    arm_loss_db: Loss

    def hardware(self) -> PairSourceHardware:
        """The source of a link, with where its numbers come from."""
        return PairSourceHardware(
            wavelength_nm=self.wavelength_nm,
            slot_rate_hz=self.slot_rate_hz,
            pair_parameter=self.pair_parameter,
            detector_efficiency=self.detector_efficiency,
            background_probability=self.background_probability,
            misalignment=self.misalignment,
            sources=tuple(source for source in self.sources if source.key != "arm_loss_db"),
        )


class SatelliteProfile(Sourced, frozen=True, kw_only=True):
    """A satellite that sends the halves of pairs to two ground stations at once.

    The stations are `separation_m` apart; the ground track passes `track_offset_m` beside the
    middle between them, at `track_angle_deg` to the line from one to the other (0: along it). Used
    while both see the satellite at `elevation_min_deg` or higher. `optics_loss_db` is in each arm
    all that is not diffraction, pointing, air or detector. `source_pairs_hz` and
    `detector_efficiency` are for figures: a link has a pair source of its own.
    """

    name: Label
    platform: Literal["satellite"]
    height_m: Height
    full_divergence_rad: Divergence
    receiver_diameter_m: Diameter
    pointing_jitter_rad: Jitter
    zenith_transmission: Transmission
    optics_loss_db: Loss
    elevation_min_deg: Elevation
    separation_m: Separation
    track_offset_m: Offset
    track_angle_deg: Angle
    source_pairs_hz: PairRate
    detector_efficiency: Efficiency

    def telescopes(self) -> Telescopes:
        """One arm's beam, mirror, air and optics, without the detector."""
        return Telescopes(
            full_divergence_rad=self.full_divergence_rad,
            receiver_diameter_m=self.receiver_diameter_m,
            pointing_jitter_rad=self.pointing_jitter_rad,
            zenith_transmission=self.zenith_transmission,
            optics_loss_db=self.optics_loss_db,
        )

    def stations(self) -> tuple[GroundStation, GroundStation]:
        """Where the two are as seen from the ground track (flat, half a separation each way)."""
        half = math.degrees(self.separation_m / 2.0 / EARTH_RADIUS_M)
        beside = math.degrees(self.track_offset_m / EARTH_RADIUS_M)
        angle = math.radians(self.track_angle_deg)
        along, across = half * math.cos(angle), half * math.sin(angle)
        return (
            GroundStation(-along, beside - across),
            GroundStation(along, beside + across),
        )

    def window(self) -> Interval | None:
        """When one pass can be used, counted from its middle; None if it never can."""
        return visible_together(self.height_m, self.stations(), self.elevation_min_deg)


class FreeSpaceProfile(Sourced, frozen=True, kw_only=True):
    """A horizontal path through air, both arms alike: telescopes, and what the air loses."""

    name: Label
    platform: Literal["free-space"]
    full_divergence_rad: Divergence
    receiver_diameter_m: Diameter
    pointing_jitter_rad: Jitter
    attenuation_db_per_km: AirLoss
    optics_loss_db: Loss

    def telescopes(self) -> Telescopes:
        """One arm's beam, mirror and optics."""
        return Telescopes(
            full_divergence_rad=self.full_divergence_rad,
            receiver_diameter_m=self.receiver_diameter_m,
            pointing_jitter_rad=self.pointing_jitter_rad,
            optics_loss_db=self.optics_loss_db,
        )


ChannelProfile = SatelliteProfile | FreeSpaceProfile
AnyProfile = Profile | MemoryProfile | SourceProfile | ChannelProfile

KINDS: Final[tuple[Kind, ...]] = ("node", "memory", "source", "channel")
CHANNELS: Final[dict[str, type[ChannelProfile]]] = {
    "satellite": SatelliteProfile,
    "free-space": FreeSpaceProfile,
}
_STRUCTS: Final[dict[str, type[Sourced]]] = {"memory": MemoryProfile, "source": SourceProfile}


def kind_of(profile: AnyProfile) -> Kind:
    """What a profile is about."""
    match profile:
        case MemoryProfile():
            return "memory"
        case SourceProfile():
            return "source"
        case SatelliteProfile() | FreeSpaceProfile():
            return "channel"
        case _:
            return "node"


def parse_any_profile(text: str, *, where: str) -> AnyProfile:
    """The profile of any kind in a TOML text; `where` names it in errors.

    Raises `ProfileError` with every problem found.
    """
    try:
        raw = parse_toml(text)
    except ValueError as error:
        raise ProfileError(where, [f"is not TOML: {error}"]) from error
    kind = raw.pop("kind", "node")
    if kind == "node":
        return parse_profile(text, where=where)
    if kind not in KINDS:
        raise ProfileError(where, [_unknown("kind", kind, KINDS)])
    if kind == "channel" and raw.get("platform") not in CHANNELS:
        raise ProfileError(where, [_unknown("platform", raw.get("platform"), tuple(CHANNELS))])
    struct = CHANNELS[raw["platform"]] if kind == "channel" else _STRUCTS[kind]
    return _read(raw, struct, where)


def require_kind(profile: AnyProfile, kind: Kind, where: str) -> None:
    """Raises `ProfileError`, naming what it is, if `profile` is of another kind."""
    if kind_of(profile) != kind:
        line = f'kind: "{kind_of(profile)}" ({profile.name}); expected a profile of kind "{kind}"'
        raise ProfileError(where, [line])


def _read(raw: dict[str, Any], struct: type[Any], where: str) -> AnyProfile:
    problems: list[str] = []
    kinds = {field.name: field.type for field in structs.fields(struct)}
    del kinds["sources"]
    values, sources = read_entries(raw, kinds, "", problems)
    if not problems:
        problems += _impossible(struct, values)
    if problems:
        raise ProfileError(where, problems)
    profile: AnyProfile = struct(**values, sources=tuple(sources))
    if isinstance(profile, SatelliteProfile) and profile.window() is None:
        line = (
            f"elevation_min_deg.value: both stations never see the satellite at "
            f"{profile.elevation_min_deg:g} degrees; expected a lower one, stations closer "
            "together, or a track closer to them"
        )
        raise ProfileError(where, [line])
    return profile


def _impossible(struct: type[Struct], values: dict[str, Any]) -> list[str]:
    """What no single number can tell."""
    if struct is MemoryProfile:
        t1_s, t2_s = values["t1_s"], values["t2_s"]
        if t2_s > 2 * t1_s:
            return [
                f"t2_s.value: {t2_s} s is longer than 2 x t1_s = {2 * t1_s} s; expected T2 <= 2 T1"
            ]
    if struct is SourceProfile and SECOND_NS % values["slot_rate_hz"]:
        return [off_grid(values["slot_rate_hz"])]
    return []


def _unknown(key: str, value: object, known: tuple[str, ...]) -> str:
    if value is None:
        return f"{key}: is missing; expected one of {listed(known)}"
    similar = nearest(value, known) if isinstance(value, str) else None
    hint = f'did you mean "{similar}"?' if similar else f"expected one of {listed(known)}"
    return f"{key}: {shown(value)} is not allowed; {hint}"
