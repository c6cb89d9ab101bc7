"""Halves of test rounds of measured pairs, in bulk: which pairs, and what comparing them shows.

Whether a pair is sacrificed is drawn by numpy for all pairs of a message at once, from what names
it alike at both ends: its herald sequence, or its slot.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from qstack.link.params import MEASURED_ROUNDS_MAX
from qstack.physical.service import Rotation
from qstack.wire.message import BasisChoice, BasisProbabilities
from qstack.wire.packed import BASES, Bits, Codes, Slots

BrightState = float | None
"""Which option of a link, by what tells them apart."""
Mask = npt.NDArray[np.bool_]
_X, _Y, _Z = (BASES.index(basis) for basis in BASES)
_WORD: Final = 2**64
_MULTIPLIERS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))


def are_sacrificed(first_pair: bytes, sequences: Slots, share: float) -> Mask:
    """Which pairs of a link are sacrificed; `first_pair` is the id of its pair 0, of both lives.

    Each number goes twice through the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014),
    with a number before each that is a hash of the link and both boot ids.
    """
    hashed = blake2b(first_pair, digest_size=16, person=b"qstack rounds").digest()
    mixed = sequences.astype(np.uint64)
    for number in np.frombuffer(hashed, dtype=">u8").astype(np.uint64):
        mixed = mixed ^ number
        mixed = (mixed ^ (mixed >> _SHIFTS[0])) * _MULTIPLIERS[0]
        mixed = (mixed ^ (mixed >> _SHIFTS[1])) * _MULTIPLIERS[1]
        mixed = mixed ^ (mixed >> _SHIFTS[2])
    chosen: Mask = mixed < np.uint64(int(share * _WORD))
    return chosen


def can_be_compared(
    here: BasisChoice, there: BasisChoice, rotations: tuple[Rotation | None, Rotation | None]
) -> bool:
    """Whether pairs that both ends read so are ever read in one basis, and not turned before."""
    chances = zip(_chances(here), _chances(there), strict=True)
    return rotations == (None, None) and any(a * b > 0.0 for a, b in chances)


def _chances(choice: BasisChoice) -> list[float]:
    if isinstance(choice, BasisProbabilities):
        return [choice.in_x, choice.in_y, choice.in_z]
    return [float(basis == choice) for basis in BASES]


@dataclass(frozen=True, eq=False)
class Halves:
    """What one end read of sacrificed pairs: arrays of one length."""

    sequences: Slots
    outcomes: Bits
    bases: Codes

    def __len__(self) -> int:
        return len(self.sequences)

    def only(self, which: Mask | slice) -> "Halves":
        """Some of them."""
        return Halves(self.sequences[which], self.outcomes[which], self.bases[which])

    def then(self, later: "Halves") -> "Halves":
        """With those that came later; of too many the oldest are forgotten."""
        both = Halves(
            np.concatenate((self.sequences, later.sequences)),
            np.concatenate((self.outcomes, later.outcomes)),
            np.concatenate((self.bases, later.bases)),
        )
        return both.only(slice(-MEASURED_ROUNDS_MAX, None))

    def expected_there(self, x_bits: Bits, z_bits: Bits) -> "Halves":
        """Instead of each outcome, the one that the announced Bell state (x, z) gives there."""
        is_odd = self.bases == _Y  # of phi+
        flips = (
            is_odd ^ np.where(self.bases != _X, x_bits, 0) ^ np.where(self.bases != _Z, z_bits, 0)
        )
        return Halves(self.sequences, self.outcomes ^ flips.astype(np.uint8), self.bases)


def no_halves() -> Halves:
    """Of no pair."""
    nothing: Bits = np.zeros(0, dtype=np.uint8)
    return Halves(nothing.astype(np.int64), nothing, nothing)


class Compared(NamedTuple):
    """Rounds of one option, and how many of them agreed, in X, Y and Z."""

    bright_state: BrightState
    rounds: list[int]
    agreeing: list[int]


@dataclass
class Unmatched:
    """At the master of a link: halves whose other half has not come. `own` say what to expect."""

    own: dict[BrightState, Halves] = field(default_factory=dict)
    far: Halves = field(default_factory=no_halves)

    def add_own(self, bright_state: BrightState, halves: Halves) -> None:
        """What we read, as `expected_there`."""
        self.own[bright_state] = self.own.get(bright_state, no_halves()).then(halves)

    def compare(self) -> list[Compared]:
        """What can be compared; that is forgotten."""
        found = []
        for bright_state, own in list(self.own.items()):
            _, here, there = np.intersect1d(own.sequences, self.far.sequences, return_indices=True)
            if not len(here):
                continue
            is_alike = own.bases[here] == self.far.bases[there]
            agrees = own.outcomes[here] == self.far.outcomes[there]
            bases = own.bases[here]
            found.append(
                Compared(
                    bright_state,
                    _by_basis(bases[is_alike]),
                    _by_basis(bases[is_alike & agrees]),
                )
            )
            self.own[bright_state] = own.only(_all_but(len(own), here))
            self.far = self.far.only(_all_but(len(self.far), there))
        return found


def _by_basis(bases: Codes) -> list[int]:
    counted: list[int] = np.bincount(bases, minlength=len(BASES)).tolist()
    return counted


def _all_but(count: int, places: npt.NDArray[np.intp]) -> Mask:
    kept: Mask = np.ones(count, dtype=np.bool_)
    kept[places] = False
    return kept
