"""The file of a pre-shared secret, one for each end.

    header: one line of JSON | pool | journal: 8 bytes for each attempt taken, the next one's number

Rules
1. Mode 0600, made so that it was never anything else; a file open to others is refused.
2. The journal is appended to and flushed to the disk before the pads it speaks of are used; then
   the pads are overwritten with zeros. A crash between the two loses pads, never repeats them.
3. One process has the file open at a time.
"""

import contextlib
import fcntl
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from qstack.apps.qkd.secret import (
    ATTEMPT_BYTES,
    GENERATION_ATTEMPTS,
    Header,
    Secret,
    SecretError,
    pads_at,
    pool_bytes,
)

RECORD_BYTES: Final = 8
HEADER_BYTES_MAX: Final = 1024
ATTEMPTS: Final = 4 * GENERATION_ATTEMPTS
FRESH: Final = "make a new one for both nodes"


def file_name(here: str, peer: str) -> str:
    """The name of the file that node `here` keeps for `peer`."""
    return f"{here}.{peer}.qkd"


def create_secret(
    folder: Path, network: str, first: str, second: str, *, attempts: int = ATTEMPTS
) -> tuple[Path, Path]:
    """Make the files of both ends in `folder`; each is then carried to its node, and only there.

    Raises `SecretError` if one exists or a name is no node's.
    """
    if first == second:
        raise SecretError("a pre-shared secret is of two different nodes")
    pool = secrets.token_bytes(pool_bytes(attempts))
    paths = []
    for here, peer in ((first, second), (second, first)):
        header = Header(network=network, here=here, peer=peer, attempts=attempts)
        try:
            msgspec.convert(msgspec.to_builtins(header), Header)
        except msgspec.ValidationError as error:
            raise SecretError(f"no secret can be made for this: {error}") from None
        path = folder / file_name(here, peer)
        _write_new(path, msgspec.json.encode(header) + b"\n" + pool)
        paths.append(path)
    return paths[0], paths[1]


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
        line, _, rest = content[:HEADER_BYTES_MAX].partition(b"\n")
        try:
            header = msgspec.json.decode(line, type=Header)
        except msgspec.MsgspecError:
            raise SecretError(f"{self._path} is not a pre-shared secret; {FRESH}") from None
        self._pool_at = len(line) + 1
        end = self._pool_at + pool_bytes(header.attempts)
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
        return header, content[self._pool_at : end], used

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


def _write_new(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise SecretError(
            f"there is a pre-shared secret in {path} already; move it away if a new one is meant"
        ) from None
    except OSError as error:
        raise SecretError(f"cannot write {path}: {error.strerror}") from None
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
