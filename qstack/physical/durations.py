"""How long a device takes over an operation: the same numbers in the fabric and at the node."""

from qstack.physical.device import (
    Clear,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    DoMove,
    Generate,
    Initialise,
    Operation,
    Release,
)
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.profile import Profile


def duration_ns(profile: Profile, operation: Operation) -> int:
    """How long the device is busy with `operation`; start and stop of attempts take no time.

    A Bell measurement is a two-qubit gate, a one-qubit gate and a readout of both at once.
    """
    match operation:
        case Release() | Generate():  # by far the likeliest
            return 0
        case Initialise() | Clear():
            return profile.t_init_ns
        case DoGate():
            return profile.gate_1q_ns if len(operation.qubits) == 1 else profile.gate_2q_ns
        case DoMeasure():
            return profile.readout_ns
        case DoBellMeasure():
            return profile.gate_2q_ns + profile.gate_1q_ns + profile.readout_ns
        case DoMove():
            return profile.move_ns
        case _:
            return 0


def result_ns(profile: Profile, operation: Operation) -> int:
    """How long after its start the result of `operation` is at the node."""
    return max(duration_ns(profile, operation), RESULT_MIN_NS)


def answer_ns(profile: Profile, operation: Operation) -> int:
    """How long after its start an operation without result counts as done.

    A two-qubit gate can be refused (the joint state would be too large): it is not answered
    before a refusal, due RESULT_MIN_NS after the start, would have come.
    """
    if isinstance(operation, DoGate) and len(operation.qubits) > 1:
        return max(duration_ns(profile, operation), RESULT_MIN_NS + 1)
    return duration_ns(profile, operation)
