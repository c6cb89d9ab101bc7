"""Preparing a network to run on this host: run folder, ports, authority, identities, secrets."""

import fcntl
import os
import re
import shutil
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qstack.channel.ca import (
    ROOT_CERTIFICATE,
    Credentials,
    create_authority,
    file_stem,
    issue,
    request,
)
from qstack.channel.identity import Identity
from qstack.channel.preshared import create_preshared
from qstack.runtime.fabric_link import FABRIC_NODE
from qstack.runtime.network_file import Network, load_network
from qstack.runtime.run_folder import RunFolderError, private_folder, socket_path

_FREE_PORT: Final = re.compile(r'(?m)^(\s*address\s*=\s*"[^"#]*):0(")')
_PROFILE_PATH: Final = re.compile(r'(?m)^(\s*profile\s*=\s*")([^"]*[./][^"]*)(")')
_NETWORK_TABLE: Final = re.compile(r"(?m)^\s*\[network\].*$")
LOCK: Final = "up.pid"
SECRET_BYTES: Final = 20_544
"""Of each pre-shared secret: 248 runs of key distribution, while the network is up."""


@dataclass(frozen=True)
class Prepared:
    """A network that can be started: its file as it runs, and where its things are."""

    network: Network
    network_file: Path
    folder: Path
    identities: Path
    root_certificate: Path
    lock: int  # an open file; while it is, the network is ours to run

    def session_socket(self, node: str) -> Path:
        """Where applications find `node`."""
        return socket_path(self.folder, f"node-{node}.sock")

    def station_socket(self, station: str) -> Path:
        """Where `qstack status` finds a named heralding station."""
        return socket_path(self.folder, f"station-{station}.sock")

    @property
    def control_socket(self) -> Path:
        """Where the fabric is controlled."""
        return socket_path(self.folder, "fabric.sock")

    def credentials(self, node: str, role: str) -> Credentials:
        """The credentials of one process. Raises `CredentialsError`."""
        return Credentials.in_folder(self.identities, Identity(self.network.name, node, role))


def prepare(source: Path, runs: Path, *, cutoff_ns: int | None = None) -> Prepared:
    """Make `runs`/NETWORK ready: ports chosen, an authority and identities made for this run.

    `cutoff_ns` is used if the file gives none.

    Raises `NetworkFileError`, `RunFolderError` (also when the network is up already).
    """
    network = load_network(source)
    for name in network.nodes:
        socket_path(runs / network.name, f"node-{name}.sock")  # too long a path is said now
    for name in network.stations:
        socket_path(runs / network.name, f"station-{name}.sock")
    folder = private_folder(runs / network.name)
    lock = _take_lock(folder / LOCK, network.name)
    try:
        added = "" if cutoff_ns is None or network.cutoff_ns else f"cutoff_ns = {cutoff_ns}"
        return _fill(folder, source, network.name, lock, added)
    except BaseException:
        _remove(folder, lock)
        raise


def _fill(folder: Path, source: Path, network_name: str, lock: int, added: str) -> Prepared:
    """Write what a run needs into its folder; `added` is a line for [network]."""
    text = with_free_ports(source.read_text())
    text = _PROFILE_PATH.sub(lambda match: _absolute(match, source.parent), text)
    text = _NETWORK_TABLE.sub(lambda match: f"{match[0]}\n{added}", text, count=1)
    network_file = folder / "network.toml"
    network_file.write_text(text)
    network = load_network(network_file)
    for old in (folder / "ca", folder / "identities"):
        shutil.rmtree(old, ignore_errors=True)
    root = create_authority(folder / "ca", network_name)
    identities = private_folder(folder / "identities")
    shutil.copy(root, identities / ROOT_CERTIFICATE)
    for name in network.participants:
        enrol(folder / "ca", identities, Identity(network.name, name, network.role_of(name)))
    enrol(folder / "ca", identities, Identity(network.name, FABRIC_NODE, "fabric"))
    for link in network.links.values():  # others: `qstack ca secret`
        create_preshared(identities, network.name, *link.ends, length=SECRET_BYTES)
    return Prepared(network, network_file, folder, identities, root, lock)


def enrol(authority: Path, folder: Path, identity: Identity) -> None:
    """Key, request and certificate of one identity, on one host."""
    certificate = issue(authority, request(folder, identity), identity)
    (folder / f"{file_stem(identity)}.pem").write_bytes(certificate)


def release(prepared: Prepared) -> None:
    """Remove what a run left in its folder: sockets, keys, authority, lock."""
    _remove(prepared.folder, prepared.lock)


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def with_free_ports(text: str) -> str:
    """Free ports for all that leave theirs open: no port twice, so all are held until the last."""
    with ExitStack() as held:

        def chosen(match: re.Match[str]) -> str:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            return f"{match[1]}:{probe.getsockname()[1]}{match[2]}"

        return _FREE_PORT.sub(chosen, text)


def _absolute(match: re.Match[str], folder: Path) -> str:
    return f"{match[1]}{(folder / match[2]).resolve()}{match[3]}"


def _take_lock(lock: Path, network: str) -> int:
    """One run of a network at a time and user. The kernel drops the lock of a run that died."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 20).decode(errors="replace")
        os.close(descriptor)
        raise RunFolderError(
            f"network {network!r} is up already (process {owner}); stop it with Ctrl-C there,"
            " or set QSTACK_RUN to another folder for a second one"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor
