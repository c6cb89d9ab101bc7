"""A key on the disk: FILE, its bits and nothing else, and FILE.json, what is known of it.

Rules
1. The room is taken before the run, so that a full disk costs neither pads nor a half-made pair
   of keys. Until the key is stored only hidden files of zeros are there; they go with the run.
2. FILE has mode 0600, and never had another. It appears whole, flushed to the disk, after its
   FILE.json; whatever goes wrong, neither is there.
3. Nothing that exists is overwritten.
"""

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from qstack.apps.qkd.events import Key, KeyMetadata

METADATA_BYTES_MAX: Final = 8192
FORMAT: Final = "qstack key 1"


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
        self._parts: dict[Path, int] = {}  # hidden files and their descriptors
        try:
            self._key = self._reserve(self.path, (key_bits_max + 7) // 8)
            self._metadata = self._reserve(self.metadata_path, METADATA_BYTES_MAX)
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
        try:
            self._fill(self._metadata, metadata_text(key.metadata))
            self._fill(self._key, key.secret)
            os.rename(self._metadata, self.metadata_path)
            try:
                os.rename(self._key, self.path)
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
        for part, descriptor in self._parts.items():
            os.close(descriptor)
            part.unlink(missing_ok=True)
        self._parts.clear()

    # --- inside ----------------------------------------------------------------------------------

    def _check_free(self) -> None:
        for existing in (self.path, self.metadata_path):
            if os.path.lexists(existing):
                raise KeyFileError(f"{existing} exists, and no key is overwritten; move it away")

    def _reserve(self, path: Path, size: int) -> Path:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._parts[part] = os.open(part, flags, 0o600)
        os.posix_fallocate(self._parts[part], 0, max(1, size))
        return part

    def _fill(self, part: Path, content: bytes) -> None:
        descriptor = self._parts[part]
        if os.pwrite(descriptor, content, 0) != len(content):
            raise OSError(None, "the disk is full")
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)

    def _flush_folder(self) -> None:
        with contextlib.suppress(
            OSError
        ):  # some file systems cannot; the file is whole all the same
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def metadata_text(metadata: KeyMetadata) -> bytes:
    """What FILE.json holds: no bit of the key."""
    known = msgspec.to_builtins(metadata)
    text = {"format": FORMAT, **known, "id": metadata.id.hex()}
    return msgspec.json.format(msgspec.json.encode(text), indent=1) + b"\n"


def _said(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"cannot write {path}: {error.strerror}; make room or choose another place")
