"""The file of a pre-shared secret (`qstack.channel.preshared`), read and debited.

    header: one line of JSON | pool | journal: 8 bytes for each attempt taken, the next one's number

Rules
1. A file open to others is refused.
2. The journal is appended to and flushed to the disk before the pads it speaks of are used; then
   the pads are overwritten with zeros. A crash between the two loses pads, never repeats them.
3. One process has the file open at a time.
"""

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from qstack.apps.qkd.secret import (
    ATTEMPT_BYTES,
    Header,
    Secret,
    SecretError,
    attempts_in,
    pads_at,
    pool_bytes,
)
from qstack.channel import preshared

RECORD_BYTES: Final = 8
FRESH: Final = "make a new one for both nodes"


class SecretFile:
    """The open file of one end. A context manager; `secret` is what the machine is given.

    Raises `SecretError` if it is missing, damaged, of others, open to others, or in use.
    """

    def __init__(self, path: Path, *, network: str, here: str, peer: str) -> None:
        self._path = path
        self._descriptor = self._open()
        try:
            header, pool, used = self._parse(self._check_and_read())
            self._check_owner(header, (network, here, peer))
            self.secret = Secret(header, pool, used=used, journal=self._journal)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> "SecretFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; another process may then open it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # --- inside ----------------------------------------------------------------------------------

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise SecretError(
                f"cannot open the pre-shared secret {self._path}: {error.strerror}; {FRESH}, or "
                "correct the path"
            ) from None

    def _check_and_read(self) -> bytes:
        status = os.fstat(self._descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or mode & 0o077:
            raise SecretError(
                f"{self._path} is open to others (mode {mode:04o}); somebody may have read it: "
                f"{FRESH}"
            )
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SecretError(f"another process is using {self._path}") from None
        with open(self._descriptor, "rb", closefd=False) as file:
            return file.read()

    def _check_owner(self, header: Header, wanted: tuple[str, str, str]) -> None:
        network, here, peer = wanted
        if (header.network, header.here, header.peer) != wanted:
            raise SecretError(
                f"{self._path} is the secret of {header.here} with {header.peer} in network "
                f"{header.network!r}, not of {here} with {peer} in {network!r}"
            )

    def _parse(self, content: bytes) -> tuple[Header, bytes, int]:
        line, _, rest = content[: preshared.HEADER_BYTES_MAX].partition(b"\n")
        try:
            header = msgspec.json.decode(line, type=preshared.Header)
            ends = Header(
                network=header.network,
                here=header.here,
                peer=header.peer,
                attempts=attempts_in(header.length),
            )
            msgspec.convert(msgspec.to_builtins(ends), Header)
        except msgspec.MsgspecError:
            raise SecretError(f"{self._path} is not a pre-shared secret; {FRESH}") from None
        self._pool_at = len(line) + 1
        end = self._pool_at + header.length
        if not rest or len(content) < end:
            raise SecretError(f"{self._path} is cut short; {FRESH}")
        whole = (len(content) - end) // RECORD_BYTES * RECORD_BYTES
        # A record cut short by a crash was never acted upon: the next one takes its place.
        os.ftruncate(self._descriptor, end + whole)
        records = content[end : end + whole]
        used = max(
            (
                int.from_bytes(records[at : at + RECORD_BYTES], "big")
                for at in range(0, whole, RECORD_BYTES)
            ),
            default=0,
        )
        pool = content[self._pool_at : self._pool_at + pool_bytes(ends.attempts)]
        return ends, pool, used

    def _journal(self, first: int, last: int) -> None:
        if self._descriptor < 0:
            raise SecretError(f"{self._path} is closed")
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        record = (last + 1).to_bytes(RECORD_BYTES, "big")
        if os.pwrite(self._descriptor, record, end) != RECORD_BYTES:
            raise OSError(None, "the disk is full")
        os.fsync(self._descriptor)
        with contextlib.suppress(OSError):  # the journal alone forbids their use
            for gone in range(first, last + 1):
                os.pwrite(self._descriptor, bytes(ATTEMPT_BYTES), self._pool_at + pads_at(gone))
