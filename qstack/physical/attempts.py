"""The attempts part: batches of attempts on heralded links, for the link layer.

Rules
1. Every AttemptsStart ends in exactly one of Heralded, a last MeasuredPairs, AttemptsEnded.
2. A batch is admitted to memory before it queues for a communication qubit.
3. What the device still says of a batch whose asker has gone is cleaned up, and told to nobody.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Final, Literal

import numpy as np
from msgspec import Struct

from qstack.errors import ErrorCode
from qstack.machine import CancelTimer, Effect, Record, SetTimer, Tell
from qstack.physical.ageing import good_for_ns
from qstack.physical.batch_states import BATCH, Input, State
from qstack.physical.conditions import IDEAL, Conditions
from qstack.physical.device import (
    BatchEnded,
    MeasuredReply,
    Release,
    Reply,
    StopGenerate,
)
from qstack.physical.device_order import DeviceOrder
from qstack.physical.generation import generate, is_kept, mismatch
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.memory import Memory, Qubit
from qstack.physical.params import DRIFT_STEPS, DRIFT_STEPS_MAX, SHARE_NS
from qstack.physical.prediction import goodness_of
from qstack.physical.qubit_states import Input as QubitInput
from qstack.physical.service import (
    AttemptKind,
    AttemptsEnded,
    AttemptsStart,
    AttemptsStop,
    Heralded,
    MeasuredPairs,
    Rotation,
)
from qstack.physical.sharing import choose
from qstack.physical.station_gens import StationGens
from qstack.wire.message import BasisChoice, BasisProbabilities
from qstack.wire.packed import BASES, draw_bases, pack_bases

LINK_LAYER: Final = "link"
SHARE_TIMER: Final = "share"
FLOORS_KEPT: Final = 256
"""Fidelities to be kept whose times are remembered: peers may ask for ever new ones.
As many ways of attempting, whose problems are."""

_ENDED: Final = State.ENDED

StopReason = Literal["stopped", "handed-over"]
Reason = Literal["stopped", "no-memory", "handed-over", "device", "refused", "station"]


class Batch(Struct, eq=False):
    """One batch; `reason` is why it is being stopped.

    `number` is its name at the device: the asker's own may come again in its next life. `drawn` is
    the basis a `prepare` batch is read in, packed, where that was drawn when it began.
    """

    asked: AttemptsStart
    qubit: Qubit
    number: int
    state: State = State.QUEUED
    reason: StopReason = "stopped"
    operation: int | None = None
    is_orphan: bool = False
    drawn: bytes = b""

    @property
    def link(self) -> str:
        return self.asked.link

    @property
    def token(self) -> bytes:
        return self.asked.token

    def is_asked_as(self, number: int) -> bool:
        """Whether the asker means this batch."""
        return self.asked.batch == number and not self.is_orphan


class Attempts:
    """All batches of a node. `numbers` are for batches of the device, never twice the same."""

    def __init__(
        self,
        node: str,
        world: World,
        order: DeviceOrder,
        memory: Memory,
        numbers: Iterator[int],
        stations: StationGens,
        rng: np.random.Generator,
    ) -> None:
        self._node = node
        self._world = world
        self._stations = stations
        self._rng = rng
        self._problem = lru_cache(maxsize=FLOORS_KEPT)(self._find_problem)
        self._good_for_ns = lru_cache(maxsize=FLOORS_KEPT)(partial(good_for_ns, world))
        self._numbers = numbers
        self._order = order
        self._memory = memory
        self._links: dict[str, LinkHardware] = {
            link.id: link for link in world.heralded_links_of(node)
        }
        self._batches: dict[int, Batch] = {}
        self._queued: dict[int, None] = {}  # those that wait for a communication qubit
        self._goodness: dict[tuple[str, float | None, int | None], tuple[float, float]] = {}
        self._calibrated_ns: dict[
            str, int
        ] = {}  # when a link that drifts last was, as far as known
        self._conditions: dict[str, Conditions] = {}  # what is expected of a link, if not the ideal
        self._cycles_ns: dict[tuple[str, AttemptKind], int] = {}
        self._is_timer_set = False
        # Whether its links never take turns: they attempt at once, or there is one.
        self._is_parallel = order.profile.parallel_links or len(self._links) == 1

    # --- what the link layer asks ---

    def start(self, asked: AttemptsStart, now: int, *, is_ready: bool) -> list[Effect]:
        """Begin a batch, or queue it for the communication qubit."""
        if not is_ready or self._stations.is_away(asked.link):
            return [_ended(asked.batch, "device", 0)]
        problem = self._problem(
            asked.link, asked.kind, asked.basis, asked.pairs, asked.bright_state, asked.rotation
        )
        if problem:
            return [_refused("AttemptsStart", problem), _ended(asked.batch, "refused", 0)]
        qubit = self._memory.admit(LINK_LAYER, asked.link)
        if qubit is None:
            return [_ended(asked.batch, "no-memory", 0)]
        batch = Batch(asked, qubit, next(self._numbers))
        self._batches[batch.number] = batch
        if self._may_begin_at_once():
            return self._begin(batch, now)
        self._queued[batch.number] = None
        return self.arbitrate(now)

    def _may_begin_at_once(self) -> bool:
        """Whether there is a communication qubit for everybody, so that nobody is chosen."""
        if self._queued or not self._is_parallel:
            return False
        return len(self._batches) + len(self._memory.lent) <= self._order.profile.comm_qubits

    def stop(self, asked: AttemptsStop, now: int) -> list[Effect]:
        """End a batch; what has ended already has been answered already."""
        batch = next((b for b in self._batches.values() if b.is_asked_as(asked.batch)), None)
        if batch is None:
            return []
        return [*self._halt(batch, "stopped", now), *self.arbitrate(now)]

    def asker_gone(self, now: int) -> list[Effect]:
        """The link layer has gone: end everything, tell nobody."""
        effects: list[Effect] = []
        for batch in list(self._batches.values()):
            batch.is_orphan = True
            effects += self._halt(batch, "stopped", now)
        return effects + self.arbitrate(now)

    def device_lost(self, now: int) -> list[Effect]:
        """All batches end with the device."""
        effects: list[Effect] = [
            told
            for batch in self._batches.values()
            if batch.state is not State.QUEUED
            for told in self._stations.ended(batch.asked, batch.number, now, "LOCAL")
        ]
        effects += [
            _ended(batch.asked.batch, "device", 0)
            for batch in self._batches.values()
            if not batch.is_orphan
        ]
        self._batches.clear()
        self._queued.clear()
        if self._is_timer_set:
            self._is_timer_set = False
            effects.append(CancelTimer(SHARE_TIMER))
        return effects

    def expect(self, link: str, conditions: Conditions) -> None:
        """Pairs of `link` are to be expected under these conditions from now on."""
        self._conditions[link] = conditions
        self._goodness = {key: good for key, good in self._goodness.items() if key[0] != link}

    def calibrated(self, link: str, now: int) -> None:
        """A link that drifts is as it was at the beginning."""
        self._calibrated_ns[link] = now

    # --- what the device says ---

    def succeeded(self, reply: Reply, now: int) -> tuple[list[Effect], Qubit | None]:
        """A pair is there. The second part: its qubit, if nobody is left to take it."""
        batch = self._batches.get(reply.batch)
        if batch is None:
            return [_refused("Reply", f"no batch {reply.batch}")], None
        self._step(batch, Input.SUCCESS)
        self._memory.step(batch.qubit, QubitInput.HERALDED)
        effects = self.arbitrate(now)
        if batch.is_orphan:
            return effects, batch.qubit
        asked, z_bit, emitted_at_ns = batch.asked, reply.z_bit, reply.emitted_at_ns
        indication = Heralded(
            batch=asked.batch,
            qubit=batch.qubit.id,
            herald_sequence=reply.herald_sequence,
            cycle=reply.cycle,
            x_bit=reply.x_bit,
            z_bit=z_bit,
            emitted_at_ns=emitted_at_ns,
            goodness=self._goodness_of(asked, z_bit, emitted_at_ns),
            calibration=reply.calibration,
            good_until_ns=self._good_until_ns(asked, z_bit, emitted_at_ns),
        )
        return [Tell(LINK_LAYER, indication), *effects], None

    # --- what the station of a link says, where it has a name (`station_ends.py`) ---

    def find(self, number: int) -> Batch | None:
        """The open batch of that number at the device."""
        return self._batches.get(number)

    def concluded(self, number: int, outcome: str, attempts: int, now: int) -> list[Effect]:
        """A batch is over without success: `ended`, for it was stopped, or by a station's error.

        `unknown`, it was stopped, but the station had not heard of it or answered it before.
        """
        batch = self._batches.get(number)
        if batch is None:
            is_late = outcome in ("ended", "unknown")
            return [] if is_late else [_refused("Reply", f"no batch {number}")]
        is_running = outcome == "ended" and batch.state is State.RUNNING  # for the device, yet
        if outcome == "unknown" or is_running:  # of a success that was not heard there is a qubit
            given_up = self.give_up(batch, now)
            return [*given_up, *self._finish(batch, batch.reason, 0), *self.arbitrate(now)]
        if outcome == "ended":
            # What was measured in cycles that we were not told of is of no use any more.
            unread = [] if batch.asked.kind == "keep" else self.give_up(batch, now)
            return [*unread, *self._finish(batch, batch.reason, attempts), *self.arbitrate(now)]
        effects: list[Effect] = [Record("physical.station_error", {"error": outcome})]
        effects += self.give_up(batch, now)
        reason: Reason = "refused" if outcome == ErrorCode.GENERAL.name else "station"
        return [*effects, *self._finish(batch, reason, attempts), *self.arbitrate(now)]

    def begin_anew(
        self, link: str, but: int | None, now: int, token: bytes | None = None
    ) -> list[Effect]:
        """Stop what is open on a link (of `token`), save one batch: something was not heard."""
        effects: list[Effect] = []
        for batch in list(self._batches.values()):
            is_meant = batch.link == link and token in (None, batch.token) and batch.number != but
            if is_meant and batch.state is State.RUNNING:
                effects += self._halt(batch, "stopped", now)
        return effects

    def links_lost(self, links: list[str], now: int) -> list[Effect]:
        """The station of these links has gone: their batches end, and their qubits are given up."""
        effects: list[Effect] = []
        for batch in [b for b in self._batches.values() if b.link in links]:
            if batch.state is State.QUEUED:
                effects += self._halt(batch, "stopped", now)
            else:
                effects += self.give_up(batch, now)
                effects += self._finish(batch, "device", 0)
        return effects + self.arbitrate(now)

    def draw_bases(self, batch: Batch, pairs: int) -> bytes:
        """The bases in which pairs of a batch are read, packed; empty where there is one."""
        choice = batch.asked.basis
        if batch.drawn or not isinstance(choice, BasisProbabilities):
            return b""
        return pack_bases(draw_bases(self._rng, choice, pairs))

    def give_up(self, batch: Batch, now: int) -> list[Effect]:
        """The device stops a batch, and keeps nothing of it."""
        stop = StopGenerate(
            at_ns=now,
            sequence=self._order.next_sequence(),
            batch=batch.number,
            reason="given-up",
        )
        effects = self._order.submit(stop, now)
        if is_kept(batch.asked.kind, batch.asked.basis):
            sequence = self._order.next_sequence()
            release = Release(at_ns=now, sequence=sequence, qubit=batch.qubit.id)
            effects += self._order.submit(release, now)
        return effects

    def basis_of(self, number: int) -> BasisChoice | None:
        """What a batch is read in; None if there is no such batch."""
        batch = self._batches.get(number)
        return batch.asked.basis if batch is not None else None

    def measured(self, reply: MeasuredReply, now: int) -> list[Effect]:
        """Measured pairs are there; with the last of them the batch ends."""
        batch = self._batches.get(reply.batch)
        if batch is None:
            return [_refused("MeasuredReply", f"no batch {reply.batch}")]
        effects: list[Effect] = []
        if not batch.is_orphan:
            indication = MeasuredPairs(
                batch=batch.asked.batch,
                first_herald_sequence=reply.first_herald_sequence,
                pairs=reply.pairs,
                outcomes=reply.outcomes,
                x_bits=reply.x_bits,
                z_bits=reply.z_bits,
                bases=batch.drawn or reply.bases,
                emitted_at_ns=reply.emitted_at_ns,
                is_last=reply.is_last,
                calibration=reply.calibration,
                good_until_ns=self._good_until_ns(
                    batch.asked, int(reply.z_bits > b"\x7f"), reply.emitted_at_ns
                ),
            )
            effects.append(Tell(LINK_LAYER, indication))
        if reply.is_last:
            self._step(batch, Input.SUCCESS)
            self._memory.step(batch.qubit, QubitInput.BATCH_ENDED)
            effects += self.arbitrate(now)
        return effects

    def ended(self, reply: BatchEnded, now: int) -> list[Effect]:
        """A stopped batch has come to its end without (further) success."""
        batch = self._batches.get(reply.batch)
        if batch is None:
            return [_refused("BatchEnded", f"no batch {reply.batch}")]
        return [*self._finish(batch, batch.reason, reply.attempts), *self.arbitrate(now)]

    def refused(self, operation: int, now: int) -> list[Effect] | None:
        """The device refused an operation; None if it was not the start of a batch of ours."""
        for batch in self._batches.values():
            if batch.operation == operation:
                told = self._stations.ended(batch.asked, batch.number, now, "LOCAL")
                return [*told, *self._finish(batch, "refused", 0), *self.arbitrate(now)]
        return None

    # --- the communication qubits ---

    @property
    def _comm_qubits(self) -> int:
        """Those there are for attempts."""
        return self._order.profile.comm_qubits - len(self._memory.lent)

    @property
    def at_work(self) -> int:
        """How many communication qubits attempts have now."""
        return sum(batch.state is not State.QUEUED for batch in self._batches.values())

    def slice_over(self, now: int) -> list[Effect]:
        """The timer of the time slice has fired."""
        self._is_timer_set = False
        return self.arbitrate(now)

    def arbitrate(self, now: int) -> list[Effect]:
        """Give the communication qubits to whom they belong in this time slice."""
        if self._may_begin_at_once():  # nobody waits, and nobody has to hand over
            return self._timer(now) if self._is_timer_set else []
        profile = self._order.profile
        wanting = [b for b in self._batches.values() if b.state is not State.STOPPING]
        chosen = choose(
            wanting,
            now // SHARE_NS,
            qubits=self._comm_qubits,
            is_parallel=profile.parallel_links,
        )
        effects: list[Effect] = []
        for batch in wanting:
            if batch.state is State.RUNNING and batch not in chosen:
                effects += self._halt(batch, "handed-over", now)
        holding = [b for b in self._batches.values() if b.state is not State.QUEUED]
        for batch in chosen:
            is_free = len(holding) < self._comm_qubits and (
                profile.parallel_links or all(other.link == batch.link for other in holding)
            )
            if batch.state is State.QUEUED and is_free:
                effects += self._begin(batch, now)
                holding.append(batch)
        return effects + self._timer(now)

    def _timer(self, now: int) -> list[Effect]:
        """While somebody waits, look again when the slice is over."""
        is_needed = bool(self._queued)
        if is_needed == self._is_timer_set:
            return []
        self._is_timer_set = is_needed
        if is_needed:
            return [SetTimer(SHARE_TIMER, (now // SHARE_NS + 1) * SHARE_NS)]
        return [CancelTimer(SHARE_TIMER)]

    # --- one batch ---

    def _begin(self, batch: Batch, now: int) -> list[Effect]:
        self._step(batch, Input.BEGIN)
        asked = batch.asked
        drawn = None
        if asked.kind == "prepare" and isinstance(asked.basis, BasisProbabilities):
            # One pair in one basis: nothing is gained by waiting for the herald to choose it.
            codes = draw_bases(self._rng, asked.basis, 1)
            batch.drawn, drawn = pack_bases(codes), BASES[codes[0]]
        batch.operation = self._order.next_sequence()
        operation = generate(
            asked,
            now,
            sequence=batch.operation,
            batch=batch.number,
            cycle_ns=self._cycle_ns(asked.link, asked.kind),
            qubit=batch.qubit.id if is_kept(asked.kind, asked.basis) else None,
            drawn=drawn,
        )
        effects = self._order.submit(operation, now)
        if operation.link in self._stations.links:
            effects += self._stations.begun(operation)
        return effects

    def _cycle_ns(self, link: str, kind: AttemptKind) -> int:
        cycle_ns = self._cycles_ns.get((link, kind))
        if cycle_ns is None:
            profiles = self._world.end_profiles(link)
            cycle_ns = self._links[link].cycle_ns(kind, *profiles)
            self._cycles_ns[link, kind] = cycle_ns
        return cycle_ns

    def _halt(self, batch: Batch, reason: StopReason, now: int) -> list[Effect]:
        """Stop a batch, from its asker or for another link; the asker's word is the last."""
        batch.reason = reason
        before = batch.state
        self._step(batch, Input.HALT)
        if before is State.QUEUED:
            self._memory.step(batch.qubit, QubitInput.BATCH_ENDED)
            return [] if batch.is_orphan else [_ended(batch.asked.batch, reason, 0)]
        if before is State.STOPPING:
            return []
        stop = StopGenerate(
            at_ns=now, sequence=self._order.next_sequence(), batch=batch.number, reason=reason
        )
        told = self._stations.ended(batch.asked, batch.number, now)
        return self._order.submit(stop, now) + told

    def _finish(self, batch: Batch, reason: Reason, attempts: int) -> list[Effect]:
        self._step(batch, Input.FINISHED)
        self._memory.step(batch.qubit, QubitInput.BATCH_ENDED)
        return [] if batch.is_orphan else [_ended(batch.asked.batch, reason, attempts)]

    def _step(self, batch: Batch, received: Input) -> None:
        state = batch.state = BATCH.cells[batch.state, received]
        if self._queued:
            self._queued.pop(batch.number, None)  # nothing leads back to the queue
        if state is _ENDED:
            del self._batches[batch.number]

    def _find_problem(
        self,
        name: str,
        kind: AttemptKind,
        basis: BasisChoice | None,
        pairs: int,
        bright_state: float | None,
        rotation: Rotation | None,
    ) -> str:
        link = self._links.get(name)
        if link is None:
            return f"no link {name} here"
        if kind not in link.kinds:
            return f"link {name} does not {kind}"
        return mismatch(
            kind,
            basis=basis,
            pairs=pairs,
            bright_state=bright_state,
            scheme=link.scheme,
            rotation=rotation,
        )

    def _goodness_of(self, asked: AttemptsStart, z: int, emitted_at_ns: int) -> float:
        link = self._links[asked.link]
        since_ns = None if link.drift is None else self._drifted_ns(link, emitted_at_ns)
        key = (asked.link, asked.bright_state, since_ns)
        goodness = self._goodness.get(key)
        if goodness is None:
            expected = self._conditions.get(asked.link, IDEAL)
            goodness = goodness_of(self._world, link, key[1], expected, since_ns)
            self._goodness[key] = goodness
        return goodness[z]

    def _good_until_ns(self, asked: AttemptsStart, z: int, emitted_at_ns: int) -> int | None:
        """When a pair that waits is no longer as good as its asker wants it."""
        floor = asked.fidelity_floor
        if floor is None or asked.kind == "measure":
            return None
        link = self._links[asked.link]
        kept: tuple[str, ...] = link.ends
        if asked.kind == "prepare":
            kept = (self._node,) if asked.basis is None else (link.other_end(self._node),)
        good_ns = self._good_for_ns(link.id, asked.bright_state, z, floor, kept)
        return None if good_ns is None else emitted_at_ns + good_ns

    def _drifted_ns(self, link: LinkHardware, at_ns: int) -> int | None:
        """How long a link has drifted, rounded up; None if nobody knows, or it does not."""
        if link.drift is None:
            return None
        calibrated_ns = self._calibrated_ns.get(link.id)
        if calibrated_ns is None or at_ns < calibrated_ns:
            return None
        step_ns = link.drift.calibration_period_ns // DRIFT_STEPS
        return min(DRIFT_STEPS_MAX, -((calibrated_ns - at_ns) // step_ns)) * step_ns


def _ended(batch: int, reason: Reason, attempts: int) -> Tell:
    return Tell(LINK_LAYER, AttemptsEnded(batch=batch, reason=reason, attempts=attempts))


def _refused(what: str, why: str) -> Record:
    return Record("physical.refused", {"what": what, "why": why})
