"""The hardware of one emulated network: nodes, and the links between them.

A link is fibre, a station, and a scheme. In the station of a heralded link are two detectors, and
what its ends contribute (coupling, visibility, dark counts) is in the profile of each node. In
that of a photon-pair link (`spdc`) is a source, and each end has a receiver: such a link measures
and keeps nothing. From here come the times and probabilities that the fabric emulates and that
the nodes predict with.

Rules
1. Times are whole nanoseconds, and what one participant of the clock causes at another takes at
   least 1 ns: a link on which it would not cannot be made.
2. The two ends are in the order of their names; each quantity of an end is asked for by its name.
3. Two different ends are combined so that two equal ends give what their profile says.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from qstack.ids import link_id
from qstack.physical.models.fibre import (
    STANDARD_GROUP_INDEX,
    TELECOM_ATTENUATION_DB_PER_KM,
    fibre_delay_ns,
    transmission,
)
from qstack.physical.models.heralding import Heralded, double_click, single_click
from qstack.physical.models.pair_source import PairSource
from qstack.physical.profile import Profile
from qstack.physical.service import Kind
from qstack.physical.source_hardware import PairSourceHardware

Scheme = Literal["single-click", "double-click", "spdc"]
Attenuation = Annotated[float, Meta(ge=0, le=1000, description="decibels per kilometre, 0 to 1000")]
GroupIndex = Annotated[float, Meta(ge=1, le=4, description="a group index, 1 to 4")]
ArmLoss = Annotated[float, Meta(ge=0, le=200, description="decibels in each arm, 0 to 200")]


class LinkHardware(Struct, frozen=True, kw_only=True):
    """One link: `arms_m` is the fibre from each of `ends` to the station.

    `extra_loss_db` is lost in each arm beside the fibre: connectors, splices, a receiver's optics.
    Raises ValueError for ends out of order, arms that are not the length, an arm shorter than
    1 ns of light, and a `source` on a heralded link or none on a photon-pair link.
    """

    ends: tuple[str, str]
    length_m: float
    arms_m: tuple[float, float]
    scheme: Scheme
    attenuation_db_per_km: float = TELECOM_ATTENUATION_DB_PER_KM
    group_index: float = STANDARD_GROUP_INDEX
    extra_loss_db: float = 0.0
    source: PairSourceHardware | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if (self.scheme == "spdc") != (self.source is not None):
            raise ValueError(f"a source goes with spdc, and only there, not with {self.scheme}")
        if not self.ends[0] < self.ends[1]:
            raise ValueError(f"two ends in the order of their names, not {self.ends}")
        if not math.isclose(sum(self.arms_m), self.length_m):
            raise ValueError(f"the arms {self.arms_m} m do not add up to {self.length_m} m")
        for arm_m in self.arms_m:
            if not fibre_delay_ns(arm_m, self.group_index) >= 1.0:
                raise ValueError(f"an arm of {arm_m} m takes light less than 1 ns")

    @property
    def id(self) -> str:
        """The link's name, the same seen from either end."""
        return link_id(*self.ends)

    @property
    def is_heralded(self) -> bool:
        """Whether a station says which attempts succeeded; else detected slots are compared."""
        return self.source is None

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What it can be asked for: photons that were detected cannot be kept."""
        return ("keep", "measure") if self.is_heralded else ("measure",)

    @property
    def delay_ns(self) -> int:
        """From node to node over the fibre."""
        return round(fibre_delay_ns(self.length_m, self.group_index))

    def other_end(self, end: str) -> str:
        """The neighbour of `end`. Raises ValueError if `end` is not an end."""
        return self.ends[1 - self._place(end)]

    def arm_ns(self, end: str) -> int:
        """From `end` to the station. Raises ValueError if `end` is not an end."""
        return round(fibre_delay_ns(self.arms_m[self._place(end)], self.group_index))

    def cycle_ns(self, kind: Kind, profile_a: Profile, profile_b: Profile) -> int:
        """The time from one attempt to the next, with the slower end's hardware.

        `keep`: preparation + emission + 2 x the longer arm, for the herald must be back before
        the qubit can be used again. `measure`: preparation + emission + readout; attempts are
        pipelined, and the preparation is the reset after the readout before it. A pair source:
        one slot.
        """
        if self.source is not None:
            return self.source.slot_ns
        profiles = (profile_a, profile_b)
        if kind == "measure":
            return max(p.t_init_ns + p.t_emit_ns + p.readout_ns for p in profiles)
        herald_ns = 2 * max(self.arm_ns(end) for end in self.ends)
        return max(p.t_init_ns + p.t_emit_ns for p in profiles) + herald_ns

    def efficiency(self, end: str, profile: Profile) -> float:
        """The probability that a photon emitted at `end` makes a detector click.

        Coupling x 10^(-loss/10), loss = fibre of this arm + `extra_loss_db`.
        """
        return profile.coupling * self._arm_transmission(end)

    def pair_source(self) -> PairSource:
        """The statistics of a slot, sides as `ends`. Raises ValueError for a heralded link."""
        if self.source is None:
            raise ValueError(f"{self.id} is a heralded link: it has no pair source")
        first, second = (
            self.source.detector_efficiency * self._arm_transmission(end) for end in self.ends
        )
        background = self.source.background_probability
        return PairSource(
            mean_pairs=self.source.pair_parameter,
            efficiencies=(first, second),
            backgrounds=(background, background),
            misalignment=self.source.misalignment,
        )

    def herald(
        self, profile_a: Profile, profile_b: Profile, alpha: float | None = None
    ) -> Heralded:
        """Success probability of one attempt, and the states it heralds, axes as `ends`.

        `alpha` is the bright-state population at both ends (single-click only; None: what each
        profile says). Raises ValueError if no detector can ever click, or none heralds.
        """
        if not self.is_heralded:
            raise ValueError(f"{self.id} is a photon-pair link: nothing heralds")
        eta_a = self.efficiency(self.ends[0], profile_a)
        eta_b = self.efficiency(self.ends[1], profile_b)
        # One station, one set of detectors: the noisier of the two figures is the safe one.
        dark = max(profile_a.dark_count_probability, profile_b.dark_count_probability)
        visibility = link_visibility(profile_a, profile_b)
        emission = _emission_fidelity(profile_a, profile_b)
        if self.scheme == "double-click":
            return double_click(
                eta_a=eta_a,
                eta_b=eta_b,
                dark_probability=dark,
                visibility=visibility,
                number_resolving=profile_a.number_resolving and profile_b.number_resolving,
                emission_fidelity=emission,
            )
        return single_click(
            alpha_a=profile_a.bright_state_default if alpha is None else alpha,
            alpha_b=profile_b.bright_state_default if alpha is None else alpha,
            eta_a=eta_a,
            eta_b=eta_b,
            dark_probability=dark,
            visibility=visibility,
            phase_sigma_rad=math.hypot(profile_a.phase_sigma_rad, profile_b.phase_sigma_rad)
            / math.sqrt(2.0),
            emission_fidelity=emission,
            double_excitation=_double_excitation(profile_a, profile_b),
        )

    def _arm_transmission(self, end: str) -> float:
        """What of a photon gets through the arm of `end`."""
        arm_m = self.arms_m[self._place(end)]
        loss_db = self.attenuation_db_per_km * arm_m / 1000.0 + self.extra_loss_db
        return transmission(loss_db)

    def _place(self, end: str) -> int:
        if end not in self.ends:
            raise ValueError(f"{end} is not an end of link {self.id}")
        return self.ends.index(end)


class NodeHardware(Struct, frozen=True, kw_only=True):
    """One node: its hardware, and how many qubits it holds at once."""

    name: str
    profile: Profile
    memory: int


class World(Struct, frozen=True, kw_only=True):
    """What the fabric and the prediction are built from: nodes by name, links by id."""

    nodes: Mapping[str, NodeHardware]
    links: Mapping[str, LinkHardware]

    def end_profiles(self, link: str) -> tuple[Profile, Profile]:
        """The profiles at the two ends of a link, in the order of its ends."""
        first, second = self.links[link].ends
        return self.nodes[first].profile, self.nodes[second].profile

    def links_of(self, node: str) -> list[LinkHardware]:
        """The links that end at `node`."""
        return [link for link in self.links.values() if node in link.ends]

    def heralded_links_of(self, node: str) -> list[LinkHardware]:
        """Those of them that take memory at `node`."""
        return [link for link in self.links_of(node) if link.is_heralded]


def link_visibility(profile_a: Profile, profile_b: Profile) -> float:
    """Interference of photons of two nodes: sqrt(V_a V_b).

    V is the overlap Tr(r_a r_b) of the photons' states; for two like nodes it is the purity
    Tr(r^2) of each. Two unlike ones have at most sqrt(Tr r_a^2 Tr r_b^2) (Cauchy-Schwarz), which
    they reach when the noise is alike: that is assumed here. The smaller V is neither a bound
    nor a mean.
    """
    return math.sqrt(profile_a.visibility * profile_b.visibility)


def _emission_fidelity(profile_a: Profile, profile_b: Profile) -> float:
    """One Werner fidelity for both spins: the weights w = (4F - 1)/3 of the two multiply."""
    weights = [(4.0 * p.emission_fidelity - 1.0) / 3.0 for p in (profile_a, profile_b)]
    return (1.0 + 3.0 * math.sqrt(weights[0] * weights[1])) / 4.0


def _double_excitation(profile_a: Profile, profile_b: Profile) -> float:
    """The dephasing of each spin that leaves the pair what the profiles say of pairs.

    A profile's p is that of a pair of like nodes, whose coherence it takes down to 1 - 2p (so
    F = 0.803 for the near-term NV set). Shared by two spins, each takes the square root of it.
    """
    factors = [1.0 - 2.0 * p.double_excitation for p in (profile_a, profile_b)]
    return (1.0 - math.sqrt(math.sqrt(factors[0] * factors[1]))) / 2.0
