"""Recorded heralds: a file of JSON lines, one for each thing that one node's hardware said.

    {"record":"recording","version":1,"node":"alice","origin":"hardware"}
    {"record":"keep","link":"alice-bob","at_ns":81000,"emitted_at_ns":71000,"cycle":7,
     "herald_sequence":0,"x_bit":1,"z_bit":0,"gates":[],"basis":"X","outcome":1}
    {"record":"measure","link":"alice-bob","at_ns":95000,"emitted_at_ns":85000,
     "herald_sequence":1,"x_bit":1,"z_bit":1,"basis":"Z","outcome":0}
    {"record":"swap","first":["alice-bob",2],"second":["alice-carol",0],"x_bit":0,"z_bit":1}

Each record is one line. Times are whole nanoseconds of network time: `emitted_at_ns` when the
qubits were emitted, `at_ns` when the node knew. `keep` is a pair whose qubit was kept; `basis` and
`outcome` say how it was read in the end, after the one-qubit `gates`, and are null if it was not.
`measure` is a pair that was read at once. `swap` is a Bell measurement of two kept qubits, named by
link and herald sequence. `calibration` (0 if left out) is how often the device had been calibrated.
`pulses` of what was read and of a swap are decoupling pulses to account for, if any were counted.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from qstack.physical.document import PROBLEMS_MAX
from qstack.physical.drivers.setup import DriverError
from qstack.physical.service import Angle, GateName
from qstack.wire.message import Basis, Bit, Count, Label, Nanoseconds

FILE: Final = "heralds_file"
"""The option that names such a file."""

Herald = tuple[Label, Count]
"""A herald of a node: link and herald sequence."""


class Header(Struct, frozen=True, tag="recording", tag_field="record", forbid_unknown_fields=True):
    """The first line: whose recording it is, and where it comes from."""

    version: Literal[1]
    node: Label
    origin: Annotated[str, Meta(min_length=1, max_length=200)]


class RecordedGate(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A one-qubit gate: `["rx", 0.5]`."""

    name: GateName
    angle: Angle


class KeptPair(Struct, frozen=True, tag="keep", tag_field="record", forbid_unknown_fields=True):
    """A herald whose qubit was kept, and what was read of it in the end."""

    link: Label
    at_ns: Nanoseconds
    emitted_at_ns: Nanoseconds
    cycle: Count
    herald_sequence: Count
    x_bit: Bit
    z_bit: Bit
    gates: tuple[RecordedGate, ...] = ()
    basis: Basis | None = None
    outcome: Bit | None = None
    calibration: Count = 0
    pulses: Count | None = None


class MeasuredPair(
    Struct, frozen=True, tag="measure", tag_field="record", forbid_unknown_fields=True
):
    """A herald whose qubit was read at once."""

    link: Label
    at_ns: Nanoseconds
    emitted_at_ns: Nanoseconds
    herald_sequence: Count
    x_bit: Bit
    z_bit: Bit
    basis: Basis
    outcome: Bit
    calibration: Count = 0


class Swap(Struct, frozen=True, tag="swap", tag_field="record", forbid_unknown_fields=True):
    """A Bell measurement of two kept qubits."""

    first: Herald
    second: Herald
    x_bit: Bit
    z_bit: Bit
    pulses: tuple[Count, Count] | None = None


Line = Header | KeptPair | MeasuredPair | Swap


class Recording(Struct, frozen=True):
    """A recording that was read: pairs by link, in the order of their emission."""

    header: Header
    kept: dict[str, list[KeptPair]]
    measured: dict[str, list[MeasuredPair]]
    swaps: dict[tuple[Herald, Herald], Swap]


_decoder: Final = msgspec.json.Decoder(Line)


def read_recording(data: bytes, where: str) -> Recording:
    """The recording in a file. Raises `DriverError` with a line for each bad one of the file."""
    problems: list[str] = []
    lines: list[tuple[int, Line]] = []
    for number, text in enumerate(data.splitlines(), 1):
        if len(problems) >= PROBLEMS_MAX:
            break
        if not text.strip():
            continue
        try:
            line = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"line {number}: {error}")
            continue
        problem = _problem(line, is_first=not lines)
        if problem:
            problems.append(f"line {number}: {problem}")
        lines.append((number, line))
    if not lines and not problems:
        problems.append("is empty; expected a first line with the record 'recording'")
    if problems:
        raise DriverError(where, problems)
    header = lines[0][1]
    assert isinstance(header, Header), "another first line is a problem"
    return _sorted(header, [line for _, line in lines[1:]])


def write_recording(
    node: str, origin: str, lines: Iterable[KeptPair | MeasuredPair | Swap]
) -> bytes:
    """The file of a recording."""
    header = Header(version=1, node=node, origin=origin)
    encoded = (msgspec.json.encode(line) for line in (header, *lines))
    return b"".join(line + b"\n" for line in encoded)


def _problem(line: Line, *, is_first: bool) -> str:
    if isinstance(line, Header) != is_first:
        return "expected the record 'recording' in the first line, and only there"
    match line:
        case KeptPair() if (line.basis is None) != (line.outcome is None):
            return "a basis and an outcome go together"
        case KeptPair() | MeasuredPair() if line.at_ns < line.emitted_at_ns:
            return f"at_ns {line.at_ns} is before emitted_at_ns {line.emitted_at_ns}"
        case _:
            return ""


def _sorted(header: Header, lines: list[Line]) -> Recording:
    kept: dict[str, list[KeptPair]] = {}
    measured: dict[str, list[MeasuredPair]] = {}
    swaps: dict[tuple[Herald, Herald], Swap] = {}
    for line in lines:
        match line:
            case KeptPair():
                kept.setdefault(line.link, []).append(line)
            case MeasuredPair():
                measured.setdefault(line.link, []).append(line)
            case Swap():
                swaps[line.first, line.second] = line
            case _:
                pass
    for pairs in kept.values():
        pairs.sort(key=lambda pair: (pair.emitted_at_ns, pair.herald_sequence))
    for read in measured.values():
        read.sort(key=lambda pair: (pair.at_ns, pair.herald_sequence))
    return Recording(header, kept, measured, swaps)
