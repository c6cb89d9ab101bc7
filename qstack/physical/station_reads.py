"""What a node reads of its own in the cycles a named station says were heralded.

The station says which cycles, and with which Bell bits; what this node has read in them its device
alone knows. Bases that are drawn are drawn by the node when it asks, as they are for any station.

Rules
1. Parts of a batch are asked for and told upward in the order in which the station says them.
2. What the station says of the end of a batch waits for the parts that are still being read.
3. A part that cannot be (its cycles are to come, it was told before, it has more than was wanted)
   ends the batch, and so does one the device knows nothing of: the far end may have taken it for
   pairs, so the link begins anew.
"""

from msgspec import Struct, structs

from qstack.errors import ErrorCode
from qstack.machine import Effect, Tell
from qstack.physical.attempts import LINK_LAYER, Attempts, Batch
from qstack.physical.device import MeasuredReply
from qstack.physical.device_order import DeviceOrder
from qstack.physical.service import HeraldsMissed
from qstack.physical.station_device import HeraldedRead, ReadHeralded
from qstack.physical.station_gens import StationGens
from qstack.physical.station_messages import Heralds, Reply
from qstack.wire.packed import bits_size, unpack_slots


class _Open(Struct, eq=False):
    """A batch that is measured: its parts that are being read, by operation, and how it ends."""

    link: str
    told: int = 0  # pairs the station has told of
    is_over: bool = False  # by the last part
    conclusion: tuple[str, int] | None = None  # outcome and attempts
    parts: dict[int, MeasuredReply] = {}


class StationReads:
    """All of one node."""

    def __init__(self, gens: StationGens, attempts: Attempts, order: DeviceOrder) -> None:
        self._gens = gens
        self._attempts = attempts
        self._order = order
        self._open: dict[int, _Open] = {}  # by batch

    def problem(self, said: Heralds, expected: int, now: int) -> str:
        """Why a part cannot be; empty if it can."""
        batch = self._attempts.find(said.batch)
        if batch is None:
            return f"no batch {said.batch}"
        if batch.link != said.link or batch.asked.kind != "measure":
            return f"batch {said.batch} is not measured on {said.link}"
        told = self._told_of(batch)
        if told.is_over or told.told + said.pairs > batch.asked.pairs:
            return "more pairs than were asked for"
        if said.sequence < expected:
            return f"sequence {said.sequence} was used before"
        size = bits_size(said.pairs)
        if (len(said.x_bits), len(said.z_bits)) != (size, size):
            return f"{said.pairs} Bell states take {size} bytes each"
        try:
            cycles = unpack_slots(said.cycles, said.first_cycle)
        except ValueError as error:
            return str(error)
        if len(cycles) != said.pairs or int(cycles[0]) != said.first_cycle:
            return f"{len(cycles)} cycles from {cycles[:1]} on for {said.pairs} pairs"
        if self._gens.emitted_at_ns(said.link, "measure", int(cycles[-1])) > now:
            return "a cycle that is still to come"
        return ""

    def read(self, said: Heralds, now: int) -> list[Effect]:
        """The next part of a batch, which can be."""
        batch = self._attempts.find(said.batch)
        assert batch is not None, "the part has no problem"
        last_cycle = int(unpack_slots(said.cycles, said.first_cycle)[-1])
        reply = MeasuredReply(
            batch=said.batch,
            first_herald_sequence=said.sequence,
            pairs=said.pairs,
            outcomes=b"",
            x_bits=said.x_bits,
            z_bits=said.z_bits,
            bases=self._attempts.draw_bases(batch, said.pairs),
            emitted_at_ns=self._gens.emitted_at_ns(said.link, "measure", last_cycle),
            is_last=said.is_last,
            calibration=said.calibration,
        )
        return self._ask(batch, reply, said.first_cycle, said.cycles, now)

    def read_one(self, batch: Batch, said: Reply, now: int) -> list[Effect]:
        """The one attempt of a batch that prepares the far end's qubit has succeeded."""
        reply = MeasuredReply(
            batch=batch.number,
            first_herald_sequence=said.sequence,
            pairs=1,
            outcomes=b"",
            x_bits=bytes([said.x_bit << 7]),
            z_bits=bytes([said.z_bit << 7]),
            bases=b"",
            emitted_at_ns=self._gens.emitted_at_ns(said.link, batch.asked.kind, said.cycle),
            is_last=True,
            calibration=said.calibration,
        )
        return self._ask(batch, reply, said.cycle, bytes(4), now)

    def _told_of(self, batch: Batch) -> _Open:
        return self._open.get(batch.number) or _Open(batch.link)

    def _ask(
        self, batch: Batch, reply: MeasuredReply, first_cycle: int, cycles: bytes, now: int
    ) -> list[Effect]:
        told = self._open.setdefault(batch.number, _Open(batch.link))
        told.told += reply.pairs
        told.is_over = reply.is_last
        read = ReadHeralded(
            at_ns=now,
            sequence=self._order.next_sequence(),
            batch=batch.number,
            pairs=reply.pairs,
            first_cycle=first_cycle,
            cycles=cycles,
            bases=reply.bases,
        )
        told.parts[read.sequence] = reply
        return self._order.submit(read, now)

    # --- what the device says --------------------------------------------------------------------

    def was_read(self, result: HeraldedRead, now: int) -> list[Effect]:
        """The outcomes of a part."""
        found = self._find(result.operation)
        if found is None:
            return []
        number, told = found
        reply = structs.replace(told.parts.pop(result.operation), outcomes=result.outcomes)
        if len(result.outcomes) != bits_size(reply.pairs):
            return self._missed(number, told, reply, now)
        effects: list[Effect] = []
        batch = self._attempts.find(number)
        if batch is not None and reply.is_last:
            effects += self._attempts.give_up(batch, now)  # its device need not read any more
        effects += self._attempts.measured(reply, now)
        if reply.is_last:
            del self._open[number]
        elif not told.parts and told.conclusion is not None:
            del self._open[number]
            effects += self._attempts.concluded(number, *told.conclusion, now)
        return effects

    def refused(self, operation: int, now: int) -> list[Effect] | None:
        """The device knows nothing of a part; None if that is not what it refused."""
        found = self._find(operation)
        if found is None:
            return None
        number, told = found
        return self._missed(number, told, told.parts.pop(operation), now)

    def _missed(self, number: int, told: _Open, reply: MeasuredReply, now: int) -> list[Effect]:
        """The far end may have pairs that we do not have, and they are in the midst of ours."""
        del self._open[number]
        low = reply.first_herald_sequence
        missed = HeraldsMissed(link=told.link, low=low, high=low + reply.pairs)
        ended = self._attempts.concluded(number, ErrorCode.LOCAL.name, 0, now)
        return [Tell(LINK_LAYER, missed), *ended]

    def _find(self, operation: int) -> tuple[int, _Open] | None:
        for number, told in self._open.items():
            if operation in told.parts:
                return number, told
        return None

    # --- ends ------------------------------------------------------------------------------------

    def concluded(self, number: int, outcome: str, attempts: int) -> bool:
        """A batch is over without (further) success; whether that has to wait, or is known."""
        told = self._open.get(number)
        if told is None:
            return False
        if not told.parts:
            del self._open[number]
            return False
        told.conclusion = told.conclusion or (outcome, attempts)
        return True

    def links_lost(self, links: list[str]) -> None:
        """The station of these links has gone, and their batches with it."""
        self._open = {n: told for n, told in self._open.items() if told.link not in links}

    def device_lost(self) -> None:
        """Nothing is being read any more."""
        self._open.clear()
