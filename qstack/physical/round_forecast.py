"""What a test round should show, if a link and its ends are as their profiles say.

The link layer sacrifices pairs: both ends read theirs in X, Y or Z. Between the emission, of which
the promised fidelity is, and the reading lie the way of the herald, a move to storage, the turns of
the layers, and the readout with its errors. All of it is reckoned here, so that what is counted
can be compared with what is promised. Of pairs that are measured at once only the readout is left.
"""

from collections.abc import Sequence
from typing import Final

from qstack.physical.generation import has_storage
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.models.heralding import Heralded
from qstack.physical.models.storage import waiting
from qstack.physical.profile import Profile
from qstack.physical.service import MeasuredForecast, RoundForecast
from qstack.quantum.decay import Decay, dephased
from qstack.quantum.estimation import Readout, expected_correlators
from qstack.quantum.state import apply

PROMPT_NS: Final = 40_000
"""From the herald until a device that is free reads: a turn of the link layer, one of physical."""
LATE_LOSS: Final = 1 / 200
LATE_MIN_NS: Final = 100_000
"""A reading may be so late that a qubit has lost this part of its coherence by then, or this long:
only a device that was busy for longer makes rounds void."""
GAIN_MIN: Final = 0.05


def round_forecast(world: World, link: LinkHardware, heralded: Heralded) -> RoundForecast | None:
    """What reading pairs of `heralded` (as announced, at emission) shows.

    None if readout or decay leave less than GAIN_MIN of a correlation.
    """
    profiles = world.end_profiles(link.id)
    prompt = _ages_ns(world, link, profiles)
    cycle_ns = max(1, link.cycle_ns("keep", *profiles))
    late_ns = max(LATE_MIN_NS, min(_late_ns(profile, cycle_ns) for profile in profiles))
    at_once = [_aging(p, age_ns, 1) for p, age_ns in zip(profiles, prompt, strict=True)]
    at_last = [
        _aging(p, age_ns + late_ns, 1 + late_ns // cycle_ns)
        for p, age_ns in zip(profiles, prompt, strict=True)
    ]
    readouts = [Readout(p.readout_f0, p.readout_f1) for p in profiles]
    slope = abs(readouts[0].slope * readouts[1].slope)
    first, second = at_once
    coherence = first.coherence * second.coherence
    gain = slope * (2.0 * coherence + first.population * second.population) / 3.0
    if gain < GAIN_MIN:
        return None
    agreement = _agreement(heralded, at_once, readouts)
    readout_ns = max(profile.readout_ns for profile in profiles)
    return RoundForecast(
        agreement=agreement,
        least=min(agreement, _agreement(heralded, at_last, readouts)),
        gain=min(1.0, gain),
        read_by_ns=max(prompt) + readout_ns + late_ns,
    )


def measured_forecast(
    world: World, link: LinkHardware, heralded: Heralded
) -> MeasuredForecast | None:
    """What pairs of `heralded` show (at emission, not moved) that are measured at once.

    None if readout leaves less than GAIN_MIN of a correlation.
    """
    readouts = [Readout(p.readout_f0, p.readout_f1) for p in world.end_profiles(link.id)]
    gain = abs(readouts[0].slope * readouts[1].slope)
    if gain < GAIN_MIN:
        return None
    both = [
        expected_correlators(state, *readouts, announced=announced)
        for state, announced in ((heralded.state, (1, 0)), (heralded.state_minus, (1, 1)))
    ]
    agreements = [(2.0 + plus + minus) / 4.0 for plus, minus in zip(*both, strict=True)]
    return MeasuredForecast([min(1.0, max(0.0, each)) for each in agreements], min(1.0, gain))


def _ages_ns(world: World, link: LinkHardware, profiles: Sequence[Profile]) -> list[int]:
    """How long after the emission each end reads, if nothing keeps it waiting."""
    ages = []
    for end, profile in zip(link.ends, profiles, strict=True):
        moves = has_storage(world.nodes[end].memory, profile.comm_qubits)
        ages.append(link.herald_back_ns(end) + (profile.move_ns if moves else 0) + PROMPT_NS)
    return ages


def _late_ns(profile: Profile, cycle_ns: int) -> int:
    """How much later a reading costs LATE_LOSS; a second at most."""
    is_gaussian = profile.decay_law == "gaussian"
    of_t2 = LATE_LOSS**0.5 if is_gaussian else LATE_LOSS
    late_s = min(1.0, LATE_LOSS * profile.t1_s, of_t2 * profile.t2_s)
    if profile.attempt_dephasing > 0.0:
        late_s = min(late_s, LATE_LOSS / (2.0 * profile.attempt_dephasing) * cycle_ns / 1e9)
    return round(late_s * 1e9)


def _aging(profile: Profile, age_ns: int, attempts: int) -> Decay:
    """Decay, and what the attempts that go on meanwhile do to an idle qubit."""
    decay = waiting(profile.decay_law, profile.t1_s, profile.t2_s, 0.0, age_ns / 1e9)
    return decay.then(dephased(profile.attempt_dephasing, attempts))


def _agreement(heralded: Heralded, aging: Sequence[Decay], readouts: Sequence[Readout]) -> float:
    """The mean over the two heralds, psi+ and psi-, and the three bases."""
    total = 0.0
    for state, announced in ((heralded.state, (1, 0)), (heralded.state_minus, (1, 1))):
        aged = state
        for axis, decay in enumerate(aging):
            aged = apply(aged, axis, decay.transfer)
        here, there = readouts
        correlators = expected_correlators(aged, here, there, announced=announced)
        total += (1.0 + sum(correlators) / 3.0) / 2.0
    return min(1.0, max(0.0, total / 2.0))
