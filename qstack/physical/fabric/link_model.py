"""One link as the fabric plays it: its cycles, its delays, and what a success of it is."""

from functools import cache, lru_cache
from typing import Final, NamedTuple

import numpy as np

from qstack.physical.conditions import Conditions
from qstack.physical.device import DeviceBasis
from qstack.physical.generation import mismatch
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.rotations import effects
from qstack.physical.service import AttemptKind, Rotation
from qstack.quantum.pauli import FloatArray

PATTERN_BITS: Final = ((1, 0), (1, 1))
"""The Bell state (x, z) a herald pattern announces: psi+ and psi-, equally likely."""

SETTINGS_MAX: Final = 256  # settings and conditions that are kept: a few kilobytes each

Rotations = tuple[Rotation | None, Rotation | None]
"""Of both ends of a link, in the order of its ends."""


class Success(NamedTuple):
    """The probability that an attempt heralds, and the pair for each pattern, axes as ends."""

    probability: float
    states: tuple[FloatArray, FloatArray]


_MIXED: Final = np.diag([1.0, 0.0, 0.0, 0.0])
_NOTHING: Final = Success(0.0, (_MIXED, _MIXED))


class LinkModel:
    """The physics of one link, worked out once for each setting and its conditions."""

    def __init__(self, world: World, link: LinkHardware) -> None:
        self.link = link
        self.name = link.id
        self.ends = link.ends
        self._profiles = world.end_profiles(link.id)
        self.emission_offset_ns = link.emission_offset_ns(*self._profiles)
        self._herald_back_ns = {end: link.herald_back_ns(end) for end in link.ends}
        self._readout_ns = {
            end: profile.readout_ns for end, profile in zip(link.ends, self._profiles, strict=True)
        }
        self.cycle_ns = cache(self._cycle_ns)
        self.mismatch = lru_cache(SETTINGS_MAX)(self._mismatch)
        self.success = lru_cache(SETTINGS_MAX)(self._success)
        self.joint_outcomes = lru_cache(SETTINGS_MAX)(self._joint_outcomes)

    def _cycle_ns(self, kind: AttemptKind) -> int:
        """The time from one attempt to the next."""
        return self.link.cycle_ns(kind, *self._profiles)

    def _mismatch(
        self,
        kind: AttemptKind,
        basis: DeviceBasis | None,
        pairs: int,
        bright_state: float | None,
        rotation: Rotation | None,
    ) -> str:
        """What is wrong with what is asked of this link; empty if nothing is."""
        return mismatch(
            kind,
            basis=basis,
            pairs=pairs,
            bright_state=bright_state,
            scheme=self.link.scheme,
            rotation=rotation,
        )

    def herald_back_ns(self, end: str) -> int:
        """From an emission until its herald is at `end`."""
        return self._herald_back_ns[end]

    def measured_back_ns(self, end: str) -> int:
        """As `herald_back_ns`, and the spin has been read too."""
        return max(self._herald_back_ns[end], self._readout_ns[end])

    def _success(self, bright_state: float | None, conditions: Conditions | None = None) -> Success:
        if conditions is not None and conditions.arms == (0.0, 0.0):
            return _NOTHING  # there is no satellite, and memories are off
        try:
            if conditions is None:
                heralded = self.link.herald(*self._profiles, bright_state)
            else:
                heralded = self.link.herald_under(conditions, *self._profiles, bright_state)
        except ValueError:  # no photon and no dark count reaches a detector
            return _NOTHING
        return Success(min(1.0, heralded.probability), (heralded.state, heralded.state_minus))

    def effects(self, end: int, rotation: Rotation | None) -> FloatArray:
        """(3, 2, 4): what reading the spin of an end in X, Y and Z is, after a rotation."""
        profile = self._profiles[end]
        return effects(rotation, profile.readout_f0, profile.readout_f1)

    def _joint_outcomes(
        self,
        bright_state: float | None,
        conditions: Conditions | None = None,
        rotations: Rotations = (None, None),
    ) -> FloatArray:
        """(2, 3, 3, 2, 2): both outcomes by pattern, and the codes of the bases of both ends.

        Each spin is read right after its emission: no ageing, readout errors included.
        """
        first, second = (self.effects(end, rotations[end]) for end in (0, 1))
        states = np.array(self.success(bright_state, conditions).states)
        joint = np.einsum("iam,pmn,jbn->pijab", first, states, second)
        joint = np.clip(joint, 0.0, None)
        probabilities: FloatArray = joint / joint.sum(axis=(3, 4), keepdims=True)
        return probabilities
