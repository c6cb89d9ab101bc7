"""What a node hears from the named stations of its links, and what follows from it.

Rules
1. What a station says becomes what a device would have said: a pair, or the end of a batch.
2. A heralded qubit is moved to storage, where there is storage, before it is told upward.
3. Herald sequences of a link go up one by one in a life of its station. A gap is a success that was
   not heard here: the link layer begins anew with the far end, and so does what is open.
4. A link whose station has gone is lost, and its batches with it; their qubits are given up.
"""

from qstack.errors import ErrorCode
from qstack.machine import Effect, Record, Tell
from qstack.physical import device
from qstack.physical.attempts import LINK_LAYER, Attempts
from qstack.physical.device_order import DeviceOrder
from qstack.physical.qubits import Qubits
from qstack.physical.service import HeraldsMissed, LinkLost
from qstack.physical.station_device import KeepHeralded
from qstack.physical.station_gens import StationGens
from qstack.physical.station_messages import Reply
from qstack.wire.message import Message


class StationEnds:
    """All of them. `moves`: whether heralded qubits go to storage at this node."""

    def __init__(
        self,
        gens: StationGens,
        attempts: Attempts,
        qubits: Qubits,
        order: DeviceOrder,
        *,
        moves: bool,
    ) -> None:
        self._gens = gens
        self._attempts = attempts
        self._qubits = qubits
        self._order = order
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
        effects = self._attempts.links_lost(links, now)
        lost = [LinkLost(link=link, error=ErrorCode.STATION_LOST.name) for link in links]
        return [*effects, *(Tell(LINK_LAYER, each) for each in lost)]

    def _is_of(self, reply: device.Reply, links: list[str]) -> bool:
        batch = self._attempts.find(reply.batch)
        return batch is None or batch.link in links

    def device_lost(self) -> None:
        """Nothing is being moved any more."""
        self._kept.clear()

    # --- what is heard ---------------------------------------------------------------------------

    def heard(self, station: str, message: Message, now: int) -> list[Effect]:
        """A station says what came of a batch."""
        link = self._gens.links.get(message.link) if isinstance(message, Reply) else None
        if not isinstance(message, Reply) or link is None or link.station != station:
            why = f"not for {station} to say"
            return [Record("physical.refused", {"what": type(message).__name__, "why": why})]
        emitted_ns = self._gens.emitted_at_ns(message.link, message.cycle)
        is_success = message.outcome == "success" and emitted_ns <= now
        expected = self._expected.get(message.link, message.sequence)
        self._expected[message.link] = max(expected, message.sequence + is_success)
        effects: list[Effect] = []
        if message.sequence > expected:
            missed = HeraldsMissed(link=message.link, low=expected, high=message.sequence)
            effects.append(Tell(LINK_LAYER, missed))
            effects += self._attempts.begin_anew(message.link, message.batch, now)
        if is_success and message.batch is not None and message.sequence >= expected:
            return effects + self._on_success(message, message.batch, now)
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
        return effects + self._attempts.concluded(message.batch, outcome, message.attempts, now)

    def _on_success(self, said: Reply, number: int, now: int) -> list[Effect]:
        batch = self._attempts.find(number)
        if batch is None:  # whoever asked has gone: the far end must not take it for a pair
            missed = HeraldsMissed(link=said.link, low=said.sequence, high=said.sequence + 1)
            return [Tell(LINK_LAYER, missed)]
        reply = device.Reply(
            batch=number,
            herald_sequence=said.sequence,
            cycle=said.cycle,
            x_bit=said.x_bit,
            z_bit=said.z_bit,
            emitted_at_ns=self._gens.emitted_at_ns(said.link, said.cycle),
        )
        if not self._moves:
            return self._succeeded(reply, now)
        keep = KeepHeralded(at_ns=now, sequence=self._order.next_sequence(), qubit=batch.qubit.id)
        self._kept[keep.sequence] = reply
        return self._order.submit(keep, now)

    def kept(self, operation: int, now: int) -> list[Effect]:
        """A heralded qubit is in storage."""
        reply = self._kept.pop(operation, None)
        return [] if reply is None else self._succeeded(reply, now)

    def refused(self, operation: int, now: int) -> list[Effect] | None:
        """The device could not move a heralded qubit; None if that is not what it refused."""
        reply = self._kept.pop(operation, None)
        if reply is None:
            return None
        return self._attempts.concluded(reply.batch, ErrorCode.LOCAL.name, 0, now)

    def _succeeded(self, reply: device.Reply, now: int) -> list[Effect]:
        effects, unwanted = self._attempts.succeeded(reply, now)
        if unwanted is not None:
            effects += self._qubits.take_back(unwanted, now)
        return effects
