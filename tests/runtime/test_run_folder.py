"""Where processes find each other: folders of one user, short paths, and names that are clear."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qstack.runtime import launch
from qstack.runtime.launch import prepare, release
from qstack.runtime.run_folder import (
    SOCKET_PATH_BYTES_MAX,
    RunFolderError,
    find_node,
    private_folder,
    socket_path,
)
from qstack.runtime.run_folder import run_folder as chosen_folder
from tests.runtime.running import packaged, run_folder


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with run_folder() as folder:
        monkeypatch.setenv("QSTACK_RUN", str(folder))
        monkeypatch.delenv("QSTACK_NODE", raising=False)
        yield folder


def add_node(runs: Path, network: str, node: str) -> Path:
    path = runs / network / f"node-{node}.sock"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch()
    return path


def test_the_folder_is_the_one_chosen_then_the_users_own(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen_folder() == runs
    monkeypatch.delenv("QSTACK_RUN")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runs))
    assert chosen_folder() == runs / "qstack"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(runs))
    assert chosen_folder() == runs / f"qstack-{os.getuid()}"
    assert chosen_folder().stat().st_mode & 0o777 == 0o700


def test_no_port_is_chosen_twice() -> None:
    """One given back at once may be given out again: of 300 some nearly always were."""
    chosen = launch.with_free_ports('address = "127.0.0.1:0"\n' * 300).splitlines()
    assert len(set(chosen)) == len(chosen) == 300


def test_a_link_to_a_folder_is_not_taken_for_one(runs: Path) -> None:
    (runs / "real").mkdir(mode=0o700)
    (runs / "link").symlink_to(runs / "real")
    with pytest.raises(RunFolderError, match="is not a folder"):
        private_folder(runs / "link")


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o777])
def test_a_folder_open_to_others_is_refused(runs: Path, mode: int) -> None:
    runs.chmod(mode)
    with pytest.raises(RunFolderError, match="chmod 700"):
        chosen_folder()


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(runs: Path) -> None:
    (runs / "file").touch()
    with pytest.raises(RunFolderError, match="set QSTACK_RUN"):
        private_folder(runs / "file" / "below")


def test_a_socket_path_may_have_as_many_bytes_as_the_limit_and_no_more(runs: Path) -> None:
    room = SOCKET_PATH_BYTES_MAX - len(os.fsencode(runs)) - 1
    assert socket_path(runs, "x" * room) == runs / ("x" * room)
    with pytest.raises(RunFolderError, match="more than 100 bytes"):
        socket_path(runs, "x" * (room + 1))


def test_a_node_is_found_by_its_name(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = add_node(runs, "metro", "alice")
    assert find_node("alice") == path
    monkeypatch.setenv("QSTACK_NODE", "/elsewhere.sock")
    assert find_node("alice") == Path("/elsewhere.sock")


def test_a_node_that_is_not_there_is_answered_with_those_that_are(runs: Path) -> None:
    with pytest.raises(RunFolderError, match="no network is running here"):
        find_node("alice")
    add_node(runs, "metro", "bob")
    with pytest.raises(RunFolderError, match="running here: bob"):
        find_node("alice")


def test_a_node_of_two_networks_is_asked_about(runs: Path) -> None:
    add_node(runs, "metro", "alice")
    add_node(runs, "pair", "alice")
    with pytest.raises(RunFolderError, match=r"metro, pair.*QSTACK_NODE"):
        find_node("alice")


def test_a_run_has_ports_keys_and_a_lock_and_leaves_nothing(runs: Path) -> None:
    prepared = prepare(packaged("pair"), runs)
    addresses = [node.address for node in prepared.network.nodes.values()]
    ports = {address.port for address in addresses} - {0}
    assert len(ports) == 2
    assert sorted(path.name for path in prepared.identities.glob("*.key")) == [
        "alice.node.key",
        "bob.node.key",
        "fabric.fabric.key",
    ]
    assert prepared.credentials("alice", "node").identity.node == "alice"
    with pytest.raises(RunFolderError, match=f"is up already .process {os.getpid()}"):
        prepare(packaged("pair"), runs)
    release(prepared)
    assert list(runs.iterdir()) == []
    release(prepare(packaged("pair"), runs))


def test_a_run_that_cannot_be_prepared_leaves_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("qstack.runtime.launch.create_authority", full)
    with pytest.raises(OSError, match="no space left"):
        prepare(packaged("pair"), runs)
    assert list(runs.iterdir()) == []
