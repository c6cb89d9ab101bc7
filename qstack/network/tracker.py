"""What trackers have in common: TRACKs ahead of their pair, and what is remembered of old pairs.

A TRACK goes from each end along the swaps to the other end; the answer to one that cannot go on
is EXPIRE, back to the end it came from. So each TRACK ends: confirmed, or expired.

Rules
1. Everything is addressed by link pair id, never by place: a TRACK names the pair it has arrived
   at and is sent on with that pair replaced by the one it was swapped with.
2. A TRACK may overtake the indication of the pair it names. It is kept for EARLY_NS; then the
   pair counts as discarded, here and for good.
3. Finished pairs are remembered for HISTORY_NS (PAIR_HISTORY_MAX of a circuit); one still owed a
   TRACK is only forgotten when there are too many. A TRACK to a forgotten pair is rule 2's.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Final, Generic, TypeVar

from qstack.network.circuit import Circuit
from qstack.network.messages import Expire, Side, Track
from qstack.network.outbox import Outbox
from qstack.network.params import EARLY_NS, EARLY_TRACKS_MAX, HISTORY_NS, PAIR_HISTORY_MAX
from qstack.physical import service as physical

Entry = TypeVar("Entry")
FORGOTTEN_AT_ONCE: Final = 2  # more than come, so that what has been remembered long does go


class Tracker(ABC, Generic[Entry]):
    """The link pairs of one circuit at one node. Subclasses say what becomes of them."""

    def __init__(self, circuit: Circuit, out: Outbox) -> None:
        self.circuit = circuit
        self._out = out
        self._pairs: dict[bytes, Entry] = {}
        self._early: dict[bytes, tuple[Track, int]] = {}
        # To find the first of a plain dict is to pass all that were forgotten.
        self._finished: OrderedDict[bytes, int] = OrderedDict()
        self._owed: OrderedDict[bytes, None] = OrderedDict()  # swapped, owed a TRACK to pass on
        self._none_old_ns = 0  # before then no finished pair is remembered long enough

    # --- for subclasses --------------------------------------------------------------------------

    def _arrived(self, pair: bytes, entry: Entry) -> Track | None:
        """Enter a new pair; returns the TRACK that was there before it."""
        self._pairs[pair] = entry
        early = self._early.pop(pair, None)
        self._forget_old()
        return early[0] if early is not None else None

    def _keep_early(self, track: Track) -> None:
        """Keep a TRACK whose pair has not been indicated here."""
        if track.pair in self._early or len(self._early) >= EARLY_TRACKS_MAX:
            self._expire(track.origin, track.origin_pair)
            return
        self._early[track.pair] = (track, self._out.now + EARLY_NS)
        self._arm()

    def _finish(self, pair: bytes) -> None:
        """Nothing more is owed to this pair: it may be forgotten in a while."""
        if self._owed:
            self._owed.pop(pair, None)
        finished = self._finished
        finished[pair] = self._out.now
        finished.move_to_end(pair)

    def _expire(self, origin: Side, origin_pair: bytes) -> None:
        """Tell the end `origin` that what it tracks is discarded."""
        peer = self.circuit.upstream if origin == "head" else self.circuit.downstream
        assert peer is not None, "nobody expires a TRACK of its own"
        self._out.send(
            peer,
            Expire(
                circuit=self.circuit.id,
                epoch=self.circuit.epoch,
                origin=origin,
                origin_pair=origin_pair,
            ),
        )

    def _free(self, qubit: bytes) -> None:
        self._out.tell(physical.LAYER, physical.Free(qubit=qubit))

    @abstractmethod
    def _discarded_unseen(self, track: Track) -> Entry:
        """The entry of a pair that counts as discarded before it ever came."""

    # --- early tracks ----------------------------------------------------------------------------

    @property
    def timer(self) -> str:
        """The key of the timer of early TRACKs."""
        return f"network/early/{self.circuit.id.hex()}"

    def on_timer(self) -> None:
        """Give up on pairs that have not come."""
        for pair, (track, until_ns) in list(self._early.items()):
            if until_ns <= self._out.now:
                del self._early[pair]
                self._pairs[pair] = self._discarded_unseen(track)
                self._finish(pair)
                self._expire(track.origin, track.origin_pair)
        self._arm()

    def _arm(self) -> None:
        if self._early:
            _, until_ns = next(iter(self._early.values()))
            self._out.set_timer(self.timer, until_ns)

    def _end_early(self) -> None:
        if self._early:
            self._early.clear()
            self._out.cancel_timer(self.timer)

    def _forget_old(self) -> None:
        pairs = self._pairs
        for _ in range(FORGOTTEN_AT_ONCE):
            if len(pairs) <= PAIR_HISTORY_MAX:
                if self._out.now < self._none_old_ns or not self._is_first_old():
                    return
            elif not self._finished:
                break
            pair, _ = self._finished.popitem(last=False)
            pairs.pop(pair, None)
        if len(pairs) > PAIR_HISTORY_MAX and self._owed:
            oldest, _ = self._owed.popitem(last=False)
            pairs.pop(oldest, None)

    def _is_first_old(self) -> bool:
        """Whether the pair that was finished first has been remembered long enough."""
        now = self._out.now
        self._none_old_ns = next(iter(self._finished.values()), now) + HISTORY_NS
        return now >= self._none_old_ns
