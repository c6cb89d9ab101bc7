"""EchoMeasure: the calls of sessions that have a far end read its halves (see `echo`)."""

from qstack.errors import ErrorCode
from qstack.ids import PairId
from qstack.transport import messages, service
from qstack.transport.calls import Call, Calls
from qstack.transport.context import Context, Reason, reason
from qstack.transport.delivered import Delivered, DeliveredPairs
from qstack.transport.sockets import PortSocket
from qstack.wire.message import Basis


class EchoCalls:
    """The open EchoMeasure calls: one for each pair."""

    def __init__(self, context: Context, calls: Calls, pairs: DeliveredPairs) -> None:
        self._context = context
        self._calls = calls
        self._pairs = pairs
        self._asking: dict[PairId, tuple[Call, Delivered, Basis]] = {}

    def __len__(self) -> int:
        return len(self._asking)

    def ask(self, session: str, socket: PortSocket, message: service.EchoMeasure) -> None:
        """EchoMeasure: have the far end read its half."""
        delivered = self._pairs.get(message.pair)
        if (
            delivered is None
            or socket.port != service.ECHO_PORT
            or delivered.flow is None
            or delivered.session != session
            or delivered.remote != socket.remote
            or message.pair in self._asking
        ):
            detail = "not an unread pair of this session with an echo port"
            self._calls.refuse(session, message.call, ErrorCode.BAD_REQUEST, detail)
            return
        call = self._calls.open(
            session,
            message.call,
            within_ns=None,
            withdraw=self._withdraw,
            peer=delivered.remote,
        )
        if call is not None:
            self._asking[message.pair] = (call, delivered, message.basis)
            self._say(delivered, message.basis)

    def on_reply(self, peer: str, message: messages.EchoReply) -> None:
        """The far end's outcome."""
        call, delivered, _ = self._asking.get(message.pair, (None, None, None))
        if call is None or delivered is None or delivered.remote != peer:
            return
        del self._asking[message.pair]
        self._pairs.forget(message.pair)
        self._calls.answer(call, service.EchoResult(call=call.number, outcome=message.outcome))

    def on_void(self, pair: PairId) -> None:
        """The pair is void: a question about it fails."""
        call, _, _ = self._asking.pop(pair, (None, None, None))
        if call is not None:
            self._calls.fail(call, reason(ErrorCode.EXPIRED, "the far half is gone"))

    def resume(self, peer: str) -> None:
        """The channel is back: ask again."""
        for _, delivered, basis in list(self._asking.values()):
            if delivered.remote == peer:
                self._say(delivered, basis)

    def on_peer_restarted(self, peer: str) -> None:
        """The far end knows nothing of the pairs any more."""
        for call, delivered, _ in list(self._asking.values()):
            if delivered.remote == peer:
                self._withdraw(call, reason(ErrorCode.PEER_DOWN, "it restarted"))

    def on_device_lost(self) -> None:
        """The pairs are gone."""
        for call, _, _ in list(self._asking.values()):
            self._withdraw(call, reason(ErrorCode.DEVICE_LOST))

    def close_socket(self, socket: PortSocket, why: Reason) -> None:
        """The socket's questions end."""
        for call, delivered, _ in list(self._asking.values()):
            is_of_session = delivered.session == socket.session
            is_of_socket = socket.port == service.ECHO_PORT and delivered.remote == socket.remote
            if is_of_session and is_of_socket:
                self._withdraw(call, why)

    def _withdraw(self, call: Call, why: Reason) -> None:
        pair = next(pair for pair, asking in self._asking.items() if asking[0] is call)
        del self._asking[pair]
        self._calls.fail(call, why)

    def _say(self, delivered: Delivered, basis: Basis) -> None:
        assert delivered.flow is not None
        request = messages.EchoRequest(flow=delivered.flow, pair=delivered.pair, basis=basis)
        self._context.send(delivered.remote, request)
