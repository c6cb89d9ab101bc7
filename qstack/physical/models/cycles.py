"""How often one may attempt, from durations and geometry, and with many modes at a time.

Rules
1. Times are whole nanoseconds; an arm is the time of light from a node to the station.
2. A qubit that is kept waits for its herald: preparation + emission + 2 x the longer arm. One
   that is read at once does not: attempts are pipelined, and only the node's own work and the
   station's dead time count. The two give different states: a kept one ages from its emission.
3. Photons must meet: the node of the shorter arm emits later by the difference.
"""

import math
from typing import Final

import numpy as np

from qstack.physical.models.ranges import require_at_least, require_not_negative, require_unit

_SETTLING: Final = 20
"""Dead times after which a detector is live as often as ever."""


def keep_cycle_ns(prepare_ns: int, emit_ns: int, arms_ns: tuple[int, int]) -> int:
    """From one attempt to the next of a qubit that is kept. Raises ValueError if negative."""
    require_not_negative(prepare_ns=prepare_ns, emit_ns=emit_ns, arms_ns=min(arms_ns))
    return prepare_ns + emit_ns + 2 * max(arms_ns)


def measure_cycle_ns(
    prepare_ns: int, emit_ns: int, readout_ns: int, *, reset_ns: int = 0, station_dead_ns: int = 0
) -> int:
    """From one attempt to the next of a qubit that is read at once. ValueError if negative."""
    require_not_negative(
        prepare_ns=prepare_ns,
        emit_ns=emit_ns,
        readout_ns=readout_ns,
        reset_ns=reset_ns,
        station_dead_ns=station_dead_ns,
    )
    return max(prepare_ns + emit_ns + readout_ns + reset_ns, station_dead_ns)


def emission_delays_ns(arms_ns: tuple[int, int]) -> tuple[int, int]:
    """How much later than the other each node emits, so that photons meet at the station."""
    require_not_negative(arms_ns=min(arms_ns))
    longest = max(arms_ns)
    return longest - arms_ns[0], longest - arms_ns[1]


def herald_wait_ns(arms_ns: tuple[int, int], end: int) -> int:
    """From an emission, in step with the longer arm's, until the herald is at end 0 or 1."""
    if end not in (0, 1):
        raise ValueError(f"a link has the ends 0 and 1, not {end}")
    require_not_negative(arms_ns=min(arms_ns))
    return max(arms_ns) + arms_ns[end]


def frame_cycle_ns(trials: int, trial_ns: int, prepare_ns: int, arms_ns: tuple[int, int]) -> int:
    """Midpoint source: from one frame to the next.

    Both prepare, N trials pass, and the numbers of the latched trials cross from end to end. The
    photons of a frame are on their way while the one before is compared only if a node has memory
    for both: that is not counted on here. Raises ValueError for fewer than 1 trial or if negative.
    """
    require_at_least(1, trials=trials, trial_ns=trial_ns)
    require_not_negative(prepare_ns=prepare_ns, arms_ns=min(arms_ns))
    return prepare_ns + trials * trial_ns + sum(arms_ns)


def train_cycle_ns(modes: int, mode_ns: int, prepare_ns: int, arms_ns: tuple[int, int]) -> int:
    """A train of `modes` time bins into a memory that waits for the heralds of all of them.

    Raises ValueError for fewer than 1 mode or if negative.
    """
    require_at_least(1, modes=modes)
    require_not_negative(mode_ns=mode_ns, prepare_ns=prepare_ns, arms_ns=min(arms_ns))
    return prepare_ns + modes * mode_ns + 2 * max(arms_ns)


# --- many modes ----------------------------------------------------------------------------------


def usable_modes(modes: int, memory_modes: tuple[int, int]) -> int:
    """How many of the modes sent both memories can hold. Raises ValueError for fewer than 1."""
    require_at_least(1, modes=modes, memory_modes=min(memory_modes))
    return min(modes, *memory_modes)


def blinded_probability(success: float, click: float, dead_modes: int, modes: int) -> float:
    """That a mode of a train succeeds, where detectors are dead for `dead_modes` after a click.

    A success takes two detectors, each of which clicks with `click` in every mode in which it is
    live; at its beginning all are. Mode k sees one live with u_k = 1 - click (u_(k-1) + ... +
    u_(k-D)), so 1 - prod (1 - success u_k^2): exact for each detector, and the two are taken as
    dead independently. Raises ValueError as `multiplexed_probability`, or for a negative dead time.
    """
    require_unit(success=success, click=click)
    require_at_least(1, modes=modes)
    require_not_negative(dead_modes=dead_modes)
    if dead_modes == 0 or success == 1.0:
        return multiplexed_probability(success, modes)
    settled = min(modes, _SETTLING * (dead_modes + 1))
    live = (1.0 - click) ** np.arange(settled)  # until the first dead time is over
    recent = float(live[:dead_modes].sum())
    for mode in range(dead_modes + 1, settled):
        recent += live[mode - 1] - live[mode - 1 - dead_modes]
        live[mode] = 1.0 - click * recent
    missed = float(np.log1p(-success * live**2).sum())
    if modes > settled:
        steady = 1.0 / (1.0 + click * dead_modes)
        missed += (modes - settled) * math.log1p(-success * steady**2)
    return -math.expm1(missed)


def multiplexed_probability(probability: float, modes: int) -> float:
    """Of at least one success in M independent modes: 1 - (1-p)^M.

    Raises ValueError for a probability outside 0..1 or fewer than 1 mode.
    """
    require_unit(probability=probability)
    require_at_least(1, modes=modes)
    if probability == 1.0:
        return 1.0
    return -math.expm1(modes * math.log1p(-probability))


def successes_per_attempt(probability: float, modes: int) -> float:
    """The mean number of successes of an attempt in M modes: M p (all can be used).

    Raises ValueError for a probability outside 0..1 or fewer than 1 mode.
    """
    require_unit(probability=probability)
    require_at_least(1, modes=modes)
    return modes * probability


def pairs_per_s(probability: float, cycle_ns: float) -> float:
    """Successes a second. Raises ValueError outside 0..1 or for a cycle below 1 ns."""
    require_unit(probability=probability)
    require_at_least(1, cycle_ns=cycle_ns)
    return probability * 1e9 / cycle_ns
