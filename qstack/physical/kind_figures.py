"""What a memory, a pair source or a channel is worth, from its profile alone (`profile_kinds.py`).

For comparing hardware, as `figures.py` does for nodes: a network's own links have lengths, losses
and channels of their own.
"""

from typing import NamedTuple

from qstack.physical.hardware import LinkHardware
from qstack.physical.models.fibre import silica_attenuation_db_per_km, transmission
from qstack.physical.models.free_space import (
    double_downlink_transmission,
    elevation_deg,
    free_space_transmission,
    loss_db,
    pairs_in_pass,
)
from qstack.physical.models.pair_source import bell_weights, error_rate, gain
from qstack.physical.models.rates import repeaterless_bound
from qstack.physical.profile_kinds import (
    FreeSpaceProfile,
    MemoryProfile,
    SatelliteProfile,
    SourceProfile,
)
from qstack.quantum.bell import bell_state, fidelity


class StoredPhoton(NamedTuple):
    """A photon that comes out: how likely it does, and the fidelity of its Bell pair if so."""

    efficiency: float
    fidelity: float


def stored_photon(memory: MemoryProfile, storage_s: float) -> StoredPhoton:
    """After this time in a memory. Raises ValueError for a negative time."""
    photons = memory.photon_memory()
    pair = photons.retrieved(bell_state(0, 0), 1, storage_s)
    return StoredPhoton(photons.efficiency(storage_s), fidelity(pair, 0, 0))


class SourceFigures(NamedTuple):
    """A link for keys: coincidences, half of which have equal bases, and their errors.

    `fidelity` is that of the Werner pair with these errors; `plob_rate_hz` what no protocol exceeds
    that sends photons over the whole fibre, one mode in each slot.
    """

    rate_hz: float
    sifted_hz: float
    qber: float
    fidelity: float
    plob_rate_hz: float


def source_figures(source: SourceProfile, length_m: float) -> SourceFigures:
    """With this much fibre, the source in its middle, bases drawn evenly of two.

    Raises ValueError for a length no light takes a nanosecond for, or if nothing arrives.
    """
    link = LinkHardware(
        ends=("a", "b"),
        length_m=length_m,
        arms_m=(length_m / 2.0, length_m / 2.0),
        scheme="spdc",
        attenuation_db_per_km=silica_attenuation_db_per_km(source.wavelength_nm),
        extra_loss_db=source.arm_loss_db,
        source=source.hardware(),
    )
    pairs = link.pair_source()
    rate_hz = gain(pairs) * source.slot_rate_hz
    through = transmission(link.attenuation_db_per_km * length_m / 1000.0)
    return SourceFigures(
        rate_hz=rate_hz,
        sifted_hz=rate_hz / 2.0,
        qber=error_rate(pairs),
        fidelity=bell_weights(pairs)[0],
        plob_rate_hz=repeaterless_bound(through) * source.slot_rate_hz,
    )


class PassMoment(NamedTuple):
    """A double downlink at one time of a pass.

    `rate_hz` are the pairs of the profile's own source detected at both stations; `plob_rate_hz`
    what no protocol exceeds that uses both arms once for each pair sent.
    """

    at_s: float
    elevations_deg: tuple[float, float]
    loss_db: float
    rate_hz: float
    plob_rate_hz: float


def pass_moment(satellite: SatelliteProfile, at_s: float) -> PassMoment:
    """At a time counted from the middle of the pass. Raises ValueError outside of it."""
    stations = satellite.stations()
    telescopes = (satellite.telescopes(), satellite.telescopes())
    first, second = double_downlink_transmission(satellite.height_m, stations, telescopes, at_s)
    through = first * second
    detected = through * satellite.detector_efficiency**2
    return PassMoment(
        at_s=at_s,
        elevations_deg=(
            elevation_deg(satellite.height_m, stations[0], at_s),
            elevation_deg(satellite.height_m, stations[1], at_s),
        ),
        loss_db=loss_db(detected),
        rate_hz=satellite.source_pairs_hz * detected,
        plob_rate_hz=satellite.source_pairs_hz * repeaterless_bound(through),
    )


class PassFigures(NamedTuple):
    """A whole pass: how long it can be used, the loss at its middle, the pairs it gives."""

    window_s: float
    loss_db: float
    pairs: float


def pass_figures(satellite: SatelliteProfile) -> PassFigures:
    """Of one pass, both detectors included."""
    window = satellite.window()
    assert window is not None, "a profile without a window is refused when it is read"
    telescopes = (satellite.telescopes(), satellite.telescopes())
    pairs = pairs_in_pass(
        satellite.source_pairs_hz * satellite.detector_efficiency**2,
        satellite.height_m,
        satellite.stations(),
        telescopes,
        elevation_min_deg=satellite.elevation_min_deg,
    )
    middle = (window.begin_s + window.end_s) / 2.0
    return PassFigures(window.length_s, pass_moment(satellite, middle).loss_db, pairs)


class AirFigures(NamedTuple):
    """A horizontal path: its loss, and the bound of what one use of it carries."""

    loss_db: float
    plob_bits: float


def air_figures(channel: FreeSpaceProfile, length_m: float) -> AirFigures:
    """Over this distance. Raises ValueError for a length not above 0."""
    share = free_space_transmission(length_m, channel.telescopes(), channel.attenuation_db_per_km)
    return AirFigures(loss_db(share), repeaterless_bound(share))
