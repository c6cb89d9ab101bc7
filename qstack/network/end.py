"""Tracking at an end of a circuit: which pair is whose, and when it is confirmed.

Rules
1. The head gives each link pair to the oldest open request that still needs one, and frees it if
   there is none. Both ends send TRACK for theirs; only the head's carries a request.
2. A pair is confirmed here when the other end's TRACK arrives at it. Its Bell bits are those the
   TRACK has collected over all links and swaps: the same at both ends.
3. The tail takes what the head has given to a request that is open on this circuit, and nothing
   else; what an end does not take is freed and its TRACK answered with EXPIRE.
4. When a confirmed pair becomes void here, the other end is told as well.
"""

from typing import Final, Protocol

from msgspec import Struct

from qstack.errors import ErrorCode, PeerError
from qstack.ids import LinkPairId, PairId
from qstack.link.service import LinkPair
from qstack.network.circuit import Circuit
from qstack.network.messages import Expire, Side, Track
from qstack.network.outbox import Outbox
from qstack.network.pair_states import END_PAIR, EndInput, EndState
from qstack.network.tracker import Tracker
from qstack.table import IllegalInputError

_TRACKING: Final = EndState.TRACKING


class Held(Struct, eq=False, gc=False):
    """A link pair at an end. `far_pair` is the far end's own, known once confirmed."""

    pair: bytes
    qubit: bytes
    emitted_at_ns: int
    state: EndState = END_PAIR.start
    request: bytes | None = None
    far_pair: bytes | None = None

    def step(self, received: EndInput) -> None:
        """The one place where its state changes. Raises `IllegalInputError`."""
        self.state = END_PAIR.cells[self.state, received]


class Confirmed(Struct, frozen=True, gc=False):
    """A pair both ends hold, as this end learns of it."""

    pair: PairId
    qubit: bytes
    x_bit: int
    z_bit: int
    emitted_at_ns: int


class EndUser(Protocol):
    """The requests of this end, head or tail."""

    def claim(self, circuit: Circuit) -> bytes | None:
        """The request the next pair of the circuit is for, one slot of which it takes."""

    def is_open(self, circuit: Circuit, request: bytes) -> bool:
        """Whether pairs of the circuit may be confirmed for this request."""

    def on_unclaimed(self, request: bytes) -> None:
        """A claimed pair has come to nothing: its slot is free again."""

    def on_confirmed(self, circuit: Circuit, request: bytes, confirmed: Confirmed) -> None:
        """A pair is confirmed; its qubit goes up."""

    def on_void(self, request: bytes, pair: PairId) -> None:
        """A pair that was indicated is void."""


class End(Tracker[Held]):
    """The pairs of one circuit at one of its ends."""

    def __init__(self, circuit: Circuit, side: Side, user: EndUser, out: Outbox) -> None:
        super().__init__(circuit, out)
        self.side = side
        self._far: Side = "tail" if side == "head" else "head"
        self._is_head = side == "head"
        neighbour = circuit.downstream if self._is_head else circuit.upstream
        assert neighbour is not None, "an end has one neighbour"
        self._neighbour = neighbour
        self._user = user

    def on_link_pair(self, message: LinkPair) -> None:
        """A link pair of the one link here."""
        if message.pair in self._pairs:  # given up before it came
            self._free(message.qubit)
            return
        held = Held(message.pair, message.qubit, message.emitted_at_ns)
        early = self._arrived(message.pair, held)
        if self._is_head:
            held.request = self._user.claim(self.circuit)
        if self._is_head and held.request is None:
            self._drop(held, EndInput.RELEASED)
        else:
            self._send_track(message, held.request)
        if early is not None:
            self.on_track(early)

    def on_link_expired(self, pair: bytes) -> None:
        """The link layer says that a pair is void."""
        held = self._pairs.get(pair)
        if held is not None:
            self._drop(held, EndInput.VOID)

    def on_expire(self, expire: Expire) -> None:
        """What one of our pairs had become part of was discarded."""
        held = self._pairs.get(expire.origin_pair)
        if held is not None:
            self._drop(held, EndInput.EXPIRE)

    def on_track(self, track: Track) -> None:
        """The far end's TRACK. Raises PeerError if the pair was confirmed before."""
        held = self._pairs.get(track.pair)
        if held is None:
            self._keep_early(track)
            return
        circuit, request = self.circuit, held.request
        if not self._is_head:
            request = track.request
            if request is None:
                raise PeerError(
                    ErrorCode.INVALID, "the head gives its pair to no request", field="request"
                )
            if held.state is _TRACKING and not self._user.is_open(circuit, request):
                self._drop(held, EndInput.RELEASED)
        before = held.state
        try:
            held.step(EndInput.TRACK)
        except IllegalInputError as error:
            raise PeerError(ErrorCode.OUT_OF_STATE, str(error)) from error
        if before is not _TRACKING:
            self._expire(track.origin, track.origin_pair)
            return
        assert request is not None, "a tracking pair at the head has a request"
        held.request, held.far_pair = request, track.origin_pair
        self._finish(held.pair)
        confirmed = Confirmed(
            self._pair_id(held), held.qubit, track.x_bit, track.z_bit, held.emitted_at_ns
        )
        self._user.on_confirmed(circuit, request, confirmed)

    def release(self, request: bytes) -> None:
        """A request has ended: pairs it was given and that are not confirmed are freed."""
        for held in self._tracking():
            if held.request == request:
                self._drop(held, EndInput.RELEASED)

    def close(self) -> None:
        """The circuit has ended. Nobody is told: the other end's circuit ends too."""
        for held in self._tracking():
            self._drop(held, EndInput.RELEASED)
        self._end_early()

    # --- parts -----------------------------------------------------------------------------------

    def _tracking(self) -> list[Held]:
        return [held for held in self._pairs.values() if held.state is EndState.TRACKING]

    def _drop(self, held: Held, received: EndInput) -> None:
        before = held.state
        held.step(received)
        if before is EndState.TRACKING:
            self._free(held.qubit)
            self._finish(held.pair)
            if held.request is not None:
                self._user.on_unclaimed(held.request)
        elif before is EndState.CONFIRMED:
            assert held.request is not None, "a confirmed pair has a request"
            assert held.far_pair is not None, "a confirmed pair has a far pair"
            self._user.on_void(held.request, self._pair_id(held))
            self._expire(self._far, held.far_pair)

    def _pair_id(self, held: Held) -> PairId:
        head_pair = held.pair if self._is_head else held.far_pair
        assert head_pair is not None, "the tail names a pair only once it is confirmed"
        return PairId(self.circuit.id, self.circuit.epoch, LinkPairId(head_pair))

    def _send_track(self, message: LinkPair, request: bytes | None) -> None:
        circuit, pair = self.circuit, message.pair
        self._out.send(
            self._neighbour,
            Track(
                circuit=circuit.id,
                epoch=circuit.epoch,
                origin=self.side,
                origin_pair=pair,
                pair=pair,
                x_bit=message.x_bit,
                z_bit=message.z_bit,
                request=request,
            ),
        )

    def _discarded_unseen(self, track: Track) -> Held:
        return Held(track.pair, b"", 0, EndState.DISCARDED)
