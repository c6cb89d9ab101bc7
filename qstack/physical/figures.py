"""What a hardware profile is worth: pairs over a fibre, and a half that waits in memory.

Two like nodes, a station in the middle, silica fibre for the photon's wavelength, nothing but the
profile. For comparing hardware; a network's own links have lengths and losses of their own.
"""

from typing import NamedTuple

from qstack.physical.hardware import LinkHardware, Scheme
from qstack.physical.models.fibre import silica_attenuation_db_per_km, transmission
from qstack.physical.models.rates import repeaterless_bound
from qstack.physical.models.storage import waiting
from qstack.physical.profile import Profile
from qstack.quantum.bell import bell_state, fidelity
from qstack.quantum.state import apply


class PairFigures(NamedTuple):
    """One link between two such nodes.

    `probability` of an attempt and `cycle_ns` from one to the next, for pairs to keep; `fidelity`
    to the heralded Bell state when it is emitted; `plob_rate_hz`: what no protocol exceeds that
    sends photons over the whole fibre at the same rate of attempts, one mode each.
    """

    probability: float
    cycle_ns: int
    rate_hz: float
    fidelity: float
    plob_rate_hz: float


def pair_figures(profile: Profile, length_m: float, scheme: Scheme) -> PairFigures:
    """The figures of a heralded link of this length.

    Raises ValueError for a length no light takes a nanosecond for, or if nothing is ever heralded.
    """
    link = LinkHardware(
        ends=("a", "b"),
        length_m=length_m,
        arms_m=(length_m / 2.0, length_m / 2.0),
        scheme=scheme,
        attenuation_db_per_km=silica_attenuation_db_per_km(profile.fibre_nm),
    )
    heralded = link.herald(profile, profile)
    cycle_ns = link.cycle_ns("keep", profile, profile)
    through = transmission(link.attenuation_db_per_km * length_m / 1000.0)
    return PairFigures(
        probability=heralded.probability,
        cycle_ns=cycle_ns,
        rate_hz=heralded.probability * 1e9 / cycle_ns,
        fidelity=fidelity(heralded.state, 1, 0),
        plob_rate_hz=repeaterless_bound(through) * 1e9 / cycle_ns,
    )


def stored_fidelity(profile: Profile, storage_s: float) -> float:
    """The fidelity of a phi+ pair of which one half has waited `storage_s` in such a memory.

    Damping with T1, and dephasing by the profile's decay law: coherence exp(-t/T2), or
    exp(-t/2T1) exp(-(t/T2)^2). Raises ValueError for a negative time.
    """
    waited = waiting(profile.decay_law, profile.t1_s, profile.t2_s, 0.0, storage_s)
    return fidelity(apply(bell_state(0, 0), 1, waited.transfer), 0, 0)
