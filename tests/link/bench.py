"""Two link layers, the channel between them, and a scripted physical layer with its station.

Nothing moves by itself: `deliver` hands over messages, `herald` makes a pair of two matching
batches, `told` hands what the physical layer has to say. A ledger follows every qubit.
"""

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from qstack.ids import boot_id
from qstack.link import messages, service
from qstack.link.machine import LinkLayer
from qstack.machine import (
    CancelTimer,
    Event,
    FromPeer,
    PeerDown,
    PeerUp,
    Send,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.physical import service as physical
from qstack.physical.generation import is_kept
from qstack.quantum.bell import expected_agreement_sign
from qstack.wire.codec import Registry, encode
from qstack.wire.message import Basis, Message
from qstack.wire.packed import pack_bases, pack_bits, pack_slots

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE, BOB = "alice", "bob"
LINK = "alice-bob"
DELAY_NS = 50_000
SECOND = 1_000_000_000
PURPOSE = b"p" * 16
WIRE = Registry(messages.MESSAGES)
READ_BY_NS = 5_000_000


def forecast(fidelity: float) -> physical.RoundForecast:
    """What test rounds show of such pairs if nothing decays and no readout errs."""
    share = (1.0 + 2.0 * fidelity) / 3.0
    return physical.RoundForecast(share, share, 1.0, READ_BY_NS)


FAST = physical.GenerationOption(
    bright_state=0.3, probability=0.01, cycle_ns=1000, measure_cycle_ns=500,
    bell_probabilities=[0.7, 0.1, 0.1, 0.1], test_round=forecast(0.7),
    measured_round=physical.MeasuredForecast([0.8, 0.8, 0.8], 1.0),
)  # fmt: skip
GOOD = physical.GenerationOption(
    bright_state=0.1, probability=0.001, cycle_ns=1000, measure_cycle_ns=500,
    bell_probabilities=[0.9, 0.05, 0.03, 0.02], test_round=forecast(0.9),
    measured_round=physical.MeasuredForecast([0.93, 0.92, 0.95], 1.0),
)  # fmt: skip


def identity(number: int) -> bytes:
    """A request id."""
    return number.to_bytes(16, "big")


def create(which: int, /, peer: str = BOB, **changes: Any) -> service.LinkCreate:
    """A request for two pairs to keep."""
    fields: dict[str, Any] = {
        "request": identity(which),
        "peer": peer,
        "purpose": PURPOSE,
        "kind": "keep",
        "number": 2,
        "min_fidelity": 0.5,
        "deadline_ns": 10 * SECOND,
        "priority": 1,
        "basis": None,
        "peer_basis": None,
        "atomic": False,
        "consecutive": True,
    }
    return service.LinkCreate(**{**fields, **changes})


class End:
    """One node: its machine, what it said, what its physical layer has to do."""

    def __init__(
        self,
        name: str,
        lives: int,
        slots: int,
        pairing: Any = "heralds",
        weights: tuple[int, ...] | None = None,
        test_share: float = 0.0,
    ) -> None:
        self.name = name
        self.boot_id = boot_id(7, name, lives)
        other = BOB if name == ALICE else ALICE
        self.machine = LinkLayer(name, self.boot_id, [other], weights, {other: test_share})
        self.slots = slots
        self.pairing = pairing
        self.above: list[Message] = []
        self.records: list[str] = []
        self.timers: dict[str, int] = {}
        self.batches: dict[int, physical.AttemptsStart] = {}  # running, oldest first
        self.remaining: dict[int, int] = {}
        self.stopped: dict[int, str] = {}  # AttemptsStop came, not answered yet
        self.inbox: deque[Message] = deque()  # what the device has said
        self.qubits: dict[bytes, str] = {}  # ledger: "link", then "freed" or "network"
        self.has_device = False
        self.is_full = False

    def capability(self) -> physical.LinkCapability:
        other = BOB if self.name == ALICE else ALICE
        return physical.LinkCapability(
            link=LINK, peer=other,
            kinds=["measure"] if self.pairing == "slots" else ["keep", "measure", "prepare"],
            pairing=self.pairing, options=[FAST, GOOD], slots=self.slots, delay_ns=DELAY_NS,
        )  # fmt: skip


class Bench:
    """Both ends. `pipes` hold what is on its way."""

    def __init__(
        self,
        slots: tuple[int, int] = (2, 2),
        pairing: Any = "heralds",
        weights: tuple[int, ...] | None = None,
        test_share: float = 0.0,
    ) -> None:
        self.now = 0
        self.slots = {ALICE: slots[0], BOB: slots[1]}
        self.lives = {ALICE: 0, BOB: 0}
        self.pairing = pairing
        self.weights = weights
        self.test_share = test_share
        self.agrees: Callable[[int], bool] = lambda _: True
        """Whether a pair that both ends read shows its Bell state, by herald sequence."""
        self.heralds: dict[bytes, physical.Heralded] = {}  # by qubit
        self.ends = {name: self._end(name) for name in (ALICE, BOB)}
        self.pipes: dict[str, deque[messages.LinkMessage]]
        self.pipes = {ALICE: deque(), BOB: deque()}  # by receiver
        self.sent: list[tuple[str, Message]] = []
        self._noted: dict[tuple[str, bytes, int, int], None] = {}
        self.herald_sequence = 0
        self.is_connected = False
        self._qubits = 0
        self.good_for_ns: int | None = None  # how long pairs that wait stay good enough

    def _end(self, name: str) -> End:
        life, slots = self.lives[name], self.slots[name]
        return End(name, life, slots, self.pairing, self.weights, self.test_share)

    # --- building a situation --------------------------------------------------------------------

    def begin(self) -> "Bench":
        """Devices ready, channel up, both listening."""
        for name in (ALICE, BOB):
            self.device_ready(name)
        self.connect()
        self.deliver()
        for name, other in ((ALICE, BOB), (BOB, ALICE)):
            self.say(name, service.LinkListen(peer=other, purpose=PURPOSE))
        return self

    def serving(self, asked: service.LinkCreate, by: str = ALICE) -> bytes:
        """A request that both ends serve, attempts begun."""
        self.say(by, asked)
        self.deliver()
        self.advance(2 * DELAY_NS + 40_000)
        return asked.request

    def connect(self) -> None:
        self.is_connected = True
        for name, other in ((ALICE, BOB), (BOB, ALICE)):
            self.event(name, PeerUp(other, self.ends[other].boot_id))

    def drop(self) -> None:
        """The channel breaks, with all that is in it."""
        self.is_connected = False
        for name, other in ((ALICE, BOB), (BOB, ALICE)):
            self.pipes[name].clear()
            self.event(name, PeerDown(other))
        for name in (ALICE, BOB):
            self.pipes[name].clear()

    def restart(self, name: str) -> None:
        """A node dies and is back with a new boot id and no memory; its batches are gone."""
        other = BOB if name == ALICE else ALICE
        self.lives[name] += 1
        self.herald_sequence = 0
        self.pipes[name].clear()
        self.pipes[other].clear()
        self.ends[name] = self._end(name)
        self.device_ready(name)
        self.event(name, PeerUp(other, self.ends[other].boot_id))
        self.event(other, PeerUp(name, self.ends[name].boot_id))
        self.is_connected = True
        self.say(name, service.LinkListen(peer=other, purpose=PURPOSE))

    def device_ready(self, name: str) -> None:
        self.ends[name].has_device = True
        self.event(name, Told("physical", physical.DeviceReady()))
        self.event(name, Told("physical", self.ends[name].capability()))

    def device_lost(self, name: str) -> None:
        """As the physical layer says it: every batch first, then the device."""
        end = self.ends[name]
        end.has_device = False
        said: list[Any] = list(end.inbox)
        calls = [each for each in said if isinstance(each, physical.Measured)]
        said = [each for each in said if each not in calls]
        numbers = dict.fromkeys([*end.batches, *end.stopped, *(each.batch for each in said)])
        end.inbox.clear()
        end.stopped.clear()
        end.batches.clear()
        for number in numbers:
            self.event(name, Told("physical", _ended(number, "device")))
        for call in calls:
            failed = physical.CallFailed(call=call.call, error="DEVICE_LOST", detail="")
            self.event(name, Told("physical", failed))
        for qubit, owner in end.qubits.items():
            if owner == "link":
                end.qubits[qubit] = "freed"
        self.event(name, Told("physical", physical.DeviceLost()))

    # --- moving ----------------------------------------------------------------------------------

    def say(self, name: str, message: Message) -> None:
        """The network layer says something."""
        self.event(name, Told("network", message))

    def inject(self, name: str, message: messages.LinkMessage) -> None:
        """The far end says something, true or not; what it has said before comes first."""
        other = BOB if name == ALICE else ALICE
        self.deliver(name)
        out = self.ends[other].machine._out
        out.send(name, message)
        for effect in out.take():
            if isinstance(effect, Send):
                self.event(name, FromPeer(other, effect.message))

    def arrive_instead(self, name: str, message: messages.LinkMessage) -> None:
        """The last message on its way to `name` was another one."""
        at = self.pipes[name].pop().at
        self.deliver(name)
        self.arrive(name, replace(message, at=at))

    def arrive(self, name: str, message: Message) -> None:
        """A message comes out of the channel."""
        self.event(name, FromPeer(BOB if name == ALICE else ALICE, message))

    def event(self, name: str, event: Event) -> None:
        end = self.ends[name]
        for effect in end.machine.handle(event, self.now):
            match effect:
                case Send(peer, message):
                    assert isinstance(message, messages.LinkMessage)
                    assert WIRE.decode(encode(message)) == message
                    self._note(name, message)
                    if self.is_connected and peer in self.pipes:
                        self.post(peer, message)
                case Tell("network", message):
                    end.above.append(message)
                case Tell("physical", message):
                    self._below(end, message)
                case SetTimer(key, at_ns, _):
                    end.timers[key] = at_ns
                case CancelTimer(key):
                    end.timers.pop(key, None)
                case _:
                    end.records.append(effect.name)

    def _note(self, name: str, message: messages.LinkMessage) -> None:
        """What an end says; not how the conversation brings it there."""
        if isinstance(message, messages.Open | messages.Ack):
            return
        at = name, self.ends[name].boot_id, message.at.own, message.at.sequence
        if at not in self._noted:
            self._noted[at] = None
            self.sent.append((name, replace(message, at=messages.Place(0, 0, 0, 0))))

    def post(self, to: str, message: messages.LinkMessage) -> None:
        """Put a message into the channel."""
        self.pipes[to].append(message)

    def deliver(self, to: str | None = None, count: int = 10**6) -> None:
        """Hand over messages, until none is on its way."""
        names = [to] if to else [ALICE, BOB]
        while count and any(self.pipes[name] for name in names):
            for name in names:
                if self.pipes[name] and count:
                    count -= 1
                    self.arrive(name, self.pipes[name].popleft())

    def advance(self, span_ns: int) -> None:
        """Let time pass; timers fire when they are due."""
        until = self.now + span_ns
        while True:
            due = [(at, name, key) for name, end in self.ends.items()
                   for key, at in end.timers.items() if at <= until]  # fmt: skip
            if not due:
                break
            at, name, key = min(due)
            self.now = max(self.now, at)
            del self.ends[name].timers[key]
            self.event(name, TimerFired(key))
        self.now = until

    def told_next(self, name: str) -> Told:
        """The first that the device of `name` has said."""
        return Told("physical", self.ends[name].inbox.popleft())

    def told(self, name: str) -> None:
        """Hand over all that the device of `name` has said."""
        inbox = self.ends[name].inbox
        while inbox:
            self.event(name, Told("physical", inbox.popleft()))

    # --- the station -----------------------------------------------------------------------------

    def matches(self) -> list[tuple[int, int]]:
        """Batches of both ends that attempt together, oldest first."""
        taken: set[int] = set()
        found = []
        for here, asked in self.ends[ALICE].batches.items():
            for there, other in self.ends[BOB].batches.items():
                alike = (asked.token, asked.kind, asked.bright_state)
                if there not in taken and alike == (other.token, other.kind, other.bright_state):
                    taken.add(there)
                    found.append((here, there))
                    break
        return found

    def herald(self, match: tuple[int, int] | None = None, pairs: int = 1) -> None:
        """A success; both devices have it to say. For `measure`: the next pairs."""
        numbers = match or self.matches()[0]
        ends = self.ends[ALICE], self.ends[BOB]
        least = min(end.remaining[n] for end, n in zip(ends, numbers, strict=True))
        pairs = min(pairs, least)
        for end, number in zip(ends, numbers, strict=True):
            end.remaining[number] -= pairs
            asked = end.batches[number]
            is_keep = is_kept(asked.kind, asked.basis)
            if is_keep or pairs == least:
                del end.batches[number]
            if is_keep:
                end.inbox.append(self._heralded(end, number, asked))
            else:
                said = measured(number, self.herald_sequence, pairs, is_last=pairs == least)
                until_ns = self.good_until_ns(asked)
                end.inbox.append(replace(said, emitted_at_ns=self.now, good_until_ns=until_ns))
        self.herald_sequence += pairs

    def answer_stops(self, name: str) -> None:
        """The device ends what was stopped; a success before the stop was its answer."""
        end = self.ends[name]
        for number, kind in list(end.stopped.items()):
            del end.stopped[number]
            end.inbox.append(
                _ended(number, "stopped")
                if kind != "measure"
                else measured(number, self.herald_sequence, 0, is_last=True)
            )

    def end_batch(self, name: str, number: int, reason: Any) -> None:
        """The physical layer ends a batch by itself."""
        del self.ends[name].batches[number]
        self.ends[name].inbox.append(_ended(number, reason))

    def good_until_ns(self, asked: physical.AttemptsStart) -> int | None:
        """What the device says of a pair emitted now."""
        if asked.fidelity_floor is None or self.good_for_ns is None:
            return None
        return self.now + self.good_for_ns

    def _heralded(self, end: End, number: int, asked: physical.AttemptsStart) -> physical.Heralded:
        self._qubits += 1
        qubit = end.boot_id + self._qubits.to_bytes(8, "big")
        end.qubits[qubit] = "link"
        self.heralds[qubit] = physical.Heralded(
            batch=number, qubit=qubit, herald_sequence=self.herald_sequence, cycle=5, x_bit=1,
            z_bit=self.herald_sequence % 2, emitted_at_ns=self.now, goodness=0.8,
            good_until_ns=self.good_until_ns(asked),
        )  # fmt: skip
        return self.heralds[qubit]

    def _below(self, end: End, message: Message) -> None:
        match message:
            case physical.AttemptsStart():
                if not end.has_device:
                    end.inbox.append(_ended(message.batch, "device"))
                elif end.is_full:
                    end.inbox.append(_ended(message.batch, "no-memory"))
                else:
                    end.batches[message.batch] = message
                    end.remaining[message.batch] = message.pairs
            case physical.AttemptsStop():
                if message.batch in end.batches:
                    end.stopped[message.batch] = end.batches.pop(message.batch).kind
            case physical.Measure():
                assert end.qubits[message.qubit] == "link", "read twice, or not ours"
                end.qubits[message.qubit] = "freed"
                outcome = self.outcome(end.name, self.heralds[message.qubit], message.basis)
                end.inbox.append(physical.Measured(call=message.call, outcome=outcome))
            case physical.Free():
                is_ours = end.qubits[message.qubit] == "link" or not end.has_device
                assert is_ours, "freed twice, or not ours"
                end.qubits[message.qubit] = "freed"
            case physical.Transfer():
                assert end.qubits[message.qubit] == "link", "transferred twice, or not ours"
                assert message.to == "network"
                end.qubits[message.qubit] = "network"
            case _:
                raise AssertionError(f"the link layer says {message}")

    def outcome(self, name: str, herald: physical.Heralded, basis: Basis) -> int:
        """What an end reads of its half of a pair."""
        sequence = herald.herald_sequence
        bit = sequence % 7 % 2
        are_alike = expected_agreement_sign(basis, herald.x_bit, herald.z_bit) > 0
        if name == BOB and are_alike != self.agrees(sequence):
            bit = 1 - bit
        return bit

    # --- receivers of a photon-pair link ---------------------------------------------------------

    def detect(
        self,
        name: str,
        span: tuple[int, int],
        slots: list[int],
        bases: list[int] | None = None,
        *,
        is_last: bool = False,
    ) -> None:
        """What the receiver of `name` detects in [first, until); an outcome is the slot's parity.

        It is of the batch that was begun last; `is_last` ends one that was stopped.
        """
        end = self.ends[name]
        (number,) = end.stopped if is_last else list(end.batches)[-1:]
        if is_last:
            del end.stopped[number]
        self.event(name, Told("physical", detections(number, span, slots, bases, is_last=is_last)))

    # --- looking ---------------------------------------------------------------------------------

    def timers(self, name: str) -> list[str]:
        """What an end waits for, without the conversation's own."""
        return [key for key in self.ends[name].timers if not key.startswith("conversation/")]

    def all(self, name: str, kind: type[Any]) -> list[Any]:
        """What was told upward, of one kind."""
        return [message for message in self.ends[name].above if isinstance(message, kind)]

    def errors(self, name: str) -> list[str]:
        """How requests failed at an end, in order."""
        return [failed.error for failed in self.all(name, service.LinkFailed)]

    def said(self, name: str, kind: type[Any]) -> list[Any]:
        """What an end said to the other, of one kind."""
        return [message for who, message in self.sent if who == name and isinstance(message, kind)]

    def tokens(self, name: str) -> list[int]:
        """For whom an end attempts, oldest first."""
        return [int.from_bytes(b.token, "big") for b in self.ends[name].batches.values()]


def measured(number: int, first: int, pairs: int, *, is_last: bool) -> physical.MeasuredPairs:
    """Measured pairs of one batch."""
    size = -(-pairs // 8)
    return physical.MeasuredPairs(
        batch=number, first_herald_sequence=first, pairs=pairs, outcomes=bytes(size),
        x_bits=bytes(size), z_bits=bytes(size), bases=b"", emitted_at_ns=0, is_last=is_last,
    )  # fmt: skip


def detections(
    number: int,
    span: tuple[int, int],
    slots: list[int],
    bases: list[int] | None = None,
    *,
    is_last: bool = False,
) -> physical.Detections:
    """What a receiver says of one batch."""
    codes = b"" if bases is None else pack_bases(np.array(bases, dtype=np.uint8))
    return physical.Detections(
        batch=number, first_slot=span[0], until_slot=span[1], detections=len(slots),
        slots=pack_slots(np.array(slots, dtype=np.int64), span[0]),
        outcomes=pack_bits(np.array(slots, dtype=np.int64).astype(np.uint8) & np.uint8(1)),
        bases=codes, is_last=is_last,
    )  # fmt: skip


def _ended(number: int, reason: Any) -> physical.AttemptsEnded:
    return physical.AttemptsEnded(batch=number, reason=reason, attempts=3)
