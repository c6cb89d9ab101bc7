"""A recorder around any device: it passes everything on, and writes down what was said.

What it writes the replay driver reads: heralds (`recording.py`) and time tags (`time_tags.py`).
What these files have no words for is passed on and not written: what was rotated before it was
read, remote state preparation, and device programs.
"""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from qstack.machine import Effect
from qstack.physical.device import (
    Answer,
    BellOutcome,
    DetectionReply,
    Device,
    DoBellMeasure,
    DoGate,
    DoMeasure,
    Generate,
    MeasuredReply,
    Operation,
    OperationRefused,
    Outcome,
    PulsedBellOutcome,
    PulsedOutcome,
    Reply,
)
from qstack.physical.drivers.recording import (
    Herald,
    KeptPair,
    MeasuredPair,
    RecordedGate,
    Swap,
    write_recording,
)
from qstack.physical.drivers.time_tags import TimeTags, write_time_tags
from qstack.wire.message import Message
from qstack.wire.packed import BASES, Codes, unpack_bases, unpack_bits, unpack_slots


class RecordingDevice:
    """A device, and what it has said so far."""

    def __init__(self, device: Device, node: str) -> None:
        self._device = device
        self._node = node
        self._batches: dict[int, Generate] = {}
        self._asked: dict[int, Operation] = {}
        self._kept: dict[Herald, KeptPair] = {}
        self._qubits: dict[bytes, Herald] = {}
        self._measured: list[MeasuredPair] = []
        self._swaps: list[Swap] = []
        self._detected: dict[str, list[tuple[DetectionReply, Codes]]] = {}

    # --- what was recorded ------------------------------------------------------------------------

    def recording(self, origin: str) -> bytes:
        """The file of heralds; `origin` says in words where they come from."""
        pairs: list[KeptPair | MeasuredPair] = [*self._kept.values(), *self._measured]
        pairs.sort(key=lambda pair: (pair.at_ns, pair.link, pair.herald_sequence))
        return write_recording(self._node, origin, [*pairs, *self._swaps])

    def time_tags(self, link: str, slot_ns: int) -> bytes:
        """The file of detections of a photon-pair link. Raises KeyError if there were none."""
        parts = self._detected[link]
        slots = [unpack_slots(part.slots, part.first_slot) for part, _ in parts]
        outcomes = [unpack_bits(part.outcomes, part.detections) for part, _ in parts]
        return write_time_tags(
            TimeTags(
                link,
                slot_ns * 1000,
                min(part.first_slot for part, _ in parts),
                max(part.until_slot for part, _ in parts),
                np.concatenate(slots),
                np.concatenate([codes for _, codes in parts]),
                np.concatenate(outcomes),
            )
        )

    # --- the device interface ---------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """That of the device."""
        return self._device.peer

    def begin(self, now: int) -> None:
        """The qubits are gone; what was recorded stays."""
        self._batches.clear()
        self._asked.clear()
        self._qubits.clear()
        self._device.begin(now)

    def submit(self, operation: Operation, now: int) -> list[Effect]:
        """Pass it on."""
        match operation:
            case Generate() if operation.kind != "prepare" and operation.rotation is None:
                self._batches[operation.batch] = operation
            case DoMeasure() | DoBellMeasure():
                self._asked[operation.sequence] = operation
            case DoGate():
                self._asked[operation.sequence] = operation
                self._note_gate(operation)
            case _:
                pass
        return self._device.submit(operation, now)

    def received(self, message: Message, now: int) -> Sequence[Answer]:
        """Write down what the peer means."""
        return self._note(self._device.received(message, now), now)

    def next_event_ns(self) -> int | None:
        """That of the device."""
        return self._device.next_event_ns()

    def answers(self, now: int) -> Sequence[Answer]:
        """Write down what is due."""
        return self._note(self._device.answers(now), now)

    # --- inside -----------------------------------------------------------------------------------

    def _note(self, messages: Sequence[Answer], now: int) -> Sequence[Answer]:
        for message in messages:
            match message:
                case Reply() | MeasuredReply() | DetectionReply() if (
                    message.batch not in self._batches
                ):
                    pass  # what is not written
                case Reply():
                    self._note_kept(message, now)
                case MeasuredReply():
                    self._note_measured(message, now)
                case DetectionReply():
                    asked = self._batches[message.batch]
                    codes = _codes(asked, message.detections, message.bases)
                    self._detected.setdefault(asked.link, []).append((message, codes))
                case Outcome():
                    self._note_outcome(message)
                case BellOutcome():
                    self._note_swap(message)
                case OperationRefused():
                    self._undo_gate(message)
                case _:
                    pass
        return messages

    def _note_kept(self, reply: Reply, now: int) -> None:
        asked = self._batches[reply.batch]
        herald = asked.link, reply.herald_sequence
        self._qubits[asked.qubit or b""] = herald
        self._kept[herald] = KeptPair(
            link=asked.link,
            at_ns=now,
            emitted_at_ns=reply.emitted_at_ns,
            cycle=reply.cycle,
            herald_sequence=reply.herald_sequence,
            x_bit=reply.x_bit,
            z_bit=reply.z_bit,
            calibration=reply.calibration,
        )

    def _note_measured(self, reply: MeasuredReply, now: int) -> None:
        asked = self._batches[reply.batch]
        bits = [
            unpack_bits(each, reply.pairs).tolist()
            for each in (reply.outcomes, reply.x_bits, reply.z_bits)
        ]
        codes = _codes(asked, reply.pairs, reply.bases).tolist()
        for place, (outcome, x, z, code) in enumerate(zip(*bits, codes, strict=True)):
            self._measured.append(
                MeasuredPair(
                    link=asked.link,
                    at_ns=now,
                    emitted_at_ns=reply.emitted_at_ns,
                    herald_sequence=reply.first_herald_sequence + place,
                    x_bit=x,
                    z_bit=z,
                    basis=BASES[code],
                    outcome=outcome,
                    calibration=reply.calibration,
                )
            )

    def _note_gate(self, operation: DoGate) -> None:
        """One-qubit gates are kept; after one of two qubits an outcome is not that qubit's own."""
        for qubit in operation.qubits:
            herald = self._qubits.get(qubit)
            if herald is None:
                continue
            if len(operation.qubits) > 1:
                del self._qubits[qubit]
                continue
            pair = self._kept[herald]
            done = RecordedGate(operation.name, operation.angle)
            self._kept[herald] = replace(pair, gates=(*pair.gates, done))

    def _undo_gate(self, refused: OperationRefused) -> None:
        operation = self._asked.pop(refused.operation, None)
        if isinstance(operation, DoGate) and operation.qubits[0] in self._qubits:
            herald = self._qubits[operation.qubits[0]]
            pair = self._kept[herald]
            self._kept[herald] = replace(pair, gates=pair.gates[:-1])

    def _note_outcome(self, outcome: Outcome) -> None:
        operation = self._asked.pop(outcome.operation, None)
        if isinstance(operation, DoMeasure):
            herald = self._qubits.pop(operation.qubit, None)
            if herald is not None:
                self._kept[herald] = replace(
                    self._kept[herald],
                    basis=operation.basis,
                    outcome=outcome.outcome,
                    pulses=outcome.pulses if isinstance(outcome, PulsedOutcome) else None,
                )

    def _note_swap(self, outcome: BellOutcome) -> None:
        operation = self._asked.pop(outcome.operation, None)
        if not isinstance(operation, DoBellMeasure):
            return
        first, second = (
            self._qubits.pop(qubit, None) for qubit in (operation.first, operation.second)
        )
        if first is not None and second is not None:
            pulses = outcome.pulses if isinstance(outcome, PulsedBellOutcome) else None
            self._swaps.append(Swap(first, second, outcome.x_bit, outcome.z_bit, pulses))


def _codes(asked: Generate, count: int, bases: bytes) -> Codes:
    """The bases of pairs, as codes."""
    if asked.basis == "given":
        return unpack_bases(bases, count)
    code = next(code for code, basis in enumerate(BASES) if basis == asked.basis)
    return np.full(count, code, dtype=np.uint8)
