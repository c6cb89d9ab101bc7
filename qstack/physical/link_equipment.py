"""What a heralded link has beside fibre where the nodes' own photons do not meet in the middle.

A midpoint source sends pairs outwards to memories that herald what they stored; an absorptive
link has a photon-pair source beside each memory, and the idlers meet in the station; photons read
out of memories meet there too (`retrieved_photon.py`). As in
profiles, every number of the file travels with its source and a mark (`profile.py`), and nothing
has a default. Both ends are alike; what ages a stored qubit is in the profile of its node.
"""

from typing import Annotated, Any

from msgspec import Meta, structs

from qstack.physical.profile import (
    Fidelity,
    Latency,
    Probability,
    Wavelength,
    read_entries,
)
from qstack.physical.profile_kinds import MemoryProfile
from qstack.physical.retrieved_photon import RetrievedPhotonEquipment
from qstack.physical.source_hardware import Efficiency, PairParameter
from qstack.physical.sourced import Sourced

Trials = Annotated[int, Meta(ge=1, le=10**6, description="a whole number of trials, 1 to 1000000")]
Modes = Annotated[int, Meta(ge=1, le=10**6, description="a whole number of modes, 1 to 1000000")]
FalseLatch = Annotated[float, Meta(ge=0, lt=1, description="a probability, at least 0, below 1")]


class MidpointEquipment(Sourced, frozen=True, kw_only=True):
    """A source in the station: `trials` to a frame, one every `trial_ns` (`midpoint_source.py`).

    `pair_parameter` is lam (mean pairs 2 lam), `latch_efficiency` that of storing and heralding a
    photon that has arrived, `false_latch_probability` per trial. Fidelities are of Werner states:
    of a pair, and of half of a pair that was stored.
    """

    wavelength_nm: Wavelength
    pair_parameter: PairParameter
    trial_ns: Latency
    trials: Trials
    latch_efficiency: Efficiency
    false_latch_probability: FalseLatch
    source_fidelity: Fidelity
    write_fidelity: Fidelity

    @property
    def train_ns(self) -> int:
        """How long an attempt's light takes to arrive."""
        return self.trials * self.trial_ns


class AbsorptiveEquipment(Sourced, frozen=True, kw_only=True):
    """A pair source and a memory of `modes` modes, one every `mode_ns`, at each end.

    `wavelength_nm` is that of the idlers, `pair_parameter` lam of each source and mode;
    `idler_efficiency` what of an idler is detected were there no fibre, `write_efficiency` what of
    a signal is stored. `storage_heralded`: an attempt succeeds only if both memories are
    known to hold a photon; else the station's herald is all there is (`absorptive.py`).
    """

    wavelength_nm: Wavelength
    pair_parameter: PairParameter
    mode_ns: Latency
    modes: Modes
    idler_efficiency: Efficiency
    dark_count_probability: Probability
    visibility: Probability
    number_resolving: bool
    write_efficiency: Efficiency
    storage_heralded: bool

    @property
    def train_ns(self) -> int:
        """How long an attempt's light takes to be sent."""
        return self.modes * self.mode_ns


Equipment = MidpointEquipment | AbsorptiveEquipment | RetrievedPhotonEquipment

SCHEME_OF: dict[type[Equipment], str] = {
    MidpointEquipment: "midpoint-source",
    AbsorptiveEquipment: "absorptive-memory",
    RetrievedPhotonEquipment: "retrieved-photon",
}
"""Which scheme each is for."""
TABLE_OF: dict[type[Equipment], str] = {
    MidpointEquipment: "midpoint_source",
    AbsorptiveEquipment: "absorptive_memory",
    RetrievedPhotonEquipment: "retrieved_photon",
}
"""The name of its table in the file."""


def read_equipment(
    kind: type[Equipment],
    raw: dict[str, Any],
    path: str,
    problems: list[str],
    *,
    memory: MemoryProfile | None = None,
) -> Equipment | None:
    """The equipment of a table of the file; None, and lines in `problems`, if it cannot be.

    `memory` is for the kind that has one, and was read before (None: it could not be).
    """
    problems_before = len(problems)
    kinds = {field.name: field.type for field in structs.fields(kind)}
    del kinds["sources"]
    has_memory = kinds.pop("memory", None) is not None
    values, sources = read_entries(raw, kinds, path, problems)
    if memory is not None:
        values["memory"] = memory
    if len(problems) > problems_before or (has_memory and memory is None):
        return None
    return kind(**values, sources=tuple(sources))
