"""How long a device takes over an operation: the same numbers in the fabric and at the node."""

from collections.abc import Callable
from operator import attrgetter
from typing import Final

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
from qstack.physical.program import Step
from qstack.physical.program_device import ArmProgram

DURATIONS_NS: Final[dict[type[Operation], Callable[[Profile], int]]] = {
    Generate: lambda _: 0,
    Release: lambda _: 0,
    Initialise: attrgetter("t_init_ns"),
    Clear: attrgetter("t_init_ns"),
    DoMeasure: attrgetter("readout_ns"),
    DoBellMeasure: lambda profile: profile.gate_2q_ns + profile.gate_1q_ns + profile.readout_ns,
    DoMove: attrgetter("move_ns"),
}
"""Of operations that all take as long; a Bell measurement is a two-qubit gate, a one-qubit gate
and a readout of both at once."""


def duration_ns(profile: Profile, operation: Operation) -> int:
    """How long the device is busy with `operation`; start and stop of attempts take no time.

    A program is all of its steps, if it begins at once; one that waits for a herald keeps nobody.
    """
    of_kind = DURATIONS_NS.get(type(operation))
    if of_kind is not None:
        return of_kind(profile)
    match operation:
        case DoGate():
            return profile.gate_1q_ns if len(operation.qubits) == 1 else profile.gate_2q_ns
        case ArmProgram() if all(place.link is None for place in operation.places):
            return sum(step_ns(profile, step) for step in operation.steps)
        case _:
            return 0


def step_ns(profile: Profile, step: Step) -> int:
    """How long one step of a device program takes."""
    match step.kind:
        case "initialise":
            return profile.t_init_ns
        case "move":
            return profile.move_ns
        case "gate":
            return profile.gate_1q_ns if len(step.places) == 1 else profile.gate_2q_ns
        case "measure":
            return profile.readout_ns
        case "bell-measure":
            return profile.gate_2q_ns + profile.gate_1q_ns + profile.readout_ns


def result_ns(profile: Profile, operation: Operation) -> int:
    """How long after its start the result of `operation` is at the node.

    That of a program: when its last step is done, and no sooner than RESULT_MIN_NS after its start.
    """
    if isinstance(operation, ArmProgram):
        return duration_ns(profile, operation) + RESULT_MIN_NS
    return max(duration_ns(profile, operation), RESULT_MIN_NS)


def answer_ns(profile: Profile, operation: Operation) -> int:
    """How long after its start an operation without result counts as done.

    A two-qubit gate can be refused (the joint state would be too large), and so can a move: it is
    not answered before a refusal, due RESULT_MIN_NS after the start, would have come.
    """
    is_refusable = isinstance(operation, DoGate) and len(operation.qubits) > 1
    if is_refusable or isinstance(operation, DoMove):
        return max(duration_ns(profile, operation), RESULT_MIN_NS + 1)
    return duration_ns(profile, operation)
