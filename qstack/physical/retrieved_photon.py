"""Links of scheme `retrieved-photon`: photons read out of memories meet in the station.

Each node entangles a qubit of its own with a photon in a memory beside it (ensembles of the DLCZ
kind, an atom beside a memory), keeps the photon for `storage_ns`, and reads it out. Two such
photons meet, and the station's Bell measurement joins the qubits (`models/swaps.py`). How likely a
photon comes out after its storage, and how good it still is, is in the profile of the memory. Both
ends are alike; what ages the qubit is in the profile of its node.
"""

from msgspec.structs import replace

from qstack.physical.models.cycles import blinded_probability
from qstack.physical.models.heralding import Heralded
from qstack.physical.models.swaps import (
    memory_photon_efficiency,
    retrieved_photon_measurement,
    retrieved_photon_swap,
)
from qstack.physical.profile import Duration, Fidelity, Mark, Probability, Wavelength
from qstack.physical.profile_kinds import MemoryProfile
from qstack.physical.source_hardware import Efficiency
from qstack.physical.sourced import Sourced
from qstack.quantum.bell import bell_state
from qstack.quantum.channels import depolarising
from qstack.quantum.state import apply


class RetrievedPhotonEquipment(Sourced, frozen=True, kw_only=True):
    """A memory at each end that is read into the fibre, and the station's detectors.

    `wavelength_nm` is that in the fibre. `pair_efficiency` is the probability that a photon
    entangled with the qubit is offered to the memory in an attempt and mode, `pair_fidelity` that
    of this pair (Werner); `path_efficiency` is from the memory to a click were there no fibre,
    converter and detector included. An attempt tries all modes of the memory, one after another.
    """

    memory: MemoryProfile
    wavelength_nm: Wavelength
    pair_efficiency: Efficiency
    pair_fidelity: Fidelity
    storage_ns: Duration
    path_efficiency: Efficiency
    dark_count_probability: Probability
    visibility: Probability
    number_resolving: bool

    def marked(self, mark: Mark) -> list[str]:
        """The keys of the numbers with this mark, the memory's with it."""
        own = [source.key for source in self.sources if source.mark == mark]
        return [*own, *(f"memory.{key}" for key in self.memory.marked(mark))]

    def plain(self) -> "RetrievedPhotonEquipment":
        """The same numbers, without where they come from."""
        return replace(self, sources=(), memory=replace(self.memory, sources=()))

    @property
    def train_ns(self) -> int:
        """How long from the first photon's making until the last one has been read out."""
        return self.memory.modes * self.memory.mode_ns + self.storage_ns

    def heralded(
        self,
        arms: tuple[float, float],
        noise_probability: float,
        matching: float = 1.0,
        dead_modes: int = 0,
    ) -> Heralded:
        """An attempt with these transmissions of the arms; noise is of each detector and window.

        `matching` is what is left of the visibility in the station, whose detectors are dead for
        `dead_modes` after a click (a photon comes to one of four: two outputs, two bins).
        Raises ValueError if no herald is possible.
        """
        storage_s = self.storage_ns * 1e-9
        photons = self.memory.photon_memory()
        first, second = (
            self.pair_efficiency
            * memory_photon_efficiency(photons.efficiency(storage_s), arm, self.path_efficiency)
            for arm in arms
        )
        effects = retrieved_photon_measurement(
            first,
            second,
            dark_probability=noise_probability,
            visibility=self.visibility * matching,
            number_resolving=self.number_resolving,
        )
        made = apply(bell_state(0, 0), 0, depolarising(4.0 * (1.0 - self.pair_fidelity) / 3.0))
        pair = photons.retrieved(made, 1, storage_s)
        joined = retrieved_photon_swap(pair, pair.T, effects)
        silent = (1.0 - noise_probability) * (1.0 - first / 4.0) * (1.0 - second / 4.0)
        train = joined.probability, 1.0 - silent, dead_modes, self.memory.modes
        some = blinded_probability(*train)
        return Heralded(some, joined.state, joined.state_minus)
