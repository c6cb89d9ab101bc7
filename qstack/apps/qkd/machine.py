"""One end of a run, without I/O: what alice and bob have in common, up to the error rate in X.

A run is driven by events and answers with effects (`events.py`):

    Begin -> Send       Received -> Need       Measured -> Send
    Received -> Send, Progress ...  and once Key; or, at any moment, Abort

Rules
1. `handle` raises nothing. What goes wrong ends the run: `Abort`, no key, then or ever.
2. No basis is sent before both ends have measured all pairs; no key bit, parity or hash before the
   bases and test outcomes are known; no seed before the tags; no key before the confirmations.
3. Pads are taken as soon as the peer's terms are accepted, and burnt however the run ends.
4. What is secret is wiped at the end as far as Python lets us: arrays are, immutable bytes are not.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

import msgspec
import numpy as np

from qstack.apps.qkd import messages
from qstack.apps.qkd.authentication import collision_bound, is_equal, one_time_tag
from qstack.apps.qkd.bits import Bits, ones, pack, unpack
from qstack.apps.qkd.cascade import Plan
from qstack.apps.qkd.conversation import Conversation, session_of
from qstack.apps.qkd.events import (
    REPRODUCIBLE,
    Abort,
    Begin,
    Closed,
    Deadline,
    Effect,
    Event,
    Failure,
    Figures,
    Key,
    KeyMetadata,
    Measured,
    Need,
    Progress,
    Received,
    Send,
)
from qstack.apps.qkd.finite_key import GridRow, binary_entropy
from qstack.apps.qkd.parameters import Parameters
from qstack.apps.qkd.reasons import AbortError, Reason
from qstack.apps.qkd.secret import Pads, Secret, SecretError, Slot
from qstack.apps.qkd.sifting import Generator, check_balance, check_enough, sift
from qstack.apps.qkd.states import Input, State
from qstack.apps.qkd.verification import LEAK_BITS
from qstack.table import IllegalInputError, Table
from qstack.wire.message import Message

UNSAID: Final = {Reason.PEER_GONE: None, Reason.PEER_ABORTED: None}
"""Reasons the peer need not be told, or cannot be."""
FRACTIONS: Final = {
    State.NEW: 0.0,
    State.GREETING: 0.0,
    State.MEASURING: 0.05,
    State.AHEAD: 0.4,
    State.BEHIND: 0.2,
    State.SIFTING: 0.4,
    State.TESTING: 0.45,
    State.READY: 0.5,
    State.RECONCILING: 0.5,
    State.VERIFYING: 0.8,
    State.AUTHENTICATING: 0.85,
    State.AMPLIFYING: 0.9,
    State.RELEASING: 0.93,
    State.CONFIRMING: 0.95,
    State.DONE: 1.0,
    State.ABORTED: 1.0,
}
Handler = Callable[[Any], None]


class Machine:
    """One end. `is_seeded` says that `generator` is no secret; raises `ParametersError`."""

    ROLE: ClassVar[Literal["alice", "bob"]]
    TABLE: ClassVar[Table[State, Input]]

    def __init__(
        self,
        *,
        parameters: Parameters,
        secret: Secret,
        generator: Generator,
        is_seeded: bool = False,
    ) -> None:
        parameters.check()
        self.state = self.TABLE.start
        self.figures = Figures(
            n=parameters.n, k=parameters.k, eps_sec=parameters.eps_sec, eps_cor=parameters.eps_cor
        )
        self._parameters = parameters
        self._secret = secret
        self._generator = generator
        self._is_seeded = is_seeded
        self._nonce = generator.bytes(16)
        self._conversation = Conversation(secret.session_key, here=secret.here, peer=secret.peer)
        self._effects: list[Effect] = []
        self._pads = Pads({}, b"")
        self._attempt = 0
        self._bases, self._outcomes = _none(), _none()
        self._key_bits, self._test_bits = _none(), _none()
        self._key = b""
        self._parts: list[Bits] = []
        self._x_errors = 0
        self._verifications = 0
        self._authenticated: list[int] = []  # lengths of what the tags cover
        self._transcript = b""
        self._handlers: dict[type[Message], Handler] = {
            messages.Hello: self._on_hello,
            messages.Bases: self._on_bases,
            messages.XOutcomes: self._on_outcomes,
            messages.Abort: self._on_abort,
            **self.handlers(),
        }

    def handle(self, event: Event) -> list[Effect]:
        """Take one event; return everything that follows from it. Nothing follows the end."""
        if self.state in {State.DONE, State.ABORTED}:
            return []
        self._effects = []
        try:
            self._take(event)
        except AbortError as error:
            self._fail(error.reason, error.detail)
        except SecretError as error:
            self._fail(Reason.SECRET, str(error))
        except IllegalInputError as error:
            self._fail(Reason.OUT_OF_STATE, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, there must be no key
            self._fail(Reason.INTERNAL, type(error).__name__)  # its text might quote what is secret
        return self._effects

    # --- what the roles add ----------------------------------------------------------------------

    def handlers(self) -> dict[type[Message], Handler]:
        """The messages of this role's peer."""
        raise AssertionError

    def on_all_measured(self) -> None:
        """The pairs are measured here, as `_outcomes`."""
        raise AssertionError

    def on_bases_known(self) -> None:
        """The peer's bases came; key and test bits are known."""
        raise AssertionError

    def on_errors_known(self) -> None:
        """The peer's test outcomes came; the error rate in X is known and tolerable."""
        raise AssertionError

    # --- the end ---------------------------------------------------------------------------------

    def _fail(self, reason: Reason, detail: str) -> None:
        self._effects = [effect for effect in self._effects if isinstance(effect, Send)]
        if reason not in UNSAID:
            self.say(messages.Abort(reason=reason.name))
        if self.state is State.CONFIRMING and self.ROLE == "bob":
            name = self._conversation.session.hex()
            detail = f"{detail}; the peer may hold key {name}, which is nobody's".lstrip("; ")
        self.step(Input.FAILURE)
        self._effects = [effect for effect in self._effects if isinstance(effect, Send)]
        self._effects.append(Abort(reason, detail))
        self._wipe()

    def finish(self, *, last: Message | None = None) -> None:
        """Give the key out, and after it say `last`."""
        said = None if last is None else Send(self._conversation.seal(last))
        note = REPRODUCIBLE if self._is_seeded else ""
        metadata = KeyMetadata(
            id=self._conversation.session,
            network=self._secret.network,
            here=self._secret.here,
            peer=self._secret.peer,
            role=self.ROLE,
            attempt=self._attempt,
            note=note,
            key_bits=self.figures.key_bits or 0,
            figures=self.figures,
        )
        self.step(Input.CONFIRMED)
        self._effects.append(Key(self._key, metadata))
        if said is not None:
            self._effects.append(said)
        self._wipe()

    def _wipe(self) -> None:
        self._pads.burn()
        for bits in (self._bases, self._outcomes, self._key_bits, self._test_bits):
            bits.fill(0)
        self._key = b""
        self._transcript = b""
        self._parts.clear()

    # --- common tools ----------------------------------------------------------------------------

    def step(self, received: Input) -> None:
        """The one place that changes the state. Raises `IllegalInputError`."""
        before = self.state
        self.state = self.TABLE.step(before, received)
        if self.state is not before:
            self.progress(FRACTIONS[self.state])

    def require(self, received: Input) -> None:
        """Raises `IllegalInputError` unless this may happen now."""
        self.TABLE.step(self.state, received)

    def progress(self, fraction: float) -> None:
        """Say where the run stands."""
        self._effects.append(Progress(self.state.name.lower(), fraction, self.figures))

    def learn(self, **figures: float | None) -> None:
        """Add figures to those known."""
        self.figures = msgspec.structs.replace(self.figures, **figures)

    def say(self, message: Message) -> None:
        """Send a message."""
        self._effects.append(Send(self._conversation.seal(message)))

    def say_bits(
        self, kind: type[messages.Bases | messages.XOutcomes | messages.Seed], bits: Bits
    ) -> None:
        """Send many bits in numbered parts."""
        parts = _parts_of(bits.size)
        for part in range(parts):
            start = part * messages.PART_BITS
            packed = pack(bits[start : start + messages.PART_BITS])
            self.say(kind(part=part, parts=parts, bits=packed))

    def collect(self, part: messages.Part, total: int, last: Input) -> Bits | None:
        """One of the parts of `total` bits: all the bits with the last part, else None.

        Raises `AbortError` for a part that is not the next one, or not as long as it must be.
        """
        parts = _parts_of(total)
        self.step(last if part.part + 1 == parts else Input.PART)
        if part.parts != parts or part.part != len(self._parts):
            detail = f"part {part.part} of {part.parts} in place of {len(self._parts)} of {parts}"
            raise AbortError(Reason.MALFORMED, detail)
        start = part.part * messages.PART_BITS
        self._parts.append(bits_of(part.bits, min(messages.PART_BITS, total - start)))
        if part.part + 1 < parts:
            return None
        bits = np.concatenate(self._parts)
        self._parts.clear()
        return bits

    def make_tag(self, slot: Slot, data: bytes) -> bytes:
        """Our tag of `data`, with the pad of `slot`."""
        return self._tag(slot, self._secret.here, data)

    def check_tag(self, slot: Slot, data: bytes, tag: bytes) -> None:
        """Raises `AbortError` unless `tag` is the peer's tag of `data`, with the pad of `slot`."""
        if not is_equal(tag, self._tag(slot, self._secret.peer, data)):
            raise AbortError(Reason.TRANSCRIPT, slot.name.lower().replace("_", " "))

    def _tag(self, slot: Slot, sender: str, data: bytes) -> bytes:
        text = slot.name.encode() + b"\n" + self._conversation.session + data
        self._authenticated.append(len(text))
        bound = sum(collision_bound(length) for length in self._authenticated)
        self.learn(eps_auth=bound)
        return one_time_tag(self._pads.hash_key(sender), self._pads.take(slot), text)

    def close_transcript(self) -> None:
        """No message from here on is covered by the tags of the transcript."""
        self._transcript = self._conversation.close_transcript(is_alice=self.ROLE == "alice")

    def plan(self, seed: bytes) -> Plan:
        """What both ends of the correction know."""
        passes_max = self._parameters.schedule.passes_max
        return Plan(n=self._parameters.n, passes_max=passes_max, seed=seed)

    def settle(self, *, z_errors: int, parities: int) -> GridRow:
        """The declared row for what is now known of this run. Raises `AbortError` without one."""
        parameters = self._parameters
        leak = parities * parameters.leak_factor
        tags = self._verifications * LEAK_BITS
        rate = z_errors / parameters.n
        limit = parameters.n * binary_entropy(rate)
        self.learn(
            qber_z=rate,
            leak_bits=leak,
            tag_bits=tags,
            efficiency=leak / limit if z_errors else None,
        )
        row = parameters.row_for(
            x_errors=self._x_errors, z_errors=z_errors, disclosed=leak + tags - LEAK_BITS
        )
        if row is None:
            self.check_z_errors(z_errors)
            raise AbortError(Reason.LEAK, f"{leak + tags} bits were disclosed")
        self.learn(tolerated_error=row.tolerated_error, key_bits=row.key_bits)
        return row

    def check_z_errors(self, z_errors: int) -> None:
        """Raises `AbortError` if so many wrong key bits are too many for every row."""
        if not self._parameters.row_for(x_errors=0, z_errors=z_errors, disclosed=0):
            detail = f"{z_errors} or more of {self._parameters.n} in Z"
            raise AbortError(Reason.ERROR_RATE, detail)

    # --- events ----------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case Begin():
                self.step(Input.BEGUN)
                self.say(self._hello())
            case Measured():
                self._on_measured(event)
            case Received():
                message = self._conversation.open(event.data)
                handler = self._handlers.get(type(message))
                if handler is None:
                    raise AbortError(
                        Reason.OUT_OF_STATE, f"{type(message).__name__} to {self.ROLE}"
                    )
                handler(message)
            case Closed():
                raise AbortError(Reason.PEER_GONE, event.reason)
            case Deadline():
                raise AbortError(Reason.TIMEOUT, f"while {self.state.name.lower()}")
            case Failure():
                raise AbortError(event.reason, event.detail)

    def _hello(self) -> messages.Hello:
        return messages.Hello(
            role=self.ROLE,
            network=self._secret.network,
            sender=self._secret.here,
            receiver=self._secret.peer,
            nonce=self._nonce,
            attempt=self._secret.next_attempt,
            is_seeded=self._is_seeded,
            parameters=self._parameters,
        )

    def _on_hello(self, hello: messages.Hello) -> None:
        self.step(Input.HELLO)
        secret = self._secret
        said = (hello.network, hello.sender, hello.receiver)
        if said != (secret.network, secret.peer, secret.here) or hello.role == self.ROLE:
            detail = f"{hello.sender} as {hello.role} to {hello.receiver} in {hello.network!r}"
            raise AbortError(Reason.IDENTITY, detail)
        if field := self._parameters.difference(hello.parameters):
            raise AbortError(Reason.PARAMETERS, field)
        self._attempt = max(secret.next_attempt, hello.attempt)
        self._pads = secret.take(self._attempt)
        self._is_seeded = self._is_seeded or hello.is_seeded
        nonces = (self._nonce, hello.nonce)
        alice, bob = nonces if self.ROLE == "alice" else nonces[::-1]
        self._conversation.begin(session_of(alice, bob, self._attempt))
        pairs = self._parameters.pairs
        share = self._parameters.fraction_x
        self._effects.append(Need(pairs, {"Z": 1 - share, "X": share}))

    def _on_abort(self, abort: messages.Abort) -> None:
        known = abort.reason in Reason.__members__
        raise AbortError(
            Reason.PEER_ABORTED, abort.reason if known else "for a reason unknown here"
        )

    def _on_measured(self, measured: Measured) -> None:
        self.require(Input.MEASURED)
        bases, outcomes = measured.bases, measured.outcomes
        if bases.shape != outcomes.shape or not (_are_bits(bases) and _are_bits(outcomes)):
            raise AbortError(Reason.MALFORMED, "measured data are two equal arrays of bits")
        if not 0 < bases.size <= self._parameters.pairs:
            detail = f"{bases.size} pairs of {self._parameters.pairs} asked for"
            raise AbortError(Reason.TOO_FEW_PAIRS, detail)
        check_balance("bases drawn here", bases, self._parameters.fraction_x)
        self._bases, self._outcomes = bases.copy(), outcomes.copy()
        self.learn(pairs=int(bases.size))
        self.on_all_measured()

    def _on_bases(self, part: messages.Bases) -> None:
        there = self.collect(part, self._bases.size, Input.BASES)
        if there is None:
            return
        parameters = self._parameters
        check_balance("bases drawn by the peer", there, parameters.fraction_x)
        sifted = sift(self._bases, there)
        self.learn(sifted_bits=int(sifted.z.size + sifted.x.size))
        check_enough(sifted, n=parameters.n, k=parameters.k)
        self._key_bits = self._outcomes[sifted.z[: parameters.n]]
        self._test_bits = self._outcomes[sifted.x[: parameters.k]]
        self._outcomes.fill(0)
        for what, bits in (("outcomes in Z", self._key_bits), ("outcomes in X", self._test_bits)):
            check_balance(what, bits, 0.5, parameters.bias_tolerated)
        self.on_bases_known()

    def _on_outcomes(self, part: messages.XOutcomes) -> None:
        there = self.collect(part, self._parameters.k, Input.OUTCOMES)
        if there is None:
            return
        check_balance("outcomes in X of the peer", there, 0.5, self._parameters.bias_tolerated)
        self._x_errors = ones(self._test_bits ^ there)
        self.learn(qber_x=self._x_errors / self._parameters.k)
        if not self._parameters.row_for(x_errors=self._x_errors, z_errors=0, disclosed=0):
            detail = f"{self._x_errors} of {self._parameters.k} in X"
            raise AbortError(Reason.ERROR_RATE, detail)
        self.on_errors_known()


def bits_of(packed: bytes, count: int) -> Bits:
    """Bits the peer sent. Raises `AbortError` unless they are exactly so many."""
    try:
        return unpack(packed, count)
    except ValueError as error:
        raise AbortError(Reason.MALFORMED, str(error)) from None


def _parts_of(total: int) -> int:
    return max(1, -(-total // messages.PART_BITS))


def _are_bits(bits: Bits) -> bool:
    return bits.ndim == 1 and bits.dtype == np.uint8 and (not bits.size or int(bits.max()) <= 1)


def _none() -> Bits:
    return np.zeros(0, dtype=np.uint8)
