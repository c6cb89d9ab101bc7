"""Preparing a network to run on this host: its run folder, ports, authority and identities."""

import os
import re
import shutil
import socket
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
from qstack.runtime.fabric_link import FABRIC_NODE
from qstack.runtime.network_file import Network, load_network
from qstack.runtime.run_folder import RunFolderError, private_folder, socket_path

_FREE_PORT: Final = re.compile(r'(?m)^(\s*address\s*=\s*"[^"#]*):0(")')
_PROFILE_PATH: Final = re.compile(r'(?m)^(\s*profile\s*=\s*")([^"]*[./][^"]*)(")')
LOCK: Final = "up.pid"


@dataclass(frozen=True)
class Prepared:
    """A network that can be started: its file as it runs, and where its things are."""

    network: Network
    network_file: Path
    folder: Path
    identities: Path
    root_certificate: Path

    def session_socket(self, node: str) -> Path:
        """Where applications find `node`."""
        return socket_path(self.folder, f"node-{node}.sock")

    @property
    def control_socket(self) -> Path:
        """Where the fabric is controlled."""
        return socket_path(self.folder, "fabric.sock")

    def credentials(self, node: str, role: str) -> Credentials:
        """The credentials of one process. Raises `CredentialsError`."""
        return Credentials.in_folder(self.identities, Identity(self.network.name, node, role))


def prepare(source: Path, runs: Path) -> Prepared:
    """Make `runs`/NETWORK ready: ports chosen, an authority and identities made for this run.

    Raises `NetworkFileError`, `RunFolderError` (also when the network is up already).
    """
    network = load_network(source)
    folder = private_folder(runs / network.name)
    _take_lock(folder / LOCK, network.name)
    text = _FREE_PORT.sub(_with_free_port, source.read_text())
    text = _PROFILE_PATH.sub(lambda match: _absolute(match, source.parent), text)
    network_file = folder / "network.toml"
    network_file.write_text(text)
    network = load_network(network_file)
    for old in (folder / "ca", folder / "identities"):
        shutil.rmtree(old, ignore_errors=True)
    root = create_authority(folder / "ca", network.name)
    identities = private_folder(folder / "identities")
    shutil.copy(root, identities / ROOT_CERTIFICATE)
    for name in network.nodes:
        enrol(folder / "ca", identities, Identity(network.name, name, "node"))
    enrol(folder / "ca", identities, Identity(network.name, FABRIC_NODE, "fabric"))
    prepared = Prepared(network, network_file, folder, identities, root)
    for name in network.nodes:
        prepared.session_socket(name)  # a path that is too long is said now
    return prepared


def enrol(authority: Path, folder: Path, identity: Identity) -> None:
    """Key, request and certificate of one identity, on one host."""
    certificate = issue(authority, request(folder, identity), identity)
    (folder / f"{file_stem(identity)}.pem").write_bytes(certificate)


def release(prepared: Prepared) -> None:
    """Remove what a run left in its folder: sockets, keys, authority, lock."""
    shutil.rmtree(prepared.folder, ignore_errors=True)


def _with_free_port(match: re.Match[str]) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"{match[1]}:{port}{match[2]}"


def _absolute(match: re.Match[str], folder: Path) -> str:
    return f"{match[1]}{(folder / match[2]).resolve()}{match[3]}"


def _take_lock(lock: Path, network: str) -> None:
    """One run of a network at a time and user; a run that died leaves a lock nobody holds."""
    try:
        owner = int(lock.read_text())
        os.kill(owner, 0)
    except (OSError, ValueError):
        lock.write_text(str(os.getpid()))
        return
    if owner != os.getpid():
        raise RunFolderError(
            f"network {network!r} is up already (process {owner}); stop it with Ctrl-C there,"
            " or set QSTACK_RUN to another folder for a second one"
        )
