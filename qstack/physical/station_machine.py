"""A heralding station as a participant of its own: GEN from both ends, REPLY to both. Sans-IO.

It brings together the oldest waiting GENs of both ends of a link that name the same token, kind and
parameters, has its detectors watched for their common cycles, and tells both ends what came of it.
What its detectors do it learns from the fabric, as a node learns what its device does, or from a
driver in this process (`drivers/station_driver.py`).

Rules
1. Every GEN ends in one REPLY that names its batch (`station_messages.py` draws the exchange).
2. GenEnd of a watched batch is answered when the photons in flight have come: they may herald. The
   far end's GEN then waits again, before those that came later.
3. A GEN that waited PATIENCE_NS alone ends with NO_CLASSICAL_OTHER, or with QUEUE_MISMATCH if the
   far end wanted something else meanwhile. The timer is housekeeping: it drives no clock, and
   also looks for windows that are over.
4. An end that goes takes its GENs with it; who was watched together with it is told at once.
5. Without detectors (the fabric is away) every GEN ends with GENERAL.
6. While a link is calibrated nothing is watched on it: a GEN waits (`station_calibrations.py`).
7. Successes of a link are numbered from the network time at which the station came up, one by one:
   none of a former life had so high a number, since a success takes longer than a nanosecond.
"""

from collections.abc import Sequence
from typing import Final, get_args

from msgspec import Struct

from qstack.machine import (
    CancelTimer,
    Effect,
    Event,
    FromPeer,
    PeerDown,
    PeerUp,
    Record,
    Send,
    SetTimer,
    TimerFired,
)
from qstack.physical.device import Answer, Calibrated, Device, OperationRefused
from qstack.physical.emulated import EmulatedDevice
from qstack.physical.generation import mismatch
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.service import AttemptKind
from qstack.physical.station_calibrations import StationCalibrations
from qstack.physical.station_device import (
    Clicked,
    ClickedInCycles,
    StopWatch,
    WatchEnded,
    WatchLink,
)
from qstack.physical.station_messages import (
    Calibrating,
    Gen,
    GenEnd,
    Heralds,
    Outcome,
    Reply,
    StationError,
)
from qstack.wire.message import Message

PATIENCE_NS: Final = 1_000_000_000
"""So long a GEN waits for the one of the far end: far above any difference in when the two link
layers begin, and as often as idle housekeeping may be."""
AHEAD_NS: Final = 10_000_000_000
"""A GEN whose first cycle is farther ahead is out of the window: nobody plans like that."""
CYCLE_MAX: Final = 2**53
"""No window goes on after this cycle: it is the largest number a message holds."""
GENS_MAX: Final = 4096
"""Open GENs of one node on one link: as many as a node has memory at most."""
PATIENCE_TIMER: Final = "patience/"
DEVICE_TIMER: Final = "device"


class _Gen(Struct, eq=False):
    """An open GEN; `until_cycle` nil: no end is known. `watch`: the operation it is watched by."""

    node: str
    said: Gen
    since_ns: int
    until_cycle: int | None
    watch: int | None = None
    is_ending: bool = False
    told: int = 0  # pairs of a measured batch

    @property
    def remaining(self) -> int:
        """Pairs that are still wanted."""
        return self.said.pairs - self.told

    @property
    def key(self) -> tuple[object, ...]:
        """What must be equal at both ends."""
        return (self.said.token, self.said.kind, self.said.bright_state)


class _Line(Struct, eq=False):
    """One link through the station: its GENs, oldest first, and the next success's number."""

    link: LinkHardware
    cycles_ns: dict[AttemptKind, int]
    lead_ns: int  # from the start of a cycle until its photons are here
    gens: list[_Gen]
    sequence: int = 0
    calibration: int = 0  # the last number it knows
    is_timed: bool = False

    def find(self, node: str, batch: int) -> _Gen | None:
        """The open GEN of that name."""
        return next((g for g in self.gens if g.node == node and g.said.batch == batch), None)

    def waiting(self, node: str) -> list[_Gen]:
        """The GENs of an end that nobody has met yet."""
        return [gen for gen in self.gens if gen.node == node and gen.watch is None]

    def first_seen(self, kind: AttemptKind, now: int) -> int:
        """The first cycle whose photons come at `now` or later."""
        return max(0, -((self.lead_ns - now) // self.cycles_ns[kind]))


class StationMachine:
    """The machine of station `name`, a `qstack.machine.Machine`; `device` are its detectors."""

    def __init__(self, name: str, world: World, device: Device | None = None) -> None:
        self._name = name
        self._device = EmulatedDevice() if device is None else device
        self._wakes_ns: int | None = None  # when the device's timer is armed for
        self._lines: dict[str, _Line] = {}
        for link in world.links_through(name):
            profiles = world.end_profiles(link.id)
            lead_ns = 0  # of slots in which a source here emits
            if link.is_heralded:
                lead_ns = link.emission_offset_ns(*profiles) + link.arrival_ns
            kinds: tuple[AttemptKind, ...] = get_args(AttemptKind)
            cycles_ns = {kind: link.cycle_ns(kind, *profiles) for kind in kinds}
            self._lines[link.id] = _Line(link, cycles_ns, lead_ns, [])
        self._calibrations = StationCalibrations(name, world)
        self._watches: dict[int, tuple[str, tuple[_Gen, _Gen]]] = {}
        self._up: dict[str, None] = {}
        self._is_ready = False
        self._operations = 0
        self._successes = 0
        self._errors: dict[str, int] = {}
        self._now = 0
        self._out: list[Effect] = []

    def handle(self, event: Event, now: int) -> list[Effect]:
        """Take one event at network time `now` (ns); return everything that follows from it."""
        self._now = now
        match event:
            case FromPeer(peer=peer, message=message) if peer == self._device.peer:
                self._on_answers(self._device.received(message, now))
            case FromPeer(peer=peer, message=message):
                self._on_node(peer, message)
            case PeerUp(peer=peer) if peer == self._device.peer:
                self._on_ready()
            case PeerDown(peer=peer) if peer == self._device.peer:
                self._on_blind()
            case PeerUp(peer=peer):
                self._leave(peer)  # what it said in a former life
                self._up[peer] = None
            case PeerDown(peer=peer):
                self._leave(peer)
            case TimerFired(key=key) if key == DEVICE_TIMER:
                self._wakes_ns = None
                self._on_answers(self._device.answers(now))
            case TimerFired(key=key):
                self._on_patience(key.removeprefix(PATIENCE_TIMER))
            case _:
                self._refuse(type(event).__name__, "a station has no such layers")
        self._wake()
        out, self._out = self._out, []
        return out

    def summary(self) -> dict[str, object]:
        """Facts for status: the links through it, open GENs, successes and errors told."""
        return {
            "is_ready": self._is_ready,
            "links": sorted(self._lines),
            "ends_up": sorted(self._up),
            "open_batches": sum(len(line.gens) for line in self._lines.values()),
            "watches": len(self._watches),
            "successes": self._successes,
            "errors": dict(sorted(self._errors.items())),
        } | self._calibrations.summary()

    # --- the detectors ---------------------------------------------------------------------------

    def _on_ready(self) -> None:
        self._on_blind()
        self._is_ready = True
        self._device.begin(self._now)
        for line in self._lines.values():
            line.sequence = max(line.sequence, self._now)
        self._out.append(Record("station.ready", {}))

    def _on_blind(self) -> None:
        """The detectors have gone, and with them all that was watched."""
        self._is_ready = False
        self._out += self._calibrations.blind()
        self._watches.clear()
        for line in self._lines.values():
            if line.gens:
                self._fail(line, list(line.gens), "GENERAL")

    def _wake(self) -> None:
        """A device in this process is asked for its answers by a timer."""
        wakes_ns = self._device.next_event_ns() if self._is_ready else None
        if wakes_ns != self._wakes_ns:
            self._wakes_ns = wakes_ns
            cancel, arm = CancelTimer(DEVICE_TIMER), SetTimer(DEVICE_TIMER, wakes_ns or 0)
            self._out.append(cancel if wakes_ns is None else arm)

    def _on_answers(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Message):
                self._on_detectors(answer)
            else:
                self._out.append(answer)

    def _on_detectors(self, message: Message) -> None:
        match message:
            case Clicked():
                self._on_clicked(message)
            case ClickedInCycles():
                self._on_cycles(message)
            case WatchEnded(operation=operation):
                self._on_watch_ended(operation)
            case Calibrated():
                self._on_calibrated(message)
            case OperationRefused(operation=operation, detail=detail):
                self._refuse("operation", detail)
                self._on_calibrated(Calibrated(operation=operation, is_good=False, calibration=0))
                if (found := self._watches.pop(operation, None)) is not None:
                    self._fail(self._lines[found[0]], [*found[1]], "GENERAL")
            case _:
                self._refuse(type(message).__name__, "no detector says this")

    def _on_clicked(self, clicked: Clicked) -> None:
        found = self._watches.pop(clicked.operation, None)
        if found is None:
            return  # it was stopped, for an error that was told
        line, gens = self._lines[found[0]], found[1]
        line.calibration = clicked.calibration
        for gen in gens:
            line.gens.remove(gen)
            attempts = max(0, clicked.cycle + 1 - gen.said.first_cycle)
            self._say(gen.node, line, gen.said, "success", attempts=attempts, clicked=clicked)
        line.sequence += 1
        self._successes += 1

    def _on_cycles(self, clicked: ClickedInCycles) -> None:
        """Measured pairs: both ends hear of the same cycles."""
        found = self._watches.get(clicked.operation)
        if found is None:
            return  # it was stopped, for an error that was told
        line, gens = self._lines[found[0]], found[1]
        if clicked.pairs > min(gen.remaining for gen in gens):
            self._refuse("ClickedInCycles", "more pairs than were wanted")
            self._fail(line, [*gens], "GENERAL")
            return
        line.calibration = clicked.calibration
        for gen in gens:
            gen.told += clicked.pairs
            heralds = Heralds(
                link=line.link.id,
                batch=gen.said.batch,
                sequence=line.sequence,
                pairs=clicked.pairs,
                first_cycle=clicked.first_cycle,
                cycles=clicked.cycles,
                x_bits=clicked.x_bits,
                z_bits=clicked.z_bits,
                is_last=clicked.is_last,
                calibration=clicked.calibration,
            )
            self._out.append(Send(gen.node, heralds))
            if clicked.is_last:
                line.gens.remove(gen)
        if clicked.is_last:
            del self._watches[clicked.operation]
        line.sequence += clicked.pairs
        self._successes += clicked.pairs

    def _on_watch_ended(self, operation: int) -> None:
        found = self._watches.pop(operation, None)
        if found is None:
            return
        line, gens = self._lines[found[0]], found[1]
        for gen in gens:
            gen.watch = None
            if gen.is_ending:
                self._end(line, gen)
        for gen in gens:
            if not gen.is_ending:
                gen.since_ns = self._now
                self._match(line, gen)
        self._watch_patience(line)

    def _on_calibrated(self, calibrated: Calibrated) -> None:
        """The station's part of a calibration is over: who wanted to attempt meanwhile may."""
        link, told = self._calibrations.done(calibrated)
        self._out += told
        if link is None:
            return
        line = self._lines[link]
        if calibrated.is_good:
            line.calibration = calibrated.calibration
        for gen in line.waiting(line.link.ends[0]):
            self._match(line, gen)

    # --- what nodes say --------------------------------------------------------------------------

    def _on_node(self, node: str, message: Message) -> None:
        match message:
            case Gen():
                self._on_gen(node, message)
            case GenEnd():
                self._on_gen_end(node, message)
            case Calibrating():
                self._on_calibrating(node, message)
            case _:
                self._refuse(type(message).__name__, f"not for {node} to say")

    def _on_gen(self, node: str, said: Gen) -> None:
        line = self._lines.get(said.link)
        problem = self._problem(node, said, line)
        if problem or line is None:
            self._refuse("Gen", problem)
            self._tell_refused(node, said)
            return
        until = None if said.count is None else min(said.first_cycle + said.count, CYCLE_MAX)
        gen = _Gen(node, said, self._now, until)
        line.gens.append(gen)
        is_over = until is not None and until <= line.first_seen(said.kind, self._now)
        begin_ns = said.first_cycle * line.cycles_ns[said.kind]
        if is_over or begin_ns > self._now + AHEAD_NS:
            self._fail(line, [gen], "OUT_OF_WINDOW")
        else:
            self._match(line, gen)
            self._watch_patience(line)

    def _problem(self, node: str, said: Gen, line: _Line | None) -> str:
        """Why a GEN cannot be; empty if it can."""
        if line is None:
            return f"no link {said.link} goes through {self._name}"
        if node not in line.link.ends:
            return f"{node} is not an end of {said.link}"
        if not self._is_ready:
            return "the detectors are away"
        if said.kind not in line.link.kinds:
            return f"not {said.kind} through a named station"
        if line.find(node, said.batch) is not None:
            return f"batch {said.batch} is open"
        if sum(gen.node == node for gen in line.gens) >= GENS_MAX:
            return f"{GENS_MAX} batches are open"
        return mismatch(
            said.kind,
            basis=True if said.kind == "measure" else None,  # which one it does not know
            pairs=said.pairs,
            bright_state=said.bright_state,
            scheme=line.link.scheme,
        )

    def _on_gen_end(self, node: str, said: GenEnd) -> None:
        line = self._lines.get(said.link)
        gen = None if line is None else line.find(node, said.batch)
        if line is None or gen is None:
            self._tell_refused(node, said)
            return
        if gen.is_ending:
            return
        if said.error is not None:
            self._fail(line, [gen], said.error)
            return
        gen.is_ending = True
        # Nobody has made attempts in the future, and the end of a batch is not waited for long.
        last = line.first_seen(gen.said.kind, self._now + AHEAD_NS)
        gen.until_cycle = min(said.until_cycle, last)
        if gen.watch is None:
            self._end(line, gen)
        else:
            self._stop_watch(gen.watch, gen.until_cycle)

    def _on_calibrating(self, node: str, said: Calibrating) -> None:
        """An end does its part of a calibration: it attempts nothing, whatever it said before."""
        line = self._lines.get(said.link)
        gens = [] if line is None else [gen for gen in line.gens if gen.node == node]
        if line is not None and gens:
            self._fail(line, gens, "OUT_OF_WINDOW")
        self._operations += 1
        calibrate, effects = self._calibrations.begins(
            node, said, self._now, self._operations, is_ready=self._is_ready
        )
        self._out += effects
        if calibrate is not None:
            self._out += self._device.submit(calibrate, self._now)

    def _leave(self, node: str) -> None:
        """A node has gone: nothing of it is left, and who was with it is told."""
        self._up.pop(node, None)
        self._calibrations.leave(node)
        for line in self._lines.values():
            gens = [gen for gen in line.gens if gen.node == node]
            if gens:
                self._fail(line, gens, "NO_CLASSICAL_OTHER")

    # --- matching --------------------------------------------------------------------------------

    def _match(self, line: _Line, gen: _Gen) -> None:
        """Bring a GEN together with the oldest of the far end that is for the same."""
        far = line.link.other_end(gen.node)
        other = next((each for each in line.waiting(far) if each.key == gen.key), None)
        if other is None or self._calibrations.is_at_work(line.link.id):
            return
        first, second = (gen, other) if gen.node == line.link.ends[0] else (other, gen)
        seen = line.first_seen(gen.said.kind, self._now)
        begin = max(first.said.first_cycle, second.said.first_cycle, seen)
        ends = [each.until_cycle for each in (first, second) if each.until_cycle is not None]
        until = min(ends, default=None)
        if until is not None and begin >= until:
            self._fail(line, [first, second], "OUT_OF_WINDOW")
            return
        self._operations += 1
        watch = WatchLink(
            at_ns=self._now,
            sequence=self._operations,
            link=line.link.id,
            batches=(first.said.batch, second.said.batch),
            first_cycle=begin,
            until_cycle=until,
            kind=gen.said.kind,
            bright_state=gen.said.bright_state,
            pairs=min(first.remaining, second.remaining),
        )
        first.watch = second.watch = watch.sequence
        self._watches[watch.sequence] = (line.link.id, (first, second))
        self._out += self._device.submit(watch, self._now)

    def _stop_watch(self, watch: int, until_cycle: int) -> None:
        self._operations += 1
        stop = StopWatch(
            at_ns=self._now, sequence=self._operations, watch=watch, until_cycle=until_cycle
        )
        self._out += self._device.submit(stop, self._now)

    def _on_patience(self, link: str) -> None:
        """Tell those that have waited too long what they waited for in vain."""
        line = self._lines[link]
        line.is_timed = False
        for gen in list(line.gens):
            seen = line.first_seen(gen.said.kind, self._now)
            is_over = gen.until_cycle is not None and gen.until_cycle <= seen
            if gen.watch is not None and is_over and not gen.is_ending:
                gen.is_ending = True
                self._stop_watch(gen.watch, gen.until_cycle or 0)
            is_late = gen.watch is None and gen.since_ns + PATIENCE_NS <= self._now
            if not is_late or gen not in line.gens:
                continue
            others = line.waiting(line.link.other_end(gen.node))
            if others:
                self._fail(line, [gen, others[0]], "QUEUE_MISMATCH")
            else:
                self._fail(line, [gen], "NO_CLASSICAL_OTHER")
        self._watch_patience(line)

    def _watch_patience(self, line: _Line) -> None:
        """One timer a link, which is left to fire: it costs a pair nothing."""
        since = [
            gen.since_ns if gen.watch is None else self._now
            for gen in line.gens
            if gen.watch is None or (gen.until_cycle is not None and not gen.is_ending)
        ]
        if since and not line.is_timed:
            line.is_timed = True
            key = PATIENCE_TIMER + line.link.id
            self._out.append(SetTimer(key, min(since) + PATIENCE_NS, background=True))

    # --- what is told ----------------------------------------------------------------------------

    def _fail(self, line: _Line, gens: list[_Gen], error: StationError) -> None:
        """End these, and who is watched together with one of them; both ends are told."""
        failed = list(gens)
        for gen in gens:
            if gen.watch is not None and (found := self._watches.pop(gen.watch, None)) is not None:
                self._stop_watch(gen.watch, 0)
                failed += [each for each in found[1] if each not in failed]
        for gen in failed:
            line.gens.remove(gen)
            self._say(gen.node, line, gen.said, error)
        for end in line.link.ends:
            if all(gen.node != end for gen in failed):
                self._say(end, line, failed[0].said, error, is_other=True)
        self._errors[error] = self._errors.get(error, 0) + 1

    def _end(self, line: _Line, gen: _Gen) -> None:
        """A batch is over without a success."""
        line.gens.remove(gen)
        until = gen.until_cycle
        attempts = 0 if until is None else max(0, until - gen.said.first_cycle)
        self._say(gen.node, line, gen.said, "ended", attempts=attempts)

    def _say(
        self,
        node: str,
        line: _Line,
        said: Gen,
        outcome: Outcome,
        *,
        is_other: bool = False,
        attempts: int = 0,
        clicked: Clicked | None = None,
    ) -> None:
        """Tell a node what came of what it said, or (`is_other`) of what the far end said."""
        if node not in self._up:
            return
        reply = Reply(
            link=line.link.id,
            batch=None if is_other else said.batch,
            token=said.token,
            outcome=outcome,
            sequence=line.sequence,
            cycle=0 if clicked is None else clicked.cycle,
            x_bit=0 if clicked is None else clicked.x_bit,
            z_bit=0 if clicked is None else clicked.z_bit,
            attempts=attempts,
            calibration=line.calibration,
        )
        self._out.append(Send(node, reply))

    def _tell_refused(self, node: str, said: Gen | GenEnd) -> None:
        """What names no link of this station, or no end of it, is answered to who said it."""
        line = self._lines.get(said.link)
        if line is not None and node not in line.link.ends:
            line = None
        reply = Reply(
            link=said.link,
            batch=said.batch,
            token=said.token if isinstance(said, Gen) else None,
            outcome="GENERAL" if isinstance(said, Gen) else "ended",
            sequence=0 if line is None else line.sequence,
            cycle=0,
            x_bit=0,
            z_bit=0,
            attempts=0,
            calibration=0 if line is None else line.calibration,
        )
        self._out.append(Send(node, reply))

    def _refuse(self, what: str, why: str) -> None:
        self._out.append(Record("station.refused", {"what": what, "why": why}))
