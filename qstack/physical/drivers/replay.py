"""The replay driver: what hardware once said is said again, at the same network times.

Options: `heralds_file` (`recording.py`), and any number of options `tags_file`, `tags_..._file`
(`time_tags.py`), one for each photon-pair link.

Rules
1. A herald answers the oldest batch that is open, on its link, when its qubits were emitted. One
   that finds no batch is passed over: both ends replay the same run, so ask for the same.
2. What a recording cannot tell is refused (UNSUPPORTED), never made up: gates other than those
   recorded, outcomes that were not read, fresh qubits.
3. Photon pairs are read in the bases of the recording. Where bases are to be given the device says
   which it had (a passive choice); where one is asked for only detections in it count.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Final, NoReturn

import numpy as np
from msgspec import Struct

from qstack.errors import ErrorCode, LocalError
from qstack.physical.device import DetectionReply, Generate, MeasuredReply
from qstack.physical.drivers.driver import Driver
from qstack.physical.drivers.recording import (
    FILE,
    KeptPair,
    MeasuredPair,
    RecordedGate,
    Recording,
    read_recording,
)
from qstack.physical.drivers.setup import DriverError, Setup
from qstack.physical.drivers.time_tags import TimeTags, read_time_tags
from qstack.physical.params import CHUNK_PAIRS_MAX, DETECTIONS_MAX
from qstack.physical.service import GateName
from qstack.wire.message import Basis
from qstack.wire.packed import BASES, pack_bases, pack_bits, pack_slots

CHUNK_NS: Final = 5_000_000
"""Network time one reply of detections covers: the ends hear of each other no sooner anyway."""


class _Part(Struct, frozen=True):
    """Measured pairs the node heard of together."""

    emitted_at_ns: int
    at_ns: int
    pairs: list[MeasuredPair]


class _Kept(Struct):
    """A qubit of the recording; `gates` of its gates have been done."""

    pair: KeptPair
    gates: int = 0


class _Track(Struct):
    """Everything recorded of one link and kind, and how far it has been replayed."""

    events: Sequence[KeptPair | _Part]
    place: int = 0


class ReplayDevice(Driver):
    """One node's recordings. Raises `DriverError` for files that are none."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._swaps: Recording | None = None
        self._swap_pulses: dict[tuple[str, int], int] = {}
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._tags: dict[str, TimeTags] = {}
        for name, data in setup.files.items():
            if name == FILE:
                self._read_heralds(name, data)
            else:
                self._read_tags(name, data)
        if not setup.files:
            problem = f"there is nothing to replay; expected an option {FILE} or tags_file"
            raise DriverError("replay", [problem])
        self._kept: dict[bytes, _Kept] = {}
        self._left: dict[int, int] = {}
        self._next_slots: dict[int, int] = {}

    def _read_heralds(self, name: str, data: bytes) -> None:
        recording = read_recording(data, f"replay, {name}")
        if recording.header.node != self.setup.node:
            raise DriverError(
                f"replay, {name}",
                [f"is of node {recording.header.node}; expected one of {self.setup.node}"],
            )
        self._swaps = recording
        for names, swap in recording.swaps.items():
            if swap.pulses is not None:
                self._swap_pulses |= dict(zip(names, swap.pulses, strict=True))
        for link, kept in recording.kept.items():
            self._tracks[link, "keep"] = _Track(kept)
        for link, measured in recording.measured.items():
            self._tracks[link, "measure"] = _Track(_parts(measured))

    def _read_tags(self, name: str, data: bytes) -> None:
        where = f"replay, {name}"
        tags = read_time_tags(data, where, self.setup.rng)
        link = self.links.get(tags.link)
        source = None if link is None else link.source
        if source is None:
            raise DriverError(where, [f"link: {tags.link} is no photon-pair link of this node"])
        if source.slot_ns * 1000 != tags.slot_ps:
            problem = f"slot_ps: is {tags.slot_ps}; the link has slots of {source.slot_ns} ns"
            raise DriverError(where, [problem])
        self._tags[tags.link] = tags

    def began(self, now: int) -> None:
        """What was emitted before `now` is over."""
        self._kept.clear()
        self._left.clear()
        self._next_slots.clear()
        for track in self._tracks.values():
            _skip(track, now)

    # --- attempts ---------------------------------------------------------------------------------

    def start(self, batch: Generate) -> None:
        """Wait for what the recording has next on this link."""
        self._left[batch.batch] = batch.pairs
        if not self.links[batch.link].is_heralded:
            self._start_receiver(batch)
            return
        track = self._tracks.get((batch.link, batch.kind))
        if track is None or not any(_fits(event, batch) for event in track.events):
            what = "kept pairs" if batch.kind == "keep" else f"pairs read in {batch.basis}"
            self._refuse(f"the recording has no {what} of link {batch.link}")
        if not any(_is_rival(other, batch) for other in self.batches.values()):
            _skip(track, batch.at_ns)
        self._plan(batch, track)

    def woken(self, batch: Generate, at_ns: int) -> None:
        """A herald is due: it is for the oldest batch. Or a chunk of detections is over."""
        if batch.link in self._tags:
            self._say_detections(batch, at_ns)
            return
        track = self._tracks[batch.link, batch.kind]
        if track.place < len(track.events) and _emitted_ns(track, track.place) <= at_ns:
            event = track.events[track.place]
            track.place += 1
            fitting = [
                other
                for other in self.batches.values()
                if (other.link, other.kind) == (batch.link, batch.kind) and _fits(event, other)
            ]
            if fitting:
                self._give(fitting[0], event)
        if batch.batch in self.batches:
            self._plan(batch, track)

    def stop(self, batch: Generate, reason: str, at_ns: int) -> None:
        """What was emitted before has been told already. A cycle counts as an attempt: how many
        were made the recording does not say."""
        if batch.link in self._tags:
            self._say_detections(batch, at_ns, is_last=True)
        elif batch.kind == "measure":
            self._say_pairs(batch, [], at_ns + self.back_ns(batch.link), is_last=True)
        else:
            profiles = self.setup.world.end_profiles(batch.link)
            cycle_ns = self.links[batch.link].cycle_ns("keep", *profiles)
            attempts = max(0, at_ns // cycle_ns - batch.first_cycle)
            self.ended(batch, reason, at_ns, attempts=attempts)

    def _plan(self, batch: Generate, track: _Track) -> None:
        if track.place < len(track.events):
            self.wake(_emitted_ns(track, track.place), batch)

    def _give(self, batch: Generate, event: KeptPair | _Part) -> None:
        if isinstance(event, KeptPair):
            assert batch.qubit is not None, "a keep batch names a qubit"
            self._kept[batch.qubit] = _Kept(event)
            self.herald(
                batch,
                sequence=event.herald_sequence,
                cycle=event.cycle,
                bits=(event.x_bit, event.z_bit),
                emitted_at_ns=event.emitted_at_ns,
                due_ns=event.at_ns,
                calibration=event.calibration,
            )
            return
        pairs = event.pairs[: self._left[batch.batch]]
        self._left[batch.batch] -= len(pairs)
        is_last = not self._left[batch.batch]
        if is_last:
            del self.batches[batch.batch]
        self._say_pairs(batch, pairs, event.at_ns, is_last=is_last)

    def _say_pairs(
        self, batch: Generate, pairs: list[MeasuredPair], due_ns: int, *, is_last: bool
    ) -> None:
        def bits(values: list[int]) -> bytes:
            return pack_bits(np.array(values, dtype=np.uint8))

        codes = np.array([BASES.index(pair.basis) for pair in pairs], dtype=np.uint8)
        reply = MeasuredReply(
            batch=batch.batch,
            first_herald_sequence=pairs[0].herald_sequence if pairs else 0,
            pairs=len(pairs),
            outcomes=bits([pair.outcome for pair in pairs]),
            x_bits=bits([pair.x_bit for pair in pairs]),
            z_bits=bits([pair.z_bit for pair in pairs]),
            bases=pack_bases(codes) if batch.basis == "given" else b"",
            emitted_at_ns=max((pair.emitted_at_ns for pair in pairs), default=0),
            is_last=is_last,
            calibration=pairs[-1].calibration if pairs else 0,
        )
        self.say(due_ns, reply)

    # --- receivers --------------------------------------------------------------------------------

    def _start_receiver(self, batch: Generate) -> None:
        tags = self._tags.get(batch.link)
        if tags is None:
            self._refuse(f"there are no time tags of link {batch.link}")
        self._next_slots[batch.batch] = max(batch.first_cycle, tags.first_slot)
        self._plan_chunk(batch, tags)

    def _plan_chunk(self, batch: Generate, tags: TimeTags) -> None:
        first = self._next_slots[batch.batch]
        if first < tags.until_slot:
            slot_ns = tags.slot_ps // 1000
            until_ns = (first * slot_ns // CHUNK_NS + 1) * CHUNK_NS
            self.wake(min(until_ns, tags.until_slot * slot_ns), batch)

    def _say_detections(self, batch: Generate, at_ns: int, *, is_last: bool = False) -> None:
        """What was detected of light emitted before `at_ns`, in replies that are not too long."""
        tags, first = self._tags[batch.link], self._next_slots[batch.batch]
        until = max(first, min(-(-at_ns * 1000 // tags.slot_ps), tags.until_slot))
        begin, end = np.searchsorted(tags.slots, [first, until], side="left").tolist()
        places = np.arange(begin, end)
        if batch.basis != "given":
            places = places[tags.bases[begin:end] == _code(batch)]
        due_ns = at_ns + self.back_ns(batch.link)
        while len(places) > DETECTIONS_MAX:
            between = int(tags.slots[places[DETECTIONS_MAX]])
            self._reply(batch, tags, (first, between), places[:DETECTIONS_MAX], due_ns)
            first, places = between, places[DETECTIONS_MAX:]
        self._reply(batch, tags, (first, until), places, due_ns, is_last=is_last)
        self._next_slots[batch.batch] = until
        if not is_last:
            self._plan_chunk(batch, tags)

    def _reply(
        self,
        batch: Generate,
        tags: TimeTags,
        span: tuple[int, int],
        places: np.ndarray[tuple[int], np.dtype[np.int64]],
        due_ns: int,
        *,
        is_last: bool = False,
    ) -> None:
        reply = DetectionReply(
            batch=batch.batch,
            first_slot=span[0],
            until_slot=span[1],
            detections=len(places),
            slots=pack_slots(tags.slots[places], span[0]),
            outcomes=pack_bits(tags.outcomes[places]),
            bases=pack_bases(tags.bases[places]) if batch.basis == "given" else b"",
            is_last=is_last,
        )
        self.say(due_ns, reply)

    # --- qubits -----------------------------------------------------------------------------------

    def gate(self, name: GateName, angle: float, qubits: list[bytes]) -> None:
        """Only the gates that were done then."""
        kept = self._kept[qubits[0]]
        recorded = kept.pair.gates[kept.gates :]
        asked = RecordedGate(name, angle)
        if len(qubits) > 1 or not recorded or recorded[0] != asked:
            done = ", ".join(gate.name for gate in recorded) or "none"
            self._refuse(
                f"gate {name} on {_named(kept.pair)}: a recording cannot be changed; the gates"
                f" still recorded are {done}"
            )
        kept.gates += 1

    def measure(self, qubit: bytes, basis: Basis) -> int:
        """The recorded outcome."""
        kept = self._kept[qubit]
        pair = kept.pair
        if pair.outcome is None:
            self._refuse(f"the recording has no outcome of {_named(pair)}")
        if basis != pair.basis:
            self._refuse(f"{_named(pair)} was read in {pair.basis}, not in {basis}")
        if kept.gates < len(pair.gates):
            self._refuse(f"{_named(pair)} was read after gate {pair.gates[kept.gates].name}")
        del self._kept[qubit]
        return pair.outcome

    def pulses(self, qubit: bytes, at_ns: int) -> int | None:
        """The recorded number, of how the qubit was read in the end."""
        del at_ns
        pair = self._kept[qubit].pair
        return self._swap_pulses.get((pair.link, pair.herald_sequence), pair.pulses)

    def bell_measure(self, first: bytes, second: bytes) -> tuple[int, int]:
        """The recorded outcome of these two."""
        pairs = [self._kept[qubit].pair for qubit in (first, second)]
        names = [(pair.link, pair.herald_sequence) for pair in pairs]
        assert self._swaps is not None, "kept qubits come of a recording"
        swap = self._swaps.swaps.get((names[0], names[1]))
        if swap is None:
            self._refuse(
                f"the recording has no Bell measurement of {_named(pairs[0])} and"
                f" {_named(pairs[1])}"
            )
        del self._kept[first], self._kept[second]
        return swap.x_bit, swap.z_bit

    def release(self, qubit: bytes) -> None:
        """Forget it."""
        del self._kept[qubit]

    def _refuse(self, why: str) -> NoReturn:
        raise LocalError(ErrorCode.UNSUPPORTED, why)


def _parts(measured: list[MeasuredPair]) -> list[_Part]:
    """Pairs that were heard of at one time, whose heralds follow one another."""
    parts: list[_Part] = []
    for at_ns, together in groupby(measured, key=lambda pair: pair.at_ns):
        part: list[MeasuredPair] = []
        for pair in together:
            follows = part and pair.herald_sequence == part[-1].herald_sequence + 1
            if part and (not follows or len(part) == CHUNK_PAIRS_MAX):
                parts.append(_part(at_ns, part))
                part = []
            part.append(pair)
        parts.append(_part(at_ns, part))
    return sorted(parts, key=lambda part: part.emitted_at_ns)


def _part(at_ns: int, pairs: list[MeasuredPair]) -> _Part:
    return _Part(max(pair.emitted_at_ns for pair in pairs), at_ns, pairs)


def _emitted_ns(track: _Track, place: int) -> int:
    return track.events[place].emitted_at_ns


def _skip(track: _Track, now: int) -> None:
    """Pass over what was emitted before `now`."""
    while track.place < len(track.events) and _emitted_ns(track, track.place) < now:
        track.place += 1


def _fits(event: KeptPair | _Part, batch: Generate) -> bool:
    """Whether an event is read as the batch asks."""
    if isinstance(event, KeptPair) or batch.basis == "given":
        return True
    return all(pair.basis == batch.basis for pair in event.pairs)


def _is_rival(other: Generate, batch: Generate) -> bool:
    """Whether another batch waits for the same events."""
    return other is not batch and (other.link, other.kind) == (batch.link, batch.kind)


def _code(batch: Generate) -> int:
    return next(code for code, basis in enumerate(BASES) if basis == batch.basis)


def _named(pair: KeptPair) -> str:
    return f"herald {pair.herald_sequence} of {pair.link}"
