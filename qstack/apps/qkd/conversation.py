"""Messages sealed and opened, and the transcript of what was said both ways.

    session 16 | sequence 4 | frame | message code 16

Rules
1. The code binds direction, session and sequence: a message that is changed, reflected, repeated,
   left out, out of order or of another run is refused.
2. The session of the first message each way is zeros, then it is that of both ends' nonces and
   the attempt, so that it never comes twice, not even in runs with a seed.
3. The transcript holds what was sent and what was accepted, in order, each way, with lengths; it
   is closed once, before the tags that cover it.
"""

from hashlib import blake2b
from typing import Final

from qstack.apps.qkd.authentication import TAG_BYTES, is_equal, message_code
from qstack.apps.qkd.messages import REGISTRY
from qstack.apps.qkd.reasons import AbortError, Reason
from qstack.errors import PeerError
from qstack.wire.codec import encode
from qstack.wire.frame import FrameReader, pack
from qstack.wire.message import Message

BYTES_MAX: Final = 60_000
SESSION_BYTES: Final = 16
SEQUENCE_BYTES: Final = 4
PREFIX_BYTES: Final = SESSION_BYTES + SEQUENCE_BYTES
MESSAGES_MAX: Final = 2**20  # of a run, each way


def session_of(alice_nonce: bytes, bob_nonce: bytes, attempt: int) -> bytes:
    """The name of a run."""
    text = b"qstack qkd session\n" + alice_nonce + bob_nonce + attempt.to_bytes(8, "big")
    return blake2b(text, digest_size=SESSION_BYTES).digest()


class Conversation:
    """One end of it. `begin` names the session, after the first message each way."""

    def __init__(self, key: bytes, *, here: str, peer: str) -> None:
        self._key = key
        self._here, self._peer = here, peer
        self.session = bytes(SESSION_BYTES)
        self._sent, self._received = 0, 0
        self._sent_text, self._received_text = bytearray(), bytearray()
        self._is_open = True

    def begin(self, session: bytes) -> None:
        """All from now on belongs to this session."""
        self.session = session

    def seal(self, message: Message) -> bytes:
        """The bytes to send."""
        session = self.session if self._sent else bytes(SESSION_BYTES)
        text = session + self._sent.to_bytes(SEQUENCE_BYTES, "big") + pack(encode(message))
        assert len(text) + TAG_BYTES <= BYTES_MAX
        self._sent += 1
        if self._is_open:
            _append(self._sent_text, text)
        return text + message_code(self._key, sender=self._here, receiver=self._peer, data=text)

    def open(self, data: bytes) -> Message:
        """The message of received bytes. Raises `AbortError` by rule 1, or for a malformed one."""
        if not PREFIX_BYTES + TAG_BYTES < len(data) <= BYTES_MAX:
            raise AbortError(Reason.MALFORMED, f"{len(data)} bytes are no message")
        text, code = data[:-TAG_BYTES], data[-TAG_BYTES:]
        expected = message_code(self._key, sender=self._peer, receiver=self._here, data=text)
        if not is_equal(code, expected):
            raise AbortError(Reason.AUTHENTICATION)
        self._check_place(text[:SESSION_BYTES], text[SESSION_BYTES:PREFIX_BYTES])
        message = _message(text[PREFIX_BYTES:])
        self._received += 1
        if self._is_open:
            _append(self._received_text, text)
        return message

    def close_transcript(self, *, is_alice: bool) -> bytes:
        """All that was said so far, alice's part first: equal at both ends."""
        self._is_open = False
        ways = self._sent_text, self._received_text
        alice, bob = ways if is_alice else ways[::-1]
        return len(alice).to_bytes(8, "big") + bytes(alice) + bytes(bob)

    def _check_place(self, session: bytes, sequence: bytes) -> None:
        number = int.from_bytes(sequence, "big")
        # A first message names no session: one that comes late is a repeated one.
        expected = self.session if number else bytes(SESSION_BYTES)
        if session != expected:
            raise AbortError(Reason.WRONG_SESSION)
        if number != self._received:
            detail = f"message {number} in place of {self._received}"
            raise AbortError(Reason.OUT_OF_ORDER, detail)
        if number >= MESSAGES_MAX:
            raise AbortError(Reason.LIMIT, f"more than {MESSAGES_MAX} messages")


def _message(frame_bytes: bytes) -> Message:
    reader = FrameReader(BYTES_MAX)
    try:
        frames = reader.feed(frame_bytes)
        if len(frames) != 1 or not reader.is_empty:
            raise AbortError(Reason.MALFORMED, "the bytes are not one frame")
        message = REGISTRY.decode(frames[0])
    except PeerError as error:
        detail = f"{error.code.name} {error.field}".strip()
        raise AbortError(Reason.MALFORMED, detail) from None
    if message is None:
        raise AbortError(Reason.MALFORMED, "a message of a type not known here")
    return message


def _append(transcript: bytearray, text: bytes) -> None:
    transcript += len(text).to_bytes(4, "big") + text
