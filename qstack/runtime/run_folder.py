"""The run folder: where the processes of a network on this host find each other.

`$QSTACK_RUN`, else `$XDG_RUNTIME_DIR/qstack`, else a per-user folder under the temporary
directory. It is 0700; a network has a folder of its own in it:

    NETWORK/node-NAME.sock     sessions of applications with node NAME
    NETWORK/fabric.sock        control of the emulated world: hold, release, truth
    NETWORK/network.toml       the network file as it runs, ports filled in
    NETWORK/up.pid             who started it
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

SOCKET_PATH_BYTES_MAX: Final = 100  # the kernel takes 107; some libraries need a few of them


class RunFolderError(Exception):
    """The run folder cannot be used; the text says why and what to do."""


def run_folder() -> Path:
    """The folder of this user's networks, made if it is missing."""
    if chosen := os.environ.get("QSTACK_RUN"):
        folder = Path(chosen)
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(runtime) / "qstack"
    else:
        folder = Path(tempfile.gettempdir()) / f"qstack-{os.getuid()}"
    return private_folder(folder)


def private_folder(folder: Path) -> Path:
    """`folder`, ours alone; made if it is missing. Raises `RunFolderError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise RunFolderError(
            f"{folder}: {error.strerror}; set QSTACK_RUN to a folder of yours"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise RunFolderError(f"{folder} is not a folder; set QSTACK_RUN to a folder of yours")
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise RunFolderError(
            f"{folder} is not private to this user; chmod 700 it, or set QSTACK_RUN to another"
        )
    return folder


def socket_path(folder: Path, name: str) -> Path:
    """The path of a socket in `folder`. Raises `RunFolderError` if it would be too long."""
    path = folder / name
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise RunFolderError(
            f"the socket path {path} has more than {SOCKET_PATH_BYTES_MAX} bytes;"
            " set QSTACK_RUN to a shorter folder"
        )
    return path


def find_node(name: str) -> Path:
    """The session socket of node `name`: `$QSTACK_NODE`, else the one in the run folder.

    Raises `RunFolderError` if there is none, or if two networks have a node of that name.
    """
    if chosen := os.environ.get("QSTACK_NODE"):
        return Path(chosen)
    folder = run_folder()
    found = sorted(folder.glob(f"*/node-{name}.sock"))
    if not found:
        running = sorted({path.stem.removeprefix("node-") for path in folder.glob("*/node-*.sock")})
        what = f"running here: {', '.join(running)}" if running else "no network is running here"
        raise RunFolderError(
            f"no node {name!r} ({what}; looked in {folder}); start one with `qstack up`,"
            " or set QSTACK_RUN or QSTACK_NODE"
        )
    if len(found) > 1:
        networks = ", ".join(path.parent.name for path in found)
        raise RunFolderError(
            f"node {name!r} is in several running networks ({networks});"
            " set QSTACK_NODE to the socket of the one you mean"
        )
    return found[0]
