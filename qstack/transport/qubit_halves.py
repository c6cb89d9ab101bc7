"""Our halves of the pairs of a qubit stream, at its receiver, until its sender says whose they are.

The sender counts its network requests, whose ids follow from the count (`qubit_requests`), so the
requests to come can be known before they are made.

Rules
1. A half is taken by the pair's name, never by place. Who asks for one that may still come waits.
2. A half nobody has taken when its request is over is freed.
3. No more halves are held than may be asked for, twice over: of some the sender may know nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from qstack.ids import PairId
from qstack.network import service as network
from qstack.transport.context import Context, Reason
from qstack.transport.params import STREAM_REQUESTS_MAX
from qstack.transport.qubit_requests import request_id
from qstack.transport.stream_socket import Name

if TYPE_CHECKING:
    from qstack.transport.qubit_receiver import Arrival

_EXPECTED_MAX: Final = 2 * STREAM_REQUESTS_MAX
"""Requests known ahead: pairs may be faster than the word that others are over."""


class Halves:
    """The halves of one network request; see `RequestUser`."""

    def __init__(self, stream: "HalvesOfStream") -> None:
        self._stream = stream
        self.qubits: dict[PairId, bytes] = {}
        self.waiting: dict[PairId, Arrival] = {}
        self.gone: set[PairId] = set()
        self.is_ended = False

    def on_pair(self, message: network.EndPair) -> None:
        """A half."""
        self._stream.on_pair(self, message)

    def on_measured(self, message: network.EndMeasured) -> None:
        """Never asked for."""

    def on_expired(self, message: network.EndPairExpired) -> None:
        """A half is void."""
        self._stream.drop_half(self, message.pair)

    def on_done(self) -> None:
        """No more will come."""
        self._stream.on_ended(self)

    def on_failed(self, _why: Reason) -> None:
        """No more will come; the sender says what that means for its qubits."""
        self._stream.on_ended(self)


class HalvesOfStream:
    """All of one stream. `came` and `missing` hear of a half that an arrival waits for."""

    def __init__(
        self,
        context: Context,
        name: Name,
        came: Callable[["Arrival", bytes], None],
        missing: Callable[["Arrival"], None],
    ) -> None:
        self.room = 0  # how many may be asked for
        self._context = context
        self._name = name
        self._came = came
        self._missing = missing
        self._first = 0
        self._held = 0  # halves that nobody has taken yet
        self._requests: dict[int, Halves] = {}

    def expect(self) -> bool:
        """Know the next requests; False if an id is in use already."""
        for number in range(self._first + len(self._requests), self._first + _EXPECTED_MAX):
            name = self._id(number)
            if self._context.is_known_request(name):
                return False
            self._requests[number] = halves = Halves(self)
            self._context.use_request(name, halves)
        return True

    def knows(self, number: int) -> bool:
        """Whether there is such a request, or was."""
        return number < self._first + _EXPECTED_MAX

    def take(self, number: int, pair: PairId, arrival: "Arrival") -> None:
        """The arrival is for the half of this pair."""
        halves = self._requests.get(number)
        qubit = halves.qubits.pop(pair, None) if halves is not None else None
        if qubit is not None:
            self._held -= 1
            self._came(arrival, qubit)
        elif halves is None or halves.is_ended or pair in halves.gone:
            self._missing(arrival)
        else:
            halves.waiting[pair] = arrival

    def drop(self, number: int, pair: PairId) -> None:
        """Nobody will ask for the half of this pair."""
        halves = self._requests.get(number)
        if halves is not None:
            halves.waiting.pop(pair, None)
            self._forget(halves, pair)

    def over(self, below: int) -> bool:
        """Nobody will ask for halves of the requests below; False if that cannot be."""
        if below > self._first + STREAM_REQUESTS_MAX:
            return False
        for number in range(self._first, below):
            self._let_go(number, self._requests.pop(number))
        self._first = max(self._first, below)
        return self.expect()

    def end(self) -> None:
        """The stream has ended."""
        for number, halves in self._requests.items():
            self._let_go(number, halves)
        self._requests.clear()

    def on_device_lost(self) -> None:
        """All halves are gone."""
        for halves in self._requests.values():
            halves.gone.update(halves.qubits)
            halves.qubits.clear()
        self._held = 0

    # --- from the network ---

    def on_pair(self, halves: Halves, message: network.EndPair) -> None:
        """A half has come."""
        arrival = halves.waiting.pop(message.pair, None)
        is_ours = message.kind == "keep" and message.remote == self._name.peer
        if not is_ours or message.pair in halves.gone or self._held >= 2 * self.room:
            self._context.free(message.qubit)
            if arrival is not None:
                self._missing(arrival)
            return
        halves.is_ended = False  # if a network layer that went had only thought so
        self._context.hold(message.qubit)
        if arrival is None:
            self._held += message.pair not in halves.qubits
            halves.qubits[message.pair] = message.qubit
        else:
            self._came(arrival, message.qubit)

    def drop_half(self, halves: Halves, pair: PairId) -> None:
        """The half is void."""
        self._forget(halves, pair)
        arrival = halves.waiting.pop(pair, None)
        if arrival is not None:
            self._missing(arrival)

    def on_ended(self, halves: Halves) -> None:
        """No more halves of this request will come."""
        halves.is_ended = True
        waiting, halves.waiting = halves.waiting, {}
        for arrival in waiting.values():
            self._missing(arrival)

    # --- parts ---

    def _forget(self, halves: Halves, pair: PairId) -> None:
        halves.gone.add(pair)
        qubit = halves.qubits.pop(pair, None)
        if qubit is not None:
            self._held -= 1
            self._context.free(qubit)

    def _let_go(self, number: int, halves: Halves) -> None:
        self._context.end_request(self._id(number), cancel=False)
        self._held -= len(halves.qubits)
        for qubit in halves.qubits.values():
            self._context.free(qubit)

    def _id(self, number: int) -> bytes:
        return request_id(self._name, self._context.node, number)
