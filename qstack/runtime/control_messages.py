"""Control of an emulated world, over the fabric's Unix socket: for operators, tests and the demo.

None of it exists with real hardware. What it tells (the true states) never reaches a node.
"""

from typing import Annotated

from msgspec import Meta

from qstack.wire.frame import Layer
from qstack.wire.message import Count, Message, Nanoseconds, Text


class _Control(Message, frozen=True, kw_only=True):
    LAYER = Layer.CLOCK


class Hold(_Control, frozen=True, kw_only=True):
    """Let the clock stand at `at_ns` (nil: now). Answered by Held when it stands there."""

    TYPE = 0x0101
    at_ns: Nanoseconds | None


class Held(_Control, frozen=True, kw_only=True):
    """The clock stands at `now_ns`, and everything before it is done everywhere."""

    TYPE = 0x0102
    now_ns: Nanoseconds


class Release(_Control, frozen=True, kw_only=True):
    """Let the clock go on. Answered by ControlDone."""

    TYPE = 0x0103


class AskWorld(_Control, frozen=True, kw_only=True):
    """Ask for a report of the fabric; answered by World."""

    TYPE = 0x0104


class World(_Control, frozen=True, kw_only=True):
    """JSON: clock, rounds, nodes up, qubits, batches, channels, process."""

    TYPE = 0x0105
    report: bytes


class AskTruth(_Control, frozen=True, kw_only=True):
    """Ask for the true states of the measured pairs from number `first` on."""

    TYPE = 0x0106
    first: Count


class Truth(_Control, frozen=True, kw_only=True):
    """`states`: float64, big-endian, 16 for each pair (Pauli expectations, row major).

    `nodes` and `qubits` name the two halves of each, in the order of the state's axes.
    """

    TYPE = 0x0107
    first: Count
    nodes: Annotated[list[tuple[str, str]], Meta(max_length=100_000)]
    qubits: Annotated[list[tuple[bytes, bytes]], Meta(max_length=100_000)]
    states: bytes


class ControlDone(_Control, frozen=True, kw_only=True):
    """Done."""

    TYPE = 0x0108


class ControlFailed(_Control, frozen=True, kw_only=True):
    """Not done, and why."""

    TYPE = 0x0109
    detail: Text


REQUESTS = (Hold, Release, AskWorld, AskTruth)
ANSWERS = (Held, World, Truth, ControlDone, ControlFailed)
