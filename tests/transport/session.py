"""A played application: it makes calls, and checks that each is answered once."""

from itertools import count
from typing import TYPE_CHECKING, Any

from qstack.machine import Told
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.transport import messages, service
from qstack.wire.codec import Registry, encode

if TYPE_CHECKING:
    from tests.transport.world import World

REGISTRY = Registry((*messages.MESSAGES, *service.MESSAGES, *network.MESSAGES, *physical.MESSAGES))
CLOSING = (
    service.Opened,
    service.Accepted,
    service.Finished,
    service.QubitArrived,
    service.MessageArrived,
    service.EchoResult,
    service.RouteInfo,
    service.Failed,
)


def over_the_wire(message: Any) -> Any:
    """The message as its receiver decodes it."""
    return REGISTRY.decode(encode(message))


class Session:
    """An application: its calls and what it was told."""

    def __init__(self, world: "World", node: str, name: str) -> None:
        self.world, self.node, self.name = world, node, name
        self.told: list[Any] = []
        self.calls: dict[int, Any] = {}
        self.closings: dict[int, Any] = {}
        self._numbers = count(1)

    def call(self, kind: Any, /, **fields: Any) -> int:
        number = next(self._numbers)
        message = over_the_wire(kind(call=number, **fields))
        self.calls[number] = message
        self.world.event(self.node, Told(self.name, message))
        return number

    def say(self, message: Any) -> None:
        self.world.event(self.node, Told(self.name, message))

    def hear(self, message: Any) -> None:
        self.told.append(message)
        if isinstance(message, CLOSING):
            assert message.call in self.calls, message
            assert message.call not in self.closings, f"answered twice: {message}"
            self.closings[message.call] = message

    def of(self, kind: Any) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]

    def error(self, call: int) -> str:
        closing = self.closings[call]
        assert isinstance(closing, service.Failed), closing
        return closing.error

    def is_finished(self, call: int) -> bool:
        return isinstance(self.closings.get(call), service.Finished)

    def socket(self, call: int) -> int:
        closing = self.closings[call]
        assert isinstance(closing, (service.Opened, service.Accepted)), closing
        return closing.socket

    def qubit(self, payload: str) -> bytes:
        """A data qubit of the session's."""
        return self.world.data_qubit(self.node, self.name, payload)

    # Common calls, with values that do not matter in most tests.

    def epr(self, port: int, remote: str | None) -> int:
        return self.socket(self.call(service.EprOpen, port=port, remote=remote))

    def create(self, socket: int, number: int = 1, basis: Any = None, **more: Any) -> int:
        fields = {"min_fidelity": 0.5, "priority": 0, "within_ns": None, **more}
        return self.call(service.EprCreate, socket=socket, number=number, basis=basis, **fields)

    def accept_pairs(
        self, socket: int, number: int = 1, basis: Any = None, within_ns: int | None = None
    ) -> int:
        return self.call(
            service.EprAccept, socket=socket, number=number, basis=basis, within_ns=within_ns
        )

    def listen(self, port: int, remote: str | None = None) -> int:
        return self.socket(self.call(service.Listen, port=port, remote=remote))

    def accept(self, socket: int, within_ns: int | None = None) -> int:
        return self.call(service.Accept, socket=socket, within_ns=within_ns)

    def stream(self, kind: Any, remote: str, port: int, within_ns: int | None = None) -> int:
        return self.call(
            service.StreamOpen,
            kind=kind,
            remote=remote,
            port=port,
            min_fidelity=0.5,
            within_ns=within_ns,
        )

    def send_qubit(self, socket: int, payload: str, within_ns: int | None = None) -> int:
        qubit = self.qubit(payload)
        self.world.nodes[self.node].device.qubits[qubit].owner = "transport"
        return self.call(service.SendQubit, socket=socket, qubit=qubit, within_ns=within_ns)

    def receive_qubit(self, socket: int, within_ns: int | None = None) -> int:
        return self.call(service.ReceiveQubit, socket=socket, within_ns=within_ns)

    def send(self, socket: int, data: bytes, within_ns: int | None = None) -> int:
        return self.call(service.SendMessage, socket=socket, data=data, within_ns=within_ns)

    def receive(self, socket: int, within_ns: int | None = None) -> int:
        return self.call(service.ReceiveMessage, socket=socket, within_ns=within_ns)

    def close(self, socket: int) -> None:
        self.say(service.CloseSocket(socket=socket))

    def cancel(self, call: int) -> None:
        self.say(service.CancelCall(call=call))
