"""Test rounds of measured pairs: a share of what both ends read anyway is compared.

Rules
1. Both ends sacrifice the same pairs without a message (`halves.are_sacrificed`). That is known
   when they have been read, in the bases of their request: nothing about them is different.
   They count for no request, and nobody above is told of them.
2. The slave says what it read of them, and in which bases: a basis of a pair that is nobody's is
   nobody's secret. The master compares those that both ends read in one basis, and counts them;
   the others say nothing.
3. A request is tested, or not, from its first pair to its last, as `Add` says. One whose pairs
   could never be compared is not: fixed bases that differ, or a rotation before the reading.
4. A half whose other half does not come (its end had ended the request, the link went) counts
   nowhere.
"""

from typing import Final

import numpy as np
from msgspec.structs import replace

from qstack.errors import ErrorCode
from qstack.link import messages
from qstack.link.coincidences import Matched
from qstack.link.halves import (
    BrightState,
    Halves,
    Mask,
    Unmatched,
    are_sacrificed,
    no_halves,
)
from qstack.link.outbox import Outbox
from qstack.link.params import MEASURED_ROUNDS_EACH, OUTCOMES_WAIT_NS
from qstack.link.peer import Peer
from qstack.link.queue import Request
from qstack.link.rounds import Rounds
from qstack.physical import service as physical
from qstack.wire.packed import (
    Bits,
    Codes,
    Slots,
    fixed_code,
    pack_bases,
    pack_bits,
    unpack_bases,
    unpack_bits,
)

MEASURED_TIMER: Final = "measured/"


class MeasuredRounds:
    """Those of all links of a node. What they show is counted by `rounds`."""

    def __init__(self, rounds: Rounds, out: Outbox) -> None:
        self._rounds = rounds
        self._out = out
        self._unmatched: dict[str, Unmatched] = {}  # where we are master
        self._untold: dict[str, Halves] = {}  # where we are slave

    def take(
        self, peer: Peer, request: Request, measured: physical.MeasuredPairs
    ) -> physical.MeasuredPairs:
        """Heralded pairs without those that are sacrificed; perhaps none is left."""
        count, first = measured.pairs, measured.first_herald_sequence
        sequences = np.arange(first, first + count)
        chosen = self._chosen(peer, sequences)
        if not chosen.any():
            return measured
        packed = measured.outcomes, measured.x_bits, measured.z_bits
        outcomes, x_bits, z_bits = (unpack_bits(bits, count) for bits in packed)
        bases = unpack_bases(measured.bases, count) if measured.bases else _fixed(request, count)
        halves = Halves(sequences, outcomes, bases).only(chosen)
        self._add(peer, request.option.bright_state, halves, (x_bits[chosen], z_bits[chosen]))
        kept = ~chosen
        left = int(kept.sum())
        return replace(
            measured,
            first_herald_sequence=int(sequences[kept][0]) if left else first,
            pairs=left,
            outcomes=pack_bits(outcomes[kept]),
            x_bits=pack_bits(x_bits[kept]),
            z_bits=pack_bits(z_bits[kept]),
            bases=pack_bases(bases[kept]) if measured.bases else b"",
        )

    def take_matched(self, peer: Peer, request: Request, matched: Matched) -> Matched:
        """Pairs of a photon-pair link without those that are sacrificed."""
        chosen = self._chosen(peer, matched.slots)
        if not chosen.any():
            return matched
        given = matched.only(chosen)
        bases = given.bases if len(given.bases) else _fixed(request, len(given.slots))
        none = np.zeros(len(given.slots), dtype=np.uint8)  # phi+
        halves = Halves(given.slots, given.outcomes, bases)
        self._add(peer, request.option.bright_state, halves, (none, none))
        return matched.only(~chosen)

    def lose(self, peer: Peer) -> None:
        """The link has gone: halves without the other half are void."""
        self._unmatched.pop(peer.name, None)
        self._untold.pop(peer.name, None)

    def on_timer(self, peer: Peer) -> None:
        """Outcomes have waited for others long enough."""
        self._tell(peer)

    def on_outcomes(self, peer: Peer, message: messages.MeasuredOutcomes, now: int) -> None:
        """What the slave has read."""
        if not peer.is_up:
            return  # void, which the slave is about to hear
        problem = self._rounds.problem(peer, is_from_master=False)
        halves = no_halves()
        if problem is None:
            try:
                halves = _halves_of(message)
            except ValueError as error:
                problem = str(error)
        if problem is None and not self._chosen(peer, halves.sequences).all():
            problem = "a pair that is not sacrificed"
        if problem is not None:
            self._out.refuse(peer.name, message, ErrorCode.INVALID, problem)
            return
        unmatched = self._unmatched.setdefault(peer.name, Unmatched())
        unmatched.far = unmatched.far.then(halves)
        self._compare(peer, unmatched, now)
        self._rounds.report(peer)

    # --- parts -----------------------------------------------------------------------------------

    def _chosen(self, peer: Peer, sequences: Slots) -> Mask:
        return are_sacrificed(peer.pair_id(0), sequences, peer.test_share)

    def _add(
        self, peer: Peer, bright_state: BrightState, halves: Halves, bell: tuple[Bits, Bits]
    ) -> None:
        if peer.is_master:
            unmatched = self._unmatched.setdefault(peer.name, Unmatched())
            unmatched.add_own(bright_state, halves.expected_there(*bell))
            if len(unmatched.far):
                self._compare(peer, unmatched, self._out.now)
            return
        untold = self._untold.get(peer.name, no_halves())
        if not len(untold):
            at_ns = self._out.now + OUTCOMES_WAIT_NS
            self._out.set_timer(MEASURED_TIMER + peer.name, at_ns, background=True)
        self._untold[peer.name] = untold.then(halves)
        if len(self._untold[peer.name]) >= MEASURED_ROUNDS_EACH:
            self._out.cancel_timer(MEASURED_TIMER + peer.name)
            self._tell(peer)

    def _compare(self, peer: Peer, unmatched: Unmatched, now: int) -> None:
        for compared in unmatched.compare():
            self._rounds.count_measured(peer, compared, now)

    def _tell(self, peer: Peer) -> None:
        untold = self._untold.pop(peer.name, no_halves())
        for start in range(0, len(untold), MEASURED_ROUNDS_EACH):
            part = untold.only(slice(start, start + MEASURED_ROUNDS_EACH))
            said = messages.MeasuredOutcomes(
                sequences=part.sequences.astype(">u8").tobytes(),
                outcomes=pack_bits(part.outcomes),
                bases=pack_bases(part.bases),
            )
            self._out.send(peer.name, said)


def _fixed(request: Request, count: int) -> Codes:
    assert request.basis is not None, "a measure request has a basis"
    code = fixed_code(request.basis)
    assert code is not None, "bases that were drawn are said"
    return np.full(count, code, dtype=np.uint8)


def _halves_of(message: messages.MeasuredOutcomes) -> Halves:
    """Raises ValueError for fields that are not of one length, or a code without a basis."""
    if len(message.sequences) % 8:
        raise ValueError("a sequence takes 8 bytes")
    sequences = np.frombuffer(message.sequences, dtype=">u8").astype(np.int64)
    if len(sequences) and int(sequences.min()) < 0:
        raise ValueError("a sequence is below 2^63")
    count = len(sequences)
    outcomes, bases = unpack_bits(message.outcomes, count), unpack_bases(message.bases, count)
    return Halves(sequences, outcomes, bases)
