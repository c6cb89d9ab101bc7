"""Test rounds: pairs sacrificed to learn whether the link keeps what it promises.

Rules
1. Both ends sacrifice the same pairs without a message: by a hash of the pair's id, in which are
   the link and both boot ids. The basis is of the same hash. A sacrificed pair counts for no
   request, is told to nobody, and ends by being read.
2. The slave says what it read, some rounds in a message (`RoundOutcomes`); the master compares
   and counts, and answers with what it knows (`RoundReport`), also of measured pairs
   (`measured_rounds.py`). There is one judge, so that there
   is one truth, and the slave need not hear what the master read.
3. A round counts once, when both halves are known; else it is void at both ends. It is void with
   the conversation, the device or the Expire of its pair, and where a busy device read too late.
4. What is known outlives channel and slave, and ends with the master's life.
5. An alarm on an option without rounds for ALARM_HOLD_NS ends: nobody uses what is offered at a
   low fidelity, so no round would ever end it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

from qstack.errors import ErrorCode
from qstack.ids import QubitId
from qstack.link import messages
from qstack.link.batches import Batch
from qstack.link.estimation import Counts, OptionEstimate, Verdict, is_forecast
from qstack.link.halves import BrightState, Compared
from qstack.link.outbox import Outbox
from qstack.link.params import (
    ALARM_HOLD_NS,
    OUTCOMES_EACH,
    OUTCOMES_WAIT_NS,
    ROUNDS_OPEN_MAX,
)
from qstack.link.peer import Peer
from qstack.physical import service as physical
from qstack.quantum.bell import expected_agreement_sign
from qstack.wire.packed import BASES

OUTCOMES_TIMER: Final = "outcomes/"
ALARM_TIMER: Final = "alarm/"
_WORD: Final = 2**64

Way = tuple[BrightState, physical.Kind]
"""Rounds that are counted together: of which option, by what kind of requests."""


def round_basis(pair: bytes, share: float) -> int | None:
    """The basis (a place in BASES) in which both ends read a pair that is sacrificed, else None."""
    hashed = blake2b(pair, digest_size=16, person=b"qstack round").digest()
    if int.from_bytes(hashed[:8]) >= share * _WORD:
        return None
    return int.from_bytes(hashed[8:]) % len(BASES)


@dataclass
class _Round:
    """One sacrificed pair at this end; `there` is the far end's outcome."""

    bright_state: BrightState
    basis: int
    sign: int  # of the announced Bell state: +1 if equal outcomes agree with it
    here: int | None = None
    there: int | None = None


class _Reading(NamedTuple):
    """A qubit that is being read: of which pair it is half."""

    peer: Peer
    sequence: int
    round: _Round
    qubit: QubitId
    read_by_ns: int


@dataclass
class _Known:
    """What one end has of the rounds of one link."""

    estimates: dict[Way, OptionEstimate] = field(default_factory=dict)
    rounds: dict[int, _Round] = field(default_factory=dict)  # ours, by herald sequence
    early: dict[int, int] = field(default_factory=dict)  # outcomes there of rounds not here yet
    untold: dict[int, int] = field(default_factory=dict)  # the slave's outcomes, to be said
    said: list[messages.OptionRounds] = field(default_factory=list)  # by the master, lately

    def forget_rounds(self) -> None:
        """Those not complete are void."""
        self.rounds.clear()
        self.early.clear()
        self.untold.clear()


class Rounds:
    """The test rounds of all links of a node. `offers_changed` is called for a link's options."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._known: dict[str, _Known] = {}
        self._readings: dict[int, _Reading] = {}
        self._next_call = 0
        self._offers_changed: Callable[[Peer, int], None]

    def join(self, offers_changed: Callable[[Peer, int], None]) -> None:
        """Know whom to tell that `Peer.lowered` has changed."""
        self._offers_changed = offers_changed

    # --- one round -------------------------------------------------------------------------------

    def take(self, batch: Batch, herald: physical.Heralded) -> bool:
        """Whether this pair is sacrificed; then its qubit is read."""
        peer, sequence = batch.peer, herald.herald_sequence
        if not peer.test_share:
            return False
        forecast = batch.option.test_round
        basis = round_basis(peer.pair_id(sequence), peer.test_share)
        if basis is None or forecast is None:
            return False
        known = self._of(peer)
        name = BASES[basis]
        sign = expected_agreement_sign(name, herald.x_bit, herald.z_bit)
        there = known.early.pop(sequence, None)
        round_ = _Round(batch.option.bright_state, basis, sign, there=there)
        known.rounds[sequence] = round_
        _bound(known.rounds)
        call, self._next_call = self._next_call, self._next_call + 1
        read_by_ns = herald.emitted_at_ns + forecast.read_by_ns
        self._readings[call] = _Reading(peer, sequence, round_, QubitId(herald.qubit), read_by_ns)
        self._out.tell_below(physical.Measure(call=call, qubit=herald.qubit, basis=name))
        return True

    def on_read(self, answer: physical.Measured | physical.CallFailed, now: int) -> None:
        """The device has read a qubit, or cannot."""
        reading = self._readings.pop(answer.call, None)
        if reading is None:
            return  # asked in a former life
        peer, sequence, round_, qubit, read_by_ns = reading
        if isinstance(answer, physical.CallFailed):
            self._out.tell_below(physical.Free(qubit=qubit))
        known = self._of(peer)
        if known.rounds.get(sequence) is not round_:
            return  # void meanwhile; the sequence may name another pair by now
        if isinstance(answer, physical.CallFailed) or now > read_by_ns:
            del known.rounds[sequence]
            self._out.record("round_void", peer=peer.name)
        elif peer.is_master:
            round_.here = answer.outcome
            if self._count(peer, known, sequence, now):
                self.report(peer)
        else:
            del known.rounds[sequence]
            known.untold[sequence] = answer.outcome
            self._tell_soon(peer, known, now)

    def expire(self, peer: Peer, low: int, high: int) -> None:
        """Pairs of these sequences are void at one end."""
        known = self._known.get(peer.name)
        if known is not None:
            for part in known.rounds, known.early, known.untold:
                for sequence in [each for each in part if low <= each < high]:
                    del part[sequence]

    def lose(self, peer: Peer) -> None:
        """The link has gone: rounds that are not complete are void."""
        known = self._known.get(peer.name)
        if known is not None:
            known.forget_rounds()

    def device_gone(self) -> None:
        """No qubit that is being read is answered any more."""
        self._readings.clear()

    def count_measured(self, peer: Peer, compared: Compared, now: int) -> None:
        """At the master: rounds of measured pairs, which both ends have read in one basis."""
        known = self._of(peer)
        estimate = self._estimate_of(peer, known, (compared.bright_state, "measure"))
        if estimate is not None and any(compared.rounds):
            verdict = estimate.add_all(Counts(compared.rounds, compared.agreeing), now)
            if self._judged(peer, known, verdict, now):
                self.report(peer)

    # --- between the ends ------------------------------------------------------------------------

    def link_up(self, peer: Peer, now: int) -> None:
        """The link has come up: the master says what it knows, the slave minds what it said."""
        if peer.test_share and peer.is_master:
            self.report(peer)
        elif peer.test_share:
            self._mind(peer, self._of(peer), now)

    def calibrated(self, peer: Peer, now: int) -> None:
        """The link is another one now: the master forgets what it knew of it, and says so."""
        known = self._known.get(peer.name)
        if known is None or not peer.is_master:
            return
        for estimate in known.estimates.values():
            estimate.begin_anew()
        self._check_offers(peer, known, now)
        if peer.is_up:
            self.report(peer)

    def on_outcomes(self, peer: Peer, message: messages.RoundOutcomes, now: int) -> None:
        """What the slave has read."""
        if not peer.is_up:
            return None  # void, which the slave is about to hear
        problem = self.problem(peer, is_from_master=False)
        if problem is None and len(message.sequences) != len(message.outcomes):
            problem = "an outcome for each sequence"
        if problem is None and not all(
            round_basis(peer.pair_id(sequence), peer.test_share) is not None
            for sequence in message.sequences
        ):
            problem = "a pair that is not sacrificed"
        if problem is not None:
            return self._out.refuse(peer.name, message, ErrorCode.INVALID, problem)
        known = self._of(peer)
        for sequence, outcome in zip(message.sequences, message.outcomes, strict=True):
            round_ = known.rounds.get(sequence)
            if round_ is None:
                known.early[sequence] = outcome
                _bound(known.early)
            else:
                round_.there = outcome
                self._count(peer, known, sequence, now)
        self.report(peer)
        return None

    def on_report(self, peer: Peer, message: messages.RoundReport, now: int) -> None:
        """What the master knows."""
        problem = self.problem(peer, is_from_master=True)
        if problem is None and not all(_is_sound(each) for each in message.options):
            problem = "counts that cannot be"
        if problem is not None:
            return self._out.refuse(peer.name, message, ErrorCode.INVALID, problem)
        known = self._of(peer)
        known.said = message.options
        self._mind(peer, known, now)
        return None

    # --- timers ----------------------------------------------------------------------------------

    def on_outcomes_timer(self, peer: Peer) -> None:
        """Outcomes have waited for others long enough."""
        self._tell(peer, self._of(peer))

    def on_alarm_timer(self, peer: Peer, now: int) -> None:
        """An alarm without rounds ends."""
        known = self._of(peer)
        unused = [each for each in _alarmed(known) if each.last_ns + ALARM_HOLD_NS <= now]
        for estimate in unused:
            estimate.begin_anew()
        self._watch_alarm(peer, known)
        if unused:
            self._check_offers(peer, known, now)
            self.report(peer)

    # --- status ----------------------------------------------------------------------------------

    def summary(self, peer: Peer) -> list[dict[str, object]]:
        """Facts for status: what test rounds say of each option of a link that had some."""
        known = self._known.get(peer.name)
        facts: list[dict[str, object]] = []
        for (bright_state, kind), each in (known.estimates if known is not None else {}).items():
            found = each.estimate
            facts.append(
                {
                    "peer": peer.name,
                    "bright_state": bright_state,
                    "kind": kind,
                    "promised": each.promised.bell_probabilities[0],
                    "fidelity_estimate": None if found is None else found.fidelity,
                    "interval": None if found is None else [found.low, found.high],
                    "test_rounds": each.recent.total,
                    "agreeing": dict(zip(BASES, each.recent.agreeing, strict=True)),
                    "rounds": dict(zip(BASES, each.recent.rounds, strict=True)),
                    "offered": each.offered,
                    "alarm": each.offered is not None,
                }
            )
        return facts

    # --- parts -----------------------------------------------------------------------------------

    def _of(self, peer: Peer) -> _Known:
        return self._known.setdefault(peer.name, _Known())

    def _count(self, peer: Peer, known: _Known, sequence: int, now: int) -> bool:
        """Count a round both halves of which are known; whether that led to a verdict."""
        round_ = known.rounds[sequence]
        estimate = self._estimate_of(peer, known, (round_.bright_state, "keep"))
        if round_.here is None or round_.there is None or estimate is None:
            return False
        del known.rounds[sequence]
        agrees = (round_.here == round_.there) == (round_.sign > 0)
        return self._judged(peer, known, estimate.add(round_.basis, now, agrees=agrees), now)

    def _estimate_of(self, peer: Peer, known: _Known, way: Way) -> OptionEstimate | None:
        """Where rounds are counted, by what is promised now; None of an option that has gone."""
        option = _options(peer, way[1]).get(way[0])
        if option is None:
            return None
        estimate = known.estimates.setdefault(way, OptionEstimate(option, way[1]))
        estimate.promise(option)
        return estimate

    def _judged(self, peer: Peer, known: _Known, verdict: Verdict | None, now: int) -> bool:
        """Do what follows from a verdict; whether there was one."""
        if verdict is None:
            return False
        self._check_offers(peer, known, now)
        self._watch_alarm(peer, known)
        return True

    def _mind(self, peer: Peer, known: _Known, now: int) -> None:
        """At the slave: what the master knows of the options there are."""
        known.estimates = {
            (each.bright_state, each.kind): OptionEstimate(
                option,
                each.kind,
                before=Counts(each.rounds, each.agreeing),
                offered=each.offered,
            )
            for each in known.said
            if (option := _options(peer, each.kind).get(each.bright_state)) is not None
        }
        self._check_offers(peer, known, now)

    def _check_offers(self, peer: Peer, known: _Known, now: int) -> None:
        """Let the link offer what the estimates allow; leave a record of what has changed."""
        offered: dict[BrightState, float] = {}
        for (bright_state, _), each in known.estimates.items():
            if each.offered is not None:
                offered[bright_state] = min(each.offered, offered.get(bright_state, 1.0))
        if offered == peer.lowered:
            return
        for bright_state in dict.fromkeys((*peer.lowered, *offered)):
            before, after = peer.lowered.get(bright_state), offered.get(bright_state)
            if before != after:
                self._record(peer, known, bright_state, after)
        peer.lowered = offered
        self._offers_changed(peer, now)

    def _record(
        self, peer: Peer, known: _Known, bright_state: BrightState, offered: float | None
    ) -> None:
        of_option = [each for (which, _), each in known.estimates.items() if which == bright_state]
        each = min(of_option, key=lambda each: each.offered != offered, default=None)
        found = None if each is None else each.estimate
        self._out.record(
            "alarm_over" if offered is None else "alarm",
            peer=peer.name,
            bright_state=bright_state,
            promised=None if each is None else each.promised.bell_probabilities[0],
            offered=offered,
            interval=None if found is None else [found.low, found.high],
            rounds=0 if found is None else found.rounds,
        )

    def _watch_alarm(self, peer: Peer, known: _Known) -> None:
        alarmed = _alarmed(known)
        if alarmed:
            at_ns = min(each.last_ns for each in alarmed) + ALARM_HOLD_NS
            self._out.set_timer(ALARM_TIMER + peer.name, at_ns, background=True)

    def _tell_soon(self, peer: Peer, known: _Known, now: int) -> None:
        if len(known.untold) >= OUTCOMES_EACH:
            self._out.cancel_timer(OUTCOMES_TIMER + peer.name)
            self._tell(peer, known)
        elif len(known.untold) == 1:
            at_ns = now + OUTCOMES_WAIT_NS
            self._out.set_timer(OUTCOMES_TIMER + peer.name, at_ns, background=True)

    def _tell(self, peer: Peer, known: _Known) -> None:
        if known.untold:
            said = messages.RoundOutcomes(
                sequences=list(known.untold), outcomes=list(known.untold.values())
            )
            known.untold.clear()
            self._out.send(peer.name, said)

    def report(self, peer: Peer) -> None:
        """From the master: all it knows."""
        options = [
            messages.OptionRounds(
                bright_state, each.recent.rounds, each.recent.agreeing, each.offered, kind
            )
            for (bright_state, kind), each in self._of(peer).estimates.items()
        ]
        self._out.send(peer.name, messages.RoundReport(options=options))

    def problem(self, peer: Peer, *, is_from_master: bool) -> str | None:
        """Why the far end may not say what it says of rounds; None if it may."""
        if not peer.test_share:
            return "there are no test rounds"
        is_role = peer.is_master != is_from_master
        return None if is_role else "the master counts, and the slave tells it"


def _options(peer: Peer, kind: physical.Kind) -> dict[BrightState, physical.GenerationOption]:
    options = peer.capability.options if peer.capability is not None else []
    return {option.bright_state: option for option in options if is_forecast(option, kind)}


def _alarmed(known: _Known) -> list[OptionEstimate]:
    return [each for each in known.estimates.values() if each.offered is not None]


def _is_sound(said: messages.OptionRounds) -> bool:
    return all(a <= r for a, r in zip(said.agreeing, said.rounds, strict=True))


def _bound(waiting: dict[int, _Round] | dict[int, int]) -> None:
    """Forget the oldest beyond the limit: their other half will not come."""
    if len(waiting) > ROUNDS_OPEN_MAX:
        del waiting[next(iter(waiting))]
