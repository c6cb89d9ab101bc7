"""Swapping and tracking at a node between two links of a circuit.

Rules
1. A swap begins as soon as each side has a pair, the oldest first; it never waits for a message.
2. A waiting pair is discarded when it is `cutoff_ns` old, counted from the emission of the
   earlier of its qubits, and at once when no request is open on the circuit.
3. `side` of a pair is the end its link leads to: a TRACK of origin `head` arrives at a pair of
   side `head` and leaves, with both pairs' bits and the swap's, for the pair it was swapped with.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from qstack.errors import ErrorCode, PeerError
from qstack.link.service import LinkPair
from qstack.network.circuit import Circuit
from qstack.network.messages import Expire, Side, Track
from qstack.network.outbox import Outbox
from qstack.network.pair_states import SEGMENT, SegmentInput, SegmentState
from qstack.network.tracker import Tracker
from qstack.physical import service as physical


@dataclass
class Segment:
    """A link pair here. `swap` holds the outcome once it is SWAPPED."""

    pair: bytes
    side: Side
    qubit: bytes
    bits: tuple[int, int]
    void_at_ns: int = 0
    state: SegmentState = SEGMENT.start
    partner: "Segment | None" = None
    swap: tuple[int, int] = (0, 0)
    track: Track | None = None


@dataclass(frozen=True)
class Swap:
    """A Bell measurement in progress; it outlives its circuit."""

    circuit: bytes
    first: bytes
    second: bytes
    qubits: tuple[bytes, bytes]


class Swaps:
    """The open Bell measurements of this node, by call number."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._open: dict[int, Swap] = {}
        self._calls = 0

    def begin(self, swap: Swap) -> None:
        """Ask physical for the Bell measurement, the qubit towards the head first."""
        call = self.next_call()
        self._open[call] = swap
        first, second = swap.qubits
        self._out.tell(physical.LAYER, physical.BellMeasure(call=call, first=first, second=second))

    def next_call(self) -> int:
        """A number for a call of this layer at the physical one."""
        self._calls += 1
        return self._calls

    def take(self, call: int) -> Swap | None:
        """The swap this call number was, or None if it is not open."""
        return self._open.pop(call, None)

    def clear(self) -> None:
        """The device has gone, and every call with it."""
        self._open.clear()


class Relay(Tracker[Segment]):
    """The pairs of one circuit at a node in between."""

    def __init__(self, circuit: Circuit, swaps: Swaps, out: Outbox) -> None:
        super().__init__(circuit, out)
        self._swaps = swaps
        self._waiting: dict[Side, dict[bytes, Segment]] = {"head": {}, "tail": {}}

    def on_link_pair(self, message: LinkPair) -> None:
        """A link pair of either side."""
        if message.pair in self._pairs:  # given up before it came
            self._free(message.qubit)
            return
        side = self._side_of(message)
        void_at_ns = message.emitted_at_ns + self.circuit.install.cutoff_ns
        bits = message.x_bit, message.z_bit
        segment = Segment(message.pair, side, message.qubit, bits, void_at_ns)
        early = self._arrived(message.pair, segment)
        if early is not None and early.origin == side:
            segment.track = early
        elif early is not None:  # nonsense, but its origin must not wait for ever
            self._expire(early.origin, early.origin_pair)
        self._waiting[side][segment.pair] = segment
        if not self.circuit.requests or void_at_ns <= self._out.now:
            self._discard(segment, SegmentInput.CUTOFF)
            return
        self._out.set_timer(cutoff_timer(self.circuit, segment.pair), void_at_ns)
        self._swap_if_possible()

    def on_link_expired(self, pair: bytes) -> None:
        """The link layer says that a pair is void: so is what it was swapped with."""
        segment = self._pairs.get(pair)
        if segment is None:
            return
        was_swapped = segment.state is SegmentState.SWAPPED
        for void in (segment, segment.partner):
            if void is not None:
                self._discard(void, SegmentInput.VOID)
        if was_swapped:
            self._out.record("void_after_swap", circuit=self.circuit.id, pair=pair)

    def on_cutoff(self, pair: bytes) -> None:
        """The cutoff timer of a pair; it may have been swapped in the meantime."""
        segment = self._pairs.get(pair)
        if segment is not None and segment.state is SegmentState.WAITING:
            self._out.record("cutoff", circuit=self.circuit.id, pair=pair)
            self._discard(segment, SegmentInput.CUTOFF)

    def on_swapped(self, swap: Swap, outcome: tuple[int, int]) -> None:
        """The Bell measurement is done: TRACKs that waited for it go on."""
        for segment in self._of(swap):
            if segment.state is SegmentState.SWAPPING:
                segment.swap = outcome
                self._step(segment, SegmentInput.OUTCOME)
                if segment.track is not None:
                    self._pass_on(segment, segment.track)
                else:
                    self._owed[segment.pair] = None

    def on_swap_failed(self, swap: Swap) -> None:
        """The Bell measurement could not be done: both pairs are lost."""
        for segment in self._of(swap):
            if segment.state is SegmentState.SWAPPING:
                self._discard(segment, SegmentInput.FAILED)

    def on_track(self, track: Track) -> None:
        """A TRACK has arrived from one side. Raises PeerError if it cannot be for this pair."""
        segment = self._pairs.get(track.pair)
        if segment is None:
            self._keep_early(track)
            return
        if segment.side != track.origin:
            raise PeerError(ErrorCode.INVALID, "the pair is on the other side", field="pair")
        if segment.track is not None:
            raise PeerError(ErrorCode.OUT_OF_STATE, "this pair has been tracked before")
        segment.track = track
        if segment.state is SegmentState.SWAPPED:
            self._pass_on(segment, track)
        elif segment.state is SegmentState.DISCARDED:
            self._expire(track.origin, track.origin_pair)

    def on_expire(self, expire: Expire) -> None:
        """EXPIRE on its way to the end it is for."""
        self._expire(expire.origin, expire.origin_pair)

    def on_idle(self) -> None:
        """No request is open any more: nobody needs the pairs that wait."""
        for waiting in self._waiting.values():
            for segment in list(waiting.values()):
                self._discard(segment, SegmentInput.CUTOFF)

    def close(self) -> None:
        """The circuit has ended. Nobody is told: its ends have ended too."""
        for waiting in self._waiting.values():
            for segment in list(waiting.values()):
                self._no_longer_waits(segment)
                self._free(segment.qubit)
        self._end_early()

    # --- parts -----------------------------------------------------------------------------------

    def _of(self, swap: Swap) -> Iterator[Segment]:
        for pair in (swap.first, swap.second):
            segment = self._pairs.get(pair)
            if segment is not None:
                yield segment

    def _swap_if_possible(self) -> None:
        if not (self._waiting["head"] and self._waiting["tail"]):
            return
        first = next(iter(self._waiting["head"].values()))
        second = next(iter(self._waiting["tail"].values()))
        for segment, partner in ((first, second), (second, first)):
            self._no_longer_waits(segment)
            segment.partner = partner
            self._step(segment, SegmentInput.PARTNER)
        qubits = first.qubit, second.qubit
        self._begin(Swap(self.circuit.id, first.pair, second.pair, qubits))

    def _begin(self, swap: Swap) -> None:
        """Have a swap done."""
        self._swaps.begin(swap)

    def _side_of(self, message: LinkPair) -> Side:
        return "head" if message.peer == self.circuit.upstream else "tail"

    def _pass_on(self, segment: Segment, track: Track) -> None:
        partner = segment.partner
        assert partner is not None, "a swapped pair has a partner"
        forward = self.circuit.downstream if track.origin == "head" else self.circuit.upstream
        assert forward is not None, "a node in between has two neighbours"
        self._out.send(
            forward,
            Track(
                circuit=track.circuit,
                epoch=track.epoch,
                origin=track.origin,
                origin_pair=track.origin_pair,
                pair=partner.pair,
                x_bit=track.x_bit ^ segment.swap[0] ^ partner.bits[0],
                z_bit=track.z_bit ^ segment.swap[1] ^ partner.bits[1],
                request=track.request,
            ),
        )
        self._finish(segment.pair)

    def _discard(self, segment: Segment, received: SegmentInput) -> None:
        before = segment.state
        self._step(segment, received)
        if before is SegmentState.WAITING:
            self._no_longer_waits(segment)
            self._free(segment.qubit)
        if before is not SegmentState.DISCARDED:
            self._finish(segment.pair)
            if segment.track is not None:
                self._expire(segment.track.origin, segment.track.origin_pair)

    def _no_longer_waits(self, segment: Segment) -> None:
        if self._waiting[segment.side].pop(segment.pair, None) is not None:
            self._out.cancel_timer(cutoff_timer(self.circuit, segment.pair))

    def _step(self, segment: Segment, received: SegmentInput) -> None:
        segment.state = SEGMENT.step(segment.state, received)

    def _discarded_unseen(self, track: Track) -> Segment:
        state = SegmentState.DISCARDED
        return Segment(track.pair, track.origin, b"", (0, 0), state=state, track=track)


def cutoff_timer(circuit: Circuit, pair: bytes) -> str:
    """The key of a waiting pair's cutoff timer."""
    return f"network/cutoff/{circuit.id.hex()}/{pair.hex()}"
