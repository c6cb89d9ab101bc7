"""TLS 1.3 over any trio stream, through OpenSSL memory BIOs.

The handshake is OpenSSL's; what is added is that nothing is let through silently: after it, and
before the first byte of ours, both sides look at the version, the application protocol, the key
exchange that came out (the library falls back to X25519 without a word) and the peer's name.

Rules
1. TLS 1.3, certificates of both sides, ALPN `qstack/1`; no session is kept, so none is resumed and
   there is no 0-RTT data.
2. Policy `require` accepts the key exchange X25519MLKEM768 alone.
3. One `send_all` is one write to the transport. One sender and one receiver at a time.
4. A stream whose send was interrupted is broken: a record may be half written.
5. Reading flushes nothing: what OpenSSL wants to say in reply goes out with the next send.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import trio
from cryptography import x509
from OpenSSL import SSL, crypto

from qstack.channel.ca import Credentials, CredentialsError, identity_of
from qstack.channel.ends import ChannelRefused
from qstack.channel.identity import Identity
from qstack.channel.readable import receive_when_readable
from qstack.errors import ErrorCode

Policy = Literal["require", "allow-classical"]
Expected = Identity | Callable[[Identity], bool]

ALPN: Final = b"qstack/1"
POST_QUANTUM_GROUP: Final = "X25519MLKEM768"
BINDING_LABEL: Final = b"EXPORTER-qstack-hello"
BINDING_BYTES: Final = 32
READ_BYTES: Final = 65_536  # what one read asks of the transport
RECORD_BYTES: Final = 16_384  # the most plaintext one TLS record holds (RFC 8446, 5.1)
RECORD_OVERHEAD_BYTES: Final = 64  # more than header, type and tag of any suite of TLS 1.3
FAREWELL_S: Final = 0.5  # for the last words, and for the peer to read them
FAREWELL_BYTES_MAX: Final = 1 << 20

# The peer has gone, or another task is sending or closing: no goodbye can be said.
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)

# X.509 verification results (RFC 5280 as numbered by OpenSSL, x509_vfy.h) people meet.
_CERTIFICATE_PROBLEMS: Final = {
    9: "it is not valid yet; check the clocks of both hosts",
    10: "it has expired; its operator must issue a new one",
    18: "it is signed by itself, not by this network's authority",
    19: "it is from another authority; both sides need certificates of the same root",
    20: "it is from another authority; both sides need certificates of the same root",
    21: "it is from another authority; both sides need certificates of the same root",
    26: "it is not meant for this side of a connection",
}
# What the peer's alert, or OpenSSL's own complaint, means; the first that matches.
_REASONS: Final = (
    ("certificate expired", ErrorCode.IDENTITY, "the certificate of this side has expired"),
    ("unknown ca", ErrorCode.IDENTITY, "it does not know the authority of this certificate"),
    ("certificate required", ErrorCode.IDENTITY, "it wants a certificate"),
    ("did not return a certificate", ErrorCode.IDENTITY, "the peer showed no certificate"),
    ("certificate", ErrorCode.IDENTITY, "a certificate was not accepted"),
    ("application protocol", ErrorCode.VERSION, "it does not speak the protocol qstack/1"),
    ("protocol", ErrorCode.VERSION, "no common version of TLS; 1.3 is needed"),
    ("wrong version number", ErrorCode.VERSION, "the peer does not speak TLS"),
    ("key share", ErrorCode.KEY_EXCHANGE, "no common key exchange"),
    ("handshake failure", ErrorCode.KEY_EXCHANGE, "no common key exchange or signature"),
)


@dataclass(frozen=True)
class TlsContext:
    """What the handshakes of one side have in common."""

    ssl: SSL.Context
    server: bool
    policy: Policy


def make_context(
    credentials: Credentials, *, server: bool, policy: Policy = "require"
) -> TlsContext:
    """Read the files afresh, so that a renewed certificate needs no restart.

    Raises `CredentialsError` if they cannot be used together.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    try:
        context.use_certificate_file(str(credentials.certificate_file))
        context.use_privatekey_file(str(credentials.key_file))
        context.check_privatekey()
        context.load_verify_locations(str(credentials.root_file))
    except SSL.Error:
        raise CredentialsError(
            f"{credentials.key_file} is not the key of {credentials.certificate_file}, or a file "
            "cannot be read; request and issue again"
        ) from None
    return TlsContext(harden(context, server=server), server, policy)


def harden(context: SSL.Context, *, server: bool) -> SSL.Context:
    """Set rule 1 of this module on a context that has its certificate."""
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _note_problem)
    if server:
        context.set_alpn_select_callback(_select_protocol)
    else:
        context.set_alpn_protos([ALPN])
    return context


def _note_problem(
    connection: SSL.Connection, _certificate: crypto.X509, number: int, _depth: int, accepted: int
) -> bool:
    """Remember why a certificate failed; the decision stays OpenSSL's."""
    if not accepted:
        connection.set_app_data(number)
    return bool(accepted)


def _select_protocol(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if ALPN in offered:
        return ALPN
    raise ChannelRefused(ErrorCode.VERSION, "the peer does not speak the protocol qstack/1")


class TlsStream(trio.abc.Stream):
    """An encrypted stream between two identities, over `transport`."""

    def __init__(self, transport: trio.abc.Stream, context: TlsContext) -> None:
        self.transport = transport
        self.policy = context.policy
        self.group = ""
        self.version = ""
        self.binding = b""
        self._peer: Identity | None = None
        self._tls = SSL.Connection(context.ssl, None)
        if context.server:
            self._tls.set_accept_state()
        else:
            self._tls.set_connect_state()
        self._is_open = False
        self._is_sending = False
        self._is_ended = False  # the peer said goodbye
        self._fault: ChannelRefused | None = None  # TLS failed in reading
        self._left = b""  # decrypted, and more than the reader asked for
        self._unsent = b""  # encrypted, and more than the socket took at once

    @property
    def peer(self) -> Identity:
        """Whose certificate the peer proved. Known after the handshake."""
        assert self._peer is not None, "there is no peer before the handshake"
        return self._peer

    async def handshake(self) -> None:
        """Do the handshake and judge its outcome.

        Raises `ChannelRefused`, or `trio.BrokenResourceError` if the transport ends.
        """
        await self._shake_hands()
        tls = self._tls
        self.version = tls.get_protocol_version_name()
        self.group = tls.get_group_name() or ""
        self._peer = self._identify()
        if self.version != "TLSv1.3":
            raise ChannelRefused(ErrorCode.VERSION, f"TLS 1.3 is needed, not {self.version}")
        if tls.get_alpn_proto_negotiated() != ALPN:
            raise ChannelRefused(
                ErrorCode.VERSION, "the peer did not agree to the protocol qstack/1 (ALPN)"
            )
        if self.policy == "require" and self.group != POST_QUANTUM_GROUP:
            raise ChannelRefused(
                ErrorCode.KEY_EXCHANGE,
                f"the key exchange came out as {self.group}, and {POST_QUANTUM_GROUP} is required; "
                "give the peer OpenSSL 3.5 or newer, or set the policy of both to allow-classical",
            )
        self.binding = tls.export_keying_material(BINDING_LABEL, BINDING_BYTES)
        self._is_open = True

    def verify_peer(self, expected: Expected) -> None:
        """Raise `ChannelRefused` (IDENTITY or ROLE) unless the peer is the one expected."""
        peer = self.peer
        if not isinstance(expected, Identity):
            if not expected(peer):
                raise ChannelRefused(
                    ErrorCode.IDENTITY, f"{peer.uri} is not among those the network file lists"
                )
            return
        if (peer.network, peer.node) != (expected.network, expected.node):
            raise ChannelRefused(
                ErrorCode.IDENTITY, f"the certificate is of {peer.uri}, expected {expected.uri}"
            )
        if peer.role != expected.role:
            raise ChannelRefused(
                ErrorCode.ROLE,
                f"the certificate is for the role {peer.role}, expected {expected.role}",
            )

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send all of `data` in one write.

        Raises `trio.BusyResourceError`, `trio.ClosedResourceError`, `trio.BrokenResourceError`.
        """
        if not self._is_open:  # judged first: the task that closes it may be sending its last words
            raise trio.ClosedResourceError("the stream is not open for sending")
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await self._write(data)

    def send_nowait(self, data: bytes) -> bool:
        """Encrypt and send `data` without waiting; False, and nothing done, if it cannot be now.

        It is taken as a whole: what the socket does not take at once is kept, and goes out before
        anything else (`has_unsent`, `drain`). Never raises: the reader learns of a broken stream.
        """
        is_ready = self._is_open and not self._is_sending and not self._unsent
        if not is_ready or not isinstance(self.transport, trio.SocketStream):
            return False
        try:
            self._tls.sendall(data)
        except SSL.Error:
            return False
        pending = self._encrypted(len(data) + RECORD_OVERHEAD_BYTES * 8)
        try:
            sent = os.write(self.transport.socket.fileno(), pending)
        except BlockingIOError:
            sent = 0
        except OSError:
            return True  # the connection is gone, and the reader is about to see it
        self._unsent = pending[sent:]
        return True

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for `drain`."""
        return bool(self._unsent)

    async def drain(self) -> None:
        """Send what the socket did not take at once. Raises as `send_all` does."""
        if self._unsent and not self._is_sending:
            await self._write_pending()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """All bytes decrypted so far, at least one; empty after the peer's goodbye.

        Raises `trio.BrokenResourceError` for a broken or truncated stream; its cause is a
        `ChannelRefused` if TLS said why.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        data = self._left
        if self._fault is not None and not data:
            raise self._broken() from self._fault
        if data or self._is_ended:
            await trio.lowlevel.checkpoint()
            self._left = b""
        else:
            data = await self._read()
        if max_bytes is not None and len(data) > max_bytes:
            self._left = data[max_bytes:]
            return data[:max_bytes]
        return data

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the transport."""
        await self.transport.wait_send_all_might_not_block()

    async def refuse(self, last_words: bytes = b"") -> None:
        """Send the last words, give the peer time to read them, and close.

        A socket closed with unread bytes resets the connection, and the peer would never learn
        why; so read and forget what still comes, for `FAREWELL_S` at most.
        """
        self._is_open = False
        try:
            with trio.move_on_after(FAREWELL_S), suppress(*_GONE):
                await self._say_goodbye(last_words)
                if isinstance(self.transport, trio.abc.HalfCloseableStream):
                    await self.transport.send_eof()
                    await self._forget_rest()
        finally:
            await trio.aclose_forcefully(self.transport)

    async def aclose(self) -> None:
        """Say goodbye, as far as that is possible without waiting long, and close."""
        was_open, self._is_open = self._is_open, False
        try:
            if was_open:
                with trio.move_on_after(FAREWELL_S), suppress(*_GONE):
                    await self._say_goodbye(b"")
        finally:
            await self.transport.aclose()

    async def _shake_hands(self) -> None:
        tls = self._tls
        while True:
            try:
                tls.do_handshake()
            except SSL.WantReadError:
                is_done = False
            except (SSL.Error, ChannelRefused) as error:
                with suppress(trio.BrokenResourceError):
                    await self._write_pending()  # the alert
                raise self._refusal(error) from None
            else:
                is_done = True
            await self._write_pending()
            if is_done:
                self._left = self._decrypted()  # the peer's first bytes may be here already
                return
            data = await self.transport.receive_some(READ_BYTES)
            if not data:
                raise trio.BrokenResourceError("the peer ended the connection in the handshake")
            tls.bio_write(data)

    def _identify(self) -> Identity:
        certificate = self._tls.get_peer_certificate(as_cryptography=True)
        if not isinstance(certificate, x509.Certificate):
            raise ChannelRefused(ErrorCode.IDENTITY, "the peer showed no certificate")
        try:
            return identity_of(certificate)
        except ValueError as error:
            raise ChannelRefused(
                ErrorCode.IDENTITY, f"the peer's certificate names nobody: {error}"
            ) from None

    async def _read(self) -> bytes:
        while True:
            if isinstance(self.transport, trio.SocketStream):
                received = await receive_when_readable(self.transport, READ_BYTES)
            else:
                received = bytes(await self.transport.receive_some(READ_BYTES))
            if not received:
                raise trio.BrokenResourceError("the connection was cut: no goodbye came before")
            self._tls.bio_write(received)
            data = self._decrypted()
            if data or self._is_ended:
                return data
            if self._fault is not None:
                raise self._broken() from self._fault

    def _decrypted(self) -> bytes:
        """All plaintext there is; what ended it is noted for the next read."""
        parts: list[bytes] = []
        try:
            while True:
                parts.append(self._tls.recv(RECORD_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._is_ended = True
        except SSL.Error as error:
            self._fault = self._refusal(error)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _broken(self) -> trio.BrokenResourceError:
        assert self._fault is not None
        return trio.BrokenResourceError(self._fault.detail)

    async def _write(self, data: bytes | bytearray | memoryview) -> None:
        size = len(data)
        if not size:
            await trio.lowlevel.checkpoint()
            return
        try:
            self._tls.sendall(data)
        except SSL.Error as error:  # after a fatal alert, which the next read explains
            self._is_open = False
            self._fault = self._fault or self._refusal(error)
            raise self._broken() from self._fault
        await self._write_pending(size + RECORD_OVERHEAD_BYTES * (size // RECORD_BYTES + 8))

    async def _write_pending(self, size: int = READ_BYTES) -> None:
        """Hand what OpenSSL has encrypted, about `size` bytes, to the transport."""
        data = self._encrypted(size)
        if not data:
            return
        self._is_sending = True
        try:
            await self.transport.send_all(data)
        except BaseException:
            self._is_open = False
            raise
        finally:
            self._is_sending = False

    def _encrypted(self, size: int) -> bytes:
        """All that OpenSSL wants sent: in one piece if it is shorter than `size`."""
        unsent, self._unsent = self._unsent, b""
        parts = [unsent] if unsent else []
        try:
            while not parts or parts[-1] is unsent or len(parts[-1]) == size:
                parts.append(self._tls.bio_read(size))
        except SSL.WantReadError:
            pass
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _say_goodbye(self, last_words: bytes) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        with suppress(SSL.Error):  # after a fatal alert, or before the handshake, there is none
            if last_words:
                self._tls.sendall(last_words)
            self._tls.shutdown()
        await self._write_pending()

    async def _forget_rest(self) -> None:
        forgotten = 0
        while forgotten < FAREWELL_BYTES_MAX:
            data = await self.transport.receive_some(READ_BYTES)
            if not data:
                return
            forgotten += len(data)

    def _refusal(self, error: Exception) -> ChannelRefused:
        """What a failure of TLS means for somebody who has never read OpenSSL's sources."""
        if isinstance(error, ChannelRefused):
            return error
        stack = error.args[0] if error.args and isinstance(error.args[0], list) else []
        reason = "; ".join(str(entry[2]) for entry in stack) or "the connection was cut"
        number = self._tls.get_app_data()
        if isinstance(number, int) and "alert" not in reason:
            problem = _CERTIFICATE_PROBLEMS.get(number, f"X.509 verification result {number}")
            return ChannelRefused(ErrorCode.IDENTITY, f"the peer's certificate: {problem}")
        for words, code, meaning in _REASONS:
            if words in reason:
                detail = f"{meaning} (TLS: {reason})"
                return ChannelRefused(code, detail, by_peer="alert" in reason)
        return ChannelRefused(ErrorCode.MALFORMED, f"TLS failed: {reason}")
