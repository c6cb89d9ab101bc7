"""The secret two nodes share beforehand: made with their certificates, a file for each of them.

    header: one line of JSON | random bytes, the same in both files

Rules
1. A file has mode 0600, and never had another; one that exists is not overwritten.
2. Each file is carried to its node and only there, as a private key would be.
3. What the bytes are for is their user's business, who uses none of them twice.
"""

import os
import secrets
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct, json

from qstack.channel.ca import CredentialsError
from qstack.channel.identity import Identity

LENGTH: Final = 82_080
"""Random bytes of a secret unless told: 1016 runs of key distribution."""
LENGTH_MAX: Final = 2**30
HEADER_BYTES_MAX: Final = 1024


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose secret it is: kept at `here`, shared with `peer`; `length` random bytes follow."""

    network: Annotated[str, Meta(max_length=63)]
    here: Annotated[str, Meta(max_length=63)]
    peer: Annotated[str, Meta(max_length=63)]
    length: Annotated[int, Meta(ge=1, le=LENGTH_MAX)]
    version: Annotated[int, Meta(ge=1, le=1)] = 1


def file_name(here: str, peer: str) -> str:
    """The name of the file that node `here` keeps for `peer`."""
    return f"{here}.{peer}.secret"


def create_preshared(
    folder: Path, network: str, first: str, second: str, *, length: int = LENGTH
) -> tuple[Path, Path]:
    """Make the files of both ends in `folder`.

    Raises `CredentialsError` if one exists, cannot be written, or a name is no node's.
    """
    if first == second:
        raise CredentialsError("a pre-shared secret is of two different nodes")
    if not 1 <= length <= LENGTH_MAX:
        raise CredentialsError(f"a pre-shared secret has 1 to {LENGTH_MAX} bytes, not {length}")
    try:
        for name in (first, second):
            Identity(network, name, "node")
    except ValueError as error:
        raise CredentialsError(str(error)) from None
    ends = (first, second), (second, first)
    paths = folder / file_name(first, second), folder / file_name(second, first)
    for path in paths:
        if path.exists():
            raise CredentialsError(
                f"there is a pre-shared secret in {path} already; move it away if a new one is"
                " meant, and make both ends anew"
            )
    content = secrets.token_bytes(length)
    for path, (here, peer) in zip(paths, ends, strict=True):
        header = Header(network=network, here=here, peer=peer, length=length)
        try:
            _write_new(path, json.encode(header) + b"\n" + content)
        except OSError as error:
            for half_made in paths:
                half_made.unlink(missing_ok=True)
            raise CredentialsError(f"cannot write {path}: {error.strerror}") from None
    return paths


def _write_new(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
