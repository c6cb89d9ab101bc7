"""What a node asks of its device to have a program run, and what the device says of it.

Operations like those of `device.py`, in the same order and with the same rules; what a program is,
and when it begins, is in `program.py`. In the device every place has a name: a fresh qubit is one
that is not there, and that the program initialises first.
"""

from typing import Annotated, Literal

from msgspec import Meta

from qstack.physical.device import Operation, Result
from qstack.physical.program import PLACES_MAX, Places, Steps
from qstack.wire.message import Bit, Count, Id, Label, Nanoseconds, Text


class ArmProgram(Operation, frozen=True, kw_only=True):
    """Run a program when all its places are there. Result: one of ProgramDone, ProgramEnded.

    A refusal (within RESULT_MIN_NS) and ProgramEnded have changed nothing.
    """

    TYPE = 0x0014
    places: Places
    steps: Steps
    until_ns: Nanoseconds


class DisarmProgram(Operation, frozen=True, kw_only=True):
    """Withdraw `program` (the sequence of its ArmProgram), if it has not begun.

    One-way: the answer is that of the program.
    """

    TYPE = 0x0015
    program: Count


class ProgramDone(Result, frozen=True, kw_only=True):
    """A program has run: `qubits` are those of its places, `bits` what the hardware read.

    `pulses` are those of the qubits that were read, in the order of reading, where they are counted
    (`PulsedOutcome`), else empty. What the device did upon bits it did upon what they mean.
    """

    TYPE = 0x0033
    qubits: Annotated[list[Id], Meta(max_length=PLACES_MAX)]
    bits: Annotated[list[Bit], Meta(max_length=2 * PLACES_MAX)]
    pulses: Annotated[list[Count], Meta(max_length=PLACES_MAX)]
    steps_done: Count
    error: Label | None
    detail: Text
    began_at_ns: Nanoseconds


class ProgramEnded(Result, frozen=True, kw_only=True):
    """A program has not begun and will not."""

    TYPE = 0x0034
    reason: Literal["expired", "disarmed", "gone"]


MESSAGES = (ArmProgram, DisarmProgram, ProgramDone, ProgramEnded)
