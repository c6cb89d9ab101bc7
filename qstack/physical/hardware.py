"""The hardware of one emulated network: nodes, and the links between them.

A link is fibre, a station, and a scheme. In the station of a heralded link are two detectors, and
what its ends contribute (coupling, visibility, dark counts) is in the profile of each node; a
link by a midpoint source or by absorptive memories has that in its own `equipment`. In the station
of a photon-pair link (`spdc`) is a source, and each end has a receiver: such a link measures
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
from typing import Annotated, Final, Literal, Self

import numpy as np
from msgspec import Meta, Struct, structs

from qstack.ids import link_id
from qstack.physical.clock_hardware import PERFECT_CLOCK, ClockHardware, LinkTiming
from qstack.physical.conditions import IDEAL, Conditions
from qstack.physical.detector_hardware import ReceiverDetectors, StationDetectors
from qstack.physical.drift_hardware import LinkDrift
from qstack.physical.link_equipment import (
    SCHEME_OF,
    AbsorptiveEquipment,
    Equipment,
    MidpointEquipment,
)
from qstack.physical.link_options import (
    ClassicalTraffic,
    Fibre,
    LinkChannel,
    PassChannel,
    Switch,
    either,
    plain,
)
from qstack.physical.models.absorptive import AbsorptiveLink, absorptive, click_probability
from qstack.physical.models.cycles import (
    blinded_probability,
    frame_cycle_ns,
    herald_wait_ns,
    keep_cycle_ns,
    measure_cycle_ns,
    train_cycle_ns,
)
from qstack.physical.models.fibre import (
    STANDARD_GROUP_INDEX,
    TELECOM_ATTENUATION_DB_PER_KM,
    fibre_delay_ns,
    transmission,
)
from qstack.physical.models.heralding import Heralded, double_click, single_click
from qstack.physical.models.midpoint_source import MidpointSource, midpoint_source, spdc_pairs
from qstack.physical.models.pair_source import PairSource
from qstack.physical.models.timing import (
    gate_share,
    pair_fading,
    polarisation_overlap,
    residual_visibility,
)
from qstack.physical.profile import Profile
from qstack.physical.retrieved_photon import RetrievedPhotonEquipment
from qstack.physical.service import AttemptKind
from qstack.physical.source_hardware import PairSourceHardware

Scheme = Literal[
    "single-click",
    "double-click",
    "spdc",
    "midpoint-source",
    "absorptive-memory",
    "retrieved-photon",
]
Attenuation = Annotated[float, Meta(ge=0, le=1000, description="decibels per kilometre, 0 to 1000")]
GroupIndex = Annotated[float, Meta(ge=1, le=4, description="a group index, 1 to 4")]
ArmLoss = Annotated[float, Meta(ge=0, le=200, description="decibels in each arm, 0 to 200")]

GATE_SHARE_MIN: Final = 1e-12  # a receiver without any light has no statistics: this is none


TRAIN_SCHEMES: Final[tuple[Scheme, ...]] = ("absorptive-memory", "retrieved-photon")
"""Those whose attempts are trains of modes, close together at the station's detectors."""
SATELLITE_SCHEMES: Final[tuple[Scheme, ...]] = ("spdc", "midpoint-source")
"""Those whose source may be aboard a satellite: pairs go down to receivers, or to memories."""


class LinkHardware(Struct, frozen=True, kw_only=True):
    """One link: `arms_m` is the fibre from each of `ends` to the station.

    `extra_loss_db` is lost in each arm beside the fibre: connectors, splices, a receiver's optics.
    Raises ValueError for ends out of order, arms that are not the length, an arm shorter than
    1 ns of light, a `source` on a heralded link or none on a photon-pair link, `equipment` that
    is not the scheme's. A `station` with a name is a participant of its own (None: the fabric plays
    it). A link of another `channel` than fibre has neither attenuation nor Raman light; a
    satellite's is for sources in the middle (`link_options.py`).
    """

    ends: tuple[str, str]
    length_m: float
    arms_m: tuple[float, float]
    scheme: Scheme
    attenuation_db_per_km: float = TELECOM_ATTENUATION_DB_PER_KM
    group_index: float = STANDARD_GROUP_INDEX
    extra_loss_db: float = 0.0
    source: PairSourceHardware | None = None
    detectors: ReceiverDetectors | None = None  # None: ready, alike, on time
    station_detectors: StationDetectors | None = None  # None: always ready
    equipment: Equipment | None = None
    station: str | None = None  # the name of one that is a participant of its own
    channel: LinkChannel | None = None
    switch: Switch | None = None
    stray_probability: float = 0.0  # of a click by other links' light behind the switch (window)
    traffic: ClassicalTraffic | None = None
    timing: LinkTiming | None = None  # nothing depends on clocks without it
    drift: LinkDrift | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if (self.scheme == "spdc") != (self.source is not None):
            raise ValueError(f"a source goes with spdc, and only there, not with {self.scheme}")
        if self.detectors is not None and self.source is None:
            raise ValueError(f"receivers go with spdc, not with {self.scheme}")
        if self.station_detectors is not None and self.scheme not in TRAIN_SCHEMES:
            raise ValueError(f"no train of modes meets in the station of {self.scheme}")
        has = None if self.equipment is None else SCHEME_OF[type(self.equipment)]
        if has != (self.scheme if self.scheme in SCHEME_OF.values() else None):
            raise ValueError(f"equipment of {has or 'no scheme'} does not go with {self.scheme}")
        if isinstance(self.channel, PassChannel) and self.scheme not in SATELLITE_SCHEMES:
            raise ValueError(f"a satellite sends pairs to both ends, which is not {self.scheme}")
        if self.channel is not None and self.traffic is not None:
            raise ValueError("classical light scatters in fibre, not in the air")
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
    def kinds(self) -> tuple[AttemptKind, ...]:
        """What it can be asked for: photons that were detected cannot be kept."""
        return ("keep", "measure", "prepare") if self.is_heralded else ("measure",)

    @property
    def delay_ns(self) -> int:
        """From node to node over the fibre."""
        return round(fibre_delay_ns(self.length_m, self.group_index))

    def without_provenance(self) -> Self:
        """The same numbers, without where they come from."""
        parts = {
            "source": self.source,
            "detectors": self.detectors,
            "station_detectors": self.station_detectors,
            "timing": self.timing,
            "drift": self.drift,
            "equipment": self.equipment,
        }
        bare = {name: part.plain() for name, part in parts.items() if part is not None}
        return structs.replace(self, **bare, channel=plain(self.channel))

    def other_end(self, end: str) -> str:
        """The neighbour of `end`. Raises ValueError if `end` is not an end."""
        return self.ends[1 - self._place(end)]

    def arm_ns(self, end: str) -> int:
        """From `end` to the station. Raises ValueError if `end` is not an end."""
        if isinstance(self.channel, PassChannel):
            return round(fibre_delay_ns(self.channel.arm_m, 1.0))
        return round(fibre_delay_ns(self.arms_m[self._place(end)], self.group_index))

    @property
    def arrival_ns(self) -> int:
        """From an emission until the station knows what came of it: the longer arm decides.

        Photons meet there, the last of a train; or it hears of what was latched in a frame.
        """
        train_ns = 0 if self.equipment is None else self.equipment.train_ns
        return train_ns + max(self.arm_ns(end) for end in self.ends)

    def cycle_ns(self, kind: AttemptKind, profile_a: Profile, profile_b: Profile) -> int:
        """The time from one attempt to the next, with the slower end's hardware.

        `keep` waits for the herald, `measure` is pipelined (`models/cycles.py`); the preparation is
        the reset after the readout before it. `prepare` does both. A pair source: one slot. Where a
        phase lock takes its share, attempts come so much later in the mean.
        """
        if self.source is not None:
            return self.source.slot_ns
        cycle_ns = self._unlocked_cycle_ns(kind, profile_a, profile_b)
        return cycle_ns if self.drift is None else math.ceil(cycle_ns / self.drift.lock_duty)

    def _unlocked_cycle_ns(self, kind: AttemptKind, profile_a: Profile, profile_b: Profile) -> int:
        if kind == "prepare":
            kept_ns = self._unlocked_cycle_ns("keep", profile_a, profile_b)
            return max(kept_ns, self._unlocked_cycle_ns("measure", profile_a, profile_b))
        profiles = (profile_a, profile_b)
        prepare_ns = max(p.t_init_ns for p in profiles)
        if self.equipment is None:
            emit_ns = max(p.t_init_ns + p.t_emit_ns for p in profiles) - prepare_ns
        else:
            emit_ns = self.equipment.train_ns
        if kind == "measure":
            if self.equipment is not None:
                readout_ns = max(p.readout_ns for p in profiles)
                return measure_cycle_ns(prepare_ns, emit_ns, readout_ns)
            return max(measure_cycle_ns(p.t_init_ns, p.t_emit_ns, p.readout_ns) for p in profiles)
        arms_ns = (self.arm_ns(self.ends[0]), self.arm_ns(self.ends[1]))
        if isinstance(self.equipment, MidpointEquipment):
            trials, trial_ns = self.equipment.trials, self.equipment.trial_ns
            return frame_cycle_ns(trials, trial_ns, prepare_ns, self._latches_ns)
        if isinstance(self.equipment, AbsorptiveEquipment):
            modes, mode_ns = self.equipment.modes, self.equipment.mode_ns
            return train_cycle_ns(modes, mode_ns, prepare_ns, arms_ns)
        return keep_cycle_ns(prepare_ns, emit_ns, arms_ns)

    def emission_offset_ns(self, profile_a: Profile, profile_b: Profile) -> int:
        """From the start of a cycle to its emission, the birth of what is kept.

        With equipment that is when the first light of an attempt may be stored: a pair counts as
        old as its frame or train, whichever part of it succeeded.
        """
        profiles = (profile_a, profile_b)
        if self.equipment is not None:
            return max(p.t_init_ns for p in profiles)
        return max(p.t_init_ns + p.t_emit_ns for p in profiles)

    def herald_back_ns(self, end: str) -> int:
        """From an emission until its herald is at `end`. Raises ValueError if it is not an end.

        The photon of the longer arm decides. With a midpoint source the numbers of what was
        latched cross from end to end; a train is heralded when all of it has arrived.
        """
        arms_ns = (self.arm_ns(self.ends[0]), self.arm_ns(self.ends[1]))
        train_ns = 0 if self.equipment is None else self.equipment.train_ns
        if isinstance(self.equipment, MidpointEquipment):
            return train_ns + sum(self._latches_ns)
        return train_ns + herald_wait_ns(arms_ns, self._place(end))

    @property
    def _latches_ns(self) -> tuple[int, int]:
        """The ways of the light, and of what was latched, until both ends know of both."""
        arms_ns = (self.arm_ns(self.ends[0]), self.arm_ns(self.ends[1]))
        if isinstance(self.channel, PassChannel):  # which is said on the ground
            return max(arms_ns), self.delay_ns
        return arms_ns

    def efficiency(self, end: str, profile: Profile) -> float:
        """The probability that a photon emitted at `end` makes a detector click.

        Coupling x 10^(-loss/10), loss = fibre or air of this arm + `extra_loss_db` + the switch.
        """
        return profile.coupling * self.arm_transmission(end)

    def pair_source(
        self, conditions: Conditions = IDEAL, arms: tuple[float, float] | None = None
    ) -> PairSource:
        """The statistics of a slot, sides as `ends`. Raises ValueError for a heralded link.

        The second end opens its gates by its clock as it is aligned with the first's: what comes
        outside of them is not detected. `arms` are the transmissions of the channel; None: of the
        fibre or air there is, of a satellite those in the middle of a pass.
        """
        if self.source is None:
            raise ValueError(f"{self.id} is a heralded link: it has no pair source")
        given = arms or (None, None)
        seen = self.source.detector_efficiency * conditions.transmission
        if self.detectors is not None:
            seen *= self.detectors.acceptance
        first, second = (
            seen * self.arm_transmission(end, share)
            for end, share in zip(self.ends, given, strict=True)
        )
        of_light = self.source.wavelength_nm, self.source.detector_efficiency
        background = self.source.background_probability
        dark = [either(background, self._noise_at(place, *of_light)) for place in (0, 1)]
        return PairSource(
            mean_pairs=self.source.pair_parameter,
            efficiencies=(first, second * max(GATE_SHARE_MIN, self._timed(conditions)[1])),
            backgrounds=(dark[0], dark[1]),
            misalignment=self.source.misalignment,
            polarisation_rad=conditions.polarisation_rad,
            phase_rad=self._held_rad(conditions),
        )

    def pair_sources(
        self, conditions: Conditions = IDEAL, at_ns: int | None = None
    ) -> list[tuple[float, PairSource]]:
        """What its slots are like while it is up, and the share of that time they are so.

        As `spells`. Raises ValueError for a heralded link.
        """
        return [(share, self.pair_source(conditions, arms)) for share, arms in self.spells(at_ns)]

    def spells(self, at_ns: int | None = None) -> list[tuple[float, tuple[float, float] | None]]:
        """What its channel passes while it is up, and the share of that time it does so.

        One spell for fibre or air (None); for a satellite one for each step of a pass, or of what
        is left of it at `at_ns`.
        """
        if not isinstance(self.channel, PassChannel):
            return [(1.0, None)]
        parts = self.channel.one_pass if at_ns is None else self.channel.ahead(at_ns).parts
        whole_ns = parts[-1].until_ns - parts[0].begin_ns
        return [((part.until_ns - part.begin_ns) / whole_ns, part.transmissions) for part in parts]

    def herald(
        self, profile_a: Profile, profile_b: Profile, alpha: float | None = None
    ) -> Heralded:
        """Success probability of one attempt, and the states it heralds, axes as `ends`.

        `alpha` is the bright-state population at both ends (single-click only; None: what each
        profile says). Raises ValueError if no detector can ever click, or none heralds.
        """
        return self.herald_under(IDEAL, profile_a, profile_b, alpha)

    def herald_under(
        self,
        conditions: Conditions,
        profile_a: Profile,
        profile_b: Profile,
        alpha: float | None = None,
    ) -> Heralded:
        """As `herald`, under these conditions (docs/clocks.md: what they cost each scheme)."""
        if not self.is_heralded:
            raise ValueError(f"{self.id} is a photon-pair link: nothing heralds")
        if self.equipment is not None:
            return self._equipped(self.equipment, conditions)
        left = conditions.transmission
        matching, in_gate = self._timed(conditions)
        eta_a = self.efficiency(self.ends[0], profile_a) * left
        eta_b = self.efficiency(self.ends[1], profile_b) * left * in_gate
        # One station, one set of detectors: the noisier of the two figures is the safe one.
        dark = either(
            max(profile_a.dark_count_probability, profile_b.dark_count_probability),
            self._noise_in_station(profile_a.fibre_nm),
        )
        visibility = link_visibility(profile_a, profile_b) * matching
        visibility *= polarisation_overlap(conditions.polarisation_rad)
        emission = _emission_fidelity(profile_a, profile_b)
        is_resolving = profile_a.number_resolving and profile_b.number_resolving
        if self.scheme == "double-click":
            return double_click(
                eta_a=eta_a,
                eta_b=eta_b,
                dark_probability=dark,
                visibility=visibility,
                number_resolving=is_resolving,
                emission_fidelity=emission,
            )
        return single_click(
            alpha_a=profile_a.bright_state_default if alpha is None else alpha,
            alpha_b=profile_b.bright_state_default if alpha is None else alpha,
            eta_a=eta_a,
            eta_b=eta_b,
            dark_probability=dark,
            visibility=visibility,
            phase_sigma_rad=self._phase_rad(profile_a, profile_b, conditions),
            emission_fidelity=emission,
            double_excitation=_double_excitation(profile_a, profile_b),
            number_resolving=is_resolving,
        )

    def _phase_rad(self, profile_a: Profile, profile_b: Profile, conditions: Conditions) -> float:
        """The optical phase's deviation: of like nodes what their profile says, and the rest."""
        of_nodes = math.hypot(profile_a.phase_sigma_rad, profile_b.phase_sigma_rad) / math.sqrt(2.0)
        return math.hypot(of_nodes, self._held_rad(conditions))

    def _held_rad(self, conditions: Conditions) -> float:
        """What has drifted of a phase, and what its lock leaves."""
        residual = 0.0 if self.drift is None else self.drift.lock_residual_rad
        return math.hypot(residual, conditions.phase_rad)

    def _equipped(self, equipment: Equipment, conditions: Conditions) -> Heralded:
        """One frame of a midpoint source, or one train of modes into or out of memories."""
        matching, in_gate = self._timed(conditions)
        left = conditions.transmission
        arms = conditions.arms or (None, None)
        first = self.arm_transmission(self.ends[0], arms[0]) * left
        second = self.arm_transmission(self.ends[1], arms[1]) * left * in_gate
        matching *= polarisation_overlap(conditions.polarisation_rad)
        if isinstance(equipment, MidpointEquipment):
            latch, false = equipment.latch_efficiency, equipment.false_latch_probability
            sent = midpoint_source(
                MidpointSource(
                    pair_numbers=spdc_pairs(equipment.pair_parameter),
                    efficiencies=(latch * first, latch * second),
                    trials=equipment.trials,
                    false_latches=(
                        either(false, self._noise_at(0, equipment.wavelength_nm, latch)),
                        either(false, self._noise_at(1, equipment.wavelength_nm, latch)),
                    ),
                    source_fidelity=equipment.source_fidelity,
                    write_fidelities=(equipment.write_fidelity, equipment.write_fidelity),
                )
            )
            angles = conditions.polarisation_rad, self._held_rad(conditions)
            kept = np.array([1.0, *pair_fading(*angles)])
            return Heralded(sent.probability, sent.state * kept, sent.state_minus * kept)
        dead_modes = self._dead_modes(equipment)
        if isinstance(equipment, RetrievedPhotonEquipment):
            noise = self._noise_in_station(equipment.wavelength_nm)
            dark = either(equipment.dark_count_probability, noise)
            return equipment.heralded((first, second), dark, matching, dead_modes)
        idler, write = equipment.idler_efficiency, equipment.write_efficiency
        of_train = AbsorptiveLink(
            mean_pairs=(equipment.pair_parameter, equipment.pair_parameter),
            idler_efficiencies=(idler * first, idler * second),
            write_efficiencies=(write, write),
            dark_probability=either(
                equipment.dark_count_probability,
                self._noise_in_station(equipment.wavelength_nm),
            ),
            visibility=equipment.visibility * matching,
            number_resolving=equipment.number_resolving,
        )
        absorbed = absorptive(of_train)
        of_mode = absorbed.stored if equipment.storage_heralded else absorbed.heralded
        if of_mode is None:
            raise ValueError("no herald is possible: the memories store nothing")
        click = click_probability(of_train)
        some = blinded_probability(of_mode.probability, click, dead_modes, equipment.modes)
        return Heralded(some, of_mode.state, of_mode.state_minus)

    def _dead_modes(self, equipment: AbsorptiveEquipment | RetrievedPhotonEquipment) -> int:
        """Modes of a train in which a detector of the station is dead after a click."""
        if self.station_detectors is None:
            return 0
        if isinstance(equipment, AbsorptiveEquipment):
            return self.station_detectors.dead_modes(equipment.mode_ns)
        return self.station_detectors.dead_modes(equipment.memory.mode_ns)

    def _timed(self, conditions: Conditions) -> tuple[float, float]:
        """What is left of the visibility, and of the second end's photons, under these errors.

        The station goes by the first end's clock, so its gates miss the second end's photons.
        """
        timing = self.timing
        if timing is None:
            return 1.0, 1.0
        errors = conditions.delay_ps, conditions.delay_deviation_ps
        shape = timing.wavepacket
        return (
            residual_visibility(*errors, timing.width_ps, shape),
            gate_share(*errors, timing.width_ps, timing.gate_ps, shape),
        )

    def arm_transmission(self, end: str, share: float | None = None) -> float:
        """What of a photon gets through the arm of `end`; `share`: what its channel passes."""
        place = self._place(end)
        other_db = self.extra_loss_db
        if self.switch is not None:
            other_db += self.switch.insertion_loss_db
        if self.channel is None:
            loss_db = self.attenuation_db_per_km * self.arms_m[place] / 1000.0 + other_db
            return transmission(loss_db)
        if share is None:
            share = self.channel.transmissions(self.arms_m)[place]
        return share * transmission(other_db)

    def _noise_in_station(self, wavelength_nm: float) -> float:
        """The probability of a click of stray light per window in each detector of the station."""
        if self.traffic is None:
            return self.stray_probability
        raman = self.traffic.at_station(self._fibre(wavelength_nm))
        return either(self.stray_probability, raman)

    def _noise_at(self, place: int, wavelength_nm: float, efficiency: float) -> float:
        """The same in a receiver or memory at end 0 or 1, of all of its detectors together."""
        if self.traffic is None:
            return 0.0
        return self.traffic.at_node(self._fibre(wavelength_nm), place, efficiency)

    def _fibre(self, wavelength_nm: float) -> Fibre:
        return Fibre(self.ends, self.arms_m, self.attenuation_db_per_km, wavelength_nm)

    def _place(self, end: str) -> int:
        if end not in self.ends:
            raise ValueError(f"{end} is not an end of link {self.id}")
        return self.ends.index(end)


class NodeHardware(Struct, frozen=True, kw_only=True):
    """One node: its hardware, and how many qubits it holds at once. No `clock`: a perfect one.

    `is_emulated`: whether its device is the fabric's, and not a driver's.
    `runs_programs`: its device takes programs (`qstack.physical.program`).
    """

    name: str
    profile: Profile
    memory: int
    clock: ClockHardware | None = None
    is_emulated: bool = True
    runs_programs: bool = False


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

    def links_through(self, station: str) -> list[LinkHardware]:
        """The links whose named station this is."""
        return [link for link in self.links.values() if link.station == station]

    @property
    def stations(self) -> list[str]:
        """The stations that are participants of their own, by name."""
        return sorted({link.station for link in self.links.values() if link.station is not None})

    def heralded_links_of(self, node: str) -> list[LinkHardware]:
        """Those of them that take memory at `node`."""
        return [link for link in self.links_of(node) if link.is_heralded]

    def clocks(self, link: str) -> tuple[ClockHardware, ClockHardware] | None:
        """The clocks at the two ends of a link; None if both are perfect."""
        ends = [self.nodes[end].clock for end in self.links[link].ends]
        if not any(ends):
            return None
        first, second = (PERFECT_CLOCK if clock is None else clock for clock in ends)
        return first, second


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
