"""The emulated device: operations go to the fabric, results come from it as messages."""

from typing import Final

from qstack.machine import FABRIC, Effect, Send
from qstack.physical.device import Operation
from qstack.physical.drivers.setup import Setup
from qstack.wire.message import Message


class EmulatedDevice:
    """A device whose qubits live in the fabric; it holds nothing itself."""

    peer: Final = FABRIC
    has_two_ends = True

    def __init__(self, setup: Setup | None = None) -> None:
        """It needs to know nothing: the fabric has read the same network file."""
        del setup

    def begin(self, now: int) -> None:
        """The fabric has begun anew by itself."""

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        """Send `operation` to the fabric."""
        del now
        return [Send(FABRIC, operation)]

    def received(self, message: Message, now: int) -> list[Message]:
        """What the fabric says is what the device says."""
        del now
        return [message]

    def next_event_ns(self) -> int | None:
        """Never: everything comes from the fabric."""
        return None

    def answers(self, now: int) -> list[Message]:
        """Nothing."""
        del now
        return []
