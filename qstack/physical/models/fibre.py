"""Optical fibre: what of a photon gets through, how late, and how that drifts. Switches too.

Losses are in decibels, 10 log10 of the ratio of powers: transmission 10^(-dB/10). Where a figure
is not the reader's own measurement it should be the datasheet's of the fibre laid: `FIBRES` has
some, each with its source.
"""

from itertools import pairwise
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from qstack.physical.models.ranges import (
    require_at_least,
    require_finite,
    require_not_negative,
)

LIGHT_M_PER_S: Final = 299_792_458
TELECOM_ATTENUATION_DB_PER_KM: Final = 0.2
STANDARD_GROUP_INDEX: Final = 1.468
THERMAL_DRIFT_PS_PER_KM_K: Final = 40.0
"""Delay of standard single-mode fibre per kilometre and kelvin (recalled, 37 to 40)."""

SILICA_ATTENUATION: Final = (
    (100.0, 1000.0),
    (370.0, 60.0),
    (422.0, 30.0),
    (493.0, 17.0),
    (532.0, 12.0),
    (580.0, 8.0),
    (637.0, 5.0),
    (737.0, 4.0),
    (780.0, 3.5),
    (854.0, 2.2),
    (980.0, 1.2),
    (1092.0, 0.8),
    (1310.0, 0.35),
    (1550.0, 0.2),
    (1600.0, 0.2),
    (1650.0, 0.3),
    (1750.0, 2.0),
    (2000.0, 20.0),
    (2500.0, 1000.0),
)
"""(nm, dB/km) of the single-mode silica fibre one would lay for that wavelength. 637 nm and
1550 nm are the values of the 2019 QuTech parameter set; the others are recalled to about 30 %."""


class FibreType(NamedTuple):
    """A fibre of a datasheet: `attenuation` is (nm, dB/km), the largest the maker allows."""

    attenuation: tuple[tuple[float, float], ...]
    source: str
    mark: Literal["published", "recalled"]


FIBRES: Final = {
    "G.652.D": FibreType(
        ((1310.0, 0.34), (1383.0, 0.34), (1550.0, 0.20), (1625.0, 0.23)),
        "datasheet of a G.652.D fibre (HNK Optic); the recommendation itself allows 0.40 and 0.30",
        "published",
    ),
    "SMF-28-ULL": FibreType(
        ((1310.0, 0.31), (1550.0, 0.17), (1625.0, 0.20)),
        "Corning product information PI1470 (July 2014)",
        "published",
    ),
    "silica-core-record": FibreType(
        ((1550.0, 0.1424), (1560.0, 0.1419)), "Tamura and others, JLT 36, 44 (2018)", "recalled"
    ),
    "780HP": FibreType(((780.0, 4.0), (850.0, 3.5)), "datasheet of the maker (Nufern)", "recalled"),
    "630HP": FibreType(((630.0, 12.0),), "datasheet of the maker (Nufern)", "recalled"),
}
"""Fibres by name. Between the wavelengths of a datasheet the loss is not read off."""


def silica_attenuation_db_per_km(wavelength_nm: float) -> float:
    """What silica fibre loses at a wavelength (dB/km), between the rows of the table linearly."""
    rows = SILICA_ATTENUATION
    if wavelength_nm <= rows[0][0]:
        return rows[0][1]
    for (low_nm, low_db), (high_nm, high_db) in pairwise(rows):
        if wavelength_nm <= high_nm:
            share = (wavelength_nm - low_nm) / (high_nm - low_nm)
            return low_db + share * (high_db - low_db)
    return rows[-1][1]


def datasheet_attenuation_db_per_km(fibre: str, wavelength_nm: float) -> float:
    """What the datasheet of a fibre in `FIBRES` says for a wavelength it lists, within 5 nm.

    Raises ValueError for a fibre that is not there, or a wavelength its datasheet does not list.
    """
    if fibre not in FIBRES:
        raise ValueError(f"no fibre {fibre!r}; there are {', '.join(FIBRES)}")
    rows = FIBRES[fibre].attenuation
    nearest_nm, attenuation = min(rows, key=lambda row: abs(row[0] - wavelength_nm))
    if not abs(nearest_nm - wavelength_nm) <= 5.0:
        listed = ", ".join(f"{row[0]:g}" for row in rows)
        raise ValueError(f"{fibre} is specified at {listed} nm, not at {wavelength_nm:g} nm")
    return attenuation


def transmission(loss_db: float) -> float:
    """10^(-loss/10). Raises ValueError for a negative or infinite loss."""
    require_not_negative(loss_db=loss_db)
    return float(10.0 ** (-loss_db / 10.0))


def fibre_loss_db(
    length_m: float,
    attenuation_db_per_km: float = TELECOM_ATTENUATION_DB_PER_KM,
    *,
    connectors: int = 0,
    connector_db: float = 0.3,
    splices: int = 0,
    splice_db: float = 0.05,
) -> float:
    """Attenuation x length, and what connectors and splices add (typical losses by default).

    Raises ValueError for anything negative or infinite.
    """
    require_not_negative(
        length_m=length_m,
        attenuation_db_per_km=attenuation_db_per_km,
        connectors=connectors,
        connector_db=connector_db,
        splices=splices,
        splice_db=splice_db,
    )
    points_db = connectors * connector_db + splices * splice_db
    return attenuation_db_per_km * length_m / 1000.0 + points_db


def fibre_delay_ns(length_m: float, group_index: float = STANDARD_GROUP_INDEX) -> float:
    """How long light takes through `length_m` of fibre: L n / c, in nanoseconds, not rounded."""
    return length_m * group_index * 1e9 / LIGHT_M_PER_S


def thermal_drift_ns(
    length_m: float,
    temperature_change_k: float,
    drift_ps_per_km_k: float = THERMAL_DRIFT_PS_PER_KM_K,
) -> float:
    """How much later (ns; earlier if negative) light arrives one way after a change of temperature.

    A two-way measurement over the same fibre does not see it as an offset. Raises ValueError for a
    negative length or coefficient, or a change that is not finite.
    """
    require_not_negative(length_m=length_m, drift_ps_per_km_k=drift_ps_per_km_k)
    require_finite(temperature_change_k=temperature_change_k)
    return drift_ps_per_km_k * 1e-3 * length_m / 1000.0 * temperature_change_k


class OpticalSwitch(Struct, frozen=True, kw_only=True):
    """A switch in the path: what it loses, leaks and how long it takes to be set anew.

    Typical (recalled): MEMS 0.5 to 1.5 dB and 10 ms, piezo 1 dB and 1 ms, electro-optic 3 dB and
    100 ns; crosstalk 50 dB or more below. Raises ValueError for a negative value.
    """

    insertion_loss_db: float
    reconfiguration_ns: int
    crosstalk_db: float

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require_not_negative(
            insertion_loss_db=self.insertion_loss_db,
            reconfiguration_ns=self.reconfiguration_ns,
            crosstalk_db=self.crosstalk_db,
        )

    @property
    def transmission(self) -> float:
        """Of the port that is set."""
        return transmission(self.insertion_loss_db)

    @property
    def leakage(self) -> float:
        """Of a port that is not set: beside the loss, the crosstalk."""
        return transmission(self.insertion_loss_db + self.crosstalk_db)

    def duty(self, dwell_ns: int) -> float:
        """The share of time a port is usable when each setting is kept `dwell_ns`.

        Raises ValueError unless that is at least 1 ns.
        """
        require_at_least(1, dwell_ns=dwell_ns)
        return dwell_ns / (dwell_ns + self.reconfiguration_ns)
