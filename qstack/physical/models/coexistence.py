"""A quantum channel in a fibre that carries classical light too: noise photons, and their cost.

Spontaneous Raman scattering goes both ways along the fibre. Forward is at the far end of the
classical launch, backward at the launch itself. P rho dl L e^(-aL) and P rho dl (1-e^(-2aL))/2a,
a in 1/km, for equal attenuation of both wavelengths. rho depends on the wavelengths and the
fibre: (1-5)e-9 /(km nm) within the C band (recalled), an input and not a constant; from the C
band down to 1310 nm it is two to three orders smaller.
"""

import math
from typing import Literal, NamedTuple

from qstack.physical.models.detector import noise_probability
from qstack.physical.models.fibre import LIGHT_M_PER_S, TELECOM_ATTENUATION_DB_PER_KM
from qstack.physical.models.ranges import (
    require_finite,
    require_not_negative,
    require_positive,
    require_unit,
)

PLANCK_J_S = 6.626_070_15e-34

Direction = Literal["forward", "backward"]


class ClassicalLight(NamedTuple):
    """One classical signal beside the quantum channel; powers as launched."""

    power_dbm: float
    direction: Direction
    """As seen from the quantum receiver: `forward` comes towards it with the quantum light."""
    raman_per_km_nm: float = 2.5e-9


def milliwatts(power_dbm: float) -> float:
    """0 dBm is 1 mW. Raises ValueError for a power that is not finite."""
    require_finite(power_dbm=power_dbm)
    return float(10.0 ** (power_dbm / 10.0))


def photons_per_s(power_w: float, wavelength_nm: float) -> float:
    """P / (h c / lambda). Raises ValueError for a negative power or no wavelength."""
    require_not_negative(power_w=power_w)
    require_positive(wavelength_nm=wavelength_nm)
    return power_w * wavelength_nm * 1e-9 / (PLANCK_J_S * LIGHT_M_PER_S)


def raman_power_w(
    light: ClassicalLight,
    length_m: float,
    filter_nm: float,
    attenuation_db_per_km: float = TELECOM_ATTENUATION_DB_PER_KM,
) -> float:
    """Scattered power in the filter of the quantum channel, at the receiver's end of the fibre.

    Raises ValueError for a value out of range or a direction of another name.
    """
    require_not_negative(
        length_m=length_m,
        filter_nm=filter_nm,
        attenuation_db_per_km=attenuation_db_per_km,
        raman_per_km_nm=light.raman_per_km_nm,
    )
    length_km = length_m / 1000.0
    loss_per_km = attenuation_db_per_km * math.log(10.0) / 10.0
    launched_w = milliwatts(light.power_dbm) * 1e-3 * light.raman_per_km_nm * filter_nm
    if light.direction == "forward":
        return launched_w * length_km * math.exp(-loss_per_km * length_km)
    if light.direction == "backward":
        if loss_per_km == 0.0:
            return launched_w * length_km
        return launched_w * -math.expm1(-2.0 * loss_per_km * length_km) / (2.0 * loss_per_km)
    raise ValueError(f"light goes forward or backward, not {light.direction!r}")


def raman_photons_hz(
    lights: tuple[ClassicalLight, ...],
    length_m: float,
    filter_nm: float,
    *,
    wavelength_nm: float,
    attenuation_db_per_km: float = TELECOM_ATTENUATION_DB_PER_KM,
) -> float:
    """Noise photons a second of all classical signals together, at the receiver's end."""
    return sum(
        photons_per_s(
            raman_power_w(light, length_m, filter_nm, attenuation_db_per_km), wavelength_nm
        )
        for light in lights
    )


def raman_dark_probability(
    photons_hz: float, window_s: float, efficiency: float, *, share_of_modes: float = 1.0
) -> float:
    """Of a noise click per window in one detector that gets `share_of_modes` of the photons.

    Raman light is spread over both polarisations: a detector behind a polariser has half of it, and
    one of two behind a splitter half of that. Raises ValueError for a value out of range.
    """
    require_unit(efficiency=efficiency, share_of_modes=share_of_modes)
    return noise_probability(photons_hz * efficiency * share_of_modes, window_s)


def qber_with_noise(signal_hz: float, noise_hz: float, misalignment: float) -> float:
    """Errors of coincidences: signal errs with `misalignment`, noise half the time.

    (e S + N/2) / (S + N). Raises ValueError for a value out of range, or no coincidences at all.
    """
    require_not_negative(signal_hz=signal_hz, noise_hz=noise_hz)
    require_unit(misalignment=misalignment)
    require_positive(coincidences_hz=signal_hz + noise_hz)
    return (misalignment * signal_hz + noise_hz / 2.0) / (signal_hz + noise_hz)
