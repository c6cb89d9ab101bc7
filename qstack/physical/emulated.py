"""The emulated device: operations go to the fabric, results come from it as messages."""

from typing import Final

from qstack.machine import FABRIC, Effect, Send
from qstack.physical.device import Operation


class EmulatedDevice:
    """A device whose qubits live in the fabric; it holds nothing itself."""

    peer: Final = FABRIC

    def submit(self, operation: Operation) -> list[Effect]:
        """Send `operation` to the fabric."""
        return [Send(FABRIC, operation)]
