"""The small network a driver is checked in: one node of it, `here`, and links of three kinds.

here ---- there      a heralded link of 2 km, whose attempts succeed now and then
here ---- beyond     one on which nothing succeeds, for what is stopped
here ---- lit        a photon-pair link
"""

from typing import Final

from qstack.physical.hardware import (
    LinkHardware,
    NodeHardware,
    Scheme,
    World,
)
from qstack.physical.models.fibre import silica_attenuation_db_per_km
from qstack.physical.profile import Profile
from qstack.physical.source_hardware import PairSourceHardware

HERE: Final = "here"
FAR: Final = ("beyond", "lit", "there")
LINK: Final = "here-there"
LOSSY_LINK: Final = "beyond-here"
SOURCE_LINK: Final = "here-lit"
MEMORY: Final = 4096  # of the check's nodes: it is not admission that is checked

_HOPELESS_DB: Final = 200.0  # in each arm; what is left are dark counts


def check_world(profile: Profile, scheme: Scheme) -> World:
    """The network: all nodes have `profile`, heralded links are of `scheme`."""
    attenuation = silica_attenuation_db_per_km(profile.fibre_nm)

    def link(far: str, loss_db: float, source: PairSourceHardware | None = None) -> LinkHardware:
        first, second = sorted((HERE, far))
        return LinkHardware(
            ends=(first, second),
            length_m=2000.0,
            arms_m=(1000.0, 1000.0),
            scheme="spdc" if source else scheme,
            attenuation_db_per_km=0.2 if source else attenuation,
            extra_loss_db=loss_db,
            source=source,
        )

    source = PairSourceHardware(
        wavelength_nm=1550.0,
        slot_rate_hz=100_000_000,
        pair_parameter=0.01,
        detector_efficiency=0.25,
        background_probability=2e-6,
        misalignment=0.01,
    )
    links = [link("there", 0.0), link("beyond", _HOPELESS_DB), link("lit", 0.0, source)]
    nodes = (HERE, *FAR)
    return World(
        nodes={
            name: NodeHardware(name=name, profile=profile, memory=MEMORY, runs_programs=True)
            for name in nodes
        },
        links={each.id: each for each in links},
    )
