"""The pre-shared secret of two nodes: a pool of random bytes that is used up, never used twice.

    session key 32 | generation | generation | ...
    generation = hash key of each node, 2 x 16 | pads of 256 attempts, 5 x 16 each      (bytes)

Each run is one attempt and takes five pads, one for each tag the two ends make; its number is the
higher of the two ends' next ones, so that both burn the same. The hash keys are renewed with each
generation, as a fixed one wears off (Abidin, Larsson, arXiv:1109.5168).

Rules
1. An attempt's pads are handed out once; the attempt is journalled before, by `journal`, which
   returns when it can no more be forgotten. If it fails nothing is handed out.
2. Attempts only go up. Those skipped are lost.
3. The last `FLOOR_ATTEMPTS` are not used: the pool must be replaced before it is empty.
4. Nothing here has a `repr`, an error text or a log line with a byte of the pool.

This file does no I/O; `secret_file.py` does.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from qstack.apps.qkd.authentication import HASH_KEY_BYTES, TAG_BYTES
from qstack.wire.message import Label, Name

SESSION_KEY_BYTES: Final = 32
GENERATION_ATTEMPTS: Final = 256
FLOOR_ATTEMPTS: Final = 8
ATTEMPTS_MAX: Final = 2**20


class Slot(IntEnum):
    """Which tag a pad is for; each is made by one end only."""

    BOB_TRANSCRIPT = 0
    ALICE_TRANSCRIPT = 1
    ALICE_SEED = 2
    BOB_CONFIRMS = 3
    ALICE_CONFIRMS = 4


ATTEMPT_BYTES: Final = TAG_BYTES * len(Slot)
GENERATION_BYTES: Final = 2 * HASH_KEY_BYTES + GENERATION_ATTEMPTS * ATTEMPT_BYTES


class SecretError(Exception):
    """The pre-shared secret cannot be used: why, and what to do."""


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose secret it is: kept at `here`, shared with `peer`."""

    network: Label
    here: Name
    peer: Name
    attempts: Annotated[int, Meta(ge=1, le=ATTEMPTS_MAX)]
    version: Annotated[int, Meta(ge=1, le=1)] = 1


class Pads:
    """The pads of one attempt, and the hash keys they go with."""

    def __init__(self, hash_keys: dict[str, bytes], pads: bytes) -> None:
        self._hash_keys = hash_keys
        self._left = {slot: pads[slot * TAG_BYTES : (slot + 1) * TAG_BYTES] for slot in Slot}

    def hash_key(self, sender: str) -> bytes:
        """r of the tags that node `sender` makes."""
        return self._hash_keys[sender]

    def take(self, slot: Slot) -> bytes:
        """s of one tag. Raises `SecretError` the second time."""
        try:
            return self._left.pop(slot)
        except KeyError:
            raise SecretError(f"the pad {slot.name} was used before") from None

    def burn(self) -> None:
        """Forget what is left."""
        self._left.clear()


class Secret:
    """The pool of one end. `journal(first, last)` must remember that these attempts are gone."""

    def __init__(
        self, header: Header, pool: bytes, *, used: int, journal: Callable[[int, int], None]
    ) -> None:
        if len(pool) != pool_bytes(header.attempts) or not 0 <= used <= header.attempts:
            raise SecretError("the pre-shared secret is damaged; make a new one for both nodes")
        self.network, self.here, self.peer = header.network, header.here, header.peer
        self._pool = bytearray(pool)
        self._attempts = header.attempts
        self._journal = journal
        self.next_attempt = used

    @property
    def attempts_left(self) -> int:
        """Runs that can still be begun."""
        return max(0, self._attempts - FLOOR_ATTEMPTS - self.next_attempt)

    @property
    def session_key(self) -> bytes:
        """The key of the message codes."""
        return bytes(self._pool[:SESSION_KEY_BYTES])

    def take(self, attempt: int) -> Pads:
        """The pads of an attempt not taken before. Raises `SecretError`; nothing is used then."""
        if attempt < self.next_attempt:
            raise SecretError(f"attempt {attempt} was used before")
        if attempt >= self._attempts - FLOOR_ATTEMPTS:
            raise SecretError(
                f"the pre-shared secret of {self.here} and {self.peer} is used up "
                f"({FLOOR_ATTEMPTS} attempts are kept back); make a new one for both nodes"
            )
        start = pads_at(attempt)
        pads = bytes(self._pool[start : start + ATTEMPT_BYTES])
        if not any(pads):
            raise SecretError(
                f"attempt {attempt} is erased already: the journal of this secret was set back; "
                "make a new one for both nodes"
            )
        try:
            self._journal(self.next_attempt, attempt)
        except OSError as error:
            raise SecretError(
                f"the use of a pad cannot be written down: {error.strerror}"
            ) from None
        for gone in range(self.next_attempt, attempt + 1):
            self._pool[pads_at(gone) : pads_at(gone) + ATTEMPT_BYTES] = bytes(ATTEMPT_BYTES)
        self.next_attempt = attempt + 1
        return Pads(self._hash_keys(attempt), pads)

    def _hash_keys(self, attempt: int) -> dict[str, bytes]:
        start = _generation_at(attempt)
        first, second = sorted((self.here, self.peer))
        middle = start + HASH_KEY_BYTES
        return {
            first: bytes(self._pool[start:middle]),
            second: bytes(self._pool[middle : middle + HASH_KEY_BYTES]),
        }


def pool_bytes(attempts: int) -> int:
    """The length of a pool for so many attempts, in whole generations."""
    return SESSION_KEY_BYTES + -(-attempts // GENERATION_ATTEMPTS) * GENERATION_BYTES


def attempts_in(length: int) -> int:
    """How many attempts a pool of so many bytes serves, in whole generations."""
    return max(0, length - SESSION_KEY_BYTES) // GENERATION_BYTES * GENERATION_ATTEMPTS


def pads_at(attempt: int) -> int:
    """Where the pads of an attempt begin in the pool."""
    within = attempt % GENERATION_ATTEMPTS
    return _generation_at(attempt) + 2 * HASH_KEY_BYTES + within * ATTEMPT_BYTES


def _generation_at(attempt: int) -> int:
    return SESSION_KEY_BYTES + attempt // GENERATION_ATTEMPTS * GENERATION_BYTES
