"""The network requests for the pairs of a qubit stream, at its sender.

A request is for all qubits that wait when it is made, and its pairs go to whoever waits longest
when they come. Both ends count the requests of a stream and know their ids without a message.

Rules
1. Not more than STREAM_REQUESTS_MAKING_MAX are being made: qubits that come meanwhile share the
   next one.
2. A request is over when it has ended and the fates of all its pairs are acknowledged. The receiver
   is told, and STREAM_REQUESTS_MAX are not over at most: it knows so many ids.
3. A request the network has no time for is made again in halves, for fewer qubits may do.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Final, Protocol

from qstack.errors import ErrorCode
from qstack.ids import ID_BYTES, PairId
from qstack.network import service as network
from qstack.transport.context import Context, Reason, reason
from qstack.transport.params import (
    STREAM_PRIORITY,
    STREAM_REQUEST_PAIRS_MAX,
    STREAM_REQUESTS_MAKING_MAX,
    STREAM_REQUESTS_MAX,
)
from qstack.transport.stream_socket import Name

_NUMBER_BYTES: Final = 8


def request_id(name: Name, node: str, number: int) -> bytes:
    """The id of request `number` of the stream `name` of `node`, 16 bytes, equal at both ends."""
    opener, acceptor = (node, name.peer) if name.is_opener else (name.peer, node)
    ends = f"{opener} {acceptor}".encode()
    text = name.id + number.to_bytes(_NUMBER_BYTES) + ends
    return blake2b(text, digest_size=ID_BYTES).digest()


class PairUser(Protocol):
    """The sender, as its requests know it."""

    def on_pair(self, request: int, message: network.EndPair, /) -> None:
        """A pair of the request; its qubit is the transport layer's."""

    def on_pair_expired(self, pair: PairId, /) -> None:
        """A pair told before is void."""

    def on_lack(self, pairs: int, deadline_ns: int, why: Reason, /) -> None:
        """So many pairs, asked for until `deadline_ns`, will not come."""


class SenderRequest:
    """One network request; see `RequestUser`."""

    def __init__(
        self, requests: "SenderRequests", number: int, missing: int, deadline_ns: int
    ) -> None:
        self._requests = requests
        self.number = number
        self.missing = missing
        self.deadline_ns = deadline_ns
        self.unsettled = 0
        self.is_ended = False

    def on_pair(self, message: network.EndPair) -> None:
        """A pair, for whoever waits."""
        self._requests.on_pair(self, message)

    def on_measured(self, message: network.EndMeasured) -> None:
        """Never asked for."""

    def on_expired(self, message: network.EndPairExpired) -> None:
        """One of its pairs is void."""
        self._requests.user.on_pair_expired(message.pair)

    def on_done(self) -> None:
        """All pairs have come."""
        self._requests.on_ended(self, reason(ErrorCode.EXPIRED, "the network made no pair"))

    def on_failed(self, why: Reason) -> None:
        """No more will come."""
        self._requests.on_ended(self, why)


class SenderRequests:
    """All of one stream that are not over. `over` tells the receiver what is, and `refused` hears
    that an id was taken.
    """

    def __init__(
        self,
        context: Context,
        name: Name,
        user: PairUser,
        over: Callable[[], None],
        refused: Callable[[], None],
    ) -> None:
        self.user = user
        self.below = 0  # all requests before this one are over
        self._context = context
        self._name = name
        self._over = over
        self._refused = refused
        self._next = 0
        self._pairs_max = STREAM_REQUEST_PAIRS_MAX
        self._requests: dict[int, SenderRequest] = {}
        self.to_come = 0
        """Pairs asked for that have not come."""

    def ask(self, wanted: int, deadline_ns: Callable[[int, int], int]) -> None:
        """Have `wanted` pairs come in all. `deadline_ns` of which of those who wait: from, to."""
        if self.to_come >= wanted:
            return
        making = sum(not request.is_ended for request in self._requests.values())
        while (
            self.to_come < wanted
            and making < STREAM_REQUESTS_MAKING_MAX
            and self._next < self.below + STREAM_REQUESTS_MAX
        ):
            pairs = min(wanted - self.to_come, self._pairs_max)
            if not self._make(pairs, deadline_ns(self.to_come, self.to_come + pairs)):
                return
            making += 1

    def _make(self, pairs: int, deadline_ns: int) -> bool:
        name = self._id(self._next)
        if self._context.is_known_request(name):
            self._refused()
            return False
        request = SenderRequest(self, self._next, pairs, deadline_ns)
        self._next += 1
        self.to_come += pairs
        self._requests[request.number] = request
        self._context.use_request(name, request)
        create = network.NetworkCreate(
            request=name,
            remote=self._name.peer,
            purpose=self._name.port,
            kind="keep",
            number=pairs,
            min_fidelity=self._name.min_fidelity,
            deadline_ns=deadline_ns,
            priority=STREAM_PRIORITY,
            basis=None,
            remote_basis=None,
        )
        self._context.tell(network.LAYER, create)
        return True

    def settled(self, number: int) -> None:
        """The fate of one pair of the request is acknowledged."""
        request = self._requests.get(number)
        if request is not None:  # unless the stream has ended
            request.unsettled -= 1
            self._forget_over()

    def cancel(self) -> None:
        """Nobody waits for pairs any more."""
        for request in self._requests.values():
            if not request.is_ended:
                request.is_ended = True
                self.to_come -= request.missing
                request.missing = 0
                name = self._id(request.number)
                self._context.tell(network.LAYER, network.NetworkCancel(request=name))
        self._forget_over()

    def end(self) -> None:
        """The stream has ended: hear of no request any more."""
        for request in self._requests.values():
            self._context.end_request(self._id(request.number), cancel=not request.is_ended)
        self._requests.clear()
        self.to_come = 0

    # --- from the network ---

    def on_pair(self, request: SenderRequest, message: network.EndPair) -> None:
        """A pair has come."""
        if message.kind != "keep" or not request.missing:
            self._context.free(message.qubit)
            return
        request.missing -= 1
        self.to_come -= 1
        request.unsettled += 1
        self.user.on_pair(request.number, message)

    def on_ended(self, request: SenderRequest, why: Reason) -> None:
        """No more pairs of it will come."""
        lacking, request.missing = request.missing, 0
        self.to_come -= lacking
        request.is_ended = True
        if not lacking:
            self._pairs_max = min(2 * self._pairs_max, STREAM_REQUEST_PAIRS_MAX)
        elif why.error == ErrorCode.NO_TIME.name and lacking > 1:
            self._pairs_max = lacking // 2
            lacking = 0
        self._forget_over()
        self.user.on_lack(lacking, request.deadline_ns, why)

    def _forget_over(self) -> None:
        before = self.below
        while (first := self._requests.get(self.below)) is not None:
            if first.unsettled or not first.is_ended:
                break
            self._context.end_request(self._id(self.below), cancel=False)
            del self._requests[self.below]
            self.below += 1
        if self.below != before:
            self._over()

    def _id(self, number: int) -> bytes:
        return request_id(self._name, self._context.node, number)
