"""Device programs: what a device is to do by itself when heralds have come, and how it is asked.

A memory cannot wait for a daemon. A program is a short list of steps on a few qubits, the *places*:
such as are there, such as the program initialises, and such as a herald will bring (the trigger).
The device begins when all of them are there, at the time of the last herald, and the daemons hear
what came of it.

Rules
1. A program is answered once. It is refused, or ends without having begun (it was withdrawn, its
   deadline passed, a qubit of it is gone): then nothing has changed. Or it has begun, and runs to
   its end, whatever its deadline: then its result says which qubits it was, what was read, and, if
   a step could not be done, which.
2. The deadline is that of its beginning. How long it runs is bounded by the number of its steps.
3. A herald is for the program that has waited longest for one of that link and token. It is told
   upward as ever, whether or not a program has taken its qubit.
4. Qubits stay with their owners. What a program has not read is its owner's as before.
5. Steps are done one after the other. A Pauli gate may depend on the parity of what was read.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from qstack.physical.service import Angle, GateName
from qstack.quantum.gates import GATES
from qstack.wire.frame import Layer
from qstack.wire.message import Basis, Bit, Count, Id, Label, Message, Nanoseconds, Text

PLACES_MAX: Final = 4
"""Qubits of a program: two that swap, and a spare of each."""
STEPS_MAX: Final = 16
"""Steps of a program: it is a local sequence and not an application."""

_ROTATIONS: Final = ("rx", "ry", "rz")
_PAULIS: Final = ("x", "y", "z")

Which = Annotated[int, Meta(ge=0, lt=PLACES_MAX)]
StepKind = Literal["initialise", "move", "gate", "measure", "bell-measure"]


class Place(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A qubit of a program; on the wire an array of three.

    With a `qubit`, that one. With `link` and `token`, the next that is heralded of attempts to keep
    with this token. With neither, a fresh one, which the program initialises.
    """

    qubit: Id | None = None
    link: Label | None = None
    token: Id | None = None


class Step(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One step; on the wire an array of seven. What does not belong to its kind is nil, 0 or empty.

    With `when`, a Pauli gate is done if the bits of these numbers, of all that were read before,
    have an odd sum. A measurement reads one bit, a Bell measurement two: x, then z.
    """

    kind: StepKind
    places: Annotated[list[Which], Meta(min_length=1, max_length=2)]
    gate: GateName | None = None
    angle: Angle = 0.0
    basis: Basis | None = None
    to: Literal["communication", "storage"] | None = None
    when: Annotated[list[Count], Meta(max_length=8)] = []


Places = Annotated[list[Place], Meta(min_length=1, max_length=PLACES_MAX)]
Steps = Annotated[list[Step], Meta(min_length=1, max_length=STEPS_MAX)]


class _Asked(Message, frozen=True, kw_only=True):
    LAYER = Layer.PHYSICAL


class Arm(_Asked, frozen=True, kw_only=True):
    """Have a program run by the device. Answered by ProgramResult, or by CallFailed.

    Its owner's qubits alone; heralds are for link and network layer to name. Errors, beside those
    of any call: TIMEOUT (not begun before `deadline_ns`), CANCELLED (by Disarm, or a qubit was
    freed), GONE, UNSUPPORTED (the device runs no programs).
    """

    TYPE = 0x0160
    call: Count
    places: Places
    steps: Steps
    deadline_ns: Nanoseconds


class Disarm(_Asked, frozen=True, kw_only=True):
    """Withdraw the program of the open call `program`, if it has not begun. One-way."""

    TYPE = 0x0161
    program: Count


class ProgramResult(_Asked, frozen=True, kw_only=True):
    """Answer to Arm: the program has run, from `began_at_ns` on.

    `qubits` are those of its places, `bits` what it read, in the order of its steps. Those it read
    are gone. `steps_done` is less than all if one could not be done, for `error` (a registry name).
    """

    TYPE = 0x0162
    call: Count
    qubits: Annotated[list[Id], Meta(max_length=PLACES_MAX)]
    bits: Annotated[list[Bit], Meta(max_length=2 * PLACES_MAX)]
    steps_done: Count
    error: Label | None
    detail: Text
    began_at_ns: Nanoseconds


MESSAGES = (Arm, Disarm, ProgramResult)


def swap_program(first: Place, second: Place) -> tuple[list[Place], list[Step]]:
    """Bell-measure two qubits as soon as both are there; the bits are x and z."""
    return [first, second], [Step("bell-measure", [0, 1])]


def bits_of(step: Step) -> int:
    """How many bits a step reads."""
    return {"measure": 1, "bell-measure": 2}.get(step.kind, 0)


def read_places(steps: list[Step]) -> list[int]:
    """The places of what steps read, in their order."""
    return [place for step in steps if bits_of(step) for place in step.places]


def problem_of(places: list[Place], steps: list[Step]) -> str:
    """What is wrong with a program, whoever's; empty if nothing is."""
    named = [place.qubit for place in places if place.qubit is not None]
    if len({*named}) != len(named):
        return "two places are one qubit"
    for place in places:
        if (place.link is None) != (place.token is None):
            return "a herald has a link and a token"
        if place.qubit is not None and place.link is not None:
            return "a place is a qubit or a herald"
    bits = 0
    gone: list[int] = []
    for number, step in enumerate(steps):
        problem = _step_problem(step, len(places), bits)
        if not problem and any(place in gone for place in step.places):
            problem = "its qubit was read before"
        if problem:
            return f"step {number} ({step.kind}): {problem}"
        if bits_of(step):
            bits += bits_of(step)
            gone += step.places
    for which in range(len(places)):
        if not any(which in step.places for step in steps):
            return f"place {which} is in no step"
    return ""


def begins_fresh(which: int, steps: list[Step]) -> bool:
    """Whether the first step on a place initialises it."""
    return next(step for step in steps if which in step.places).kind == "initialise"


def _step_problem(step: Step, places: int, bits: int) -> str:
    wanted = 1
    if step.kind == "gate":
        if step.gate is None:
            return "a gate has a name"
        wanted = GATES[step.gate]
        if step.angle != 0.0 and step.gate not in _ROTATIONS:
            return f"{step.gate} has no angle"
    elif step.kind == "bell-measure":
        wanted = 2
    if len(step.places) != wanted or len({*step.places}) != wanted:
        return f"it acts on {wanted} different places"
    if max(step.places) >= places:
        return f"there is no place {max(step.places)}"
    if (step.gate is not None or step.angle != 0.0) and step.kind != "gate":
        return "a gate and an angle are those of a gate"
    if (step.basis is not None) != (step.kind == "measure"):
        return "a measurement has a basis, and nothing else"
    if (step.to is not None) != (step.kind == "move"):
        return "a move says where to, and nothing else"
    if step.when and step.gate not in _PAULIS:
        return "only Pauli gates depend on what was read"
    return "it depends on bits not read before" if any(bit >= bits for bit in step.when) else ""
