"""What a node hears from the named stations of its links, and what follows from it.

Rules
1. What a station says becomes what a device would have said: a pair, or the end of a batch.
2. A heralded qubit is moved to storage, where there is storage, before it is told upward; what was
   measured in heralded cycles is taken from the device (`station_reads.py`).
3. Herald sequences of a link go up one by one in a life of its station. A gap is a success that was
   not heard here: the link layer begins anew with the far end, and so does what is open.
4. A link whose station has gone is lost, and its batches with it; their qubits are given up.
"""

from qstack.errors import ErrorCode
from qstack.machine import Effect, Record, Tell
from qstack.physical import device
from qstack.physical.attempts import LINK_LAYER, Attempts, Batch
from qstack.physical.calibration import Calibrations
from qstack.physical.device_order import DeviceOrder
from qstack.physical.generation import is_kept
from qstack.physical.qubits import Qubits
from qstack.physical.receivers import Receivers
from qstack.physical.service import HeraldsMissed, LinkLost
from qstack.physical.station_device import HeraldedRead, KeepHeralded, Kept
from qstack.physical.station_gens import StationGens
from qstack.physical.station_messages import Heralds, Reply, StationCalibrated
from qstack.physical.station_reads import StationReads
from qstack.wire.message import Message


class StationEnds:
    """All of them. `moves`: whether the device is told of heralded qubits, to store them."""

    def __init__(
        self,
        gens: StationGens,
        attempts: Attempts,
        receivers: Receivers,
        qubits: Qubits,
        order: DeviceOrder,
        calibrations: Calibrations,
        *,
        moves: bool,
    ) -> None:
        self._gens = gens
        self._attempts = attempts
        self._receivers = receivers
        self._qubits = qubits
        self._order = order
        self._calibrations = calibrations
        self._reads = StationReads(gens, attempts, order)
        self._moves = moves
        self._expected: dict[str, int] = {}  # the sequence of a link's next success
        self._kept: dict[int, device.Reply] = {}  # by the operation that moves its qubit

    def knows(self, peer: str) -> bool:
        """Whether `peer` is the station of a link of this node."""
        return bool(self._links_through(peer))

    def _links_through(self, station: str) -> list[str]:
        return [name for name, link in self._gens.links.items() if link.station == station]

    # --- stations come and go --------------------------------------------------------------------

    def came(self, station: str) -> list[str]:
        """A life of a station, which counts from where it says; the links that work now."""
        self._gens.up[station] = None
        links = self._links_through(station)
        for link in links:
            self._expected.pop(link, None)
        return links

    def went(self, station: str, now: int) -> list[Effect]:
        """A station has gone; nothing follows if that was known."""
        if station not in self._gens.up:
            return []
        del self._gens.up[station]
        links = self._links_through(station)
        for operation in [key for key, reply in self._kept.items() if self._is_of(reply, links)]:
            del self._kept[operation]
        self._reads.links_lost(links)
        effects = [
            *self._attempts.links_lost(links, now),
            *self._receivers.links_lost(links, now),
            *self._calibrations.links_lost(links),
        ]
        lost = [LinkLost(link=link, error=ErrorCode.STATION_LOST.name) for link in links]
        return [*effects, *(Tell(LINK_LAYER, each) for each in lost)]

    def _is_of(self, reply: device.Reply, links: list[str]) -> bool:
        batch = self._attempts.find(reply.batch)
        return batch is None or batch.link in links

    def device_lost(self) -> None:
        """Nothing is being moved or read any more."""
        self._kept.clear()
        self._reads.device_lost()

    # --- what is heard ---------------------------------------------------------------------------

    def heard(self, station: str, message: Message, now: int) -> list[Effect]:
        """A station says what came of a batch."""
        link = self._gens.links.get(getattr(message, "link", ""))
        if link is None or link.station != station:
            return [_refused(message, f"not for {station} to say")]
        match message:
            case Reply() if self._receivers.serves(link.id):
                return self._receivers.station_said(message, now)
            case Reply():
                return self._on_reply(message, now)
            case Heralds():
                return self._on_heralds(message, now)
            case StationCalibrated():
                return self._calibrations.station_said(message, now)
            case _:
                return [_refused(message, "no station says this")]

    def _on_reply(self, message: Reply, now: int) -> list[Effect]:
        batch = None if message.batch is None else self._attempts.find(message.batch)
        if batch is not None and batch.link != message.link:
            return [_refused(message, f"batch {message.batch} is of {batch.link}")]
        kind = "keep" if batch is None else batch.asked.kind
        emitted_ns = self._gens.emitted_at_ns(message.link, kind, message.cycle)
        is_success = message.outcome == "success" and kind != "measure" and emitted_ns <= now
        expected = self._expected.get(message.link, message.sequence)
        self._expected[message.link] = max(expected, message.sequence + is_success)
        effects: list[Effect] = []
        if message.sequence > expected:
            missed = HeraldsMissed(link=message.link, low=expected, high=message.sequence)
            effects.append(Tell(LINK_LAYER, missed))
            effects += self._attempts.begin_anew(message.link, message.batch, now)
        if is_success and message.batch is not None and message.sequence >= expected:
            return effects + self._on_success(message, message.batch, batch, now)
        if any(reply.batch == message.batch for reply in self._kept.values()):
            return effects  # it has succeeded: its qubit is being moved, whatever was stopped since
        # A success with a number that was used is none: it would name another pair. Nor is one of
        # a cycle that is still to come.
        outcome: str = "GENERAL" if message.outcome == "success" else message.outcome
        if outcome == "ended" and message.token is None:
            outcome = "unknown"
        if message.batch is None:
            effects.append(Record("physical.station_error", {"error": outcome}))
            return effects + self._attempts.begin_anew(message.link, None, now, message.token)
        if self._reads.concluded(message.batch, outcome, message.attempts):
            return effects
        return effects + self._attempts.concluded(message.batch, outcome, message.attempts, now)

    def _on_heralds(self, said: Heralds, now: int) -> list[Effect]:
        """Measured pairs; what cannot be is none here, and the far end must not have it either."""
        expected = self._expected.get(said.link, said.sequence)
        self._expected[said.link] = max(expected, said.sequence + said.pairs)
        problem = self._reads.problem(said, expected, now)
        if problem:
            general = ErrorCode.GENERAL.name
            effects: list[Effect] = [_refused(said, problem)]
            missed = HeraldsMissed(
                link=said.link, low=said.sequence, high=said.sequence + said.pairs
            )
            effects.append(Tell(LINK_LAYER, missed))
            if self._reads.concluded(said.batch, general, 0):
                return effects
            return effects + self._attempts.concluded(said.batch, general, 0, now)
        if said.sequence == expected:
            return self._reads.read(said, now)
        missed = HeraldsMissed(link=said.link, low=expected, high=said.sequence)
        but = said.batch if said.is_last else None
        return [
            Tell(LINK_LAYER, missed),
            *self._attempts.begin_anew(said.link, but, now),
            *self._reads.read(said, now),
        ]

    def _on_success(self, said: Reply, number: int, batch: Batch | None, now: int) -> list[Effect]:
        if batch is None:  # whoever asked has gone: the far end must not take it for a pair
            missed = HeraldsMissed(link=said.link, low=said.sequence, high=said.sequence + 1)
            return [Tell(LINK_LAYER, missed)]
        if not is_kept(batch.asked.kind, batch.asked.basis):
            return self._reads.read_one(batch, said, now)
        reply = device.Reply(
            batch=number,
            herald_sequence=said.sequence,
            cycle=said.cycle,
            x_bit=said.x_bit,
            z_bit=said.z_bit,
            emitted_at_ns=self._gens.emitted_at_ns(said.link, batch.asked.kind, said.cycle),
            calibration=said.calibration,
        )
        if not self._moves:
            return self._succeeded(reply, now)
        keep = KeepHeralded(
            at_ns=now,
            sequence=self._order.next_sequence(),
            qubit=batch.qubit.id,
            cycle=said.cycle,
        )
        self._kept[keep.sequence] = reply
        return self._order.submit(keep, now)

    def done(self, result: Kept | HeraldedRead, now: int) -> list[Effect]:
        """A heralded qubit is in storage, or what was measured is read."""
        if isinstance(result, HeraldedRead):
            return self._reads.was_read(result, now)
        reply = self._kept.pop(result.operation, None)
        return [] if reply is None else self._succeeded(reply, now)

    def refused(self, operation: int, now: int) -> list[Effect] | None:
        """The device could not move or read what was heralded; None if it was not that."""
        reply = self._kept.pop(operation, None)
        if reply is None:
            return self._reads.refused(operation, now)
        return self._attempts.concluded(reply.batch, ErrorCode.LOCAL.name, 0, now)

    def _succeeded(self, reply: device.Reply, now: int) -> list[Effect]:
        effects, unwanted = self._attempts.succeeded(reply, now)
        if unwanted is not None:
            effects += self._qubits.take_back(unwanted, now)
        return effects


def _refused(message: Message, why: str) -> Record:
    return Record("physical.refused", {"what": type(message).__name__, "why": why})
