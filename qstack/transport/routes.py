"""Questions about routes: RouteAsk is RouteQuery below, under a number of our own."""

from qstack.errors import ErrorCode
from qstack.network import service as network
from qstack.transport import service
from qstack.transport.calls import Call, Calls
from qstack.transport.context import Context, Reason, reason


class Routes:
    """The open RouteAsk calls."""

    def __init__(self, context: Context, calls: Calls) -> None:
        self._context = context
        self._calls = calls
        self._asking: dict[int, Call] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._asking)

    def ask(self, session: str, message: service.RouteAsk) -> None:
        """RouteAsk: ask the network layer."""
        call = self._calls.open(
            session, message.call, within_ns=None, withdraw=self._withdraw, peer=None
        )
        if call is not None:
            self._next += 1
            self._asking[self._next] = call
            query = network.RouteQuery(
                call=self._next,
                remote=message.remote,
                kind=message.kind,
                min_fidelity=message.min_fidelity,
                from_remote=message.from_remote,
            )
            self._context.tell(network.LAYER, query)

    def on_answer(self, message: network.RouteAnswer) -> None:
        """The network layer's answer; its question may have been withdrawn."""
        call = self._asking.pop(message.call, None)
        if call is not None:
            info = service.RouteInfo(
                call=call.number,
                path=message.path,
                fidelity=message.fidelity,
                rate_hz=message.rate_hz,
                error_x=message.error_x,
                error_z=message.error_z,
            )
            self._calls.answer(call, info)

    def on_network_gone(self, why: Reason) -> None:
        """The network layer has gone: nobody answers."""
        for call in list(self._asking.values()):
            self._withdraw(call, why)

    def on_session_gone(self, session: str) -> None:
        """Its questions are not answered."""
        for call in list(self._asking.values()):
            if call.session == session:
                self._withdraw(call, reason(ErrorCode.CLOSED))

    def _withdraw(self, call: Call, why: Reason) -> None:
        number = next(number for number, asking in self._asking.items() if asking is call)
        del self._asking[number]
        self._calls.fail(call, why)
