"""One network request of an EPR flow, at either end: its pairs go to the session's call.

Rules
1. The tail corrects: gates before the qubit is handed over, flips of outcomes. Nobody else does.
2. Measured pairs that come as qubits are read here, and told in the order they were indicated in,
   whatever order the device answers in. So are the halves here of pairs that prepare a state there.
3. More pairs than granted are freed; fewer, when the network says it is done, are a failure.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from qstack.errors import ErrorCode
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.physical.service import Rotation
from qstack.transport import outcomes, service
from qstack.transport.calls import Call, Calls
from qstack.transport.context import Context, PhysicalAnswer, Reason, reason
from qstack.transport.delivered import Delivered, DeliveredPairs
from qstack.wire.message import Basis, BasisChoice, BasisProbabilities
from qstack.wire.packed import BASES, pack_bases


class _Reading(Struct, eq=False):
    """A pair being measured; `outcome` is nil until the device has answered."""

    pair: network.EndPair
    basis: Basis
    outcome: int | None = None


class GrantTerms(Struct, frozen=True, kw_only=True):
    """What a grant is of. `basis` nil: the pairs are kept.

    `is_prepare`: they are kept at the far end, and read here, after `rotation`.
    """

    request: bytes
    flow: bytes
    remote: str
    side: Literal["head", "tail"]
    number: int
    basis: BasisChoice | None
    is_echo: bool = False
    is_prepare: bool = False
    rotation: Rotation | None = None


class GrantOwner(Struct, frozen=True):
    """The part that makes grants: what it lends them, and what it wants to hear."""

    context: Context
    calls: Calls
    pairs: DeliveredPairs
    delivered: Callable[["Grant", int], None]
    failed: Callable[["Grant", Reason], None]


class Grant:
    """The pairs of one network request, for `call`."""

    def __init__(self, owner: GrantOwner, call: Call, terms: GrantTerms) -> None:
        self._owner = owner
        self._context = owner.context
        self._calls = owner.calls
        self._pairs = owner.pairs
        self.call = call
        self.request = terms.request
        self.flow = terms.flow
        self.remote = terms.remote
        self.number = terms.number
        self.delivered = 0
        self._indicated = 0
        self._is_tail = terms.side == "tail"
        self._is_echo = terms.is_echo
        self._basis = terms.basis
        self._is_prepare = terms.is_prepare
        self._rotation = terms.rotation
        self._kind = "keep" if terms.basis is None or terms.is_prepare else "measure"
        self._readings: deque[_Reading] = deque()
        owner.context.use_request(terms.request, self)

    @property
    def is_complete(self) -> bool:
        """Whether the session has all its pairs."""
        return self.delivered == self.number

    def end(self, *, cancel: bool) -> None:
        """Hear no more of the request."""
        self._readings.clear()
        self._context.end_request(self.request, cancel=cancel)

    # --- from the network ---

    def on_pair(self, message: network.EndPair) -> None:
        """Correct and deliver, or read, a pair."""
        if self._indicated == self.number or message.kind != self._kind:
            self._context.free(message.qubit)
            return
        self._indicated += 1
        if self._basis is None:
            self._deliver(message)
            self._count(1)
            return
        basis = self._context.draw_basis(self._basis)
        reading = _Reading(message, basis)
        self._readings.append(reading)
        if self._rotation is not None:
            self._context.rotate(message.qubit, self._rotation)
        self._context.measure(message.qubit, basis, partial(self._on_read, reading))

    def on_measured(self, message: network.EndMeasured) -> None:
        """Deliver measured pairs."""
        fields = (message.outcomes, message.x_bits, message.z_bits)
        if (
            self._basis is None
            or not outcomes.are_packed(message.pairs, *fields)
            or not outcomes.are_bases(self._basis, message.pairs, message.bases)
        ):
            self._context.record("transport.outcomes_refused", request=self.request.hex())
            return
        pairs = min(message.pairs, self.number - self._indicated)
        if not pairs:
            return
        self._indicated += pairs
        read = outcomes.Read(message.pairs, *fields, message.bases).first(pairs)
        if self._is_tail:
            read = replace(read, outcomes=outcomes.flipped(self._basis, read))
        self._tell_measured(read, message.goodness)

    def on_expired(self, message: network.EndPairExpired) -> None:
        """A pair being read expired: its outcome stays, as that of a noisy pair would."""
        self._context.record("transport.expired_while_read", pair=message.pair)

    def on_done(self) -> None:
        """Nothing to do, unless pairs are missing."""
        if self._indicated < self.number:
            detail = f"{self._indicated} of {self.number} pairs were indicated"
            self._owner.failed(self, reason(ErrorCode.EXPIRED, detail))

    def on_failed(self, why: Reason) -> None:
        """The network has given up."""
        self._context.end_request(self.request, cancel=False)
        self._owner.failed(self, why)

    # --- to the session ---

    def _deliver(self, message: network.EndPair) -> None:
        call, remote, pair, qubit = self.call, self.remote, message.pair, message.qubit
        x_bit, z_bit = message.x_bit, message.z_bit
        if self._is_tail:
            self._context.correct(qubit, x_bit, z_bit)
        self._calls.give(call, qubit)
        flow = self.flow if self._is_echo else None
        self._pairs.add(Delivered(call.session, remote, pair, qubit, flow))
        indication = service.PairDelivered(
            call=call.number,
            remote=remote,
            pair=pair,
            qubit=qubit,
            x_bit=x_bit,
            z_bit=z_bit,
            goodness=message.goodness,
            time_of_goodness_ns=message.time_of_goodness_ns,
        )
        self._calls.indicate(call, indication)

    def _on_read(self, reading: _Reading, answer: PhysicalAnswer | None) -> None:
        if not any(waiting is reading for waiting in self._readings):
            return
        if not isinstance(answer, physical.Measured):
            code = ErrorCode.DEVICE_LOST if answer is None else ErrorCode.EXPIRED
            self._owner.failed(self, reason(code, "a pair could not be read"))
            return
        reading.outcome = answer.outcome
        self._tell_readings()

    def _tell_readings(self) -> None:
        batch: list[_Reading] = []
        bits: list[int] = []
        while self._readings and self._readings[0].outcome is not None:
            batch.append(self._readings.popleft())
            bits.append(self._read_bit(batch[-1]))
        if batch and self._is_prepare:
            for reading in batch:
                self._tell_prepared(reading)
        elif batch:
            drawn = [BASES.index(reading.basis) for reading in batch]
            is_drawn = isinstance(self._basis, BasisProbabilities)
            read = outcomes.Read(
                pairs=len(batch),
                outcomes=outcomes.packed(bits),
                x_bits=outcomes.packed([reading.pair.x_bit for reading in batch]),
                z_bits=outcomes.packed([reading.pair.z_bit for reading in batch]),
                bases=pack_bases(np.array(drawn, dtype=np.uint8)) if is_drawn else b"",
            )
            self._tell_measured(read, sum(reading.pair.goodness for reading in batch) / len(batch))

    def _read_bit(self, reading: _Reading) -> int:
        assert reading.outcome is not None
        if not self._is_tail:
            return reading.outcome
        pair = reading.pair
        return outcomes.flipped_bit(reading.basis, reading.outcome, pair.x_bit, pair.z_bit)

    def _tell_prepared(self, reading: _Reading) -> None:
        assert reading.outcome is not None
        pair = reading.pair
        indication = service.PairPrepared(
            call=self.call.number,
            remote=self.remote,
            pair=pair.pair,
            outcome=reading.outcome,
            basis=reading.basis,
            x_bit=pair.x_bit,
            z_bit=pair.z_bit,
            goodness=pair.goodness,
            time_of_goodness_ns=pair.time_of_goodness_ns,
        )
        self._calls.indicate(self.call, indication)
        self._count(1)

    def _tell_measured(self, read: outcomes.Read, goodness: float) -> None:
        indication = service.PairsMeasured(
            call=self.call.number,
            remote=self.remote,
            pairs=read.pairs,
            outcomes=read.outcomes,
            x_bits=read.x_bits,
            z_bits=read.z_bits,
            bases=read.bases,
            goodness=goodness,
        )
        self._calls.indicate(self.call, indication)
        self._count(read.pairs)

    def _count(self, pairs: int) -> None:
        self.delivered += pairs
        if self.delivered == self.number:
            self.end(cancel=False)
        self._owner.delivered(self, pairs)
