"""Frame parity: what an outcome means of a qubit that pi pulses have turned while it waited.

The one place where pulses are accounted for: the device says what it read and how many pulses there
have been, and all layers above see what they would see without.
"""

from qstack.physical.device import BellOutcome, Outcome, PulsedBellOutcome, PulsedOutcome
from qstack.physical.models.decoupling import frame_after, is_reading_flipped
from qstack.physical.profile import Profile
from qstack.wire.message import Basis


def outcome_of(profile: Profile, result: Outcome, basis: Basis) -> int:
    """The outcome of what the qubit stands for."""
    if not isinstance(result, PulsedOutcome):
        return result.outcome
    return unframed(profile, result.outcome, basis, result.pulses)


def unframed(profile: Profile, outcome: int, basis: Basis, pulses: int) -> int:
    """The same of an outcome that was read after so many pulses."""
    return outcome ^ is_reading_flipped(frame_after(profile.decoupling_axis, pulses), basis)


def bell_bits_of(profile: Profile, result: BellOutcome) -> tuple[int, int]:
    """The bits (x, z) of what the two qubits stand for."""
    if not isinstance(result, PulsedBellOutcome):
        return result.x_bit, result.z_bit
    return unframed_bell(profile, (result.x_bit, result.z_bit), result.pulses)


def unframed_bell(
    profile: Profile, bits: tuple[int, int], pulses: tuple[int, int]
) -> tuple[int, int]:
    """The same of bits that were read after so many pulses of each: frames add to the bits."""
    x, z = bits
    for count in pulses:
        frame = frame_after(profile.decoupling_axis, count)
        x, z = x ^ frame.x_bit, z ^ frame.z_bit
    return x, z
