"""From the link tables of NETWORK.toml to link hardware: what the physics of a link allows.

Each link is judged by itself, with the profiles of its two nodes.
"""

from collections.abc import Container, Mapping
from typing import Any, Final

from msgspec import structs

from qstack.physical.clock_hardware import read_timing
from qstack.physical.detector_hardware import (
    ReceiverDetectors,
    read_detectors,
    read_station_detectors,
)
from qstack.physical.document import DocumentError, shown
from qstack.physical.drift_hardware import read_drift
from qstack.physical.hardware import TRAIN_SCHEMES, LinkHardware
from qstack.physical.link_equipment import SCHEME_OF, TABLE_OF, Equipment, read_equipment
from qstack.physical.link_options import AIR_GROUP_INDEX, AirChannel
from qstack.physical.models.fibre import fibre_delay_ns, silica_attenuation_db_per_km
from qstack.physical.models.pair_source import gain
from qstack.physical.params import DETECTIONS_MAX_HZ
from qstack.physical.profile import Profile
from qstack.physical.profile_kinds import AnyProfile, MemoryProfile, SourceProfile, kind_of
from qstack.physical.retrieved_photon import RetrievedPhotonEquipment
from qstack.physical.source_hardware import PairSourceHardware, read_pair_source
from qstack.runtime.network_options import LinkOptions, LoadProfile, read_options
from qstack.runtime.network_stations import named_station
from qstack.runtime.network_tables import MIDPOINT, LinkTable

UNCONVERTED_LOSS_MAX_DB: Final = 40.0
"""Over the whole fibre, where a converter would help: 637 nm loses 50 dB on 10 km."""
LOSS_MAX_DB: Final = 100.0
"""Over the whole fibre at any wavelength (500 km of telecom fibre): beyond it an attempt succeeds
about once in 1e17, and the number of attempts leaves 64 bits."""
MEETING_SCHEMES: Final = ("single-click", "double-click", "absorptive-memory", "retrieved-photon")
"""Those whose photons meet in the station, and must come in time."""
SUCCESS_MIN: Final = 1e-18
"""Of an attempt, or a slot: whatever makes it smaller, the number of attempts leaves 64 bits."""
LOSSY_DB_PER_KM: Final = 1.0  # above this a fibre is not in a telecom band
SILICA_SHARE_MIN: Final = 0.5  # the best fibres made lose 0.7 of what the table says


def build_link(
    index: int,
    table: LinkTable,
    profiles: Mapping[str, Profile],
    clocked: Container[str],
    load: LoadProfile,
    problems: list[str],
) -> LinkHardware | None:
    """The hardware of link number `index`; None, and lines in `problems`, if it cannot be.

    `clocked` are the nodes whose clocks are not perfect; `load` finds profiles of what links have.
    """
    link = _build_steady(index, table, profiles, load, problems)
    path = f"link[{index}]"
    are_clocked = any(end in clocked for end in table.ends)
    meets = table.scheme in MEETING_SCHEMES
    if table.timing is None and meets and are_clocked:
        problems.append(
            f"{path}.timing: is missing; expected a table [link.timing], for a node at its end has "
            "a clock that is not perfect"
        )
    timing, drift = None, None
    if table.timing is not None:
        timing = read_timing(table.timing, f"{path}.timing", problems)
        if timing is not None and table.ends[0] > table.ends[1]:
            timing = timing.turned()
    if table.station_detectors is not None:
        at = f"{path}.station_detectors"
        if table.scheme not in TRAIN_SCHEMES:
            problems.append(
                f'{at}: no train of modes meets in the station of scheme "{table.scheme}"; '
                "expected none"
            )
            return None
        dead = read_station_detectors(table.station_detectors, at, problems)
        link = None if link is None else structs.replace(link, station_detectors=dead)
    if table.drift is not None:
        drift = read_drift(table.drift, f"{path}.drift", problems)
        if drift is not None and drift.delay_ps_per_s and table.timing is None:
            problems.append(
                f"{path}.timing: is missing; expected a table [link.timing], for its delay drifts"
            )
        if drift is not None and table.scheme == "spdc" and drift.lock_duty != 1.0:
            problems.append(
                f"{path}.drift.lock_duty.value: {drift.lock_duty:g}, and the slots of a pair "
                "source come one after another; expected 1"
            )
    return None if link is None else structs.replace(link, timing=timing, drift=drift)


def _build_steady(
    index: int,
    table: LinkTable,
    profiles: Mapping[str, Profile],
    load: LoadProfile,
    problems: list[str],
) -> LinkHardware | None:
    """The link with perfect clocks, and without drift."""
    path = f"link[{index}]"
    options = read_options(table, path, load, problems)
    if options is None:
        return None
    if isinstance(options.channel, AirChannel):
        table = structs.replace(table, group_index=AIR_GROUP_INDEX)
    arms_m = _arms(table, path, problems)
    if (table.scheme == "spdc") != (table.pair_source is not None):
        problems.append(_misplaced_source(table, path))
        return None
    if not _has_its_equipment_alone(table, path, problems):
        return None
    if table.detectors is not None and table.pair_source is None:
        problems.append(
            f'{path}.detectors: a link of scheme "{table.scheme}" has no receivers; expected none'
        )
        return None
    if table.pair_source is not None:
        source, arm_loss_db = _pair_source(table.pair_source, f"{path}.pair_source", load, problems)
        if source is None or arms_m is None:
            return None
        table = structs.replace(table, extra_loss_db=table.extra_loss_db + arm_loss_db)
        advice = "a source in a telecom band (pair_source.wavelength_nm)"
        attenuation = _attenuation(table, source.wavelength_nm, advice, path, problems)
        if attenuation is None:
            return None
        detectors = _detectors(table, source, f"{path}.detectors", problems)
        link = structs.replace(
            _link(table, arms_m, attenuation, options, source), detectors=detectors
        )
        return _of_bearable_rate(link, path, problems)
    ends = [profiles.get(end) for end in table.ends]
    first, second = ends
    for kind, name in TABLE_OF.items():
        raw = getattr(table, name)
        if raw is not None:
            equipment = _equipment(kind, raw, f"{path}.{name}", load, problems)
            if equipment is None or arms_m is None:
                return None
            advice = f"light in a telecom band ({name}.wavelength_nm)"
            attenuation = _attenuation(table, equipment.wavelength_nm, advice, path, problems)
            if attenuation is None or first is None or second is None:
                return None
            equipped = _link(table, arms_m, attenuation, options, None, equipment)
            where = f"numbers of {name}"  # the order of the ends is no matter: both are alike
            return _of_hope(equipped, (first, second), path, problems, where)
    if first is None or second is None:
        return None  # the node's own problem is reported already
    if not _can_interfere(table, first, second, path, problems):
        return None
    advice = (
        "a profile with a converter to telecom (converted_to_nm = 1550)"
        if first.converted_to_nm is None
        else "converted_to_nm in a telecom band"
    )
    attenuation = _attenuation(table, first.fibre_nm, advice, path, problems)
    if arms_m is None or attenuation is None:
        return None
    ordered = (first, second) if table.ends[0] < table.ends[1] else (second, first)
    return _of_hope(_link(table, arms_m, attenuation, options), ordered, path, problems)


def _link(
    table: LinkTable,
    arms_m: tuple[float, float],
    attenuation_db_per_km: float,
    options: LinkOptions,
    source: PairSourceHardware | None = None,
    equipment: Equipment | None = None,
) -> LinkHardware:
    swap = table.ends[0] > table.ends[1]
    low, high = sorted(table.ends)
    return LinkHardware(
        ends=(low, high),
        length_m=table.length_m,
        arms_m=(arms_m[1], arms_m[0]) if swap else arms_m,
        scheme=table.scheme,
        attenuation_db_per_km=attenuation_db_per_km,
        group_index=table.group_index,
        extra_loss_db=table.extra_loss_db,
        source=source,
        equipment=equipment,
        station=named_station(table),
        channel=options.channel,
        switch=options.switch,
        traffic=options.traffic,
    )


def _equipment(
    kind: type[Equipment],
    raw: dict[str, Any],
    path: str,
    load: LoadProfile,
    problems: list[str],
) -> Equipment | None:
    """What a link has beside fibre; the memory that is read into it is a profile of its own."""
    if kind is not RetrievedPhotonEquipment:
        return read_equipment(kind, raw, path, problems)
    numbers = {key: value for key, value in raw.items() if key != "memory"}
    memory = _memory(raw.get("memory"), f"{path}.memory", load, problems)
    return read_equipment(kind, numbers, path, problems, memory=memory)


def _memory(
    reference: object, path: str, load: LoadProfile, problems: list[str]
) -> MemoryProfile | None:
    what = "the name of a packaged profile of a memory, or the path of a profile file"
    if reference is None:
        problems.append(f"{path}: is missing; expected {what}")
        return None
    if not isinstance(reference, str) or not 1 <= len(reference) <= 1000:
        problems.append(f"{path}: {shown(reference)} is not allowed; expected {what}")
        return None
    profile = _profile(reference, path, load, problems)
    if profile is not None and not isinstance(profile, MemoryProfile):
        problems.append(
            f'{path}: {shown(reference)} is of kind "{kind_of(profile)}"; expected a profile of a '
            "memory"
        )
        return None
    return profile


def _profile(
    reference: str, path: str, load: LoadProfile, problems: list[str]
) -> AnyProfile | None:
    try:
        return load(reference)
    except DocumentError as error:
        problems += [f"{path}: {error.where}: {line}" for line in error.problems]
        return None


def _pair_source(
    raw: dict[str, Any] | str, path: str, load: LoadProfile, problems: list[str]
) -> tuple[PairSourceHardware | None, float]:
    """The source of a table, or of the profile that is named; and what that loses in each arm."""
    if isinstance(raw, dict):
        return read_pair_source(raw, path, problems), 0.0
    profile = _profile(raw, path, load, problems)
    if profile is None:
        return None, 0.0
    if not isinstance(profile, SourceProfile):
        problems.append(
            f'{path}: {shown(raw)} is of kind "{kind_of(profile)}"; expected a profile of a source'
        )
        return None, 0.0
    return profile.hardware(), profile.arm_loss_db


def _detectors(
    table: LinkTable, source: PairSourceHardware, path: str, problems: list[str]
) -> ReceiverDetectors | None:
    """Both receivers' detectors; None if they are ideal, or cannot be."""
    if table.detectors is None:
        return None
    detectors = read_detectors(table.detectors, source, path, problems)
    if detectors is None or table.ends[0] < table.ends[1]:
        return detectors
    return detectors.turned()


def _has_its_equipment_alone(table: LinkTable, path: str, problems: list[str]) -> bool:
    """Whether the table of the scheme is there and no other one."""
    is_good = True
    for kind, name in TABLE_OF.items():
        scheme = SCHEME_OF[kind]
        is_there = getattr(table, name) is not None
        if is_there and table.scheme != scheme:
            problems.append(
                f'{path}.{name}: is not for a link of scheme "{table.scheme}"; expected none, or '
                f'scheme = "{scheme}"'
            )
            is_good = False
        if table.scheme == scheme and not is_there:
            problems.append(
                f"{path}.{name}: is missing; expected a table [link.{name}] for a link of scheme "
                f'"{scheme}"'
            )
            is_good = False
    return is_good


def _misplaced_source(table: LinkTable, path: str) -> str:
    if table.pair_source is None:
        return (
            f"{path}.pair_source: is missing; expected a table [link.pair_source] with the source "
            'and receivers of a link of scheme "spdc"'
        )
    return (
        f'{path}.pair_source: a link of scheme "{table.scheme}" has no source; expected none, '
        'or scheme = "spdc"'
    )


def _of_hope(
    link: LinkHardware,
    ends: tuple[Profile, Profile],
    path: str,
    problems: list[str],
    where: str = "coupling of the profiles",
) -> LinkHardware | None:
    """The heralded link, unless no attempt on it will ever succeed."""
    try:
        probability = link.herald(*ends).probability
    except ValueError:
        probability = 0.0
    if probability >= SUCCESS_MIN:
        return link
    problems.append(_hopeless(f"{path}.ends: an attempt", probability, where))
    return None


def _hopeless(what: str, probability: float, where: str) -> str:
    return (
        f"{what} succeeds with a probability of {probability:.2g}; expected at least "
        f"{SUCCESS_MIN:g}: see the {where}"
    )


def _of_bearable_rate(link: LinkHardware, path: str, problems: list[str]) -> LinkHardware | None:
    """The photon-pair link, unless its detectors click too often to follow, or never together."""
    assert link.source is not None
    try:
        source = link.pair_source()
    except ValueError:  # so little arrives that it is 0
        source = None
    probability = 0.0 if source is None else gain(source)
    if source is None or probability < SUCCESS_MIN:
        what = f"{path}.pair_source.detector_efficiency.value: a slot"
        problems.append(_hopeless(what, probability, "receivers and the loss in the arms"))
        return None
    for end, efficiency, dark in zip(
        link.ends, source.efficiencies, source.backgrounds, strict=True
    ):
        click = 1.0 - (1.0 - dark) / (1.0 + efficiency * source.mean_pairs) ** 2
        rate_hz = click * link.source.slot_rate_hz
        if rate_hz > DETECTIONS_MAX_HZ:
            problems.append(
                f"{path}.pair_source.slot_rate_hz.value: the receiver at {end} detects "
                f"{rate_hz:.2g} photons a second; expected at most {DETECTIONS_MAX_HZ:g}: fewer "
                "slots, or a lower pair_parameter"
            )
            return None
    return link


def _arms(table: LinkTable, path: str, problems: list[str]) -> tuple[float, float] | None:
    """Metres from each end, as in the file, to the station."""
    arm_min_m = 1.0 / fibre_delay_ns(1.0, table.group_index)
    if fibre_delay_ns(table.length_m / 2.0, table.group_index) < 1.0:
        problems.append(
            f"{path}.length_m: {table.length_m} m are less than 1 ns from node to station; "
            f"expected at least {2 * arm_min_m:.2f} m, for every delay is at least 1 ns"
        )
        return None
    name = named_station(table)
    place = table.station if name is None else table.station_m
    if place in (MIDPOINT, None):
        return table.length_m / 2.0, table.length_m / 2.0
    key = "station" if name is None else "station_m"
    station_m = float(place)
    arms_m = (station_m, table.length_m - station_m)
    if arms_m[1] < 0.0:
        problems.append(
            f"{path}.{key}: {station_m} m is beyond the fibre's {table.length_m} m; "
            'expected "midpoint" or metres from the first end'
        )
        return None
    if any(fibre_delay_ns(arm_m, table.group_index) < 1.0 for arm_m in arms_m):
        problems.append(
            f"{path}.{key}: {station_m} m leaves less than 1 ns to one end; expected "
            f"{arm_min_m:.2f} m of fibre or more to either, for every delay is at least 1 ns"
        )
        return None
    return arms_m


def _can_interfere(
    table: LinkTable, first: Profile, second: Profile, path: str, problems: list[str]
) -> bool:
    if first.platform != second.platform:
        problems.append(
            f'{path}.ends: "{table.ends[0]}" is {first.platform} and "{table.ends[1]}" is '
            f"{second.platform}; expected one platform at both ends of a heralded link"
        )
        return False
    if first.fibre_nm != second.fibre_nm:
        problems.append(
            f"{path}.ends: photons of {first.fibre_nm:g} nm and {second.fibre_nm:g} nm meet, and "
            "cannot interfere; expected one wavelength, or converters (converted_to_nm)"
        )
        return False
    return True


def _attenuation(
    table: LinkTable, wavelength_nm: float, advice: str, path: str, problems: list[str]
) -> float | None:
    """Decibels per kilometre for the photons of this link; `advice` is for where they get lost.

    0 where they do not go through fibre.
    """
    if table.channel is not None:
        return 0.0
    silica = silica_attenuation_db_per_km(wavelength_nm)
    attenuation = silica if table.attenuation_db_per_km is None else table.attenuation_db_per_km
    least = SILICA_SHARE_MIN * silica
    if attenuation < least:
        problems.append(
            f"{path}.attenuation_db_per_km: {attenuation:g} dB/km cannot be at "
            f"{wavelength_nm:g} nm, where fibre loses about {silica:g}; expected at least "
            f"{least:g}, or {advice}"
        )
        return None
    fibre_db = attenuation * table.length_m / 1000.0
    if attenuation > LOSSY_DB_PER_KM and fibre_db > UNCONVERTED_LOSS_MAX_DB:
        longest_m = 1000.0 * UNCONVERTED_LOSS_MAX_DB / attenuation
        problems.append(
            f"{path}.length_m: photons of {wavelength_nm:g} nm lose {fibre_db:.0f} dB on "
            f"{table.length_m:g} m of fibre; expected {advice}, or at most {longest_m:.0f} m"
        )
        return None
    loss_db = fibre_db + 2.0 * table.extra_loss_db
    if loss_db > LOSS_MAX_DB:
        problems.append(
            f"{path}.length_m: photons lose {loss_db:.0f} dB on {table.length_m:g} m of fibre; "
            f"expected at most {LOSS_MAX_DB:g} dB: a shorter link, with repeaters between"
        )
        return None
    return attenuation
