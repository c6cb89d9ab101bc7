"""Time-tag files: what a time tagger beside the receiver of a photon-pair link has recorded.

    # qstack time tags 1
    # link = alice-bob
    # slot_ps = 10000           how long a slot is
    # sync_slots = 100000       a pulse of the sync channel comes every so many slots
    # first_slot = 5000000      the slot that begins with the first pulse
    # until_slot = 9000000      the recording ends before this slot
    # channel 0 = sync
    # channel 1 = Z 0           a detector: its basis, and the outcome it stands for
    # channel 2 = Z 1
    channel,time_ps
    0,1200
    1,8731200

Times are whole picoseconds of the tagger's own clock, ascending. The sync pulses, common to both
ends, say which slot it is, so that neither the offset nor a slow drift of that clock matters; a
pulse may be missing. Slots are numbered from network time 0, by their emission, alike at both ends.
"""

import io
import re
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qstack.physical.document import listed
from qstack.physical.drivers.setup import DriverError
from qstack.wire.packed import BASES, Bits, Codes, Slots

TITLE: Final = "# qstack time tags 1"
COLUMNS: Final = "channel,time_ps"
NUMBERS: Final = ("slot_ps", "sync_slots", "first_slot", "until_slot")
_LINE: Final = re.compile(r"# (link|slot_ps|sync_slots|first_slot|until_slot) = (\S+)")
_CHANNEL: Final = re.compile(r"# channel ([0-9]{1,4}) = (?:(sync)|([XYZ]) ([01]))")

Detector = tuple[int, int]
"""The code of its basis, and the outcome it stands for."""


class TimeTags(NamedTuple):
    """The detections of one end of a link: ascending slots, each once."""

    link: str
    slot_ps: int
    first_slot: int
    until_slot: int
    slots: Slots
    bases: Codes
    outcomes: Bits


class _Head(NamedTuple):
    link: str
    numbers: dict[str, int]
    sync: int
    detectors: dict[int, Detector]
    rows: int  # the lines of the head, the columns' names among them


def read_time_tags(data: bytes, where: str, rng: np.random.Generator) -> TimeTags:
    """The detections in a file. Where several detectors clicked in a slot one is drawn by `rng`.

    Raises `DriverError` with what is wrong.
    """
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise DriverError(where, [f"byte {error.start} is not ASCII"]) from error
    head = _read_head(text, where)
    body = text.split("\n", head.rows)[head.rows]
    if not body.strip():
        raise DriverError(where, [f"line {head.rows + 1}: expected tags after the head"])
    try:
        table = np.loadtxt(io.StringIO(body), delimiter=",", dtype=np.int64, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise DriverError(where, [f"after line {head.rows}: {error}"]) from error
    if table.shape[1] != 2:
        raise DriverError(where, [f"expected two columns, {COLUMNS}, not {table.shape[1]}"])
    channels, times_ps = table[:, 0], table[:, 1]
    problem = _wrong_rows(head, channels, times_ps)
    if problem:
        raise DriverError(where, [problem])
    return _detections(head, channels, times_ps, rng)


def write_time_tags(tags: TimeTags, sync_slots: int = 100_000) -> bytes:
    """The file of detections, with a pulse every `sync_slots`, each tag amid its slot."""
    detectors = [(basis, outcome) for basis in range(3) for outcome in (0, 1)]
    head = [
        TITLE,
        f"# link = {tags.link}",
        f"# slot_ps = {tags.slot_ps}",
        f"# sync_slots = {sync_slots}",
        f"# first_slot = {tags.first_slot}",
        f"# until_slot = {tags.until_slot}",
        "# channel 0 = sync",
        *(
            f"# channel {channel} = {BASES[basis]} {outcome}"
            for channel, (basis, outcome) in enumerate(detectors, 1)
        ),
        COLUMNS,
    ]
    pulses = np.arange(tags.first_slot, tags.until_slot, sync_slots, dtype=np.int64)
    half_ps = tags.slot_ps // 2
    times = np.concatenate(
        (
            (pulses - tags.first_slot) * tags.slot_ps,
            (tags.slots - tags.first_slot) * tags.slot_ps + half_ps,
        )
    )
    clicked = 1 + 2 * tags.bases.astype(np.int64) + tags.outcomes
    channels = np.concatenate((np.zeros(len(pulses), dtype=np.int64), clicked))
    order = np.argsort(times, kind="stable")
    rows = (f"{channels[at]},{times[at]}" for at in order.tolist())
    return "\n".join((*head, *rows, "")).encode()


def _read_head(text: str, where: str) -> _Head:
    fields: dict[str, str] = {}
    sync: int | None = None
    detectors: dict[int, Detector] = {}
    problems: list[str] = []
    rows = 0
    line = ""
    for row in io.StringIO(text):
        line = row.rstrip("\r\n")
        rows += 1
        if line == COLUMNS:
            break
        if rows == 1:
            if line != TITLE:
                problems.append(f'line 1: expected "{TITLE}"')
        elif (found := _LINE.fullmatch(line)) is not None:
            fields[found[1]] = found[2]
        elif (found := _CHANNEL.fullmatch(line)) is not None:
            if found[2]:
                sync = int(found[1])
            else:
                detectors[int(found[1])] = "XYZ".index(found[3]), int(found[4])
        else:
            problems.append(f"line {rows}: not a line of the head; expected it to end in {COLUMNS}")
            break
    if line != COLUMNS and not problems:
        problems.append(f'expected the head to end in "{COLUMNS}"')
    missing = [key for key in ("link", *NUMBERS) if key not in fields]
    problems += [f"{key}: is missing" for key in missing]
    numbers: dict[str, int] = {
        key: int(fields[key]) if re.fullmatch("[0-9]{1,18}", fields[key]) else -1
        for key in NUMBERS
        if key in fields
    }
    problems += [f"{key}: expected a whole number" for key, value in numbers.items() if value < 0]
    if sync is None or not detectors:
        problems.append("channels: expected one sync channel, and at least one detector")
    if not problems and (not numbers["slot_ps"] or not numbers["sync_slots"]):
        problems.append("slot_ps, sync_slots: expected more than 0")
    if problems or sync is None:
        raise DriverError(where, problems)
    return _Head(fields["link"], numbers, sync, detectors, rows)


def _wrong_rows(head: _Head, channels: NDArray[np.int64], times_ps: NDArray[np.int64]) -> str:
    known = [head.sync, *head.detectors]
    strange = ~np.isin(channels, known)
    if strange.any():
        row = int(np.argmax(strange))
        return (
            f"line {head.rows + 1 + row}: channel {channels[row]} is not in the head;"
            f" expected one of {listed(known)}"
        )
    falls = np.diff(times_ps) < 0
    if falls.any():
        return f"line {head.rows + 2 + int(np.argmax(falls))}: times ascend"
    if channels[0] != head.sync:
        return f"line {head.rows + 1}: expected a pulse of the sync channel {head.sync} first"
    return ""


def _detections(
    head: _Head,
    channels: NDArray[np.int64],
    times_ps: NDArray[np.int64],
    rng: np.random.Generator,
) -> TimeTags:
    """Each tag's slot, from the sync pulse before it."""
    slot_ps, sync_slots = head.numbers["slot_ps"], head.numbers["sync_slots"]
    is_pulse = channels == head.sync
    pulses_ps = times_ps[is_pulse]
    # Rounded, a gap says how many pulses it is wide, whatever the clock drifts meanwhile.
    numbers = np.concatenate(([0], np.cumsum(np.rint(np.diff(pulses_ps) / (slot_ps * sync_slots)))))
    pulse_slots = head.numbers["first_slot"] + numbers.astype(np.int64) * sync_slots
    tags_ps = times_ps[~is_pulse]
    place = np.searchsorted(pulses_ps, tags_ps, side="right") - 1
    slots = pulse_slots[place] + (tags_ps - pulses_ps[place]) // slot_ps
    detectors = channels[~is_pulse]
    # In a random order, then stably by slot: the first of each slot is one of them at random.
    order = rng.permutation(len(slots))
    order = order[np.argsort(slots[order], kind="stable")]
    unique, first = np.unique(slots[order], return_index=True)
    chosen = detectors[order][first]
    inside = unique < head.numbers["until_slot"]
    table = np.zeros((int(channels.max()) + 1, 2), dtype=np.uint8)
    for channel, detector in head.detectors.items():
        if channel < len(table):
            table[channel] = detector
    return TimeTags(
        head.link,
        slot_ps,
        head.numbers["first_slot"],
        head.numbers["until_slot"],
        unique[inside],
        table[chosen[inside], 0],
        table[chosen[inside], 1],
    )
