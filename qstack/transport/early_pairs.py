"""Pairs of a request credited ahead, before the remote's word that one of its flows has taken it.

That word goes by the channel between the two ends, the pairs by the circuit: either may be first.
What comes early is kept, and told again to the grant that the credit becomes.
"""

from collections.abc import Callable
from typing import TypeVar

from qstack.network import service as network
from qstack.transport.context import Context, Reason, RequestUser

User = TypeVar("User", bound=RequestUser)


class EarlyPairs:
    """The user of a network request that is credited ahead. `failed` hears that it has ended."""

    def __init__(
        self, context: Context, request: bytes, number: int, failed: Callable[[], None]
    ) -> None:
        self._context = context
        self._request = request
        self._number = number
        self._failed = failed
        self._said: list[network.EndPair | network.EndMeasured] = []
        self._is_done = False
        context.use_request(request, self)

    def hand_over(self, make: Callable[[], User]) -> User:
        """The request has another user now: what `make` makes hears all that was said so far."""
        del self._context.requests[self._request]
        user = make()
        for message in self._said:
            if isinstance(message, network.EndPair):
                user.on_pair(message)
            else:
                user.on_measured(message)
        if self._is_done:
            user.on_done()
        return user

    def give_up(self) -> None:
        """Nobody will take it: pairs are freed, and whoever makes more hears that it can stop."""
        del self._context.requests[self._request]
        self._free()

    # --- from the network ---

    def on_pair(self, message: network.EndPair) -> None:
        """A pair, early."""
        if len(self._said) == self._number:
            self._context.free(message.qubit)
            return
        self._context.hold(message.qubit)
        self._said.append(message)

    def on_measured(self, message: network.EndMeasured) -> None:
        """Measured pairs, early."""
        if sum(self._pairs(each) for each in self._said) < self._number:
            self._said.append(message)

    def on_expired(self, message: network.EndPairExpired) -> None:
        """One of the early pairs is void."""
        for said in self._said:
            if isinstance(said, network.EndPair) and said.pair == message.pair:
                self._context.free(said.qubit)
                self._said.remove(said)
                return

    def on_done(self) -> None:
        """All pairs have come."""
        self._is_done = True

    def on_failed(self, why: Reason) -> None:
        """The request has ended; so has the flow that took the credit, whatever it was."""
        del why
        del self._context.requests[self._request]
        self._free()
        self._failed()

    @staticmethod
    def _pairs(said: network.EndPair | network.EndMeasured) -> int:
        return 1 if isinstance(said, network.EndPair) else said.pairs

    def _free(self) -> None:
        for said in self._said:
            if isinstance(said, network.EndPair):
                self._context.free(said.qubit)
        self._said.clear()
