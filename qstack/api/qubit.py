"""A qubit of an application: gates, measurement, and what has become of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from qstack.api import checks
from qstack.api.call import Call, Subject
from qstack.api.errors import BadRequest, Lost, NotOwner, Refused
from qstack.physical import service as physical
from qstack.wire.message import Message

if TYPE_CHECKING:
    from qstack.api.node import Node


class Qubit:
    """One qubit of a node. Made by the node: `node.qubit()`, a pair, or a stream.

    Every operation raises `BadRequest` (GONE) if the qubit was measured, freed or sent before,
    `Lost` if the far half of its pair is gone, `NotOwner` if another session or layer has it.
    """

    def __init__(self, node: "Node", name: bytes, *, port: int = -1) -> None:
        self.node = node
        self.id = name
        self.subject = Subject(port, "qubit", name=name)
        self.fate: str | None = None  # why it can be used no more
        self.loss: str | None = None  # its state is worth nothing: why

    def __repr__(self) -> str:
        return f"<Qubit {self.id.hex()} of {self.node.name}: {self.fate or 'alive'}>"

    # --- gates -----------------------------------------------------------------------------------

    async def h(self) -> None:
        """Hadamard gate."""
        await self._gate("h")

    async def x(self) -> None:
        """Pauli X gate."""
        await self._gate("x")

    async def y(self) -> None:
        """Pauli Y gate."""
        await self._gate("y")

    async def z(self) -> None:
        """Pauli Z gate."""
        await self._gate("z")

    async def s(self) -> None:
        """Phase gate: the square root of Z."""
        await self._gate("s")

    async def t(self) -> None:
        """T gate: the square root of S."""
        await self._gate("t")

    async def rx(self, angle: float) -> None:
        """Rotate about X by `angle` radians."""
        await self._gate("rx", checks.angle(angle))

    async def ry(self, angle: float) -> None:
        """Rotate about Y by `angle` radians."""
        await self._gate("ry", checks.angle(angle))

    async def rz(self, angle: float) -> None:
        """Rotate about Z by `angle` radians."""
        await self._gate("rz", checks.angle(angle))

    async def cnot(self, target: "Qubit") -> None:
        """Controlled NOT; this qubit controls."""
        await self._gate("cnot", 0.0, target)

    async def cz(self, target: "Qubit") -> None:
        """Controlled Z."""
        await self._gate("cz", 0.0, target)

    async def _gate(
        self, name: physical.GateName, angle: float = 0.0, target: "Qubit | None" = None
    ) -> None:
        self.require()
        qubits = [self.id]
        if target is not None:
            target.require()
            if target.node is not self.node or target.id == self.id:
                raise BadRequest(f"{name} takes two qubits of one node")
            qubits.append(target.id)
        call = self._call(
            lambda number: physical.ApplyGate(call=number, name=name, qubits=qubits, angle=angle)
        )
        await self.node.connection.ask(call, physical.CallDone)

    # --- its end ---------------------------------------------------------------------------------

    async def measure(self, basis: str = "Z") -> int:
        """Measure in basis X, Y or Z, which ends the qubit; the outcome, 0 or 1."""
        checked = checks.basis(basis)
        self.require()
        call = self._call(
            lambda number: physical.Measure(call=number, qubit=self.id, basis=checked)
        )
        self.end("measured")
        try:
            return (await self.node.connection.ask(call, physical.Measured)).outcome
        except trio.Cancelled:
            if call.is_unsaid:
                self.revive()
            raise
        except (Refused, NotOwner):
            self.revive()
            raise

    async def reset(self) -> None:
        """Bring the qubit to state 0."""
        self.require()
        call = self._call(lambda number: physical.Reset(call=number, qubit=self.id))
        await self.node.connection.ask(call, physical.CallDone)

    async def free(self) -> None:
        """End the qubit. Nothing happens if it has ended before."""
        if self.fate is None:
            self.end("freed")
            self.node.connection.say(self.subject, physical.Free(qubit=self.id))
        await trio.lowlevel.checkpoint()

    # --- for the other parts of this package -----------------------------------------------------

    def require(self) -> None:
        """Raise what says why the qubit cannot be used, if so."""
        if self.loss is not None:
            raise Lost(self.loss)
        if self.fate is not None:
            raise BadRequest(f"this qubit was {self.fate}", code="GONE")

    def end(self, fate: str) -> None:
        """Remember what became of it."""
        self.fate = fate
        self.node.qubits.pop(self.id, None)

    def revive(self) -> None:
        """It did not end after all."""
        self.fate = None
        self.node.qubits[self.id] = self

    def _call(self, make: Callable[[int], Message]) -> Call:
        connection = self.node.connection
        return Call(self.subject, lambda number: (make(number),), None, connection.give_back)
