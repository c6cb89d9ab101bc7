"""From the tables `channel`, `switch` and `classical_traffic` of a link to what they mean.

As everywhere in a network file, all that is wrong is a line each: the key's path, what is wrong,
and what was expected.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta, Struct

from qstack.physical.document import DocumentError, listed, nearest, read_table, shown
from qstack.physical.hardware import SATELLITE_SCHEMES
from qstack.physical.link_options import (
    AirChannel,
    ClassicalTraffic,
    ClickShare,
    Filter,
    FirstPass,
    LinkChannel,
    PassChannel,
    PassInterval,
    Power,
    Raman,
    Signal,
    Switch,
    Window,
)
from qstack.physical.profile_kinds import AnyProfile, FreeSpaceProfile, SatelliteProfile, kind_of
from qstack.runtime.network_tables import LinkTable

LoadProfile = Callable[[str], AnyProfile]
"""A profile of any kind by its name or path. Raises `DocumentError`."""

PLACE_OF_EFFICIENCY: Final = {
    "spdc": "pair_source.detector_efficiency",
    "midpoint-source": "midpoint_source.latch_efficiency",
}
"""Schemes whose tables say how well a noise photon is detected."""

ProfileReference = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1000,
        description="the name of a packaged profile of a channel, or the path of a profile file",
    ),
]
EndName = Annotated[str, Meta(max_length=63, description="the name of one end of the link")]
Signals = Annotated[
    list[Any],
    Meta(
        min_length=1,
        max_length=200,
        description="a list of 1 to 200 signals { launched_at = ..., power_dbm = ... }",
    ),
]


class _ChannelTable(Struct, frozen=True, kw_only=True):
    profile: ProfileReference
    first_pass_s: FirstPass | None = None
    pass_interval_s: PassInterval | None = None


class _SignalTable(Struct, frozen=True, kw_only=True):
    launched_at: EndName
    power_dbm: Power


class _TrafficTable(Struct, frozen=True, kw_only=True):
    filter_nm: Filter
    window_ns: Window
    raman_per_km_nm: Raman
    signals: Signals
    detector_efficiency: ClickShare | None = None


class LinkOptions(NamedTuple):
    """What a link has beside fibre, or in its place."""

    channel: LinkChannel | None
    switch: Switch | None
    traffic: ClassicalTraffic | None


def read_options(
    table: LinkTable, path: str, load: LoadProfile, problems: list[str]
) -> LinkOptions | None:
    """The options of a link; None, and lines in `problems`, if they cannot be."""
    before = len(problems)
    channel = None
    if table.channel is not None:
        channel = _channel(table, f"{path}.channel", load, problems)
    switch = None
    if table.switch is not None:
        switch = read_table(table.switch, Switch, f"{path}.switch", problems)
    traffic = None
    if table.classical_traffic is not None:
        traffic = _traffic(table, f"{path}.classical_traffic", problems)
    return None if len(problems) > before else LinkOptions(channel, switch, traffic)


def unlike_switches(switches: Mapping[int, Switch]) -> list[str]:
    """Lines for links, by their place in the file, that say different things of one switch."""
    first: dict[str, int] = {}
    problems = []
    for index, switch in switches.items():
        other = first.setdefault(switch.name, index)
        if switch.crosstalk_db != switches[other].crosstalk_db:
            problems.append(
                f"link[{index}].switch.crosstalk_db: {switch.crosstalk_db}, and link[{other}] says "
                f"{switches[other].crosstalk_db} of the same switch {shown(switch.name)}; expected "
                "one figure, or another name"
            )
        if switch.reconfiguration_ns != switches[other].reconfiguration_ns:
            problems.append(
                f"link[{index}].switch.reconfiguration_ns: {switch.reconfiguration_ns} ns, and "
                f"link[{other}] says {switches[other].reconfiguration_ns} ns of the same switch "
                f"{shown(switch.name)}; expected one time, or another name"
            )
    return problems


def _channel(
    table: LinkTable, path: str, load: LoadProfile, problems: list[str]
) -> LinkChannel | None:
    read = read_table(table.channel, _ChannelTable, path, problems)
    if read is None:
        return None
    before = len(problems)
    if table.attenuation_db_per_km is not None:
        problems.append(
            f"{path.removesuffix('.channel')}.attenuation_db_per_km: is of fibre, and the light of "
            "this link goes through the channel; expected none"
        )
    try:
        profile = load(read.profile)
    except DocumentError as error:
        problems += [f"{path}.profile: {error.where}: {line}" for line in error.problems]
        return None
    if isinstance(profile, FreeSpaceProfile):
        problems += [
            f"{path}.{key}: a path through air is there at all times; expected none"
            for key in ("first_pass_s", "pass_interval_s")
            if getattr(read, key) is not None
        ]
        return AirChannel(profile=profile) if len(problems) == before else None
    if not isinstance(profile, SatelliteProfile):
        problems.append(
            f'{path}.profile: {shown(read.profile)} is of kind "{kind_of(profile)}"; expected a '
            "profile of a channel"
        )
        return None
    problems += _wrong_passes(table, read, profile, path)
    if len(problems) > before or read.first_pass_s is None or read.pass_interval_s is None:
        return None
    return PassChannel(
        profile=profile,
        first_pass_s=read.first_pass_s,
        pass_interval_s=read.pass_interval_s,
        is_turned=table.ends[0] > table.ends[1],
    )


def _wrong_passes(
    table: LinkTable, read: _ChannelTable, profile: SatelliteProfile, path: str
) -> list[str]:
    link = path.removesuffix(".channel")
    problems = []
    if table.scheme not in SATELLITE_SCHEMES:
        problems.append(
            f'{link}.scheme: "{table.scheme}" over a satellite; expected "spdc" or '
            '"midpoint-source": its source aboard sends pairs to both ends'
        )
    if table.station != "midpoint":
        problems.append(
            f"{link}.station: {shown(table.station)}: the source is aboard the satellite; expected "
            '"midpoint"'
        )
    for key, what in (
        ("first_pass_s", "seconds of network time to the middle of the first pass"),
        ("pass_interval_s", "seconds from one pass to the next"),
    ):
        if getattr(read, key) is None:
            problems.append(f"{path}.{key}: is missing; expected {what}")
    window = profile.window()
    interval_s = read.pass_interval_s
    if window is not None and interval_s is not None and interval_s < window.length_s:
        problems.append(
            f"{path}.pass_interval_s: {interval_s:g} s from pass to pass, and one takes "
            f"{window.length_s:.0f} s; expected at least that"
        )
    return problems


def _traffic(table: LinkTable, path: str, problems: list[str]) -> ClassicalTraffic | None:
    read = read_table(table.classical_traffic, _TrafficTable, path, problems)
    if read is None:
        return None
    before = len(problems)
    if table.channel is not None:
        problems.append(
            f"{path}: classical light scatters in fibre, and this link goes through a channel of "
            "its own; expected no such table"
        )
    elsewhere = PLACE_OF_EFFICIENCY.get(table.scheme)
    if elsewhere is None and read.detector_efficiency is None:
        problems.append(
            f"{path}.detector_efficiency: is missing; expected a probability, above 0, at most 1: "
            "that of the detectors in the station"
        )
    if elsewhere is not None and read.detector_efficiency is not None:
        problems.append(f"{path}.detector_efficiency: is {elsewhere} of this link; expected none")
    signals = [
        signal
        for place, raw in enumerate(read.signals)
        if (signal := _signal(raw, table.ends, f"{path}.signals[{place}]", problems)) is not None
    ]
    if len(problems) > before:
        return None
    return ClassicalTraffic(
        filter_nm=read.filter_nm,
        window_ns=read.window_ns,
        raman_per_km_nm=read.raman_per_km_nm,
        signals=tuple(signals),
        detector_efficiency=read.detector_efficiency,
    )


def _signal(raw: object, ends: tuple[str, str], path: str, problems: list[str]) -> Signal | None:
    read = read_table(raw, _SignalTable, path, problems)
    if read is None:
        return None
    if read.launched_at not in ends:
        similar = nearest(read.launched_at, ends)
        hint = f'did you mean "{similar}"?' if similar else f"expected one of {listed(ends)}"
        problems.append(f"{path}.launched_at: {shown(read.launched_at)} is no end; {hint}")
        return None
    return Signal(launched_at=read.launched_at, power_dbm=read.power_dbm)
