"""Light through air and from satellites: loss by diffraction, pointing and atmosphere; passes.

The orbit is a circle and the Earth a sphere of 6371 km that does not turn (the turning changes a
pass of a low orbit by some percent). Angles are in degrees where a name says so, else in radians.
Loss formulas: a Gaussian beam of half-angle theta behind a long path, pointing jitter of standard
deviation s per axis: w^2 = (theta d)^2 + 4 (s d)^2, eta = 1 - exp(-2 (D/2)^2 / w^2).
"""

import math
from typing import Final, NamedTuple

from qstack.physical.models.fibre import transmission
from qstack.physical.models.ranges import (
    require_finite,
    require_not_negative,
    require_positive,
    require_unit,
)

EARTH_RADIUS_M: Final = 6_371_000.0
EARTH_GRAVITY_M3_PER_S2: Final = 3.986_004_418e14
"""Gravitational constant times mass of the Earth."""


class Interval(NamedTuple):
    """From `begin_s` to `end_s`, counted from the middle of the pass."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.begin_s


class Telescopes(NamedTuple):
    """A transmitter's beam and a receiver's mirror."""

    full_divergence_rad: float
    receiver_diameter_m: float
    pointing_jitter_rad: float = 0.0
    zenith_transmission: float = 1.0
    """Of the whole atmosphere straight up; at elevation e it is this to the power 1 / sin e."""
    optics_loss_db: float = 0.0
    """Everything else: optics, coupling into fibre, filters."""


def slant_range_m(height_m: float, elevation_deg: float, radius_m: float = EARTH_RADIUS_M) -> float:
    """From the ground to a satellite: sqrt((R+h)^2 - (R cos e)^2) - R sin e.

    Raises ValueError for a height not above 0 or an elevation outside 0..90.
    """
    require_positive(height_m=height_m, radius_m=radius_m)
    elevation = _elevation(elevation_deg)
    outer = (radius_m + height_m) ** 2 - (radius_m * math.cos(elevation)) ** 2
    return math.sqrt(outer) - radius_m * math.sin(elevation)


def diffraction_transmission(
    distance_m: float, full_divergence_rad: float, diameter_m: float, jitter_rad: float = 0.0
) -> float:
    """What of a beam the receiver's mirror catches. Raises ValueError for a value out of range."""
    require_positive(distance_m=distance_m, diameter_m=diameter_m)
    require_positive(full_divergence_rad=full_divergence_rad)
    require_not_negative(jitter_rad=jitter_rad)
    waist_m = math.hypot(full_divergence_rad / 2.0, 2.0 * jitter_rad) * distance_m
    return -math.expm1(-2.0 * (diameter_m / 2.0 / waist_m) ** 2)


def atmosphere_transmission(zenith_transmission: float, elevation_deg: float) -> float:
    """T_z^(1 / sin e), the flat atmosphere. Raises ValueError for e not above 0 or T outside 0..1.

    Below some 10 degrees the true air is thinner than that.
    """
    require_unit(zenith_transmission=zenith_transmission)
    sine = math.sin(_elevation(elevation_deg))
    require_positive(elevation_deg=elevation_deg)
    return float(zenith_transmission ** (1.0 / sine))


def free_space_transmission(
    distance_m: float, telescopes: Telescopes, attenuation_db_per_km: float = 0.0
) -> float:
    """A horizontal path through air: diffraction, attenuation along it, optics."""
    require_not_negative(attenuation_db_per_km=attenuation_db_per_km)
    loss_db = attenuation_db_per_km * distance_m / 1000.0 + telescopes.optics_loss_db
    return _diffracted(distance_m, telescopes) * transmission(loss_db)


def downlink_transmission(height_m: float, elevation_deg: float, telescopes: Telescopes) -> float:
    """From a satellite at this elevation to the ground: diffraction, atmosphere, optics."""
    air = atmosphere_transmission(telescopes.zenith_transmission, elevation_deg)
    optics = transmission(telescopes.optics_loss_db)
    return _diffracted(slant_range_m(height_m, elevation_deg), telescopes) * air * optics


def loss_db(share: float) -> float:
    """A transmission in decibels. Raises ValueError unless it is above 0 and at most 1."""
    require_unit(share=share)
    require_positive(share=share)
    return -10.0 * math.log10(share)


def coincidence_rate_hz(source_pairs_hz: float, total_loss_db: float) -> float:
    """Pairs a second that arrive at both ends: source rate x 10^(-loss/10), of both arms together.

    Raises ValueError for anything negative.
    """
    require_not_negative(source_pairs_hz=source_pairs_hz)
    return source_pairs_hz * transmission(total_loss_db)


# --- passes --------------------------------------------------------------------------------------


class GroundStation(NamedTuple):
    """Where a station is as seen from the ground track: along it (in flight), and beside it.

    Both are angles at the centre of the Earth; 1 degree is 111 km.
    """

    along_deg: float = 0.0
    across_deg: float = 0.0


def orbit_angular_rate(height_m: float) -> float:
    """Radians a second of a circular orbit: sqrt(G M / (R + h)^3). ValueError unless h > 0."""
    require_positive(height_m=height_m)
    return math.sqrt(EARTH_GRAVITY_M3_PER_S2 / (EARTH_RADIUS_M + height_m) ** 3)


def central_angle(height_m: float, elevation_deg: float) -> float:
    """The angle at the Earth's centre between station and satellite, seen at this elevation."""
    require_positive(height_m=height_m)
    elevation = _elevation(elevation_deg)
    return math.acos(EARTH_RADIUS_M * math.cos(elevation) / (EARTH_RADIUS_M + height_m)) - elevation


def station_of(height_m: float, elevation_max_deg: float, along_deg: float = 0.0) -> GroundStation:
    """The station that sees the satellite at most this high. Raises ValueError outside 0..90."""
    require_finite(along_deg=along_deg)
    return GroundStation(along_deg, math.degrees(central_angle(height_m, elevation_max_deg)))


def elevation_deg(height_m: float, station: GroundStation, at_s: float) -> float:
    """The satellite's elevation at a time; negative below the horizon.

    tan e = (cos psi - R/(R+h)) / sin psi, with cos psi = cos(across) cos(w t - along).
    """
    cosine = math.cos(math.radians(station.across_deg)) * math.cos(
        orbit_angular_rate(height_m) * at_s - math.radians(station.along_deg)
    )
    lift = cosine - EARTH_RADIUS_M / (EARTH_RADIUS_M + height_m)
    return math.degrees(math.atan2(lift, math.sqrt(max(0.0, 1.0 - cosine * cosine))))


def visible(height_m: float, station: GroundStation, elevation_min_deg: float) -> Interval | None:
    """When one pass is at least so high; None if it never is.

    cos(w t - along) = cos(psi_min) / cos(across). Raises ValueError for a value out of range.
    """
    require_finite(along_deg=station.along_deg, across_deg=station.across_deg)
    reach = math.cos(central_angle(height_m, elevation_min_deg))
    across = math.cos(math.radians(station.across_deg))
    if across < reach:
        return None
    half = math.acos(reach / across)
    along = math.radians(station.along_deg)
    rate = orbit_angular_rate(height_m)
    return Interval((along - half) / rate, (along + half) / rate)


def visible_together(
    height_m: float, stations: tuple[GroundStation, ...], elevation_min_deg: float
) -> Interval | None:
    """When all stations see the satellite: the window of a double downlink; None if never."""
    if not stations:
        raise ValueError("at least one station sees a satellite, or none does")
    windows = [visible(height_m, station, elevation_min_deg) for station in stations]
    seen = [window for window in windows if window is not None]
    if len(seen) < len(windows):
        return None
    begin_s, end_s = max(w.begin_s for w in seen), min(w.end_s for w in seen)
    return Interval(begin_s, end_s) if begin_s < end_s else None


def double_downlink_transmission(
    height_m: float,
    stations: tuple[GroundStation, GroundStation],
    telescopes: tuple[Telescopes, Telescopes],
    at_s: float,
) -> tuple[float, float]:
    """Of each arm at a time. Raises ValueError if a station does not see the satellite then."""
    first, second = (
        downlink_transmission(height_m, elevation_deg(height_m, station, at_s), telescope)
        for station, telescope in zip(stations, telescopes, strict=True)
    )
    return first, second


def pairs_in_pass(
    source_pairs_hz: float,
    height_m: float,
    stations: tuple[GroundStation, GroundStation],
    telescopes: tuple[Telescopes, Telescopes],
    *,
    elevation_min_deg: float,
    steps: int = 1000,
) -> float:
    """The mean number of pairs both ground stations get in one pass (midpoint rule).

    0 if they never see the satellite together. Raises ValueError for a value out of range.
    """
    require_positive(steps=steps)
    require_not_negative(source_pairs_hz=source_pairs_hz)
    window = visible_together(height_m, stations, elevation_min_deg)
    if window is None:
        return 0.0
    step_s = window.length_s / steps
    total = 0.0
    for step in range(steps):
        at_s = window.begin_s + (step + 0.5) * step_s
        first, second = double_downlink_transmission(height_m, stations, telescopes, at_s)
        total += first * second
    return source_pairs_hz * total * step_s


def _elevation(degrees: float) -> float:
    """In radians. Raises ValueError outside 0..90."""
    if not 0.0 <= degrees <= 90.0:
        raise ValueError(f"an elevation is in 0..90 degrees, not {degrees}")
    return math.radians(degrees)


def _diffracted(distance_m: float, telescopes: Telescopes) -> float:
    return diffraction_transmission(
        distance_m,
        telescopes.full_divergence_rad,
        telescopes.receiver_diameter_m,
        telescopes.pointing_jitter_rad,
    )
