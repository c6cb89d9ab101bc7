"""A key on the disk: FILE, its bits and nothing else, and FILE.json, what is known of it.

Rules
1. The room is taken before the run, so that a full disk costs neither pads nor a half-made pair
   of keys. Until the key is stored there are only files without a name, which go with the process
   whatever ends it; where the file system has none, hidden ones. What a killed process left of
   those goes when the same key is next begun.
2. FILE has mode 0600, and never had another. It appears whole, flushed to the disk, after its
   FILE.json; whatever goes wrong, neither is there.
3. Nothing that exists is overwritten.
"""

import contextlib
import fcntl
import os
import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from qstack.apps.qkd.events import Key, KeyMetadata

METADATA_BYTES_MAX: Final = 8192
FORMAT: Final = "qstack key 1"
MODE: Final = 0o600


class KeyFileError(Exception):
    """The key cannot be stored: why, and what to do."""


class KeyFile:
    """The place of one key. A context manager: leaving it takes away what is not stored.

    Raises `KeyFileError` if there is no room for `key_bits_max`, or something is there already.
    """

    def __init__(self, path: Path, key_bits_max: int) -> None:
        self.path = path.absolute()
        self.metadata_path = self.path.with_name(f"{path.name}.json")
        self._check_free()
        self._parts: list[_Part] = []
        try:
            for place, size in (
                (self.metadata_path, METADATA_BYTES_MAX),
                (self.path, (key_bits_max + 7) // 8),
            ):
                _remove_left(place)
                self._parts.append(_Part(place))
                self._parts[-1].reserve(size)
        except OSError as error:
            self.close()
            raise _said(self.path, error) from None

    def __enter__(self) -> "KeyFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def store(self, key: Key) -> None:
        """Put the key there. Raises `KeyFileError`; nothing is there then."""
        self._check_free()
        metadata, secret = self._parts
        try:
            metadata.fill(metadata_text(key.metadata))
            secret.fill(key.secret)
            metadata.publish()
            try:
                secret.publish()
            except OSError:
                self.metadata_path.unlink()
                raise
        except OSError as error:
            self.close()
            raise _said(self.path, error) from None
        self._flush_folder()
        self.close()

    def close(self) -> None:
        """Take away what is not stored."""
        for part in self._parts:
            part.close()
        self._parts.clear()

    # --- inside ----------------------------------------------------------------------------------

    def _check_free(self) -> None:
        for existing in (self.path, self.metadata_path):
            if os.path.lexists(existing):
                raise KeyFileError(f"{existing} exists, and no key is overwritten; move it away")

    def _flush_folder(self) -> None:
        with contextlib.suppress(OSError):  # some cannot; the file is whole all the same
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


class _Part:
    """A file for `path` that has another name, or none, until it is published.

    Hidden ones are locked while their process lives. All methods raise `OSError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hidden: Path | None = None
        descriptor = _open_without_name(path.parent)
        if descriptor is None:
            hidden = path.with_name(f".{path.name}.{os.getpid()}.part")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(hidden, flags, MODE)
            self._hidden = hidden
            with contextlib.suppress(OSError):  # where nothing can be locked nothing is removed
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._descriptor = descriptor

    def reserve(self, size: int) -> None:
        """Take room for so many bytes."""
        os.posix_fallocate(self._descriptor, 0, max(1, size))

    def fill(self, content: bytes) -> None:
        """Write the content, and nothing else, to the disk."""
        if os.pwrite(self._descriptor, content, 0) != len(content):
            raise OSError(None, "the disk is full")
        os.ftruncate(self._descriptor, len(content))
        os.fsync(self._descriptor)

    def publish(self) -> None:
        """Give it its name."""
        if self._hidden is not None:
            os.rename(self._hidden, self._path)
            self._hidden = None
            return
        # With a descriptor of a folder `os.link` is linkat, which follows /proc to the open file.
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(_by_descriptor(self._descriptor), self._path, src_dir_fd=folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """What is not published is gone."""
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)
        os.close(self._descriptor)


def _open_without_name(folder: Path) -> int | None:
    """A new file in `folder` that can be given a name later; None where there is no such thing."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, MODE)
    except OSError:
        return None
    if not os.path.exists(_by_descriptor(descriptor)):
        os.close(descriptor)
        return None
    return descriptor


def _by_descriptor(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _remove_left(path: Path) -> None:
    """Remove the hidden files for `path` that processes left which were killed: ours, unlocked."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+\.part")
    for found in path.parent.iterdir():
        if name.fullmatch(found.name):
            with contextlib.suppress(OSError):  # another process has it, or has removed it
                _remove_if_left(found)


def _remove_if_left(hidden: Path) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(hidden, flags)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.unlink()
    finally:
        os.close(descriptor)


def metadata_text(metadata: KeyMetadata) -> bytes:
    """What FILE.json holds: no bit of the key."""
    known = msgspec.to_builtins(metadata)
    text = {"format": FORMAT, **known, "id": metadata.id.hex()}
    return msgspec.json.format(msgspec.json.encode(text), indent=1) + b"\n"


def _said(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"cannot write {path}: {error.strerror}; make room or choose another place")
