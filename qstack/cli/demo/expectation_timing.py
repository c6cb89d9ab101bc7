"""When pairs come about on a chain of links: the event loop of the independent expectation.

Links n0-n1, n1-n2, ... make pairs on their grids of attempts, repeaters swap as soon as they have
a pair on each side, and discard at the cutoff. Many replicas run side by side in numpy arrays; no
qubit state is needed for this, since no time depends on an outcome. All times are whole
nanoseconds. Nothing here is shared with the protocol machines or the emulation: the rules are
written down a second time, from their description.

Rules
1. A link of a repeater attempts only while both its ends have their one place for it free; an end
   of the chain always has. Attempts are made in whole cycles counted from time 0.
2. A swap begins when the repeater has heard of both pairs. Its result is heard of, and both places
   are free again, after the Bell measurement and one machine event.
3. A pair of which a half still waits at a repeater when it is `cutoff_ns` old is discarded. A
   segment that is void so is not known as such at its other end, where it goes on (this takes
   four links or more) until it is used up.
4. Each end sends TRACK when it hears of its pair; a repeater passes it on when its own result is
   known; where the chain was cut the answer goes back to the head. The head gives no more pairs
   to a request than it still needs; others are made and swapped too, but never delivered.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

NEVER_NS: Final = 2**62
_BLOCK_EVENTS: Final = 64


class LinkTiming(NamedTuple):
    """One link: its attempts, and what travels over it. Left is the side of the head."""

    success_probability: float
    cycle_ns: int
    emission_offset_ns: int  # from the start of a cycle to its emission
    left_herald_ns: int  # from an emission until the left node knows of the pair
    right_herald_ns: int
    message_ns: int  # from sending to the reaction at the other node


@dataclass(frozen=True, kw_only=True)
class ChainTiming:
    """The links from head to tail. `swap_ns[j]` is from a swap's start until it is known, at the
    repeater right of link j; `cutoff_ns` is NEVER_NS for no cutoff."""

    links: tuple[LinkTiming, ...]
    swap_ns: tuple[int, ...]
    cutoff_ns: int

    @property
    def length(self) -> int:
        """The number of links."""
        return len(self.links)


@dataclass(frozen=True)
class Delivered:
    """The first pairs of each of R replicas, N of each, over L links. Times in nanoseconds."""

    emitted_at_ns: IntArray  # (R, N, L)
    swapped_at_ns: IntArray  # (R, N, L - 1): the start of the Bell measurement
    head_at_ns: IntArray  # (R, N): confirmed at the head
    tail_at_ns: IntArray  # (R, N)
    discards: IntArray  # (R,): link pairs that were discarded before the last of these was there

    @property
    def total_ns(self) -> IntArray:
        """(R,): from time 0 until both ends have the last pair."""
        total: IntArray = np.maximum(self.head_at_ns[:, -1], self.tail_at_ns[:, -1])
        return total


def deliver(
    chain: ChainTiming, begin_ns: IntArray, *, pairs: int, generator: Generator
) -> Delivered:
    """The first `pairs` pairs of each replica.

    `begin_ns` (links, replicas) is when each link is ready to attempt.
    """
    if chain.length == 1:
        return _deliver_direct(chain, begin_ns[0], pairs, generator)
    events = _Events(chain, begin_ns, generator)
    while True:
        for _ in range(max(_BLOCK_EVENTS, pairs * chain.length // 4)):
            events.step()
        delivered = _collect(chain, events.log, begin_ns.shape[1], pairs)
        if delivered is not None:
            return delivered


def _deliver_direct(
    chain: ChainTiming, begin_ns: IntArray, pairs: int, generator: Generator
) -> Delivered:
    """One link: it attempts in every cycle."""
    link = chain.links[0]
    gaps = generator.geometric(link.success_probability, size=(len(begin_ns), pairs))
    cycles = -(-begin_ns // link.cycle_ns)[:, np.newaxis] - 1 + np.cumsum(gaps, axis=1)
    emitted = cycles * link.cycle_ns + link.emission_offset_ns
    return Delivered(
        emitted_at_ns=emitted[:, :, np.newaxis],
        swapped_at_ns=np.zeros((*emitted.shape, 0), dtype=np.int64),
        head_at_ns=emitted + link.right_herald_ns + link.message_ns,
        tail_at_ns=emitted + link.left_herald_ns + link.message_ns,
        discards=np.zeros(len(begin_ns), dtype=np.int64),
    )


@dataclass
class _Log:
    """Everything that happened, link pairs by number in the order of their making."""

    made: int = 0
    links: list[IntArray] = field(default_factory=list)
    replicas: list[IntArray] = field(default_factory=list)
    emitted: list[IntArray] = field(default_factory=list)
    swaps: list[tuple[IntArray, IntArray, IntArray]] = field(default_factory=list)
    cuts: list[tuple[IntArray, IntArray]] = field(default_factory=list)


class _Events:
    """All replicas, each at its own time; `step` lets the next event of each happen.

    Rows are links, columns replicas. `_is_left_waiting` is whether the left half of the link's
    newest pair waits (or will, once it is heard of) at a repeater.
    """

    def __init__(self, chain: ChainTiming, begin_ns: IntArray, generator: Generator) -> None:
        shape = begin_ns.shape
        self.log = _Log()
        self._chain = chain
        self._generator = generator
        self._free_ns = begin_ns.copy()
        self._emitted_ns = np.zeros(shape, dtype=np.int64)
        self._left_known_ns = np.zeros(shape, dtype=np.int64)
        self._right_known_ns = np.zeros(shape, dtype=np.int64)
        self._is_left_waiting = np.zeros(shape, dtype=np.bool_)
        self._is_right_waiting = np.zeros(shape, dtype=np.bool_)
        self._pair = np.zeros(shape, dtype=np.int64)
        everywhere = np.arange(shape[1])
        for link in range(chain.length):
            self._make(link, everywhere)

    def step(self) -> None:
        """The next event of every replica."""
        last = self._chain.length - 1
        swap_ns = np.where(
            self._is_right_waiting[:-1] & self._is_left_waiting[1:],
            np.maximum(self._right_known_ns[:-1], self._left_known_ns[1:]),
            NEVER_NS,
        )
        cut_ns = np.where(
            self._is_left_waiting | self._is_right_waiting,
            np.maximum(
                self._emitted_ns + self._chain.cutoff_ns,
                np.maximum(self._left_known_ns, self._right_known_ns),
            ),
            NEVER_NS,
        )
        candidates = np.concatenate((swap_ns, cut_ns))
        chosen = candidates.argmin(axis=0)
        for row in range(len(candidates)):
            where = np.flatnonzero(chosen == row)
            if len(where) == 0:
                continue
            if row < last:
                self._swap(row, where, swap_ns[row, where])
            else:
                self._cut(row - last, where, cut_ns[row - last, where])

    def _swap(self, link: int, where: IntArray, at_ns: IntArray) -> None:
        """The repeater right of `link` begins to swap."""
        self.log.swaps.append((self._pair[link, where], self._pair[link + 1, where], at_ns))
        self._is_right_waiting[link, where] = False
        self._is_left_waiting[link + 1, where] = False
        for used in (link, link + 1):
            self._free(used, where, at_ns + self._chain.swap_ns[link])

    def _cut(self, link: int, where: IntArray, at_ns: IntArray) -> None:
        """The pair of `link` is too old, wherever it still waits."""
        self.log.cuts.append((self._pair[link, where], at_ns))
        self._is_left_waiting[link, where] = False
        self._is_right_waiting[link, where] = False
        self._free(link, where, at_ns)

    def _free(self, link: int, where: IntArray, at_ns: IntArray) -> None:
        """A place of `link` is free from `at_ns` on; with none taken it attempts again."""
        self._free_ns[link, where] = np.maximum(self._free_ns[link, where], at_ns)
        is_idle = ~(self._is_left_waiting[link, where] | self._is_right_waiting[link, where])
        self._make(link, where[is_idle])

    def _make(self, link: int, where: IntArray) -> None:
        """The next pair of `link`, from when its places are free."""
        count = len(where)
        if count == 0:
            return
        timing = self._chain.links[link]
        gaps = self._generator.geometric(timing.success_probability, size=count)
        cycles = -(-self._free_ns[link, where] // timing.cycle_ns) - 1 + gaps
        emitted = cycles * timing.cycle_ns + timing.emission_offset_ns
        self._emitted_ns[link, where] = emitted
        self._left_known_ns[link, where] = emitted + timing.left_herald_ns
        self._right_known_ns[link, where] = emitted + timing.right_herald_ns
        self._is_left_waiting[link, where] = link > 0
        self._is_right_waiting[link, where] = link < self._chain.length - 1
        self._pair[link, where] = np.arange(self.log.made, self.log.made + count)
        self.log.made += count
        self.log.links.append(np.full(count, link))
        self.log.replicas.append(where)
        self.log.emitted.append(emitted)


class _Ledger(NamedTuple):
    """The log as arrays over link pairs; -1 and NEVER_NS where there is nothing."""

    link: IntArray
    replica: IntArray
    emitted_ns: IntArray
    partner: IntArray  # the pair it was swapped with on the side of the tail
    swapped_ns: IntArray
    cut_ns: IntArray


def _ledger(log: _Log) -> _Ledger:
    partner = np.full(log.made, -1)
    swapped = np.full(log.made, NEVER_NS)
    cut = np.full(log.made, NEVER_NS)
    for left, right, at_ns in log.swaps:
        partner[left] = right
        swapped[left] = at_ns
    for pair, at_ns in log.cuts:
        cut[pair] = at_ns
    together = np.concatenate
    return _Ledger(
        together(log.links), together(log.replicas), together(log.emitted), partner, swapped, cut
    )


def _collect(chain: ChainTiming, log: _Log, replicas: int, pairs: int) -> Delivered | None:
    """The first `pairs` delivered pairs of each replica; None while one has fewer."""
    ledger = _ledger(log)
    heads = _by_replica(ledger, replicas)
    walk = _Walk(chain, ledger, heads)
    is_delivered = walk.is_complete & _claimed(chain, walk, ledger, heads, pairs)
    if int(is_delivered.sum(axis=1).min()) < pairs:
        return None
    order = np.argsort(~is_delivered, axis=1, kind="stable")[:, :pairs]
    emitted = np.take_along_axis(walk.emitted_ns, order[:, :, np.newaxis], axis=1)
    swapped = np.take_along_axis(walk.swapped_ns, order[:, :, np.newaxis], axis=1)
    tail_at = np.take_along_axis(walk.forward_ns, order, axis=1)
    head_at = emitted[:, :, -1] + chain.links[-1].right_herald_ns + chain.links[-1].message_ns
    for place in range(chain.length - 2, -1, -1):
        known = swapped[:, :, place] + chain.swap_ns[place]
        head_at = np.maximum(head_at, known) + chain.links[place].message_ns
    end_ns = np.maximum(head_at[:, -1], tail_at[:, -1])
    is_early_cut = ledger.cut_ns < end_ns[ledger.replica]
    discards = np.bincount(ledger.replica[is_early_cut], minlength=replicas)
    return Delivered(emitted, swapped, head_at, tail_at, discards)


def _by_replica(ledger: _Ledger, replicas: int) -> IntArray:
    """(replicas, most) numbers of the head's link pairs in the order of time, -1 at the end."""
    pairs = np.flatnonzero(ledger.link == 0)
    pairs = pairs[np.argsort(ledger.replica[pairs], kind="stable")]
    owner = ledger.replica[pairs]
    counts = np.bincount(owner, minlength=replicas)
    first = np.cumsum(counts) - counts
    heads = np.full((replicas, int(counts.max())), -1)
    heads[owner, np.arange(len(pairs)) - first[owner]] = pairs
    return heads


class _Walk:
    """From each link pair at the head (replicas, most) along the swaps towards the tail.

    `forward_ns` is when the head's TRACK is at the tail, `released_ns` when the answer that the
    pair is void is at the head; NEVER_NS if that has not happened.
    """

    def __init__(self, chain: ChainTiming, ledger: _Ledger, heads: IntArray) -> None:
        here, is_there = heads, heads >= 0
        first = chain.links[0]
        emitted, swapped = [ledger.emitted_ns[here]], []
        self.released_ns = np.full(heads.shape, NEVER_NS)
        track_ns = emitted[0] + first.left_herald_ns + first.message_ns
        back_ns = first.message_ns
        for place, swap_ns in enumerate(chain.swap_ns):
            cut_ns, at_ns = ledger.cut_ns[here], ledger.swapped_ns[here]
            is_swapped = is_there & (ledger.partner[here] >= 0)
            is_cut = is_there & ~is_swapped & (cut_ns < NEVER_NS)
            self.released_ns[is_cut] = (np.maximum(track_ns, cut_ns) + back_ns)[is_cut]
            here, is_there = np.where(is_swapped, ledger.partner[here], -1), is_swapped
            emitted.append(ledger.emitted_ns[here])
            swapped.append(at_ns)
            message_ns = chain.links[place + 1].message_ns
            track_ns = np.maximum(track_ns, np.where(is_swapped, at_ns + swap_ns, 0)) + message_ns
            back_ns += message_ns
        self.is_complete = is_there
        self.forward_ns = track_ns
        self.emitted_ns = np.stack(emitted, axis=2)
        self.swapped_ns = np.stack(swapped, axis=2)


def _claimed(
    chain: ChainTiming, walk: _Walk, ledger: _Ledger, heads: IntArray, pairs: int
) -> BoolArray:
    """Which link pairs the head gives to the request: while it has fewer than it needs."""
    known_ns = ledger.emitted_ns[heads] + chain.links[0].left_herald_ns
    is_claimed = heads >= 0
    for place in range(pairs, heads.shape[1]):
        now_ns = known_ns[:, place, np.newaxis]
        is_held = is_claimed[:, :place] & (walk.released_ns[:, :place] > now_ns)
        is_claimed[:, place] &= is_held.sum(axis=1) < pairs
    return is_claimed
